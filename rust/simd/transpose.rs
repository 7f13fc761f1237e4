//! Square blocks of numbers, turned over in registers.

use super::{Op, Real, Vector};

/// The most lanes of a register.
const MOST: usize = 16;

struct Transpose<E> {
    from: *const E,
    from_row: usize,
    to: *mut E,
    to_row: usize,
}

impl<V: Vector> Op<V> for Transpose<V::Element> {
    #[inline(always)]
    unsafe fn run(self) {
        const { assert!(V::LANES <= MOST && V::LANES.is_power_of_two()) };
        // SAFETY: the caller vouches for LANES rows of as many numbers on both sides.
        unsafe {
            let mut rows = [V::splat(V::Element::ZERO); MOST];
            for (i, row) in rows.iter_mut().enumerate().take(V::LANES) {
                *row = V::load(self.from.add(i * self.from_row));
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
            for (i, row) in rows.iter().enumerate().take(V::LANES) {
                row.store(self.to.add(i * self.to_row));
            }
        }
    }
}

/// Transposes a block of LANES rows of as many numbers.
///
/// # Safety
/// So many rows of so many numbers may be read at `from`, `from_row` numbers apart, and written at
/// `to`; the CPU has V's instruction set.
pub(super) unsafe fn transpose<V: Vector>(
    from: *const V::Element,
    from_row: usize,
    to: *mut V::Element,
    to_row: usize,
) {
    let block = Transpose {
        from,
        from_row,
        to,
        to_row,
    };
    // SAFETY: passed on from the caller.
    unsafe { V::invoke(block) }
}
