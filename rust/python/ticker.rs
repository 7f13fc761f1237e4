//! Work without the interpreter that looks at signals all the same.

use std::time::{Duration, Instant};

use pyo3::prelude::*;

use crate::error::Stopped;
use crate::parallel;

/// How often signals are looked at and progress is shown.
const TICK: Duration = Duration::from_millis(50);

/// Runs `body` without the interpreter, with the number of threads asked for.
pub(super) fn detached<R: Send>(
    py: Python<'_>,
    n_threads: Option<usize>,
    body: impl FnOnce() -> PyResult<R> + Send,
) -> PyResult<R> {
    py.detach(|| match n_threads {
        Some(threads) => parallel::with_threads(threads, || Ok(body()))?,
        None => body(),
    })
}

/// Takes the interpreter about every [`TICK`], from a thread that has let go of it.
pub(super) struct Ticker(Instant);

impl Ticker {
    pub fn start() -> Self {
        Ticker(Instant::now())
    }

    /// Calls `then` if it is time.
    pub fn tick(&mut self, then: impl FnOnce(Python<'_>) -> PyResult<()>) -> PyResult<()> {
        if self.0.elapsed() < TICK {
            return Ok(());
        }
        self.0 = Instant::now();
        Python::attach(then)
    }

    /// Lets the interpreter look at signals, such as Ctrl-C.
    pub fn signals(&mut self) -> PyResult<()> {
        self.tick(|py| py.check_signals())
    }
}

impl From<Stopped<PyErr>> for PyErr {
    fn from(stopped: Stopped<PyErr>) -> PyErr {
        match stopped {
            Stopped::Error(error) => error.into(),
            Stopped::Observer(error) => error,
        }
    }
}
