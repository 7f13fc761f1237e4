//! The Python extension module `rnncore._core`.
//!
//! Every method borrows its arrays, releases the interpreter, calls the crate and wraps the result.
//! Python's side of the package validates and explains; what gets through is checked again by the
//! crate, and its [`Error`] becomes an exception here.

mod arrays;
mod data;
mod dlpack;
mod either;
mod epoch;
mod form;
mod functional;
mod given;
mod network;
mod optimizer;
mod slot;
mod stack;
mod stream;
mod ticker;

use pyo3::exceptions::{PyFloatingPointError, PyMemoryError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;

use crate::error::Error;
use crate::parallel;
use crate::simd::Isa;

impl From<Error> for PyErr {
    fn from(error: Error) -> PyErr {
        let message = error.to_string();
        match error {
            Error::Diverged { .. } | Error::NotFinite { .. } => {
                PyFloatingPointError::new_err(message)
            }
            Error::OutOfMemory { .. } => PyMemoryError::new_err(message),
            Error::Busy { .. } => PyRuntimeError::new_err(message),
            Error::Shape { .. }
            | Error::Value { .. }
            | Error::UnknownIsa { .. }
            | Error::TapeUsed
            | Error::TapeForeign { .. } => PyValueError::new_err(message),
        }
    }
}

/// Sets the number of threads for every later call of this process.
#[pyfunction]
fn set_num_threads(n: usize) -> PyResult<()> {
    Ok(parallel::set_num_threads(n)?)
}

/// The number of threads that a call may use.
#[pyfunction]
fn get_num_threads() -> PyResult<usize> {
    Ok(parallel::num_threads()?)
}

/// The instruction set in use.
#[pyfunction]
fn isa() -> PyResult<&'static str> {
    Ok(Isa::current()?.name())
}

/// The instruction sets that this machine has.
#[pyfunction]
fn available_isas() -> Vec<&'static str> {
    Isa::available().iter().map(|isa| isa.name()).collect()
}

#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    parallel::remember_process();
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(get_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(isa, module)?)?;
    module.add_function(wrap_pyfunction!(available_isas, module)?)?;
    module.add_function(wrap_pyfunction!(data::all_finite, module)?)?;
    module.add_class::<stack::PyStack>()?;
    module.add_class::<stack::PyTape>()?;
    module.add_class::<dlpack::Exchange>()?;
    module.add_class::<functional::PyFunctional>()?;
    module.add_class::<functional::PyRecord>()?;
    module.add_class::<optimizer::PyOptimizer>()?;
    module.add_class::<data::PyExamples>()?;
    module.add_class::<network::PyNetwork>()?;
    module.add_class::<stream::PyStream>()?;
    Ok(())
}
