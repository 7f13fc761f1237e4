//! A batch, or some steps of it, through the stack and back.

use std::ops::Range;

use super::{Input, Network, Output};
use crate::buffer::Buffer;
use crate::data::Sequences;
use crate::dropout::{self, Drawn, Mask};
use crate::kernel::pack::Columns;
use crate::loss::Score;
use crate::pass::{Pass, Source, States};
use crate::pool::Pool;
use crate::sequence::Element;
use crate::stack::Want;
use crate::steps::Steps;

/// Some steps of the sequences of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Span<'a> {
    /// The sequences that have such steps, the longest first.
    pub batch: &'a [usize],
    /// The steps that are run.
    pub steps: Range<usize>,
    /// Those among them whose outputs are judged, where each step has outputs.
    pub judged: Range<usize>,
}

impl<'a> Span<'a> {
    /// All steps of all sequences.
    pub fn whole<E: Copy>(sequences: &Sequences<E>, batch: &'a [usize]) -> Self {
        let longest = batch.first().map_or(0, |&i| sequences.ranges()[i].len());
        Span {
            batch,
            steps: 0..longest,
            judged: 0..longest,
        }
    }

    /// The steps `steps` of the sequences that have any of `judged`.
    pub fn part<E: Copy>(
        sequences: &Sequences<E>,
        batch: &'a [usize],
        steps: Range<usize>,
        judged: Range<usize>,
    ) -> Self {
        let running = batch.partition_point(|&i| sequences.ranges()[i].len() > judged.start);
        Span {
            batch: &batch[..running],
            steps,
            judged,
        }
    }

    /// How many of `steps` each sequence has.
    fn count<E: Copy>(&self, sequences: &Sequences<E>, steps: &Range<usize>) -> Steps {
        let of = |&i: &usize| sequences.ranges()[i].len().min(steps.end);
        let lengths: Vec<usize> = self
            .batch
            .iter()
            .map(|i| of(i).saturating_sub(steps.start))
            .collect();
        Steps::new(&lengths)
    }
}

/// Some steps on their way through the stack.
pub(crate) struct Run<E> {
    pub pass: Pass<E>,
    /// What an embedding was read at, if it is trained.
    ids: Vec<u32>,
    seed: Option<u64>,
}

/// What the head sees of a run, or its gradient.
pub(crate) struct Seen<E> {
    pub rows: Buffer<E>,
    pool: Option<Pool>,
    /// How the rows lie.
    steps: Steps,
    drawn: Option<Drawn>,
}

/// Gradients of all weights on their way to an update: those of one or more passes, added.
pub(crate) struct Gradients<E> {
    total: Vec<E>,
    /// A pass's own, where others came before; empty until then.
    part: Vec<E>,
    has_head: bool,
    has_rest: bool,
}

impl<E: Element> Seen<E> {
    /// The rows of some of the steps that it is of, counted from its first one.
    pub fn part(&self, network: &Network<E>, steps: Range<usize>) -> Self {
        let stride = network.seen_columns().stride();
        let at = |step: usize| self.steps.offset(step.min(self.steps.longest())) * stride;
        let from = &self.rows[at(steps.start)..at(steps.end)];
        let mut rows = network.stack.arena().take(from.len());
        rows.copy_from_slice(from);
        let lengths = self.steps.lengths().iter();
        let lengths = lengths.map(|&length| length.min(steps.end).saturating_sub(steps.start));
        Seen {
            rows,
            pool: None,
            steps: Steps::new(&lengths.collect::<Vec<_>>()),
            drawn: None,
        }
    }
}

impl<E: Element> Gradients<E> {
    /// None yet.
    pub fn new(network: &Network<E>) -> Self {
        Gradients {
            total: vec![E::ZERO; network.layout.size()],
            part: Vec::new(),
            has_head: false,
            has_rest: false,
        }
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        (self.has_head, self.has_rest) = (false, false);
    }

    /// Their sums, once there are any.
    pub fn total(&self) -> &[E] {
        &self.total
    }

    /// Adds what `write` writes at some places, all numbers of them.
    pub(super) fn add(
        &mut self,
        places: Range<usize>,
        is_first: bool,
        write: impl FnOnce(&mut [E]),
    ) {
        if is_first {
            write(&mut self.total[places]);
            return;
        }
        if self.part.is_empty() {
            self.part = vec![E::ZERO; self.total.len()];
        }
        let part = &mut self.part[places.clone()];
        write(part);
        for (to, &from) in self.total[places].iter_mut().zip(&*part) {
            *to += from;
        }
    }

    /// Those of the head, and whether nothing was added to them before; from now on something was.
    pub(super) fn of_head(&mut self, places: Range<usize>) -> (&mut [E], bool) {
        let is_first = !std::mem::replace(&mut self.has_head, true);
        (&mut self.total[places], is_first)
    }
}

impl<E: Element> Network<E> {
    /// The states in which `rows` sequences begin.
    pub(crate) fn initial(&self, rows: usize) -> States<E> {
        let spread = |places: &[Range<usize>]| {
            let directions = self.config.stack.directions();
            (!places.is_empty()).then(|| {
                let each = places.iter().enumerate().map(|(i, place)| {
                    let columns = self.stack.state_columns(i / directions);
                    let mut to = self.stack.arena().zeros(rows * columns.stride());
                    for row in to.chunks_exact_mut(columns.stride()) {
                        columns.pad(&self.weights[place.clone()], row);
                    }
                    to
                });
                each.collect()
            })
        };
        States {
            hidden: spread(&self.places.hidden0),
            memory: spread(&self.places.memory0),
        }
    }

    /// The states of the first `rows` sequences of a pass after `most` of its steps; a pass that
    /// is not kept has only its end to give.
    pub(crate) fn states_after(&self, pass: &Pass<E>, most: usize, rows: usize) -> States<E> {
        let directions = self.config.stack.directions();
        let rows_of = |i: usize| {
            let stride = self.stack.state_columns(i / directions).stride();
            (stride, self.stack.arena().take(rows * stride))
        };
        let states = 0..self.stack.state_count();
        let hidden = states.clone().map(|i| {
            let (stride, mut to) = rows_of(i);
            pass.hidden_after(i / directions, i % directions, most, stride, &mut to);
            to
        });
        let memory = states.map(|i| {
            let (_, mut to) = rows_of(i);
            pass.memory_after(i / directions, i % directions, most, &mut to);
            to
        });
        let has_memory = self.config.stack.cell.signature().has_memory();
        States {
            hidden: Some(hidden.collect()),
            memory: has_memory.then(|| memory.collect()),
        }
    }

    fn drop_out(
        &self,
        rows: &mut [E],
        (columns, steps): (Columns, &Steps),
        (rate, stream): (f64, usize),
        drawn: Drawn,
    ) {
        let mask = Mask {
            rate,
            locked: self.config.stack.locked_dropout,
            drawn,
            stream: stream as u64,
        };
        dropout::apply(rows, columns, steps, &mask);
    }

    fn drop_input(&self, x: &mut [E], steps: &Steps, drawn: Option<Drawn>) {
        let rate = self.config.input_dropout;
        if let Some(drawn) = drawn.filter(|_| rate > 0.0) {
            // The layers' own masks have their numbers, from 1.
            self.drop_out(x, (self.stack.input_columns(), steps), (rate, 0), drawn);
        }
    }

    fn drop_seen(&self, seen: &mut Seen<E>) {
        let rate = self.config.output_dropout;
        if let Some(drawn) = seen.drawn.filter(|_| rate > 0.0) {
            let stream = self.config.stack.num_layers();
            let lie = (self.seen_columns(), &seen.steps);
            self.drop_out(&mut seen.rows, lie, (rate, stream), drawn);
        }
    }

    /// Runs a span through the stack. `keep` keeps what backward needs; `seed` turns dropout on.
    pub(crate) fn run(
        &self,
        sequences: &Sequences<E>,
        span: &Span,
        initial: States<E>,
        keep: bool,
        seed: Option<u64>,
    ) -> Run<E> {
        let steps = span.count(sequences, &span.steps);
        let (mut x, ids) = self.gather(sequences, span, &steps);
        let first = span.steps.start;
        let drawn = seed.map(|seed| Drawn { seed, first });
        if let Source::Rows(x) = &mut x {
            self.drop_input(x, &steps, drawn);
        }
        let weights = &self.weights[self.places.rnn.clone()];
        let pass = self.stack.forward(weights, steps, x, initial, keep, drawn);
        Run { pass, ids, seed }
    }

    /// What the head sees of a run of a span.
    pub(crate) fn see(&self, sequences: &Sequences<E>, span: &Span, run: &Run<E>) -> Seen<E> {
        let (arena, columns) = (self.stack.arena(), self.seen_columns());
        let drawn = |first| run.seed.map(|seed| Drawn { seed, first });
        let mut seen = if self.config.output == Output::Sequence {
            let steps = span.count(sequences, &span.judged);
            let (start, end) = judged_rows(span, &run.pass.steps);
            let stride = columns.stride();
            let mut rows = arena.take((end - start) * stride);
            rows.copy_from_slice(&run.pass.output()[start * stride..end * stride]);
            Seen {
                rows,
                pool: None,
                steps,
                drawn: drawn(span.judged.start),
            }
        } else {
            let batch = span.batch.len();
            let mut pool = Pool::new(self.config.output, columns, batch);
            pool.add(&run.pass, self.config.stack.num_layers() - 1, arena);
            let mut rows = arena.take(batch * columns.stride());
            pool.write(&mut rows);
            Seen {
                rows,
                pool: Some(pool),
                steps: Steps::new(&vec![1; batch]),
                drawn: drawn(0),
            }
        };
        self.drop_seen(&mut seen);
        seen
    }

    /// Turns what the head saw into its gradient, and adds the head's: `judge` replaces the outputs
    /// of some of its rows by their gradient, and gives their score.
    pub(crate) fn learn(
        &self,
        seen: &mut Seen<E>,
        gradients: &mut Gradients<E>,
        judge: impl Fn(Range<usize>, &mut [E]) -> Score + Sync,
    ) -> Score {
        let score = self.learn_head(&mut seen.rows, gradients, judge);
        self.drop_seen(seen);
        score
    }

    /// Adds the gradients of all weights beneath the head, given that of what the head saw.
    pub(crate) fn backward(
        &self,
        span: &Span,
        run: Run<E>,
        seen: Seen<E>,
        gradients: &mut Gradients<E>,
    ) {
        let arena = self.stack.arena();
        let Run { pass, ids, seed } = run;
        let steps = pass.steps.clone();
        let (dy, dh) = match &seen.pool {
            None => {
                let (start, end) = judged_rows(span, &steps);
                if end - start == steps.rows() {
                    (Some(seen.rows), None)
                } else {
                    let stride = self.seen_columns().stride();
                    let mut dy = arena.zeros(steps.rows() * stride);
                    dy[start * stride..end * stride].copy_from_slice(&seen.rows);
                    (Some(dy), None)
                }
            }
            Some(_) if self.config.output == Output::Last => {
                (None, Some(self.to_final_states(&seen.rows)))
            }
            Some(pool) => (Some(pool.spread(&seen.rows, &steps, arena)), None),
        };
        let is_first = !std::mem::replace(&mut gradients.has_rest, true);
        let is_trained = matches!(self.config.input, Input::Embedding { frozen: false, .. });
        let begins = span.steps.start == 0;
        let want = Want {
            input: is_trained,
            states: begins && self.config.learn_initial_state,
            outputs: false,
            weights: true,
        };
        let last = States {
            hidden: dh,
            memory: None,
        };
        let mut found = None;
        gradients.add(self.places.rnn.clone(), is_first, |rnn| {
            let weights = &self.weights[self.places.rnn.clone()];
            found = Some(self.stack.backward(weights, pass, dy, last, want, rnn));
        });
        let found = found.expect("the stack's backward was called");
        let states = [
            (&self.places.hidden0, &found.dh0),
            (&self.places.memory0, &found.dmemory0),
        ];
        for (places, rows) in states {
            for (i, place) in places.iter().enumerate() {
                gradients.add(place.clone(), is_first, |to| {
                    to.fill(E::ZERO);
                    let Some(rows) = rows.get(i) else { return };
                    let stride = to.len().next_multiple_of(self.stack.lanes());
                    for row in rows.chunks_exact(stride) {
                        for (to, &from) in to.iter_mut().zip(row) {
                            *to += from;
                        }
                    }
                });
            }
        }
        if let Some(mut dx) = found.dx.filter(|_| is_trained) {
            let first = span.steps.start;
            self.drop_input(&mut dx, &steps, seed.map(|seed| Drawn { seed, first }));
            let table = &mut gradients.total[self.places.embedding.clone()];
            // One that is the head's weight has that gradient already.
            let is_fresh = is_first && self.places.head.start > self.places.embedding.start;
            self.scatter(&dx, &ids, table, is_fresh);
            if let Some(masked) = self.masked_place() {
                gradients.total[masked].fill(E::ZERO);
            }
        }
    }

    /// The gradients of all final hidden states, given those of the last layer's, row by row.
    pub(super) fn to_final_states(&self, rows: &[E]) -> Vec<Buffer<E>> {
        let columns = self.seen_columns();
        let directions = self.config.stack.directions();
        let batch = rows.len() / columns.stride();
        let last = self.config.stack.num_layers() - 1;
        (0..self.stack.state_count())
            .map(|i| {
                let (layer, direction) = (i / directions, i % directions);
                let stride = self.stack.state_columns(layer).stride();
                let mut to = self.stack.arena().zeros(batch * stride);
                if layer == last {
                    let from = rows.chunks_exact(columns.stride());
                    for (to, from) in to.chunks_exact_mut(stride).zip(from) {
                        to.copy_from_slice(&from[direction * stride..][..stride]);
                    }
                }
                to
            })
            .collect()
    }
}

/// The packed rows of a pass over a span that are judged: from the first up to the second.
fn judged_rows(span: &Span, steps: &Steps) -> (usize, usize) {
    let at = |step: usize| steps.offset((step - span.steps.start).min(steps.longest()));
    (at(span.judged.start), at(span.judged.end))
}
