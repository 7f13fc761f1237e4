//! NumPy arrays at the boundary.

use std::sync::Mutex;

use ndarray::{ArrayView, ArrayViewMut3, Dim, Dimension, IntoDimension, Ix3};
use numpy::{
    PyArray, PyArray1, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::data::Floats;
use super::either::Either;
use super::optimizer::States;
use crate::buffer::Buffer;
use crate::error::{Error, Result};
use crate::identity::Identity;
use crate::optim::State;
use crate::params::Layout;
use crate::recurrent::Tape;
use crate::sequence::Element;

/// A scalar that both sides have, and where what Python holds of it is found.
pub(super) trait Held: Element + numpy::Element {
    /// A tape for Python.
    fn wrap(tape: Tape<Self>) -> InnerTape;
    /// The tape, if it is of this scalar.
    fn unwrap(tape: &InnerTape) -> Option<&Mutex<Tape<Self>>>;
    /// What an optimizer remembers about a model.
    fn state_of<'a>(states: &'a mut States, model: &Identity) -> &'a mut State<Self>;
    /// The array, if it is of this scalar.
    fn array<D>(floats: &Floats<D>) -> Option<&Py<PyArray<Self, D>>>;
}

/// A tape of either scalar.
pub(super) type InnerTape = Either<Mutex<Tape<f32>>, Mutex<Tape<f64>>>;

macro_rules! held {
    ($element:ident, $variant:ident) => {
        impl Held for $element {
            fn wrap(tape: Tape<Self>) -> InnerTape {
                InnerTape::$variant(Mutex::new(tape))
            }
            fn unwrap(tape: &InnerTape) -> Option<&Mutex<Tape<Self>>> {
                match tape {
                    InnerTape::$variant(tape) => Some(tape),
                    _ => None,
                }
            }
            fn state_of<'a>(states: &'a mut States, model: &Identity) -> &'a mut State<Self> {
                states.$element.of(model)
            }
            fn array<D>(floats: &Floats<D>) -> Option<&Py<PyArray<Self, D>>> {
                match floats {
                    Either::$variant(array) => Some(array),
                    _ => None,
                }
            }
        }
    };
}
held!(f32, F32);
held!(f64, F64);

/// Borrows an array of one type and number of dimensions.
pub(super) fn borrow<'py, E: numpy::Element, D: ndarray::Dimension>(
    argument: &str,
    array: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray<'py, E, D>> {
    let cast = array.cast::<PyArray<E, D>>();
    let cast = cast.map_err(|_| misfit::<E, D>(argument, array))?;
    let borrowed = cast
        .try_readonly()
        .map_err(|error| Error::value(argument, "an array that nobody writes to", error))?;
    // A view of numbers that do not lie at multiples of their size would be undefined.
    if borrowed.is_aligned() {
        Ok(borrowed)
    } else {
        Err(Error::value(argument, "an aligned array", "an unaligned one").into())
    }
}

/// Says that an argument is no array of one type and number of dimensions.
pub(super) fn misfit<E: numpy::Element, D: ndarray::Dimension>(
    argument: &str,
    array: &Bound<'_, PyAny>,
) -> PyErr {
    let expected = E::get_dtype(array.py());
    let dimensions = match D::NDIM {
        Some(n) => format!(" with {n} dimensions"),
        None => String::new(),
    };
    let actual = match array.cast::<PyUntypedArray>() {
        Ok(array) => format!("a {} array with {} dimensions", array.dtype(), array.ndim()),
        Err(_) => array.get_type().to_string(),
    };
    PyTypeError::new_err(format!(
        "{argument}: expected a {expected} array{dimensions}, got {actual}"
    ))
}

/// An optional three-dimensional argument.
pub(super) fn optional<'py, E: Held>(
    name: &str,
    array: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<PyReadonlyArray<'py, E, Ix3>>> {
    array.map(|array| borrow(name, array)).transpose()
}

/// What an array's memory belongs to.
#[pyclass(module = "rnncore._core", frozen)]
struct Owner {
    #[expect(dead_code, reason = "kept alive")]
    numbers: Box<dyn Send + Sync>,
}

/// Numbers as an array of this shape, without a copy.
///
/// # Panics
/// If there are not as many.
pub(super) fn handed<'py, E: Held, const N: usize>(
    py: Python<'py>,
    mut numbers: Buffer<E>,
    shape: [usize; N],
) -> PyResult<Bound<'py, PyArray<E, Dim<[usize; N]>>>>
where
    Dim<[usize; N]>: Dimension,
    [usize; N]: IntoDimension<Dim = Dim<[usize; N]>>,
{
    assert_eq!(numbers.len(), shape.iter().product::<usize>());
    let at = numbers.as_mut_ptr();
    let numbers = Box::new(numbers);
    let owner = Bound::new(py, Owner { numbers })?.into_any();
    // SAFETY: `at` is that of as many numbers as the shape has, which `owner` keeps in place while
    // the array or a view of it lives, and nobody else can reach.
    unsafe {
        let view = ArrayView::from_shape_ptr(shape, at.cast_const());
        Ok(PyArray::borrow_from_array(&view, owner))
    }
}

/// A state, or its gradient, that is to be written.
pub(super) fn state_mut<E>(shape: [usize; 3], to: &mut [E]) -> Result<ArrayViewMut3<'_, E>> {
    ArrayViewMut3::from_shape(shape, to)
        .map_err(|_| Error::shape("state", format!("{shape:?}"), "another size"))
}

/// The same of one that may not be there.
pub(super) fn maybe_state_mut<E: Element>(
    shape: [usize; 3],
    to: &mut Option<Buffer<E>>,
) -> Result<Option<ArrayViewMut3<'_, E>>> {
    to.as_mut().map(|to| state_mut(shape, to)).transpose()
}

/// All parameters by name, in order, as views of one array of them all.
///
/// # Panics
/// If the array is not that.
pub(super) fn to_dict<'py, E: Held>(
    py: Python<'py>,
    layout: &Layout,
    flat: &Bound<'py, PyArray1<E>>,
) -> PyResult<Bound<'py, PyDict>> {
    assert!(flat.is_contiguous() && flat.len() == layout.size());
    let dict = PyDict::new(py);
    for entry in layout.entries() {
        // SAFETY: an entry's numbers lie in `flat`, one after another, which keeps them in place
        // while the part or a view of it lives.
        let part = unsafe {
            let at = flat.data().add(entry.range().start).cast_const();
            let view = ArrayView::from_shape_ptr(entry.shape.as_slice(), at);
            PyArray::borrow_from_array(&view, flat.clone().into_any())
        };
        dict.set_item(&entry.name, part)?;
    }
    Ok(dict)
}

/// All parameters out of a dict that has exactly these names, shapes and this type.
pub(super) fn from_dict<E: Held>(
    argument: &str,
    layout: &Layout,
    dict: &Bound<'_, PyDict>,
) -> PyResult<Vec<E>> {
    let mut values = vec![E::ZERO; layout.size()];
    for entry in layout.entries() {
        let array = self::entry(argument, dict, &entry.name)?;
        let name = format!("{argument}[{:?}]", entry.name);
        let array: PyReadonlyArray<E, ndarray::IxDyn> = borrow(&name, &array)?;
        let array = array.as_array();
        if array.shape() != entry.shape {
            let (expected, actual) = (format!("{:?}", entry.shape), format!("{:?}", array.shape()));
            return Err(Error::shape(name, expected, actual).into());
        }
        for (to, &from) in values[entry.range()].iter_mut().zip(array.iter()) {
            *to = from;
        }
    }
    if let Some(name) = unknown_name(layout, dict)? {
        let names: Vec<&str> = layout.entries().iter().map(|e| e.name.as_str()).collect();
        return Err(Error::value(argument, names.join(", "), name).into());
    }
    Ok(values)
}

fn unknown_name(layout: &Layout, dict: &Bound<'_, PyDict>) -> PyResult<Option<String>> {
    for name in dict.keys() {
        // What is no string is no name either.
        let name = name.str()?.to_string();
        if layout.entries().iter().all(|entry| entry.name != name) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// What a dict that was handed in as an argument has of a name.
pub(super) fn entry<'py>(
    argument: &str,
    dict: &Bound<'py, PyDict>,
    name: &str,
) -> PyResult<Bound<'py, PyAny>> {
    let missing = || Error::value(format!("{argument}[{name:?}]"), "a value", "nothing");
    Ok(dict.get_item(name)?.ok_or_else(missing)?)
}

/// Names and shapes, in order.
pub(super) fn shapes<'py>(
    py: Python<'py>,
    layout: &Layout,
) -> PyResult<Vec<(String, Bound<'py, pyo3::types::PyTuple>)>> {
    layout
        .entries()
        .iter()
        .map(|entry| {
            Ok((
                entry.name.clone(),
                pyo3::types::PyTuple::new(py, &entry.shape)?,
            ))
        })
        .collect()
}

/// What the name of one of some choices stands for.
pub(super) fn choose<T: Copy>(argument: &str, name: &str, choices: &[(&str, T)]) -> Result<T> {
    choices
        .iter()
        .find(|(choice, _)| *choice == name)
        .map(|&(_, value)| value)
        .ok_or_else(|| {
            let names: Vec<String> = choices
                .iter()
                .map(|(name, _)| format!("{name:?}"))
                .collect();
            Error::value(
                argument,
                format!("one of {}", names.join(", ")),
                format!("{name:?}"),
            )
        })
}
