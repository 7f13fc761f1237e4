//! `Stack` and `Tape`: a recurrent stack for Python.

use std::sync::{Mutex, PoisonError};

use ndarray::{Ix1, Ix3};
use numpy::{PyArray, PyReadonlyArray};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::arrays::{
    Held, InnerTape, borrow, choose, from_dict, handed, maybe_state_mut, optional, shapes,
    state_mut, to_dict,
};
use super::either::{Either, dispatch};
use super::optimizer::PyOptimizer;
use crate::boundary::{Axes, Rows};
use crate::buffer::Buffer;
use crate::cell::CellKind;
use crate::guarded::Guarded;
use crate::params::Layout;
use crate::recurrent::{Inputs, Keep, Outside, Recurrent};
use crate::stack::{Config, Want, uniform_sizes};

/// A recurrent stack with its weights.
#[pyclass(name = "Stack", module = "rnncore._core", frozen)]
pub(super) struct PyStack {
    pub(super) inner: Either<Guarded<Recurrent<f32>>, Guarded<Recurrent<f64>>>,
    config: Config,
    layout: Layout,
}

/// What a forward pass keeps for backward.
#[pyclass(name = "Tape", module = "rnncore._core", frozen)]
pub(super) struct PyTape {
    inner: InnerTape,
    batch_first: bool,
    /// The input, and the output unless the tape has one of its own, which backward reads again.
    lent: Mutex<Option<Lent>>,
}

type Lent = (Py<PyAny>, Option<Py<PyAny>>);

type Outputs<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Option<PyTape>,
);

type Found<'py> = (
    Bound<'py, PyAny>,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
    Bound<'py, PyDict>,
);

struct Arguments<'a, 'py> {
    x: &'a Bound<'py, PyAny>,
    h0: Option<&'a Bound<'py, PyAny>>,
    c0: Option<&'a Bound<'py, PyAny>>,
    lengths: Option<&'a Bound<'py, PyAny>>,
}

fn forward<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Recurrent<E>>,
    config: &Config,
    arguments: Arguments<'_, 'py>,
    (batch_first, keep, seed): (bool, Keep, Option<u64>),
) -> PyResult<Outputs<'py>> {
    let x: PyReadonlyArray<E, Ix3> = borrow("x", arguments.x)?;
    let h0 = optional::<E>("h0", arguments.h0)?;
    let c0 = optional::<E>("c0", arguments.c0)?;
    let lengths: Option<PyReadonlyArray<i64, Ix1>> = arguments
        .lengths
        .map(|lengths| borrow("lengths", lengths))
        .transpose()?;
    let lengths = lengths.map(|lengths| lengths.as_array().to_vec());
    let (h0, c0) = (
        h0.as_ref().map(|state| state.as_array()),
        c0.as_ref().map(|state| state.as_array()),
    );
    let inputs = Inputs {
        x: rows_of(&x, batch_first),
        h0,
        c0,
        lengths: lengths.as_deref(),
    };
    let axes = axes_of(batch_first);
    let has_memory = config.cell.signature().has_memory();
    let (tape, output, hidden, memory) = py.detach(|| {
        let model = model.read()?;
        let mut tape = model.forward_for(model.own(), inputs, axes, keep, seed)?;
        let [of_hidden, of_memory] = config.states_shapes(tape.batch());
        let mut hidden = model.room(of_hidden.iter().product());
        let mut memory = has_memory.then(|| model.room(of_memory.iter().product()));
        let to = maybe_state_mut(of_memory, &mut memory)?;
        model.states(&tape, state_mut(of_hidden, &mut hidden)?, to)?;
        let output = model.take_output(&mut tape)?;
        crate::Result::Ok((tape, output, hidden, memory))
    })?;

    let (total, batch) = (tape.total(), tape.batch());
    let width = config.directions() * config.state_size(0);
    let dims = if batch_first {
        [batch, total, width]
    } else {
        [total, batch, width]
    };
    let states = config.states_shapes(batch);
    let output = handed(py, output, dims)?.into_any();
    let lent = match keep {
        Keep::Inside => {
            output.getattr("flags")?.setattr("writeable", false)?;
            let output = tape.gave_output().then(|| own_view(&output));
            Some((own_view(arguments.x)?, output.transpose()?))
        }
        _ => None,
    };
    Ok((
        output,
        handed(py, hidden, states[0])?.into_any(),
        optional_state(py, memory, states[1])?,
        (keep != Keep::Nothing).then(|| PyTape {
            inner: E::wrap(tape),
            batch_first,
            lent: Mutex::new(lent),
        }),
    ))
}

/// The rows of an array that has the caller's axes.
fn rows_of<'a, E: Held>(array: &'a PyReadonlyArray<E, Ix3>, batch_first: bool) -> Rows<'a, E> {
    let mut array = array.as_array();
    if batch_first {
        array.swap_axes(0, 1);
    }
    array.into()
}

/// A view that nobody else has: its shape stays what it is.
fn own_view(array: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    Ok(array.call_method0("view")?.unbind())
}

fn backward<'py, E: Held>(
    py: Python<'py>,
    model: &Guarded<Recurrent<E>>,
    (config, layout): (&Config, &Layout),
    tape: &PyTape,
    d_output: Option<&Bound<'py, PyAny>>,
    d_h: Option<&Bound<'py, PyAny>>,
    d_c: Option<&Bound<'py, PyAny>>,
) -> PyResult<Found<'py>> {
    let batch_first = tape.batch_first;
    let lent = &tape.lent;
    let Some(tape) = E::unwrap(&tape.inner) else {
        return Err(PyTypeError::new_err(format!(
            "tape: expected a tape of a {} stack, got one of another dtype",
            E::NAME
        )));
    };
    let dy = optional::<E>("d_output", d_output)?;
    let dh = optional::<E>("d_h", d_h)?;
    let dc = optional::<E>("d_c", d_c)?;
    let (x, output) = match &*lent.lock().unwrap_or_else(PoisonError::into_inner) {
        Some((x, output)) => (
            Some(borrow("x", x.bind(py))?),
            optional("output", output.as_ref().map(|output| output.bind(py)))?,
        ),
        None => (None, None),
    };
    let outside = Outside {
        x: x.as_ref().map(|x| rows_of(x, batch_first)),
        output: output.as_ref().map(|output| rows_of(output, batch_first)),
        d_output: dy.as_ref().map(|dy| rows_of(dy, batch_first)),
    };
    let (dh, dc) = (
        dh.as_ref().map(|dh| dh.as_array()),
        dc.as_ref().map(|dc| dc.as_array()),
    );
    let has_memory = config.cell.signature().has_memory();
    let (total, batch, found, dx, dh0, dc0) = py.detach(|| {
        let mut tape = tape.lock().unwrap_or_else(PoisonError::into_inner);
        let model = model.read()?;
        let mut found = model.backward_for(model.own(), &mut tape, outside, (dh, dc), Want::ALL)?;
        let dx = model.take_dx(&mut found)?;
        let [of_hidden, of_memory] = config.states_shapes(tape.batch());
        let mut dh0 = model.room(of_hidden.iter().product());
        let mut dc0 = has_memory.then(|| model.room(of_memory.iter().product()));
        let to = maybe_state_mut(of_memory, &mut dc0)?;
        model.read_gradients(&found, None, Some(state_mut(of_hidden, &mut dh0)?), to)?;
        crate::Result::Ok((tape.total(), tape.batch(), found, dx, dh0, dc0))
    })?;
    let _read = lent.lock().unwrap_or_else(PoisonError::into_inner).take();
    let dims = if batch_first {
        [batch, total, config.input_size]
    } else {
        [total, batch, config.input_size]
    };
    let states = config.states_shapes(batch);
    let dx = match dx {
        Some(dx) => handed(py, dx, dims)?.into_any(),
        None => py.None().into_bound(py),
    };
    let weights = found.take_weights();
    let flat = [weights.len()];
    Ok((
        dx,
        handed(py, dh0, states[0])?.into_any(),
        optional_state(py, dc0, states[1])?,
        to_dict(py, layout, &handed(py, weights, flat)?)?,
    ))
}

/// A state that not every cell has.
fn optional_state<'py, E: Held>(
    py: Python<'py>,
    numbers: Option<Buffer<E>>,
    shape: [usize; 3],
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let numbers = numbers.map(|numbers| handed(py, numbers, shape));
    Ok(numbers.transpose()?.map(Bound::into_any))
}

fn axes_of(batch_first: bool) -> Axes {
    if batch_first {
        Axes::Sequences
    } else {
        Axes::Steps
    }
}

fn set_parameters<E: Held>(
    py: Python<'_>,
    model: &Guarded<Recurrent<E>>,
    layout: &Layout,
    parameters: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let values = from_dict("parameters", layout, parameters)?;
    py.detach(|| {
        model.write()?.update(|weights| {
            weights.copy_from_slice(&values);
            Ok(())
        })
    })?;
    Ok(())
}

fn apply_gradients<E: Held>(
    py: Python<'_>,
    model: &Guarded<Recurrent<E>>,
    layout: &Layout,
    gradients: &Bound<'_, PyDict>,
    optimizer: &PyOptimizer,
) -> PyResult<f64> {
    let gradients: Vec<E> = from_dict("grads", layout, gradients)?;
    let settings = optimizer.settings();
    Ok(py.detach(|| {
        // In the order of training.
        let mut states = optimizer.states()?;
        let mut model = model.write()?;
        let state = E::state_of(&mut states, model.id());
        let isa = model.isa();
        model.update(|weights| settings.step_by(isa, weights, &gradients, state))
    })?)
}

#[pymethods]
impl PyStack {
    #[new]
    #[pyo3(signature = (cell, input_size, hidden_size, num_layers, bias, dropout,
        locked_dropout, bidirectional, proj_size, dtype))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn new(
        cell: &str,
        input_size: usize,
        hidden_size: usize,
        num_layers: usize,
        bias: bool,
        dropout: f64,
        locked_dropout: bool,
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
            dropout,
            locked_dropout,
            proj_size,
        };
        let single = choose("dtype", dtype, &[("float32", true), ("float64", false)])?;
        let (inner, layout) = if single {
            let model = Recurrent::new(config.clone())?;
            let layout = model.layout().clone();
            (Either::F32(Guarded::new("the layer", model)), layout)
        } else {
            let model = Recurrent::new(config.clone())?;
            let layout = model.layout().clone();
            (Either::F64(Guarded::new("the layer", model)), layout)
        };
        Ok(PyStack {
            inner,
            config,
            layout,
        })
    }

    fn parameter_shapes<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Vec<(String, Bound<'py, PyTuple>)>> {
        shapes(py, &self.layout)
    }

    fn parameters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        dispatch!(self.inner, model => {
            let weights = py.detach(|| crate::Result::Ok(model.read()?.weights().to_vec()))?;
            to_dict(py, &self.layout, &PyArray::from_vec(py, weights))
        })
    }

    fn set_parameters(&self, py: Python<'_>, parameters: &Bound<'_, PyDict>) -> PyResult<()> {
        dispatch!(self.inner, model => set_parameters(py, model, &self.layout, parameters))
    }

    fn apply_gradients(
        &self,
        py: Python<'_>,
        grads: &Bound<'_, PyDict>,
        optimizer: &Bound<'_, PyOptimizer>,
    ) -> PyResult<f64> {
        let optimizer = optimizer.get();
        dispatch!(self.inner, model => apply_gradients(py, model, &self.layout, grads, optimizer))
    }

    /// With `keep`, a tape for `backward`, which has copies of the input and the output with `copy`.
    #[pyo3(signature = (x, h0, c0, lengths, batch_first, keep, copy, seed))]
    #[expect(clippy::too_many_arguments, reason = "the signature is Python's")]
    fn forward<'py>(
        &self,
        py: Python<'py>,
        x: &Bound<'py, PyAny>,
        h0: Option<&Bound<'py, PyAny>>,
        c0: Option<&Bound<'py, PyAny>>,
        lengths: Option<&Bound<'py, PyAny>>,
        batch_first: bool,
        keep: bool,
        copy: bool,
        seed: Option<u64>,
    ) -> PyResult<Outputs<'py>> {
        let arguments = Arguments { x, h0, c0, lengths };
        let keep = match (keep, copy) {
            (false, _) => Keep::Nothing,
            (true, false) => Keep::Inside,
            (true, true) => Keep::All,
        };
        let how = (batch_first, keep, seed);
        dispatch!(self.inner, model => forward(py, model, &self.config, arguments, how))
    }

    #[pyo3(signature = (tape, d_output, d_h, d_c))]
    fn backward<'py>(
        &self,
        py: Python<'py>,
        tape: &Bound<'py, PyTape>,
        d_output: Option<&Bound<'py, PyAny>>,
        d_h: Option<&Bound<'py, PyAny>>,
        d_c: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Found<'py>> {
        let tape = tape.get();
        let shape = (&self.config, &self.layout);
        dispatch!(self.inner, model => backward(py, model, shape, tape, d_output, d_h, d_c))
    }
}
