//! Shared memory of nets that fit one block: the sizes that `kernels/lib/mlp.cuh` lays out.

use crate::op::lib::mlp::Mlp;

/// Most units of a hidden layer.
pub const WIDTH: usize = 64;
/// Words from row to row of weights and activations: 4 more than a multiple of the 32 banks.
pub const STRIDE: usize = 68;

/// Words from row to row of a narrow matrix: whole quads, an odd number of them.
pub fn narrow_row(words: usize) -> usize {
    4 * (words.div_ceil(4) | 1)
}

/// The next multiple of four.
pub fn pad4(words: usize) -> usize {
    words.next_multiple_of(4)
}

/// Whether every hidden layer is narrow enough for a lane's share of outputs.
pub fn narrow(mlp: &Mlp) -> bool {
    mlp.hidden.iter().all(|&units| units <= WIDTH)
}

/// Words of a net's parameters.
pub fn net_words(mlp: &Mlp) -> usize {
    let last = mlp.hidden.len();
    let layer = |(l, &(input, output, ..)): (usize, &(usize, usize, usize, usize))| match l {
        _ if l == last => pad4(output) * if last == 0 { narrow_row(mlp.input) } else { STRIDE } + pad4(output),
        0 => (pad4(input) + 1) * STRIDE,
        _ => (WIDTH + 1) * STRIDE,
    };
    mlp.offsets().iter().enumerate().map(layer).sum()
}

/// Words of the activations of that many rows; `keep`: those before the activation as well, where slopes need them.
pub fn acts_words(mlp: &Mlp, rows: usize, keep: bool) -> usize {
    mlp.hidden.len() * rows * STRIDE * if keep && mlp.activation.needs_input() { 2 } else { 1 }
}
