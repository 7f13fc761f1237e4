//! The order of work in a ragged batch.
//!
//! Inside, sequences are sorted by length, longest first, and step t holds only the rows that are
//! still running: a batch costs its real number of steps. All buffers of rows are in this order:
//! first the rows of step 0, then those of step 1, and so on (torch's `PackedSequence`).
//!
//! Sums over all rows (gradients of weights, scores) go through *segments* of whole steps, from
//! the last one to the first, as backward does. So a pass may have one segment in memory at a time
//! and come to the same bits as a pass over all of them. There are about sqrt(T) of them: what is
//! kept between segments and what one needs are about as much then (Chen et al., "Training Deep
//! Nets with Sublinear Memory Cost", 2016).

use std::ops::Range;

use crate::error::{Error, Result};

/// Rows that a segment has at least, if there are so many: as many as keep a product efficient.
const SEGMENT: usize = 256;

/// How the rows of a batch of sequences lie in packed order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Sequence of each row, longest first; equal lengths in the order given.
    order: Vec<usize>,
    /// Length of each row's sequence, descending.
    lengths: Vec<usize>,
    /// Rows running at each step, descending, none zero.
    counts: Vec<usize>,
    /// Packed index of each step's first row, and their number in all at the end.
    offsets: Vec<usize>,
    /// The first step of each segment, and the end of the last one.
    cuts: Vec<usize>,
}

/// How far apart rows lie in memory, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strides {
    /// From a row of a step to the next.
    pub row: usize,
    /// From a step to the next; none where its rows follow those of the step before.
    pub step: Option<usize>,
}

impl Strides {
    /// Rows in packed order, one after another.
    pub fn packed(row: usize) -> Self {
        Strides { row, step: None }
    }

    /// Numbers before a row of a step.
    pub fn at(self, steps: &Steps, step: usize, row: usize) -> usize {
        match self.step {
            Some(apart) => step * apart + row * self.row,
            None => (steps.offset(step) + row) * self.row,
        }
    }

    /// Numbers from a row of `step` to the same row of the step that follows.
    pub fn to_next(self, steps: &Steps, step: usize) -> usize {
        self.step.unwrap_or(steps.count(step) * self.row)
    }
}

/// A step on the way through a sequence, in either direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Visit {
    /// The step.
    pub step: usize,
    /// The step whose state comes in, if any.
    pub before: Option<usize>,
    /// The step that takes its state, if any.
    pub after: Option<usize>,
}

impl Steps {
    /// Sequences of these lengths, zeros included, in any order.
    pub fn new(lengths: &[usize]) -> Self {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
        let lengths: Vec<usize> = order.iter().map(|&i| lengths[i]).collect();
        let longest = lengths.first().copied().unwrap_or(0);
        let mut counts = Vec::with_capacity(longest);
        let mut running = lengths.len();
        for step in 0..longest {
            while lengths[running - 1] <= step {
                running -= 1;
            }
            counts.push(running);
        }
        let mut offsets = Vec::with_capacity(longest + 1);
        offsets.push(0);
        for &count in &counts {
            offsets.push(offsets[offsets.len() - 1] + count);
        }
        let cuts = cuts(&offsets, segments(&offsets));
        Steps {
            order,
            lengths,
            counts,
            offsets,
            cuts,
        }
    }

    /// The same as one segment.
    pub(crate) fn uncut(mut self) -> Self {
        self.cuts = vec![0, self.longest()];
        self
    }

    /// Lengths from outside: one for each of `batch` sequences, `longest` at most.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`], naming `lengths`.
    pub fn checked(lengths: Option<&[i64]>, batch: usize, longest: usize) -> Result<Self> {
        let Some(lengths) = lengths else {
            return Ok(Self::new(&vec![longest; batch]));
        };
        if lengths.len() != batch {
            return Err(Error::shape(
                "lengths",
                format!("({batch},)"),
                format!("({},)", lengths.len()),
            ));
        }
        let checked = lengths
            .iter()
            .enumerate()
            .map(|(i, &length)| {
                usize::try_from(length)
                    .ok()
                    .filter(|&length| length <= longest)
                    .ok_or_else(|| {
                        Error::value(
                            "lengths",
                            format!("integers from 0 to {longest}"),
                            format!("{length} at index {i}"),
                        )
                    })
            })
            .collect::<Result<Vec<usize>>>()?;
        Ok(Self::new(&checked))
    }

    /// Sequences.
    pub fn batch(&self) -> usize {
        self.order.len()
    }
    /// The longest length.
    pub fn longest(&self) -> usize {
        self.counts.len()
    }
    /// Steps of all sequences together.
    pub fn rows(&self) -> usize {
        self.offsets[self.counts.len()]
    }
    /// The sequence that each row is.
    pub fn order(&self) -> &[usize] {
        &self.order
    }
    /// The rows' lengths.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }
    /// Rows running at `step`.
    pub fn count(&self, step: usize) -> usize {
        self.counts[step]
    }
    /// Packed index of the first row of `step`.
    pub fn offset(&self, step: usize) -> usize {
        self.offsets[step]
    }

    /// Whether every sequence is `total` steps long. Then they are in the order given.
    pub(crate) fn are_full(&self, total: usize) -> bool {
        self.rows() == total * self.batch()
    }

    /// Whether rows are sequences in the order given.
    pub(crate) fn keep_order(&self) -> bool {
        self.order.is_sorted()
    }

    /// The steps of each segment, from the first segment on; one at least.
    pub(crate) fn segments(&self) -> impl DoubleEndedIterator<Item = Range<usize>> {
        self.cuts.windows(2).map(|ends| ends[0]..ends[1])
    }

    /// The packed rows of some steps.
    pub(crate) fn rows_of(&self, steps: &Range<usize>) -> Range<usize> {
        self.offset(steps.start)..self.offset(steps.end)
    }

    /// The segments, each in runs of steps with about `depth` rows; one run at least.
    pub(crate) fn cut(&self, depth: usize) -> impl Iterator<Item = Range<usize>> {
        self.segments().flat_map(move |segment| {
            let rows = self.rows_of(&segment).len();
            let parts = ((rows + depth / 2) / depth).max(1);
            self.parts(&segment, parts)
        })
    }

    /// Some steps in `parts` runs with about the same number of rows, or fewer.
    pub(crate) fn parts(
        &self,
        steps: &Range<usize>,
        parts: usize,
    ) -> impl Iterator<Item = Range<usize>> + use<> {
        let ends = cuts(&self.offsets[steps.start..=steps.end], parts);
        let starts = ends.clone().into_iter();
        let first = steps.start;
        starts
            .zip(ends.into_iter().skip(1))
            .map(move |(start, end)| first + start..first + end)
    }

    /// The rows of some steps in blocks of about `depth`, in the order in which sums go through
    /// them. Without rows, one empty block.
    pub(crate) fn blocks(
        &self,
        steps: &Range<usize>,
        depth: usize,
    ) -> impl Iterator<Item = Range<usize>> {
        let Range { start, end } = self.rows_of(steps);
        let (rows, blocks) = (end - start, ((end - start + depth / 2) / depth).max(1));
        (0..blocks).map(move |i| start + rows * i / blocks..start + rows * (i + 1) / blocks)
    }

    /// The step that a packed row belongs to.
    pub(crate) fn step_of(&self, row: usize) -> usize {
        self.offsets.partition_point(|&offset| offset <= row) - 1
    }

    /// The steps in the order that a direction goes through them.
    pub(crate) fn walk(&self, reverse: bool) -> impl DoubleEndedIterator<Item = Visit> {
        self.walk_in(0..self.longest(), reverse)
    }

    /// The same for some of the steps.
    pub(crate) fn walk_in(
        &self,
        steps: Range<usize>,
        reverse: bool,
    ) -> impl DoubleEndedIterator<Item = Visit> {
        let Range { start, end } = steps;
        (start..end).map(move |i| {
            let step = if reverse { start + end - 1 - i } else { i };
            Visit {
                step,
                before: self.before(step, reverse),
                after: self.before(step, !reverse),
            }
        })
    }

    /// The step before `step` in a direction, if any.
    pub(crate) fn before(&self, step: usize, reverse: bool) -> Option<usize> {
        if reverse {
            (step + 1 < self.longest()).then_some(step + 1)
        } else {
            step.checked_sub(1)
        }
    }

    /// Cuts the rows into at most `parts` ranges, so that of the steps asked for the one that takes
    /// longest takes as little as possible.
    pub(crate) fn slices(&self, within: &Range<usize>, parts: usize) -> Vec<Range<usize>> {
        /// A step takes as long as its rows, and as so many more: tiles of few rows wait for
        /// weights.
        const STEP: usize = 3;
        if parts <= 1 {
            return std::iter::once(0..self.batch()).collect();
        }
        let Range { start: from, end } = *within;
        let lengths = || {
            self.lengths
                .iter()
                .map(|length| length.clamp(&from, &end) - from)
        };
        // As few ranges as take no longer than `most` each.
        let cut = |most: usize| {
            let mut slices = Vec::with_capacity(parts);
            let (mut start, mut steps, mut taken) = (0, 0, 0);
            for (row, length) in lengths().enumerate() {
                taken += length;
                if row == start {
                    steps = length;
                } else if taken + STEP * steps > most {
                    slices.push(start..row);
                    (start, steps, taken) = (row, length, length);
                }
            }
            slices.push(start..self.batch());
            slices
        };
        let (mut least, mut most) = (0, self.rows_of(within).len() + STEP * within.len());
        while least < most {
            let middle = least.midpoint(most);
            match cut(middle).len() <= parts {
                true => most = middle,
                false => least = middle + 1,
            }
        }
        cut(most)
    }
}

/// How many segments steps are cut into, given the rows before each step.
fn segments(offsets: &[usize]) -> usize {
    let longest = offsets.len() - 1;
    let root = longest.isqrt();
    let most = root + usize::from(root * root < longest);
    most.min(offsets[longest] / SEGMENT).max(1)
}

/// Where to cut steps into `parts` with about the same number of rows, or fewer, given the rows
/// before each step.
fn cuts(offsets: &[usize], parts: usize) -> Vec<usize> {
    let longest = offsets.len() - 1;
    let rows = offsets[longest] - offsets[0];
    let mut cuts: Vec<usize> = (0..parts)
        .map(|i| offsets.partition_point(|&before| (before - offsets[0]) * parts < rows * i))
        .collect();
    cuts.push(longest);
    // A step with more rows than a part has leaves none to the parts that it covers.
    cuts.dedup();
    if cuts.len() == 1 {
        cuts.push(longest);
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_and_blocks_cover_all_rows() {
        for (batch, longest) in [
            (1, 0),
            (0, 0),
            (1, 1),
            (32, 1),
            (8, 300),
            (1000, 5),
            (1, 5000),
        ] {
            for ragged in [false, true] {
                let length = |i: usize| {
                    if ragged {
                        longest * (i + 1) / batch
                    } else {
                        longest
                    }
                };
                let lengths: Vec<usize> = (0..batch).map(length).collect();
                let steps = Steps::new(&lengths);
                let (segments, rows) = (steps.segments().count(), steps.rows());
                assert!(segments == 1 || segments * SEGMENT <= rows);
                assert!(segments.pow(2) <= longest + 2 * segments);
                assert!(steps.segments().flatten().eq(0..longest));
                let most = steps.segments().map(|part| steps.rows_of(&part).len());
                assert!(most.max().unwrap() <= rows.div_ceil(segments) + batch);

                let depth = SEGMENT / 2;
                assert_eq!(steps.clone().uncut().segments().count(), 1);
                let cut: Vec<_> = steps.cut(depth).collect();
                assert!(!cut.is_empty());
                assert!(cut.iter().cloned().flatten().eq(0..longest));
                let most = cut.iter().map(|part| steps.rows_of(part).len()).max();
                assert!(most.unwrap() <= 3 * depth / 2 + batch);
                // No run goes on into the next segment.
                let begins = |step| cut.iter().any(|part| part.start == step);
                assert!(steps.segments().all(|segment| begins(segment.start)));
                let blocks = cut.iter().flat_map(|part| steps.blocks(part, depth));
                let blocks: Vec<_> = blocks.collect();
                assert!(blocks.len() >= cut.len());
                assert!(blocks.iter().all(|block| block.len() <= 3 * depth / 2));
                assert!(blocks.into_iter().flatten().eq(0..rows));
            }
        }
    }

    #[test]
    fn packs_like_torch() {
        let steps = Steps::new(&[2, 0, 5, 4, 5]);
        assert_eq!(steps.order(), [2, 4, 3, 0, 1]);
        assert_eq!(steps.lengths(), [5, 5, 4, 2, 0]);
        let counts: Vec<_> = (0..steps.longest()).map(|t| steps.count(t)).collect();
        assert_eq!(counts, [4, 4, 3, 3, 2]);
        assert_eq!(steps.rows(), 16);
        assert_eq!(steps.offset(3), 11);
    }

    #[test]
    fn slices_cover_all_rows_evenly() {
        for lengths in [vec![], vec![0, 0], vec![3], vec![9, 1, 1, 1], vec![7; 64]] {
            let steps = Steps::new(&lengths);
            for parts in 1..5 {
                let slices = steps.slices(&(0..steps.longest()), parts);
                assert!(slices.len() <= parts);
                let rows: Vec<usize> = slices.into_iter().flatten().collect();
                assert_eq!(rows, (0..lengths.len()).collect::<Vec<_>>());
            }
        }
        assert_eq!(Steps::new(&[7; 64]).slices(&(0..7), 2), [0..32, 32..64]);
        let uneven = Steps::new(&[9, 3, 3, 3]);
        assert_eq!(uneven.slices(&(0..9), 2), [0..1, 1..4]);
        assert_eq!(uneven.slices(&(0..3), 2), [0..2, 2..4]);
        // As many rows each, but fewer where there are more steps.
        let ragged: Vec<usize> = (1..=32).rev().collect();
        assert_eq!(Steps::new(&ragged).slices(&(0..32), 2), [0..9, 9..32]);
    }

    #[test]
    fn walks_both_ways() {
        let steps = Steps::new(&[3, 1]);
        let forward: Vec<_> = steps.walk(false).map(|v| (v.before, v.step)).collect();
        assert_eq!(forward, [(None, 0), (Some(0), 1), (Some(1), 2)]);
        let reverse: Vec<_> = steps.walk(true).map(|v| (v.before, v.step)).collect();
        assert_eq!(reverse, [(None, 2), (Some(2), 1), (Some(1), 0)]);
        assert!(
            steps
                .walk(true)
                .all(|v| steps.before(v.step, true) == v.before)
        );
    }

    #[test]
    fn refuses_lengths_by_name() {
        let error = Steps::checked(Some(&[1, 4]), 2, 3).unwrap_err().to_string();
        assert!(error.contains("lengths") && error.contains('4'), "{error}");
        assert!(Steps::checked(Some(&[-1, 4]), 2, 5).is_err());
        assert!(Steps::checked(Some(&[1]), 2, 5).is_err());
    }
}
