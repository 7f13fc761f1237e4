//! Loss and metric of the rows seen so far, which join in any grouping of neighbours.

use super::Loss;
use crate::error::{Error, Result};

/// Loss and metric of the rows seen so far. Rows of weight 0 are not seen.
#[derive(Clone, Debug, PartialEq)]
pub struct Score {
    /// Sum of the rows' losses, each times its weight.
    pub(super) loss: f64,
    /// Sum of the rows' weights.
    pub(super) weight: f64,
    rows: u64,
    pub(super) metric: Metric,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Metric {
    Accuracy {
        /// Sum of the weights of the rows that are right.
        right: f64,
    },
    /// One entry an output.
    RSquared(Vec<Fit>),
}

impl Metric {
    /// Takes in a row that is right or wrong.
    pub fn judge(&mut self, is_right: bool, weight: f64) {
        let Metric::Accuracy { right } = self else {
            panic!("a score of another loss");
        };
        if is_right {
            *right += weight;
        }
    }

    /// The fits of that many outputs.
    pub fn fits(&mut self, n_outputs: usize) -> &mut [Fit] {
        match self {
            Metric::RSquared(fits) if fits.len() == n_outputs => fits,
            _ => panic!("a score of another loss or number of outputs"),
        }
    }
}

/// Targets and errors of one output, after West (1979) so that a large mean costs no digits and a
/// constant target has no spread at all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Fit {
    /// Weighted mean of the targets.
    mean: f64,
    /// Sum of weight * (target - mean)^2.
    spread: f64,
    /// Sum of weight * (output - target)^2.
    error: f64,
}

impl Fit {
    /// Takes in the target of a row; `total` is the sum of all weights, the row's included.
    pub fn add(&mut self, target: f64, error: f64, weight: f64, total: f64) {
        let before = target - self.mean;
        self.mean += before * (weight / total); // of the first row exactly its target
        self.spread += weight * before * (target - self.mean);
        self.error += weight * (error * error);
    }

    /// Joins `other`, of weight `others`, to this one of weight `weight` (Chan, Golub and LeVeque,
    /// 1983).
    fn merge(&mut self, weight: f64, other: &Self, others: f64) {
        if others == 0.0 {
            return; // no rows, and perhaps nothing to divide by
        }
        let between = other.mean - self.mean;
        let share = others / (weight + others);
        self.mean += between * share;
        self.spread += other.spread + between * between * share * weight;
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
            weight: 0.0,
            rows: 0,
            metric: match loss {
                Loss::CrossEntropy | Loss::BinaryCrossEntropy => Metric::Accuracy { right: 0.0 },
                Loss::SquaredError | Loss::AbsoluteError | Loss::Huber { .. } => {
                    Metric::RSquared(vec![Fit::default(); n_outputs])
                }
            },
        }
    }

    /// Begins a row of that weight.
    pub(super) fn weigh(&mut self, weight: f64) {
        self.weight += weight;
        self.rows += 1;
    }

    /// Adds the rows of `other`. The last bits of the sums depend on the order of merging, so merge
    /// slices and batches in their order.
    ///
    /// # Panics
    /// When `other` is of a loss with another metric, or of another number of numeric outputs.
    pub fn merge(&mut self, other: &Self) {
        match (&mut self.metric, &other.metric) {
            (Metric::Accuracy { right }, Metric::Accuracy { right: more }) => *right += more,
            (Metric::RSquared(fits), Metric::RSquared(more)) if fits.len() == more.len() => {
                for (fit, more) in fits.iter_mut().zip(more) {
                    fit.merge(self.weight, more, other.weight);
                }
            }
            _ => panic!("a score of another loss or number of outputs"),
        }
        self.loss += other.loss;
        self.weight += other.weight;
        self.rows += other.rows;
    }

    /// Sum of the rows' weights.
    pub fn weight(&self) -> f64 {
        self.weight
    }

    /// Weighted mean loss of a row; NaN without rows.
    pub fn loss(&self) -> f64 {
        self.loss / self.weight
    }

    /// Of a cross entropy the weighted accuracy, NaN without rows; a row of several binary outputs
    /// is right if all of them are. Of the other losses the weighted R^2, the plain mean over the
    /// outputs, NaN with fewer than two rows, as scikit-learn's `r2_score`.
    pub fn metric(&self) -> f64 {
        match &self.metric {
            Metric::Accuracy { right } => right / self.weight,
            Metric::RSquared(_) if self.rows < 2 => f64::NAN,
            Metric::RSquared(fits) => {
                fits.iter().map(Fit::r_squared).sum::<f64>() / fits.len() as f64
            }
        }
    }

    /// All it holds, for [`Score::from_parts`].
    pub fn to_parts(&self) -> Vec<f64> {
        let mut parts = vec![self.loss, self.weight, self.rows as f64];
        match &self.metric {
            Metric::Accuracy { right } => parts.push(*right),
            Metric::RSquared(fits) => {
                parts.extend(
                    fits.iter()
                        .flat_map(|fit| [fit.mean, fit.spread, fit.error]),
                );
            }
        }
        parts
    }

    /// The score that gave these parts, of the same loss and number of outputs.
    ///
    /// # Errors
    /// [`Error::Value`] naming `score` if there are more or fewer of them.
    pub fn from_parts(loss: Loss, n_outputs: usize, parts: &[f64]) -> Result<Self> {
        let mut score = Self::new(loss, n_outputs);
        let expected = score.to_parts().len();
        if parts.len() != expected {
            let expected = format!("{expected} numbers");
            return Err(Error::value("score", expected, parts.len()));
        }
        (score.loss, score.weight, score.rows) = (parts[0], parts[1], parts[2] as u64);
        match &mut score.metric {
            Metric::Accuracy { right } => *right = parts[3],
            Metric::RSquared(fits) => {
                for (fit, part) in fits.iter_mut().zip(parts[3..].chunks_exact(3)) {
                    (fit.mean, fit.spread, fit.error) = (part[0], part[1], part[2]);
                }
            }
        }
        Ok(score)
    }
}
