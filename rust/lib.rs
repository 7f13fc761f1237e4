//! Batched recurrent networks on the CPU's vector units: forward, and backpropagation through time.

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod activation;
mod boundary;
mod buffer;
mod cell;
pub mod data;
mod dropout;
mod error;
mod identity;
mod kernel;
mod layer;
pub mod loss;
mod network;
pub mod optim;
pub mod parallel;
mod params;
mod pass;
#[cfg(feature = "python")]
mod python;
mod recurrent;
mod reduce;
mod sequence;
mod simd;
mod stack;
mod steps;
mod train;

pub use cell::CellKind;
pub use error::{Error, Result};
pub use identity::{Identity, Remembrance};
pub use network::{Input, Network, NetworkConfig, Output};
pub use params::{Entry, Layout};
pub use recurrent::{Gradients, Inputs, Recurrent, Tape};
pub use sequence::Element;
pub use simd::{Isa, Real};
pub use stack::{Config, Stack};
pub use steps::Steps;
pub use train::{Epoch, Progress, Stopped, Targets, Training};
