//! `Examples`: sequences, targets and weights, as Python hands them over.
//!
//! Numbers are read where they lie, without the interpreter: who changes them meanwhile gets other
//! numbers. Identifiers, classes and places are indexes, and weights of 0 let classes pass that are
//! none, so these are copied while the interpreter is held, and what was checked is what is used.

use ndarray::{Ix1, Ix2, IxDyn};
use numpy::{PyArray, PyArrayDescrMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

use super::arrays::{Held, borrow};
use super::either::Either;
use crate::data::{Sequences, Values};
use crate::error::Error;
use crate::network::{Examples, NetworkConfig, Targets};
use crate::reduce::are_finite;
use crate::simd::Isa;

/// An array of either scalar.
pub(super) type Floats<D> = Either<Py<PyArray<f32, D>>, Py<PyArray<f64, D>>>;

/// Sequences, and what a network should make of them.
#[pyclass(name = "Examples", module = "rnncore._core", frozen)]
pub(super) struct PyExamples {
    values: StepData,
    starts: Vec<i64>,
    lengths: Vec<i64>,
    targets: Option<TargetData>,
    weights: Option<Floats<Ix1>>,
}

/// What the steps of sequences hold.
enum StepData {
    Numbers(Floats<Ix2>),
    Ids { ids: Vec<i64>, width: usize },
}

/// What they should give.
enum TargetData {
    Classes(Vec<i64>),
    Numbers(Floats<Ix2>),
}

/// A copy of an array of indexes.
pub(super) fn indexes(argument: &str, array: &Bound<'_, PyAny>) -> PyResult<Vec<i64>> {
    let array: PyReadonlyArray<i64, Ix1> = borrow(argument, array)?;
    Ok(array.as_array().to_vec())
}

/// The numbers of an array, row after row.
pub(super) fn rows<'a, E: numpy::Element, D: ndarray::Dimension>(
    argument: &str,
    array: &'a PyReadonlyArray<'_, E, D>,
) -> PyResult<&'a [E]> {
    // An array that lies column after column would make a slice too.
    let slice = array.as_slice().ok().filter(|_| array.is_c_contiguous());
    let misfit = || Error::value(argument, "a C-contiguous array", "one of other strides");
    Ok(slice.ok_or_else(misfit)?)
}

/// Whether an array's numbers are of a type.
fn is_of<E: numpy::Element>(array: &Bound<'_, PyAny>) -> bool {
    let array = array.cast::<PyUntypedArray>();
    array.is_ok_and(|array| array.dtype().is_equiv_to(&E::get_dtype(array.py())))
}

fn floats<D: ndarray::Dimension>(argument: &str, array: &Bound<'_, PyAny>) -> PyResult<Floats<D>> {
    fn keep<E: numpy::Element, D: ndarray::Dimension>(
        argument: &str,
        array: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyArray<E, D>>> {
        let array: PyReadonlyArray<E, D> = borrow(argument, array)?;
        rows(argument, &array)?;
        Ok((*array).clone().unbind())
    }
    Ok(if is_of::<f64>(array) {
        Either::F64(keep(argument, array)?)
    } else {
        Either::F32(keep(argument, array)?)
    })
}

/// Whether all numbers of a C-contiguous array of floats are finite.
#[pyfunction]
pub(super) fn all_finite(values: &Bound<'_, PyAny>) -> PyResult<bool> {
    fn check<E: Held>(values: &Bound<'_, PyAny>) -> PyResult<bool> {
        let array: PyReadonlyArray<E, IxDyn> = borrow("values", values)?;
        let (isa, rows) = (Isa::current()?, rows("values", &array)?);
        Ok(values.py().detach(|| are_finite(isa, rows)))
    }
    if is_of::<f64>(values) {
        check::<f64>(values)
    } else {
        check::<f32>(values)
    }
}

#[pymethods]
impl PyExamples {
    #[new]
    #[pyo3(signature = (values, starts, lengths, targets=None, weights=None))]
    fn new(
        values: &Bound<'_, PyAny>,
        starts: &Bound<'_, PyAny>,
        lengths: &Bound<'_, PyAny>,
        targets: Option<&Bound<'_, PyAny>>,
        weights: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let values = if is_of::<i64>(values) {
            let array: PyReadonlyArray<i64, IxDyn> = borrow("values", values)?;
            let width = match *array.shape() {
                [_] => 1,
                [_, width] => width,
                _ => {
                    let actual = format!("{} dimensions", array.ndim());
                    return Err(Error::shape("values", "(rows,) or (rows, k)", actual).into());
                }
            };
            StepData::Ids {
                ids: array.as_array().iter().copied().collect(),
                width,
            }
        } else {
            StepData::Numbers(floats("values", values)?)
        };
        let targets = targets.map(|targets| {
            PyResult::Ok(if is_of::<i64>(targets) {
                TargetData::Classes(indexes("targets", targets)?)
            } else {
                TargetData::Numbers(floats("targets", targets)?)
            })
        });
        Ok(PyExamples {
            values,
            starts: indexes("starts", starts)?,
            lengths: indexes("lengths", lengths)?,
            targets: targets.transpose()?,
            weights: weights.map(copied).transpose()?,
        })
    }
}

/// A copy of weights, as they say which targets are looked at.
fn copied(weights: &Bound<'_, PyAny>) -> PyResult<Floats<Ix1>> {
    floats::<Ix1>("weights", weights)?;
    floats("weights", &weights.call_method0("copy")?)
}

/// Examples whose arrays of numbers are lent to Rust.
pub(super) struct Borrowed<'a, 'py, E: Held> {
    of: &'a PyExamples,
    values: Option<PyReadonlyArray<'py, E, Ix2>>,
    targets: Option<PyReadonlyArray<'py, E, Ix2>>,
    weights: Option<PyReadonlyArray<'py, E, Ix1>>,
}

fn lend<'py, E: Held, D: ndarray::Dimension>(
    py: Python<'py>,
    argument: &str,
    floats: Option<&Floats<D>>,
) -> PyResult<Option<PyReadonlyArray<'py, E, D>>> {
    let Some(floats) = floats else {
        return Ok(None);
    };
    let Some(array) = E::array(floats) else {
        let (expected, actual) = match floats {
            Either::F32(_) => ("float64", "float32"),
            Either::F64(_) => ("float32", "float64"),
        };
        return Err(PyTypeError::new_err(format!(
            "{argument}: expected a {expected} array as the network's, got a {actual} array"
        )));
    };
    // Whoever else holds the array may have given it another type or shape since.
    borrow(argument, array.bind(py)).map(Some)
}

impl PyExamples {
    /// Lends the numbers.
    pub fn borrow<'py, E: Held>(&self, py: Python<'py>) -> PyResult<Borrowed<'_, 'py, E>> {
        let values = match &self.values {
            StepData::Numbers(floats) => Some(floats),
            StepData::Ids { .. } => None,
        };
        let targets = match &self.targets {
            Some(TargetData::Numbers(floats)) => Some(floats),
            _ => None,
        };
        Ok(Borrowed {
            of: self,
            values: lend(py, "values", values)?,
            targets: lend(py, "targets", targets)?,
            weights: lend(py, "weights", self.weights.as_ref())?,
        })
    }
}

impl<E: Held> Borrowed<'_, '_, E> {
    /// What the crate is given.
    pub fn examples(&self, config: &NetworkConfig) -> PyResult<Examples<'_, E>> {
        let values = match (&self.of.values, &self.values) {
            (StepData::Ids { ids, width }, _) => Values::Ids {
                ids,
                width: *width,
                vocabulary: config.vocabulary().unwrap_or(config.stack.input_size),
            },
            (_, Some(numbers)) => Values::Dense {
                rows: rows("values", numbers)?,
                width: numbers.shape()[1],
            },
            (StepData::Numbers(_), None) => unreachable!("numbers are lent as they are there"),
        };
        let numbers = self.targets.as_ref();
        if let Some(&[_, width]) = numbers.map(|numbers| numbers.shape())
            && width != config.n_outputs
        {
            let expected = format!("{} columns", config.n_outputs);
            return Err(Error::shape("targets", expected, format!("{width} columns")).into());
        }
        let targets = match &self.of.targets {
            Some(TargetData::Classes(classes)) => Some(Targets::Classes(classes)),
            _ => numbers
                .map(|numbers| rows("targets", numbers).map(Targets::Numbers))
                .transpose()?,
        };
        let weights = self.weights.as_ref();
        Ok(Examples {
            sequences: Sequences::new(values, &self.of.starts, &self.of.lengths)?,
            targets,
            weights: weights
                .map(|weights| rows("weights", weights))
                .transpose()?,
        })
    }
}
