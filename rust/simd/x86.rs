//! What the two instruction sets of x86-64 have in common, but for the names.

/// Implements [`super::Vector`] for a register type from the intrinsics' names. `$round`, `$scale`,
/// `$where_positive` and `$interleave` are functions compiled for `$features`.
macro_rules! x86_vector {
    (
        $features:literal, $registers:literal, $name:ident($register:ident): $lanes:literal x $element:ident,
        $set1:ident, $load:ident, $store:ident, $add:ident, $sub:ident, $mul:ident, $div:ident,
        $fmadd:ident, $fnmadd:ident, $min:ident, $max:ident,
        $round:ident, $scale:ident, $where_positive:ident, $interleave:ident
    ) => {
        #[doc = concat!(stringify!($lanes), " lanes of ", stringify!($element), ".")]
        #[derive(Clone, Copy)]
        #[repr(transparent)]
        pub struct $name($register);

        impl Vector for $name {
            type Element = $element;
            const LANES: usize = $lanes;
            const REGISTERS: usize = $registers;

            #[inline(always)]
            unsafe fn splat(x: $element) -> Self {
                // SAFETY: the caller vouches for the instruction set.
                unsafe { Self($set1(x)) }
            }
            #[inline(always)]
            unsafe fn load(p: *const $element) -> Self {
                // SAFETY: the caller vouches for the instruction set and for the numbers at `p`.
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
                #[target_feature(enable = $features)]
                unsafe fn inside<O: Op<$name>>(op: O) {
                    // SAFETY: passed on from the caller of `invoke`.
                    unsafe { op.run() }
                }
                // SAFETY: the caller vouches for the instruction set and for `op`.
                unsafe { inside(op) }
            }
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($add(self.0, b.0)) }
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($sub(self.0, b.0)) }
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($mul(self.0, b.0)) }
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($div(self.0, b.0)) }
            }
            #[inline(always)]
            fn add_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($fmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn sub_product(self, a: Self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($fnmadd(a.0, b.0, self.0)) }
            }
            #[inline(always)]
            fn min(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($min(self.0, b.0)) }
            }
            #[inline(always)]
            fn max(self, b: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($max(self.0, b.0)) }
            }
            #[inline(always)]
            fn round(self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($round(self.0)) }
            }
            #[inline(always)]
            fn scale(self, n: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($scale(self.0, n.0)) }
            }
            #[inline(always)]
            fn where_positive(self, condition: Self) -> Self {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { Self($where_positive(self.0, condition.0)) }
            }
            #[inline(always)]
            fn interleave(self, b: Self) -> [Self; 2] {
                // SAFETY: a vector exists, so its instruction set does.
                unsafe { $interleave(self.0, b.0).map(Self) }
            }
        }
    };
}
pub(super) use x86_vector;
