//! What an optimizer remembers.

use super::{Kind, Rule};
use crate::error::{Error, Result};
use crate::simd::Real;

/// What an [`Optimizer`](super::Optimizer) remembers about one set of weights.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State<E> {
    /// SGD: b. Adam and AdamW: m, v. RMSprop: v, a, b, those that there are. Adagrad: v. Each as
    /// long as the weights, in their order; empty before the first update.
    buffers: Vec<Vec<E>>,
    /// Updates made.
    pub(super) steps: u64,
    /// What kind of rule made them.
    kind: Option<Kind>,
}

impl<E: Real> State<E> {
    /// How many updates were made, and what is remembered of them: some numbers a weight, each in
    /// a buffer of its own. No updates leave no buffers.
    pub fn to_parts(&self) -> (u64, &[Vec<E>]) {
        match self.steps {
            0 => (0, &[]),
            steps => (steps, &self.buffers),
        }
    }

    /// The state that gave these parts, to go on with `rule` and as many weights.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] or [`Error::Shape`] naming `state` when the buffers are not as many as the
    /// rule has after so many updates or not as long as the weights, or hold what no update leaves.
    pub fn from_parts(
        rule: Rule,
        weights: usize,
        steps: u64,
        buffers: Vec<Vec<E>>,
    ) -> Result<Self> {
        if steps == 0 && buffers.is_empty() {
            return Ok(Self::default());
        }
        if steps == 0 {
            let actual = format!("{} of them", buffers.len());
            return Err(Error::value("state", "no buffers before an update", actual));
        }
        let state = State {
            buffers,
            steps,
            kind: Some(rule.kind()),
        };
        state.check(rule, weights)?;
        for (number, buffer) in state.buffers.iter().enumerate() {
            let squares = rule.squares() == Some(number);
            let bad = |x: &E| !x.is_finite() || (squares && *x < E::ZERO);
            if let Some(at) = buffer.iter().position(bad) {
                let name = format!("state[\"buffers\"][{number}][{at}]");
                let expected = if squares {
                    "a finite number >= 0"
                } else {
                    "a finite number"
                };
                return Err(Error::value(name, expected, buffer[at]));
            }
        }
        Ok(state)
    }

    /// Whether it is of that rule and so many weights.
    fn check(&self, rule: Rule, weights: usize) -> Result<()> {
        let (expected, found) = (rule.buffers(), self.buffers.len());
        if found != expected {
            let expected = format!("{expected} buffers");
            let actual = format!("{found}, of another rule");
            return Err(Error::value("state", expected, actual));
        }
        if self.kind != Some(rule.kind()) {
            return Err(Error::value("state", "that of this rule", "another's"));
        }
        match self.buffers.iter().find(|buffer| buffer.len() != weights) {
            None => Ok(()),
            Some(buffer) => Err(Error::shape(
                "state",
                format!("({weights},) as the weights"),
                format!("({},)", buffer.len()),
            )),
        }
    }

    /// Makes the buffers before the first update, and checks them before every other.
    ///
    /// # Errors
    ///
    /// [`Error::Value`] or [`Error::Shape`] naming `state`.
    pub(super) fn prepare(&mut self, rule: Rule, weights: usize) -> Result<()> {
        if self.steps == 0 {
            let initial = E::from_f64(rule.initial());
            self.buffers = vec![vec![initial; weights]; rule.buffers()];
            self.kind = Some(rule.kind());
        }
        self.check(rule, weights)
    }

    /// The `N` buffers, which are there after [`State::prepare`] for a rule of `N`.
    pub(super) fn buffers<const N: usize>(&mut self) -> [&mut [E]; N] {
        let mut buffers = self.buffers.iter_mut();
        std::array::from_fn(|_| buffers.next().expect("N buffers").as_mut_slice())
    }
}
