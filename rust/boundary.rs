//! Between the caller's arrays and the rows inside.
//!
//! Outside, a batch is (T, B, C) with any strides and sequences in any order; inside it is rows in
//! packed order ([`Steps`]), padded to whole registers. Padding is written as zero on both sides.

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, s};

use crate::kernel::pack::Columns;
use crate::parallel;
use crate::simd::Real;
use crate::steps::Steps;

/// Rows of a batch outside, of C columns and any strides.
#[derive(Clone, Copy)]
pub enum Rows<'a, E> {
    /// (T, B, C), sequences of any lengths in any order.
    Padded(ArrayView3<'a, E>),
    /// (R, C): the rows of step 0, those of step 1 and so on, sequences sorted by descending length.
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

/// Numbers that are worth a second thread to copy.
const WORTHWHILE: usize = 1 << 13;

/// Packed rows that a thread writes at a time.
const CHUNK: usize = 64;

fn workers(numbers: usize) -> usize {
    let threads = parallel::num_threads().unwrap_or(1);
    threads.min(1 + numbers / WORTHWHILE)
}

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

/// Writes rows in packed order: `write(sequence, step, row)` fills each, padding included.
pub(crate) fn fill<E: Real>(
    steps: &Steps,
    stride: usize,
    to: &mut [E],
    write: impl Fn(usize, usize, &mut [E]) + Sync,
) {
    fill_rows(steps, stride, to, |row, step, to| {
        write(steps.order()[row], step, to)
    });
}

/// The same by the row of a step, `write(row, step, row)`.
fn fill_rows<E: Real>(
    steps: &Steps,
    stride: usize,
    to: &mut [E],
    write: impl Fn(usize, usize, &mut [E]) + Sync,
) {
    let mut parts = Vec::with_capacity(steps.longest());
    let mut rest = to;
    for step in 0..steps.longest() {
        let (part, after) = rest.split_at_mut(steps.count(step) * stride);
        parts.push((step, part));
        rest = after;
    }
    parallel::for_each(workers(steps.rows() * stride), parts, |(step, part)| {
        for (row, to) in part.chunks_exact_mut(stride).enumerate() {
            write(row, step, to);
        }
    });
}

/// Rows in packed order; steps after a sequence's end are not read.
pub(crate) fn gather<E: Real>(from: Rows<E>, steps: &Steps, columns: Columns, to: &mut [E]) {
    fill_rows(steps, columns.stride(), to, |row, step, to| {
        let from = match &from {
            Rows::Padded(from) => from.slice(s![step, steps.order()[row], ..]),
            Rows::Packed(from) => from.slice(s![steps.offset(step) + row, ..]),
        };
        gather_row(from, columns, to);
    });
}

/// Packed rows to the outside, zero after each sequence's end.
pub(crate) fn scatter<E: Real>(from: &[E], steps: &Steps, columns: Columns, to: RowsMut<E>) {
    let stride = columns.stride();
    let mut to = match to {
        RowsMut::Padded(to) => to,
        RowsMut::Packed(mut to) => {
            let parts: Vec<_> = to
                .axis_chunks_iter_mut(Axis(0), CHUNK)
                .enumerate()
                .collect();
            parallel::for_each(workers(from.len()), parts, |(chunk, mut to)| {
                let from = from[chunk * CHUNK * stride..].chunks_exact(stride);
                for (from, to) in from.zip(to.rows_mut()) {
                    scatter_row(from, columns, to);
                }
            });
            return;
        }
    };
    let parts: Vec<_> = to.axis_iter_mut(Axis(0)).enumerate().collect();
    parallel::for_each(workers(from.len()), parts, |(step, mut to)| {
        let running = if step < steps.longest() {
            steps.count(step)
        } else {
            0
        };
        for (row, &sequence) in steps.order().iter().enumerate() {
            let mut to = to.row_mut(sequence);
            if row < running {
                let at = (steps.offset(step) + row) * stride;
                scatter_row(&from[at..at + stride], columns, to);
            } else {
                to.fill(E::ZERO);
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
