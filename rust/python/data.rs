//! Arrays of sequences and targets, as Python hands them over.

use std::sync::{PoisonError, RwLock};

use ndarray::{Ix1, Ix2};
use numpy::{PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use super::arrays::{Held, borrow};
use crate::data::{Sequences, Values};
use crate::loss::Loss;
use crate::network::{Input, Network, NetworkConfig};
use crate::train::{Targets, Training};

/// Borrowed arrays of sequences.
pub(super) struct Data<'py, E: Held> {
    dense: Option<PyReadonlyArray<'py, E, Ix2>>,
    ids: Option<PyReadonlyArray<'py, i64, Ix1>>,
    starts: PyReadonlyArray<'py, i64, Ix1>,
    lengths: PyReadonlyArray<'py, i64, Ix1>,
}

/// Borrowed targets.
pub(super) enum TargetData<'py, E: Held> {
    Classes(PyReadonlyArray<'py, i64, Ix1>),
    Numbers(PyReadonlyArray<'py, E, Ix2>),
}

/// Borrowed sequences with their targets.
pub(super) struct Examples<'py, E: Held> {
    data: Data<'py, E>,
    targets: TargetData<'py, E>,
}

fn contiguous(argument: &str) -> PyErr {
    PyValueError::new_err(format!("`{argument}`: expected a C-contiguous array"))
}

impl<'py, E: Held> Data<'py, E> {
    pub fn borrow(
        input: Input,
        values: &Bound<'py, PyAny>,
        starts: &Bound<'py, PyAny>,
        lengths: &Bound<'py, PyAny>,
    ) -> PyResult<Self> {
        let dense = input == Input::Dense;
        Ok(Data {
            dense: dense.then(|| borrow("values", values)).transpose()?,
            ids: (!dense).then(|| borrow("values", values)).transpose()?,
            starts: borrow("starts", starts)?,
            lengths: borrow("lengths", lengths)?,
        })
    }

    pub fn sequences(&self, config: &NetworkConfig) -> PyResult<Sequences<'_, E>> {
        let values = match (&self.dense, &self.ids) {
            (Some(dense), _) => Values::Dense {
                rows: dense.as_slice().map_err(|_| contiguous("values"))?,
                width: dense.shape()[1],
            },
            (None, Some(ids)) => Values::Ids {
                ids: ids.as_slice().map_err(|_| contiguous("values"))?,
                vocabulary: match config.input {
                    Input::Embedding { vocabulary } => vocabulary,
                    _ => config.stack.input_size,
                },
            },
            (None, None) => unreachable!("`borrow` makes one of the two"),
        };
        let starts = self.starts.as_slice().map_err(|_| contiguous("starts"))?;
        let lengths = self.lengths.as_slice().map_err(|_| contiguous("lengths"))?;
        Ok(Sequences::new(values, starts, lengths)?)
    }
}

impl<'py, E: Held> TargetData<'py, E> {
    pub fn borrow(loss: Loss, targets: &Bound<'py, PyAny>) -> PyResult<Self> {
        Ok(match loss {
            Loss::CrossEntropy => TargetData::Classes(borrow("targets", targets)?),
            Loss::SquaredError => TargetData::Numbers(borrow("targets", targets)?),
        })
    }

    pub fn targets(&self) -> PyResult<Targets<'_, E>> {
        Ok(match self {
            TargetData::Classes(classes) => {
                Targets::Classes(classes.as_slice().map_err(|_| contiguous("targets"))?)
            }
            TargetData::Numbers(numbers) => {
                Targets::Numbers(numbers.as_slice().map_err(|_| contiguous("targets"))?)
            }
        })
    }
}

/// Arrays of sequences and their targets, as Python hands them over.
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

    pub fn training(
        &self,
        py: Python<'py>,
        model: &RwLock<Network<E>>,
        config: &NetworkConfig,
        batch_size: usize,
        plan: (bool, bool),
        seed: u64,
    ) -> PyResult<Training<'_, E>> {
        let (sequences, targets) = (self.data.sequences(config)?, self.targets.targets()?);
        Ok(py.detach(|| {
            let model = model.read().unwrap_or_else(PoisonError::into_inner);
            Training::new(&model, sequences, targets, batch_size, plan, seed)
        })?)
    }
}
