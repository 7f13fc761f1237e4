//! What training refuses before it starts.

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
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
