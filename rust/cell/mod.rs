//! Cells: what one recurrent unit does with its preactivations, forward and backward.
//!
//! A cell is one file. It names its gates and states and gives pointwise functions over
//! [`Vector`], forward in two halves, and backward; packing, products, the time loop, weight
//! gradients, stacking and bindings follow from the constants here and know no cell by name.
//!
//! # Words
//!
//! * A *gate* is a block of H rows in torch's `weight_ih` (G·H, I) and `weight_hh` (G·H, H).
//! * A *slot* is one of the S sums that are accumulated for a unit before its pointwise part.
//!   The input and the state each feed a run of slots ([`Feed`]). Where both feed the same slot
//!   their sums are one; GRU keeps its candidate's two halves apart and so has 4 slots for 3 gates.
//!   Of what a cell saves for backward there are as many vectors at most.
//! * The *memory* is a second state beside h (LSTM's c).
//! * A *projection* may stand between a unit's output and the hidden state: what the pointwise
//!   functions call h is then m, of H numbers, and the state is W_hr m, of fewer.
//! * The *carry* goes elementwise from a step to the one before it in backward.

mod gru;
mod lstm;
mod rnn;

pub use gru::Gru;
pub use lstm::Lstm;
pub use rnn::{Function, LeakyRelu, Relu, Rnn, Sigmoid, Softsign, Tanh};

use std::fmt;

use crate::error::{Error, Result};
use crate::simd::Vector;

/// The most slots a cell may have.
pub const MAX_SLOTS: usize = 4;

/// Which slots a source feeds: slot `first + i` takes the rows of gate `gates[i]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feed {
    /// The first slot fed.
    pub first: usize,
    /// The gates, in the order of the slots.
    pub gates: &'static [usize],
}

impl Feed {
    /// The gate that a slot takes, if it is fed.
    pub fn gate(&self, slot: usize) -> Option<usize> {
        let place = slot.checked_sub(self.first)?;
        self.gates.get(place).copied()
    }
}

/// What goes elementwise from a step to the one before it in backward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carry {
    /// Nothing.
    None,
    /// A part of the gradient of the hidden state.
    Hidden,
    /// The gradient of the memory.
    Memory,
}

/// The shape of a cell, as everything outside its pointwise functions sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Blocks of rows in the weights.
    pub gates: usize,
    /// Sums per unit.
    pub slots: usize,
    /// The slots that the input feeds.
    pub input: Feed,
    /// The slots that the hidden state feeds.
    pub state: Feed,
    /// Vectors that forward saves for backward, per unit and step: all slots or none.
    pub saved: usize,
    /// What backward carries.
    pub carry: Carry,
    /// Whether the pointwise functions read the hidden state of the step before.
    pub reads_previous: bool,
    /// Whether backward reads what the step itself gave.
    pub reads_output: bool,
    /// Whether a unit whose sums are zero leaves a state of zero at zero. If not, sums of minus
    /// infinity do. Padding is kept at rest so.
    pub rests_at_zero: bool,
}

impl Signature {
    /// Whether there is a second state.
    pub fn has_memory(&self) -> bool {
        self.carry == Carry::Memory
    }
    /// Whether a projection of what the pointwise functions give may take its place as the hidden
    /// state: they meet the state before in their sums alone.
    pub fn may_project(&self) -> bool {
        !self.reads_previous && self.carry != Carry::Hidden
    }
}

/// What a unit computes in a step.
#[derive(Clone, Copy)]
pub struct Forward<V> {
    /// The new hidden state.
    pub h: V,
    /// What backward needs besides; the first `saved` of them are kept.
    pub saved: [V; MAX_SLOTS],
}

/// What backward of a unit's step starts from.
#[derive(Clone, Copy)]
pub struct Upstream<V> {
    /// Gradient of the step's hidden state, from above and from the next step's products.
    pub dh: V,
    /// What the next step carried over.
    pub carry: V,
    /// What forward saved.
    pub saved: [V; MAX_SLOTS],
    /// The new hidden state, before a projection; unspecified unless `reads_output`.
    pub h: V,
    /// The hidden state before the step; unspecified unless `reads_previous`.
    pub h_before: V,
    /// The memory before the step; unspecified without one.
    pub memory_before: V,
}

/// A recurrent cell.
pub trait Cell: Send + Sync + 'static {
    /// The cell's shape.
    const SIGNATURE: Signature;

    /// The first half of a step: `a` are the sums by slot, biases included. Gives what takes their
    /// places for the second half, and the new memory.
    ///
    /// A pass does this half for all rows of a tile and then the other one: what waits for the
    /// result of an activation finds it there, instead of the rows after it waiting too. A cell of
    /// one gate has the second half alone.
    #[inline(always)]
    fn gates<V: Vector>(a: [V; MAX_SLOTS], memory_before: V) -> ([V; MAX_SLOTS], V) {
        (a, memory_before)
    }

    /// The second half, from what the first gave and the hidden state before the step.
    fn state<V: Vector>(gates: [V; MAX_SLOTS], memory: V, h_before: V) -> Forward<V>;

    /// The reverse of both: gradients of the sums by slot, and what is carried to the step before.
    fn backward<V: Vector>(up: Upstream<V>) -> ([V; MAX_SLOTS], V);
}

/// The nonlinearity f of a simple recurrent cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Nonlinearity {
    /// tanh a
    Tanh,
    /// max(a, 0)
    Relu,
    /// a, or a / 100 below 0
    LeakyRelu,
    /// a / (1 + |a|)
    Softsign,
    /// 1 / (1 + e^-a)
    Sigmoid,
}

impl Nonlinearity {
    /// All of them.
    pub const ALL: [Nonlinearity; 5] = [
        Nonlinearity::Tanh,
        Nonlinearity::Relu,
        Nonlinearity::LeakyRelu,
        Nonlinearity::Softsign,
        Nonlinearity::Sigmoid,
    ];

    /// torch's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Nonlinearity::Tanh => "tanh",
            Nonlinearity::Relu => "relu",
            Nonlinearity::LeakyRelu => "leaky_relu",
            Nonlinearity::Softsign => "softsign",
            Nonlinearity::Sigmoid => "sigmoid",
        }
    }
}

/// The recurrent cells by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CellKind {
    /// h' = f(W x + U h + b)
    Rnn {
        /// f
        nonlinearity: Nonlinearity,
        /// Whether the state before is added: h' = f(W x + U h + b) + h.
        residual: bool,
    },
    /// Long short-term memory.
    Lstm,
    /// Gated recurrent unit.
    Gru,
}

impl CellKind {
    /// h' = tanh(W x + U h + b), torch's default.
    pub const RNN_TANH: CellKind = CellKind::Rnn {
        nonlinearity: Nonlinearity::Tanh,
        residual: false,
    };

    /// The recurrent cells.
    pub fn recurrent() -> impl Iterator<Item = CellKind> {
        let simple = [false, true].into_iter().flat_map(|residual| {
            Nonlinearity::ALL.map(|nonlinearity| CellKind::Rnn {
                nonlinearity,
                residual,
            })
        });
        simple.chain([CellKind::Lstm, CellKind::Gru])
    }

    /// The recurrent cell of a name: "lstm", "gru", "rnn_tanh", "rnn_tanh_residual" and so on.
    ///
    /// # Errors
    /// [`Error::Value`] naming `cell` if there is none.
    pub fn by_name(name: &str) -> Result<CellKind> {
        let found = Self::recurrent().find(|cell| cell.to_string() == name);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::recurrent()
                .map(|cell| format!("\"{cell}\""))
                .collect();
            let expected = format!("one of {}", names.join(", "));
            Error::value("cell", expected, format!("{name:?}"))
        })
    }

    /// The cell's shape.
    pub fn signature(self) -> Signature {
        match self {
            CellKind::Rnn {
                nonlinearity,
                residual,
            } => match nonlinearity {
                Nonlinearity::Tanh => rnn::signature::<Tanh>(residual),
                Nonlinearity::Relu => rnn::signature::<Relu>(residual),
                Nonlinearity::LeakyRelu => rnn::signature::<LeakyRelu>(residual),
                Nonlinearity::Softsign => rnn::signature::<Softsign>(residual),
                Nonlinearity::Sigmoid => rnn::signature::<Sigmoid>(residual),
            },
            CellKind::Lstm => Lstm::SIGNATURE,
            CellKind::Gru => Gru::SIGNATURE,
        }
    }
}

/// The name by which bindings and files know it.
impl fmt::Display for CellKind {
    fn fmt(&self, to: &mut fmt::Formatter) -> fmt::Result {
        match self {
            CellKind::Rnn {
                nonlinearity,
                residual,
            } => {
                let suffix = if *residual { "_residual" } else { "" };
                write!(to, "rnn_{}{suffix}", nonlinearity.name())
            }
            CellKind::Lstm => to.write_str("lstm"),
            CellKind::Gru => to.write_str("gru"),
        }
    }
}

#[cfg(test)]
mod tests;
