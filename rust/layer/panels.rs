//! A direction's weights for the passes: packed by panels, or as their owner has them.

use super::Geometry;
use crate::buffer::Buffer;
use crate::cell::MAX_SLOTS;
use crate::kernel::Grid;
use crate::kernel::direct::{Direct, Gate};
use crate::kernel::pack::{Columns, GateRows};
use crate::kernel::preactivation::Operand;
use crate::kernel::product::Factor;
use crate::parallel;
use crate::simd::{Real, Vector};

/// How many threads the packing of so many numbers is worth.
pub(super) fn packers(numbers: usize) -> usize {
    const WORTHWHILE: usize = 1 << 15;
    parallel::workers(numbers, WORTHWHILE)
}

/// The weights that input and state are multiplied with.
pub(crate) enum Panels<'a, E> {
    /// All panels, one after another, each column after column.
    Packed(Packed<E>),
    /// A matrix of the input and one of the state, which somebody lends for a step of a few rows:
    /// to write and keep what is packed of them, and to compare it the next time, costs more.
    Lent([Lent<'a, E>; 2]),
}

impl<E> Panels<'_, E> {
    /// The packed ones.
    ///
    /// # Panics
    /// When they are lent.
    pub fn packed(&self) -> &Packed<E> {
        match self {
            Panels::Packed(packed) => packed,
            Panels::Lent(_) => panic!("weights are lent for single steps of rows"),
        }
    }
}

/// Packed weights.
pub(crate) struct Packed<E> {
    pub numbers: Buffer<E>,
    /// Numbers of a panel's columns of the input, and of all.
    pub of_input: usize,
    pub panel: usize,
}

impl<E: Real> Packed<E> {
    /// The weights of `count` panels: those of the input and the state, or of the state alone.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn get(&self, (first, count): (usize, usize), without_input: bool) -> *const E {
        let before = if without_input { self.of_input } else { 0 };
        let all = &self.numbers[first * self.panel..][..count * self.panel];
        all[before..].as_ptr()
    }
}

/// The gates of a matrix as their owner has them.
pub(crate) struct Lent<'a, E>(pub Vec<GateRows<'a, E>>);

impl<E: Real> Lent<'_, E> {
    /// Adds the products of `rows` rows, padded as the matrix's columns say, with some panels of units.
    ///
    /// # Safety
    /// The rows are there with all columns, and those of `sums` with all panels and as many vectors as
    /// there are gates; the layer has the panels, and the CPU V's instruction set.
    pub unsafe fn add_products<V: Vector<Element = E>>(
        &self,
        g: &Geometry,
        (first, panels): (usize, usize),
        from: Operand<E>,
        rows: usize,
        sums: Grid<*mut E>,
    ) {
        /// Gates that are multiplied side by side. Of more, rows that are a power of two apart compete
        /// for their places in the first-level cache.
        const AT_ONCE: usize = 2;
        let Some(GateRows { columns, .. }) = self.0.first() else {
            return;
        };
        let Columns {
            segments,
            width,
            padded,
        } = *columns;
        let gate = |i: usize, segment: usize| {
            let (panel, gate) = (i / self.0.len(), i % self.0.len());
            let unit = (first + panel) * g.lanes;
            Gate {
                at: self.0[gate].rows[unit * columns.real()..][segment * width..].as_ptr(),
                to: panel * sums.panel + gate * g.lanes,
                units: (g.hidden - unit).min(g.lanes),
            }
        };
        let all = panels * self.0.len();
        for segment in 0..segments {
            for i in (0..all).step_by(AT_ONCE) {
                let gates = [gate(i, segment), gate((i + 1).min(all - 1), segment)];
                let products = Direct {
                    gates: &gates[..(all - i).min(AT_ONCE)],
                    width: columns.real(),
                    from: Operand {
                        at: from.at.wrapping_add(segment * padded),
                        columns: width,
                        ..from
                    },
                    rows,
                    sums: sums.at,
                    sums_row: sums.row,
                };
                // SAFETY: a gate has H rows of `real()` columns, so as many of the panel's from its
                // first unit on; the caller vouches for the rest.
                unsafe { V::invoke(products) }
            }
        }
    }
}

/// A matrix that gradients are multiplied with.
pub(crate) enum Turned<'a, E> {
    /// Column panel after column panel, each of so many panels of so many lines.
    Packed(Buffer<E>, (usize, usize)),
    /// Gates whose columns fill registers, where somebody has them.
    Lent(Lent<'a, E>),
}

impl<E: Real> Turned<'_, E> {
    /// What is multiplied with, from a column panel of `lanes` columns on.
    pub fn factor(&self, column: usize, lanes: usize) -> Factor<E> {
        match self {
            Turned::Packed(numbers, (panels, depth)) => {
                let at = numbers[column * panels * depth * lanes..].as_ptr();
                Factor::packed(at, (*panels, *depth), lanes)
            }
            Turned::Lent(Lent(rows)) => {
                let mut gates = [std::ptr::null(); MAX_SLOTS];
                for (at, gate) in gates.iter_mut().zip(rows) {
                    *at = gate.rows[column * lanes..].as_ptr();
                }
                let (width, lines) = rows.first().map_or((0, 0), |gate| {
                    let width = gate.columns.real();
                    (width, gate.rows.len() / width)
                });
                Factor {
                    gates,
                    count: rows.len(),
                    lines,
                    depth: lanes,
                    line: width,
                    column: lanes,
                }
            }
        }
    }
}
