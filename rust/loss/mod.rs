//! Losses over rows of outputs, with their gradients, and the scores that go with them.
//!
//! The outputs of n rows lie row-major with a stride of `ld` numbers, of which the first
//! `n_outputs` (at least one) count; the rest is padding. The loss of a row with outputs y and
//! targets t, its class t or its numbers t_j, and the loss's slope:
//!
//! ```text
//! cross entropy         log(sum_j e^y_j) - y_t                     e^y_j / sum - [j = t]
//! binary cross entropy  mean_j log(1 + e^y_j) - t_j y_j            (1 / (1 + e^-y_j) - t_j) / k
//! squared error         mean_j (y_j - t_j)^2                       2 (y_j - t_j) / k
//! absolute error        mean_j |y_j - t_j|                         sign(y_j - t_j) / k, 0 at 0
//! Huber                 mean_j r^2 / 2          for r <= delta     (y_j - t_j) / k
//!                       mean_j delta (r - delta / 2)   beyond      delta sign(y_j - t_j) / k
//! ```
//!
//! with k = `n_outputs` and r = |y_j - t_j|, as `torch.nn` has them: `CrossEntropyLoss`,
//! `BCEWithLogitsLoss`, `MSELoss`, `L1Loss` and `HuberLoss`. [`Loss::apply`] replaces the outputs
//! of row i by `weights[i] * scale` times the slope, and the padding by zeros. With `scale` = 1 /
//! (sum of the weights of the whole batch) that is the gradient of the weighted mean, however the
//! batch is cut into slices. A row of weight 0 has no gradient and no part in the score, whatever
//! numbers it holds.

use crate::activation::exp;
use crate::error::{Error, Result};
use crate::reduce::reduce;
use crate::simd::portable::Lanes;
use crate::simd::{Isa, Plain, Real, Vector, compiled_for};
use score::Metric;
pub use score::Score;

mod score;

/// What training minimises: see the module's page.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Loss {
    /// Of a softmax over the outputs against a class index.
    CrossEntropy,
    /// Of each output's sigmoid against a number in 0..=1; mean over the outputs.
    BinaryCrossEntropy,
    /// Mean over the outputs.
    SquaredError,
    /// Mean over the outputs.
    AbsoluteError,
    /// Squared near 0 and absolute beyond; mean over the outputs.
    Huber {
        /// Where the one becomes the other, above 0.
        delta: f64,
    },
}

/// What rows of outputs are compared with.
#[derive(Clone, Copy, Debug)]
pub enum Expected<'a, E> {
    /// The index of the right output: shape (rows,), each under `n_outputs`.
    Classes(&'a [u32]),
    /// What the outputs should be: shape (rows, n_outputs).
    Numbers(&'a [E]),
}

impl Loss {
    /// Whether it compares with [`Expected::Classes`]; else with [`Expected::Numbers`].
    pub fn takes_classes(self) -> bool {
        self == Loss::CrossEntropy
    }

    /// Checks its setting against its range.
    ///
    /// # Errors
    /// [`Error::Value`] naming `huber_delta`.
    pub fn validate(self) -> Result<()> {
        match self {
            Loss::Huber { delta } if !(delta > 0.0 && delta.is_finite()) => {
                Err(Error::value("huber_delta", "a finite number > 0", delta))
            }
            _ => Ok(()),
        }
    }

    /// Replaces outputs by their gradient and adds the rows to `score`: see the module's page. The
    /// code is compiled for `isa`, which changes no bit.
    ///
    /// `outputs`: shape (rows, ld). `weights`: shape (rows,), at least 0; 1 each if there are none.
    ///
    /// # Panics
    /// When the three do not hold the same number of rows, a class is not under `n_outputs`, the
    /// targets are of the other kind, `score` is of a loss with another metric or of another
    /// number of numeric outputs, or the CPU lacks the instruction set.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call a slice, from one place"
    )]
    pub fn apply<E: Real>(
        self,
        isa: Isa,
        outputs: &mut [E],
        ld: usize,
        n_outputs: usize,
        targets: Expected<E>,
        weights: Option<&[E]>,
        scale: f64,
        score: &mut Score,
    ) {
        let rows = outputs.len() / ld;
        assert_eq!(outputs.len(), rows * ld, "outputs: rows * ld");
        let expected = match targets {
            Expected::Classes(classes) => (classes.len(), rows),
            Expected::Numbers(numbers) => (numbers.len(), rows * n_outputs),
        };
        assert_eq!(expected.0, expected.1, "targets: one for each row");
        assert!(
            weights.is_none_or(|weights| weights.len() == rows),
            "weights: one for each row"
        );
        for (i, row) in outputs.chunks_exact_mut(ld).enumerate() {
            let weight = weights.map_or(1.0, |weights| weights[i].to_f64());
            let (row, padding) = row.split_at_mut(n_outputs);
            padding.fill(E::ZERO);
            if weight == 0.0 {
                row.fill(E::ZERO);
                continue;
            }
            score.weigh(weight);
            let targets = match targets {
                Expected::Classes(classes) => Expected::Classes(&classes[i..=i]),
                Expected::Numbers(numbers) => {
                    Expected::Numbers(&numbers[i * n_outputs..][..n_outputs])
                }
            };
            let row = Row {
                loss: self,
                outputs: row,
                targets,
                scale: scale * weight,
                weight,
                score,
            };
            let loss = compiled_for(isa, row);
            score.loss += weight * loss;
        }
    }
}

/// A row of outputs.
struct Row<'a, E> {
    loss: Loss,
    outputs: &'a mut [E],
    targets: Expected<'a, E>,
    scale: f64,
    weight: f64,
    score: &'a mut Score,
}

impl<E: Real> Plain for Row<'_, E> {
    /// The row's loss.
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let Self {
            loss,
            outputs: row,
            targets,
            scale,
            weight,
            score,
        } = self;
        match (loss, targets) {
            (Loss::CrossEntropy, Expected::Classes(class)) => {
                cross_entropy(row, class[0] as usize, scale, weight, &mut score.metric)
            }
            (Loss::BinaryCrossEntropy, Expected::Numbers(targets)) => {
                binary_cross_entropy(row, targets, scale, weight, &mut score.metric)
            }
            (Loss::SquaredError, Expected::Numbers(targets)) => {
                distance(row, targets, scale, weight, score, |error: E| {
                    (error.to_f64() * error.to_f64(), error + error)
                })
            }
            (Loss::AbsoluteError, Expected::Numbers(targets)) => {
                distance(row, targets, scale, weight, score, |error: E| {
                    (error.to_f64().abs(), sign(error))
                })
            }
            (Loss::Huber { delta }, Expected::Numbers(targets)) => {
                let edge = E::from_f64(delta);
                distance(row, targets, scale, weight, score, |error: E| {
                    let size = error.to_f64().abs();
                    if size <= delta {
                        (0.5 * size * size, error)
                    } else {
                        (delta * (size - 0.5 * delta), edge * sign(error))
                    }
                })
            }
            _ => panic!("targets of the other kind"),
        }
    }
}

/// The loss of a row, whose logits become their gradient. It is right when its class is the first
/// of the largest logits.
#[inline(always)]
fn cross_entropy<E: Real>(
    row: &mut [E],
    class: usize,
    scale: f64,
    weight: f64,
    metric: &mut Metric,
) -> f64 {
    let greater = |a: E, b: E| if b > a { b } else { a };
    let largest = reduce(row, row[0], greater, greater);
    metric.judge(
        row[class] == largest && !row[..class].contains(&largest),
        weight,
    );
    let distance = (largest - row[class]).to_f64();
    exp_each(row, |y| y - largest);
    let sum = reduce(row, 0.0, |sum, p: E| sum + p.to_f64(), |a, b| a + b);

    let share = E::from_f64(scale / sum);
    for p in &mut *row {
        *p = *p * share;
    }
    row[class] = row[class] - E::from_f64(scale);
    sum.ln() + distance
}

/// The loss of a row, whose logits become their gradient. It is right when each output is positive
/// exactly where its target is above a half.
#[inline(always)]
fn binary_cross_entropy<E: Real>(
    row: &mut [E],
    targets: &[E],
    scale: f64,
    weight: f64,
    metric: &mut Metric,
) -> f64 {
    let n_outputs = row.len() as f64;
    let scale = E::from_f64(scale / n_outputs);
    let (mut sum, mut right) = (0.0, true);
    for (row, targets) in row.chunks_mut(BLOCK).zip(targets.chunks(BLOCK)) {
        // e^-|y| is all that both need, and never overflows.
        let mut powers = [E::ZERO; BLOCK];
        let powers = &mut powers[..row.len()];
        powers.copy_from_slice(row);
        exp_each(powers, |y| if y > E::ZERO { -y } else { y });
        for ((y, &target), &power) in row.iter_mut().zip(targets).zip(&*powers) {
            let positive = *y > E::ZERO;
            right &= positive == (target.to_f64() > 0.5);
            let rise = if positive { y.to_f64() } else { 0.0 };
            sum += rise - y.to_f64() * target.to_f64() + power.to_f64().ln_1p();
            let numerator = if positive { E::ONE } else { power };
            *y = scale * (numerator / (E::ONE + power) - target);
        }
    }
    metric.judge(right, weight);
    sum / n_outputs
}

/// The loss of a row whose outputs become their gradient, `penalty` being the loss of an error and
/// its slope.
#[inline(always)]
fn distance<E: Real>(
    row: &mut [E],
    targets: &[E],
    scale: f64,
    weight: f64,
    score: &mut Score,
    penalty: impl Fn(E) -> (f64, E),
) -> f64 {
    let n_outputs = row.len() as f64;
    let scale = E::from_f64(scale / n_outputs);
    let fits = score.metric.fits(row.len());
    let mut sum = 0.0;
    for ((y, &target), fit) in row.iter_mut().zip(targets).zip(fits) {
        let error = *y - target;
        let (loss, slope) = penalty(error);
        sum += loss;
        fit.add(target.to_f64(), error.to_f64(), weight, score.weight);
        *y = scale * slope;
    }
    sum / n_outputs
}

/// 1, 0 or -1; NaN for NaN.
#[inline(always)]
fn sign<E: Real>(x: E) -> E {
    if x > E::ZERO {
        E::ONE
    } else if x < E::ZERO {
        -E::ONE
    } else {
        x
    }
}

/// Numbers of a block whose powers are taken at once.
const BLOCK: usize = 16;

/// x <- e^change(x)
#[inline(always)]
fn exp_each<E: Real>(values: &mut [E], change: impl Fn(E) -> E) {
    let (blocks, rest) = values.as_chunks_mut();
    for block in blocks {
        exp_block(block, &change);
    }
    let mut last = [E::ZERO; BLOCK];
    last[..rest.len()].copy_from_slice(rest);
    exp_block(&mut last, &change);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Not a closure of the loop's: those are inlined as the compiler likes.
#[inline(always)]
fn exp_block<E: Real>(block: &mut [E; BLOCK], change: &impl Fn(E) -> E) {
    for x in block.iter_mut() {
        *x = change(*x);
    }
    // SAFETY: portable lanes need no instruction set, and both pointers are to BLOCK numbers.
    unsafe {
        exp(Lanes::<E, BLOCK>::load(block.as_ptr())).store(block.as_mut_ptr());
    }
}

#[cfg(test)]
mod tests;
