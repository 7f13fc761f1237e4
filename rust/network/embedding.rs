//! What a batch's steps are fed, and the gradients of the vectors that they were read from.

use super::{Input, Network};
use crate::data::Values;
use crate::parallel;
use crate::pass::Source;
use crate::sequence::Element;
use crate::simd::Real;
use crate::steps::Steps;

impl<E: Element> Network<E> {
    /// The input of some steps in packed order, and the identifiers that it was read at if their
    /// vectors are trained. `at` tells the row of `values` that a sequence has at a step.
    pub(super) fn gather(
        &self,
        values: Values<E>,
        at: impl Fn(usize, usize) -> usize + Sync,
        steps: &Steps,
    ) -> (Source<E>, Vec<u32>) {
        let columns = self.stack.input_columns();
        let stride = columns.stride();
        let packed = (0..steps.longest())
            .flat_map(|step| (0..steps.count(step)).map(move |row| (row, step)))
            .map(|(row, step)| at(row, step));
        let mut x = self.stack.arena().take(match self.config.input {
            Input::OneHot => 0,
            Input::Dense | Input::Embedding { .. } => steps.rows() * stride,
        });
        match (values, self.config.input) {
            (Values::Dense { rows, width }, _) => {
                fill(steps, stride, &mut x, |sequence, step, to| {
                    let (real, padding) = to.split_at_mut(width);
                    real.copy_from_slice(&rows[at(sequence, step) * width..][..width]);
                    padding.fill(E::ZERO);
                });
                (Source::Rows(x), Vec::new())
            }
            (Values::Ids { ids, .. }, Input::OneHot) => (
                Source::Ids(packed.map(|row| ids[row] as u32).collect()),
                Vec::new(),
            ),
            (Values::Ids { ids, width, .. }, _) => {
                let table = &self.weights[self.places.embedding.clone()];
                let size = columns.width;
                fill(steps, stride, &mut x, |sequence, step, to| {
                    let (real, padding) = to.split_at_mut(size);
                    padding.fill(E::ZERO);
                    let ids = &ids[at(sequence, step) * width..][..width];
                    real.copy_from_slice(&table[ids[0] as usize * size..][..size]);
                    for &id in &ids[1..] {
                        for (to, &from) in real.iter_mut().zip(&table[id as usize * size..]) {
                            *to += from;
                        }
                    }
                });
                let trained = matches!(self.config.input, Input::Embedding { frozen: false, .. });
                let read = packed.flat_map(|row| &ids[row * width..][..width]);
                let read = if trained {
                    read.map(|&id| id as u32).collect()
                } else {
                    Vec::new()
                };
                (Source::Rows(x), read)
            }
        }
    }

    /// Adds the gradients of the rows `dx`, each read at as many of `ids` as the next, to those of
    /// the vectors, which are taken as zeros if they are fresh.
    ///
    /// Each thread has vectors of its own, so that every sum is in the order of `Steps::segments`.
    pub(super) fn scatter(
        &self,
        (dx, steps): (&[E], &Steps),
        ids: &[u32],
        gradients: &mut [E],
        is_fresh: bool,
    ) {
        /// Numbers that are worth another thread to add.
        const WORTHWHILE: usize = 1 << 16;
        let columns = self.stack.input_columns();
        let (stride, width) = (columns.stride(), columns.width);
        let rows = steps.rows();
        if rows == 0 {
            if is_fresh {
                gradients.fill(E::ZERO);
            }
            return;
        }
        let each = ids.len() / rows;
        let workers = parallel::workers(ids.len() * width, WORTHWHILE);
        let mut counts = vec![0; gradients.len() / width];
        for &id in ids {
            counts[id as usize] += 1;
        }
        // Cuts the vectors where about as much is to be added on either side.
        let mut parts = Vec::with_capacity(workers);
        let (mut rest, mut start, mut done) = (gradients, 0, 0);
        for (id, count) in counts.iter().enumerate() {
            done += count;
            if done * workers >= ids.len() * (parts.len() + 1) || id + 1 == counts.len() {
                let (part, after) = rest.split_at_mut((id + 1 - start) * width);
                parts.push((start as u32..id as u32 + 1, part));
                (rest, start) = (after, id + 1);
            }
        }
        parallel::for_each(workers, parts, |(range, part)| {
            if is_fresh {
                part.fill(E::ZERO);
            }
            for rows in steps
                .segments()
                .rev()
                .map(|segment| steps.rows_of(&segment))
            {
                let dx = &dx[rows.start * stride..rows.end * stride];
                let ids = &ids[rows.start * each..rows.end * each];
                for (from, ids) in dx.chunks_exact(stride).zip(ids.chunks_exact(each)) {
                    for id in ids.iter().filter(|id| range.contains(id)) {
                        let to = &mut part[(id - range.start) as usize * width..][..width];
                        for (to, &from) in to.iter_mut().zip(from) {
                            *to += from;
                        }
                    }
                }
            }
        });
    }
}

/// Writes rows in packed order: `write(row, step, to)` fills each, padding included.
///
/// The rows of one sequence after those of another: where they are read from, a sequence's steps
/// follow one another, and the processor fetches them ahead.
fn fill<E: Real>(
    steps: &Steps,
    stride: usize,
    to: &mut [E],
    write: impl Fn(usize, usize, &mut [E]) + Sync,
) {
    let workers = parallel::copiers(to.len());
    let mut rest = to;
    let parts = (0..workers).map(|i| {
        let of = |i: usize| steps.longest() * i / workers;
        let range = of(i)..of(i + 1);
        let size = steps.rows_of(&range).len() * stride;
        (range, rest.split_off_mut(..size).expect("a row for each"))
    });
    parallel::for_each(workers, parts.collect(), |(range, part)| {
        let first = steps.offset(range.start);
        for row in 0..steps.batch() {
            let running = range.clone().take_while(|&step| row < steps.count(step));
            for step in running {
                let at = (steps.offset(step) + row - first) * stride;
                write(row, step, &mut part[at..at + stride]);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_filled_in_packed_order_by_any_number_of_threads() {
        const STRIDE: usize = 64;
        let steps = Steps::new(&[3, 900, 0, 2000, 900, 2000]);
        let filled = |threads| {
            let mut rows = vec![f32::NAN; steps.rows() * STRIDE];
            parallel::with_threads(threads, || {
                assert_eq!(parallel::copiers(rows.len()), threads);
                fill(&steps, STRIDE, &mut rows, |row, step, to| {
                    to.fill((row * 10_000 + step) as f32);
                });
                Ok(())
            })
            .unwrap();
            rows
        };
        let mut expected = Vec::new();
        for step in 0..steps.longest() {
            for row in 0..steps.count(step) {
                expected.extend([(row * 10_000 + step) as f32; STRIDE]);
            }
        }
        for threads in [1, 2, 3] {
            assert_eq!(filled(threads), expected);
        }
        let none = Steps::new(&[0, 0]);
        fill::<f32>(&none, STRIDE, &mut [], |_, _, _| unreachable!("no rows"));
    }
}
