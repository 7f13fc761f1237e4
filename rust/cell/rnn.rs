//! The simple (Elman) recurrent cell, torch.nn.RNN's equation:
//!
//! ```text
//! h' = f(W_ih x + b_ih + W_hh h + b_hh)        f = tanh or relu
//! ```
//!
//! Saved for backward: h', from which f's derivative follows.

use std::marker::PhantomData;

use super::{Carry, Cell, Feed, Forward, MAX_SLOTS, MAX_TRACE, Signature, Upstream};
use crate::activation::{relu, tanh, tanh_slope};
use crate::simd::Vector;

/// The nonlinearity of a simple recurrent cell.
pub trait Nonlinearity: Send + Sync + 'static {
    /// f(a)
    fn apply<V: Vector>(a: V) -> V;
    /// dy · f'(a), where y = f(a).
    fn gradient<V: Vector>(y: V, dy: V) -> V;
}

/// Hyperbolic tangent.
pub struct Tanh;

impl Nonlinearity for Tanh {
    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        tanh(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.mul(tanh_slope(y))
    }
}

/// max(a, 0), with derivative 0 at 0.
pub struct Relu;

impl Nonlinearity for Relu {
    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        relu(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.where_positive(y)
    }
}

/// A simple recurrent cell with nonlinearity `F`.
pub struct Rnn<F>(PhantomData<F>);

impl<F: Nonlinearity> Cell for Rnn<F> {
    const SIGNATURE: Signature = Signature {
        gates: 1,
        slots: 1,
        input: Feed {
            first: 0,
            gates: &[0],
        },
        state: Feed {
            first: 0,
            gates: &[0],
        },
        trace: 0,
        carry: Carry::None,
        reads_previous: false,
    };

    #[inline(always)]
    fn forward<V: Vector>(a: [V; MAX_SLOTS], _h_before: V, _memory_before: V) -> Forward<V> {
        let h = F::apply(a[0]);
        Forward {
            h,
            saved: [h; MAX_SLOTS],
            trace: [h; MAX_TRACE],
        }
    }

    #[inline(always)]
    fn backward<V: Vector>(up: Upstream<V>) -> ([V; MAX_SLOTS], V) {
        let da = F::gradient(up.saved[0], up.dh);
        ([da; MAX_SLOTS], up.carry)
    }
}
