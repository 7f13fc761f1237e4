//! Dropout of rows, between layers and elsewhere.
//!
//! A mask is drawn from a stream of its own for each layer and each sequence of the batch, by its
//! number there, step after step, so that it depends neither on threads nor on how far the batch is
//! padded. It is never stored: backward draws it again.
//!
//! A locked mask is drawn once for a sequence and holds for all its steps (Gal and Ghahramani, "A
//! Theoretically Grounded Application of Dropout in Recurrent Neural Networks", 2016).

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::kernel::pack::Columns;
use crate::parallel;
use crate::simd::Real;
use crate::steps::Steps;

/// What masks are drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Drawn {
    /// The seed.
    pub seed: u64,
    /// Steps of the sequences that came before the first one of a pass.
    pub first: usize,
}

impl Drawn {
    /// Masks from the first step on.
    pub fn new(seed: u64) -> Self {
        Drawn { seed, first: 0 }
    }
}

/// What is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Mask {
    /// Probability that a number is dropped; the others are multiplied by 1 / (1 - rate).
    pub rate: f64,
    /// Whether all steps of a sequence have the same mask.
    pub locked: bool,
    /// What the masks are drawn from.
    pub drawn: Drawn,
    /// The place in the model, under 2^32: each has masks of its own.
    pub stream: u64,
}

/// Applies a mask to `rows`, R padded rows in packed order.
pub(crate) fn apply<E: Real>(rows: &mut [E], columns: Columns, steps: &Steps, mask: &Mask) {
    // A draw of 32 bits is below the threshold with probability p, to 2^-32.
    let threshold = (mask.rate * 2f64.powi(32)) as u64;
    let kept = if mask.rate < 1.0 {
        E::from_f64(1.0 / (1.0 - mask.rate))
    } else {
        E::ZERO
    };
    // Each sequence's rows, step after step.
    let mut sequences: Vec<(usize, Vec<&mut [E]>)> = steps
        .order()
        .iter()
        .zip(steps.lengths())
        .map(|(&sequence, &length)| (sequence, Vec::with_capacity(length)))
        .collect();
    let mut all = rows.chunks_exact_mut(columns.stride());
    for step in 0..steps.longest() {
        let running = sequences.iter_mut().take(steps.count(step));
        for ((_, rows), row) in running.zip(&mut all) {
            rows.push(row);
        }
    }
    /// Draws that take about as long as starting a second thread.
    const WORTHWHILE: usize = 1 << 14;
    let draws = steps.rows().saturating_mul(columns.real());
    let workers = parallel::workers(draws, WORTHWHILE);
    parallel::for_each(workers, sequences, |(sequence, rows)| {
        let mut random = ChaCha8Rng::seed_from_u64(mask.drawn.seed);
        random.set_stream(mask.stream << 32 | sequence as u64);
        if !mask.locked {
            // A number takes a word of the stream.
            random.set_word_pos(mask.drawn.first as u128 * columns.real() as u128);
        }
        let mut factors = vec![E::ZERO; columns.real()];
        for (step, row) in rows.into_iter().enumerate() {
            if step == 0 || !mask.locked {
                factors.fill_with(|| match u64::from(random.next_u32()) < threshold {
                    true => E::ZERO,
                    false => kept,
                });
            }
            let segments = row.chunks_exact_mut(columns.padded);
            for (segment, factors) in segments.zip(factors.chunks_exact(columns.width.max(1))) {
                for (x, &factor) in segment.iter_mut().zip(factors) {
                    *x = *x * factor;
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(rate: f64, seed: u64) -> Mask {
        Mask {
            rate,
            locked: false,
            drawn: Drawn::new(seed),
            stream: 1,
        }
    }

    fn masked(lengths: &[usize], mask: Mask) -> (Steps, Vec<f64>) {
        let columns = Columns {
            segments: 2,
            width: 5,
            padded: 8,
        };
        let steps = Steps::new(lengths);
        let mut rows = vec![1.0; steps.rows() * columns.stride()];
        apply(&mut rows, columns, &steps, &mask);
        (steps, rows)
    }

    #[test]
    fn keeps_the_mean_and_the_rate() {
        let (steps, rows) = masked(&[400, 300], mask(0.25, 1));
        let real = (steps.rows() * 10) as f64;
        let dropped = rows.iter().filter(|&&x| x == 0.0).count() as f64;
        assert!((dropped / real - 0.25).abs() < 0.02);
        assert!(rows.iter().all(|&x| x == 0.0 || x == 1.0 || x == 4.0 / 3.0));
    }

    #[test]
    fn a_sequence_has_its_mask_in_any_batch() {
        let (alone, a) = masked(&[9], mask(0.5, 7));
        let (among, b) = masked(&[9, 30, 2], mask(0.5, 7));
        let row = among.order().iter().position(|&s| s == 0).unwrap();
        for step in 0..9 {
            let x = &a[alone.offset(step) * 16..][..16];
            let y = &b[(among.offset(step) + row) * 16..][..16];
            assert_eq!(x, y);
        }
        assert_ne!(a, masked(&[9], mask(0.5, 8)).1);
    }

    #[test]
    fn a_locked_mask_is_that_of_the_first_step() {
        let (steps, free) = masked(&[9, 4], mask(0.5, 7));
        let locked = Mask {
            locked: true,
            ..mask(0.5, 7)
        };
        let rows = masked(&[9, 4], locked).1;
        let at = |rows: &[f64], step: usize, row: usize| {
            rows[(steps.offset(step) + row) * 16..][..16].to_vec()
        };
        for (row, length) in [(0, 9), (1, 4)] {
            for step in 0..length {
                assert_eq!(at(&rows, step, row), at(&free, 0, row));
            }
        }
        assert_ne!(at(&rows, 0, 0), at(&rows, 0, 1));
    }

    #[test]
    fn everything_is_dropped_at_one() {
        let (_, rows) = masked(&[3], mask(1.0, 1));
        assert!(
            rows.chunks(8)
                .all(|part| part[..5].iter().all(|&x| x == 0.0))
        );
    }
}
