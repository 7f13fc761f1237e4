//! What training refuses before it starts, and what is left where it was broken off.

use std::panic::{AssertUnwindSafe, catch_unwind};

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
use rnncore::optim::{Optimizer, Rule, State};
use rnncore::{
    CellKind, Config, EpochOptions, Error, Examples, Input, Network, NetworkConfig, Output, Run,
    Targets,
};

fn network(bidirectional: bool) -> Network<f32> {
    let stack = Config {
        cell: CellKind::Gru,
        input_size: 1,
        hidden_sizes: vec![128],
        bias: true,
        bidirectional,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    };
    let config = NetworkConfig::new(stack, Input::Dense, Output::Last, 2, Loss::CrossEntropy);
    Network::new(config).unwrap()
}

#[test]
fn a_batch_beyond_memory_is_refused() {
    // Sequences may overlap: 2^36 steps of 2^20 numbers.
    const LENGTH: usize = 1 << 20;
    let (rows, n) = (vec![0.0; LENGTH], 1 << 16);
    let values = Values::Dense {
        rows: &rows,
        width: 1,
    };
    let sequences = Sequences::new(values, &vec![0; n], &vec![LENGTH as i64; n]).unwrap();
    let classes = vec![0; n];
    let targets = Targets::Classes(&classes);
    let examples = Examples::new(sequences.clone(), targets);
    let training = |batch_size| {
        let options = EpochOptions::new(1, batch_size, 0);
        Run::new(&network(false), examples.clone(), options)
    };
    assert!(training(1).is_ok());
    assert!(matches!(training(n), Err(Error::OutOfMemory { .. })));
    // One direction alone runs in pieces, however long the sequences are.
    let refused = network(true).predict(&sequences, n, || Ok::<_, ()>(()));
    assert!(refused.is_err());
}

#[test]
fn an_update_that_a_panic_ended_is_made_again() {
    let rows: Vec<f32> = (0..24).map(|i| (i as f32).sin()).collect();
    let values = Values::Dense {
        rows: &rows,
        width: 1,
    };
    let sequences = Sequences::new(values, &[0, 6, 12, 18], &[6; 4]).unwrap();
    let classes = [0, 1, 1, 0];
    let examples = Examples::new(sequences, Targets::Classes(&classes));
    let rule = Rule::Adagrad {
        lr_decay: 0.0,
        initial_accumulator: 0.0,
        eps: 1e-10,
    };
    let optimizer = Optimizer::new(rule, 0.1);
    let train = |is_broken_off: bool| {
        let (mut network, mut state) = (network(false), State::default());
        network
            .update(|weights| {
                weights.fill(0.01);
                Ok(())
            })
            .unwrap();
        let options = EpochOptions::new(1, 2, 0);
        let mut run = Run::new(&network, examples.clone(), options).unwrap();
        if is_broken_off {
            let mut breaks = || -> Result<(), ()> { panic!("broken off") };
            let broken = catch_unwind(AssertUnwindSafe(|| {
                run.update(&mut network, &optimizer, &mut state, &mut breaks)
            }));
            assert!(broken.is_err());
        }
        let epoch = run.finish(&mut network, &optimizer, &mut state, || Ok::<_, ()>(()));
        (network.weights().to_vec(), epoch.unwrap().loss)
    };
    assert_eq!(train(true), train(false));
}
