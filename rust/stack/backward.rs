//! A stack in reverse: from gradients of its outputs to those of its inputs and weights.

use std::iter::zip;
use std::ops::Range;
use std::ptr;

use super::{Direction, Parameters, Stack, cut, members};
use crate::buffer::Buffer;
use crate::cell::Carry;
use crate::layer::{Descent, Geometry, InputGradient, Rounds, WeightGradients, WeightUnit};
use crate::parallel;
use crate::pass::{Ends, Feed, Pass, StateRows, States, View, fed};
use crate::sequence::Element;
use crate::steps::{Steps, Strides};

/// Which gradients are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Want {
    /// The input's.
    pub input: bool,
    /// How its rows are to lie, without padding and with nothing between; else they are padded and in
    /// packed order.
    pub input_strides: Option<Strides>,
    /// The initial states'.
    pub states: bool,
    /// Whether what a step carries to the one before stays apart from the rest of them, so that a
    /// pass over the steps before may go on to the same bits.
    pub apart: bool,
    /// Those of the layers' outputs, besides what comes from later steps.
    pub outputs: bool,
    /// The weights'.
    pub weights: bool,
    /// Whether the weights' are added to what is there.
    pub add: bool,
    /// The lowest layer that something is wanted of: 0 with the input's or the initial states'.
    pub from_layer: usize,
}

impl Want {
    /// The gradients of all that goes in.
    pub const ALL: Self = Want {
        input: true,
        input_strides: None,
        states: true,
        apart: false,
        outputs: false,
        weights: true,
        add: false,
        from_layer: 0,
    };
}

/// Gradients of what went into a pass.
pub(crate) struct InputGradients<E> {
    /// Of x, R rows that lie as asked for, if asked for.
    pub dx: Option<Buffer<E>>,
    /// Of the initial hidden states, if asked for.
    pub dh0: StateRows<E>,
    /// Of the initial memories, if asked for: what the first step carries to the one before, which
    /// is unspecified for cells that carry nothing.
    pub dmemory0: StateRows<E>,
    /// Of each layer's output but the last one's, if asked for.
    pub outputs: Vec<Buffer<E>>,
}

impl<E: Element> Stack<E> {
    /// Takes a kept pass back through all layers, and writes or adds the gradients of the
    /// weights if they are wanted.
    ///
    /// `last` are the gradients of the final states, for any cell with what the step after carried as
    /// the memory's.
    ///
    /// # Panics
    /// If a buffer's size is not that, or the pass was not kept.
    pub(crate) fn backward(
        &self,
        weights: Parameters<E>,
        pass: Pass<E>,
        ends: Ends<E>,
        last: States<E>,
        want: Want,
        gradients: &mut [E],
    ) -> InputGradients<E> {
        assert!(weights.fit(&self.layout));
        assert!(!want.weights || gradients.len() == self.layout.size());
        let Pass {
            steps,
            mut layers,
            drawn,
        } = pass;
        let (rows, batch) = (steps.rows(), steps.batch());
        let state_zeros = |g: &Geometry| self.arena.zeros(batch * g.state_padded());
        let memory_zeros = |g: &Geometry| self.arena.zeros(batch * g.padded());
        let mut dh = last.hidden.map(|rows| rows.into_iter().rev());
        let mut dmemory = last.memory.map(|rows| rows.into_iter().rev());
        let (mut all_dh0, mut all_dmemory0) = (Vec::new(), Vec::new());
        // Of the output of the layer that is next, from the layer above.
        let mut above: Option<Buffer<E>> = None;
        let mut outputs = Vec::new();
        if let Feed::Rows(x) = &ends.x {
            assert!(x.covers(&steps, self.input_columns().stride()));
        }
        let outputs_stride = self.output_columns().stride();
        match (&ends.y, layers.last()) {
            (Some(y), _) => assert!(y.covers(&steps, outputs_stride)),
            (None, last) => assert!(last.is_none_or(|last| last.y.len() == rows * outputs_stride)),
        }
        assert!(want.from_layer == 0 || !(want.input || want.states));
        for (layer, directions) in self.layers.iter().enumerate().skip(want.from_layer).rev() {
            let mut pass = layers.pop().expect("a pass has every layer");
            assert!(pass.directions.iter().all(|pass| pass.saved.is_some()));
            let dropped = pass.dropped.take();
            let feed = fed(dropped.as_deref(), layers.last(), ends.x);
            let is_last = layer + 1 == self.layers.len();
            let outputs_stride = self.layer_columns(layer).stride();
            let dy = match &above {
                Some(rows) => Some(View::packed(rows, outputs_stride)),
                None => ends.dy.filter(|_| is_last),
            };
            assert!(dy.is_none_or(|dy| dy.covers(&steps, outputs_stride)));
            let (mut last, mut carry) = (Vec::new(), Vec::new());
            let mut dh0 = Vec::new();
            for direction in directions.iter().rev() {
                let g = &direction.geometry;
                last.push(
                    dh.as_mut()
                        .and_then(Iterator::next)
                        .unwrap_or_else(|| state_zeros(g)),
                );
                assert_eq!(last[last.len() - 1].len(), batch * g.state_padded());
                let mut carried = memory_zeros(g);
                if let Some(memory) = dmemory.as_mut().and_then(Iterator::next) {
                    assert_eq!(memory.len(), batch * g.padded());
                    g.spread(&memory, batch, &mut carried);
                }
                carry.push(carried);
                dh0.extend(want.states.then(|| state_zeros(g)));
            }
            for list in [&mut last, &mut carry, &mut dh0] {
                list.reverse();
            }
            let sweeps = pass.sweeps(&steps, feed, ends.y.filter(|_| is_last));
            let workers = self.workers(rows, &directions[0].geometry);
            let with_input = layer > want.from_layer || want.input;
            let packs: Vec<_> = directions
                .iter()
                .map(|direction| direction.backward_pack(weights, with_input, &self.arena))
                .collect();
            let columns = directions[0].geometry.input;
            let (strides, width) = match want.input_strides.filter(|_| layer == 0) {
                Some(strides) => (strides, columns.real()),
                None => (Strides::packed(columns.stride()), columns.stride()),
            };
            let mut dx = with_input.then(|| self.arena.take(rows * width));
            let to = InputGradient {
                at: dx.as_mut().map_or(ptr::null_mut(), |dx| dx.as_mut_ptr()),
                strides,
                width,
                add: false,
            };
            let base = gradients.as_mut_ptr();

            let rounds: Vec<_> = directions
                .iter()
                .map(|d| Rounds::new::<E>(&d.geometry, &steps, d.reverse))
                .collect();
            let mut rooms: Vec<_> = zip(directions, &rounds)
                .map(|(direction, rounds)| {
                    let g = &direction.geometry;
                    let is_summed = want.weights && sweeps[0].ids.is_some();
                    let sums = g.panels() * g.input.extent() * g.forward_columns()[0].1;
                    let own_slots = if g.saved_row() == 0 { rounds.rows() } else { 0 };
                    Room {
                        slots: self.arena.take(own_slots * g.panels() * g.slot_row()),
                        dh: self.arena.take(match g.projects() {
                            true => rounds.rows() * g.state_padded(),
                            false => 0,
                        }),
                        looked_up: self.arena.take(if is_summed { sums } else { 0 }),
                    }
                })
                .collect();
            for turn in 0..rounds[0].count() {
                let descents: Vec<_> = (0..directions.len())
                    .map(|d| Descent {
                        round: rounds[d].steps(turn),
                        pieces: rounds[d].pieces(turn),
                        places: rounds[d].places(),
                        slots: match directions[d].geometry.saved_row() {
                            0 => rooms[d].slots.as_mut_ptr(),
                            _ => sweeps[d].saved,
                        },
                        dh: rooms[d].dh.as_mut_ptr(),
                        dy: dy.map_or(ptr::null(), |dy| {
                            dy.at()
                                .wrapping_add(d * directions[d].geometry.state_padded())
                        }),
                        dy_strides: dy.map_or(Strides::packed(0), |dy| dy.strides()),
                        dh_last: last[d].as_ptr(),
                        carry: carry[d].as_mut_ptr(),
                        dh0: if want.states {
                            dh0[d].as_mut_ptr()
                        } else {
                            ptr::null_mut()
                        },
                    })
                    .collect();
                let slices = cut(&steps, directions, workers, |d| descents[d].round.clone());
                parallel::for_each(workers, members(&slices), |(d, slice, own)| {
                    // SAFETY: the buffers were sized above or in `forward`, or are views that cover
                    // the batch, as asserted; packs are this geometry's, and the slices are disjoint
                    // in rows or direction.
                    unsafe {
                        self.kernels.backward(
                            &directions[d].geometry,
                            &packs[d],
                            &sweeps[d],
                            &descents[d],
                            slice,
                            own,
                        );
                    }
                });

                let outs: Vec<_> = zip(directions, &mut rooms)
                    .map(|(direction, room)| WeightGradients {
                        looked_up: room.looked_up.as_mut_ptr(),
                        first: turn == 0,
                        last: turn + 1 == rounds[0].count(),
                        ..direction.gradients(base, want.add || turn > 0)
                    })
                    .collect();
                let items = late_items(
                    &steps,
                    directions,
                    (&rounds, turn),
                    workers,
                    (dx.is_some(), want.weights, sweeps[0].ids.is_some()),
                );
                parallel::for_each_at_home(items, |item| match item {
                    Late::Input(range, of) => {
                        for (d, add) in of {
                            // SAFETY: dx has R rows of this width, with nothing between, which were
                            // written if they are added to; each item's steps are its own.
                            unsafe {
                                self.kernels.input_gradient(
                                    &directions[d].geometry,
                                    &packs[d],
                                    &sweeps[d],
                                    &descents[d],
                                    range.clone(),
                                    &to.adding(add),
                                );
                            }
                        }
                    }
                    Late::Weights(d, unit) => {
                        // SAFETY: gradients have every parameter of the layout; units are disjoint.
                        unsafe {
                            self.kernels.weights(
                                &directions[d].geometry,
                                &sweeps[d],
                                &descents[d],
                                &unit,
                                &outs[d],
                            );
                        }
                    }
                });
            }
            if let (Some(drawn), Some(dx)) = (drawn.filter(|_| layer > 0), dx.as_mut()) {
                self.drop_out(dx, &steps, drawn, layer);
            }
            let above = std::mem::replace(&mut above, dx);
            outputs.extend(above.filter(|_| want.outputs));
            let states = dh0.into_iter().zip(&carry).zip(directions).rev();
            for ((mut dh0, carry), Direction { geometry: g, .. }) in states {
                let mut carried = memory_zeros(g);
                g.collect(carry, batch, &mut carried);
                if g.signature.carry == Carry::Hidden && !want.apart {
                    dh0.iter_mut()
                        .zip(&*carried)
                        .for_each(|(to, &from)| *to += from);
                }
                all_dh0.push(dh0);
                all_dmemory0.push(carried);
            }
        }
        all_dh0.reverse();
        all_dmemory0.reverse();
        outputs.reverse();
        InputGradients {
            dx: above,
            dh0: all_dh0,
            dmemory0: all_dmemory0,
            outputs,
        }
    }
}

/// What a direction writes on its way.
struct Room<E> {
    /// See [`Descent`]; nothing where they take the place of what was saved.
    slots: Buffer<E>,
    dh: Buffer<E>,
    /// See [`WeightGradients`].
    looked_up: Buffer<E>,
}

/// Work that waits until all slots of a round hold their gradients.
enum Late {
    /// The input's gradient at some steps: of which directions, and whether each adds to what is
    /// there.
    Input(Range<usize>, Vec<(usize, bool)>),
    /// A share of a direction's weight gradients.
    Weights(usize, WeightUnit),
}

/// The steps of a round in runs whose rows are one product each towards the input: enough of them
/// that a column panel's weights are read from memory once for many rows, but as many for every
/// thread.
pub(crate) fn input_parts(
    steps: &Steps,
    round: &Range<usize>,
    workers: usize,
) -> impl Iterator<Item = Range<usize>> + use<> {
    const ROWS: usize = 256;
    let rows = steps.rows_of(round).len();
    steps.parts(round, rows.div_ceil(ROWS).next_multiple_of(workers))
}

fn late_items<E>(
    steps: &Steps,
    directions: &[Direction<E>],
    (rounds, turn): (&[Rounds], usize),
    workers: usize,
    (with_input, with_weights, looks_up): (bool, bool, bool),
) -> Vec<Vec<Late>> {
    // The directions come to the same rounds from both ends, and meet in one, or between two.
    let at = |d: usize| rounds[d].steps(turn);
    let is_met = (1..rounds.len()).any(|d| at(d) == at(0));
    let is_second = |d: usize| {
        rounds
            .iter()
            .any(|of| (0..turn).any(|before| of.steps(before) == at(d)))
    };
    let inputs: Vec<_> = match is_met {
        true => vec![(at(0), (0..rounds.len()).map(|d| (d, d > 0)).collect())],
        false => (0..rounds.len())
            .map(|d| (at(d), vec![(d, is_second(d))]))
            .collect(),
    };
    let mut items = Vec::new();
    for (round, of) in inputs.into_iter().filter(|_| with_input) {
        // These are the longest items, and so come first.
        let parts = input_parts(steps, &round, workers);
        items.extend(parts.map(|part| Late::Input(part, of.clone())));
    }
    // Each thread has those of the direction whose slots it has left in its cache.
    let shares = directions.iter().enumerate().filter(|_| with_weights);
    let units = shares.flat_map(|(d, direction)| {
        let units = direction.geometry.weight_units(workers, looks_up);
        units.into_iter().map(move |unit| Late::Weights(d, unit))
    });
    let mut lists = parallel::shared_out(items, workers);
    for (list, units) in zip(&mut lists, parallel::shared_out(units.collect(), workers)) {
        list.extend(units);
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellKind;
    use crate::stack::Config;

    #[test]
    fn the_input_gradient_is_cut_evenly_for_all_threads() {
        for (lengths, workers, most) in [
            (vec![50; 8], 2, 200),
            (vec![50; 8], 16, 32),
            (vec![100; 64], 2, 256),
            (vec![3, 0, 1], 1, 4),
            (vec![0], 4, 0),
        ] {
            let steps = Steps::new(&lengths);
            let mut end = 0;
            let round = [Rounds::whole(&steps, true)];
            let lists = late_items::<f32>(&steps, &[], (&round, 0), workers, (true, true, false));
            for item in lists.into_iter().flatten() {
                let Late::Input(range, of) = item else {
                    unreachable!("there is no direction with weights");
                };
                assert_eq!((range.start, of), (end, vec![(0, false)]));
                end = range.end;
                let rows = steps.rows_of(&range).len();
                assert!(rows <= most, "{rows} rows of {}", steps.rows());
            }
            assert_eq!(end, steps.longest());
        }
    }

    #[test]
    fn of_two_directions_each_thread_takes_the_weights_of_its_own() {
        let stack = Stack::<f32>::new(Config {
            cell: CellKind::Lstm,
            input_size: 50,
            hidden_sizes: vec![64],
            bias: true,
            bidirectional: true,
            dropout: 0.0,
            locked_dropout: false,
            proj_size: 0,
        })
        .unwrap();
        let (directions, steps) = (&stack.layers[0], Steps::new(&[50; 32]));
        let rounds = [false, true].map(|reverse| Rounds::cut(&steps, reverse, usize::MAX / 2));
        for workers in [1, 2, 4] {
            let kinds = (true, true, false);
            let lists = late_items(&steps, directions, (&rounds, 0), workers, kinds);
            assert_eq!(lists.len(), workers);
            let inputs = |list: &Vec<Late>| {
                let count = list.iter().filter(|item| matches!(item, Late::Input(..)));
                count.count()
            };
            assert!(lists.iter().all(|list| inputs(list) == inputs(&lists[0])));
            for (i, list) in lists.iter().enumerate().filter(|_| workers > 1) {
                let of = list.iter().filter_map(|item| match item {
                    Late::Input(..) => None,
                    Late::Weights(d, _) => Some(*d),
                });
                assert!(of.clone().count() > 0 && of.clone().all(|d| d == i * 2 / workers));
            }
        }
    }

    #[test]
    fn of_two_directions_the_second_adds() {
        for (longest, most) in [
            (1, 1),
            (2, 1),
            (4000, 1),
            (1700, 1),
            (1700, 700),
            (5000, 600),
        ] {
            let steps = Steps::new(&[longest; 3]);
            let rounds = [false, true].map(|reverse| Rounds::cut(&steps, reverse, most));
            let mut written = vec![0; longest];
            for turn in 0..rounds[0].count() {
                let lists = late_items::<f32>(&steps, &[], (&rounds, turn), 2, (true, true, false));
                for item in lists.into_iter().flatten() {
                    let Late::Input(range, of) = item else {
                        unreachable!("there is no direction with weights");
                    };
                    for (_, add) in of {
                        for step in range.clone() {
                            assert_eq!(written[step], usize::from(add));
                            written[step] += 1;
                        }
                    }
                }
            }
            assert_eq!(written, vec![2; longest]);
        }
    }
}
