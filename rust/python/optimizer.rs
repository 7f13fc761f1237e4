//! `Optimizer`: settings, and what it remembers about each model that it has updated.

use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use ndarray::Ix1;
use numpy::{PyArray1, PyReadonlyArray};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::arrays::{Held, borrow, choose, entry};
use super::either::{Either, dispatch};
use super::network::PyNetwork;
use super::stack::PyStack;
use crate::error::Error;
use crate::guarded::{Guarded, Writing};
use crate::identity::{Identity, Remembrance};
use crate::network::Network;
use crate::optim::{Optimizer, Rule, State};
use crate::recurrent::Recurrent;
use crate::simd::Real;

/// What an optimizer remembers.
#[derive(Default)]
pub(super) struct States {
    pub f32: Remembered<f32>,
    pub f64: Remembered<f64>,
}

/// What an optimizer remembers of the models of one scalar that it has updated.
#[derive(Default)]
pub(super) struct Remembered<E>(Vec<(Remembrance, State<E>)>);

impl<E: Real> Remembered<E> {
    /// What it remembers of a model; of one that is gone, nothing for long.
    pub fn of(&mut self, model: &Identity) -> &mut State<E> {
        let place = self.0.iter().position(|(known, _)| known.is_of(model));
        let place = place.unwrap_or_else(|| {
            self.0.retain(|(known, _)| known.is_alive());
            self.0.push((model.remember(), State::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }
}

/// An optimizer.
#[pyclass(name = "Optimizer", module = "rnncore._core", frozen, subclass)]
pub(super) struct PyOptimizer {
    settings: Mutex<Optimizer>,
    states: Guarded<States>,
}

impl PyOptimizer {
    /// The settings as they are now.
    pub fn settings(&self) -> Optimizer {
        let settings = self.settings.lock();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it remembers. To be taken without the interpreter, as training holds it for long.
    ///
    /// # Errors
    /// [`Error::Busy`](crate::Error::Busy) if this thread is training with it.
    pub fn states(&self) -> crate::Result<Writing<'_, States>> {
        self.states.write()
    }
}

/// A model that an optimizer updates, as far as it knows it.
struct Known<E> {
    id: Identity,
    /// Weights that an update changes.
    size: usize,
    of: PhantomData<E>,
}

impl<E: Held> Known<E> {
    fn new(id: &Identity, size: usize) -> Self {
        Known {
            id: id.clone(),
            size,
            of: PhantomData,
        }
    }

    fn of_network(network: &Guarded<Network<E>>) -> crate::Result<Self> {
        let network = network.read()?;
        Ok(Self::new(network.id(), network.trained().len()))
    }

    fn of_stack(stack: &Guarded<Recurrent<E>>) -> crate::Result<Self> {
        let stack = stack.read()?;
        Ok(Self::new(stack.id(), stack.layout().size()))
    }
}

impl Either<Known<f32>, Known<f64>> {
    fn of(model: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = model.py();
        if let Ok(network) = model.cast::<PyNetwork>() {
            let network = network.get();
            return Ok(py.detach(|| match &network.inner {
                Either::F32(network) => Known::of_network(network).map(Either::F32),
                Either::F64(network) => Known::of_network(network).map(Either::F64),
            })?);
        }
        if let Ok(stack) = model.cast::<PyStack>() {
            let stack = stack.get();
            return Ok(py.detach(|| match &stack.inner {
                Either::F32(stack) => Known::of_stack(stack).map(Either::F32),
                Either::F64(stack) => Known::of_stack(stack).map(Either::F64),
            })?);
        }
        let message = format!(
            "model: expected a Network or a Stack, got {}",
            model.get_type()
        );
        Err(PyTypeError::new_err(message))
    }
}

impl PyOptimizer {
    fn state_of<'py, E: Held>(
        &self,
        py: Python<'py>,
        model: &Known<E>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let (steps, buffers) = py.detach(|| {
            let mut states = self.states()?;
            let (steps, buffers) = E::state_of(&mut states, &model.id).to_parts();
            crate::Result::Ok((steps, buffers.to_vec()))
        })?;
        if steps == 0 {
            return Ok(None);
        }
        let state = PyDict::new(py);
        state.set_item("steps", steps)?;
        let buffers = buffers.into_iter().map(|b| PyArray1::from_vec(py, b));
        state.set_item("buffers", PyList::new(py, buffers.collect::<Vec<_>>())?)?;
        Ok(Some(state))
    }

    fn set_state_of<E: Held>(
        &self,
        py: Python<'_>,
        model: &Known<E>,
        state: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        let state = match state {
            None => State::default(),
            Some(state) => {
                let steps = entry("state", state, "steps")?;
                let steps: u64 = steps
                    .extract()
                    .ok()
                    .filter(|&steps| steps > 0)
                    .ok_or_else(|| Error::value("state[\"steps\"]", "an integer >= 1", steps))?;
                let mut buffers = Vec::new();
                for (number, buffer) in entry("state", state, "buffers")?.try_iter()?.enumerate() {
                    let name = format!("state[\"buffers\"][{number}]");
                    let buffer: PyReadonlyArray<E, Ix1> = borrow(&name, &buffer?)?;
                    buffers.push(buffer.as_array().to_vec());
                }
                State::from_parts(self.settings().rule, model.size, steps, buffers)?
            }
        };
        py.detach(|| {
            *E::state_of(&mut *self.states()?, &model.id) = state;
            Ok::<_, Error>(())
        })?;
        Ok(())
    }
}

#[pymethods]
impl PyOptimizer {
    #[new]
    #[pyo3(signature = (rule, learning_rate, momentum=0.0, dampening=0.0, nesterov=false,
        beta1=0.9, beta2=0.999, eps=1e-8, alpha=0.99, centered=false, lr_decay=0.0,
        initial_accumulator=0.0, weight_decay=0.0, l1=0.0, clip_norm=None, clip_value=None))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        rule: &str,
        learning_rate: f64,
        momentum: f64,
        dampening: f64,
        nesterov: bool,
        beta1: f64,
        beta2: f64,
        eps: f64,
        alpha: f64,
        centered: bool,
        lr_decay: f64,
        initial_accumulator: f64,
        weight_decay: f64,
        l1: f64,
        clip_norm: Option<f64>,
        clip_value: Option<f64>,
    ) -> PyResult<Self> {
        let sgd = Rule::Sgd {
            momentum,
            dampening,
            nesterov,
        };
        let rmsprop = Rule::RmsProp {
            alpha,
            eps,
            centered,
            momentum,
        };
        let adagrad = Rule::Adagrad {
            lr_decay,
            initial_accumulator,
            eps,
        };
        let rules = [
            ("sgd", sgd),
            ("adam", Rule::Adam { beta1, beta2, eps }),
            ("adamw", Rule::AdamW { beta1, beta2, eps }),
            ("rmsprop", rmsprop),
            ("adagrad", adagrad),
        ];
        let settings = Optimizer {
            rule: choose("rule", rule, &rules)?,
            learning_rate,
            weight_decay,
            l1,
            clip_norm,
            clip_value,
        };
        settings.validate()?;
        Ok(PyOptimizer {
            settings: Mutex::new(settings),
            states: Guarded::new("the optimizer", States::default()),
        })
    }

    #[getter]
    fn learning_rate(&self) -> f64 {
        self.settings().learning_rate
    }

    #[setter]
    fn set_learning_rate(&self, learning_rate: f64) -> PyResult<()> {
        let mut settings = self.settings();
        settings.learning_rate = learning_rate;
        settings.validate()?;
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
        Ok(())
    }

    /// What it remembers of a model: `{"steps": int, "buffers": [array, ...]}`, or None.
    fn state<'py>(
        &self,
        py: Python<'py>,
        model: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        dispatch!(Either::of(model)?, model => self.state_of(py, model))
    }

    /// Makes it remember that of a model, or nothing.
    fn set_state(
        &self,
        py: Python<'_>,
        model: &Bound<'_, PyAny>,
        state: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<()> {
        dispatch!(Either::of(model)?, model => self.set_state_of(py, model, state))
    }
}
