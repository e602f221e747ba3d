//! What the launches of Soft Actor-Critic's gradients share: the sizes that `kernels/lib/soft.cuh` lays out. Their nets go
//! layer by layer through scratch whatever their width, since those of the field are 256 units wide.

use super::net;
use super::nets::{STRIDE, WIDTH, pad4};
use crate::device::{Field, Kernel};
use crate::op::lib::mlp::Mlp;
use crate::op::lib::renorm::Renorm;

/// Lanes of a block that makes a tile; of one that has the moments of so many columns.
const LANES: usize = 128;
const COLUMN_LANES: usize = 256;
pub const COLUMNS: usize = 32;
/// Words of the operands of a product.
pub const TWO_TILES: usize = 2 * WIDTH * STRIDE;

/// Blocks of a batch's rows.
pub fn blocks(batch: usize) -> usize {
    batch.div_ceil(WIDTH)
}

/// Words per row of a net's matrices: activations, where they are kept those before the activation that slopes need, and
/// outputs.
pub fn matrix_words(net: &Mlp, kept: bool) -> usize {
    let units: usize = net.hidden.iter().map(|&units| pad4(units)).sum();
    units * (1 + usize::from(kept && net.activation.needs_input())) + pad4(net.output)
}

/// Words of a block that computes a net's outputs: the outputs, a tile of activations, weights.
pub fn head_words(net: &Mlp) -> usize {
    let outputs = pad4(net.output);
    WIDTH * (outputs + STRIDE) + outputs * (STRIDE + 1)
}

/// Tiles of 64 columns that the widest of these has.
pub fn across(columns: impl IntoIterator<Item = usize>) -> usize {
    columns.into_iter().map(|columns| columns.div_ceil(WIDTH)).max().unwrap_or(0)
}

/// `struct Net` of a normalized net, whose layers have scales and shifts behind their biases.
pub fn renorm(name: &'static str, of: &Renorm) -> Field {
    let mut field = net(name, Some(&of.mlp));
    field.words[2] = of.len() as u32;
    for (layer, place) in field.words[3..].chunks_exact_mut(4).zip(of.places()) {
        (layer[2], layer[3]) = (place.weight as u32, place.bias as u32);
    }
    field
}

/// Launches of one op, in order.
pub struct Launches<S> {
    /// What the op is called.
    pub op: &'static str,
    /// Words of the shape struct, from the words of one launch.
    pub shape: S,
    pub all: Vec<Kernel>,
}

impl<S: Fn(bool, usize) -> Vec<Field>> Launches<S> {
    /// One more; `second` and `layer` are the words that differ between launches.
    pub fn add(&mut self, entry: &str, tiles: usize, parts: usize, shared_words: usize, second: bool, layer: usize) {
        self.all.push(Kernel {
            entry: format!("{}_{entry}", self.op),
            tiles: tiles as u32,
            parts: parts as u32,
            threads: match entry {
                "normalize" | "centre" => COLUMN_LANES,
                // a lane per row
                "losses" if shared_words == 0 => WIDTH,
                _ => LANES,
            } as u32,
            shared_bytes: 4 * shared_words as u32,
            shape: (self.shape)(second, layer),
        });
    }

    /// The gradient of a net's weights and the slopes below, from its last layer on.
    pub fn back(&mut self, net: &Mlp, tiles: usize, blocks: usize, parts: usize) {
        for (l, &(input, output, ..)) in net.offsets().iter().enumerate().rev() {
            let weights = input.div_ceil(WIDTH) * output.div_ceil(WIDTH);
            self.add("weights", tiles * weights, parts, TWO_TILES, false, l);
            if l > 0 {
                self.add("backward", blocks * input.div_ceil(WIDTH), parts, TWO_TILES, false, l);
            }
        }
    }
}
