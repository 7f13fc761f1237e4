//! The training loop, and prediction in batches.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::data::{BatchPlan, Sequences};
use crate::error::{Error, Result};
use crate::loss::{Rows, Score};
use crate::network::{BatchPass, Network, Output};
use crate::optim::{Optimizer, State};
use crate::parallel::{self, FlushDenormals};
use crate::sequence::Element;

/// Rows whose loss is one piece of work. Fixed, so that sums do not depend on threads.
const ROWS: usize = 256;

/// The first ChaCha stream that dropout's seeds are drawn from.
const DROPOUT_STREAM: u64 = 1 << 62;

/// What a network should give, one row for each sequence or for each row of the values.
#[derive(Clone, Copy, Debug)]
pub enum Targets<'a, E> {
    /// The index of the right class.
    Classes(&'a [i64]),
    /// `n_outputs` numbers a row.
    Numbers(&'a [E]),
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Mean loss over all rows, each taken before its batch's update.
    pub loss: f64,
    /// Accuracy or R^2, likewise.
    pub metric: f64,
    /// Mean over the batches of the gradient's norm before clipping.
    pub grad_norm: f64,
    /// How long it took.
    pub time: Duration,
}

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Batches done.
    pub done: usize,
    /// Batches in all.
    pub batches: usize,
    /// Mean loss so far.
    pub loss: f64,
}

/// Why training ended before its time.
#[derive(Debug)]
pub enum Stopped<X> {
    /// Something was wrong with the arguments, or training diverged.
    Error(Error),
    /// The observer said so.
    Observer(X),
}

impl<X> From<Error> for Stopped<X> {
    fn from(error: Error) -> Self {
        Stopped::Error(error)
    }
}

/// Sequences with targets, and the plan by which epochs go through them.
pub struct Training<'a, E> {
    sequences: Sequences<'a, E>,
    targets: Targets<'a, E>,
    plan: BatchPlan,
    seed: u64,
}

impl<'a, E: Element> Training<'a, E> {
    /// Checks data against a network.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming `values`, `targets` or `batch_size`;
    /// [`Error::OutOfMemory`] if there is no room for a batch.
    pub fn new(
        network: &Network<E>,
        sequences: Sequences<'a, E>,
        targets: Targets<'a, E>,
        batch_size: usize,
        (shuffle, bucket_by_length): (bool, bool),
        seed: u64,
    ) -> Result<Self> {
        network.check(&sequences)?;
        check_targets(network, &sequences, targets)?;
        let lengths: Vec<usize> = sequences.ranges().iter().map(|range| range.len()).collect();
        network.check_room(&lengths, batch_size, true)?;
        let plan = BatchPlan::new(lengths, batch_size, shuffle, bucket_by_length, seed)?;
        Ok(Training {
            sequences,
            targets,
            plan,
            seed,
        })
    }

    /// Goes through all batches of an epoch, one update each; `number` counts from 1.
    ///
    /// `observe` hears of every batch on the calling thread and may end the epoch. If the loss, a
    /// gradient or a weight stops being finite the last finite weights are kept.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming epoch and batch, or what `observe` returned.
    pub fn epoch<X>(
        &self,
        network: &mut Network<E>,
        optimizer: &Optimizer,
        state: &mut State<E>,
        number: usize,
        mut observe: impl FnMut(Progress) -> std::result::Result<(), X>,
    ) -> std::result::Result<Epoch, Stopped<X>> {
        let start = Instant::now();
        let batches = self.plan.batches(number as u64);
        let mut seeds = ChaCha8Rng::seed_from_u64(self.seed);
        seeds.set_stream(DROPOUT_STREAM | number as u64);
        let mut total = Score::new(network.config().loss, network.config().n_outputs);
        let mut norms = 0.0;
        let mut gradients = vec![E::ZERO; network.layout().size()];
        for (done, batch) in batches.iter().enumerate() {
            let diverged = |what: &str| Error::Diverged {
                epoch: number,
                batch: done + 1,
                what: what.to_owned(),
            };
            // Ends before `observe`, which may run code that minds.
            let flush = FlushDenormals::begin();
            let pass = network.forward(&self.sequences, batch, true, Some(seeds.next_u64()));
            let mut outputs = network.outputs(&pass);
            let score = self.score(network, &pass, batch, &mut outputs);
            if !score.loss().is_finite() && score.weight() > 0.0 {
                return Err(diverged("the loss").into());
            }
            network.backward(pass, outputs, &mut gradients);
            let norm = network
                .update(|weights| optimizer.step(weights, &gradients, state))
                .map_err(|error| match error {
                    Error::NotFinite { what } => diverged(&what),
                    other => other,
                })?;
            norms += norm;
            total.merge(&score);
            drop(flush);
            observe(Progress {
                done: done + 1,
                batches: batches.len(),
                loss: total.loss(),
            })
            .map_err(Stopped::Observer)?;
        }
        Ok(Epoch {
            loss: total.loss(),
            metric: total.metric(),
            grad_norm: norms / batches.len().max(1) as f64,
            time: start.elapsed(),
        })
    }

    /// Mean loss and metric of all sequences, with weights as they are. `observe` is called after
    /// every batch and may end it.
    ///
    /// # Errors
    /// What `observe` returned.
    pub fn evaluate<X>(
        &self,
        network: &Network<E>,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<(f64, f64), X> {
        let mut total = Score::new(network.config().loss, network.config().n_outputs);
        for batch in self.plan.batches(0) {
            let pass = network.forward(&self.sequences, &batch, false, None);
            let mut outputs = network.outputs(&pass);
            total.merge(&self.score(network, &pass, &batch, &mut outputs));
            observe()?;
        }
        Ok((total.loss(), total.metric()))
    }

    /// The score of a batch's outputs, which become the gradient of their mean loss.
    fn score(
        &self,
        network: &Network<E>,
        pass: &BatchPass<E>,
        batch: &[usize],
        outputs: &mut [E],
    ) -> Score {
        let config = network.config();
        let (stride, width) = (network.output_stride(), config.n_outputs);
        let rows = target_rows(network, pass, &self.sequences, batch);
        let weight = 1.0 / rows.len().max(1) as f64;
        let mut pieces: Vec<_> = outputs
            .chunks_mut(ROWS * stride)
            .zip(rows.chunks(ROWS))
            .map(|(outputs, rows)| (outputs, rows, Score::new(config.loss, width)))
            .collect();
        let workers = parallel::num_threads().unwrap_or(1);
        parallel::for_each(workers, pieces.iter_mut().collect(), |piece| {
            let (outputs, rows, score) = piece;
            match self.targets {
                Targets::Classes(classes) => {
                    let classes: Vec<u32> = rows.iter().map(|&row| classes[row] as u32).collect();
                    let rows = Rows::Classes(&classes);
                    config
                        .loss
                        .apply(outputs, stride, width, rows, None, weight, score);
                }
                Targets::Numbers(numbers) => {
                    let numbers: Vec<E> = rows
                        .iter()
                        .flat_map(|&row| &numbers[row * width..][..width])
                        .copied()
                        .collect();
                    let rows = Rows::Numbers(&numbers);
                    config
                        .loss
                        .apply(outputs, stride, width, rows, None, weight, score);
                }
            }
        });
        let mut total = Score::new(config.loss, width);
        for (_, _, score) in &pieces {
            total.merge(score);
        }
        total
    }
}

/// The row of the targets, or of the values, that each row of a pass's outputs belongs to.
fn target_rows<E: Element>(
    network: &Network<E>,
    pass: &BatchPass<E>,
    sequences: &Sequences<E>,
    batch: &[usize],
) -> Vec<usize> {
    let steps = pass.steps();
    let order = steps.order();
    match network.config().output {
        Output::Last => order.iter().map(|&sequence| batch[sequence]).collect(),
        Output::Sequence => (0..steps.longest())
            .flat_map(|step| {
                let running = &order[..steps.count(step)];
                running
                    .iter()
                    .map(move |&sequence| sequences.ranges()[batch[sequence]].start + step)
            })
            .collect(),
    }
}

fn check_targets<E: Element>(
    network: &Network<E>,
    sequences: &Sequences<E>,
    targets: Targets<E>,
) -> Result<()> {
    let config = network.config();
    let rows = match config.output {
        Output::Last => sequences.len(),
        Output::Sequence => sequences.values().rows(),
    };
    let (expected, actual) = match (config.loss.takes_classes(), targets) {
        (true, Targets::Classes(classes)) => (rows, classes.len()),
        (false, Targets::Numbers(numbers)) => (rows * config.n_outputs, numbers.len()),
        _ => {
            return Err(Error::value(
                "targets",
                format!("what {:?} compares with", config.loss),
                "the other kind",
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
    let check = |row: usize| -> Result<()> {
        let Targets::Classes(classes) = targets else {
            return Ok(());
        };
        if usize::try_from(classes[row]).is_ok_and(|class| class < config.n_outputs) {
            return Ok(());
        }
        Err(Error::value(
            format!("targets[{row}]"),
            format!("a class in 0..{}", config.n_outputs),
            classes[row],
        ))
    };
    match config.output {
        Output::Last => (0..rows).try_for_each(check),
        // What lies between sequences may be anything.
        Output::Sequence => sequences
            .ranges()
            .iter()
            .cloned()
            .flatten()
            .try_for_each(check),
    }
}

impl<E: Element> Network<E> {
    /// Outputs of sequences, `n_outputs` numbers a row: one row for each sequence, or one for each
    /// step, sequence after sequence. `observe` is called after every batch and may end it.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `values`, [`Error::Value`] naming `batch_size`, or what `observe`
    /// returned.
    pub fn predict<X>(
        &self,
        sequences: &Sequences<E>,
        batch_size: usize,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Vec<E>, Stopped<X>> {
        self.check(sequences)?;
        let lengths: Vec<usize> = sequences.ranges().iter().map(|range| range.len()).collect();
        self.check_room(&lengths, batch_size, false)?;
        // Where each sequence's outputs begin.
        let mut firsts = Vec::with_capacity(lengths.len());
        let mut rows = 0;
        for &length in &lengths {
            firsts.push(rows);
            rows += match self.config().output {
                Output::Last => 1,
                Output::Sequence => length,
            };
        }
        let width = self.config().n_outputs;
        let mut all = vec![E::ZERO; rows * width];
        let plan = BatchPlan::new(lengths, batch_size, false, true, 0)?;
        for batch in plan.batches(0) {
            let pass = self.forward(sequences, &batch, false, None);
            let outputs = self.outputs(&pass);
            let mut outputs = outputs.chunks_exact(self.output_stride());
            let mut write = |row: usize| {
                let from = outputs.next().expect("as many rows as were asked for");
                all[row * width..][..width].copy_from_slice(&from[..width]);
            };
            let steps = pass.steps();
            match self.config().output {
                Output::Last => {
                    for &sequence in steps.order() {
                        write(firsts[batch[sequence]]);
                    }
                }
                Output::Sequence => {
                    for step in 0..steps.longest() {
                        for &sequence in &steps.order()[..steps.count(step)] {
                            write(firsts[batch[sequence]] + step);
                        }
                    }
                }
            }
            observe().map_err(Stopped::Observer)?;
        }
        Ok(all)
    }
}
