//! Losses over rows of outputs, with their gradients, and the scores that go with them.
//!
//! The outputs of n rows lie row-major with a stride of `ld` numbers, of which the first
//! `n_outputs` (at least one) count; the rest is padding. Each loss replaces the outputs by the
//! gradient of `row_weight * sum of the rows' losses` and the padding by zeros. With `row_weight` =
//! 1 / (rows of the whole batch) that is the mean, however the batch is cut into slices:
//!
//! ```text
//! cross entropy   l = log(sum_j e^y_j) - y_t           dl/dy_j = e^y_j / sum - [j = t]
//! squared error   l = mean_j (y_j - t_j)^2              dl/dy_j = 2 (y_j - t_j) / n_outputs
//! ```
//!
//! as `torch.nn.CrossEntropyLoss` and `torch.nn.MSELoss` have it with their default, the mean.

use crate::activation::exp;
use crate::reduce::reduce;
use crate::simd::portable::Lanes;
use crate::simd::{Real, Vector};

/// What training minimises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Of a softmax over the outputs against a class index.
    CrossEntropy,
    /// Mean over the outputs.
    SquaredError,
}

/// Softmax cross-entropy of each row against its class: see the module's page.
///
/// `logits`: shape (rows, ld), in; out, their gradient. `classes`: shape (rows,), each under
/// `n_outputs`. Adds the rows' losses and the number of right ones to `score`; a row is right when
/// its class is the first of the largest logits.
///
/// # Panics
///
/// When a class is not under `n_outputs`, the buffer not rows * ld long, or `score` of another
/// loss.
pub fn cross_entropy<E: Real>(
    logits: &mut [E],
    ld: usize,
    n_outputs: usize,
    classes: &[u32],
    row_weight: f64,
    score: &mut Score,
) {
    assert_eq!(logits.len(), classes.len() * ld, "logits: rows * ld");
    let Metric::Accuracy { right } = &mut score.metric else {
        panic!("a score of another loss");
    };
    for (row, &class) in logits.chunks_exact_mut(ld).zip(classes) {
        let class = class as usize;
        let (row, padding) = row.split_at_mut(n_outputs);
        padding.fill(E::ZERO);
        let greater = |a: E, b: E| if b > a { b } else { a };
        let largest = reduce(row, row[0], greater, greater);
        let first = row[class] == largest && !row[..class].contains(&largest);
        *right += u64::from(first);
        let distance = (largest - row[class]).to_f64();

        subtract_and_exp(row, largest);
        let sum = reduce(row, 0.0, |sum, p: E| sum + p.to_f64(), |a, b| a + b);
        score.loss += sum.ln() + distance;

        let scale = E::from_f64(row_weight / sum);
        for p in &mut *row {
            *p = *p * scale;
        }
        row[class] = row[class] - E::from_f64(row_weight);
    }
    score.rows += classes.len() as u64;
}

/// y <- e^(y - largest)
fn subtract_and_exp<E: Real>(row: &mut [E], largest: E) {
    const LANES: usize = 4;
    let apply = |block: &mut [E; LANES]| {
        // SAFETY: portable lanes need no instruction set, and both pointers are to LANES numbers.
        unsafe {
            let y = Lanes::<E, LANES>::load(block.as_ptr());
            exp(y.sub(Lanes::splat(largest))).store(block.as_mut_ptr());
        }
    };
    let (blocks, rest) = row.as_chunks_mut();
    blocks.iter_mut().for_each(apply);
    let mut last = [largest; LANES];
    last[..rest.len()].copy_from_slice(rest);
    apply(&mut last);
    rest.copy_from_slice(&last[..rest.len()]);
}

/// Squared error of each row against its targets: see the module's page.
///
/// `outputs`: shape (rows, ld), in; out, their gradient. `targets`: shape (rows, n_outputs). Adds
/// the rows' losses and what R^2 needs to `score`.
///
/// # Panics
///
/// When the buffers do not hold the same number of rows, or `score` is of another loss or
/// `n_outputs`.
pub fn squared_error<E: Real>(
    outputs: &mut [E],
    ld: usize,
    n_outputs: usize,
    targets: &[E],
    row_weight: f64,
    score: &mut Score,
) {
    let rows = targets.len() / n_outputs;
    assert_eq!(targets.len(), rows * n_outputs, "targets: rows * n_outputs");
    assert_eq!(outputs.len(), rows * ld, "outputs: rows * ld");
    let Metric::RSquared(fits) = &mut score.metric else {
        panic!("a score of another loss");
    };
    assert_eq!(
        fits.len(),
        n_outputs,
        "a score of another number of outputs"
    );
    let scale = E::from_f64(2.0 * row_weight / n_outputs as f64);
    let rows = outputs
        .chunks_exact_mut(ld)
        .zip(targets.chunks_exact(n_outputs));
    for (row, targets) in rows {
        let (row, padding) = row.split_at_mut(n_outputs);
        padding.fill(E::ZERO);
        score.rows += 1;
        let mut sum = 0.0;
        for ((y, &target), fit) in row.iter_mut().zip(targets).zip(&mut *fits) {
            let error = *y - target;
            let square = error.to_f64() * error.to_f64();
            sum += square;
            fit.add(target.to_f64(), square, score.rows);
            *y = scale * error;
        }
        score.loss += sum / n_outputs as f64;
    }
}

/// Loss and metric of the rows seen so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Sum of the rows' losses.
    loss: f64,
    rows: u64,
    metric: Metric,
}

#[derive(Clone, Debug, PartialEq)]
enum Metric {
    Accuracy {
        right: u64,
    },
    /// One entry an output.
    RSquared(Vec<Fit>),
}

/// Targets and errors of one output, after Welford (1962) so that a large mean costs no digits and
/// a constant target has no spread at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Fit {
    /// Mean of the targets.
    mean: f64,
    /// Sum of (target - mean)^2.
    spread: f64,
    /// Sum of (output - target)^2.
    error: f64,
}

impl Fit {
    /// Takes in the target of row number `rows`, counted from 1.
    fn add(&mut self, target: f64, square: f64, rows: u64) {
        let before = target - self.mean;
        self.mean += before / rows as f64;
        self.spread += before * (target - self.mean);
        self.error += square;
    }

    /// Joins `other`, of `others` rows, to this one of `rows` rows (Chan, Golub and LeVeque, 1983).
    fn merge(&mut self, rows: u64, other: &Self, others: u64) {
        let between = other.mean - self.mean;
        let share = others as f64 / (rows + others) as f64;
        self.mean += between * share;
        self.spread += other.spread + between * between * share * rows as f64;
        self.error += other.error;
    }

    /// 1 - error / spread; where a constant target leaves that undefined, 1 for a perfect fit and
    /// else 0, as scikit-learn's `r2_score` has it.
    fn r_squared(&self) -> f64 {
        if self.error == 0.0 {
            1.0
        } else if self.spread == 0.0 {
            0.0
        } else {
            1.0 - self.error / self.spread
        }
    }
}

impl Score {
    /// A score without rows.
    pub fn new(loss: Loss, n_outputs: usize) -> Self {
        Self {
            loss: 0.0,
            rows: 0,
            metric: match loss {
                Loss::CrossEntropy => Metric::Accuracy { right: 0 },
                Loss::SquaredError => Metric::RSquared(vec![Fit::default(); n_outputs]),
            },
        }
    }

    /// Adds the rows of `other`. The last bits of the sums depend on the order of merging, so merge
    /// slices and batches in their order.
    ///
    /// # Panics
    ///
    /// When `other` is of another loss.
    pub fn merge(&mut self, other: &Self) {
        if other.rows == 0 {
            return;
        }
        match (&mut self.metric, &other.metric) {
            (Metric::Accuracy { right }, Metric::Accuracy { right: more }) => *right += more,
            (Metric::RSquared(fits), Metric::RSquared(more)) => {
                for (fit, more) in fits.iter_mut().zip(more) {
                    fit.merge(self.rows, more, other.rows);
                }
            }
            _ => panic!("a score of another loss"),
        }
        self.loss += other.loss;
        self.rows += other.rows;
    }

    /// How many rows there were.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Mean loss of a row; NaN without rows.
    pub fn loss(&self) -> f64 {
        self.loss / self.rows as f64
    }

    /// Cross-entropy: the accuracy, NaN without rows. Squared error: R^2, the plain mean over the
    /// outputs, NaN with fewer than two rows, as scikit-learn's `r2_score`.
    pub fn metric(&self) -> f64 {
        match &self.metric {
            Metric::Accuracy { right } => *right as f64 / self.rows as f64,
            Metric::RSquared(_) if self.rows < 2 => f64::NAN,
            Metric::RSquared(fits) => {
                fits.iter().map(Fit::r_squared).sum::<f64>() / fits.len() as f64
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(found: &[f64], expected: &[f64]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                (found - expected).abs() < 1e-14,
                "{found} is not {expected}"
            );
        }
    }

    const LOGITS: [f64; 9] = [0.5, -1.0, 2.0, 1000.0, 999.0, -1000.0, -3.0, 0.25, 0.25];
    const CLASSES: [u32; 3] = [0, 1, 1];

    /// Loss and gradient by torch.nn.functional.cross_entropy, float64.
    #[test]
    fn cross_entropy_as_torch() {
        let mut logits = LOGITS;
        let mut score = Score::new(Loss::CrossEntropy, 3);
        cross_entropy(&mut logits, 3, 3, &CLASSES, 1.0 / 3.0, &mut score);
        assert_close(&[score.loss()], &[1.2556405776392665]);
        assert_close(
            &logits,
            &[
                -0.27490320261998774,
                0.013037524423562482,
                0.26186567819642526,
                0.2436861928766683,
                -0.2436861928766683,
                0.0,
                0.006339464122244836,
                -0.16983639872778905,
                0.16349693460554426,
            ],
        );
        // Of the two largest logits of the last row the first counts.
        assert_eq!(score.metric(), 1.0 / 3.0);
        assert_eq!(score.rows(), 3);
    }

    /// Gradients by central differences, for row widths with and without a last partial block.
    #[test]
    fn gradients_are_differences_of_the_loss() {
        for (n_outputs, ld) in [(1, 1), (3, 16), (4, 4), (17, 20), (40, 48)] {
            let rows = 5;
            let y: Vec<f64> = (0..rows * ld)
                .map(|i| (i as f64 * 1.7).sin() * 3.0)
                .collect();
            let t: Vec<f64> = (0..rows * n_outputs)
                .map(|i| (i as f64 * 0.9).cos())
                .collect();
            let classes: Vec<u32> = (0..rows).map(|r| (r * 7 % n_outputs) as u32).collect();
            for loss in [Loss::CrossEntropy, Loss::SquaredError] {
                let evaluate = |y: &[f64]| {
                    let mut y = y.to_vec();
                    let mut score = Score::new(loss, n_outputs);
                    let weight = 1.0 / rows as f64;
                    match loss {
                        Loss::CrossEntropy => {
                            cross_entropy(&mut y, ld, n_outputs, &classes, weight, &mut score);
                        }
                        Loss::SquaredError => {
                            squared_error(&mut y, ld, n_outputs, &t, weight, &mut score);
                        }
                    }
                    (score.loss(), y)
                };
                let gradient = evaluate(&y).1;
                for i in 0..y.len() {
                    let at = |h: f64| {
                        let mut y = y.clone();
                        y[i] += h;
                        evaluate(&y).0
                    };
                    let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                    assert!(
                        (gradient[i] - slope).abs() < 1e-8,
                        "{loss:?} {n_outputs} {i}"
                    );
                    assert!(i % ld < n_outputs || gradient[i] == 0.0);
                }
            }
        }
    }

    #[test]
    fn single_precision_is_close_to_double() {
        let mut single = LOGITS.map(|y| y as f32);
        let mut score = Score::new(Loss::CrossEntropy, 3);
        cross_entropy(&mut single, 3, 3, &CLASSES, 1.0 / 3.0, &mut score);
        let mut double = LOGITS;
        let mut exact = Score::new(Loss::CrossEntropy, 3);
        cross_entropy(&mut double, 3, 3, &CLASSES, 1.0 / 3.0, &mut exact);
        assert!((score.loss() - exact.loss()).abs() < 1e-6);
        for (a, b) in single.iter().zip(double) {
            assert!((f64::from(*a) - b).abs() < 1e-7);
        }
    }

    #[test]
    fn not_a_number_shows_in_the_loss() {
        for bad in [f64::NAN, f64::INFINITY] {
            for at in 0..3 {
                let mut logits = [0.0, 1.0, 2.0];
                logits[at] = bad;
                let mut score = Score::new(Loss::CrossEntropy, 3);
                cross_entropy(&mut logits, 3, 3, &[1], 1.0, &mut score);
                assert!(score.loss().is_nan());
            }
        }
    }

    const OUTPUTS: [f64; 6] = [0.5, -1.0, 2.0, 0.25, -3.0, 1.5];
    const TARGETS: [f64; 6] = [1.0, -1.5, 1.0, 0.5, -2.0, 3.0];

    /// Loss and gradient by torch.nn.functional.mse_loss, R^2 by sklearn.metrics.r2_score.
    #[test]
    fn squared_error_as_torch_and_r2_as_sklearn() {
        let mut outputs = OUTPUTS;
        let mut score = Score::new(Loss::SquaredError, 2);
        squared_error(&mut outputs, 2, 2, &TARGETS, 1.0 / 3.0, &mut score);
        assert_close(&[score.loss()], &[0.8020833333333334]);
        assert_close(
            &outputs,
            &[-1.0, 1.0, 2.0, -0.5, -2.0, -3.0].map(|sixths| sixths / 6.0),
        );
        assert_close(&[score.metric()], &[0.6864754098360656]);
    }

    #[test]
    fn slices_merge_to_the_whole() {
        let mut whole = Score::new(Loss::SquaredError, 2);
        squared_error(&mut OUTPUTS.clone(), 2, 2, &TARGETS, 1.0, &mut whole);
        for cut in [0, 2, 4, 6] {
            let mut merged = Score::new(Loss::SquaredError, 2);
            for part in [0..cut, cut..6] {
                let mut score = Score::new(Loss::SquaredError, 2);
                let mut outputs = OUTPUTS;
                let outputs = &mut outputs[part.clone()];
                squared_error(outputs, 2, 2, &TARGETS[part], 1.0, &mut score);
                merged.merge(&score);
            }
            assert_close(
                &[merged.loss(), merged.metric()],
                &[whole.loss(), whole.metric()],
            );
            assert_eq!(merged.rows(), 3);
        }
    }

    #[test]
    fn r2_of_constant_targets_and_of_few_rows() {
        let r2 = |outputs: &[f64], targets: &[f64]| {
            let mut score = Score::new(Loss::SquaredError, 1);
            squared_error(&mut outputs.to_vec(), 1, 1, targets, 1.0, &mut score);
            score.metric()
        };
        assert_eq!(r2(&[0.1, 0.1, 0.1], &[0.1, 0.1, 0.1]), 1.0);
        assert_eq!(r2(&[0.1, 0.2, 0.1], &[0.1, 0.1, 0.1]), 0.0);
        assert!(r2(&[0.1], &[0.2]).is_nan());
        // A mean 1e9 times the spread costs no digits.
        assert_close(&[r2(&[1e9, 1e9 + 1.0], &[1e9, 1e9 + 2.0])], &[0.5]);
    }
}
