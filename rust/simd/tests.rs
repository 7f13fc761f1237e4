//! Every operation of every vector against its scalar definition.

use super::*;

/// Numbers of every kind.
const KINDS: [f64; 19] = [
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    1.5,
    2.5,
    -2.5,
    3.7,
    -1e-3,
    1e30,
    -1e30,
    1e-30,
    // Subnormal in f32, and under it.
    1e-40,
    -1e-50,
];

/// `LANES` numbers as a vector.
fn vector<V: Vector>(from: impl Fn(usize) -> f64) -> V {
    let lanes: Vec<V::Element> = (0..V::LANES)
        .map(|lane| V::Element::from_f64(from(lane)))
        .collect();
    // SAFETY: there are LANES numbers, and `on_every_isa` names only what the CPU has.
    unsafe { V::load(lanes.as_ptr()) }
}

fn numbers<V: Vector>(v: V) -> Vec<f64> {
    let mut lanes = vec![V::Element::ZERO; V::LANES];
    // SAFETY: there is room for LANES numbers.
    unsafe { v.store(lanes.as_mut_ptr()) };
    lanes.into_iter().map(Real::to_f64).collect()
}

/// The same number, the sign of a zero included; any NaN is any other.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
}

/// Rounds to the element.
fn rounded<V: Vector>(x: f64) -> f64 {
    V::Element::from_f64(x).to_f64()
}

/// Compares an operation with its definition for all pairs of kinds in all lanes.
fn pairs<V: Vector>(
    name: &str,
    operation: impl Fn(V, V) -> V,
    definition: impl Fn(V::Element, V::Element) -> V::Element,
) {
    for shift in 0..KINDS.len() {
        for first in 0..KINDS.len() {
            let a = |lane: usize| KINDS[(first + lane) % KINDS.len()];
            let b = |lane: usize| KINDS[(first + lane + shift) % KINDS.len()];
            let found = numbers(operation(vector(a), vector(b)));
            for (lane, &found) in found.iter().enumerate() {
                let (a, b) = (a(lane), b(lane));
                let element = V::Element::from_f64;
                let expected = definition(element(a), element(b)).to_f64();
                assert!(
                    same(found, expected),
                    "{name}({a}, {b}) on {}: {found} instead of {expected}",
                    std::any::type_name::<V>()
                );
            }
        }
    }
}

fn arithmetic<V: Vector>() {
    pairs::<V>("add", V::add, |a, b| a + b);
    pairs::<V>("sub", V::sub, |a, b| a - b);
    pairs::<V>("mul", V::mul, |a, b| a * b);
    pairs::<V>("div", V::div, |a, b| a / b);
}

#[test]
fn arithmetic_is_ieee() {
    on_every_isa!(f32: arithmetic());
    on_every_isa!(f64: arithmetic());
}

fn order<V: Vector>() {
    // The second operand where they are equal, as with zeros of both signs, or one is NaN.
    pairs::<V>("min", V::min, |a, b| if a < b { a } else { b });
    pairs::<V>("max", V::max, |a, b| if a > b { a } else { b });
    let zero = V::Element::ZERO;
    pairs::<V>("where_positive", V::where_positive, |a, condition| {
        if condition <= zero { zero } else { a }
    });
}

#[test]
fn order_of_numbers_zeros_and_nan() {
    on_every_isa!(f32: order());
    on_every_isa!(f64: order());
}

fn products<V: Vector>() {
    let third = |lane: usize| 1.0 / (3.0 + lane as f64);
    // Magnitudes that double precision holds the exact sum of.
    let near = |x: &f64| *x == 0.0 || !x.is_finite() || (0.1..10.0).contains(&x.abs());
    for c in KINDS.into_iter().filter(near) {
        for b in KINDS.into_iter().filter(near) {
            let (a, c) = (vector::<V>(third), vector::<V>(|_| c));
            let b = vector::<V>(|_| b);
            let found = [c.add_product(a, b), c.sub_product(a, b)].map(numbers);
            for lane in 0..V::LANES {
                let [a, b, c] = [a, b, c].map(|v| numbers(v)[lane]);
                for (found, sign) in found.iter().zip([1.0, -1.0]) {
                    // In one rounding, or in two.
                    let fused = match V::Element::NAME {
                        // The product of two floats is exact in double precision.
                        "float32" => sign * a * b + c,
                        _ => (sign * a).mul_add(b, c),
                    };
                    let twice = rounded::<V>(sign * a * b) + c;
                    assert!(
                        [fused, twice]
                            .map(rounded::<V>)
                            .iter()
                            .any(|&x| same(x, found[lane])),
                        "{c} + {sign} {a} {b} on {}: {}",
                        std::any::type_name::<V>(),
                        found[lane]
                    );
                }
            }
        }
    }
}

#[test]
fn products_are_added_in_one_rounding_or_two() {
    on_every_isa!(f32: products());
    on_every_isa!(f64: products());
}

fn rounding<V: Vector>() {
    for i in (-9000..9000).chain([1 << 24, -(1 << 24), (1 << 24) - 1]) {
        // Quarters, and with them halves, up to 2^22.
        let found = numbers(vector::<V>(|_| f64::from(i) / 4.0).round());
        assert!(
            found
                .iter()
                .all(|&x| x == (f64::from(i) / 4.0).round_ties_even())
        );
    }
    assert!(numbers(vector::<V>(|_| f64::NAN).round())[0].is_nan());
}

#[test]
fn halves_are_rounded_to_even() {
    on_every_isa!(f32: rounding());
    on_every_isa!(f64: rounding());
}

fn scaling<V: Vector>(exponents: std::ops::RangeInclusive<i32>) {
    for n in exponents {
        for x in [1.0, -1.0, 1.75] {
            let found = numbers(vector::<V>(|_| x).scale(vector(|_| f64::from(n))));
            let step = if n < 0 { 0.5 } else { 2.0 };
            let expected = (0..n.abs()).fold(x, |x, _| rounded::<V>(x * step));
            // Halving again and again rounds a subnormal 1.75 more than once.
            let exact = x.abs() == 1.0 || expected.abs() >= V::Element::NORMAL;
            assert!(
                found.iter().all(|&found| found == expected || !exact),
                "{x} 2^{n} on {}: {found:?} instead of {expected}",
                std::any::type_name::<V>()
            );
        }
    }
    for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0] {
        let found = numbers(vector::<V>(|_| x).scale(vector(|_| -3.0)));
        assert!(found.iter().all(|&found| same(found, x)));
    }
}

/// The least normal number of an element.
trait Normal: Real {
    const NORMAL: f64;
}
impl<E: Real> Normal for E {
    const NORMAL: f64 = match size_of::<E>() {
        4 => f32::MIN_POSITIVE as f64,
        _ => f64::MIN_POSITIVE,
    };
}

#[test]
fn scaled_by_every_power_of_two() {
    on_every_isa!(f32: scaling(-252..=254));
    on_every_isa!(f64: scaling(-2044..=2046));
}

struct Doubled<'a, V: Vector>(&'a mut [V::Element]);

impl<V: Vector> Op<V> for Doubled<'_, V> {
    #[inline(always)]
    unsafe fn run(self) {
        for part in self.0.chunks_exact_mut(V::LANES) {
            // SAFETY: the part has LANES numbers, and the caller vouches for the instruction set.
            unsafe {
                let x = V::load(part.as_ptr());
                x.add(x.fill(1.0).mul(x)).store(part.as_mut_ptr());
            }
        }
    }
}

fn invocation<V: Vector>() {
    assert!(V::LANES.is_power_of_two() && V::LANES <= 16);
    // One off, so that nothing is aligned.
    let mut numbers: Vec<V::Element> = (0..4 * V::LANES + 1)
        .map(|i| V::Element::from_f64(i as f64))
        .collect();
    // SAFETY: `on_every_isa` names only what the CPU has.
    unsafe { V::invoke(Doubled::<V>(&mut numbers[1..])) };
    assert!(
        numbers
            .iter()
            .enumerate()
            .all(|(i, x)| x.to_f64() == 2.0 * i as f64)
    );
}

#[test]
fn operations_run_inside_their_instruction_set() {
    on_every_isa!(f32: invocation());
    on_every_isa!(f64: invocation());
}

#[test]
fn instruction_sets_by_name() {
    for &isa in Isa::available() {
        assert_eq!(Isa::by_name(isa.name()), Ok(isa));
    }
    assert!(Isa::available().is_sorted());
    let message = Isa::by_name("mmx").unwrap_err().to_string();
    assert!(
        message.contains("portable") && message.contains("\"mmx\""),
        "{message}"
    );
}

fn transposed<V: Vector>() {
    const BLOCKS: usize = 2;
    let (n, from_row, to_row) = (V::LANES, BLOCKS * V::LANES + 3, 2 * V::LANES);
    let from: Vec<V::Element> = (0..n * from_row)
        .map(|i| V::Element::from_f64(i as f64))
        .collect();
    let nothing = V::Element::from_f64(-1.0);
    let mut to = vec![nothing; BLOCKS * n * to_row];
    let transpose = V::Element::transposer(n).unwrap();
    // SAFETY: there are LANES rows of two blocks on one side, and twice as many rows on the other.
    unsafe { transpose(from.as_ptr(), from_row, to.as_mut_ptr(), to_row, BLOCKS) };
    for (i, &found) in to.iter().enumerate() {
        let (row, column) = (i / to_row, i % to_row);
        let place = column * from_row + row;
        assert_eq!(found, if column < n { from[place] } else { nothing });
    }
}

#[test]
fn blocks_are_transposed() {
    on_every_isa!(f32: transposed());
    on_every_isa!(f64: transposed());
    assert!(f32::transposer(3).is_none());
}
