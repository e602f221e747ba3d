// Numbers wider than a word: sums of two floats, some 48 bits of significand, and unsigned integers of 64 bits.
//
// WGSL has neither f64 nor u64. The error-free transforms are Knuth's TwoSum and Dekker's TwoProd, whose halves are cut
// by a mask. They only hold if every rounding happens as written, and a compiler may fuse a product with a sum or take
// (a + b) - a for b: so each intermediate goes through `keep`. Numbers here are finite; an infinite one becomes NaN in
// its lower half. The range is that of f32.

#import lib/core

// x + y, where y is at most half a unit in the last place of x.
alias Wide = vec2<f32>;

// a + b and what rounding took from it.
fn two_sum(a: f32, b: f32) -> Wide {
    let sum = keep(a + b);
    let of_b = keep(sum - a);
    let of_a = keep(sum - of_b);
    return Wide(sum, keep(keep(a - of_a) + keep(b - of_b)));
}

// The same for |a| >= |b|, or a = 0.
fn quick_two_sum(a: f32, b: f32) -> Wide {
    let sum = keep(a + b);
    return Wide(sum, keep(b - keep(sum - a)));
}

// a * b and what rounding took from it. Products of halves are exact, so that fusing them changes nothing.
fn two_product(a: f32, b: f32) -> Wide {
    let product = keep(a * b);
    let a_high = bitcast<f32>(bitcast<u32>(a) & 0xfffff000u);
    let b_high = bitcast<f32>(bitcast<u32>(b) & 0xfffff000u);
    let a_low = keep(a - a_high);
    let b_low = keep(b - b_high);
    let first = keep(keep(a_high * b_high) - product);
    let second = keep(first + keep(a_high * b_low));
    let third = keep(second + keep(a_low * b_high));
    return Wide(product, keep(third + keep(a_low * b_low)));
}

fn wide(x: f32) -> Wide {
    return Wide(x, 0.0);
}

// Each half of a word is exact as a float.
fn wide_of_u32(x: u32) -> Wide {
    return quick_two_sum(f32(x & 0xffff0000u), f32(x & 0xffffu));
}

// Exact below 2^48.
fn wide_of_u64(x: U64) -> Wide {
    return wide_add(wide_of_u32(x.y) * 4294967296.0, wide_of_u32(x.x));
}

// The nearest float.
fn narrow(a: Wide) -> f32 {
    return a.x;
}

fn wide_add(a: Wide, b: Wide) -> Wide {
    let high = two_sum(a.x, b.x);
    let low = two_sum(a.y, b.y);
    let sum = quick_two_sum(high.x, keep(high.y + low.x));
    return quick_two_sum(sum.x, keep(sum.y + low.y));
}

// Cheaper, for a float.
fn wide_add_f32(a: Wide, b: f32) -> Wide {
    let high = two_sum(a.x, b);
    return quick_two_sum(high.x, keep(high.y + a.y));
}

fn wide_sub(a: Wide, b: Wide) -> Wide {
    return wide_add(a, -b);
}

fn wide_mul(a: Wide, b: Wide) -> Wide {
    let high = two_product(a.x, b.x);
    return quick_two_sum(high.x, keep(high.y + keep(a.x * b.y + a.y * b.x)));
}

fn wide_mul_f32(a: Wide, b: f32) -> Wide {
    let high = two_product(a.x, b);
    return quick_two_sum(high.x, keep(high.y + keep(a.y * b)));
}

fn wide_square(a: Wide) -> Wide {
    return wide_mul(a, a);
}

// Long division with three digits of a float each: the device's own may be some units in the last place off.
fn wide_div(a: Wide, b: Wide) -> Wide {
    let first = keep(a.x / b.x);
    let after_first = wide_sub(a, wide_mul_f32(b, first));
    let second = keep(after_first.x / b.x);
    let after_second = wide_sub(after_first, wide_mul_f32(b, second));
    let third = keep(after_second.x / b.x);
    return wide_add_f32(quick_two_sum(first, second), third);
}

// One step of Newton's iteration from the device's own root; 0 of what is not above 0.
fn wide_sqrt(a: Wide) -> Wide {
    if (a.x <= 0.0) {
        return Wide(0.0, 0.0);
    }
    let root = keep(sqrt(a.x));
    let rest = wide_sub(a, two_product(root, root));
    return quick_two_sum(root, keep(rest.x / (2.0 * root)));
}

fn wide_less(a: Wide, b: Wide) -> bool {
    return a.x < b.x || (a.x == b.x && a.y < b.y);
}

fn wide_min(a: Wide, b: Wide) -> Wide {
    return select(a, b, wide_less(b, a));
}

fn wide_max(a: Wide, b: Wide) -> Wide {
    return select(a, b, wide_less(a, b));
}

// x + 2^32 y.
alias U64 = vec2<u32>;

fn u64_add(a: U64, b: U64) -> U64 {
    let low = a.x + b.x;
    return U64(low, a.y + b.y + u32(low < a.x));
}

fn u64_sub(a: U64, b: U64) -> U64 {
    return U64(a.x - b.x, a.y - b.y - u32(a.x < b.x));
}

fn u64_less(a: U64, b: U64) -> bool {
    return a.y < b.y || (a.y == b.y && a.x < b.x);
}

// The whole product of two words, by halves of words.
fn u64_of_product(a: u32, b: u32) -> U64 {
    let low = (a & 0xffffu) * (b & 0xffffu);
    let left = (a >> 16u) * (b & 0xffffu) + (low >> 16u);
    let right = (a & 0xffffu) * (b >> 16u) + (left & 0xffffu);
    return U64((right << 16u) | (low & 0xffffu), (a >> 16u) * (b >> 16u) + (left >> 16u) + (right >> 16u));
}

// a modulo b, for 0 < b < 2^63: long division, one bit at a time.
fn u64_rem(a: U64, b: U64) -> U64 {
    var left = a;
    var rest = U64(0u, 0u);
    for (var bit = 0u; bit < 64u; bit++) {
        rest = U64((rest.x << 1u) | (left.y >> 31u), (rest.y << 1u) | (rest.x >> 31u));
        left = U64(left.x << 1u, (left.y << 1u) | (left.x >> 31u));
        if (!u64_less(rest, b)) {
            rest = u64_sub(rest, b);
        }
    }
    return rest;
}
