//! Blocks and totals against sums in double precision, on every instruction set.

use super::*;
use crate::kernel::tests::{assert_close, columns, noise};
use crate::simd::on_every_isa;

/// Two pieces of rows: slots `slot_row` apart and each source's columns `x_row` apart.
struct TwoPieces<E> {
    slots: Vec<E>,
    x: [Vec<E>; SOURCES],
    slot_row: usize,
    x_row: usize,
}

impl<E: Real> TwoPieces<E> {
    const PIECES: [usize; 2] = [3, 2];

    fn new(slot_row: usize, x_row: usize) -> Self {
        let rows: usize = Self::PIECES.iter().sum();
        TwoPieces {
            slots: noise(rows * slot_row, 1),
            x: [2, 5].map(|seed| noise(rows * x_row, seed)),
            slot_row,
            x_row,
        }
    }

    fn pieces(&self) -> Vec<Piece<E>> {
        let mut first = 0;
        let piece = |rows| {
            let piece = Piece {
                slots: self.slots[first * self.slot_row..].as_ptr(),
                slot_row: self.slot_row,
                from: self.x.each_ref().map(|x| Strided {
                    at: x[first * self.x_row..].as_ptr(),
                    row: self.x_row,
                }),
                rows,
                ahead: 0,
            };
            first += rows;
            piece
        };
        Self::PIECES.map(piece).into()
    }

    /// The sum over all rows of a slot times a source's column.
    fn sum(&self, slot: usize, (source, position): (usize, usize)) -> f64 {
        let slots = self.slots.chunks_exact(self.slot_row);
        let rows = slots.zip(self.x[source].chunks_exact(self.x_row));
        rows.map(|(slots, x)| slots[slot].to_f64() * x[position].to_f64())
            .sum()
    }
}

fn weight_blocks<V: Vector>(add: bool) {
    let lanes = V::LANES;
    for (units, slot) in [(1, 0), (lanes, 0), (lanes - 1, lanes), (13, 5)] {
        for (segments, width) in [(1, 1), (1, lanes), (1, 7 * lanes + 1), (2, 2 * lanes - 1)] {
            let columns = columns(segments, width, width.next_multiple_of(lanes));
            // Of one source and the other by turns.
            let source = |position: usize| position / lanes % SOURCES;
            let panels: Vec<_> = (0..columns.stride())
                .step_by(lanes)
                .map(|position| ColumnPanel {
                    source: source(position),
                    position,
                    column: columns.column(position).unwrap(),
                    count: (columns.width - position % columns.padded).min(lanes),
                })
                .collect();
            let rows = TwoPieces::<V::Element>::new(slot + units, columns.stride());
            // A row more, which stays as it is.
            let before: Vec<V::Element> = noise((units + 1) * columns.real(), 3);
            let mut out = [before.clone(), before.clone()];
            let block = Block {
                pieces: &rows.pieces(),
                slot,
                to: out.each_mut().map(|out| Strided {
                    at: out.as_mut_ptr(),
                    row: columns.real(),
                }),
                add,
            };
            // SAFETY: the rows have these slots and columns, the matrices these units.
            unsafe { block.run::<V>(units, &panels) };
            for (of, out) in out.iter().enumerate() {
                let mut expected = before.clone();
                for unit in 0..units {
                    for position in 0..columns.stride() {
                        let column = columns.column(position);
                        let Some(column) = column.filter(|_| source(position) == of) else {
                            continue;
                        };
                        let place = unit * columns.real() + column;
                        let start = if add { before[place].to_f64() } else { 0.0 };
                        let sum = start + rows.sum(slot + unit, (of, position));
                        assert_close(out[place], sum, 5);
                        expected[place] = out[place];
                    }
                }
                // What belongs to the other source's columns stays as it is.
                assert_eq!(out, &expected);
            }
        }
    }
}

#[test]
fn weight_gradients_of_every_block() {
    for add in [false, true] {
        on_every_isa!(f32: weight_blocks(add));
        on_every_isa!(f64: weight_blocks(add));
    }
}

fn totals<V: Vector>() {
    for slots in 1..=4 {
        let rows = TwoPieces::<V::Element>::new(slots * V::LANES, 1);
        let before: Vec<V::Element> = noise(slots * V::LANES, 4);
        let mut out = before.clone();
        let totals = Totals {
            pieces: &rows.pieces(),
            slots,
            out: out.as_mut_ptr(),
        };
        // SAFETY: the rows have these slots, and so has the result.
        unsafe { V::invoke(totals) };
        for (slot, (&found, &before)) in out.iter().zip(&before).enumerate() {
            let column = rows.slots[slot..].iter().step_by(rows.slot_row);
            let sum: f64 = column.map(|&g| g.to_f64()).sum();
            assert_close(found, before.to_f64() + sum, 5);
        }
    }
}

#[test]
fn totals_of_every_slot() {
    on_every_isa!(f32: totals());
    on_every_isa!(f64: totals());
}

fn by_column<V: Vector>() {
    const SLOTS: usize = 2;
    const IDS: [u32; 5] = [3, 1, 3, 0, 2];
    let (lanes, columns) = (V::LANES, 1..4);
    let rows = TwoPieces::<V::Element>::new((SLOTS + 1) * lanes, 1);
    let before: Vec<V::Element> = noise(columns.len() * SLOTS * lanes, 4);
    let mut out = before.clone();
    let sums = ByColumn {
        pieces: &rows.pieces(),
        ids: &IDS,
        columns: columns.clone(),
        slot: lanes,
        slots: SLOTS,
        out: out.as_mut_ptr(),
    };
    // SAFETY: the rows have a slot more than these, and the result as many for each column.
    unsafe { V::invoke(sums) };
    for (i, (&found, &before)) in out.iter().zip(&before).enumerate() {
        let (column, place) = (columns.start + i / (SLOTS * lanes), i % (SLOTS * lanes));
        let own = IDS.iter().zip(rows.slots.chunks_exact(rows.slot_row));
        let own = own.filter(|&(&id, _)| id as usize == column);
        let sum: f64 = own.map(|(_, slots)| slots[lanes + place].to_f64()).sum();
        assert_close(found, before.to_f64() + sum, 5);
    }
}

#[test]
fn sums_by_column_are_those_of_its_rows() {
    on_every_isa!(f32: by_column());
    on_every_isa!(f64: by_column());
}
