//! Work on every weight alike, spread over threads.
//!
//! The weights are cut into pieces of a fixed length. What becomes of a weight depends on its own
//! numbers alone, and sums are joined in the order of the pieces, so that threads change no bit.

use crate::error::{Error, Result};
use crate::parallel;
use crate::reduce::reduce;
use crate::simd::Real;

/// Weights whose update is one piece of work: a few microseconds, within the second level cache.
const PIECE: usize = 1 << 14;

/// Replaces each weight and its `N` numbers of state by `new(weight, gradient, state)`, if all of
/// that is finite.
///
/// It is computed twice, the first time to look only: that needs no second copy of anything.
pub(super) fn update<E: Real, const N: usize>(
    weights: &mut [E],
    gradients: &[E],
    buffers: [&mut [E]; N],
    new: impl Fn(E, E, [E; N]) -> (E, [E; N]) + Sync,
) -> Result<()> {
    let mut rests = buffers.map(|buffer| buffer.chunks_mut(PIECE));
    let mut pieces: Vec<_> = weights
        .chunks_mut(PIECE)
        .zip(gradients.chunks(PIECE))
        .map(|(weights, gradients)| Piece {
            weights,
            gradients,
            buffers: rests
                .each_mut()
                .map(|rest| rest.next().expect("as many pieces")),
            finite: false,
        })
        .collect();
    for_each(&mut pieces, |piece| piece.finite = piece.look(&new));
    if !pieces.iter().all(|piece| piece.finite) {
        return Err(not_finite("a weight after the update"));
    }
    for_each(&mut pieces, |piece| piece.write(&new));
    Ok(())
}

/// Some of the weights, with what belongs to them.
struct Piece<'a, E, const N: usize> {
    weights: &'a mut [E],
    gradients: &'a [E],
    buffers: [&'a mut [E]; N],
    finite: bool,
}

impl<E: Real, const N: usize> Piece<'_, E, N> {
    /// Whether `new` gives finite numbers only.
    #[inline(always)]
    fn look(&self, new: impl Fn(E, E, [E; N]) -> (E, [E; N])) -> bool {
        let len = self.weights.len();
        let (weights, gradients) = (&self.weights[..len], &self.gradients[..len]);
        let buffers: [&[E]; N] = std::array::from_fn(|k| &self.buffers[k][..len]);
        let mut finite = true;
        for i in 0..len {
            let state = std::array::from_fn(|k| buffers[k][i]);
            let (w, state) = new(weights[i], gradients[i], state);
            // Not `&&`: without a branch the loop is vectorised.
            finite &= state
                .iter()
                .fold(w.is_finite(), |all, x| all & x.is_finite());
        }
        finite
    }

    /// Replaces the numbers by what `new` gives.
    #[inline(always)]
    fn write(&mut self, new: impl Fn(E, E, [E; N]) -> (E, [E; N])) {
        let len = self.weights.len();
        let (weights, gradients) = (&mut self.weights[..len], &self.gradients[..len]);
        let buffers = self.buffers.each_mut().map(|buffer| &mut buffer[..len]);
        for i in 0..len {
            let state = std::array::from_fn(|k| buffers[k][i]);
            let (w, state) = new(weights[i], gradients[i], state);
            weights[i] = w;
            for k in 0..N {
                buffers[k][i] = state[k];
            }
        }
    }
}

/// The L2 norm, in double precision and in an order that depends on the length alone.
pub(super) fn norm<E: Real>(values: &[E]) -> f64 {
    let square = |sum, x: E| {
        let x = x.to_f64();
        sum + x * x
    };
    let mut pieces: Vec<_> = values.chunks(PIECE).map(|piece| (piece, 0.0)).collect();
    for_each(&mut pieces, |(piece, sum)| {
        *sum = reduce(piece, 0.0, square, |a, b| a + b);
    });
    pieces.iter().map(|(_, sum)| sum).sum::<f64>().sqrt()
}

/// Calls `work` with each piece, on as many threads as the call may use.
fn for_each<T: Send>(pieces: &mut [T], work: impl Fn(&mut T) + Sync) {
    let workers = parallel::num_threads().unwrap_or(1);
    parallel::for_each(workers, pieces.iter_mut().collect(), work);
}

pub(super) fn not_finite(what: &str) -> Error {
    Error::NotFinite { what: what.into() }
}
