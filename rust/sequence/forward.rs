//! The time loop.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use super::Sweep;
use super::slice::{Slice, WORTHWHILE};
use crate::kernel::pointwise::{Pointwise, PointwiseForward};
use crate::kernel::preactivation::{LookUp, Operand, Preactivation, Slots};
use crate::kernel::product::{Factor, Product, whole_tiles};
use crate::kernel::{Gathered, Grid, SCRATCH, prefetch_run, runs, tile_shape};
use crate::layer::{ForwardPack, Geometry, Panels};
use crate::simd::Vector;

/// One thread's pass over a slice.
struct Worker<'a, 'b, V: Vector, S> {
    g: &'a Geometry,
    pack: &'a ForwardPack<'a, V::Element>,
    pointwise: &'a Pointwise<V::Element>,
    sweep: &'a Sweep<'b, V::Element>,
    slice: &'a Slice<V::Element>,
    /// The first of the steps that are multiplied ahead.
    first_ahead: usize,
    gathered: Gathered<V::Element>,
    slots: PhantomData<S>,
}

/// See [`super::Kernels::forward`].
///
/// # Safety
/// As stated there.
pub(super) unsafe fn forward<V: Vector, S: Slots>(
    pointwise: &Pointwise<V::Element>,
    g: &Geometry,
    pack: &ForwardPack<V::Element>,
    sweep: &Sweep<V::Element>,
    slice: &Slice<V::Element>,
    own: usize,
) {
    const { assert!(V::REGISTERS * V::LANES <= SCRATCH) };
    let steps = sweep.steps;
    let (longest, ahead) = (steps.longest(), slice.ahead);
    let bytes = g.forward_panel() * size_of::<V::Element>();
    let mut member = slice.member(own);
    let mut worker = Worker::<V, S> {
        g,
        pack,
        pointwise,
        sweep,
        slice,
        first_ahead: 0,
        gathered: Gathered::new(),
        slots: PhantomData,
    };
    for (i, visit) in steps.walk(sweep.reverse).enumerate() {
        let multiplied = (ahead > 0 && i % ahead == 0).then(|| {
            let end = (i + ahead).min(longest);
            if sweep.reverse {
                longest - end..longest - i
            } else {
                i..end
            }
        });
        if let Some(range) = &multiplied {
            worker.first_ahead = range.start;
        }
        let rows = slice.rows.clone();
        let last = steps.count(visit.step).clamp(rows.start, rows.end);
        if last == rows.start && multiplied.is_none() {
            continue;
        }
        // Rows that come from step `before`, then rows that start here.
        let started = visit
            .before
            .map_or(0, |before| steps.count(before))
            .clamp(rows.start, last);
        let goes_on = member.share(|part| {
            let panels = slice.panels(g.panels(), part);
            if let Some(range) = &multiplied {
                // SAFETY: passed on from the caller.
                unsafe { worker.multiply_ahead(range.clone(), panels.clone()) }
            }
            for (range, before) in [(rows.start..started, visit.before), (started..last, None)] {
                if range.is_empty() {
                    continue;
                }
                if before.is_some() && slice.parts() > 1 {
                    // The others' columns of the state are in their caches.
                    // SAFETY: the step before has these rows.
                    let h = unsafe { sweep.h_before(g, before, range.start) };
                    for row in 0..range.len() {
                        prefetch_run(h.at.wrapping_add(row * h.row), g.width);
                    }
                }
                let (most, wide) =
                    tile_shape(range.len(), (panels.len(), bytes), S::COUNTS, V::REGISTERS);
                let mut tiles = runs(panels.clone(), wide).flat_map(whole_tiles);
                let turned = sweep.turned != (i % 2 == 1);
                while let Some((panel, panels)) = match turned {
                    true => tiles.next_back(),
                    false => tiles.next(),
                } {
                    let step = (visit.step, before);
                    for rows in Gathered::<V::Element>::runs(range.clone(), most) {
                        // SAFETY: rows and panels are within the batch and the layer, for which the
                        // caller vouches that the buffers are sized.
                        unsafe { worker.step(step, (panel, panels), rows, most) }
                    }
                }
            }
        });
        // With a projection, the state is there when all panels of what is projected are.
        let goes_on = goes_on
            && (!g.projects()
                || member.share(|part| {
                    let columns = slice.panels(g.state_padded() / V::LANES, part);
                    // SAFETY: the rows are within the batch, and all their panels are there by now.
                    unsafe { worker.project(visit.step, rows.start..last, columns) }
                }));
        if !goes_on {
            return;
        }
    }
}

impl<V: Vector, S: Slots> Worker<'_, '_, V, S> {
    /// Where the sums of a step that was multiplied ahead lie, from a row and panel on.
    ///
    /// # Safety
    /// The step is one of them, and the row the slice's.
    unsafe fn sums(&self, step: usize, panel: usize, row: usize) -> Grid<*mut V::Element> {
        let (g, sweep, slice) = (self.g, self.sweep, self.slice);
        if slice.sums.is_null() {
            // SAFETY: what is saved has this step, panel and row, with a vector for every slot.
            return unsafe { sweep.saved_at(g, step, panel, row) };
        }
        let rows = slice.rows.len();
        let at = ((step - self.first_ahead) * g.panels() + panel) * rows + row - slice.rows.start;
        Grid {
            // SAFETY: the sums have the slice's rows of every step multiplied ahead.
            at: unsafe { slice.sums.add(at * g.slot_row()) },
            row: g.slot_row(),
            panel: rows * g.slot_row(),
        }
    }

    /// The bias, the same for every row.
    fn bias(&self, panel: usize) -> Grid<*const V::Element> {
        Grid {
            at: self.pack.bias[panel * self.g.slot_row()..].as_ptr(),
            row: 0,
            panel: self.g.slot_row(),
        }
    }

    /// Sums of bias and input for some steps and panels.
    ///
    /// # Safety
    /// As [`super::Kernels::forward`]; the steps are the batch's, and those multiplied ahead now.
    unsafe fn multiply_ahead(&mut self, range: Range<usize>, panels: Range<usize>) {
        let (g, sweep) = (self.g, self.sweep);
        let (steps, rows) = (sweep.steps, &self.slice.rows);
        let bytes = g.forward_panel() * size_of::<V::Element>();
        let (most, wide) = tile_shape(WORTHWHILE, (panels.len(), bytes), S::COUNTS, V::REGISTERS);
        let first = rows.start;
        let packed = self.pack.weights.packed();
        for (panel, panels) in runs(panels, wide).flat_map(whole_tiles) {
            let weights = packed.get((panel, panels), false);
            let mut step = range.start;
            while step < range.end {
                let count = steps.count(step);
                let active = count.min(rows.end).saturating_sub(first);
                // Steps in which one row is ours lie evenly spaced: they are rows of one product.
                let alone = (step..range.end)
                    .take_while(|&next| active == 1 && steps.count(next) == count)
                    .count()
                    .max(1);
                // SAFETY: the caller vouches for the sizes of all buffers.
                unsafe {
                    if active > 0 {
                        let mut out = self.sums(step, panel, first);
                        let mut x_row = sweep.x_strides.row;
                        if alone > 1 {
                            x_row = sweep.x_strides.to_next(steps, step);
                            out.row = self
                                .sums(step + 1, panel, first)
                                .at
                                .offset_from_unsigned(out.at);
                        }
                        for (row, rows) in runs(0..active * alone, most) {
                            let x = sweep.x_strides.at(steps, step, first) + row * x_row;
                            Preactivation {
                                start: self.bias(panel),
                                x: Operand {
                                    at: sweep.x.add(x),
                                    stride: x_row,
                                    columns: g.input.extent(),
                                },
                                h: Operand {
                                    at: sweep.h0,
                                    stride: 0,
                                    columns: 0,
                                },
                                weights,
                                panel: packed.panel,
                                out: Grid {
                                    at: out.at.add(row * out.row),
                                    ..out
                                },
                            }
                            .run::<V, S>(rows, panels);
                        }
                    }
                }
                step += alone;
            }
        }
    }

    /// A step of some rows, `most` a tile: sums, then states.
    ///
    /// # Safety
    /// As [`super::Kernels::forward`]; step, rows and panels are in range, and the sums of these
    /// rows can be gathered.
    unsafe fn step(
        &mut self,
        (step, before): (usize, Option<usize>),
        (panel, panels): (usize, usize),
        (row, count): (usize, usize),
        most: usize,
    ) {
        let (g, sweep) = (self.g, self.sweep);
        let gathered = self.gathered.grid(panels, g.slot_row());
        // SAFETY: the caller vouches for the sizes of all buffers, and for the room.
        unsafe {
            for (part, rows) in runs(0..count, most) {
                let sums = Grid {
                    at: gathered.at.add(part * gathered.row),
                    ..gathered
                };
                self.add_up((step, before), (panel, panels), (row + part, rows), sums);
            }
            let h_before = sweep.h_before(g, before, row);
            let column = panel * V::LANES;
            let saved = (!sweep.saved.is_null()).then(|| sweep.saved_at(g, step, panel, row));
            let out = match g.projects() {
                true => sweep.projected(g, step, row),
                false => Grid {
                    at: sweep.y.add(sweep.y_strides.at(sweep.steps, step, row)),
                    row: sweep.y_strides.row,
                    panel: V::LANES,
                },
            };
            (self.pointwise.forward)(&PointwiseForward {
                rows: count,
                panels,
                units: V::LANES.min(g.hidden - (panel + panels - 1) * V::LANES),
                sums: gathered,
                h_before: Grid {
                    at: h_before.at.wrapping_add(column),
                    ..h_before
                },
                memory_before: sweep.memory_at(g, before, panel, row).reading(),
                h: Grid {
                    at: out.at.add(column),
                    ..out
                },
                memory: sweep.memory_at(g, Some(step), panel, row),
                saved,
            });
        }
    }

    /// The sums of a tile of a step.
    ///
    /// # Safety
    /// As [`super::Kernels::forward`]; step, rows and panels are in range, and the sums have as
    /// many.
    unsafe fn add_up(
        &mut self,
        (step, before): (usize, Option<usize>),
        (panel, panels): (usize, usize),
        (row, count): (usize, usize),
        sums: Grid<*mut V::Element>,
    ) {
        let (g, sweep) = (self.g, self.sweep);
        let steps = sweep.steps;
        let at = steps.offset(step) + row;
        // SAFETY: the caller vouches for the sizes of all buffers.
        unsafe {
            let h_before = sweep.h_before(g, before, row);
            let known_zero = before.is_none() && sweep.h0_is_zero;
            let mut x = Operand {
                at: sweep.x.wrapping_add(sweep.x_strides.at(steps, step, row)),
                stride: sweep.x_strides.row,
                columns: g.input.extent(),
            };
            let h = Operand {
                at: h_before.at,
                stride: h_before.row,
                columns: if known_zero { 0 } else { g.width },
            };
            match &self.pack.weights {
                Panels::Packed(packed) => {
                    // The input's products are there already, looked up, or still to come.
                    let start = if self.slice.ahead > 0 {
                        x.columns = 0;
                        self.sums(step, panel, row).reading()
                    } else if let Some(ids) = sweep.ids {
                        x.columns = 0;
                        V::invoke(LookUp {
                            ids: &ids[at..at + count],
                            panels,
                            weights: packed.get((panel, panels), false),
                            panel: packed.panel,
                            start: self.bias(panel),
                            out: sums,
                            slots: PhantomData::<S>,
                        });
                        sums.reading()
                    } else {
                        self.bias(panel)
                    };
                    Preactivation {
                        start,
                        x,
                        h,
                        weights: packed.get((panel, panels), x.columns == 0),
                        panel: packed.panel,
                        out: sums,
                    }
                    .run::<V, S>(count, panels);
                }
                Panels::Lent(matrices) => {
                    for i in 0..panels {
                        for row in 0..count {
                            let bias = self.bias(panel).get(row, i);
                            ptr::copy_nonoverlapping(bias, sums.get(row, i), g.slot_row());
                        }
                    }
                    for (lent, from, slots) in
                        [(&matrices[0], x, S::INPUT), (&matrices[1], h, S::STATE)]
                    {
                        let sums = Grid {
                            at: sums.at.add(slots.0 * V::LANES),
                            ..sums
                        };
                        if from.columns > 0 {
                            lent.add_products::<V>(g, (panel, panels), from, count, sums);
                        }
                    }
                }
            }
        }
    }

    /// Panels of the hidden state of some rows, from what the cell gave at a step: h' = W_hr m.
    ///
    /// # Safety
    /// As [`super::Kernels::forward`]; step, rows and columns are in range, and the cell's panels
    /// done.
    unsafe fn project(&self, step: usize, rows: Range<usize>, columns: Range<usize>) {
        let (g, sweep) = (self.g, self.sweep);
        // SAFETY: the caller vouches for the sizes of all buffers.
        unsafe {
            let m = sweep.projected(g, step, 0);
            Product {
                a: m.at.cast_const(),
                a_row: m.row,
                a_panel: m.panel,
                panels: g.panels(),
                weights: Factor::packed(
                    self.pack.projection.as_ptr(),
                    (g.panels(), V::LANES),
                    V::LANES,
                ),
                out: sweep.y.add(sweep.y_strides.at(sweep.steps, step, 0)),
                out_row: sweep.y_strides.row,
                add: false,
            }
            .all::<V>(rows, columns);
        }
    }
}
