//! Launches of `shaders/crossq_grad.wgsl`, layer by layer.

use super::soft::{Launches, Soft, Which};
use crate::device::Shader;
use crate::op::crossq_grad::CrossqShape;
use crate::op::gpu::{MSE, SMOOTH_L1, flag, number, word};
use crate::op::lib::soft::SoftNets;
use crate::op::minibatch_grad::Distance;

/// Numbers of a row beside its layers: the log-probability of its next action, its loss.
const OWN: usize = 2;
/// Columns of a block that has moments, and its lanes: `COLUMNS` and `COLUMNS * PARTS` of `shaders/lib/renorm.wgsl`.
const COLUMNS: (usize, usize) = (16, 256);
/// Numbers of a unit that the way back needs.
const STATS: usize = 3;

fn nets(d: &CrossqShape) -> SoftNets {
    SoftNets { actor: d.actor.clone(), critic: d.critic.mlp.clone(), policy: d.policy }
}

/// Both critics on rows and their successors. One tile: moments need all rows.
fn soft<'a>(d: &'a CrossqShape, nets: &'a SoftNets) -> Soft<'a> {
    let (start, batch) = (d.start, d.batch);
    Soft { nets, critics: 2, inputs: 1, start, batch, tile_rows: batch, joint: Some(&d.critic) }
}

/// Words per row before the normalised sums, which both critics have of rows and successors, and before what units have.
fn places(d: &CrossqShape, soft: &Soft<'_>) -> (usize, usize) {
    let sums = soft.rest() + OWN;
    (sums, sums + 2 * 2 * d.critic.units())
}

pub fn shaders(d: &CrossqShape) -> Vec<Shader> {
    let nets = nets(d);
    let soft = soft(d, &nets);
    let (sums_at, stats_at) = places(d, &soft);
    let (distance, beta) = match d.distance {
        Distance::Mse => (MSE, 1.0),
        Distance::SmoothL1 { beta } => (SMOOTH_L1, beta),
    };
    let mut shape = soft.shape();
    shape.extend([
        word("sums_at", sums_at),
        word("stats_at", stats_at),
        word("units", d.critic.units()),
        flag("learned", d.learned),
        flag("normalize_obs", d.normalize_obs),
        word("distance", distance as usize),
        number("beta", beta),
        flag("symlog", d.symlog),
        number("momentum", d.critic.momentum),
        number("eps", d.critic.eps),
        word("warmup", d.critic.warmup as usize),
        number("r_max", d.critic.r_max),
        number("d_max", d.critic.d_max),
    ]);
    let (mut launches, both) = (Launches { soft, shape, all: Vec::new() }, Which::Critics(2));
    launches.gather("crossq_grad_gather", d.batch * nets.critic.input, 2);
    launches.ahead(Which::Actor);
    launches.lanes("crossq_grad_act", d.batch, 1);
    let hidden = nets.critic.hidden.len();
    for l in 0..hidden {
        launches.layer_ahead(both, l);
        launches.columns("crossq_grad_normalize", COLUMNS, both, l);
    }
    launches.layer_ahead(both, hidden);
    launches.lanes("crossq_grad_losses", d.batch, 1);
    for l in (0..=hidden).rev() {
        launches.layer_back(both, l, Some("crossq_grad_weights"));
        if l > 0 {
            launches.columns("crossq_grad_centre", COLUMNS, both, l - 1);
        }
    }
    launches.all
}

pub fn scratch(d: &CrossqShape) -> usize {
    let nets = nets(d);
    d.batch * places(d, &soft(d, &nets)).1 + 2 * STATS * d.critic.units()
}
