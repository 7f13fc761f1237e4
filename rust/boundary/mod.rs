//! Between the caller's arrays and the rows inside.
//!
//! Outside, a batch is (T, B, C) with any strides and sequences in any order; inside it is rows in
//! the order of [`Steps`], padded to whole registers. Padding is written as zero on both sides.
//!
//! Rows outside that lie as they would inside are read where they are ([`Lent`]), and rows that go
//! out are computed where they will stay ([`Axes`]); only others are copied.

use std::ops::Range;
use std::sync::Arc;

use ndarray::ShapeError;
use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use crate::buffer::{Arena, Buffer};
use crate::kernel::pack::Columns;
use crate::kernel::prefetch_run;
use crate::parallel;
use crate::pass::View;
use crate::simd::Real;
use crate::steps::{Steps, Strides};

/// Rows of a batch outside, of C columns and any strides.
#[derive(Clone, Copy)]
pub enum Rows<'a, E> {
    /// (T, B, C), sequences of any lengths in any order.
    Padded(ArrayView3<'a, E>),
    /// (R, C): the rows of step 0, those of step 1 and so on, sequences sorted by descending
    /// length.
    Packed(ArrayView2<'a, E>),
}

/// The same to be written.
pub enum RowsMut<'a, E> {
    /// (T, B, C).
    Padded(ArrayViewMut3<'a, E>),
    /// (R, C).
    Packed(ArrayViewMut2<'a, E>),
}

impl<'a, E> From<ArrayView3<'a, E>> for Rows<'a, E> {
    fn from(rows: ArrayView3<'a, E>) -> Self {
        Rows::Padded(rows)
    }
}

impl<'a, E> From<ArrayViewMut3<'a, E>> for RowsMut<'a, E> {
    fn from(rows: ArrayViewMut3<'a, E>) -> Self {
        RowsMut::Padded(rows)
    }
}

impl<E> Rows<'_, E> {
    /// Its sizes.
    pub fn shape(&self) -> &[usize] {
        match self {
            Rows::Padded(rows) => rows.shape(),
            Rows::Packed(rows) => rows.shape(),
        }
    }
}

impl<E> RowsMut<'_, E> {
    /// Its sizes.
    pub fn shape(&self) -> &[usize] {
        match self {
            RowsMut::Padded(rows) => rows.shape(),
            RowsMut::Packed(rows) => rows.shape(),
        }
    }
}

impl<'a, E: Real> Rows<'a, E> {
    /// The rows where they lie: if those of a step are in the order inside, each with its numbers
    /// one after another, and no step or row lies before the one that it follows.
    fn in_place(&self, steps: &Steps) -> Option<View<'a, E>> {
        let apart = |axis: usize| {
            let (size, stride) = match self {
                Rows::Padded(rows) => (rows.shape()[axis], rows.strides()[axis]),
                Rows::Packed(rows) => (rows.shape()[axis], rows.strides()[axis]),
            };
            // The stride of an axis of one says nothing.
            let stride = if size > 1 { stride } else { 0 };
            Some((size, usize::try_from(stride).ok()?))
        };
        let (at, axes, strides) = match self {
            Rows::Padded(rows) => {
                let axes = [apart(0)?, apart(1)?, apart(2)?];
                let step = Some(axes[0].1);
                let row = axes[1].1;
                (rows.as_ptr(), axes, Strides { row, step })
            }
            Rows::Packed(rows) => {
                let axes = [(1, 0), apart(0)?, apart(1)?];
                let row = axes[1].1;
                (rows.as_ptr(), axes, Strides { row, step: None })
            }
        };
        let [_, _, (width, between)] = axes;
        if (width > 1 && between != 1) || !steps.keep_order() {
            return None;
        }
        let last = axes.map(|(size, apart)| Some(size.checked_sub(1)? * apart));
        let reach = match last {
            [Some(step), Some(row), Some(column)] => step + row + column + 1,
            _ => 0,
        };
        // SAFETY: rows at these strides that end before the end of the array's last row are the
        // array's own, which nobody writes while it is lent.
        Some(unsafe { View::new(at, reach, strides) })
    }
}

/// Rows as they are read inside: where they lie, or copied.
pub(crate) enum Lent<'a, E> {
    There(View<'a, E>),
    Copied(Buffer<E>, Strides),
}

impl<'a, E: Real> Lent<'a, E> {
    /// Rows of a batch, of these columns. They are copied if they cannot be read where they lie,
    /// which `with_padding` is only possible for rows without any.
    pub fn new(
        from: Rows<'a, E>,
        steps: &Steps,
        columns: Columns,
        with_padding: bool,
        arena: &Arc<Arena>,
    ) -> Self {
        let fits = match with_padding {
            true => columns.stride() == columns.real(),
            false => columns.extent() == columns.real(),
        };
        match from.in_place(steps).filter(|_| fits) {
            Some(view) => Lent::There(view),
            None => {
                let rows = gathered(from, steps, columns, arena);
                Lent::Copied(rows, Strides::packed(columns.stride()))
            }
        }
    }

    pub fn view(&self) -> View<'_, E> {
        match self {
            Lent::There(view) => *view,
            Lent::Copied(rows, strides) => View::packed(rows, strides.row),
        }
    }
}

/// How the rows of an array are numbered that goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Axes {
    /// (T, B, C)
    Steps,
    /// (B, T, C)
    #[cfg_attr(
        not(any(test, feature = "python")),
        expect(dead_code, reason = "Python's alone")
    )]
    Sequences,
    /// (R, C)
    Packed,
}

impl Axes {
    /// How rows of `width` lie in such an array, of `total` steps, if those inside are all there
    /// is.
    pub fn strides(self, steps: &Steps, total: usize, width: usize) -> Option<Strides> {
        let is_all = self == Axes::Packed || steps.are_full(total);
        is_all.then_some(match self {
            Axes::Steps | Axes::Packed => Strides::packed(width),
            Axes::Sequences => Strides {
                row: total * width,
                step: Some(width),
            },
        })
    }

    /// Rows inside as such an array: these same ones if they lie so, else copied.
    pub fn hand_out<E: Real>(
        self,
        rows: Buffer<E>,
        strides: Strides,
        (steps, total): (&Steps, usize),
        columns: Columns,
        arena: &Arc<Arena>,
    ) -> Result<Buffer<E>, ShapeError> {
        let width = columns.real();
        if self.strides(steps, total, width) == Some(strides) {
            return Ok(rows);
        }
        self.copied(&rows, strides, (steps, total), columns, arena)
    }

    /// The same, in any case a copy.
    pub fn copied<E: Real>(
        self,
        rows: &[E],
        strides: Strides,
        (steps, total): (&Steps, usize),
        columns: Columns,
        arena: &Arc<Arena>,
    ) -> Result<Buffer<E>, ShapeError> {
        let (batch, width) = (steps.batch(), columns.real());
        let count = match self {
            Axes::Steps | Axes::Sequences => total * batch,
            Axes::Packed => steps.rows(),
        };
        let mut out = arena.take(count * width);
        let to = match self {
            Axes::Packed => RowsMut::Packed(ArrayViewMut2::from_shape((count, width), &mut out)?),
            Axes::Steps => {
                RowsMut::Padded(ArrayViewMut3::from_shape((total, batch, width), &mut out)?)
            }
            Axes::Sequences => {
                let mut to = ArrayViewMut3::from_shape((batch, total, width), &mut out)?;
                to.swap_axes(0, 1);
                RowsMut::Padded(to)
            }
        };
        scatter(rows, strides, steps, columns, to);
        Ok(out)
    }
}

/// Rows that a thread copies at a time: enough that taking them does not count.
const CHUNK: usize = 64;

/// One row from outside, padded.
fn gather_row<E: Real>(from: ndarray::ArrayView1<E>, columns: Columns, to: &mut [E]) {
    for segment in 0..columns.segments {
        let to = &mut to[segment * columns.padded..][..columns.padded];
        let (real, padding) = to.split_at_mut(columns.width);
        padding.fill(E::ZERO);
        let start = segment * columns.width;
        match from.as_slice() {
            Some(from) => real.copy_from_slice(&from[start..start + columns.width]),
            None => {
                for (i, to) in real.iter_mut().enumerate() {
                    *to = from[start + i];
                }
            }
        }
    }
}

/// One row to the outside.
fn scatter_row<E: Real>(from: &[E], columns: Columns, mut to: ndarray::ArrayViewMut1<E>) {
    for segment in 0..columns.segments {
        let from = &from[segment * columns.padded..][..columns.width];
        let start = segment * columns.width;
        match to.as_slice_mut() {
            Some(to) => to[start..start + columns.width].copy_from_slice(from),
            None => {
                for (i, &x) in from.iter().enumerate() {
                    to[start + i] = x;
                }
            }
        }
    }
}

/// Rows in packed order, padded; steps after a sequence's end are not read.
pub(crate) fn gathered<E: Real>(
    from: Rows<E>,
    steps: &Steps,
    columns: Columns,
    arena: &Arc<Arena>,
) -> Buffer<E> {
    let stride = columns.stride();
    let mut to = arena.take(steps.rows() * stride);
    let workers = parallel::copiers(to.len());
    let mut parts = Vec::with_capacity(steps.rows().div_ceil(CHUNK));
    let (mut first, mut rest) = (0, &mut *to);
    for step in 0..steps.longest() {
        let range = first..step + 1;
        let rows = steps.rows_of(&range).len();
        if rows >= CHUNK || range.end == steps.longest() {
            let (part, after) = rest.split_at_mut(rows * stride);
            parts.push((range, part));
            (first, rest) = (step + 1, after);
        }
    }
    parallel::for_each(workers, parts, |(range, to): (Range<usize>, _)| {
        let mut to = to.chunks_exact_mut(stride);
        for step in range {
            let to = to.by_ref().take(steps.count(step));
            match &from {
                Rows::Padded(from) => {
                    let apart = from.strides()[0];
                    let from = from.index_axis(Axis(0), step);
                    for (to, &sequence) in to.zip(steps.order()) {
                        let row = from.row(sequence);
                        // No prefetcher follows the order of the rows: the next step's is asked
                        // for.
                        prefetch_run(row.as_ptr().wrapping_offset(apart), columns.real());
                        gather_row(row, columns, to);
                    }
                }
                Rows::Packed(from) => {
                    for (to, row) in to.zip(steps.offset(step)..) {
                        gather_row(from.row(row), columns, to);
                    }
                }
            }
        }
    });
    to
}

/// Rows of these columns to the outside, zero after each sequence's end.
pub(crate) fn scatter<E: Real>(
    from: &[E],
    strides: Strides,
    steps: &Steps,
    columns: Columns,
    to: RowsMut<E>,
) {
    let stride = columns.stride();
    let mut to = match to {
        RowsMut::Padded(to) => to,
        RowsMut::Packed(mut to) => {
            let parts: Vec<_> = to
                .axis_chunks_iter_mut(Axis(0), CHUNK)
                .enumerate()
                .collect();
            parallel::for_each(parallel::copiers(from.len()), parts, |(chunk, mut to)| {
                for (row, to) in to.rows_mut().into_iter().enumerate() {
                    let row = chunk * CHUNK + row;
                    let step = steps.step_of(row);
                    let at = strides.at(steps, step, row - steps.offset(step));
                    scatter_row(&from[at..at + stride], columns, to);
                }
            });
            return;
        }
    };
    let each = CHUNK.div_ceil(steps.batch().max(1));
    let parts: Vec<_> = to.axis_chunks_iter_mut(Axis(0), each).enumerate().collect();
    parallel::for_each(parallel::copiers(from.len()), parts, |(chunk, mut to)| {
        for (step, mut to) in (chunk * each..).zip(to.outer_iter_mut()) {
            let running = match step < steps.longest() {
                true => steps.count(step),
                false => 0,
            };
            for (row, &sequence) in steps.order().iter().enumerate() {
                let mut to = to.row_mut(sequence);
                if row < running {
                    let at = strides.at(steps, step, row);
                    scatter_row(&from[at..at + stride], columns, to);
                } else {
                    to.fill(E::ZERO);
                }
            }
        }
    });
}

/// A state (B, H) as padded rows in the batch's order inside.
pub(crate) fn gather_state<E: Real>(
    from: ArrayView2<E>,
    steps: &Steps,
    columns: Columns,
    to: &mut [E],
) {
    for (to, &sequence) in to.chunks_exact_mut(columns.stride()).zip(steps.order()) {
        gather_row(from.row(sequence), columns, to);
    }
}

/// Padded rows as a state (B, H).
pub(crate) fn scatter_state<E: Real>(
    from: &[E],
    steps: &Steps,
    columns: Columns,
    mut to: ArrayViewMut2<E>,
) {
    for (from, &sequence) in from.chunks_exact(columns.stride()).zip(steps.order()) {
        scatter_row(from, columns, to.row_mut(sequence));
    }
}

#[cfg(test)]
mod tests;
