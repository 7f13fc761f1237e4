//! A whole model: embedding, recurrent stack and linear head over one flat buffer of weights.

use std::ops::Range;

use crate::boundary;
use crate::buffer::Buffer;
use crate::cell::CellKind;
use crate::data::{Sequences, Values};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::loss::Loss;
use crate::params::Layout;
use crate::pass::{Pass, Source, States};
use crate::sequence::Element;
use crate::simd::Isa;
use crate::stack::{Config, Stack, Want, addressable};
use crate::steps::Steps;

/// What a step of a sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `input_size` features.
    Dense,
    /// One of `vocabulary` identifiers, each with a learned vector of `input_size` numbers.
    Embedding {
        /// How many identifiers there are.
        vocabulary: usize,
    },
    /// One of `input_size` identifiers, as a vector that is 1 there and 0 elsewhere.
    OneHot,
}

/// Which hidden states the head sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Those in which the last layer's directions end: one row of outputs for each sequence.
    Last,
    /// Those of every step: one row of outputs for each step.
    Sequence,
}

/// What a network is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct NetworkConfig {
    /// The recurrent stack.
    pub stack: Config,
    /// What it is fed.
    pub input: Input,
    /// What the head sees.
    pub output: Output,
    /// Columns of the head's output: classes or targets.
    pub n_outputs: usize,
    /// What training minimises.
    pub loss: Loss,
}

/// A network and its weights.
///
/// Its parameters are named `embedding.weight`, `rnn.weight_ih_l0` and so on, `head.weight`
/// and `head.bias`, with torch's shapes.
pub struct Network<E: 'static> {
    config: NetworkConfig,
    layout: Layout,
    embedding: Range<usize>,
    rnn: Range<usize>,
    head: Range<usize>,
    stack: Stack<E>,
    top: Stack<E>,
    weights: Vec<E>,
    id: Identity,
}

/// A batch on its way through a network.
pub(crate) struct BatchPass<E> {
    below: Pass<E>,
    above: Pass<E>,
    /// The identifiers of the rows in packed order, for an embedding.
    ids: Vec<u32>,
}

impl<E> BatchPass<E> {
    /// How the batch's rows lie.
    pub fn steps(&self) -> &Steps {
        &self.below.steps
    }
}

impl<E: Element> Network<E> {
    /// A network whose weights are all zero, for the current instruction set.
    ///
    /// # Errors
    /// As [`Stack::new`]; also [`Error::Value`] naming `n_outputs` or `vocabulary_size` if it is 0
    /// or its weights cannot be addressed, [`Error::OutOfMemory`] if there is no room for the
    /// weights.
    pub fn new(config: NetworkConfig) -> Result<Self> {
        let isa = Isa::current()?;
        if config.n_outputs == 0 {
            return Err(Error::value("n_outputs", "an integer >= 1", 0));
        }
        config.loss.validate()?;
        let input_size = config.stack.input_size;
        let hidden_size = config.stack.hidden_sizes.last().map_or(0, |&size| size);
        let table = match config.input {
            Input::Dense => [1, 1],
            Input::Embedding { vocabulary } => [vocabulary, input_size],
            Input::OneHot => [input_size, 1],
        };
        if table[0] == 0 {
            return Err(Error::value("vocabulary_size", "an integer >= 1", 0));
        }
        addressable("vocabulary_size", &table)?;
        addressable("n_outputs", &[config.n_outputs, 2, hidden_size])?;
        let stack = Stack::with_isa(config.stack.clone(), isa)?;
        let outputs = stack.output_columns();
        let top = Stack::with_input(
            Config {
                cell: CellKind::Linear,
                input_size: outputs.real(),
                hidden_sizes: vec![config.n_outputs],
                bias: true,
                bidirectional: false,
                dropout: 0.0,
                locked_dropout: false,
            },
            isa,
            outputs,
        )?;
        let mut layout = Layout::default();
        if let Input::Embedding { vocabulary } = config.input {
            layout.push("embedding.weight", &[vocabulary, config.stack.input_size]);
        }
        let embedding = 0..layout.size();
        let rnn = layout.append("rnn.", stack.layout());
        // In the order of the linear cell's own layout.
        layout.push("head.weight", &[config.n_outputs, outputs.real()]);
        layout.push("head.bias", &[config.n_outputs]);
        let head = rnn.end..layout.size();
        Ok(Network {
            config,
            weights: layout.zeros()?,
            layout,
            embedding,
            rnn,
            head,
            stack,
            top,
            id: Identity::default(),
        })
    }

    /// What the network is made of.
    pub fn config(&self) -> &NetworkConfig {
        &self.config
    }
    /// Names, shapes and places of the weights.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    /// All weights.
    pub fn weights(&self) -> &[E] {
        &self.weights
    }
    /// What tells it from every other model.
    pub fn id(&self) -> &Identity {
        &self.id
    }

    /// Lets `change` write the weights.
    ///
    /// # Errors
    /// Whatever `change` returns.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [E]) -> Result<R>) -> Result<R> {
        self.stack.weights_changed();
        self.top.weights_changed();
        change(&mut self.weights)
    }

    /// Whether `sequences` is what this network is fed.
    pub(crate) fn check(&self, sequences: &Sequences<E>) -> Result<()> {
        let (expected, fits) = match (self.config.input, sequences.values()) {
            (Input::Dense, Values::Dense { width, .. }) => (
                format!("(rows, {})", self.config.stack.input_size),
                width == self.config.stack.input_size,
            ),
            (Input::Dense, _) => ("numbers".to_owned(), false),
            (Input::Embedding { vocabulary: size }, Values::Ids { vocabulary, .. }) => {
                (format!("identifiers under {size}"), vocabulary <= size)
            }
            (Input::OneHot, Values::Ids { vocabulary, .. }) => (
                format!("identifiers under {}", self.config.stack.input_size),
                vocabulary <= self.config.stack.input_size,
            ),
            _ => ("identifiers".to_owned(), false),
        };
        if fits {
            return Ok(());
        }
        let actual = match sequences.values() {
            Values::Dense { width, .. } => format!("(rows, {width})"),
            Values::Ids { vocabulary, .. } => format!("identifiers under {vocabulary}"),
        };
        Err(Error::shape("values", expected, actual))
    }

    /// Whether a pass over the `batch_size` longest of some sequences fits into memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it does not.
    pub(crate) fn check_room(
        &self,
        lengths: &[usize],
        batch_size: usize,
        keep: bool,
    ) -> Result<()> {
        let mut lengths = lengths.to_vec();
        lengths.sort_unstable_by_key(|&length| std::cmp::Reverse(length));
        let longest = lengths.iter().take(batch_size);
        let rows = longest.fold(0, |rows: usize, &length| rows.saturating_add(length));
        self.stack.check_room(rows, keep)
    }

    /// The batch's input in packed order, and the identifiers that an embedding was read at.
    fn gather(
        &self,
        sequences: &Sequences<E>,
        batch: &[usize],
        steps: &Steps,
    ) -> (Source<E>, Vec<u32>) {
        let columns = self.stack.input_columns();
        let (stride, width) = (columns.stride(), columns.width);
        let at = |sequence: usize, step: usize| sequences.ranges()[batch[sequence]].start + step;
        let mut x = self.stack.arena().take(match self.config.input {
            Input::OneHot => 0,
            Input::Dense | Input::Embedding { .. } => steps.rows() * stride,
        });
        let ids = match sequences.values() {
            Values::Dense { rows, .. } => {
                boundary::fill(steps, stride, &mut x, |sequence, step, to| {
                    let (real, padding) = to.split_at_mut(width);
                    real.copy_from_slice(&rows[at(sequence, step) * width..][..width]);
                    padding.fill(E::ZERO);
                });
                return (Source::Rows(x), Vec::new());
            }
            Values::Ids { ids, .. } => ids,
        };
        let of = |sequence, step| ids[at(sequence, step)] as u32;
        let packed = (0..steps.longest()).flat_map(|step| {
            let running = &steps.order()[..steps.count(step)];
            running.iter().map(move |&sequence| of(sequence, step))
        });
        if self.config.input == Input::OneHot {
            return (Source::Ids(packed.collect()), Vec::new());
        }
        let table = &self.weights[self.embedding.clone()];
        boundary::fill(steps, stride, &mut x, |sequence, step, to| {
            let (real, padding) = to.split_at_mut(width);
            real.copy_from_slice(&table[of(sequence, step) as usize * width..][..width]);
            padding.fill(E::ZERO);
        });
        (Source::Rows(x), packed.collect())
    }

    /// Outputs of the sequences `batch`: rows of [`Network::output_stride`] numbers, one for each
    /// sequence in the batch's order inside, or one for each step in packed order.
    pub(crate) fn forward(
        &self,
        sequences: &Sequences<E>,
        batch: &[usize],
        keep: bool,
        dropout_seed: Option<u64>,
    ) -> BatchPass<E> {
        let lengths: Vec<usize> = batch.iter().map(|&i| sequences.ranges()[i].len()).collect();
        let steps = Steps::new(&lengths);
        let (x, ids) = self.gather(sequences, batch, &steps);
        let below = self.stack.forward(
            &self.weights[self.rnn.clone()],
            steps,
            x,
            States::none(),
            keep,
            dropout_seed,
        );
        let columns = self.stack.output_columns();
        let rows = match self.config.output {
            Output::Last => batch.len(),
            Output::Sequence => below.steps.rows(),
        };
        let mut seen = self.stack.arena().take(rows * columns.stride());
        match self.config.output {
            Output::Last => {
                let last = self.config.stack.num_layers() - 1;
                for direction in 0..columns.segments {
                    let to = seen
                        .get_mut(direction * columns.padded..)
                        .unwrap_or_default();
                    below.final_hidden(last, direction, columns.stride(), to);
                }
            }
            Output::Sequence => seen.copy_from_slice(below.output()),
        }
        let above = self.top.forward(
            &self.weights[self.head.clone()],
            Steps::new(&vec![1; rows]),
            Source::Rows(seen),
            States::none(),
            keep,
            None,
        );
        BatchPass { below, above, ids }
    }

    /// Numbers from a row of outputs to the next.
    pub(crate) fn output_stride(&self) -> usize {
        self.top.output_columns().stride()
    }

    /// The outputs of a pass, in a buffer of their own.
    pub(crate) fn outputs(&self, pass: &BatchPass<E>) -> Buffer<E> {
        let mut outputs = self.stack.arena().take(pass.above.output().len());
        outputs.copy_from_slice(pass.above.output());
        outputs
    }

    /// Writes the gradients of the weights, given that of the outputs, laid out like them.
    pub(crate) fn backward(&self, pass: BatchPass<E>, d_outputs: Buffer<E>, gradients: &mut [E]) {
        let arena = self.stack.arena();
        let BatchPass { below, above, ids } = pass;
        let (lower, head) = gradients.split_at_mut(self.head.start);
        let (embedding, rnn) = lower.split_at_mut(self.rnn.start);
        let input = Want {
            input: true,
            states: false,
        };
        let found = self.top.backward(
            &self.weights[self.head.clone()],
            above,
            Some(d_outputs),
            States::none(),
            input,
            head,
        );
        let seen = found.dx.expect("the input's gradient was asked for");
        let columns = self.stack.output_columns();
        let batch = below.steps.batch();
        let (dy, dh) = match self.config.output {
            Output::Sequence => (Some(seen), None),
            Output::Last => {
                let mut dh: Vec<Buffer<E>> = (0..self.stack.state_count())
                    .map(|state| {
                        let of_layer = self.stack.state_columns(state / columns.segments);
                        arena.zeros(batch * of_layer.stride())
                    })
                    .collect();
                let first = dh.len() - columns.segments;
                for (direction, dh) in dh[first..].iter_mut().enumerate() {
                    let rows = seen.chunks_exact(columns.stride());
                    for (to, from) in dh.chunks_exact_mut(columns.padded).zip(rows) {
                        let start = direction * columns.padded;
                        to.copy_from_slice(&from[start..start + columns.padded]);
                    }
                }
                (None, Some(dh))
            }
        };
        let want = Want {
            input: matches!(self.config.input, Input::Embedding { .. }),
            states: false,
        };
        let found = self.stack.backward(
            &self.weights[self.rnn.clone()],
            below,
            dy,
            States {
                hidden: dh,
                memory: None,
            },
            want,
            rnn,
        );
        embedding.fill(E::ZERO);
        if let Some(dx) = found.dx {
            let columns = self.stack.input_columns();
            for (from, id) in dx.chunks_exact(columns.stride()).zip(ids) {
                let to = &mut embedding[id as usize * columns.width..][..columns.width];
                for (to, &from) in to.iter_mut().zip(from) {
                    *to += from;
                }
            }
        }
    }
}
