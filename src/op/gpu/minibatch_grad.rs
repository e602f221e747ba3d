//! Launch of `kernels/minibatch_grad.cu`.

use super::nets::{acts_words, narrow, narrow_row, net_words};
use super::{MSE, SHARED_BYTES, SMOOTH_L1, flag, net, number, policy, word};
use crate::device::{Field, Kernel};
use crate::op::lib::nets::Nets;
use crate::op::minibatch_grad::{Distance, GradShape};

/// Tiles of a large minibatch, so that two separate nets make 256 blocks.
const TILES: usize = 128;
/// Rows that go through a net together, by entry.
const ROWS: [usize; 3] = [32, 64, 128];

/// Rows of a tile on a gpu. Small minibatches are cut small: their blocks run side by side.
pub fn tile_rows(_nets: &Nets, len: usize) -> usize {
    let rows = len.div_ceil(TILES);
    ROWS.into_iter().find(|&most| rows <= most).unwrap_or(rows.next_multiple_of(ROWS[2]))
}

/// Bytes of shared memory with chunks of that many rows; the largest of the nets decides.
fn shared_bytes(nets: &Nets, rows: usize) -> usize {
    let actor = (&nets.actor, nets.policy.free_len());
    let words = std::iter::once(actor).chain(nets.critic.iter().map(|critic| (critic, 0))).map(|(mlp, free)| {
        let outputs = 2 * rows * narrow_row(mlp.output + free);
        rows * narrow_row(mlp.input) + outputs + net_words(mlp) + acts_words(mlp, rows, true)
    });
    4 * words.max().expect("an agent has a net")
}

/// Rows of a chunk of the fused kernel, if the nets fit one block at all.
fn fused_rows(d: &GradShape) -> Option<usize> {
    let narrow = narrow(&d.nets.actor) && d.nets.critic.as_ref().is_none_or(narrow);
    let fits = |rows: &usize| shared_bytes(&d.nets, *rows) <= SHARED_BYTES;
    let rows = ROWS.into_iter().filter(|&rows| rows <= d.tile_rows.max(ROWS[0])).filter(fits).max();
    rows.filter(|_| narrow)
}

fn shape(d: &GradShape) -> Vec<Field> {
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    vec![
        net("actor", Some(&d.nets.actor)),
        net("critic", d.nets.critic.as_ref()),
        policy("policy", Some(d.nets.policy)),
        word("obs", d.obs),
        word("start", d.start),
        word("len", d.len),
        word("minibatch", d.minibatch),
        word("tile_rows", d.tile_rows),
        flag("clipped", d.clipped),
        word("distance", distance as usize),
        number("beta", beta),
        flag("clip_value", d.clip_value),
        flag("symlog", d.symlog),
        flag("normalize_targets", d.normalize_targets),
        flag("normalize_obs", d.normalize_obs),
    ]
}

pub fn kernels(d: &GradShape) -> Vec<Kernel> {
    let Some(rows) = fused_rows(d) else { return Vec::new() };
    vec![Kernel {
        entry: format!("minibatch_grad_{rows}"),
        tiles: d.len.div_ceil(d.tile_rows) as u32,
        parts: 1 + u32::from(d.nets.critic.is_some()),
        threads: 128,
        shared_bytes: shared_bytes(&d.nets, rows) as u32,
        shape: shape(d),
    }]
}
