//! How ops are launched on a gpu: grids, blocks, shared memory, and the words of their shape structs. One file per op;
//! the kernels themselves are `kernels/<op>.cu`.

pub mod actor_grad;
pub mod advantage;
pub mod critic_grad;
pub mod crossq_grad;
pub mod episode_returns;
pub mod fold;
pub mod imitate;
pub mod log;
pub mod minibatch_grad;
pub mod nets;
pub mod obs_moments;
pub mod optimize;
pub mod prioritize;
mod recurrent;
pub mod recurrent_rollout;
pub mod rollout;
pub mod sample;
pub mod schedule;
pub mod sequence_grad;
pub mod sequence_order;
pub mod sequence_td_grad;
pub mod shuffle;
mod soft;
pub mod target;
pub mod td_grad;

pub use soft::renorm;

use super::lib::activation::Activation;
use super::lib::mlp::Mlp;
use super::lib::policy::Policy;
use super::lib::tree;
use crate::device::Field;

/// Most layers of a net, the output layer included.
pub const LAYERS: usize = 16;

/// Codes of choices in shape structs.
pub const CATEGORICAL: u32 = 0;
pub const GAUSSIAN: u32 = 1;
pub const MSE: u32 = 0;
pub const SMOOTH_L1: u32 = 1;

/// Dynamic shared memory that a block may have: what every GPU since compute capability 8.0 allows.
pub const SHARED_BYTES: usize = 99 << 10;

/// The code of an activation.
pub fn activation(kind: Activation) -> u32 {
    Activation::ALL.iter().position(|&a| a == kind).expect("every activation is in the list") as u32
}

/// Its name in a kernel.
pub fn activation_name(kind: Activation) -> &'static str {
    match kind {
        Activation::Tanh => "TANH",
        Activation::Relu => "RELU",
        Activation::LeakyRelu => "LEAKY_RELU",
        Activation::Elu => "ELU",
        Activation::Selu => "SELU",
        Activation::Gelu => "GELU",
        Activation::Silu => "SILU",
        Activation::Sigmoid => "SIGMOID",
        Activation::Identity => "IDENTITY",
    }
}

/// A member of one word.
pub fn word(name: &'static str, x: usize) -> Field {
    Field { name, words: vec![u32::try_from(x).expect("sizes of a plan are 32-bit words")] }
}

/// A choice, 1 or 0.
pub fn flag(name: &'static str, on: bool) -> Field {
    Field { name, words: vec![u32::from(on)] }
}

/// A number.
pub fn number(name: &'static str, x: f32) -> Field {
    Field { name, words: vec![x.to_bits()] }
}

/// `struct Net`: number of layers, activation, parameters, then `{input, output, weight, bias}` of every layer, offsets
/// counted from the net's first parameter. A net that is not there has no layers.
pub fn net(name: &'static str, mlp: Option<&Mlp>) -> Field {
    let mut words = vec![0; 3 + 4 * LAYERS];
    if let Some(mlp) = mlp {
        let layers = mlp.offsets();
        (words[0], words[1], words[2]) = (layers.len() as u32, activation(mlp.activation), mlp.len() as u32);
        for (to, (input, output, weight, bias)) in words[3..].chunks_exact_mut(4).zip(layers) {
            to.copy_from_slice(&[input, output, weight, bias].map(|x| x as u32));
        }
    }
    Field { name, words }
}

/// `struct Policy`: kind, number of actions or action words, whether deviations are parameters, whether actions are
/// squashed. Without nets there is no policy: all zero.
pub fn policy(name: &'static str, policy: Option<Policy>) -> Field {
    let words = match policy {
        None => vec![0; 4],
        Some(Policy::Categorical { n }) => vec![CATEGORICAL, n as u32, 0, 0],
        Some(Policy::Gaussian { n, free_std, squashed }) => {
            vec![GAUSSIAN, n as u32, u32::from(free_std), u32::from(squashed)]
        }
    };
    Field { name, words }
}

/// `struct Tree`: how many levels a tree over `leaves` leaves has, and where each begins, leaves first.
pub fn tree(name: &'static str, leaves: usize) -> Field {
    let levels = tree::levels(leaves);
    let mut words: Vec<u32> =
        std::iter::once(levels.len()).chain(levels.iter().map(|x| x.0)).map(|x| x as u32).collect();
    assert!(words.len() <= 9, "rows of a ring are counted in 32 bits");
    words.resize(9, 0);
    Field { name, words }
}
