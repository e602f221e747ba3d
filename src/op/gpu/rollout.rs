//! Launch of `kernels/rollout.cu`.

use super::{SHARED_BYTES, flag, net, policy, word};
use crate::device::{Field, Kernel};
use crate::env::ActionSpace;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::rollout::RolloutShape;

/// Lanes of a block with nets, and with few environments; lanes of a block without nets, and blocks that pack.
const THREADS: usize = 256;
const FEW_THREADS: usize = 128;
const RANDOM_THREADS: usize = 128;
const PACK_BLOCKS: usize = 32;

const fn whole4(words: usize) -> usize {
    words.next_multiple_of(4)
}

/// Packed words of a net, as in `kernels/lib/agent.cuh`.
fn packed_words(net: &Mlp) -> usize {
    net.offsets().iter().map(|&(input, output, ..)| (whole4(input) + 1) * whole4(output)).sum()
}

/// Units of the widest hidden layer.
fn wide(net: &Mlp) -> usize {
    whole4(net.hidden.iter().copied().max().unwrap_or(0))
}

/// Words of a block's activations, as in `kernels/rollout.cu`.
fn acts_words(d: &RolloutShape, nets: &Nets, envs: usize) -> usize {
    let hidden = wide(&nets.actor) + nets.critic.as_ref().map_or(0, wide);
    (envs + 4) * (2 * whole4(d.obs()) + 2 * hidden + whole4(nets.actor.output) + 4)
}

/// How an agent's rollout is cut into blocks, and where its weights and activations lie.
struct Place {
    /// Environments of a block.
    envs: usize,
    packed: usize,
    acts: usize,
    /// Weights stay in scratch, and activations too.
    wide: bool,
    spilled: bool,
}

fn place(d: &RolloutShape, nets: &Nets) -> Place {
    // few environments want the shortest step, many the fewest reads of weights per environment
    let most = match d.n {
        ..=4 => 4,
        ..=8 => 8,
        ..=2048 => 16,
        _ => 32,
    };
    let packed = packed_words(&nets.actor) + nets.critic.as_ref().map_or(0, packed_words);
    let sizes = || [32, 16, 8, 4].into_iter().filter(|&envs| envs <= most);
    let fits = |words: usize| 4 * words <= SHARED_BYTES;
    let at = |envs, wide, spilled| Place { envs, packed, acts: acts_words(d, nets, envs), wide, spilled };
    let shared = sizes().find(|&envs| fits(packed + acts_words(d, nets, envs)));
    let wide = sizes().find(|&envs| fits(acts_words(d, nets, envs)));
    match (shared, wide) {
        (Some(envs), _) => at(envs, false, false),
        (None, Some(envs)) => at(envs, true, false),
        (None, None) => at(most, true, true),
    }
}

fn fields(d: &RolloutShape, place: Option<&Place>) -> Vec<Field> {
    let nets = d.nets.as_ref();
    let critic = nets.and_then(|nets| nets.critic.as_ref());
    let words = |name, numbers: &[f32]| Field { name, words: numbers.iter().map(|x| x.to_bits()).collect() };
    let (actions, low, high): (usize, &[f32], &[f32]) = match d.env.spec.action_space {
        ActionSpace::Discrete(n) => (n, &[0.0], &[0.0]),
        ActionSpace::Box { low, high } => (0, low, high),
    };
    vec![
        word("t", d.t),
        word("n", d.n),
        word("limit", d.limit as usize),
        flag("greedy", d.greedy),
        flag("normalize_obs", d.normalize_obs),
        word("actions", actions),
        word("envs", place.map_or(0, |place| place.envs)),
        word("actor_wide", nets.map_or(0, |nets| wide(&nets.actor))),
        word("critic_wide", critic.map_or(0, wide)),
        flag("spilled", place.is_some_and(|place| place.spilled)),
        words("low", low),
        words("high", high),
        policy("policy", nets.map(|nets| nets.policy)),
        net("actor", nets.map(|nets| &nets.actor)),
        net("critic", critic),
        words("env", d.env.constants()),
    ]
}

pub fn kernels(d: &RolloutShape) -> Vec<Kernel> {
    let kernel = |suffix: &str, tiles: usize, threads: usize, shared: usize, place: Option<&Place>| Kernel {
        entry: format!("rollout_{}{suffix}", d.env.spec.module),
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shared_bytes: 4 * shared as u32,
        shape: fields(d, place),
    };
    let Some(nets) = &d.nets else {
        return vec![kernel("_random", d.n.div_ceil(RANDOM_THREADS), RANDOM_THREADS, 0, None)];
    };
    let place = place(d, nets);
    let (tiles, threads) = (d.n.div_ceil(place.envs), if place.envs == 4 { FEW_THREADS } else { THREADS });
    if !place.wide {
        return vec![kernel("", tiles, threads, place.packed + place.acts, Some(&place))];
    }
    let acts = if place.spilled { 0 } else { place.acts };
    vec![kernel("_pack", PACK_BLOCKS, THREADS, 0, Some(&place)), kernel("_wide", tiles, THREADS, acts, Some(&place))]
}

/// Packed weights, then the activations of every block, where they do not fit in shared memory.
pub fn scratch(d: &RolloutShape) -> usize {
    d.nets.as_ref().map_or(0, |nets| {
        let place = place(d, nets);
        let acts = if place.spilled { place.acts * d.n.div_ceil(place.envs) } else { 0 };
        if place.wide { place.packed + acts } else { 0 }
    })
}
