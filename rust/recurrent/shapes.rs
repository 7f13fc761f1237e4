//! What callers' arrays must be like, and how the rows of a batch lie in them.

use super::{Inputs, Recurrent, Tape};
use crate::boundary::Rows;
use crate::error::{Error, Result};
use crate::kernel::pack::Columns;
use crate::params::check_room;
use crate::sequence::Element;
use crate::steps::Steps;

/// As Python writes it.
fn shape_of(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().map(usize::to_string).collect();
    match sizes.as_slice() {
        [one] => format!("({one},)"),
        _ => format!("({})", sizes.join(", ")),
    }
}

/// Checks the shape of an argument.
pub(super) fn expect_shape(argument: &str, actual: &[usize], expected: &[usize]) -> Result<()> {
    if actual == expected {
        return Ok(());
    }
    Err(Error::shape(argument, shape_of(expected), shape_of(actual)))
}

/// Checks the shape of rows that lie as those of the pass did.
pub(super) fn expect_rows<E>(
    argument: &str,
    tape: &Tape<E>,
    actual: &[usize],
    columns: Columns,
) -> Result<()> {
    let (steps, width) = (&tape.steps, columns.real());
    match actual.len() {
        2 => expect_shape(argument, actual, &[steps.rows(), width]),
        _ => expect_shape(argument, actual, &[tape.total, steps.batch(), width]),
    }
}

impl<E: Element> Recurrent<E> {
    /// Whether there is room for what is as large as the caller's arrays are, whatever the lengths:
    /// the order of the rows, the outputs, the states and, where backward follows, the gradient of
    /// the input. Arrays may be larger than all memory, as those without steps, or whose steps are
    /// one.
    fn check_batch(&self, x: &Rows<E>, is_kept: bool) -> Result<()> {
        let (total, batch, rows) = match *x.shape() {
            [total, batch, _] => (total, batch, total.saturating_mul(batch)),
            [rows, ..] => (rows, 0, rows),
            [] => (0, 0, 0),
        };
        let of_input = if is_kept { self.config().input_size } else { 0 };
        let row = self.stack.output_columns().real() + of_input;
        let states = self.config().states_shapes(1);
        let sequence: usize = states.iter().map(|of| of.iter().product::<usize>()).sum();
        let numbers = total
            .saturating_add(batch.saturating_mul(sequence))
            .saturating_add(rows.saturating_mul(row));
        check_room::<E>(numbers, "numbers of a batch")
    }

    /// Checks the shapes of a hidden state and of a memory, where they are given. A cell without
    /// memory takes none, nor its gradient.
    pub(super) fn expect_states(
        &self,
        batch: usize,
        [hidden, memory]: [(&str, Option<&[usize]>); 2],
    ) -> Result<()> {
        let expected = self.config().states_shapes(batch);
        if let (name, Some(_)) = memory
            && !self.config().cell.signature().has_memory()
        {
            let expected = "nothing, as this cell has no memory";
            return Err(Error::value(name, expected, "an array"));
        }
        for ((name, shape), expected) in [hidden, memory].into_iter().zip(&expected) {
            if let Some(shape) = shape {
                expect_shape(name, shape, expected)?;
            }
        }
        Ok(())
    }

    /// How the rows of a batch lie, and the steps of the array that holds them.
    pub(super) fn steps(&self, inputs: &Inputs<E>, is_kept: bool) -> Result<(Steps, usize)> {
        let size = self.config().input_size;
        let actual = || shape_of(inputs.x.shape());
        let found = match &inputs.x {
            Rows::Padded(x) => {
                let (total, batch, width) = x.dim();
                if width != size {
                    return Err(Error::shape("x", format!("(T, B, {size})"), actual()));
                }
                self.check_batch(&inputs.x, is_kept)?;
                (Steps::checked(inputs.lengths, batch, total)?, total)
            }
            Rows::Packed(x) => {
                let lengths = inputs
                    .lengths
                    .ok_or_else(|| Error::value("lengths", "the lengths of packed rows", "none"))?;
                self.check_batch(&inputs.x, is_kept)?;
                if !lengths.is_sorted_by(|a, b| a >= b) {
                    let expected = "descending lengths of packed rows";
                    return Err(Error::value("lengths", expected, format!("{lengths:?}")));
                }
                let steps = Steps::checked(Some(lengths), lengths.len(), x.nrows())?;
                if x.dim() != (steps.rows(), size) {
                    let expected = format!("({}, {size})", steps.rows());
                    return Err(Error::shape("x", expected, actual()));
                }
                let total = steps.longest();
                (steps, total)
            }
        };
        Ok(found)
    }
}
