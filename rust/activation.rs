//! Activations over vectors, and their derivatives expressed through their outputs.
//!
//! Errors stay under these bounds over the whole range, in units in the last place of `f32` and
//! `f64` alike and on every instruction set: [`exp`] 1.05, [`sigmoid`] 2.55, [`tanh`] 2.55,
//! [`softsign`] 1.55. Results beneath the least normal number may be flushed to zero. Infinities
//! give their limits, no value leaves its function's range, and NaN gives NaN.

use crate::simd::{Real, Vector};

/// s x = n ln 2 + s r with |r| <= ln(2)/2, where the sign s is 1 or -1: returns (s (e^sr - 1), n).
///
/// Cody and Waite's reduction in two constants. Leaving out the 1 keeps e^r - 1 exact to the
/// last bits near 0, which is what makes [`tanh`] exact there. The sign is in the constants alone.
#[inline(always)]
fn exp_parts<V: Vector>(x: V, sign: f64) -> (V, V) {
    let signed = |c: V::Element| x.fill(sign * c.to_f64());
    let n = x.mul(signed(V::Element::LOG2_E)).round();
    let r = x
        .sub_product(n, signed(V::Element::LN_2_HIGH))
        .sub_product(n, signed(V::Element::LN_2_LOW));
    let coefficients = V::Element::EXP_POLYNOMIAL;
    let mut p = x.fill(0.0);
    for (i, &c) in coefficients.iter().enumerate() {
        // s c of even powers of r, c of odd ones.
        let c = match (coefficients.len() - i) % 2 {
            0 => x.fill(c.to_f64()),
            _ => signed(c),
        };
        p = if i == 0 { c } else { c.add_product(p, r) };
    }
    (r.add_product(r.mul(r), p), n)
}

/// x within bounds beyond which both e^x and e^-x are infinite or not even subnormal.
#[inline(always)]
fn bounded<V: Vector>(x: V) -> V {
    let bound = V::Element::EXP_MAX.to_f64() + 41.0;
    // The bounds come first, so that NaN, as the second operand, passes.
    x.fill(bound).min(x.fill(-bound).max(x))
}

/// e^x.
#[inline(always)]
pub fn exp<V: Vector>(x: V) -> V {
    let (p, n) = exp_parts(bounded(x), 1.0);
    p.add(x.fill(1.0)).scale(n)
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub fn sigmoid<V: Vector>(x: V) -> V {
    let one = x.fill(1.0);
    let (p, n) = exp_parts(bounded(x), -1.0);
    one.div(one.add(one.sub(p).scale(n)))
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
    let (p, n) = exp_parts(x.add(x), 1.0);
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
