//! The losses against torch and against differences, and scores against scikit-learn.

use super::*;

const LOSSES: [Loss; 5] = [
    Loss::CrossEntropy,
    Loss::BinaryCrossEntropy,
    Loss::SquaredError,
    Loss::AbsoluteError,
    Loss::Huber { delta: 0.75 },
];

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!(
            (found - expected).abs() < 1e-14,
            "{found} is not {expected}"
        );
    }
}

const LOGITS: [f64; 9] = [0.5, -1.0, 2.0, 1000.0, 999.0, -1000.0, -3.0, 0.25, 0.25];
const CLASSES: Expected<f64> = Expected::Classes(&[0, 1, 1]);

const BITS: [f64; 6] = [0.5, -40.0, 800.0, 0.0, -3.0, 1.5];
const CHANCES: Expected<f64> = Expected::Numbers(&[1.0, 0.0, 1.0, 0.25, 1.0, 0.0]);

const OUTPUTS: [f64; 6] = [0.5, -1.0, 2.0, 0.25, -3.0, 1.5];
const TARGETS: [f64; 6] = [1.0, -1.5, 1.0, 0.5, -2.0, 3.0];
const NUMBERS: Expected<f64> = Expected::Numbers(&TARGETS);

const WEIGHTS: Option<&[f64]> = Some(&[0.5, 2.0, 0.25]);
const WEIGHED: f64 = 1.0 / 2.75;
const EVEN: f64 = 1.0 / 3.0;

/// Score and gradient of three rows without padding.
fn three(
    loss: Loss,
    outputs: &[f64],
    targets: Expected<f64>,
    weights: Option<&[f64]>,
    scale: f64,
) -> (Score, Vec<f64>) {
    let (n_outputs, mut outputs) = (outputs.len() / 3, outputs.to_vec());
    let mut score = Score::new(loss, n_outputs);
    loss.apply(
        Isa::Portable,
        &mut outputs,
        n_outputs,
        n_outputs,
        targets,
        weights,
        scale,
        &mut score,
    );
    (score, outputs)
}

/// torch.nn.functional.cross_entropy, float64; with weights, `reduction="none"` and the mean by
/// hand; accuracy by sklearn.metrics.accuracy_score.
#[test]
fn cross_entropy_as_torch() {
    let (score, gradient) = three(Loss::CrossEntropy, &LOGITS, CLASSES, None, EVEN);
    assert_close(&[score.loss()], &[1.2556405776392665]);
    assert_close(
        &gradient,
        &[
            -0.27490320261998774,
            0.013037524423562482,
            0.26186567819642526,
            0.2436861928766683,
            -0.2436861928766683,
            0.0,
            0.006339464122244836,
            -0.16983639872778905,
            0.16349693460554426,
        ],
    );
    // Of the two largest logits of the last row the first counts.
    assert_eq!(score.metric(), 1.0 / 3.0);
    assert_eq!(score.weight(), 3.0);

    let (score, gradient) = three(Loss::CrossEntropy, &LOGITS, CLASSES, WEIGHTS, WEIGHED);
    assert_close(&[score.loss()], &[1.3364604402002287]);
    assert_close(
        &gradient,
        &[
            -0.14994720142908424,
            0.007111376958306809,
            0.14283582447077744,
            0.5316789662763672,
            -0.5316789662763672,
            0.0,
            0.0017289447606122282,
            -0.04631901783485157,
            0.044590073074239345,
        ],
    );
    assert_close(&[score.metric()], &[0.09090909090909091]);
    assert_eq!(score.weight(), 2.75);
}

/// torch.nn.functional.binary_cross_entropy_with_logits, float64, for large logits too.
#[test]
fn binary_cross_entropy_as_torch() {
    let (score, gradient) = three(Loss::BinaryCrossEntropy, &BITS, CHANCES, None, EVEN);
    assert_close(&[score.loss()], &[0.9862041323827576]);
    let expected = [
        -0.06292344479969089,
        7.080590425485981e-19,
        0.0,
        0.041666666666666664,
        -0.15876235447040554,
        0.1362624126989406,
    ];
    assert_close(&gradient, &expected);
    assert!((gradient[1] / expected[1] - 1.0).abs() < 1e-14);
    // A row is right if all its outputs are; an output of 0 says no.
    assert_eq!(score.metric(), 2.0 / 3.0);

    let (score, gradient) = three(Loss::BinaryCrossEntropy, &BITS, CHANCES, WEIGHTS, WEIGHED);
    assert_close(&[score.loss()], &[0.5110605473816486]);
    assert_close(
        &gradient,
        &[
            -0.03432187898164958,
            3.8621402320832627e-19,
            0.0,
            0.09090909090909091,
            -0.04329882394647424,
            0.037162476190620165,
        ],
    );
    assert_close(&[score.metric()], &[2.5 / 2.75]);
}

/// torch.nn.functional.mse_loss, l1_loss and huber_loss, R^2 by sklearn.metrics.r2_score.
#[test]
fn distances_as_torch_and_r2_as_sklearn() {
    let sixths = |x: [f64; 6]| x.map(|x| x / 6.0);
    for (loss, expected, gradients) in [
        (
            Loss::SquaredError,
            0.8020833333333334,
            sixths([-1.0, 1.0, 2.0, -0.5, -2.0, -3.0]),
        ),
        (
            Loss::AbsoluteError,
            0.7916666666666666,
            sixths([-1.0, 1.0, 1.0, -1.0, -1.0, -1.0]),
        ),
        (
            Loss::Huber { delta: 0.75 },
            0.34375,
            sixths([-0.5, 0.5, 0.75, -0.25, -0.75, -0.75]),
        ),
    ] {
        let (score, gradient) = three(loss, &OUTPUTS, NUMBERS, None, EVEN);
        assert_close(&[score.loss()], &[expected]);
        assert_close(&gradient, &gradients);
        assert_close(&[score.metric()], &[0.6864754098360656]);
    }
    let elevenths = |x: [f64; 6]| x.map(|x| x / 11.0);
    for (loss, expected, gradients) in [
        (
            Loss::SquaredError,
            0.5795454545454546,
            elevenths([-1.0, 1.0, 8.0, -2.0, -1.0, -1.5]),
        ),
        (
            Loss::AbsoluteError,
            0.6590909090909091,
            elevenths([-1.0, 1.0, 4.0, -4.0, -0.5, -0.5]),
        ),
        (
            Loss::Huber { delta: 0.75 },
            0.26420454545454547,
            elevenths([-0.5, 0.5, 3.0, -1.0, -0.375, -0.375]),
        ),
    ] {
        let (score, gradient) = three(loss, &OUTPUTS, NUMBERS, WEIGHTS, WEIGHED);
        assert_close(&[score.loss()], &[expected]);
        assert_close(&gradient, &gradients);
        assert_close(&[score.metric()], &[0.3037486515641856]);
    }
}

/// No error, no slope: torch's sign of 0 is 0.
#[test]
fn an_exact_output_has_no_slope() {
    for loss in &LOSSES[2..] {
        let gradient = three(*loss, &TARGETS, NUMBERS, None, 1.0).1;
        assert_eq!(gradient, [0.0; 6], "{loss:?}");
    }
}

/// Gradients by central differences, with and without weights, for row widths with and without a
/// last partial block.
#[test]
fn gradients_are_differences_of_the_loss() {
    let weights = [0.5, 0.0, 2.0, 1.0, 0.25];
    for (n_outputs, ld) in [(1, 1), (3, 16), (4, 4), (17, 20), (40, 48)] {
        let rows = 5;
        let y: Vec<f64> = (0..rows * ld)
            .map(|i| (i as f64 * 1.7).sin() * 3.0)
            .collect();
        let t: Vec<f64> = (0..rows * n_outputs)
            .map(|i| 0.5 + 0.5 * (i as f64 * 0.9).cos())
            .collect();
        let classes: Vec<u32> = (0..rows).map(|r| (r * 7 % n_outputs) as u32).collect();
        for (loss, weights) in LOSSES
            .into_iter()
            .flat_map(|loss| [(loss, None), (loss, Some(&weights[..]))])
        {
            let total = weights.map_or(5.0, |weights| weights.iter().sum());
            let evaluate = |y: &[f64]| {
                let mut y = y.to_vec();
                let mut score = Score::new(loss, n_outputs);
                let targets = match loss {
                    Loss::CrossEntropy => Expected::Classes(&classes),
                    _ => Expected::Numbers(&t),
                };
                loss.apply(
                    Isa::Portable,
                    &mut y,
                    ld,
                    n_outputs,
                    targets,
                    weights,
                    1.0 / total,
                    &mut score,
                );
                (score.loss(), y)
            };
            let gradient = evaluate(&y).1;
            for i in 0..y.len() {
                let at = |h: f64| {
                    let mut y = y.clone();
                    y[i] += h;
                    evaluate(&y).0
                };
                let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
                assert!(
                    (gradient[i] - slope).abs() < 1e-8,
                    "{loss:?} {n_outputs} {i}"
                );
                let silent = weights.is_some_and(|weights| weights[i / ld] == 0.0);
                assert!((i % ld < n_outputs && !silent) || gradient[i] == 0.0);
            }
        }
    }
}

#[test]
fn single_precision_is_close_to_double() {
    for loss in LOSSES {
        let (outputs, targets): (&[f64], _) = match loss {
            Loss::CrossEntropy => (&LOGITS, CLASSES),
            Loss::BinaryCrossEntropy => (&BITS, CHANCES),
            _ => (&OUTPUTS, NUMBERS),
        };
        let (exact, double) = three(loss, outputs, targets, WEIGHTS, WEIGHED);
        let mut single: Vec<f32> = outputs.iter().map(|&y| y as f32).collect();
        let numbers: Vec<f32>;
        let targets = match targets {
            Expected::Classes(classes) => Expected::Classes(classes),
            Expected::Numbers(exact) => {
                numbers = exact.iter().map(|&t| t as f32).collect();
                Expected::Numbers(&numbers)
            }
        };
        let width = outputs.len() / 3;
        let mut score = Score::new(loss, width);
        let weights = Some(&[0.5, 2.0, 0.25][..]);
        loss.apply(
            Isa::Portable,
            &mut single,
            width,
            width,
            targets,
            weights,
            WEIGHED,
            &mut score,
        );
        assert!((score.loss() - exact.loss()).abs() < 1e-6);
        for (a, b) in single.iter().zip(double) {
            assert!((f64::from(*a) - b).abs() < 1e-7, "{loss:?}: {a} and {b}");
        }
    }
}

#[test]
fn not_a_number_shows_in_the_loss() {
    for loss in LOSSES {
        for bad in [f64::NAN, f64::INFINITY] {
            for at in 0..3 {
                let mut outputs = [0.0, 1.0, 2.0];
                outputs[at] = bad;
                let mut score = Score::new(loss, 3);
                let targets = match loss {
                    Loss::CrossEntropy => Expected::Classes(&[1]),
                    _ => Expected::Numbers(&[0.0, 1.0, 0.0]),
                };
                loss.apply(
                    Isa::Portable,
                    &mut outputs,
                    3,
                    3,
                    targets,
                    None,
                    1.0,
                    &mut score,
                );
                assert!(!score.loss().is_finite(), "{loss:?} {bad} {at}");
            }
        }
    }
}

/// Whatever a row of weight 0 holds, the others have the same bits as without it.
#[test]
fn a_row_of_weight_0_counts_nowhere() {
    for loss in LOSSES {
        let (classes, numbers) = ([0, 1, 1, 0], [1.0, 0.0, 0.5, f64::NAN, 0.0, 1.0]);
        let mut outputs = [0.5, -1.0, f64::INFINITY, f64::NAN, 2.0, 0.25];
        let weights = [0.5, 0.0, 3.0];
        let mut score = Score::new(loss, 2);
        let targets = match loss {
            Loss::CrossEntropy => Expected::Classes(&classes[..3]),
            _ => Expected::Numbers(&numbers),
        };
        loss.apply(
            Isa::Portable,
            &mut outputs,
            2,
            2,
            targets,
            Some(&weights),
            0.2,
            &mut score,
        );
        let mut without = [0.5, -1.0, 2.0, 0.25];
        let mut expected = Score::new(loss, 2);
        let targets = match loss {
            Loss::CrossEntropy => Expected::Classes(&[0, 1]),
            _ => Expected::Numbers(&[1.0, 0.0, 0.0, 1.0]),
        };
        let weights = Some(&[0.5, 3.0][..]);
        loss.apply(
            Isa::Portable,
            &mut without,
            2,
            2,
            targets,
            weights,
            0.2,
            &mut expected,
        );
        assert_eq!(score, expected, "{loss:?}");
        assert_eq!(outputs[2..4], [0.0; 2]);
        assert_eq!([&outputs[..2], &outputs[4..]].concat(), without);
        // Of such rows alone there is no loss.
        let mut none = Score::new(loss, 2);
        let (targets, weights) = match loss {
            Loss::CrossEntropy => (Expected::Classes(&[1]), Some(&[0.0][..])),
            _ => (Expected::Numbers(&[1.0, 0.0]), Some(&[0.0][..])),
        };
        loss.apply(
            Isa::Portable,
            &mut [1.0, 2.0],
            2,
            2,
            targets,
            weights,
            1.0,
            &mut none,
        );
        assert_eq!(none, Score::new(loss, 2));
        assert!(none.loss().is_nan() && none.metric().is_nan());
    }
}

#[test]
fn slices_merge_to_the_whole() {
    for loss in [Loss::SquaredError, Loss::BinaryCrossEntropy] {
        let whole = three(loss, &OUTPUTS, NUMBERS, WEIGHTS, 1.0).0;
        for cut in 0..=3 {
            let mut merged = Score::new(loss, 2);
            for part in [0..cut, cut..3] {
                let (mut outputs, mut score) = (OUTPUTS, Score::new(loss, 2));
                let numbers = 2 * part.start..2 * part.end;
                loss.apply(
                    Isa::Portable,
                    &mut outputs[numbers.clone()],
                    2,
                    2,
                    Expected::Numbers(&TARGETS[numbers]),
                    WEIGHTS.map(|weights| &weights[part]),
                    1.0,
                    &mut score,
                );
                merged.merge(&score);
            }
            assert_close(
                &[merged.loss(), merged.metric(), merged.weight()],
                &[whole.loss(), whole.metric(), whole.weight()],
            );
        }
    }
}

#[test]
#[should_panic(expected = "number of outputs")]
fn scores_of_other_outputs_do_not_merge() {
    Score::new(Loss::SquaredError, 2).merge(&Score::new(Loss::SquaredError, 1));
}

#[test]
fn parts_make_the_same_score() {
    for loss in [Loss::CrossEntropy, Loss::SquaredError] {
        let (score, n_outputs) = match loss {
            Loss::CrossEntropy => (three(loss, &LOGITS, CLASSES, WEIGHTS, 1.0).0, 3),
            _ => (three(loss, &OUTPUTS, NUMBERS, WEIGHTS, 1.0).0, 2),
        };
        let parts = score.to_parts();
        assert_eq!(Score::from_parts(loss, n_outputs, &parts).unwrap(), score);
        let error = Score::from_parts(loss, n_outputs, &parts[1..]).unwrap_err();
        assert!(error.to_string().starts_with("score: expected "));
    }
}

#[test]
fn r2_of_constant_targets_and_of_few_rows() {
    let r2 = |outputs: &[f64], targets: &[f64], weights: Option<&[f64]>| {
        let (loss, mut score) = (Loss::SquaredError, Score::new(Loss::SquaredError, 1));
        let targets = Expected::Numbers(targets);
        loss.apply(
            Isa::Portable,
            &mut outputs.to_vec(),
            1,
            1,
            targets,
            weights,
            1.0,
            &mut score,
        );
        score.metric()
    };
    assert_eq!(r2(&[0.1, 0.1, 0.1], &[0.1, 0.1, 0.1], None), 1.0);
    assert_eq!(r2(&[0.1, 0.2, 0.1], &[0.1, 0.1, 0.1], None), 0.0);
    for weights in [[0.3, 0.7, 0.1], [0.7, 0.3, 0.1], [3.0, 1.0, 1.0]] {
        let weights = Some(&weights[..]);
        assert_eq!(r2(&[0.1, 0.2, 0.1], &[0.1, 0.1, 0.1], weights), 0.0);
    }
    assert!(r2(&[0.1], &[0.2], None).is_nan());
    assert!(r2(&[0.1, 0.3], &[0.2, 0.4], Some(&[1.0, 0.0])).is_nan());
    // A mean 1e9 times the spread costs no digits.
    assert_close(&[r2(&[1e9, 1e9 + 1.0], &[1e9, 1e9 + 2.0], None)], &[0.5]);
}

#[test]
fn a_delta_out_of_range_is_named() {
    assert!(Loss::Huber { delta: 1.0 }.validate().is_ok());
    for delta in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let error = Loss::Huber { delta }.validate().unwrap_err();
        assert!(error.to_string().starts_with("huber_delta: expected "));
    }
}

/// The same bits whatever the code is compiled for.
#[test]
fn no_instruction_set_changes_a_bit() {
    let (rows, n_outputs, ld) = (4, 37, 48);
    let y: Vec<f32> = (0..rows * ld)
        .map(|i| (i as f32 * 1.7).sin() * 9.0)
        .collect();
    let t: Vec<f32> = (0..rows * n_outputs)
        .map(|i| 0.5 + 0.5 * (i as f32 * 0.9).cos())
        .collect();
    for loss in LOSSES {
        let of = |isa: Isa| {
            let (mut y, mut score) = (y.clone(), Score::new(loss, n_outputs));
            let targets = match loss {
                Loss::CrossEntropy => Expected::Classes(&[0, 11, 36, 5]),
                _ => Expected::Numbers(&t),
            };
            loss.apply(isa, &mut y, ld, n_outputs, targets, None, 0.3, &mut score);
            (y, score)
        };
        for &isa in Isa::available() {
            assert!(of(isa) == of(Isa::Portable), "{loss:?} by {isa:?}");
        }
    }
}
