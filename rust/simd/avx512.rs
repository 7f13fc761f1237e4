//! AVX-512: 16 floats or 8 doubles in each of 32 registers.

use std::arch::x86_64::*;

use super::x86::x86_vector;
use super::{Op, Vector};

/// To the nearest integer, without raising exceptions.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

macro_rules! functions {
    ($register:ident, $round:ident = $roundscale:ident, $where_positive:ident = $compare:ident, $select:ident, $zero:ident,
     $interleave:ident = $permute:ident, $integer:ident) => {
        #[inline]
        #[target_feature(enable = "avx512f")]
        fn $round(x: $register) -> $register {
            $roundscale::<NEAREST>(x)
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn $where_positive(x: $register, condition: $register) -> $register {
            $select($compare::<_CMP_NLE_UQ>(condition, $zero()), x)
        }

        #[inline]
        #[target_feature(enable = "avx512f")]
        fn $interleave(a: $register, b: $register) -> [$register; 2] {
            const LANES: usize = size_of::<$register>() / size_of::<$integer>();
            // Lane i of `a` is i, of `b` i + LANES.
            const PLACES: [[$integer; LANES]; 2] = {
                let mut places = [[0; LANES]; 2];
                let mut i = 0;
                while i < 2 * LANES {
                    places[i / LANES][i % LANES] = (i / 2 + i % 2 * LANES) as $integer;
                    i += 1;
                }
                places
            };
            // SAFETY: the places of a half fill a register of integers.
            let [first, second] = PLACES.map(|half| unsafe { std::mem::transmute(half) });
            [$permute(a, first, b), $permute(a, second, b)]
        }
    };
}

functions!(
    __m512,
    round_ps = _mm512_roundscale_ps,
    where_positive_ps = _mm512_cmp_ps_mask,
    _mm512_maskz_mov_ps,
    _mm512_setzero_ps,
    interleave_ps = _mm512_permutex2var_ps,
    i32
);
functions!(
    __m512d,
    round_pd = _mm512_roundscale_pd,
    where_positive_pd = _mm512_cmp_pd_mask,
    _mm512_maskz_mov_pd,
    _mm512_setzero_pd,
    interleave_pd = _mm512_permutex2var_pd,
    i64
);

x86_vector!(
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma",
    32,
    F32x16(__m512): 16 x f32,
    _mm512_set1_ps,
    _mm512_loadu_ps,
    _mm512_storeu_ps,
    _mm512_add_ps,
    _mm512_sub_ps,
    _mm512_mul_ps,
    _mm512_div_ps,
    _mm512_fmadd_ps,
    _mm512_fnmadd_ps,
    _mm512_min_ps,
    _mm512_max_ps,
    round_ps,
    _mm512_scalef_ps,
    where_positive_ps,
    interleave_ps
);
x86_vector!(
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma",
    32,
    F64x8(__m512d): 8 x f64,
    _mm512_set1_pd,
    _mm512_loadu_pd,
    _mm512_storeu_pd,
    _mm512_add_pd,
    _mm512_sub_pd,
    _mm512_mul_pd,
    _mm512_div_pd,
    _mm512_fmadd_pd,
    _mm512_fnmadd_pd,
    _mm512_min_pd,
    _mm512_max_pd,
    round_pd,
    _mm512_scalef_pd,
    where_positive_pd,
    interleave_pd
);
