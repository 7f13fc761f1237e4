//! Square blocks of numbers, turned over in registers.

use super::{Op, Real, Vector};

/// The most lanes of a register.
pub(crate) const MOST: usize = 16;

/// The columns of a block of LANES rows of as many numbers; what is beyond LANES is zero.
///
/// # Safety
/// The block's rows may be read at `from`, `apart` numbers apart; the CPU has V's instruction set.
#[inline(always)]
pub(crate) unsafe fn turned<V: Vector>(from: *const V::Element, apart: usize) -> [V; MOST] {
    const { assert!(V::LANES <= MOST && V::LANES.is_power_of_two()) };
    // SAFETY: passed on from the caller.
    unsafe {
        let mut rows = [V::splat(V::Element::ZERO); MOST];
        for (i, row) in rows.iter_mut().enumerate().take(V::LANES) {
            *row = V::load(from.add(i * apart));
        }
        // Each round puts one bit of the row's number behind those of the column's.
        let half = V::LANES / 2;
        for _ in 0..V::LANES.ilog2() {
            let before = rows;
            for i in 0..half {
                let pair = before[i].interleave(before[i + half]);
                (rows[2 * i], rows[2 * i + 1]) = (pair[0], pair[1]);
            }
        }
        rows
    }
}

struct Transpose<E> {
    from: *const E,
    from_row: usize,
    to: *mut E,
    to_row: usize,
    blocks: usize,
}

impl<V: Vector> Op<V> for Transpose<V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        for block in 0..self.blocks {
            // SAFETY: the caller vouches for the rows of all blocks on both sides.
            unsafe {
                let rows = turned::<V>(self.from.add(block * V::LANES), self.from_row);
                let to = self.to.add(block * V::LANES * self.to_row);
                for (i, row) in rows.iter().enumerate().take(V::LANES) {
                    row.store(to.add(i * self.to_row));
                }
            }
        }
    }
}

/// Transposes blocks of LANES rows of as many numbers, side by side, each to LANES rows below those
/// of the one before.
///
/// # Safety
/// The blocks' rows may be read at `from`, `from_row` numbers apart, and written at `to`, `to_row`
/// numbers apart; the CPU has V's instruction set.
pub(super) unsafe fn transpose<V: Vector>(
    from: *const V::Element,
    from_row: usize,
    to: *mut V::Element,
    to_row: usize,
    blocks: usize,
) {
    let all = Transpose {
        from,
        from_row,
        to,
        to_row,
        blocks,
    };
    // SAFETY: passed on from the caller.
    unsafe { V::invoke(all) }
}
