//! Each cell against its equations, and its backward against central differences of its forward.

use super::*;
use crate::simd::portable::F64x2;

/// The numbers that a unit's step depends on: its sums, h and the memory before.
const INPUTS: usize = MAX_SLOTS + 2;
/// What the loss weighs the new h and the new memory by.
const ON_H: f64 = 0.7;
const ON_MEMORY: f64 = -1.3;

/// The same number in both lanes.
fn vector(x: f64) -> F64x2 {
    // SAFETY: portable vectors need no instruction set.
    unsafe { F64x2::splat(x) }
}

fn number(v: F64x2) -> f64 {
    let mut lanes = [0.0; 2];
    // SAFETY: there is room for two lanes.
    unsafe { v.store(lanes.as_mut_ptr()) };
    lanes[0]
}

/// What a step gives, and the new memory.
fn forward<C: Cell>(inputs: [f64; INPUTS]) -> (Forward<F64x2>, F64x2) {
    let [a, b, c, d, h, memory] = inputs.map(vector);
    let (gates, memory) = C::gates([a, b, c, d], memory);
    (C::state(gates, memory, h), memory)
}

fn loss<C: Cell>(inputs: [f64; INPUTS]) -> f64 {
    let (step, memory) = forward::<C>(inputs);
    let memory = match C::SIGNATURE.has_memory() {
        true => number(memory),
        false => 0.0,
    };
    ON_H * number(step.h) + ON_MEMORY * memory
}

/// Gradients of the loss: of the sums, and what is carried to the step before.
fn backward<C: Cell>(inputs: [f64; INPUTS], dh: f64, carry: f64) -> ([f64; MAX_SLOTS], f64) {
    let (step, _) = forward::<C>(inputs);
    let (sums, carry) = C::backward(Upstream {
        dh: vector(dh),
        carry: vector(carry),
        saved: step.saved,
        h: step.h,
        h_before: vector(inputs[MAX_SLOTS]),
        memory_before: vector(inputs[MAX_SLOTS + 1]),
    });
    (sums.map(number), number(carry))
}

fn check<C: Cell>() {
    const STEP: f64 = 1e-5;
    let signature = C::SIGNATURE;
    for seed in 0..50 {
        // From -2 to 2, and never near the kink of relu.
        let inputs: [f64; INPUTS] = std::array::from_fn(|i| {
            let noise = (seed * 31 + i * 17 + 7) * 7919 % 1000;
            (noise as f64 - 499.5) / 250.0
        });
        let slope = |i: usize| {
            let moved = |by: f64| {
                let mut inputs = inputs;
                inputs[i] += by;
                loss::<C>(inputs)
            };
            (moved(STEP) - moved(-STEP)) / (2.0 * STEP)
        };
        // A cell that carries h gets a part of its gradient from the step after in that way.
        let (dh, carry) = match signature.carry {
            Carry::None => (ON_H, 0.0),
            Carry::Hidden => (0.25 * ON_H, 0.75 * ON_H),
            Carry::Memory => (ON_H, ON_MEMORY),
        };
        let (sums, carried) = backward::<C>(inputs, dh, carry);
        let close = |what: &str, found: f64, expected: f64| {
            assert!(
                (found - expected).abs() < 1e-8,
                "{what} of {inputs:?}: {found} instead of {expected}"
            );
        };
        for (slot, &found) in sums.iter().enumerate().take(signature.slots) {
            close("sum", found, slope(slot));
        }
        match signature.carry {
            Carry::None => {}
            Carry::Hidden => close("h", carried, slope(MAX_SLOTS)),
            Carry::Memory => close("memory", carried, slope(MAX_SLOTS + 1)),
        }
    }
}

#[test]
fn backward_is_the_slope_of_forward() {
    check::<Rnn<Tanh, false>>();
    check::<Rnn<Relu, false>>();
    check::<Rnn<LeakyRelu, false>>();
    check::<Rnn<Softsign, false>>();
    check::<Rnn<Sigmoid, false>>();
    check::<Rnn<Tanh, true>>();
    check::<Rnn<Relu, true>>();
    check::<Rnn<LeakyRelu, true>>();
    check::<Rnn<Softsign, true>>();
    check::<Rnn<Sigmoid, true>>();
    check::<Lstm>();
    check::<Gru>();
}

#[test]
fn forward_follows_the_equations() {
    let s = |x: f64| 1.0 / (1.0 + (-x).exp());
    let inputs @ [a, b, c, d, h, memory] = [0.3, -1.2, 0.8, 0.1, -0.6, 1.7];
    let close = |found: F64x2, expected: f64| assert!((number(found) - expected).abs() < 1e-15);

    close(forward::<Rnn<Tanh, false>>(inputs).0.h, a.tanh());
    close(forward::<Rnn<Relu, false>>(inputs).0.h, a);
    close(
        forward::<Rnn<Relu, false>>([-0.3, b, c, d, h, memory]).0.h,
        0.0,
    );
    let below = [-0.3, b, c, d, h, memory];
    close(forward::<Rnn<LeakyRelu, false>>(inputs).0.h, a);
    close(forward::<Rnn<LeakyRelu, false>>(below).0.h, -0.003);
    close(forward::<Rnn<Softsign, false>>(inputs).0.h, a / (1.0 + a));
    close(forward::<Rnn<Softsign, false>>(below).0.h, -a / (1.0 + a));
    close(forward::<Rnn<Sigmoid, false>>(inputs).0.h, s(a));
    close(forward::<Rnn<Tanh, true>>(inputs).0.h, a.tanh() + h);
    close(forward::<Rnn<Sigmoid, true>>(inputs).0.h, s(a) + h);

    let (lstm, memory_after) = forward::<Lstm>(inputs);
    let next = s(b) * memory + s(a) * c.tanh();
    close(memory_after, next);
    close(lstm.h, s(d) * next.tanh());

    // (a_nx, a_r, a_z, a_nh)
    let n = (a + s(b) * d).tanh();
    close(forward::<Gru>(inputs).0.h, (1.0 - s(c)) * n + s(c) * h);
}

#[test]
fn relu_has_no_slope_at_zero() {
    let (sums, _) = backward::<Rnn<Relu, false>>([0.0; INPUTS], 1.0, 0.0);
    assert_eq!(sums[0], 0.0);
    // As torch has it: the kink belongs to the left.
    let (sums, _) = backward::<Rnn<LeakyRelu, false>>([0.0; INPUTS], 1.0, 0.0);
    assert_eq!(sums[0], 0.01);
}

#[test]
fn a_closed_output_gate_has_no_slope_and_no_quotient() {
    let (sums, carry) = backward::<Lstm>([0.4, 0.2, 1.0, -800.0, 0.0, 0.5], 1.0, 0.0);
    assert_eq!((sums, carry), ([0.0; MAX_SLOTS], 0.0));
}

/// Padding stays zero.
#[test]
fn cells_at_rest_stay_there() {
    fn check<C: Cell>(kind: CellKind) {
        assert_eq!(C::SIGNATURE, kind.signature());
        let sum = match C::SIGNATURE.rests_at_zero {
            true => 0.0,
            false => f64::NEG_INFINITY,
        };
        let (step, memory) = forward::<C>([sum, sum, sum, sum, 0.0, 0.0]);
        assert_eq!((number(step.h), number(memory)), (0.0, 0.0), "{kind}");
    }
    let named = |name| CellKind::by_name(name).unwrap();
    check::<Rnn<Tanh, false>>(named("rnn_tanh"));
    check::<Rnn<Relu, false>>(named("rnn_relu"));
    check::<Rnn<LeakyRelu, true>>(named("rnn_leaky_relu_residual"));
    check::<Rnn<Softsign, false>>(named("rnn_softsign"));
    check::<Rnn<Sigmoid, false>>(named("rnn_sigmoid"));
    check::<Rnn<Sigmoid, true>>(named("rnn_sigmoid_residual"));
    check::<Lstm>(CellKind::Lstm);
    check::<Gru>(CellKind::Gru);
}

#[test]
fn cells_have_names() {
    for kind in CellKind::recurrent() {
        assert_eq!(CellKind::by_name(&kind.to_string()), Ok(kind));
    }
    assert_eq!(CellKind::by_name("rnn_tanh"), Ok(CellKind::RNN_TANH));
    let error = CellKind::by_name("linear").unwrap_err().to_string();
    assert!(
        error.starts_with("cell: expected one of \"rnn_tanh\", "),
        "{error}"
    );
}

#[test]
fn signatures_are_consistent() {
    for kind in CellKind::recurrent() {
        let s = kind.signature();
        assert!((1..=MAX_SLOTS).contains(&s.slots));
        // Forward leaves sums in the room for what is saved, if there is any.
        assert!(s.saved == 0 || s.saved == s.slots);
        let mut fed = [false; MAX_SLOTS];
        for feed in [s.input, s.state] {
            let mut gates = feed.gates.to_vec();
            gates.sort_unstable();
            let all: Vec<usize> = (0..gates.len()).collect();
            assert_eq!(gates, all, "every gate of a source feeds one slot");
            assert!(feed.gates.is_empty() || feed.gates.len() == s.gates);
            fed[feed.first..feed.first + feed.gates.len()].fill(true);
        }
        assert!(fed[..s.slots].iter().all(|&fed| fed) && !fed[s.slots..].contains(&true));
    }
}
