//! Forward passes against loops over the equations, and the edges of what may come in.

use ndarray::{Array1, Array2, Array3, ArrayView2, ArrayView3, Axis, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rnncore::{CellKind, Config, Error, Inputs, Isa, Nonlinearity, Recurrent, Rows, Stack};

struct Problem {
    model: Recurrent<f64>,
    x: Array3<f64>,
    h0: Array3<f64>,
    c0: Array3<f64>,
    lengths: Vec<i64>,
}

/// Output, final hidden states and final memories.
type Found = [Array3<f64>; 3];

impl Problem {
    fn new(config: Config, isa: Isa, total: usize, lengths: &[i64]) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let mut uniform = move || f64::from(random.next_u32()) / 2f64.powi(31) - 1.0;
        let mut model =
            Recurrent::from_stack(Stack::with_isa(config.clone(), isa).unwrap()).unwrap();
        model
            .update(|weights| {
                weights.fill_with(|| 0.6 * uniform());
                Ok(())
            })
            .unwrap();
        let batch = lengths.len();
        let count = config.num_layers() * config.directions();
        let mut array = |shape| Array3::from_shape_simple_fn(shape, &mut uniform);
        Problem {
            model,
            x: array((total, batch, config.input_size)),
            h0: array((count, batch, config.state_size(0))),
            c0: array((count, batch, config.hidden_sizes[0])),
            lengths: lengths.to_vec(),
        }
    }

    fn run(&self, with_states: bool, keep: bool) -> Found {
        self.run_on(self.x.view(), with_states, keep)
    }

    fn run_on(&self, x: ArrayView3<f64>, with_states: bool, keep: bool) -> Found {
        let config = self.model.config();
        let lstm = config.cell == CellKind::Lstm;
        let inputs = Inputs {
            x: x.into(),
            h0: with_states.then(|| self.h0.view()),
            c0: (with_states && lstm).then(|| self.c0.view()),
            lengths: Some(&self.lengths),
        };
        let tape = self.model.forward(inputs, keep, None).unwrap();
        let (total, batch, _) = self.x.dim();
        let mut output = Array3::from_elem(
            (total, batch, config.directions() * config.state_size(0)),
            f64::NAN,
        );
        let mut hidden = Array3::from_elem(self.h0.dim(), f64::NAN);
        let mut memory = Array3::zeros(self.c0.dim());
        self.model.output(&tape, output.view_mut()).unwrap();
        let with_memory = lstm.then(|| memory.view_mut());
        self.model
            .states(&tape, hidden.view_mut(), with_memory)
            .unwrap();
        [output, hidden, memory]
    }

    fn weights(&self, name: &str) -> Array2<f64> {
        let entries = self.model.layout().entries();
        let config = self.model.config();
        let Some(entry) = entries.iter().find(|entry| entry.name == name) else {
            assert!(name.starts_with("bias") && !config.bias);
            return Array2::zeros((4 * config.hidden_sizes[0], 1));
        };
        let shape = (entry.shape[0], entry.shape.get(1).copied().unwrap_or(1));
        Array2::from_shape_vec(shape, self.model.weights()[entry.range()].to_vec()).unwrap()
    }

    /// The same by loops over sequences and steps.
    fn expected(&self, with_states: bool) -> Found {
        let config = self.model.config();
        let directions = config.directions();
        let (total, batch, _) = self.x.dim();
        let zero = |state: &Array3<f64>| {
            if with_states {
                state.clone()
            } else {
                Array3::zeros(state.dim())
            }
        };
        let (mut hidden, mut memory) = (zero(&self.h0), zero(&self.c0));
        let mut input = self.x.clone();
        for (layer, &hidden_size) in config.hidden_sizes.iter().enumerate() {
            let width = config.state_size(layer);
            let mut output = Array3::zeros((total, batch, directions * width));
            for direction in 0..directions {
                let suffix = format!("l{layer}{}", if direction == 1 { "_reverse" } else { "" });
                let weights = |name: &str| self.weights(&format!("{name}_{suffix}"));
                let (w, u) = (weights("weight_ih"), weights("weight_hh"));
                let (b, d) = (weights("bias_ih"), weights("bias_hh"));
                let projection = (config.proj_size > 0).then(|| weights("weight_hr"));
                let state = layer * directions + direction;
                for sequence in 0..batch {
                    let mut h = hidden.slice(s![state, sequence, ..]).to_owned();
                    let mut c = memory.slice(s![state, sequence, ..]).to_owned();
                    let length = self.lengths[sequence] as usize;
                    for i in 0..length {
                        let step = if direction == 1 { length - 1 - i } else { i };
                        let gate = |w: ArrayView2<f64>, b: ArrayView2<f64>, x: &Array1<f64>, g| {
                            let rows = s![g * hidden_size..(g + 1) * hidden_size, ..];
                            w.slice(rows).dot(x) + b.slice(rows).column(0)
                        };
                        let x = input.slice(s![step, sequence, ..]).to_owned();
                        let ax = |g: usize| gate(w.view(), b.view(), &x, g);
                        let ah = |g: usize| gate(u.view(), d.view(), &h, g);
                        let sigmoid = |a: Array1<f64>| a.mapv(|a| 1.0 / (1.0 + (-a).exp()));
                        let tanh = |a: Array1<f64>| a.mapv(f64::tanh);
                        h = match config.cell {
                            CellKind::Rnn {
                                nonlinearity,
                                residual,
                            } => {
                                let new = (ax(0) + ah(0)).mapv(|a| apply(nonlinearity, a));
                                if residual { new + &h } else { new }
                            }
                            CellKind::Lstm => {
                                let [i, f, o] = [0, 1, 3].map(|g| sigmoid(ax(g) + ah(g)));
                                c = f * c + i * tanh(ax(2) + ah(2));
                                o * tanh(c.clone())
                            }
                            CellKind::Gru => {
                                let [r, z] = [0, 1].map(|g| sigmoid(ax(g) + ah(g)));
                                let n = tanh(ax(2) + r * ah(2));
                                (1.0 - &z) * n + z * &h
                            }
                        };
                        if let Some(projection) = &projection {
                            h = projection.dot(&h);
                        }
                        let columns = direction * width..(direction + 1) * width;
                        output.slice_mut(s![step, sequence, columns]).assign(&h);
                    }
                    hidden.slice_mut(s![state, sequence, ..]).assign(&h);
                    memory.slice_mut(s![state, sequence, ..]).assign(&c);
                }
            }
            input = output;
        }
        [input, hidden, memory]
    }

    fn check(&self) {
        let config = self.model.config();
        for with_states in [true, false] {
            let expected = self.expected(with_states);
            for keep in [true, false] {
                let found = self.run(with_states, keep);
                for (what, (found, expected)) in ["output", "h_n", "c_n"]
                    .iter()
                    .zip(found.iter().zip(&expected))
                {
                    if *what == "c_n" && config.cell != CellKind::Lstm {
                        continue;
                    }
                    for (i, &expected) in expected.indexed_iter() {
                        assert!(
                            (found[i] - expected).abs() < 1e-12,
                            "{what}{i:?} of {config:?}: {} instead of {expected}",
                            found[i]
                        );
                    }
                }
            }
        }
    }
}

fn apply(f: Nonlinearity, a: f64) -> f64 {
    match f {
        Nonlinearity::Tanh => a.tanh(),
        Nonlinearity::Relu => a.max(0.0),
        Nonlinearity::LeakyRelu => a.max(0.01 * a),
        Nonlinearity::Softsign => a / (1.0 + a.abs()),
        Nonlinearity::Sigmoid => 1.0 / (1.0 + (-a).exp()),
    }
}

fn config(cell: CellKind, input_size: usize, hidden_size: usize) -> Config {
    Config {
        cell,
        input_size,
        hidden_sizes: vec![hidden_size],
        bias: true,
        bidirectional: false,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    }
}

/// Whether the cell meets the state before in its sums alone.
fn may_project(cell: CellKind) -> bool {
    use CellKind::{Lstm, Rnn};
    let residual = |cell| matches!(cell, Rnn { residual: true, .. });
    cell == Lstm || (matches!(cell, Rnn { .. }) && !residual(cell))
}

/// A layer without projection, and those with projections of these sizes that the cell may have.
fn projected(config: Config, sizes: &[usize]) -> impl Iterator<Item = Config> {
    let most = if may_project(config.cell) {
        config.hidden_sizes[0]
    } else {
        1
    };
    let sizes: Vec<usize> = sizes.iter().copied().filter(|&size| size < most).collect();
    [0].into_iter().chain(sizes).map(move |proj_size| Config {
        proj_size,
        ..config.clone()
    })
}

#[test]
fn cells_follow_their_equations() {
    for cell in CellKind::recurrent() {
        for &isa in Isa::available() {
            for (input, hidden) in [(1, 1), (3, 5), (17, 16), (5, 33), (0, 3)] {
                for config in projected(config(cell, input, hidden), &[1, 4, 17]) {
                    Problem::new(config, isa, 6, &[6, 3, 0, 1, 6]).check();
                }
            }
        }
    }
}

#[test]
fn a_projection_is_smaller_and_of_a_cell_that_may_have_it() {
    let refused = |cell, proj_size| {
        let config = Config {
            proj_size,
            ..config(cell, 2, 5)
        };
        Recurrent::<f32>::new(config)
            .err()
            .map(|error| error.to_string())
    };
    for cell in CellKind::recurrent() {
        let expected = format!(
            "proj_size: expected 0 for the cell \"{cell}\", as it reads its state unit by unit, got 4"
        );
        let expected = (!may_project(cell)).then_some(expected);
        assert_eq!(refused(cell, 4), expected);
        assert_eq!(refused(cell, 0), None);
    }
    let expected = "proj_size: expected a number smaller than hidden_size, or 0 for none, got 5";
    assert_eq!(refused(CellKind::Lstm, 5).as_deref(), Some(expected));
}

#[test]
fn stacks_follow_their_equations() {
    for cell in CellKind::recurrent() {
        for (num_layers, bidirectional, bias) in
            [(3, false, true), (2, true, true), (1, true, false)]
        {
            let config = Config {
                hidden_sizes: vec![7; num_layers],
                bidirectional,
                bias,
                ..config(cell, 4, 7)
            };
            for config in projected(config, &[5]) {
                let isa = *Isa::available().last().unwrap();
                Problem::new(config, isa, 5, &[2, 5, 0, 4, 5, 1, 3]).check();
            }
        }
    }
}

#[test]
fn states_of_layers_that_differ_have_no_one_array() {
    let config = Config {
        hidden_sizes: vec![4, 3],
        ..config(CellKind::Gru, 2, 1)
    };
    let error = Recurrent::<f32>::new(config).err().unwrap();
    let expected = "hidden_sizes: expected layers of one size, got [4, 3]";
    assert_eq!(error.to_string(), expected);
}

/// Batches of many rows are cut for threads and tiles.
#[test]
fn batches_of_every_size() {
    for cell in CellKind::recurrent() {
        for &isa in Isa::available() {
            for batch in [1, 2, 3, 4, 7, 13, 29] {
                let lengths: Vec<i64> = (0..batch).map(|i| 3 - i % 2).collect();
                for config in projected(config(cell, 2, 9), &[6]) {
                    Problem::new(config, isa, 3, &lengths).check();
                }
            }
        }
    }
}

#[test]
fn nothing_may_come_in() {
    for cell in CellKind::recurrent() {
        let config = Config {
            hidden_sizes: vec![3; 2],
            bidirectional: true,
            proj_size: if may_project(cell) { 2 } else { 0 },
            ..config(cell, 2, 3)
        };
        let isa = *Isa::available().last().unwrap();
        for (total, lengths) in [
            (4, vec![]),
            (0, vec![0, 0]),
            (4, vec![0, 0, 0]),
            (0, vec![]),
        ] {
            let problem = Problem::new(config.clone(), isa, total, &lengths);
            problem.check();
            let inputs = Inputs {
                x: problem.x.view().into(),
                h0: Some(problem.h0.view()),
                c0: None,
                lengths: Some(&problem.lengths),
            };
            let mut tape = problem.model.forward(inputs, true, None).unwrap();
            let on_hidden = problem.h0.mapv(|h| 2.0 * h);
            let gradients = problem
                .model
                .backward(&mut tape, None, Some(on_hidden.view()), None)
                .unwrap();
            assert!(gradients.weights().iter().all(|&g| g == 0.0));
            let mut dx = Array3::from_elem(problem.x.dim(), f64::NAN);
            let mut dh0 = Array3::from_elem(problem.h0.dim(), f64::NAN);
            problem
                .model
                .input_gradients(&gradients, dx.view_mut(), dh0.view_mut(), None)
                .unwrap();
            assert!(dx.iter().all(|&g| g == 0.0));
            // A state that no step changes hands its gradient through.
            assert_eq!(dh0, on_hidden);
        }
    }
}

#[test]
fn arrays_may_be_strided() {
    let problem = Problem::new(config(CellKind::Gru, 3, 4), Isa::available()[0], 5, &[5, 2]);
    let expected = problem.run(true, false);
    // Features first, and steps from the last to the first.
    let stored = problem.x.view().permuted_axes([2, 0, 1]);
    let mut stored = stored.as_standard_layout().into_owned();
    stored.invert_axis(Axis(1));
    let stored = stored.as_standard_layout();
    let mut x = stored.view().permuted_axes([1, 2, 0]);
    x.invert_axis(Axis(0));
    assert_eq!(x, problem.x);
    assert_eq!(problem.run_on(x, true, false), expected);
}

#[test]
fn a_tape_is_used_once_by_its_own_model_with_its_weights() {
    let isa = Isa::available()[0];
    let mut problem = Problem::new(config(CellKind::Lstm, 2, 3), isa, 2, &[2, 1]);
    let inputs = || Inputs {
        x: problem.x.view().into(),
        h0: None,
        c0: None,
        lengths: None,
    };
    let model = &problem.model;
    let mut tape = model.forward(inputs(), true, None).unwrap();
    let found = model.backward(&mut tape, None, None, None).unwrap();
    let used = model.backward(&mut tape, None, None, None).err();
    assert_eq!(used, Some(Error::TapeUsed));
    let mut unkept = model.forward(inputs(), false, None).unwrap();
    let mut before = model.forward(inputs(), true, None).unwrap();
    let other = Problem::new(config(CellKind::Lstm, 2, 4), isa, 2, &[2, 1]);
    let foreign = |result: Option<Error>| matches!(result, Some(Error::TapeForeign { .. }));
    assert!(foreign(
        other.model.backward(&mut before, None, None, None).err()
    ));
    assert!(foreign(
        other
            .model
            .output(&before, Array3::zeros((2, 2, 4)).view_mut())
            .err()
    ));
    let mut states = Array3::zeros(other.h0.dim());
    let mut dx = problem.x.clone();
    let gradients = other
        .model
        .input_gradients(&found, dx.view_mut(), states.view_mut(), None);
    assert_eq!(
        gradients.unwrap_err().to_string(),
        "gradients: expected those of this stack, got those of another"
    );
    assert_eq!(dx, problem.x);
    assert!(foreign(
        other.model.states(&before, states.view_mut(), None).err()
    ));
    assert!(foreign(model.backward(&mut unkept, None, None, None).err()));
    problem.model.update(|_| Ok(())).unwrap();
    assert!(foreign(
        problem.model.backward(&mut before, None, None, None).err()
    ));
}

#[test]
fn a_cell_without_memory_takes_and_gives_none() {
    let isa = Isa::available()[0];
    let problem = Problem::new(config(CellKind::Gru, 2, 3), isa, 2, &[2, 1]);
    let (model, memory) = (&problem.model, problem.h0.view());
    let refused = |error: Option<Error>, name: &str| {
        let found = error.map(|error| error.to_string());
        let expected =
            format!("{name}: expected nothing, as this cell has no memory, got an array");
        assert_eq!(found, Some(expected));
    };
    let inputs = |c0| Inputs {
        x: problem.x.view().into(),
        h0: None,
        c0,
        lengths: None,
    };
    refused(model.forward(inputs(Some(memory)), true, None).err(), "c0");
    let mut tape = model.forward(inputs(None), true, None).unwrap();
    let (mut hidden, mut other) = (problem.h0.clone(), problem.h0.clone());
    let states = model.states(&tape, hidden.view_mut(), Some(other.view_mut()));
    refused(states.err(), "memory");
    refused(
        model.backward(&mut tape, None, None, Some(memory)).err(),
        "d_c",
    );
    let found = model.backward(&mut tape, None, None, None).unwrap();
    let mut dx = problem.x.clone();
    let gradients = model.input_gradients(
        &found,
        dx.view_mut(),
        hidden.view_mut(),
        Some(other.view_mut()),
    );
    refused(gradients.err(), "dc0");
    assert_eq!((dx, hidden), (problem.x.clone(), problem.h0.clone()));
}

#[test]
fn a_batch_beyond_memory_is_refused() {
    let config = Config {
        cell: CellKind::Lstm,
        input_size: 1,
        hidden_sizes: vec![64],
        bias: true,
        bidirectional: false,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    };
    let model = Recurrent::<f64>::new(config).unwrap();
    // One number seen as 2^40 of them.
    let one = ndarray::arr3(&[[[1.0]]]);
    let x = one.broadcast((1 << 20, 1 << 20, 1)).unwrap();
    let inputs = Inputs {
        x: x.into(),
        h0: None,
        c0: None,
        lengths: None,
    };
    let Err(error) = model.forward(inputs, true, None) else {
        panic!("2^40 steps were run");
    };
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}

#[test]
fn an_input_whose_gradient_is_beyond_memory_is_for_inference_alone() {
    let (columns, total, batch) = (1_000_000, 100_000, 10);
    let model = Recurrent::<f32>::new(config(CellKind::Gru, columns, 1)).unwrap();
    let one = ndarray::arr3(&[[[1.0]]]);
    let x = one.broadcast((total, batch, columns)).unwrap();
    // Not one step is real, so that nothing of the input is read.
    let inputs = || Inputs {
        x: x.into(),
        h0: None,
        c0: None,
        lengths: Some(&[0; 10]),
    };
    assert!(model.forward(inputs(), false, None).is_ok());
    let error = model.forward(inputs(), true, None).err().unwrap();
    assert!(matches!(error, Error::OutOfMemory { .. }), "{error}");
}

#[test]
fn packed_rows_have_lengths() {
    let model = Recurrent::<f32>::new(config(CellKind::Gru, 3, 2)).unwrap();
    let x = Array2::zeros((5, 3));
    let inputs = Inputs {
        x: Rows::Packed(x.view()),
        h0: None,
        c0: None,
        lengths: None,
    };
    assert_eq!(
        model
            .forward(inputs, false, None)
            .err()
            .unwrap()
            .to_string(),
        "lengths: expected the lengths of packed rows, got none"
    );
}
