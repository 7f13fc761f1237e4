//! No recurrence: y = W x + b. As a cell it gives a network's head the same kernels, and with
//! them the same fixed order of summation, as the layers beneath it.

use super::{Carry, Cell, Feed, Forward, MAX_SLOTS, MAX_TRACE, Signature, Upstream};
use crate::simd::Vector;

/// The identity on one sum.
pub struct Linear;

impl Cell for Linear {
    const SIGNATURE: Signature = Signature {
        gates: 1,
        slots: 1,
        input: Feed {
            first: 0,
            gates: &[0],
        },
        state: Feed {
            first: 0,
            gates: &[],
        },
        trace: 0,
        carry: Carry::None,
        reads_previous: false,
        rests_at_zero: true,
    };

    #[inline(always)]
    fn forward<V: Vector>(a: [V; MAX_SLOTS], _h_before: V, _memory_before: V) -> Forward<V> {
        Forward {
            h: a[0],
            saved: a,
            trace: [a[0]; MAX_TRACE],
        }
    }

    #[inline(always)]
    fn backward<V: Vector>(up: Upstream<V>) -> ([V; MAX_SLOTS], V) {
        ([up.dh; MAX_SLOTS], up.carry)
    }
}
