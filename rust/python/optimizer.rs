//! `Optimizer`: settings, and what it remembers about each model that it has updated.

use std::sync::{Mutex, PoisonError};

use pyo3::prelude::*;

use super::arrays::choose;
use super::guarded::{Guarded, Writing};
use crate::identity::{Identity, Remembrance};
use crate::optim::{Optimizer, Rule, State};
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

#[pymethods]
impl PyOptimizer {
    #[new]
    #[pyo3(signature = (rule, learning_rate, momentum=0.0, dampening=0.0, nesterov=false,
        beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, clip_norm=None, clip_value=None))]
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
        weight_decay: f64,
        clip_norm: Option<f64>,
        clip_value: Option<f64>,
    ) -> PyResult<Self> {
        let sgd = Rule::Sgd {
            momentum,
            dampening,
            nesterov,
        };
        let adam = Rule::Adam { beta1, beta2, eps };
        let rule = choose("rule", rule, &[("sgd", sgd), ("adam", adam)])?;
        let settings = Optimizer::new(rule, learning_rate, weight_decay, clip_norm, clip_value)?;
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
}
