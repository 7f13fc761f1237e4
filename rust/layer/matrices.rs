//! The matrices of one direction of a layer: packed for the passes, and in shares for their gradients.

use std::ops::Range;
use std::sync::Arc;

use super::Geometry;
use super::panels::{Lent, Packed, Panels, Turned, packers};
use crate::buffer::{Arena, Buffer};
use crate::cell::Feed;
use crate::kernel::pack::{Columns, GateRows, pack_backward, pack_forward};
use crate::parallel;
use crate::simd::Real;

/// One direction's weights in torch's layout. An absent bias is zero.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a, E> {
    /// weight_ih, (G·H, I)
    pub input: &'a [E],
    /// weight_hh, (G·H, W)
    pub state: &'a [E],
    /// bias_ih, (G·H)
    pub input_bias: Option<&'a [E]>,
    /// bias_hh, (G·H)
    pub state_bias: Option<&'a [E]>,
    /// weight_hr, (W, H); empty without projection
    pub projection: &'a [E],
}

/// Where the gradients of one direction's weights are written, shaped as [`Weights`].
pub(crate) struct WeightGradients<E> {
    pub input: *mut E,
    pub state: *mut E,
    pub input_bias: Option<*mut E>,
    pub state_bias: Option<*mut E>,
    pub projection: *mut E,
    /// Sums of the input's matrix on their way, where its columns were looked up:
    /// `[panel][column][slots][L]`; else null.
    pub looked_up: *mut E,
    /// Whether they are added to what is there.
    pub add: bool,
    /// Whether this is the first round of a pass, and whether it is the last.
    pub first: bool,
    pub last: bool,
}

// SAFETY: the units of `weight_units` write disjoint elements; see `Kernels::weights`.
unsafe impl<E: Sync> Sync for WeightGradients<E> {}

/// One of the matrices of a direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Matrix {
    /// weight_ih
    Input,
    /// weight_hh
    State,
    /// weight_hr
    Projection,
}

/// A matrix as blocks of rows, one for each gate.
#[derive(Clone, Copy)]
pub(crate) struct MatrixShape {
    /// The slots that it feeds.
    pub feed: Feed,
    /// Rows of a block.
    pub units: usize,
    pub columns: Columns,
}

impl MatrixShape {
    /// Panels of units.
    pub fn panels(&self, lanes: usize) -> usize {
        self.units.div_ceil(lanes)
    }

    /// The blocks, in the order of the slots.
    fn gates<'a, E>(&self, rows: &'a [E]) -> Vec<GateRows<'a, E>> {
        let (size, columns) = (self.units * self.columns.real(), self.columns);
        let block = |&gate: &usize| GateRows {
            rows: &rows[gate * size..][..size],
            columns,
        };
        self.feed.gates.iter().map(block).collect()
    }
}

/// Weights for forward.
pub(crate) struct ForwardPack<'a, E> {
    pub weights: Panels<'a, E>,
    pub bias: Buffer<E>,
    /// From the cell's output to the hidden state, packed; empty without projection.
    pub projection: Buffer<E>,
}

/// Weights for backward.
pub(crate) struct BackwardPack<'a, E> {
    /// Towards the input.
    pub input: Turned<'a, E>,
    /// Towards the step before.
    pub state: Turned<'a, E>,
    /// From the hidden state to the cell's output; empty without projection.
    pub projection: Turned<'a, E>,
}

impl Geometry {
    /// The shape of one of the matrices; one that is not there has no gates.
    pub fn shape(&self, matrix: Matrix) -> MatrixShape {
        let (feed, units, columns) = match matrix {
            Matrix::Input => (self.signature.input, self.hidden, self.input),
            Matrix::State => (self.signature.state, self.hidden, self.state()),
            Matrix::Projection => {
                let gates: &[usize] = if self.projects() { &[0] } else { &[] };
                (Feed { first: 0, gates }, self.width, self.units())
            }
        };
        MatrixShape {
            feed,
            units,
            columns,
        }
    }

    /// Packs for forward, bias summed by slot.
    pub fn pack_forward<E: Real>(
        &self,
        w: Weights<E>,
        arena: &Arc<Arena>,
    ) -> ForwardPack<'static, E> {
        let input = self.shape(Matrix::Input).gates(w.input);
        let state = self.shape(Matrix::State).gates(w.state);
        let [of_input, _] = self.forward_columns();
        let numbers = of_input.0 * of_input.1;
        let size = self.forward_panel();
        let mut packed = arena.take(size * self.panels());
        let workers = packers(packed.len());
        let panels = packed.chunks_exact_mut(size.max(1)).enumerate().collect();
        parallel::for_each(workers, panels, |(panel, out): (usize, &mut [E])| {
            let units = (panel * self.lanes, self.hidden);
            let (to_input, to_state) = out.split_at_mut(numbers);
            pack_forward(&input, units, self.lanes, to_input);
            pack_forward(&state, units, self.lanes, to_state);
        });
        let weights = Panels::Packed(Packed {
            numbers: packed,
            of_input: numbers,
            panel: size,
        });
        self.forward_with(weights, w, arena)
    }

    /// The same for weights that a single step of a few rows reads where they are.
    pub fn lend_forward<'a, E: Real>(
        &self,
        w: Weights<'a, E>,
        arena: &Arc<Arena>,
    ) -> ForwardPack<'a, E> {
        let input = self.shape(Matrix::Input).gates(w.input);
        let state = self.shape(Matrix::State).gates(w.state);
        self.forward_with(Panels::Lent([Lent(input), Lent(state)]), w, arena)
    }

    fn forward_with<'a, E: Real>(
        &self,
        weights: Panels<'a, E>,
        w: Weights<E>,
        arena: &Arc<Arena>,
    ) -> ForwardPack<'a, E> {
        // A product reads its units by whole panels, the last one's padding too.
        let of = self.shape(Matrix::Projection);
        let rows = of.gates(w.projection);
        let size = of.columns.stride() * rows.len() * self.lanes;
        let mut projection = arena.zeros(size * of.panels(self.lanes));
        let workers = packers(projection.len());
        let panels = projection.chunks_exact_mut(size.max(1));
        let panels = panels.enumerate().collect();
        parallel::for_each(workers, panels, |(panel, out): (usize, &mut [E])| {
            let units = (panel * self.lanes, of.units);
            pack_forward(&rows, units, self.lanes, out);
        });
        ForwardPack {
            weights,
            bias: self.bias(w, arena),
            projection,
        }
    }

    /// Biases by slot.
    fn bias<E: Real>(&self, w: Weights<E>, arena: &Arc<Arena>) -> Buffer<E> {
        let mut bias = arena.zeros(self.slot_row() * self.panels());
        let sources = [
            (self.signature.input, w.input_bias),
            (self.signature.state, w.state_bias),
        ];
        for (panel, bias) in bias.chunks_exact_mut(self.slot_row()).enumerate() {
            let first = panel * self.lanes;
            for (feed, from) in sources {
                let Some(from) = from else { continue };
                for (i, gate) in feed.gates.iter().enumerate() {
                    let from = &from[gate * self.hidden..][..self.hidden][first..];
                    let to = &mut bias[(feed.first + i) * self.lanes..][..self.lanes];
                    for (to, &from) in to.iter_mut().zip(from) {
                        *to += from;
                    }
                }
            }
        }
        bias
    }

    /// Packs for backward.
    pub fn pack_backward<E: Real>(
        &self,
        w: Weights<E>,
        arena: &Arc<Arena>,
    ) -> BackwardPack<'static, E> {
        let pack = |from, matrix| self.pack_turned(from, matrix, arena);
        BackwardPack {
            input: pack(w.input, Matrix::Input),
            state: pack(w.state, Matrix::State),
            projection: pack(w.projection, Matrix::Projection),
        }
    }

    /// The same for weights that a single step of a few rows reads where they are. Those whose columns
    /// fill no registers are packed.
    pub fn lend_backward<'a, E: Real>(
        &self,
        w: Weights<'a, E>,
        with_input: bool,
        arena: &Arc<Arena>,
    ) -> BackwardPack<'a, E> {
        let lend = |from, matrix| {
            let of = self.shape(matrix);
            if of.columns.stride() > of.columns.real() {
                return self.pack_turned(from, matrix, arena);
            }
            Turned::Lent(Lent(of.gates(from)))
        };
        BackwardPack {
            input: match with_input {
                true => lend(w.input, Matrix::Input),
                false => Turned::Lent(Lent(Vec::new())),
            },
            state: lend(w.state, Matrix::State),
            projection: lend(w.projection, Matrix::Projection),
        }
    }

    fn pack_turned<E: Real>(
        &self,
        from: &[E],
        matrix: Matrix,
        arena: &Arc<Arena>,
    ) -> Turned<'static, E> {
        let of = self.shape(matrix);
        let rows = of.gates(from);
        let (panels, depth) = (of.panels(self.lanes), rows.len() * self.lanes);
        let size = panels * depth * self.lanes;
        let mut out = arena.take(size * (of.columns.stride() / self.lanes));
        let workers = packers(out.len());
        let columns = out.chunks_exact_mut(size.max(1)).enumerate().collect();
        parallel::for_each(workers, columns, |(panel, out): (usize, &mut [E])| {
            pack_backward(&rows, panel, of.units, self.lanes, out);
        });
        Turned::Packed(out, (panels, depth))
    }
}

/// A share of the work on weight gradients: some panels of units, and some columns of one or more
/// matrices that multiply for the same sums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WeightUnit {
    /// Panels of units.
    pub panels: Range<usize>,
    /// Positions in the columns' padded rows, from a multiple of L.
    pub columns: Vec<(Matrix, Range<usize>)>,
    /// Whether the cell's biases of these panels are this unit's work too.
    pub with_bias: bool,
}

impl Geometry {
    /// The weight gradients' work, in at least `workers` shares where there is enough of it. Units of the
    /// input's matrix have no other if its columns were looked up.
    ///
    /// The cut does not change the results: each sum is one unit's.
    pub fn weight_units(&self, workers: usize, looks_up: bool) -> Vec<WeightUnit> {
        const WIDE: usize = 512;
        const HIGH: usize = 8;
        /// Panels a worker of which one more or less makes no difference.
        const MANY: usize = 4;
        /// Columns up to which one unit takes those of both matrices. With more, each fills its tiles
        /// by itself, and the rows of both would leave no room in the cache for the slots.
        const TOGETHER: usize = 128;
        let both = self.state_padded() + self.input.stride();
        let groups: &[&[Matrix]] = match looks_up || both > TOGETHER {
            true => &[&[Matrix::State], &[Matrix::Input], &[Matrix::Projection]],
            false => &[&[Matrix::State, Matrix::Input], &[Matrix::Projection]],
        };
        let mut units = Vec::new();
        for group in groups {
            // Where each matrix's columns begin, side by side in whole panels.
            let mut sides = Vec::new();
            let mut end = 0;
            for &matrix in *group {
                let of = self.shape(matrix);
                let is_there = !of.feed.gates.is_empty();
                let extent = if is_there { of.columns.extent() } else { 0 };
                sides.push((matrix, end..end + extent));
                end += extent.next_multiple_of(self.lanes);
            }
            let panels = self.shape(group[0]).panels(self.lanes);
            let high = (panels / (2 * workers)).clamp(1, HIGH);
            // Few panels that do not go into the workers are cut once more.
            let is_even = panels.is_multiple_of(workers) || panels >= MANY * workers;
            let wide = end.div_ceil(if is_even { 1 } else { workers });
            let wide = wide.next_multiple_of(self.lanes).clamp(self.lanes, WIDE);
            for start in (0..end).step_by(wide) {
                let within = |(matrix, side): &(Matrix, Range<usize>)| {
                    let at = |end: usize| end.clamp(side.start, side.end) - side.start;
                    (*matrix, at(start)..at(start + wide))
                };
                let columns = sides.iter().map(within);
                let columns: Vec<_> = columns.filter(|(_, of)| !of.is_empty()).collect();
                for panel in (0..panels).step_by(high) {
                    units.push(WeightUnit {
                        panels: panel..(panel + high).min(panels),
                        columns: columns.clone(),
                        with_bias: group[0] == Matrix::State && start == 0,
                    });
                }
            }
        }
        // A run of them reads the slots of few panels, for all matrices.
        units.sort_by_key(|unit| unit.panels.start);
        units
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellKind;

    const KINDS: [CellKind; 3] = [CellKind::RNN_TANH, CellKind::Lstm, CellKind::Gru];

    #[test]
    fn weight_units_cover_every_number_once() {
        for kind in KINDS {
            for (segments, columns, hidden, width) in [
                (1, 1, 1, 1),
                (1, 0, 5, 5),
                (2, 700, 33, 33),
                (1, 513, 300, 300),
                (1, 3, 600, 17),
                (2, 5, 33, 32),
            ] {
                for (lanes, workers, looks_up) in
                    [(4, 1, false), (16, 2, true), (16, 2, false), (8, 64, false)]
                {
                    let input = Geometry::columns(segments, columns, lanes);
                    let g = Geometry::new(kind, input, (hidden, width), lanes);
                    let projected = if width < hidden { hidden } else { 0 };
                    let sizes = [g.input.extent(), g.width, projected];
                    let panels = [hidden, hidden, width].map(|units| units.div_ceil(lanes));
                    let mut seen = [0, 1, 2].map(|i| vec![0; sizes[i] * panels[i]]);
                    let mut biases = vec![0; g.panels()];
                    for unit in g.weight_units(workers, looks_up) {
                        for panel in unit.panels.clone() {
                            biases[panel] += u32::from(unit.with_bias);
                            for (matrix, columns) in unit.columns.clone() {
                                assert_eq!(columns.start % lanes, 0);
                                let source = match matrix {
                                    Matrix::Input => 0,
                                    Matrix::State => 1,
                                    Matrix::Projection => 2,
                                };
                                for column in columns {
                                    seen[source][panel * sizes[source] + column] += 1;
                                }
                            }
                        }
                    }
                    assert!(
                        seen.iter()
                            .flatten()
                            .chain(&biases)
                            .all(|&times| times == 1)
                    );
                }
            }
        }
    }

    #[test]
    fn there_is_a_unit_for_every_worker() {
        let g = Geometry::new(CellKind::Lstm, Geometry::columns(1, 64, 16), (256, 256), 16);
        for workers in [1, 2, 4, 8] {
            assert!(g.weight_units(workers, false).len() >= workers);
        }
    }

    #[test]
    fn halves_of_the_units_are_halves_of_the_panels() {
        for (inputs, width) in [(50, 128), (50, 96), (700, 128)] {
            let input = Geometry::columns(1, inputs, 16);
            let g = Geometry::new(CellKind::Lstm, input, (128, width), 16);
            let units = g.weight_units(2, false);
            let (first, second) = units.split_at(units.len() / 2);
            let numbers = |units: &[WeightUnit], of: Matrix| {
                let columns = units.iter().flat_map(|unit| {
                    let columns = unit.columns.iter().filter(|columns| columns.0 == of);
                    columns.map(|columns| columns.1.len() * unit.panels.len())
                });
                columns.sum::<usize>()
            };
            for matrix in [Matrix::Input, Matrix::State, Matrix::Projection] {
                assert_eq!(numbers(first, matrix), numbers(second, matrix));
            }
        }
    }

    #[test]
    fn biases_are_summed_by_slot() {
        // One unit: gates r, z, n; slots n of the input, r, z, n of the state.
        let g = Geometry::new(CellKind::Gru, Geometry::columns(1, 1, 2), (1, 1), 2);
        let weights = Weights {
            input: &[0.0; 3],
            state: &[0.0; 3],
            input_bias: Some(&[1.0, 2.0, 4.0]),
            state_bias: Some(&[8.0, 16.0, 32.0]),
            projection: &[],
        };
        let pack = g.pack_forward(weights, &Arc::default());
        assert_eq!(*pack.bias, [4.0, 0.0, 9.0, 0.0, 18.0, 0.0, 32.0, 0.0]);
    }

    #[test]
    fn projections_are_packed_for_whole_panels() {
        // Three units to two columns, two lanes: panels of units (0, 1) and (2, padding).
        let g = Geometry::new(CellKind::Lstm, Geometry::columns(1, 0, 2), (3, 2), 2);
        let weights = Weights {
            input: &[],
            state: &[0.0; 24],
            input_bias: None,
            state_bias: None,
            projection: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        };
        let forward = g.pack_forward(weights, &Arc::default());
        let by_unit = [1.0, 4.0, 2.0, 5.0, 3.0, 6.0, 0.0, 0.0];
        assert_eq!(*forward.projection, by_unit);
        let backward = g.pack_backward(weights, &Arc::default());
        let by_column = [1.0, 2.0, 4.0, 5.0, 3.0, 0.0, 6.0, 0.0];
        let Turned::Packed(projection, _) = backward.projection else {
            panic!("packed");
        };
        assert_eq!(*projection, by_column);
    }
}
