//! Launches of `shaders/critic_grad.wgsl`, layer by layer.

use super::soft::{Launches, Soft, Which};
use crate::device::Shader;
use crate::op::critic_grad::CriticGradShape;
use crate::op::gpu::{MSE, SMOOTH_L1, flag, number, word};
use crate::op::minibatch_grad::Distance;

/// Numbers of a row beside its layers: what the entropy of its next action costs, its loss.
const OWN: usize = 2;

/// Both critics at what was done, and both target critics at what comes next.
fn soft(d: &CriticGradShape) -> Soft<'_> {
    let (start, batch, tile_rows) = (d.start, d.batch, d.tile_rows);
    Soft { nets: &d.nets, critics: 4, inputs: 2, start, batch, tile_rows, joint: None }
}

pub fn shaders(d: &CriticGradShape) -> Vec<Shader> {
    let soft = soft(d);
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    let mut shape = soft.shape();
    shape.extend([
        flag("learned", d.learned),
        flag("normalize_obs", d.normalize_obs),
        word("distance", distance as usize),
        number("beta", beta),
        flag("symlog", d.symlog),
    ]);
    let mut launches = Launches { soft, shape, all: Vec::new() };
    launches.gather("critic_grad_gather", d.batch * d.nets.critic.input, 2);
    launches.ahead(Which::Actor);
    launches.lanes("critic_grad_act", d.batch, 1);
    launches.ahead(Which::Critics(4));
    launches.lanes("critic_grad_losses", d.batch, 1);
    launches.back(Which::Critics(2), Some("critic_grad_weights"));
    launches.all
}

pub fn scratch(d: &CriticGradShape) -> usize {
    d.batch * (soft(d).rest() + OWN)
}
