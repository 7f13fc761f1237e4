//! `Network.train_epoch`: an epoch without the interpreter.

use std::time::Instant;

use ndarray::Ix1;
use numpy::{PyArray, PyReadonlyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::arrays::{Held, borrow, entry};
use super::data::PyExamples;
use super::optimizer::PyOptimizer;
use super::ticker::{Ticker, detached};
use crate::error::Error;
use crate::guarded::Guarded;
use crate::network::{Network, NetworkConfig};
use crate::train::{Epoch, EpochOptions, Position, Run};

/// What an epoch is told.
pub(super) struct EpochCall<'a, 'py> {
    pub examples: &'a PyExamples,
    pub optimizer: &'a PyOptimizer,
    pub options: EpochOptions,
    pub position: Option<Bound<'py, PyDict>>,
    /// Seconds.
    pub pause_after: Option<f64>,
    pub on_batch: Option<Py<PyAny>>,
    pub n_threads: Option<usize>,
}

/// Trains for an epoch, or for a part of one.
pub(super) fn train<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Network<E>>,
    config: &NetworkConfig,
    call: EpochCall<'_, 'py>,
) -> PyResult<Bound<'py, PyDict>> {
    let EpochCall {
        options,
        position,
        pause_after,
        on_batch,
        ..
    } = call;
    if let Some(seconds) = pause_after.filter(|seconds| seconds.is_nan() || *seconds < 0.0) {
        return Err(Error::value("pause_after", "seconds >= 0", seconds).into());
    }
    let borrowed = call.examples.borrow::<E>(py)?;
    let examples = borrowed.examples(config)?;
    let settings = call.optimizer.settings();
    let position = position
        .map(|position| from_python(&position))
        .transpose()?;
    let (mut signals, mut shown) = (Ticker::start(), Ticker::start());
    let optimizer = call.optimizer;
    let (epoch, stopped) = detached(py, call.n_threads, || {
        // In this order: who waits for an optimizer in use keeps no model from whom uses it.
        let mut states = optimizer.states()?;
        let mut model = model.write()?;
        let state = E::state_of(&mut states, model.id());
        let mut run = Run::new(&model, examples, options)?;
        if let Some(position) = &position {
            run.resume(&model, position)?;
        }
        let start = Instant::now();
        let is_late = || pause_after.is_some_and(|most| start.elapsed().as_secs_f64() >= most);
        while !run.is_done() {
            run.update(&mut model, &settings, state, || signals.signals())?;
            if let Some(call) = &on_batch {
                shown.tick(|py| call.call1(py, (logs(py, &run)?,)).map(|_| ()))?;
            }
            if is_late() && !run.is_done() {
                return Ok((run.epoch(), Some(run.position(&model))));
            }
        }
        Ok((run.epoch(), None))
    })?;
    let dict = summary(py, &epoch)?;
    dict.set_item("grad_norm", epoch.grad_norm)?;
    dict.set_item("seconds", epoch.seconds)?;
    if let Some(position) = stopped {
        dict.set_item("position", to_python(py, position)?)?;
    }
    Ok(dict)
}

fn summary<'py>(py: Python<'py>, epoch: &Epoch) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("loss", epoch.loss)?;
    dict.set_item("metric", epoch.metric)?;
    dict.set_item("steps", epoch.steps)?;
    Ok(dict)
}

/// What `on_batch` hears.
fn logs<'py, E: Held>(py: Python<'py>, run: &Run<'_, E>) -> PyResult<Bound<'py, PyDict>> {
    let progress = run.progress();
    let dict = summary(py, &run.epoch())?;
    dict.set_item("done", progress.done)?;
    dict.set_item("total", progress.total)?;
    dict.set_item("rate", progress.rate)?;
    Ok(dict)
}

fn to_python<E: Held>(py: Python<'_>, position: Position<E>) -> PyResult<Bound<'_, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("group", position.group)?;
    dict.set_item("piece", position.piece)?;
    dict.set_item("updates", position.updates)?;
    dict.set_item("draws", position.draws)?;
    dict.set_item("score", PyArray::from_vec(py, position.score))?;
    dict.set_item("norms", position.norms)?;
    dict.set_item("steps", position.steps)?;
    dict.set_item("seconds", position.seconds)?;
    dict.set_item("states", PyArray::from_vec(py, position.states))?;
    Ok(dict)
}

fn from_python<E: Held>(dict: &Bound<'_, PyDict>) -> PyResult<Position<E>> {
    fn numbers<E: numpy::Element + Copy>(name: &str, array: &Bound<'_, PyAny>) -> PyResult<Vec<E>> {
        let array: PyReadonlyArray<E, Ix1> = borrow(&format!("position[{name:?}]"), array)?;
        Ok(array.as_array().to_vec())
    }
    fn number<'py, T: for<'a> FromPyObject<'a, 'py>>(
        dict: &Bound<'py, PyDict>,
        name: &str,
    ) -> PyResult<T> {
        let found = entry("position", dict, name)?;
        let misfit = |_| Error::value(format!("position[{name:?}]"), "a number >= 0", &found);
        Ok(found.extract().map_err(misfit)?)
    }
    Ok(Position {
        group: number(dict, "group")?,
        piece: number(dict, "piece")?,
        updates: number(dict, "updates")?,
        draws: number(dict, "draws")?,
        score: numbers("score", &entry("position", dict, "score")?)?,
        norms: number(dict, "norms")?,
        steps: number(dict, "steps")?,
        seconds: number(dict, "seconds")?,
        states: numbers("states", &entry("position", dict, "states")?)?,
    })
}
