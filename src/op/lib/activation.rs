//! Functions of the units of hidden layers, and their slopes.

use super::bf16::round;
use super::simd::Simd;
use super::trig;
use crate::device::Precision;

/// A function applied to every unit of a hidden layer, by PyTorch's names and constants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Tanh,
    Relu,
    LeakyRelu,
    Elu,
    Selu,
    Gelu,
    Silu,
    Sigmoid,
    Identity,
}

pub const LEAK: f64 = 0.01;
pub const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;
pub const SELU_SCALE: f64 = 1.050_700_987_355_480_5;

impl Activation {
    pub const ALL: [Activation; 9] = [
        Activation::Tanh,
        Activation::Relu,
        Activation::LeakyRelu,
        Activation::Elu,
        Activation::Selu,
        Activation::Gelu,
        Activation::Silu,
        Activation::Sigmoid,
        Activation::Identity,
    ];

    /// Definition: the value and the slope at `x`.
    pub fn define(self, x: f64) -> (f64, f64) {
        let sigmoid = 1.0 / (1.0 + (-x).exp());
        match self {
            Activation::Tanh => (x.tanh(), 1.0 - x.tanh().powi(2)),
            Activation::Relu => (x.max(0.0), f64::from(u8::from(x > 0.0))),
            Activation::LeakyRelu => {
                if x > 0.0 {
                    (x, 1.0)
                } else {
                    (LEAK * x, LEAK)
                }
            }
            Activation::Elu => {
                if x > 0.0 {
                    (x, 1.0)
                } else {
                    (x.exp_m1(), x.exp())
                }
            }
            Activation::Selu => {
                if x > 0.0 {
                    (SELU_SCALE * x, SELU_SCALE)
                } else {
                    (SELU_SCALE * SELU_ALPHA * x.exp_m1(), SELU_SCALE * SELU_ALPHA * x.exp())
                }
            }
            Activation::Gelu => {
                let cdf = 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
                let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
                (x * cdf, cdf + x * density)
            }
            Activation::Silu => (x * sigmoid, sigmoid * (1.0 + x * (1.0 - sigmoid))),
            Activation::Sigmoid => (sigmoid, sigmoid * (1.0 - sigmoid)),
            Activation::Identity => (x, 1.0),
        }
    }

    /// Whether the slope needs the value before the activation (the others read it off the value after).
    pub fn needs_input(self) -> bool {
        matches!(self, Activation::Gelu | Activation::Silu)
    }
}

crate::per_simd! {
    /// Replaces `x` by its activation; `before` keeps the inputs where the slope needs them.
    pub(super) fn activate(kind: Activation, x: &mut [f32], before: &mut [f32]) = activate_body;
}

crate::per_simd! {
    /// Multiplies `d` by the slope, read off the activated values `y` (and their inputs where needed). Slope and product are
    /// rounded to the format of the products that `d` goes into.
    pub(super) fn slope(kind: Activation, precision: Precision, d: &mut [f32], y: &[f32], before: &[f32]) = slope_body;
}

#[inline(always)]
fn activate_body<I: Simd>(kind: Activation, x: &mut [f32], before: &mut [f32]) {
    if kind.needs_input() {
        before.copy_from_slice(x);
    }
    match kind {
        Activation::Tanh => each(x, tanh::<I>),
        Activation::Relu => each(x, |x| if x > 0.0 { x } else { 0.0 }),
        Activation::LeakyRelu => each(x, |x| if x > 0.0 { x } else { LEAK as f32 * x }),
        Activation::Elu => each(x, |x| if x > 0.0 { x } else { trig::exp(x) - 1.0 }),
        Activation::Selu => each(x, |x| {
            let low = (SELU_SCALE * SELU_ALPHA) as f32 * (trig::exp(x) - 1.0);
            if x > 0.0 { SELU_SCALE as f32 * x } else { low }
        }),
        Activation::Gelu => each(x, |x| x * normal_cdf(x)),
        Activation::Silu => each(x, |x| x * sigmoid::<I>(x)),
        Activation::Sigmoid => each(x, sigmoid::<I>),
        Activation::Identity => {}
    }
}

#[inline(always)]
fn slope_body<I: Simd>(kind: Activation, precision: Precision, d: &mut [f32], y: &[f32], before: &[f32]) {
    let p = precision;
    match kind {
        Activation::Tanh => times(p, d, y, |y| I::fma(-y, y, 1.0)),
        Activation::Relu => match precision {
            Precision::F32 => each2(d, y, |d, y| if y > 0.0 { d } else { 0.0 }),
            Precision::Bf16 => each2(d, y, |d, y| if y > 0.0 { round(d) } else { 0.0 }),
        },
        Activation::LeakyRelu => times(p, d, y, |y| if y > 0.0 { 1.0 } else { LEAK as f32 }),
        Activation::Elu => times(p, d, y, |y| if y > 0.0 { 1.0 } else { y + 1.0 }),
        Activation::Selu => times(p, d, y, |y| {
            let low = y + (SELU_SCALE * SELU_ALPHA) as f32;
            if y > 0.0 { SELU_SCALE as f32 } else { low }
        }),
        Activation::Gelu => times(p, d, before, |x| {
            let density = 0.398_942_28 * trig::exp(-0.5 * x * x);
            normal_cdf(x) + x * density
        }),
        Activation::Silu => times(p, d, before, |x| {
            let s = sigmoid::<I>(x);
            s * (1.0 + x * (1.0 - s))
        }),
        Activation::Sigmoid => times(p, d, y, |y| y * (1.0 - y)),
        Activation::Identity => {}
    }
}

#[inline(always)]
fn times(precision: Precision, d: &mut [f32], x: &[f32], slope: impl Fn(f32) -> f32) {
    match precision {
        Precision::F32 => each2(d, x, |d, x| d * slope(x)),
        Precision::Bf16 => each2(d, x, |d, x| round(d * round(slope(x)))),
    }
}

#[inline(always)]
fn each(x: &mut [f32], f: impl Fn(f32) -> f32) {
    for x in x {
        *x = f(*x);
    }
}

// a flat loop: with blocks of 16 the compiler turns rows into gathers
#[inline(always)]
fn each2(d: &mut [f32], y: &[f32], f: impl Fn(f32, f32) -> f32) {
    for (d, y) in d.iter_mut().zip(y) {
        *d = f(*d, *y);
    }
}

/// tanh as the rational function of Eigen's `ptanh` (coefficients from there): one division, error below 4 ulp.
#[inline(always)]
pub fn tanh<I: Simd>(x: f32) -> f32 {
    // beyond this the function is 1 to the last bit
    let x = trig::clamp(x, -7.905_311, 7.905_311);
    let z = x * x;
    let mut p = I::fma(z, -2.760_768_5e-16, 2.000_187_9e-13);
    p = I::fma(z, p, -8.604_672e-11);
    p = I::fma(z, p, 5.122_297_1e-8);
    p = I::fma(z, p, 1.485_722_4e-5);
    p = I::fma(z, p, 6.372_619_3e-4);
    p = I::fma(z, p, 4.893_524_6e-3);
    let mut q = I::fma(z, 1.198_258_4e-6, 1.185_347_1e-4);
    q = I::fma(z, q, 2.268_434_6e-3);
    q = I::fma(z, q, 4.893_525_2e-3);
    x * p / q
}

#[inline(always)]
fn sigmoid<I: Simd>(x: f32) -> f32 {
    I::fma(0.5, tanh::<I>(0.5 * x), 0.5)
}

/// Distribution function of the standard normal by Abramowitz and Stegun 26.2.17 (absolute error below 8e-8).
#[inline(always)]
fn normal_cdf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.231_641_9 * a);
    let p = t * (0.319_381_53 + t * (-0.356_563_78 + t * (1.781_477_9 + t * (-1.821_256 + t * 1.330_274_4))));
    let tail = 0.398_942_28 * trig::exp(-0.5 * a * a) * p;
    if x > 0.0 { 1.0 - tail } else { tail }
}

/// Error function to f64 rounding by its series, or by the continued fraction of its complement.
fn erf(x: f64) -> f64 {
    let a = x.abs();
    if a < 2.5 {
        let (mut term, mut sum) = (x, x);
        for n in 1..80 {
            term *= -x * x / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut fraction = a;
    for n in (1..60).rev() {
        fraction = a + f64::from(n) / 2.0 / fraction;
    }
    (1.0 - (-a * a).exp() / fraction / std::f64::consts::PI.sqrt()).copysign(x)
}
