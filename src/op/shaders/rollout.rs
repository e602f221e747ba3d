//! Launch of `shaders/rollout.wgsl`.

use crate::device::{Field, Limits, Shader};
use crate::env::ActionSpace;
use crate::op::gpu::{flag, net, policy, word};
use crate::op::lib::acting::Explore;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::rollout::{RolloutShape, Store};

/// Lanes of a block that packs, and of one without nets.
pub(super) const PACK_THREADS: usize = 256;
const RANDOM_THREADS: usize = 64;
/// Most blocks that pack.
pub(super) const PACK_BLOCKS: usize = 64;
/// Environments of a block: the most there can be, and what any number of them is a multiple of.
pub(super) const MOST: usize = 16;
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
pub(super) fn turns(net: &Mlp) -> [usize; 2] {
    [0, 1].map(|turn| net.hidden.iter().skip(turn).step_by(2).copied().max().unwrap_or(0).div_ceil(4))
}

/// Activations of a row.
pub(super) fn acts(net: &Mlp) -> usize {
    4 * turns(net).iter().sum::<usize>()
}

/// Packed parameters of a layer of such sizes, in fours of words.
pub(super) fn packed_layer(input: usize, output: usize, last: bool) -> usize {
    output.div_ceil(4) + if last { input.div_ceil(4) * output } else { output.div_ceil(4) * input }
}

/// Packed parameters of a net.
fn packed(net: &Mlp) -> usize {
    let layers = net.offsets();
    let sizes = layers.iter().enumerate().map(|(l, &(input, output, ..))| (input, output, l == net.hidden.len()));
    sizes.map(|(input, output, last)| packed_layer(input, output, last)).sum()
}

fn of_nets(nets: &Nets, words: fn(&Mlp) -> usize) -> usize {
    words(&nets.actor) + nets.critic.as_ref().map_or(0, words)
}

/// How an agent's rollout is cut into blocks.
pub(super) struct Place {
    /// Environments and lanes of a block.
    pub envs: usize,
    pub threads: usize,
    pub parts: usize,
    /// Activations stay in scratch.
    pub spilled: bool,
}

/// What a block of an agent works on.
pub(super) struct Work {
    /// Lanes that the widest phase has for every four environments.
    pub widest: usize,
    /// Outputs of the last layers.
    pub outputs: usize,
    /// Activations of an environment.
    pub acts: usize,
}

/// Bytes of a block's memory, as `shaders/lib/acting.wgsl` and `shaders/lib/net.wgsl` lay it out.
fn shared_bytes(d: &RolloutShape, work: &Work, place: &Place) -> usize {
    let blocks = d.action().div_ceil(4) + 1;
    let quads = place.envs / 4;
    let acts = if place.spilled { 1 } else { quads * work.acts };
    // numbers of four words, of one, flags, and some room between them
    16 * (acts.max(1) + work.outputs * place.parts * quads + 2 * place.envs * blocks)
        + 8 * pad4(d.obs()) * place.envs
        + 4 * place.envs
        + 64
}

pub(super) fn place(d: &RolloutShape, work: &Work, limits: &Limits) -> Place {
    let at = |envs: usize, spilled| {
        let tasks = work.widest * envs / 4;
        let threads = tasks.next_power_of_two().clamp(LEAST_THREADS, MOST_THREADS.min(limits.threads));
        let parts = (threads / (work.outputs * envs / 4)).clamp(1, PARTS);
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
        .find(|place| shared_bytes(d, work, place) <= limits.shared_bytes)
        .unwrap_or_else(|| at(LEAST, true))
}

fn work(nets: &Nets) -> Work {
    Work {
        widest: of_nets(nets, |net| net.hidden.iter().copied().max().unwrap_or(0).div_ceil(4)),
        outputs: of_nets(nets, |net| net.output),
        acts: of_nets(nets, acts),
    }
}

/// The nets that are asked: none where actions are random whatever they say, and no critic where nothing is judged.
fn asked(d: &RolloutShape) -> Option<Nets> {
    let nets = d.nets.as_ref().filter(|_| d.explore != Explore::Uniform)?;
    Some(Nets { critic: nets.critic.clone().filter(|_| !d.in_ring()), ..nets.clone() })
}

/// What kernels know of one net of an agent.
pub(super) struct Side {
    /// `struct Net`.
    pub net: Vec<u32>,
    pub outputs: usize,
    /// Fours of units in each of the buffers that its hidden layers take in turns.
    pub acts: [usize; 2],
    /// Packed parameters, in fours of words.
    pub packed: usize,
}

impl Side {
    fn new(mlp: Option<&Mlp>) -> Side {
        let of = |words: fn(&Mlp) -> usize| mlp.map_or(0, words);
        Side {
            net: net("net", mlp).words,
            outputs: of(|mlp| mlp.output),
            acts: mlp.map_or([0; 2], turns),
            packed: of(packed),
        }
    }
}

/// Members of `struct Shape`, the last one apart, that all rollouts have; without a place nets are not asked. `kept`:
/// activations of a row that stay from step to step.
pub(super) fn fields(
    d: &RolloutShape,
    [actor, critic]: [Side; 2],
    kept: usize,
    place: Option<&Place>,
    pack_lanes: usize,
) -> Vec<Field> {
    let words = |name, numbers: &[f32]| Field { name, words: numbers.iter().map(|x| x.to_bits()).collect() };
    let turned = |name, acts: [usize; 2]| Field { name, words: acts.map(|x| x as u32).to_vec() };
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
        flag("uniform", d.explore == Explore::Uniform),
        flag("to_learn", d.nets.is_some()),
        word("ring", if let Store::Ring { steps, .. } = d.store { steps } else { 0 }),
        flag("normalize_obs", d.normalize_obs),
        word("actions", actions),
        word("envs", place.map_or(LEAST, |place| place.envs)),
        word("parts", place.map_or(1, |place| place.parts)),
        word("steppers", STEPPERS),
        word("pack_lanes", pack_lanes),
        word("seen", pad4(d.obs())),
        word("actor_outputs", actor.outputs),
        turned("actor_acts", actor.acts),
        word("actor_packed", actor.packed),
        word("critic_outputs", critic.outputs),
        turned("critic_acts", critic.acts),
        word("critic_packed", critic.packed),
        word("kept", kept),
        flag("spilled", place.is_some_and(|place| place.spilled)),
        words("low", low),
        words("high", high),
        policy("policy", d.nets.as_ref().filter(|_| place.is_some()).map(|nets| nets.policy)),
        Field { name: "actor", words: actor.net },
        Field { name: "critic", words: critic.net },
        words("env", d.env.constants()),
    ]
}

pub fn shaders(d: &RolloutShape, limits: &Limits) -> Vec<Shader> {
    let shader = |entry: &str, tiles: usize, threads: usize, mut shape: Vec<Field>| {
        shape.push(word("at", d.at()));
        Shader {
            entry: entry.into(),
            swaps: vec![("ENV", d.env.spec.module)],
            tiles: tiles as u32,
            parts: 1,
            threads: threads as u32,
            shape,
        }
    };
    let Some(nets) = asked(d) else {
        let shape = fields(d, [Side::new(None), Side::new(None)], 0, None, 0);
        return vec![shader("rollout_random", d.n.div_ceil(RANDOM_THREADS), RANDOM_THREADS, shape)];
    };
    let place = place(d, &work(&nets), limits);
    let pack_tiles = of_nets(&nets, packed).div_ceil(PACK_THREADS).min(PACK_BLOCKS);
    let sides = [Side::new(Some(&nets.actor)), Side::new(nets.critic.as_ref())];
    let shape = fields(d, sides, 0, Some(&place), pack_tiles * PACK_THREADS);
    vec![
        shader("rollout_pack", pack_tiles, PACK_THREADS, shape.clone()),
        shader("rollout", d.n.div_ceil(place.envs), place.threads, shape),
    ]
}

/// Packed weights, then the activations of every block, where they may have no room in its memory.
pub fn scratch(d: &RolloutShape) -> usize {
    asked(d).map_or(0, |nets| {
        let spilled = place(d, &work(&nets), &Limits::WEBGPU).spilled;
        let rows = if spilled { d.n.next_multiple_of(MOST) } else { 0 };
        4 * of_nets(&nets, packed) + rows * of_nets(&nets, acts)
    })
}
