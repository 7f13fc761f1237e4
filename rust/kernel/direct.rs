//! Products with a matrix whose rows are read where its owner has them.
//!
//! Who multiplies a few rows once would wait for a packed copy of the weights longer than for the
//! products. So a block of them is turned over in registers and multiplied there; nothing is
//! written but the sums, one k after the other as in any other tile.

use super::Grid;
use super::preactivation::Operand;
use crate::simd::transpose::{MOST, turned};
use crate::simd::{Op, Real, Vector, prefetch};

/// The products of `rows` rows with some columns of a panel of units, added to `sums`.
pub(crate) struct Direct<'a, E> {
    /// The panel's first row in each gate.
    pub gates: &'a [*const E],
    /// Numbers from a row of the matrix to the next.
    pub width: usize,
    /// Units of the panel; the others' sums get nothing.
    pub units: usize,
    /// Rows of what is multiplied, and how many columns of it and of the matrix there are.
    pub from: Operand<E>,
    pub rows: usize,
    /// The sums of the first gate; those of the next are beside them.
    pub sums: Grid<*mut E>,
}

impl<V: Vector> Op<V> for Direct<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        let blocks = match self.units {
            units if units < V::LANES => 0,
            _ => self.from.columns / V::LANES,
        };
        for block in 0..blocks {
            let first = block * V::LANES;
            for (gate, matrix) in self.gates.iter().enumerate() {
                // SAFETY: the caller vouches for the matrix, of which the panel's rows have these
                // columns, and for the rows of `from` and `sums`.
                unsafe {
                    let matrix = matrix.add(first);
                    for unit in 0..V::LANES {
                        // Of rows so far apart the processor does not see that they go on.
                        prefetch(matrix.wrapping_add(unit * self.width + V::LANES));
                    }
                    let weights = turned::<V>(matrix, self.width);
                    for row in 0..self.rows {
                        let from = self.from.at.add(row * self.from.stride + first);
                        let to = self.sums.get(row, 0).add(gate * V::LANES);
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
        for k in blocks * V::LANES..self.from.columns {
            for (gate, matrix) in self.gates.iter().enumerate() {
                let mut column = [V::Element::ZERO; MOST];
                // SAFETY: as above, for the units that there are.
                unsafe {
                    for (unit, weight) in column.iter_mut().enumerate().take(self.units) {
                        *weight = *matrix.add(unit * self.width + k);
                    }
                    let weights = V::load(column.as_ptr());
                    for row in 0..self.rows {
                        let from = *self.from.at.add(row * self.from.stride + k);
                        let to = self.sums.get(row, 0).add(gate * V::LANES);
                        V::load(to).add_product(V::splat(from), weights).store(to);
                    }
                }
            }
        }
    }
}
