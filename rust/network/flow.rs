//! How much of the loss comes back to each step.

use super::pass::Run;
use super::{Examples, GradientSums, Network, Output, Span, Stored};
use crate::buffer::Buffer;
use crate::data::BatchPlan;
use crate::error::{Error, Result, Stopped};
use crate::params::reserve;
use crate::pass::{Ends, States, View};
use crate::pooling::Pooling;
use crate::sequence::Element;
use crate::stack::{Parameters, Want};
use crate::steps::Steps;

/// Sequences that are run together; a sequence's result does not depend on it.
const BATCH: usize = 32;

impl<E: Element> Network<E> {
    /// The norm of the gradient with respect to a layer's states after each step, hidden state and
    /// memory together, sequence after sequence: of the sequence's own mean loss or, without
    /// targets, of the sum of the last layer's final hidden state.
    ///
    /// The two states of a step are taken as the next step finds them, each by itself. `observe`
    /// is called often and may end it.
    ///
    /// # Errors
    /// [`Error::Value`] naming `layer` if the network has no such layer, or `bidirectional` if it is;
    /// as [`Network::evaluate`] where there are targets, as [`Network::predict`] else.
    pub fn gradient_flow<X>(
        &self,
        examples: &Examples<E>,
        layer: usize,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Vec<E>, Stopped<X>> {
        if examples.targets.is_some() {
            examples.check(self)?;
        }
        let sequences = &examples.sequences;
        self.check(sequences.values())?;
        self.check_flow(layer)?;
        let lengths = sequences.lengths();
        self.check_room(&lengths, BATCH, usize::MAX, Stored::All)?;
        let mut firsts = Vec::with_capacity(lengths.len());
        let mut total = 0_usize;
        for &length in &lengths {
            firsts.push(total);
            total = total.saturating_add(length);
        }
        let mut norms = reserve(total, "numbers of the result")?;
        norms.resize(total, E::ZERO);
        let plan = BatchPlan::new(lengths, BATCH, false, true, 0)?;
        for batch in plan.batches(0) {
            self.flow_of_batch(examples, &batch, layer, &mut observe, |row, step, norm| {
                norms[firsts[batch[row]] + step] = E::from_f64(norm);
            })?;
        }
        Ok(norms)
    }

    fn check_flow(&self, layer: usize) -> Result<()> {
        let layers = self.config.stack.num_layers();
        if layer >= layers {
            let expected = format!("a layer in 0..{layers}");
            return Err(Error::value("layer", expected, layer));
        }
        if self.config.stack.bidirectional {
            let expected = "False, as gradients are followed from step to step";
            return Err(Error::value("bidirectional", expected, "True"));
        }
        Ok(())
    }

    fn flow_of_batch<X>(
        &self,
        examples: &Examples<E>,
        batch: &[usize],
        layer: usize,
        observe: &mut impl FnMut() -> std::result::Result<(), X>,
        mut tell: impl FnMut(usize, usize, f64),
    ) -> std::result::Result<(), Stopped<X>> {
        let sequences = &examples.sequences;
        let whole = Span::whole(sequences, batch);
        let (arena, columns) = (self.stack.arena(), self.seen_columns());
        let stride = columns.stride();
        let last = self.config.stack.num_layers() - 1;
        let lengths: Vec<usize> = batch.iter().map(|&i| sequences.ranges()[i].len()).collect();
        let steps = Steps::new(&lengths);
        let mut pooling = match self.config.output {
            Output::Sequence => Pooling::new(Output::Last, columns, batch.len()),
            output => Pooling::new(output, columns, batch.len()),
        };
        // Forward, a pass a step.
        let mut runs = Vec::with_capacity(steps.longest());
        let mut y = arena.take(steps.rows() * stride);
        let mut states = States::none();
        for step in 0..steps.longest() {
            let span = Span::part(sequences, batch, step..step + 1, step..step + 1);
            if step == 0 {
                states = self.initial(span.batch.len());
            }
            let run = self.run(sequences, &span, states, true, None);
            let (start, end) = (steps.offset(step) * stride, steps.offset(step + 1) * stride);
            y[start..end].copy_from_slice(run.pass.output());
            pooling.add(&run.pass, last, arena);
            let next = (step + 1 < steps.longest()).then(|| steps.count(step + 1));
            states = self.states_after(&run.pass, usize::MAX, next.unwrap_or(0));
            runs.push(run);
            observe().map_err(Stopped::Observer)?;
        }
        // To the outputs and back.
        let dy = if examples.targets.is_none() {
            let mut ones = arena.zeros(batch.len() * stride);
            for row in ones.chunks_exact_mut(stride) {
                row[..columns.width].fill(E::ONE);
            }
            to_last_steps(&ones, &steps, arena.zeros(steps.rows() * stride))
        } else if self.config.output == Output::Sequence {
            self.slope(examples, &whole, &mut y);
            y
        } else {
            let mut seen = arena.take(batch.len() * stride);
            pooling.write(&mut seen);
            self.slope(examples, &whole, &mut seen);
            match self.config.output {
                Output::Last => to_last_steps(&seen, &steps, arena.zeros(steps.rows() * stride)),
                _ => pooling.spread(&seen, (0, &steps), arena),
            }
        };
        // Backward, a pass a step.
        let has_memory = self.config.stack.cell.signature().has_memory();
        let nobody = || (0..self.state_count()).map(|_| arena.take(0)).collect();
        let mut after = States {
            hidden: Some(nobody()),
            memory: has_memory.then(nobody),
        };
        for (step, run) in runs.into_iter().enumerate().rev() {
            let rows = steps.count(step);
            let (start, end) = (steps.offset(step) * stride, steps.offset(step + 1) * stride);
            let mut above = arena.take(end - start);
            above.copy_from_slice(&dy[start..end]);
            let incoming = self.widened(&after, rows);
            let want = Want {
                states: true,
                outputs: true,
                ..Want::default()
            };
            let weights = Parameters::Own(&self.weights[self.places.rnn.clone()]);
            let kept = incoming.copied(arena);
            let Run { pass, x, .. } = run;
            let ends = Ends {
                x: x.feed(self.stack.input_columns().stride()),
                y: None,
                dy: Some(View::packed(&above, stride)),
            };
            let found = self
                .stack
                .backward(weights, pass, ends, incoming, want, &mut []);
            let square = |part: &[E], row: usize, width: usize| -> f64 {
                let part = &part[row * width..][..width];
                part.iter().map(|x| x.to_f64() * x.to_f64()).sum()
            };
            let width = self.stack.state_columns(layer).stride();
            for row in 0..rows {
                let mut sum = 0.0;
                if let Some(hidden) = &kept.hidden {
                    let output = found.outputs.get(layer).unwrap_or(&above);
                    let parts = hidden[layer].iter().zip(&**output);
                    let parts = parts.skip(row * width).take(width);
                    sum += parts
                        .map(|(a, b)| (a.to_f64() + b.to_f64()).powi(2))
                        .sum::<f64>();
                }
                if let Some(memory) = &kept.memory {
                    sum += square(&memory[layer], row, width);
                }
                tell(row, step, sum.sqrt());
            }
            after = States {
                hidden: Some(found.dh0),
                memory: has_memory.then_some(found.dmemory0),
            };
            observe().map_err(Stopped::Observer)?;
        }
        Ok(())
    }

    /// Replaces what the head sees by the gradient of each sequence's own mean loss.
    fn slope(&self, examples: &Examples<E>, span: &Span, seen: &mut [E]) {
        let sequences = &examples.sequences;
        let rows = self.target_rows(sequences, span);
        let weigh = |&sequence: &usize| {
            let weight = match self.config.output {
                Output::Sequence => examples.weight(sequences.ranges()[sequence].clone()),
                _ => examples.weight(std::iter::once(sequence)),
            };
            if weight > 0.0 { 1.0 / weight } else { 0.0 }
        };
        let scales: Vec<f64> = span.batch.iter().map(weigh).collect();
        // The rows' sequences, in the order of `target_rows`.
        let owners: Vec<usize> = match self.config.output {
            Output::Sequence => {
                let length = |row: usize| sequences.ranges()[span.batch[row]].len();
                let running =
                    |step: usize| (0..span.batch.len()).take_while(move |&row| length(row) > step);
                span.steps.clone().flat_map(running).collect()
            }
            _ => (0..span.batch.len()).collect(),
        };
        let stride = self.output_stride();
        self.learn_head(seen, &mut GradientSums::new(self), |block, outputs| {
            let (rows, owners) = (&rows[block.clone()], &owners[block]);
            let score = examples.judge(self, rows, outputs, 1.0);
            for (row, &owner) in outputs.chunks_exact_mut(stride).zip(owners) {
                let scale = E::from_f64(scales[owner]);
                for x in row {
                    *x = *x * scale;
                }
            }
            score
        });
    }
}

/// Rows of sequences as those of their last steps, among the zeros `to`.
fn to_last_steps<E: Element>(rows: &[E], steps: &Steps, mut to: Buffer<E>) -> Buffer<E> {
    let stride = rows.len() / steps.batch().max(1);
    for (row, &length) in steps.lengths().iter().enumerate() {
        if let Some(last) = length.checked_sub(1) {
            let at = (steps.offset(last) + row) * stride;
            to[at..at + stride].copy_from_slice(&rows[row * stride..][..stride]);
        }
    }
    to
}
