//! Rows are lent and handed out, or copied where they must be.

use ndarray::{Array2, Array3, s};

use super::*;
use crate::layer::Geometry;

const SHAPE: (usize, usize, usize) = (3, 2, 4);

fn is_there(from: Rows<f32>, lengths: &[usize], lanes: usize, with_padding: bool) -> bool {
    let (steps, arena) = (Steps::new(lengths), Arc::default());
    let at = match &from {
        Rows::Padded(from) => from.as_ptr(),
        Rows::Packed(from) => from.as_ptr(),
    };
    let width = from.shape()[from.shape().len() - 1];
    let columns = Geometry::columns(1, width, lanes);
    let expected = gathered(from, &steps, columns, &arena);
    let lent = Lent::new(from, &steps, columns, with_padding, &arena);
    let view = lent.view();
    assert!(view.covers(&steps, width));
    for step in 0..steps.longest() {
        for row in 0..steps.count(step) {
            let first = view.strides().at(&steps, step, row);
            for column in 0..width {
                let wanted = expected[(steps.offset(step) + row) * columns.stride() + column];
                // SAFETY: the view has this step, row and column.
                assert_eq!(unsafe { *view.at().add(first + column) }, wanted);
            }
        }
    }
    view.at() == at
}

#[test]
fn rows_are_read_where_they_lie() {
    let x = Array3::from_shape_fn(SHAPE, |(t, b, i)| (100 * t + 10 * b + i) as f32);
    let full = [3, 3];
    assert!(is_there(x.view().into(), &full, 4, true));
    // Sequences that end early, if the longest comes first.
    assert!(is_there(x.view().into(), &[3, 1], 4, true));
    assert!(!is_there(x.view().into(), &[1, 3], 4, true));
    // Without room for padding, where none is read.
    assert!(is_there(x.view().into(), &full, 16, false));
    assert!(!is_there(x.view().into(), &full, 16, true));
    // In wider rows, the other way round, and one for all.
    assert!(is_there(x.slice(s![.., .., 1..3]).into(), &full, 2, true));
    assert!(!is_there(x.slice(s![.., .., ..;2]).into(), &full, 2, true));
    assert!(is_there(
        x.view().permuted_axes([1, 0, 2]).into(),
        &[2; 3],
        4,
        true
    ));
    let one = x.slice(s![..1, ..1, ..]);
    assert!(is_there(
        one.broadcast(SHAPE).unwrap().into(),
        &full,
        4,
        true
    ));
    // Backwards, but for an axis of one.
    assert!(!is_there(x.slice(s![..;-1, .., ..]).into(), &full, 4, true));
    assert!(!is_there(x.slice(s![.., ..;-1, ..]).into(), &full, 4, true));
    assert!(is_there(
        x.slice(s![..1;-1, .., ..]).into(),
        &[1, 1],
        4,
        true
    ));
    let packed = Array2::from_shape_fn((4, 4), |(r, i)| (10 * r + i) as f32);
    assert!(is_there(Rows::Packed(packed.view()), &[3, 1], 4, true));
    assert!(!is_there(
        Rows::Packed(packed.slice(s![..;-1, ..])),
        &[3, 1],
        4,
        true
    ));
    // Nothing.
    assert!(is_there(x.slice(s![..0, .., ..]).into(), &[0, 0], 4, true));
}

#[test]
fn rows_that_lie_as_asked_for_are_handed_out_as_they_are() {
    let arena = Arc::<Arena>::default();
    for (lengths, is_full) in [([3, 3], true), ([3, 1], false)] {
        let steps = Steps::new(&lengths);
        for (axes, may) in [
            (Axes::Steps, is_full),
            (Axes::Sequences, is_full),
            (Axes::Packed, true),
        ] {
            for lanes in [4, 16] {
                let columns = Geometry::columns(1, 4, lanes);
                let there = axes.strides(&steps, 3, 4).filter(|_| lanes == 4);
                assert_eq!(there.is_some(), may && lanes == 4);
                let strides = there.unwrap_or(Strides::packed(columns.stride()));
                let mut rows = arena.zeros::<f32>(steps.rows() * columns.stride());
                for step in 0..steps.longest() {
                    for row in 0..steps.count(step) {
                        rows[strides.at(&steps, step, row)] = (10 * step + row) as f32;
                    }
                }
                let at = rows.as_ptr();
                let out = axes.hand_out(rows, strides, (&steps, 3), columns, &arena);
                let out = out.unwrap();
                assert_eq!(out.as_ptr() == at, there.is_some());
                let firsts: Vec<f32> = out.iter().copied().step_by(4).collect();
                let expected = match (axes, is_full) {
                    (Axes::Sequences, true) => vec![0., 10., 20., 1., 11., 21.],
                    (Axes::Sequences, false) => vec![0., 10., 20., 1., 0., 0.],
                    (Axes::Packed, false) => vec![0., 1., 10., 20.],
                    (Axes::Steps, false) => vec![0., 1., 10., 0., 20., 0.],
                    _ => vec![0., 1., 10., 11., 20., 21.],
                };
                assert_eq!(firsts, expected);
            }
        }
    }
}
