//! Launch of `shaders/rollout.wgsl`.

use crate::device::{Field, Limits, Precision, Shader};
use crate::env::ActionSpace;
use crate::op::gpu::{flag, net, policy, word};
use crate::op::lib::acting::Explore;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::rollout::{RolloutShape, Store};

/// Lanes of a block that packs, and of one without nets.
const PACK_THREADS: usize = 256;
const RANDOM_THREADS: usize = 64;
/// Most blocks that pack.
const PACK_BLOCKS: usize = 64;
/// Environments of a block: the most there can be, and what any number of them is a multiple of.
const MOST: usize = 16;
const LEAST: usize = 4;
/// Most and fewest lanes of a block with nets; the lower half of the fewest may step environments.
const MOST_THREADS: usize = 256;
const LEAST_THREADS: usize = 64;
const STEPPERS: usize = LEAST_THREADS / 2;
/// Most parts of a last layer's sum.
const PARTS: usize = 8;

fn pad4(words: usize) -> usize {
    words.next_multiple_of(4)
}

/// Fours of units in each of the two buffers that hidden layers take in turns.
fn turns(net: &Mlp) -> [usize; 2] {
    [0, 1].map(|turn| net.hidden.iter().skip(turn).step_by(2).copied().max().unwrap_or(0).div_ceil(4))
}

/// Activations of a row.
fn acts(net: &Mlp) -> usize {
    4 * turns(net).iter().sum::<usize>()
}

/// Packed parameters of a net, in fours of words.
fn packed(net: &Mlp) -> usize {
    let layer = |(l, &(input, output, ..)): (usize, &(usize, usize, usize, usize))| {
        let between = l < net.hidden.len();
        output.div_ceil(4) + if between { output.div_ceil(4) * input } else { input.div_ceil(4) * output }
    };
    net.offsets().iter().enumerate().map(layer).sum()
}

fn of_nets(nets: &Nets, words: fn(&Mlp) -> usize) -> usize {
    words(&nets.actor) + nets.critic.as_ref().map_or(0, words)
}

/// How an agent's rollout is cut into blocks.
struct Place {
    /// Environments and lanes of a block.
    envs: usize,
    threads: usize,
    parts: usize,
    /// Activations stay in scratch.
    spilled: bool,
}

/// Bytes of a block's memory, as `shaders/rollout.wgsl` and `shaders/lib/net.wgsl` lay it out.
fn shared_bytes(d: &RolloutShape, nets: &Nets, place: &Place) -> usize {
    let blocks = nets.policy.action_len().div_ceil(4) + 1;
    let quads = place.envs / 4;
    let outputs = of_nets(nets, |net| net.output);
    let acts = if place.spilled { 1 } else { quads * of_nets(nets, acts) };
    // numbers of four words, of one, and some room between them
    16 * (acts.max(1) + outputs * place.parts * quads + 2 * place.envs * blocks) + 8 * pad4(d.obs()) * place.envs + 64
}

fn place(d: &RolloutShape, nets: &Nets, limits: &Limits) -> Place {
    let widest = of_nets(nets, |net| net.hidden.iter().copied().max().unwrap_or(0).div_ceil(4));
    let outputs = of_nets(nets, |net| net.output);
    let at = |envs: usize, spilled| {
        let tasks = widest * envs / 4;
        let threads = tasks.next_power_of_two().clamp(LEAST_THREADS, MOST_THREADS.min(limits.threads));
        let parts = (threads / (outputs * envs / 4)).clamp(1, PARTS);
        Place { envs, threads, parts: 1 << parts.ilog2(), spilled }
    };
    // few environments want many blocks, many the fewest barriers per environment
    let most = match d.n {
        ..=4 => LEAST,
        5..=512 => 8,
        _ => MOST,
    };
    let places = [false, true].into_iter().flat_map(|spilled| {
        let envs = [MOST, 8, LEAST].into_iter().filter(move |&envs| envs <= most);
        envs.map(move |envs| (envs, spilled))
    });
    places
        .map(|(envs, spilled)| at(envs, spilled))
        .find(|place| shared_bytes(d, nets, place) <= limits.shared_bytes)
        .unwrap_or_else(|| at(LEAST, true))
}

/// The nets that are asked: none where actions are random whatever they say, and no critic where nothing is judged.
fn asked(d: &RolloutShape) -> Option<Nets> {
    let nets = d.nets.as_ref().filter(|_| d.explore != Explore::Uniform)?;
    Some(Nets { critic: nets.critic.clone().filter(|_| !d.in_ring()), ..nets.clone() })
}

fn fields(d: &RolloutShape, nets: Option<&Nets>, place: Option<&Place>, pack_lanes: usize) -> Vec<Field> {
    let (actor, critic) = (nets.map(|nets| &nets.actor), nets.and_then(|nets| nets.critic.as_ref()));
    let of = |net: Option<&Mlp>, words: fn(&Mlp) -> usize| net.map_or(0, words);
    let words = |name, numbers: &[f32]| Field { name, words: numbers.iter().map(|x| x.to_bits()).collect() };
    let turned = |name, net: Option<&Mlp>| Field { name, words: net.map_or([0; 2], turns).map(|x| x as u32).to_vec() };
    let (actions, low, high): (usize, &[f32], &[f32]) = match d.env.spec.action_space {
        ActionSpace::Discrete(n) => (n, &[0.0], &[0.0]),
        ActionSpace::Box { low, high } => (0, low, high),
    };
    vec![
        word("t", d.t),
        word("n", d.n),
        word("limit", d.limit as usize),
        flag("greedy", matches!(d.explore, Explore::Greedy | Explore::EpsilonGreedy)),
        flag("epsilon", d.explore == Explore::EpsilonGreedy),
        flag("boltzmann", d.explore == Explore::Boltzmann),
        flag("to_learn", d.nets.is_some()),
        word("ring", if let Store::Ring { steps, .. } = d.store { steps } else { 0 }),
        flag("normalize_obs", d.normalize_obs),
        word("actions", actions),
        word("envs", place.map_or(LEAST, |place| place.envs)),
        word("parts", place.map_or(1, |place| place.parts)),
        word("steppers", STEPPERS),
        word("pack_lanes", pack_lanes),
        word("seen", pad4(d.obs())),
        word("actor_outputs", of(actor, |net| net.output)),
        turned("actor_acts", actor),
        word("actor_packed", of(actor, packed)),
        word("critic_outputs", of(critic, |net| net.output)),
        turned("critic_acts", critic),
        word("critic_packed", of(critic, packed)),
        flag("spilled", place.is_some_and(|place| place.spilled)),
        words("low", low),
        words("high", high),
        policy("policy", nets.map(|nets| nets.policy)),
        net("actor", actor),
        net("critic", critic),
        words("env", d.env.constants()),
        word("at", d.at()),
    ]
}

pub fn shaders(d: &RolloutShape, limits: &Limits) -> Vec<Shader> {
    if d.precision == Precision::Bf16 {
        return Vec::new();
    }
    let shader = |entry: &str, tiles: usize, threads: usize, shape: Vec<Field>| Shader {
        entry: entry.into(),
        swaps: vec![("ENV", d.env.spec.module)],
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shape,
    };
    let Some(nets) = asked(d) else {
        let tiles = d.n.div_ceil(RANDOM_THREADS);
        return vec![shader("rollout_random", tiles, RANDOM_THREADS, fields(d, None, None, 0))];
    };
    let place = place(d, &nets, limits);
    let pack_tiles = of_nets(&nets, packed).div_ceil(PACK_THREADS).min(PACK_BLOCKS);
    let shape = fields(d, Some(&nets), Some(&place), pack_tiles * PACK_THREADS);
    vec![
        shader("rollout_pack", pack_tiles, PACK_THREADS, shape.clone()),
        shader("rollout", d.n.div_ceil(place.envs), place.threads, shape),
    ]
}

/// Packed weights, then the activations of every block, where they may have no room in its memory.
pub fn scratch(d: &RolloutShape) -> usize {
    asked(d).map_or(0, |nets| {
        let spilled = place(d, &nets, &Limits::WEBGPU).spilled;
        let rows = if spilled { d.n.next_multiple_of(MOST) } else { 0 };
        4 * of_nets(&nets, packed) + rows * of_nets(&nets, acts)
    })
}
