//! `Stream`: sequences that come step by step.

use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayView, Dimension, Ix1, Ix2, IxDyn};
use numpy::{PyArray, PyArrayMethods, PyReadonlyArray, PyUntypedArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Held, borrow, entry, misfit};
use super::data::indexes;
use super::either::Either;
use super::network::{PyNetwork, table};
use crate::data::Values;
use crate::error::Error;
use crate::guarded::Guarded;
use crate::network::{Network, NetworkConfig};
use crate::stream::Stream;

/// Where some sequences stand between two steps of a network.
#[pyclass(name = "Stream", module = "rnncore._core", frozen)]
pub(super) struct PyStream {
    network: Py<PyNetwork>,
    /// Whether outputs come as (B * n_outputs,) instead of (B, n_outputs).
    flat: bool,
    inner: Either<Mutex<Stream<f32>>, Mutex<Stream<f64>>>,
}

/// Waits for other threads' steps; to be called without the interpreter, and with the network at
/// hand already: who trains it and asks for the stream must not wait for one that waits for it.
fn locked<T>(stream: &Mutex<T>) -> MutexGuard<'_, T> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Evaluates a generic expression with the network and the stream, which are of one scalar.
macro_rules! both {
    ($self:expr, ($network:ident, $stream:ident) => $body:expr) => {
        match (&$self.network.get().inner, &$self.inner) {
            (Either::F32($network), Either::F32($stream)) => $body,
            (Either::F64($network), Either::F64($stream)) => $body,
            _ => unreachable!("a stream is of its network's scalar"),
        }
    };
}

impl PyStream {
    pub fn new(
        py: Python<'_>,
        network: Py<PyNetwork>,
        batch_size: usize,
        flat: bool,
    ) -> PyResult<Self> {
        let inner = py.detach(|| {
            crate::Result::Ok(match &network.get().inner {
                Either::F32(model) => {
                    Either::F32(Mutex::new(Stream::new(&*model.read()?, batch_size)?))
                }
                Either::F64(model) => {
                    Either::F64(Mutex::new(Stream::new(&*model.read()?, batch_size)?))
                }
            })
        })?;
        Ok(PyStream {
            network,
            flat,
            inner,
        })
    }
}

/// A copy of the numbers of `x`, row after row, and its shape. Of so few, a copy takes less than a
/// loan.
fn copied<T: numpy::Element, D: Dimension>(x: &Bound<'_, PyAny>) -> PyResult<(Vec<T>, D)> {
    let given = x.cast::<PyArray<T, D>>();
    let given = given.map_err(|_| misfit::<T, D>("x", x))?;
    if given.is_c_contiguous() && given.is_aligned() {
        return Ok((given.to_vec()?, given.dims()));
    }
    let plain = given.call_method0("copy")?;
    Ok((plain.cast::<PyArray<T, D>>()?.to_vec()?, given.dims()))
}

fn step<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Network<E>>,
    stream: &Mutex<Stream<E>>,
    config: &NetworkConfig,
    x: &Bound<'py, PyAny>,
    flat: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let take = |values: Values<E>| {
        let outputs = py.detach(|| {
            let model = model.read()?;
            let mut stream = locked(stream);
            let mut outputs = vec![E::ZERO; stream.batch_size() * config.n_outputs];
            stream.step(&model, values, &mut outputs)?;
            crate::Result::Ok(outputs)
        })?;
        if flat {
            return Ok(PyArray::from_slice(py, &outputs).into_any());
        }
        let shape = [outputs.len() / config.n_outputs, config.n_outputs];
        let outputs = ArrayView::from_shape(shape, &outputs).expect("rows of outputs");
        Ok(outputs.to_pyarray(py).into_any())
    };
    let Some(vocabulary) = config.vocabulary() else {
        let (rows, shape) = copied::<E, Ix2>(x)?;
        let width = shape[1];
        if let Some(at) = rows.iter().position(|x| !x.is_finite()) {
            let actual = format!("{} in row {}", rows[at], at / width);
            return Err(Error::value("x", "finite numbers", actual.to_lowercase()).into());
        }
        return take(Values::Dense { rows: &rows, width });
    };
    let (ids, shape) = copied::<i64, IxDyn>(x)?;
    let width = match *shape.slice() {
        [_] => 1,
        [_, width] => width,
        _ => {
            let actual = format!("{} dimensions", shape.ndim());
            return Err(Error::shape("x", "(B,) or (B, k)", actual).into());
        }
    };
    take(Values::Ids {
        ids: &ids,
        width,
        vocabulary,
    })
}

/// The names of the states, in order.
fn names(config: &NetworkConfig, state: &str) -> Vec<String> {
    let layers = 0..config.stack.num_layers();
    layers.map(|layer| format!("{state}_l{layer}")).collect()
}

fn get_state<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Network<E>>,
    stream: &Mutex<Stream<E>>,
    config: &NetworkConfig,
) -> PyResult<Bound<'py, PyDict>> {
    let state = py.detach(|| {
        let model = model.read()?;
        crate::Result::Ok(locked(stream).state(&model))
    })?;
    let dict = PyDict::new(py);
    for (name, part) in [("h", state.hidden), ("c", state.memory)] {
        let sizes = config.stack.hidden_sizes.iter();
        for ((name, rows), &size) in names(config, name).iter().zip(part).zip(sizes) {
            dict.set_item(name, table(py, rows, size)?)?;
        }
    }
    if !state.steps.is_empty() {
        let width = state.pooled.len() / state.steps.len();
        dict.set_item("pooled", table(py, state.pooled, width)?)?;
        let steps: Vec<i64> = state.steps.iter().map(|&steps| steps as i64).collect();
        dict.set_item("steps", PyArray::from_vec(py, steps))?;
    }
    Ok(dict)
}

fn set_state<E: Held>(
    py: Python<'_>,
    model: &Guarded<Network<E>>,
    stream: &Mutex<Stream<E>>,
    dict: &Bound<'_, PyDict>,
) -> PyResult<()> {
    // What there is says which arrays are expected, and of which shapes.
    let (mut state, batch) = py.detach(|| {
        let model = model.read()?;
        let stream = locked(stream);
        crate::Result::Ok((stream.state(&model), stream.batch_size()))
    })?;
    let item = |name: &str| entry("state", dict, name);
    fn numbers<T: numpy::Element + Copy>(
        name: &str,
        array: &Bound<'_, PyAny>,
        batch: usize,
        to: &mut [T],
    ) -> PyResult<()> {
        let name = format!("state[{name:?}]");
        let array: PyReadonlyArray<T, Ix2> = borrow(&name, array)?;
        let expected = [batch, to.len() / batch];
        if array.shape() != expected {
            let (expected, actual) = (format!("{expected:?}"), format!("{:?}", array.shape()));
            return Err(Error::shape(name, expected, actual).into());
        }
        for (to, &from) in to.iter_mut().zip(array.as_array().iter()) {
            *to = from;
        }
        Ok(())
    }
    let mut known = 0;
    for (name, part) in [("h", &mut state.hidden), ("c", &mut state.memory)] {
        for (layer, to) in part.iter_mut().enumerate() {
            let name = format!("{name}_l{layer}");
            numbers(&name, &item(&name)?, batch, to)?;
            known += 1;
        }
    }
    if !state.steps.is_empty() {
        numbers("pooled", &item("pooled")?, batch, &mut state.pooled)?;
        let name = "state[\"steps\"]";
        let steps: PyReadonlyArray<i64, Ix1> = borrow(name, &item("steps")?)?;
        let steps: Vec<i64> = steps.as_array().to_vec();
        let checked: Option<Vec<usize>> = steps
            .iter()
            .map(|&steps| usize::try_from(steps).ok())
            .collect();
        match checked.filter(|steps| steps.len() == batch) {
            Some(checked) => state.steps = checked,
            None => {
                let expected = format!("{batch} integers >= 0");
                return Err(Error::value(name, expected, format!("{steps:?}")).into());
            }
        }
        known += 2;
    }
    if dict.len() != known {
        let expected = format!("{known} arrays, as `state` gives them");
        return Err(Error::value("state", expected, dict.len()).into());
    }
    Ok(py.detach(|| {
        let model = model.read()?;
        locked(stream).set_state(&model, &state);
        crate::Result::Ok(())
    })?)
}

#[pymethods]
impl PyStream {
    fn step<'py>(&self, py: Python<'py>, x: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let config = &self.network.get().config;
        both!(self, (model, stream) => step(py, model, stream, config, x, self.flat))
    }

    fn features<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let config = &self.network.get().config;
        let width = config.stack.hidden_sizes.last().map_or(0, |&size| size);
        both!(self, (model, stream) => {
            let features = py.detach(|| {
                let model = model.read()?;
                crate::Result::Ok(locked(stream).features(&model))
            })?;
            table(py, features, width)
        })
    }

    fn state<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let config = &self.network.get().config;
        both!(self, (model, stream) => get_state(py, model, stream, config))
    }

    fn set_state(&self, py: Python<'_>, state: &Bound<'_, PyDict>) -> PyResult<()> {
        both!(self, (model, stream) => set_state(py, model, stream, state))
    }

    #[pyo3(signature = (rows=None))]
    fn reset(&self, py: Python<'_>, rows: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let rows = rows.map(|rows| indexes("rows", rows)).transpose()?;
        both!(self, (model, stream) => {
            Ok(py.detach(|| {
                let model = model.read()?;
                locked(stream).reset(&model, rows.as_deref())
            })?)
        })
    }
}
