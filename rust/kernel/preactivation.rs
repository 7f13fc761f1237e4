//! All slots of a panel for a tile of rows: bias + W_ih x + W_hh h.

use std::marker::PhantomData;

use super::{Grid, fits, with_tile};
use crate::cell::MAX_SLOTS;
use crate::simd::{Op, Vector};

/// How input and state feed the slots of a panel, known to the compiler.
pub trait Slots: Send + Sync + 'static {
    /// Slots in all.
    const ALL: usize;
    /// First slot that the input feeds, and their number.
    const INPUT: (usize, usize);
    /// First slot that the state feeds, and their number.
    const STATE: (usize, usize);
    /// Slots in all, and the most that one source feeds.
    const COUNTS: (usize, usize) = (
        Self::ALL,
        if Self::INPUT.1 > Self::STATE.1 {
            Self::INPUT.1
        } else {
            Self::STATE.1
        },
    );
}

/// Both feed all `N` slots.
pub struct Joint<const N: usize>;

impl<const N: usize> Slots for Joint<N> {
    const ALL: usize = N;
    const INPUT: (usize, usize) = (0, N);
    const STATE: (usize, usize) = (0, N);
}

/// Four slots: the input feeds the first three, the state the last three.
pub struct Staggered;

impl Slots for Staggered {
    const ALL: usize = 4;
    const INPUT: (usize, usize) = (0, 3);
    const STATE: (usize, usize) = (1, 3);
}

/// A matrix's rows: `columns` numbers are read from each.
#[derive(Clone, Copy)]
pub(crate) struct Operand<E> {
    /// The first row.
    pub at: *const E,
    /// Numbers from a row to the next.
    pub stride: usize,
    /// Numbers read from a row.
    pub columns: usize,
}

/// The sums of `rows` rows and `panels` panels.
#[derive(Clone, Copy)]
pub(crate) struct Preactivation<E> {
    /// Rows of the input.
    pub x: Operand<E>,
    /// Rows of the state before.
    pub h: Operand<E>,
    /// Packed weights of the first panel, from those of the first column on.
    pub weights: *const E,
    /// Numbers from a panel's weights to the next one's.
    pub panel: usize,
    /// What the sums start from: the bias, or sums of it and of columns before these.
    pub start: Grid<*const E>,
    /// The sums.
    pub out: Grid<*mut E>,
}

struct Tile<V: Vector, S, const ROWS: usize, const PANELS: usize> {
    of: Preactivation<V::Element>,
    slots: PhantomData<S>,
}

type Sums<V, const ROWS: usize, const PANELS: usize> = [[[V; MAX_SLOTS]; PANELS]; ROWS];

/// Adds a source's products to its slots, one k at a time.
///
/// # Safety
/// `from` has ROWS rows of `from.columns` numbers; each of PANELS panels at `weights` has
/// `columns * COUNT * LANES`; the CPU has V's instruction set.
#[inline(always)]
unsafe fn accumulate<V: Vector, const ROWS: usize, const PANELS: usize>(
    sums: &mut Sums<V, ROWS, PANELS>,
    from: Operand<V::Element>,
    mut weights: *const V::Element,
    panel: usize,
    (first, count): (usize, usize),
) {
    for k in 0..from.columns {
        // SAFETY: k < columns, and the caller vouches for rows, panels and instruction set.
        unsafe {
            let mut w = [[V::splat(V::Element::default()); MAX_SLOTS]; PANELS];
            for (p, w) in w.iter_mut().enumerate() {
                for (s, w) in w.iter_mut().enumerate().take(count) {
                    *w = V::load(weights.add(p * panel + s * V::LANES));
                }
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let a = V::splat(*from.at.add(r * from.stride + k));
                for (p, sums) in sums.iter_mut().enumerate() {
                    for s in 0..count {
                        sums[first + s] = sums[first + s].add_product(a, w[p][s]);
                    }
                }
            }
            weights = weights.add(count * V::LANES);
        }
    }
}

impl<V: Vector, S: Slots, const ROWS: usize, const PANELS: usize> Op<V>
    for Tile<V, S, ROWS, PANELS>
{
    #[inline(always)]
    unsafe fn run(self) {
        let of = self.of;
        // SAFETY: `Preactivation::run`'s caller vouches for operands, weights, `start` and `out`.
        unsafe {
            let zero = V::splat(V::Element::default());
            let mut sums: Sums<V, ROWS, PANELS> = [[[zero; MAX_SLOTS]; PANELS]; ROWS];
            for (r, sums) in sums.iter_mut().enumerate() {
                for (p, sums) in sums.iter_mut().enumerate() {
                    let start = of.start.get(r, p);
                    for (s, sum) in sums.iter_mut().enumerate().take(S::ALL) {
                        *sum = V::load(start.add(s * V::LANES));
                    }
                }
            }
            accumulate(&mut sums, of.x, of.weights, of.panel, S::INPUT);
            let state = of.weights.add(of.x.columns * S::INPUT.1 * V::LANES);
            accumulate(&mut sums, of.h, state, of.panel, S::STATE);
            for (r, sums) in sums.iter().enumerate() {
                for (p, sums) in sums.iter().enumerate() {
                    let out = of.out.get(r, p);
                    for (s, sum) in sums.iter().enumerate().take(S::ALL) {
                        sum.store(out.add(s * V::LANES));
                    }
                }
            }
        }
    }
}

impl<E> Preactivation<E> {
    /// Computes the sums of a tile.
    ///
    /// # Safety
    /// The operands, `start` and `out` have `rows` rows, weights, `start` and `out` `panels`
    /// panels, in the layouts of [`crate::kernel`]; `(rows, panels)` come from
    /// [`super::tile_shape`]; the CPU has V's instruction set.
    pub unsafe fn run<V: Vector<Element = E>, S: Slots>(self, rows: usize, panels: usize) {
        macro_rules! tile {
            ($rows:literal, $panels:literal) => {
                if const { fits($rows, $panels, S::COUNTS, V::REGISTERS) } {
                    let slots = PhantomData::<S>;
                    let tile = Tile::<V, S, $rows, $panels> { of: self, slots };
                    // SAFETY: passed on from the caller.
                    unsafe { V::invoke(tile) }
                } else {
                    unreachable!("tile_shape never chooses a tile that spills")
                }
            };
        }
        with_tile!(rows, panels, tile)
    }
}

/// Sums of bias and input where the input is one column: the bias plus that column's weights.
pub(crate) struct LookUp<'a, E, S> {
    /// The column of each row, within the packed weights.
    pub ids: &'a [u32],
    pub panels: usize,
    /// As in [`Preactivation`].
    pub weights: *const E,
    pub panel: usize,
    /// The bias.
    pub start: Grid<*const E>,
    /// The sums.
    pub out: Grid<*mut E>,
    pub slots: PhantomData<S>,
}

impl<V: Vector, S: Slots> Op<V> for LookUp<'_, V::Element, S> {
    #[inline(always)]
    unsafe fn run(self) {
        let (first, count) = S::INPUT;
        for (row, &id) in self.ids.iter().enumerate() {
            for panel in 0..self.panels {
                // SAFETY: the caller vouches for the grids' rows and panels and for the ids.
                unsafe {
                    let start = self.start.get(row, panel);
                    let out = self.out.get(row, panel);
                    let column = id as usize * count * V::LANES;
                    let weights = self.weights.add(panel * self.panel + column);
                    for s in 0..S::ALL {
                        let mut sum = V::load(start.add(s * V::LANES));
                        if (first..first + count).contains(&s) {
                            sum = sum.add(V::load(weights.add((s - first) * V::LANES)));
                        }
                        sum.store(out.add(s * V::LANES));
                    }
                }
            }
        }
    }
}
