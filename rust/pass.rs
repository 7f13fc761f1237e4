//! What a pass over a batch keeps, and the states that it ends in.

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use crate::buffer::{Arena, Buffer};
use crate::dropout::Drawn;
use crate::kernel::pack::Columns;
use crate::layer::{Geometry, Sweep};
use crate::simd::Real;
use crate::steps::{Steps, Strides};

/// A state inside: for each layer and direction, padded rows in the batch's order of rows, (B, Wp)
/// of the hidden state or (B, Hp) of the memory, padding zero. See [`Sweep`] for the letters.
pub(crate) type StateRows<E> = Vec<Buffer<E>>;

/// The states of a batch, or their gradients; an absent one is zero.
pub(crate) struct States<E> {
    pub hidden: Option<StateRows<E>>,
    pub memory: Option<StateRows<E>>,
}

impl<E> States<E> {
    /// All zero.
    pub fn none() -> Self {
        States {
            hidden: None,
            memory: None,
        }
    }
}

/// What a pass over one direction of a layer keeps.
pub(crate) struct DirectionPass<E> {
    pub geometry: Geometry,
    pub reverse: bool,
    /// See [`Sweep`].
    pub turned: bool,
    /// Initial hidden state, (B, Wp).
    pub h0: Buffer<E>,
    pub h0_is_zero: bool,
    /// Initial memory, `[panel][B][L]`; the latest one in a pass that is not kept.
    pub memory0: Buffer<E>,
    /// Memory by step, in a pass that is kept.
    pub memory: Option<Buffer<E>>,
    /// What each step saved, in a pass that is kept.
    pub saved: Option<Buffer<E>>,
    /// What the cell gave before it was projected, by row in a pass that is kept; else the latest.
    pub m: Option<Buffer<E>>,
}

/// What a pass over a layer keeps.
pub(crate) struct LayerPass<E> {
    /// The layer's input after dropout; none where it is the output beneath, or the first input.
    pub dropped: Option<Buffer<E>>,
    /// Output, R rows with the directions' Wp side by side.
    pub y: Buffer<E>,
    pub y_strides: Strides,
    pub directions: Vec<DirectionPass<E>>,
}

/// What the first layer is fed.
pub(crate) enum Source<E> {
    /// R padded rows.
    Rows(Buffer<E>),
    /// For each of R rows, the one column that is 1, all others being 0. No such row is ever built.
    Ids(Vec<u32>),
}

impl<E: Real> Source<E> {
    /// What it has for a stack whose input rows are `stride` wide.
    pub fn feed(&self, stride: usize) -> Feed<'_, E> {
        match self {
            Source::Rows(rows) => Feed::Rows(View::packed(rows, stride)),
            Source::Ids(ids) => Feed::Ids(ids),
        }
    }
}

/// Rows that lie in somebody's memory, those of a step in the order of the batch inside.
#[derive(Clone, Copy)]
pub(crate) struct View<'a, E> {
    at: *const E,
    /// Numbers from `at` to the end of the last row.
    reach: usize,
    strides: Strides,
    /// Rows may have others' numbers between them, so that this is no slice.
    lends: PhantomData<&'a E>,
}

impl<'a, E> View<'a, E> {
    /// Rows in packed order.
    pub fn packed(rows: &'a [E], stride: usize) -> Self {
        View {
            at: rows.as_ptr(),
            reach: rows.len(),
            strides: Strides::packed(stride),
            lends: PhantomData,
        }
    }

    /// Rows that are `strides` apart.
    ///
    /// # Safety
    /// While `'a` lasts, every row that the view [`covers`](View::covers) can be read there, if the
    /// last of them ends before `reach`.
    pub unsafe fn new(at: *const E, reach: usize, strides: Strides) -> Self {
        View {
            at,
            reach,
            strides,
            lends: PhantomData,
        }
    }

    /// Whether it has all rows of a batch, `width` wide.
    pub fn covers(&self, steps: &Steps, width: usize) -> bool {
        let end = |step: usize| {
            let last = steps.count(step) - 1;
            self.strides.at(steps, step, last) + width
        };
        width == 0 || (0..steps.longest()).all(|step| end(step) <= self.reach)
    }

    /// The first row.
    pub fn at(&self) -> *const E {
        self.at
    }

    /// How far apart rows lie.
    pub fn strides(&self) -> Strides {
        self.strides
    }
}

/// What a layer is fed.
#[derive(Clone, Copy)]
pub(crate) enum Feed<'a, E> {
    /// R rows.
    Rows(View<'a, E>),
    /// See [`Source::Ids`].
    Ids(&'a [u32]),
}

/// The rows at both ends of a pass that is taken back.
#[derive(Clone, Copy)]
pub(crate) struct Ends<'a, E> {
    /// What forward was fed.
    pub x: Feed<'a, E>,
    /// The output, R rows of its columns, if the pass has given it away.
    pub y: Option<View<'a, E>>,
    /// The gradient of the output, as many rows, if there is any.
    pub dy: Option<View<'a, E>>,
}

/// A forward pass over a batch: its outputs, and what backward needs if that was asked for.
pub(crate) struct Pass<E> {
    pub steps: Steps,
    pub layers: Vec<LayerPass<E>>,
    /// Set if layers had dropout between them.
    pub drawn: Option<Drawn>,
}

impl<E: Real> States<E> {
    /// The same in buffers of their own.
    pub fn copied(&self, arena: &Arc<Arena>) -> Self {
        let copied = |rows: &StateRows<E>| {
            rows.iter()
                .map(|from| {
                    let mut to = arena.take(from.len());
                    to.copy_from_slice(from);
                    to
                })
                .collect()
        };
        States {
            hidden: self.hidden.as_ref().map(copied),
            memory: self.memory.as_ref().map(copied),
        }
    }
}

impl<E: Real> DirectionPass<E> {
    /// The step after which a sequence of that length ends.
    fn last_step(&self, length: usize) -> Option<usize> {
        let last = length.checked_sub(1)?;
        Some(if self.reverse { 0 } else { last })
    }

    fn memory_after(&self, steps: &Steps, most: usize, to: &mut [E]) {
        let g = &self.geometry;
        let batch = steps.batch();
        for (row, to) in to.chunks_exact_mut(g.padded()).enumerate() {
            for (panel, to) in to.chunks_exact_mut(g.lanes).enumerate() {
                let last = self.last_step(steps.lengths()[row].min(most));
                let from = match (&self.memory, last) {
                    (Some(memory), Some(step)) => {
                        let at = steps.offset(step) * g.panels() + panel * steps.count(step) + row;
                        &memory[at * g.memory_row()..]
                    }
                    _ => &self.memory0[(panel * batch + row) * g.memory_row()..],
                };
                to.copy_from_slice(&from[..g.lanes]);
            }
        }
    }
}

impl<E: Real> LayerPass<E> {
    /// Places of the directions in the layer's buffers, and of what the layer is fed. `output` is
    /// where to read the output of a layer that has given its own away.
    pub fn sweeps<'a>(
        &mut self,
        steps: &'a Steps,
        feed: Feed<'a, E>,
        output: Option<View<'a, E>>,
    ) -> Vec<Sweep<'a, E>> {
        let (x, x_strides, ids) = match feed {
            Feed::Rows(rows) => (rows.at(), rows.strides(), None),
            Feed::Ids(ids) => (ptr::null(), Strides::packed(0), Some(ids)),
        };
        let (mut y, y_strides) = match output {
            // Forward alone writes there, and is given no output.
            Some(rows) => (rows.at().cast_mut(), rows.strides()),
            None => (self.y.as_mut_ptr(), self.y_strides),
        };
        self.directions
            .iter_mut()
            .map(|direction| {
                let pointer = |buffer: &mut Option<Buffer<E>>| {
                    buffer
                        .as_mut()
                        .map_or(ptr::null_mut(), |buffer| buffer.as_mut_ptr())
                };
                let sweep = Sweep {
                    steps,
                    reverse: direction.reverse,
                    turned: direction.turned,
                    x,
                    x_strides,
                    ids,
                    y,
                    y_strides,
                    m: pointer(&mut direction.m),
                    h0: direction.h0.as_ptr(),
                    h0_is_zero: direction.h0_is_zero,
                    memory0: direction.memory0.as_mut_ptr(),
                    memory: pointer(&mut direction.memory),
                    saved: pointer(&mut direction.saved),
                };
                y = y.wrapping_add(direction.geometry.state_padded());
                sweep
            })
            .collect()
    }
}

/// What a layer is fed: of the layer beneath the output, or what dropout left of it; else `x`.
pub(crate) fn fed<'a, E: Real>(
    dropped: Option<&'a [E]>,
    beneath: Option<&'a LayerPass<E>>,
    x: Feed<'a, E>,
) -> Feed<'a, E> {
    let Some(beneath) = beneath else { return x };
    let rows = dropped.unwrap_or(&beneath.y);
    Feed::Rows(View {
        at: rows.as_ptr(),
        reach: rows.len(),
        strides: beneath.y_strides,
        lends: PhantomData,
    })
}

impl<E: Real> Pass<E> {
    /// The last layer's output, R rows in packed order where no other was asked for.
    pub fn output(&self) -> &[E] {
        self.layers.last().map_or(&[], |layer| &layer.y)
    }

    /// Writes the hidden state of a direction after `most` steps, or where a sequence ends before,
    /// for the first sequences: as many rows of Wp, `stride` apart, as `to` has.
    ///
    /// A direction that runs backwards has only its end to give.
    pub fn hidden_after(
        &self,
        layer: usize,
        direction: usize,
        most: usize,
        stride: usize,
        to: &mut [E],
    ) {
        let layer = &self.layers[layer];
        let pass = &layer.directions[direction];
        let padded = pass.geometry.state_padded();
        for (row, to) in to.chunks_mut(stride).enumerate().take(self.steps.batch()) {
            let from = match pass.last_step(self.steps.lengths()[row].min(most)) {
                Some(step) => {
                    let at = layer.y_strides.at(&self.steps, step, row) + direction * padded;
                    &layer.y[at..at + padded]
                }
                None => &pass.h0[row * padded..][..padded],
            };
            to[..padded].copy_from_slice(from);
        }
    }

    /// The same for the memory, rows of Hp without anything between. A pass that is not kept has
    /// only its end to give.
    pub fn memory_after(&self, layer: usize, direction: usize, most: usize, to: &mut [E]) {
        self.layers[layer].directions[direction].memory_after(&self.steps, most, to);
    }

    /// Writes the hidden state in which a direction ends, (B, Wp), rows `stride` apart.
    pub fn final_hidden(&self, layer: usize, direction: usize, stride: usize, to: &mut [E]) {
        self.hidden_after(layer, direction, usize::MAX, stride, to);
    }

    /// Writes the hidden states in which a layer's directions end, B rows of its columns.
    pub fn final_rows(&self, layer: usize, columns: Columns, to: &mut [E]) {
        for direction in 0..columns.segments {
            let to = to.get_mut(direction * columns.padded..).unwrap_or_default();
            self.final_hidden(layer, direction, columns.stride(), to);
        }
    }

    /// Writes the memory in which a direction ends, (B, Hp).
    pub fn final_memory(&self, layer: usize, direction: usize, to: &mut [E]) {
        self.memory_after(layer, direction, usize::MAX, to);
    }
}
