//! Vector registers as one trait, and the instruction sets that implement it.
//!
//! Every kernel of the crate is written once over [`Vector`]. An [`Op`] is a piece of
//! vectorised work; [`Vector::invoke`] runs it inside a function that is compiled for the
//! vector's instruction set, whose steps the instruction set's file has likewise. That call is
//! never inlined: a tile that is inlined into a loop around it has its constants
//! hoisted by the compiler and spills its accumulators, at half the speed.
//!
//! # Safety of vectors
//!
//! A vector comes into being through [`Vector::splat`] or [`Vector::load`] alone. Both are
//! unsafe, their callers vouch that the CPU has the instruction set, and so the arithmetic
//! on a vector that exists is safe. Kernels are chosen where a stack is made, which refuses an
//! [`Isa`] that the CPU lacks.

/// Calls a test that is generic over [`Vector`] with every vector of an element that this CPU has:
/// `on_every_isa!(f32: check::<T>(3))` is `check::<F32x4, T>(3)` and so on.
#[cfg(test)]
macro_rules! on_every_isa {
    (f32: $($check:tt)*) => { on_every_isa!(F32x4 F32x8 F32x16: $($check)*) };
    (f64: $($check:tt)*) => { on_every_isa!(F64x2 F64x4 F64x8: $($check)*) };
    ($portable:ident $avx2:ident $avx512:ident:
     $check:ident $(::<$type:ty>)? ($($argument:expr),*)) => {{
        use $crate::simd::{Isa, portable};
        $check::<portable::$portable, $($type)?>($($argument),*);
        #[cfg(target_arch = "x86_64")]
        for isa in Isa::available() {
            use $crate::simd::{avx2, avx512};
            match isa {
                Isa::Portable => {}
                Isa::Avx2 => $check::<avx2::$avx2, $($type)?>($($argument),*),
                Isa::Avx512 => $check::<avx512::$avx512, $($type)?>($($argument),*),
            }
        }
    }};
}
#[cfg(test)]
pub(crate) use on_every_isa;

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod portable;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) mod transpose;

use std::fmt::{Debug, Display};
use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};
use std::sync::OnceLock;

use crate::error::{Error, Result};
use transpose::transpose;

mod sealed {
    /// Of `f32` and `f64`: unsafe code relies on [`Real`](super::Real) being these alone, of whom
    /// every pattern of bits is a number.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// A scalar type that the crate computes in: `f32` or `f64`, and no other.
pub trait Real:
    sealed::Sealed
    + Copy
    + Debug
    + Default
    + Display
    + PartialOrd
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// 0
    const ZERO: Self;
    /// 1
    const ONE: Self;
    /// NumPy's name of the type.
    const NAME: &'static str;
    /// Above this, e^x is infinite; beneath its negative, zero or subnormal.
    const EXP_MAX: Self;
    /// log2(e)
    const LOG2_E: Self;
    /// The leading bits of ln 2, few enough that their product with an exponent is exact.
    const LN_2_HIGH: Self;
    /// ln 2 - `LN_2_HIGH`
    const LN_2_LOW: Self;
    /// Coefficients c of e^r = 1 + r + r^2 (c\[n-1\] + r (c\[n-2\] + ...)) for |r| <= ln(2)/2,
    /// highest power first.
    const EXP_POLYNOMIAL: &'static [Self];
    /// From here on tanh rounds to 1.
    const TANH_MAX: Self;
    /// The nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// The same value, exactly.
    fn to_f64(self) -> f64;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
    /// The square root.
    fn sqrt(self) -> Self;
    /// a * b + self, fused where the target does so in hardware.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// What transposes blocks of `lanes` rows of as many numbers. None if no registers have so many
    /// lanes here.
    fn transposer(lanes: usize) -> Option<Transposer<Self>>;
    /// The nearest integer, halves to even.
    fn round_even(self) -> Self;
    /// self * 2^n for an integer n; overflows to infinity, underflows to zero or a subnormal.
    fn scale(self, n: Self) -> Self;
}

/// [`transpose::transpose`]: from an address whose rows are so many numbers apart, to another one,
/// so many blocks. As safe as that.
pub(crate) type Transposer<E> = unsafe fn(*const E, usize, *mut E, usize, usize);

macro_rules! real {
    ($t:ident, $v512:ident, $v256:ident, $v128:ident, $bits:ident, $int:ident, $mantissa:literal, $bias:literal,
     $exp_max:literal, $high:expr, $low:literal, $tanh_max:literal, $polynomial:expr) => {
        impl Real for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NAME: &'static str = match std::mem::size_of::<$t>() {
                4 => "float32",
                _ => "float64",
            };
            const EXP_MAX: Self = $exp_max;
            const LOG2_E: Self = std::$t::consts::LOG2_E;
            const LN_2_HIGH: Self = $high;
            const LN_2_LOW: Self = $low;
            const EXP_POLYNOMIAL: &'static [Self] = &$polynomial;
            const TANH_MAX: Self = $tanh_max;
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
                    a.mul_add(b, self)
                } else {
                    a * b + self
                }
            }
            fn transposer(lanes: usize) -> Option<Transposer<$t>> {
                #[cfg(target_arch = "x86_64")]
                let has = |isa| Isa::available().contains(&isa);
                match lanes {
                    #[cfg(target_arch = "x86_64")]
                    <avx512::$v512>::LANES if has(Isa::Avx512) => Some(transpose::<avx512::$v512>),
                    #[cfg(target_arch = "x86_64")]
                    <avx2::$v256>::LANES if has(Isa::Avx2) => Some(transpose::<avx2::$v256>),
                    <portable::$v128>::LANES => Some(transpose::<portable::$v128>),
                    _ => None,
                }
            }
            #[inline(always)]
            fn round_even(self) -> Self {
                // Adding and taking away 1.5 * 2^mantissa rounds in the current mode, to even;
                // `round_ties_even` is a library call where SSE4.1 is missing.
                let magic = ((3 as $int) << ($mantissa - 1)) as $t;
                (self + magic) - magic
            }
            #[inline(always)]
            fn scale(self, n: Self) -> Self {
                // Two factors, since 2^n itself may overflow or vanish where the product does not.
                let n = n as $int;
                let half = n >> 1;
                let power = |e: $int| <$t>::from_bits(((e + $bias) as $bits) << $mantissa);
                self * power(half) * power(n - half)
            }
        }
    };
}

// Minimax polynomials (Remez): relative error of e^r under 7e-9, and of e^r - 1 under 1.6e-8.
real!(
    f32,
    F32x16,
    F32x8,
    F32x4,
    u32,
    i32,
    23,
    127,
    88.73,
    355.0 / 512.0,
    -2.121_944_4e-4,
    9.1,
    [
        1.394_605_1e-3,
        8.366_374e-3,
        4.166_629e-2,
        1.666_654_5e-1,
        0.5
    ]
);

// Likewise, under 1e-17 and 2.3e-17.
real!(
    f64,
    F64x8,
    F64x4,
    F64x2,
    u64,
    i64,
    52,
    1023,
    709.79,
    6.931_457_519_531_25e-1,
    1.428_606_820_309_417_2e-6,
    19.1,
    [
        2.511_400_649_983_238e-8,
        2.762_560_065_059_263e-7,
        2.755_722_955_716_690_5e-6,
        2.480_150_656_050_847_4e-5,
        1.984_126_990_106_794_7e-4,
        1.388_888_893_027_171e-3,
        8.333_333_333_315_587e-3,
        4.166_666_666_658_178e-2,
        1.666_666_666_666_668_4e-1,
        5.000_000_000_000_004e-1
    ]
);

/// The most numbers in a register.
pub(crate) const MAX_LANES: usize = 16;

/// A register of [`Vector::LANES`] numbers.
pub trait Vector: Copy + 'static {
    /// The type of a lane.
    type Element: Real;
    /// Numbers in a register; a power of two, 16 at most.
    const LANES: usize;
    /// Registers that there are, for a tile's sums and operands.
    const REGISTERS: usize;

    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU has this instruction set.
    unsafe fn splat(x: Self::Element) -> Self;
    /// The numbers at `p`, of any alignment.
    ///
    /// # Safety
    /// The CPU has this instruction set, and `LANES` numbers may be read at `p`.
    unsafe fn load(p: *const Self::Element) -> Self;
    /// Writes the lanes to `p`, of any alignment.
    ///
    /// # Safety
    /// `LANES` numbers may be written at `p`.
    unsafe fn store(self, p: *mut Self::Element);
    /// Runs `op`, out of line, in code compiled for this instruction set.
    ///
    /// # Safety
    /// The CPU has this instruction set, and what `op` asks for holds.
    unsafe fn invoke<O: Op<Self>>(op: O);

    /// All lanes `x`, in a register of the same kind as `self`.
    #[inline(always)]
    fn fill(self, x: f64) -> Self {
        // SAFETY: `self` exists, so the CPU has the instruction set.
        unsafe { Self::splat(Self::Element::from_f64(x)) }
    }
    /// self + b
    fn add(self, b: Self) -> Self;
    /// self - b
    fn sub(self, b: Self) -> Self;
    /// self * b
    fn mul(self, b: Self) -> Self;
    /// self / b, correctly rounded
    fn div(self, b: Self) -> Self;
    /// self + a * b, in one rounding where the instruction set has it.
    fn add_product(self, a: Self, b: Self) -> Self;
    /// self - a * b, likewise.
    fn sub_product(self, a: Self, b: Self) -> Self;
    /// The lesser lane; `b` where either is NaN.
    fn min(self, b: Self) -> Self;
    /// The greater lane; `b` where either is NaN.
    fn max(self, b: Self) -> Self;
    /// The nearest integer, halves to even, for |x| < 2^22.
    fn round(self) -> Self;
    /// self * 2^n for integers n; to infinity or zero where the result has no exponent.
    fn scale(self, n: Self) -> Self;
    /// The lanes of `self` and `b` by turns: those of the first halves, then of the second.
    fn interleave(self, b: Self) -> [Self; 2];
    /// The lanes of `self` where `condition` is positive or NaN, else 0.
    fn where_positive(self, condition: Self) -> Self;
}

/// Vectorised work that [`Vector::invoke`] runs.
pub trait Op<V: Vector> {
    /// Does the work. Implementations are `#[inline(always)]`, so that they are compiled with the
    /// instruction set of the caller.
    ///
    /// # Safety
    /// As the implementing type says of its fields; the CPU has `V`'s instruction set.
    unsafe fn run(self);
}

/// Plain code for which [`compiled_for`] chooses the instruction set.
pub(crate) trait Plain {
    /// What the code gives.
    type Output;
    /// The code. Implementations are `#[inline(always)]`, so that they are compiled with the
    /// instruction set of the caller.
    fn run(self) -> Self::Output;
}

/// Runs plain code, out of line, compiled for an instruction set. Its loops are vectorised as far
/// as the compiler can, and give the same bits on all of them.
///
/// # Panics
/// When the CPU lacks the instruction set.
pub(crate) fn compiled_for<P: Plain>(isa: Isa, plain: P) -> P::Output {
    struct Call<'a, P: Plain>(P, &'a mut Option<P::Output>);
    impl<V: Vector, P: Plain> Op<V> for Call<'_, P> {
        #[inline(always)]
        unsafe fn run(self) {
            *self.1 = Some(self.0.run());
        }
    }
    assert!(Isa::available().contains(&isa), "{isa:?} is not there");
    let mut output = None;
    let call = Call(plain, &mut output);
    // SAFETY: the CPU has the instruction set, and the call asks for nothing else.
    unsafe {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => avx512::F32x16::invoke(call),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => avx2::F32x8::invoke(call),
            _ => portable::F32x4::invoke(call),
        }
    }
    output.expect("the call was made")
}

/// Asks for the cache line at `p`; any address is allowed.
#[inline(always)]
pub(crate) fn prefetch<E>(p: *const E) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch reads nothing and SSE is part of x86_64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(p.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// An instruction set that this CPU has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, vectorised by the compiler for the build's target.
    Portable,
    /// x86-64 with AVX2 and FMA: 8 floats or 4 doubles.
    Avx2,
    /// x86-64 with AVX-512 F, DQ, BW and VL: 16 floats or 8 doubles.
    Avx512,
}

impl Isa {
    /// The name by which `RNNCORE_ISA` chooses it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// What this CPU has, the fastest last.
    pub fn available() -> &'static [Isa] {
        static FOUND: OnceLock<Vec<Isa>> = OnceLock::new();
        FOUND.get_or_init(|| {
            #[allow(unused_mut)]
            let mut found = vec![Isa::Portable];
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    found.push(Isa::Avx2);
                    if is_x86_feature_detected!("avx512f")
                        && is_x86_feature_detected!("avx512dq")
                        && is_x86_feature_detected!("avx512bw")
                        && is_x86_feature_detected!("avx512vl")
                    {
                        found.push(Isa::Avx512);
                    }
                }
            }
            found
        })
    }

    /// The instruction set of that name.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] if there is none or this CPU lacks it.
    pub fn by_name(name: &str) -> Result<Isa> {
        let available = Self::available();
        available
            .iter()
            .copied()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| Error::UnknownIsa {
                name: name.to_owned(),
                available: available
                    .iter()
                    .map(|isa| isa.name())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
    }

    /// The one that `RNNCORE_ISA` names, else the fastest. A model keeps the one it was made with.
    ///
    /// # Errors
    /// [`Error::UnknownIsa`] if the variable names one that does not exist or that this CPU lacks.
    pub fn current() -> Result<Isa> {
        match std::env::var_os("RNNCORE_ISA") {
            Some(name) if !name.is_empty() => Isa::by_name(&name.to_string_lossy()),
            _ => Ok(*Isa::available().last().expect("portable is always there")),
        }
    }
}

#[cfg(test)]
mod tests;
