//! Multi-layer perceptrons with Batch Renormalisation (Ioffe 2017) behind every hidden linear layer, as CrossQ's critics
//! are (Bhatt et al. 2024): parameter layout, the plain definition in f64, a whole batch forward and backward in training
//! mode, and the plain net that such a net is in evaluation mode.
//!
//! In training mode a unit's sums over a batch become `z = (x - mean) / std` with the batch's own mean and deviation, then
//! `scale (r z + d) + shift`. The corrections `r = std / running std` and `d = (mean - running mean) / running std` are
//! held within `[1 / r_max, r_max]` and `[-d_max, d_max]`, and are constants of the gradient. Both bounds open linearly
//! over the first `warmup` batches, from 1 and 0 on, where this is plain batch normalisation. A deviation is
//! `sqrt(variance + eps)`, a variance is divided by the number of rows.
//!
//! Parameters, in order: for every hidden layer `weight [in, out]`, `bias [out]`, `scale [out]`, `shift [out]`; for the
//! output layer `weight [out, in]`, `bias [out]`. Running moments: the means of all units in order, then the variances.
//!
//! In bf16 the operands of products are rounded, and nothing else: sums become moments and `z` as they are.

use super::activation::{activate, slope};
use super::bf16::{self, Right};
use super::mlp::{self, Layer, Mlp, ROWS, multiply, pad};
use super::nets::cut;
use super::simd::{Init, Mat};
use super::trig;
use crate::device::Precision;
use crate::device::cpu::Isa;

/// Sizes and numbers of one net.
#[derive(Debug, Clone, PartialEq)]
pub struct Renorm {
    pub mlp: Mlp,
    /// Weight of a batch's moments in the running ones.
    pub momentum: f32,
    /// Added to a variance before its root.
    pub eps: f32,
    /// Batches until the bounds of the corrections are `r_max` and `d_max`.
    pub warmup: u32,
    pub r_max: f32,
    pub d_max: f32,
}

/// Where one layer lies in the parameters. The output layer has neither `scale` nor `shift`.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    pub input: usize,
    pub output: usize,
    pub weight: usize,
    pub bias: usize,
    pub scale: usize,
    pub shift: usize,
    /// Units of the layers before this one.
    pub unit: usize,
}

/// Moments of a batch, and what they are corrected by, of every unit of a net.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    pub mean: Vec<f64>,
    pub variance: Vec<f64>,
    /// `(r, d)`
    pub correction: Vec<(f64, f64)>,
}

/// A batch that went forward by the definition, with what the way back needs.
pub struct Defined {
    /// Inputs of every layer, `[layer][row][in]`.
    inputs: Vec<Vec<Vec<f64>>>,
    /// `z` and the slope of the activation of every hidden layer.
    units: Vec<Vec<Vec<(f64, f64)>>>,
    pub moments: Moments,
    /// `[row][out]`
    pub out: Vec<Vec<f64>>,
}

impl Renorm {
    /// Places of all layers, the output layer last.
    pub fn places(&self) -> impl Iterator<Item = Place> + '_ {
        let mut unit = 0;
        self.mlp.layers().map(move |y| {
            let (weight, bias) = (y.weight + 2 * unit, y.bias + 2 * unit);
            let (scale, shift) = (bias + y.output, bias + 2 * y.output);
            let place = Place { input: y.input, output: y.output, weight, bias, scale, shift, unit };
            unit += y.output;
            place
        })
    }

    /// Units of all hidden layers.
    pub fn units(&self) -> usize {
        self.mlp.hidden.iter().sum()
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.mlp.len() + 2 * self.units()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Words of the running moments.
    pub fn norm_len(&self) -> usize {
        2 * self.units()
    }

    /// Bounds `(r_max, d_max)` of the corrections after that many batches.
    pub fn bounds(&self, batches: u32) -> (f32, f32) {
        let done = if batches >= self.warmup { 1.0 } else { batches as f32 / self.warmup as f32 };
        (1.0 + done * (self.r_max - 1.0), done * self.d_max)
    }

    /// Definition: `(r, d)` of a unit with these moments in a batch.
    pub fn correction(&self, norm: &[f32], batches: u32, unit: usize, mean: f64, std: f64) -> (f64, f64) {
        let (r_max, d_max) = self.bounds(batches);
        let (r_max, d_max) = (f64::from(r_max), f64::from(d_max));
        let running = (f64::from(norm[self.units() + unit]) + f64::from(self.eps)).sqrt();
        let r = (std / running).clamp(1.0 / r_max, r_max);
        (r, ((mean - f64::from(norm[unit])) / running).clamp(-d_max, d_max))
    }

    /// Definition: a batch forward in training mode. `correct` gives `(r, d)` of a unit from its mean and deviation.
    pub fn define_forward(
        &self,
        params: &[f64],
        x: &[Vec<f64>],
        correct: impl Fn(usize, f64, f64) -> (f64, f64),
    ) -> Defined {
        let (rows, round) = (x.len() as f64, |x| self.mlp.round(x));
        let (mut inputs, mut units) = (vec![x.to_vec()], Vec::new());
        let (mut moments, mut out) = (Moments::default(), Vec::new());
        for (l, y) in self.places().enumerate() {
            let last = l == self.mlp.hidden.len();
            let weight = |i: usize, o: usize| params[y.weight + if last { o * y.input + i } else { i * y.output + o }];
            let product = |x: &Vec<f64>, i: usize, o: usize| round(x[i]) * round(weight(i, o));
            let sum = |x, o| (0..y.input).map(|i| product(x, i, o)).sum::<f64>() + params[y.bias + o];
            let sums = inputs[l].iter().map(|x| (0..y.output).map(|o| sum(x, o)).collect());
            let sums: Vec<Vec<f64>> = sums.collect();
            if last {
                out = sums;
                break;
            }
            let (mut kept, mut next) = (vec![Vec::new(); x.len()], vec![Vec::new(); x.len()]);
            for o in 0..y.output {
                let mean = sums.iter().map(|row| row[o]).sum::<f64>() / rows;
                let variance = sums.iter().map(|row| (row[o] - mean).powi(2)).sum::<f64>() / rows;
                let std = (variance + f64::from(self.eps)).sqrt();
                let (r, d) = correct(y.unit + o, mean, std);
                for (row, sums) in sums.iter().enumerate() {
                    let z = (sums[o] - mean) / std;
                    let (value, slope) =
                        self.mlp.activation.define(params[y.scale + o] * (r * z + d) + params[y.shift + o]);
                    kept[row].push((z, slope));
                    next[row].push(value);
                }
                moments.mean.push(mean);
                moments.variance.push(variance);
                moments.correction.push((r, d));
            }
            units.push(kept);
            inputs.push(next);
        }
        Defined { inputs, units, moments, out }
    }

    /// Definition: adds the gradient of a batch, given the slope of the loss at every output, rows first.
    pub fn define_backward(&self, params: &[f64], batch: &Defined, d_out: &[Vec<f64>], grad: &mut [f64]) {
        let (rows, round) = (d_out.len(), |x| self.mlp.round(x));
        let mut d = d_out.to_vec();
        for (l, y) in self.places().enumerate().collect::<Vec<_>>().into_iter().rev() {
            let last = l == self.mlp.hidden.len();
            if !last {
                for o in 0..y.output {
                    let unit = y.unit + o;
                    let (r, shift) = batch.moments.correction[unit];
                    let std = (batch.moments.variance[unit] + f64::from(self.eps)).sqrt();
                    // slopes before the activation
                    let kept = |row: usize| batch.units[l][row][o];
                    let g: Vec<f64> = (0..rows).map(|row| d[row][o] * kept(row).1).collect();
                    let sum: f64 = g.iter().sum();
                    let along: f64 = (0..rows).map(|row| g[row] * kept(row).0).sum();
                    grad[y.shift + o] += sum;
                    grad[y.scale + o] += r * along + shift * sum;
                    // every row moves the batch's mean and deviation, and they move every row
                    for row in 0..rows {
                        let left = g[row] - (sum + kept(row).0 * along) / rows as f64;
                        d[row][o] = params[y.scale + o] * r / std * left;
                    }
                }
            }
            let mut d_in = vec![vec![0.0; y.input]; rows];
            for row in 0..rows {
                for o in 0..y.output {
                    grad[y.bias + o] += d[row][o];
                    let d = round(d[row][o]);
                    for i in 0..y.input {
                        let at = y.weight + if last { o * y.input + i } else { i * y.output + o };
                        grad[at] += d * round(batch.inputs[l][row][i]);
                        d_in[row][i] += d * round(params[at]);
                    }
                }
            }
            d = d_in;
        }
    }

    /// Definition: the running moments after a batch.
    pub fn define_running(&self, norm: &mut [f32], moments: &Moments) {
        for (to, from) in norm.iter_mut().zip(moments.mean.iter().chain(&moments.variance)) {
            let old = f64::from(*to);
            *to = (old + f64::from(self.momentum) * (from - old)) as f32;
        }
    }

    /// Definition: parameters of the plain net that this one is in evaluation mode, where running moments take the place
    /// of a batch's.
    pub fn define_fold(&self, params: &[f32], norm: &[f32]) -> Vec<f32> {
        let number = |at: usize| f64::from(params[at]);
        let mut plain = Vec::with_capacity(self.mlp.len());
        for (l, y) in self.places().enumerate() {
            if l == self.mlp.hidden.len() {
                plain.extend_from_slice(&params[y.weight..y.bias + y.output]);
                break;
            }
            let running = |o: usize| (f64::from(norm[self.units() + y.unit + o]) + f64::from(self.eps)).sqrt();
            let factor = |o: usize| number(y.scale + o) / running(o);
            plain.extend((y.weight..y.bias).map(|at| (number(at) * factor((at - y.weight) % y.output)) as f32));
            plain.extend((0..y.output).map(|o| {
                let off = number(y.bias + o) - f64::from(norm[y.unit + o]);
                (off * factor(o) + number(y.shift + o)) as f32
            }));
        }
        plain
    }
}

/// Rows of sums kept per hidden layer: see [`Kept`].
const STATS: usize = 7;

/// What a hidden layer keeps of a batch between the way forward and the way back.
struct Kept<'a> {
    /// `[rows, wide]`: `z`, values after the activation, and before it where its slope needs them.
    z: &'a mut [f32],
    after: &'a mut [f32],
    before: &'a mut [f32],
    /// `[wide]`, 0 behind the last unit.
    mean: &'a mut [f32],
    inv_std: &'a mut [f32],
    /// `scale r` and `scale d + shift`: values before the activation are `gain z + base`.
    gain: &'a mut [f32],
    base: &'a mut [f32],
    r: &'a mut [f32],
    d: &'a mut [f32],
    /// `scale r / std`.
    factor: &'a mut [f32],
}

impl Renorm {
    /// Columns of the inputs of [`forward`]: `input` rounded up to 16, the rest 0.
    pub fn in_pad(&self) -> usize {
        pad(self.mlp.input)
    }

    fn before_len(&self, rows: usize, wide: usize) -> usize {
        if self.mlp.activation.needs_input() { rows * wide } else { 0 }
    }

    fn kept_len(&self, rows: usize, width: usize) -> usize {
        let wide = pad(width);
        2 * rows * wide + self.before_len(rows, wide) + STATS * wide
    }

    /// Words that [`forward`] keeps of a batch for [`backward`].
    pub fn batch_len(&self, rows: usize) -> usize {
        self.mlp.hidden.iter().map(|&width| self.kept_len(rows, width)).sum()
    }

    /// Words of scratch of [`backward`].
    pub fn slopes_len(&self, rows: usize) -> usize {
        let wide = self.mlp.hidden.iter().map(|&width| pad(width)).max().unwrap_or(0);
        2 * rows * wide + self.weights_len() + 2 * wide.max(self.mlp.out_pad()) + self.room_len(rows)
    }

    /// Words of scratch of [`forward`]: room for the operands of products, where they are rounded.
    pub fn room_len(&self, rows: usize) -> usize {
        let of = |y: Layer| {
            let (input, output) = (pad(y.input), pad(y.output));
            let (ahead, back) = (bf16::room(ROWS, 0, y.input), bf16::room(rows, 0, y.output));
            ahead.max(back).max(bf16::room(input, output, rows))
        };
        self.mlp.layers().map(of).max().filter(|_| self.mlp.precision == Precision::Bf16).unwrap_or(0)
    }

    /// Words of the largest gradient of a weight, its rows padded.
    fn weights_len(&self) -> usize {
        let last = self.mlp.hidden.len();
        let layers = self.mlp.layers().enumerate();
        let padded = layers.map(|(l, y)| if l == last { y.output * pad(y.input) } else { y.input * pad(y.output) });
        padded.max().unwrap_or(0)
    }

    fn kept<'a>(&self, batch: &'a mut [f32], rows: usize, l: usize) -> Kept<'a> {
        let start = self.mlp.hidden[..l].iter().map(|&width| self.kept_len(rows, width)).sum();
        let wide = pad(self.mlp.hidden[l]);
        let mut rest = &mut batch[start..start + self.kept_len(rows, self.mlp.hidden[l])];
        let (z, after) = (cut(&mut rest, rows * wide), cut(&mut rest, rows * wide));
        let before = cut(&mut rest, self.before_len(rows, wide));
        let mut one = || cut(&mut rest, wide);
        let (mean, inv_std, gain, base) = (one(), one(), one(), one());
        Kept { z, after, before, mean, inv_std, gain, base, r: one(), d: one(), factor: one() }
    }
}

/// Lays parameters out for [`forward`] and [`backward`], as [`mlp::pack`] does.
pub fn pack(isa: Isa, net: &Renorm, params: &[f32], packed: &mut [f32]) {
    let last = net.mlp.hidden.len();
    for (l, (layer, y)) in net.mlp.layers().zip(net.places()).enumerate() {
        let given = (&params[y.weight..y.bias], &params[y.bias..y.bias + y.output]);
        mlp::pack_layer(isa, net.mlp.precision, &layer, l == last, given, packed, true);
    }
}

/// Sends a whole batch through a packed net in training mode and moves the running moments `norm`, which have seen
/// `batches` batches. `x` holds rows of [`Renorm::in_pad`] words, `out` gets rows of `out_pad` words; `batch` keeps what
/// [`backward`] reads; `room` has [`Renorm::room_len`] words.
#[allow(clippy::too_many_arguments)] // what it reads, then what it writes
pub fn forward(
    isa: Isa,
    net: &Renorm,
    (packed, params): (&[f32], &[f32]),
    x: &[f32],
    rows: usize,
    (norm, batches): (&mut [f32], u32),
    batch: &mut [f32],
    out: &mut [f32],
    room: &mut [f32],
) {
    assert!(packed.len() >= net.mlp.packed_len() && x.len() >= rows * net.in_pad());
    assert!(batch.len() >= net.batch_len(rows) && out.len() >= rows * net.mlp.out_pad());
    assert!(params.len() == net.len() && norm.len() == net.norm_len());
    let (last, bounds) = (net.mlp.hidden.len(), net.bounds(batches));
    let (running_mean, running_var) = norm.split_at_mut(net.units());
    let mut from = Mat { start: x.as_ptr(), row: net.in_pad(), col: 1 };
    for (l, (layer, y)) in net.mlp.layers().zip(net.places()).enumerate() {
        let wide = pad(y.output);
        // SAFETY: `packed` is laid out by the same layer list
        let (weight, bias) = unsafe { (packed.as_ptr().add(layer.ahead), packed.as_ptr().add(layer.packed_bias)) };
        let mut product = |to: &mut [f32], block: usize| {
            let (size, weight) = ([to.len() / wide, wide, y.input], Right::Words(weight, wide));
            // SAFETY: `from` holds `rows` rows of at least `y.input` words; sizes were checked above
            unsafe {
                let from = Mat { start: from.start.add(block * ROWS * from.row), ..from };
                multiply(isa, net.mlp.precision, size, from, weight, (to.as_mut_ptr(), wide), Init::Bias(bias), room);
            }
        };
        if l == last {
            out[..rows * wide].chunks_mut(ROWS * wide).enumerate().for_each(|(block, out)| product(out, block));
            return;
        }
        let k = net.kept(batch, rows, l);
        k.mean.fill(0.0);
        for (block, z) in k.z.chunks_mut(ROWS * wide).enumerate() {
            product(z, block);
            add_rows(isa, z, k.mean);
        }
        let share = 1.0 / rows as f32;
        k.mean.iter_mut().for_each(|sum| *sum *= share);
        k.inv_std.fill(0.0);
        add_squares(isa, k.z, k.mean, k.inv_std);
        k.inv_std.iter_mut().for_each(|sum| *sum *= share);
        let units = y.unit..y.unit + y.output;
        let running = (&mut running_mean[units.clone()], &mut running_var[units]);
        let affine = (&params[y.scale..y.shift], &params[y.shift..y.shift + y.output]);
        correct(isa, net, bounds, running, affine, [k.mean, k.inv_std, k.gain, k.base, k.r, k.d, k.factor]);
        let mut before = k.before.chunks_mut(ROWS * wide);
        for (z, after) in k.z.chunks_mut(ROWS * wide).zip(k.after.chunks_mut(ROWS * wide)) {
            normalise(isa, z, after, k.mean, k.inv_std, k.gain, k.base);
            activate(isa, net.mlp.activation, after, before.next().unwrap_or_default());
        }
        from = Mat { start: k.after.as_ptr(), row: wide, col: 1 };
    }
}

/// Writes the gradient of a batch in the order of the parameters. `d_out` is the slope of the loss at the outputs of the
/// first `used` rows; the others have none there, but every hidden unit of theirs has one, by way of the moments.
#[allow(clippy::too_many_arguments)] // what it reads, then what it writes
pub fn backward(
    isa: Isa,
    net: &Renorm,
    packed: &[f32],
    x: &[f32],
    (rows, used): (usize, usize),
    batch: &mut [f32],
    d_out: &[f32],
    scratch: &mut [f32],
    grad: &mut [f32],
) {
    assert!(packed.len() >= net.mlp.packed_len() && x.len() >= rows * net.in_pad() && used <= rows);
    assert!(d_out.len() >= used * net.mlp.out_pad() && grad.len() == net.len());
    let last = net.mlp.hidden.len();
    let widest = net.mlp.hidden.iter().map(|&width| pad(width)).max().unwrap_or(0);
    let mut scratch = &mut scratch[..net.slopes_len(rows)];
    let (mut d, mut d_next) = (cut(&mut scratch, rows * widest), cut(&mut scratch, rows * widest));
    let (d_weight, room) = (cut(&mut scratch, net.weights_len()), cut(&mut scratch, net.room_len(rows)));
    let (sum, along) = scratch.split_at_mut(scratch.len() / 2);
    for l in (0..=last).rev() {
        let (layer, y) = net.mlp.layers().zip(net.places()).nth(l).expect("a net has this layer");
        let (wide, deep) = (pad(y.output), pad(y.input));
        let (sum, along) = (&mut sum[..wide], &mut along[..wide]);
        sum.fill(0.0);
        if l < last {
            let k = net.kept(batch, rows, l);
            // rows behind `used` have no slope at the units of the last hidden layer
            let live = wide * if l + 1 == last { used } else { rows };
            d[live..rows * wide].fill(0.0);
            let before = if k.before.is_empty() { &[][..] } else { &k.before[..live] };
            // slopes are no operands before they are centred
            slope(isa, net.mlp.activation, Precision::F32, &mut d[..live], &k.after[..live], before);
            along.fill(0.0);
            add_products(isa, &d[..live], &k.z[..live], sum, along);
            for o in 0..y.output {
                grad[y.shift + o] = sum[o];
                grad[y.scale + o] = k.r[o] * along[o] + k.d[o] * sum[o];
            }
            let share = 1.0 / rows as f32;
            sum.iter_mut().chain(along.iter_mut()).for_each(|sum| *sum *= share);
            centre(isa, &mut d[..rows * wide], k.z, k.factor, sum, along);
            // a mean takes its bias along, so the bias in front of it moves nothing
            grad[y.bias..y.bias + y.output].fill(0.0);
        } else {
            mlp::add_rows(isa, &d_out[..used * wide], sum);
            grad[y.bias..y.bias + y.output].copy_from_slice(&sum[..y.output]);
        }
        let below = if l == 0 { (x.as_ptr(), deep) } else { (net.kept(batch, rows, l - 1).after.as_ptr(), deep) };
        // SAFETY: inputs of the layer are `rows` rows of `deep` words; slopes are `rows` rows of `wide` words, of the
        // last layer `used`; `packed` is laid out by the same layer list
        unsafe {
            let (slopes, count) = if l == last { (d_out.as_ptr(), used) } else { (d.as_ptr(), rows) };
            let (left, right, [m, n]) = if l == last {
                (Mat { start: slopes, row: 1, col: wide }, Right::Numbers(below.0, below.1), [y.output, deep])
            } else {
                (Mat { start: below.0, row: 1, col: below.1 }, Right::Numbers(slopes, wide), [y.input, wide])
            };
            let (precision, to) = (net.mlp.precision, (d_weight.as_mut_ptr(), n));
            multiply(isa, precision, [m, n, count], left, right, to, Init::Zero, room);
            if l > 0 {
                let (weight, to) = (Right::Words(packed.as_ptr().add(layer.back), deep), (d_next.as_mut_ptr(), deep));
                let left = Mat { start: slopes, row: wide, col: 1 };
                multiply(isa, precision, [count, deep, y.output], left, weight, to, Init::Zero, room);
            }
        }
        let (padded, cols) = if l == last { (deep, y.input) } else { (wide, y.output) };
        for (to, from) in grad[y.weight..y.bias].chunks_exact_mut(cols).zip(d_weight.chunks_exact(padded)) {
            to.copy_from_slice(&from[..cols]);
        }
        std::mem::swap(&mut d, &mut d_next);
    }
}

/// Writes the plain net that a net is in evaluation mode; see [`Renorm::define_fold`].
pub fn fold(isa: Isa, net: &Renorm, params: &[f32], norm: &[f32], plain: &mut [f32]) {
    let last = net.mlp.hidden.len();
    for (l, (layer, y)) in net.mlp.layers().zip(net.places()).enumerate() {
        let weight = &params[y.weight..y.bias];
        let to = &mut plain[layer.weight..layer.bias + y.output];
        if l == last {
            to.copy_from_slice(&params[y.weight..y.bias + y.output]);
            return;
        }
        let (to, bias) = to.split_at_mut(weight.len());
        let units = y.unit..y.unit + y.output;
        // the bias holds the factors while the weights are written
        let variance = &norm[net.units()..][units.clone()];
        for ((factor, scale), variance) in bias.iter_mut().zip(&params[y.scale..y.shift]).zip(variance) {
            *factor = scale / (variance + net.eps).sqrt();
        }
        scale_columns(isa, weight, bias, to);
        let rest = params[y.bias..y.scale].iter().zip(&norm[units]).zip(&params[y.shift..y.shift + y.output]);
        for (bias, ((own, mean), shift)) in bias.iter_mut().zip(rest) {
            *bias = (own - mean) * *bias + shift;
        }
    }
}

crate::per_isa! {
    /// Adds rows of `sum.len()` words, four at a time.
    fn add_rows(rows: &[f32], sum: &mut [f32]) {
        let wide = sum.len();
        let mut fours = rows.chunks_exact(4 * wide);
        for four in &mut fours {
            let (front, back) = four.split_at(2 * wide);
            let ((a, b), (c, d)) = (front.split_at(wide), back.split_at(wide));
            for ((((sum, a), b), c), d) in sum.iter_mut().zip(a).zip(b).zip(c).zip(d) {
                *sum += (a + b) + (c + d);
            }
        }
        for row in fours.remainder().chunks_exact(wide) {
            sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
    }

    /// Adds the squares of the rows' distances from `mean`.
    fn add_squares(rows: &[f32], mean: &[f32], sum: &mut [f32]) {
        for row in rows.chunks_exact(sum.len()) {
            for ((sum, x), mean) in sum.iter_mut().zip(row).zip(mean) {
                *sum += (x - mean) * (x - mean);
            }
        }
    }

    /// Moves the running moments and fills [`Kept`]'s rows from `mean` on; the second holds variances when it comes.
    fn correct(
        net: &Renorm,
        bounds: (f32, f32),
        running: (&mut [f32], &mut [f32]),
        affine: (&[f32], &[f32]),
        stats: [&mut [f32]; STATS],
    ) {
        let [mean, inv_std, gain, base, r, d, factor] = stats;
        let units = running.0.len();
        for o in 0..units {
            let (batch_mean, variance) = (mean[o], inv_std[o]);
            let (old_mean, old_var) = (running.0[o], running.1[o]);
            let std = (variance + net.eps).sqrt();
            let running_std = (old_var + net.eps).sqrt();
            r[o] = trig::clamp(std / running_std, 1.0 / bounds.0, bounds.0);
            d[o] = trig::clamp((batch_mean - old_mean) / running_std, -bounds.1, bounds.1);
            inv_std[o] = 1.0 / std;
            gain[o] = affine.0[o] * r[o];
            base[o] = affine.0[o] * d[o] + affine.1[o];
            factor[o] = gain[o] * inv_std[o];
            running.0[o] = old_mean + net.momentum * (batch_mean - old_mean);
            running.1[o] = old_var + net.momentum * (variance - old_var);
        }
        for row in [mean, inv_std, gain, base, r, d, factor] {
            row[units..].fill(0.0);
        }
    }

    /// `z = (z - mean) inv_std`, `after = gain z + base`, by columns.
    fn normalise(z: &mut [f32], after: &mut [f32], mean: &[f32], inv_std: &[f32], gain: &[f32], base: &[f32]) {
        let wide = mean.len();
        for (z, after) in z.chunks_exact_mut(wide).zip(after.chunks_exact_mut(wide)) {
            let columns = mean.iter().zip(inv_std).zip(gain).zip(base);
            for ((z, after), (((mean, inv_std), gain), base)) in z.iter_mut().zip(after).zip(columns) {
                *z = (*z - mean) * inv_std;
                *after = gain * *z + base;
            }
        }
    }

    /// Adds rows of `d`, and their products with `z`.
    fn add_products(d: &[f32], z: &[f32], sum: &mut [f32], along: &mut [f32]) {
        let wide = sum.len();
        for (d, z) in d.chunks_exact(wide).zip(z.chunks_exact(wide)) {
            for (((sum, along), d), z) in sum.iter_mut().zip(along.iter_mut()).zip(d).zip(z) {
                *sum += d;
                *along += d * z;
            }
        }
    }

    /// `d = factor (d - sum - z along)`, by columns.
    fn centre(d: &mut [f32], z: &[f32], factor: &[f32], sum: &[f32], along: &[f32]) {
        let wide = sum.len();
        for (d, z) in d.chunks_exact_mut(wide).zip(z.chunks_exact(wide)) {
            for ((((d, z), factor), sum), along) in d.iter_mut().zip(z).zip(factor).zip(sum).zip(along) {
                *d = factor * (*d - sum - z * along);
            }
        }
    }

    /// `to = weight` with every column scaled.
    fn scale_columns(weight: &[f32], factor: &[f32], to: &mut [f32]) {
        for (to, row) in to.chunks_exact_mut(factor.len()).zip(weight.chunks_exact(factor.len())) {
            for ((to, x), factor) in to.iter_mut().zip(row).zip(factor) {
                *to = x * factor;
            }
        }
    }
}

#[cfg(test)]
mod tests;
