//! Multi-layer perceptrons inside fused ops: parameter layout, the plain definition in f64, and blocks of rows that stay
//! in cache while they go forward and backward.
//!
//! Parameters of one net, in order: for every hidden layer `weight [in, out]` then `bias [out]`; for the output layer
//! `weight [out, in]` then `bias [out]`. Lanes run along the wider side of each matrix, so no product needs a sum across
//! lanes.

use super::activation::{Activation, activate, slope};
use super::bf16::{self, Right};
use super::simd::{Init, Mat, Simd, gemm};
use crate::device::Precision;
use crate::device::cpu::Isa;

/// Rows that go through a net together; their activations fit the second-level cache up to width 512.
pub const ROWS: usize = 64;
const LANES: usize = 16;

crate::per_isa! {
    /// Adds rows of `sum.len()` words, padded, in order.
    pub(super) fn add_rows(rows: &[f32], sum: &mut [f32]) {
        let wide = pad(sum.len());
        for (at, sum) in sum.chunks_mut(LANES).enumerate() {
            let mut lanes = [0.0; LANES];
            lanes[..sum.len()].copy_from_slice(sum);
            for row in rows.chunks_exact(wide) {
                lanes.iter_mut().zip(&row[at * LANES..][..LANES]).for_each(|(sum, x)| *sum += x);
            }
            sum.copy_from_slice(&lanes[..sum.len()]);
        }
    }
}

/// Sizes of one net.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    pub input: usize,
    pub hidden: Vec<usize>,
    pub activation: Activation,
    pub output: usize,
    /// Of its products.
    pub precision: Precision,
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

    /// Words of the activations of [`ROWS`] rows, inputs of activations included, and of the room that [`forward`] needs.
    pub fn acts_len(&self) -> usize {
        let operand = |y: Layer| bf16::room(ROWS, 0, y.input);
        self.units_len() + self.layers().map(operand).max().filter(|_| self.rounds()).unwrap_or(0)
    }

    /// Those of the activations alone.
    pub(super) fn units_len(&self) -> usize {
        2 * ROWS * self.hidden.iter().map(|&h| pad(h)).sum::<usize>()
    }

    /// Padded width of the output.
    pub fn out_pad(&self) -> usize {
        pad(self.output)
    }

    /// Words of the two slopes buffers that [`backward`] needs, and of its room.
    pub fn slopes_len(&self) -> usize {
        let (n, k) = (|y: &Layer| pad(y.output).max(pad(y.input)), |y: &Layer| ROWS.max(y.output));
        let operands = |y: Layer| bf16::room(ROWS.max(y.input).max(y.output), n(&y), k(&y));
        2 * self.slope_len() + self.layers().map(operands).max().filter(|_| self.rounds()).unwrap_or(0)
    }

    /// Those of one buffer of slopes.
    pub(super) fn slope_len(&self) -> usize {
        ROWS * self.hidden.iter().map(|&h| pad(h)).max().unwrap_or(0)
    }

    /// Whether operands of products are rounded.
    fn rounds(&self) -> bool {
        self.precision == Precision::Bf16
    }

    /// Definition: what becomes of an operand of a product before it is multiplied.
    pub(super) fn round(&self, x: f64) -> f64 {
        if self.rounds() { bf16::round(x as f32).into() } else { x }
    }

    /// Words of a packed gradient: every layer's weight with rows padded to 16 words, then its bias.
    pub fn packed_grad_len(&self) -> usize {
        let last = self.hidden.len();
        self.layers()
            .enumerate()
            .map(|(l, y)| if l == last { y.output * pad(y.input) } else { y.input * pad(y.output) } + y.output)
            .sum()
    }

    /// Definition: activations of every layer for one row, inputs first, outputs last, and the slopes of the hidden ones.
    /// Operands of products are rounded to the net's format, and so are the slopes.
    pub fn define_forward(&self, params: &[f64], x: &[f64]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
        let round = |x| self.round(x);
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
    ) {
        let round = |x| self.round(x);
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
pub fn pack(isa: Isa, mlp: &Mlp, params: &[f32], packed: &mut [f32]) {
    lay_out(isa, mlp, params, packed, true);
}

/// Lays parameters out for [`forward`] alone, which saves turning the large matrices.
pub fn pack_forward(isa: Isa, mlp: &Mlp, params: &[f32], packed: &mut [f32]) {
    lay_out(isa, mlp, params, packed, false);
}

fn lay_out(isa: Isa, mlp: &Mlp, params: &[f32], packed: &mut [f32], both: bool) {
    let last = mlp.hidden.len();
    for (l, y) in mlp.layers().enumerate() {
        let (weight, bias) = (&params[y.weight..y.bias], &params[y.bias..y.bias + y.output]);
        pack_layer(isa, mlp.precision, &y, l == last, (weight, bias), packed, both);
    }
}

/// Lays one layer out as [`pack`] does, or, without `both`, as [`pack_forward`].
pub(super) fn pack_layer(
    isa: Isa,
    precision: Precision,
    y: &Layer,
    last: bool,
    (weight, own): (&[f32], &[f32]),
    packed: &mut [f32],
    both: bool,
) {
    let (input, output) = (y.input, y.output);
    let (ahead, rest) = packed[y.ahead..].split_at_mut(input * pad(output));
    let (bias, rest) = rest.split_at_mut(pad(output));
    let back = &mut rest[..output * pad(input)];
    bias.fill(0.0);
    bias[..output].copy_from_slice(own);
    // the way this matrix is stored, and the other way round
    let (same, turned, rows, cols) = if last { (back, ahead, output, input) } else { (ahead, back, input, output) };
    assert!(weight.len() == rows * cols && same.len() == rows * pad(cols) && turned.len() == cols * pad(rows));
    if both || !last {
        match precision {
            Precision::F32 => {
                for (to, from) in same.chunks_exact_mut(pad(cols)).zip(weight.chunks_exact(cols)) {
                    to[..cols].copy_from_slice(from);
                    to[cols..].fill(0.0);
                }
            }
            // SAFETY: half as many words as `same` has
            Precision::Bf16 => unsafe {
                bf16::lay_out(isa, weight.as_ptr(), [rows, cols], cols, same.as_mut_ptr(), pad(cols));
            },
        }
    }
    if both || last {
        match precision {
            Precision::F32 => turn(isa, weight, [rows, cols], turned),
            // SAFETY: half as many words as `turned` has
            Precision::Bf16 => unsafe {
                bf16::turn(isa, weight.as_ptr(), [rows, cols], cols, turned.as_mut_ptr(), pad(rows));
            },
        }
    }
}

crate::per_simd! {
    /// `to[j, i] = from[i, j]`, rows of `to` padded with zeros. It goes by squares of 16: a whole column of a wide matrix
    /// does not fit the nearest cache.
    fn turn(from: &[f32], size: [usize; 2], to: &mut [f32]) = turn_body;
}

#[inline(always)]
fn turn_body<I: Simd>(from: &[f32], [rows, cols]: [usize; 2], to: &mut [f32]) {
    let wide = pad(rows);
    for (band, to) in to.chunks_mut(LANES * wide).enumerate() {
        for i in (0..wide).step_by(LANES) {
            if i + LANES <= rows && to.len() == LANES * wide {
                let square = &from[i * cols + band * LANES..(i + LANES - 1) * cols + (band + 1) * LANES];
                // SAFETY: a square of `from`, and one of `to`
                unsafe { I::turn((square.as_ptr(), cols), (to[i..].as_mut_ptr(), wide)) };
                continue;
            }
            for (j, to) in to.chunks_exact_mut(wide).enumerate() {
                for (r, to) in to[i..i + LANES].iter_mut().enumerate() {
                    *to = if i + r < rows { from[(i + r) * cols + band * LANES + j] } else { 0.0 };
                }
            }
        }
    }
}

/// A product in a net's number format: `c = init + a b`, where [`Right::Words`] is a matrix that [`pack`] laid out.
///
/// # Safety
/// All matrices are readable, and `c` is writable memory of its own.
#[allow(clippy::too_many_arguments)] // a product, and where it goes
pub(super) unsafe fn multiply(
    isa: Isa,
    precision: Precision,
    size: [usize; 3],
    a: Mat,
    b: Right,
    c: (*mut f32, usize),
    init: Init,
    room: &mut [f32],
) {
    // SAFETY: the caller's promise
    unsafe {
        match (precision, b) {
            (Precision::F32, Right::Numbers(start, row) | Right::Words(start, row)) => {
                gemm(isa, size, a, (start, row), c, init);
            }
            (Precision::Bf16, _) => bf16::gemm(isa, size, a, b, c, init, room),
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
    let (mut acts, room) = acts.split_at_mut(mlp.units_len());
    for (l, y) in mlp.layers().enumerate() {
        let wide = pad(y.output);
        // SAFETY: sizes were checked above; `packed` and `acts` are laid out by the same layer list
        unsafe {
            let (size, weight) = ([rows, wide, y.input], Right::Words(packed.as_ptr().add(y.ahead), wide));
            let bias = Init::Bias(packed.as_ptr().add(y.packed_bias));
            if l == last {
                multiply(isa, mlp.precision, size, from, weight, (out.as_mut_ptr(), wide), bias, room);
                return;
            }
            let (here, rest) = std::mem::take(&mut acts).split_at_mut(2 * ROWS * wide);
            multiply(isa, mlp.precision, size, from, weight, (here.as_mut_ptr(), wide), bias, room);
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
    let (mut d_here, slopes) = slopes.split_at_mut(mlp.slope_len());
    let (mut d_next, room) = slopes.split_at_mut(mlp.slope_len());
    let mut d = d_out.as_ptr();
    let (mut acts_end, mut grad_end) = (mlp.units_len(), mlp.packed_grad_len());
    let mut layers = [None; 16];
    assert!(last < layers.len(), "a net has at most 15 hidden layers");
    mlp.layers().enumerate().for_each(|(l, layer)| layers[l] = Some(layer));
    for l in (0..=last).rev() {
        let y = layers[l].expect("filled above");
        let (wide, deep) = (pad(y.output), pad(y.input));
        let weight_len = if l == last { y.output * deep } else { y.input * wide };
        grad_end -= weight_len + y.output;
        let (d_weight, d_bias) = grad[grad_end..grad_end + weight_len + y.output].split_at_mut(weight_len);
        // SAFETY: sizes were checked above; offsets follow the same layer list
        unsafe {
            // inputs of this layer: the activations below, or the observations
            let (below, below_row) = if l == 0 {
                (x.0.as_ptr(), x.1)
            } else {
                acts_end -= 2 * ROWS * deep;
                (acts.as_ptr().add(acts_end), deep)
            };
            if l == last && l == 0 {
                // with no hidden layer the observations are not padded, so their columns cannot be the lanes
                let round = |x: f32| if mlp.rounds() { bf16::round(x) } else { x };
                for r in 0..rows {
                    for o in 0..y.output {
                        for i in 0..y.input {
                            d_weight[o * deep + i] +=
                                round(*d.add(r * wide + o)) * round(*below.add(r * below_row + i));
                        }
                    }
                }
            } else {
                // lanes run along the wider side
                let (size, left, right) = if l == last {
                    ([y.output, deep, rows], (d, wide), Right::Numbers(below, below_row))
                } else {
                    ([y.input, wide, rows], (below, below_row), Right::Numbers(d, wide))
                };
                let (left, to) = (Mat { start: left.0, row: 1, col: left.1 }, (d_weight.as_mut_ptr(), size[1]));
                multiply(isa, mlp.precision, size, left, right, to, Init::Add, room);
            }
            add_rows(isa, std::slice::from_raw_parts(d, rows * wide), d_bias);
            if l > 0 {
                let (size, left) = ([rows, deep, y.output], Mat { start: d, row: wide, col: 1 });
                let weight = Right::Words(packed.as_ptr().add(y.back), deep);
                multiply(isa, mlp.precision, size, left, weight, (d_here.as_mut_ptr(), deep), Init::Zero, room);
                let (after, before) = acts[acts_end..acts_end + 2 * ROWS * deep].split_at(ROWS * deep);
                slope(
                    isa,
                    mlp.activation,
                    mlp.precision,
                    &mut d_here[..rows * deep],
                    &after[..rows * deep],
                    &before[..rows * deep],
                );
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
        at += y.output;
    }
}

/// Where the gradient of a net adds up: in its place, where the rows of its matrices need no padding, else apart.
pub struct Gradient<'a> {
    mlp: &'a Mlp,
    place: &'a mut [f32],
    apart: &'a mut [f32],
}

impl<'a> Gradient<'a> {
    /// Words of scratch that it needs.
    pub fn words(mlp: &Mlp) -> usize {
        if mlp.packed_grad_len() == mlp.len() { 0 } else { mlp.packed_grad_len() }
    }

    /// Zeros; `apart` has [`Gradient::words`].
    pub fn new(mlp: &'a Mlp, place: &'a mut [f32], apart: &'a mut [f32]) -> Gradient<'a> {
        let mut gradient = Gradient { mlp, place: &mut place[..mlp.len()], apart };
        gradient.sum().fill(0.0);
        gradient
    }

    /// What [`backward`] adds to.
    pub fn sum(&mut self) -> &mut [f32] {
        if self.apart.is_empty() { self.place } else { self.apart }
    }

    /// Puts it in its place.
    pub fn finish(self) {
        if !self.apart.is_empty() {
            unpack_grad(self.mlp, self.apart, self.place);
        }
    }
}
