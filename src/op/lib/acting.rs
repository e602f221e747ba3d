//! Actions of 16 environments at a time: sampled from a policy, or explored, and what the environment makes of them.

use super::policy::{LANES, Lanes, OUTPUTS, Policy};
use super::rng::{Purpose, philox, unit};
use super::trig;
use crate::env::ActionSpace;

/// Most words of an action, rounded up to whole Philox blocks.
const ACTION_WORDS: usize = 32;

/// How actions come from the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Explore {
    /// Sampled from it.
    Sample,
    /// The most likely one.
    Greedy,
    /// The most likely one, or with probability `schedule[EXPLORE]` any; one coin for each environment.
    EpsilonGreedy,
    /// Sampled from logits over the temperature `schedule[EXPLORE]`.
    Boltzmann,
    /// Any, whatever the policy says.
    Uniform,
}

/// What decides an action, beside the nets' outputs.
#[derive(Clone, Copy)]
pub struct Acting<'a> {
    /// Without one actions are uniformly random, in the environment's own units.
    pub policy: Option<Policy>,
    pub explore: Explore,
    pub space: &'a ActionSpace,
    /// A squashed action is stored squashed.
    pub stores_squashed: bool,
}

/// An action as the environment takes it: squashed, and from [-1, 1] to the range of the space.
#[inline(always)]
pub fn to_env(space: &ActionSpace, squashed: bool, word: usize, x: f32) -> f32 {
    match *space {
        ActionSpace::Discrete(_) => x,
        ActionSpace::Box { low, high } => {
            let x = if squashed { trig::tanh(x) } else { x };
            low[word] + (high[word] - low[word]) * (0.5 * (x + 1.0))
        }
    }
}

/// A uniformly random action, in the environment's units or, where nets are to learn from it, in [-1, 1].
#[inline(always)]
pub fn random_action(space: &ActionSpace, has_nets: bool, word: usize, u: f32) -> f32 {
    match *space {
        ActionSpace::Discrete(n) => (u * n as f32).floor(),
        ActionSpace::Box { .. } if has_nets => 2.0 * u - 1.0,
        ActionSpace::Box { low, high } => low[word] + (high[word] - low[word]) * u,
    }
}

/// Arrays of 16 lanes that every step writes before it reads them.
pub struct Work {
    pub out: [Lanes; OUTPUTS],
    words: [[u32; LANES]; ACTION_WORDS],
    pub action: [Lanes; ACTION_WORDS],
    pub log_prob: Lanes,
}

impl Work {
    #[allow(clippy::new_without_default)] // there is nothing that it would be the default of
    pub fn new() -> Work {
        Work {
            out: [[0.0; LANES]; OUTPUTS],
            words: [[0; LANES]; ACTION_WORDS],
            action: [[0.0; LANES]; ACTION_WORDS],
            log_prob: [0.0; LANES],
        }
    }
}

crate::per_isa! {
    /// Actions of 16 environments, as stored in `w.action`, and their log-probabilities where the policy was asked.
    /// `at` is (first environment, step), `explore` the number that the schedule gives.
    pub fn act(d: Acting, at: [u32; 2], key: [u32; 2], explore: f32, w: &mut Work) {
        let len = match d.space {
            ActionSpace::Discrete(_) => 1,
            ActionSpace::Box { low, .. } => low.len(),
        };
        let policy = d.policy.filter(|_| d.explore != Explore::Uniform);
        let blocks = policy.map_or(len.div_ceil(4), Policy::blocks);
        for block in 0..blocks {
            let mut drawn = [[0; LANES]; 4];
            for i in 0..LANES {
                let four = philox([at[0] + i as u32, at[1], Purpose::Action as u32, block as u32], key);
                for w in 0..4 {
                    drawn[w][i] = four[w];
                }
            }
            w.words[block * 4..][..4].copy_from_slice(&drawn);
        }
        let Some(policy) = policy else {
            for (j, action) in w.action[..len].iter_mut().enumerate() {
                for i in 0..LANES {
                    action[i] = random_action(d.space, d.policy.is_some(), j, unit(w.words[j][i]));
                }
            }
            return;
        };
        if d.explore == Explore::Boltzmann {
            for logits in &mut w.out[..policy.outputs()] {
                logits.iter_mut().for_each(|logit| *logit /= explore);
            }
        }
        let greedy = matches!(d.explore, Explore::Greedy | Explore::EpsilonGreedy);
        w.log_prob = policy.sample(&w.out, &w.words, greedy, &mut w.action);
        if d.explore == Explore::EpsilonGreedy {
            for i in 0..LANES {
                let any = random_action(d.space, true, 0, unit(w.words[1][i]));
                w.action[0][i] = if unit(w.words[0][i]) < explore { any } else { w.action[0][i] };
            }
        }
        if d.stores_squashed {
            for words in &mut w.action[..len] {
                words.iter_mut().for_each(|x| *x = trig::tanh(*x));
            }
        }
    }
}
