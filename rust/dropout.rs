//! Dropout between layers.
//!
//! A mask is drawn from a stream of its own for each layer and sequence, step after step, so that it
//! depends neither on threads nor on what else is in the batch or how far it is padded. It is
//! never stored: backward draws it again.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::kernel::pack::Columns;
use crate::simd::Real;
use crate::steps::Steps;

/// Multiplies `rows` (R padded rows in packed order) by 0 with probability `p`, else by 1/(1-p).
pub(crate) fn apply<E: Real>(
    rows: &mut [E],
    columns: Columns,
    steps: &Steps,
    p: f64,
    seed: u64,
    layer: u64,
) {
    // A draw of 32 bits is below the threshold with probability p, to 2^-32.
    let threshold = (p * 2f64.powi(32)) as u64;
    let scale = E::from_f64(if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 });
    for (row, (&sequence, &length)) in steps.order().iter().zip(steps.lengths()).enumerate() {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        random.set_stream(layer << 32 | sequence as u64);
        for step in 0..length {
            let start = (steps.offset(step) + row) * columns.stride();
            for segment in 0..columns.segments {
                let start = start + segment * columns.padded;
                for x in &mut rows[start..start + columns.width] {
                    let dropped = u64::from(random.next_u32()) < threshold;
                    *x = *x * if dropped { E::ZERO } else { scale };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(lengths: &[usize], p: f64, seed: u64) -> (Steps, Vec<f64>) {
        let columns = Columns {
            segments: 2,
            width: 5,
            padded: 8,
        };
        let steps = Steps::new(lengths);
        let mut rows = vec![1.0; steps.rows() * columns.stride()];
        apply(&mut rows, columns, &steps, p, seed, 1);
        (steps, rows)
    }

    #[test]
    fn keeps_the_mean_and_the_rate() {
        let (steps, rows) = masked(&[400, 300], 0.25, 1);
        let real = (steps.rows() * 10) as f64;
        let dropped = rows.iter().filter(|&&x| x == 0.0).count() as f64;
        assert!((dropped / real - 0.25).abs() < 0.02);
        assert!(rows.iter().all(|&x| x == 0.0 || x == 1.0 || x == 4.0 / 3.0));
    }

    #[test]
    fn a_sequence_has_its_mask_in_any_batch() {
        let (alone, a) = masked(&[9], 0.5, 7);
        let (among, b) = masked(&[9, 30, 2], 0.5, 7);
        let row = among.order().iter().position(|&s| s == 0).unwrap();
        for step in 0..9 {
            let x = &a[alone.offset(step) * 16..][..16];
            let y = &b[(among.offset(step) + row) * 16..][..16];
            assert_eq!(x, y);
        }
        assert_ne!(a, masked(&[9], 0.5, 8).1);
    }

    #[test]
    fn everything_is_dropped_at_one() {
        let (_, rows) = masked(&[3], 1.0, 1);
        assert!(
            rows.chunks(8)
                .all(|part| part[..5].iter().all(|&x| x == 0.0))
        );
    }
}
