//! Training that keeps a part of the steps at a time: the same bits as with all of them.

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
use rnncore::optim::{Optimizer, Rule, State};
use rnncore::{
    Bptt, CellKind, Config, EpochOptions, Examples, Input, Network, NetworkConfig, Output, Run,
    Targets, parallel,
};

const FEATURES: usize = 5;
const VOCABULARY: usize = 7;
const HIDDEN: usize = 5;

/// Numbers between -1 and 1 without any pattern.
fn noise(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| (i as f32 * 7.3 + seed).sin()).collect()
}

/// Sequences with what any network here is fed and should give.
struct Data {
    lengths: Vec<i64>,
    starts: Vec<i64>,
    rows: usize,
    numbers: Vec<f32>,
    ids: Vec<i64>,
    targets: Vec<f32>,
    classes: Vec<i64>,
    weights: Vec<f32>,
}

impl Data {
    fn new(lengths: &[usize]) -> Self {
        let lengths: Vec<i64> = lengths.iter().map(|&length| length as i64).collect();
        let mut rows = 0;
        let starts = lengths.iter().map(|length| {
            rows += length;
            rows - length
        });
        let starts = starts.collect();
        let rows = lengths.len().max(rows as usize);
        Data {
            starts,
            rows,
            numbers: noise(rows * FEATURES, 1.0),
            ids: (0..2 * rows as i64)
                .map(|i| i * i * 3 % VOCABULARY as i64)
                .collect(),
            targets: noise(rows * 2, 2.0),
            classes: (0..rows as i64).map(|i| i * 5 % 3 % 2).collect(),
            weights: (0..rows).map(|i| (i * 5 % 4) as f32 / 2.0).collect(),
            lengths,
        }
    }

    fn examples(&self, config: &NetworkConfig) -> Examples<'_, f32> {
        let width = match config.input {
            Input::Embedding { tied: false, .. } => 2,
            _ => 1,
        };
        let values = match config.input {
            Input::Dense => Values::Dense {
                rows: &self.numbers,
                width: FEATURES,
            },
            _ => Values::Ids {
                ids: &self.ids[..self.rows * width],
                width,
                vocabulary: VOCABULARY,
            },
        };
        let rows = match config.output {
            Output::Sequence => self.rows,
            _ => self.lengths.len(),
        };
        Examples {
            sequences: Sequences::new(values, &self.starts, &self.lengths).unwrap(),
            targets: Some(match config.loss.takes_classes() {
                true => Targets::Classes(&self.classes[..rows]),
                false => Targets::Numbers(&self.targets[..rows * config.n_outputs]),
            }),
            weights: Some(&self.weights[..rows]),
        }
    }
}

/// Two layers, with all that draws and everything that is learned.
fn config(cell: CellKind, input: Input, output: Output) -> NetworkConfig {
    let loss = match output {
        Output::Last | Output::Max => Loss::CrossEntropy,
        _ => Loss::SquaredError,
    };
    let stack = Config {
        cell,
        input_size: if input == Input::OneHot {
            VOCABULARY
        } else {
            FEATURES
        },
        hidden_sizes: vec![9, HIDDEN],
        bias: true,
        bidirectional: false,
        dropout: 0.3,
        locked_dropout: false,
        proj_size: 0,
    };
    let mut config = NetworkConfig::new(stack, input, output, 2, loss);
    config.learn_initial_state = true;
    config.output_dropout = 0.2;
    if input != Input::OneHot {
        config.input_dropout = 0.1;
    }
    config
}

/// Weights, scores and norms of some epochs, and how often the observer was asked.
fn train(config: &NetworkConfig, data: &Data, options: &EpochOptions) -> (Vec<u32>, Vec<u64>, u32) {
    let mut network = Network::new(config.clone()).unwrap();
    let fill = |weights: &mut [f32]| {
        let noise = noise(weights.len(), 0.4);
        weights
            .iter_mut()
            .zip(noise)
            .for_each(|(to, x)| *to = x / 3.0);
        Ok(())
    };
    network.update(fill).unwrap();
    let examples = data.examples(config);
    let rule = Rule::Sgd {
        momentum: 0.0,
        dampening: 0.0,
        nesterov: false,
    };
    let optimizer = Optimizer {
        clip_norm: Some(1.0),
        ..Optimizer::new(rule, 0.05)
    };
    let mut state = State::default();
    let (mut figures, mut asked) = (Vec::new(), 0);
    for number in 1..=2 {
        let options = EpochOptions {
            number,
            ..options.clone()
        };
        let mut run = Run::new(&network, examples.clone(), options).unwrap();
        let observe = || {
            asked += 1;
            Ok::<(), ()>(())
        };
        let epoch = run
            .finish(&mut network, &optimizer, &mut state, observe)
            .unwrap();
        figures.extend([epoch.loss, epoch.metric, epoch.grad_norm].map(f64::to_bits));
    }
    let weights = network.weights().iter().map(|x| x.to_bits()).collect();
    (weights, figures, asked)
}

/// That a training has the same bits with checkpoints, on one thread and on two. Returns how much
/// more often the observer was asked.
fn check(config: &NetworkConfig, data: &Data, options: EpochOptions, what: &str) -> u32 {
    let with = EpochOptions {
        checkpoint_time: true,
        ..options.clone()
    };
    let run = |threads, options: &EpochOptions| {
        parallel::with_threads(threads, || Ok(train(config, data, options))).unwrap()
    };
    let (weights, figures, asked) = run(1, &options);
    let mut more = 0;
    for threads in [1, 2] {
        let found = run(threads, &with);
        assert!(found.0 == weights, "{what}: weights, {threads} threads");
        assert_eq!(found.1, figures, "{what}: figures, {threads} threads");
        more = found.2 - asked;
    }
    more
}

fn cells() -> [CellKind; 4] {
    ["lstm", "gru", "rnn_tanh", "rnn_tanh_residual"].map(|name| CellKind::by_name(name).unwrap())
}

const OUTPUTS: [Output; 4] = [Output::Last, Output::Mean, Output::Max, Output::Sequence];

#[test]
fn every_cell_and_output_has_the_same_bits() {
    // Some sequences end in each segment, one at its edge, and one has no steps.
    let lengths = [300, 299, 200, 150, 150, 75, 50, 20, 2, 1, 0];
    let data = Data::new(&lengths);
    for cell in cells() {
        for output in OUTPUTS {
            let config = config(cell, Input::Dense, output);
            let what = format!("{cell} {output:?}");
            let more = check(&config, &data, EpochOptions::new(1, 11, 3), &what);
            assert!(more >= 8, "{what}: {more} segments more");
        }
    }
}

#[test]
fn every_input_has_the_same_bits() {
    let data = Data::new(&[150, 150, 120, 100, 90, 80, 7, 0]);
    let embedding = |masked, tied| Input::Embedding {
        vocabulary: VOCABULARY,
        masked,
        frozen: false,
        tied,
    };
    for input in [
        Input::OneHot,
        embedding(None, false),
        embedding(Some(2), true),
    ] {
        let mut config = config(CellKind::Lstm, input, Output::Sequence);
        config.loss = Loss::CrossEntropy;
        if input == embedding(Some(2), true) {
            config.n_outputs = VOCABULARY;
        }
        let what = format!("{input:?}");
        assert!(check(&config, &data, EpochOptions::new(1, 8, 3), &what) > 0);
    }
}

#[test]
fn every_length_has_the_same_bits() {
    for (steps, batch, is_cut) in [
        (1, 300, false),
        (2, 300, true),
        (50, 12, true),
        (300, 1, false),
    ] {
        let data = Data::new(&vec![steps; batch]);
        for output in [Output::Last, Output::Sequence] {
            let config = config(CellKind::Gru, Input::Dense, output);
            let what = format!("{steps} steps of {batch}, {output:?}");
            let more = check(&config, &data, EpochOptions::new(1, batch, 3), &what);
            assert_eq!(more > 0, is_cut, "{what}");
        }
    }
}

#[test]
fn pieces_groups_and_locked_masks_have_the_same_bits() {
    let lengths: Vec<usize> = (0..16).map(|i| 60 + 5 * i).collect();
    let data = Data::new(&lengths);
    for bptt in [Bptt::Full, Bptt::Truncated(90)] {
        for cell in cells() {
            let mut config = config(cell, Input::Dense, Output::Sequence);
            config.stack.locked_dropout = true;
            let options = EpochOptions {
                bptt,
                accumulate_batches: 2,
                ..EpochOptions::new(1, 8, 3)
            };
            let what = format!("{cell} {bptt:?}");
            assert!(check(&config, &data, options, &what) > 0, "{what}");
        }
    }
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let data = Data::new(&[4, 3]);
    let refuse = |config: &NetworkConfig, bptt| {
        let options = EpochOptions {
            bptt,
            checkpoint_time: true,
            ..EpochOptions::new(1, 2, 3)
        };
        let network = Network::<f32>::new(config.clone()).unwrap();
        let run = Run::new(&network, data.examples(config), options);
        let message = run.map(|_| ()).unwrap_err().to_string();
        assert!(message.starts_with("checkpoint_time: "), "{message}");
    };
    let mut config = config(CellKind::Gru, Input::Dense, Output::Sequence);
    refuse(&config, Bptt::Windowed { block: 1, reach: 2 });
    config.stack.bidirectional = true;
    refuse(&config, Bptt::Full);
}
