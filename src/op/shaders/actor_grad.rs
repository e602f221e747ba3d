//! Launches of `shaders/actor_grad.wgsl`, layer by layer.

use super::soft::{Launches, Soft, Which};
use crate::device::Shader;
use crate::op::actor_grad::ActorGradShape;
use crate::op::gpu::flag;

/// Numbers of a row beside its layers: its loss, its log-probability, of each critic the value and slopes at the action.
fn own(d: &ActorGradShape) -> usize {
    4 + 2 * d.nets.seen_words()
}

fn soft(d: &ActorGradShape) -> Soft<'_> {
    let (start, batch, tile_rows) = (d.start, d.batch, d.tile_rows);
    Soft { nets: &d.nets, critics: 2, inputs: 1, start, batch, tile_rows, joint: None }
}

pub fn shaders(d: &ActorGradShape) -> Vec<Shader> {
    let soft = soft(d);
    let mut shape = soft.shape();
    shape.extend([flag("learned", d.learned), flag("normalize_obs", d.normalize_obs), flag("folded", d.folded)]);
    let mut launches = Launches { soft, shape, all: Vec::new() };
    let words = d.nets.seen_words();
    launches.gather("actor_grad_gather", d.batch * d.nets.obs(), 1);
    launches.ahead(Which::Actor);
    if words > 0 {
        launches.lanes("actor_grad_act", d.batch, 1);
    }
    launches.ahead(Which::Critics(2));
    if words > 0 {
        launches.lanes("actor_grad_ones", d.batch, 2);
        launches.back(Which::Critics(2), None);
        launches.lanes("actor_grad_slopes", d.batch * words, 2);
    }
    launches.lanes("actor_grad_losses", d.batch, 1);
    launches.back(Which::Actor, Some("actor_grad_weights"));
    launches.all
}

pub fn scratch(d: &ActorGradShape) -> usize {
    d.batch * (soft(d).rest() + own(d))
}
