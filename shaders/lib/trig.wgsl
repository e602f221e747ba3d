// sin, cos, exp, ln, tanh by the polynomials of src/op/lib/trig.rs, which states their errors.
//
// WGSL leaves the accuracy of its own functions open, lets compilers fuse and reorder sums, and take numbers for
// finite. So: remainders go through `keep` term by term, and their first product is exact, fused or not; what is
// rounded to an integer goes through `round`, not through a large sum; and a bound is a `select` on another quantity,
// or on bits, where a minimum would hide a NaN that has to be seen. Results may differ from the cpu device's in the
// last bits.

#import lib/core

const TAU = 6.2831855;

// `x`, which is positive, with the sign of `y`.
fn with_sign(x: f32, y: f32) -> f32 {
    return bitcast<f32>(bitcast<u32>(x) | (bitcast<u32>(y) & 0x80000000u));
}

// (sin x, cos x) for |x| <= 1e4.
fn sin_cos(x: f32) -> vec2<f32> {
    // Cody-Waite: r = x - q pi/2 with |r| <= pi/4
    let q = round(x * 0.63661977);
    let bits = bitcast<u32>(i32(q));
    let r = fma(q, -7.54979e-8, keep(fma(q, -4.837513e-4, keep(fma(q, -1.5703125, x)))));
    let z = r * r;
    let s = fma(r * z, fma(z, fma(z, -1.9515296e-4, 8.332161e-3), -1.6666655e-1), r);
    let c = fma(z * z, fma(z, fma(z, 2.4433157e-5, -1.3887316e-3), 4.1666646e-2), fma(z, -0.5, 1.0));
    // odd quadrants swap the two; bit 1 of q (of q + 1 for cos) is the sign
    let swap = (bits & 1u) != 0u;
    let sign_s = (bits & 2u) << 30u;
    let sign_c = ((bits + 1u) & 2u) << 30u;
    let both = bitcast<vec2<u32>>(select(vec2<f32>(s, c), vec2<f32>(c, s), swap));
    return bitcast<vec2<f32>>(both ^ vec2<u32>(sign_s, sign_c));
}

// The angle equal to x modulo 2 pi within [-pi, pi], for |x| <= 1e4.
fn wrap_angle(x: f32) -> f32 {
    let q = round(x * 0.15915494);
    return fma(q, -3.019916e-7, keep(fma(q, -1.9350052e-3, keep(fma(q, -6.28125, x)))));
}

// e^x over the whole range; overflows to infinity, underflows to 0 (from 2^-126 on where subnormals are flushed), keeps
// NaN.
fn exp_of(x: f32) -> f32 {
    let n = clamp(round(x * 1.442695), -150.0, 129.0);
    // ln 2 in two words, the first short enough for an exact product
    let r = fma(n, 2.1219444e-4, keep(fma(n, -0.6933594, x)));
    let p = fma(r, fma(r, fma(r, fma(r, 1.9875691e-4, 1.3982e-3), 8.333452e-3), 4.1665796e-2), 1.6666665e-1);
    let y = fma(fma(r, p, 0.5), r * r, r) + 1.0;
    // 2^n in two factors, because n reaches -150 and 129
    let whole = i32(n);
    let half = whole >> 1u;
    let low = bitcast<f32>(u32(half + 127) << 23u);
    let high = bitcast<f32>(u32(whole - half + 127) << 23u);
    return select(y * low * high, 0.0, x < -104.0);
}

// Natural logarithm; ln 0 = -inf, ln inf = inf, NaN below 0 and for NaN.
fn ln_of(x: f32) -> f32 {
    let word = bitcast<u32>(x);
    // subnormals are lifted into the normal range
    let tiny = word < 0x00800000u;
    // y = 2^e m, m in [sqrt(1/2), sqrt(2))
    let shifted = bitcast<u32>(select(x, x * 8388608.0, tiny)) - 0x3F3504F3u;
    let e = f32(bitcast<i32>(shifted) >> 23u) + select(0.0, -23.0, tiny);
    let m = bitcast<f32>((shifted & 0x007FFFFFu) + 0x3F3504F3u);
    let r = m - 1.0;
    let z = r * r;
    var p = fma(r, fma(r, fma(r, fma(r, 7.0376836e-2, -1.151461e-1), 1.1677e-1), -1.2420141e-1), 1.4249323e-1);
    p = fma(r, fma(r, fma(r, fma(r, p, -1.6668058e-1), 2.0000715e-1), -2.4999994e-1), 3.333333e-1);
    let tail = fma(r * z, p, fma(e, -2.1219444e-4, -0.5 * z));
    let y = fma(e, 0.6933594, r + tail);
    // everything that is no positive finite number, by its bits: as a literal a compiler may not have it
    let beyond = select(select(0x7FC00000u, word, word == 0x7F800000u), 0xFF800000u, (word << 1u) == 0u);
    return bitcast<f32>(select(beyond, bitcast<u32>(y), word - 1u < 0x7F7FFFFFu));
}

// x held within [low, high].
fn hold(x: f32, low: f32, high: f32) -> f32 {
    let y = select(x, low, x < low);
    return select(y, high, y > high);
}

// Hyperbolic tangent by one division; keeps NaN and the sign of 0, never leaves [-1, 1].
fn tanh_of(x: f32) -> f32 {
    let square = x * x;
    let t = select(x, with_sign(9.1, x), square > 82.81);
    let z = min(square, 82.81);
    let p = fma(z, fma(z, fma(z, fma(z, 1.3443933e-8, 2.0673087e-5), 3.499465e-3), 1.3384287e-1), 1.0);
    let q = fma(z, fma(z, fma(z, fma(z, 7.812961e-7, 3.2919832e-4), 2.5891723e-2), 4.6717605e-1), 1.0);
    let y = t * p / q;
    return select(y, with_sign(1.0, x), y * y > 1.0);
}
