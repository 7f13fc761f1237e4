//! The formulas against torch, and updates that must not happen.

use super::*;

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

fn adam(beta1: f64, beta2: f64, eps: f64) -> Rule {
    Rule::Adam { beta1, beta2, eps }
}

/// Takes three steps, and compares with what torch 2.15 gives in float64.
fn assert_as_torch(optimizer: Result<Optimizer>, expected: [f64; 3]) {
    let optimizer = optimizer.unwrap();
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
        Optimizer::new(sgd(0.0, 0.0, false), 0.1, 0.0, None, None),
        [0.33999999999999997, -1.28, 1.91],
    );
    assert_as_torch(
        Optimizer::new(sgd(0.0, 0.0, false), 0.1, 0.01, None, None),
        [0.33854146949999997, -1.27630367875, 1.904265888],
    );
    assert_as_torch(
        Optimizer::new(sgd(0.9, 0.0, false), 0.1, 0.01, None, None),
        [0.30399136949999994, -1.23446942875, 1.675147488],
    );
    assert_as_torch(
        Optimizer::new(sgd(0.9, 0.3, false), 0.1, 0.0, None, None),
        [0.34029999999999994, -1.1869999999999998, 1.6906999999999999],
    );
    assert_as_torch(
        Optimizer::new(sgd(0.9, 0.0, true), 0.1, 0.01, None, None),
        [0.16224898480049998, -1.2625216062962499, 1.6125162277919998],
    );
}

#[test]
fn adam_as_torch() {
    assert_as_torch(
        Optimizer::new(adam(0.9, 0.999, 1e-8), 0.05, 0.0, None, None),
        [0.4104120228859351, -1.2183909954342267, 1.889974513838427],
    );
    assert_as_torch(
        Optimizer::new(adam(0.8, 0.95, 1e-3), 0.05, 0.1, None, None),
        [0.40142513534006335, -1.206601529338748, 1.8829742819528572],
    );
}

/// torch.nn.utils.clip_grad_norm_, then clip_grad_value_, then the step.
#[test]
fn clipping_as_torch() {
    assert_as_torch(
        Optimizer::new(sgd(0.9, 0.0, false), 0.1, 0.0, Some(1.0), None),
        [0.38437469575207345, -1.284540875917039, 1.7386351150704908],
    );
    assert_as_torch(
        Optimizer::new(sgd(0.0, 0.0, false), 0.1, 0.0, Some(1.2), Some(0.5)),
        [0.44309235677264713, -1.2574136201784327, 1.9544817210705965],
    );
}

/// The first step of Adam is lr * sign(g) whatever the gradient's size, up to eps.
#[test]
fn first_step_of_adam_is_the_learning_rate() {
    let optimizer = Optimizer::new(adam(0.9, 0.999, 1e-8), 0.01, 0.0, None, None).unwrap();
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
    for rule in [
        sgd(0.0, 0.0, false),
        sgd(0.9, 0.0, true),
        adam(0.9, 0.999, 1e-8),
    ] {
        let optimizer = Optimizer::new(rule, 10.0, 0.0, None, None).unwrap();
        let (mut weights, mut state) = (vec![1.0_f32; 37], State::default());
        optimizer
            .step(&mut weights, &[0.5; 37], &mut state)
            .unwrap();
        let before = (weights.clone(), state.buffers.clone());
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
            assert_eq!(
                (&weights, &state.buffers, state.steps),
                (&before.0, &before.1, 1)
            );
        }
    }
}

#[test]
fn state_of_other_weights_or_another_rule_is_refused() {
    let optimizer = Optimizer::new(sgd(0.9, 0.0, false), 0.1, 0.0, None, None).unwrap();
    let mut state = State::default();
    optimizer
        .step(&mut [1.0_f64; 3], &[1.0; 3], &mut state)
        .unwrap();
    let error = optimizer
        .step(&mut [1.0; 4], &[1.0; 4], &mut state)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`weights`: expected shape (3,)")
    );
    assert!(
        optimizer
            .step(&mut [1.0; 3], &[1.0; 4], &mut state)
            .is_err()
    );
    let other = Optimizer::new(adam(0.9, 0.999, 1e-8), 0.1, 0.0, None, None).unwrap();
    let error = other
        .step(&mut [1.0; 3], &[1.0; 3], &mut state)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("`state`: expected 2 buffers, got 1")
    );
}

#[test]
fn settings_outside_their_range_are_named() {
    let plain = sgd(0.0, 0.0, false);
    for (argument, optimizer) in [
        (
            "learning_rate",
            Optimizer::new(plain, -0.1, 0.0, None, None),
        ),
        (
            "learning_rate",
            Optimizer::new(plain, f64::NAN, 0.0, None, None),
        ),
        (
            "weight_decay",
            Optimizer::new(plain, 0.1, f64::INFINITY, None, None),
        ),
        (
            "clip_norm",
            Optimizer::new(plain, 0.1, 0.0, Some(0.0), None),
        ),
        (
            "clip_value",
            Optimizer::new(plain, 0.1, 0.0, None, Some(f64::NAN)),
        ),
        (
            "momentum",
            Optimizer::new(sgd(-0.5, 0.0, false), 0.1, 0.0, None, None),
        ),
        (
            "momentum",
            Optimizer::new(sgd(0.0, 0.0, true), 0.1, 0.0, None, None),
        ),
        (
            "dampening",
            Optimizer::new(sgd(0.9, 0.1, true), 0.1, 0.0, None, None),
        ),
        (
            "beta1",
            Optimizer::new(adam(1.0, 0.999, 1e-8), 0.1, 0.0, None, None),
        ),
        (
            "beta2",
            Optimizer::new(adam(0.9, -0.1, 1e-8), 0.1, 0.0, None, None),
        ),
        (
            "eps",
            Optimizer::new(adam(0.9, 0.999, -1.0), 0.1, 0.0, None, None),
        ),
    ] {
        let message = optimizer.unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("`{argument}`: expected ")),
            "{message}"
        );
    }
}
