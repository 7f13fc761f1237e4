//! Optimizers: one update of a flat buffer of weights from its gradients.
//!
//! The formulas are those of `torch.optim.SGD` and `torch.optim.Adam` (PyTorch 2 documentation),
//! with g the gradient after clipping, lambda the weight decay and t the number of this update,
//! from 1:
//!
//! ```text
//! g <- g + lambda w
//!
//! SGD    without momentum:  w <- w - lr g
//!        b <- g                            (t = 1)
//!        b <- mu b + (1 - dampening) g     (t > 1)
//!        w <- w - lr b                     or, Nesterov,  w <- w - lr (g + mu b)
//!
//! Adam   m <- m + (1 - beta1) (g - m)
//!        v <- beta2 v + (1 - beta2) g^2
//!        w <- w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//!
//! Adam is of Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015).
//!
//! Clipping comes first, in the order in which a torch loop calls it: `clip_grad_norm_`, which
//! scales all gradients by `min(1, clip_norm / (norm + 1e-6))`, then `clip_grad_value_`.
//!
//! An update that would leave a weight or the state not finite is not made. It is computed twice
//! for that, the first time to look only: it reads four streams and divides twice an element, which
//! is little beside the backward pass, and needs no second copy of anything.

use crate::error::{Error, Result};
use crate::reduce::reduce;
use crate::simd::Real;

/// What torch adds to the norm before it divides by it.
const NORM_EPSILON: f64 = 1e-6;

/// How a gradient becomes a change of a weight.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// Stochastic gradient descent, `torch.optim.SGD`.
    Sgd {
        /// mu, at least 0.
        momentum: f64,
        /// How much of a gradient is kept out of the momentum buffer; 0 by default.
        dampening: f64,
        /// Look one step ahead along the momentum; needs momentum, and no dampening.
        nesterov: bool,
    },
    /// `torch.optim.Adam`.
    Adam {
        /// Decay of the running mean of gradients, in \[0, 1).
        beta1: f64,
        /// Decay of the running mean of squared gradients, in \[0, 1).
        beta2: f64,
        /// Added to the denominator, at least 0.
        eps: f64,
    },
}

/// A rule with its settings. What it remembers from one update to the next is its [`State`].
#[derive(Clone, Debug, PartialEq)]
pub struct Optimizer {
    /// How a gradient becomes a change.
    pub rule: Rule,
    /// lr, at least 0.
    pub learning_rate: f64,
    /// lambda, at least 0.
    pub weight_decay: f64,
    /// The largest L2 norm of all gradients together, above 0.
    pub clip_norm: Option<f64>,
    /// The largest absolute value of a gradient, above 0.
    pub clip_value: Option<f64>,
}

/// What an [`Optimizer`] remembers about one set of weights.
#[derive(Clone, Debug, Default)]
pub struct State<E> {
    /// SGD with momentum: b. Adam: m, v. Each as long as the weights, in their order; empty before
    /// the first update.
    buffers: Vec<Vec<E>>,
    /// Updates made.
    steps: u64,
}

impl Optimizer {
    /// An optimizer whose settings are valid.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] naming the first setting outside its range.
    pub fn new(
        rule: Rule,
        learning_rate: f64,
        weight_decay: f64,
        clip_norm: Option<f64>,
        clip_value: Option<f64>,
    ) -> Result<Self> {
        let optimizer = Self {
            rule,
            learning_rate,
            weight_decay,
            clip_norm,
            clip_value,
        };
        optimizer.validate()?;
        Ok(optimizer)
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] naming the first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        match self.rule {
            Rule::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                at_least_zero("momentum", momentum)?;
                check(
                    "dampening",
                    dampening,
                    "a finite number",
                    dampening.is_finite(),
                )?;
                if nesterov {
                    let expected = "a number > 0 with nesterov";
                    check("momentum", momentum, expected, momentum > 0.0)?;
                    check("dampening", dampening, "0 with nesterov", dampening == 0.0)?;
                }
            }
            Rule::Adam { beta1, beta2, eps } => {
                let decay = 0.0..1.0;
                check("beta1", beta1, "a number in [0, 1)", decay.contains(&beta1))?;
                check("beta2", beta2, "a number in [0, 1)", decay.contains(&beta2))?;
                at_least_zero("eps", eps)?;
            }
        }
        at_least_zero("weight_decay", self.weight_decay)?;
        for (argument, limit) in [
            ("clip_norm", self.clip_norm),
            ("clip_value", self.clip_value),
        ] {
            if let Some(limit) = limit {
                check(argument, limit, "a number > 0", limit > 0.0)?;
            }
        }
        Ok(())
    }

    /// Updates `weights` once, and returns the L2 norm of `gradients` as they came.
    ///
    /// `gradients` are in the order of `weights`, and stay as they are. `state` starts as
    /// `State::default()` and belongs to these weights.
    ///
    /// # Errors
    ///
    /// [`Error::NotFinite`] when the norm of the gradients, or a weight or the state after the
    /// update, is not finite; [`Error::Shape`] when the three differ in length; [`Error::Value`]
    /// when `state` is of another rule. Then neither `weights` nor `state` has changed.
    pub fn step<E: Real>(
        &self,
        weights: &mut [E],
        gradients: &[E],
        state: &mut State<E>,
    ) -> Result<f64> {
        if gradients.len() != weights.len() {
            return Err(Error::shape(
                "gradients",
                format!("({},)", weights.len()),
                format!("({},)", gradients.len()),
            ));
        }
        let norm = norm(gradients);
        if !norm.is_finite() {
            return Err(not_finite("the norm of the gradients"));
        }
        let clip = self.clip(norm);
        let number = |x: f64| E::from_f64(x);
        let (rate, decay) = (number(self.learning_rate), number(self.weight_decay));
        let first = state.steps == 0;
        match self.rule {
            Rule::Sgd { momentum: 0.0, .. } => {
                let [] = state.buffers(weights.len())?;
                update(weights, gradients, [], |w, g, []| {
                    (w - rate * (clip(g) + decay * w), [])
                })
            }
            Rule::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                let mu = number(momentum);
                let fresh = number(if first { 1.0 } else { 1.0 - dampening });
                // What of g is added to mu b or b: g + mu b with Nesterov, else b alone.
                let (ahead, along) = if nesterov {
                    (E::ONE, mu)
                } else {
                    (E::ZERO, E::ONE)
                };
                let buffers = state.buffers(weights.len())?;
                update(weights, gradients, buffers, |w, g, [b]| {
                    let g = clip(g) + decay * w;
                    let b = mu * b + fresh * g;
                    (w - rate * (ahead * g + along * b), [b])
                })
            }
            Rule::Adam { beta1, beta2, eps } => {
                let t = (state.steps + 1) as f64;
                let (rest1, rest2) = (number(1.0 - beta1), number(1.0 - beta2));
                let (beta2_t, eps) = (number(beta2), number(eps));
                let rate = number(self.learning_rate / (1.0 - beta1.powf(t)));
                let correction = number((1.0 - beta2.powf(t)).sqrt());
                let buffers = state.buffers(weights.len())?;
                update(weights, gradients, buffers, |w, g, [m, v]| {
                    let g = clip(g) + decay * w;
                    let m = m + rest1 * (g - m);
                    let v = beta2_t * v + rest2 * (g * g);
                    (w - rate * (m / (v.sqrt() / correction + eps)), [m, v])
                })
            }
        }?;
        state.steps += 1;
        Ok(norm)
    }

    /// The function that clips one gradient, for gradients of that norm.
    fn clip<E: Real>(&self, norm: f64) -> impl Fn(E) -> E + Copy + use<E> {
        let coefficient = match self.clip_norm {
            Some(limit) => (limit / (norm + NORM_EPSILON)).min(1.0),
            None => 1.0,
        };
        let coefficient = E::from_f64(coefficient);
        let limit = E::from_f64(self.clip_value.unwrap_or(f64::INFINITY));
        move |g| {
            let g = coefficient * g;
            let g = if g > limit { limit } else { g };
            if g < -limit { -limit } else { g }
        }
    }
}

impl<E: Real> State<E> {
    /// The `N` buffers of `len` numbers that a rule needs, zeros before the first update.
    fn buffers<const N: usize>(&mut self, len: usize) -> Result<[&mut [E]; N]> {
        if self.steps == 0 {
            self.buffers = vec![vec![E::ZERO; len]; N];
        }
        if let Some(buffer) = self.buffers.iter().find(|buffer| buffer.len() != len) {
            return Err(Error::shape(
                "weights",
                format!("({},), as in the updates before", buffer.len()),
                format!("({len},)"),
            ));
        }
        let found = self.buffers.len();
        let buffers: Vec<_> = self.buffers.iter_mut().map(Vec::as_mut_slice).collect();
        buffers.try_into().map_err(|_| {
            Error::value(
                "state",
                format!("{N} buffers"),
                format!("{found}, of another rule"),
            )
        })
    }
}

/// Replaces each weight and its `N` numbers of state by `new(weight, gradient, state)`, if all of
/// that is finite.
#[inline(always)]
fn update<E: Real, const N: usize>(
    weights: &mut [E],
    gradients: &[E],
    buffers: [&mut [E]; N],
    new: impl Fn(E, E, [E; N]) -> (E, [E; N]),
) -> Result<()> {
    let len = weights.len();
    let gradients = &gradients[..len];
    let buffers = buffers.map(|buffer| &mut buffer[..len]);
    let mut finite = true;
    for i in 0..len {
        let (w, state) = new(
            weights[i],
            gradients[i],
            std::array::from_fn(|k| buffers[k][i]),
        );
        // Not `&&`: without a branch the loop is vectorised.
        finite &= state
            .iter()
            .fold(w.is_finite(), |all, x| all & x.is_finite());
    }
    if !finite {
        return Err(not_finite("a weight after the update"));
    }
    for i in 0..len {
        let (w, state) = new(
            weights[i],
            gradients[i],
            std::array::from_fn(|k| buffers[k][i]),
        );
        weights[i] = w;
        for k in 0..N {
            buffers[k][i] = state[k];
        }
    }
    Ok(())
}

/// The L2 norm, in double precision and in an order that depends on the length alone.
fn norm<E: Real>(values: &[E]) -> f64 {
    let square = |sum, x: E| {
        let x = x.to_f64();
        sum + x * x
    };
    reduce(values, 0.0, square, |a, b| a + b).sqrt()
}

fn not_finite(what: &str) -> Error {
    Error::NotFinite { what: what.into() }
}

fn at_least_zero(argument: &str, value: f64) -> Result<()> {
    let valid = value >= 0.0 && value.is_finite();
    check(argument, value, "a finite number >= 0", valid)
}

fn check(argument: &str, value: f64, expected: &str, valid: bool) -> Result<()> {
    if valid {
        Ok(())
    } else {
        Err(Error::value(argument, expected, value))
    }
}

#[cfg(test)]
mod tests;
