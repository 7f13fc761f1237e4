//! A whole model: embedding, recurrent stack and linear head over one flat buffer of weights.

mod embedding;
mod examples;
mod flow;
mod gradients;
mod head;
mod infer;
mod pass;

use std::ops::Range;
use std::sync::Arc;

pub use examples::{Examples, Targets};
pub(crate) use gradients::GradientSums;
pub(crate) use infer::{PIECE, Stored};
pub(crate) use pass::{Seen, Span};

pub use crate::pooling::Output;

use crate::buffer::Arena;
use crate::data::{Sequences, Values};
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::kernel::pack::Columns;
use crate::linear::Linear;
use crate::loss::Loss;
use crate::params::Layout;
use crate::sequence::Element;
use crate::simd::Isa;
use crate::stack::{Config, Stack, addressable};

/// What a step of a sequence is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// `input_size` features.
    Dense,
    /// One or more of `vocabulary` identifiers, each with a vector of `input_size` numbers: their
    /// sum.
    Embedding {
        /// How many identifiers there are.
        vocabulary: usize,
        /// The identifier whose vector is zero and stays so.
        masked: Option<usize>,
        /// Whether the vectors are left as they are in training.
        frozen: bool,
        /// Whether the vectors are the head's weights too.
        tied: bool,
    },
    /// One of `input_size` identifiers, as a vector that is 1 there and 0 elsewhere.
    OneHot,
}

impl Input {
    /// Vectors that are learned, nothing special about any.
    pub fn embedding(vocabulary: usize) -> Self {
        Input::Embedding {
            vocabulary,
            masked: None,
            frozen: false,
            tied: false,
        }
    }
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
    /// Whether the states that sequences begin in are learned; else they are zero.
    pub learn_initial_state: bool,
    /// Probability that a number of the stack's input is dropped in training.
    pub input_dropout: f64,
    /// Probability that a number that the head sees is dropped in training.
    pub output_dropout: f64,
}

impl NetworkConfig {
    /// A network without anything special.
    pub fn new(stack: Config, input: Input, output: Output, n_outputs: usize, loss: Loss) -> Self {
        NetworkConfig {
            stack,
            input,
            output,
            n_outputs,
            loss,
            learn_initial_state: false,
            input_dropout: 0.0,
            output_dropout: 0.0,
        }
    }

    /// How many identifiers there are, if the input is identifiers.
    pub(crate) fn vocabulary(&self) -> Option<usize> {
        match self.input {
            Input::Dense => None,
            Input::Embedding { vocabulary, .. } => Some(vocabulary),
            Input::OneHot => Some(self.stack.input_size),
        }
    }

    fn check(&self) -> Result<()> {
        if self.stack.proj_size > 0 {
            let expected = "0 in a network";
            return Err(Error::value("proj_size", expected, self.stack.proj_size));
        }
        if self.vocabulary() == Some(0) {
            return Err(Error::value("vocabulary_size", "an integer >= 1", 0));
        }
        if self.stack.input_size == 0 {
            return Err(Error::value("input_size", "an integer >= 1", 0));
        }
        if self.n_outputs == 0 {
            return Err(Error::value("n_outputs", "an integer >= 1", 0));
        }
        self.loss.validate()?;
        for (name, rate) in [
            ("input_dropout", self.input_dropout),
            ("output_dropout", self.output_dropout),
        ] {
            if !(0.0..=1.0).contains(&rate) {
                return Err(Error::value(name, "a number from 0 to 1", rate));
            }
        }
        if self.input == Input::OneHot && self.input_dropout > 0.0 {
            let expected = "0 where the input is one-hot";
            return Err(Error::value("input_dropout", expected, self.input_dropout));
        }
        let Input::Embedding {
            vocabulary,
            masked,
            frozen,
            tied,
        } = self.input
        else {
            return Ok(());
        };
        if let Some(id) = masked.filter(|&id| id >= vocabulary) {
            let expected = format!("an identifier in 0..{vocabulary}");
            return Err(Error::value("masked_id", expected, id));
        }
        if !tied {
            return Ok(());
        }
        if frozen {
            let expected = "false with freeze_embedding, as the head is trained";
            return Err(Error::value("tie_embedding", expected, true));
        }
        if self.n_outputs != vocabulary {
            let expected = format!("{vocabulary} with tie_embedding, one for each identifier");
            return Err(Error::value("n_outputs", expected, self.n_outputs));
        }
        let seen = self.stack.directions() * self.stack.hidden_sizes.last().map_or(0, |&h| h);
        if seen != self.stack.input_size {
            let expected = format!("{seen} with tie_embedding, as what the head sees");
            return Err(Error::value("input_size", expected, self.stack.input_size));
        }
        Ok(())
    }
}

/// Where the parts of a network lie in the flat buffer.
struct Places {
    embedding: Range<usize>,
    rnn: Range<usize>,
    /// Of each layer and direction; none unless they are learned.
    hidden0: Vec<Range<usize>>,
    memory0: Vec<Range<usize>>,
    /// The head's weight and its bias.
    head: Range<usize>,
    /// What training changes.
    trained: Range<usize>,
}

/// A network and its weights.
///
/// Its parameters are named `embedding.weight`, `rnn.weight_ih_l0` and so on, `rnn.h0_l0` and
/// `rnn.c0_l0` if initial states are learned, `head.weight` unless it is the embedding's, and
/// `head.bias`, with torch's shapes.
pub struct Network<E: 'static> {
    config: NetworkConfig,
    layout: Layout,
    places: Places,
    stack: Stack<E>,
    head: Linear<E>,
    weights: Vec<E>,
    id: Identity,
}

impl<E: Element> Network<E> {
    /// A network whose weights are all zero, for the current instruction set.
    ///
    /// # Errors
    /// As [`Stack::new`]; also [`Error::Value`] naming what is out of its range or does not go
    /// together, [`Error::OutOfMemory`] if there is no room for the weights.
    pub fn new(config: NetworkConfig) -> Result<Self> {
        let isa = Isa::current()?;
        config.check()?;
        let vocabulary = config.vocabulary().unwrap_or(1);
        let width = match config.input {
            Input::Embedding { .. } => config.stack.input_size,
            _ => 1,
        };
        addressable(("vocabulary_size", vocabulary), &[width])?;
        let last = config.stack.hidden_sizes.last().map_or(0, |&size| size);
        addressable(("n_outputs", config.n_outputs), &[2, last])?;
        let stack = Stack::with_isa(config.stack.clone(), isa)?;
        let seen = stack.output_columns();
        let head = Linear::new(isa, seen, config.n_outputs);
        let (layout, places) = lay_out(&config, &stack, seen);
        let weights = layout.zeros()?;
        // Only now: more than these mostly do not fit into memory, which says more.
        for (name, number) in [
            ("vocabulary_size", vocabulary),
            ("n_outputs", config.n_outputs),
        ] {
            if u32::try_from(number).is_err() {
                let expected = "an integer that has 32 bits";
                return Err(Error::value(name, expected, number));
            }
        }
        Ok(Network {
            config,
            weights,
            layout,
            places,
            stack,
            head,
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
    /// The place of the weights that training changes: all but a frozen embedding.
    pub fn trained(&self) -> Range<usize> {
        self.places.trained.clone()
    }
    /// What tells it from every other model.
    pub fn id(&self) -> &Identity {
        &self.id
    }

    /// Lets `change` write the weights. The masked identifier's vector is zero afterwards.
    ///
    /// # Errors
    /// Whatever `change` returns.
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [E]) -> Result<R>) -> Result<R> {
        self.stack.weights_changed();
        self.head.weights_changed();
        let result = change(&mut self.weights);
        if let Some(masked) = self.masked_place() {
            self.weights[masked].fill(E::ZERO);
        }
        result
    }

    /// Where the masked identifier's vector lies.
    fn masked_place(&self) -> Option<Range<usize>> {
        let Input::Embedding { masked, .. } = self.config.input else {
            return None;
        };
        let width = self.config.stack.input_size;
        masked.map(|id| {
            let start = self.places.embedding.start + id * width;
            start..start + width
        })
    }

    /// Whether `values` are what this network is fed.
    pub(crate) fn check(&self, values: Values<E>) -> Result<()> {
        let size = self.config.stack.input_size;
        let fits = match (self.config.input, values) {
            (Input::Dense, Values::Dense { width, .. }) => width == size,
            (
                Input::Embedding {
                    vocabulary: size, ..
                },
                Values::Ids { vocabulary, .. },
            ) => vocabulary <= size,
            (
                Input::OneHot,
                Values::Ids {
                    width, vocabulary, ..
                },
            ) => vocabulary <= size && width == 1,
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let expected = match (self.config.input, values) {
            (Input::Dense, Values::Dense { .. }) => format!("(rows, {size})"),
            (Input::Dense, _) => "numbers".to_owned(),
            (_, Values::Dense { .. }) => "identifiers".to_owned(),
            (Input::Embedding { vocabulary, .. }, _) => format!("identifiers under {vocabulary}"),
            (Input::OneHot, _) => format!("identifiers under {size}, one a step"),
        };
        let actual = match values {
            Values::Dense { width, .. } => format!("(rows, {width})"),
            Values::Ids {
                width: 1,
                vocabulary,
                ..
            } => format!("identifiers under {vocabulary}"),
            Values::Ids {
                width, vocabulary, ..
            } => {
                format!("identifiers under {vocabulary}, {width} a step")
            }
        };
        Err(Error::shape("values", expected, actual))
    }

    /// Layers times directions.
    pub(crate) fn state_count(&self) -> usize {
        self.stack.state_count()
    }

    /// How rows of a layer and direction's states lie.
    pub(crate) fn state_columns(&self, state: usize) -> Columns {
        self.stack
            .state_columns(state / self.config.stack.directions())
    }

    /// The instruction set that it was made for.
    pub(crate) fn isa(&self) -> Isa {
        self.stack.isa()
    }

    /// Where its working memory comes from.
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        self.stack.arena()
    }

    /// How rows of what the head sees lie.
    pub(crate) fn seen_columns(&self) -> Columns {
        self.stack.output_columns()
    }

    /// Numbers from a row of outputs to the next.
    pub(crate) fn output_stride(&self) -> usize {
        self.head.stride()
    }

    /// The rows of the targets that a span's outputs belong to, in their order.
    pub(crate) fn target_rows(&self, sequences: &Sequences<E>, span: &Span) -> Vec<usize> {
        if self.config.output != Output::Sequence {
            return span.batch.to_vec();
        }
        let ranges = sequences.ranges();
        span.judged
            .clone()
            .flat_map(|step| {
                let running = span.batch.iter().map(|&sequence| &ranges[sequence]);
                running
                    .take_while(move |range| range.len() > step)
                    .map(move |range| range.start + step)
            })
            .collect()
    }
}

/// Names, shapes and places of a network's parameters.
///
/// The head's weight and bias lie side by side, as the linear cell has them; what is not trained
/// lies before all else.
fn lay_out<E: Element>(
    config: &NetworkConfig,
    stack: &Stack<E>,
    seen: Columns,
) -> (Layout, Places) {
    let mut layout = Layout::default();
    let (mut embedding, mut frozen_end, mut is_tied) = (0..0, 0, false);
    if let Input::Embedding {
        vocabulary,
        frozen,
        tied,
        ..
    } = config.input
    {
        is_tied = tied;
        if !tied {
            layout.push("embedding.weight", &[vocabulary, config.stack.input_size]);
            embedding = 0..layout.size();
        }
        if frozen {
            frozen_end = layout.size();
        }
    }
    let rnn = layout.append("rnn.", stack.layout());
    let mut states = |name: &str| -> Vec<Range<usize>> {
        let places = config.stack.hidden_sizes.iter().enumerate();
        let directions = &["", "_reverse"][..config.stack.directions()];
        places
            .flat_map(|(layer, &size)| directions.iter().map(move |suffix| (layer, size, suffix)))
            .map(|(layer, size, suffix)| {
                let start = layout.size();
                layout.push(format!("rnn.{name}_l{layer}{suffix}"), &[size]);
                start..layout.size()
            })
            .collect()
    };
    let (mut hidden0, mut memory0) = (Vec::new(), Vec::new());
    if config.learn_initial_state {
        hidden0 = states("h0");
        if config.stack.cell.signature().has_memory() {
            memory0 = states("c0");
        }
    }
    let start = layout.size();
    if is_tied {
        layout.push("embedding.weight", &[config.n_outputs, seen.real()]);
        embedding = start..layout.size();
    } else {
        layout.push("head.weight", &[config.n_outputs, seen.real()]);
    }
    layout.push("head.bias", &[config.n_outputs]);
    let places = Places {
        embedding,
        rnn,
        hidden0,
        memory0,
        head: start..layout.size(),
        trained: frozen_end..layout.size(),
    };
    (layout, places)
}
