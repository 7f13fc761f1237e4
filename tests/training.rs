//! What training refuses before it starts.

use rnncore::data::{Sequences, Values};
use rnncore::loss::Loss;
use rnncore::{CellKind, Config, Error, Input, Network, NetworkConfig, Output, Targets, Training};

#[test]
fn a_batch_beyond_memory_is_refused() {
    let network = Network::<f32>::new(NetworkConfig {
        stack: Config {
            cell: CellKind::Gru,
            input_size: 1,
            hidden_sizes: vec![128],
            bias: true,
            bidirectional: false,
            dropout: 0.0,
            locked_dropout: false,
        },
        input: Input::Dense,
        output: Output::Last,
        n_outputs: 2,
        loss: Loss::CrossEntropy,
    })
    .unwrap();
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
    let training = |batch_size| {
        let plan = (false, false);
        Training::new(&network, sequences.clone(), targets, batch_size, plan, 0)
    };
    assert!(training(1).is_ok());
    assert!(matches!(training(n), Err(Error::OutOfMemory { .. })));
    let refused = network.predict(&sequences, n, || Ok::<_, ()>(()));
    assert!(refused.is_err());
}
