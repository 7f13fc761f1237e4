//! The passes whose gradients make an update.

use crate::error::{Error, Result, Stopped};
use crate::loss::Score;
use crate::network::{Examples, GradientSums, Network, PIECE, Seen, Span};
use crate::parallel::FlushDenormals;
use crate::pass::States;
use crate::sequence::Element;

/// What the passes of an update have in common.
pub(super) struct Work<'a, E: 'static> {
    pub network: &'a Network<E>,
    pub examples: &'a Examples<'a, E>,
    pub gradients: &'a mut GradientSums<E>,
    pub scale: f64,
    pub score: Score,
    /// Whether a pass keeps one segment of its steps at a time.
    pub checkpoint_time: bool,
}

impl<E: Element> Work<'_, E> {
    /// Adds the gradients of a span and its score. Returns the states in which it ends for so many
    /// sequences, if asked for.
    ///
    /// A span in parts is run twice: once for the states in which each part begins, then part by
    /// part from the last to the first, which are kept until they were taken back.
    pub fn pass<X>(
        &mut self,
        span: &Span,
        before: States<E>,
        seed: u64,
        wanted: Option<usize>,
        observe: &mut impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Option<States<E>>, Stopped<X>> {
        let (network, sequences) = (self.network, &self.examples.sequences);
        let parts = if self.checkpoint_time {
            span.segments(sequences)
        } else {
            vec![span.clone()]
        };
        let mut pooling = network.pooling(span);
        let mut begins = Vec::with_capacity(parts.len());
        let mut states = before;
        for neighbours in parts.windows(2) {
            {
                let _flush = FlushDenormals::begin();
                begins.push(states.copied(network.arena()));
                let run = network.run(sequences, &neighbours[0], states, false, Some(seed));
                states = network.states_after(&run.pass, usize::MAX, neighbours[1].batch.len());
                if let Some(pooling) = &mut pooling {
                    network.take_in(pooling, &run);
                }
            }
            observe().map_err(Stopped::Observer)?;
        }
        begins.push(states);
        let (mut pooled, mut ends, mut later) = (None, None, None);
        for (part, states) in parts.iter().zip(begins).rev() {
            {
                let _flush = FlushDenormals::begin();
                let run = network.run(sequences, part, states, true, Some(seed));
                if later.is_none() {
                    ends = wanted.map(|rows| network.states_after(&run.pass, usize::MAX, rows));
                }
                if let Some(mut pooling) = pooling.take() {
                    network.take_in(&mut pooling, &run);
                    let mut seen = network.see_pooled(pooling, seed);
                    self.judge(span, &mut seen)?;
                    pooled = Some(seen);
                }
                let slope = if let Some(seen) = &pooled {
                    network.slope_of_pooled(part, &run, seen, later)
                } else {
                    let mut seen = network.see(sequences, part, &run);
                    self.judge(part, &mut seen)?;
                    network.slope_of_steps(part, &run, seen, later)
                };
                let goes_on = part.steps.start > span.steps.start;
                later = network.backward(part, run, slope, goes_on, self.gradients);
            }
            observe().map_err(Stopped::Observer)?;
        }
        Ok(ends)
    }

    /// Turns what the head saw of a span into its gradient; adds the head's, and the score.
    fn judge(&mut self, span: &Span, seen: &mut Seen<E>) -> Result<()> {
        let (network, examples, scale) = (self.network, self.examples, self.scale);
        let rows = network.target_rows(&examples.sequences, span);
        network.learn(seen, self.gradients, &mut self.score, |block, outputs| {
            examples.judge(network, &rows[block], outputs, scale)
        });
        if !self.score.loss().is_finite() && self.score.weight() > 0.0 {
            let what = "the loss".to_owned();
            return Err(Error::NotFinite { what });
        }
        Ok(())
    }

    /// Adds the gradients of the windows of a batch and their score.
    ///
    /// The head is run once for many windows: what it sees of a step does not depend on how far
    /// back the step's error goes.
    pub fn windows<X>(
        &mut self,
        batch: &[usize],
        (block, reach): (usize, usize),
        seed: u64,
        observe: &mut impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<(), Stopped<X>> {
        let (network, sequences) = (self.network, &self.examples.sequences);
        let longest = Span::whole(sequences, batch).steps.end;
        let piece = |start: usize| {
            let each = (PIECE / batch.len().max(1)).max(1).next_multiple_of(block);
            let steps = start..longest.min(start.saturating_add(each));
            Span::part(sequences, batch, steps.clone(), steps)
        };
        let window = |number: usize| {
            let start = number.saturating_mul(block);
            let end = start.saturating_add(block);
            let judged = start..end.min(longest).max(start);
            let steps = (end - 1).saturating_sub(reach)..judged.end;
            Span::part(sequences, batch, steps, judged)
        };
        let (mut span, mut current) = (piece(0), window(0));
        let mut number = 0;
        let mut ends = network.initial(span.batch.len());
        let mut states = network.initial(current.batch.len());
        loop {
            let steps = span.judged.clone();
            let rest = piece(steps.end);
            let seen = {
                let _flush = FlushDenormals::begin();
                let run = network.run(sequences, &span, ends, false, Some(seed));
                ends = network.states_after(&run.pass, usize::MAX, rest.batch.len());
                let mut seen = network.see(sequences, &span, &run);
                self.judge(&span, &mut seen)?;
                seen
            };
            loop {
                number += 1;
                let next = window(number);
                {
                    let _flush = FlushDenormals::begin();
                    let run = network.run(sequences, &current, states, true, Some(seed));
                    // The next window begins within this one, or where it ends.
                    let most = next.steps.start - current.steps.start;
                    states = network.states_after(&run.pass, most, next.batch.len());
                    let judged = &current.judged;
                    let part = judged.start - steps.start..judged.end - steps.start;
                    let part = seen.part(network, part);
                    let slope = network.slope_of_steps(&current, &run, part, None);
                    network.backward(&current, run, slope, false, self.gradients);
                }
                observe().map_err(Stopped::Observer)?;
                current = next;
                if current.judged.start >= steps.end {
                    break;
                }
            }
            if steps.end >= longest {
                return Ok(());
            }
            span = rest;
        }
    }
}
