//! A batch, or some steps of it, through the stack and back.

use std::ops::Range;

use super::{GradientSums, Input, Network, Output};
use crate::buffer::Buffer;
use crate::data::{Sequences, Values};
use crate::dropout::{self, Drawn, Mask};
use crate::kernel::pack::Columns;
use crate::loss::Score;
use crate::pass::{Ends, Pass, Source, StateRows, States, View};
use crate::pooling::Pooling;
use crate::sequence::Element;
use crate::stack::{Parameters, Want};
use crate::steps::{Steps, Strides};

/// Some steps of the sequences of a batch.
#[derive(Clone, Debug)]
pub(crate) struct Span<'a> {
    /// The sequences that have such steps, the longest first.
    pub batch: &'a [usize],
    /// The steps that are run.
    pub steps: Range<usize>,
    /// Those among them whose outputs are judged, where each step has outputs.
    pub judged: Range<usize>,
    /// Whether it is one segment of its sequences' sums: see [`crate::steps`].
    pub is_segment: bool,
}

impl<'a> Span<'a> {
    /// All steps of all sequences.
    pub fn whole<E: Copy>(sequences: &Sequences<E>, batch: &'a [usize]) -> Self {
        let longest = batch.first().map_or(0, |&i| sequences.ranges()[i].len());
        Span {
            batch,
            steps: 0..longest,
            judged: 0..longest,
            is_segment: false,
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
            is_segment: false,
        }
    }

    /// Its segments, from the first on. All its steps are judged.
    pub fn segments<E: Copy>(&self, sequences: &Sequences<E>) -> Vec<Self> {
        let (first, steps) = (self.steps.start, self.count(sequences, &self.steps));
        let segment = |segment: Range<usize>| {
            // Sequences without steps are the first segment's.
            let running = match segment.start {
                0 => self.batch.len(),
                start => steps.count(start),
            };
            let steps = first + segment.start..first + segment.end;
            Span {
                batch: &self.batch[..running],
                judged: steps.clone(),
                steps,
                is_segment: true,
            }
        };
        steps.segments().map(segment).collect()
    }

    /// How many of `steps` each sequence has.
    fn count<E: Copy>(&self, sequences: &Sequences<E>, steps: &Range<usize>) -> Steps {
        let of = |&i: &usize| sequences.ranges()[i].len().min(steps.end);
        let lengths: Vec<usize> = self
            .batch
            .iter()
            .map(|i| of(i).saturating_sub(steps.start))
            .collect();
        let steps = Steps::new(&lengths);
        if self.is_segment {
            steps.uncut()
        } else {
            steps
        }
    }
}

/// Some steps on their way through the stack.
pub(crate) struct Run<E> {
    pub pass: Pass<E>,
    /// What the stack was fed.
    pub x: Source<E>,
    /// What an embedding was read at, if it is trained.
    ids: Vec<u32>,
    drawn: Option<Drawn>,
}

/// What the head sees of a run, or its gradient.
pub(crate) struct Seen<E> {
    pub rows: Buffer<E>,
    pooling: Option<Pooling>,
    /// How the rows lie.
    steps: Steps,
    drawn: Option<Drawn>,
}

/// The gradient of what a run gave.
pub(crate) struct Slope<E> {
    /// Of the last layer's outputs, if there is any.
    dy: Option<Buffer<E>>,
    /// Of the states in which it ended.
    last: States<E>,
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
            pooling: None,
            steps: Steps::new(&lengths.collect::<Vec<_>>()),
            drawn: None,
        }
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
        // A span's longest sequence comes first, so that rows are sequences.
        let at = |sequence: usize, step: usize| {
            sequences.ranges()[span.batch[sequence]].start + span.steps.start + step
        };
        let (mut x, ids) = self.gather(sequences.values(), at, &steps);
        let first = span.steps.start;
        let drawn = seed.map(|seed| Drawn { seed, first });
        if let Source::Rows(x) = &mut x {
            self.drop_input(x, &steps, drawn);
        }
        let pass = self.through_stack(&x, steps, initial, keep, drawn);
        Run {
            pass,
            x,
            ids,
            drawn,
        }
    }

    /// Takes one step of as many sequences as there are rows of `values`; `steps` are these.
    pub(crate) fn step(&self, values: Values<E>, steps: Steps, initial: States<E>) -> Pass<E> {
        let (x, _) = self.gather(values, |sequence, _| sequence, &steps);
        self.through_stack(&x, steps, initial, false, None)
    }

    fn through_stack(
        &self,
        x: &Source<E>,
        steps: Steps,
        initial: States<E>,
        keep: bool,
        drawn: Option<Drawn>,
    ) -> Pass<E> {
        let weights = Parameters::Own(&self.weights[self.places.rnn.clone()]);
        let strides = Strides::packed(self.stack.output_columns().stride());
        let feed = x.feed(self.stack.input_columns().stride());
        self.stack
            .forward(weights, steps, feed, initial, keep, strides, drawn)
    }

    /// What the head sees of a run of a span, where each step has outputs.
    pub(crate) fn see(&self, sequences: &Sequences<E>, span: &Span, run: &Run<E>) -> Seen<E> {
        let stride = self.seen_columns().stride();
        let (start, end) = judged_rows(span, &run.pass.steps);
        let mut rows = self.arena().take((end - start) * stride);
        rows.copy_from_slice(&run.pass.output()[start * stride..end * stride]);
        let first = span.judged.start;
        let mut seen = Seen {
            rows,
            pooling: None,
            steps: span.count(sequences, &span.judged),
            drawn: run.drawn.map(|drawn| Drawn { first, ..drawn }),
        };
        self.drop_seen(&mut seen);
        seen
    }

    /// Nothing yet of the sequences of a span, where each has outputs as a whole.
    pub(crate) fn pooling(&self, span: &Span) -> Option<Pooling> {
        let (output, columns) = (self.config.output, self.seen_columns());
        (output != Output::Sequence).then(|| Pooling::new(output, columns, span.batch.len()))
    }

    /// Takes in the next steps of the sequences.
    pub(crate) fn take_in(&self, pooling: &mut Pooling, run: &Run<E>) {
        pooling.add(&run.pass, self.config.stack.num_layers() - 1, self.arena());
    }

    /// What the head sees of sequences, all of whose steps were taken in.
    pub(crate) fn see_pooled(&self, pooling: Pooling, seed: u64) -> Seen<E> {
        let batch = pooling.rows().len();
        let mut rows = self.arena().take(batch * self.seen_columns().stride());
        pooling.write(&mut rows);
        let mut seen = Seen {
            rows,
            pooling: Some(pooling),
            steps: Steps::new(&vec![1; batch]),
            drawn: Some(Drawn::new(seed)),
        };
        self.drop_seen(&mut seen);
        seen
    }

    /// Turns what the head saw into its gradient, and adds the head's: `judge` replaces the outputs
    /// of some of its rows by their gradient, and gives their score, which is added to `total`.
    pub(crate) fn learn(
        &self,
        seen: &mut Seen<E>,
        gradients: &mut GradientSums<E>,
        total: &mut Score,
        judge: impl Fn(Range<usize>, &mut [E]) -> Score + Sync,
    ) {
        let stride = self.seen_columns().stride();
        for segment in seen.steps.segments().rev() {
            let Range { start, end } = seen.steps.rows_of(&segment);
            let rows = &mut seen.rows[start * stride..end * stride];
            let score = self.learn_head(rows, gradients, |block, outputs| {
                judge(start + block.start..start + block.end, outputs)
            });
            total.merge(&score);
        }
        self.drop_seen(seen);
    }

    /// The gradient of a run, from that of what the head saw of its steps and, if there were runs
    /// over later ones, from that of the states in which these began.
    pub(crate) fn slope_of_steps(
        &self,
        span: &Span,
        run: &Run<E>,
        seen: Seen<E>,
        later: Option<States<E>>,
    ) -> Slope<E> {
        let steps = &run.pass.steps;
        let (start, end) = judged_rows(span, steps);
        let dy = if end - start == steps.rows() {
            seen.rows
        } else {
            let stride = self.seen_columns().stride();
            let mut dy = self.arena().zeros(steps.rows() * stride);
            dy[start * stride..end * stride].copy_from_slice(&seen.rows);
            dy
        };
        Slope {
            dy: Some(dy),
            last: later.map_or_else(States::none, |later| self.widened(&later, steps.batch())),
        }
    }

    /// The same where the head saw the sequences as wholes.
    pub(crate) fn slope_of_pooled(
        &self,
        span: &Span,
        run: &Run<E>,
        seen: &Seen<E>,
        later: Option<States<E>>,
    ) -> Slope<E> {
        let (pooling, steps) = (seen.pooling.as_ref(), &run.pass.steps);
        let pooling = pooling.expect("the head saw whole sequences");
        let later = later.unwrap_or_else(States::none);
        if self.config.output == Output::Last {
            let last = self.ended(&seen.rows, &later, steps.batch());
            return Slope { dy: None, last };
        }
        let dy = pooling.spread(&seen.rows, (span.steps.start, steps), self.arena());
        Slope {
            dy: Some(dy),
            last: self.widened(&later, steps.batch()),
        }
    }

    /// Adds the gradients of all weights beneath the head, given that of what a run gave. Returns
    /// that of the states in which it began, for a run over the steps before.
    pub(crate) fn backward(
        &self,
        span: &Span,
        run: Run<E>,
        slope: Slope<E>,
        goes_on: bool,
        gradients: &mut GradientSums<E>,
    ) -> Option<States<E>> {
        let Run {
            pass,
            x,
            ids,
            drawn,
        } = run;
        let steps = pass.steps.clone();
        let is_first = gradients.is_first_of_rest();
        let is_trained = matches!(self.config.input, Input::Embedding { frozen: false, .. });
        let begins = span.steps.start == 0;
        let want = Want {
            input: is_trained,
            input_strides: None,
            states: goes_on || (begins && self.config.learn_initial_state),
            apart: goes_on,
            outputs: false,
            weights: true,
            add: !is_first,
            from_layer: 0,
        };
        let weights = Parameters::Own(&self.weights[self.places.rnn.clone()]);
        let rnn = &mut gradients.total[self.places.rnn.clone()];
        let x = x.feed(self.stack.input_columns().stride());
        let stride = self.stack.output_columns().stride();
        let dy = slope.dy.as_ref().map(|dy| View::packed(dy, stride));
        let ends = Ends { x, y: None, dy };
        let found = self
            .stack
            .backward(weights, pass, ends, slope.last, want, rnn);
        let states = [
            (&self.places.hidden0, &found.dh0),
            (&self.places.memory0, &found.dmemory0),
        ];
        for (places, rows) in states {
            for (i, place) in places.iter().enumerate() {
                let to = &mut gradients.total[place.clone()];
                if is_first {
                    to.fill(E::ZERO);
                }
                let stride = to.len().next_multiple_of(self.stack.lanes());
                let rows = rows.get(i).filter(|_| begins);
                for row in rows.iter().flat_map(|rows| rows.chunks_exact(stride)) {
                    for (to, &from) in to.iter_mut().zip(row) {
                        *to += from;
                    }
                }
            }
        }
        if let Some(mut dx) = found.dx.filter(|_| is_trained) {
            self.drop_input(&mut dx, &steps, drawn);
            let table = match &mut *gradients.looked_up {
                [] => &mut gradients.total[self.places.embedding.clone()],
                apart => apart,
            };
            self.scatter((&dx, &steps), &ids, table, is_first);
        }
        goes_on.then_some(States {
            hidden: Some(found.dh0),
            memory: Some(found.dmemory0),
        })
    }

    /// Gradients of states for `rows` sequences: those that there are, then zeros.
    pub(super) fn widened(&self, states: &States<E>, rows: usize) -> States<E> {
        let widen = |part: &StateRows<E>| {
            let each = part.iter().enumerate().map(|(i, from)| {
                let stride = self.state_columns(i).stride();
                let mut to = self.arena().zeros(rows * stride);
                to[..from.len()].copy_from_slice(from);
                to
            });
            each.collect()
        };
        States {
            hidden: states.hidden.as_ref().map(widen),
            memory: states.memory.as_ref().map(widen),
        }
    }

    /// The same, but for sequences that end those of the last layer's hidden state, row by row.
    fn ended(&self, last: &[E], later: &States<E>, rows: usize) -> States<E> {
        let (columns, directions) = (self.seen_columns(), self.config.stack.directions());
        let mut states = self.widened(later, rows);
        let zeros = |i: usize| self.arena().zeros(rows * self.state_columns(i).stride());
        let hidden = states
            .hidden
            .get_or_insert_with(|| (0..self.state_count()).map(zeros).collect());
        let first = self.state_count() - directions;
        for (direction, to) in hidden[first..].iter_mut().enumerate() {
            let going_on = later.hidden.as_ref().map_or(0, |rows| rows[first].len());
            let to = to[going_on..].chunks_exact_mut(columns.padded);
            let from = last.chunks_exact(columns.stride());
            for (to, from) in to.zip(from.skip(going_on / columns.padded)) {
                to.copy_from_slice(&from[direction * columns.padded..][..columns.padded]);
            }
        }
        states
    }
}

/// The packed rows of a pass over a span that are judged: from the first up to the second.
fn judged_rows(span: &Span, steps: &Steps) -> (usize, usize) {
    let at = |step: usize| steps.offset((step - span.steps.start).min(steps.longest()));
    (at(span.judged.start), at(span.judged.end))
}
