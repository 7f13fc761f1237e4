//! One direction of one layer: its geometry, its matrices, and where its buffers lie.

mod matrices;
mod panels;
mod rounds;

use std::ops::Range;

use crate::cell::{CellKind, Feed, Signature};
use crate::kernel::pack::Columns;
use crate::simd::Real;
use crate::steps::{Steps, Strides};

pub(crate) use matrices::{
    BackwardPack, ForwardPack, Matrix, WeightGradients, WeightUnit, Weights,
};
pub(crate) use panels::Panels;
pub(crate) use rounds::Rounds;

/// Sizes of one direction of a layer, for one lane width.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub signature: Signature,
    /// The input's columns.
    pub input: Columns,
    /// Units of the cell, H.
    pub hidden: usize,
    /// Columns of the hidden state, W: fewer than H where the cell's output is projected, else H.
    pub width: usize,
    /// Numbers in a register, L.
    pub lanes: usize,
}

impl Geometry {
    /// Of a layer whose hidden state has `width` columns: `hidden`, or fewer with a projection.
    pub fn new(
        kind: CellKind,
        input: Columns,
        (hidden, width): (usize, usize),
        lanes: usize,
    ) -> Self {
        Geometry {
            signature: kind.signature(),
            input,
            hidden,
            width,
            lanes,
        }
    }

    /// A row of `segments` runs of `width` columns, each padded to whole registers.
    pub fn columns(segments: usize, width: usize, lanes: usize) -> Columns {
        Columns {
            segments,
            width,
            padded: width.max(1).next_multiple_of(lanes),
        }
    }

    /// Panels of units, P.
    pub fn panels(&self) -> usize {
        self.hidden.div_ceil(self.lanes)
    }
    /// Units with padding, Hp.
    pub fn padded(&self) -> usize {
        self.panels() * self.lanes
    }
    /// Whether the hidden state is a projection of what the cell gives: h' = W_hr m.
    pub fn projects(&self) -> bool {
        self.width < self.hidden
    }
    /// Numbers of a row's slots in a panel.
    pub fn slot_row(&self) -> usize {
        self.signature.slots * self.lanes
    }
    /// Numbers of what a row saves for backward in a panel.
    pub fn saved_row(&self) -> usize {
        self.signature.saved * self.lanes
    }
    /// Numbers of a row's memory in a panel.
    pub fn memory_row(&self) -> usize {
        if self.signature.has_memory() {
            self.lanes
        } else {
            0
        }
    }
    /// The hidden state's columns.
    pub fn state(&self) -> Columns {
        Self::columns(1, self.width, self.lanes)
    }
    /// The hidden state's columns with padding, Wp.
    pub fn state_padded(&self) -> usize {
        self.width.next_multiple_of(self.lanes)
    }
    /// The columns of what the cell gives, and of its memory.
    pub fn units(&self) -> Columns {
        Self::columns(1, self.hidden, self.lanes)
    }
    /// The columns of a panel of weights packed for forward: how many are the input's and how many
    /// the state's, each with its numbers.
    pub fn forward_columns(&self) -> [(usize, usize); 2] {
        let numbers = |feed: Feed| feed.gates.len() * self.lanes;
        let (input, state) = (self.signature.input, self.signature.state);
        [
            (self.input.extent(), numbers(input)),
            (self.width, numbers(state)),
        ]
    }
    /// Numbers of such a panel.
    pub fn forward_panel(&self) -> usize {
        let columns = self.forward_columns();
        columns.iter().map(|(count, numbers)| count * numbers).sum()
    }
    /// Weights that take a step's state to the next one's.
    pub fn state_weights(&self) -> usize {
        let projection = if self.projects() { self.padded() } else { 0 };
        self.width * (self.signature.state.gates.len() * self.padded() + projection)
    }

    /// (B, Hp) rows as `[panel][B][L]`.
    pub fn spread<E: Real>(&self, from: &[E], batch: usize, to: &mut [E]) {
        for (b, from) in from.chunks_exact(self.padded()).enumerate() {
            for (panel, from) in from.chunks_exact(self.lanes).enumerate() {
                to[(panel * batch + b) * self.lanes..][..self.lanes].copy_from_slice(from);
            }
        }
    }

    /// The reverse of [`Geometry::spread`].
    pub fn collect<E: Real>(&self, from: &[E], batch: usize, to: &mut [E]) {
        for (b, to) in to.chunks_exact_mut(self.padded()).enumerate() {
            for (panel, to) in to.chunks_exact_mut(self.lanes).enumerate() {
                to.copy_from_slice(&from[(panel * batch + b) * self.lanes..][..self.lanes]);
            }
        }
    }
}

/// Where one direction of a layer finds and leaves its numbers during a pass over a batch.
///
/// R is the batch's rows in packed order ([`Steps`]), B its sequences; Hp and Wp are the padded
/// numbers of units and of the hidden state's columns. Rows of x, y, m and their gradients are
/// padded to whole registers, padding zero; forward alone reads no padding of x.
pub(crate) struct Sweep<'a, E> {
    pub steps: &'a Steps,
    /// From the last step to the first.
    pub reverse: bool,
    /// Whether forward begins with a step's last panels and turns round after each step: it then
    /// meets what the step before has left in the cache, of weights that do not all stay there.
    pub turned: bool,
    /// Input, R rows; null where there are `ids`.
    pub x: *const E,
    pub x_strides: Strides,
    /// Instead of an input: the one column of each of the R rows that is 1, all others being 0.
    pub ids: Option<&'a [u32]>,
    /// Output, R rows of Wp, which forward alone writes.
    pub y: *mut E,
    pub y_strides: Strides,
    /// What the cell gives before it is projected, Hp wide: R rows where something is `saved`, else
    /// B rows that each step overwrites; null without projection.
    pub m: *mut E,
    /// Initial hidden state, (B, Wp); not read, and taken as zero, where `h0_is_zero`.
    pub h0: *const E,
    pub h0_is_zero: bool,
    /// Initial memory, `[panel][B][L]`; nothing of a cell without one. Overwritten by each step
    /// when `memory` is null.
    pub memory0: *mut E,
    /// Memory of each step, kept for backward; else null.
    pub memory: *mut E,
    /// What each step saved for backward, `[step][panel][row][saved][L]`; null in a pass that is
    /// not kept.
    pub saved: *mut E,
}

// SAFETY: workers of a pass take disjoint rows, columns or units, as each pass says.
unsafe impl<E: Sync> Sync for Sweep<'_, E> {}

/// What backward of a direction needs besides its [`Sweep`].
///
/// Gradients of slots and of projected states have room for Q rows ([`Rounds`]).
pub(crate) struct Descent<'a, E> {
    /// The steps of the round, the runs of them by which sums go through it, and where each step's
    /// rows begin among the Q.
    pub round: Range<usize>,
    pub pieces: &'a [Range<usize>],
    pub places: &'a [usize],
    /// Gradients of the slots, `[panel][row][slots][L]` of each step; Q rows of all panels. It may
    /// be what was saved, which they overwrite.
    pub slots: *mut E,
    /// Gradient of the hidden states, Q rows of Wp; null without projection.
    pub dh: *mut E,
    /// Gradient of y, R rows of Wp; null means zero.
    pub dy: *const E,
    pub dy_strides: Strides,
    /// Gradient of the final hidden state, (B, Wp).
    pub dh_last: *const E,
    /// In: what comes elementwise to the final state (else zeros), as the memory's gradient; out:
    /// what goes on from the initial one. `[panel][B][L]`.
    pub carry: *mut E,
    /// Out: gradient of the initial hidden state but for the carry, (B, Wp); may be null.
    pub dh0: *mut E,
}

// SAFETY: workers of a pass take disjoint rows.
unsafe impl<E: Sync> Sync for Descent<'_, E> {}

/// Where the gradient of a layer's input is written.
#[derive(Clone, Copy)]
pub(crate) struct InputGradient<E> {
    /// The first of R rows.
    pub at: *mut E,
    pub strides: Strides,
    /// Numbers of a row that are written: with its padding, or without.
    pub width: usize,
    /// Whether it is added to what is there.
    pub add: bool,
}

impl<E: Copy> InputGradient<E> {
    /// The same place, to be added to or not.
    pub fn adding(&self, add: bool) -> Self {
        InputGradient { add, ..*self }
    }
}

// SAFETY: workers of a pass take disjoint steps.
unsafe impl<E: Sync> Sync for InputGradient<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_spread_and_collected() {
        let (batch, lanes) = (3, 4);
        let g = Geometry::new(
            CellKind::Lstm,
            Geometry::columns(1, 1, lanes),
            (6, 6),
            lanes,
        );
        let state: Vec<f64> = (0..batch * g.padded()).map(|i| i as f64).collect();
        let mut spread = vec![-1.0; state.len()];
        g.spread(&state, batch, &mut spread);
        // Panel 1 of sequence 2.
        assert_eq!(spread[(batch + 2) * lanes..], [20., 21., 22., 23.]);
        let mut collected = vec![0.0; state.len()];
        g.collect(&spread, batch, &mut collected);
        assert_eq!(collected, state);
    }
}
