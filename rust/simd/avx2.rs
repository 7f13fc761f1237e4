//! AVX2 with FMA: 8 floats or 4 doubles in each of 16 registers.

use std::arch::x86_64::*;

use super::x86::x86_vector;
use super::{Op, Vector};

/// To the nearest integer, without raising exceptions.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

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

macro_rules! functions {
    ($register:ident, $power:ident, $round:ident = $rounded:ident, $scale:ident = $mul:ident, $sub:ident, $half:ident,
     $where_positive:ident = $compare:ident, $and:ident, $zero:ident,
     $interleave:ident = $low:ident, $high:ident, $halves:ident) => {
        #[inline]
        #[target_feature(enable = "avx2")]
        fn $round(x: $register) -> $register {
            $rounded::<NEAREST>(x)
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $scale(x: $register, n: $register) -> $register {
            // Two factors, since 2^n itself may overflow or vanish where the product does not.
            let half = $round($mul(n, $half(0.5)));
            $mul($mul(x, $power(half)), $power($sub(n, half)))
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $where_positive(x: $register, condition: $register) -> $register {
            $and($compare::<_CMP_NLE_UQ>(condition, $zero()), x)
        }

        #[inline]
        #[target_feature(enable = "avx2")]
        fn $interleave(a: $register, b: $register) -> [$register; 2] {
            // Within each half of the registers.
            let (low, high) = ($low(a, b), $high(a, b));
            [$halves::<0x20>(low, high), $halves::<0x31>(low, high)]
        }
    };
}

functions!(
    __m256,
    power_ps,
    round_ps = _mm256_round_ps,
    scale_ps = _mm256_mul_ps,
    _mm256_sub_ps,
    _mm256_set1_ps,
    where_positive_ps = _mm256_cmp_ps,
    _mm256_and_ps,
    _mm256_setzero_ps,
    interleave_ps = _mm256_unpacklo_ps,
    _mm256_unpackhi_ps,
    _mm256_permute2f128_ps
);
functions!(
    __m256d,
    power_pd,
    round_pd = _mm256_round_pd,
    scale_pd = _mm256_mul_pd,
    _mm256_sub_pd,
    _mm256_set1_pd,
    where_positive_pd = _mm256_cmp_pd,
    _mm256_and_pd,
    _mm256_setzero_pd,
    interleave_pd = _mm256_unpacklo_pd,
    _mm256_unpackhi_pd,
    _mm256_permute2f128_pd
);

x86_vector!(
    "avx2,fma",
    16,
    F32x8(__m256): 8 x f32,
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
    round_ps,
    scale_ps,
    where_positive_ps,
    interleave_ps
);
x86_vector!(
    "avx2,fma",
    16,
    F64x4(__m256d): 4 x f64,
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
    round_pd,
    scale_pd,
    where_positive_pd,
    interleave_pd
);
