//! AVX2 with FMA: 8 floats or 4 doubles in each of 16 registers.

use std::arch::x86_64::*;

use super::{Op, Vector};

/// 2^n for integers -127 < n < 128.
#[inline]
#[target_feature(enable = "avx2")]
fn power_ps(n: __m256) -> __m256 {
    let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
}

/// 2^n for integers -1023 < n < 1024.
#[inline]
#[target_feature(enable = "avx2")]
fn power_pd(n: __m256d) -> __m256d {
    // The sum's low mantissa bits hold n in two's complement.
    let magic = _mm256_set1_pd(6_755_399_441_055_744.0 + 1023.0);
    let sum = _mm256_add_pd(n, magic);
    _mm256_castsi256_pd(_mm256_slli_epi64::<52>(_mm256_castpd_si256(sum)))
}

macro_rules! avx2 {
    ($name:ident, $register:ident, $element:ident, $lanes:literal, $set1:ident, $load:ident,
     $store:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $fmadd:ident, $fnmadd:ident,
     $min:ident, $max:ident, $round:ident, $and:ident, $compare:ident, $power:ident) => {
        #[doc = concat!(stringify!($lanes), " lanes of ", stringify!($element), ".")]
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name($register);

        impl Vector for $name {
            type Element = $element;
            const LANES: usize = $lanes;
            const REGISTERS: usize = 16;

            #[inline(always)]
            unsafe fn splat(x: $element) -> Self {
                // SAFETY: the caller vouches for AVX2.
                unsafe { Self($set1(x)) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $element) -> Self {
                // SAFETY: the caller vouches for AVX2 and for the numbers at `p`.
                unsafe { Self($load(p)) }
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $element) {
                // SAFETY: the caller vouches for the room at `p`.
                unsafe { $store(p, self.0) }
            }
            #[inline(always)]
            unsafe fn invoke<O: Op<Self>>(op: O) {
                #[inline(never)]
                #[target_feature(enable = "avx2,fma")]
                unsafe fn inside<O: Op<$name>>(op: O) {
                    // SAFETY: passed on from the caller of `invoke`.
                    unsafe { op.run() }
                }
                // SAFETY: the caller vouches for AVX2 and for `op`.
                unsafe { inside(op) }
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($add(self.0, b.0)) }
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($sub(self.0, b.0)) }
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($mul(self.0, b.0)) }
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($div(self.0, b.0)) }
            }
            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($fmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn sub_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($fnmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn min(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($min(self.0, b.0)) }
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe { Self($max(self.0, b.0)) }
            }
            #[inline(always)]
            fn round(self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe {
                    Self($round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
                        self.0,
                    ))
                }
            }
            #[inline(always)]
            fn scale(self, n: Self) -> Self {
                // Two factors, since 2^n itself may overflow or vanish where the product does not.
                // SAFETY: a vector exists, so AVX2 does.
                unsafe {
                    let half = n.mul(Self($set1(0.5))).round();
                    self.mul(Self($power(half.0)))
                        .mul(Self($power(n.sub(half).0)))
                }
            }
            #[inline(always)]
            fn where_positive(self, condition: Self) -> Self {
                // SAFETY: a vector exists, so AVX2 does.
                unsafe {
                    let zero = $set1(0.0);
                    Self($and($compare::<_CMP_NLE_UQ>(condition.0, zero), self.0))
                }
            }
        }
    };
}

avx2!(
    F32x8,
    __m256,
    f32,
    8,
    _mm256_set1_ps,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_div_ps,
    _mm256_fmadd_ps,
    _mm256_fnmadd_ps,
    _mm256_min_ps,
    _mm256_max_ps,
    _mm256_round_ps,
    _mm256_and_ps,
    _mm256_cmp_ps,
    power_ps
);
avx2!(
    F64x4,
    __m256d,
    f64,
    4,
    _mm256_set1_pd,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_div_pd,
    _mm256_fmadd_pd,
    _mm256_fnmadd_pd,
    _mm256_min_pd,
    _mm256_max_pd,
    _mm256_round_pd,
    _mm256_and_pd,
    _mm256_cmp_pd,
    power_pd
);
