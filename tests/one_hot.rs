//! A network that looks identifiers up against one that multiplies the vectors they stand for.

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
use rnncore::optim::{Optimizer, Rule, State};
use rnncore::{
    CellKind, Config, EpochOptions, Examples, Input, Network, NetworkConfig, Output, Run, Targets,
};

const VOCABULARY: usize = 19;
const IDS: [i64; 12] = [3, 0, 18, 3, 7, 7, 1, 18, 2, 3, 11, 5];
const STARTS: [i64; 4] = [0, 5, 5, 8];
const LENGTHS: [i64; 4] = [5, 3, 0, 4];
const CLASSES: [i64; 4] = [0, 1, 1, 0];

fn network(cell: CellKind, input: Input) -> Network<f64> {
    let stack = Config {
        cell,
        input_size: VOCABULARY,
        hidden_sizes: vec![21, 5],
        bias: true,
        bidirectional: true,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    };
    let config = NetworkConfig::new(stack, input, Output::Last, 2, Loss::CrossEntropy);
    let mut network = Network::new(config).unwrap();
    let change = |weights: &mut [f64]| {
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = (i as f64 * 0.73).sin() * 0.3;
        }
        Ok(())
    };
    network.update(change).unwrap();
    network
}

/// Predictions before, and the weights after, two epochs.
fn run(mut network: Network<f64>, values: Values<f64>) -> (Vec<f64>, Vec<f64>) {
    let sequences = Sequences::new(values, &STARTS, &LENGTHS).unwrap();
    let predictions = network.predict(&sequences, 3, || Ok::<_, ()>(())).unwrap();
    let examples = Examples::new(sequences, Targets::Classes(&CLASSES));
    let rule = Rule::Sgd {
        momentum: 0.9,
        dampening: 0.0,
        nesterov: false,
    };
    let optimizer = Optimizer::new(rule, 0.1);
    let mut state = State::default();
    for epoch in 1..=2 {
        let options = EpochOptions::new(epoch, 3, 1);
        let mut run = Run::new(&network, examples.clone(), options).unwrap();
        let observe = || Ok::<_, ()>(());
        run.finish(&mut network, &optimizer, &mut state, observe)
            .unwrap();
    }
    (predictions, network.weights().to_vec())
}

#[test]
fn looking_up_is_multiplying_by_one_hot_vectors() {
    let mut rows = vec![0.0; IDS.len() * VOCABULARY];
    for (row, &id) in IDS.iter().enumerate() {
        rows[row * VOCABULARY + id as usize] = 1.0;
    }
    for cell in CellKind::recurrent() {
        let (width, vocabulary) = (VOCABULARY, VOCABULARY);
        let dense = run(
            network(cell, Input::Dense),
            Values::Dense { rows: &rows, width },
        );
        let ids = Values::Ids {
            ids: &IDS,
            width: 1,
            vocabulary,
        };
        let looked_up = run(network(cell, Input::OneHot), ids);
        assert_eq!(dense.0, looked_up.0, "{cell:?}: the same bits");
        for (a, b) in dense.1.iter().zip(&looked_up.1) {
            assert!((a - b).abs() < 1e-13, "{cell:?}: {a} and {b}");
        }
        assert_ne!(dense.1, network(cell, Input::Dense).weights());
    }
}
