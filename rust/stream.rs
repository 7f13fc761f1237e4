//! Sequences that come step by step.

use crate::data::Values;
use crate::error::{Error, Result};
use crate::network::{Network, Output, Stored};
use crate::parallel::FlushDenormals;
use crate::params::check_room;
use crate::pass::{StateRows, States};
use crate::pooling::Pooling;
use crate::sequence::Element;
use crate::steps::Steps;

/// Where some sequences stand between two steps of a network, which gives after each step the
/// outputs that [`Network::predict`] gives for the sequences so far, to the same bits.
pub struct Stream<E> {
    batch: usize,
    /// One step of every sequence, from the pass before.
    steps: Option<Steps>,
    /// None while all sequences begin.
    states: Option<States<E>>,
    /// What is pooled so far, for the mean and the maximum.
    pooling: Option<Pooling>,
}

/// Where the sequences of a [`Stream`] stand, in plain numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamState<E> {
    /// Hidden state of each layer, (B, H).
    pub hidden: Vec<Vec<E>>,
    /// Memory of each layer, (B, H), of cells that have one.
    pub memory: Vec<Vec<E>>,
    /// For the mean the sums so far, for the maximum the largest so far: (B, H) of the last layer;
    /// else empty.
    pub pooled: Vec<f64>,
    /// Steps pooled so far, (B,), or empty.
    pub steps: Vec<usize>,
}

impl<E: Element> Stream<E> {
    /// `batch_size` sequences before their first step.
    ///
    /// # Errors
    /// [`Error::Value`] naming `bidirectional` if the network runs backwards too, or `batch_size` if
    /// that is 0; [`Error::OutOfMemory`] if there is no room for so many.
    pub fn new(network: &Network<E>, batch_size: usize) -> Result<Self> {
        if network.config().stack.bidirectional {
            let expected = "False for a stream, whose end is not there yet";
            return Err(Error::value("bidirectional", expected, "True"));
        }
        if batch_size == 0 {
            return Err(Error::value("batch_size", "an integer >= 1", 0));
        }
        network.check_room(&[batch_size], 1, usize::MAX, Stored::Nothing)?;
        let columns = network.seen_columns();
        let numbers = batch_size.saturating_mul(columns.stride());
        check_room::<E>(numbers, "numbers of the states")?;
        let output = network.config().output;
        Ok(Stream {
            batch: batch_size,
            steps: None,
            states: None,
            pooling: matches!(output, Output::Mean | Output::Max)
                .then(|| Pooling::new(output, columns, batch_size)),
        })
    }

    /// How many sequences there are.
    pub fn batch_size(&self) -> usize {
        self.batch
    }

    /// Takes a step of every sequence, one row of `values` each, and writes the outputs,
    /// (B, n_outputs).
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Value`] naming `x`, [`Error::Shape`] naming `to`; the states have
    /// not changed then.
    pub fn step(&mut self, network: &Network<E>, values: Values<E>, to: &mut [E]) -> Result<()> {
        let rows = self.batch;
        if values.rows() != rows {
            let (expected, actual) = (format!("{rows} rows"), format!("{} rows", values.rows()));
            return Err(Error::shape("x", expected, actual));
        }
        let checked = values
            .check_rows()
            .and_then(|()| values.check_ids(&(0..rows)))
            .and_then(|()| network.check(values));
        checked.map_err(|error| error.renamed("x"))?;
        let (actual, expected) = (to.len(), rows * network.config().n_outputs);
        if actual != expected {
            let expected = format!("{expected} numbers");
            return Err(Error::shape("to", expected, actual.to_string()));
        }
        // Once for all that follows.
        let _flush = FlushDenormals::begin();
        let steps = self.steps.take();
        let steps = steps.unwrap_or_else(|| Steps::new(&vec![1; rows]));
        let states = self.states.take().unwrap_or_else(|| network.initial(rows));
        let pass = network.step(values, steps, states);
        self.states = Some(network.states_after(&pass, usize::MAX, rows));
        let (width, stride) = (network.config().n_outputs, network.output_stride());
        let mut write = |seen: &[E]| {
            network.outputs(seen, |block, outputs| {
                let to = &mut to[block.start * width..];
                for (to, from) in to.chunks_exact_mut(width).zip(outputs.chunks_exact(stride)) {
                    to.copy_from_slice(&from[..width]);
                }
            });
        };
        match &mut self.pooling {
            None => write(pass.output()),
            Some(pooling) => {
                let last = network.config().stack.num_layers() - 1;
                pooling.add(&pass, last, network.arena());
                let stride = network.seen_columns().stride();
                let mut seen = network.arena().take(rows * stride);
                pooling.write(&mut seen);
                write(&seen);
            }
        }
        self.steps = Some(pass.steps);
        Ok(())
    }

    /// What the head sees of the sequences so far, (B, H) of the last layer.
    pub fn features(&self, network: &Network<E>) -> Vec<E> {
        let columns = network.seen_columns();
        let rows = self.batch;
        let mut seen = network.arena().zeros(rows * columns.stride());
        if let Some(pooling) = &self.pooling {
            pooling.write(&mut seen);
        } else {
            let initial;
            let states = match &self.states {
                Some(states) => states,
                None => {
                    initial = network.initial(rows);
                    &initial
                }
            };
            if let Some(last) = states.hidden.as_ref().and_then(|hidden| hidden.last()) {
                seen.copy_from_slice(last);
            }
        }
        columns.unpad(&seen)
    }

    /// Lets some sequences begin anew, or all of them.
    ///
    /// # Errors
    /// [`Error::Value`] naming `rows` if there is no such sequence.
    pub fn reset(&mut self, network: &Network<E>, rows: Option<&[i64]>) -> Result<()> {
        let batch = self.batch;
        let Some(rows) = rows else {
            self.states = None;
            if let Some(pooling) = &mut self.pooling {
                pooling.rows_mut().iter_mut().for_each(|row| row.clear());
            }
            return Ok(());
        };
        let inside = |&&row: &&i64| usize::try_from(row).is_ok_and(|row| row < batch);
        if let Some(outside) = rows.iter().find(|row| !inside(row)) {
            let expected = format!("integers in 0..{batch}");
            return Err(Error::value("rows", expected, outside));
        }
        let fresh = network.initial(1);
        for &row in rows {
            let row = row as usize;
            if let Some(pooling) = &mut self.pooling {
                pooling.rows_mut()[row].clear();
            }
            let Some(states) = &mut self.states else {
                continue;
            };
            let parts = [
                (&mut states.hidden, &fresh.hidden),
                (&mut states.memory, &fresh.memory),
            ];
            for (to, from) in parts {
                for (i, to) in to.iter_mut().flatten().enumerate() {
                    let stride = network.state_columns(i).stride();
                    let to = &mut to[row * stride..][..stride];
                    match from {
                        Some(from) => to.copy_from_slice(&from[i]),
                        None => to.fill(E::ZERO),
                    }
                }
            }
        }
        Ok(())
    }

    /// Where the sequences stand.
    pub fn state(&self, network: &Network<E>) -> StreamState<E> {
        let rows = self.batch;
        let initial;
        let states = match &self.states {
            Some(states) => states,
            None => {
                initial = network.initial(rows);
                &initial
            }
        };
        let has_memory = network.config().stack.cell.signature().has_memory();
        let plain = |part: &Option<StateRows<E>>, is_there: bool| -> Vec<Vec<E>> {
            let count = if is_there { network.state_count() } else { 0 };
            (0..count)
                .map(|i| {
                    let columns = network.state_columns(i);
                    let Some(part) = part else {
                        return vec![E::ZERO; rows * columns.width];
                    };
                    columns.unpad(&part[i])
                })
                .collect()
        };
        let width = network.seen_columns().width;
        let pooled = self.pooling.iter().flat_map(Pooling::rows);
        StreamState {
            hidden: plain(&states.hidden, true),
            memory: plain(&states.memory, has_memory),
            pooled: pooled
                .clone()
                .flat_map(|row| &row.values[..width])
                .copied()
                .collect(),
            steps: pooled.map(|row| row.steps).collect(),
        }
    }

    /// Puts the sequences where others stood.
    ///
    /// # Panics
    /// If the state is not of the network and of so many sequences.
    pub fn set_state(&mut self, network: &Network<E>, state: &StreamState<E>) {
        let padded = |part: &[Vec<E>]| {
            part.iter()
                .enumerate()
                .map(|(i, from)| {
                    let columns = network.state_columns(i);
                    assert_eq!(from.len(), self.batch * columns.width);
                    let mut to = network.arena().zeros(self.batch * columns.stride());
                    columns.pad(from, &mut to);
                    to
                })
                .collect::<Vec<_>>()
        };
        let has_memory = network.config().stack.cell.signature().has_memory();
        let memories = if has_memory { network.state_count() } else { 0 };
        assert_eq!(state.hidden.len(), network.state_count());
        assert_eq!(state.memory.len(), memories);
        if self.pooling.is_some() {
            let width = network.seen_columns().width;
            assert_eq!(state.pooled.len(), self.batch * width);
            assert_eq!(state.steps.len(), self.batch);
        }
        let memory = has_memory.then(|| padded(&state.memory));
        self.states = Some(States {
            hidden: Some(padded(&state.hidden)),
            memory,
        });
        let Some(pooling) = &mut self.pooling else {
            return;
        };
        let width = network.seen_columns().width;
        let from = state.pooled.chunks_exact(width).zip(&state.steps);
        for (row, (values, &steps)) in pooling.rows_mut().iter_mut().zip(from) {
            row.values[..width].copy_from_slice(values);
            row.steps = steps;
        }
    }
}
