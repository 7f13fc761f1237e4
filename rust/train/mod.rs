//! Training: an epoch as a run that can be stopped after any update and taken up again.

mod position;
mod run;
mod work;

pub use position::Position;
pub use run::Run;

use crate::error::{Error, Result};

/// How far errors go back through the steps of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bptt {
    /// To its beginning.
    Full,
    /// To the beginning of a piece of so many steps. There is an update after each piece, and the
    /// next one starts from the states in which it ended.
    Truncated(usize),
    /// The errors of each block of steps, through a window. The gradients of all windows of a
    /// batch are added.
    Windowed {
        /// Steps of a block; blocks begin at the multiples of it.
        block: usize,
        /// How many steps before the block's last one the window begins, if the sequence has them.
        reach: usize,
    },
}

impl Bptt {
    /// From the two numbers that callers have: steps alone, or of a block and its window.
    ///
    /// # Errors
    /// [`Error::Value`] naming `bptt_steps` or `bptt_window`.
    pub fn new(steps: Option<usize>, window: Option<usize>) -> Result<Self> {
        let bptt = match (steps, window) {
            (None, None) => Bptt::Full,
            (Some(steps), None) => Bptt::Truncated(steps),
            (Some(block), Some(reach)) => Bptt::Windowed { block, reach },
            (None, Some(reach)) => {
                let expected = "nothing without bptt_steps";
                return Err(Error::value("bptt_window", expected, reach));
            }
        };
        bptt.check()?;
        Ok(bptt)
    }

    fn check(self) -> Result<()> {
        match self {
            Bptt::Truncated(0) | Bptt::Windowed { block: 0, .. } => {
                Err(Error::value("bptt_steps", "an integer >= 1", 0))
            }
            Bptt::Windowed { block, reach } if reach < block - 1 => {
                let expected = format!("an integer >= {}, so that it holds the block", block - 1);
                Err(Error::value("bptt_window", expected, reach))
            }
            _ => Ok(()),
        }
    }
}

/// How an epoch goes through its examples.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochOptions {
    /// Its number, from 1.
    pub number: u64,
    /// Sequences of a batch.
    pub batch_size: usize,
    /// Whether the order is drawn anew.
    pub shuffle: bool,
    /// Whether sequences of similar lengths are put together.
    pub bucket_by_length: bool,
    /// What order and dropout are drawn from.
    pub seed: u64,
    /// How far errors go back.
    pub bptt: Bptt,
    /// Whether a pass keeps what backward needs of one segment of its steps at a time, about
    /// sqrt(T) of them, and runs the others again when it comes to them: the same bits in less
    /// memory.
    pub checkpoint_time: bool,
    /// Batches whose gradients make one update, as those of one batch would.
    pub accumulate_batches: usize,
    /// The learning rate at the epoch's beginning and end, in between in proportion to the updates
    /// done; else the optimizer's own.
    pub rates: Option<(f64, f64)>,
}

impl EpochOptions {
    /// The options of an epoch without anything special.
    pub fn new(number: u64, batch_size: usize, seed: u64) -> Self {
        EpochOptions {
            number,
            batch_size,
            shuffle: true,
            bucket_by_length: true,
            seed,
            bptt: Bptt::Full,
            checkpoint_time: false,
            accumulate_batches: 1,
            rates: None,
        }
    }
}

/// What an epoch came to, or has come to by now.
#[derive(Clone, Debug, PartialEq)]
pub struct Epoch {
    /// Mean loss over all rows, each taken before its update; NaN without any.
    pub loss: f64,
    /// The metric of the loss, likewise.
    pub metric: f64,
    /// Mean over the updates of the gradient's norm before clipping.
    pub grad_norm: f64,
    /// Steps that the sequences had.
    pub steps: u64,
    /// How long it took.
    pub seconds: f64,
}

/// How far an epoch has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Updates done.
    pub done: usize,
    /// Updates in all.
    pub total: usize,
    /// The learning rate of the last update; before one is made, also after resuming, of the first,
    /// or NaN where [`EpochOptions::rates`] does not tell.
    pub rate: f64,
}
