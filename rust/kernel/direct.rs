//! Products with a matrix whose rows are read where its owner has them.
//!
//! Who multiplies a few rows once would wait for a packed copy of the weights longer than for the
//! products. So a block of them is turned over in registers and multiplied there; nothing is
//! written but the sums, one k after the other as in any other tile.

use super::preactivation::Operand;
use crate::simd::transpose::{MOST, turned};
use crate::simd::{Op, Real, Vector, prefetch};

/// A gate of a panel of units.
#[derive(Clone, Copy)]
pub(crate) struct Gate<E> {
    /// The first unit's row.
    pub at: *const E,
    /// Where its sums stand among those of a row.
    pub to: usize,
    /// Units of the panel; the others' sums get nothing.
    pub units: usize,
}

/// The products of `rows` rows with some columns of some gates, added to `sums`.
pub(crate) struct Direct<'a, E> {
    /// With more than one, there is a sum to add to while another waits for its last one.
    pub gates: &'a [Gate<E>],
    /// Numbers from a row of the matrix to the next.
    pub width: usize,
    /// Rows of what is multiplied, and how many columns of it and of the matrix there are.
    pub from: Operand<E>,
    pub rows: usize,
    /// The first row's sums.
    pub sums: *mut E,
    /// Numbers from a row's sums to the next one's.
    pub sums_row: usize,
}

impl<V: Vector> Op<V> for Direct<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        let blocks = self.from.columns / V::LANES;
        let whole = |gate: &&Gate<V::Element>| gate.units == V::LANES;
        for block in 0..blocks {
            let first = block * V::LANES;
            for gate in self.gates.iter().filter(whole) {
                // SAFETY: the caller vouches for the gates' units, which have these columns, and
                // for the rows of `from` and `sums`.
                unsafe {
                    let matrix = gate.at.add(first);
                    for unit in 0..V::LANES {
                        // Of rows so far apart the processor does not see that they go on.
                        prefetch(matrix.wrapping_add(unit * self.width + V::LANES));
                    }
                    let weights = turned::<V>(matrix, self.width);
                    for row in 0..self.rows {
                        let from = self.from.at.add(row * self.from.stride + first);
                        let to = self.sums.add(row * self.sums_row + gate.to);
                        let mut sum = V::load(to);
                        for (k, &weights) in weights.iter().enumerate().take(V::LANES) {
                            sum = sum.add_product(V::splat(*from.add(k)), weights);
                        }
                        sum.store(to);
                    }
                }
            }
        }
        // What fills no block: a column at a time.
        for gate in self.gates {
            let done = if whole(&gate) { blocks * V::LANES } else { 0 };
            for k in done..self.from.columns {
                let mut column = [V::Element::ZERO; MOST];
                // SAFETY: as above, for the units that there are.
                unsafe {
                    for (unit, weight) in column.iter_mut().enumerate().take(gate.units) {
                        *weight = *gate.at.add(unit * self.width + k);
                    }
                    let weights = V::load(column.as_ptr());
                    for row in 0..self.rows {
                        let from = *self.from.at.add(row * self.from.stride + k);
                        let to = self.sums.add(row * self.sums_row + gate.to);
                        V::load(to).add_product(V::splat(from), weights).store(to);
                    }
                }
            }
        }
    }
}
