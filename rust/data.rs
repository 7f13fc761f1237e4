//! Sequences as they lie in the caller's memory, and the batches that an epoch takes them in.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::error::{Error, Result};

/// Batches that are sorted together: enough for batches of nearly equal lengths, few enough that
/// which sequences meet in a batch still changes from epoch to epoch.
const BATCHES_IN_POOL: usize = 50;

/// The first ChaCha stream of [`BatchPlan`]; other uses of a seed keep beneath it.
const FIRST_STREAM: u64 = 1 << 63;

/// What the steps of all sequences hold, one row a step.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a, E> {
    /// Feature vectors: shape (rows, width), row-major.
    Dense {
        /// rows * width numbers.
        rows: &'a [E],
        /// Features a step.
        width: usize,
    },
    /// Identifiers: shape (rows, width), row-major.
    Ids {
        /// Those of a sequence lie in 0..vocabulary; what lies between sequences may be anything.
        ids: &'a [i64],
        /// Identifiers a step.
        width: usize,
        /// How many identifiers there are.
        vocabulary: usize,
    },
}

impl<E> Values<'_, E> {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        match *self {
            Self::Dense { width: 0, .. } | Self::Ids { width: 0, .. } => 0,
            Self::Dense { rows, width } => rows.len() / width,
            Self::Ids { ids, width, .. } => ids.len() / width,
        }
    }

    /// Whether rows are all complete.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `values` if not.
    pub(crate) fn check_rows(&self) -> Result<()> {
        let (width, numbers) = match *self {
            Self::Dense { rows, width } => (width, rows.len()),
            Self::Ids { ids, width, .. } => (width, ids.len()),
        };
        if width == 0 || numbers % width != 0 {
            let expected = format!("(rows, {width}), rows of one column or more");
            return Err(Error::shape(
                "values",
                expected,
                format!("{numbers} numbers"),
            ));
        }
        Ok(())
    }

    /// Whether the identifiers of some rows, if they are that, are in the vocabulary.
    ///
    /// # Errors
    /// [`Error::Value`] naming the first row of `values` that has another.
    pub(crate) fn check_ids(&self, rows: &Range<usize>) -> Result<()> {
        let Self::Ids {
            ids,
            width,
            vocabulary,
        } = *self
        else {
            return Ok(());
        };
        let outside = |&id: &i64| !usize::try_from(id).is_ok_and(|id| id < vocabulary);
        let ids = &ids[rows.start * width..rows.end * width];
        match ids.iter().position(outside) {
            None => Ok(()),
            Some(at) => Err(Error::value(
                format!("values[{}]", rows.start + at / width),
                format!("an identifier >= 0 and under {vocabulary}"),
                ids[at],
            )),
        }
    }
}

/// Sequences of different lengths in one table of rows. They need not fill it, and may overlap.
#[derive(Clone, Debug)]
pub struct Sequences<'a, E> {
    values: Values<'a, E>,
    ranges: Vec<Range<usize>>,
}

impl<'a, E: Copy> Sequences<'a, E> {
    /// Sequence i is rows `starts[i] .. starts[i] + lengths[i]` of `values`; lengths may be 0.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] when rows are not all complete or `lengths` differs in length from
    /// `starts`; [`Error::Value`] when a sequence does not lie in the rows or an identifier of one
    /// not in the vocabulary, naming the first.
    pub fn new(values: Values<'a, E>, starts: &[i64], lengths: &[i64]) -> Result<Self> {
        values.check_rows()?;
        if starts.len() != lengths.len() {
            return Err(Error::shape(
                "lengths",
                format!("({},) as `starts`", starts.len()),
                format!("({},)", lengths.len()),
            ));
        }
        let rows = values.rows();
        let ranges = starts
            .iter()
            .zip(lengths)
            .enumerate()
            .map(|(i, (&start, &length))| range(i, start, length, rows))
            .collect::<Result<Vec<_>>>()?;
        for range in &ranges {
            values.check_ids(range)?;
        }
        Ok(Self { values, ranges })
    }

    /// How many sequences there are.
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    /// How many steps each sequence has.
    pub fn lengths(&self) -> Vec<usize> {
        self.ranges.iter().map(Range::len).collect()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// All rows, those of no sequence among them.
    pub fn values(&self) -> Values<'a, E> {
        self.values
    }

    /// The rows of each sequence.
    pub fn ranges(&self) -> &[Range<usize>] {
        &self.ranges
    }
}

/// The rows of sequence `i`, if there are `rows` of them.
fn range(i: usize, start: i64, length: i64, rows: usize) -> Result<Range<usize>> {
    let length = usize::try_from(length)
        .map_err(|_| Error::value(format!("lengths[{i}]"), "an integer >= 0", length))?;
    usize::try_from(start)
        .ok()
        .and_then(|start| Some(start..start.checked_add(length)?))
        .filter(|range| range.end <= rows)
        .ok_or_else(|| {
            Error::value(
                format!("starts[{i}]"),
                format!("{length} rows from it on within the {rows} rows"),
                start,
            )
        })
}

/// In which batches the epochs take the sequences: each sequence once an epoch.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    lengths: Vec<usize>,
    batch_size: usize,
    shuffle: bool,
    bucket_by_length: bool,
    seed: u64,
}

impl BatchPlan {
    /// A plan for sequences of these `lengths`, `batch_size` in a batch and the rest in one of
    /// their own.
    ///
    /// `shuffle` draws a new order each epoch. `bucket_by_length` puts sequences of similar lengths
    /// together, so that a batch has few steps in which only some of its sequences go on: the order
    /// is cut into pools of 50 batches, each pool sorted by length and cut into batches, and with
    /// `shuffle` those are shuffled in their turn.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] when `batch_size` is 0.
    pub fn new(
        lengths: Vec<usize>,
        batch_size: usize,
        shuffle: bool,
        bucket_by_length: bool,
        seed: u64,
    ) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::value("batch_size", "an integer >= 1", batch_size));
        }
        Ok(Self {
            lengths,
            batch_size,
            shuffle,
            bucket_by_length,
            seed,
        })
    }

    /// The batches of an epoch, as indexes of sequences, the longest sequence of a batch first. A
    /// function of the plan and of `epoch` alone, so that training can be resumed at any epoch.
    pub fn batches(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
        rng.set_stream(FIRST_STREAM | epoch);
        let mut order: Vec<usize> = (0..self.lengths.len()).collect();
        if self.shuffle {
            order.shuffle(&mut rng);
        }
        if self.bucket_by_length {
            for pool in order.chunks_mut(self.batch_size.saturating_mul(BATCHES_IN_POOL)) {
                self.longest_first(pool);
            }
        }
        let mut batches: Vec<Vec<usize>> = order
            .chunks(self.batch_size)
            .map(<[usize]>::to_vec)
            .collect();
        if self.shuffle && self.bucket_by_length {
            batches.shuffle(&mut rng);
        }
        for batch in &mut batches {
            self.longest_first(batch);
        }
        batches
    }

    /// Sorts sequences by length, those of equal length staying in order.
    fn longest_first(&self, sequences: &mut [usize]) {
        sequences.sort_by_key(|&i| std::cmp::Reverse(self.lengths[i]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dense(rows: &[f32], width: usize) -> Values<'_, f32> {
        Values::Dense { rows, width }
    }

    fn message<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn sequences_may_be_empty_overlap_and_leave_rows_out() {
        let rows = [0.0; 12];
        let sequences = Sequences::new(dense(&rows, 2), &[0, 6, 2, 1], &[3, 0, 2, 3]).unwrap();
        assert_eq!(sequences.ranges(), [0..3, 6..6, 2..4, 1..4]);
        assert_eq!(sequences.len(), 4);
        assert!(!sequences.is_empty());
        assert!(matches!(sequences.values(), Values::Dense { width: 2, .. }));
        assert!(Sequences::new(dense(&[], 2), &[], &[]).unwrap().is_empty());
    }

    #[test]
    fn sequences_outside_the_rows_are_named() {
        let rows = [0.0; 12];
        for (start, length) in [(5, 2), (-1, 2), (7, 0), (i64::MAX, i64::MAX)] {
            let error = message(Sequences::new(dense(&rows, 2), &[0, start], &[1, length]));
            assert_eq!(
                error,
                format!(
                    "starts[1]: expected {length} rows from it on within the 6 rows, got {start}"
                )
            );
        }
        assert_eq!(
            message(Sequences::new(dense(&rows, 2), &[0], &[-1])),
            "lengths[0]: expected an integer >= 0, got -1"
        );
        assert_eq!(
            message(Sequences::new(dense(&rows, 2), &[0, 1], &[1])),
            "lengths: expected shape (2,) as `starts`, got (1,)"
        );
        assert!(message(Sequences::new(dense(&rows, 5), &[], &[])).starts_with("values: "));
        assert!(message(Sequences::new(dense(&rows, 0), &[], &[])).starts_with("values: "));
    }

    #[test]
    fn identifiers_are_checked_in_sequences_alone() {
        let values: Values<'_, f32> = Values::Ids {
            ids: &[0, 4, -1, 5, 3],
            width: 1,
            vocabulary: 5,
        };
        assert!(Sequences::new(values, &[0, 4], &[2, 1]).is_ok());
        assert_eq!(
            message(Sequences::new(values, &[4, 1], &[1, 2])),
            "values[2]: expected an identifier >= 0 and under 5, got -1"
        );
        assert_eq!(
            message(Sequences::new(values, &[3], &[2])),
            "values[3]: expected an identifier >= 0 and under 5, got 5"
        );
    }

    /// 1003 lengths from 0 to 99 in no order.
    fn lengths() -> Vec<usize> {
        (0..1003).map(|i| i * 7919 % 100).collect()
    }

    fn plan(shuffle: bool, bucket_by_length: bool, seed: u64) -> BatchPlan {
        BatchPlan::new(lengths(), 8, shuffle, bucket_by_length, seed).unwrap()
    }

    #[test]
    fn every_sequence_once_an_epoch_and_the_longest_first() {
        let lengths = lengths();
        for (shuffle, bucket) in [(false, false), (false, true), (true, false), (true, true)] {
            let batches = plan(shuffle, bucket, 3).batches(1);
            assert_eq!(batches.len(), 126);
            assert_eq!(batches.iter().filter(|batch| batch.len() == 8).count(), 125);
            assert!(
                batches
                    .iter()
                    .all(|batch| batch.is_sorted_by(|&a, &b| lengths[a] >= lengths[b]))
            );
            let mut seen = batches.concat();
            seen.sort_unstable();
            assert!(seen.into_iter().eq(0..1003));
        }
    }

    #[test]
    fn a_function_of_seed_and_epoch() {
        assert_eq!(
            plan(true, true, 3).batches(5),
            plan(true, true, 3).batches(5)
        );
        assert_ne!(
            plan(true, true, 3).batches(5),
            plan(true, true, 3).batches(6)
        );
        assert_ne!(
            plan(true, true, 3).batches(5),
            plan(true, true, 4).batches(5)
        );
        assert_eq!(
            plan(false, true, 3).batches(5),
            plan(false, true, 4).batches(6)
        );
    }

    /// The same on every machine and in every version: a saved seed repeats its training.
    #[test]
    fn shuffled_order_is_fixed() {
        let plan = BatchPlan::new(vec![1; 8], 4, true, false, 42).unwrap();
        assert_eq!(plan.batches(1), [[3, 1, 0, 7], [4, 6, 2, 5]]);
    }

    #[test]
    fn without_shuffling_equal_lengths_stay_in_order() {
        let plan = BatchPlan::new(vec![2, 2, 3, 2, 2], 3, false, false, 0).unwrap();
        assert_eq!(plan.batches(1), [vec![2, 0, 1], vec![3, 4]]);
        let plan = BatchPlan::new(vec![2, 2, 3, 2, 2], 3, false, true, 0).unwrap();
        assert_eq!(plan.batches(1), [vec![2, 0, 1], vec![3, 4]]);
    }

    #[test]
    fn buckets_leave_few_idle_steps() {
        let lengths = lengths();
        let idle = |plan: BatchPlan| -> usize {
            let batches = plan.batches(1);
            let idle = |batch: &Vec<usize>| {
                batch
                    .iter()
                    .map(|&i| lengths[batch[0]] - lengths[i])
                    .sum::<usize>()
            };
            batches.iter().map(idle).sum()
        };
        assert!(idle(plan(true, true, 0)) * 20 < idle(plan(true, false, 0)));
    }

    #[test]
    fn a_batch_holds_a_sequence_at_least() {
        assert_eq!(
            message(BatchPlan::new(vec![1], 0, true, true, 0)),
            "batch_size: expected an integer >= 1, got 0"
        );
        assert!(
            BatchPlan::new(vec![], 4, true, true, 0)
                .unwrap()
                .batches(1)
                .is_empty()
        );
    }
}
