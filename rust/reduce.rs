//! Reductions of a slice to one number in an order that never varies.
//!
//! Element i joins partial result i mod 16, and the partial results are joined in pairs, so that
//! the compiler may use whatever vectors the target has while the result depends on the slice
//! alone.

#[cfg(any(test, feature = "python"))]
use crate::simd::{Isa, Plain, Real, compiled_for};

/// Partial results side by side.
const LANES: usize = 16;

/// Folds `values` with `step` into 16 partial results that begin as `start`, then joins those with
/// `join`. `start` must be neutral: joining it changes nothing.
#[inline(always)]
pub fn reduce<E: Copy, A: Copy>(
    values: &[E],
    start: A,
    step: impl Fn(A, E) -> A,
    join: impl Fn(A, A) -> A,
) -> A {
    let mut partial = [start; LANES];
    let (blocks, rest) = values.as_chunks::<LANES>();
    for block in blocks {
        // Not zipped, as in `kernel`.
        for (lane, sum) in partial.iter_mut().enumerate() {
            *sum = step(*sum, block[lane]);
        }
    }
    for (sum, &value) in partial.iter_mut().zip(rest) {
        *sum = step(*sum, value);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            partial[lane] = join(partial[lane], partial[lane + width]);
        }
        width /= 2;
    }
    partial[0]
}

/// Whether all numbers are finite.
#[cfg(any(test, feature = "python"))]
pub fn are_finite<E: Real>(isa: Isa, values: &[E]) -> bool {
    /// A zero times each number is zero, or else NaN, which no sum loses.
    struct Zeros<'a, E>(&'a [E]);
    impl<E: Real> Plain for Zeros<'_, E> {
        type Output = bool;
        #[inline(always)]
        fn run(self) -> bool {
            let sum = reduce(self.0, E::ZERO, |sum, x| sum + x * E::ZERO, |a, b| a + b);
            sum == E::ZERO
        }
    }
    compiled_for(isa, Zeros(values))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_every_length() {
        for n in 0..70 {
            let values: Vec<u64> = (1..=n).collect();
            let sum = reduce(&values, 0, |sum, x| sum + x, |a, b| a + b);
            assert_eq!(sum, n * (n + 1) / 2);
        }
    }

    #[test]
    fn one_that_is_not_finite_is_found_wherever_it_is() {
        for &isa in Isa::available() {
            let mut values = [f32::MAX; 53];
            assert!(are_finite::<f64>(isa, &[]) && are_finite(isa, &values));
            for at in 0..values.len() {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    values[at] = bad;
                    assert!(!are_finite(isa, &values), "{bad} at {at}");
                    assert!(!are_finite(isa, &values.map(f64::from)));
                }
                values[at] = -f32::MAX;
            }
        }
    }

    #[test]
    fn order_is_by_lane_then_in_pairs() {
        let values: Vec<f32> = (0..35).map(|i| (i as f32).exp2()).collect();
        let lane = |l: usize| values[l..].iter().step_by(16).fold(0.0, |sum, x| sum + x);
        let mut level: Vec<f32> = (0..16).map(lane).collect();
        while level.len() > 1 {
            let (low, high) = level.split_at(level.len() / 2);
            level = low.iter().zip(high).map(|(a, b)| a + b).collect();
        }
        assert_eq!(
            reduce(&values, 0.0, |sum, x| sum + x, |a, b| a + b),
            level[0]
        );
    }
}
