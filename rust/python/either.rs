//! Values that exist for float32 or for float64.

/// One for float32, or one for float64.
pub(super) enum Either<A, B> {
    F32(A),
    F64(B),
}

/// Evaluates a generic expression with the value that is there.
macro_rules! dispatch {
    ($either:expr, $value:ident => $body:expr) => {
        match &$either {
            $crate::python::either::Either::F32($value) => $body,
            $crate::python::either::Either::F64($value) => $body,
        }
    };
}
pub(super) use dispatch;
