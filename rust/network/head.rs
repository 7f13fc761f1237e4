//! The linear head and the loss, over blocks of rows.

use std::ops::Range;

use super::{GradientSums, Network};
use crate::kernel::weight::DEPTH;
use crate::loss::Score;
use crate::parallel;
use crate::sequence::Element;

/// Rows that go from the head to the loss and back at a time: few, so that their outputs stay near
/// in memory, but enough to be worth reading the head's weights. Fixed, as the bits of a score
/// depend on it.
const SLICE: usize = 64;

/// Outputs of a block, about: what has to wait until the weights' gradients are computed.
const BLOCK: usize = 1 << 22;

impl<E: Element> Network<E> {
    /// Blocks of `rows` rows, each with a slice for every thread as far as there is room for them.
    fn blocks(&self, rows: usize) -> impl Iterator<Item = Range<usize>> + use<E> {
        let fit = BLOCK / self.output_stride();
        let threads = parallel::num_threads().unwrap_or(1).min(4 * fit / SLICE);
        // The gradients' bits depend on no other cuts than these.
        let each = fit.max(threads.max(4) * SLICE).next_multiple_of(DEPTH);
        // Without rows there is one empty block, whose gradients are zeros.
        (0..rows.max(1))
            .step_by(each)
            .map(move |start| start..(start + each).min(rows))
    }

    /// Calls `work` with each slice of a block: its rows, then as many of what the head sees and of
    /// two other buffers. Returns what it gave, in order.
    fn slices<R: Send>(
        &self,
        block: &Range<usize>,
        seen: &[E],
        outputs: &mut [E],
        slopes: &mut [E],
        work: impl Fn(Range<usize>, &[E], &mut [E], &mut [E]) -> R + Sync,
    ) -> Vec<R> {
        let (width, stride) = (self.seen_columns().stride(), self.output_stride());
        let mut results: Vec<Option<R>> = Vec::new();
        results.resize_with(block.len().div_ceil(SLICE), || None);
        let mut slopes = slopes.chunks_mut(SLICE * width);
        let starts = block.clone().step_by(SLICE);
        let items: Vec<_> = starts
            .zip(seen.chunks(SLICE * width))
            .zip(outputs.chunks_mut(SLICE * stride))
            .zip(&mut results)
            .map(|(((start, seen), outputs), result)| {
                let slopes = slopes.next().unwrap_or_default();
                (start, seen, outputs, slopes, result)
            })
            .collect();
        let workers = self.head.workers(block.len());
        parallel::for_each(workers, items, |(start, seen, outputs, slopes, result)| {
            let rows = start..(start + SLICE).min(block.end);
            *result = Some(work(rows, seen, outputs, slopes));
        });
        results.into_iter().flatten().collect()
    }

    /// Calls `take` with the outputs of rows that the head sees, block after block.
    pub(crate) fn outputs(&self, seen: &[E], mut take: impl FnMut(Range<usize>, &[E])) {
        let (width, stride) = (self.seen_columns().stride(), self.output_stride());
        let weights = &self.weights[self.places.head.clone()];
        let pack = self.head.forward_pack(weights, self.arena());
        for block in self.blocks(seen.len() / width) {
            let seen = &seen[block.start * width..block.end * width];
            let mut outputs = self.arena().take(block.len() * stride);
            self.slices(
                &block,
                seen,
                &mut outputs,
                &mut [],
                |_, seen, outputs, _| {
                    self.head.forward(pack, seen, outputs);
                },
            );
            take(block, &outputs);
        }
    }

    /// The score of rows that the head sees: `judge` is given the outputs of some of them.
    pub(crate) fn score(
        &self,
        seen: &[E],
        judge: impl Fn(Range<usize>, &mut [E]) -> Score + Sync,
    ) -> Score {
        let (width, stride) = (self.seen_columns().stride(), self.output_stride());
        let weights = &self.weights[self.places.head.clone()];
        let pack = self.head.forward_pack(weights, self.arena());
        let mut total = Score::new(self.config.loss, self.config.n_outputs);
        for block in self.blocks(seen.len() / width) {
            let seen = &seen[block.start * width..block.end * width];
            let mut outputs = self.arena().take(block.len() * stride);
            let scores = self.slices(
                &block,
                seen,
                &mut outputs,
                &mut [],
                |rows, seen, outputs, _| {
                    self.head.forward(pack, seen, outputs);
                    judge(rows, outputs)
                },
            );
            scores.iter().for_each(|score| total.merge(score));
        }
        total
    }

    /// The same for training: `judge` replaces outputs by their gradient too. Turns `seen` into
    /// its gradient, and adds the head's.
    pub(super) fn learn_head(
        &self,
        seen: &mut [E],
        gradients: &mut GradientSums<E>,
        judge: impl Fn(Range<usize>, &mut [E]) -> Score + Sync,
    ) -> Score {
        let (width, stride) = (self.seen_columns().stride(), self.output_stride());
        let weights = &self.weights[self.places.head.clone()];
        let forward = self.head.forward_pack(weights, self.arena());
        let backward = self.head.backward_pack(weights, self.arena());
        let mut total = Score::new(self.config.loss, self.config.n_outputs);
        for block in self.blocks(seen.len() / width) {
            let seen = &mut seen[block.start * width..block.end * width];
            let mut outputs = self.arena().take(block.len() * stride);
            let mut slopes = self.arena().take(seen.len());
            let scores = self.slices(
                &block,
                seen,
                &mut outputs,
                &mut slopes,
                |rows, seen, outputs, slopes| {
                    self.head.forward(forward, seen, outputs);
                    let score = judge(rows, outputs);
                    self.head.backward(backward, outputs, slopes);
                    score
                },
            );
            scores.iter().for_each(|score| total.merge(score));
            let (head, is_first) = gradients.of_head(self.places.head.clone());
            self.head.weights(&outputs, seen, head, !is_first);
            seen.copy_from_slice(&slopes);
        }
        total
    }
}
