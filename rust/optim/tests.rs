//! The formulas against torch, and updates that must not happen.

use super::*;
use crate::parallel;

const WEIGHTS: [f64; 3] = [0.5, -1.25, 2.0];
const GRADIENTS: [[f64; 3]; 3] = [[0.3, -0.7, 1.1], [-0.2, 0.9, 0.4], [1.5, 0.1, -0.6]];
/// The L2 norms of `GRADIENTS`.
const NORMS: [f64; 3] = [1.3379088160259653, 1.004987562112089, 1.6186414056238645];

fn sgd(momentum: f64, dampening: f64, nesterov: bool) -> Rule {
    Rule::Sgd {
        momentum,
        dampening,
        nesterov,
    }
}

fn settings(
    rule: Rule,
    learning_rate: f64,
    weight_decay: f64,
    clip_norm: Option<f64>,
    clip_value: Option<f64>,
) -> Optimizer {
    Optimizer {
        weight_decay,
        clip_norm,
        clip_value,
        ..Optimizer::new(rule, learning_rate)
    }
}

fn adam(beta1: f64, beta2: f64, eps: f64) -> Rule {
    Rule::Adam { beta1, beta2, eps }
}

/// Takes three steps, and compares with what torch 2.15 gives in float64.
fn assert_as_torch(optimizer: Optimizer, expected: [f64; 3]) {
    let (mut weights, mut state) = (WEIGHTS, State::default());
    let mut singles = (WEIGHTS.map(|w| w as f32), State::default());
    for (gradients, expected) in GRADIENTS.iter().zip(NORMS) {
        let norm = optimizer.step(&mut weights, gradients, &mut state).unwrap();
        assert!((norm - expected).abs() < 1e-15);
        let gradients = gradients.map(|g| g as f32);
        optimizer
            .step(&mut singles.0, &gradients, &mut singles.1)
            .unwrap();
    }
    for i in 0..3 {
        let (found, expected) = (weights[i], expected[i]);
        assert!(
            (found - expected).abs() < 1e-15,
            "{found} is not {expected}"
        );
        assert!((f64::from(singles.0[i]) - expected).abs() < 1e-6);
    }
}

#[test]
fn sgd_as_torch() {
    assert_as_torch(
        settings(sgd(0.0, 0.0, false), 0.1, 0.0, None, None),
        [0.33999999999999997, -1.28, 1.91],
    );
    assert_as_torch(
        settings(sgd(0.0, 0.0, false), 0.1, 0.01, None, None),
        [0.33854146949999997, -1.27630367875, 1.904265888],
    );
    assert_as_torch(
        settings(sgd(0.9, 0.0, false), 0.1, 0.01, None, None),
        [0.30399136949999994, -1.23446942875, 1.675147488],
    );
    assert_as_torch(
        settings(sgd(0.9, 0.3, false), 0.1, 0.0, None, None),
        [0.34029999999999994, -1.1869999999999998, 1.6906999999999999],
    );
    assert_as_torch(
        settings(sgd(0.9, 0.0, true), 0.1, 0.01, None, None),
        [0.16224898480049998, -1.2625216062962499, 1.6125162277919998],
    );
}

#[test]
fn adam_as_torch() {
    assert_as_torch(
        settings(adam(0.9, 0.999, 1e-8), 0.05, 0.0, None, None),
        [0.4104120228859351, -1.2183909954342267, 1.889974513838427],
    );
    assert_as_torch(
        settings(adam(0.8, 0.95, 1e-3), 0.05, 0.1, None, None),
        [0.40142513534006335, -1.206601529338748, 1.8829742819528572],
    );
}

#[test]
fn adamw_as_torch() {
    let adamw = |beta1, beta2, eps| Rule::AdamW { beta1, beta2, eps };
    assert_as_torch(
        settings(adamw(0.9, 0.999, 1e-8), 0.05, 0.0, None, None),
        [0.4104120228859351, -1.2183909954342267, 1.889974513838427],
    );
    assert_as_torch(
        settings(adamw(0.8, 0.95, 1e-3), 0.05, 0.1, None, None),
        [0.40445084332795306, -1.20514799067536, 1.866003683109942],
    );
    let with_l1 = Optimizer {
        l1: 0.02,
        ..settings(adamw(0.9, 0.999, 1e-8), 0.05, 0.1, None, None)
    };
    assert_as_torch(
        with_l1,
        [0.3991073257927924, -1.197496236213309, 1.859476155571464],
    );
}

fn rmsprop(alpha: f64, eps: f64, centered: bool, momentum: f64) -> Rule {
    Rule::RmsProp {
        alpha,
        eps,
        centered,
        momentum,
    }
}

#[test]
fn rmsprop_as_torch() {
    assert_as_torch(
        settings(rmsprop(0.99, 1e-8, false, 0.0), 0.05, 0.0, None, None),
        [
            -0.20806142981114034,
            -1.1894079861704285,
            1.5581665331418946,
        ],
    );
    assert_as_torch(
        settings(rmsprop(0.9, 1e-3, false, 0.9), 0.05, 0.1, None, None),
        [0.054575047057338864, -1.035120124703736, 1.494659596211591],
    );
    assert_as_torch(
        settings(rmsprop(0.99, 1e-8, true, 0.0), 0.05, 0.0, None, None),
        [-0.2131052217812024, -1.1869703436707701, 1.554745915338178],
    );
    assert_as_torch(
        settings(rmsprop(0.99, 1e-8, true, 0.5), 0.05, 0.1, None, None),
        [
            -0.49115861588712034,
            -0.9087781570383221,
            0.9922319685297185,
        ],
    );
}

#[test]
fn adagrad_as_torch() {
    let adagrad = |lr_decay, initial_accumulator, eps| Rule::Adagrad {
        lr_decay,
        initial_accumulator,
        eps,
    };
    assert_as_torch(
        settings(adagrad(0.0, 0.0, 1e-10), 0.05, 0.0, None, None),
        [0.4291197305569747, -1.2438361311554214, 1.9557214244880272],
    );
    assert_as_torch(
        settings(adagrad(0.1, 0.2, 1e-3), 0.05, 0.1, None, None),
        [0.4421216208840332, -1.2343053005545506, 1.945609576826489],
    );
}

/// l1 sign(w) added to the gradients that torch is given.
#[test]
fn l1_is_added_to_the_gradient() {
    let optimizer = Optimizer {
        l1: 0.02,
        ..settings(sgd(0.9, 0.0, false), 0.1, 0.01, None, None)
    };
    assert_as_torch(
        optimizer,
        [0.2927809675, -1.2232590267499999, 1.6639370859999998],
    );
    // It does not move a weight of 0.
    let optimizer = Optimizer {
        l1: 0.02,
        ..Optimizer::new(sgd(0.0, 0.0, false), 1.0)
    };
    let mut weights = [0.0, 0.5, -0.5];
    optimizer
        .step(&mut weights, &[0.0; 3], &mut State::default())
        .unwrap();
    assert_eq!(weights, [0.0, 0.48, -0.48]);
}

/// A variance that rounding takes beneath 0 is none.
#[test]
fn centered_rmsprop_stands_equal_gradients() {
    let rule = Rule::RmsProp {
        alpha: 0.5,
        eps: 1.0,
        centered: true,
        momentum: 0.0,
    };
    let optimizer = Optimizer::new(rule, 0.1);
    let (mut weights, mut state) = ([0.0_f32; 100], State::default());
    let gradients: [f32; 100] = std::array::from_fn(|i| 1.0 + i as f32 / 77.0);
    for _ in 0..100 {
        optimizer
            .step(&mut weights, &gradients, &mut state)
            .unwrap();
    }
    assert!(weights.iter().all(|w| w.is_finite()));
}

/// torch.nn.utils.clip_grad_norm_, then clip_grad_value_, then the step.
#[test]
fn clipping_as_torch() {
    assert_as_torch(
        settings(sgd(0.9, 0.0, false), 0.1, 0.0, Some(1.0), None),
        [0.38437469575207345, -1.284540875917039, 1.7386351150704908],
    );
    assert_as_torch(
        settings(sgd(0.0, 0.0, false), 0.1, 0.0, Some(1.2), Some(0.5)),
        [0.44309235677264713, -1.2574136201784327, 1.9544817210705965],
    );
}

/// The first step of Adam is lr * sign(g) whatever the gradient's size, up to eps.
#[test]
fn first_step_of_adam_is_the_learning_rate() {
    let optimizer = settings(adam(0.9, 0.999, 1e-8), 0.01, 0.0, None, None);
    let mut weights = vec![0.0; 100];
    let gradients: Vec<f64> = (0..100).map(|i| f64::from(i - 50) + 0.5).collect();
    optimizer
        .step(&mut weights, &gradients, &mut State::default())
        .unwrap();
    for (w, g) in weights.iter().zip(gradients) {
        assert!((w + 0.01 * g.signum()).abs() < 1e-9);
    }
}

#[test]
fn an_update_that_is_not_finite_changes_nothing() {
    let rules = [
        sgd(0.0, 0.0, false),
        sgd(0.9, 0.0, true),
        adam(0.9, 0.999, 1e-8),
    ];
    for (rule, good) in rules.into_iter().flat_map(|rule| [(rule, 0), (rule, 1)]) {
        let optimizer = settings(rule, 10.0, 0.0, None, None);
        let (mut weights, mut state) = (vec![1.0_f32; 37], State::default());
        for _ in 0..good {
            optimizer
                .step(&mut weights, &[0.5; 37], &mut state)
                .unwrap();
        }
        let before = (weights.clone(), state.clone());
        for bad in [f32::NAN, f32::INFINITY, -f32::MAX] {
            let mut gradients = [0.5; 37];
            gradients[20] = bad;
            let error = optimizer
                .step(&mut weights, &gradients, &mut state)
                .unwrap_err();
            let what = if bad.is_finite() {
                "a weight after the update"
            } else {
                "the norm of the gradients"
            };
            assert_eq!(error, not_finite(what));
            assert_eq!((&weights, &state), (&before.0, &before.1));
        }
    }
}

#[test]
fn state_of_other_weights_or_another_rule_is_refused() {
    let optimizer = settings(sgd(0.9, 0.0, false), 0.1, 0.0, None, None);
    let mut state = State::default();
    optimizer
        .step(&mut [1.0_f64; 3], &[1.0; 3], &mut state)
        .unwrap();
    let error = optimizer
        .step(&mut [1.0; 4], &[1.0; 4], &mut state)
        .unwrap_err();
    assert!(error.to_string().starts_with("state: expected shape (4,)"));
    assert!(
        optimizer
            .step(&mut [1.0; 3], &[1.0; 4], &mut state)
            .is_err()
    );
    // As many numbers of each weight may mean something else.
    let adagrad = Rule::Adagrad {
        lr_decay: 0.0,
        initial_accumulator: 0.0,
        eps: 1e-10,
    };
    let (centered, plain) = (
        rmsprop(0.99, 1e-8, true, 0.0),
        rmsprop(0.99, 1e-8, false, 0.9),
    );
    let (fewer, other) = ("expected 2 buffers, got 1", "expected that of this rule");
    for (before, rule, message) in [
        (sgd(0.9, 0.0, false), adam(0.9, 0.999, 1e-8), fewer),
        (sgd(0.9, 0.0, false), adagrad, other),
        (adam(0.9, 0.999, 1e-8), centered, other),
        (centered, plain, other),
        (plain, centered, other),
    ] {
        let mut state = State::default();
        let mut step =
            |rule| settings(rule, 0.1, 0.0, None, None).step(&mut [1.0; 3], &[1.0; 3], &mut state);
        step(before).unwrap();
        let error = step(rule).unwrap_err();
        assert!(
            error.to_string().starts_with(&format!("state: {message}")),
            "{error}"
        );
    }
}

#[test]
fn parts_go_on_as_the_state_did() {
    let rules = [
        sgd(0.9, 0.0, true),
        adam(0.9, 0.999, 1e-8),
        Rule::Adagrad {
            lr_decay: 0.1,
            initial_accumulator: 0.5,
            eps: 1e-10,
        },
    ];
    for rule in rules {
        let optimizer = Optimizer::new(rule, 0.1);
        let (mut weights, mut state) = (WEIGHTS, State::default());
        assert_eq!(state.to_parts(), (0, &[][..]));
        optimizer
            .step(&mut weights, &GRADIENTS[0], &mut state)
            .unwrap();
        let (steps, buffers) = state.to_parts();
        let mut other = State::from_parts(rule, 3, steps, buffers.to_vec()).unwrap();
        let mut copy = weights;
        optimizer
            .step(&mut weights, &GRADIENTS[1], &mut state)
            .unwrap();
        optimizer
            .step(&mut copy, &GRADIENTS[1], &mut other)
            .unwrap();
        assert_eq!((weights, state), (copy, other));
    }
}

#[test]
fn as_many_updates_as_a_number_can_say_are_followed_by_one_more() {
    let rule = adam(0.9, 0.999, 1e-8);
    let mut state = State::from_parts(rule, 3, u64::MAX, vec![vec![0.0; 3]; 2]).unwrap();
    let mut weights = WEIGHTS;
    let step = Optimizer::new(rule, 0.1).step(&mut weights, &GRADIENTS[0], &mut state);
    assert!(step.is_ok() && weights != WEIGHTS);
    assert_eq!(state.to_parts().0, u64::MAX);
}

#[test]
fn parts_that_no_update_leaves_are_refused() {
    let rule = adam(0.9, 0.999, 1e-8);
    let (zeros, one_less) = (vec![0.0; 3], vec![0.0; 2]);
    let bad = |m: f64, v: f64| vec![vec![0.0, m, 0.0], vec![0.0, 0.0, v]];
    for (buffers, message) in [
        (
            vec![zeros.clone()],
            "state: expected 2 buffers, got 1, of another rule",
        ),
        (
            vec![zeros, one_less],
            "state: expected shape (3,) as the weights, got (2,)",
        ),
        (
            bad(f64::NAN, 0.0),
            "state[\"buffers\"][0][1]: expected a finite number, got NaN",
        ),
        (
            bad(-1.0, -1.0),
            "state[\"buffers\"][1][2]: expected a finite number >= 0, got -1",
        ),
    ] {
        let error = State::from_parts(rule, 3, 1, buffers).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = State::from_parts(rule, 3, 0, bad(0.0, 0.0)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "state: expected no buffers before an update, got 2 of them"
    );
    assert_eq!(
        State::<f64>::from_parts(rule, 3, 0, vec![]),
        Ok(State::default())
    );
}

/// Of weights that fill several pieces, the last of them in part.
#[test]
fn threads_and_instruction_sets_change_no_bit() {
    let rules = [
        sgd(0.0, 0.0, false),
        adam(0.9, 0.999, 1e-8),
        Rule::RmsProp {
            alpha: 0.9,
            eps: 1e-8,
            centered: true,
            momentum: 0.9,
        },
    ];
    for rule in rules {
        let optimizer = settings(rule, 0.01, 0.1, Some(1.0), None);
        let run = |isa, threads| {
            let mut weights: Vec<f32> = (0..100_003).map(|i| (i as f32).sin()).collect();
            let gradients: Vec<f32> = (0..100_003).map(|i| (i as f32 * 0.7).cos()).collect();
            let mut state = State::default();
            let step = || optimizer.step_by(isa, &mut weights, &gradients, &mut state);
            let norm = parallel::with_threads(threads, step).unwrap();
            (norm, weights, state)
        };
        let alone = run(Isa::Portable, 1);
        for &isa in Isa::available() {
            for threads in [1, 2, 5] {
                assert_eq!(alone, run(isa, threads));
            }
        }
    }
}

#[test]
fn settings_outside_their_range_are_named() {
    let plain = sgd(0.0, 0.0, false);
    let rmsprop = |alpha, eps, momentum| {
        let centered = false;
        let rule = Rule::RmsProp {
            alpha,
            eps,
            centered,
            momentum,
        };
        Optimizer::new(rule, 0.1)
    };
    let adagrad = |lr_decay, initial_accumulator, eps| {
        let rule = Rule::Adagrad {
            lr_decay,
            initial_accumulator,
            eps,
        };
        Optimizer::new(rule, 0.1)
    };
    for (argument, optimizer) in [
        ("learning_rate", settings(plain, -0.1, 0.0, None, None)),
        ("learning_rate", settings(plain, f64::NAN, 0.0, None, None)),
        (
            "weight_decay",
            settings(plain, 0.1, f64::INFINITY, None, None),
        ),
        ("clip_norm", settings(plain, 0.1, 0.0, Some(0.0), None)),
        (
            "clip_value",
            settings(plain, 0.1, 0.0, None, Some(f64::NAN)),
        ),
        (
            "momentum",
            settings(sgd(-0.5, 0.0, false), 0.1, 0.0, None, None),
        ),
        (
            "momentum",
            settings(sgd(0.0, 0.0, true), 0.1, 0.0, None, None),
        ),
        (
            "dampening",
            settings(sgd(0.9, 0.1, true), 0.1, 0.0, None, None),
        ),
        (
            "beta1",
            settings(adam(1.0, 0.999, 1e-8), 0.1, 0.0, None, None),
        ),
        (
            "beta2",
            settings(adam(0.9, -0.1, 1e-8), 0.1, 0.0, None, None),
        ),
        (
            "eps",
            settings(adam(0.9, 0.999, -1.0), 0.1, 0.0, None, None),
        ),
        (
            "l1",
            Optimizer {
                l1: -1.0,
                ..Optimizer::new(plain, 0.1)
            },
        ),
        ("alpha", rmsprop(1.0, 1e-8, 0.0)),
        ("eps", rmsprop(0.9, f64::NAN, 0.0)),
        ("momentum", rmsprop(0.9, 1e-8, -0.9)),
        ("lr_decay", adagrad(-1.0, 0.0, 1e-8)),
        ("initial_accumulator", adagrad(0.0, f64::INFINITY, 1e-8)),
        ("eps", adagrad(0.0, 0.0, -1.0)),
    ] {
        let message = optimizer.validate().unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("{argument}: expected ")),
            "{message}"
        );
    }
}
