//! What goes into a pass, what is kept of it, and what backward finds.

use ndarray::ArrayView3;

use crate::boundary::{Axes, Rows};
use crate::buffer::Buffer;
use crate::identity::Identity;
use crate::kernel::pack::Columns;
use crate::pass::Pass;
use crate::simd::Real;
use crate::stack::InputGradients;
use crate::steps::{Steps, Strides};

/// What goes into a pass. Letters: T steps, B sequences, I inputs, H hidden units, W columns of the
/// hidden state ([`Config::state_size`](crate::stack::Config::state_size): H, or those of a
/// projection), L layers, D directions.
#[derive(Clone, Copy)]
pub struct Inputs<'a, E> {
    /// (T, B, I), or (R, I) in packed order
    pub x: Rows<'a, E>,
    /// Initial hidden state (L·D, B, W), or zeros.
    pub h0: Option<ArrayView3<'a, E>>,
    /// Initial memory (L·D, B, H) of a cell that has one, or zeros.
    pub c0: Option<ArrayView3<'a, E>>,
    /// Length of each sequence, 0 to T in any order; else all are T steps long. Packed rows need
    /// the lengths, which descend.
    pub lengths: Option<&'a [i64]>,
}

/// What a pass keeps for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    Nothing,
    /// All but the input, and the output where it can be given away: backward is given both again.
    #[cfg_attr(not(feature = "python"), expect(dead_code, reason = "Python's alone"))]
    Inside,
    /// All but the input, which backward is given again.
    #[cfg_attr(not(feature = "python"), expect(dead_code, reason = "torch's alone"))]
    Rest,
    All,
}

impl Keep {
    /// Whether the output may leave in the memory that it was computed in.
    pub fn gives_output(self) -> bool {
        matches!(self, Keep::Nothing | Keep::Inside)
    }
}

/// What backward is given of the rows outside.
#[derive(Clone, Copy)]
pub(crate) struct Outside<'a, E> {
    /// The input, if the tape did not keep it.
    pub x: Option<Rows<'a, E>>,
    /// The output, if the tape did not keep it.
    pub output: Option<Rows<'a, E>>,
    /// The gradient of the output; an absent one is zero.
    pub d_output: Option<Rows<'a, E>>,
}

/// A pass over a batch, from which outputs are read and backward starts.
pub struct Tape<E> {
    pub(super) pass: Option<Pass<E>>,
    /// A copy of what went in, in packed order, if it is kept: the caller may write to its own.
    pub(super) x: Option<Buffer<E>>,
    pub(super) steps: Steps,
    /// T of the array that came in.
    pub(super) total: usize,
    /// Those of the caller's arrays.
    pub(super) axes: Axes,
    pub(super) keep: Keep,
    /// Whether the output was given away.
    pub(super) gave_output: bool,
    /// Whether it was made with weights that somebody lent.
    pub(super) is_lent: bool,
    pub(super) owner: Identity,
    pub(super) version: u64,
}

/// Gradients that backward found.
pub struct Gradients<E> {
    pub(super) owner: Identity,
    pub(super) inputs: InputGradients<E>,
    /// How the rows of the input's gradient lie, and their columns.
    pub(super) dx_strides: Strides,
    pub(super) dx_columns: Columns,
    pub(super) steps: Steps,
    pub(super) total: usize,
    pub(super) axes: Axes,
    pub(super) weights: Buffer<E>,
}

impl<E: Real> Gradients<E> {
    /// The gradients of all weights, in the order of
    /// [`Recurrent::layout`](super::Recurrent::layout).
    pub fn weights(&self) -> &[E] {
        &self.weights
    }
}

impl<E> Tape<E> {
    /// Sequences, B.
    pub fn batch(&self) -> usize {
        self.steps.batch()
    }
    /// Steps of all sequences together, R.
    pub fn rows(&self) -> usize {
        self.steps.rows()
    }
    /// Whether it was made with weights that somebody lent.
    #[cfg(feature = "python")]
    pub(crate) fn is_lent(&self) -> bool {
        self.is_lent
    }
    /// Whether the output was given away.
    #[cfg(feature = "python")]
    pub(crate) fn gave_output(&self) -> bool {
        self.gave_output
    }
    /// Steps of the array that came in, T.
    pub fn total(&self) -> usize {
        self.total
    }
}
