//! Pooling: from the hidden states of all steps to what stands for a sequence.
//!
//! ```text
//! last   the states in which the directions end              d to those states
//! mean   1/T sum_t h_t                                       dh_t = d / T
//! max    max_t h_t, by unit                                  d to the first step that has it
//! ```
//!
//! A sequence without steps has zeros as its mean and maximum, which have no gradient. Steps are
//! taken in one after the other, in double precision: a sequence's result depends neither on
//! threads, nor on what else is in its batch, nor on the pieces that it comes in.

use std::ops::Range;
use std::sync::Arc;

use crate::buffer::{Arena, Buffer};
use crate::kernel::pack::Columns;
use crate::parallel;
use crate::pass::Pass;
use crate::simd::Real;
use crate::steps::Steps;

/// Which hidden states of the last layer the head sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Those in which the directions end: one row of outputs for each sequence.
    Last,
    /// The mean over the steps: one row of outputs for each sequence.
    Mean,
    /// The largest of the steps, unit by unit: one row of outputs for each sequence.
    Max,
    /// Those of every step: one row of outputs for each step.
    Sequence,
}

/// What has been seen of some sequences.
pub(crate) struct Pooling {
    output: Output,
    columns: Columns,
    rows: Vec<Row>,
}

/// What has been seen of one.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    /// Last: the state; mean: the sum; max: the largest; (stride,).
    pub values: Vec<f64>,
    /// Max: the first step of the largest.
    places: Vec<usize>,
    /// Steps taken in.
    pub steps: usize,
}

impl Pooling {
    /// Nothing seen of `rows` sequences whose states lie as `columns`.
    ///
    /// # Panics
    /// If nothing is pooled.
    pub fn new(output: Output, columns: Columns, rows: usize) -> Self {
        assert!(output != Output::Sequence, "steps are not pooled");
        let places = if output == Output::Max {
            columns.stride()
        } else {
            0
        };
        let row = Row {
            values: vec![0.0; columns.stride()],
            places: vec![0; places],
            steps: 0,
        };
        Pooling {
            output,
            columns,
            rows: vec![row; rows],
        }
    }

    /// What has been seen of each sequence.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The same to be changed.
    pub fn rows_mut(&mut self) -> &mut [Row] {
        &mut self.rows
    }

    /// Takes in what a layer did in a pass over the next steps of the first sequences.
    pub fn add<E: Real>(&mut self, pass: &Pass<E>, layer: usize, arena: &Arc<Arena>) {
        /// Numbers that are worth another thread to pool.
        const WORTHWHILE: usize = 1 << 16;
        let (stride, steps) = (self.columns.stride(), &pass.steps);
        let batch = steps.batch();
        if self.output == Output::Last {
            let mut last: Buffer<E> = arena.take(batch * stride);
            pass.final_rows(layer, self.columns, &mut last);
            for (row, last) in self.rows.iter_mut().zip(last.chunks_exact(stride)) {
                for (to, &from) in row.values.iter_mut().zip(last) {
                    *to = from.to_f64();
                }
            }
            return;
        }
        let y = &*pass.layers[layer].y;
        let workers = parallel::workers(steps.rows() * stride, WORTHWHILE);
        let mut items = Vec::new();
        let mut rest = &mut self.rows[..batch];
        for range in steps.slices(&(0..steps.longest()), workers) {
            let (part, after) = rest.split_at_mut(range.len());
            items.push((range, part));
            rest = after;
        }
        let largest = self.output == Output::Max;
        parallel::for_each(workers, items, |(range, rows): (Range<usize>, _)| {
            for step in 0..steps.longest() {
                let running = steps.count(step).clamp(range.start, range.end);
                if running == range.start {
                    break; // all of these have ended
                }
                let first = (steps.offset(step) + range.start) * stride;
                let from = y[first..].chunks_exact(stride);
                for (row, y) in rows[..running - range.start].iter_mut().zip(from) {
                    if largest {
                        row.compare(y);
                    } else {
                        row.sum(y);
                    }
                }
            }
        });
    }

    /// Writes the result, rows of the columns.
    pub fn write<E: Real>(&self, to: &mut [E]) {
        let rows = to.chunks_exact_mut(self.columns.stride());
        for (row, to) in self.rows.iter().zip(rows) {
            let count = match self.output {
                Output::Mean => row.steps.max(1) as f64,
                _ => 1.0,
            };
            for (to, &from) in to.iter_mut().zip(&row.values) {
                *to = E::from_f64(from / count);
            }
        }
    }

    /// The gradient of a pass's output, R rows, from that of the mean or the maximum; `first` steps
    /// came before the pass.
    pub fn spread<E: Real>(
        &self,
        d: &[E],
        (first, steps): (usize, &Steps),
        arena: &Arc<Arena>,
    ) -> Buffer<E> {
        let stride = self.columns.stride();
        let mut dy = arena.zeros(steps.rows() * stride);
        let rows = self.rows.iter().zip(d.chunks_exact(stride));
        for (row, ((seen, d), &length)) in rows.zip(steps.lengths()).enumerate() {
            if self.output == Output::Max {
                for (column, (&d, &step)) in d.iter().zip(&seen.places).enumerate() {
                    if let Some(step) = step.checked_sub(first).filter(|&step| step < length) {
                        dy[(steps.offset(step) + row) * stride + column] = d;
                    }
                }
                continue;
            }
            let share = |d: &E| E::from_f64(d.to_f64() / seen.steps as f64);
            let share: Vec<E> = d.iter().map(share).collect();
            for step in 0..length {
                dy[(steps.offset(step) + row) * stride..][..stride].copy_from_slice(&share);
            }
        }
        dy
    }
}

impl Row {
    /// Forgets what was seen.
    pub fn clear(&mut self) {
        self.values.fill(0.0);
        self.steps = 0;
    }

    fn sum<E: Real>(&mut self, y: &[E]) {
        for (sum, &y) in self.values.iter_mut().zip(y) {
            *sum += y.to_f64();
        }
        self.steps += 1;
    }

    fn compare<E: Real>(&mut self, y: &[E]) {
        let first = self.steps == 0;
        let entries = self.values.iter_mut().zip(&mut self.places);
        for ((largest, place), &y) in entries.zip(y) {
            let y = y.to_f64();
            // What is not a number shows in the result.
            if first || y > *largest || y.is_nan() {
                (*largest, *place) = (y, self.steps);
            }
        }
        self.steps += 1;
    }
}
