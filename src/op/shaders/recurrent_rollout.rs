//! Launches of `shaders/recurrent_rollout.wgsl`: as a rollout's, with bodies below the nets.

use super::rollout::{MOST, PACK_BLOCKS, PACK_THREADS, Place, Side, Work, acts, fields, packed_layer, place, turns};
use crate::device::{Limits, Shader};
use crate::op::gpu::{LAYERS, activation, flag, word};
use crate::op::lib::mlp::Mlp;
use crate::op::lib::recurrent::{Body, Cell};
use crate::op::recurrent_rollout::RecurrentShape;

/// Packed parameters of a head on its body, in fours of words.
fn packed(body: &Body, head: &Mlp) -> usize {
    let (layers, depth) = (body.front.offsets(), body.front.hidden.len());
    let hidden: usize = layers[..depth].iter().map(|&(input, output, ..)| packed_layer(input, output, false)).sum();
    let cell = body.hidden * (layers[depth].0 + body.hidden + 1);
    hidden + cell + packed_layer(head.input, head.output, true)
}

/// A head and its body, whose parameters begin `behind` words after the head's, as one net: hidden layers, cell, head.
fn side(body: &Body, head: &Mlp, behind: usize) -> Side {
    let layers = body.front.offsets().into_iter().map(|(i, o, weight, bias)| (i, o, behind + weight, behind + bias));
    let layers: Vec<_> = layers.chain(head.offsets()).collect();
    assert!(layers.len() <= LAYERS, "the plan bounds the layers of a net");
    let mut net = vec![layers.len() as u32, activation(body.front.activation), head.len() as u32];
    net.extend(
        layers.iter().flat_map(|&(input, output, weight, bias)| [input, output, weight, bias].map(|x| x as u32)),
    );
    net.resize(3 + 4 * LAYERS, 0);
    Side { net, outputs: head.output, acts: turns(&body.front), packed: packed(body, head) }
}

fn sides(d: &RecurrentShape) -> [Side; 2] {
    let (nets, body) = (d.nets(), d.body());
    let actor = side(body, &nets.actor, nets.actor.len() + nets.policy.free_len());
    let critic = nets.critic.as_ref().map(|head| side(body, head, head.len()));
    let none = || Side { net: vec![0; 3 + 4 * LAYERS], outputs: 0, acts: [0; 2], packed: 0 };
    [actor, critic.unwrap_or_else(none)]
}

/// States of a row that stay from step to step: `h` of both turns, and the LSTM's `c`.
fn kept(d: &RecurrentShape) -> usize {
    let body = d.body();
    d.nets().bodies() * (2 * body.hidden.next_multiple_of(4) + body.state_len() - body.hidden)
}

fn work(d: &RecurrentShape) -> Work {
    let (nets, body) = (d.nets(), d.body());
    let hidden = body.front.hidden.iter().copied().max().unwrap_or(0).div_ceil(4);
    Work {
        widest: nets.bodies() * hidden.max(body.hidden),
        outputs: nets.actor.output + nets.critic.as_ref().map_or(0, |head| head.output),
        acts: nets.bodies() * acts(&body.front) + kept(d),
    }
}

pub fn shaders(d: &RecurrentShape, limits: &Limits) -> Vec<Shader> {
    let rollout = &d.rollout;
    let place: Place = place(rollout, &work(d), limits);
    let sides = sides(d);
    let packed = sides[0].packed + sides[1].packed;
    let pack_tiles = packed.div_ceil(PACK_THREADS).min(PACK_BLOCKS);
    let mut shape = fields(rollout, sides, kept(d), Some(&place), pack_tiles * PACK_THREADS);
    shape.extend([
        flag("lstm", d.body().cell == Cell::Lstm),
        word("units", d.body().hidden),
        word("actor_params", d.nets().actor_len()),
        word("at", rollout.at()),
    ]);
    let shader = |entry: &str, tiles: usize, threads: usize| Shader {
        entry: entry.into(),
        swaps: vec![("ENV", rollout.env.spec.module)],
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shape: shape.clone(),
    };
    vec![
        shader("recurrent_rollout_pack", pack_tiles, PACK_THREADS),
        shader("recurrent_rollout", rollout.n.div_ceil(place.envs), place.threads),
    ]
}

/// Packed weights, then the activations of every block, where they may have no room in its memory.
pub fn scratch(d: &RecurrentShape) -> usize {
    let work = work(d);
    let spilled = place(&d.rollout, &work, &Limits::WEBGPU).spilled;
    let rows = if spilled { d.rollout.n.next_multiple_of(MOST) } else { 0 };
    4 * sides(d).iter().map(|side| side.packed).sum::<usize>() + rows * work.acts
}
