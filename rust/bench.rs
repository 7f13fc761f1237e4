//! What `cargo bench --features bench` measures: the passes over one layer, each by itself.
//!
//! No part of the crate's interface.

use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::buffer::{Arena, Buffer};
use crate::cell::{CellKind, MAX_SLOTS};
use crate::kernel::Grid;
use crate::kernel::pack::Columns;
use crate::kernel::pointwise::{PointwiseBackward, PointwiseForward};
use crate::layer::{
    BackwardPack, Descent, ForwardPack, Geometry, InputGradient, Rounds, WeightGradients, Weights,
};
use crate::parallel::FlushDenormals;
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
    dh0: Buffer<E>,
    carry: Buffer<E>,
    rounds: Rounds,
    /// Gradients of the slots, where they do not take the place of what was saved.
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

/// The parts of a training step, in order.
pub const STEP: [Kernel; 4] = [
    Kernel::Forward,
    Kernel::Chain,
    Kernel::InputGradient,
    Kernel::WeightGradient,
];

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
        // Rows of noise, their padding zero.
        let filled = |rows: usize, columns: Columns| {
            let mut buffer = arena.zeros(rows * columns.stride());
            let numbers: Vec<E> = noise(rows * columns.real()).collect();
            columns.pad(&numbers, &mut buffer);
            buffer
        };
        let rounds = Rounds::new::<E>(&g, &steps, false);
        let own_slots = if g.saved_row() == 0 { rounds.rows() } else { 0 };
        let rows = steps.rows();
        let kept = |row: usize| Some(arena.zeros(rows * g.panels() * row));
        let direction = DirectionPass {
            geometry: g,
            reverse: false,
            turned: false,
            h0: filled(batch, g.state()),
            h0_is_zero: false,
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
            x: filled(rows, input),
            dx: arena.zeros(rows * input.stride()),
            dy: filled(rows, g.state()),
            dh_last: arena.zeros(batch * g.state_padded()),
            dh0: arena.zeros(batch * g.state_padded()),
            carry: arena.zeros(batch * g.padded()),
            slots: arena.zeros(own_slots * g.panels() * g.slot_row()),
            rounds,
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

    /// How long a kernel takes, so many times: a part of a training step in its place there, so
    /// that it finds in the caches what the step leaves in them, others one after the other.
    pub fn time(&mut self, kernel: Kernel, times: u64) -> Duration {
        if let Some(part) = STEP.iter().position(|&part| part == kernel) {
            return (0..times).map(|_| self.step()[part]).sum();
        }
        let _flush = FlushDenormals::begin();
        let mut tiles = Tiles::new(self.geometry.lanes);
        let start = Instant::now();
        for _ in 0..times {
            let g = &self.geometry;
            match kernel {
                Kernel::PackForward => {
                    self.forward = g.pack_forward(views(&self.weights), &self.arena);
                }
                Kernel::PackBackward => {
                    self.backward = g.pack_backward(views(&self.weights), &self.arena);
                }
                Kernel::PointwiseForward | Kernel::PointwiseBackward => {
                    self.pointwise(kernel, &mut tiles);
                }
                _ => self.inference(),
            }
        }
        start.elapsed()
    }

    /// One of the pointwise passes, as often as its tile goes into the layer. The tile stays in the
    /// nearest cache.
    fn pointwise(&self, kernel: Kernel, tiles: &mut Tiles<E>) {
        let (rows, panels) = (TILE_ROWS, 1);
        let forward = PointwiseForward {
            rows,
            panels,
            units: self.geometry.lanes,
            sums: tiles.slots.write(),
            h_before: tiles.h_before.read(),
            memory_before: tiles.before.read(),
            h: tiles.h.write(),
            memory: tiles.memory.write(),
            saved: Some(tiles.saved.write()),
        };
        let backward = PointwiseBackward {
            rows,
            panels,
            later: tiles.later.read(),
            above: None,
            h_before: tiles.h_before.read(),
            h: tiles.h.read(),
            memory_before: tiles.before.read(),
            saved: tiles.saved.read(),
            carry: tiles.carry.write(),
            slots: tiles.slots.write(),
        };
        let pass = self.kernels.pointwise();
        let units = (rows * self.geometry.lanes) as u64;
        for _ in 0..self.work(kernel).div_ceil(units) {
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

    /// Forward alone.
    fn inference(&mut self) {
        let pass = &mut self.pass.directions[0];
        let (memory, saved) = (pass.memory.take(), pass.saved.take());
        let g = &self.geometry;
        let feed = Feed::Rows(View::packed(&self.x, g.input.stride()));
        let sweep = &self.pass.sweeps(&self.steps, feed, None)[0];
        let slice = Slice::new(0..self.steps.batch(), 1).looking_ahead(g, sweep, &self.arena);
        // SAFETY: `new` sized every buffer for the geometry and the steps and packed the weights
        // for it, and no other thread has them.
        unsafe { self.kernels.forward(g, &self.forward, sweep, &slice, 0) };
        let pass = &mut self.pass.directions[0];
        (pass.memory, pass.saved) = (memory, saved);
    }

    /// A training step without packing, as the stack takes it: how long each of its parts took.
    fn step(&mut self) -> [Duration; STEP.len()] {
        let _flush = FlushDenormals::begin();
        let mut spent = [Duration::ZERO; STEP.len()];
        let mut last = Instant::now();
        let mut passed = |part: usize| {
            let now = Instant::now();
            spent[part] += now - last;
            last = now;
        };
        let g = &self.geometry;
        let feed = Feed::Rows(View::packed(&self.x, g.input.stride()));
        let sweep = &self.pass.sweeps(&self.steps, feed, None)[0];
        // All rows, on the calling thread.
        let slice = || Slice::new(0..self.steps.batch(), 1);
        let ahead = slice().looking_ahead(g, sweep, &self.arena);
        // SAFETY: `new` sized every buffer for the geometry and the steps and packed the weights
        // for it, and no other thread has them.
        unsafe { self.kernels.forward(g, &self.forward, sweep, &ahead, 0) };
        passed(0);
        self.carry.fill(E::ZERO);
        let width = g.input.stride();
        let dx = InputGradient {
            at: self.dx.as_mut_ptr(),
            strides: Strides::packed(width),
            width,
            add: false,
        };
        for turn in 0..self.rounds.count() {
            let descent = Descent {
                round: self.rounds.steps(turn),
                pieces: self.rounds.pieces(turn),
                places: self.rounds.places(),
                slots: match g.saved_row() {
                    0 => self.slots.as_mut_ptr(),
                    _ => sweep.saved,
                },
                dh: ptr::null_mut(),
                dy: self.dy.as_ptr(),
                dy_strides: Strides::packed(g.state_padded()),
                dh_last: self.dh_last.as_ptr(),
                carry: self.carry.as_mut_ptr(),
                dh0: self.dh0.as_mut_ptr(),
            };
            // SAFETY: as above, and the rounds are this geometry's.
            unsafe {
                self.kernels
                    .backward(g, &self.backward, sweep, &descent, &slice(), 0);
            }
            passed(1);
            for part in input_parts(&self.steps, &descent.round, 1) {
                // SAFETY: as above; dx has all rows.
                unsafe {
                    self.kernels
                        .input_gradient(g, &self.backward, sweep, &descent, part, &dx);
                }
            }
            passed(2);
            let to = WeightGradients {
                add: turn > 0,
                first: turn == 0,
                last: turn + 1 == self.rounds.count(),
                ..gradients(&mut self.gradients)
            };
            for unit in g.weight_units(1, false) {
                // SAFETY: as above; the gradients are sized as the weights.
                unsafe { self.kernels.weights(g, sweep, &descent, &unit, &to) };
            }
            passed(3);
        }
        spent
    }
}

/// What the pointwise passes read and write: gates from a half to 1, and all else below a half, as
/// a state divided by its gate gives what an activation could have been.
struct Tiles<E> {
    slots: Tile<E>,
    saved: Tile<E>,
    before: Tile<E>,
    memory: Tile<E>,
    h_before: Tile<E>,
    h: Tile<E>,
    later: Tile<E>,
    carry: Tile<E>,
}

impl<E: Real> Tiles<E> {
    fn new(lanes: usize) -> Self {
        let state = || Tile::new(1, lanes, (0.0, 0.5));
        Tiles {
            slots: Tile::new(MAX_SLOTS, lanes, (0.0, 0.5)),
            saved: Tile::new(MAX_SLOTS, lanes, (0.75, 0.25)),
            before: state(),
            memory: state(),
            h_before: state(),
            h: state(),
            later: state(),
            carry: state(),
        }
    }
}

/// The numbers of [`TILE_ROWS`] rows of a panel, `size` registers each.
struct Tile<E> {
    numbers: Vec<E>,
    row: usize,
}

impl<E: Real> Tile<E> {
    /// Numbers that lie `spread` around `middle`.
    fn new(size: usize, lanes: usize, (middle, spread): (f64, f64)) -> Self {
        let row = size * lanes;
        let near = |x: E| E::from_f64(middle) + E::from_f64(spread) * x;
        Tile {
            numbers: noise(TILE_ROWS * row).map(near).collect(),
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
        projection: ptr::null_mut(),
        looked_up: ptr::null_mut(),
        add: false,
        first: true,
        last: true,
    }
}
