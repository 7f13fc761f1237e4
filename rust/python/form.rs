//! The forms that rows and states may have outside: torch's for layers, packed input and cells.

use ndarray::{ArrayView3, ArrayViewD, Axis, Ix2, Ix3};

use crate::boundary::{Axes, Rows};
use crate::sequence::Element;

/// How rows and states lie outside.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// (T, B, C), states (L·D, B, C).
    Steps,
    /// (B, T, C), states (L·D, B, C).
    Sequences,
    /// (R, C) in packed order, states (L·D, B, C).
    Packed,
    /// (B, C), states (B, C): one step, with no output but the states.
    Single,
}

impl Form {
    /// The form of rows with this many dimensions.
    pub fn of(
        dimensions: usize,
        has_counts: bool,
        batch_first: bool,
        is_single: bool,
    ) -> Option<Self> {
        match (dimensions, has_counts) {
            (2, false) if is_single => Some(Form::Single),
            _ if is_single => None,
            (3, false) if batch_first => Some(Form::Sequences),
            (3, false) => Some(Form::Steps),
            (2, true) => Some(Form::Packed),
            _ => None,
        }
    }

    /// Rows as the crate takes them.
    pub fn rows<E: Element>(self, array: ArrayViewD<E>) -> Option<Rows<E>> {
        Some(match self {
            Form::Steps => Rows::Padded(array.into_dimensionality::<Ix3>().ok()?),
            Form::Sequences => {
                let mut array = array.into_dimensionality::<Ix3>().ok()?;
                array.swap_axes(0, 1);
                Rows::Padded(array)
            }
            Form::Packed | Form::Single => Rows::Packed(array.into_dimensionality::<Ix2>().ok()?),
        })
    }

    /// The axes of rows.
    pub fn axes(self) -> Axes {
        match self {
            Form::Steps => Axes::Steps,
            Form::Sequences => Axes::Sequences,
            Form::Packed | Form::Single => Axes::Packed,
        }
    }

    /// The sizes of a state outside, from those inside.
    pub fn outside(self, state: &[usize; 3]) -> &[usize] {
        match self {
            Form::Single => &state[1..],
            _ => state,
        }
    }

    /// A state as the crate takes it: (L·D, B, C).
    pub fn state<E: Element>(self, array: ArrayViewD<E>) -> Option<ArrayView3<E>> {
        match self {
            Form::Single => {
                let array = array.into_dimensionality::<Ix2>().ok()?;
                Some(array.insert_axis(Axis(0)))
            }
            _ => array.into_dimensionality::<Ix3>().ok(),
        }
    }
}

/// Lengths of the sequences of packed rows, from the number of rows at each step; None unless these
/// descend from `batch`, all above 0, and are `rows` together.
pub(super) fn lengths_of(counts: &[i64], batch: usize, rows: usize) -> Option<Vec<i64>> {
    let descend = counts.is_sorted_by(|a, b| a >= b) && counts.last().is_some_and(|&last| last > 0);
    let (first, total) = (
        *counts.first()?,
        counts.iter().try_fold(0, |a: i64, &b| a.checked_add(b))?,
    );
    if !descend || usize::try_from(first) != Ok(batch) || usize::try_from(total) != Ok(rows) {
        return None;
    }
    let length = |row: i64| counts.partition_point(|&count| count > row) as i64;
    Some((0..first).map(length).collect())
}
