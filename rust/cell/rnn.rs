//! The simple (Elman) recurrent cell, torch.nn.RNN's equation:
//!
//! ```text
//! h' = f(W_ih x + b_ih + W_hh h + b_hh)        f: see [`Nonlinearity`](super::Nonlinearity)
//! ```
//!
//! and its residual form, in which a step adds to the state instead of replacing it:
//!
//! ```text
//! h' = f(W_ih x + b_ih + W_hh h + b_hh) + h
//! ```
//!
//! Saved for backward: f's value, from which its derivative follows, where it is not h' itself.

use std::marker::PhantomData;

use super::{Carry, Cell, Feed, Forward, MAX_SLOTS, Signature, Upstream};
use crate::activation::{
    leaky_relu, leaky_relu_slope, relu, sigmoid, sigmoid_slope, softsign, softsign_slope, tanh,
    tanh_slope,
};
use crate::simd::Vector;

/// The nonlinearity of a simple recurrent cell.
pub trait Function: Send + Sync + 'static {
    /// Whether f(0) = 0.
    const ZERO_AT_ZERO: bool = true;
    /// f(a)
    fn apply<V: Vector>(a: V) -> V;
    /// dy · f'(a), where y = f(a).
    fn gradient<V: Vector>(y: V, dy: V) -> V;
}

/// Hyperbolic tangent.
pub struct Tanh;

impl Function for Tanh {
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

impl Function for Relu {
    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        relu(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.where_positive(y)
    }
}

/// a, or a / 100 below 0 and there.
pub struct LeakyRelu;

impl Function for LeakyRelu {
    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        leaky_relu(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.mul(leaky_relu_slope(y))
    }
}

/// a / (1 + |a|)
pub struct Softsign;

impl Function for Softsign {
    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        softsign(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.mul(softsign_slope(y))
    }
}

/// 1 / (1 + e^-a)
pub struct Sigmoid;

impl Function for Sigmoid {
    const ZERO_AT_ZERO: bool = false;

    #[inline(always)]
    fn apply<V: Vector>(a: V) -> V {
        sigmoid(a)
    }
    #[inline(always)]
    fn gradient<V: Vector>(y: V, dy: V) -> V {
        dy.mul(sigmoid_slope(y))
    }
}

/// The shape of a cell with nonlinearity `F`.
pub(super) fn signature<F: Function>(residual: bool) -> Signature {
    if residual {
        Rnn::<F, true>::SIGNATURE
    } else {
        Rnn::<F, false>::SIGNATURE
    }
}

/// A simple recurrent cell with nonlinearity `F`.
pub struct Rnn<F, const RESIDUAL: bool>(PhantomData<F>);

impl<F: Function, const RESIDUAL: bool> Cell for Rnn<F, RESIDUAL> {
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
        saved: if RESIDUAL { 1 } else { 0 },
        carry: if RESIDUAL { Carry::Hidden } else { Carry::None },
        reads_previous: RESIDUAL,
        reads_output: !RESIDUAL,
        rests_at_zero: F::ZERO_AT_ZERO,
    };

    #[inline(always)]
    fn state<V: Vector>(gates: [V; MAX_SLOTS], _memory: V, h_before: V) -> Forward<V> {
        let y = F::apply(gates[0]);
        let h = if RESIDUAL { y.add(h_before) } else { y };
        Forward {
            h,
            saved: [y; MAX_SLOTS],
        }
    }

    #[inline(always)]
    fn backward<V: Vector>(up: Upstream<V>) -> ([V; MAX_SLOTS], V) {
        // h' is reached from above, through the next step's products and through what it adds to.
        let (y, dh) = match RESIDUAL {
            true => (up.saved[0], up.dh.add(up.carry)),
            false => (up.h, up.dh),
        };
        ([F::gradient(y, dh); MAX_SLOTS], dh)
    }
}
