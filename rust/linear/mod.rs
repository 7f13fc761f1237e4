//! A linear map of rows, y = W x + b, and its reverse: what a network's head is.
//!
//! It is made of the layers' tiles, each sum in a fixed order, so that a row's bits depend neither
//! on its neighbours nor on threads.

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use crate::buffer::{Arena, Buffer};
use crate::kernel::pack::{Columns, GateRows, pack_backward, pack_forward};
use crate::kernel::preactivation::{Joint, Operand, Preactivation};
use crate::kernel::product::{Factor, Product, whole_tiles};
use crate::kernel::weight::{Block, ColumnPanel, DEPTH, Piece, SOURCES, Strided, Totals};
use crate::kernel::{Grid, per_line, runs, tile_shape};
use crate::parallel;
use crate::sequence::Element;
use crate::simd::{Isa, MAX_LANES, Real, Vector};

/// Rows of y whose products with the weights are summed at a time for the gradient of x, so that
/// these weights stay in a core's second-level cache from one row of x to the next.
const UNITS: usize = 512;

/// Columns of x whose gradients of weights are computed at a time.
const WIDE: usize = 512;

/// The sizes of a map.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// How the rows of x lie.
    columns: Columns,
    /// Numbers of a row of y.
    outputs: usize,
    /// Numbers in a register, L.
    lanes: usize,
    /// Numbers from a row of y to the next.
    stride: usize,
}

impl Shape {
    fn new<E>(columns: Columns, outputs: usize, lanes: usize) -> Self {
        // An odd number of cache lines: so no two rows of a tile compete for a place in a cache.
        let line = per_line::<E>();
        let lines = outputs.div_ceil(line) | 1;
        Shape {
            columns,
            outputs,
            lanes,
            stride: lines * line,
        }
    }

    /// Panels of outputs.
    fn panels(&self) -> usize {
        self.outputs.div_ceil(self.lanes)
    }

    /// Numbers of a panel of weights packed for forward.
    fn forward_panel(&self) -> usize {
        self.columns.extent() * self.lanes
    }

    /// Rows of y, and the size of what is there for each.
    fn rows<E>(&self, x: &[E], y: &[E]) -> usize {
        let rows = y.len() / self.stride;
        assert_eq!(y.len(), rows * self.stride, "rows of y");
        assert_eq!(x.len(), rows * self.columns.stride(), "rows of x");
        rows
    }
}

/// The products of a map, compiled for an instruction set.
///
/// # Safety
/// Of every method: rows of x and y lie as `shape` says, its lanes being [`Products::lanes`];
/// weights are packed for it.
pub(crate) trait Products<E: Real>: Sync {
    /// Numbers in a register.
    fn lanes(&self) -> usize;

    /// y of some rows of x.
    unsafe fn forward(&self, shape: &Shape, pack: &Forward<E>, x: *const E, rows: usize, y: *mut E);

    /// The gradients of some rows of x from those of y.
    unsafe fn backward(
        &self,
        shape: &Shape,
        pack: &Backward<E>,
        dy: *const E,
        rows: usize,
        dx: *mut E,
    );

    /// Writes, or adds, the gradients of the weights of some panels, no two calls' at the same
    /// time the same.
    unsafe fn weights(&self, shape: &Shape, rows: &OuterProducts<E>, panels: Range<usize>);
}

/// Weights packed for forward, and the bias in whole panels.
pub(crate) struct Forward<E> {
    weights: Buffer<E>,
    bias: Buffer<E>,
}

/// Weights packed for the gradient of x, in parts of [`UNITS`].
pub(crate) struct Backward<E>(Buffer<E>);

/// What gradients of weights come from, and where they go.
pub(crate) struct OuterProducts<E> {
    dy: *const E,
    x: *const E,
    rows: usize,
    weight: *mut E,
    bias: *mut E,
    /// Whether they are added to what is there.
    add: bool,
}

// SAFETY: calls that run at the same time write the gradients of other panels.
unsafe impl<E: Sync> Sync for OuterProducts<E> {}

/// The products with registers of one kind.
struct With<V>(PhantomData<fn() -> V>);

/// The products with registers `V`.
pub(crate) fn products<V: Vector>() -> &'static dyn Products<V::Element> {
    &With::<V>(PhantomData)
}

impl<E: Real, V: Vector<Element = E>> Products<E> for With<V> {
    fn lanes(&self) -> usize {
        V::LANES
    }

    unsafe fn forward(
        &self,
        shape: &Shape,
        pack: &Forward<E>,
        x: *const E,
        rows: usize,
        y: *mut E,
    ) {
        let bytes = shape.forward_panel() * size_of::<E>();
        let (most, wide) = tile_shape(rows, (shape.panels(), bytes), (1, 1), V::REGISTERS);
        for (panel, panels) in runs(0..shape.panels(), wide).flat_map(whole_tiles) {
            for (row, count) in runs(0..rows, most) {
                // SAFETY: rows and panels are within what the caller vouches for.
                unsafe {
                    let x = Operand {
                        at: x.add(row * shape.columns.stride()),
                        stride: shape.columns.stride(),
                        columns: shape.columns.extent(),
                    };
                    Preactivation {
                        x,
                        h: Operand { columns: 0, ..x },
                        weights: pack.weights[panel * shape.forward_panel()..].as_ptr(),
                        panel: shape.forward_panel(),
                        start: Grid {
                            at: pack.bias[panel * V::LANES..].as_ptr(),
                            row: 0,
                            panel: V::LANES,
                        },
                        out: Grid {
                            at: y.add(row * shape.stride + panel * V::LANES),
                            row: shape.stride,
                            panel: V::LANES,
                        },
                    }
                    .run::<V, Joint<1>>(count, panels);
                }
            }
        }
    }

    unsafe fn backward(
        &self,
        shape: &Shape,
        pack: &Backward<E>,
        dy: *const E,
        rows: usize,
        dx: *mut E,
    ) {
        let (each, stride) = (UNITS / V::LANES, shape.columns.stride());
        for first in (0..shape.panels()).step_by(each) {
            // SAFETY: as in `forward`; the packed part of these panels begins there.
            unsafe {
                let panels = each.min(shape.panels() - first);
                let weights = pack.0[first * V::LANES * stride..].as_ptr();
                Product {
                    a: dy.add(first * V::LANES),
                    a_row: shape.stride,
                    a_panel: V::LANES,
                    panels,
                    weights: Factor::packed(weights, (panels, V::LANES), V::LANES),
                    out: dx,
                    out_row: stride,
                    add: first > 0,
                }
                .all::<V>(0..rows, 0..stride / V::LANES);
            }
        }
    }

    unsafe fn weights(&self, shape: &Shape, rows: &OuterProducts<E>, panels: Range<usize>) {
        let OuterProducts { dy, x, add, .. } = *rows;
        let width = shape.columns.real();
        let units = |panel: usize| (shape.outputs - panel * V::LANES).min(V::LANES);
        let pieces = |panel: usize, start: usize| {
            let rows = start..(start + DEPTH).min(rows.rows);
            let x = Strided {
                at: x.wrapping_add(rows.start * shape.columns.stride()),
                row: shape.columns.stride(),
            };
            [Piece {
                slots: dy.wrapping_add(rows.start * shape.stride + panel * V::LANES),
                slot_row: shape.stride,
                from: [x; SOURCES],
                rows: rows.len(),
                ahead: V::LANES,
            }]
        };
        // Without rows there is one empty block, which writes zeros.
        let starts = || (0..rows.rows.max(1)).step_by(DEPTH);
        let extent = shape.columns.extent();
        let all: Vec<_> = ColumnPanel::all(0, shape.columns, 0..extent, V::LANES).collect();
        for columns in all.chunks(WIDE / V::LANES) {
            for start in starts() {
                for panel in panels.clone() {
                    let to = Strided {
                        at: rows.weight.wrapping_add(panel * V::LANES * width),
                        row: width,
                    };
                    // SAFETY: rows and panels are within what the caller vouches for.
                    unsafe {
                        Block {
                            pieces: &pieces(panel, start),
                            slot: 0,
                            to: [to; SOURCES],
                            add: add || start > 0,
                        }
                        .run::<V>(units(panel), columns);
                    }
                }
            }
        }
        for panel in panels {
            let mut sums = [E::ZERO; MAX_LANES];
            // SAFETY: as above; a panel has `units` biases, `MAX_LANES` at most.
            unsafe {
                let bias = rows.bias.add(panel * V::LANES);
                let bias = std::slice::from_raw_parts_mut(bias, units(panel));
                if add {
                    sums[..bias.len()].copy_from_slice(bias);
                }
                for start in starts() {
                    V::invoke(Totals {
                        pieces: &pieces(panel, start),
                        slots: 1,
                        out: sums.as_mut_ptr(),
                    });
                }
                bias.copy_from_slice(&sums[..bias.len()]);
            }
        }
    }
}

/// A linear map. Its weights are passed in, W (outputs, columns) and then b.
pub(crate) struct Linear<E: 'static> {
    shape: Shape,
    products: &'static dyn Products<E>,
    /// Packed copies, made when first needed and dropped when the weights change.
    forward: OnceLock<Forward<E>>,
    backward: OnceLock<Backward<E>>,
}

impl<E: Element> Linear<E> {
    /// A map of rows that lie as `columns` says.
    pub fn new(isa: Isa, columns: Columns, outputs: usize) -> Self {
        let products = E::products(isa);
        Linear {
            shape: Shape::new::<E>(columns, outputs, products.lanes()),
            products,
            forward: OnceLock::new(),
            backward: OnceLock::new(),
        }
    }

    /// Numbers from a row of y to the next.
    pub fn stride(&self) -> usize {
        self.shape.stride
    }

    /// To be called after every change of the weights: packed copies are stale.
    pub fn weights_changed(&mut self) {
        self.forward.take();
        self.backward.take();
    }

    /// How many threads the products of so many rows are worth.
    pub fn workers(&self, rows: usize) -> usize {
        /// Products that take about as long as starting a second thread.
        const WORTHWHILE: usize = 1 << 20;
        let products = self.shape.panels() * self.shape.forward_panel();
        parallel::workers(rows.saturating_mul(products), WORTHWHILE)
    }

    fn gate<'a>(&self, weights: &'a [E]) -> GateRows<'a, E> {
        GateRows {
            rows: &weights[..self.shape.outputs * self.shape.columns.real()],
            columns: self.shape.columns,
        }
    }

    /// The weights packed for [`Linear::forward`].
    pub fn forward_pack(&self, weights: &[E], arena: &Arc<Arena>) -> &Forward<E> {
        self.forward.get_or_init(|| {
            let Shape { outputs, lanes, .. } = self.shape;
            let (gate, size) = (self.gate(weights), self.shape.forward_panel());
            let mut packed = arena.take(self.shape.panels() * size);
            let parts = packed.chunks_exact_mut(size).enumerate().collect();
            parallel::for_each(self.workers(1), parts, |(panel, out)| {
                pack_forward(&[gate], (panel * lanes, outputs), lanes, out);
            });
            let mut bias = arena.zeros(self.shape.panels() * lanes);
            bias[..outputs].copy_from_slice(&weights[gate.rows.len()..]);
            Forward {
                weights: packed,
                bias,
            }
        })
    }

    /// The weights packed for [`Linear::backward`].
    pub fn backward_pack(&self, weights: &[E], arena: &Arc<Arena>) -> &Backward<E> {
        self.backward.get_or_init(|| {
            let Shape {
                columns,
                outputs,
                lanes,
                ..
            } = self.shape;
            let gate = self.gate(weights);
            let mut packed = arena.take(self.shape.panels() * lanes * columns.stride());
            let parts = packed.chunks_mut(UNITS * columns.stride());
            let parts = parts.enumerate().collect();
            parallel::for_each(self.workers(1), parts, |(part, out): (usize, &mut [E])| {
                let first = part * UNITS;
                let gate = GateRows {
                    rows: &gate.rows[first * columns.real()..],
                    columns,
                };
                let size = out.len() / (columns.stride() / lanes);
                let units = (outputs - first).min(UNITS);
                for (panel, out) in out.chunks_exact_mut(size).enumerate() {
                    pack_backward(&[gate], panel, units, lanes, out);
                }
            });
            Backward(packed)
        })
    }

    /// y of rows of x.
    pub fn forward(&self, pack: &Forward<E>, x: &[E], y: &mut [E]) {
        let rows = self.shape.rows(x, y);
        assert_eq!(
            pack.weights.len(),
            self.shape.panels() * self.shape.forward_panel()
        );
        // SAFETY: there are so many rows of both, and the weights are packed for this shape.
        unsafe {
            self.products
                .forward(&self.shape, pack, x.as_ptr(), rows, y.as_mut_ptr());
        }
    }

    /// The gradients of rows of x from those of y.
    pub fn backward(&self, pack: &Backward<E>, dy: &[E], dx: &mut [E]) {
        let rows = self.shape.rows(dx, dy);
        let Shape { columns, lanes, .. } = self.shape;
        assert_eq!(pack.0.len(), self.shape.panels() * lanes * columns.stride());
        // SAFETY: as in `forward`.
        unsafe {
            self.products
                .backward(&self.shape, pack, dy.as_ptr(), rows, dx.as_mut_ptr());
        }
    }

    /// Writes the gradients of the weights, or adds them to what is there, given the rows of x and
    /// the gradients of those of y.
    ///
    /// The bits of a sum do not depend on how rows are cut into calls, as long as each call but
    /// the last has a multiple of [`DEPTH`].
    pub fn weights(&self, dy: &[E], x: &[E], gradients: &mut [E], add: bool) {
        const HIGH: usize = 8;
        let rows = self.shape.rows(x, dy);
        let (weight, bias) = gradients.split_at_mut(self.shape.outputs * self.shape.columns.real());
        assert_eq!(bias.len(), self.shape.outputs);
        let gradients = OuterProducts {
            dy: dy.as_ptr(),
            x: x.as_ptr(),
            rows,
            weight: weight.as_mut_ptr(),
            bias: bias.as_mut_ptr(),
            add,
        };
        let (panels, workers) = (self.shape.panels(), self.workers(rows));
        let high = (panels / (2 * workers)).clamp(1, HIGH);
        let items = (0..panels).step_by(high);
        let items = items.map(|first| first..(first + high).min(panels));
        parallel::for_each(workers, items.collect(), |panels| {
            // SAFETY: as in `forward`; weight and bias are of this shape, and no two items share
            // a panel.
            unsafe { self.products.weights(&self.shape, &gradients, panels) }
        });
    }
}

#[cfg(test)]
mod tests;
