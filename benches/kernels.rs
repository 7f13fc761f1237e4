//! The kernels alone, on one thread, a group each: packing, the two passes forward, the chain of
//! gradients back through the steps, the gradients of input and weights, and what a cell computes
//! between the products. The parts of a training step are timed in their place there, one after the
//! other in rounds, as they find what the part before has left in the caches.
//!
//! Throughput counts the floating-point operations of the products, so that criterion's "elements"
//! are flops, to be held against those of `roof`; of packing it counts the numbers packed, of the
//! pointwise passes the units.

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main,
};
use rnncore::bench::{Kernel, Layer, STEP};
use rnncore::{CellKind, Element, parallel};

const CELLS: [(&str, CellKind); 3] = [
    ("LSTM", CellKind::Lstm),
    ("GRU", CellKind::Gru),
    ("RNN", CellKind::RNN_TANH),
];

/// (sequences, steps), (inputs, hidden units).
type Shape = ((usize, usize), (usize, usize));

const SHAPES: [Shape; 4] = [
    ((1, 50), (32, 32)),
    ((32, 50), (16, 64)),
    ((32, 50), (50, 128)),
    ((64, 20), (256, 512)),
];

const KERNELS: [(&str, Kernel); 9] = [
    ("pack forward", Kernel::PackForward),
    ("pack backward", Kernel::PackBackward),
    ("inference", Kernel::Inference),
    ("forward", Kernel::Forward),
    ("chain", Kernel::Chain),
    ("input gradient", Kernel::InputGradient),
    ("weight gradient", Kernel::WeightGradient),
    ("pointwise forward", Kernel::PointwiseForward),
    ("pointwise backward", Kernel::PointwiseBackward),
];

/// What is measured in double precision: rows of as many bytes as the last of these has in single.
const DOUBLE: Shape = ((64, 20), (128, 256));

fn kernels(criterion: &mut Criterion) {
    parallel::set_num_threads(1).expect("one thread is allowed");
    for (name, kernel) in KERNELS {
        let mut group = criterion.benchmark_group(name);
        group.sample_size(10);
        group.warm_up_time(Duration::from_millis(300));
        // Of a step one part is measured, and the others run too.
        let milliseconds = if STEP.contains(&kernel) { 250 } else { 700 };
        group.measurement_time(Duration::from_millis(milliseconds));
        for (cell, kind) in CELLS {
            for shape in SHAPES {
                measure::<f32>(&mut group, cell, (kernel, kind, shape));
            }
            measure::<f64>(
                &mut group,
                &format!("{cell} float64"),
                (kernel, kind, DOUBLE),
            );
        }
        group.finish();
    }
}

/// Measures a kernel of a layer.
fn measure<E: Element>(
    group: &mut BenchmarkGroup<WallTime>,
    name: &str,
    (kernel, kind, (batch, sizes)): (Kernel, CellKind, Shape),
) {
    let mut layer = Layer::<E>::new(kind, batch, sizes);
    group.throughput(Throughput::Elements(layer.work(kernel)));
    let ((batch, steps), (inputs, hidden)) = (batch, sizes);
    let id = BenchmarkId::new(name, format!("{batch},{steps},{inputs},{hidden}"));
    group.bench_function(id, |bencher| {
        bencher.iter_custom(|times| layer.time(kernel, times))
    });
}

criterion_group!(benches, kernels);
criterion_main!(benches);
