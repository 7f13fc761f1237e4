//! Sequences with what a network should make of them.

use super::{Network, Output};
use crate::data::Sequences;
use crate::error::{Error, Result};
use crate::loss::{Expected, Loss, Score};
use crate::sequence::Element;

/// What a network should give, one row for each sequence or for each row of the values.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, E> {
    /// The index of the right class.
    Classes(&'a [i64]),
    /// `n_outputs` numbers a row.
    Numbers(&'a [E]),
}

/// Sequences, their targets, and how much each row of these counts.
#[derive(Clone, Debug)]
pub struct Examples<'a, E> {
    /// What the network is fed.
    pub sequences: Sequences<'a, E>,
    /// What it should give; whoever needs none ignores them.
    pub targets: Option<Targets<'a, E>>,
    /// The weights of the targets' rows, at least 0; 1 each if there are none. A row of weight 0
    /// counts nowhere, whatever its target.
    pub weights: Option<&'a [E]>,
}

impl<'a, E: Element> Examples<'a, E> {
    /// Sequences that weigh the same.
    pub fn new(sequences: Sequences<'a, E>, targets: Targets<'a, E>) -> Self {
        Examples {
            sequences,
            targets: Some(targets),
            weights: None,
        }
    }

    /// Whether a network can be trained on these.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming `values`, `targets` or `weights`.
    pub(crate) fn check(&self, network: &Network<E>) -> Result<()> {
        network.check(self.sequences.values())?;
        let config = network.config();
        let rows = match config.output {
            Output::Sequence => self.sequences.values().rows(),
            _ => self.sequences.len(),
        };
        let numbers = rows * config.n_outputs;
        let (expected, actual) = match (config.loss.takes_classes(), self.targets) {
            (true, Some(Targets::Classes(classes))) => (rows, classes.len()),
            (false, Some(Targets::Numbers(targets))) => (numbers, targets.len()),
            (_, targets) => {
                return Err(Error::value(
                    "targets",
                    format!("what {:?} compares with", config.loss),
                    targets.map_or("nothing", |_| "the other kind"),
                ));
            }
        };
        if actual != expected {
            return Err(Error::shape(
                "targets",
                format!("{expected} numbers"),
                format!("{actual}"),
            ));
        }
        if let Some(weights) = self.weights
            && weights.len() != rows
        {
            return Err(Error::shape(
                "weights",
                format!("({rows},)"),
                format!("({},)", weights.len()),
            ));
        }
        let check = |row: usize| self.check_row(row, config.loss, config.n_outputs);
        match config.output {
            // What lies between sequences may be anything.
            Output::Sequence => self
                .sequences
                .ranges()
                .iter()
                .cloned()
                .flatten()
                .try_for_each(check),
            _ => (0..rows).try_for_each(check),
        }
    }

    fn check_row(&self, row: usize, loss: Loss, n_outputs: usize) -> Result<()> {
        if let Some(weights) = self.weights {
            let weight = weights[row].to_f64();
            if !(weight >= 0.0 && weight.is_finite()) {
                let expected = "a finite number >= 0";
                return Err(Error::value(format!("weights[{row}]"), expected, weight));
            }
            if weight == 0.0 {
                return Ok(());
            }
        }
        let name = || format!("targets[{row}]");
        match self.targets {
            Some(Targets::Classes(classes))
                if !usize::try_from(classes[row]).is_ok_and(|class| class < n_outputs) =>
            {
                let expected = format!("a class in 0..{n_outputs}");
                return Err(Error::value(name(), expected, classes[row]));
            }
            Some(Targets::Numbers(numbers)) if loss == Loss::BinaryCrossEntropy => {
                let numbers = &numbers[row * n_outputs..][..n_outputs];
                let inside = |x: &&E| (0.0..=1.0).contains(&x.to_f64());
                if let Some(outside) = numbers.iter().find(|x| !inside(x)) {
                    return Err(Error::value(name(), "numbers from 0 to 1", outside));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What some rows of the targets weigh together.
    pub(crate) fn weight(&self, rows: impl Iterator<Item = usize>) -> f64 {
        match self.weights {
            None => rows.count() as f64,
            Some(weights) => rows.map(|row| weights[row].to_f64()).sum(),
        }
    }

    /// The score of outputs that belong to `rows` of the targets; the outputs become the gradient
    /// of their weighted sum of losses times `scale`.
    pub(crate) fn judge(
        &self,
        network: &Network<E>,
        rows: &[usize],
        outputs: &mut [E],
        scale: f64,
    ) -> Score {
        let config = network.config();
        let (stride, width) = (network.output_stride(), config.n_outputs);
        let mut score = Score::new(config.loss, width);
        let weights: Option<Vec<E>> = self
            .weights
            .map(|weights| rows.iter().map(|&row| weights[row]).collect());
        let (classes, numbers): (Vec<u32>, Vec<E>);
        let targets = match self.targets {
            Some(Targets::Classes(all)) => {
                classes = rows.iter().map(|&row| all[row] as u32).collect();
                Expected::Classes(&classes)
            }
            Some(Targets::Numbers(all)) => {
                let of = |&row: &usize| &all[row * width..][..width];
                numbers = rows.iter().flat_map(of).copied().collect();
                Expected::Numbers(&numbers)
            }
            None => return score,
        };
        config.loss.apply(
            network.isa(),
            outputs,
            stride,
            width,
            targets,
            weights.as_deref(),
            scale,
            &mut score,
        );
        score
    }
}
