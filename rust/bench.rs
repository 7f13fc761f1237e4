//! What `cargo bench --features bench` measures: the passes over one layer, each by itself.
//!
//! No part of the crate's interface.

use std::sync::Arc;

use crate::buffer::{Arena, Buffer};
use crate::cell::{CellKind, MAX_SLOTS};
use crate::kernel::Grid;
use crate::kernel::pointwise::{PointwiseBackward, PointwiseForward};
use crate::layer::{
    BackwardPack, Descent, ForwardPack, Geometry, InputGradient, Rounds, WeightGradients, Weights,
};
use crate::pass::{DirectionPass, Feed, LayerPass, View};
use crate::sequence::{Element, Kernels, Slice};
use crate::simd::{Isa, Real};
use crate::stack::input_parts;
use crate::steps::{Steps, Strides};

/// One layer of one direction, its batch, and all that its passes read and write; on one thread.
pub struct Layer<E: Element> {
    kernels: &'static dyn Kernels<E>,
    geometry: Geometry,
    weights: Vec<Vec<E>>,
    steps: Steps,
    arena: Arc<Arena>,
    forward: ForwardPack<'static, E>,
    backward: BackwardPack<'static, E>,
    x: Buffer<E>,
    dx: Buffer<E>,
    dy: Buffer<E>,
    dh_last: Buffer<E>,
    carry: Buffer<E>,
    rounds: Rounds,
    slots: Buffer<E>,
    pass: LayerPass<E>,
    gradients: Vec<Vec<E>>,
}

/// A pass over a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernel {
    /// Packing the weights for forward.
    PackForward,
    /// Packing the weights for backward.
    PackBackward,
    /// Forward, keeping what backward needs.
    Forward,
    /// Forward alone.
    Inference,
    /// The gradients of the states, step by step.
    Chain,
    /// The gradient of the input.
    InputGradient,
    /// The gradients of the weights.
    WeightGradient,
    /// What forward does beside the products, from sums to states.
    PointwiseForward,
    /// What the chain does beside the products, from gradients of states to those of sums.
    PointwiseBackward,
}

/// Rows of the tile whose pointwise passes are measured by themselves.
const TILE_ROWS: usize = 8;

/// Numbers from -1 to 1 in no order, where `len` are asked for.
fn noise<E: Real>(len: usize) -> impl Iterator<Item = E> {
    let next = |i: usize| (i + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40;
    (0..len).map(move |i| E::from_f64(next(i) as f64 / (1u64 << 23) as f64 - 1.0))
}

impl<E: Element> Layer<E> {
    /// A layer of `hidden` units over `batch` sequences of `steps` steps, `inputs` wide.
    ///
    /// # Panics
    /// If `RNNCORE_ISA` names an instruction set that this CPU lacks.
    pub fn new(
        cell: CellKind,
        (batch, steps): (usize, usize),
        (inputs, hidden): (usize, usize),
    ) -> Self {
        let isa = Isa::current().expect("RNNCORE_ISA is one of this CPU's");
        let kernels = E::kernels(isa, cell);
        let lanes = kernels.lanes();
        let input = Geometry::columns(1, inputs, lanes);
        let g = Geometry::new(cell, input, (hidden, hidden), lanes);
        let arena = Arc::<Arena>::default();
        let bound = E::from_f64((hidden as f64).sqrt().recip());
        let rows = g.signature.gates * hidden;
        let sizes = [rows * inputs, rows * hidden, rows, rows];
        let weights = sizes.map(|size| noise::<E>(size).map(|w| w * bound).collect::<Vec<_>>());
        let steps = Steps::new(&vec![steps; batch]);
        let filled = |len: usize| {
            let mut buffer = arena.take(len);
            buffer
                .iter_mut()
                .zip(noise(len))
                .for_each(|(to, from)| *to = from);
            buffer
        };
        let rounds = Rounds::whole(&steps, false);
        let slots = filled(rounds.rows() * g.panels() * g.slot_row());
        let rows = steps.rows();
        let kept = |row: usize| Some(arena.zeros(rows * g.panels() * row));
        let direction = DirectionPass {
            geometry: g,
            reverse: false,
            turned: false,
            h0: arena.zeros(batch * g.state_padded()),
            h0_is_zero: true,
            memory0: arena.zeros(batch * g.panels() * g.memory_row()),
            memory: kept(g.memory_row()),
            saved: kept(g.saved_row()),
            m: None,
        };
        let pass = LayerPass {
            dropped: None,
            y: arena.zeros(rows * g.state_padded()),
            y_strides: Strides::packed(g.state_padded()),
            directions: vec![direction],
        };
        Layer {
            kernels,
            geometry: g,
            forward: g.pack_forward(views(&weights), &arena),
            backward: g.pack_backward(views(&weights), &arena),
            x: filled(rows * input.stride()),
            dx: arena.zeros(rows * input.stride()),
            dy: filled(rows * g.state_padded()),
            dh_last: arena.zeros(batch * g.state_padded()),
            carry: arena.zeros(batch * g.padded()),
            rounds,
            slots,
            gradients: sizes.map(|size| vec![E::ZERO; size]).into(),
            weights: weights.into(),
            steps,
            arena,
            pass,
        }
    }

    /// What a kernel does: floating-point operations of its products, or numbers that it packs, or
    /// units whose states it computes.
    pub fn work(&self, kernel: Kernel) -> u64 {
        let [input, state] = [self.weights[0].len(), self.weights[1].len()];
        let (g, rows) = (&self.geometry, self.steps.rows());
        let work = match kernel {
            Kernel::PackForward | Kernel::PackBackward => input + state,
            Kernel::Forward | Kernel::Inference | Kernel::WeightGradient => {
                2 * rows * (input + state)
            }
            Kernel::Chain => 2 * rows * state,
            Kernel::InputGradient => 2 * rows * input,
            Kernel::PointwiseForward | Kernel::PointwiseBackward => rows * g.hidden,
        };
        work as u64
    }

    /// One of the pointwise passes, as often as its tile goes into the layer. The tile stays in the
    /// nearest cache.
    fn pointwise(&self, kernel: Kernel) {
        let lanes = self.geometry.lanes;
        let tile = |size| Tile::new(size, lanes);
        let [mut slots, mut saved] = [tile(MAX_SLOTS), tile(MAX_SLOTS)];
        let [before, mut memory] = [tile(1), tile(1)];
        let [h_before, mut h, mut carry] = [tile(1), tile(1), tile(1)];
        let (rows, panels) = (TILE_ROWS, 1);
        let forward = PointwiseForward {
            rows,
            panels,
            sums: slots.write(),
            h_before: h_before.read(),
            memory_before: before.read(),
            h: h.write(),
            memory: memory.write(),
            saved: Some(saved.write()),
        };
        let backward = PointwiseBackward {
            rows,
            panels,
            later: h.read(),
            above: None,
            h_before: h_before.read(),
            h: h.read(),
            memory_before: before.read(),
            saved: saved.read(),
            carry: carry.write(),
            slots: slots.write(),
        };
        let pass = self.kernels.pointwise();
        for _ in 0..self.work(kernel).div_ceil((rows * lanes) as u64) {
            // SAFETY: `new` took the kernels of an instruction set that the CPU has, and each tile
            // has the rows of its panel, for as many slots as a cell has at most.
            unsafe {
                match kernel {
                    Kernel::PointwiseForward => (pass.forward)(&forward),
                    _ => (pass.backward)(&backward),
                }
            }
        }
    }

    /// Runs a kernel once.
    pub fn run(&mut self, kernel: Kernel) {
        let g = &self.geometry;
        match kernel {
            Kernel::PackForward => {
                self.forward = g.pack_forward(views(&self.weights), &self.arena);
                return;
            }
            Kernel::PackBackward => {
                self.backward = g.pack_backward(views(&self.weights), &self.arena);
                return;
            }
            Kernel::PointwiseForward | Kernel::PointwiseBackward => return self.pointwise(kernel),
            _ => {}
        }
        let (mut memory, mut saved) = (None, None);
        if kernel == Kernel::Inference {
            let pass = &mut self.pass.directions[0];
            (memory, saved) = (pass.memory.take(), pass.saved.take());
        }
        let feed = Feed::Rows(View::packed(&self.x, g.input.stride()));
        let sweep = &self.pass.sweeps(&self.steps, feed, None)[0];
        // All rows, on the calling thread.
        let slice = || Slice::new(0..self.steps.batch(), 1);
        self.carry.fill(E::ZERO);
        let descent = Descent {
            round: self.rounds.steps(0),
            pieces: self.rounds.pieces(0),
            places: self.rounds.places(),
            slots: self.slots.as_mut_ptr(),
            dh: std::ptr::null_mut(),
            dy: self.dy.as_ptr(),
            dy_strides: Strides::packed(g.state_padded()),
            dh_last: self.dh_last.as_ptr(),
            carry: self.carry.as_mut_ptr(),
            dh0: std::ptr::null_mut(),
        };
        // SAFETY: `new` sized every buffer for the geometry and the steps and packed the weights
        // for it, and no other thread has them.
        unsafe {
            match kernel {
                Kernel::PackForward
                | Kernel::PackBackward
                | Kernel::PointwiseForward
                | Kernel::PointwiseBackward => {}
                Kernel::Forward | Kernel::Inference => {
                    let slice = slice().looking_ahead(g, sweep, &self.arena);
                    self.kernels.forward(g, &self.forward, sweep, &slice, 0);
                }
                Kernel::Chain => {
                    self.kernels
                        .backward(g, &self.backward, sweep, &descent, &slice(), 0);
                }
                Kernel::InputGradient => {
                    let width = g.input.stride();
                    let dx = InputGradient {
                        at: self.dx.as_mut_ptr(),
                        strides: Strides::packed(width),
                        width,
                        add: false,
                    };
                    for part in input_parts(&self.steps, &descent.round, 1) {
                        self.kernels
                            .input_gradient(g, &self.backward, sweep, &descent, part, &dx);
                    }
                }
                Kernel::WeightGradient => {
                    let to = gradients(&mut self.gradients);
                    for unit in g.weight_units(1, false) {
                        self.kernels.weights(g, sweep, &descent, &unit, &to);
                    }
                }
            }
        }
        if kernel == Kernel::Inference {
            let pass = &mut self.pass.directions[0];
            (pass.memory, pass.saved) = (memory, saved);
        }
    }
}

/// The numbers of [`TILE_ROWS`] rows of a panel, `size` registers each.
struct Tile<E> {
    numbers: Vec<E>,
    row: usize,
}

impl<E: Real> Tile<E> {
    fn new(size: usize, lanes: usize) -> Self {
        let row = size * lanes;
        Tile {
            numbers: noise(TILE_ROWS * row).collect(),
            row,
        }
    }

    fn read(&self) -> Grid<*const E> {
        Grid {
            at: self.numbers.as_ptr(),
            row: self.row,
            panel: 0,
        }
    }

    fn write(&mut self) -> Grid<*mut E> {
        Grid {
            at: self.numbers.as_mut_ptr(),
            row: self.row,
            panel: 0,
        }
    }
}

fn views<E>(weights: &[Vec<E>]) -> Weights<'_, E> {
    Weights {
        input: &weights[0],
        state: &weights[1],
        input_bias: Some(&weights[2]),
        state_bias: Some(&weights[3]),
        projection: &[],
    }
}

fn gradients<E>(to: &mut [Vec<E>]) -> WeightGradients<E> {
    let [input, state, input_bias, state_bias] = [0, 1, 2, 3].map(|i: usize| to[i].as_mut_ptr());
    WeightGradients {
        input,
        state,
        input_bias: Some(input_bias),
        state_bias: Some(state_bias),
        projection: std::ptr::null_mut(),
        looked_up: std::ptr::null_mut(),
        add: false,
        first: true,
        last: true,
    }
}
