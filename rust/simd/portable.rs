//! Plain Rust in the width of a 128-bit register, which every target's compiler vectorises.

use super::{Op, Real, Vector};

/// `N` lanes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Lanes<E, const N: usize>([E; N]);

/// 4 lanes of f32.
pub type F32x4 = Lanes<f32, 4>;
/// 2 lanes of f64.
pub type F64x2 = Lanes<f64, 2>;

impl<E: Real, const N: usize> Lanes<E, N> {
    /// By hand: the standard library's functions on arrays are inlined by LTO alone.
    #[inline(always)]
    fn zip(mut self, b: Self, f: impl Fn(E, E) -> E) -> Self {
        for (i, x) in self.0.iter_mut().enumerate() {
            *x = f(*x, b.0[i]);
        }
        self
    }
}

impl<E: Real, const N: usize> Vector for Lanes<E, N> {
    type Element = E;
    const LANES: usize = N;
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") {
        32
    } else {
        16
    };

    #[inline(always)]
    unsafe fn splat(x: E) -> Self {
        Self([x; N])
    }
    #[inline(always)]
    unsafe fn load(p: *const E) -> Self {
        // SAFETY: the caller vouches for N numbers at `p`.
        Self(unsafe { p.cast::<[E; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut E) {
        // SAFETY: the caller vouches for room for N numbers at `p`.
        unsafe { p.cast::<[E; N]>().write_unaligned(self.0) }
    }
    #[inline(never)]
    unsafe fn invoke<O: Op<Self>>(op: O) {
        // SAFETY: passed on from the caller.
        unsafe { op.run() }
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.zip(b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.zip(b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.zip(b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, b: Self) -> Self {
        self.zip(b, |x, y| x / y)
    }
    #[inline(always)]
    fn add_product(mut self, a: Self, b: Self) -> Self {
        for (i, sum) in self.0.iter_mut().enumerate() {
            *sum = sum.add_product(a.0[i], b.0[i]);
        }
        self
    }
    #[inline(always)]
    fn sub_product(mut self, a: Self, b: Self) -> Self {
        for (i, sum) in self.0.iter_mut().enumerate() {
            *sum = sum.add_product(-a.0[i], b.0[i]);
        }
        self
    }
    #[inline(always)]
    fn min(self, b: Self) -> Self {
        self.zip(b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.zip(b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn round(self) -> Self {
        self.zip(self, |x, _| x.round_even())
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        self.zip(n, Real::scale)
    }
    #[inline(always)]
    fn interleave(self, b: Self) -> [Self; 2] {
        let (mut first, mut second) = (self, self);
        for i in 0..N {
            let lane = if i % 2 == 0 { self } else { b };
            first.0[i] = lane.0[i / 2];
            second.0[i] = lane.0[(N + i) / 2];
        }
        [first, second]
    }
    #[inline(always)]
    fn where_positive(self, condition: Self) -> Self {
        self.zip(condition, |x, c| if c <= E::ZERO { E::ZERO } else { x })
    }
}
