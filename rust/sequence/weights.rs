//! Weight gradients of one direction, from the gradients of its slots.

use std::ops::Range;
use std::ptr;

use super::Sweep;
use crate::kernel::Grid;
use crate::kernel::preactivation::Slots;
use crate::kernel::weight::{Block, ByColumn, ColumnPanel, DEPTH, Piece, SOURCES, Strided, Totals};
use crate::layer::{Descent, Geometry, Matrix, WeightGradients, WeightUnit};
use crate::simd::{Real, Vector};

/// Writes a unit's share; see [`super::Kernels::weights`].
///
/// # Safety
/// As stated there.
pub(super) unsafe fn weights<V: Vector, S: Slots>(
    g: &Geometry,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    unit: &WeightUnit,
    gradients: &WeightGradients<V::Element>,
) {
    if let (&[(Matrix::Input, ref columns)], Some(ids)) = (&unit.columns[..], sweep.ids) {
        let from = (ids, unit.panels.clone(), columns.clone());
        // SAFETY: passed on from the caller.
        return unsafe { weights_by_column::<V>(g, sweep, descent, from, gradients) };
    }
    // Of each source: the matrix's shape, its gradient, and its column panels among all.
    let mut sources = Vec::with_capacity(SOURCES);
    let mut columns = Vec::new();
    for (source, (matrix, positions)) in unit.columns.iter().enumerate() {
        let of = g.shape(*matrix);
        let to = match matrix {
            Matrix::Input => gradients.input,
            Matrix::State => gradients.state,
            Matrix::Projection => gradients.projection,
        };
        let first = columns.len();
        let panels = ColumnPanel::all(source, of.columns, positions.clone(), V::LANES);
        columns.extend(panels);
        sources.push((*matrix, of, to, first..columns.len()));
    }
    // Matrices that multiply for the same sums have the same units.
    let all_units = sources[0].1.units;
    let mut totals = vec![V::Element::ZERO; unit.panels.len() * g.slot_row()];
    if unit.with_bias && gradients.add {
        // SAFETY: passed on from the caller.
        unsafe {
            each_bias::<V>(g, unit, gradients, |bias, local| totals[local] = *bias);
        }
    }
    let matrices: Vec<_> = sources.iter().map(|source| source.0).collect();
    let mut pieces = Vec::new();
    let mut add = gradients.add;
    let blocks = |piece| sweep.steps.blocks(piece, DEPTH);
    for block in descent.pieces.iter().flat_map(blocks) {
        for panel in unit.panels.clone() {
            let local = (panel - unit.panels.start) * g.slot_row();
            let first = panel * V::LANES;
            let units = (all_units - first).min(V::LANES);
            // SAFETY: rows and panel are the batch's and the layer's.
            unsafe {
                let from = (&matrices[..], panel, block.clone());
                gather(g, sweep, descent, from, &mut pieces);
                if unit.with_bias {
                    V::invoke(Totals {
                        pieces: &pieces,
                        slots: S::ALL,
                        out: totals[local..].as_mut_ptr(),
                    });
                }
                for slot in 0..S::ALL {
                    let mut to = [Strided {
                        at: ptr::null_mut(),
                        row: 0,
                    }; SOURCES];
                    // The columns of the sources that feed the slot: those of one follow the other's.
                    let mut fed: Option<Range<usize>> = None;
                    for (to, (_, of, matrix, columns)) in to.iter_mut().zip(&sources) {
                        let Some(gate) = of.feed.gate(slot) else {
                            continue;
                        };
                        let width = of.columns.real();
                        *to = Strided {
                            at: matrix.wrapping_add((gate * of.units + first) * width),
                            row: width,
                        };
                        let start = fed.map_or(columns.start, |fed| fed.start);
                        fed = Some(start..columns.end);
                    }
                    Block {
                        pieces: &pieces,
                        slot: slot * V::LANES,
                        to,
                        add,
                    }
                    .run::<V>(units, &columns[fed.unwrap_or_default()]);
                }
            }
        }
        add = true;
    }
    if unit.with_bias {
        // SAFETY: passed on from the caller.
        unsafe {
            each_bias::<V>(g, unit, gradients, |bias, local| *bias = totals[local]);
        }
    }
}

/// Calls `visit` with each bias of a unit's panels and its place among their totals,
/// `[panel][slots][L]`.
///
/// # Safety
/// As [`super::Kernels::weights`].
unsafe fn each_bias<V: Vector>(
    g: &Geometry,
    unit: &WeightUnit,
    gradients: &WeightGradients<V::Element>,
    mut visit: impl FnMut(&mut V::Element, usize),
) {
    for (feed, to) in [
        (g.signature.input, gradients.input_bias),
        (g.signature.state, gradients.state_bias),
    ] {
        let Some(to) = to else { continue };
        for (i, gate) in feed.gates.iter().enumerate() {
            for panel in unit.panels.clone() {
                let local = (panel - unit.panels.start) * g.slot_row();
                let local = local + (feed.first + i) * V::LANES;
                let first = panel * V::LANES;
                for lane in 0..(g.hidden - first).min(V::LANES) {
                    // SAFETY: the unit is below H, and this panel's biases are the caller's alone.
                    unsafe { visit(&mut *to.add(gate * g.hidden + first + lane), local + lane) }
                }
            }
        }
    }
}

/// The same for the input's matrix where its columns were looked up. Biases are never its work:
/// they go with the state's matrix.
///
/// # Safety
/// As [`super::Kernels::weights`].
unsafe fn weights_by_column<V: Vector>(
    g: &Geometry,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    (ids, panels, columns): (&[u32], Range<usize>, Range<usize>),
    gradients: &WeightGradients<V::Element>,
) {
    let feed = g.signature.input;
    let slots = feed.gates.len();
    let mut pieces = Vec::new();
    for panel in panels {
        // SAFETY: there is room for every panel and column, and these are this unit's alone.
        let sums = unsafe {
            let each = slots * V::LANES;
            let first = (panel * g.input.extent() + columns.start) * each;
            let sums = gradients.looked_up.add(first);
            std::slice::from_raw_parts_mut(sums, columns.len() * each)
        };
        let first = panel * V::LANES;
        let units = (g.hidden - first).min(V::LANES);
        // Each number of the matrix with its place among the sums.
        let each = |visit: &mut dyn FnMut(&mut V::Element, usize)| {
            for (slot, gate) in feed.gates.iter().enumerate() {
                for lane in 0..units {
                    let row = (gate * g.hidden + first + lane) * g.input.real();
                    for (local, column) in columns.clone().enumerate() {
                        let place = (local * slots + slot) * V::LANES + lane;
                        // SAFETY: row and column are in the matrix, and this unit's alone.
                        unsafe { visit(&mut *gradients.input.add(row + column), place) }
                    }
                }
            }
        };
        match (gradients.first, gradients.add) {
            (true, true) => each(&mut |number, place| sums[place] = *number),
            (true, false) => sums.fill(V::Element::ZERO),
            (false, _) => {}
        }
        for piece in descent.pieces {
            let rows = sweep.steps.rows_of(piece);
            // SAFETY: rows and panel are the batch's and the layer's; `Stack::forward` checked the
            // ids.
            unsafe {
                let from = (&[Matrix::Input][..], panel, rows.clone());
                gather(g, sweep, descent, from, &mut pieces);
                V::invoke(ByColumn {
                    pieces: &pieces,
                    ids: &ids[rows],
                    columns: columns.clone(),
                    slot: feed.first * V::LANES,
                    slots,
                    out: sums.as_mut_ptr(),
                });
            }
        }
        if gradients.last {
            each(&mut |number, place| *number = sums[place]);
        }
    }
}

/// Packed rows `rows` as pieces: where the gradients of a panel's slots lie, or of its columns of the
/// hidden state, and the rows that the matrices were multiplied with for them: of the input, of the
/// state before, or of what was projected, which has no other beside it.
///
/// # Safety
/// The round has these rows and the layer this panel.
unsafe fn gather<E: Real>(
    g: &Geometry,
    sweep: &Sweep<E>,
    descent: &Descent<E>,
    (matrices, panel, rows): (&[Matrix], usize, Range<usize>),
    pieces: &mut Vec<Piece<E>>,
) {
    let (steps, of_state) = (sweep.steps, matrices.contains(&Matrix::State));
    pieces.clear();
    let mut at = rows.start;
    // Whether the last piece's rows are initial states, which are another allocation than y.
    let mut initial = false;
    while at < rows.end {
        let step = steps.step_of(at);
        let count = steps.count(step);
        let first = at - steps.offset(step);
        let mut last = (first + rows.end - at).min(count);
        let mut before = None;
        if of_state && let Some(step) = steps.before(step, sweep.reverse) {
            // Rows that come from the step before, then rows that start here.
            let started = steps.count(step);
            if first < started {
                before = Some(step);
                last = last.min(started);
            }
        }
        // SAFETY: slots, x, y and h0 have the rows that `Sweep` and `Descent` state.
        unsafe {
            let source = |matrix: &Matrix| match matrix {
                Matrix::State => {
                    let h = sweep.h_before(g, before, first);
                    let row = match before {
                        Some(before) if count == 1 => sweep.y_strides.to_next(steps, before),
                        _ => h.row,
                    };
                    Strided { at: h.at, row }
                }
                Matrix::Input => {
                    let strides = sweep.x_strides;
                    let at = strides.at(steps, step, first);
                    let row = match count {
                        1 => strides.to_next(steps, step),
                        _ => strides.row,
                    };
                    Strided {
                        at: sweep.x.wrapping_add(at),
                        row,
                    }
                }
                Matrix::Projection => {
                    let m = sweep.projected(g, step, first).reading();
                    Strided {
                        at: m.at,
                        row: m.row,
                    }
                }
            };
            let mut from = [source(&matrices[0]); SOURCES];
            for (from, matrix) in from.iter_mut().zip(matrices) {
                *from = source(matrix);
            }
            let (slots, apart) = match matrices[0] {
                Matrix::Projection => {
                    let dh = descent.dh_at(g, step, first).add(panel * g.lanes);
                    let row = g.state_padded();
                    let slots = Grid {
                        at: dh,
                        row,
                        panel: g.lanes,
                    };
                    (slots, row)
                }
                _ => {
                    let slots = descent.slots_at(g, steps, (step, panel, first));
                    (slots, g.panels() * g.slot_row())
                }
            };
            let next = Piece {
                slots: slots.at,
                slot_row: slots.row,
                from,
                rows: last - first,
                ahead: slots.panel,
            };
            match pieces.last_mut() {
                // Steps of one row each lie evenly spaced: they are one piece.
                Some(piece)
                    if count == 1
                        && initial == (of_state && before.is_none())
                        && follows(piece, &next, apart) =>
                {
                    piece.slot_row = apart;
                    piece.rows += 1;
                }
                _ => pieces.push(next),
            }
        }
        initial = of_state && before.is_none();
        at += last - first;
    }
}

/// Whether the single row of `next` goes on where `piece` ends, its slots `apart` from the row before.
fn follows<E>(piece: &Piece<E>, next: &Piece<E>, apart: usize) -> bool {
    let even = piece.rows == 1 || piece.slot_row == apart;
    let mut sources = piece.from.iter().zip(&next.from);
    even && piece.slots.wrapping_add(piece.rows * apart) == next.slots
        && sources.all(|(of, next)| {
            of.row == next.row && of.at.wrapping_add(piece.rows * of.row) == next.at
        })
}
