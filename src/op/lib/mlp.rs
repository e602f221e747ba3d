//! Multi-layer perceptrons inside fused ops: parameter layout, the plain definition in f64, and blocks of rows that stay
//! in cache while they go forward and backward.
//!
//! Parameters of one net, in order: for every hidden layer `weight [in, out]` then `bias [out]`; for the output layer
//! `weight [out, in]` then `bias [out]`. Lanes run along the wider side of each matrix, so no product needs a sum across
//! lanes.

use super::simd::{Init, Mat, Simd, gemm};
use super::trig;
use crate::device::cpu::Isa;

/// Rows that go through a net together; their activations fit the second-level cache up to width 512.
pub const ROWS: usize = 64;
const LANES: usize = 16;

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
    /// Multiplies `d` by the slope, read off the activated values `y` (and their inputs where needed).
    pub(super) fn slope(kind: Activation, d: &mut [f32], y: &[f32], before: &[f32]) = slope_body;
}

crate::per_isa! {
    /// Adds rows of `sum.len()` words, in order.
    pub(super) fn add_rows(rows: &[f32], sum: &mut [f32]) {
        let wide = sum.len();
        for (at, sum) in sum.chunks_exact_mut(LANES).enumerate() {
            let mut lanes = [0.0; LANES];
            lanes.copy_from_slice(sum);
            for row in rows.chunks_exact(wide) {
                lanes.iter_mut().zip(&row[at * LANES..][..LANES]).for_each(|(sum, x)| *sum += x);
            }
            sum.copy_from_slice(&lanes);
        }
    }
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
fn slope_body<I: Simd>(kind: Activation, d: &mut [f32], y: &[f32], before: &[f32]) {
    match kind {
        Activation::Tanh => each2(d, y, |d, y| d * I::fma(-y, y, 1.0)),
        Activation::Relu => each2(d, y, |d, y| if y > 0.0 { d } else { 0.0 }),
        Activation::LeakyRelu => each2(d, y, |d, y| if y > 0.0 { d } else { LEAK as f32 * d }),
        Activation::Elu => each2(d, y, |d, y| if y > 0.0 { d } else { d * (y + 1.0) }),
        Activation::Selu => each2(d, y, |d, y| {
            let low = y + (SELU_SCALE * SELU_ALPHA) as f32;
            d * if y > 0.0 { SELU_SCALE as f32 } else { low }
        }),
        Activation::Gelu => each2(d, before, |d, x| {
            let density = 0.398_942_28 * trig::exp(-0.5 * x * x);
            d * (normal_cdf(x) + x * density)
        }),
        Activation::Silu => each2(d, before, |d, x| {
            let s = sigmoid::<I>(x);
            d * (s * (1.0 + x * (1.0 - s)))
        }),
        Activation::Sigmoid => each2(d, y, |d, y| d * (y * (1.0 - y))),
        Activation::Identity => {}
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

/// What becomes of an operand of a product before it is multiplied.
pub type Round = fn(f64) -> f64;

/// Operands as they are.
pub fn exact(x: f64) -> f64 {
    x
}

/// Operands rounded to bfloat16, to nearest even.
pub fn to_bf16(x: f64) -> f64 {
    let bits = (x as f32).to_bits();
    if x.is_nan() {
        return x;
    }
    f32::from_bits((bits + 0x7FFF + (bits >> 16 & 1)) & 0xFFFF_0000).into()
}

/// Sizes of one net.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    pub input: usize,
    pub hidden: Vec<usize>,
    pub activation: Activation,
    pub output: usize,
}

/// One layer of a net: sizes, and where it lies in the parameters and in packed scratch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer {
    pub input: usize,
    pub output: usize,
    /// Offsets into the parameters.
    pub weight: usize,
    pub bias: usize,
    /// Offsets into packed scratch: `[input, output]` for the way forward, `[output, input]` for the way back, rows
    /// padded to 16 words.
    pub ahead: usize,
    pub packed_bias: usize,
    pub back: usize,
}

/// Words of a row whose columns are lanes.
pub(super) const fn pad(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

impl Mlp {
    pub(super) fn layers(&self) -> impl Iterator<Item = Layer> + '_ {
        let (mut at, mut packed) = (0, 0);
        (0..=self.hidden.len()).map(move |l| {
            let input = if l == 0 { self.input } else { self.hidden[l - 1] };
            let output = if l == self.hidden.len() { self.output } else { self.hidden[l] };
            let layer = Layer {
                input,
                output,
                weight: at,
                bias: at + input * output,
                ahead: packed,
                packed_bias: packed + input * pad(output),
                back: packed + (input + 1) * pad(output),
            };
            at = layer.bias + output;
            packed = layer.back + output * pad(input);
            layer
        })
    }

    /// Sizes `(in, out)` of every layer and the offsets of its weight and bias; the last layer's weight is `[out, in]`,
    /// the others' `[in, out]`.
    pub fn offsets(&self) -> Vec<(usize, usize, usize, usize)> {
        self.layers().map(|l| (l.input, l.output, l.weight, l.bias)).collect()
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.layers().last().map_or(0, |l| l.bias + l.output)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Multiply-adds of one row forward.
    pub fn madds(&self) -> usize {
        self.layers().map(|l| l.input * l.output).sum()
    }

    /// Words of packed parameters.
    pub fn packed_len(&self) -> usize {
        self.layers().last().map_or(0, |l| l.back + l.output * pad(l.input))
    }

    /// Words of the activations of [`ROWS`] rows, inputs of activations included.
    pub fn acts_len(&self) -> usize {
        2 * ROWS * self.hidden.iter().map(|&h| pad(h)).sum::<usize>()
    }

    /// Padded width of the output.
    pub fn out_pad(&self) -> usize {
        pad(self.output)
    }

    /// Words of the two slopes buffers that [`backward`] needs.
    pub fn slopes_len(&self) -> usize {
        2 * ROWS * self.hidden.iter().map(|&h| pad(h)).max().unwrap_or(0)
    }

    /// Words of a packed gradient: every layer's weight with rows padded to 16 words, then its padded bias.
    pub fn packed_grad_len(&self) -> usize {
        let last = self.hidden.len();
        self.layers()
            .enumerate()
            .map(|(l, y)| if l == last { y.output * pad(y.input) } else { y.input * pad(y.output) } + pad(y.output))
            .sum()
    }

    /// Definition: activations of every layer for one row, inputs first, outputs last, and the slopes of the hidden ones.
    /// Operands of products are rounded by `round`, and so are the slopes.
    pub fn define_forward(&self, params: &[f64], x: &[f64], round: Round) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let (mut values, mut slopes) = (vec![x.iter().map(|&x| round(x)).collect::<Vec<f64>>()], Vec::new());
        for (l, layer) in self.layers().enumerate() {
            let last = l == self.hidden.len();
            let x = &values[l];
            let sums = (0..layer.output).map(|o| {
                let weight = |i: usize| if last { o * layer.input + i } else { i * layer.output + o };
                let product = |i: usize| x[i] * round(params[layer.weight + weight(i)]);
                (0..layer.input).map(product).sum::<f64>() + params[layer.bias + o]
            });
            if last {
                let sums = sums.collect();
                values.push(sums);
            } else {
                let unit = |(y, slope)| (round(y), round(slope));
                let (y, slope) = sums.map(|sum| unit(self.activation.define(sum))).unzip();
                values.push(y);
                slopes.push(slope);
            }
        }
        (values, slopes)
    }

    /// Definition: adds one row's gradient, given the slope of the loss at every output. Slopes at units are rounded; those
    /// at the outputs only as operands of products.
    pub fn define_backward(
        &self,
        params: &[f64],
        row: &(Vec<Vec<f64>>, Vec<Vec<f64>>),
        d_out: &[f64],
        grad: &mut [f64],
        round: Round,
    ) {
        let (values, slopes) = row;
        let mut d = d_out.to_vec();
        for (l, layer) in self.layers().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let last = l == self.hidden.len();
            let mut d_in = vec![0.0; layer.input];
            for o in 0..layer.output {
                grad[layer.bias + o] += d[o];
                let d = round(d[o]);
                for i in 0..layer.input {
                    let at = layer.weight + if last { o * layer.input + i } else { i * layer.output + o };
                    grad[at] += d * values[l][i];
                    d_in[i] += d * round(params[at]);
                }
            }
            if l > 0 {
                d = d_in.iter().zip(&slopes[l - 1]).map(|(d, slope)| round(d * slope)).collect();
            }
        }
    }
}

/// Lays parameters out for [`forward`] and [`backward`]: padded rows, and each matrix both ways.
pub fn pack(mlp: &Mlp, params: &[f32], packed: &mut [f32]) {
    lay_out(mlp, params, packed, true);
}

/// Lays parameters out for [`forward`] alone, which saves turning the large matrices.
pub fn pack_forward(mlp: &Mlp, params: &[f32], packed: &mut [f32]) {
    lay_out(mlp, params, packed, false);
}

fn lay_out(mlp: &Mlp, params: &[f32], packed: &mut [f32], both: bool) {
    let last = mlp.hidden.len();
    for (l, y) in mlp.layers().enumerate() {
        pack_layer(&y, l == last, &params[y.weight..y.bias], &params[y.bias..y.bias + y.output], packed, both);
    }
}

/// Lays one layer out as [`pack`] does, or, without `both`, as [`pack_forward`].
pub(super) fn pack_layer(y: &Layer, last: bool, weight: &[f32], own: &[f32], packed: &mut [f32], both: bool) {
    let (input, output) = (y.input, y.output);
    let (ahead, rest) = packed[y.ahead..].split_at_mut(input * pad(output));
    let (bias, rest) = rest.split_at_mut(pad(output));
    let back = &mut rest[..output * pad(input)];
    bias.fill(0.0);
    bias[..output].copy_from_slice(own);
    // the way this matrix is stored, and the other way round
    let (same, turned, rows, cols) = if last { (back, ahead, output, input) } else { (ahead, back, input, output) };
    if both || !last {
        for (to, from) in same.chunks_exact_mut(pad(cols)).zip(weight.chunks_exact(cols)) {
            to[..cols].copy_from_slice(from);
            to[cols..].fill(0.0);
        }
    }
    if both || last {
        turn(weight, rows, cols, turned);
    }
}

/// `to[j, i] = from[i, j]`, rows of `to` padded with zeros. It goes by squares of 16: a whole column of a wide matrix
/// does not fit the nearest cache.
fn turn(from: &[f32], rows: usize, cols: usize, to: &mut [f32]) {
    let wide = pad(rows);
    for (band, to) in to.chunks_mut(LANES * wide).enumerate() {
        for i in (0..wide).step_by(LANES) {
            for (j, to) in to.chunks_exact_mut(wide).enumerate() {
                for (r, to) in to[i..i + LANES].iter_mut().enumerate() {
                    *to = if i + r < rows { from[(i + r) * cols + band * LANES + j] } else { 0.0 };
                }
            }
        }
    }
}

/// Sends `rows <= ROWS` rows through a packed net. `x` holds rows of `mlp.input` words, `x_row` words apart; `out` gets
/// rows of `mlp.out_pad()` words; `acts` keeps what [`backward`] reads.
pub fn forward(
    isa: Isa,
    mlp: &Mlp,
    packed: &[f32],
    x: (&[f32], usize),
    rows: usize,
    acts: &mut [f32],
    out: &mut [f32],
) {
    assert!(
        rows <= ROWS && (rows == 0 || x.0.len() >= (rows - 1) * x.1 + mlp.input) && packed.len() >= mlp.packed_len()
    );
    assert!(acts.len() >= mlp.acts_len() && out.len() >= rows * mlp.out_pad());
    let last = mlp.hidden.len();
    let mut from = Mat { start: x.0.as_ptr(), row: x.1, col: 1 };
    let mut acts = acts;
    for (l, y) in mlp.layers().enumerate() {
        let wide = pad(y.output);
        // SAFETY: sizes were checked above; `packed` and `acts` are laid out by the same layer list
        unsafe {
            let weight = (packed.as_ptr().add(y.ahead), wide);
            let bias = Init::Bias(packed.as_ptr().add(y.packed_bias));
            if l == last {
                gemm(isa, [rows, wide, y.input], from, weight, (out.as_mut_ptr(), wide), bias);
                return;
            }
            let (here, rest) = std::mem::take(&mut acts).split_at_mut(2 * ROWS * wide);
            gemm(isa, [rows, wide, y.input], from, weight, (here.as_mut_ptr(), wide), bias);
            let (after, before) = here.split_at_mut(ROWS * wide);
            activate(isa, mlp.activation, &mut after[..rows * wide], &mut before[..rows * wide]);
            from = Mat { start: after.as_ptr(), row: wide, col: 1 };
            acts = rest;
        }
    }
}

/// Adds the gradient of `rows` rows to the packed gradient `grad`. `d_out` is the slope of the loss at the outputs, rows
/// of `mlp.out_pad()` words; `slopes` is scratch.
#[allow(clippy::too_many_arguments)] // what it reads, then what it writes
pub fn backward(
    isa: Isa,
    mlp: &Mlp,
    packed: &[f32],
    x: (&[f32], usize),
    rows: usize,
    acts: &[f32],
    d_out: &[f32],
    slopes: &mut [f32],
    grad: &mut [f32],
) {
    assert!(
        rows <= ROWS && (rows == 0 || x.0.len() >= (rows - 1) * x.1 + mlp.input) && packed.len() >= mlp.packed_len()
    );
    assert!(acts.len() >= mlp.acts_len() && d_out.len() >= rows * mlp.out_pad());
    assert!(slopes.len() >= mlp.slopes_len() && grad.len() >= mlp.packed_grad_len());
    let last = mlp.hidden.len();
    let (mut d_here, mut d_next) = slopes.split_at_mut(mlp.slopes_len() / 2);
    let mut d = d_out.as_ptr();
    let (mut acts_end, mut grad_end) = (mlp.acts_len(), mlp.packed_grad_len());
    let mut layers = [None; 16];
    assert!(last < layers.len(), "a net has at most 15 hidden layers");
    mlp.layers().enumerate().for_each(|(l, layer)| layers[l] = Some(layer));
    for l in (0..=last).rev() {
        let y = layers[l].expect("filled above");
        let (wide, deep) = (pad(y.output), pad(y.input));
        let weight_len = if l == last { y.output * deep } else { y.input * wide };
        grad_end -= weight_len + wide;
        let (d_weight, d_bias) = grad[grad_end..grad_end + weight_len + wide].split_at_mut(weight_len);
        // SAFETY: sizes were checked above; offsets follow the same layer list
        unsafe {
            // inputs of this layer: the activations below, or the observations
            let (below, below_row) = if l == 0 {
                (x.0.as_ptr(), x.1)
            } else {
                acts_end -= 2 * ROWS * deep;
                (acts.as_ptr().add(acts_end), deep)
            };
            if l == last {
                // with no hidden layer the observations are not padded, so their columns cannot be the lanes
                if l == 0 {
                    for r in 0..rows {
                        for o in 0..y.output {
                            for i in 0..y.input {
                                d_weight[o * deep + i] += *d.add(r * wide + o) * *below.add(r * below_row + i);
                            }
                        }
                    }
                } else {
                    let left = Mat { start: d, row: 1, col: wide };
                    gemm(
                        isa,
                        [y.output, deep, rows],
                        left,
                        (below, below_row),
                        (d_weight.as_mut_ptr(), deep),
                        Init::Add,
                    );
                }
            } else {
                let left = Mat { start: below, row: 1, col: below_row };
                gemm(isa, [y.input, wide, rows], left, (d, wide), (d_weight.as_mut_ptr(), wide), Init::Add);
            }
            add_rows(isa, std::slice::from_raw_parts(d, rows * wide), d_bias);
            if l > 0 {
                let left = Mat { start: d, row: wide, col: 1 };
                let weight = (packed.as_ptr().add(y.back), deep);
                gemm(isa, [rows, deep, y.output], left, weight, (d_here.as_mut_ptr(), deep), Init::Zero);
                let (after, before) = acts[acts_end..acts_end + 2 * ROWS * deep].split_at(ROWS * deep);
                slope(isa, mlp.activation, &mut d_here[..rows * deep], &after[..rows * deep], &before[..rows * deep]);
                d = d_here.as_ptr();
                std::mem::swap(&mut d_here, &mut d_next);
            }
        }
    }
}

/// Writes a packed gradient in the order of the parameters.
pub fn unpack_grad(mlp: &Mlp, packed: &[f32], grad: &mut [f32]) {
    let last = mlp.hidden.len();
    let mut at = 0;
    for (l, y) in mlp.layers().enumerate() {
        let (rows, cols) = if l == last { (y.output, y.input) } else { (y.input, y.output) };
        for row in 0..rows {
            grad[y.weight + row * cols..][..cols].copy_from_slice(&packed[at + row * pad(cols)..][..cols]);
        }
        at += rows * pad(cols);
        grad[y.bias..y.bias + y.output].copy_from_slice(&packed[at..at + y.output]);
        at += pad(y.output);
    }
}
