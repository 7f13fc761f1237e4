//! Gradients of whole networks by finite differences, and what must not change a bit.

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
use rnncore::optim::{Optimizer, Rule, State};
use rnncore::{
    Bptt, CellKind, Config, EpochOptions, Examples, Input, Network, NetworkConfig, Nonlinearity,
    Output, Position, Run, Stream, Targets, parallel,
};

const FEATURES: usize = 3;
const VOCABULARY: usize = 6;
const OUTPUTS: usize = 2;
const LENGTHS: [i64; 6] = [4, 0, 7, 1, 4, 6];
const STARTS: [i64; 6] = [0, 5, 5, 13, 15, 19];
const ROWS: usize = 25;

/// Numbers between -1 and 1 without any pattern.
fn noise(len: usize, seed: f64) -> Vec<f64> {
    (0..len).map(|i| (i as f64 * 7.3 + seed).sin()).collect()
}

fn stack(cell: CellKind, hidden_sizes: &[usize]) -> Config {
    Config {
        cell,
        input_size: FEATURES,
        hidden_sizes: hidden_sizes.to_vec(),
        bias: true,
        bidirectional: false,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    }
}

fn plain(cell: CellKind, output: Output) -> NetworkConfig {
    let stack = stack(cell, &[4, 3]);
    NetworkConfig::new(stack, Input::Dense, output, OUTPUTS, Loss::SquaredError)
}

fn network(config: &NetworkConfig) -> Network<f64> {
    let mut network = Network::new(config.clone()).unwrap();
    let fill = |weights: &mut [f64]| {
        let size = weights.len();
        weights.copy_from_slice(&noise(size, 0.4));
        Ok(())
    };
    network.update(fill).unwrap();
    network
}

/// Values, targets and weights that fit any network here.
struct Data {
    numbers: Vec<f64>,
    ids: Vec<i64>,
    targets: Vec<f64>,
    classes: Vec<i64>,
    weights: Vec<f64>,
}

impl Data {
    fn new() -> Self {
        Data {
            numbers: noise(ROWS * FEATURES, 1.0),
            ids: (0..2 * ROWS as i64)
                .map(|i| i * i * 7 % VOCABULARY as i64)
                .collect(),
            targets: noise(ROWS * VOCABULARY, 2.0)
                .iter()
                .map(|x| x.abs())
                .collect(),
            classes: (0..ROWS as i64).map(|i| i * 5 % 3 % 2).collect(),
            weights: (0..ROWS).map(|i| (i * 5 % 4) as f64 / 2.0).collect(),
        }
    }

    /// Examples for a network, with one or two identifiers a step.
    fn examples(&self, config: &NetworkConfig, width: usize, weigh: bool) -> Examples<'_, f64> {
        let values = match config.input {
            Input::Dense => Values::Dense {
                rows: &self.numbers,
                width: FEATURES,
            },
            _ => Values::Ids {
                ids: &self.ids[..ROWS * width],
                width,
                vocabulary: VOCABULARY,
            },
        };
        let rows = if config.output == Output::Sequence {
            ROWS
        } else {
            LENGTHS.len()
        };
        let targets = if config.loss.takes_classes() {
            Targets::Classes(&self.classes[..rows])
        } else {
            Targets::Numbers(&self.targets[..rows * config.n_outputs])
        };
        Examples {
            sequences: Sequences::new(values, &STARTS, &LENGTHS).unwrap(),
            targets: Some(targets),
            weights: weigh.then_some(&self.weights[..rows]),
        }
    }
}

fn descent(rate: f64) -> Optimizer {
    let rule = Rule::Sgd {
        momentum: 0.0,
        dampening: 0.0,
        nesterov: false,
    };
    Optimizer::new(rule, rate)
}

fn quiet() -> Result<(), ()> {
    Ok(())
}

fn options(batch_size: usize, bptt: Bptt) -> EpochOptions {
    EpochOptions {
        bptt,
        ..EpochOptions::new(1, batch_size, 3)
    }
}

/// Trains an epoch of plain gradient descent.
fn train(network: &mut Network<f64>, examples: &Examples<f64>, options: EpochOptions) {
    let mut run = Run::new(network, examples.clone(), options).unwrap();
    run.finish(network, &descent(1.0), &mut State::default(), quiet)
        .unwrap();
}

/// The gradient of one update over all examples.
fn gradient(config: &NetworkConfig, examples: &Examples<f64>, bptt: Bptt) -> Vec<f64> {
    let mut network = network(config);
    let before = network.weights().to_vec();
    train(&mut network, examples, options(LENGTHS.len(), bptt));
    let after = network.weights().iter();
    before.iter().zip(after).map(|(a, b)| a - b).collect()
}

fn assert_near(got: &[f64], want: &[f64], tolerance: f64, what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let off = (got - want).abs();
        assert!(off < tolerance, "{what}, {i}: {got} for {want}");
    }
}

/// Compares the gradient of each weight with what a small change of it does to the loss.
fn check(what: &str, config: &NetworkConfig, width: usize, weigh: bool) {
    const STEP: f64 = 1e-5;
    let data = Data::new();
    let examples = data.examples(config, width, weigh);
    let mut network = network(config);
    let loss = |network: &Network<f64>| network.evaluate(&examples, 4, quiet).unwrap().0;
    let mut want = Vec::new();
    for i in 0..network.weights().len() {
        let mut moved = |by: f64| {
            network
                .update(|weights| {
                    weights[i] += by;
                    Ok(())
                })
                .unwrap();
            loss(&network)
        };
        let (up, down) = (moved(STEP), moved(-2.0 * STEP));
        moved(STEP);
        let trained = network.trained().contains(&i);
        want.push(if trained {
            (up - down) / (2.0 * STEP)
        } else {
            0.0
        });
    }
    assert!(want.iter().any(|x| x.abs() > 1e-3), "{what}");
    assert_near(&gradient(config, &examples, Bptt::Full), &want, 1e-7, what);
}

#[test]
fn gradients_of_every_option() {
    let residual = CellKind::Rnn {
        nonlinearity: Nonlinearity::Sigmoid,
        residual: true,
    };
    for cell in [CellKind::Lstm, CellKind::Gru, CellKind::RNN_TANH, residual] {
        for output in [Output::Last, Output::Mean, Output::Max, Output::Sequence] {
            for bidirectional in [false, true] {
                let mut config = plain(cell, output);
                config.stack.bidirectional = bidirectional;
                config.learn_initial_state = true;
                check(&format!("{config:?}"), &config, 1, true);
            }
        }
    }
    for loss in [
        Loss::CrossEntropy,
        Loss::BinaryCrossEntropy,
        Loss::AbsoluteError,
        Loss::Huber { delta: 0.3 },
    ] {
        let config = NetworkConfig {
            loss,
            ..plain(CellKind::Gru, Output::Sequence)
        };
        check(&format!("{loss:?}"), &config, 1, true);
    }
}

#[test]
fn gradients_of_every_kind_of_embedding() {
    for (masked, frozen, tied) in [
        (None, false, false),
        (Some(2), false, false),
        (Some(0), true, false),
        (None, false, true),
        (Some(5), false, true),
    ] {
        for width in [1, 2] {
            let input = Input::Embedding {
                vocabulary: VOCABULARY,
                masked,
                frozen,
                tied,
            };
            let config = NetworkConfig {
                input,
                n_outputs: if tied { VOCABULARY } else { OUTPUTS },
                ..plain(CellKind::Lstm, Output::Sequence)
            };
            check(&format!("{input:?}, {width}"), &config, width, false);
        }
    }
}

#[test]
fn pieces_and_windows_that_hold_everything_are_plain_backpropagation() {
    let data = Data::new();
    for cell in [CellKind::Lstm, CellKind::Gru] {
        let config = NetworkConfig {
            learn_initial_state: true,
            ..plain(cell, Output::Sequence)
        };
        let examples = data.examples(&config, 1, true);
        let full = gradient(&config, &examples, Bptt::Full);
        assert_eq!(full, gradient(&config, &examples, Bptt::Truncated(7)));
        for block in [1, 3] {
            let windowed = gradient(&config, &examples, Bptt::Windowed { block, reach: 8 });
            assert_near(&windowed, &full, 1e-14, "windows");
        }
    }
}

#[test]
fn windows_are_the_errors_of_each_step_by_itself() {
    const REACH: usize = 2;
    let data = Data::new();
    let config = NetworkConfig {
        learn_initial_state: true,
        ..plain(CellKind::Lstm, Output::Sequence)
    };
    let first = network(&config);
    let entries = first.layout().entries();
    let is_state = |i: usize| {
        let entry = entries.iter().find(|entry| entry.range().contains(&i));
        let name = &entry.unwrap().name;
        name.contains(".h0") || name.contains(".c0")
    };
    let mut want = vec![0.0; first.weights().len()];
    let steps: i64 = LENGTHS.iter().sum();
    for (&start, &length) in STARTS.iter().zip(&LENGTHS) {
        let mut stream = Stream::new(&first, 1).unwrap();
        let mut states = vec![stream.state(&first)];
        for step in 0..length {
            let rows = &data.numbers[(start + step) as usize * FEATURES..][..FEATURES];
            let mut outputs = [0.0; OUTPUTS];
            let values = Values::Dense {
                rows,
                width: FEATURES,
            };
            let short = &mut outputs[1..];
            assert!(stream.step(&first, values, short).is_err());
            stream.step(&first, values, &mut outputs).unwrap();
            states.push(stream.state(&first));
        }
        for step in 0..length as usize {
            // The window alone, of a network that begins in the state before it.
            let begin = step.saturating_sub(REACH);
            let mut network = network(&config);
            let state = &states[begin];
            let initial: Vec<f64> = state
                .hidden
                .iter()
                .chain(&state.memory)
                .flatten()
                .copied()
                .collect();
            let place = entries
                .iter()
                .find(|entry| entry.name == "rnn.h0_l0")
                .unwrap()
                .offset;
            network
                .update(|weights| {
                    weights[place..place + initial.len()].copy_from_slice(&initial);
                    Ok(())
                })
                .unwrap();
            let before = network.weights().to_vec();
            let mut weights = vec![0.0; ROWS];
            weights[start as usize + step] = 1.0;
            let mut examples = data.examples(&config, 1, false);
            let window = [start + begin as i64];
            let long = [(step - begin + 1) as i64];
            examples.sequences =
                Sequences::new(examples.sequences.values(), &window, &long).unwrap();
            examples.weights = Some(&weights);
            train(&mut network, &examples, options(1, Bptt::Full));
            for (i, (want, after)) in want.iter_mut().zip(network.weights()).enumerate() {
                if begin == 0 || !is_state(i) {
                    *want += (before[i] - after) / steps as f64;
                }
            }
        }
    }
    let windows = Bptt::Windowed {
        block: 1,
        reach: REACH,
    };
    let examples = data.examples(&config, 1, false);
    assert_near(
        &gradient(&config, &examples, windows),
        &want,
        1e-12,
        "windows",
    );
}

#[test]
fn pieces_and_windows_that_cannot_be_are_refused() {
    let data = Data::new();
    let config = plain(CellKind::Gru, Output::Sequence);
    let (network, examples) = (network(&config), data.examples(&config, 1, false));
    for (bptt, name) in [
        (Bptt::Truncated(0), "bptt_steps"),
        (Bptt::Windowed { block: 0, reach: 0 }, "bptt_steps"),
        (Bptt::Windowed { block: 3, reach: 1 }, "bptt_window"),
    ] {
        let run = Run::new(&network, examples.clone(), options(2, bptt));
        let message = run.map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with(&format!("{name}: ")), "{message}");
    }
}

#[test]
fn a_network_projects_no_state() {
    let mut config = plain(CellKind::Lstm, Output::Last);
    config.stack.proj_size = 2;
    let message = Network::<f64>::new(config).map(|_| ()).unwrap_err();
    let expected = "proj_size: expected 0 in a network, got 2";
    assert_eq!(message.to_string(), expected);
}

/// A network with everything that draws.
fn dropping(output: Output) -> NetworkConfig {
    let mut config = plain(CellKind::Lstm, output);
    config.stack.dropout = 0.3;
    (config.input_dropout, config.output_dropout) = (0.2, 0.4);
    config
}

#[test]
fn an_epoch_goes_on_from_any_position_to_the_same_bits() {
    let data = Data::new();
    let config = dropping(Output::Sequence);
    let examples = data.examples(&config, 1, true);
    let windows = Bptt::Windowed { block: 2, reach: 3 };
    for bptt in [Bptt::Full, Bptt::Truncated(2), windows] {
        let options = EpochOptions {
            accumulate_batches: 2,
            rates: Some((0.1, 0.01)),
            ..options(2, bptt)
        };
        let optimizer = descent(1.0);
        let mut whole = network(&config);
        let mut run = Run::new(&whole, examples.clone(), options.clone()).unwrap();
        let want = run
            .finish(&mut whole, &optimizer, &mut State::default(), quiet)
            .unwrap();

        let (mut network, mut state) = (network(&config), State::default());
        let mut run = Run::new(&network, examples.clone(), options.clone()).unwrap();
        while !run.is_done() {
            let position = run.position(&network);
            run = Run::new(&network, examples.clone(), options.clone()).unwrap();
            for (updates, draws) in [(1, 0), (0, 1), (0, u64::MAX / 2)] {
                let elsewhere = Position {
                    updates: position.updates + updates,
                    draws: position.draws + draws,
                    ..position.clone()
                };
                assert!(run.resume(&network, &elsewhere).is_err());
            }
            for (group, piece) in [(usize::MAX, 0), (0, usize::MAX)] {
                let nowhere = Position {
                    group,
                    piece,
                    ..position.clone()
                };
                assert!(run.resume(&network, &nowhere).is_err());
            }
            run.resume(&network, &position).unwrap();
            run.update(&mut network, &optimizer, &mut state, quiet)
                .unwrap();
        }
        let got = run.epoch();
        assert_eq!((got.loss, got.grad_norm), (want.loss, want.grad_norm));
        assert_eq!(network.weights(), whole.weights());
        assert_eq!(run.progress().done, run.progress().total);
    }
}

#[test]
fn locked_masks_hold_for_all_pieces_of_an_update() {
    let data = Data::new();
    for locked in [false, true] {
        let mut config = dropping(Output::Sequence);
        config.stack.locked_dropout = locked;
        let examples = data.examples(&config, 1, false);
        // One window that holds everything, or many: the masks are of the steps.
        let full = gradient(&config, &examples, Bptt::Full);
        let windows = Bptt::Windowed { block: 1, reach: 9 };
        assert_near(
            &gradient(&config, &examples, windows),
            &full,
            1e-14,
            "masks",
        );
    }
}

#[test]
fn threads_do_not_change_bits() {
    // Enough numbers for all threads everywhere, and sequences that end early among them.
    const COUNT: usize = 200;
    let data = Data::new();
    let lengths: Vec<i64> = (0..COUNT as i64).map(|i| i * i % 26).collect();
    let starts: Vec<i64> = lengths.iter().map(|length| 25 - length).collect();
    let targets = noise(COUNT * OUTPUTS, 2.0);
    for output in [Output::Last, Output::Mean, Output::Max] {
        let mut config = dropping(output);
        config.input = Input::embedding(VOCABULARY);
        config.stack.input_size = 40;
        config.stack.hidden_sizes = vec![150, 40];
        let mut examples = data.examples(&config, 2, false);
        let values = examples.sequences.values();
        examples.sequences = Sequences::new(values, &starts, &lengths).unwrap();
        examples.targets = Some(Targets::Numbers(&targets));
        let run = |threads| {
            let weights = || {
                let mut network = network(&config);
                train(&mut network, &examples, options(COUNT, Bptt::Full));
                Ok(network.weights().to_vec())
            };
            parallel::with_threads(threads, weights).unwrap()
        };
        assert_eq!(run(1), run(3));
    }
}

#[test]
fn an_observer_ends_an_update_and_leaves_the_weights() {
    let data = Data::new();
    let config = dropping(Output::Sequence);
    let examples = data.examples(&config, 1, false);
    let mut network = network(&config);
    let before = network.weights().to_vec();
    let options = options(6, Bptt::Windowed { block: 1, reach: 1 });
    let mut run = Run::new(&network, examples, options).unwrap();
    let mut calls = 0;
    let stop = || {
        calls += 1;
        if calls == 3 { Err(()) } else { Ok(()) }
    };
    let mut state = State::default();
    assert!(
        run.update(&mut network, &descent(1.0), &mut state, stop)
            .is_err()
    );
    assert_eq!(network.weights(), before);
    // The same update can be made afterwards.
    run.update(&mut network, &descent(1.0), &mut state, quiet)
        .unwrap();
    assert!(run.is_done() && network.weights() != before);
}

#[test]
fn an_update_that_diverges_is_named_and_not_made() {
    let data = Data::new();
    let config = plain(CellKind::Gru, Output::Sequence);
    let mut targets = data.targets.clone();
    targets[STARTS[5] as usize * OUTPUTS] = f64::INFINITY;
    let mut examples = data.examples(&config, 1, false);
    examples.targets = Some(Targets::Numbers(&targets[..ROWS * OUTPUTS]));
    let mut network = network(&config);
    let options = EpochOptions {
        number: 7,
        shuffle: false,
        bucket_by_length: false,
        ..options(1, Bptt::Full)
    };
    let mut run = Run::new(&network, examples, options).unwrap();
    let error = run.finish(&mut network, &descent(0.1), &mut State::default(), quiet);
    let message = format!("{:?}", error.unwrap_err());
    assert!(message.contains("epoch: 7, update: 6"), "{message}");
    assert!(network.weights().iter().all(|weight| weight.is_finite()));
}
