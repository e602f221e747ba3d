//! Launches of `kernels/critic_grad.cu`.

use super::nets::{WIDTH, pad4};
use super::soft::{Launches, TWO_TILES, across, blocks, head_words, matrix_words};
use super::{MSE, SMOOTH_L1, flag, net, number, policy, word};
use crate::device::{Field, Kernel};
use crate::op::Shape;
use crate::op::critic_grad::CriticGradShape;
use crate::op::minibatch_grad::Distance;

fn shape(d: &CriticGradShape, targets: bool, layer: usize) -> Vec<Field> {
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    vec![
        net("actor", Some(&d.nets.actor)),
        net("critic", Some(&d.nets.critic)),
        policy("policy", Some(d.nets.policy)),
        word("start", d.start),
        word("batch", d.batch),
        word("tile_rows", d.tile_rows),
        flag("learned", d.learned),
        word("distance", distance as usize),
        number("beta", beta),
        flag("symlog", d.symlog),
        flag("normalize_obs", d.normalize_obs),
        flag("targets", targets),
        word("layer", layer),
    ]
}

pub fn kernels(d: &CriticGradShape) -> Vec<Kernel> {
    assert!(d.tile_rows.is_multiple_of(WIDTH), "tiles are whole blocks of rows");
    let (actor, critic, blocks) = (&d.nets.actor, &d.nets.critic, blocks(d.batch));
    let mut to = Launches { op: "critic_grad", shape: |targets, layer| shape(d, targets, layer), all: Vec::new() };
    to.add("gather", blocks, 3, 0, false, 0);
    for l in 0..actor.hidden.len().max(critic.hidden.len()) {
        let units = [actor, critic].into_iter().filter_map(|net| net.hidden.get(l).copied());
        to.add("forward", blocks * across(units), 3, TWO_TILES, false, l);
    }
    to.add("act", blocks, 1, head_words(actor), false, 0);
    for (l, units) in critic.hidden.iter().enumerate() {
        to.add("forward", blocks * units.div_ceil(WIDTH), 2, TWO_TILES, true, l);
    }
    to.add("losses", blocks, 1, head_words(critic), false, 0);
    to.back(critic, d.tiles(), blocks, 2);
    to.all
}

/// What the kernels hand on to each other.
pub fn scratch(d: &CriticGradShape) -> usize {
    let (actor, critic) = (&d.nets.actor, &d.nets.critic);
    let seen = pad4(actor.input) + 2 * pad4(critic.input);
    let nets = matrix_words(actor, false) + 2 * matrix_words(critic, false) + 2 * matrix_words(critic, true);
    let row = seen + nets + 1 + d.nets.choices().unwrap_or(0);
    blocks(d.batch) * (WIDTH * row + 1)
}
