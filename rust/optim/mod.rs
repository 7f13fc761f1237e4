//! Optimizers: one update of a flat buffer of weights from its gradients.
//!
//! The formulas are those of `torch.optim` (PyTorch 2 documentation), with g the gradient after
//! clipping, lambda the weight decay, t the number of this update, from 1, and l1 sign(w) being 0
//! at w = 0:
//!
//! ```text
//! g <- g + lambda w + l1 sign(w)             AdamW:  g <- g + l1 sign(w),  w <- w - lr lambda w
//!
//! SGD      without momentum:  w <- w - lr g
//!          b <- g                            (t = 1)
//!          b <- mu b + (1 - dampening) g     (t > 1)
//!          w <- w - lr b                     or, Nesterov,  w <- w - lr (g + mu b)
//!
//! Adam,    m <- m + (1 - beta1) (g - m)
//! AdamW    v <- beta2 v + (1 - beta2) g^2
//!          w <- w - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//!
//! RMSprop  v <- alpha v + (1 - alpha) g^2
//!          u <- g / (sqrt(v) + eps)          or, centered,
//!          a <- a + (1 - alpha) (g - a),  u <- g / (sqrt(v - a^2) + eps)
//!          w <- w - lr u                     or, with momentum,  b <- mu b + u,  w <- w - lr b
//!
//! Adagrad  v <- v + g^2                      from initial_accumulator on
//!          w <- w - lr / (1 + (t - 1) lr_decay) * g / (sqrt(v) + eps)
//! ```
//!
//! Adam is of Kingma and Ba, "Adam: a method for stochastic optimization" (ICLR 2015), AdamW of
//! Loshchilov and Hutter, "Decoupled weight decay regularization" (ICLR 2019), Adagrad of Duchi,
//! Hazan and Singer, "Adaptive subgradient methods" (JMLR 12, 2011).
//!
//! Clipping comes first, in the order in which a torch loop calls it: `clip_grad_norm_`, which
//! scales all gradients by `min(1, clip_norm / (norm + 1e-6))`, then `clip_grad_value_`.
//!
//! An update that would leave a weight or the state not finite is not made.

use std::mem::{self, Discriminant};

use crate::error::{Error, Result};
use crate::simd::{Isa, Real};
pub use state::State;
use update::{norm, not_finite, update};

mod state;
mod update;

/// What torch adds to the norm before it divides by it.
const NORM_EPSILON: f64 = 1e-6;

/// How a gradient becomes a change of a weight: see the module's page.
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
    /// `torch.optim.AdamW`: weight decay beside the gradient, not in it.
    AdamW {
        /// As Adam's.
        beta1: f64,
        /// As Adam's.
        beta2: f64,
        /// As Adam's.
        eps: f64,
    },
    /// `torch.optim.RMSprop`.
    RmsProp {
        /// Decay of the running mean of squared gradients, in \[0, 1).
        alpha: f64,
        /// Added to the denominator, at least 0.
        eps: f64,
        /// Divide by the standard deviation of the gradients, not by their mean square's root.
        centered: bool,
        /// mu, at least 0.
        momentum: f64,
    },
    /// `torch.optim.Adagrad`.
    Adagrad {
        /// How fast the learning rate goes down, at least 0.
        lr_decay: f64,
        /// What the sum of squared gradients begins as, at least 0.
        initial_accumulator: f64,
        /// Added to the denominator, at least 0.
        eps: f64,
    },
}

/// See [`Rule::kind`].
type Kind = (Discriminant<Rule>, bool);

impl Rule {
    /// What the numbers that it remembers mean: those of two settings of one kind are alike if they
    /// are as many.
    fn kind(self) -> Kind {
        let centered = matches!(self, Rule::RmsProp { centered: true, .. });
        (mem::discriminant(&self), centered)
    }

    /// How many numbers it remembers of a weight.
    fn buffers(self) -> usize {
        match self {
            Rule::Sgd { momentum, .. } => usize::from(momentum != 0.0),
            Rule::Adam { .. } | Rule::AdamW { .. } => 2,
            Rule::RmsProp {
                centered, momentum, ..
            } => 1 + usize::from(centered) + usize::from(momentum != 0.0),
            Rule::Adagrad { .. } => 1,
        }
    }

    /// Which of them is a sum or mean of squares.
    fn squares(self) -> Option<usize> {
        match self {
            Rule::Sgd { .. } => None,
            Rule::Adam { .. } | Rule::AdamW { .. } => Some(1),
            Rule::RmsProp { .. } | Rule::Adagrad { .. } => Some(0),
        }
    }

    /// What they are before the first update.
    fn initial(self) -> f64 {
        match self {
            Rule::Adagrad {
                initial_accumulator,
                ..
            } => initial_accumulator,
            _ => 0.0,
        }
    }

    fn validate(self) -> Result<()> {
        let decay = |argument, value| {
            let valid = (0.0..1.0).contains(&value);
            check(argument, value, "a number in [0, 1)", valid)
        };
        match self {
            Rule::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                at_least_zero("momentum", momentum)?;
                let valid = dampening.is_finite();
                check("dampening", dampening, "a finite number", valid)?;
                if nesterov {
                    let expected = "a number > 0 with nesterov";
                    check("momentum", momentum, expected, momentum > 0.0)?;
                    check("dampening", dampening, "0 with nesterov", dampening == 0.0)?;
                }
                Ok(())
            }
            Rule::Adam { beta1, beta2, eps } | Rule::AdamW { beta1, beta2, eps } => {
                decay("beta1", beta1)?;
                decay("beta2", beta2)?;
                at_least_zero("eps", eps)
            }
            Rule::RmsProp {
                alpha,
                eps,
                centered: _,
                momentum,
            } => {
                decay("alpha", alpha)?;
                at_least_zero("eps", eps)?;
                at_least_zero("momentum", momentum)
            }
            Rule::Adagrad {
                lr_decay,
                initial_accumulator,
                eps,
            } => {
                at_least_zero("lr_decay", lr_decay)?;
                at_least_zero("initial_accumulator", initial_accumulator)?;
                at_least_zero("eps", eps)
            }
        }
    }
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
    /// How much the absolute value of a weight costs, at least 0.
    pub l1: f64,
    /// The largest L2 norm of all gradients together, above 0.
    pub clip_norm: Option<f64>,
    /// The largest absolute value of a gradient, above 0.
    pub clip_value: Option<f64>,
}

impl Optimizer {
    /// An optimizer that neither clips gradients nor pulls weights to 0.
    pub fn new(rule: Rule, learning_rate: f64) -> Self {
        Self {
            rule,
            learning_rate,
            weight_decay: 0.0,
            l1: 0.0,
            clip_norm: None,
            clip_value: None,
        }
    }

    /// Checks every setting against its range.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] naming the first setting outside its range.
    pub fn validate(&self) -> Result<()> {
        at_least_zero("learning_rate", self.learning_rate)?;
        self.rule.validate()?;
        at_least_zero("weight_decay", self.weight_decay)?;
        at_least_zero("l1", self.l1)?;
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
    /// when `state` is of another rule, or a setting outside its range; [`Error::UnknownIsa`] when
    /// `RNNCORE_ISA` names none that this CPU has. Then neither `weights` nor
    /// `state` has changed.
    pub fn step<E: Real>(
        &self,
        weights: &mut [E],
        gradients: &[E],
        state: &mut State<E>,
    ) -> Result<f64> {
        self.step_by(Isa::current()?, weights, gradients, state)
    }

    /// [`Optimizer::step`] by an instruction set that the CPU has.
    pub(crate) fn step_by<E: Real>(
        &self,
        isa: Isa,
        weights: &mut [E],
        gradients: &[E],
        state: &mut State<E>,
    ) -> Result<f64> {
        self.validate()?;
        if gradients.len() != weights.len() {
            return Err(Error::shape(
                "gradients",
                format!("({},)", weights.len()),
                format!("({},)", gradients.len()),
            ));
        }
        let norm = norm(isa, gradients);
        if !norm.is_finite() {
            return Err(not_finite("the norm of the gradients"));
        }
        state.prepare(self.rule, weights.len())?;
        let slope = self.slope(norm);
        // All closures own what they use: numbers behind references would not stay in registers.
        let number = |x: f64| E::from_f64(x);
        let rate = number(self.learning_rate);
        let t = state.steps as f64 + 1.0;
        let done = match self.rule {
            Rule::Sgd { momentum: 0.0, .. } => {
                update(isa, weights, gradients, state.buffers(), move |w, g, []| {
                    (w - rate * slope(w, g), [])
                })
            }
            Rule::Sgd {
                momentum,
                dampening,
                nesterov,
            } => {
                let mu = number(momentum);
                let fresh = number(if t == 1.0 { 1.0 } else { 1.0 - dampening });
                // What of g is added to mu b or b: g + mu b with Nesterov, else b alone.
                let (ahead, along) = if nesterov {
                    (E::ONE, mu)
                } else {
                    (E::ZERO, E::ONE)
                };
                update(
                    isa,
                    weights,
                    gradients,
                    state.buffers(),
                    move |w, g, [b]| {
                        let g = slope(w, g);
                        let b = mu * b + fresh * g;
                        (w - rate * (ahead * g + along * b), [b])
                    },
                )
            }
            Rule::Adam { beta1, beta2, eps } | Rule::AdamW { beta1, beta2, eps } => {
                let (rest1, rest2) = (number(1.0 - beta1), number(1.0 - beta2));
                let (beta2_t, eps) = (number(beta2), number(eps));
                let rate = number(self.learning_rate / (1.0 - beta1.powf(t)));
                let correction = number((1.0 - beta2.powf(t)).sqrt());
                let kept = number(if self.decouples() {
                    1.0 - self.learning_rate * self.weight_decay
                } else {
                    1.0
                });
                update(
                    isa,
                    weights,
                    gradients,
                    state.buffers(),
                    move |w, g, [m, v]| {
                        let g = slope(w, g);
                        let m = m + rest1 * (g - m);
                        let v = beta2_t * v + rest2 * (g * g);
                        let change = m / (v.sqrt() / correction + eps);
                        (kept * w - rate * change, [m, v])
                    },
                )
            }
            Rule::RmsProp {
                alpha,
                eps,
                centered,
                momentum,
            } => {
                let (mu, eps) = (number(momentum), number(eps));
                let (alpha, rest) = (number(alpha), number(1.0 - alpha));
                let square = move |v: E, g: E| alpha * v + rest * (g * g);
                let mean = move |a: E, g: E| a + rest * (g - a);
                // Rounding may take the variance of gradients that hardly vary beneath 0.
                let variance = |v: E, a: E| {
                    let variance = v - a * a;
                    if variance > E::ZERO {
                        variance
                    } else {
                        E::ZERO
                    }
                };
                match (centered, momentum != 0.0) {
                    (false, false) => update(
                        isa,
                        weights,
                        gradients,
                        state.buffers(),
                        move |w, g, [v]| {
                            let g = slope(w, g);
                            let v = square(v, g);
                            (w - rate * (g / (v.sqrt() + eps)), [v])
                        },
                    ),
                    (false, true) => update(
                        isa,
                        weights,
                        gradients,
                        state.buffers(),
                        move |w, g, [v, b]| {
                            let g = slope(w, g);
                            let v = square(v, g);
                            let b = mu * b + g / (v.sqrt() + eps);
                            (w - rate * b, [v, b])
                        },
                    ),
                    (true, false) => update(
                        isa,
                        weights,
                        gradients,
                        state.buffers(),
                        move |w, g, [v, a]| {
                            let g = slope(w, g);
                            let (v, a) = (square(v, g), mean(a, g));
                            (w - rate * (g / (variance(v, a).sqrt() + eps)), [v, a])
                        },
                    ),
                    (true, true) => update(
                        isa,
                        weights,
                        gradients,
                        state.buffers(),
                        move |w, g, [v, a, b]| {
                            let g = slope(w, g);
                            let (v, a) = (square(v, g), mean(a, g));
                            let b = mu * b + g / (variance(v, a).sqrt() + eps);
                            (w - rate * b, [v, a, b])
                        },
                    ),
                }
            }
            Rule::Adagrad { lr_decay, eps, .. } => {
                let rate = number(self.learning_rate / (1.0 + (t - 1.0) * lr_decay));
                let eps = number(eps);
                update(
                    isa,
                    weights,
                    gradients,
                    state.buffers(),
                    move |w, g, [v]| {
                        let g = slope(w, g);
                        let v = v + g * g;
                        (w - rate * (g / (v.sqrt() + eps)), [v])
                    },
                )
            }
        };
        if done.is_err() && state.steps == 0 {
            *state = State::default();
        }
        done?;
        state.steps = state.steps.saturating_add(1);
        Ok(norm)
    }

    /// Whether weight decay is taken beside the gradient.
    fn decouples(&self) -> bool {
        matches!(self.rule, Rule::AdamW { .. })
    }

    /// The function from a weight and its gradient to what the rule is given, for gradients of that
    /// norm.
    fn slope<E: Real>(&self, norm: f64) -> impl Fn(E, E) -> E + Copy + use<E> {
        let coefficient = match self.clip_norm {
            Some(limit) => (limit / (norm + NORM_EPSILON)).min(1.0),
            None => 1.0,
        };
        let coefficient = E::from_f64(coefficient);
        let limit = E::from_f64(self.clip_value.unwrap_or(f64::INFINITY));
        let decay = if self.decouples() {
            0.0
        } else {
            self.weight_decay
        };
        let (decay, l1) = (E::from_f64(decay), E::from_f64(self.l1));
        move |w, g| {
            let g = coefficient * g;
            let g = if g > limit { limit } else { g };
            let g = if g < -limit { -limit } else { g };
            let positive = if w > E::ZERO { l1 } else { E::ZERO };
            let pull = if w < E::ZERO { -l1 } else { positive };
            g + decay * w + pull
        }
    }
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
