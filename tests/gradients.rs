//! Every gradient of every cell against central differences, on every instruction set.

use ndarray::{Array3, ArrayView3, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use rnncore::{CellKind, Config, Inputs, Isa, Recurrent, Stack, Tape};

struct Problem {
    model: Recurrent<f64>,
    x: Array3<f64>,
    h0: Array3<f64>,
    c0: Array3<f64>,
    lengths: Vec<i64>,
    /// Weights of the outputs in the loss.
    on_output: Array3<f64>,
    on_hidden: Array3<f64>,
    on_memory: Array3<f64>,
    dropout_seed: Option<u64>,
}

fn uniform(random: &mut ChaCha8Rng) -> f64 {
    f64::from(random.next_u32()) / 2f64.powi(31) - 1.0
}

fn array(random: &mut ChaCha8Rng, shape: (usize, usize, usize)) -> Array3<f64> {
    Array3::from_shape_simple_fn(shape, || uniform(random))
}

impl Problem {
    fn new(config: Config, isa: Isa, lengths: &[i64], dropout_seed: Option<u64>) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(5);
        let mut model =
            Recurrent::from_stack(Stack::with_isa(config.clone(), isa).unwrap()).unwrap();
        model
            .update(|weights| {
                weights.fill_with(|| 0.7 * uniform(&mut random));
                Ok(())
            })
            .unwrap();
        let (batch, total) = (lengths.len(), 4);
        let directions = config.directions();
        let count = config.num_layers() * directions;
        let hidden = (count, batch, config.state_size(0));
        let memory = (count, batch, config.hidden_sizes[0]);
        let outputs = (total, batch, directions * config.state_size(0));
        Problem {
            model,
            x: array(&mut random, (total, batch, config.input_size)),
            h0: array(&mut random, hidden),
            c0: array(&mut random, memory),
            lengths: lengths.to_vec(),
            on_output: array(&mut random, outputs),
            on_hidden: array(&mut random, hidden),
            on_memory: array(&mut random, memory),
            dropout_seed,
        }
    }

    fn has_memory(&self) -> bool {
        self.model.config().cell == CellKind::Lstm
    }

    fn forward(&self) -> Tape<f64> {
        let inputs = Inputs {
            x: self.x.view().into(),
            h0: Some(self.h0.view()),
            c0: self.has_memory().then(|| self.c0.view()),
            lengths: Some(&self.lengths),
        };
        self.model.forward(inputs, true, self.dropout_seed).unwrap()
    }

    fn outputs(&self, tape: &Tape<f64>) -> [Array3<f64>; 3] {
        let mut output = Array3::zeros(self.on_output.dim());
        let mut hidden = Array3::zeros(self.on_hidden.dim());
        let mut memory = Array3::zeros(self.on_memory.dim());
        self.model.output(tape, output.view_mut()).unwrap();
        let with_memory = self.has_memory().then(|| memory.view_mut());
        self.model
            .states(tape, hidden.view_mut(), with_memory)
            .unwrap();
        [output, hidden, memory]
    }

    fn loss(&self) -> f64 {
        let [output, hidden, memory] = self.outputs(&self.forward());
        (output * &self.on_output).sum()
            + (hidden * &self.on_hidden).sum()
            + (memory * &self.on_memory).sum()
    }

    /// The loss's slope along one number that `touch` reaches.
    fn slope(&mut self, mut touch: impl FnMut(&mut Self, f64)) -> f64 {
        const STEP: f64 = 1e-5;
        touch(self, STEP);
        let above = self.loss();
        touch(self, -2.0 * STEP);
        let below = self.loss();
        touch(self, STEP);
        (above - below) / (2.0 * STEP)
    }

    fn check(&mut self, what: &str) {
        let mut tape = self.forward();
        let with_memory = self.has_memory();
        let gradients = self
            .model
            .backward(
                &mut tape,
                Some(self.on_output.view().into()),
                Some(self.on_hidden.view()),
                with_memory.then(|| self.on_memory.view()),
            )
            .unwrap();
        let mut dx = Array3::zeros(self.x.dim());
        let mut dh0 = Array3::zeros(self.h0.dim());
        let mut dc0 = Array3::zeros(self.c0.dim());
        self.model
            .input_gradients(
                &gradients,
                dx.view_mut(),
                dh0.view_mut(),
                with_memory.then(|| dc0.view_mut()),
            )
            .unwrap();
        let close = |name: &str, found: f64, expected: f64| {
            assert!(
                (found - expected).abs() <= 1e-7 * (1.0 + expected.abs()),
                "{what}: {name}: {found} instead of {expected}"
            );
        };
        let indexes =
            |a: &ArrayView3<f64>| -> Vec<_> { a.indexed_iter().map(|(i, _)| i).collect() };
        for i in indexes(&dx.view()) {
            let slope = self.slope(|problem, step| problem.x[i] += step);
            close("x", dx[i], slope);
        }
        for i in indexes(&dh0.view()) {
            let slope = self.slope(|problem, step| problem.h0[i] += step);
            close("h0", dh0[i], slope);
        }
        for i in indexes(&dc0.view()) {
            let slope = self.slope(|problem, step| problem.c0[i] += step);
            close("c0", dc0[i], slope);
        }
        for entry in self.model.layout().clone().entries() {
            for i in entry.range() {
                let slope = self.slope(|problem, step| {
                    let change = |weights: &mut [f64]| {
                        weights[i] += step;
                        Ok(())
                    };
                    problem.model.update(change).unwrap();
                });
                close(&entry.name, gradients.weights()[i], slope);
            }
        }
    }
}

/// A small layer of every cell, and one with a projection of every cell that may have it.
fn configs() -> impl Iterator<Item = Config> {
    CellKind::recurrent().flat_map(|cell| {
        let projects = matches!(
            cell,
            CellKind::Lstm
                | CellKind::Rnn {
                    residual: false,
                    ..
                }
        );
        let sizes = if projects { &[0, 2][..] } else { &[0] };
        sizes.iter().map(move |&proj_size| Config {
            cell,
            input_size: 2,
            hidden_sizes: vec![3],
            bias: true,
            bidirectional: false,
            dropout: 0.0,
            locked_dropout: false,
            proj_size,
        })
    })
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    for config in configs() {
        for &isa in Isa::available() {
            let what = format!("{config:?} on {isa:?}");
            Problem::new(config.clone(), isa, &[4, 0, 2, 4, 1], None).check(&what);
        }
    }
}

#[test]
fn gradients_of_deep_bidirectional_stacks_with_dropout() {
    for config in configs() {
        let config = Config {
            hidden_sizes: vec![3; 2],
            bidirectional: true,
            bias: config.cell != CellKind::Gru,
            dropout: 0.4,
            ..config
        };
        let isa = *Isa::available().last().unwrap();
        Problem::new(config.clone(), isa, &[1, 4, 3], Some(9)).check(&format!("{config:?}"));
    }
}

#[test]
fn gradients_of_more_than_one_panel() {
    for config in configs() {
        let config = Config {
            hidden_sizes: vec![13],
            proj_size: config.proj_size * 5,
            ..config
        };
        for &isa in Isa::available() {
            Problem::new(config.clone(), isa, &[2, 1, 2], None)
                .check(&format!("{config:?} on {isa:?}"));
        }
    }
}

/// Whether a step multiplies its own input, or many steps do so ahead, must not show: a wide layer
/// does the one in a large batch and the other in a small one, and a lone sequence always.
#[test]
fn a_sequence_has_its_bits_in_any_batch() {
    for small in configs() {
        for (input_size, hidden_size) in [(3, 5), (420, 410)] {
            let config = Config {
                input_size,
                hidden_sizes: vec![hidden_size],
                bidirectional: true,
                proj_size: small.proj_size * hidden_size / 4,
                ..small
            };
            for &isa in Isa::available() {
                let lengths = |n: usize| (0..n).map(|i| [4, 3, 0, 1][i % 4]).collect::<Vec<_>>();
                let mut problem = Problem::new(config.clone(), isa, &lengths(132), None);
                let all = problem.outputs(&problem.forward());
                for n in [6, 1] {
                    problem.lengths = lengths(n);
                    for array in [&mut problem.x, &mut problem.h0, &mut problem.c0] {
                        *array = array.slice(s![.., ..n, ..]).to_owned();
                    }
                    problem.on_output = problem.on_output.slice(s![.., ..n, ..]).to_owned();
                    problem.on_hidden = problem.on_hidden.slice(s![.., ..n, ..]).to_owned();
                    problem.on_memory = problem.on_memory.slice(s![.., ..n, ..]).to_owned();
                    let some = problem.outputs(&problem.forward());
                    for (all, some) in all.iter().zip(&some) {
                        assert_eq!(all.slice(s![.., ..n, ..]), some, "{config:?} on {isa:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn gradients_of_a_lone_sequence() {
    for config in configs() {
        let config = Config {
            bidirectional: true,
            hidden_sizes: vec![3; 2],
            ..config
        };
        for &isa in Isa::available() {
            Problem::new(config.clone(), isa, &[4], None).check(&format!("{config:?} on {isa:?}"));
        }
    }
}

#[test]
fn instruction_sets_agree() {
    for config in configs() {
        let config = Config {
            hidden_sizes: vec![21; 2],
            bidirectional: true,
            proj_size: config.proj_size * 10,
            ..config
        };
        let outputs: Vec<_> = Isa::available()
            .iter()
            .map(|&isa| {
                let problem = Problem::new(
                    config.clone(),
                    isa,
                    &[4, 3, 0, 4, 4, 2, 1, 4, 4, 4, 3, 2, 4, 4],
                    None,
                );
                problem.outputs(&problem.forward())
            })
            .collect();
        for other in &outputs[1..] {
            for (a, b) in outputs[0].iter().zip(other) {
                let largest = |a: &Array3<f64>| a.iter().fold(0f64, |m, x| m.max(x.abs()));
                let (worst, size) = (largest(&(a - b)), largest(a).max(1.0));
                assert!(worst < 1e-13 * size, "{config:?}: {worst} of {size}");
            }
        }
    }
}
