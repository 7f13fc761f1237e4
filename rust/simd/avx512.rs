//! AVX-512: 16 floats or 8 doubles in each of 32 registers.

use std::arch::x86_64::*;

use super::{Op, Vector};

macro_rules! avx512 {
    ($name:ident, $register:ident, $element:ident, $lanes:literal, $set1:ident, $load:ident,
     $store:ident, $add:ident, $sub:ident, $mul:ident, $div:ident, $fmadd:ident, $fnmadd:ident,
     $min:ident, $max:ident, $round:ident, $scale:ident, $compare:ident, $select:ident) => {
        #[doc = concat!(stringify!($lanes), " lanes of ", stringify!($element), ".")]
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name($register);

        impl Vector for $name {
            type Element = $element;
            const LANES: usize = $lanes;
            const REGISTERS: usize = 32;

            #[inline(always)]
            unsafe fn splat(x: $element) -> Self {
                // SAFETY: the caller vouches for AVX-512.
                unsafe { Self($set1(x)) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $element) -> Self {
                // SAFETY: the caller vouches for AVX-512 and for the numbers at `p`.
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
                #[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")]
                unsafe fn inside<O: Op<$name>>(op: O) {
                    // SAFETY: passed on from the caller of `invoke`.
                    unsafe { op.run() }
                }
                // SAFETY: the caller vouches for AVX-512 and for `op`.
                unsafe { inside(op) }
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($add(self.0, b.0)) }
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($sub(self.0, b.0)) }
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($mul(self.0, b.0)) }
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($div(self.0, b.0)) }
            }
            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($fmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn sub_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($fnmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn min(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($min(self.0, b.0)) }
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($max(self.0, b.0)) }
            }
            #[inline(always)]
            fn round(self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe {
                    Self($round::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(
                        self.0,
                    ))
                }
            }
            #[inline(always)]
            fn scale(self, n: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe { Self($scale(self.0, n.0)) }
            }
            #[inline(always)]
            fn where_positive(self, condition: Self) -> Self {
                // SAFETY: a vector exists, so AVX-512 does.
                unsafe {
                    let zero = $set1(0.0);
                    Self($select($compare::<_CMP_NLE_UQ>(condition.0, zero), self.0))
                }
            }
        }
    };
}

avx512!(
    F32x16,
    __m512,
    f32,
    16,
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
    _mm512_roundscale_ps,
    _mm512_scalef_ps,
    _mm512_cmp_ps_mask,
    _mm512_maskz_mov_ps
);
avx512!(
    F64x8,
    __m512d,
    f64,
    8,
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
    _mm512_roundscale_pd,
    _mm512_scalef_pd,
    _mm512_cmp_pd_mask,
    _mm512_maskz_mov_pd
);
