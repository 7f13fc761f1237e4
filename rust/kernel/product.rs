//! Gradients of slots times weights: what a step hands to the step before it, and to its input.

use std::ops::Range;

use super::{Grid, SCRATCH, Scratch, fits, per_line, prefetch_run, runs, with_tile};
use crate::cell::MAX_SLOTS;
use crate::simd::{Op, Real, Vector, prefetch};

/// The weights of a product, from a column panel on: packed, or a matrix's rows where they are.
#[derive(Clone, Copy)]
pub(crate) struct Factor<E> {
    /// The first line of each gate, which is a register wide in each column panel.
    pub gates: [*const E; MAX_SLOTS],
    /// How many gates there are.
    pub count: usize,
    /// Lines of a gate, in all, and those that a panel's numbers are multiplied with; fewer in the
    /// last one if no more are left.
    pub lines: usize,
    pub depth: usize,
    /// Numbers from a line to the next.
    pub line: usize,
    /// Numbers from a column panel to the next.
    pub column: usize,
}

impl<E> Factor<E> {
    /// Packed ones, all gates of a panel as one: `panels` times `depth` lines of each column panel.
    pub fn packed(at: *const E, (panels, depth): (usize, usize), lanes: usize) -> Self {
        let mut gates = [std::ptr::null(); MAX_SLOTS];
        gates[0] = at;
        let lines = panels * depth;
        Factor {
            gates,
            count: 1,
            lines,
            depth,
            line: lanes,
            column: lines * lanes,
        }
    }

    /// The shape of tiles for so many rows and column panels.
    pub fn tile_shape<V: Vector<Element = E>>(
        &self,
        rows: usize,
        columns: usize,
    ) -> (usize, usize) {
        let bytes = self.count * self.lines * V::LANES * size_of::<E>();
        super::tile_shape(rows, (columns, bytes), (1, 1), V::REGISTERS)
    }

    /// The same from another column panel on.
    fn from(mut self, column: usize) -> Self {
        for gate in &mut self.gates {
            *gate = gate.wrapping_add(column * self.column);
        }
        self
    }
}

/// out\[row\]\[column\] = sum over panels, gates and k of
/// a\[panel\]\[row\]\[gate\]\[k\] * w\[gate\]\[panel and k\]\[column\].
#[derive(Clone, Copy)]
pub(crate) struct Product<E> {
    /// The first row's numbers in the first panel.
    pub a: *const E,
    /// Numbers from a row to the next.
    pub a_row: usize,
    /// Numbers from a panel to the next.
    pub a_panel: usize,
    /// Panels summed over.
    pub panels: usize,
    /// What they are multiplied with. A row's numbers in a panel are those of one gate after
    /// another.
    pub weights: Factor<E>,
    /// The first row of the result; column panels lie side by side.
    pub out: *mut E,
    /// Numbers from a row of the result to the next.
    pub out_row: usize,
    /// Whether the result is added to what is there.
    pub add: bool,
}

/// What a tile asks the caches for while it is computed, little at a time: all of it at once would
/// keep its own loads waiting.
#[derive(Clone, Copy)]
pub(crate) enum Meanwhile<'a, E> {
    /// Its own rows in the next panel, which come from afar: a line of each when the sums come to
    /// the same line of this one. (A panel's four lines of a row at once took an LSTM and a GRU a
    /// fourth to a half longer, where their rows did not fit the second-level cache.)
    Rows,
    /// What is read after it, some of it in each panel that it sums over. Its own rows are near: to
    /// ask for them too took up to 6 % of a chain.
    Next {
        /// Grids of the tile's rows and panels, each with how many numbers are read of a row in a
        /// panel.
        grids: &'a [(Grid<*const E>, usize)],
        /// Rows to ask for at a time, from the first on.
        at_once: usize,
    },
}

struct Tile<'a, E, const ROWS: usize, const PANELS: usize>(Product<E>, Meanwhile<'a, E>);

impl<V: Vector, const ROWS: usize, const PANELS: usize> Op<V>
    for Tile<'_, V::Element, ROWS, PANELS>
{
    #[inline(always)]
    unsafe fn run(self) {
        let Tile(of, meanwhile) = self;
        // SAFETY: `Product::tile`'s caller vouches for rows, panels, weights and the result.
        unsafe {
            let numbers = per_line::<V::Element>();
            let Factor {
                gates,
                count,
                lines,
                depth,
                line,
                column,
            } = of.weights;
            let mut sums = [[V::splat(V::Element::default()); PANELS]; ROWS];
            for panel in 0..of.panels {
                let a = of.a.add(panel * of.a_panel);
                if let Meanwhile::Next { grids, at_once } = meanwhile {
                    let asked = (panel * at_once).min(ROWS);
                    for row in asked..(asked + at_once).min(ROWS) {
                        for &(grid, count) in grids {
                            for p in 0..PANELS {
                                prefetch_run(grid.place(row, p), count);
                            }
                        }
                    }
                }
                let first = panel * depth;
                let left = (lines - first).min(depth);
                for (gate, &weights) in gates.iter().enumerate().take(count) {
                    let a = a.add(gate * depth);
                    let mut weights = weights.add(first * line);
                    for from in (0..left).step_by(numbers) {
                        if let Meanwhile::Rows = meanwhile {
                            let next = a.wrapping_add(of.a_panel + from);
                            for r in 0..ROWS {
                                prefetch(next.wrapping_add(r * of.a_row));
                            }
                        }
                        for k in from..left.min(from + numbers) {
                            let mut w = [V::splat(V::Element::default()); PANELS];
                            for (p, w) in w.iter_mut().enumerate() {
                                *w = V::load(weights.add(p * column));
                            }
                            for (r, sums) in sums.iter_mut().enumerate() {
                                let a = V::splat(*a.add(r * of.a_row + k));
                                for (p, sum) in sums.iter_mut().enumerate() {
                                    *sum = sum.add_product(a, w[p]);
                                }
                            }
                            weights = weights.wrapping_add(line);
                        }
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (p, sum) in sums.iter().enumerate() {
                    let to = of.out.add(r * of.out_row + p * V::LANES);
                    let sum = if of.add { V::load(to).add(*sum) } else { *sum };
                    sum.store(to);
                }
            }
        }
    }
}

impl<E: Real> Product<E> {
    /// One tile.
    ///
    /// # Safety
    /// `a` has `rows` rows in `self.panels` panels, `weights` and the result have `panels` column
    /// panels, and the result `rows` rows; `(rows, panels)` come from [`super::tile_shape`] with
    /// one slot; the CPU has V's instruction set.
    pub unsafe fn tile<V: Vector<Element = E>>(
        self,
        rows: usize,
        panels: usize,
        meanwhile: Meanwhile<E>,
    ) {
        macro_rules! tile {
            ($rows:literal, $panels:literal) => {
                if const { fits($rows, $panels, (1, 1), V::REGISTERS) } {
                    // SAFETY: passed on from the caller.
                    unsafe { V::invoke(Tile::<E, $rows, $panels>(self, meanwhile)) }
                } else {
                    unreachable!("tile_shape never chooses a tile that spills")
                }
            };
        }
        with_tile!(rows, panels, tile)
    }

    /// One tile whose result is `width` wide, less than its column panels.
    ///
    /// # Safety
    /// As [`Product::tile`]; but nothing is read or written beyond the width of the result's rows.
    unsafe fn narrow<V: Vector<Element = E>>(self, rows: usize, panels: usize, width: usize) {
        let mut scratch = Scratch([V::Element::ZERO; SCRATCH]);
        let from = scratch.0.as_mut_ptr();
        let from_row = panels * V::LANES;
        // SAFETY: a tile's results fit the scratch, and the caller vouches for the rest.
        unsafe {
            Product {
                out: from,
                out_row: from_row,
                add: false,
                ..self
            }
            .tile::<V>(rows, panels, Meanwhile::Rows);
            // One by one: masked stores took steps of ten to thirty inputs up to 4 % longer.
            for row in 0..rows {
                for column in 0..width {
                    let sum = *from.add(row * from_row + column);
                    let to = self.out.add(row * self.out_row + column);
                    *to = if self.add { *to + sum } else { sum };
                }
            }
        }
    }

    /// The result for `rows` of `a` and `columns`, which are column panels.
    ///
    /// # Safety
    /// As [`Product::tile`], for every row in `rows` and column panel in `columns`.
    pub unsafe fn all<V: Vector<Element = E>>(self, rows: Range<usize>, columns: Range<usize>) {
        // SAFETY: passed on from the caller.
        unsafe { self.within::<V>(rows, columns, usize::MAX) }
    }

    /// The same where rows of the result are `width` wide: the last column panel may be more.
    ///
    /// # Safety
    /// As [`Product::all`]; but nothing is read or written beyond the width of the result's rows.
    pub unsafe fn within<V: Vector<Element = E>>(
        self,
        rows: Range<usize>,
        columns: Range<usize>,
        width: usize,
    ) {
        let (most, wide) = self.weights.tile_shape::<V>(rows.len(), columns.len());
        for (column, panels) in runs(columns, wide).flat_map(whole_tiles) {
            for (row, count) in runs(rows.clone(), most) {
                // SAFETY: the rows and column panels lie within what the caller vouches for.
                unsafe {
                    let tile = Product {
                        a: self.a.add(row * self.a_row),
                        weights: self.weights.from(column),
                        out: self.out.add(row * self.out_row + column * V::LANES),
                        ..self
                    };
                    if (column + panels) * V::LANES <= width {
                        tile.tile::<V>(count, panels, Meanwhile::Rows);
                    } else {
                        tile.narrow::<V>(count, panels, width - column * V::LANES);
                    }
                }
            }
        }
    }
}

/// A run of 3 panels has no tile of its own: it is 2 and 1.
pub(crate) fn whole_tiles(
    (first, panels): (usize, usize),
) -> impl DoubleEndedIterator<Item = (usize, usize)> {
    let (head, tail) = if panels == 3 { (2, 1) } else { (panels, 0) };
    [(first, head), (first + head, tail)]
        .into_iter()
        .filter(|&(_, panels)| panels > 0)
}
