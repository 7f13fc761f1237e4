//! `Network`: a whole model for Python.

use numpy::{PyArray, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arrays::{Held, choose, from_dict, shapes, to_dict};
use super::data::PyExamples;
use super::either::{Either, dispatch};
use super::epoch::{self, EpochCall};
use super::optimizer::PyOptimizer;
use super::stream::PyStream;
use super::ticker::{Ticker, detached};
use crate::cell::CellKind;
use crate::error::{Error, Stopped};
use crate::guarded::Guarded;
use crate::loss::Loss;
use crate::network::{Examples, Input, Network, NetworkConfig, Output};
use crate::stack::Config;
use crate::train::{Bptt, EpochOptions};

/// How errors name a network.
const NAME: &str = "the network";

/// What a network's output may be, and the pooling of features.
const OUTPUTS: [(&str, Output); 4] = [
    ("last", Output::Last),
    ("mean", Output::Mean),
    ("max", Output::Max),
    ("sequence", Output::Sequence),
];

/// A network with its weights.
#[pyclass(name = "Network", module = "rnncore._core", frozen)]
pub(super) struct PyNetwork {
    pub inner: Either<Guarded<Network<f32>>, Guarded<Network<f64>>>,
    pub config: NetworkConfig,
}

/// Numbers as an array of `width` columns.
pub(super) fn table<E: Held>(
    py: Python<'_>,
    numbers: Vec<E>,
    width: usize,
) -> PyResult<Bound<'_, PyAny>> {
    let rows = numbers.len() / width.max(1);
    Ok(PyArray::from_vec(py, numbers)
        .reshape([rows, width])?
        .into_any())
}

#[pymethods]
impl PyNetwork {
    #[new]
    #[pyo3(signature = (cell, input, input_size, hidden_sizes, bidirectional, output, n_outputs,
        loss, dtype, *, vocabulary_size=None, masked_id=None, freeze_embedding=false,
        tie_embedding=false, learn_initial_state=false, dropout=0.0, input_dropout=0.0,
        output_dropout=0.0, locked_dropout=false, huber_delta=1.0))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        cell: &str,
        input: &str,
        input_size: usize,
        hidden_sizes: Vec<usize>,
        bidirectional: bool,
        output: &str,
        n_outputs: usize,
        loss: &str,
        dtype: &str,
        vocabulary_size: Option<usize>,
        masked_id: Option<usize>,
        freeze_embedding: bool,
        tie_embedding: bool,
        learn_initial_state: bool,
        dropout: f64,
        input_dropout: f64,
        output_dropout: f64,
        locked_dropout: bool,
        huber_delta: f64,
    ) -> PyResult<Self> {
        let vocabulary = || {
            let missing = || Error::value("vocabulary_size", "an integer >= 1", "None");
            vocabulary_size.ok_or_else(missing)
        };
        let kinds = [("dense", 0), ("embedding", 1), ("one-hot", 2)];
        let (input, input_size) = match choose("input", input, &kinds)? {
            0 => (Input::Dense, input_size),
            1 => {
                let input = Input::Embedding {
                    vocabulary: vocabulary()?,
                    masked: masked_id,
                    frozen: freeze_embedding,
                    tied: tie_embedding,
                };
                (input, input_size)
            }
            _ => (Input::OneHot, vocabulary()?),
        };
        if !matches!(input, Input::Embedding { .. }) {
            for (name, given) in [
                ("masked_id", masked_id.map(|id| id.to_string())),
                ("freeze_embedding", freeze_embedding.then(|| "True".into())),
                ("tie_embedding", tie_embedding.then(|| "True".into())),
            ] {
                if let Some(given) = given {
                    let expected = "nothing where there is no embedding";
                    return Err(Error::value(name, expected, given).into());
                }
            }
        }
        let losses = [
            ("cross_entropy", Loss::CrossEntropy),
            ("binary_cross_entropy", Loss::BinaryCrossEntropy),
            ("squared_error", Loss::SquaredError),
            ("absolute_error", Loss::AbsoluteError),
            ("huber", Loss::Huber { delta: huber_delta }),
        ];
        let config = NetworkConfig {
            stack: Config {
                cell: CellKind::by_name(cell)?,
                input_size,
                hidden_sizes,
                bias: true,
                bidirectional,
                dropout,
                locked_dropout,
                proj_size: 0,
            },
            input,
            output: choose("output", output, &OUTPUTS)?,
            n_outputs,
            loss: choose("loss", loss, &losses)?,
            learn_initial_state,
            input_dropout,
            output_dropout,
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
            to_dict(py, &layout, &PyArray::from_vec(py, weights))
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

    #[pyo3(signature = (examples, optimizer, *, epoch, batch_size, shuffle, bucket_by_length, seed,
        bptt_steps=None, bptt_window=None, checkpoint_time=false, accumulate_batches=1, rates=None,
        n_threads=None, on_batch=None, position=None, pause_after=None))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn train_epoch<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyExamples>,
        optimizer: &Bound<'py, PyOptimizer>,
        epoch: u64,
        batch_size: usize,
        shuffle: bool,
        bucket_by_length: bool,
        seed: u64,
        bptt_steps: Option<usize>,
        bptt_window: Option<usize>,
        checkpoint_time: bool,
        accumulate_batches: usize,
        rates: Option<(f64, f64)>,
        n_threads: Option<usize>,
        on_batch: Option<Py<PyAny>>,
        position: Option<Bound<'py, PyDict>>,
        pause_after: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let options = EpochOptions {
            number: epoch,
            batch_size,
            shuffle,
            bucket_by_length,
            seed,
            bptt: Bptt::new(bptt_steps, bptt_window)?,
            checkpoint_time,
            accumulate_batches,
            rates,
        };
        let call = EpochCall {
            examples: examples.get(),
            optimizer: optimizer.get(),
            options,
            position,
            pause_after,
            on_batch,
            n_threads,
        };
        dispatch!(self.inner, model => epoch::train(py, model, &self.config, call))
    }

    #[pyo3(signature = (examples, *, batch_size, n_threads=None))]
    fn evaluate(
        &self,
        py: Python<'_>,
        examples: &Bound<'_, PyExamples>,
        batch_size: usize,
        n_threads: Option<usize>,
    ) -> PyResult<(f64, f64)> {
        let call = (examples.get(), n_threads);
        dispatch!(self.inner, model => self.with(py, model, call, |model, examples, signals| {
            model.evaluate(examples, batch_size, signals)
        }))
    }

    #[pyo3(signature = (examples, *, batch_size, n_threads=None))]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyExamples>,
        batch_size: usize,
        n_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = (examples.get(), n_threads);
        dispatch!(self.inner, model => {
            let outputs = self.with(py, model, call, |model, examples, signals| {
                model.predict(&examples.sequences, batch_size, signals)
            })?;
            table(py, outputs, self.config.n_outputs)
        })
    }

    #[pyo3(signature = (examples, *, batch_size, n_threads=None))]
    fn choose<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyExamples>,
        batch_size: usize,
        n_threads: Option<usize>,
    ) -> PyResult<(Bound<'py, PyAny>, bool)> {
        let call = (examples.get(), n_threads);
        let (places, are_finite) = dispatch!(self.inner, model => {
            self.with(py, model, call, |model, examples, signals| {
                model.choose(&examples.sequences, batch_size, signals)
            })
        })?;
        Ok((PyArray::from_vec(py, places).into_any(), are_finite))
    }

    #[pyo3(signature = (examples, *, output, batch_size, layer=-1, n_threads=None))]
    fn features<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyExamples>,
        output: &str,
        batch_size: usize,
        layer: isize,
        n_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (layer, output) = (self.layer(layer)?, choose("output", output, &OUTPUTS)?);
        let width = self.config.stack.hidden_sizes[layer] * self.config.stack.directions();
        let call = (examples.get(), n_threads);
        dispatch!(self.inner, model => {
            let rows = self.with(py, model, call, |model, examples, signals| {
                model.features(&examples.sequences, batch_size, layer, output, signals)
            })?;
            table(py, rows, width)
        })
    }

    #[pyo3(signature = (examples, *, layer, n_threads=None))]
    fn gradient_flow<'py>(
        &self,
        py: Python<'py>,
        examples: &Bound<'py, PyExamples>,
        layer: isize,
        n_threads: Option<usize>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (layer, call) = (self.layer(layer)?, (examples.get(), n_threads));
        dispatch!(self.inner, model => {
            let norms = self.with(py, model, call, |model, examples, signals| {
                model.gradient_flow(examples, layer, signals)
            })?;
            Ok(PyArray::from_vec(py, norms).into_any())
        })
    }

    #[pyo3(signature = (batch_size, *, flat=false))]
    fn stream(slf: &Bound<'_, Self>, batch_size: usize, flat: bool) -> PyResult<PyStream> {
        PyStream::new(slf.py(), slf.clone().unbind(), batch_size, flat)
    }
}

/// Lets the interpreter look at signals; to be called often.
type Signals<'a> = &'a mut dyn FnMut() -> PyResult<()>;

impl PyNetwork {
    /// What `work` makes of some examples, without the interpreter and while nobody trains.
    fn with<E: Held, R: Send>(
        &self,
        py: Python<'_>,
        model: &Guarded<Network<E>>,
        (examples, n_threads): (&PyExamples, Option<usize>),
        work: impl FnOnce(&Network<E>, &Examples<E>, Signals) -> Result<R, Stopped<PyErr>> + Send,
    ) -> PyResult<R> {
        let borrowed = examples.borrow::<E>(py)?;
        let examples = borrowed.examples(&self.config)?;
        let mut ticker = Ticker::start();
        detached(py, n_threads, || {
            let model = model.read()?;
            Ok(work(&model, &examples, &mut || ticker.signals())?)
        })
    }

    /// The layer of a number, which may count from the last one as -1.
    fn layer(&self, layer: isize) -> crate::Result<usize> {
        let layers = self.config.stack.num_layers() as isize;
        let counted = if layer < 0 { layer + layers } else { layer };
        if (0..layers).contains(&counted) {
            return Ok(counted as usize);
        }
        let expected = format!("an integer in {}..{layers}", -layers);
        Err(Error::value("layer", expected, layer))
    }
}
