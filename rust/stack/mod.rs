//! Layers and directions: a recurrent stack over batches in packed order.

mod backward;
mod cut;
mod direction;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "bench")]
pub(crate) use backward::input_parts;
pub(crate) use backward::{InputGradients, Want};
use cut::{cut, members};
use direction::Direction;
pub(crate) use direction::Parameters;

use crate::buffer::Arena;
use crate::cell::CellKind;
use crate::dropout::{self, Drawn, Mask};
use crate::error::{Error, Result};
use crate::kernel::pack::Columns;
use crate::layer::Geometry;
use crate::parallel;
use crate::params::{Layout, check_room};
use crate::pass::{DirectionPass, Feed, LayerPass, Pass, States, fed};
use crate::sequence::{Element, Kernels};
use crate::simd::Isa;
use crate::steps::{Steps, Strides};

/// What a stack is made of. Sizes as in torch's modules.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The cell of every layer.
    pub cell: CellKind,
    /// Columns of the input, I.
    pub input_size: usize,
    /// Hidden units of a direction, H, of each layer; each layer is fed by the one before.
    pub hidden_sizes: Vec<usize>,
    /// Whether there are biases.
    pub bias: bool,
    /// Whether each layer also runs from the last step to the first; outputs are concatenated.
    pub bidirectional: bool,
    /// Probability that a layer's output is dropped on its way to the next layer in training.
    pub dropout: f64,
    /// Whether dropout draws one mask for all steps of a sequence.
    pub locked_dropout: bool,
    /// Columns W of a projection of what a cell gives, which then is its hidden state (Sak et al.,
    /// 2014): h = W_hr m. 0 for none. Only cells that meet the state before in sums alone have it:
    /// the LSTM and plain cells.
    pub proj_size: usize,
}

/// More layers than anybody trains, few enough that naming them fits any memory.
const MOST_LAYERS: usize = 1 << 16;

/// The sizes of `num_layers` layers that are all the same.
///
/// # Errors
/// [`Error::Value`] naming `num_layers` if it is 0 or out of all reason.
#[cfg(feature = "python")]
pub(crate) fn uniform_sizes(hidden_size: usize, num_layers: usize) -> Result<Vec<usize>> {
    if !(1..=MOST_LAYERS).contains(&num_layers) {
        let expected = format!("an integer in 1..={MOST_LAYERS}");
        return Err(Error::value("num_layers", expected, num_layers));
    }
    Ok(vec![hidden_size; num_layers])
}

impl Config {
    /// Directions of a layer.
    pub fn directions(&self) -> usize {
        if self.bidirectional { 2 } else { 1 }
    }

    /// Layers, L.
    pub fn num_layers(&self) -> usize {
        self.hidden_sizes.len()
    }

    /// Columns of a hidden state of a layer.
    pub fn state_size(&self, layer: usize) -> usize {
        match self.proj_size {
            0 => self.hidden_sizes[layer],
            width => width,
        }
    }

    /// The shapes of the hidden states, (L·D, B, W), and of the memories, (L·D, B, H), of layers
    /// of one size.
    pub(crate) fn states_shapes(&self, batch: usize) -> [[usize; 3]; 2] {
        let count = self.num_layers() * self.directions();
        [self.state_size(0), self.hidden_sizes[0]].map(|width| [count, batch, width])
    }

    fn check(&self) -> Result<()> {
        if !(1..=MOST_LAYERS).contains(&self.num_layers()) {
            let expected = format!("1 to {MOST_LAYERS} layers");
            return Err(Error::value("hidden_sizes", expected, self.num_layers()));
        }
        if self.hidden_sizes.contains(&0) {
            return Err(Error::value("hidden_size", "an integer >= 1", 0));
        }
        let narrowest = self.hidden_sizes.iter().min();
        if narrowest.is_some_and(|&hidden| self.proj_size >= hidden) {
            let expected = "a number smaller than hidden_size, or 0 for none";
            return Err(Error::value("proj_size", expected, self.proj_size));
        }
        if self.proj_size > 0 && !self.cell.signature().may_project() {
            let expected = format!(
                "0 for the cell \"{}\", as it reads its state unit by unit",
                self.cell
            );
            return Err(Error::value("proj_size", expected, self.proj_size));
        }
        if !(0.0..=1.0).contains(&self.dropout) {
            return Err(Error::value(
                "dropout",
                "a number from 0 to 1",
                self.dropout,
            ));
        }
        // Four gates, two directions, and an input as wide as I and 2 H together at most.
        let widest = self.hidden_sizes.iter().max();
        let (hidden, layers) = (widest.map_or(0, |&size| size), self.num_layers());
        addressable(("hidden_size", hidden), &[8, hidden, 3, layers])?;
        addressable(("input_size", self.input_size), &[8, hidden, layers])
    }
}

/// Whether a buffer of the product of an argument and `sizes` can be addressed, padded to whole
/// registers.
///
/// # Errors
/// [`Error::OutOfMemory`] if they cannot.
pub(crate) fn addressable((argument, value): (&str, usize), sizes: &[usize]) -> Result<()> {
    /// Bytes of a number, and a power of two to spare for padding and sums of buffers.
    const EACH: usize = 8 << 10;
    let numbers = sizes
        .iter()
        .fold(value, |product, &size| product.saturating_mul(size));
    match numbers.checked_mul(EACH) {
        Some(bytes) if bytes <= isize::MAX as usize => Ok(()),
        _ => Err(Error::OutOfMemory {
            numbers,
            what: format!("numbers of a model with {argument} {value}"),
        }),
    }
}

/// A recurrent stack: its structure and its packed weights. The weights themselves are passed in,
/// as one flat buffer of [`Stack::layout`].
pub struct Stack<E: 'static> {
    config: Config,
    layout: Layout,
    /// `[layer][direction]`
    layers: Vec<Vec<Direction<E>>>,
    isa: Isa,
    kernels: &'static dyn Kernels<E>,
    arena: Arc<Arena>,
}

impl<E: Element> Stack<E> {
    /// A stack for the current instruction set.
    ///
    /// # Errors
    /// [`Error::Value`] for a size or probability out of range, [`Error::OutOfMemory`] if no memory
    /// could hold the weights, [`Error::UnknownIsa`] if `RNNCORE_ISA` names none that this CPU has.
    pub fn new(config: Config) -> Result<Self> {
        Self::with_isa(config, Isa::current()?)
    }

    /// A stack for one instruction set.
    ///
    /// # Errors
    /// As [`Stack::new`]; [`Error::UnknownIsa`] if this CPU lacks it.
    pub fn with_isa(config: Config, isa: Isa) -> Result<Self> {
        let lanes = E::kernels(isa, config.cell).lanes();
        let first = Geometry::columns(1, config.input_size, lanes);
        Self::with_input(config, isa, first)
    }

    /// A stack whose input rows lie in a given way; their columns are `config.input_size`.
    pub(crate) fn with_input(config: Config, isa: Isa, first: Columns) -> Result<Self> {
        config.check()?;
        // An instruction set may be named without having been found.
        Isa::by_name(isa.name())?;
        // So that a bad RNNCORE_NUM_THREADS is heard of before there is work.
        parallel::num_threads()?;
        let kernels = E::kernels(isa, config.cell);
        let lanes = kernels.lanes();
        let signature = config.cell.signature();
        let mut layout = Layout::default();
        let mut layers = Vec::with_capacity(config.num_layers());
        let mut input = first;
        for (layer, &hidden) in config.hidden_sizes.iter().enumerate() {
            let (rows, width) = (signature.gates * hidden, config.state_size(layer));
            let mut directions = Vec::with_capacity(config.directions());
            for reverse in [false, true].into_iter().take(config.directions()) {
                let suffix = format!("l{layer}{}", if reverse { "_reverse" } else { "" });
                let mut push = |name: &str, shape: &[usize], present: bool| {
                    let (start, entry) = (layout.size(), layout.entries().len());
                    if present {
                        layout.push(format!("{name}_{suffix}"), shape);
                    }
                    (start..layout.size(), entry)
                };
                let parts = [
                    push("weight_ih", &[rows, input.real()], true),
                    push("weight_hh", &[rows, width], true),
                    push("bias_ih", &[rows], config.bias),
                    push("bias_hh", &[rows], config.bias),
                    push("weight_hr", &[width, hidden], width < hidden),
                ];
                directions.push(Direction {
                    geometry: Geometry::new(config.cell, input, (hidden, width), lanes),
                    entries: parts.each_ref().map(|part| part.1),
                    places: parts.map(|part| part.0),
                    reverse,
                    turned: AtomicBool::default(),
                    forward: OnceLock::new(),
                    backward: OnceLock::new(),
                });
            }
            layers.push(directions);
            input = Geometry::columns(config.directions(), width, lanes);
        }
        Ok(Stack {
            config,
            layout,
            layers,
            isa,
            kernels,
            arena: Arc::default(),
        })
    }

    /// What the stack is made of.
    pub fn config(&self) -> &Config {
        &self.config
    }
    /// Its parameters: torch's names, order and shapes.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }
    /// The instruction set that it was made for.
    pub(crate) fn isa(&self) -> Isa {
        self.isa
    }
    /// Numbers in a register.
    pub(crate) fn lanes(&self) -> usize {
        self.kernels.lanes()
    }
    /// How rows of the input lie inside.
    pub(crate) fn input_columns(&self) -> Columns {
        self.layers[0][0].geometry.input
    }
    /// How rows of a layer's output lie inside.
    pub(crate) fn layer_columns(&self, layer: usize) -> Columns {
        let width = self.config.state_size(layer);
        Geometry::columns(self.config.directions(), width, self.lanes())
    }
    /// How rows of the last layer's output lie inside.
    pub(crate) fn output_columns(&self) -> Columns {
        self.layer_columns(self.layers.len() - 1)
    }
    /// How rows of a layer's hidden states lie inside.
    pub(crate) fn state_columns(&self, layer: usize) -> Columns {
        self.layers[layer][0].geometry.state()
    }
    /// How rows of a layer's memories lie inside.
    pub(crate) fn memory_columns(&self, layer: usize) -> Columns {
        self.layers[layer][0].geometry.units()
    }
    /// Layers times directions.
    pub(crate) fn state_count(&self) -> usize {
        self.config.num_layers() * self.config.directions()
    }

    /// To be called after every change of the weights: packed copies are stale.
    pub(crate) fn weights_changed(&mut self) {
        for direction in self.layers.iter_mut().flatten() {
            direction.forward.take();
            direction.backward.take();
        }
    }

    /// How many threads a pass over `rows` steps is worth.
    fn workers(&self, rows: usize, geometry: &Geometry) -> usize {
        /// Products that take about as long as starting a second thread.
        const WORTHWHILE: usize = 1 << 20;
        /// Products that take about as long as reading a weight.
        const READING: usize = 4;
        let projected = if geometry.projects() {
            geometry.width
        } else {
            0
        };
        let sums = geometry.signature.slots * (geometry.input.extent() + geometry.width);
        let products = geometry.padded() * (sums + projected);
        parallel::workers(rows.max(READING).saturating_mul(products), WORTHWHILE)
    }

    /// Whether a pass over `rows` steps fits into memory.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] if it does not.
    pub(crate) fn check_room(&self, rows: usize, keep: bool) -> Result<()> {
        let of_direction = |direction: &Direction<E>| {
            let g = &direction.geometry;
            let projected = if g.projects() { g.padded() } else { 0 };
            let kept = g.panels() * (g.saved_row() + g.memory_row()) + projected;
            g.state_padded() + if keep { kept } else { 0 }
        };
        let directions = self.layers.iter().flatten();
        let row = self.input_columns().stride() + directions.map(of_direction).sum::<usize>();
        check_room::<E>(rows.saturating_mul(row), "numbers of a pass over the batch")
    }

    /// Runs a batch through all layers.
    ///
    /// `x` has R rows of [`Stack::input_columns`], or R columns of the input. `keep` keeps what
    /// backward needs besides `x`, of which no padding is read. `y_strides` are those of the
    /// output's rows of [`Stack::output_columns`], of which there must be nothing between. `drawn`
    /// turns dropout between layers on.
    ///
    /// # Panics
    /// If a buffer's size is not that.
    #[expect(clippy::too_many_arguments, reason = "each is a thing of its own")]
    pub(crate) fn forward(
        &self,
        weights: Parameters<E>,
        steps: Steps,
        x: Feed<E>,
        initial: States<E>,
        keep: bool,
        y_strides: Strides,
        drawn: Option<Drawn>,
    ) -> Pass<E> {
        assert!(weights.fit(&self.layout));
        if let Parameters::Lent(_) = weights {
            assert!(steps.longest() <= 1 && matches!(x, Feed::Rows(_)));
        }
        match &x {
            Feed::Rows(rows) => {
                assert!(rows.covers(&steps, self.input_columns().extent()));
            }
            Feed::Ids(ids) => {
                let width = self.config.input_size;
                assert_eq!(ids.len(), steps.rows());
                assert!(ids.iter().all(|&id| (id as usize) < width));
            }
        }
        let (rows, batch) = (steps.rows(), steps.batch());
        let drawn = drawn.filter(|_| self.config.dropout > 0.0);
        let mut h0 = initial.hidden.map(Vec::into_iter);
        let mut memory0 = initial.memory.map(Vec::into_iter);
        let mut layers: Vec<LayerPass<E>> = Vec::with_capacity(self.layers.len());
        for (layer, directions) in self.layers.iter().enumerate() {
            let dropped = drawn.filter(|_| layer > 0).map(|drawn| {
                let beneath = &layers[layer - 1].y;
                let mut dropped = self.arena.take(beneath.len());
                dropped.copy_from_slice(beneath);
                self.drop_out(&mut dropped, &steps, drawn, layer);
                dropped
            });
            let passes = directions
                .iter()
                .map(|direction| {
                    let g = &direction.geometry;
                    let given = h0.as_mut().and_then(Iterator::next);
                    let h0_is_zero = given.is_none();
                    let h0 = given.unwrap_or_else(|| self.arena.zeros(batch * g.state_padded()));
                    assert_eq!(h0.len(), batch * g.state_padded());
                    let mut first = self.arena.zeros(batch * g.panels() * g.memory_row());
                    if let Some(memory) = memory0.as_mut().and_then(Iterator::next) {
                        assert_eq!(memory.len(), batch * g.padded());
                        g.spread(&memory, batch, &mut first);
                    }
                    let kept = |row: usize| keep.then(|| self.arena.take(rows * g.panels() * row));
                    let m_rows = if keep { rows } else { batch };
                    let m = g.projects().then(|| self.arena.take(m_rows * g.padded()));
                    DirectionPass {
                        geometry: *g,
                        reverse: direction.reverse,
                        turned: direction.turn(steps.longest()),
                        h0,
                        h0_is_zero,
                        memory0: first,
                        memory: kept(g.memory_row()),
                        saved: kept(g.saved_row()),
                        m,
                    }
                })
                .collect();
            let stride = self.layer_columns(layer).stride();
            let y = self.arena.take(rows * stride);
            let is_last = layer + 1 == self.layers.len();
            let mut pass = LayerPass {
                dropped: None,
                y,
                y_strides: if is_last {
                    y_strides
                } else {
                    Strides::packed(stride)
                },
                directions: passes,
            };
            let feed = fed(dropped.as_deref(), layers.last(), x);
            let sweeps = pass.sweeps(&steps, feed, None);
            let workers = self.workers(rows, &directions[0].geometry);
            let packs: Vec<_> = directions
                .iter()
                .map(|direction| direction.forward_pack(weights, &self.arena))
                .collect();
            let slices: Vec<_> = cut(&steps, directions, workers, |_| 0..steps.longest())
                .into_iter()
                .map(|(d, slice)| {
                    let g = &directions[d].geometry;
                    (d, slice.looking_ahead(g, &sweeps[d], &self.arena))
                })
                .collect();
            parallel::for_each(workers, members(&slices), |(d, slice, own)| {
                // SAFETY: the buffers were sized above, packs are this geometry's, and the slices
                // are disjoint in rows or direction.
                unsafe {
                    self.kernels.forward(
                        &directions[d].geometry,
                        &packs[d],
                        &sweeps[d],
                        slice,
                        own,
                    );
                }
            });
            pass.dropped = dropped;
            layers.push(pass);
        }
        Pass {
            steps,
            layers,
            drawn,
        }
    }

    /// Drops from the input of a layer, or from its gradient.
    fn drop_out(&self, rows: &mut [E], steps: &Steps, drawn: Drawn, layer: usize) {
        let mask = Mask {
            rate: self.config.dropout,
            locked: self.config.locked_dropout,
            drawn,
            stream: layer as u64,
        };
        dropout::apply(rows, self.layers[layer][0].geometry.input, steps, &mask);
    }
}

#[cfg(test)]
mod tests;
