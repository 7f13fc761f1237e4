//! `Network`: a whole model for Python, and its training loop.

use std::time::{Duration, Instant};

use numpy::PyArray;
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arrays::{Held, choose, from_dict, shapes, to_dict};
use super::data::{Data, Examples, Labelled};
use super::either::{Either, dispatch};
use super::guarded::Guarded;
use super::optimizer::PyOptimizer;
use crate::cell::CellKind;
use crate::error::Error;
use crate::loss::Loss;
use crate::network::{Input, Network, NetworkConfig, Output};
use crate::parallel;
use crate::stack::{Config, uniform_sizes};
use crate::train::{Epoch, Stopped, Training};

/// How errors name a network.
const NAME: &str = "the network";

/// How often signals are looked at and progress is shown.
const TICK: Duration = Duration::from_millis(50);

/// A network with its weights.
#[pyclass(name = "Network", module = "rnncore._core", frozen)]
pub(super) struct PyNetwork {
    inner: Either<Guarded<Network<f32>>, Guarded<Network<f64>>>,
    config: NetworkConfig,
}

/// Runs `body` without the interpreter, with the number of threads asked for.
fn detached<R: Send>(
    py: Python<'_>,
    n_threads: Option<usize>,
    body: impl FnOnce() -> PyResult<R> + Send,
) -> PyResult<R> {
    py.detach(|| match n_threads {
        Some(threads) => parallel::with_threads(threads, || Ok(body()))?,
        None => body(),
    })
}

/// What `fit` is told besides its data.
struct Options<'py> {
    batch_size: usize,
    max_epochs: usize,
    shuffle: bool,
    bucket_by_length: bool,
    seed: u64,
    n_threads: Option<usize>,
    on_batch: Option<Bound<'py, PyAny>>,
    on_epoch: Option<Bound<'py, PyAny>>,
}

fn logs<'py>(
    py: Python<'py>,
    number: usize,
    epoch: &Epoch,
    validation: Option<(f64, f64)>,
) -> PyResult<Bound<'py, PyDict>> {
    let logs = PyDict::new(py);
    logs.set_item("epoch", number)?;
    logs.set_item("loss", epoch.loss)?;
    logs.set_item("metric", epoch.metric)?;
    logs.set_item("grad_norm", epoch.grad_norm)?;
    logs.set_item("seconds", epoch.time.as_secs_f64())?;
    if let Some((loss, metric)) = validation {
        logs.set_item("val_loss", loss)?;
        logs.set_item("val_metric", metric)?;
    }
    Ok(logs)
}

fn fit<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Network<E>>,
    config: &NetworkConfig,
    train: &Labelled<'py>,
    validation: Option<&Labelled<'py>>,
    optimizer: &PyOptimizer,
    options: &Options<'py>,
) -> PyResult<&'static str> {
    let train = Examples::<E>::borrow(config, train)?;
    let validation = validation
        .map(|labelled| Examples::<E>::borrow(config, labelled))
        .transpose()?;
    let training = |examples, plan| {
        Examples::training(
            examples,
            py,
            model,
            config,
            options.batch_size,
            plan,
            options.seed,
        )
    };
    let train = training(&train, (options.shuffle, options.bucket_by_length))?;
    let validation = validation
        .as_ref()
        .map(|examples| training(examples, (false, true)))
        .transpose()?;
    let on_batch = options.on_batch.as_ref().map(|call| call.clone().unbind());
    for number in 1..=options.max_epochs {
        let mut ticker = Ticker::start();
        let settings = optimizer.settings();
        let result = detached(py, options.n_threads, || {
            let mut model = model.write()?;
            let mut states = optimizer.states()?;
            let state = E::state_of(&mut states, model.id());
            let epoch = train.epoch(&mut model, &settings, state, number, |progress| {
                ticker.tick(|py| {
                    if let Some(call) = &on_batch {
                        call.call1(py, (number, progress.done, progress.batches, progress.loss))?;
                    }
                    Ok(())
                })
            })?;
            Ok(epoch)
        });
        let epoch = match result {
            Ok(epoch) => epoch,
            Err(error) => return interrupted(py, error),
        };
        let mut scores = None;
        if let Some(validation) = &validation {
            match evaluate(py, model, validation, options.n_threads) {
                Ok(found) => scores = Some(found),
                Err(error) => return interrupted(py, error),
            }
        }
        let called = py.check_signals().and_then(|()| match &options.on_epoch {
            Some(call) => call
                .call1((logs(py, number, &epoch, scores)?,))?
                .is_truthy(),
            None => Ok(false),
        });
        match called {
            Ok(false) => {}
            Ok(true) => return Ok("stopped"),
            Err(error) => return interrupted(py, error),
        }
    }
    Ok("finished")
}

/// Looks at signals about every [`TICK`], from a thread that has let go of the interpreter.
struct Ticker(Instant);

impl Ticker {
    fn start() -> Self {
        Ticker(Instant::now())
    }

    fn tick(&mut self, then: impl FnOnce(Python<'_>) -> PyResult<()>) -> PyResult<()> {
        if self.0.elapsed() < TICK {
            return Ok(());
        }
        self.0 = Instant::now();
        Python::attach(|py| {
            py.check_signals()?;
            then(py)
        })
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

fn evaluate<E: Held>(
    py: Python<'_>,
    model: &Guarded<Network<E>>,
    training: &Training<'_, E>,
    n_threads: Option<usize>,
) -> PyResult<(f64, f64)> {
    let mut ticker = Ticker::start();
    detached(py, n_threads, || {
        training.evaluate(&*model.read()?, || ticker.tick(|_| Ok(())))
    })
}

/// Ctrl-C ends training and keeps the model; any other exception passes.
fn interrupted(py: Python<'_>, error: PyErr) -> PyResult<&'static str> {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) {
        Ok("interrupted")
    } else {
        Err(error)
    }
}

fn predict<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Network<E>>,
    config: &NetworkConfig,
    data: [&Bound<'py, PyAny>; 3],
    batch_size: usize,
    n_threads: Option<usize>,
) -> PyResult<Bound<'py, PyAny>> {
    let data = Data::<E>::borrow(config.input, data[0], data[1], data[2])?;
    let sequences = data.sequences(config)?;
    let mut ticker = Ticker::start();
    let outputs = detached(py, n_threads, || {
        let model = model.read()?;
        Ok(model.predict(&sequences, batch_size, || ticker.tick(|_| Ok(())))?)
    })?;
    let rows = outputs.len() / config.n_outputs;
    let outputs = PyArray::from_vec(py, outputs);
    Ok(numpy::PyArrayMethods::reshape(&outputs, [rows, config.n_outputs])?.into_any())
}

#[pymethods]
impl PyNetwork {
    #[new]
    #[pyo3(signature = (cell, input, input_size, hidden_size, num_layers, bias, dropout,
        bidirectional, output, n_outputs, loss, dtype, *, vocabulary_size=None))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        cell: &str,
        input: &str,
        input_size: usize,
        hidden_size: usize,
        num_layers: usize,
        bias: bool,
        dropout: f64,
        bidirectional: bool,
        output: &str,
        n_outputs: usize,
        loss: &str,
        dtype: &str,
        vocabulary_size: Option<usize>,
    ) -> PyResult<Self> {
        let vocabulary = || {
            let missing = || Error::value("vocabulary_size", "an integer >= 1", "None");
            vocabulary_size.ok_or_else(missing)
        };
        let kinds = [("dense", 0), ("embedding", 1), ("one-hot", 2)];
        let (input, input_size) = match choose("input", input, &kinds)? {
            0 => (Input::Dense, input_size),
            1 => {
                let vocabulary = vocabulary()?;
                (Input::Embedding { vocabulary }, input_size)
            }
            _ => (Input::OneHot, vocabulary()?),
        };
        let outputs = [("last", Output::Last), ("sequence", Output::Sequence)];
        let losses = [
            ("cross_entropy", Loss::CrossEntropy),
            ("binary_cross_entropy", Loss::BinaryCrossEntropy),
            ("squared_error", Loss::SquaredError),
            ("absolute_error", Loss::AbsoluteError),
            ("huber", Loss::Huber { delta: 1.0 }),
        ];
        let config = NetworkConfig {
            stack: Config {
                cell: CellKind::by_name(cell)?,
                input_size,
                hidden_sizes: uniform_sizes(hidden_size, num_layers)?,
                bias,
                bidirectional,
                dropout,
                locked_dropout: false,
            },
            input,
            output: choose("output", output, &outputs)?,
            n_outputs,
            loss: choose("loss", loss, &losses)?,
        };
        let single = choose("dtype", dtype, &[("float32", true), ("float64", false)])?;
        let inner = if single {
            Either::F32(Guarded::new(NAME, Network::new(config.clone())?))
        } else {
            Either::F64(Guarded::new(NAME, Network::new(config.clone())?))
        };
        Ok(PyNetwork { inner, config })
    }

    fn parameter_shapes<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<(String, Bound<'py, PyTuple>)>> {
        let layout = py.detach(
            || dispatch!(self.inner, model => model.read().map(|model| model.layout().clone())),
        )?;
        shapes(py, &layout)
    }

    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dispatch!(self.inner, model => {
            let (layout, weights) = py.detach(|| {
                let model = model.read()?;
                crate::Result::Ok((model.layout().clone(), model.weights().to_vec()))
            })?;
            to_dict(py, &layout, weights)
        })
    }

    fn set_parameters(&self, py: Python<'_>, parameters: &Bound<'_, PyDict>) -> PyResult<()> {
        dispatch!(self.inner, model => {
            let layout = py.detach(|| model.read().map(|model| model.layout().clone()))?;
            let values = from_dict("parameters", &layout, parameters)?;
            py.detach(|| {
                model.write()?.update(|weights| {
                    weights.copy_from_slice(&values);
                    Ok(())
                })
            })?;
            Ok(())
        })
    }

    #[pyo3(signature = (values, starts, lengths, targets, optimizer, *, batch_size, max_epochs,
        shuffle, bucket_by_length, seed, n_threads=None, validation=None, on_batch=None,
        on_epoch=None))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn fit<'py>(
        &self,
        py: Python<'py>,
        values: Bound<'py, PyAny>,
        starts: Bound<'py, PyAny>,
        lengths: Bound<'py, PyAny>,
        targets: Bound<'py, PyAny>,
        optimizer: &Bound<'py, PyOptimizer>,
        batch_size: usize,
        max_epochs: usize,
        shuffle: bool,
        bucket_by_length: bool,
        seed: u64,
        n_threads: Option<usize>,
        validation: Option<Labelled<'py>>,
        on_batch: Option<Bound<'py, PyAny>>,
        on_epoch: Option<Bound<'py, PyAny>>,
    ) -> PyResult<&'static str> {
        let options = Options {
            batch_size,
            max_epochs,
            shuffle,
            bucket_by_length,
            seed,
            n_threads,
            on_batch,
            on_epoch,
        };
        let train = (values, starts, lengths, targets);
        let (validation, optimizer) = (validation.as_ref(), optimizer.get());
        dispatch!(self.inner, model => {
            fit(py, model, &self.config, &train, validation, optimizer, &options)
        })
    }

    #[pyo3(signature = (values, starts, lengths, batch_size, n_threads=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        values: &Bound<'py, PyAny>,
        starts: &Bound<'py, PyAny>,
        lengths: &Bound<'py, PyAny>,
        batch_size: usize,
        n_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let data = [values, starts, lengths];
        dispatch!(self.inner, model => predict(py, model, &self.config, data, batch_size, n_threads))
    }
}
