//! The time loop and its reverse, for any cell and instruction set.

use std::marker::PhantomData;
use std::ops::Range;
use std::ptr;

use crate::cell::{Carry, Cell, CellKind, Gru, Linear, Lstm, Relu, Rnn, Tanh};
use crate::kernel::pointwise::{Grid, PointwiseBackward, PointwiseForward};
use crate::kernel::preactivation::{Joint, Operand, Preactivation, Slots, Staggered};
use crate::kernel::product::{Product, whole_tiles};
use crate::kernel::{SCRATCH, Scratch, runs, tile_shape};
use crate::layer::{
    BackwardPack, Descent, ForwardPack, Geometry, Sweep, WeightGradients, WeightUnit,
};
use crate::simd::{Isa, Real, Vector, portable};

use weights::weights;

mod weights;
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2, avx512};

/// The passes over one direction of a layer, compiled for a cell and an instruction set.
///
/// # Safety
/// Of every method: buffers have the sizes that [`Sweep`] and [`Descent`] state for `geometry`,
/// whose lanes are [`Kernels::lanes`]; weights are packed for it; and no two calls that run at
/// the same time share rows (passes over rows) or units (of weights).
pub(crate) trait Kernels<E: Real>: Sync {
    /// Numbers in a register.
    fn lanes(&self) -> usize;

    /// All steps of some rows.
    unsafe fn forward(
        &self,
        geometry: &Geometry,
        pack: &ForwardPack<E>,
        sweep: &Sweep<E>,
        rows: Range<usize>,
    );

    /// All steps of some rows in reverse: turns saved slots into their gradients.
    unsafe fn backward(
        &self,
        geometry: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        rows: Range<usize>,
    );

    /// Gradient of the input for some steps, from the slots' gradients; added to `dx` if `add`.
    unsafe fn input_gradient(
        &self,
        geometry: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        steps: Range<usize>,
        dx: *mut E,
        add: bool,
    );

    /// Writes a unit's share of the gradients of the weights, from the slots' gradients.
    unsafe fn weights(
        &self,
        geometry: &Geometry,
        sweep: &Sweep<E>,
        unit: &WeightUnit,
        gradients: &WeightGradients<E>,
    );
}

struct Compiled<V, C, S>(PhantomData<fn() -> (V, C, S)>);

impl<V, C, S> Compiled<V, C, S> {
    const NEW: Self = Compiled(PhantomData);
}

/// Scalars with kernels: `f32` and `f64`.
pub trait Element: Real {
    /// The passes for an instruction set and a cell.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn kernels(isa: Isa, kind: CellKind) -> &'static dyn Kernels<Self>;
}

fn by_cell<V: Vector>(kind: CellKind) -> &'static dyn Kernels<V::Element> {
    match kind {
        CellKind::RnnTanh => &Compiled::<V, Rnn<Tanh>, Joint<1>>::NEW,
        CellKind::RnnRelu => &Compiled::<V, Rnn<Relu>, Joint<1>>::NEW,
        CellKind::Lstm => &Compiled::<V, Lstm, Joint<4>>::NEW,
        CellKind::Gru => &Compiled::<V, Gru, Staggered>::NEW,
        CellKind::Linear => &Compiled::<V, Linear, Joint<1>>::NEW,
    }
}

macro_rules! element {
    ($element:ident, $portable:ident, $avx2:ident, $avx512:ident) => {
        impl Element for $element {
            #[allow(private_interfaces)]
            fn kernels(isa: Isa, kind: CellKind) -> &'static dyn Kernels<Self> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => by_cell::<avx512::$avx512>(kind),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => by_cell::<avx2::$avx2>(kind),
                    _ => by_cell::<portable::$portable>(kind),
                }
            }
        }
    };
}

element!(f32, F32x4, F32x8, F32x16);
element!(f64, F64x2, F64x4, F64x8);

impl<E: Real> Sweep<'_, E> {
    /// Numbers before the slots of `row` in `panel` at a step.
    fn slot_index(&self, g: &Geometry, step: usize, panel: usize, row: usize) -> usize {
        (self.steps.offset(step) * g.panels() + panel * self.steps.count(step) + row) * g.slot_row()
    }

    /// The hidden state that comes into a step, from row `row` on.
    unsafe fn h_before(&self, g: &Geometry, before: Option<usize>, row: usize) -> Grid<*const E> {
        // SAFETY: y and h0 have the rows that `Sweep` states.
        let (at, stride) = unsafe {
            match before {
                Some(step) => (
                    self.y
                        .cast_const()
                        .add((self.steps.offset(step) + row) * self.y_stride),
                    self.y_stride,
                ),
                None => (self.h0.add(row * g.padded()), g.padded()),
            }
        };
        Grid {
            at,
            row: stride,
            panel: g.lanes,
        }
    }

    /// The trace after a step, or the initial one.
    unsafe fn trace_at(
        &self,
        g: &Geometry,
        step: Option<usize>,
        panel: usize,
        row: usize,
    ) -> Grid<*mut E> {
        let size = g.trace_row();
        let (base, rows, first) = match step {
            Some(step) if !self.trace.is_null() => (
                self.trace,
                self.steps.count(step),
                self.steps.offset(step) * g.panels(),
            ),
            _ => (self.trace0, self.steps.batch(), 0),
        };
        Grid {
            // SAFETY: the traces have the rows and panels that `Sweep` states.
            at: unsafe { base.add((first + panel * rows + row) * size) },
            row: size,
            panel: rows * size,
        }
    }
}

/// A grid that is only read.
fn reading<E>(grid: Grid<*mut E>) -> Grid<*const E> {
    Grid {
        at: grid.at.cast_const(),
        row: grid.row,
        panel: grid.panel,
    }
}

impl<E: Real, V: Vector<Element = E>, C: Cell, S: Slots> Kernels<E> for Compiled<V, C, S> {
    fn lanes(&self) -> usize {
        V::LANES
    }

    unsafe fn forward(
        &self,
        g: &Geometry,
        pack: &ForwardPack<E>,
        sweep: &Sweep<E>,
        rows: Range<usize>,
    ) {
        let steps = sweep.steps;
        let mut scratch = Scratch([E::ZERO; SCRATCH]);
        for visit in steps.walk(sweep.reverse) {
            let last = steps.count(visit.step).min(rows.end);
            if last <= rows.start {
                continue;
            }
            // Rows that come from step `before`, then rows that start here.
            let started = visit
                .before
                .map_or(0, |before| steps.count(before))
                .clamp(rows.start, last);
            for (range, before) in [(rows.start..started, visit.before), (started..last, None)] {
                if range.is_empty() {
                    continue;
                }
                let (most, wide) = tile_shape(range.len(), S::ALL, V::ACCUMULATORS);
                for (panel, panels) in runs(0..g.panels(), wide).flat_map(whole_tiles) {
                    for (row, count) in runs(range.clone(), most) {
                        // SAFETY: rows and panels are within the batch and the layer, for which
                        // the caller vouches that the buffers are sized.
                        unsafe {
                            self.forward_tile(
                                g,
                                pack,
                                sweep,
                                (visit.step, before),
                                (panel, panels),
                                (row, count),
                                &mut scratch,
                            );
                        }
                    }
                }
            }
        }
    }

    unsafe fn backward(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        rows: Range<usize>,
    ) {
        let steps = sweep.steps;
        let mut scratch = Scratch([E::ZERO; SCRATCH]);
        if !descent.dh0.is_null() {
            // What no step changes: the states of empty sequences.
            for row in rows.clone().filter(|&row| steps.lengths()[row] == 0) {
                // SAFETY: dh_last and dh0 have B rows of Hp numbers.
                unsafe {
                    let at = row * g.padded();
                    ptr::copy_nonoverlapping(
                        descent.dh_last.add(at),
                        descent.dh0.add(at),
                        g.padded(),
                    );
                }
            }
        }
        for visit in steps.walk(sweep.reverse).rev() {
            let last = steps.count(visit.step).min(rows.end);
            if last <= rows.start {
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
            for cut in cuts.windows(2) {
                let range = cut[0]..cut[1];
                if range.is_empty() {
                    continue;
                }
                let after = visit.after.filter(|_| range.end <= going_on);
                let before = visit.before.filter(|_| range.end <= started);
                let (most, wide) = tile_shape(range.len(), 1, V::ACCUMULATORS);
                for (panel, panels) in runs(0..g.panels(), wide).flat_map(whole_tiles) {
                    for (row, count) in runs(range.clone(), most) {
                        // SAFETY: as in `forward`.
                        unsafe {
                            self.backward_tile(
                                g,
                                pack,
                                sweep,
                                descent,
                                (visit.step, before, after),
                                (panel, panels),
                                (row, count),
                                &mut scratch,
                            );
                        }
                    }
                }
            }
            if !descent.dh0.is_null() && started < last {
                // SAFETY: the slots of this step hold gradients by now; dh0 has B rows of Hp.
                unsafe { self.initial_gradient(g, pack, sweep, descent, visit.step, started..last) }
            }
        }
    }

    unsafe fn input_gradient(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        range: Range<usize>,
        dx: *mut E,
        add: bool,
    ) {
        let steps = sweep.steps;
        let (first, slots) = S::INPUT;
        let stride = g.input.stride();
        let panels = stride / V::LANES;
        let depth = slots * V::LANES;
        for (column, wide) in runs(0..panels, 2) {
            let mut step = range.start;
            while step < range.end {
                let count = steps.count(step);
                // Steps of one row each lie evenly spaced: they are the rows of one product.
                let alone = if count == 1 { range.end - step } else { 1 };
                let a_row = if count == 1 { g.panels() } else { 1 } * g.slot_row();
                // SAFETY: slots, dx and the packed weights are sized as `Sweep` states.
                unsafe {
                    Product {
                        a: sweep
                            .slots
                            .cast_const()
                            .add(sweep.slot_index(g, step, 0, 0) + first * V::LANES),
                        a_row,
                        a_panel: count * g.slot_row(),
                        panels: g.panels(),
                        depth,
                        weights: pack
                            .input
                            .as_ptr()
                            .add(column * g.panels() * depth * V::LANES),
                        out: dx.add(steps.offset(step) * stride + column * V::LANES),
                        out_row: stride,
                        add,
                    }
                    .all::<V>(0..count * alone, wide);
                }
                step += alone;
            }
        }
    }

    unsafe fn weights(
        &self,
        g: &Geometry,
        sweep: &Sweep<E>,
        unit: &WeightUnit,
        gradients: &WeightGradients<E>,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { weights::<V, S>(g, sweep, unit, gradients) }
    }
}

impl<E: Real, V: Vector<Element = E>, C: Cell, S: Slots> Compiled<V, C, S> {
    /// A tile of a step: sums, then states.
    ///
    /// # Safety
    /// As [`Kernels::forward`]; step, rows and panels are in range.
    #[allow(clippy::too_many_arguments)]
    unsafe fn forward_tile(
        &self,
        g: &Geometry,
        pack: &ForwardPack<E>,
        sweep: &Sweep<E>,
        (step, before): (usize, Option<usize>),
        (panel, panels): (usize, usize),
        (row, count): (usize, usize),
        scratch: &mut Scratch<E>,
    ) {
        let steps = sweep.steps;
        let at = steps.offset(step) + row;
        // SAFETY: the caller vouches for the sizes of all buffers.
        unsafe {
            let h_before = sweep.h_before(g, before, row);
            let known_zero = before.is_none() && sweep.h0_is_zero;
            Preactivation {
                x: Operand {
                    at: sweep.x.add(at * g.input.stride()),
                    stride: g.input.stride(),
                    columns: g.input.extent(),
                },
                h: Operand {
                    at: h_before.at,
                    stride: h_before.row,
                    columns: if known_zero { 0 } else { g.state_columns() },
                },
                weights: pack.weights.as_ptr().add(panel * g.forward_panel()),
                panel: g.forward_panel(),
                bias: pack.bias.as_ptr().add(panel * g.slot_row()),
            }
            .run::<V, S>(count, panels, scratch);
            let column = panel * V::LANES;
            let saved = (!sweep.slots.is_null()).then(|| Grid {
                at: sweep.slots.add(sweep.slot_index(g, step, panel, row)),
                row: g.slot_row(),
                panel: steps.count(step) * g.slot_row(),
            });
            V::invoke(PointwiseForward {
                rows: count,
                panels,
                sums: Grid {
                    at: scratch.0.as_ptr(),
                    row: panels * g.slot_row(),
                    panel: g.slot_row(),
                },
                h_before: Grid {
                    at: h_before.at.wrapping_add(column),
                    ..h_before
                },
                trace_before: reading(sweep.trace_at(g, before, panel, row)),
                h: Grid {
                    at: sweep.y.add(at * sweep.y_stride + column),
                    row: sweep.y_stride,
                    panel: V::LANES,
                },
                trace: sweep.trace_at(g, Some(step), panel, row),
                saved,
                cell: PhantomData::<C>,
            });
        }
    }

    /// A tile of a step in reverse: what comes from the step after, then gradients of the sums.
    ///
    /// # Safety
    /// As [`Kernels::backward`]; step, rows and panels are in range.
    #[allow(clippy::too_many_arguments)]
    unsafe fn backward_tile(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        (step, before, after): (usize, Option<usize>, Option<usize>),
        (panel, panels): (usize, usize),
        (row, count): (usize, usize),
        scratch: &mut Scratch<E>,
    ) {
        let steps = sweep.steps;
        let column = panel * V::LANES;
        let at = steps.offset(step) + row;
        // SAFETY: the caller vouches for the sizes of all buffers.
        unsafe {
            let later = match after {
                Some(after) if g.signature.is_recurrent() => {
                    let product = Product {
                        out: scratch.0.as_mut_ptr(),
                        out_row: panels * V::LANES,
                        add: false,
                        ..self.to_state(g, pack, sweep, after, row, panel)
                    };
                    product.tile::<V>(count, panels);
                    Grid {
                        at: scratch.0.as_ptr(),
                        row: panels * V::LANES,
                        panel: V::LANES,
                    }
                }
                _ => Grid {
                    at: descent.dh_last.add(row * g.padded() + column),
                    row: g.padded(),
                    panel: V::LANES,
                },
            };
            let h_before = sweep.h_before(g, before, row);
            let above = (!descent.dy.is_null()).then(|| Grid {
                at: descent.dy.add(at * sweep.y_stride + column),
                row: sweep.y_stride,
                panel: V::LANES,
            });
            V::invoke(PointwiseBackward {
                rows: count,
                panels,
                later,
                above,
                h_before: Grid {
                    at: h_before.at.wrapping_add(column),
                    ..h_before
                },
                trace_before: reading(sweep.trace_at(g, before, panel, row)),
                trace: reading(sweep.trace_at(g, Some(step), panel, row)),
                carry: Grid {
                    at: descent.carry.add((panel * steps.batch() + row) * V::LANES),
                    row: V::LANES,
                    panel: steps.batch() * V::LANES,
                },
                slots: Grid {
                    at: sweep.slots.add(sweep.slot_index(g, step, panel, row)),
                    row: g.slot_row(),
                    panel: steps.count(step) * g.slot_row(),
                },
                cell: PhantomData::<C>,
            });
        }
    }

    /// The product of a step's gradients with the state's weights, from column panel `panel` on;
    /// the result is still to be placed.
    ///
    /// # Safety
    /// As [`Kernels::backward`]; step, row and panel are in range.
    unsafe fn to_state(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        step: usize,
        row: usize,
        panel: usize,
    ) -> Product<E> {
        let depth = S::STATE.1 * V::LANES;
        let first = sweep.slot_index(g, step, 0, row) + S::STATE.0 * V::LANES;
        Product {
            // SAFETY: the slots have this step and row.
            a: unsafe { sweep.slots.cast_const().add(first) },
            a_row: g.slot_row(),
            a_panel: sweep.steps.count(step) * g.slot_row(),
            panels: g.panels(),
            depth,
            weights: pack.state[panel * g.panels() * depth * V::LANES..].as_ptr(),
            out: ptr::null_mut(),
            out_row: 0,
            add: false,
        }
    }

    /// The gradient of the initial hidden state, for rows that start at `step`.
    ///
    /// # Safety
    /// As [`Kernels::backward`]; `dh0` is not null and the step's slots hold gradients.
    unsafe fn initial_gradient(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        step: usize,
        rows: Range<usize>,
    ) {
        if !g.signature.is_recurrent() {
            return;
        }
        // SAFETY: the caller vouches for dh0 and carry, which have B rows.
        unsafe {
            let product = Product {
                out: descent.dh0,
                out_row: g.padded(),
                ..self.to_state(g, pack, sweep, step, 0, 0)
            };
            product.all::<V>(rows.clone(), g.panels());
            if g.signature.carry == Carry::Hidden {
                for row in rows {
                    for panel in 0..g.panels() {
                        let carry = (panel * sweep.steps.batch() + row) * V::LANES;
                        let to = descent.dh0.add(row * g.padded() + panel * V::LANES);
                        for lane in 0..V::LANES {
                            *to.add(lane) += *descent.carry.add(carry + lane);
                        }
                    }
                }
            }
        }
    }
}
