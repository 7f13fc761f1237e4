//! Activations over vectors, and their derivatives expressed through their outputs.
//!
//! The worst errors that the tests find over the whole range, in units in the last place of `f32`
//! and `f64` alike and on every instruction set: [`exp`] 1.01, [`sigmoid`] 2.5, [`tanh`] 2.5, [`softsign`] 1.5.
//! Results beneath the least normal number may be flushed to zero. Infinities give their limits,
//! no value leaves its function's range, and NaN gives NaN.

use crate::simd::{Real, Vector};

/// x = n ln 2 + r with |r| <= ln(2)/2: returns (e^r - 1, n).
///
/// Cody and Waite's reduction in two constants. Leaving out the 1 keeps e^r - 1 exact to the
/// last bits near 0, which is what makes [`tanh`] exact there.
#[inline(always)]
fn exp_parts<V: Vector>(x: V) -> (V, V) {
    let constant = |c: V::Element| x.fill(c.to_f64());
    let n = x.mul(constant(V::Element::LOG2_E)).round();
    let r = x
        .sub_product(n, constant(V::Element::LN_2_HIGH))
        .sub_product(n, constant(V::Element::LN_2_LOW));
    let mut p = constant(V::Element::EXP_POLYNOMIAL[0]);
    for &c in &V::Element::EXP_POLYNOMIAL[1..] {
        p = constant(c).add_product(p, r);
    }
    (r.add_product(r.mul(r), p), n)
}

/// e^x.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let bound = V::Element::EXP_MAX.to_f64() + 1.0;
    // From the lower bound on not even a subnormal is left. The bounds come first, so that NaN, as
    // the second operand, passes.
    let x = x.fill(bound).min(x.fill(-bound - 40.0).max(x));
    let (p, n) = exp_parts(x);
    p.add(x.fill(1.0)).scale(n)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    let one = x.fill(1.0);
    one.div(one.add(exp(x.fill(0.0).sub(x))))
}

/// d sigmoid / dx where its value is `y`: y (1 - y).
#[inline(always)]
pub fn sigmoid_slope<V: Vector>(y: V) -> V {
    y.sub_product(y, y)
}

/// tanh x = (e^2x - 1) / (e^2x + 1).
#[inline(always)]
pub fn tanh<V: Vector>(x: V) -> V {
    let bound = V::Element::TANH_MAX.to_f64();
    let x = x.fill(bound).min(x.fill(-bound).max(x));
    let (p, n) = exp_parts(x.add(x));
    let power = x.fill(1.0).scale(n);
    // e^2x - 1 = 2^n (e^r - 1) + (2^n - 1)
    let e = power.sub(x.fill(1.0)).add_product(power, p);
    e.div(e.add(x.fill(2.0)))
}

/// d tanh / dx where its value is `y`: 1 - y^2.
#[inline(always)]
pub fn tanh_slope<V: Vector>(y: V) -> V {
    y.fill(1.0).sub_product(y, y)
}

/// max(x, 0)
#[inline(always)]
pub fn relu<V: Vector>(x: V) -> V {
    x.fill(0.0).max(x)
}

/// What [`leaky_relu`] multiplies numbers below 0 by: torch's default.
const LEAK: f64 = 0.01;

/// x, or 0.01 x below 0.
#[inline(always)]
pub fn leaky_relu<V: Vector>(x: V) -> V {
    x.max(x.mul(x.fill(LEAK)))
}

/// d leaky_relu / dx where its value is `y`: 1, or 0.01 up to 0.
#[inline(always)]
pub fn leaky_relu_slope<V: Vector>(y: V) -> V {
    y.fill(1.0).where_positive(y).max(y.fill(LEAK))
}

/// |x|
#[inline(always)]
fn abs<V: Vector>(x: V) -> V {
    x.max(x.fill(0.0).sub(x))
}

/// x / (1 + |x|).
#[inline(always)]
pub fn softsign<V: Vector>(x: V) -> V {
    // From this bound on the value is 1.
    let bound = 1e30;
    let x = x.fill(bound).min(x.fill(-bound).max(x));
    x.div(x.fill(1.0).add(abs(x)))
}

/// d softsign / dx where its value is `y`: (1 - |y|)^2.
#[inline(always)]
pub fn softsign_slope<V: Vector>(y: V) -> V {
    let rest = y.fill(1.0).sub(abs(y));
    rest.mul(rest)
}

#[cfg(test)]
mod tests;
