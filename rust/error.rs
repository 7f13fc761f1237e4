//! The crate's one error type, and what else ends work.
//!
//! Every message names the argument as the caller knows it, what was expected and what came, so
//! that it can be shown unchanged: "x: expected shape (T, B, 3), got (5, 2, 4)".

use thiserror::Error as ThisError;

/// What any function of the crate returns when it can fail.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, with what was expected and what came.
#[derive(ThisError, Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// An array's shape or length does not fit.
    #[error("{argument}: expected shape {expected}, got {actual}")]
    Shape {
        /// The argument as the caller wrote it.
        argument: String,
        /// The shape that fits, letters standing for free sizes: `(T, B, 3)`.
        expected: String,
        /// The shape that came.
        actual: String,
    },

    /// A value is outside what the argument allows.
    #[error("{argument}: expected {expected}, got {actual}")]
    Value {
        /// The argument as the caller wrote it.
        argument: String,
        /// What is allowed.
        expected: String,
        /// What came.
        actual: String,
    },

    /// A vector instruction set was asked for that this machine does not have.
    #[error("RNNCORE_ISA: expected one of {available}, got {name:?}")]
    UnknownIsa {
        /// The name that was asked for.
        name: String,
        /// The names that this machine can run, separated by commas.
        available: String,
    },

    /// A loss, a gradient or a weight stopped being finite during training.
    #[error(
        "training diverged in epoch {epoch}, update {update}: {what} is not finite \
         (the last finite weights are kept; a smaller learning rate or clip_norm helps)"
    )]
    Diverged {
        /// The epoch, counted from 1.
        epoch: usize,
        /// The update of the weights within the epoch, counted from 1.
        update: usize,
        /// Which quantity: "the loss", "the gradient norm", ...
        what: String,
    },

    /// A quantity that must be finite is not.
    #[error("{what} is not finite")]
    NotFinite {
        /// Which quantity.
        what: String,
    },

    /// There is no memory for a model, or for a pass over a batch.
    #[error("{numbers} {what} do not fit into memory")]
    OutOfMemory {
        /// How many numbers were asked for.
        numbers: usize,
        /// What they are: "weights", "numbers of a model with hidden_size 1099511627776", ...
        what: String,
    },

    /// What is called for belongs to a call that does not end before this one does.
    #[error("{what} is in use by {by}")]
    Busy {
        /// What it is: "the network", ...
        what: &'static str,
        /// Whose it is: "the call that this one was made from", ...
        by: &'static str,
    },

    /// A tape was given to `backward` twice.
    #[error(
        "tape: expected one that backward has not used yet, got a used one; \
         call forward again"
    )]
    TapeUsed,

    /// A tape does not belong to these weights.
    #[error("tape: expected one recorded by this stack with its present weights, got {actual}")]
    TapeForeign {
        /// What came: "one of another stack", "one recorded before the weights changed".
        actual: String,
    },
}

impl Error {
    /// An [`Error::Shape`]; `expected` and `actual` are printed as they stand.
    pub fn shape(
        argument: impl Into<String>,
        expected: impl ToString,
        actual: impl ToString,
    ) -> Self {
        Self::Shape {
            argument: argument.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    /// An [`Error::Value`]; `expected` and `actual` are printed as they stand.
    pub fn value(
        argument: impl Into<String>,
        expected: impl ToString,
        actual: impl ToString,
    ) -> Self {
        Self::Value {
            argument: argument.into(),
            expected: expected.to_string(),
            actual: actual.to_string(),
        }
    }

    /// The same of an argument that the caller knows by another name; a place in it, as `[2]`, stays.
    pub(crate) fn renamed(mut self, name: &str) -> Self {
        if let Error::Shape { argument, .. } | Error::Value { argument, .. } = &mut self {
            let end = argument.find('[').unwrap_or(argument.len());
            argument.replace_range(..end, name);
        }
        self
    }
}

/// Why work ended before its time.
#[derive(Debug)]
pub enum Stopped<X> {
    /// Something was wrong with the arguments, or training diverged.
    Error(Error),
    /// The observer said so.
    Observer(X),
}

impl<X> From<Error> for Stopped<X> {
    fn from(error: Error) -> Self {
        Stopped::Error(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_argument_expected_and_actual() {
        assert_eq!(
            Error::shape("x", "(T, B, 3)", "(5, 2, 4)").to_string(),
            "x: expected shape (T, B, 3), got (5, 2, 4)"
        );
        assert_eq!(
            Error::value("hidden_size", "an integer >= 1", 0).to_string(),
            "hidden_size: expected an integer >= 1, got 0"
        );
    }

    #[test]
    fn another_name_keeps_the_place() {
        for (argument, renamed) in [("values", "x"), ("values[2]", "x[2]")] {
            let shape = Error::shape(argument, "(T,)", "(2, 3)");
            assert_eq!(shape.renamed("x"), Error::shape(renamed, "(T,)", "(2, 3)"));
            let value = Error::value(argument, "a number", "none");
            assert_eq!(
                value.renamed("x"),
                Error::value(renamed, "a number", "none")
            );
        }
        assert_eq!(Error::TapeUsed.renamed("x"), Error::TapeUsed);
    }

    #[test]
    fn divergence_names_epoch_and_update() {
        let error = Error::Diverged {
            epoch: 3,
            update: 17,
            what: "the loss".into(),
        };
        assert!(
            error
                .to_string()
                .starts_with("training diverged in epoch 3, update 17: the loss is not finite")
        );
    }
}
