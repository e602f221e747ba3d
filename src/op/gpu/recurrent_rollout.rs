//! Launches of `kernels/recurrent_rollout.cu`.

use super::nets::pad4;
use super::recurrent::{ahead_words, block, has_cells, lanes, state_words};
use super::{SHARED_BYTES, flag, net, policy, word};
use crate::device::{Field, Kernel};
use crate::env::ActionSpace;
use crate::op::lib::acting::Explore;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::lib::policy::Policy;
use crate::op::lib::recurrent::Body;
use crate::op::recurrent_rollout::RecurrentShape;
use crate::op::rollout::Store;

/// Fewest and most lanes of a block; lanes of a block that packs, and such blocks.
const THREADS: (usize, usize) = (128, 256);
const PACK_THREADS: usize = 256;
const PACK_BLOCKS: usize = 32;

/// Units of the widest hidden layer in front of a cell.
fn wide(body: &Body) -> usize {
    pad4(body.front.hidden.iter().copied().max().unwrap_or(0))
}

/// Words of a block's shared memory.
fn shared_words(d: &RecurrentShape, envs: usize) -> usize {
    let (nets, body, row) = (d.nets(), d.body(), envs + 4);
    let outputs: usize = heads(nets).map(|head| pad4(head.output)).sum();
    let states = if has_cells(body) { 3 } else { 2 };
    let bodies = nets.bodies() * (2 * wide(body) * row + states * state_words(body, envs));
    (2 * pad4(d.rollout.obs()) + outputs) * row + bodies
}

fn heads(nets: &Nets) -> impl Iterator<Item = &Mlp> {
    std::iter::once(&nets.actor).chain(&nets.critic)
}

/// Environments of a block: as many as are good, if their states have room.
fn envs(d: &RecurrentShape) -> usize {
    let good = block(d.rollout.n);
    if 4 * shared_words(d, good) <= SHARED_BYTES { good } else { block(1) }
}

fn shape(d: &RecurrentShape) -> Vec<Field> {
    let (rollout, nets, body) = (&d.rollout, d.nets(), d.body());
    let squashed = matches!(nets.policy, Policy::Gaussian { squashed: true, .. });
    let slots = if let Store::Ring { steps, .. } = rollout.store { steps } else { rollout.t };
    let words = |name, numbers: &[f32]| Field { name, words: numbers.iter().map(|x| x.to_bits()).collect() };
    let (actions, low, high): (usize, &[f32], &[f32]) = match rollout.env.spec.action_space {
        ActionSpace::Discrete(n) => (n, &[0.0], &[0.0]),
        ActionSpace::Box { low, high } => (0, low, high),
    };
    let explore = rollout.explore;
    vec![
        word("t", rollout.t),
        word("n", rollout.n),
        word("limit", rollout.limit as usize),
        flag("ring", rollout.in_ring()),
        word("slots", slots),
        word("at", rollout.at()),
        flag("greedy", matches!(explore, Explore::Greedy | Explore::EpsilonGreedy)),
        flag("coin", explore == Explore::EpsilonGreedy),
        flag("tempered", explore == Explore::Boltzmann),
        flag("uniform", explore == Explore::Uniform),
        flag("store_squashed", squashed && rollout.in_ring() && explore != Explore::Uniform),
        flag("take_squashed", squashed && !rollout.in_ring()),
        flag("normalize_obs", rollout.normalize_obs),
        word("actions", actions),
        word("envs", envs(d)),
        word("wide", wide(body)),
        word("gates", body.cell.gates()),
        word("hidden", body.hidden),
        words("low", low),
        words("high", high),
        policy("policy", Some(nets.policy)),
        net("actor", Some(&nets.actor)),
        net("critic", nets.critic.as_ref()),
        net("front", Some(&body.front)),
        words("env", rollout.env.constants()),
    ]
}

pub fn kernels(d: &RecurrentShape) -> Vec<Kernel> {
    let (envs, name) = (envs(d), d.rollout.env.spec.module);
    let kernel = |suffix: &str, tiles: usize, threads: usize, shared_words: usize| Kernel {
        entry: format!("recurrent_rollout_{name}{suffix}"),
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shared_bytes: 4 * shared_words as u32,
        shape: shape(d),
    };
    let lanes = lanes(d.body(), d.nets().bodies(), THREADS.0, THREADS.1);
    vec![
        kernel("_pack", PACK_BLOCKS, PACK_THREADS, 0),
        kernel("", d.rollout.n.div_ceil(envs), lanes, shared_words(d, envs)),
    ]
}

/// Packed parameters of the bodies and their heads.
pub fn scratch(d: &RecurrentShape) -> usize {
    let (nets, body) = (d.nets(), d.body());
    let layers = body.front.offsets();
    let (&(input, ..), hidden) = layers.split_last().expect("a net has an output layer");
    let layer = |input: usize, output: usize| (pad4(input) + 1) * pad4(output);
    let front: usize = hidden.iter().map(|&(input, output, ..)| layer(input, output)).sum();
    let each = front + ahead_words(body, input) + ahead_words(body, body.hidden);
    nets.bodies() * each + heads(nets).map(|head| layer(head.input, head.output)).sum::<usize>()
}
