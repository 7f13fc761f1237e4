//! Gated recurrent unit (Cho et al., 2014), with torch.nn.GRU's equations and gate order r, z, n
//! (the reset gate acts after the recurrent product):
//!
//! ```text
//! r = sigmoid(a_r)   z = sigmoid(a_z)
//! n = tanh(a_nx + r a_nh)              a_nx = W_in x + b_in,  a_nh = W_hn h + b_hn
//! h' = (1 - z) n + z h
//! ```
//!
//! The slots are (a_nx, a_r, a_z, a_nh): the input feeds the first three, the state the last
//! three. Saved for backward in their places: n, r, z and a_nh.

use super::{Carry, Cell, Feed, Forward, MAX_SLOTS, Signature, Upstream};
use crate::activation::{sigmoid, sigmoid_slope, tanh, tanh_slope};
use crate::simd::Vector;

/// The GRU cell.
pub struct Gru;

impl Cell for Gru {
    const SIGNATURE: Signature = Signature {
        gates: 3,
        slots: 4,
        input: Feed {
            first: 0,
            gates: &[2, 0, 1],
        },
        state: Feed {
            first: 1,
            gates: &[0, 1, 2],
        },
        saved: 4,
        carry: Carry::Hidden,
        reads_previous: true,
        reads_output: false,
        rests_at_zero: true,
    };

    #[inline(always)]
    fn gates<V: Vector>(a: [V; MAX_SLOTS], memory_before: V) -> ([V; MAX_SLOTS], V) {
        let [a_nx, a_r, a_z, a_nh] = a;
        let (r, z) = (sigmoid(a_r), sigmoid(a_z));
        ([a_nx.add_product(r, a_nh), r, z, a_nh], memory_before)
    }

    #[inline(always)]
    fn state<V: Vector>(gates: [V; MAX_SLOTS], _memory: V, h_before: V) -> Forward<V> {
        let [a_n, r, z, a_nh] = gates;
        let n = tanh(a_n);
        let h = n.add_product(z, h_before.sub(n));
        Forward {
            h,
            saved: [n, r, z, a_nh],
        }
    }

    #[inline(always)]
    fn backward<V: Vector>(up: Upstream<V>) -> ([V; MAX_SLOTS], V) {
        let [n, r, z, a_nh] = up.saved;
        // h' is reached from above, through the next step's products and through its z h.
        let dh = up.dh.add(up.carry);
        let da_nx = dh.sub_product(dh, z).mul(tanh_slope(n));
        let da_r = da_nx.mul(a_nh).mul(sigmoid_slope(r));
        let da_z = dh.mul(up.h_before.sub(n)).mul(sigmoid_slope(z));
        ([da_nx, da_r, da_z, da_nx.mul(r)], dh.mul(z))
    }
}
