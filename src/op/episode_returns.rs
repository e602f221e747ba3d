//! A memory of whole episodes for self-imitation (Oh et al. 2018): the steps of the last rollout go to a ring, and every
//! row of an episode that has ended gets its return, also rows of earlier rollouts.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::envs::TRUNCATED;
use crate::op::lib::{tree, trig};
use crate::op::{Draw, Shape, advantage, hyper};

/// Sizes and choices of [`EpisodeReturns`].
#[derive(Debug, Clone)]
pub struct EpisodeShape {
    /// Vector steps of the rollout, environments, and vector steps of the ring: `T`, `N`, `C`, at least `T`.
    pub t: usize,
    pub n: usize,
    pub c: usize,
    /// Words of an observation and of an action.
    pub obs: usize,
    pub action: usize,
    /// Parameter groups.
    pub groups: usize,
    /// New rows have the largest priority there is; otherwise all have the same.
    pub prioritized: bool,
}

impl EpisodeShape {
    /// Rows of the ring.
    pub fn rows(&self) -> usize {
        self.c * self.n
    }
}

impl Shape for EpisodeShape {
    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::episode_returns::kernels(self)
    }

    fn shaders(&self, _: &Limits) -> Vec<Shader> {
        super::shaders::episode_returns::shaders(self)
    }

    fn cases() -> Vec<Self> {
        let case = |t, n, c, obs, action, prioritized| EpisodeShape { t, n, c, obs, action, groups: 1, prioritized };
        vec![
            case(5, 3, 17, 4, 1, false),
            case(8, 1, 8, 2, 1, true),
            case(1, 5, 23, 3, 2, true),
            EpisodeShape { groups: 2, ..case(16, 70, 41, 1, 3, false) },
            case(30, 300, 64, 2, 1, true),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            // a first rollout, a ring that is just full, and one that has gone round
            "clock" => words[hyper::CLOCK_STEP] = [self.t, self.c, 3 * self.c + 1][draw.below(3) as usize] as u32,
            // episodes of several lengths: none of some environments ends
            "ended" | "ring_ended" => {
                let rare = 2 + draw.below(12);
                words.iter_mut().for_each(|word| *word = (1 + draw.below(3)) * u32::from(draw.below(rare) == 0));
            }
            "tree" => {
                let levels = tree::levels(self.rows());
                let tree: &mut [f32] = bytemuck::cast_slice_mut(words);
                tree[..self.rows()].iter_mut().for_each(|leaf| *leaf = draw.range(0.0, 2.0));
                tree::rebuild(tree, &levels);
            }
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Runs behind `log`, so the clock has counted the rollout; vector step s lies in slot s mod C. Rewards are kept as
    /// the agent sees them (`clip(reward * scale * REWARD_SCALE)`, the scale as `advantage` left it). A return is their
    /// discounted sum up to the end of the episode, and behind a truncation the value of the true final observation, as
    /// the rollout knew it. Rows of episodes that go on have no return, and the priority 0, until they end; the others
    /// get `max(top, 1)`, or 1 where rows have no priorities.
    EpisodeReturns(d: EpisodeShape) = "episode_returns", within 1e-5, run = define {
        read clock: u32[hyper::CLOCK_LEN];
        read hyper: f32[hyper::len(d.groups)];
        read reward_moments: f32[4] in 0.5..1.5;
        read obs: f32[d.t, d.n, d.obs] in -2.0..2.0;
        read action: f32[d.t, d.n, d.action] in -1.0..1.0;
        read reward: f32[d.t, d.n] in -2.0..2.0;
        read ended: u32[d.t, d.n];
        read bootstrap: f32[d.t, d.n] in -3.0..3.0;
        read top: f32[1] in 0.5..2.0;
        update ring_obs: f32[d.c, d.n, d.obs] in -2.0..2.0;
        update ring_action: f32[d.c, d.n, d.action] in -1.0..1.0;
        update ring_reward: f32[d.c, d.n] in -1.0..1.0;
        update ring_ended: u32[d.c, d.n];
        update ring_returns: f32[d.c, d.n] in -3.0..3.0;
        update tree: f32[tree::len(d.rows())];
    }
}

fn define(d: &EpisodeShape, a: Args) {
    let now = a.clock[hyper::CLOCK_STEP] as usize;
    let slot = |back: usize| (now - 1 - back) % d.c;
    let scale = a.reward_moments[advantage::SCALE] * a.hyper[hyper::REWARD_SCALE];
    let (low, high) = (a.hyper[hyper::REWARD_CLIP_LOW], a.hyper[hyper::REWARD_CLIP_HIGH]);
    for back in 0..d.t {
        let (from, to) = ((d.t - 1 - back) * d.n, slot(back) * d.n);
        a.ring_obs[to * d.obs..][..d.n * d.obs].copy_from_slice(&a.obs[from * d.obs..][..d.n * d.obs]);
        a.ring_action[to * d.action..][..d.n * d.action]
            .copy_from_slice(&a.action[from * d.action..][..d.n * d.action]);
        a.ring_ended[to..to + d.n].copy_from_slice(&a.ended[from..from + d.n]);
        for n in 0..d.n {
            a.ring_reward[to + n] = trig::clamp(a.reward[from + n] * scale, low, high);
        }
        a.tree[to..to + d.n].fill(0.0);
    }
    let priority = if d.prioritized && a.top[0] > 1.0 { a.top[0] } else { 1.0 };
    let gamma = f64::from(a.hyper[hyper::GAMMA]);
    for n in 0..d.n {
        // the return behind a step, once the end of its episode has been met
        let mut behind = None;
        for back in 0..now.min(d.c) {
            let row = slot(back) * d.n + n;
            let earlier = back >= d.t;
            // what ended in an earlier rollout is known, and so is that no episode has ended in this one
            if earlier && (a.ring_ended[row] != 0 || behind.is_none()) {
                break;
            }
            behind = match a.ring_ended[row] {
                0 => behind,
                TRUNCATED => Some(f64::from(a.bootstrap[(d.t - 1 - back) * d.n + n])),
                _ => Some(0.0),
            };
            if let Some(next) = behind {
                let total = f64::from(a.ring_reward[row]) + gamma * next;
                a.ring_returns[row] = total as f32;
                a.tree[row] = priority;
                behind = Some(total);
            }
        }
    }
    tree::rebuild(a.tree, &tree::levels(d.rows()));
}
