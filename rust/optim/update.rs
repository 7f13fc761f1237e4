//! Work on every weight alike, spread over threads.
//!
//! The weights are cut into pieces of a fixed length. What becomes of a weight depends on its own
//! numbers alone, and sums are joined in the order of the pieces, so that neither threads nor the
//! instruction set change a bit.

use crate::error::{Error, Result};
use crate::parallel;
use crate::reduce::reduce;
use crate::simd::{Isa, Plain, Real, compiled_for};

/// Weights whose update is one piece of work: a few microseconds, within the second level cache.
const PIECE: usize = 1 << 14;

/// Replaces each weight and its `N` numbers of state by `new(weight, gradient, state)`, if all of
/// that is finite.
///
/// It is computed twice, the first time to look only: that needs no second copy of anything, and
/// takes a third of the time of the whole.
pub(super) fn update<E: Real, const N: usize>(
    isa: Isa,
    weights: &mut [E],
    gradients: &[E],
    buffers: [&mut [E]; N],
    new: impl Fn(E, E, [E; N]) -> (E, [E; N]) + Copy + Sync,
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
    for_each(&mut pieces, |piece| {
        piece.finite = compiled_for(isa, Look(piece, new))
    });
    if !pieces.iter().all(|piece| piece.finite) {
        return Err(not_finite("a weight after the update"));
    }
    for_each(&mut pieces, |piece| compiled_for(isa, Write(piece, new)));
    Ok(())
}

/// Some of the weights, with what belongs to them.
struct Piece<'a, E, const N: usize> {
    weights: &'a mut [E],
    gradients: &'a [E],
    buffers: [&'a mut [E]; N],
    finite: bool,
}

/// Whether the new numbers of a piece are all finite.
struct Look<'a, 'b, E, F, const N: usize>(&'a Piece<'b, E, N>, F);

impl<E: Real, F: Fn(E, E, [E; N]) -> (E, [E; N]), const N: usize> Plain for Look<'_, '_, E, F, N> {
    type Output = bool;
    #[inline(always)]
    fn run(self) -> bool {
        let Self(piece, new) = self;
        let len = piece.weights.len();
        let (weights, gradients) = (&piece.weights[..len], &piece.gradients[..len]);
        let mut buffers = [&[][..]; N];
        for (all, buffer) in buffers.iter_mut().zip(&piece.buffers) {
            *all = &buffer[..len];
        }
        let mut finite = true;
        // Loops over `k`: not every build inlines what `std::array::from_fn` calls.
        for i in 0..len {
            let mut state = [E::ZERO; N];
            for k in 0..N {
                state[k] = buffers[k][i];
            }
            let (w, state) = new(weights[i], gradients[i], state);
            // Not `&&`: without a branch the loop is vectorised.
            finite &= w.is_finite();
            for x in state {
                finite &= x.is_finite();
            }
        }
        finite
    }
}

/// Replaces the numbers of a piece by the new ones.
struct Write<'a, 'b, E, F, const N: usize>(&'a mut Piece<'b, E, N>, F);

impl<E: Real, F: Fn(E, E, [E; N]) -> (E, [E; N]), const N: usize> Plain for Write<'_, '_, E, F, N> {
    type Output = ();
    #[inline(always)]
    fn run(self) {
        let Self(piece, new) = self;
        let len = piece.weights.len();
        let (weights, gradients) = (&mut piece.weights[..len], &piece.gradients[..len]);
        let buffers = piece.buffers.each_mut().map(|buffer| &mut buffer[..len]);
        for i in 0..len {
            let mut state = [E::ZERO; N];
            for k in 0..N {
                state[k] = buffers[k][i];
            }
            let (w, state) = new(weights[i], gradients[i], state);
            weights[i] = w;
            for k in 0..N {
                buffers[k][i] = state[k];
            }
        }
    }
}

/// The L2 norm, in double precision and in an order that depends on the length alone.
pub(super) fn norm<E: Real>(isa: Isa, values: &[E]) -> f64 {
    let mut pieces: Vec<_> = values.chunks(PIECE).map(|piece| (piece, 0.0)).collect();
    for_each(&mut pieces, |(piece, sum)| {
        *sum = compiled_for(isa, Squares(piece))
    });
    pieces.iter().map(|(_, sum)| sum).sum::<f64>().sqrt()
}

/// The sum of squares.
struct Squares<'a, E>(&'a [E]);

impl<E: Real> Plain for Squares<'_, E> {
    type Output = f64;
    #[inline(always)]
    fn run(self) -> f64 {
        let square = |sum, x: E| {
            let x = x.to_f64();
            sum + x * x
        };
        reduce(self.0, 0.0, square, |a, b| a + b)
    }
}

/// Calls `work` with each piece, on as many threads as the call may use.
fn for_each<T: Send>(pieces: &mut [T], work: impl Fn(&mut T) + Sync) {
    let workers = parallel::num_threads().unwrap_or(1);
    parallel::for_each(workers, pieces.iter_mut().collect(), work);
}

pub(super) fn not_finite(what: &str) -> Error {
    Error::NotFinite { what: what.into() }
}
