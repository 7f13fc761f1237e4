//! `Functional` and `Record`: a recurrent stack for Python that is given its weights at every call.
//!
//! The weights of the last call stay, packed. The next call reads its own and compares: whoever may
//! have written them, and however, packs that are stale are never used, and packs that are not are
//! never made anew. A record holds the weights that it was made with, so that other weights may be
//! used before it goes back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ndarray::{ArrayViewD, ArrayViewMutD, Ix1, Ix2, Ix3, IxDyn};
use numpy::{
    PyArray3, PyArrayDyn, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods,
};
use pyo3::prelude::*;

use super::arrays::{Held, borrow, choose, optional, to_list};
use super::either::{Either, dispatch};
use crate::boundary::{Rows, RowsMut};
use crate::cell::CellKind;
use crate::error::{Error, Result};
use crate::parallel::with_threads;
use crate::recurrent::{Inputs, Recurrent, Tape};
use crate::sequence::Element;
use crate::stack::{Config, Want, uniform_sizes};

/// A stack with the weights of the last call.
type Slot<E> = Mutex<Arc<Recurrent<E>>>;

/// A stack with the weights of one call, and what that call keeps for backward.
type Kept<E> = (Arc<Recurrent<E>>, Tape<E>);

/// What a record still has.
type Left<E> = Mutex<Option<Kept<E>>>;

/// A recurrent stack without weights of its own.
#[pyclass(name = "Functional", module = "rnncore._core", frozen)]
pub(super) struct PyFunctional {
    inner: Either<Slot<f32>, Slot<f64>>,
    config: Config,
}

/// What a call keeps for backward; empty when used.
#[pyclass(name = "Record", module = "rnncore._core", frozen)]
pub(super) struct PyRecord {
    inner: Either<Left<f32>, Left<f64>>,
    batch_first: bool,
    packed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a stack has these weights. NaN counts as another weight each time.
fn holds<E: Element>(model: &Recurrent<E>, weights: &[ArrayViewD<E>]) -> bool {
    let mut entries = model.layout().entries().iter().zip(weights);
    entries.all(|(entry, weight)| {
        let held = &model.weights()[entry.range()];
        match weight.as_slice() {
            // Whole blocks without a way out, so that they are compared a register at a time.
            Some(weight) => held.chunks(256).zip(weight.chunks(256)).all(|(a, b)| {
                let same = |same, (a, b): (&E, &E)| same & (a == b);
                a.iter().zip(b).fold(true, same)
            }),
            None => held.iter().eq(weight.iter()),
        }
    })
}

/// A stack that has these weights: the slot's own if they are the same, or if nobody else has it.
fn with_weights<E: Element>(
    slot: &Slot<E>,
    weights: &[ArrayViewD<E>],
) -> Result<Arc<Recurrent<E>>> {
    let mut slot = lock(slot);
    let entries = slot.layout().entries();
    if entries.len() != weights.len() {
        return Err(Error::value(
            "weights",
            format!("{} arrays", entries.len()),
            weights.len(),
        ));
    }
    for (entry, weight) in entries.iter().zip(weights) {
        if weight.shape() != entry.shape {
            let (expected, actual) = (
                format!("{:?}", entry.shape),
                format!("{:?}", weight.shape()),
            );
            return Err(Error::shape(&entry.name, expected, actual));
        }
    }
    if holds(&slot, weights) {
        return Ok(Arc::clone(&slot));
    }
    if Arc::get_mut(&mut slot).is_none() {
        *slot = Arc::new(Recurrent::new(slot.config().clone())?);
    }
    if let Some(model) = Arc::get_mut(&mut slot) {
        let layout = model.layout().clone();
        model.update(|to| {
            for (entry, weight) in layout.entries().iter().zip(weights) {
                for (to, &from) in to[entry.range()].iter_mut().zip(weight) {
                    *to = from;
                }
            }
            Ok(())
        })?;
    }
    Ok(Arc::clone(&slot))
}

/// Lengths of the sequences of packed rows, from the number of rows at each step.
fn lengths_of(counts: &[i64]) -> Result<Vec<i64>> {
    let descend = counts.is_sorted_by(|a, b| a >= b) && counts.last().is_none_or(|&last| last > 0);
    if !descend {
        let expected = "descending numbers of rows, none 0";
        return Err(Error::value("batch_sizes", expected, format!("{counts:?}")));
    }
    let batch = counts.first().copied().unwrap_or(0);
    let length = |row: i64| counts.partition_point(|&count| count > row) as i64;
    Ok((0..batch).map(length).collect())
}

/// Rows as the crate takes them: two dimensions are those of packed ones.
fn rows<'a, E: Element>(
    argument: &str,
    mut array: ArrayViewD<'a, E>,
    batch_first: bool,
) -> Result<Rows<'a, E>> {
    let shape = format!("{:?}", array.shape());
    if array.ndim() == 3 && batch_first {
        array.swap_axes(0, 1);
    }
    let rows = match array.ndim() {
        2 => array.into_dimensionality::<Ix2>().map(Rows::Packed),
        _ => array.into_dimensionality::<Ix3>().map(Rows::Padded),
    };
    rows.map_err(|_| Error::shape(argument, "2 or 3 dimensions", shape))
}

/// The same to be written.
fn rows_mut<'a, E: Element>(
    argument: &str,
    mut array: ArrayViewMutD<'a, E>,
    batch_first: bool,
) -> Result<RowsMut<'a, E>> {
    let shape = format!("{:?}", array.shape());
    if array.ndim() == 3 && batch_first {
        array.swap_axes(0, 1);
    }
    let rows = match array.ndim() {
        2 => array.into_dimensionality::<Ix2>().map(RowsMut::Packed),
        _ => array.into_dimensionality::<Ix3>().map(RowsMut::Padded),
    };
    rows.map_err(|_| Error::shape(argument, "2 or 3 dimensions", shape))
}

type Outputs<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
);

type InputGradients<'py> = (
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Bound<'py, PyAny>>,
    Option<Vec<Bound<'py, PyAny>>>,
);

/// New arrays for a state: hidden, and memory of a cell that has one.
type NewStates<'py, E> = (Bound<'py, PyArray3<E>>, Option<Bound<'py, PyArray3<E>>>);

fn new_states<'py, E: Held>(py: Python<'py>, config: &Config, batch: usize) -> NewStates<'py, E> {
    let [hidden, memory] = config.states_shapes(batch);
    let memory = Some(memory).filter(|_| config.cell.signature().has_memory());
    let new = |shape| PyArray3::<E>::zeros(py, shape, false);
    (new(hidden), memory.map(new))
}

struct Arguments<'a, 'py> {
    weights: Vec<Bound<'py, PyAny>>,
    x: &'a Bound<'py, PyAny>,
    h0: Option<&'a Bound<'py, PyAny>>,
    c0: Option<&'a Bound<'py, PyAny>>,
    counts: Option<&'a Bound<'py, PyAny>>,
    batch_first: bool,
    keep: bool,
    n_threads: usize,
}

fn forward<'py, E: Held>(
    py: Python<'py>,
    slot: &Slot<E>,
    config: &Config,
    arguments: &Arguments<'_, 'py>,
) -> PyResult<(Outputs<'py>, Option<Kept<E>>)> {
    let &Arguments {
        batch_first,
        keep,
        n_threads,
        ..
    } = arguments;
    let weights = arguments
        .weights
        .iter()
        .map(|weight| borrow("weights", weight))
        .collect::<PyResult<Vec<PyReadonlyArray<E, IxDyn>>>>()?;
    let weights: Vec<_> = weights.iter().map(|weight| weight.as_array()).collect();
    let x: PyReadonlyArray<E, IxDyn> = borrow("x", arguments.x)?;
    let h0 = optional::<E>("h0", arguments.h0)?;
    let c0 = optional::<E>("c0", arguments.c0)?;
    let counts: Option<PyReadonlyArray<i64, Ix1>> = arguments
        .counts
        .map(|counts| borrow("batch_sizes", counts))
        .transpose()?;
    let mut dims = x.as_array().shape().to_vec();
    let lengths = match (&counts, dims.as_slice()) {
        (Some(counts), _) => Some(lengths_of(&counts.as_array().to_vec())?),
        // Rows alone are one step.
        (None, &[batch, _]) => Some(vec![1; batch]),
        (None, _) => None,
    };
    let inputs = Inputs {
        x: rows("x", x.as_array(), batch_first)?,
        h0: h0.as_ref().map(|state| state.as_array()),
        c0: c0.as_ref().map(|state| state.as_array()),
        lengths: lengths.as_deref(),
    };
    let (model, tape) = py.detach(|| {
        let model = with_weights(slot, &weights)?;
        let tape = with_threads(n_threads, || model.forward(inputs, keep, None))?;
        Result::Ok((model, tape))
    })?;

    if let Some(width) = dims.last_mut() {
        *width = config.directions() * config.state_size(0);
    }
    let output = PyArrayDyn::<E>::zeros(py, dims, false);
    let (hidden, memory) = new_states::<E>(py, config, tape.batch());
    {
        let mut output = output.readwrite();
        let mut hidden = hidden.readwrite();
        let mut memory = memory.as_ref().map(|memory| memory.readwrite());
        let output = rows_mut("output", output.as_array_mut(), batch_first)?;
        let hidden = hidden.as_array_mut();
        let memory = memory.as_mut().map(|memory| memory.as_array_mut());
        py.detach(|| {
            with_threads(n_threads, || {
                model.output(&tape, output)?;
                model.states(&tape, hidden, memory)
            })
        })?;
    }
    let outputs = (
        output.into_any(),
        hidden.into_any(),
        memory.map(Bound::into_any),
    );
    Ok((outputs, keep.then_some((model, tape))))
}

fn backward<'py, E: Held>(
    py: Python<'py>,
    record: &Left<E>,
    (packed, batch_first): (bool, bool),
    given: [Option<&Bound<'py, PyAny>>; 3],
    (want, n_threads): (Want, usize),
) -> PyResult<InputGradients<'py>> {
    let dy: Option<PyReadonlyArray<E, IxDyn>> =
        given[0].map(|dy| borrow("d_output", dy)).transpose()?;
    let dh = optional::<E>("d_h", given[1])?;
    let dc = optional::<E>("d_c", given[2])?;
    let dy = match &dy {
        Some(dy) => Some(rows("d_output", dy.as_array(), batch_first)?),
        None => None,
    };
    let last = (
        dh.as_ref().map(|dh| dh.as_array()),
        dc.as_ref().map(|dc| dc.as_array()),
    );
    let kept = lock(record).take();
    let (model, mut tape) = kept.ok_or(Error::TapeUsed)?;
    let mut found =
        py.detach(|| with_threads(n_threads, || model.backward_for(&mut tape, dy, last, want)))?;
    let config = model.config();
    let (total, batch) = (tape.total(), tape.batch());
    let dims = match (packed, batch_first) {
        (true, _) => vec![tape.rows(), config.input_size],
        (false, true) => vec![batch, total, config.input_size],
        (false, false) => vec![total, batch, config.input_size],
    };
    let dx = want.input.then(|| PyArrayDyn::<E>::zeros(py, dims, false));
    let states = want.states.then(|| new_states::<E>(py, config, batch));
    let (dh0, dc0) = states.map_or((None, None), |(dh0, dc0)| (Some(dh0), dc0));
    {
        let mut dx = dx.as_ref().map(|dx| dx.readwrite());
        let mut dh0 = dh0.as_ref().map(|dh0| dh0.readwrite());
        let mut dc0 = dc0.as_ref().map(|dc0| dc0.readwrite());
        let dx = match &mut dx {
            Some(dx) => Some(rows_mut("dx", dx.as_array_mut(), batch_first)?),
            None => None,
        };
        let dh0 = dh0.as_mut().map(|dh0| dh0.as_array_mut());
        let dc0 = dc0.as_mut().map(|dc0| dc0.as_array_mut());
        py.detach(|| with_threads(n_threads, || model.read_gradients(&found, dx, dh0, dc0)))?;
    }
    let weights = match want.weights {
        true => Some(to_list(
            py,
            model.layout(),
            std::mem::take(&mut found.weights),
        )?),
        false => None,
    };
    Ok((
        dx.map(Bound::into_any),
        dh0.map(Bound::into_any),
        dc0.map(Bound::into_any),
        weights,
    ))
}

#[pymethods]
impl PyFunctional {
    #[new]
    #[pyo3(signature = (cell, input_size, hidden_size, num_layers, bias, bidirectional, proj_size,
        dtype))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        cell: &str,
        input_size: usize,
        hidden_size: usize,
        num_layers: usize,
        bias: bool,
        bidirectional: bool,
        proj_size: usize,
        dtype: &str,
    ) -> PyResult<Self> {
        let config = Config {
            cell: CellKind::by_name(cell)?,
            input_size,
            hidden_sizes: uniform_sizes(hidden_size, num_layers)?,
            bias,
            bidirectional,
            dropout: 0.0,
            locked_dropout: false,
            proj_size,
        };
        let single = choose("dtype", dtype, &[("float32", true), ("float64", false)])?;
        let inner = if single {
            Either::F32(Mutex::new(Arc::new(Recurrent::new(config.clone())?)))
        } else {
            Either::F64(Mutex::new(Arc::new(Recurrent::new(config.clone())?)))
        };
        Ok(PyFunctional { inner, config })
    }

    #[pyo3(signature = (weights, x, h0, c0, batch_sizes, batch_first, keep, n_threads))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        weights: Vec<Bound<'py, PyAny>>,
        x: &Bound<'py, PyAny>,
        h0: Option<&Bound<'py, PyAny>>,
        c0: Option<&Bound<'py, PyAny>>,
        batch_sizes: Option<&Bound<'py, PyAny>>,
        batch_first: bool,
        keep: bool,
        n_threads: usize,
    ) -> PyResult<(Outputs<'py>, Option<PyRecord>)> {
        let arguments = Arguments {
            weights,
            x,
            h0,
            c0,
            counts: batch_sizes,
            batch_first,
            keep,
            n_threads,
        };
        let (outputs, inner) = match &self.inner {
            Either::F32(slot) => {
                let (outputs, kept) = forward(py, slot, &self.config, &arguments)?;
                (
                    outputs,
                    kept.map(|kept| Either::F32(Mutex::new(Some(kept)))),
                )
            }
            Either::F64(slot) => {
                let (outputs, kept) = forward(py, slot, &self.config, &arguments)?;
                (
                    outputs,
                    kept.map(|kept| Either::F64(Mutex::new(Some(kept)))),
                )
            }
        };
        let packed = x.cast::<PyUntypedArray>()?.ndim() == 2;
        let record = inner.map(|inner| PyRecord {
            inner,
            batch_first,
            packed,
        });
        Ok((outputs, record))
    }
}

#[pymethods]
impl PyRecord {
    /// Whether there is something left to take back.
    fn is_used(&self) -> bool {
        dispatch!(self.inner, record => lock(record).is_none())
    }

    #[pyo3(signature = (d_output, d_h, d_c, want_input, want_states, want_weights, n_threads))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn backward<'py>(
        &self,
        py: Python<'py>,
        d_output: Option<&Bound<'py, PyAny>>,
        d_h: Option<&Bound<'py, PyAny>>,
        d_c: Option<&Bound<'py, PyAny>>,
        want_input: bool,
        want_states: bool,
        want_weights: bool,
        n_threads: usize,
    ) -> PyResult<InputGradients<'py>> {
        let want = Want {
            input: want_input,
            states: want_states,
            outputs: false,
            weights: want_weights,
        };
        let given = [d_output, d_h, d_c];
        let layout = (self.packed, self.batch_first);
        let how = (want, n_threads);
        dispatch!(self.inner, record => backward(py, record, layout, given, how))
    }
}
