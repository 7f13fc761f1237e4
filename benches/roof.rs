//! The roof: what the `gemm` crate reaches on large float32 products, one on each thread.
//!
//! Throughput counts floating-point operations, so criterion's "elements" are flops. Each thread
//! has a product of its own, so that no splitting of the work lowers the roof.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use gemm::Parallelism;

/// `c = a b` for square row-major matrices of `n` rows.
fn multiply(n: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    assert!(a.len() == n * n && b.len() == n * n && c.len() == n * n);
    let rows = n as isize;
    // SAFETY: the assertion above: all three hold n rows of n numbers, with these strides.
    unsafe {
        gemm::gemm(
            n,
            n,
            n,
            c.as_mut_ptr(),
            1,
            rows,
            false,
            a.as_ptr(),
            1,
            rows,
            b.as_ptr(),
            1,
            rows,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// Operands and product of one thread.
struct Product {
    n: usize,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Product {
    fn new(n: usize) -> Self {
        let matrix = || vec![0.5; n * n];
        Product {
            n,
            a: matrix(),
            b: matrix(),
            c: matrix(),
        }
    }

    fn run(&mut self, times: u64) {
        for _ in 0..times {
            multiply(self.n, &self.a, &self.b, black_box(&mut self.c));
        }
    }
}

/// Runs all products the given number of times, each on a thread of its own.
fn run_all(products: &mut [Product], times: u64) -> Duration {
    let start = Instant::now();
    thread::scope(|scope| {
        for product in products {
            scope.spawn(|| product.run(times));
        }
    });
    start.elapsed()
}

fn roof(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("roof");
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(2));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    for threads in BTreeSet::from([1, cpus]) {
        for n in [256, 1024] {
            group.throughput(Throughput::Elements((threads * 2 * n * n * n) as u64));
            let id = BenchmarkId::new(format!("gemm {n}"), format!("{threads} thread(s)"));
            group.bench_function(id, |bencher| {
                let mut products: Vec<_> = (0..threads).map(|_| Product::new(n)).collect();
                bencher.iter_custom(|times| run_all(&mut products, times));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, roof);
criterion_main!(benches);
