//! One layer of each cell: a single step, a sequence forward, and a training step.
//!
//! Throughput counts the floating-point operations of the matrix products, so criterion's
//! "elements" are flops, to be held against those of `roof`. A training step is a forward pass that
//! keeps what backward needs, and backward to the input and every weight: three times forward's.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use ndarray::Array3;
use rnncore::{CellKind, Config, Inputs, Recurrent, Tape, parallel};

const CELLS: [(&str, CellKind, usize); 3] = [
    ("LSTM", CellKind::Lstm, 4),
    ("GRU", CellKind::Gru, 3),
    ("RNN", CellKind::RNN_TANH, 1),
];

/// Sequences, steps, inputs, hidden units.
#[derive(Clone, Copy)]
struct Shape {
    batch: usize,
    steps: usize,
    inputs: usize,
    hidden: usize,
}

impl Shape {
    const fn new(batch: usize, steps: usize, inputs: usize, hidden: usize) -> Self {
        Shape {
            batch,
            steps,
            inputs,
            hidden,
        }
    }

    fn flops(self, gates: usize) -> u64 {
        let Shape {
            batch,
            steps,
            inputs,
            hidden,
        } = self;
        (2 * batch * steps * gates * hidden * (inputs + hidden)) as u64
    }
}

const STEPS: [Shape; 2] = [Shape::new(1, 1, 128, 256), Shape::new(64, 1, 128, 256)];
const SEQUENCES: [Shape; 3] = [
    Shape::new(1, 50, 32, 32),
    Shape::new(32, 50, 50, 128),
    Shape::new(64, 100, 128, 256),
];

/// A layer, a batch for it with the states to start from, and the gradient of a loss.
struct Problem {
    layer: Recurrent<f32>,
    x: Array3<f32>,
    h0: Array3<f32>,
    c0: Option<Array3<f32>>,
    output: Array3<f32>,
    d_output: Array3<f32>,
}

/// Numbers between -1 and 1 that look random enough.
fn noise(i: usize) -> f32 {
    (i as f32 * 12.9898).sin()
}

impl Problem {
    fn new(cell: CellKind, shape: Shape) -> Self {
        let Shape {
            batch,
            steps,
            inputs,
            hidden,
        } = shape;
        let mut layer = Recurrent::new(Config {
            cell,
            input_size: inputs,
            hidden_sizes: vec![hidden],
            bias: true,
            bidirectional: false,
            dropout: 0.0,
            locked_dropout: false,
            proj_size: 0,
        })
        .expect("the shapes above are valid");
        let bound = (hidden as f32).sqrt().recip();
        layer
            .update(|weights| {
                weights
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, w)| *w = bound * noise(i));
                Ok(())
            })
            .expect("the closure does not fail");
        let array = |rows: usize, columns: usize| {
            let at = |(t, b, c)| noise((t * batch + b) * columns + c);
            Array3::from_shape_fn((rows, batch, columns), at)
        };
        Problem {
            layer,
            x: array(steps, inputs),
            h0: array(1, hidden),
            c0: (cell == CellKind::Lstm).then(|| array(1, hidden)),
            output: array(steps, hidden),
            d_output: array(steps, hidden),
        }
    }

    fn run(&self, keep: bool) -> Tape<f32> {
        let inputs = Inputs {
            x: self.x.view().into(),
            h0: Some(self.h0.view()),
            c0: self.c0.as_ref().map(|c0| c0.view()),
            lengths: None,
        };
        self.layer
            .forward(inputs, keep, None)
            .expect("the shapes match")
    }

    fn forward(&mut self) {
        let tape = self.run(false);
        self.layer
            .output(&tape, self.output.view_mut())
            .expect("the shapes match");
    }

    fn train(&mut self) {
        let mut tape = self.run(true);
        self.layer
            .backward(&mut tape, Some(self.d_output.view().into()), None, None)
            .expect("the shapes match");
    }
}

/// Measures a pass for each cell and shape, on one thread and on all.
fn measure(criterion: &mut Criterion, name: &str, shapes: &[Shape], pass: fn(&mut Problem)) {
    let passes = if name == "train" { 3 } else { 1 };
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(1));
    for &shape in shapes {
        for (cell, kind, gates) in CELLS {
            group.throughput(Throughput::Elements(passes * shape.flops(gates)));
            measure_threads(
                &mut group,
                cell,
                shape,
                &mut Problem::new(kind, shape),
                pass,
            );
        }
    }
    group.finish();
}

fn measure_threads(
    group: &mut BenchmarkGroup<WallTime>,
    cell: &str,
    shape: Shape,
    problem: &mut Problem,
    pass: fn(&mut Problem),
) {
    let Shape {
        batch,
        steps,
        inputs,
        hidden,
    } = shape;
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    for threads in BTreeSet::from([1, cpus]) {
        let name = format!("{cell} {batch},{steps},{inputs},{hidden}");
        let id = BenchmarkId::new(name, format!("{threads} thread(s)"));
        parallel::set_num_threads(threads).expect("at least one thread");
        group.bench_function(id, |bencher| bencher.iter(|| pass(problem)));
    }
}

fn one_step(criterion: &mut Criterion) {
    measure(criterion, "step", &STEPS, Problem::forward);
}

fn sequence_forward(criterion: &mut Criterion) {
    measure(criterion, "forward", &SEQUENCES, Problem::forward);
}

fn training_step(criterion: &mut Criterion) {
    measure(criterion, "train", &SEQUENCES, Problem::train);
}

criterion_group!(benches, one_step, sequence_forward, training_step);
criterion_main!(benches);
