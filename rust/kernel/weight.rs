//! Gradients of weights: sums over all steps and rows of (gradient of a slot) x (input row).
//!
//! Registers run along the input's columns and a slot's gradient is broadcast, so that results
//! come out in the layout of the weights and nothing is packed or transposed. (Registers along
//! the units, with the input packed by columns, measured 5-10 % less, more at few rows.)
//!
//! A slot may have two sources, the input and the state, each with a matrix of its own. A tile takes
//! columns of both: alone, those of an input of a few numbers would leave most registers empty.
//!
//! Work is divided by output, never along the sum, so that the bits do not depend on threads.

use std::ops::Range;

use super::pack::Columns;
use super::{SCRATCH, Scratch, fits, most_rows, runs};
use crate::simd::{Op, Real, Vector, prefetch};

/// Rows, about, that are summed before the result is touched: both operands of a block stay in cache.
pub(crate) const DEPTH: usize = 256;
/// The most units in a tile.
const MAX_UNITS: usize = 8;
/// The most column panels in a tile.
const MAX_PANELS: usize = 3;

/// The most sources that feed a slot.
pub(crate) const SOURCES: usize = 2;

/// Rows of a source, or of its matrix.
#[derive(Clone, Copy)]
pub(crate) struct Strided<P> {
    /// The first row.
    pub at: P,
    /// Numbers from a row to the next.
    pub row: usize,
}

/// Consecutive rows of all operands.
#[derive(Clone, Copy)]
pub(crate) struct Piece<E> {
    /// A panel's slots in the first row.
    pub slots: *const E,
    /// Numbers from a row's slots to the next row's.
    pub slot_row: usize,
    /// The rows of each source; of one that there is not, anything.
    pub from: [Strided<*const E>; SOURCES],
    /// Rows.
    pub rows: usize,
    /// Numbers from a row's slots to those that will be asked for next.
    pub ahead: usize,
}

/// A column panel of the result.
#[derive(Clone, Copy)]
pub(crate) struct ColumnPanel {
    /// The source whose columns they are.
    pub source: usize,
    /// Its place in the source's padded rows.
    pub position: usize,
    /// Its first column in the matrix.
    pub column: usize,
    /// Its columns in the matrix; the rest is padding.
    pub count: usize,
}

impl ColumnPanel {
    /// Those at some positions of a source's padded rows, from a multiple of the lanes on.
    pub fn all(
        source: usize,
        columns: Columns,
        positions: Range<usize>,
        lanes: usize,
    ) -> impl Iterator<Item = Self> {
        positions.step_by(lanes).filter_map(move |position| {
            let column = columns.column(position)?;
            let count = (columns.width - position % columns.padded).min(lanes);
            Some(ColumnPanel {
                source,
                position,
                column,
                count,
            })
        })
    }
}

/// The products of some pieces for `units` units of a slot and some column panels.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, E> {
    pub pieces: &'a [Piece<E>],
    /// Where the first unit's gradient stands in a panel's slots.
    pub slot: usize,
    /// The units' rows in the matrix of each source; of one that has no panel, anything.
    pub to: [Strided<*mut E>; SOURCES],
    /// Whether the products are added to what is there.
    pub add: bool,
}

struct Tile<'a, E, const UNITS: usize, const PANELS: usize> {
    of: Block<'a, E>,
    panels: &'a [ColumnPanel; PANELS],
    /// Whether to ask for the slots that come next.
    ahead: bool,
}

impl<V: Vector, const UNITS: usize, const PANELS: usize> Op<V>
    for Tile<'_, V::Element, UNITS, PANELS>
{
    #[inline(always)]
    unsafe fn run(self) {
        let Tile { of, panels, ahead } = self;
        // Found once, not for each sum. (`% SOURCES` changes nothing, but spares checks for which sums
        // would be spilled.)
        let mut results = [of.to[0]; PANELS];
        for p in 0..PANELS {
            let to = of.to[panels[p].source % SOURCES];
            results[p] = Strided {
                at: to.at.wrapping_add(panels[p].column),
                ..to
            };
        }
        let result = |u: usize, p: usize| results[p].at.wrapping_add(u * results[p].row);
        // SAFETY: `Block::run`'s caller vouches for pieces, panels and the result.
        unsafe {
            // So that it is there when the sums are.
            for u in 0..UNITS {
                for p in 0..PANELS {
                    prefetch(result(u, p).cast_const());
                }
            }
            let mut sums = [[V::splat(V::Element::default()); PANELS]; UNITS];
            for piece in of.pieces {
                let mut slots = piece.slots.add(of.slot);
                let mut at = [piece.slots; PANELS];
                let mut apart = [0; PANELS];
                for p in 0..PANELS {
                    let from = piece.from[panels[p].source % SOURCES];
                    at[p] = from.at.wrapping_add(panels[p].position);
                    apart[p] = from.row;
                }
                let ahead = if ahead { piece.ahead } else { 0 };
                for _ in 0..piece.rows {
                    prefetch(slots.wrapping_add(ahead));
                    let mut columns = [V::splat(V::Element::default()); PANELS];
                    for (p, column) in columns.iter_mut().enumerate() {
                        *column = V::load(at[p]);
                        at[p] = at[p].wrapping_add(apart[p]);
                    }
                    for (u, sums) in sums.iter_mut().enumerate() {
                        let gradient = V::splat(*slots.add(u));
                        for (p, sum) in sums.iter_mut().enumerate() {
                            *sum = sum.add_product(gradient, columns[p]);
                        }
                    }
                    slots = slots.add(piece.slot_row);
                }
            }
            if panels.iter().all(|panel| panel.count == V::LANES) {
                for (u, sums) in sums.iter().enumerate() {
                    for (p, sum) in sums.iter().enumerate() {
                        let to = result(u, p);
                        let sum = if of.add { V::load(to).add(*sum) } else { *sum };
                        sum.store(to);
                    }
                }
                return;
            }
            // A row of the matrix ends inside a vector.
            let mut scratch = Scratch([V::Element::ZERO; SCRATCH]);
            for (u, sums) in sums.iter().enumerate() {
                for (p, sum) in sums.iter().enumerate() {
                    sum.store(scratch.0.as_mut_ptr().add((u * PANELS + p) * V::LANES));
                }
            }
            for (i, sums) in scratch
                .0
                .chunks_exact(V::LANES)
                .enumerate()
                .take(UNITS * PANELS)
            {
                let (u, p) = (i / PANELS, i % PANELS);
                let to = result(u, p);
                for (lane, &sum) in sums.iter().enumerate().take(panels[p].count) {
                    let to = to.add(lane);
                    *to = if of.add { *to + sum } else { sum };
                }
            }
        }
    }
}

impl<E: Real> Block<'_, E> {
    /// Computes the block.
    ///
    /// # Safety
    /// Each piece has its rows, with `units` numbers from `slot` on in the slots and every panel's
    /// position in its source; the panel's matrix has `units` rows with its columns; the CPU has V's
    /// instruction set.
    pub unsafe fn run<V: Vector<Element = E>>(self, units: usize, panels: &[ColumnPanel]) {
        let wide = MAX_PANELS.min(panels.len()).max(1);
        let most = most_rows(wide, (1, 1), V::REGISTERS).min(MAX_UNITS);
        for (panel, count) in runs(0..panels.len(), MAX_PANELS) {
            let panels = &panels[panel..panel + count];
            for (unit, units) in runs(0..units, most) {
                let of = Block {
                    slot: self.slot + unit,
                    to: self.to.map(|to| Strided {
                        at: to.at.wrapping_add(unit * to.row),
                        ..to
                    }),
                    ..self
                };
                let ahead = panel == 0 && unit == 0;
                macro_rules! tile {
                    ($units:literal, $panels:literal) => {
                        match panels.try_into() {
                            Ok(panels) if const { fits($units, $panels, (1, 1), V::REGISTERS) } => {
                                let tile = Tile::<E, $units, $panels> { of, panels, ahead };
                                // SAFETY: units and panels lie within what the caller vouches for.
                                unsafe { V::invoke(tile) }
                            }
                            _ => unreachable!("`most` keeps the sums in registers"),
                        }
                    };
                }
                macro_rules! by_units {
                    ($panels:literal) => {
                        match units {
                            1 => tile!(1, $panels),
                            2 => tile!(2, $panels),
                            3 => tile!(3, $panels),
                            4 => tile!(4, $panels),
                            5 => tile!(5, $panels),
                            6 => tile!(6, $panels),
                            7 => tile!(7, $panels),
                            _ => tile!(8, $panels),
                        }
                    };
                }
                match panels.len() {
                    1 => by_units!(1),
                    2 => by_units!(2),
                    _ => by_units!(3),
                }
            }
        }
    }
}

/// Sums of gradients alone: what biases get.
pub(crate) struct Totals<'a, E> {
    pub pieces: &'a [Piece<E>],
    /// Slots, 4 at most.
    pub slots: usize,
    /// The totals, added to: `[slots][L]`.
    pub out: *mut E,
}

impl<V: Vector> Op<V> for Totals<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: the caller vouches for the pieces and for `slots` vectors at `out`.
        unsafe {
            let mut sums = [V::splat(V::Element::default()); crate::cell::MAX_SLOTS];
            for piece in self.pieces {
                let mut at = piece.slots;
                for _ in 0..piece.rows {
                    for (s, sum) in sums.iter_mut().enumerate().take(self.slots) {
                        *sum = sum.add(V::load(at.add(s * V::LANES)));
                    }
                    at = at.add(piece.slot_row);
                }
            }
            for (s, sum) in sums.iter().enumerate().take(self.slots) {
                let to = self.out.add(s * V::LANES);
                V::load(to).add(*sum).store(to);
            }
        }
    }
}

/// Sums of gradients by the one column of the input that was 1: what a matrix gets whose columns
/// were looked up.
pub(crate) struct ByColumn<'a, E> {
    pub pieces: &'a [Piece<E>],
    /// The column of each row of the pieces, in order.
    pub ids: &'a [u32],
    /// The columns that are asked for.
    pub columns: Range<usize>,
    /// Where the first slot stands in a panel's slots.
    pub slot: usize,
    /// Slots.
    pub slots: usize,
    /// The sums, added to: `[column][slots][L]`.
    pub out: *mut E,
}

impl<V: Vector> Op<V> for ByColumn<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        let mut ids = self.ids.iter();
        for piece in self.pieces {
            for (row, &id) in (0..piece.rows).zip(ids.by_ref()) {
                let id = id as usize;
                if !self.columns.contains(&id) {
                    continue;
                }
                // SAFETY: the caller vouches for the pieces, and for `slots` vectors a column.
                unsafe {
                    let from = piece.slots.add(row * piece.slot_row + self.slot);
                    let column = (id - self.columns.start) * self.slots;
                    for s in 0..self.slots {
                        let to = self.out.add((column + s) * V::LANES);
                        V::load(to).add(V::load(from.add(s * V::LANES))).store(to);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
