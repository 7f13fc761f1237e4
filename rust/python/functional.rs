//! `Functional` and `Record`: a recurrent stack for Python that is given its weights at every call.
//!
//! The weights of the last call stay, packed. The next call reads its own and compares: whoever may
//! have written them, and however, packs that are stale are never used, and packs that are not are
//! never made anew. A record holds the weights that it was made with, so that other weights may be
//! used before it goes back.
//!
//! A call of one step of a few rows reads each weight once, which is what comparing them costs. So
//! with many weights it computes with the caller's own, forward and back: its record holds none, and
//! is given them again.

use std::sync::{Arc, Mutex};

use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::arrays::{choose, maybe_state_mut, state_mut};
use super::dlpack::{Exchange, Scalar, Shared};
use super::either::{Either, dispatch};
use super::form::Form;
use super::given::{Given, How, Returned, Slopes, Tensors, slices};
use super::slot::{Slot, lock};
use crate::cell::CellKind;
use crate::error::{Error, Result};
use crate::parallel::{with_openmp, with_threads};
use crate::params::Layout;
use crate::recurrent::{Inputs, Keep, Outside, Recurrent, Tape};
use crate::sequence::Element;
use crate::stack::{Config, Parameters, Want, uniform_sizes};

/// A stack with the weights of one call, and what that call keeps for backward.
type Kept<E> = (Arc<Recurrent<E>>, Tape<E>);

/// What a record still has.
type Left<E> = Mutex<Option<Kept<E>>>;

/// A recurrent stack without weights of its own.
#[pyclass(name = "Functional", module = "rnncore._core", frozen)]
pub(super) struct PyFunctional {
    inner: Either<Slot<f32>, Slot<f64>>,
    exchange: Py<Exchange>,
    config: Config,
    layout: Layout,
}

/// What a call keeps for backward; empty when used.
#[pyclass(name = "Record", module = "rnncore._core", frozen)]
pub(super) struct PyRecord {
    inner: Either<Left<f32>, Left<f64>>,
    exchange: Py<Exchange>,
    form: Form,
}

/// Runs `body` on as many threads as torch uses, and on its own ones where it has them from OpenMP.
fn as_torch<R>(n_threads: usize, body: impl FnOnce() -> Result<R>) -> Result<R> {
    with_openmp(|| with_threads(n_threads, body))
}

/// What forward makes: the output, unless there is none but the states, and these.
type Made<'py, E> = (Bound<'py, PyTuple>, Form, Option<Kept<E>>);

fn forward<'py, E: Element + Scalar>(
    py: Python<'py>,
    slot: &Slot<E>,
    (config, layout): (&Config, &Layout),
    (exchange, tensors): (&Exchange, &Tensors<'py>),
    how: How,
) -> PyResult<Option<Made<'py, E>>> {
    let Some(given) = Given::<E>::read(tensors, how, (config, layout)) else {
        return Ok(None);
    };
    let How {
        keep, n_threads, ..
    } = how;
    let form = given.form;
    let mut shape = given.x.shape().to_vec();
    if form == Form::Sequences {
        shape.swap(0, 1);
    }
    if let Some(width) = shape.last_mut() {
        *width = config.directions() * config.state_size(0);
    }
    let states = config.states_shapes(given.batch);
    let has_memory = given.c0.is_some();
    let made = py.detach(|| {
        as_torch(n_threads, || {
            let lent: Option<Vec<_>> = match given.steps() {
                Some(steps) if Parameters::<E>::worth_lending(steps, given.batch, layout) => {
                    slices(&given.weights)
                }
                _ => None,
            };
            let model = match lent {
                Some(_) => slot.any(),
                None => slot.with(&given.weights)?,
            };
            let weights = match &lent {
                Some(weights) => Parameters::Lent(weights),
                None => model.own(),
            };
            let inputs = Inputs {
                x: given.x,
                h0: Some(given.h0),
                c0: given.c0,
                lengths: given.lengths.as_deref(),
            };
            // Backward gets x again from torch, which knows whether it was written meanwhile.
            let keep = if keep { Keep::Rest } else { Keep::Nothing };
            let mut tape = model.forward_for(weights, inputs, form.axes(), keep, None)?;
            let mut hidden = model.room(states[0].iter().product());
            let mut memory = has_memory.then(|| model.room(states[1].iter().product()));
            let to = maybe_state_mut(states[1], &mut memory)?;
            model.states(&tape, state_mut(states[0], &mut hidden)?, to)?;
            let output = match form {
                Form::Single => None,
                _ => Some(model.take_output(&mut tape)?),
            };
            Result::Ok((model, tape, output, hidden, memory))
        })
    });
    let (model, tape, output, hidden, memory) = match made {
        Err(Error::OutOfMemory { .. }) => return Ok(None), // torch says so in its own words
        made => made?,
    };
    let mut outputs = Vec::with_capacity(3);
    let parts = [
        (output, &shape[..]),
        (Some(hidden), form.outside(&states[0])),
        (memory, form.outside(&states[1])),
    ];
    for (values, shape) in parts {
        if let Some(values) = values {
            outputs.push(Shared::new(values).give(py, exchange, 0, shape)?);
        }
    }
    let outputs = PyTuple::new(py, outputs)?;
    Ok(Some((outputs, form, keep.then_some((model, tape)))))
}

/// The input, the weights, and the gradients of the output and of the final states.
type Objects<'a, 'py> = (
    &'a Bound<'py, PyAny>,
    &'a [Bound<'py, PyAny>],
    [Option<&'a Bound<'py, PyAny>>; 3],
);

fn backward<'py, E: Element + Scalar>(
    py: Python<'py>,
    record: &Left<E>,
    (exchange, form): (&Exchange, Form),
    (x, weights, slopes): Objects<'_, 'py>,
    (needs, n_threads): (&[bool], usize),
) -> PyResult<Option<Bound<'py, PyList>>> {
    let kept = lock(record);
    let Some((model, is_lent)) = kept.as_ref().map(|(model, tape)| (model, tape.is_lent())) else {
        return Ok(None);
    };
    let model = Arc::clone(model);
    drop(kept);
    let Some(tensors) = Returned::hold(exchange, x, slopes, is_lent.then_some(weights)) else {
        return Ok(None);
    };
    let Some(Slopes {
        x,
        dy,
        dh,
        dc,
        lent,
    }) = Slopes::<E>::read(&tensors, form, model.layout())
    else {
        return Ok(None);
    };
    let &[need_x, need_h0, need_c0, ref need_weights @ ..] = needs else {
        return Err(Error::value("needs", "one for each tensor", needs.len()).into());
    };
    let Some((owner, mut tape)) = lock(record).take() else {
        // Another thread took it back meanwhile, as the graph is retained.
        return Ok(None);
    };
    let config = model.config();
    let weights = match &lent {
        Some(weights) => Parameters::Lent(weights),
        None => model.own(),
    };
    let first = need_weights.iter().position(|&need| need);
    let states = need_h0 || need_c0;
    let from_layer = match first {
        Some(first) if !(need_x || states) => first * config.num_layers() / need_weights.len(),
        _ => 0,
    };
    let want = Want {
        input: need_x,
        states,
        weights: first.is_some(),
        from_layer,
        ..Want::default()
    };
    let (total, batch) = (tape.total(), tape.batch());
    let input = match form {
        Form::Steps => vec![total, batch, config.input_size],
        Form::Sequences => vec![batch, total, config.input_size],
        Form::Packed | Form::Single => vec![tape.rows(), config.input_size],
    };
    let states = config.states_shapes(batch);
    let outside = Outside {
        x: Some(x),
        output: None,
        d_output: dy,
    };
    let found = py.detach(|| {
        as_torch(n_threads, || {
            let mut found = model.backward_for(weights, &mut tape, outside, (dh, dc), want)?;
            let dx = model.take_dx(&mut found)?;
            let room = |shape: [usize; 3]| model.room(shape.iter().product());
            let mut dh0 = want.states.then(|| room(states[0]));
            let has_memory = want.states && config.cell.signature().has_memory();
            let mut dc0 = has_memory.then(|| room(states[1]));
            let hidden = maybe_state_mut(states[0], &mut dh0)?;
            let memory = maybe_state_mut(states[1], &mut dc0)?;
            model.read_gradients(&found, None, hidden, memory)?;
            Result::Ok((dx, dh0, dc0, found.take_weights()))
        })
    });
    if found.is_err() {
        // It stays usable.
        *lock(record) = Some((owner, tape));
    }
    let (dx, dh0, dc0, weights) = match found {
        Err(Error::OutOfMemory { .. }) => return Ok(None), // as in forward
        found => found?,
    };
    let mut gradients = Vec::with_capacity(needs.len());
    let inputs = [
        (dx, need_x, &input[..]),
        (dh0, need_h0, form.outside(&states[0])),
        (dc0, need_c0, form.outside(&states[1])),
    ];
    for (values, need, shape) in inputs {
        gradients.push(match values.filter(|_| need) {
            Some(values) => Some(Shared::new(values).give(py, exchange, 0, shape)?),
            None => None,
        });
    }
    let weights = Shared::new(weights);
    for (entry, &need) in model.layout().entries().iter().zip(need_weights) {
        gradients.push(match need {
            true => Some(weights.give(py, exchange, entry.offset, &entry.shape)?),
            false => None,
        });
    }
    Ok(Some(PyList::new(py, gradients)?))
}

#[pymethods]
impl PyFunctional {
    #[new]
    #[pyo3(signature = (exchange, cell, input_size, hidden_size, num_layers, bias, bidirectional,
        proj_size, dtype))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        exchange: Py<Exchange>,
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
        let is_single = choose("dtype", dtype, &[("float32", true), ("float64", false)])?;
        let (inner, layout) = if is_single {
            let model = Recurrent::<f32>::new(config.clone())?;
            let layout = model.layout().clone();
            (Either::F32(Slot::new(model)), layout)
        } else {
            let model = Recurrent::<f64>::new(config.clone())?;
            let layout = model.layout().clone();
            (Either::F64(Slot::new(model)), layout)
        };
        Ok(PyFunctional {
            inner,
            exchange,
            config,
            layout,
        })
    }

    /// The outputs, as a tuple, and a record to keep; None if these are not what the stack
    /// computes: of its type and sizes, in memory on the CPU.
    #[pyo3(signature = (weights, x, h0, c0, batch_sizes, batch_first, is_single, keep,
        n_threads))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        weights: Vec<Bound<'py, PyAny>>,
        x: &Bound<'py, PyAny>,
        h0: &Bound<'py, PyAny>,
        c0: Option<&Bound<'py, PyAny>>,
        batch_sizes: Option<&Bound<'py, PyAny>>,
        batch_first: bool,
        is_single: bool,
        keep: bool,
        n_threads: usize,
    ) -> PyResult<Option<(Bound<'py, PyTuple>, Option<PyRecord>)>> {
        let exchange = self.exchange.get();
        let tensors = Tensors::hold(exchange, &weights, x, (h0, c0), batch_sizes);
        let Some(tensors) = tensors else {
            return Ok(None);
        };
        let (stack, given) = ((&self.config, &self.layout), (exchange, &tensors));
        let how = How {
            batch_first,
            is_single,
            keep,
            n_threads,
        };
        let record = |inner, form| PyRecord {
            inner,
            exchange: self.exchange.clone_ref(py),
            form,
        };
        Ok(match &self.inner {
            Either::F32(slot) => {
                forward(py, slot, stack, given, how)?.map(|(outputs, form, kept)| {
                    let inner = kept.map(|kept| Either::F32(Mutex::new(Some(kept))));
                    (outputs, inner.map(|inner| record(inner, form)))
                })
            }
            Either::F64(slot) => {
                forward(py, slot, stack, given, how)?.map(|(outputs, form, kept)| {
                    let inner = kept.map(|kept| Either::F64(Mutex::new(Some(kept))));
                    (outputs, inner.map(|inner| record(inner, form)))
                })
            }
        })
    }
}

#[pymethods]
impl PyRecord {
    /// Whether nothing is left to take back.
    fn is_used(&self) -> bool {
        dispatch!(self.inner, record => lock(record).is_none())
    }

    /// The gradients of `x`, `h0`, `c0` and the weights that are needed, else None; None altogether
    /// if what is given is not of the outputs' type and form, or the record is used. `x` and the
    /// weights are forward's.
    #[pyo3(signature = (x, weights, d_output, d_h, d_c, needs, n_threads))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn backward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        weights: Vec<Bound<'py, PyAny>>,
        d_output: Option<&Bound<'py, PyAny>>,
        d_h: Option<&Bound<'py, PyAny>>,
        d_c: Option<&Bound<'py, PyAny>>,
        needs: Vec<bool>,
        n_threads: usize,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let exchange = self.exchange.get();
        let to = (exchange, self.form);
        let given = (x, &weights[..], [d_output, d_h, d_c]);
        let how = (&needs[..], n_threads);
        dispatch!(self.inner, record => backward(py, record, to, given, how))
    }
}
