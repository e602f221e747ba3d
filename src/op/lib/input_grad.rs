//! The way back through a net to its inputs, without gradients of its parameters: how a critic tells an actor where to go.

use super::activation::slope;
use super::bf16::Right;
use super::mlp::{Mlp, ROWS, multiply, pad};
use super::simd::{Init, Mat};
use crate::device::cpu::Isa;

/// Definition: slopes at the inputs of one row, given those at the outputs and those of the hidden units' activations.
pub fn define_input_slopes(mlp: &Mlp, params: &[f64], hidden: &[Vec<f64>], d_out: &[f64]) -> Vec<f64> {
    let (round, mut d) = (|x| mlp.round(x), d_out.to_vec());
    for (l, (input, output, weight, _)) in mlp.offsets().into_iter().enumerate().rev() {
        let at = |i: usize, o: usize| weight + if l == hidden.len() { o * input + i } else { i * output + o };
        let sum = |i: usize| (0..output).map(|o| round(d[o]) * round(params[at(i, o)])).sum::<f64>();
        d = (0..input).map(|i| if l > 0 { round(sum(i) * hidden[l - 1][i]) } else { sum(i) }).collect();
    }
    d
}

/// Where the columns begin that [`backward_input`] writes, if input `from` is the first one wanted.
pub const fn first_column(from: usize) -> usize {
    from / pad(1) * pad(1)
}

/// Words of a row that [`backward_input`] writes.
pub fn input_row(mlp: &Mlp, from: usize) -> usize {
    pad(mlp.input) - first_column(from)
}

/// Slopes at the inputs of `rows <= ROWS` rows that have just gone forward through a net packed both ways. `d_out` is the
/// slope at the outputs, rows of `mlp.out_pad()` words; `slopes` is scratch of `mlp.slopes_len()` words. `d_x` gets rows
/// of [`input_row`] words: the slopes of the inputs from [`first_column`] on.
#[allow(clippy::too_many_arguments)] // what it reads, then what it writes
pub fn backward_input(
    isa: Isa,
    mlp: &Mlp,
    packed: &[f32],
    rows: usize,
    acts: &[f32],
    d_out: &[f32],
    from: usize,
    slopes: &mut [f32],
    d_x: &mut [f32],
) {
    let row = input_row(mlp, from);
    assert!(rows <= ROWS && from < mlp.input && packed.len() >= mlp.packed_len() && acts.len() >= mlp.acts_len());
    assert!(d_out.len() >= rows * mlp.out_pad() && slopes.len() >= mlp.slopes_len() && d_x.len() >= rows * row);
    let (mut d_here, slopes) = slopes.split_at_mut(mlp.slope_len());
    let (mut d_next, room) = slopes.split_at_mut(mlp.slope_len());
    let mut d = d_out.as_ptr();
    let mut acts_end = mlp.units_len();
    let mut layers = [None; 16];
    assert!(mlp.hidden.len() < layers.len(), "a net has at most 15 hidden layers");
    mlp.layers().enumerate().for_each(|(l, layer)| layers[l] = Some(layer));
    for l in (0..=mlp.hidden.len()).rev() {
        let y = layers[l].expect("filled above");
        let (wide, deep) = (pad(y.output), pad(y.input));
        let left = Mat { start: d, row: wide, col: 1 };
        // SAFETY: sizes were checked above; offsets follow the same layer list
        unsafe {
            let weight = packed.as_ptr().add(y.back);
            if l == 0 {
                let (size, weight) = ([rows, row, y.output], Right::Words(weight.add(first_column(from)), deep));
                multiply(isa, mlp.precision, size, left, weight, (d_x.as_mut_ptr(), row), Init::Zero, room);
                return;
            }
            let (size, weight) = ([rows, deep, y.output], Right::Words(weight, deep));
            multiply(isa, mlp.precision, size, left, weight, (d_here.as_mut_ptr(), deep), Init::Zero, room);
        }
        acts_end -= 2 * ROWS * deep;
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
