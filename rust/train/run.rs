//! An epoch, update by update.

use std::ops::Range;
use std::time::Instant;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use super::work::Work;
use super::{Bptt, Epoch, EpochOptions, Progress};
use crate::data::BatchPlan;
use crate::error::{Error, Result, Stopped};
use crate::loss::Score;
use crate::network::{Examples, GradientSums, Network, Output, Span, Stored};
use crate::optim::{Optimizer, State};
use crate::parallel::FlushDenormals;
use crate::pass::States;
use crate::sequence::Element;

/// The first ChaCha stream that dropout's seeds are drawn from.
const DROPOUT_STREAM: u64 = 1 << 62;

/// Words of a ChaCha stream that a seed takes.
const WORDS: u128 = 2;

/// Where an epoch stands between two updates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// The group of batches that is next or under way.
    pub group: usize,
    /// The next piece of its sequences.
    pub piece: usize,
    /// Updates done.
    pub updates: usize,
    /// Seeds drawn.
    pub draws: u64,
}

/// An epoch under way.
pub struct Run<'a, E> {
    pub(super) examples: Examples<'a, E>,
    pub(super) options: EpochOptions,
    /// Groups of batches, one update, or one for each piece of the sequences.
    pub(super) groups: Vec<Vec<Vec<usize>>>,
    /// Updates in all.
    total: usize,
    pub(super) place: Place,
    pub(super) score: Score,
    pub(super) norms: f64,
    pub(super) steps: u64,
    pub(super) seconds: f64,
    rate: f64,
    /// The states that the next piece of each batch of the group starts from.
    pub(super) states: Vec<Option<States<E>>>,
    gradients: GradientSums<E>,
    seeds: ChaCha8Rng,
}

impl<'a, E: Element> Run<'a, E> {
    /// The beginning of an epoch.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming what is wrong with the examples or the options;
    /// [`Error::OutOfMemory`] if there is no room for a batch.
    pub fn new(
        network: &Network<E>,
        examples: Examples<'a, E>,
        options: EpochOptions,
    ) -> Result<Self> {
        examples.check(network)?;
        check(network, &options)?;
        let lengths = examples.sequences.lengths();
        let most = match options.bptt {
            Bptt::Full => usize::MAX,
            Bptt::Truncated(steps) => steps,
            Bptt::Windowed { reach, .. } => reach.saturating_add(1),
        };
        let stored = if options.checkpoint_time {
            Stored::Segment
        } else {
            Stored::All
        };
        network.check_room(&lengths, options.batch_size, most, stored)?;
        let plan = BatchPlan::new(
            lengths,
            options.batch_size,
            options.shuffle,
            options.bucket_by_length,
            options.seed,
        )?;
        let batches = plan.batches(options.number);
        let groups = batches.chunks(options.accumulate_batches);
        let groups: Vec<_> = groups.map(<[_]>::to_vec).collect();
        let mut seeds = ChaCha8Rng::seed_from_u64(options.seed);
        seeds.set_stream(DROPOUT_STREAM | options.number);
        let config = network.config();
        let mut run = Run {
            total: 0,
            place: Place::default(),
            score: Score::new(config.loss, config.n_outputs),
            norms: 0.0,
            steps: 0,
            seconds: 0.0,
            rate: options.rates.map_or(f64::NAN, |(start, _)| start),
            states: Vec::new(),
            gradients: GradientSums::new(network),
            seeds,
            examples,
            options,
            groups,
        };
        run.total = (0..run.groups.len()).map(|group| run.pieces(group)).sum();
        Ok(run)
    }

    /// Updates that a group of batches makes.
    pub(super) fn pieces(&self, group: usize) -> usize {
        let ranges = self.examples.sequences.ranges();
        let batches = self.groups[group].iter();
        // The longest of a batch comes first.
        let longest = batches.map(|batch| batch.first().map_or(0, |&i| ranges[i].len()));
        match self.options.bptt {
            Bptt::Truncated(steps) => longest.max().unwrap_or(0).div_ceil(steps).max(1),
            _ => 1,
        }
    }

    /// Whether the epoch is over.
    pub fn is_done(&self) -> bool {
        self.place.group == self.groups.len()
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        Progress {
            done: self.place.updates,
            total: self.total,
            rate: self.rate,
        }
    }

    /// What it has come to.
    pub fn epoch(&self) -> Epoch {
        Epoch {
            loss: self.score.loss(),
            metric: self.score.metric(),
            grad_norm: self.norms / self.place.updates.max(1) as f64,
            steps: self.steps,
            seconds: self.seconds,
        }
    }

    /// Makes all updates that are left; `observe` is called often and may end it.
    ///
    /// # Errors
    /// As [`Run::update`].
    pub fn finish<X>(
        &mut self,
        network: &mut Network<E>,
        optimizer: &Optimizer,
        state: &mut State<E>,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Epoch, Stopped<X>> {
        while !self.is_done() {
            self.update(network, optimizer, state, &mut observe)?;
        }
        Ok(self.epoch())
    }

    /// Makes the next update. If the loss, a gradient or a weight stops being finite, or `observe`,
    /// which is called between passes, ends it, the weights stay as they are.
    ///
    /// # Errors
    /// [`Error::Diverged`] naming epoch and update, or what `observe` returned.
    ///
    /// # Panics
    /// If the epoch is over.
    pub fn update<X>(
        &mut self,
        network: &mut Network<E>,
        optimizer: &Optimizer,
        state: &mut State<E>,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<(), Stopped<X>> {
        let start = Instant::now();
        let group = self.groups[self.place.group].clone();
        let found = self.accumulate(network, &group, &mut observe);
        let found = found.map_err(|stopped| match stopped {
            Stopped::Error(error) => Stopped::Error(self.diverged(error)),
            other => other,
        })?;

        let mut optimizer = optimizer.clone();
        if let Some((first, last)) = self.options.rates {
            let share = self.place.updates as f64 / self.total as f64;
            optimizer.learning_rate = first + (last - first) * share;
        }
        let (trained, isa) = (network.trained(), network.isa());
        let gradients = &self.gradients.total()[trained.clone()];
        let norm = {
            let _flush = FlushDenormals::begin();
            network
                .update(|weights| optimizer.step_by(isa, &mut weights[trained], gradients, state))
                .map_err(|error| self.diverged(error))?
        };
        self.rate = optimizer.learning_rate;
        self.score.merge(&found.score);
        self.norms += norm;
        let piece = self.piece(self.place.piece);
        let ranges = self.examples.sequences.ranges();
        self.steps += self.groups[self.place.group]
            .iter()
            .flatten()
            .map(|&i| ranges[i].len().min(piece.end).saturating_sub(piece.start) as u64)
            .sum::<u64>();
        self.states = found.states;
        self.place.draws = found.draws;
        self.place.updates += 1;
        self.place.piece += 1;
        if self.place.piece == self.pieces(self.place.group) {
            self.place.piece = 0;
            self.place.group += 1;
            self.states.clear();
        }
        self.seconds += start.elapsed().as_secs_f64();
        Ok(())
    }

    /// Says where something was not finite.
    fn diverged(&self, error: Error) -> Error {
        match error {
            Error::NotFinite { what } => Error::Diverged {
                epoch: self.options.number as usize,
                update: self.place.updates + 1,
                what,
            },
            other => other,
        }
    }

    /// The steps of a piece.
    pub(super) fn piece(&self, piece: usize) -> Range<usize> {
        match self.options.bptt {
            Bptt::Truncated(steps) => {
                let start = piece.saturating_mul(steps);
                start..start.saturating_add(steps)
            }
            _ if piece == 0 => 0..usize::MAX,
            _ => usize::MAX..usize::MAX,
        }
    }

    /// A batch's part of a piece, if it has one.
    pub(super) fn span<'b>(&self, batch: &'b [usize], piece: usize) -> Option<Span<'b>> {
        let sequences = &self.examples.sequences;
        let mut span = Span::whole(sequences, batch);
        let longest = span.steps.end;
        let steps = self.piece(piece);
        if piece == 0 {
            span.steps.end = longest.min(steps.end);
            span.judged = span.steps.clone();
            return Some(span);
        }
        let steps = steps.start..longest.min(steps.end);
        (steps.start < longest).then(|| Span::part(sequences, batch, steps.clone(), steps))
    }

    /// The gradients of the next update.
    fn accumulate<X>(
        &mut self,
        network: &Network<E>,
        group: &[Vec<usize>],
        observe: &mut impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Accumulated<E>, Stopped<X>> {
        let Place { piece, draws, .. } = self.place;
        self.seeds.set_word_pos(u128::from(draws) * WORDS);
        let spans: Vec<_> = group.iter().map(|batch| self.span(batch, piece)).collect();
        let nexts: Vec<_> = group
            .iter()
            .map(|batch| self.span(batch, piece + 1))
            .collect();
        let sequences = &self.examples.sequences;
        let rows = spans.iter().flatten();
        let rows = rows.flat_map(|span| network.target_rows(sequences, span));
        let weight = self.examples.weight(rows);
        let config = network.config();
        self.gradients.clear();
        let mut work = Work {
            network,
            examples: &self.examples,
            gradients: &mut self.gradients,
            scale: if weight > 0.0 { 1.0 / weight } else { 0.0 },
            score: Score::new(config.loss, config.n_outputs),
            checkpoint_time: self.options.checkpoint_time,
        };
        let mut states = Vec::with_capacity(group.len());
        let mut drawn = draws;
        for (i, (batch, span)) in group.iter().zip(spans).enumerate() {
            let mut after = None;
            if let Some(span) = span {
                let seed = self.seeds.next_u64();
                drawn += 1;
                if let Bptt::Windowed { block, reach } = self.options.bptt {
                    work.windows(batch, (block, reach), seed, observe)?;
                } else {
                    // A copy, so that an update that fails leaves them as they were.
                    let before = match self.states.get(i) {
                        Some(Some(states)) => states.copied(network.arena()),
                        _ => network.initial(span.batch.len()),
                    };
                    let next = nexts[i].as_ref().map(|next| next.batch.len());
                    after = work.pass(&span, before, seed, next, observe)?;
                }
            }
            states.push(after);
        }
        let score = work.score;
        self.gradients.finish(network);
        Ok(Accumulated {
            score,
            states,
            draws: drawn,
        })
    }
}

/// What an update comes from, besides the gradients.
struct Accumulated<E> {
    score: Score,
    /// The states that the next piece of each batch starts from.
    states: Vec<Option<States<E>>>,
    /// Seeds drawn by then.
    draws: u64,
}

fn check<E: Element>(network: &Network<E>, options: &EpochOptions) -> Result<()> {
    if options.accumulate_batches == 0 {
        return Err(Error::value("accumulate_batches", "an integer >= 1", 0));
    }
    for rate in options
        .rates
        .into_iter()
        .flat_map(|(first, last)| [first, last])
    {
        if !(rate >= 0.0 && rate.is_finite()) {
            return Err(Error::value("rates", "finite numbers >= 0", rate));
        }
    }
    options.bptt.check()?;
    let config = network.config();
    if options.checkpoint_time {
        if config.stack.bidirectional {
            let expected = "False for a bidirectional network, whose layers need all steps beneath";
            return Err(Error::value("checkpoint_time", expected, "True"));
        }
        if matches!(options.bptt, Bptt::Windowed { .. }) {
            let expected = "False with a bptt_window, which bounds what is kept";
            return Err(Error::value("checkpoint_time", expected, "True"));
        }
    }
    if options.bptt == Bptt::Full {
        return Ok(());
    }
    if config.output != Output::Sequence {
        let actual = format!("a network whose output is {:?}", config.output);
        return Err(Error::value(
            "bptt_steps",
            "a network with a target a step",
            actual,
        ));
    }
    if config.stack.bidirectional {
        let expected = "a network of one direction";
        return Err(Error::value("bptt_steps", expected, "a bidirectional one"));
    }
    Ok(())
}
