//! The time loop and its reverse, for any cell and instruction set.

use std::marker::PhantomData;
use std::ops::Range;

use crate::cell::{
    Cell, CellKind, Function, Gru, LeakyRelu, Lstm, Nonlinearity, Relu, Rnn, Sigmoid, Softsign,
    Tanh,
};
use crate::kernel::Grid;
use crate::kernel::pointwise::Pointwise;
use crate::kernel::preactivation::{Joint, Slots, Staggered};
use crate::layer::{
    BackwardPack, Descent, ForwardPack, Geometry, InputGradient, Sweep, WeightGradients, WeightUnit,
};
use crate::linear::{Products, products};
use crate::simd::{Isa, Real, Vector, portable};
use crate::steps::Steps;

use backward::{backward, input_gradient};
use forward::forward;
pub(crate) use slice::Slice;
use weights::weights;

mod backward;
mod forward;
mod slice;
mod weights;
#[cfg(target_arch = "x86_64")]
use crate::simd::{avx2, avx512};

/// The passes over one direction of a layer, compiled for a cell and an instruction set.
///
/// # Safety
/// Of every method: buffers have the sizes that [`Sweep`] and [`Descent`] state for `geometry`,
/// whose lanes are [`Kernels::lanes`]; weights are packed for it; a slice is of the batch, its team
/// fresh and its calls all alike but for `own`; and no two other calls that run at the same time
/// share rows (passes over rows) or units (of weights).
pub(crate) trait Kernels<E: Real>: Sync {
    /// Numbers in a register.
    fn lanes(&self) -> usize;

    /// The cell's pointwise passes, by themselves.
    #[cfg(feature = "bench")]
    fn pointwise(&self) -> &Pointwise<E>;

    /// All steps of a slice, as the member of its team whose part is `own`.
    unsafe fn forward(
        &self,
        geometry: &Geometry,
        pack: &ForwardPack<E>,
        sweep: &Sweep<E>,
        slice: &Slice<E>,
        own: usize,
    );

    /// The round's steps of a slice in reverse, likewise: the gradients of the slots.
    unsafe fn backward(
        &self,
        geometry: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        slice: &Slice<E>,
        own: usize,
    );

    /// Gradient of the input for some steps of the round, from the slots' gradients.
    unsafe fn input_gradient(
        &self,
        geometry: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        steps: Range<usize>,
        dx: &InputGradient<E>,
    );

    /// Writes or adds a unit's share of what the round gives of the gradients of the weights, from
    /// the slots' gradients and those of the projected states: block after block of
    /// [`Steps::blocks`](crate::steps::Steps).
    unsafe fn weights(
        &self,
        geometry: &Geometry,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        unit: &WeightUnit,
        gradients: &WeightGradients<E>,
    );
}

/// Bytes that are as good as in a core's second-level cache. Where that is 1 MiB, half of this
/// measured 0 to 4 % more: reading a little beyond it hides behind the products.
const CACHE: usize = 2 << 20;

/// The passes of a cell, of which only the pointwise part is its own.
struct Compiled<V: Vector, S> {
    pointwise: Pointwise<V::Element>,
    slots: PhantomData<fn() -> S>,
}

fn compiled<V: Vector, C: Cell, S: Slots>() -> &'static dyn Kernels<V::Element> {
    const {
        &Compiled::<V, S> {
            pointwise: Pointwise::new::<V, C>(),
            slots: PhantomData,
        }
    }
}

fn simple<V: Vector, F: Function>(residual: bool) -> &'static dyn Kernels<V::Element> {
    if residual {
        compiled::<V, Rnn<F, true>, Joint<1>>()
    } else {
        compiled::<V, Rnn<F, false>, Joint<1>>()
    }
}

/// Scalars with kernels: `f32` and `f64`.
pub trait Element: Real {
    /// The passes for an instruction set and a cell.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn kernels(isa: Isa, kind: CellKind) -> &'static dyn Kernels<Self>;
    /// The products of a linear map for an instruction set.
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn products(isa: Isa) -> &'static dyn Products<Self>;
}

fn by_cell<V: Vector>(kind: CellKind) -> &'static dyn Kernels<V::Element> {
    match kind {
        CellKind::Rnn {
            nonlinearity,
            residual,
        } => match nonlinearity {
            Nonlinearity::Tanh => simple::<V, Tanh>(residual),
            Nonlinearity::Relu => simple::<V, Relu>(residual),
            Nonlinearity::LeakyRelu => simple::<V, LeakyRelu>(residual),
            Nonlinearity::Softsign => simple::<V, Softsign>(residual),
            Nonlinearity::Sigmoid => simple::<V, Sigmoid>(residual),
        },
        CellKind::Lstm => compiled::<V, Lstm, Joint<4>>(),
        CellKind::Gru => compiled::<V, Gru, Staggered>(),
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
            #[allow(private_interfaces)]
            fn products(isa: Isa) -> &'static dyn Products<Self> {
                match isa {
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx512 => products::<avx512::$avx512>(),
                    #[cfg(target_arch = "x86_64")]
                    Isa::Avx2 => products::<avx2::$avx2>(),
                    _ => products::<portable::$portable>(),
                }
            }
        }
    };
}

element!(f32, F32x4, F32x8, F32x16);
element!(f64, F64x2, F64x4, F64x8);

impl<E: Real> Sweep<'_, E> {
    /// What is saved of a step, from `row` on in `panel`.
    ///
    /// # Safety
    /// Something is saved of the step, which has that row, and the layer that panel.
    unsafe fn saved_at(&self, g: &Geometry, step: usize, panel: usize, row: usize) -> Grid<*mut E> {
        let (size, count) = (g.saved_row(), self.steps.count(step));
        let first = self.steps.offset(step) * g.panels() + panel * count + row;
        Grid {
            // SAFETY: passed on from the caller.
            at: unsafe { self.saved.add(first * size) },
            row: size,
            panel: count * size,
        }
    }

    /// Whether what forward kept has left a core's second-level cache when backward comes for it.
    fn outgrows_cache(&self, g: &Geometry) -> bool {
        self.steps.rows() * g.panels() * g.slot_row() * size_of::<E>() > CACHE
    }

    /// What the cell gives at a step before it is projected, from row `row` on.
    ///
    /// # Safety
    /// The step has that row, and the layer a projection.
    unsafe fn projected(&self, g: &Geometry, step: usize, row: usize) -> Grid<*mut E> {
        let first = match self.saved.is_null() {
            true => row,
            false => self.steps.offset(step) + row,
        };
        Grid {
            // SAFETY: m has the rows that `Sweep` states.
            at: unsafe { self.m.add(first * g.padded()) },
            row: g.padded(),
            panel: g.lanes,
        }
    }

    /// The hidden state that comes into a step, from row `row` on.
    ///
    /// # Safety
    /// The step before has that row, or the batch if there is none.
    unsafe fn h_before(&self, g: &Geometry, before: Option<usize>, row: usize) -> Grid<*const E> {
        // SAFETY: y and h0 have the rows that `Sweep` states.
        let (at, stride) = unsafe {
            match before {
                Some(step) => (
                    self.y
                        .cast_const()
                        .add(self.y_strides.at(self.steps, step, row)),
                    self.y_strides.row,
                ),
                None => (self.h0.add(row * g.state_padded()), g.state_padded()),
            }
        };
        Grid {
            at,
            row: stride,
            panel: g.lanes,
        }
    }

    /// The memory after a step, or the initial one, from row `row` on in `panel`.
    ///
    /// # Safety
    /// The step has that row, or the batch if there is none, and the layer that panel.
    unsafe fn memory_at(
        &self,
        g: &Geometry,
        step: Option<usize>,
        panel: usize,
        row: usize,
    ) -> Grid<*mut E> {
        let size = g.memory_row();
        let (base, rows, first) = match step {
            Some(step) if !self.memory.is_null() => (
                self.memory,
                self.steps.count(step),
                self.steps.offset(step) * g.panels(),
            ),
            _ => (self.memory0, self.steps.batch(), 0),
        };
        Grid {
            // SAFETY: the memories have the rows and panels that `Sweep` states.
            at: unsafe { base.add((first + panel * rows + row) * size) },
            row: size,
            panel: rows * size,
        }
    }
}

impl<E: Real> Descent<'_, E> {
    /// The gradients of a step's slots, from `row` on in `panel`.
    ///
    /// # Safety
    /// The ring has the step, which has that row, and the layer that panel.
    unsafe fn slots_at(
        &self,
        g: &Geometry,
        steps: &Steps,
        (step, panel, row): (usize, usize, usize),
    ) -> Grid<*mut E> {
        let (size, count) = (g.slot_row(), steps.count(step));
        let first = self.places[step] * g.panels() + panel * count + row;
        Grid {
            // SAFETY: passed on from the caller.
            at: unsafe { self.slots.add(first * size) },
            row: size,
            panel: count * size,
        }
    }

    /// The gradient of a step's hidden state, from `row` on.
    ///
    /// # Safety
    /// As [`Descent::slots_at`], with a projection.
    unsafe fn dh_at(&self, g: &Geometry, step: usize, row: usize) -> *mut E {
        // SAFETY: passed on from the caller.
        unsafe { self.dh.add((self.places[step] + row) * g.state_padded()) }
    }
}

impl<E: Real, V: Vector<Element = E>, S: Slots> Kernels<E> for Compiled<V, S> {
    fn lanes(&self) -> usize {
        V::LANES
    }

    #[cfg(feature = "bench")]
    fn pointwise(&self) -> &Pointwise<E> {
        &self.pointwise
    }

    unsafe fn forward(
        &self,
        g: &Geometry,
        pack: &ForwardPack<E>,
        sweep: &Sweep<E>,
        slice: &Slice<E>,
        own: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { forward::<V, S>(&self.pointwise, g, pack, sweep, slice, own) }
    }

    unsafe fn backward(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        slice: &Slice<E>,
        own: usize,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { backward::<V, S>(&self.pointwise, g, pack, sweep, descent, slice, own) }
    }

    unsafe fn input_gradient(
        &self,
        g: &Geometry,
        pack: &BackwardPack<E>,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        steps: Range<usize>,
        dx: &InputGradient<E>,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { input_gradient::<V, S>(g, pack, sweep, descent, steps, dx) }
    }

    unsafe fn weights(
        &self,
        g: &Geometry,
        sweep: &Sweep<E>,
        descent: &Descent<E>,
        unit: &WeightUnit,
        gradients: &WeightGradients<E>,
    ) {
        // SAFETY: passed on from the caller.
        unsafe { weights::<V, S>(g, sweep, descent, unit, gradients) }
    }
}
