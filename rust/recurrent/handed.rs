//! Results for a caller to keep: in the arrays that they were computed in, where that can be.

use std::mem;

use super::{Gradients, Recurrent, Tape};
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::sequence::Element;
use crate::simd::Real;

impl<E: Element> Recurrent<E> {
    /// Memory for numbers that go out, of unspecified value.
    pub(crate) fn room(&self, numbers: usize) -> Buffer<E> {
        self.stack.arena().take(numbers)
    }

    /// A pass's output as an array of the caller's axes, after all else that it is asked for: one
    /// that need not keep it gives its own away.
    ///
    /// # Errors
    /// As [`Recurrent::output`].
    pub(crate) fn take_output(&self, tape: &mut Tape<E>) -> Result<Buffer<E>> {
        self.check_owner(tape)?;
        let (steps, total, axes) = (&tape.steps, tape.total, tape.axes);
        let (columns, arena) = (self.stack.output_columns(), self.stack.arena());
        let pass = tape.pass.as_mut().filter(|_| !tape.gave_output);
        let layer = pass.and_then(|pass| pass.layers.last_mut());
        let layer = layer.ok_or(Error::TapeUsed)?;
        let there = axes.strides(steps, total, columns.real());
        if tape.keep.gives_output() && there == Some(layer.y_strides) {
            tape.gave_output = true;
            return Ok(mem::replace(&mut layer.y, arena.take(0)));
        }
        let taken = axes.copied(&layer.y, layer.y_strides, (steps, total), columns, arena);
        taken.map_err(|error| Error::shape("output", "rows of a batch", error))
    }

    /// The gradient of the input as an array of the caller's axes, if it was asked for, once.
    ///
    /// # Errors
    /// None that can be made from outside.
    pub(crate) fn take_dx(&self, gradients: &mut Gradients<E>) -> Result<Option<Buffer<E>>> {
        let Some(rows) = gradients.inputs.dx.take() else {
            return Ok(None);
        };
        let how = (&gradients.steps, gradients.total);
        let (strides, columns) = (gradients.dx_strides, gradients.dx_columns);
        let arena = self.stack.arena();
        let taken = gradients.axes.hand_out(rows, strides, how, columns, arena);
        let taken = taken.map_err(|error| Error::shape("dx", "rows of a batch", error))?;
        Ok(Some(taken))
    }
}

impl<E: Real> Gradients<E> {
    /// The gradients of all weights.
    pub(crate) fn take_weights(self) -> Buffer<E> {
        self.weights
    }
}
