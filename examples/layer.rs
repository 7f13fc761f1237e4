//! Teach a GRU to hold on to the first number that it sees.
use ndarray::{Array3, s};
use rnncore::{CellKind, Config, Inputs, Recurrent, Result};

fn main() -> Result<()> {
    let mut gru = Recurrent::<f32>::new(Config {
        cell: CellKind::Gru,
        input_size: 1,
        hidden_sizes: vec![4],
        bias: true,
        bidirectional: false,
        dropout: 0.0,
        locked_dropout: false,
        proj_size: 0,
    })?;
    // Any weights that differ between the units will do to start from.
    gru.update(|weights| {
        (0..)
            .zip(weights)
            .for_each(|(i, w)| *w = 0.5 * f32::sin(i as f32));
        Ok(())
    })?;
    let (steps, batch) = (6, 16);
    let x = Array3::from_shape_fn((steps, batch, 1), |(t, b, _)| f32::cos((t + 3 * b) as f32));
    for round in 0..=600 {
        let inputs = Inputs {
            x: x.view().into(),
            h0: None,
            c0: None,
            lengths: None,
        };
        let mut tape = gru.forward(inputs, true, None)?;
        let mut output = Array3::zeros((steps, batch, 4));
        gru.output(&tape, output.view_mut())?;
        // Half the squared error of unit 0 at the last step, and its gradient.
        let error = &output.slice(s![-1, .., 0]) - &(0.8 * &x.slice(s![0, .., 0]));
        let mut d_output = Array3::zeros(output.dim());
        d_output.slice_mut(s![-1, .., 0]).assign(&error);
        let gradients = gru.backward(&mut tape, Some(d_output.view().into()), None, None)?;
        gru.update(|weights| {
            weights
                .iter_mut()
                .zip(gradients.weights())
                .for_each(|(w, g)| *w -= 0.02 * g);
            Ok(())
        })?;
        if round % 200 == 0 {
            println!("round {round:3}: loss {:.4}", error.pow2().sum() / 2.0);
        }
    }
    Ok(())
}
