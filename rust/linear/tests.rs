use super::*;

fn noise(len: usize, seed: usize) -> Vec<f64> {
    (0..len)
        .map(|i| ((i * 7 + seed) as f64 * 12.9898).sin())
        .collect()
}

/// A map with its weights, padded rows of x, and gradients of y that are zero in the padding.
struct Problem {
    map: Linear<f64>,
    weights: Vec<f64>,
    x: Vec<f64>,
    dy: Vec<f64>,
}

fn problem(isa: Isa, rows: usize, (segments, width): (usize, usize), outputs: usize) -> Problem {
    let lanes = f64::products(isa).lanes();
    let columns = Columns {
        segments,
        width,
        padded: width.next_multiple_of(lanes),
    };
    let map = Linear::new(isa, columns, outputs);
    let mut x = vec![0.0; rows * columns.stride()];
    columns.pad(&noise(rows * columns.real(), 1), &mut x);
    let mut dy = vec![0.0; rows * map.stride()];
    let numbers = noise(rows * outputs, 2);
    for (to, from) in dy.chunks_mut(map.stride()).zip(numbers.chunks(outputs)) {
        to[..outputs].copy_from_slice(from);
    }
    Problem {
        weights: noise(outputs * (columns.real() + 1), 3),
        map,
        x,
        dy,
    }
}

impl Problem {
    /// y, the gradients of x and those of the weights, from calls of so many rows.
    fn run(&self, each: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (map, arena) = (&self.map, Arc::default());
        let (width, stride) = (map.shape.columns.stride(), map.stride());
        let mut y = vec![0.0; self.dy.len()];
        let mut dx = vec![0.0; self.x.len()];
        let mut gradients = vec![f64::NAN; self.weights.len()];
        let forward = map.forward_pack(&self.weights, &arena);
        let backward = map.backward_pack(&self.weights, &arena);
        for (i, x) in self.x.chunks(each * width).enumerate() {
            let (from, to) = (
                i * each * stride,
                i * each * stride + x.len() / width * stride,
            );
            map.forward(forward, x, &mut y[from..to]);
            let dy = &self.dy[from..to];
            map.backward(backward, dy, &mut dx[i * each * width..][..x.len()]);
            map.weights(dy, x, &mut gradients, i > 0);
        }
        (y, dx, gradients)
    }
}

#[test]
fn products_are_sums() {
    for &isa in Isa::available() {
        for (rows, columns, outputs) in [(3, (1, 5), 2), (150, (2, 9), 33), (2, (1, 3), 1100)] {
            let problem = problem(isa, rows, columns, outputs);
            let Shape {
                columns, stride, ..
            } = problem.map.shape;
            let real = columns.real();
            let x = columns.unpad(&problem.x);
            let weight = |output: usize, column: usize| problem.weights[output * real + column];
            let (y, dx, gradients) = problem.run(rows);
            let dx = columns.unpad(&dx);
            let close = |found: f64, expected: f64| {
                assert!(
                    (found - expected).abs() < 1e-11,
                    "{found} is not {expected}"
                );
            };
            for row in 0..rows {
                let dy = &problem.dy[row * stride..][..outputs];
                for output in 0..outputs {
                    let products = (0..real).map(|c| weight(output, c) * x[row * real + c]);
                    let bias = problem.weights[outputs * real + output];
                    close(y[row * stride + output], bias + products.sum::<f64>());
                }
                for column in 0..real {
                    let products = (0..outputs).map(|o| weight(o, column) * dy[o]);
                    close(dx[row * real + column], products.sum());
                }
            }
            for output in 0..outputs {
                let dy = |row: usize| problem.dy[row * stride + output];
                for column in 0..real {
                    let products = (0..rows).map(|row| dy(row) * x[row * real + column]);
                    close(gradients[output * real + column], products.sum());
                }
                close(gradients[outputs * real + output], (0..rows).map(dy).sum());
            }
        }
    }
}

#[test]
fn cuts_and_threads_change_no_bit() {
    for &isa in Isa::available() {
        let problem = problem(isa, 3 * DEPTH + 5, (1, 40), 600);
        let all = problem.run(3 * DEPTH + 5);
        for threads in [1, 2, 3] {
            let cut = parallel::with_threads(threads, || Ok(problem.run(DEPTH)));
            assert!(cut.unwrap() == all);
        }
    }
}

#[test]
fn no_rows_have_gradients_of_zero() {
    let problem = problem(Isa::Portable, 0, (1, 3), 5);
    let mut gradients = vec![f64::NAN; problem.weights.len()];
    problem.map.weights(&[], &[], &mut gradients, false);
    assert!(gradients.iter().all(|&gradient| gradient == 0.0));
}
