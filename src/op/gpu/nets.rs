//! Shared memory of nets that fit one block: the sizes that `kernels/lib/mlp.cuh` and `mlp_bf16.cuh` lay out.

use crate::op::lib::mlp::Mlp;

/// Most units of a hidden layer.
pub const WIDTH: usize = 64;
/// Words from row to row of weights and activations: 4 more than a multiple of the 32 banks.
pub const STRIDE: usize = 68;
/// The same of numbers of 16 bits: an odd number of pieces of 16 bytes.
pub const HALF_STRIDE: usize = 72;

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

/// Words from row to row of a matrix of 16-bit numbers: whole sixteens of columns in an odd number of 16-byte pieces.
pub fn half_row(columns: usize) -> usize {
    4 * ((2 * columns.div_ceil(16)) | 1)
}

/// Words of a net's parameters with weights of 16 bits.
pub fn half_words(mlp: &Mlp) -> usize {
    let (last, pad16) = (mlp.hidden.len(), |words: usize| words.next_multiple_of(16));
    let layer = |(l, &(input, output, ..)): (usize, &(usize, usize, usize, usize))| match l {
        _ if l == last => pad16(output) * if last == 0 { half_row(input) } else { HALF_STRIDE / 2 } + pad16(output),
        0 => pad16(input) * HALF_STRIDE / 2 + WIDTH,
        _ => WIDTH * HALF_STRIDE / 2 + WIDTH,
    };
    mlp.offsets().iter().enumerate().map(layer).sum()
}

/// Words of the activations of that many rows in 16 bits, and of their slopes.
pub fn half_acts(mlp: &Mlp, rows: usize) -> usize {
    mlp.hidden.len() * rows * (HALF_STRIDE / 2 + WIDTH / 2)
}
