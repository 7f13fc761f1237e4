//! Errors in units in the last place, on every instruction set.

use std::marker::PhantomData;

use super::*;
use crate::simd::{MAX_LANES, Op, on_every_isa};

/// A function of this module with its definition.
trait Function {
    /// The least and the greatest value.
    const RANGE: [f64; 2];
    /// What is tested.
    fn apply<V: Vector>(x: V) -> V;
    /// Its value to double precision.
    fn plain(x: f64) -> f64;
    /// Its value to twice double precision.
    fn exact(x: f64) -> Double;
}

struct Exp;
struct Sigmoid;
struct Tanh;
struct Softsign;

impl Function for Exp {
    const RANGE: [f64; 2] = [0.0, f64::INFINITY];
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        exp(x)
    }
    fn plain(x: f64) -> f64 {
        x.exp()
    }
    fn exact(x: f64) -> Double {
        let (e, n) = Double::exp_parts(x.clamp(-800.0, 800.0));
        e.add(Double::ONE).scale(n)
    }
}

impl Function for Sigmoid {
    const RANGE: [f64; 2] = [0.0, 1.0];
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        sigmoid(x)
    }
    fn plain(x: f64) -> f64 {
        1.0 / (1.0 + (-x).exp())
    }
    fn exact(x: f64) -> Double {
        // 1 / (1 + e^-|x|), or e^-|x| times that: neither overflows.
        let small = Exp::exact(-x.abs());
        let above = if x < 0.0 { small } else { Double::ONE };
        above.div(small.add(Double::ONE))
    }
}

impl Function for Softsign {
    const RANGE: [f64; 2] = [-1.0, 1.0];
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        softsign(x)
    }
    fn plain(x: f64) -> f64 {
        let x = x.clamp(-1e300, 1e300);
        x / (1.0 + x.abs())
    }
    fn exact(x: f64) -> Double {
        let x = x.clamp(-1e300, 1e300);
        Double(x, 0.0).div(Double(x.abs(), 0.0).add(Double::ONE))
    }
}

impl Function for Tanh {
    const RANGE: [f64; 2] = [-1.0, 1.0];
    #[inline(always)]
    fn apply<V: Vector>(x: V) -> V {
        tanh(x)
    }
    fn plain(x: f64) -> f64 {
        x.tanh()
    }
    fn exact(x: f64) -> Double {
        if x.abs() < 1e-9 {
            // The next term is x^3 / 3; and the halvings of e^x - 1 would round subnormals.
            return Double(x, 0.0);
        }
        let (e, n) = Double::exp_parts(2.0 * x.clamp(-30.0, 30.0));
        let e = match n {
            0 => e,
            n => e.add(Double::ONE).scale(n).add(Double(-1.0, 0.0)),
        };
        e.div(e.add(Double(2.0, 0.0)))
    }
}

/// A number as the sum of two (Dekker, 1971): about 31 digits.
#[derive(Clone, Copy)]
struct Double(f64, f64);

impl Double {
    const ONE: Double = Double(1.0, 0.0);

    fn sum(a: f64, b: f64) -> Self {
        let sum = a + b;
        let part = sum - a;
        Double(sum, (a - (sum - part)) + (b - part))
    }
    fn product(a: f64, b: f64) -> Self {
        let product = a * b;
        Double(product, a.mul_add(b, -product))
    }
    fn add(self, b: Self) -> Self {
        let Double(high, low) = Self::sum(self.0, b.0);
        let Double(tail, rest) = Self::sum(self.1, b.1);
        let Double(high, low) = Self::sum(high, low + tail);
        Self::sum(high, low + rest)
    }
    fn mul(self, b: Self) -> Self {
        let Double(high, low) = Self::product(self.0, b.0);
        Self::sum(high, low + (self.0 * b.1 + self.1 * b.0))
    }
    fn div(self, b: Self) -> Self {
        let mut quotient = Double(0.0, 0.0);
        let mut rest = self;
        for _ in 0..3 {
            let digit = rest.0 / b.0;
            quotient = quotient.add(Double(digit, 0.0));
            rest = rest.add(b.mul(Double(-digit, 0.0)));
        }
        quotient
    }
    /// Times 2^n, to infinity or a rounded subnormal.
    fn scale(self, n: i32) -> Self {
        let scale = |x: f64| x * 2f64.powi(n / 2) * 2f64.powi(n - n / 2);
        Double(scale(self.0), scale(self.1))
    }
    /// (e^r - 1, n) with x = n ln 2 + r.
    fn exp_parts(x: f64) -> (Self, i32) {
        const LN_2: Double = Double(std::f64::consts::LN_2, 2.319_046_813_846_299_6e-17);
        const HALVINGS: i32 = 8;
        let n = (x / LN_2.0).round();
        let r = Double(x, 0.0)
            .add(LN_2.mul(Double(-n, 0.0)))
            .scale(-HALVINGS);
        // r (1 + r/2 (1 + r/3 (...))), the remainder being under 1e-40.
        let mut e = Self::ONE;
        for i in (2..13).rev() {
            e = r.mul(e).div(Double(f64::from(i), 0.0)).add(Self::ONE);
        }
        e = e.mul(r);
        for _ in 0..HALVINGS {
            // e^2r - 1 = (e^r - 1)^2 + 2 (e^r - 1)
            e = e.mul(e).add(e.scale(1));
        }
        (e, n as i32)
    }
}

struct Map<'a, V: Vector, F>(&'a mut [V::Element], PhantomData<F>);

impl<V: Vector, F: Function> Op<V> for Map<'_, V, F> {
    #[inline(always)]
    unsafe fn run(self) {
        for part in self.0.chunks_exact_mut(V::LANES) {
            // SAFETY: the part has LANES numbers, and the caller vouches for the instruction set.
            unsafe { F::apply(V::load(part.as_ptr())).store(part.as_mut_ptr()) }
        }
    }
}

/// Applies `F` to each number; their count is a multiple of 16.
fn map<V: Vector, F: Function>(inputs: &[V::Element]) -> Vec<V::Element> {
    assert_eq!(inputs.len() % V::LANES, 0);
    let mut outputs = inputs.to_vec();
    // SAFETY: `on_every_isa` names only what the CPU has.
    unsafe { V::invoke(Map::<V, F>(&mut outputs, PhantomData)) };
    outputs
}

/// The error of `found` in units in the last place of the element.
///
/// Beneath the least normal number zero is right too. Infinity counts as the greatest number.
fn ulps<E: Real>(found: f64, exact: Double) -> f64 {
    let (least, greatest, epsilon) = match E::NAME {
        "float32" => (
            f64::from(f32::MIN_POSITIVE),
            f64::from(f32::MAX),
            f64::from(f32::EPSILON),
        ),
        _ => (f64::MIN_POSITIVE, f64::MAX, f64::EPSILON),
    };
    if exact.0.abs() < least && found == 0.0 {
        return 0.0;
    }
    if exact.0 >= greatest {
        return if found >= greatest {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let power = f64::from_bits(exact.0.abs().max(least).to_bits() & (0x7ff << 52));
    let error = (found.min(greatest) - exact.0) - exact.1;
    error.abs() / (power * epsilon)
}

/// Checks that all errors are under `bound`.
fn errors<V: Vector, F: Function>(inputs: &[V::Element], exact: &[Double], bound: f64) {
    let outputs = map::<V, F>(inputs);
    let (mut worst, mut at) = (0.0, 0.0);
    for ((x, y), &exact) in inputs.iter().zip(outputs).zip(exact) {
        let (x, y) = (x.to_f64(), y.to_f64());
        if x.is_nan() {
            assert!(y.is_nan());
            continue;
        }
        let [low, high] = F::RANGE;
        assert!(low <= y && y <= high, "{y} at {x} is out of range");
        let error = ulps::<V::Element>(y, exact);
        if error > worst {
            (worst, at) = (error, x);
        }
    }
    let name = std::any::type_name::<F>();
    let on = std::any::type_name::<V>();
    assert!(worst <= bound, "{name} on {on}: {worst:.3} ulp at {at}");
}

/// A sample of all bit patterns of f32, closer where the functions change, in whole registers.
fn floats() -> Vec<f32> {
    let magnitude = |x: f32| x.to_bits();
    let changing = magnitude(2f32.powi(-16))..magnitude(110.0);
    let signs = |bits: u32| [bits, bits | 1 << 31];
    let mut floats: Vec<f32> = (0..u32::MAX)
        .step_by(2039)
        .chain(changing.step_by(211).flat_map(signs))
        .chain(
            [0.0, f32::INFINITY, f32::NAN, f32::MAX, f32::MIN_POSITIVE]
                .into_iter()
                .flat_map(|x| signs(x.to_bits())),
        )
        // What the limits of the ranges are made of.
        .chain(
            [
                88.722_84,
                88.73,
                129.73,
                87.336_55,
                103.972_08,
                9.010_913,
                9.1,
                16.635_532,
                0.346_573_6,
            ]
            .into_iter()
            .flat_map(|x: f32| {
                (-40i32..40).flat_map(move |d| signs(x.to_bits().wrapping_add_signed(d)))
            }),
        )
        .map(f32::from_bits)
        .collect();
    floats.resize(floats.len().next_multiple_of(16), 1.0);
    floats
}

/// Likewise of f64.
fn doubles() -> Vec<f64> {
    let patterns = (0..20_000).map(|i: u64| f64::from_bits(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    let spread = |width: f64, n: i32| {
        (-n..n).map(move |i| width * (f64::from(i) + 1.0 / 3.0) / f64::from(n))
    };
    let special = [
        0.0,
        -0.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::MAX,
        f64::MIN,
        f64::MIN_POSITIVE,
        1e-310,
        -1e-310,
        709.782_712_893_384,
        709.782_712_893_383_9,
        709.79,
        750.79,
        -750.79,
        -708.396_418_532_264_1,
        -745.2,
        -750.0,
    ];
    let mut doubles: Vec<f64> = patterns
        .chain(spread(1.0, 20_000))
        .chain(spread(22.0, 20_000))
        .chain(spread(760.0, 20_000))
        .chain(spread(1e-8, 1_000))
        .chain(special)
        .collect();
    doubles.resize(doubles.len().next_multiple_of(16), 1.0);
    doubles
}

fn of_floats<F: Function>(bound: f64) {
    let inputs = floats();
    let exact: Vec<_> = inputs
        .iter()
        .map(|&x| Double(F::plain(x.into()), 0.0))
        .collect();
    on_every_isa!(f32: errors::<F>(&inputs, &exact, bound));
}

fn of_doubles<F: Function>(bound: f64) {
    let inputs = doubles();
    let exact: Vec<_> = inputs.iter().map(|&x| F::exact(x)).collect();
    on_every_isa!(f64: errors::<F>(&inputs, &exact, bound));
}

#[test]
fn exp_of_floats() {
    of_floats::<Exp>(1.05);
}

#[test]
fn sigmoid_of_floats() {
    of_floats::<Sigmoid>(2.55);
}

#[test]
fn tanh_of_floats() {
    of_floats::<Tanh>(2.55);
}

#[test]
fn softsign_of_floats() {
    of_floats::<Softsign>(1.55);
}

#[test]
fn softsign_of_doubles() {
    of_doubles::<Softsign>(1.55);
}

#[test]
fn exp_of_doubles() {
    of_doubles::<Exp>(1.05);
}

#[test]
fn sigmoid_of_doubles() {
    of_doubles::<Sigmoid>(2.55);
}

#[test]
fn tanh_of_doubles() {
    of_doubles::<Tanh>(2.55);
}

/// The definitions in twice double precision agree with the ones in double precision.
#[test]
fn definitions_agree() {
    fn check<F: Function>() {
        for x in doubles() {
            let (plain, Double(exact, _)) = (F::plain(x), F::exact(x));
            let close =
                (plain - exact).abs() <= 4.0 * f64::EPSILON * exact.abs() + f64::MIN_POSITIVE;
            assert!(
                close || plain == exact || x.is_nan(),
                "{x}: {exact}, not {plain}"
            );
        }
    }
    check::<Exp>();
    check::<Sigmoid>();
    check::<Tanh>();
    check::<Softsign>();
}

fn limits<V: Vector>() {
    type Mapping<E> = fn(&[E]) -> Vec<E>;
    let of = |f: Mapping<V::Element>, x: f64| f(&[V::Element::from_f64(x); MAX_LANES])[0].to_f64();
    let functions: [(Mapping<V::Element>, [f64; 3]); 4] = [
        (map::<V, Exp>, [0.0, 1.0, f64::INFINITY]),
        (map::<V, Sigmoid>, [0.0, 0.5, 1.0]),
        (map::<V, Tanh>, [-1.0, 0.0, 1.0]),
        (map::<V, Softsign>, [-1.0, 0.0, 1.0]),
    ];
    for (f, [low, middle, high]) in functions {
        for x in [-1e30, f64::NEG_INFINITY] {
            assert_eq!(of(f, x), low);
        }
        for x in [0.0, -0.0, 1e-30, -1e-30] {
            assert!((of(f, x) - middle).abs() < 2e-30);
        }
        for x in [1e30, f64::INFINITY] {
            assert_eq!(of(f, x), high);
        }
    }
}

#[test]
fn limits_are_reached() {
    on_every_isa!(f32: limits());
    on_every_isa!(f64: limits());
}

fn slopes<V: Vector>() {
    let off = if size_of::<V::Element>() == 8 {
        1e-15
    } else {
        1e-7
    };
    for i in -40..40 {
        let x = f64::from(i) / 8.0;
        let vector = |x: f64| {
            // SAFETY: `on_every_isa` names only what the CPU has.
            unsafe { V::splat(V::Element::from_f64(x)) }
        };
        let number = |v: V| {
            let mut lanes = [V::Element::ZERO; MAX_LANES];
            // SAFETY: a vector has `MAX_LANES` at most.
            unsafe { v.store(lanes.as_mut_ptr()) };
            lanes[0].to_f64()
        };
        let (s, t) = (1.0 / (1.0 + (-x).exp()), x.tanh());
        let near = |found: V, expected: f64| assert!((number(found) - expected).abs() < off);
        near(sigmoid_slope(vector(s)), s * (1.0 - s));
        near(tanh_slope(vector(t)), 1.0 - t * t);
        near(relu(vector(x)), x.max(0.0));
        near(leaky_relu(vector(x)), x.max(0.01 * x));
        let slope = if x > 0.0 { 1.0 } else { 0.01 };
        near(leaky_relu_slope(leaky_relu(vector(x))), slope);
        let denominator = 1.0 + x.abs();
        let slope = 1.0 / (denominator * denominator);
        near(softsign_slope(softsign(vector(x))), slope);
        for f in [relu, leaky_relu, softsign] {
            assert!(number(f(vector(f64::NAN))).is_nan());
        }
    }
}

#[test]
fn slopes_follow_from_the_outputs() {
    on_every_isa!(f32: slopes());
    on_every_isa!(f64: slopes());
}
