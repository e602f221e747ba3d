//! sin, cos, exp, ln, tanh by polynomials: branch-free, no fused multiply-add, the same bits on every instruction set.
//!
//! Each function is a straight line of adds, multiplies, selects and bit moves, so a loop over lanes vectorises on any
//! vector unit from SSE2 up. Coefficients of sin, cos, exp and ln are those of Cephes 2.x (Moshier, single precision).
//! Errors measured against f64 are stated at each function and held by the tests.

/// `1.5 * 2^23`: adding it rounds an f32 below `2^22` to the nearest integer, which then sits in the low mantissa bits.
const ROUND: f32 = 12_582_912.0;

/// pi/2 in two words of 11 bits, whose products with `|q| < 2^13` are exact, and the rest.
const HALF_PI: [f32; 3] = [1.570_312_5, 4.837_513e-4, 7.549_79e-8];

/// 2 pi split the same way.
const TWO_PI: [f32; 3] = [6.281_25, 1.935_005_2e-3, 3.019_916e-7];

/// Nearest integer as `(q as f32, bits whose low word is q in two's complement)`; needs `|x| < 2^22`.
#[inline(always)]
fn nearest(x: f32) -> (f32, u32) {
    let shifted = x + ROUND;
    (shifted - ROUND, shifted.to_bits())
}

/// `(sin x, cos x)` for `|x| <= 1e4`: absolute error below 9e-8; below 2 ulp where `|x| <= 100`, zeros included.
#[inline(always)]
pub fn sin_cos(x: f32) -> (f32, f32) {
    // Cody-Waite: r = x - q pi/2 with |r| <= pi/4
    let (q, bits) = nearest(x * std::f32::consts::FRAC_2_PI);
    let r = ((x - q * HALF_PI[0]) - q * HALF_PI[1]) - q * HALF_PI[2];
    let z = r * r;
    let s = r + r * z * (-1.666_665_5e-1 + z * (8.332_161e-3 + z * -1.951_529_6e-4));
    let c = 1.0 - 0.5 * z + z * z * (4.166_664_6e-2 + z * (-1.388_731_6e-3 + z * 2.443_315_7e-5));
    // odd quadrants swap the two; bit 1 of q (of q + 1 for cos) is the sign
    let swap = bits & 1 != 0;
    let (s, c) = (if swap { c } else { s }, if swap { s } else { c });
    let sign_s = (bits & 2) << 30;
    let sign_c = (bits.wrapping_add(1) & 2) << 30;
    (f32::from_bits(s.to_bits() ^ sign_s), f32::from_bits(c.to_bits() ^ sign_c))
}

/// sin x; see [`sin_cos`].
#[inline(always)]
pub fn sin(x: f32) -> f32 {
    sin_cos(x).0
}

/// cos x; see [`sin_cos`].
#[inline(always)]
pub fn cos(x: f32) -> f32 {
    sin_cos(x).1
}

/// The angle equal to `x` modulo 2 pi within `[-pi, pi]`, for `|x| <= 1e4` (absolute error below 3e-7).
#[inline(always)]
pub fn wrap_angle(x: f32) -> f32 {
    let (q, _) = nearest(x * (0.5 * std::f32::consts::FRAC_1_PI));
    ((x - q * TWO_PI[0]) - q * TWO_PI[1]) - q * TWO_PI[2]
}

/// e^x over the whole range: below 2 ulp, subnormal results included; overflows to infinity, underflows to 0, keeps NaN.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // beyond these ends the result is already infinity or 0; comparisons in this order let NaN through
    let x = if x > 89.0 { 89.0 } else { x };
    let x = if x < -104.0 { -104.0 } else { x };
    let (n, bits) = nearest(x * std::f32::consts::LOG2_E);
    // ln 2 in two words, the first short enough for an exact product
    let r = (x - n * 0.693_359_4) - n * -2.121_944_4e-4;
    let p = 1.666_666_5e-1 + r * (4.166_579_6e-2 + r * (8.333_452e-3 + r * (1.398_2e-3 + r * 1.987_569_1e-4)));
    let y = (0.5 + r * p) * (r * r) + r + 1.0;
    // 2^n in two factors, because n reaches -150 and 128
    let n = bits.wrapping_sub(ROUND.to_bits()) as i32;
    let half = n >> 1;
    let pow2 = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    y * pow2(half) * pow2(n - half)
}

/// Natural logarithm: below 2 ulp; `ln 0 = -inf`, `ln inf = inf`, NaN below 0 and for NaN.
#[inline(always)]
pub fn ln(x: f32) -> f32 {
    // subnormals are lifted into the normal range
    let tiny = x < f32::MIN_POSITIVE;
    let y = if tiny { x * 8_388_608.0 } else { x };
    // y = 2^e m, m in [sqrt(1/2), sqrt(2))
    let bits = y.to_bits();
    let shifted = bits.wrapping_sub(0x3F35_04F3);
    let e = (shifted as i32 >> 23) as f32 + if tiny { -23.0 } else { 0.0 };
    let m = f32::from_bits((shifted & 0x007F_FFFF).wrapping_add(0x3F35_04F3));
    let r = m - 1.0;
    let z = r * r;
    let p = 1.424_932_3e-1 + r * (-1.242_014_1e-1 + r * (1.167_7e-1 + r * (-1.151_461e-1 + r * 7.037_683_6e-2)));
    let p = 3.333_333e-1 + r * (-2.499_999_4e-1 + r * (2.000_071_5e-1 + r * (-1.666_805_8e-1 + r * p)));
    let tail = r * z * p + e * -2.121_944_4e-4 - 0.5 * z;
    let y = (r + tail) + e * 0.693_359_4;
    let y = if x < f32::INFINITY { y } else { x };
    let y = if x > 0.0 { y } else { f32::NAN };
    if x == 0.0 { f32::NEG_INFINITY } else { y }
}

/// Hyperbolic tangent: relative error below 5e-7 (7 ulp); keeps NaN and the sign of 0, never leaves `[-1, 1]`.
///
/// One division and no exp: `x P(x^2) / Q(x^2)`, fitted for the least relative error on `|x| <= 8.95`; past that f32
/// knows only 1 (own fit by iteratively reweighted least squares).
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    let x = clamp(x, -9.1, 9.1);
    let z = x * x;
    let p = 1.0 + z * (1.338_428_7e-1 + z * (3.499_465e-3 + z * (2.067_308_7e-5 + z * 1.344_393_3e-8)));
    let q = 1.0 + z * (4.671_760_5e-1 + z * (2.589_172_3e-2 + z * (3.291_983_2e-4 + z * 7.812_961e-7)));
    clamp(x * p / q, -1.0, 1.0)
}

/// `x` held within `[low, high]`; keeps NaN. Unlike `f32::clamp` it cannot panic, so it stays free of branches.
#[inline(always)]
pub fn clamp(x: f32, low: f32, high: f32) -> f32 {
    let x = if x < low { low } else { x };
    if x > high { high } else { x }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use super::*;

    /// Worst error over `n` arguments spread evenly over `[low, high]`, as `(in ulp of the exact value, absolute)`.
    fn worst(f: impl Fn(f32) -> f32, exact: impl Fn(f64) -> f64, (low, high): (f64, f64), n: u32) -> (f64, f64) {
        let (mut ulps, mut abs) = (0.0f64, 0.0f64);
        for i in 0..=n {
            let x = (low + (high - low) * f64::from(i) / f64::from(n)) as f32;
            let want = exact(f64::from(x));
            let error = (f64::from(f(x)) - want).abs();
            let size = (want as f32).abs();
            let ulp = f64::from(f32::from_bits(size.to_bits() + 1)) - f64::from(size);
            (ulps, abs) = (ulps.max(error / ulp), abs.max(error));
        }
        (ulps, abs)
    }

    #[test]
    fn errors_are_as_documented() {
        let n = 400_000;
        for (name, (ulps, abs), most_ulps, most_abs) in [
            ("sin, small", worst(sin, f64::sin, (-100.0, 100.0), n), 2.0, 1e-7),
            ("cos, small", worst(cos, f64::cos, (-100.0, 100.0), n), 2.0, 1e-7),
            ("sin", worst(sin, f64::sin, (-1e4, 1e4), n), f64::INFINITY, 1e-7),
            ("cos", worst(cos, f64::cos, (-1e4, 1e4), n), f64::INFINITY, 1e-7),
            ("exp", worst(exp, f64::exp, (-103.9, 88.72), n), 2.0, f64::INFINITY),
            ("exp near 0", worst(exp, f64::exp, (-1.0, 1.0), n), 2.0, 3e-7),
            ("ln near 1", worst(ln, f64::ln, (0.5, 2.0), n), 2.0, 1e-7),
            ("ln", worst(ln, f64::ln, (1e-38, 1e38), n), 2.0, f64::INFINITY),
            ("tanh", worst(tanh, f64::tanh, (-12.0, 12.0), n), 7.0, 5e-7),
            ("tanh near 0", worst(tanh, f64::tanh, (-1e-3, 1e-3), n), 7.0, 5e-10),
            ("wrap_angle", worst(wrap_angle, |x| x - TAU * (x / TAU).round(), (-100.0, 100.0), n), f64::INFINITY, 3e-7),
        ] {
            assert!(ulps <= most_ulps && abs <= most_abs, "{name}: {ulps:.2} ulp, {abs:e}");
        }
        // every decade of ln's range, where an even spread does not reach
        for bits in (1..f32::INFINITY.to_bits()).step_by(10_007) {
            let x = f32::from_bits(bits);
            let want = f64::from(x).ln();
            assert!((f64::from(ln(x)) - want).abs() <= 2.4e-7 * want.abs(), "ln {x:e}: {:e} for {want:e}", ln(x));
        }
    }

    #[test]
    fn ends_of_the_range() {
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(88.73), f32::INFINITY);
        assert_eq!(exp(f32::INFINITY), f32::INFINITY);
        assert_eq!(exp(-104.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(-100.0) > 0.0, "subnormal, not 0");
        assert_eq!((ln(1.0), ln(0.0), ln(f32::INFINITY)), (0.0, f32::NEG_INFINITY, f32::INFINITY));
        assert!(ln(-1.0).is_nan());
        assert_eq!((tanh(f32::INFINITY), tanh(-50.0)), (1.0, -1.0));
        assert_eq!(tanh(-0.0).to_bits(), (-0.0f32).to_bits());
        assert_eq!((sin(0.0), cos(0.0)), (0.0, 1.0));
        for f in [sin, cos, exp, ln, tanh, wrap_angle, |x| clamp(x, -1.0, 1.0)] {
            assert!(f(f32::NAN).is_nan(), "a NaN must be seen, not hidden");
        }
        assert_eq!([clamp(-3.0, -1.0, 1.0), clamp(0.5, -1.0, 1.0), clamp(3.0, -1.0, 1.0)], [-1.0, 0.5, 1.0]);
    }
}
