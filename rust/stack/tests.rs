//! A stack of layers of different sizes against the same layers run one after another.

use std::ops::Range;

use super::*;
use crate::buffer::Buffer;
use crate::pass::{Ends, View};

const BATCH: usize = 5;
const LENGTHS: [usize; BATCH] = [3, 0, 6, 1, 6];
const SIZES: [usize; 3] = [11, 3, 17];

fn config(cell: CellKind, input_size: usize, hidden_sizes: &[usize]) -> Config {
    Config {
        cell,
        input_size,
        hidden_sizes: hidden_sizes.to_vec(),
        bias: true,
        bidirectional: true,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    }
}

/// Rows whose padding is zero.
fn rows(stack: &Stack<f64>, count: usize, columns: Columns, seed: usize) -> Buffer<f64> {
    let mut rows = stack.arena.zeros(count * columns.stride());
    for (i, x) in rows.iter_mut().enumerate() {
        if columns.column(i % columns.stride()).is_some() {
            *x = ((i + 7919 * seed) as f64 * 0.61).sin();
        }
    }
    rows
}

/// A state of each of some layers' directions, whose rows lie as `columns` says.
fn states(
    stack: &Stack<f64>,
    columns: impl Fn(usize) -> Columns,
    first: usize,
    layers: Range<usize>,
) -> Vec<Buffer<f64>> {
    (2 * layers.start..2 * layers.end)
        .map(|i| rows(stack, BATCH, columns(i / 2 - layers.start), first + i))
        .collect()
}

/// All that comes out of a stack of `layers` of the whole one, forward and backward.
struct Found {
    output: Vec<f64>,
    dx: Vec<f64>,
    dh0: Vec<Vec<f64>>,
    weights: Vec<f64>,
}

fn padding_is_zero(rows: &[f64], columns: Columns) {
    let is_padding = |i: usize| columns.column(i % columns.stride()).is_none();
    assert!((0..rows.len()).all(|i| !is_padding(i) || rows[i] == 0.0));
}

fn run(
    stack: &Stack<f64>,
    weights: &[f64],
    x: &[f64],
    layers: Range<usize>,
    dy: impl FnOnce() -> Buffer<f64>,
    want: Want,
) -> Found {
    let given = |seed| States {
        hidden: Some(states(
            stack,
            |layer| stack.state_columns(layer),
            seed,
            layers.clone(),
        )),
        memory: (stack.config.cell == CellKind::Lstm).then(|| {
            states(
                stack,
                |layer| stack.memory_columns(layer),
                seed + 100,
                layers.clone(),
            )
        }),
    };
    let steps = Steps::new(&LENGTHS);
    let feed = Feed::Rows(View::packed(x, stack.input_columns().stride()));
    let strides = Strides::packed(stack.output_columns().stride());
    let pass = stack.forward(
        Parameters::Own(weights),
        steps,
        feed,
        given(200),
        true,
        strides,
        None,
    );
    let output = pass.output().to_vec();
    let mut gradients = vec![f64::NAN; weights.len()];
    let dy = dy();
    let ends = Ends {
        x: feed,
        y: None,
        dy: Some(View::packed(&dy, strides.row)),
    };
    let weights = Parameters::Own(weights);
    let found = stack.backward(weights, pass, ends, given(500), want, &mut gradients);
    padding_is_zero(&output, stack.output_columns());
    if let Some(dx) = &found.dx {
        padding_is_zero(dx, stack.input_columns());
    }
    for (i, dh0) in found.dh0.iter().enumerate() {
        padding_is_zero(dh0, stack.state_columns(i / 2));
        if stack.config.cell == CellKind::Lstm {
            padding_is_zero(&found.dmemory0[i], stack.memory_columns(i / 2));
        }
    }
    Found {
        output,
        dx: found.dx.map_or_else(Vec::new, |dx| dx.to_vec()),
        dh0: found.dh0.iter().map(|rows| rows.to_vec()).collect(),
        weights: gradients,
    }
}

#[test]
fn layers_may_differ_in_size() {
    for cell in CellKind::recurrent() {
        for &isa in Isa::available() {
            layers_differ(config(cell, 4, &SIZES), isa);
            if cell.signature().may_project() {
                let proj_size = 2;
                layers_differ(
                    Config {
                        proj_size,
                        ..config(cell, 4, &SIZES)
                    },
                    isa,
                );
            }
        }
    }
}

fn layers_differ(config: Config, isa: Isa) {
    let cell = config.cell;
    let whole = Stack::<f64>::with_isa(config.clone(), isa).unwrap();
    let count = LENGTHS.iter().sum();
    let weights: Vec<f64> = (0..whole.layout().size())
        .map(|i| 0.4 * (i as f64 * 0.37).sin())
        .collect();
    let x = rows(&whole, count, whole.input_columns(), 1);
    let dy = || rows(&whole, count, whole.output_columns(), 2);
    let all = run(&whole, &weights, &x, 0..3, dy, Want::ALL);

    // Up through the layers for what each is fed, then down again.
    let mut parts = Vec::new();
    let (mut input, mut start) = (x.to_vec(), 0);
    for (layer, &hidden) in SIZES.iter().enumerate() {
        let real = whole.layers[layer][0].geometry.input.real();
        let first = whole.layers[layer][0].geometry.input;
        let part = Config {
            input_size: real,
            hidden_sizes: vec![hidden],
            ..config.clone()
        };
        let part = Stack::with_input(part, isa, first).unwrap();
        let place = start..start + part.layout().size();
        start = place.end;
        let none = || part.arena.zeros(count * part.output_columns().stride());
        let range = layer..layer + 1;
        let output = run(
            &part,
            &weights[place.clone()],
            &input,
            range,
            none,
            Want::ALL,
        )
        .output;
        // Above a frozen layer everything is the same, and in it nothing is computed.
        if layer > 0 {
            let upper = Want {
                input: false,
                states: false,
                from_layer: layer,
                ..Want::ALL
            };
            let found = run(&whole, &weights, &x, 0..3, dy, upper);
            let (frozen, rest) = found.weights.split_at(place.start);
            assert!(frozen.iter().all(|x| x.is_nan()), "{cell} on {isa:?}");
            assert_eq!(rest, &all.weights[place.start..], "{cell} on {isa:?}");
        }
        parts.push((part, place, std::mem::replace(&mut input, output)));
    }
    assert_eq!(all.output, input, "{cell} on {isa:?}");
    let mut dy = dy().to_vec();
    for (layer, (part, place, input)) in parts.iter().enumerate().rev() {
        let above = || {
            let mut to = part.arena.take(dy.len());
            to.copy_from_slice(&dy);
            to
        };
        let weights = &weights[place.clone()];
        let found = run(part, weights, input, layer..layer + 1, above, Want::ALL);
        assert_eq!(
            all.weights[place.clone()],
            found.weights,
            "{cell} on {isa:?}"
        );
        assert_eq!(
            all.dh0[2 * layer..2 * layer + 2],
            found.dh0,
            "{cell} on {isa:?}"
        );
        dy = found.dx;
    }
    assert_eq!(all.dx, dy, "{cell} on {isa:?}");
}

#[test]
fn neither_threads_that_share_units_nor_lent_weights_change_a_bit() {
    for (cell, lengths, proj_size) in [
        (CellKind::Lstm, vec![1, 0, 1], 0),
        (CellKind::Gru, vec![1, 0, 1], 0),
        // Fewer rows of these are one thread's.
        (CellKind::Lstm, vec![1; 12], 24),
        (CellKind::RNN_TANH, vec![1; 9], 0),
        (CellKind::RNN_TANH, vec![5, 0, 4], 0),
        (CellKind::Gru, vec![4, 0, 2], 0),
        // More rows than a tile has.
        (CellKind::Lstm, vec![1; 40], 0),
        (CellKind::Gru, vec![1; 40], 0),
        (CellKind::RNN_TANH, vec![1; 40], 0),
    ] {
        // Columns that fill registers, and others.
        for (inputs, sizes) in [(48, [352, 32]), (50, [349, 30])] {
            let config = Config {
                proj_size,
                ..config(cell, inputs, &sizes)
            };
            for &isa in Isa::available() {
                bits_are_the_same(&config, &lengths, isa);
            }
        }
    }
}

fn bits_are_the_same(config: &Config, lengths: &[usize], isa: Isa) {
    let stack = Stack::<f64>::with_isa(config.clone(), isa).unwrap();
    let steps = Steps::new(lengths);
    let is_shared = || Ok(stack.workers(steps.rows(), &stack.layers[0][0].geometry) > 1);
    assert!(parallel::with_threads(2, is_shared).unwrap());
    let (columns, outputs) = (stack.input_columns(), stack.output_columns());
    let weights: Vec<f64> = (0..stack.layout().size())
        .map(|i| (i as f64 * 0.37).sin() / 20.0)
        .collect();
    let entries = stack.layout().entries().iter();
    let parts: Vec<&[f64]> = entries.map(|entry| &weights[entry.range()]).collect();
    let (own, lent) = (Parameters::Own(&weights), Parameters::Lent(&parts));
    let (x, dy) = (
        rows(&stack, steps.rows(), columns, 1),
        rows(&stack, steps.rows(), outputs, 2),
    );
    let state =
        |layer: usize, seed: usize| rows(&stack, lengths.len(), stack.state_columns(layer), seed);
    let of = |threads: usize, weights: Parameters<f64>, keep: bool| {
        let run = || {
            let feed = Feed::Rows(View::packed(&x, columns.stride()));
            let initial = States {
                hidden: Some((0..stack.state_count()).map(|i| state(i / 2, i)).collect()),
                memory: None,
            };
            let strides = Strides::packed(outputs.stride());
            let pass = stack.forward(weights, steps.clone(), feed, initial, keep, strides, None);
            let mut found = vec![pass.output().to_vec()];
            if keep {
                let mut gradients = vec![f64::NAN; stack.layout().size()];
                let ends = Ends {
                    x: feed,
                    y: None,
                    dy: Some(View::packed(&dy, outputs.stride())),
                };
                let none = States::none();
                let back = stack.backward(weights, pass, ends, none, Want::ALL, &mut gradients);
                found.push(gradients);
                found.extend(back.dx.iter().chain(&back.dh0).map(|rows| rows.to_vec()));
            }
            Ok(found)
        };
        parallel::with_threads(threads, run).unwrap()
    };
    let alone = of(1, own, true);
    assert!(
        alone
            .iter()
            .all(|numbers| numbers.iter().any(|&x| x != 0.0))
    );
    let mut ways = vec![(2, own), (5, own), (1, own)];
    if steps.longest() == 1 {
        ways.extend([(1, lent), (2, lent), (5, lent)]);
    }
    for (threads, weights) in ways {
        let (cell, width) = (config.cell, config.input_size);
        assert!(
            of(threads, weights, true) == alone,
            "{cell} {width} by {isa:?}"
        );
        assert!(
            of(threads, weights, false) == alone[..1],
            "{cell} {width} by {isa:?}"
        );
    }
}

#[test]
fn sizes_out_of_range_are_refused_by_name() {
    let refused = |sizes: &[usize]| {
        let error = Stack::<f32>::new(config(CellKind::Gru, 1, sizes)).err();
        error.unwrap().to_string()
    };
    assert!(refused(&[]).starts_with("hidden_sizes: "));
    assert!(refused(&[3, 0]).starts_with("hidden_size: "));
    assert!(refused(&[3, 1 << 40]).contains("hidden_size 1099511627776 do not fit into memory"));
    assert!(refused(&vec![1; MOST_LAYERS + 1]).starts_with("hidden_sizes: "));
}
