//! Arrays of sequences and targets, as Python hands them over.
//!
//! Numbers are read where they lie, without the interpreter: who changes them meanwhile gets other
//! numbers. Identifiers, classes and places are indexes, so they are copied while the interpreter
//! is held, and what was checked is what is used.

use ndarray::{Ix1, Ix2};
use numpy::{PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{Held, borrow};
use super::guarded::Guarded;
use crate::data::{Sequences, Values};
use crate::loss::Loss;
use crate::network::{Input, Network, NetworkConfig};
use crate::train::{Targets, Training};

/// Sequences.
pub(super) struct Data<'py, E: Held> {
    steps: StepData<'py, E>,
    starts: Vec<i64>,
    lengths: Vec<i64>,
}

/// What the steps of sequences hold.
enum StepData<'py, E: Held> {
    Dense(PyReadonlyArray<'py, E, Ix2>),
    Ids(Vec<i64>),
}

/// Targets.
enum TargetData<'py, E: Held> {
    Classes(Vec<i64>),
    Numbers(PyReadonlyArray<'py, E, Ix2>),
}

/// Sequences with their targets.
pub(super) struct Examples<'py, E: Held> {
    data: Data<'py, E>,
    targets: TargetData<'py, E>,
}

/// A copy of an array of indexes.
fn indexes(argument: &str, array: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let array: PyReadonlyArray<i64, Ix1> = borrow(argument, array)?;
    Ok(array.as_array().to_vec())
}

/// The numbers of an array, row after row.
fn rows<'a, E: Held>(argument: &str, array: &'a PyReadonlyArray<'_, E, Ix2>) -> PyResult<&'a [E]> {
    let message = || format!("`{argument}`: expected a C-contiguous array");
    // An array that lies column after column would make a slice too.
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(message()));
    }
    array
        .as_slice()
        .map_err(|_| PyValueError::new_err(message()))
}

impl<'py, E: Held> Data<'py, E> {
    pub fn borrow(
        input: Input,
        values: &Bound<'py, PyAny>,
        starts: &Bound<'py, PyAny>,
        lengths: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        Ok(Data {
            steps: match input {
                Input::Dense => StepData::Dense(borrow("values", values)?),
                Input::Embedding { .. } | Input::OneHot => {
                    StepData::Ids(indexes("values", values)?)
                }
            },
            starts: indexes("starts", starts)?,
            lengths: indexes("lengths", lengths)?,
        })
    }

    pub fn sequences(&self, config: &NetworkConfig) -> PyResult<Sequences<'_, E>> {
        let values = match &self.steps {
            StepData::Dense(dense) => Values::Dense {
                rows: rows("values", dense)?,
                width: dense.shape()[1],
            },
            StepData::Ids(ids) => Values::Ids {
                ids,
                vocabulary: match config.input {
                    Input::Embedding { vocabulary } => vocabulary,
                    _ => config.stack.input_size,
                },
            },
        };
        Ok(Sequences::new(values, &self.starts, &self.lengths)?)
    }
}

impl<'py, E: Held> TargetData<'py, E> {
    fn borrow(loss: Loss, targets: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(if loss.takes_classes() {
            TargetData::Classes(indexes("targets", targets)?)
        } else {
            TargetData::Numbers(borrow("targets", targets)?)
        })
    }

    fn targets(&self) -> PyResult<Targets<'_, E>> {
        Ok(match self {
            TargetData::Classes(classes) => Targets::Classes(classes),
            TargetData::Numbers(numbers) => Targets::Numbers(rows("targets", numbers)?),
        })
    }
}

/// Values, starts, lengths and targets.
pub(super) type Labelled<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
);

impl<'py, E: Held> Examples<'py, E> {
    pub fn borrow(config: &NetworkConfig, labelled: &Labelled<'py>) -> PyResult<Self> {
        let (values, starts, lengths, targets) = labelled;
        Ok(Examples {
            data: Data::borrow(config.input, values, starts, lengths)?,
            targets: TargetData::borrow(config.loss, targets)?,
        })
    }

    /// Checks the examples against a model. `plan`: whether to shuffle, and to bucket by length.
    pub fn training(
        &self,
        py: Python<'py>,
        model: &Guarded<Network<E>>,
        config: &NetworkConfig,
        batch_size: usize,
        plan: (bool, bool),
        seed: u64,
    ) -> PyResult<Training<'_, E>> {
        let (sequences, targets) = (self.data.sequences(config)?, self.targets.targets()?);
        Ok(py.detach(|| {
            let model = model.read()?;
            Training::new(&model, sequences, targets, batch_size, plan, seed)
        })?)
    }
}
