//! Every tile of every shape against sums in double precision, on every instruction set.

use super::pack::{Columns, GateRows, pack_backward, pack_forward};
use super::preactivation::{Joint, Operand, Preactivation, Slots, Staggered};
use super::product::{Factor, Meanwhile, Product, whole_tiles};
use super::*;
use crate::simd::{Real, Vector, on_every_isa};

/// Numbers from -1 to 1 in no order.
pub(super) fn noise<E: Real>(len: usize, seed: usize) -> Vec<E> {
    let next = |i: usize| (i + seed * 7919 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..len)
        .map(|i| E::from_f64(next(i) as f64 / (1u64 << 23) as f64 - 1.0))
        .collect()
}

#[track_caller]
pub(super) fn assert_close<E: Real>(found: E, expected: f64, terms: usize) {
    let epsilon = if E::NAME == "float32" {
        1.2e-7
    } else {
        2.3e-16
    };
    let found = found.to_f64();
    let near = (found - expected).abs() <= epsilon * (terms + 2) as f64;
    assert!(near, "{found} instead of {expected}");
}

#[test]
fn rows_are_gathered_in_no_more_tiles_than_they_have() {
    for most in 1..=MAX_ROWS {
        for n in 0..200 {
            let (mut end, mut tiles) = (7, 0);
            for (row, count) in Gathered::<f32>::runs(7..7 + n, most) {
                assert_eq!(row, end);
                assert!((1..=TILES * most).contains(&count), "{count} rows of {n}");
                end += count;
                tiles += count.div_ceil(most);
            }
            assert_eq!((end, tiles), (7 + n, n.div_ceil(most)));
        }
    }
}

#[test]
fn runs_are_even_and_whole() {
    for n in 0..60 {
        for max in 1..14 {
            let found: Vec<_> = runs(5..5 + n, max).collect();
            assert_eq!(found.len(), n.div_ceil(max));
            let mut next = 5;
            for &(first, count) in &found {
                assert_eq!(first, next);
                assert!(count <= max && count + 1 >= found[0].1 && count > 0);
                next += count;
            }
            assert_eq!(next, 5 + n);
        }
    }
}

#[test]
fn runs_of_panels_split_into_whole_tiles() {
    let split = |panels| whole_tiles((7, panels)).collect::<Vec<_>>();
    assert_eq!(split(1), [(7, 1)]);
    assert_eq!(split(2), [(7, 2)]);
    assert_eq!(split(3), [(7, 2), (9, 1)]);
    assert_eq!(split(4), [(7, 4)]);
}

/// Whether there is a tile of that shape.
fn exists(rows: usize, panels: usize) -> bool {
    ((1..=6).contains(&rows) && panels == 4)
        || ((1..=MAX_ROWS).contains(&rows) && (1..=2).contains(&panels))
}

#[test]
fn every_tile_that_is_chosen_fits() {
    for registers in [16, 32] {
        for slots in [(1, 1), (4, 3), (4, 4)] {
            for (rows, all) in (1..200).flat_map(|rows| (1..20).map(move |all| (rows, all))) {
                let (most, wide) = tile_shape(rows, (all, 1 << 10), slots, registers);
                for (_, panels) in runs(0..all, wide).flat_map(whole_tiles) {
                    for (_, count) in runs(0..rows, most) {
                        assert!(exists(count, panels));
                        assert!(fits(count, panels, slots, registers));
                        assert!(count * panels * slots.0 * 16 <= SCRATCH);
                    }
                }
            }
        }
    }
}

#[test]
fn four_panels_are_taken_where_they_are_near_and_none_is_left_over() {
    let of = |rows, panels, bytes, registers| tile_shape(rows, (panels, bytes), (1, 1), registers);
    assert_eq!(of(64, 8, NEAR / 4, 32), (6, 4));
    assert_eq!(of(64, 8, NEAR / 4 + 1, 32), (12, 2));
    assert_eq!(of(64, 6, NEAR / 4, 32), (12, 2));
    // Sixteen registers hold more sums of two panels.
    assert_eq!(of(64, 8, NEAR / 4, 16), (6, 2));
    assert_eq!(of(3, 6, NEAR, 32), (6, 4));
}

/// A matrix as rows of numbers, by position in the padded row.
fn at(matrix: &[f64], columns: Columns, row: usize, position: usize) -> f64 {
    let column = columns.column(position);
    column.map_or(0.0, |column| matrix[row * columns.real() + column])
}

const SHAPES: [Columns; 5] = [
    // segments, width, padded
    columns(1, 1, 4),
    columns(1, 4, 4),
    columns(1, 0, 4),
    columns(2, 3, 4),
    columns(2, 17, 20),
];

pub(super) const fn columns(segments: usize, width: usize, padded: usize) -> Columns {
    Columns {
        segments,
        width,
        padded,
    }
}

#[test]
fn positions_of_columns() {
    let c = columns(2, 3, 4);
    assert_eq!((c.real(), c.stride(), c.extent()), (6, 8, 7));
    let found: Vec<_> = (0..8).map(|position| c.column(position)).collect();
    let some = Some;
    assert_eq!(
        found,
        [
            some(0),
            some(1),
            some(2),
            None,
            some(3),
            some(4),
            some(5),
            None
        ]
    );
}

#[test]
fn packed_for_forward() {
    const LANES: usize = 4;
    for columns in SHAPES {
        for units in [1, 4, 6] {
            let gates = [1, 2].map(|seed| noise::<f64>(units * columns.real(), seed));
            let rows: Vec<_> = gates
                .iter()
                .map(|rows| GateRows { rows, columns })
                .collect();
            for first in (0..units).step_by(LANES) {
                let mut out = vec![f64::NAN; columns.extent() * 2 * LANES];
                pack_forward(&rows, (first, units), LANES, &mut out);
                for (i, &found) in out.iter().enumerate() {
                    let (k, gate, lane) = (i / (2 * LANES), i / LANES % 2, i % LANES);
                    let expected = if first + lane < units {
                        at(&gates[gate], columns, first + lane, k)
                    } else {
                        0.0
                    };
                    assert_eq!(found, expected);
                }
            }
        }
    }
}

#[test]
fn packed_for_backward() {
    const LANES: usize = 4;
    for columns in SHAPES {
        for units in [1usize, 4, 6] {
            let gates = [1, 2].map(|seed| noise::<f64>(units * columns.real(), seed));
            let rows: Vec<_> = gates
                .iter()
                .map(|rows| GateRows { rows, columns })
                .collect();
            let panels = units.div_ceil(LANES);
            for column_panel in 0..columns.stride() / LANES {
                let mut out = vec![f64::NAN; panels * 2 * LANES * LANES];
                pack_backward(&rows, column_panel, units, LANES, &mut out);
                for (i, &found) in out.iter().enumerate() {
                    let (panel, gate) = (i / (2 * LANES * LANES), i / (LANES * LANES) % 2);
                    let unit = panel * LANES + i / LANES % LANES;
                    let position = column_panel * LANES + i % LANES;
                    let expected = if unit < units {
                        at(&gates[gate], columns, unit, position)
                    } else {
                        0.0
                    };
                    assert_eq!(found, expected);
                }
            }
        }
    }
}

/// All shapes of tiles that fit.
fn shapes(slots: (usize, usize), registers: usize) -> impl Iterator<Item = (usize, usize)> {
    (1..=MAX_ROWS)
        .flat_map(|rows| [1, 2, 4].map(|panels| (rows, panels)))
        .filter(move |&(rows, panels)| exists(rows, panels) && fits(rows, panels, slots, registers))
}

fn preactivations<V: Vector, S: Slots>(x_columns: usize, h_columns: usize) {
    const ROWS: usize = MAX_ROWS;
    let (x_stride, h_stride) = (x_columns + 3, h_columns + 1);
    let x: Vec<V::Element> = noise(ROWS * x_stride, 1);
    let h: Vec<V::Element> = noise(ROWS * h_stride, 2);
    let panel = (x_columns * S::INPUT.1 + h_columns * S::STATE.1) * V::LANES;
    let weights: Vec<V::Element> = noise(4 * panel, 3);
    let bias: Vec<V::Element> = noise(4 * S::ALL * V::LANES, 4);
    let expected = |row: usize, p: usize, slot: usize, lane: usize| {
        let mut sum = bias[(p * S::ALL + slot) * V::LANES + lane].to_f64();
        let mut from = p * panel;
        for (rows, stride, columns, (first, count)) in [
            (&x, x_stride, x_columns, S::INPUT),
            (&h, h_stride, h_columns, S::STATE),
        ] {
            for k in 0..columns {
                if (first..first + count).contains(&slot) {
                    let w = weights[from + (k * count + slot - first) * V::LANES + lane];
                    sum += rows[row * stride + k].to_f64() * w.to_f64();
                }
            }
            from += columns * count * V::LANES;
        }
        sum
    };
    let operand = |from: &[V::Element], stride, columns| Operand {
        at: from.as_ptr(),
        stride,
        columns,
    };
    // The bits must not depend on a tile's shape, nor on whether the input came ahead.
    let mut first_bits = vec![None; ROWS * 4 * S::ALL * V::LANES];
    for (rows, panels) in shapes(S::COUNTS, V::REGISTERS) {
        for ahead in [false, true] {
            let mut out = Scratch([V::Element::ZERO; SCRATCH]);
            let sums = Grid {
                at: out.0.as_mut_ptr(),
                row: panels * S::ALL * V::LANES,
                panel: S::ALL * V::LANES,
            };
            let whole = Preactivation {
                x: operand(&x, x_stride, x_columns),
                h: operand(&h, h_stride, h_columns),
                weights: weights.as_ptr(),
                panel,
                start: Grid {
                    at: bias.as_ptr(),
                    row: 0,
                    panel: S::ALL * V::LANES,
                },
                out: sums,
            };
            let input = Preactivation {
                h: operand(&h, h_stride, 0),
                ..whole
            };
            let state = Preactivation {
                x: operand(&x, x_stride, 0),
                weights: weights[x_columns * S::INPUT.1 * V::LANES..].as_ptr(),
                start: sums.reading(),
                ..whole
            };
            let parts = if ahead {
                vec![input, state]
            } else {
                vec![whole]
            };
            for part in parts {
                // SAFETY: the operands have MAX_ROWS rows, weights and bias four panels, the
                // shape fits and the CPU has what `on_every_isa` names.
                unsafe { part.run::<V, S>(rows, panels) };
            }
            let sums = &out.0[..rows * panels * S::ALL * V::LANES];
            for (i, &found) in sums.iter().enumerate() {
                let (vector, lane) = (i / V::LANES, i % V::LANES);
                let (tile, slot) = (vector / S::ALL, vector % S::ALL);
                let (row, p) = (tile / panels, tile % panels);
                assert_close(found, expected(row, p, slot, lane), x_columns + h_columns);
                let place = ((row * 4 + p) * S::ALL + slot) * V::LANES + lane;
                assert_eq!(*first_bits[place].get_or_insert(found), found);
            }
        }
    }
}

#[test]
fn preactivations_of_every_tile() {
    for (x, h) in [(0, 0), (1, 0), (0, 5), (7, 16), (33, 21)] {
        on_every_isa!(f32: preactivations::<Joint<1>>(x, h));
        on_every_isa!(f32: preactivations::<Joint<4>>(x, h));
        on_every_isa!(f32: preactivations::<Staggered>(x, h));
        on_every_isa!(f64: preactivations::<Joint<1>>(x, h));
        on_every_isa!(f64: preactivations::<Joint<4>>(x, h));
        on_every_isa!(f64: preactivations::<Staggered>(x, h));
    }
}

/// What a product of `rows` rows and `columns` column panels reads and should give.
struct Case<E> {
    a: Vec<E>,
    weights: Vec<E>,
    before: Vec<E>,
    of: Product<E>,
}

impl<E: Real> Case<E> {
    const GAP: usize = 3;

    fn new<V: Vector<Element = E>>(rows: usize, columns: usize, depth: usize, add: bool) -> Self {
        let panels = 3;
        let a_row = depth + Self::GAP;
        let a_panel = rows * a_row + 1;
        let out_row = columns * V::LANES + Self::GAP;
        let mut case = Case {
            a: noise(panels * a_panel, 1),
            weights: noise(columns * panels * depth * V::LANES, 2),
            before: noise(rows * out_row, 3),
            of: Product {
                a: std::ptr::null(),
                a_row,
                a_panel,
                panels,
                weights: Factor::packed(std::ptr::null(), (panels, depth), V::LANES),
                out: std::ptr::null_mut(),
                out_row,
                add,
            },
        };
        (case.of.a, case.of.weights.gates[0]) = (case.a.as_ptr(), case.weights.as_ptr());
        case
    }

    fn check<V: Vector<Element = E>>(&self, out: &[E], width: usize) {
        let of = &self.of;
        for (i, (&found, &before)) in out.iter().zip(&self.before).enumerate() {
            let (row, column) = (i / of.out_row, i % of.out_row);
            if column >= width {
                assert_eq!(found, before, "a gap is left alone");
                continue;
            }
            let mut sum = if of.add { before.to_f64() } else { 0.0 };
            for panel in 0..of.panels {
                for k in 0..of.weights.depth {
                    let a = self.a[row * of.a_row + panel * of.a_panel + k];
                    let line = (column / V::LANES * of.panels + panel) * of.weights.depth + k;
                    let w = self.weights[line * V::LANES + column % V::LANES];
                    sum += a.to_f64() * w.to_f64();
                }
            }
            assert_close(found, sum, of.weights.lines);
        }
    }
}

fn product_tiles<V: Vector>(add: bool) {
    for depth in [0, 1, 9] {
        for (rows, panels) in shapes((1, 1), V::REGISTERS) {
            let case = Case::new::<V>(rows, panels, depth, add);
            // Any address may be asked for.
            let nowhere = Grid {
                at: std::ptr::null(),
                row: usize::MAX / 16,
                panel: 1,
            };
            let next = [(nowhere, 0), (nowhere, 4 * V::LANES)];
            let [out, other, none] = [
                Meanwhile::Rows,
                Meanwhile::Next {
                    grids: &next,
                    at_once: 5,
                },
                Meanwhile::Next {
                    grids: &[],
                    at_once: 1,
                },
            ]
            .map(|meanwhile| {
                let mut out = case.before.clone();
                let of = Product {
                    out: out.as_mut_ptr(),
                    ..case.of
                };
                // SAFETY: the case has these rows and panels, and the shape fits.
                unsafe { of.tile::<V>(rows, panels, meanwhile) };
                out
            });
            assert!(out == other && out == none);
            case.check::<V>(&out, panels * V::LANES);
        }
    }
}

fn products<V: Vector>(add: bool) {
    for rows in [0, 1, 2, 5, 12, 13, 30] {
        for columns in 0..7 {
            let case = Case::new::<V>(rows, columns, 4, add);
            // With all of the last panel, or without some of it.
            let most = columns * V::LANES;
            for width in [
                most,
                most.saturating_sub(1),
                most.saturating_sub(V::LANES - 1),
            ] {
                let mut out = case.before.clone();
                let of = Product {
                    out: out.as_mut_ptr(),
                    ..case.of
                };
                // SAFETY: the case has these rows and columns.
                unsafe { of.within::<V>(0..rows, 0..columns, width) };
                case.check::<V>(&out, width);
            }
        }
    }
}

#[test]
fn products_of_every_tile_and_size() {
    for add in [false, true] {
        on_every_isa!(f32: product_tiles(add));
        on_every_isa!(f64: product_tiles(add));
        on_every_isa!(f32: products(add));
        on_every_isa!(f64: products(add));
    }
}
