//! What a call of a `Functional` is given, as the crate takes it.

use ndarray::{ArrayView3, ArrayViewD, Ix1};
use pyo3::prelude::*;

use super::dlpack::{Exchange, Held, Scalar};
use super::form::{Form, lengths_of};
use crate::boundary::Rows;
use crate::params::{Layout, check_room};
use crate::sequence::Element;
use crate::stack::Config;

/// The tensors of a call.
pub(super) struct Tensors<'py> {
    pub weights: Vec<Held<'py>>,
    pub x: Held<'py>,
    pub h0: Held<'py>,
    pub c0: Option<Held<'py>>,
    pub counts: Option<Held<'py>>,
}

/// An object that may be there.
type Maybe<'a, 'py> = Option<&'a Bound<'py, PyAny>>;

/// The tensor of what may be there; None if it is there and cannot be read.
fn hold<'py>(exchange: &Exchange, object: Maybe<'_, 'py>) -> Option<Option<Held<'py>>> {
    match object {
        Some(object) => exchange.hold(object).map(Some),
        None => Some(None),
    }
}

/// All tensors; None if one cannot be read.
fn hold_all<'py>(exchange: &Exchange, objects: &[Bound<'py, PyAny>]) -> Option<Vec<Held<'py>>> {
    objects.iter().map(|object| exchange.hold(object)).collect()
}

impl<'py> Tensors<'py> {
    /// None if one of them cannot be read.
    pub fn hold(
        exchange: &Exchange,
        weights: &[Bound<'py, PyAny>],
        x: &Bound<'py, PyAny>,
        (h0, c0): (&Bound<'py, PyAny>, Maybe<'_, 'py>),
        counts: Maybe<'_, 'py>,
    ) -> Option<Self> {
        Some(Tensors {
            weights: hold_all(exchange, weights)?,
            x: exchange.hold(x)?,
            h0: exchange.hold(h0)?,
            c0: hold(exchange, c0)?,
            counts: hold(exchange, counts)?,
        })
    }
}

/// The rest of a call.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub batch_first: bool,
    pub is_single: bool,
    pub keep: bool,
    pub n_threads: usize,
}

/// What a call was given, if it is what the stack computes.
pub(super) struct Given<'a, E> {
    pub form: Form,
    pub batch: usize,
    pub weights: Vec<ArrayViewD<'a, E>>,
    pub x: Rows<'a, E>,
    pub h0: ArrayView3<'a, E>,
    pub c0: Option<ArrayView3<'a, E>>,
    pub lengths: Option<Vec<i64>>,
}

impl<'a, E: Element + Scalar> Given<'a, E> {
    /// None if it is something else.
    pub fn read(
        tensors: &'a Tensors<'_>,
        how: How,
        (config, layout): (&Config, &Layout),
    ) -> Option<Self> {
        let x = tensors.x.view::<E>()?;
        let packed = tensors.counts.is_some();
        let form = Form::of(x.ndim(), packed, how.batch_first, how.is_single)?;
        let x = form.rows(x)?;
        let h0 = form.state(tensors.h0.view::<E>()?)?;
        let c0 = match &tensors.c0 {
            Some(c0) => Some(form.state(c0.view::<E>()?)?),
            None => None,
        };
        let batch = h0.shape()[1];
        // A tensor may be expanded to more rows than there is memory for.
        check_room::<E>(batch, "lengths").ok()?;
        let lengths = match &tensors.counts {
            Some(counts) => {
                let counts = counts.view::<i64>()?.into_dimensionality::<Ix1>().ok()?;
                Some(lengths_of(&counts.to_vec(), batch, x.shape()[0])?)
            }
            None if form == Form::Single => Some(vec![1; batch]),
            None => None,
        };
        let weights = tensors.weights.iter().map(Held::view);
        let weights = weights.collect::<Option<Vec<_>>>()?;
        let [hidden, memory] = config.states_shapes(batch);
        let fits = x.shape().last() == Some(&config.input_size)
            && (lengths.is_some() || x.shape()[1] == batch)
            && (form != Form::Single || x.shape()[0] == batch)
            && h0.shape() == hidden
            && c0.is_some() == config.cell.signature().has_memory()
            && c0.is_none_or(|c0| c0.shape() == memory)
            && are_shaped(&weights, layout);
        fits.then_some(Given {
            form,
            batch,
            weights,
            x,
            h0,
            c0,
            lengths,
        })
    }

    /// How many steps there are.
    pub fn steps(&self) -> Option<usize> {
        match &self.lengths {
            Some(lengths) => lengths.iter().max()?.to_owned().try_into().ok(),
            None => Some(self.x.shape()[0]),
        }
    }
}

/// The tensors of a call back.
pub(super) struct Returned<'py> {
    x: Held<'py>,
    /// Of the output and of the final states.
    slopes: [Option<Held<'py>>; 3],
    weights: Option<Vec<Held<'py>>>,
}

impl<'py> Returned<'py> {
    /// None if one of them cannot be read.
    pub fn hold(
        exchange: &Exchange,
        x: &Bound<'py, PyAny>,
        [dy, dh, dc]: [Maybe<'_, 'py>; 3],
        weights: Option<&[Bound<'py, PyAny>]>,
    ) -> Option<Self> {
        let weights = match weights {
            Some(weights) => Some(hold_all(exchange, weights)?),
            None => None,
        };
        let slopes = [
            hold(exchange, dy)?,
            hold(exchange, dh)?,
            hold(exchange, dc)?,
        ];
        Some(Returned {
            x: exchange.hold(x)?,
            slopes,
            weights,
        })
    }
}

/// What a call back was given, if it is of the stack's type and form.
pub(super) struct Slopes<'a, E> {
    pub x: Rows<'a, E>,
    pub dy: Option<Rows<'a, E>>,
    pub dh: Option<ArrayView3<'a, E>>,
    pub dc: Option<ArrayView3<'a, E>>,
    /// Forward's weights, where these were lent.
    pub lent: Option<Vec<&'a [E]>>,
}

impl<'a, E: Element + Scalar> Slopes<'a, E> {
    /// None if it is something else.
    pub fn read(tensors: &'a Returned<'_>, form: Form, layout: &Layout) -> Option<Self> {
        let [dy, dh, dc] = &tensors.slopes;
        let state = |slope: &'a Option<Held<'_>>| match slope {
            Some(slope) => Some(Some(form.state(slope.view::<E>()?)?)),
            None => Some(None),
        };
        let lent = match &tensors.weights {
            Some(weights) => {
                let views = weights.iter().map(Held::view).collect::<Option<Vec<_>>>()?;
                Some(slices(&views).filter(|_| are_shaped(&views, layout))?)
            }
            None => None,
        };
        Some(Slopes {
            x: form.rows(tensors.x.view::<E>()?)?,
            dy: match dy {
                Some(dy) => Some(form.rows(dy.view::<E>()?)?),
                None => None,
            },
            dh: state(dh)?,
            dc: state(dc)?,
            lent,
        })
    }
}

/// Whether weights are all there, each of its shape.
fn are_shaped<E>(weights: &[ArrayViewD<E>], layout: &Layout) -> bool {
    let shapes = layout.entries().iter().map(|entry| &entry.shape[..]);
    shapes.eq(weights.iter().map(|weight| weight.shape()))
}

/// The weights where they are, if each has its numbers side by side.
pub(super) fn slices<'a, E>(weights: &[ArrayViewD<'a, E>]) -> Option<Vec<&'a [E]>> {
    weights.iter().map(|weight| weight.to_slice()).collect()
}
