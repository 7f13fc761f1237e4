//! Batched recurrent networks on the CPU's vector units: forward, and backpropagation through time.
//!
//! [`Recurrent`] is a stack of layers with its weights, over ndarray views; [`Network`] adds an
//! embedding beneath, a linear head above and, with [`Run`], the loop over epochs. Both exist
//! for `f32` and `f64`, and neither needs Python (feature `python` builds the extension module).
//!
//! # Conventions
//!
//! * T steps, B sequences, I inputs, H hidden units, L layers, D directions. Arrays are (T, B, I),
//!   (T, B, D·H) and, for states, (L·D, B, H), of any strides.
//! * Names, shapes and gate order of the weights are torch's: `weight_ih_l0` (G·H, I),
//!   `weight_hh_l0` (G·H, H), `bias_ih_l0`, `bias_hh_l0`, then `..._reverse` and the next layer;
//!   LSTM's gates are i f g o, GRU's r z n.
//! * With [`Config::proj_size`] the hidden state is a projection of the H units. It has that many
//!   numbers for H wherever it stands, in outputs, states and the columns of `weight_hh_l0`;
//!   memories keep H. `weight_hr_l0` follows the biases.
//! * Weights and their gradients are flat buffers in the order of a [`Layout`]. Gradients are
//!   written, not added to.
//! * Sequences of a batch may have any length, zero included. A step after a sequence's end costs
//!   nothing, gives zeros and has no gradient.
//! * The bits of a sequence's output depend on the weights, the sequence and the instruction set
//!   ([`Isa`]) alone: not on threads, nor on what else is in its batch.
//!
//! # Example
//!
//! ```
//! use ndarray::Array3;
//! use rnncore::{CellKind, Config, Inputs, Recurrent};
//!
//! let mut gru = Recurrent::<f32>::new(Config {
//!     cell: CellKind::Gru,
//!     input_size: 3,
//!     hidden_sizes: vec![8],
//!     bias: true,
//!     bidirectional: false,
//!     dropout: 0.0,
//!     locked_dropout: false,
//!     proj_size: 0,
//! })?;
//! gru.update(|weights| {
//!     weights.fill(0.1);
//!     Ok(())
//! })?;
//! let x = Array3::ones((5, 2, 3));
//! let inputs = Inputs { x: x.view().into(), h0: None, c0: None, lengths: Some(&[5, 2]) };
//! let mut tape = gru.forward(inputs, true, None)?;
//! let mut output = Array3::zeros((5, 2, 8));
//! gru.output(&tape, output.view_mut())?;
//! assert!(output[[1, 1, 0]] > 0.0 && output[[2, 1, 0]] == 0.0);
//!
//! let d_output = Array3::ones(output.dim());
//! let gradients = gru.backward(&mut tape, Some(d_output.view().into()), None, None)?;
//! assert_eq!(gradients.weights().len(), gru.layout().size());
//! # Ok::<(), rnncore::Error>(())
//! ```

#![deny(missing_docs, unsafe_op_in_unsafe_fn)]
#![warn(clippy::undocumented_unsafe_blocks)]

mod activation;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod boundary;
mod buffer;
mod cell;
pub mod data;
mod dropout;
mod error;
#[cfg(any(feature = "python", test))]
mod guarded;
mod identity;
mod kernel;
mod layer;
mod linear;
pub mod loss;
mod network;
pub mod optim;
pub mod parallel;
mod params;
mod pass;
mod pooling;
#[cfg(feature = "python")]
mod python;
mod recurrent;
mod reduce;
mod sequence;
mod simd;
mod stack;
mod steps;
mod stream;
mod train;

pub use boundary::{Rows, RowsMut};
pub use cell::{CellKind, Nonlinearity};
pub use error::{Error, Result, Stopped};
pub use identity::{Identity, Remembrance};
pub use network::{Examples, Input, Network, NetworkConfig, Output, Targets};
pub use params::{Entry, Layout};
pub use recurrent::{Gradients, Inputs, Recurrent, Tape};
pub use sequence::Element;
pub use simd::{Isa, Real};
pub use stack::{Config, Stack};
pub use stream::{Stream, StreamState};
pub use train::{Bptt, Epoch, EpochOptions, Position, Progress, Run};
