//! Launches of `kernels/crossq_grad.cu`.

use super::nets::{WIDTH, pad4};
use super::soft::{COLUMNS, Launches, TWO_TILES, blocks, head_words, matrix_words, renorm};
use super::{MSE, SMOOTH_L1, flag, net, number, policy, word};
use crate::device::{Field, Kernel};
use crate::op::crossq_grad::CrossqShape;
use crate::op::lib::policy::Policy;
use crate::op::minibatch_grad::Distance;

fn shape(d: &CrossqShape, critics: bool, layer: usize) -> Vec<Field> {
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    vec![
        net("actor", Some(&d.actor)),
        renorm("critic", &d.critic),
        policy("policy", Some(d.policy)),
        word("start", d.start),
        word("batch", d.batch),
        flag("learned", d.learned),
        word("distance", distance as usize),
        number("beta", beta),
        flag("symlog", d.symlog),
        flag("normalize_obs", d.normalize_obs),
        number("momentum", d.critic.momentum),
        number("eps", d.critic.eps),
        word("warmup", d.critic.warmup as usize),
        number("r_max", d.critic.r_max),
        number("d_max", d.critic.d_max),
        flag("critics", critics),
        word("layer", layer),
    ]
}

/// Blocks of the joint batch: successors begin behind the last row, and their last block may be a whole one.
fn joint_blocks(d: &CrossqShape) -> usize {
    blocks(d.batch + blocks(d.batch) * WIDTH)
}

pub fn kernels(d: &CrossqShape) -> Vec<Kernel> {
    let (critic, blocks, joint) = (&d.critic.mlp, blocks(d.batch), joint_blocks(d));
    let mut to = Launches { op: "crossq_grad", shape: |critics, layer| shape(d, critics, layer), all: Vec::new() };
    to.add("gather", joint, 2, 0, false, 0);
    for (l, units) in d.actor.hidden.iter().enumerate() {
        to.add("forward", blocks * units.div_ceil(WIDTH), 1, TWO_TILES, false, l);
    }
    to.add("act", blocks, 1, head_words(&d.actor), false, 0);
    for (l, units) in critic.hidden.iter().enumerate() {
        to.add("forward", joint * units.div_ceil(WIDTH), 2, TWO_TILES, true, l);
        to.add("normalize", pad4(*units).div_ceil(COLUMNS), 2, 0, true, l);
    }
    to.add("losses", blocks, 1, head_words(critic) + 3 * WIDTH * pad4(critic.output), true, 0);
    for (l, &(input, output, ..)) in critic.offsets().iter().enumerate().rev() {
        to.add("weights", input.div_ceil(WIDTH) * output.div_ceil(WIDTH), 2, TWO_TILES, true, l);
        if l > 0 {
            to.add("backward", joint * input.div_ceil(WIDTH), 2, TWO_TILES, true, l);
            to.add("centre", input.div_ceil(COLUMNS), 2, 0, true, l - 1);
        }
    }
    to.all
}

/// What the kernels hand on to each other.
pub fn scratch(d: &CrossqShape) -> usize {
    let critic = &d.critic.mlp;
    let each = if let Policy::Categorical { n } = d.policy { n } else { 1 };
    let row = pad4(d.actor.input) + matrix_words(&d.actor, false) + each;
    let units: usize = critic.hidden.iter().map(|&units| pad4(units)).sum();
    let joint_row = pad4(critic.input) + 2 * matrix_words(critic, true) + 2 * units;
    blocks(d.batch) * (WIDTH * row + 1) + joint_blocks(d) * WIDTH * joint_row + 6 * d.critic.units()
}
