//! Use of a network with its weights as they are, in memory that does not grow with the lengths.

use std::cell::Cell;

use super::{Examples, Network, Output, Span};
use crate::data::{BatchPlan, Sequences};
use crate::error::{Error, Result, Stopped};
use crate::loss::Score;
use crate::params::reserve;
use crate::pass::Pass;
use crate::pooling::Pooling;
use crate::sequence::Element;
use crate::steps::Steps;

/// Steps of all sequences that a piece of a pass has, about.
pub(crate) const PIECE: usize = 1 << 13;

/// What a pass keeps for backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Nothing,
    /// One segment of its steps at a time.
    Segment,
    All,
}

/// The hidden states that are asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    layer: usize,
    output: Output,
}

impl<E: Element> Network<E> {
    /// Runs a batch, the longest sequence first, through the stack in pieces, which carry the
    /// states on; `see` hears of each and of its first step. A bidirectional stack runs whole.
    pub(crate) fn pieces<X>(
        &self,
        sequences: &Sequences<E>,
        batch: &[usize],
        mut see: impl FnMut(&Pass<E>, usize) -> std::result::Result<(), X>,
    ) -> std::result::Result<(), X> {
        let whole = Span::whole(sequences, batch);
        let longest = whole.steps.end;
        let mut span = whole.clone();
        let mut states = self.initial(batch.len());
        loop {
            let first = span.steps.start;
            let each = (PIECE / span.batch.len().max(1)).max(1);
            let end = if self.config.stack.bidirectional {
                longest
            } else {
                longest.min(first.saturating_add(each))
            };
            span.steps = first..end;
            let run = self.run(sequences, &span, states, false, None);
            see(&run.pass, first)?;
            if end >= longest {
                return Ok(());
            }
            span = Span::part(sequences, batch, end..longest, end..longest);
            states = self.states_after(&run.pass, usize::MAX, span.batch.len());
        }
    }

    /// Whether a pass over any batch of sequences fits into memory.
    fn check_pieces(&self, lengths: &[usize], batch_size: usize) -> Result<()> {
        let most = if self.config.stack.bidirectional {
            usize::MAX
        } else {
            (PIECE / batch_size.clamp(1, lengths.len().max(1))).max(1)
        };
        self.check_room(lengths, batch_size, most, Stored::Nothing)
    }

    /// Whether a pass over `most` steps of each of the `batch_size` longest of some sequences fits
    /// into memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it does not.
    pub(crate) fn check_room(
        &self,
        lengths: &[usize],
        batch_size: usize,
        most: usize,
        stored: Stored,
    ) -> Result<()> {
        let mut lengths: Vec<usize> = lengths.iter().map(|&length| length.min(most)).collect();
        lengths.sort_unstable_by_key(|&length| std::cmp::Reverse(length));
        lengths.truncate(batch_size);
        let rows = if stored == Stored::Segment {
            let steps = Steps::new(&lengths);
            let rows = steps
                .segments()
                .map(|segment| steps.rows_of(&segment).len());
            rows.max().unwrap_or(0)
        } else {
            let longest = lengths.iter();
            longest.fold(0, |rows: usize, &length| rows.saturating_add(length))
        };
        self.stack.check_room(rows, stored != Stored::Nothing)
    }

    /// Rows of `width` numbers for sequences: see [`Network::predict`]. `write` puts those of some
    /// rows that the head sees.
    fn rows<X, T: Copy + Default>(
        &self,
        sequences: &Sequences<E>,
        batch_size: usize,
        wanted: Wanted,
        width: usize,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
        write: impl Fn(&[E], &mut dyn FnMut(usize, &[T])),
    ) -> std::result::Result<Vec<T>, Stopped<X>> {
        self.check(sequences.values())?;
        let lengths = sequences.lengths();
        self.check_pieces(&lengths, batch_size)?;
        // Where each sequence's rows begin.
        let mut firsts = Vec::with_capacity(lengths.len());
        let mut rows = 0_usize;
        for &length in &lengths {
            firsts.push(rows);
            rows = rows.saturating_add(match wanted.output {
                Output::Sequence => length,
                _ => 1,
            });
        }
        let numbers = rows.saturating_mul(width);
        let mut all = reserve(numbers, "numbers of the result")?;
        all.resize(numbers, T::default());
        let plan = BatchPlan::new(lengths, batch_size, false, true, 0)?;
        let columns = self.stack.layer_columns(wanted.layer);
        let arena = self.stack.arena();
        for batch in plan.batches(0) {
            if wanted.output == Output::Sequence {
                self.pieces(sequences, &batch, |pass, first| {
                    let steps = &pass.steps;
                    let places = (0..steps.longest()).flat_map(|step| {
                        let running = &batch[..steps.count(step)];
                        running.iter().map(move |&i| (i, first + step))
                    });
                    let places: Vec<usize> = places.map(|(i, step)| firsts[i] + step).collect();
                    write(&pass.layers[wanted.layer].y, &mut |row, from| {
                        all[places[row] * width..][..width].copy_from_slice(from);
                    });
                    observe().map_err(Stopped::Observer)
                })?;
                continue;
            }
            let mut pooling = Pooling::new(wanted.output, columns, batch.len());
            self.pieces(sequences, &batch, |pass, _| {
                pooling.add(pass, wanted.layer, arena);
                observe().map_err(Stopped::Observer)
            })?;
            let mut seen = arena.take(batch.len() * columns.stride());
            pooling.write(&mut seen);
            write(&seen, &mut |row, from| {
                all[firsts[batch[row]] * width..][..width].copy_from_slice(from);
            });
        }
        Ok(all)
    }

    /// Outputs of sequences, `n_outputs` numbers a row: one row for each sequence, or one for each
    /// step, sequence after sequence. `observe` is called often and may end it.
    ///
    /// # Errors
    /// [`Error::Shape`] naming `values`, [`Error::Value`] naming `batch_size`,
    /// [`Error::OutOfMemory`] if there is no room for it, or what `observe` returned.
    pub fn predict<X>(
        &self,
        sequences: &Sequences<E>,
        batch_size: usize,
        observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Vec<E>, Stopped<X>> {
        let (width, stride) = (self.config.n_outputs, self.output_stride());
        self.rows(
            sequences,
            batch_size,
            self.seen(),
            width,
            observe,
            |seen, put| {
                self.outputs(seen, |block, outputs| {
                    for (row, from) in block.zip(outputs.chunks_exact(stride)) {
                        put(row, &from[..width]);
                    }
                });
            },
        )
    }

    /// Which output of each row of [`Network::predict`] is the largest, the first of several, and
    /// whether all outputs are finite. They, of which a row may have thousands, are there for some
    /// rows at a time.
    ///
    /// # Errors
    /// As there.
    pub fn choose<X>(
        &self,
        sequences: &Sequences<E>,
        batch_size: usize,
        observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<(Vec<i64>, bool), Stopped<X>> {
        let (width, stride) = (self.config.n_outputs, self.output_stride());
        let are_finite = Cell::new(true);
        let chosen = self.rows(
            sequences,
            batch_size,
            self.seen(),
            1,
            observe,
            |seen, put| {
                self.outputs(seen, |block, outputs| {
                    for (row, from) in block.zip(outputs.chunks_exact(stride)) {
                        let from = &from[..width];
                        are_finite.set(are_finite.get() && from.iter().all(|y| y.is_finite()));
                        put(row, &[largest(from) as i64]);
                    }
                });
            },
        )?;
        Ok((chosen, are_finite.get()))
    }

    /// What the head sees.
    fn seen(&self) -> Wanted {
        Wanted {
            layer: self.config.stack.num_layers() - 1,
            output: self.config.output,
        }
    }

    /// Hidden states of a layer, its directions' side by side: pooled, or those of all steps,
    /// sequence after sequence; else as [`Network::predict`].
    ///
    /// # Errors
    /// As there; also [`Error::Value`] naming `layer` if there is none.
    pub fn features<X>(
        &self,
        sequences: &Sequences<E>,
        batch_size: usize,
        layer: usize,
        output: Output,
        observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<Vec<E>, Stopped<X>> {
        let layers = self.config.stack.num_layers();
        if layer >= layers {
            let expected = format!("a layer in 0..{layers}");
            return Err(Error::value("layer", expected, layer).into());
        }
        let wanted = Wanted { layer, output };
        let columns = self.stack.layer_columns(layer);
        let width = columns.real();
        self.rows(
            sequences,
            batch_size,
            wanted,
            width,
            observe,
            |seen, put| {
                let rows = columns.unpad(seen);
                for (row, numbers) in rows.chunks_exact(width).enumerate() {
                    put(row, numbers);
                }
            },
        )
    }

    /// Mean loss and metric of examples, with weights as they are. `observe` is called often and
    /// may end it.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming `values`, `targets`, `weights` or `batch_size`,
    /// [`Error::OutOfMemory`] if there is no room for it, or what `observe` returned.
    pub fn evaluate<X>(
        &self,
        examples: &Examples<E>,
        batch_size: usize,
        mut observe: impl FnMut() -> std::result::Result<(), X>,
    ) -> std::result::Result<(f64, f64), Stopped<X>> {
        examples.check(self)?;
        let sequences = &examples.sequences;
        let lengths = sequences.lengths();
        self.check_pieces(&lengths, batch_size)?;
        let plan = BatchPlan::new(lengths, batch_size, false, true, 0)?;
        let mut total = Score::new(self.config.loss, self.config.n_outputs);
        let mut judge = |seen: &[E], span: &Span| {
            let rows = self.target_rows(sequences, span);
            total.merge(&self.score(seen, |block, outputs| {
                examples.judge(self, &rows[block], outputs, 1.0)
            }));
        };
        let (layer, arena) = (self.config.stack.num_layers() - 1, self.stack.arena());
        let columns = self.seen_columns();
        for batch in plan.batches(0) {
            let mut pooling = (self.config.output != Output::Sequence)
                .then(|| Pooling::new(self.config.output, columns, batch.len()));
            self.pieces(sequences, &batch, |pass, first| {
                match &mut pooling {
                    Some(pooling) => pooling.add(pass, layer, arena),
                    None => {
                        let steps = first..first + pass.steps.longest();
                        let span = Span::part(sequences, &batch, steps.clone(), steps);
                        judge(pass.output(), &span);
                    }
                }
                observe().map_err(Stopped::Observer)
            })?;
            if let Some(pooling) = pooling {
                let mut seen = arena.take(batch.len() * columns.stride());
                pooling.write(&mut seen);
                judge(&seen, &Span::whole(sequences, &batch));
            }
        }
        Ok((total.loss(), total.metric()))
    }
}

/// The place of the first of the largest numbers, above which stands what is not a number.
fn largest<E: Element>(row: &[E]) -> usize {
    (1..row.len()).fold(0, |best, place| {
        let (most, next) = (row[best].to_f64(), row[place].to_f64());
        if next > most || (next.is_nan() && !most.is_nan()) {
            place
        } else {
            best
        }
    })
}
