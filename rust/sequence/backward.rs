//! The time loop in reverse, and the gradient of the input.

use std::ops::Range;
use std::ptr;

use super::Sweep;
use super::slice::Slice;
use crate::kernel::pointwise::{Pointwise, PointwiseBackward};
use crate::kernel::preactivation::Slots;
use crate::kernel::product::{Meanwhile, Product, whole_tiles};
use crate::kernel::{Gathered, Grid, SCRATCH, runs};
use crate::layer::{BackwardPack, Descent, Geometry, InputGradient};
use crate::simd::{Real, Vector};

/// Bytes to ask the caches for at a time: about as many lines as a core waits for at once. (Spread
/// evenly over the product, or asked for all before it, they take up to 4 % longer.)
const AT_ONCE: usize = 24 * 64;

/// See [`super::Kernels::backward`].
///
/// # Safety
/// As stated there.
pub(super) unsafe fn backward<V: Vector, S: Slots>(
    pointwise: &Pointwise<V::Element>,
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    slice: &Slice<V::Element>,
    own: usize,
) {
    const { assert!(V::REGISTERS * V::LANES <= SCRATCH) };
    let (steps, rows) = (sweep.steps, &slice.rows);
    let state_panels = g.state_padded() / V::LANES;
    let mut member = slice.member(own);
    let mut gathered = Gathered::new();
    let weights = match g.projects() {
        true => pack.projection.factor(0, V::LANES),
        false => pack.state.factor(0, V::LANES),
    };
    for visit in steps.walk_in(descent.round.clone(), sweep.reverse).rev() {
        let last = steps.count(visit.step).clamp(rows.start, rows.end);
        if last == rows.start {
            continue;
        }
        let within = |step: Option<usize>| {
            step.map_or(0, |step| steps.count(step))
                .clamp(rows.start, last)
        };
        // Rows that go on, then rows that end here; and which of them start here.
        let (going_on, started) = (within(visit.after), within(visit.before));
        let cuts = [
            rows.start,
            going_on.min(started),
            going_on.max(started),
            last,
        ];
        let cuts = || {
            let cuts = cuts.windows(2).map(|cut| cut[0]..cut[1]);
            cuts.filter(|range| !range.is_empty()).map(|range| {
                let after = visit.after.filter(|_| range.end <= going_on);
                let before = visit.before.filter(|_| range.end <= started);
                (range, before, after)
            })
        };
        let mut goes_on = !g.projects()
            || member.share(|part| {
                let columns = slice.panels(state_panels, part);
                for (range, _, after) in cuts() {
                    let step = (visit.step, after);
                    // SAFETY: as in `forward`; the slots of the step after hold gradients.
                    unsafe {
                        let columns = columns.clone();
                        state_gradient::<V, S>(g, pack, sweep, descent, step, range, columns);
                    }
                }
            });
        goes_on = goes_on
            && member.share(|part| {
                for (range, before, after) in cuts() {
                    let panels = slice.panels(g.panels(), part);
                    let (most, wide) = weights.tile_shape::<V>(range.len(), panels.len());
                    for (panel, panels) in runs(panels, wide).flat_map(whole_tiles) {
                        for rows in Gathered::<V::Element>::runs(range.clone(), most) {
                            // SAFETY: as in `forward`; all of the step after is done.
                            unsafe {
                                backward_step::<V, S>(
                                    pointwise,
                                    g,
                                    pack,
                                    sweep,
                                    descent,
                                    (visit.step, before, after),
                                    (panel, panels),
                                    (rows, most),
                                    &mut gathered,
                                );
                            }
                        }
                    }
                }
            });
        if !descent.dh0.is_null() && started < last {
            goes_on = goes_on
                && member.share(|part| {
                    let columns = slice.panels(state_panels, part);
                    // SAFETY: the slots of this step hold gradients by now; dh0 has B rows of Wp.
                    unsafe {
                        let rows = started..last;
                        initial_gradient::<V, S>(
                            g, pack, sweep, descent, visit.step, rows, columns,
                        );
                    }
                });
        }
        if !goes_on {
            return;
        }
    }
    let is_last = match sweep.reverse {
        true => descent.round.end == steps.longest(),
        false => descent.round.start == 0,
    };
    if descent.dh0.is_null() || !is_last {
        return;
    }
    let _last = member.share(|part| {
        let columns = slice.panels(state_panels, part);
        // What no step changes: the states of empty sequences.
        for row in rows.clone().filter(|&row| steps.lengths()[row] == 0) {
            let at = row * g.state_padded() + columns.start * V::LANES;
            let count = columns.len() * V::LANES;
            // SAFETY: dh_last and dh0 have B rows of Wp numbers.
            unsafe {
                ptr::copy_nonoverlapping(descent.dh_last.add(at), descent.dh0.add(at), count);
            }
        }
    });
}

/// Panels of the gradient of a projected state at a step, of rows that all go on to step `after`
/// or end.
///
/// # Safety
/// As [`super::Kernels::backward`]; steps, rows and columns are in range, and the slots of the
/// step after hold gradients.
unsafe fn state_gradient<V: Vector, S: Slots>(
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    (step, after): (usize, Option<usize>),
    rows: Range<usize>,
    columns: Range<usize>,
) {
    let width = g.state_padded();
    let (first, count) = (columns.start * V::LANES, columns.len() * V::LANES);
    // SAFETY: the caller vouches for the sizes of all buffers.
    unsafe {
        for row in rows.clone() {
            let to = descent.dh_at(g, step, row).add(first);
            let to = std::slice::from_raw_parts_mut(to, count);
            match after {
                Some(_) => to.fill(V::Element::ZERO),
                None => ptr::copy_nonoverlapping(
                    descent.dh_last.add(row * width + first),
                    to.as_mut_ptr(),
                    count,
                ),
            }
            if !descent.dy.is_null() {
                let above = descent
                    .dy
                    .add(descent.dy_strides.at(sweep.steps, step, row) + first);
                for (lane, to) in to.iter_mut().enumerate() {
                    *to += *above.add(lane);
                }
            }
        }
        if let Some(after) = after {
            Product {
                out: descent.dh_at(g, step, 0),
                out_row: width,
                add: true,
                ..to_state::<V, S>(g, pack, sweep, descent, (after, 0, 0))
            }
            .all::<V>(rows, columns);
        }
    }
}

/// A step of some rows in reverse, `most` a tile: what comes from the step after, then gradients of
/// the sums.
///
/// # Safety
/// As [`super::Kernels::backward`]; step, rows and panels are in range, and what comes from the step
/// after can be gathered for these rows.
#[expect(clippy::too_many_arguments, reason = "it has three coordinates")]
unsafe fn backward_step<V: Vector, S: Slots>(
    pointwise: &Pointwise<V::Element>,
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    (step, before, after): (usize, Option<usize>, Option<usize>),
    (panel, panels): (usize, usize),
    ((row, count), most): ((usize, usize), usize),
    gathered: &mut Gathered<V::Element>,
) {
    let steps = sweep.steps;
    let column = panel * V::LANES;
    // SAFETY: the caller vouches for the sizes of all buffers.
    unsafe {
        // The gradient of what the cell gave is a product that is gathered: with the
        // projection, or with the state's weights. Rows that end here were given it.
        let product = match after {
            _ if g.projects() => Some(to_projected::<V>(g, pack, descent, (step, panel, row))),
            Some(after) => {
                let from = (after, panel, row);
                Some(to_state::<V, S>(g, pack, sweep, descent, from))
            }
            None => None,
        };
        let products = gathered.grid(panels, V::LANES);
        let later = match product {
            Some(_) => products.reading(),
            None => Grid {
                at: descent.dh_last.add(row * g.padded() + column),
                row: g.padded(),
                panel: V::LANES,
            },
        };
        let h_before = sweep.h_before(g, before, row);
        let h = match g.projects() {
            true => sweep.projected(g, step, row).reading(),
            false => sweep.h_before(g, Some(step), row),
        };
        let above = (!descent.dy.is_null() && !g.projects()).then(|| Grid {
            at: descent
                .dy
                .add(descent.dy_strides.at(steps, step, row) + column),
            row: descent.dy_strides.row,
            panel: V::LANES,
        });
        let tile = PointwiseBackward {
            rows: count,
            panels,
            later,
            above,
            h_before: Grid {
                at: h_before.at.wrapping_add(column),
                ..h_before
            },
            h: Grid {
                at: h.at.wrapping_add(column),
                ..h
            },
            memory_before: sweep.memory_at(g, before, panel, row).reading(),
            saved: sweep.saved_at(g, step, panel, row).reading(),
            carry: Grid {
                at: descent.carry.add((panel * steps.batch() + row) * V::LANES),
                row: V::LANES,
                panel: steps.batch() * V::LANES,
            },
            slots: descent.slots_at(g, steps, (step, panel, row)),
        };
        if let Some(product) = product {
            let (found, kept) = tile.kept(&g.signature, V::LANES);
            let far = if sweep.outgrows_cache(g) { found } else { 0 };
            let numbers: usize = kept.iter().map(|(_, of_row)| of_row * panels).sum();
            let at_once = AT_ONCE / (numbers * size_of::<V::Element>()).max(1);
            for (part, rows) in runs(0..count, most) {
                let kept = kept.map(|(grid, of_row)| (grid.from(part), of_row));
                let meanwhile = Meanwhile::Next {
                    grids: &kept[..far],
                    at_once: at_once.max(rows.div_ceil(product.panels.max(1))),
                };
                Product {
                    a: product.a.wrapping_add(part * product.a_row),
                    out: products.at.add(part * products.row),
                    out_row: products.row,
                    ..product
                }
                .tile::<V>(rows, panels, meanwhile);
            }
        }
        (pointwise.backward)(&tile);
    }
}

/// The product of a step's gradients with the state's weights, from column panel `panel` on;
/// the result is still to be placed.
///
/// # Safety
/// As [`super::Kernels::backward`]; step, row and panel are in range.
unsafe fn to_state<V: Vector, S: Slots>(
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    (step, panel, row): (usize, usize, usize),
) -> Product<V::Element> {
    // SAFETY: the slots have this step and row.
    let slots = unsafe { descent.slots_at(g, sweep.steps, (step, 0, row)) };
    Product {
        a: slots.at.cast_const().wrapping_add(S::STATE.0 * V::LANES),
        a_row: slots.row,
        a_panel: slots.panel,
        panels: g.panels(),
        weights: pack.state.factor(panel, V::LANES),
        out: ptr::null_mut(),
        out_row: 0,
        add: false,
    }
}

/// The product of the gradients of a step's projected states with the projection, from row `row`
/// and panel `panel` on; the result is still to be placed.
///
/// # Safety
/// As [`super::Kernels::backward`]; step, row and panel are in range.
unsafe fn to_projected<V: Vector>(
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    descent: &Descent<V::Element>,
    (step, panel, row): (usize, usize, usize),
) -> Product<V::Element> {
    let width = g.state_padded();
    Product {
        // SAFETY: dh has this row.
        a: unsafe { descent.dh_at(g, step, row).cast_const() },
        a_row: width,
        a_panel: V::LANES,
        panels: width / V::LANES,
        weights: pack.projection.factor(panel, V::LANES),
        out: ptr::null_mut(),
        out_row: 0,
        add: false,
    }
}

/// Panels of the gradient of the initial hidden state but for what is carried, for rows that start
/// at `step`.
///
/// # Safety
/// As [`super::Kernels::backward`]; `dh0` is not null and the step's slots hold gradients.
unsafe fn initial_gradient<V: Vector, S: Slots>(
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    step: usize,
    rows: Range<usize>,
    columns: Range<usize>,
) {
    // SAFETY: the caller vouches for dh0, which has B rows.
    unsafe {
        let product = Product {
            out: descent.dh0,
            out_row: g.state_padded(),
            ..to_state::<V, S>(g, pack, sweep, descent, (step, 0, 0))
        };
        product.all::<V>(rows, columns);
    }
}

/// See [`super::Kernels::input_gradient`].
///
/// # Safety
/// As stated there.
pub(super) unsafe fn input_gradient<V: Vector, S: Slots>(
    g: &Geometry,
    pack: &BackwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    descent: &Descent<V::Element>,
    range: Range<usize>,
    dx: &InputGradient<V::Element>,
) {
    let steps = sweep.steps;
    let panels = dx.width.div_ceil(V::LANES);
    let weights = pack.input.factor(0, V::LANES);
    let (_, most) = weights.tile_shape::<V>(steps.rows_of(&range).len(), panels);
    for (column, wide) in runs(0..panels, most) {
        let mut step = range.start;
        while step < range.end {
            let count = steps.count(step);
            // Steps of one row each lie evenly spaced, up to the end of the ring: they are the rows
            // of one product.
            let places = &descent.places[step..range.end];
            let alone = match count {
                1 => places.partition_point(|&place| place >= places[0]),
                _ => 1,
            };
            let a_row = if count == 1 { g.panels() } else { 1 } * g.slot_row();
            let out_row = match count {
                1 => dx.strides.to_next(steps, step),
                _ => dx.strides.row,
            };
            // SAFETY: slots, dx and the packed weights are sized as `Sweep` states.
            unsafe {
                let slots = descent.slots_at(g, steps, (step, 0, 0));
                Product {
                    a: slots.at.cast_const().add(S::INPUT.0 * V::LANES),
                    a_row,
                    a_panel: slots.panel,
                    panels: g.panels(),
                    weights: pack.input.factor(column, V::LANES),
                    out: dx.at.add(dx.strides.at(steps, step, 0) + column * V::LANES),
                    out_row,
                    add: dx.add,
                }
                .within::<V>(
                    0..count * alone,
                    0..wide,
                    dx.width - column * V::LANES,
                );
            }
            step += alone;
        }
    }
}
