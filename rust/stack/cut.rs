//! How a pass over a layer is cut for its threads.

use std::ops::Range;

use super::Direction;
use crate::kernel::NEAR;
use crate::layer::Geometry;
use crate::sequence::Slice;
use crate::simd::Real;
use crate::steps::Steps;

/// Each direction's slices of rows, for some of its steps, each with a team for its units.
pub(super) fn cut<E: Real>(
    steps: &Steps,
    directions: &[Direction<E>],
    workers: usize,
    within: impl Fn(usize) -> Range<usize>,
) -> Vec<(usize, Slice<E>)> {
    let threads = workers.div_ceil(directions.len());
    let g = &directions[0].geometry;
    let parts = parts::<E>(g, steps, threads);
    (0..directions.len())
        .flat_map(|d| {
            let rows = steps.slices(&within(d), threads / parts).into_iter();
            rows.map(move |rows| (d, Slice::new(rows, parts)))
        })
        .collect()
}

/// How many of a direction's threads share the units of the same rows; the others take other rows.
///
/// With rows of its own, a thread waits for nobody. But it reads all weights in every step, in
/// tiles that cost the more for a row the fewer it has, and there may be more threads than rows. So
/// this compares what a step takes a thread, in products: those of its rows and units, and what it
/// takes to see that the others are done and to get their units' states.
///
/// The constants are of two cores with 1 MiB of second-level cache each (AMD Zen 5), where a flag
/// goes from one to the other and back in 400 ns.
fn parts<E>(g: &Geometry, steps: &Steps, threads: usize) -> usize {
    /// Rows that a tile takes the time of, if it has fewer.
    const ROWS: usize = 4;
    /// Products in the time that it takes to see that another thread is done.
    const WAIT: usize = 50_000;
    /// Products in the time that it takes to get a number that another thread wrote.
    const FETCH: usize = 30;
    let weights = g.state_weights();
    let mean = steps.rows().div_ceil(steps.longest().max(1)).max(1);
    let cost = |parts: usize| {
        let rows = mean.div_ceil((threads / parts).min(mean));
        let share = weights.div_ceil(g.panels()) * g.panels().div_ceil(parts);
        // Weights that do not stay in the cache cost as another row.
        let is_far = share * size_of::<E>() > NEAR;
        let products = share * (rows.max(ROWS) + usize::from(is_far));
        if steps.longest() <= 1 || parts == 1 {
            return products;
        }
        products + WAIT + FETCH * rows * (g.width - g.width / parts)
    };
    let most = threads.min(g.panels()).max(1);
    (1..=most).min_by_key(|&parts| cost(parts)).unwrap_or(1)
}

/// Whom the slices need: direction, slice and the part that is their own.
pub(super) fn members<E: Real>(slices: &[(usize, Slice<E>)]) -> Vec<(usize, &Slice<E>, usize)> {
    slices
        .iter()
        .flat_map(|(d, slice)| (0..slice.parts()).map(move |own| (*d, slice, own)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::CellKind;

    /// Parts of the units for LSTM, GRU and RNN, forward.
    fn parts_of(
        (batch, longest, inputs, hidden): (usize, usize, usize, usize),
        threads: usize,
    ) -> [usize; 3] {
        [CellKind::Lstm, CellKind::Gru, CellKind::RNN_TANH].map(|kind| {
            let g = Geometry::new(kind, Geometry::columns(1, inputs, 16), (hidden, hidden), 16);
            let steps = Steps::new(&vec![longest; batch]);
            parts::<f32>(&g, &steps, threads)
        })
    }

    #[test]
    fn units_are_shared_where_rows_are_few() {
        // One sequence, one step: whatever there is of units.
        assert_eq!(parts_of((1, 1, 128, 256), 2), [2, 2, 2]);
        assert_eq!(parts_of((1, 1, 128, 256), 64), [16, 16, 16]);
        // Waiting takes longer than the products of a narrow layer.
        assert_eq!(parts_of((1, 50, 32, 32), 2), [1, 1, 1]);
        assert_eq!(parts_of((1, 50, 64, 64), 2), [1, 1, 1]);
        assert_eq!(parts_of((1, 100, 128, 256), 2), [2, 2, 2]);
        // Rows enough for full tiles of weights that stay near; then weights that do not.
        assert_eq!(parts_of((8, 50, 50, 128), 2), [1, 1, 1]);
        assert_eq!(parts_of((8, 100, 128, 256), 2), [2, 2, 1]);
        assert_eq!(parts_of((128, 50, 50, 128), 2), [1, 1, 1]);
        // More threads than rows.
        let shared = |shape| parts_of(shape, 16).map(|parts| parts > 1);
        assert_eq!(shared((8, 50, 50, 128)), [true, true, false]);
        assert_eq!(shared((8, 100, 128, 256)), [true; 3]);
        assert_eq!(parts_of((0, 0, 3, 5), 4), [1, 1, 1]);
        assert_eq!(parts_of((8, 100, 128, 256), 1), [1, 1, 1]);
    }
}
