//! Recurrent bodies of nets: linear layers, then a gated cell whose state goes from step to step. The definition in f64,
//! and steps of up to 64 environments that stay in cache.
//!
//! Gates, their order and their two biases are those of PyTorch's `nn.GRU` (Cho et al. 2014) and `nn.LSTM` (Hochreiter
//! and Schmidhuber 1997). Parameters in order: the layers in front, of which the last is the cell's `weight_ih` `[G, in]`
//! and `bias_ih` `[G]`; then `weight_hh` `[G, H]` and `bias_hh` `[G]`, with G = 3 H (reset, update, new) or 4 H (input,
//! forget, cell, output).

use super::activation::{Activation, tanh};
use super::mlp::{self, Mlp, ROWS, forward, unpack_grad};
use super::nets::{PackedNet, cut};
use super::simd::{Init, Mat, Simd, gemm};
use crate::device::Precision;
use crate::device::cpu::Isa;

const LANES: usize = 16;

/// A kind of cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    Gru,
    Lstm,
}

/// Sizes of one recurrent body.
#[derive(Debug, Clone, PartialEq)]
pub struct Body {
    /// The layers before the cell; its outputs are what the gates get from the input, so the last layer is the cell's.
    pub front: Mlp,
    pub cell: Cell,
    /// Units of the cell, `H`: what the layers behind it see.
    pub hidden: usize,
}

impl Cell {
    /// The cell as PyTorch calls it.
    pub fn name(self) -> &'static str {
        match self {
            Cell::Gru => "GRU",
            Cell::Lstm => "LSTM",
        }
    }

    /// Gates of one unit.
    pub fn gates(self) -> usize {
        match self {
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }

    /// Vectors of H words that a state has: the output `h`, then the LSTM's `c`.
    fn parts(self) -> usize {
        match self {
            Cell::Gru => 1,
            Cell::Lstm => 2,
        }
    }
}

/// What the way back needs of one step of the definition.
pub struct Trace {
    front: (Vec<Vec<f64>>, Vec<Vec<f64>>),
    before: Vec<f64>,
    /// What every gate lets through, `[G]`.
    gates: Vec<f64>,
    /// What the gates got from the state, `[G]`.
    recurrent: Vec<f64>,
    /// The state after the step: `h`, then the LSTM's `c`.
    pub state: Vec<f64>,
}

impl Body {
    /// A body on observations of `input` words.
    pub fn new(input: usize, layers: &[usize], activation: Activation, cell: Cell, hidden: usize) -> Body {
        let front = Mlp {
            input,
            hidden: layers.to_vec(),
            activation,
            output: cell.gates() * hidden,
            precision: Precision::F32,
        };
        Body { front, cell, hidden }
    }

    /// Rows of the cell's matrices, `G`.
    pub fn rows(&self) -> usize {
        self.front.output
    }

    /// Offset of `weight_hh`; `bias_hh` lies behind its `G H` words.
    pub fn recurrent_at(&self) -> usize {
        self.front.len()
    }

    /// Number of parameters.
    pub fn len(&self) -> usize {
        self.front.len() + self.rows() * (self.hidden + 1)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Multiply-adds of one row forward.
    pub fn madds(&self) -> usize {
        self.front.madds() + self.rows() * self.hidden
    }

    /// Words of one environment's state.
    pub fn state_len(&self) -> usize {
        self.cell.parts() * self.hidden
    }

    /// Padded words of the gates of one row.
    pub fn gates_pad(&self) -> usize {
        self.front.out_pad()
    }

    /// Padded words of `h`, and of `c`.
    pub fn h_pad(&self) -> usize {
        self.hidden.next_multiple_of(LANES)
    }

    /// Padded words of one row's state.
    pub fn state_pad(&self) -> usize {
        self.cell.parts() * self.h_pad()
    }

    /// Definition: one step of one environment from the state `before`.
    pub fn define(&self, params: &[f64], x: &[f64], before: &[f64]) -> Trace {
        let (h, recurrent_at) = (self.hidden, self.recurrent_at());
        let (weight, bias) = params[recurrent_at..self.len()].split_at(self.rows() * h);
        let front = self.front.define_forward(params, x);
        let input = front.0.last().expect("a net has an output layer");
        let product = |g: usize| weight[g * h..][..h].iter().zip(before).map(|(w, x)| w * x).sum::<f64>();
        let recurrent: Vec<f64> = (0..self.rows()).map(|g| product(g) + bias[g]).collect();
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let both = |g: usize| input[g] + recurrent[g];
        let (mut gates, mut state) = (vec![0.0; self.rows()], vec![0.0; self.state_len()]);
        for j in 0..h {
            match self.cell {
                Cell::Gru => {
                    let (reset, update) = (sigmoid(both(j)), sigmoid(both(h + j)));
                    let new = (input[2 * h + j] + reset * recurrent[2 * h + j]).tanh();
                    state[j] = (1.0 - update) * new + update * before[j];
                    (gates[j], gates[h + j], gates[2 * h + j]) = (reset, update, new);
                }
                Cell::Lstm => {
                    let (open, keep, out) = (sigmoid(both(j)), sigmoid(both(h + j)), sigmoid(both(3 * h + j)));
                    let new = both(2 * h + j).tanh();
                    state[h + j] = keep * before[h + j] + open * new;
                    state[j] = out * state[h + j].tanh();
                    (gates[j], gates[h + j], gates[2 * h + j], gates[3 * h + j]) = (open, keep, new, out);
                }
            }
        }
        Trace { front, before: before.to_vec(), gates, recurrent, state }
    }

    /// Definition: adds the gradient of one step, given the slope of the loss at the state after it; returns the slope at the
    /// state before it.
    pub fn define_backward(&self, params: &[f64], step: &Trace, d_state: &[f64], grad: &mut [f64]) -> Vec<f64> {
        let (h, at) = (self.hidden, self.recurrent_at());
        let (gates, before) = (&step.gates, &step.before);
        // slopes at what the gates get from the input, and from the state
        let (mut d_input, mut d_recurrent) = (vec![0.0; self.rows()], vec![0.0; self.rows()]);
        let mut d_before = vec![0.0; self.state_len()];
        let at_sigmoid = |gate: f64| gate * (1.0 - gate);
        for j in 0..h {
            match self.cell {
                Cell::Gru => {
                    let (reset, update, new) = (gates[j], gates[h + j], gates[2 * h + j]);
                    let d_new = d_state[j] * (1.0 - update) * (1.0 - new * new);
                    d_input[j] = d_new * step.recurrent[2 * h + j] * at_sigmoid(reset);
                    d_input[h + j] = d_state[j] * (before[j] - new) * at_sigmoid(update);
                    d_input[2 * h + j] = d_new;
                    (d_recurrent[j], d_recurrent[h + j]) = (d_input[j], d_input[h + j]);
                    d_recurrent[2 * h + j] = d_new * reset;
                    d_before[j] = d_state[j] * update;
                }
                Cell::Lstm => {
                    let (open, keep, new, out) = (gates[j], gates[h + j], gates[2 * h + j], gates[3 * h + j]);
                    let squashed = step.state[h + j].tanh();
                    let d_c = d_state[h + j] + d_state[j] * out * (1.0 - squashed * squashed);
                    d_input[j] = d_c * new * at_sigmoid(open);
                    d_input[h + j] = d_c * before[h + j] * at_sigmoid(keep);
                    d_input[2 * h + j] = d_c * open * (1.0 - new * new);
                    d_input[3 * h + j] = d_state[j] * squashed * at_sigmoid(out);
                    d_before[h + j] = d_c * keep;
                    (0..4).for_each(|gate| d_recurrent[gate * h + j] = d_input[gate * h + j]);
                }
            }
        }
        for (g, &d) in d_recurrent.iter().enumerate() {
            grad[at + self.rows() * h + g] += d;
            for j in 0..h {
                grad[at + g * h + j] += d * before[j];
                d_before[j] += d * params[at + g * h + j];
            }
        }
        self.front.define_backward(params, &step.front, &d_input, grad);
        d_before
    }

    /// Scratch words of a [`PackedBody`].
    pub fn packed_len(&self) -> usize {
        let matrices = self.hidden * self.gates_pad() + self.gates_pad() + self.rows() * self.h_pad();
        self.front.packed_len() + self.front.acts_len() + ROWS * self.front.out_pad() + matrices
    }

    /// Words of a packed gradient.
    pub fn packed_grad_len(&self) -> usize {
        self.front.packed_grad_len() + self.rows() * self.h_pad() + self.gates_pad()
    }
}

/// A body in scratch: packed parameters, and the activations of up to [`ROWS`] rows of the layers in front.
pub struct PackedBody<'a> {
    pub front: PackedNet<'a>,
    /// `weight_hh` for the way forward `[H, G]`, its bias, and `weight_hh` for the way back `[G, H]`; rows padded.
    ahead: &'a [f32],
    bias: &'a [f32],
    back: &'a [f32],
}

impl<'a> PackedBody<'a> {
    /// Lays the parameters of a body out in `scratch`.
    #[inline(always)]
    pub fn new(isa: Isa, body: &Body, params: &[f32], scratch: &mut &'a mut [f32]) -> PackedBody<'a> {
        let (h, rows, gates_pad, h_pad) = (body.hidden, body.rows(), body.gates_pad(), body.h_pad());
        let packed = cut(scratch, body.front.packed_len());
        mlp::pack(isa, &body.front, params, packed);
        let (acts, out) = (cut(scratch, body.front.acts_len()), cut(scratch, ROWS * gates_pad));
        let (ahead, bias) = (cut(scratch, h * gates_pad), cut(scratch, gates_pad));
        let back = cut(scratch, rows * h_pad);
        let (weight, given) = params[body.recurrent_at()..].split_at(rows * h);
        bias.fill(0.0);
        bias[..rows].copy_from_slice(&given[..rows]);
        for (j, to) in ahead.chunks_exact_mut(gates_pad).enumerate() {
            to[..rows].iter_mut().enumerate().for_each(|(g, to)| *to = weight[g * h + j]);
            to[rows..].fill(0.0);
        }
        for (to, from) in back.chunks_exact_mut(h_pad).zip(weight.chunks_exact(h)) {
            to[..h].copy_from_slice(from);
            to[h..].fill(0.0);
        }
        PackedBody { front: PackedNet { packed, acts, out }, ahead, bias, back }
    }

    /// What the gates of `rows` rows get from their inputs, rows of [`Body::gates_pad`] words in `gates`; `x` as in
    /// [`forward`].
    pub fn see(&mut self, isa: Isa, body: &Body, x: (&[f32], usize), rows: usize, gates: &mut [f32]) {
        forward(isa, &body.front, self.front.packed, x, rows, self.front.acts, gates);
    }

    /// One step of `rows` environments from the states `before` to the states `after`, rows of [`Body::state_pad`] words.
    /// `gates` holds what [`PackedBody::see`] wrote, and then what the gates let through; `recurrent` gets what they had from
    /// the state, which the GRU's way back reads.
    #[allow(clippy::too_many_arguments)] // what it reads, then what it writes
    pub fn step(
        &self,
        isa: Isa,
        body: &Body,
        rows: usize,
        before: &[f32],
        gates: &mut [f32],
        recurrent: &mut [f32],
        after: &mut [f32],
    ) {
        let (state, wide) = (body.state_pad(), body.gates_pad());
        assert!(before.len() >= rows * state && after.len() >= rows * state);
        assert!(gates.len() >= rows * wide && recurrent.len() >= rows * wide);
        let left = Mat { start: before.as_ptr(), row: state, col: 1 };
        let bias = Init::Bias(self.bias.as_ptr());
        // SAFETY: sizes were checked above, and the matrices are packed by these very sizes
        unsafe {
            let (weight, out) = ((self.ahead.as_ptr(), wide), (recurrent.as_mut_ptr(), wide));
            gemm(isa, [rows, wide, body.hidden], left, weight, out, bias);
        }
        open_gates(isa, body, rows, before, gates, recurrent, after);
    }

    /// The way back through [`PackedBody::step`]: `d_state` goes from the slopes at the states after it to those before it;
    /// `gates` and `recurrent` become the slopes at what the gates got from the inputs and from the states (the LSTM's are
    /// the same, and stand in `gates`).
    #[allow(clippy::too_many_arguments)] // what it reads, then what it writes
    pub fn step_back(
        &self,
        isa: Isa,
        body: &Body,
        rows: usize,
        before: &[f32],
        gates: &mut [f32],
        recurrent: &mut [f32],
        d_state: &mut [f32],
    ) {
        let (state, wide) = (body.state_pad(), body.gates_pad());
        assert!(before.len() >= rows * state && d_state.len() >= rows * state && gates.len() >= rows * wide);
        close_gates(isa, body, rows, before, gates, recurrent, d_state);
        let d = if body.cell == Cell::Gru { &*recurrent } else { &*gates };
        assert!(d.len() >= rows * wide);
        let left = Mat { start: d.as_ptr(), row: wide, col: 1 };
        // SAFETY: as in `step`
        unsafe {
            let (weight, out) = ((self.back.as_ptr(), body.h_pad()), (d_state.as_mut_ptr(), state));
            gemm(isa, [rows, body.h_pad(), body.rows()], left, weight, out, Init::Add);
        }
    }

    /// Adds the gradient of `rows <= ROWS` rows, whose slopes [`PackedBody::step_back`] has left in `gates` and `recurrent`.
    /// The activations of the layers in front are computed again; `slopes` is scratch.
    #[allow(clippy::too_many_arguments)] // what it reads, then what it writes
    pub fn gradient(
        &mut self,
        isa: Isa,
        body: &Body,
        x: (&[f32], usize),
        rows: usize,
        before: &[f32],
        gates: &[f32],
        recurrent: &[f32],
        slopes: &mut [f32],
        grad: &mut [f32],
    ) {
        let front = &mut self.front;
        forward(isa, &body.front, front.packed, x, rows, front.acts, front.out);
        mlp::backward(isa, &body.front, front.packed, x, rows, front.acts, gates, slopes, grad);
        let d = if body.cell == Cell::Gru { recurrent } else { gates };
        let grad = &mut grad[body.front.packed_grad_len()..];
        add_gradient(isa, [body.hidden, body.rows()], (before, body.state_pad()), rows, d, grad);
    }
}

/// Adds the gradient of a linear layer of `[in, out]` units: to its weight `[out, in]`, rows padded, and to the bias behind
/// it. Rows of `x` and of the slopes `d` are padded.
pub fn add_gradient(isa: Isa, size: [usize; 2], x: (&[f32], usize), rows: usize, d: &[f32], grad: &mut [f32]) {
    let [deep, wide] = size.map(|n| n.next_multiple_of(LANES));
    assert!(rows == 0 || x.0.len() >= (rows - 1) * x.1 + deep && d.len() >= rows * wide);
    let (weight, bias) = grad.split_at_mut(size[1] * deep);
    let left = Mat { start: d.as_ptr(), row: 1, col: wide };
    // SAFETY: sizes were checked above
    unsafe { gemm(isa, [size[1], deep, rows], left, (x.0.as_ptr(), x.1), (weight.as_mut_ptr(), deep), Init::Add) };
    for d in d[..rows * wide].chunks_exact(wide) {
        bias[..size[1]].iter_mut().zip(d).for_each(|(sum, d)| *sum += d);
    }
}

/// The slopes at the inputs of a packed net of one layer, `rows` rows of `d_x.1` words, given those at its outputs.
pub fn slopes_below(isa: Isa, head: &Mlp, packed: &[f32], rows: usize, d: &[f32], d_x: (&mut [f32], usize)) {
    assert!(head.hidden.is_empty() && packed.len() >= head.packed_len(), "a head has one layer");
    let (wide, deep) = (head.out_pad(), head.input.next_multiple_of(LANES));
    assert!(d.len() >= rows * wide && (rows == 0 || d_x.0.len() >= (rows - 1) * d_x.1 + deep));
    let back = &packed[head.packed_len() - head.output * deep..];
    let left = Mat { start: d.as_ptr(), row: wide, col: 1 };
    // SAFETY: sizes were checked above; the matrix for the way back is the last that is packed
    unsafe {
        gemm(isa, [rows, deep, head.output], left, (back.as_ptr(), deep), (d_x.0.as_mut_ptr(), d_x.1), Init::Zero);
    }
}

/// Writes a packed gradient of a body in the order of its parameters.
pub fn unpack_body(body: &Body, packed: &[f32], grad: &mut [f32]) {
    unpack_grad(&body.front, packed, grad);
    let (h, rows) = (body.hidden, body.rows());
    let (weight, bias) = packed[body.front.packed_grad_len()..].split_at(rows * body.h_pad());
    let grad = &mut grad[body.recurrent_at()..body.len()];
    for (to, from) in grad.chunks_exact_mut(h).zip(weight.chunks_exact(body.h_pad())) {
        to.copy_from_slice(&from[..h]);
    }
    grad[rows * h..].copy_from_slice(&bias[..rows]);
}

crate::per_simd! {
    /// The functions of the gates, and the states that they let through.
    fn open_gates(body: &Body, rows: usize, before: &[f32], gates: &mut [f32], recurrent: &[f32], after: &mut [f32])
        = open_body;
}

crate::per_simd! {
    /// The way back through [`open_gates`]; the part of the slope that goes through `weight_hh` is not in `d_state` yet.
    fn close_gates(body: &Body, rows: usize, before: &[f32], gates: &mut [f32], recurrent: &mut [f32], d_state: &mut [f32])
        = close_body;
}

#[inline(always)]
fn sigmoid<I: Simd>(x: f32) -> f32 {
    I::fma(0.5, tanh::<I>(0.5 * x), 0.5)
}

/// The parts of one row: `N` slices of `h` words, `stride` words apart.
#[inline(always)]
fn parts<const N: usize>(row: &[f32], stride: usize, h: usize) -> [&[f32]; N] {
    std::array::from_fn(|i| &row[i * stride..][..h])
}

/// As [`parts`], to write.
#[inline(always)]
fn parts_mut<const N: usize>(mut row: &mut [f32], stride: usize, h: usize) -> [&mut [f32]; N] {
    std::array::from_fn(|i| {
        let whole = std::mem::take(&mut row);
        let (part, rest) = whole.split_at_mut(if i + 1 < N { stride } else { h });
        row = rest;
        &mut part[..h]
    })
}

#[inline(always)]
fn open_body<I: Simd>(
    body: &Body,
    rows: usize,
    before: &[f32],
    gates: &mut [f32],
    recurrent: &[f32],
    after: &mut [f32],
) {
    let (h, h_pad, state, wide) = (body.hidden, body.h_pad(), body.state_pad(), body.gates_pad());
    for r in 0..rows {
        let (before, after) = (&before[r * state..][..state], &mut after[r * state..][..state]);
        let (gates, recurrent) = (&mut gates[r * wide..][..wide], &recurrent[r * wide..][..wide]);
        match body.cell {
            Cell::Gru => {
                let [reset, update, new] = parts_mut(gates, h, h);
                let [reset_h, update_h, new_h] = parts(recurrent, h, h);
                let ([old], [out]) = (parts(before, h_pad, h), parts_mut(after, h_pad, h));
                for j in 0..h {
                    let opened = sigmoid::<I>(reset[j] + reset_h[j]);
                    let kept = sigmoid::<I>(update[j] + update_h[j]);
                    let fresh = tanh::<I>(I::fma(opened, new_h[j], new[j]));
                    (reset[j], update[j], new[j]) = (opened, kept, fresh);
                    out[j] = I::fma(kept, old[j] - fresh, fresh);
                }
            }
            Cell::Lstm => {
                let [open, keep, new, out] = parts_mut(gates, h, h);
                let [open_h, keep_h, new_h, out_h] = parts(recurrent, h, h);
                let ([_, c], [h_after, c_after]) = (parts(before, h_pad, h), parts_mut(after, h_pad, h));
                for j in 0..h {
                    let opened = sigmoid::<I>(open[j] + open_h[j]);
                    let kept = sigmoid::<I>(keep[j] + keep_h[j]);
                    let fresh = tanh::<I>(new[j] + new_h[j]);
                    let shown = sigmoid::<I>(out[j] + out_h[j]);
                    (open[j], keep[j], new[j], out[j]) = (opened, kept, fresh, shown);
                    c_after[j] = I::fma(kept, c[j], opened * fresh);
                    h_after[j] = shown * tanh::<I>(c_after[j]);
                }
            }
        }
    }
}

#[inline(always)]
fn close_body<I: Simd>(
    body: &Body,
    rows: usize,
    before: &[f32],
    gates: &mut [f32],
    recurrent: &mut [f32],
    d_state: &mut [f32],
) {
    let (h, h_pad, state, wide) = (body.hidden, body.h_pad(), body.state_pad(), body.gates_pad());
    for r in 0..rows {
        let (before, d_state) = (&before[r * state..][..state], &mut d_state[r * state..][..state]);
        let gates = &mut gates[r * wide..][..wide];
        match body.cell {
            Cell::Gru => {
                let [reset, update, new] = parts_mut(gates, h, h);
                let [reset_h, update_h, new_h] = parts_mut(&mut recurrent[r * wide..][..wide], h, h);
                let ([old], [d]) = (parts(before, h_pad, h), parts_mut(d_state, h_pad, h));
                for j in 0..h {
                    let (opened, kept, fresh) = (reset[j], update[j], new[j]);
                    let d_new = d[j] * (1.0 - kept) * (1.0 - fresh * fresh);
                    let d_reset = d_new * new_h[j] * (opened * (1.0 - opened));
                    let d_update = d[j] * (old[j] - fresh) * (kept * (1.0 - kept));
                    (reset[j], update[j], new[j]) = (d_reset, d_update, d_new);
                    (reset_h[j], update_h[j], new_h[j]) = (d_reset, d_update, d_new * opened);
                    d[j] *= kept;
                }
            }
            Cell::Lstm => {
                let [open, keep, new, out] = parts_mut(gates, h, h);
                let ([_, c], [d, d_c]) = (parts(before, h_pad, h), parts_mut(d_state, h_pad, h));
                for j in 0..h {
                    let (opened, kept, fresh, shown) = (open[j], keep[j], new[j], out[j]);
                    let squashed = tanh::<I>(I::fma(kept, c[j], opened * fresh));
                    let d_cell = d_c[j] + d[j] * shown * (1.0 - squashed * squashed);
                    open[j] = d_cell * fresh * (opened * (1.0 - opened));
                    keep[j] = d_cell * c[j] * (kept * (1.0 - kept));
                    new[j] = d_cell * opened * (1.0 - fresh * fresh);
                    out[j] = d[j] * squashed * (shown * (1.0 - shown));
                    (d[j], d_c[j]) = (0.0, d_cell * kept);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Exact numbers in a pattern.
    fn pattern(len: usize, seed: usize) -> Vec<f64> {
        (0..len).map(|i| ((i * 37 + seed * 11) % 23) as f64 / 16.0 - 11.0 / 16.0).collect()
    }

    /// Four steps of two units on three inputs, as ONNX Runtime 1.31 computes them (its GRU with `linear_before_reset`, its
    /// gates put into PyTorch's order).
    #[test]
    fn cells_are_those_that_others_run() {
        let gru = [
            [0.213_466_167, 0.188_856_632],
            [0.392_453_521, 0.525_482_655],
            [0.449_669_003, 0.671_188_414],
            [0.317_999_393, 0.443_293_810],
        ];
        let lstm = [
            [-0.072_451_323, 0.288_375_169],
            [0.105_676_152, 0.156_396_508],
            [0.146_166_846, 0.149_601_787],
            [0.186_585_426, 0.148_984_551],
        ];
        for (cell, expected) in [(Cell::Gru, gru), (Cell::Lstm, lstm)] {
            let body = Body::new(3, &[], Activation::Identity, cell, 2);
            let rows = body.rows();
            let [weight_ih, weight_hh] = [pattern(rows * 3, 2), pattern(rows * 2, 3)];
            let params = [weight_ih, pattern(rows, 4), weight_hh, pattern(rows, 5)].concat();
            let (x, mut state) = (pattern(12, 1), [pattern(2, 6), pattern(2, 7)].concat());
            state.truncate(body.state_len());
            for (x, expected) in x.chunks(3).zip(expected) {
                state = body.define(&params, x, &state).state;
                for (h, expected) in state.iter().zip(expected) {
                    assert!((h - expected).abs() < 1e-6, "{cell:?}: {state:?} for {expected:?}");
                }
            }
        }
    }
}
