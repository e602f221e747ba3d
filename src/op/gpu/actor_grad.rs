//! Launches of `kernels/actor_grad.cu`.

use super::nets::{WIDTH, pad4};
use super::soft::{Launches, TWO_TILES, blocks, head_words, matrix_words};
use super::{flag, net, policy, word};
use crate::device::{Field, Kernel};
use crate::op::Shape;
use crate::op::actor_grad::ActorGradShape;

fn shape(d: &ActorGradShape, critics: bool, layer: usize) -> Vec<Field> {
    vec![
        net("actor", Some(&d.nets.actor)),
        net("critic", Some(&d.nets.critic)),
        policy("policy", Some(d.nets.policy)),
        flag("folded", d.folded),
        word("start", d.start),
        word("batch", d.batch),
        word("tile_rows", d.tile_rows),
        flag("learned", d.learned),
        flag("normalize_obs", d.normalize_obs),
        flag("critics", critics),
        word("layer", layer),
    ]
}

pub fn kernels(d: &ActorGradShape) -> Vec<Kernel> {
    assert!(d.tile_rows.is_multiple_of(WIDTH), "tiles are whole blocks of rows");
    let (actor, critic, blocks) = (&d.nets.actor, &d.nets.critic, blocks(d.batch));
    let mut to = Launches { op: "actor_grad", shape: |critics, layer| shape(d, critics, layer), all: Vec::new() };
    to.add("gather", blocks, 2, 0, false, 0);
    for (l, units) in actor.hidden.iter().enumerate() {
        to.add("forward", blocks * units.div_ceil(WIDTH), 1, TWO_TILES, false, l);
    }
    to.add("act", blocks, 1, head_words(actor), false, 0);
    for (l, units) in critic.hidden.iter().enumerate() {
        to.add("forward", blocks * units.div_ceil(WIDTH), 2, TWO_TILES, true, l);
    }
    to.add("judge", blocks, 2, head_words(critic), true, 0);
    if d.nets.choices().is_none() {
        for (l, &(input, ..)) in critic.offsets().iter().enumerate().rev() {
            to.add("ask", blocks * input.div_ceil(WIDTH), 2, TWO_TILES, true, l);
        }
    }
    to.add("losses", blocks, 1, 0, false, 0);
    to.back(actor, d.tiles(), blocks, 1);
    to.all
}

/// What the kernels hand on to each other.
pub fn scratch(d: &ActorGradShape) -> usize {
    let (actor, critic) = (&d.nets.actor, &d.nets.critic);
    let seen = pad4(actor.input) + pad4(critic.input);
    let d_seen = if d.nets.choices().is_some() { 0 } else { 2 * pad4(critic.input) };
    let nets = matrix_words(actor, true) + 2 * matrix_words(critic, true);
    let row = seen + nets + d_seen + 2 * pad4(critic.output);
    blocks(d.batch) * (WIDTH * row + 2)
}
