//! Tiles: the products and pointwise passes that everything else is made of.
//!
//! A *panel* is a run of `L = V::LANES` units (or columns) that fill a register. Matrices are
//! packed by panels, so that a tile reads its weights in one ascending stream:
//!
//! | buffer | layout |
//! |---|---|
//! | weights for forward | `[panel][k of x][input slots][L]`, then `[k of h][state slots][L]` |
//! | weights for backward | `[column panel][unit panel][slots][L units][L columns]` |
//! | slots of a step (saved values, then gradients) | `[panel][row][slots][L]` |
//! | memory of a step | `[panel][row][L]` |
//! | rows of x, h, y and their gradients | `[row][columns padded to L]`, padding zero |
//!
//! A sum always runs over k in ascending order in one accumulator, whatever the tile: that is why
//! a row's bits depend neither on its neighbours nor on threads.
//!
//! The tiles know slots, not cells; [`pointwise`] applies a cell to sums that are still in the
//! first-level cache. (One pass for both, with the sums never leaving the registers, measured the
//! same: the compiler has to spill them around the activations either way.)
//!
//! Tiles count where they could `zip`: the standard library leaves it to the linker to inline the
//! making of a zip, and sums that one borrows are in memory. Without LTO, in a crate of several
//! codegen units, tiles were ten times slower for it.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::simd::prefetch;

pub(crate) mod direct;
pub(crate) mod pack;
pub(crate) mod pointwise;
pub(crate) mod preactivation;
pub(crate) mod product;
pub(crate) mod weight;

/// The most rows in a tile.
pub(crate) const MAX_ROWS: usize = 12;
/// Numbers that a tile's results may take: sums fit the registers, of which there are 32 of 16
/// lanes at most.
pub(crate) const SCRATCH: usize = 32 * 16;

/// Results of a tile.
#[repr(align(64))]
pub(crate) struct Scratch<E>(pub [E; SCRATCH]);

/// The most tiles whose results are gathered.
const TILES: usize = 3;

/// Results of some tiles on their way to the pointwise pass.
///
/// It comes after several: after each, it would wait for the tile's last sums. (Of 32 rows and 32
/// to 128 units, an LSTM's passes take 2 % less forward, and 5 % less back.)
#[repr(align(64))]
pub(crate) struct Gathered<E>(MaybeUninit<[E; TILES * SCRATCH]>);

impl<E> Gathered<E> {
    /// Room for results.
    pub fn new() -> Self {
        Gathered(MaybeUninit::uninit())
    }

    /// The results of rows, `size` numbers for each of some panels.
    pub fn grid(&mut self, panels: usize, size: usize) -> Grid<*mut E> {
        Grid {
            at: self.0.as_mut_ptr().cast::<E>(),
            row: panels * size,
            panel: size,
        }
    }

    /// Cuts rows into runs whose results there is room for, where a tile has `most` rows.
    pub fn runs(rows: Range<usize>, most: usize) -> impl Iterator<Item = (usize, usize)> {
        // No more tiles in all than if the rows were not cut.
        let room = TILES * most;
        let n = rows.len();
        let size = if n > room {
            n.div_ceil(n.div_ceil(most).div_ceil(TILES))
                .next_multiple_of(most)
        } else {
            n.max(1)
        };
        rows.clone()
            .step_by(size)
            .map(move |row| (row, size.min(rows.end - row)))
    }
}

/// A buffer seen from a tile: rows and panels at fixed distances.
#[derive(Clone, Copy)]
pub(crate) struct Grid<P> {
    /// The tile's first row in its first panel.
    pub at: P,
    /// Numbers from a row to the next.
    pub row: usize,
    /// Numbers from a panel to the next.
    pub panel: usize,
}

impl<E> Grid<*const E> {
    /// The same grid from another row on.
    pub fn from(self, row: usize) -> Self {
        Grid {
            at: self.place(row, 0),
            ..self
        }
    }

    /// Where the numbers of a row in a panel would be.
    #[inline(always)]
    pub fn place(self, row: usize, panel: usize) -> *const E {
        self.at.wrapping_add(row * self.row + panel * self.panel)
    }

    /// The numbers of a row in a panel.
    ///
    /// # Safety
    /// The grid has that row and panel.
    #[inline(always)]
    pub unsafe fn get(self, row: usize, panel: usize) -> *const E {
        // SAFETY: passed on from the caller.
        unsafe { self.at.add(row * self.row + panel * self.panel) }
    }
}

impl<E> Grid<*mut E> {
    /// The same grid, only read.
    pub fn reading(self) -> Grid<*const E> {
        Grid {
            at: self.at.cast_const(),
            row: self.row,
            panel: self.panel,
        }
    }

    /// The numbers of a row in a panel.
    ///
    /// # Safety
    /// The grid has that row and panel.
    #[inline(always)]
    pub unsafe fn get(self, row: usize, panel: usize) -> *mut E {
        // SAFETY: passed on from the caller.
        unsafe { self.at.add(row * self.row + panel * self.panel) }
    }
}

/// Numbers in a cache line.
pub(crate) const fn per_line<E>() -> usize {
    64 / size_of::<E>()
}

/// Asks for the cache lines of `count` numbers from `p` on.
#[inline(always)]
pub(crate) fn prefetch_run<E>(p: *const E, count: usize) {
    for line in (0..count).step_by(per_line::<E>()) {
        prefetch(p.wrapping_add(line));
    }
}

/// Splits `range` into runs of at most `max`, as equal as possible: 16 by 6 is 6, 5, 5.
pub(crate) fn runs(
    range: std::ops::Range<usize>,
    max: usize,
) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    // A division takes as long as a row of a small layer.
    let n = range.len();
    let pieces = if n > max { n.div_ceil(max) } else { n.min(1) };
    let (size, longer) = if pieces > 1 {
        (n / pieces, n % pieces)
    } else {
        (n, 0)
    };
    (0..pieces).map(move |i| {
        (
            range.start + i * size + i.min(longer),
            size + usize::from(i < longer),
        )
    })
}

/// Calls `$tile!(ROWS, PANELS)` with the constants that equal `$rows` and `$panels`.
macro_rules! with_tile {
    ($rows:expr, $panels:expr, $tile:ident) => {
        match ($rows, $panels) {
            (1, 4) => $tile!(1, 4),
            (2, 4) => $tile!(2, 4),
            (3, 4) => $tile!(3, 4),
            (4, 4) => $tile!(4, 4),
            (5, 4) => $tile!(5, 4),
            (6, 4) => $tile!(6, 4),
            (1, 2) => $tile!(1, 2),
            (2, 2) => $tile!(2, 2),
            (3, 2) => $tile!(3, 2),
            (4, 2) => $tile!(4, 2),
            (5, 2) => $tile!(5, 2),
            (6, 2) => $tile!(6, 2),
            (7, 2) => $tile!(7, 2),
            (8, 2) => $tile!(8, 2),
            (9, 2) => $tile!(9, 2),
            (10, 2) => $tile!(10, 2),
            (11, 2) => $tile!(11, 2),
            (12, 2) => $tile!(12, 2),
            (1, 1) => $tile!(1, 1),
            (2, 1) => $tile!(2, 1),
            (3, 1) => $tile!(3, 1),
            (4, 1) => $tile!(4, 1),
            (5, 1) => $tile!(5, 1),
            (6, 1) => $tile!(6, 1),
            (7, 1) => $tile!(7, 1),
            (8, 1) => $tile!(8, 1),
            (9, 1) => $tile!(9, 1),
            (10, 1) => $tile!(10, 1),
            (11, 1) => $tile!(11, 1),
            (12, 1) => $tile!(12, 1),
            (rows, panels) => unreachable!("no tile of {rows} rows and {panels} panels"),
        }
    };
}
pub(crate) use with_tile;

/// Whether a tile stays in registers: its sums, the weights of one k and a broadcast. The others
/// are never called, nor compiled. `slots` are those of a panel, in all and fed by one source.
///
/// A single row uses each weight once, straight from memory.
pub(crate) const fn fits(
    rows: usize,
    panels: usize,
    slots: (usize, usize),
    registers: usize,
) -> bool {
    let weights = if rows == 1 { 1 } else { panels * slots.1 };
    let broadcast = 1;
    rows <= MAX_ROWS
        && (panels < 4 || rows <= 6)
        && rows * panels * slots.0 + weights + broadcast <= registers
}

/// The most rows that fit beside so many panels; 0 if none does.
pub(crate) const fn most_rows(panels: usize, slots: (usize, usize), registers: usize) -> usize {
    let mut rows = 0;
    while fits(rows + 1, panels, slots, registers) {
        rows += 1;
    }
    rows
}

/// Bytes of weights that stay in a core's second-level cache beside the rest, where that is 1 MiB:
/// from one tile of rows to the next, and from one step to the next.
pub(crate) const NEAR: usize = 1 << 19;

/// The shape of tiles for so many rows and for so many panels, each of so many bytes of weights:
/// (the most rows of a tile, panels of a tile).
///
/// Few rows take more panels, so that enough sums are in flight to hide the latency of an
/// addition. (Two panels for up to six rows measured 1 to 17 % less.) Many rows with one sum a lane,
/// those of a plain cell forward and of every cell on the way back, do so where no panel is left
/// over, their weights stay near and the sums are as many as with two: a broadcast serves more
/// products then, and fewer rows compete for a place in the cache.
/// (Rows of 1024 floats have the same eight lines of 32 KB for their numbers of a place: twelve rows
/// took 10 % longer. Four panels of 1 MB took 4 % longer than two.)
pub(crate) fn tile_shape(
    rows: usize,
    (panels, bytes): (usize, usize),
    slots: (usize, usize),
    registers: usize,
) -> (usize, usize) {
    let most = |panels: usize| most_rows(panels, slots, registers);
    let is_near = panels.is_multiple_of(4) && 4 * bytes <= NEAR;
    let is_as_full = 4 * most(4) >= 2 * most(2);
    if (1..=most(4)).contains(&rows) || (slots.0 == 1 && is_near && is_as_full) {
        (most(4), 4)
    } else if slots.0 == 1 || rows <= most(2) {
        (most(2), 2)
    } else {
        (most(1), 1)
    }
}

#[cfg(test)]
mod tests;
