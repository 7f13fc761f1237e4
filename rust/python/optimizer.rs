//! `Optimizer`: settings, and what it remembers about each model that it has updated.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::prelude::*;

use super::arrays::choose;
use crate::optim::{Optimizer, Rule, State};

/// What an optimizer remembers, by the number of the model.
#[derive(Default)]
pub(super) struct States {
    pub f32: HashMap<u64, State<f32>>,
    pub f64: HashMap<u64, State<f64>>,
}

/// An optimizer.
#[pyclass(name = "Optimizer", module = "rnncore._core", frozen, subclass)]
pub(super) struct PyOptimizer {
    settings: Mutex<Optimizer>,
    states: Mutex<States>,
}

impl PyOptimizer {
    /// The settings as they are now.
    pub fn settings(&self) -> Optimizer {
        let settings = self.settings.lock();
        settings.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What it remembers. To be taken without the interpreter, as training holds it for long.
    pub fn states(&self) -> MutexGuard<'_, States> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl PyOptimizer {
    #[new]
    #[pyo3(signature = (rule, learning_rate, momentum=0.0, dampening=0.0, nesterov=false,
        beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0, clip_norm=None, clip_value=None))]
    #[allow(clippy::too_many_arguments)]
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
            states: Mutex::default(),
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
