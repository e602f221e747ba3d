//! Launch of `kernels/rollout.cu`.

use super::{SHARED_BYTES, flag, net, policy, word};
use crate::device::{Field, Kernel, Precision};
use crate::env::ActionSpace;
use crate::op::lib::acting::Explore;
use crate::op::lib::mlp::Mlp;
use crate::op::lib::nets::Nets;
use crate::op::lib::policy::Policy;
use crate::op::rollout::{RolloutShape, Store};

/// Lanes of a block with nets, and with few environments; lanes of a block without nets, and blocks that pack.
const THREADS: usize = 256;
const FEW_THREADS: usize = 128;
const RANDOM_THREADS: usize = 128;
const PACK_BLOCKS: usize = 32;

/// Sizes of an agent's nets in a block's memory, in words: `kernels/lib/agent.cuh` and `kernels/lib/agent_bf16.cuh`.
#[derive(Clone, Copy)]
struct Sizes(Precision);

impl Sizes {
    /// What hidden layers are padded to.
    fn unit(self) -> usize {
        if self.0 == Precision::Bf16 { 16 } else { 4 }
    }

    /// `units` of activations for `rows` rows.
    fn units(self, units: usize, rows: usize) -> usize {
        match self.0 {
            Precision::F32 => units.next_multiple_of(4) * (rows + 4),
            Precision::Bf16 => rows * (units.div_ceil(16) * 8 + 4),
        }
    }

    /// Packed parameters of a net.
    fn packed(self, net: &Mlp) -> usize {
        let last = net.hidden.len();
        let layer = |(l, &(input, output, ..)): (usize, &(usize, usize, usize, usize))| match self.0 {
            Precision::F32 => (input.next_multiple_of(4) + 1) * output.next_multiple_of(4),
            Precision::Bf16 => {
                let tiles = if l == last { output.div_ceil(8) } else { 2 * output.div_ceil(16) };
                tiles * (64 * input.div_ceil(16) + 8)
            }
        };
        net.offsets().iter().enumerate().map(layer).sum()
    }

    /// Units of the widest hidden layer.
    fn wide(self, net: &Mlp) -> usize {
        net.hidden.iter().copied().max().unwrap_or(0).next_multiple_of(self.unit())
    }

    /// Activations of a net: two layers, and the outputs.
    fn acts(self, net: &Mlp, rows: usize) -> usize {
        let hidden = if net.hidden.is_empty() { 0 } else { 2 * self.units(self.wide(net), rows) };
        let outputs = net.output.next_multiple_of(if self.0 == Precision::Bf16 { 8 } else { 4 });
        hidden + outputs * (rows + 4)
    }
}

/// Nets that have something to say: none where actions are uniformly random.
fn asked(d: &RolloutShape) -> Option<&Nets> {
    d.nets.as_ref().filter(|_| d.explore != Explore::Uniform)
}

/// Those of them that are asked: nothing judges steps that go to a ring.
fn each<'a>(d: &RolloutShape, nets: &'a Nets) -> impl Iterator<Item = &'a Mlp> {
    std::iter::once(&nets.actor).chain(nets.critic.as_ref().filter(|_| !d.in_ring()))
}

/// Words of a block's activations, as in `kernels/rollout.cu`.
fn acts_words(d: &RolloutShape, nets: &Nets, envs: usize) -> usize {
    let sizes = Sizes(d.precision());
    2 * sizes.units(d.obs(), envs) + each(d, nets).map(|net| sizes.acts(net, envs)).sum::<usize>()
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
    let most = match (d.n, d.precision()) {
        (..=4, Precision::F32) => 4,
        (..=8, Precision::F32) => 8,
        (..=2048, _) => 16,
        (..=4096, _) | (_, Precision::F32) => 32,
        (_, Precision::Bf16) => 64,
    };
    // a tile of the matrix units is 16 rows
    let least = if d.precision() == Precision::Bf16 { 16 } else { 4 };
    let packed = each(d, nets).map(|net| Sizes(d.precision()).packed(net)).sum();
    let sizes = || [64, 32, 16, 8, 4].into_iter().filter(|&envs| (least..=most).contains(&envs));
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
    let (nets, sizes) = (d.nets.as_ref(), Sizes(d.precision()));
    let critic = nets.and_then(|nets| nets.critic.as_ref()).filter(|_| !d.in_ring());
    let squashed = matches!(nets.map(|nets| nets.policy), Some(Policy::Gaussian { squashed: true, .. }));
    let slots = if let Store::Ring { steps, .. } = d.store { steps } else { d.t };
    let words = |name, numbers: &[f32]| Field { name, words: numbers.iter().map(|x| x.to_bits()).collect() };
    let (actions, low, high): (usize, &[f32], &[f32]) = match d.env.spec.action_space {
        ActionSpace::Discrete(n) => (n, &[0.0], &[0.0]),
        ActionSpace::Box { low, high } => (0, low, high),
    };
    vec![
        word("t", d.t),
        word("n", d.n),
        word("limit", d.limit as usize),
        flag("ring", d.in_ring()),
        word("slots", slots),
        word("at", d.at()),
        flag("greedy", matches!(d.explore, Explore::Greedy | Explore::EpsilonGreedy)),
        flag("coin", d.explore == Explore::EpsilonGreedy),
        flag("tempered", d.explore == Explore::Boltzmann),
        flag("store_squashed", squashed && d.in_ring() && d.explore != Explore::Uniform),
        flag("take_squashed", squashed && !d.in_ring()),
        flag("own_units", d.nets.is_none()),
        flag("normalize_obs", d.normalize_obs),
        word("actions", actions),
        word("envs", place.map_or(0, |place| place.envs)),
        word("actor_wide", nets.map_or(0, |nets| sizes.wide(&nets.actor))),
        word("critic_wide", critic.map_or(0, |critic| sizes.wide(critic))),
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
    let bf16 = if d.precision() == Precision::Bf16 && asked(d).is_some() { "_bf16" } else { "" };
    let kernel = |suffix: &str, tiles: usize, threads: usize, shared: usize, place: Option<&Place>| Kernel {
        entry: format!("rollout_{}{bf16}{suffix}", d.env.spec.module),
        tiles: tiles as u32,
        parts: 1,
        threads: threads as u32,
        shared_bytes: 4 * shared as u32,
        shape: fields(d, place),
    };
    let Some(nets) = asked(d) else {
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
    asked(d).map_or(0, |nets| {
        let place = place(d, nets);
        let acts = if place.spilled { place.acts * d.n.div_ceil(place.envs) } else { 0 };
        if place.wide { place.packed + acts } else { 0 }
    })
}
