//! Gradients of weights: sums over all steps and rows of (gradient of a slot) x (input column).
//!
//! Work is divided by output, never along the sum, so that the bits do not depend on threads.
//! Blocks of [`DEPTH`] rows of the input, packed [`GROUP`] columns wide, meet the slots' gradients,
//! which lie row after row already.

use super::runs;
use crate::simd::{Op, Vector};

/// Rows of a block.
pub(crate) const DEPTH: usize = 128;
/// Columns that are packed side by side.
pub(crate) const GROUP: usize = 16;

/// Consecutive rows of gradients.
#[derive(Clone, Copy)]
pub(crate) struct Piece<E> {
    /// The first row's numbers.
    pub at: *const E,
    /// Numbers from one vector of a row to the next.
    pub vector: usize,
    /// Rows.
    pub rows: usize,
}

struct Tile<'a, E, const COLUMNS: usize, const VECTORS: usize> {
    pieces: &'a [Piece<E>],
    row: usize,
    columns: *const E,
    out: *mut E,
}

impl<V: Vector, const COLUMNS: usize, const VECTORS: usize> Op<V>
    for Tile<'_, V::Element, COLUMNS, VECTORS>
{
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: `tile`'s caller vouches for the pieces, the packed columns and the result.
        unsafe {
            let mut sums = [[V::splat(V::Element::default()); VECTORS]; COLUMNS];
            let mut columns = self.columns;
            for piece in self.pieces {
                let mut at = piece.at;
                for _ in 0..piece.rows {
                    let mut g = [V::splat(V::Element::default()); VECTORS];
                    for (v, g) in g.iter_mut().enumerate() {
                        *g = V::load(at.add(v * piece.vector));
                    }
                    for (c, sums) in sums.iter_mut().enumerate() {
                        let a = V::splat(*columns.add(c));
                        for (sum, &g) in sums.iter_mut().zip(&g) {
                            *sum = sum.add_product(a, g);
                        }
                    }
                    at = at.add(self.row);
                    columns = columns.add(GROUP);
                }
            }
            for (c, sums) in sums.iter().enumerate() {
                for (v, sum) in sums.iter().enumerate() {
                    let to = self.out.add((c * VECTORS + v) * V::LANES);
                    V::load(to).add(*sum).store(to);
                }
            }
        }
    }
}

/// Adds a block's products to `out`, `[column][vectors][L]`, for the first `columns` of a group.
///
/// # Safety
/// Each piece has its rows, `row` numbers apart, of `vectors` vectors; `packed` has as many rows
/// of [`GROUP`] numbers; `out` has room for `columns * vectors` vectors; `columns <= GROUP`;
/// the CPU has V's instruction set.
pub(crate) unsafe fn add_block<V: Vector>(
    pieces: &[Piece<V::Element>],
    row: usize,
    vectors: usize,
    packed: *const V::Element,
    columns: usize,
    out: *mut V::Element,
) {
    let most = (V::ACCUMULATORS / vectors).min(8);
    for (column, count) in runs(0..columns, most) {
        // SAFETY: column + count <= columns <= GROUP, so both stay within their buffers.
        let (packed, out) = unsafe { (packed.add(column), out.add(column * vectors * V::LANES)) };
        macro_rules! tile {
            ($columns:literal, $vectors:literal) => {
                if const { $columns * $vectors <= V::ACCUMULATORS } {
                    // SAFETY: passed on from the caller.
                    unsafe {
                        V::invoke(Tile::<V::Element, $columns, $vectors> {
                            pieces,
                            row,
                            columns: packed,
                            out,
                        })
                    }
                } else {
                    unreachable!("`most` keeps the sums in registers")
                }
            };
        }
        macro_rules! by_columns {
            ($vectors:literal) => {
                match count {
                    1 => tile!(1, $vectors),
                    2 => tile!(2, $vectors),
                    3 => tile!(3, $vectors),
                    4 => tile!(4, $vectors),
                    5 => tile!(5, $vectors),
                    6 => tile!(6, $vectors),
                    7 => tile!(7, $vectors),
                    _ => tile!(8, $vectors),
                }
            };
        }
        match vectors {
            1 => by_columns!(1),
            2 => by_columns!(2),
            3 => by_columns!(3),
            _ => by_columns!(4),
        }
    }
}

/// Sums of gradients alone: what biases get.
pub(crate) struct Totals<'a, E> {
    /// As in [`add_block`].
    pub pieces: &'a [Piece<E>],
    /// Numbers from a row to the next.
    pub row: usize,
    /// Vectors of a row, 4 at most.
    pub vectors: usize,
    /// The totals, added to: `[vectors][L]`.
    pub out: *mut E,
}

impl<V: Vector> Op<V> for Totals<'_, V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        // SAFETY: the caller vouches for the pieces and for `vectors` vectors at `out`.
        unsafe {
            for v in 0..self.vectors {
                let to = self.out.add(v * V::LANES);
                let mut sum = V::load(to);
                for piece in self.pieces {
                    let mut at = piece.at.add(v * piece.vector);
                    for _ in 0..piece.rows {
                        sum = sum.add(V::load(at));
                        at = at.add(self.row);
                    }
                }
                sum.store(to);
            }
        }
    }
}
