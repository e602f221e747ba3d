//! Collecting experience with a recurrent agent: as `rollout`, with states that go from step to step and from rollout to
//! rollout, and become 0 where an episode ends.

use super::hyper;
use super::lib::agent::{Recurrent, RecurrentDefinition};
use super::lib::mlp::ROWS;
use super::lib::nets::Nets;
use super::lib::recurrent::Body;
use super::rollout::{self, RolloutShape, Store, define_steps, run_steps};
use super::{Draw, Scatter, Shape, schedule};
use crate::device::Cx;

/// What is fixed when a rollout of a recurrent agent is recorded.
#[derive(Debug, Clone)]
pub struct RecurrentShape {
    /// With nets that have a body; into records of its own.
    pub rollout: RolloutShape,
}

impl RecurrentShape {
    fn nets(&self) -> &Nets {
        self.rollout.nets.as_ref().expect("a recurrent agent has nets")
    }

    fn body(&self) -> &Body {
        self.nets().body.as_ref().expect("a recurrent agent has a body")
    }

    /// The rollout's own sizes: vector steps, environments, words of an observation and of an action.
    fn sizes(&self) -> [usize; 4] {
        let d = &self.rollout;
        assert!(d.store == Store::Rollout, "a recurrent agent has no replay ring");
        [d.t, d.n, d.obs(), d.action()]
    }
}

impl Shape for RecurrentShape {
    fn tiles(&self) -> usize {
        self.rollout.tiles()
    }

    fn scratch_words(&self) -> usize {
        Recurrent::scratch_words(self.nets(), self.body()) + 3 * ROWS * self.rollout.obs()
    }

    fn flops(&self) -> f64 {
        self.rollout.flops()
    }

    fn on_cpu(&self) -> bool {
        self.rollout.on_cpu()
    }

    fn cases() -> Vec<RecurrentShape> {
        super::lib::cases::recurrent_rollout_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        self.rollout.sample(arg, words, draw)
    }
}

crate::op! {
    /// T steps of every environment, as `rollout` writes them. `first_state` is `state` as it was at the beginning, where the
    /// gradient begins as well. The value of a true final observation comes from the state before the episode ended.
    RecurrentRollout(d: RecurrentShape) = "recurrent_rollout", within 1e-4, run = run {
        read params: f32[d.rollout.params] in -0.7..0.7;
        read hyper: f32[hyper::len(d.rollout.groups)];
        read schedule: f32[schedule::LEN + d.rollout.groups] in 0.2..0.8;
        read normalizer: f32[2, d.sizes()[2]] in 0.5..1.5;
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        update env_state: f32[d.sizes()[1], d.rollout.state()];
        update episode_return: f32[d.sizes()[1]] in 0.0..5.0;
        update episode_step: u32[d.sizes()[1]];
        update state: f32[d.sizes()[1], d.nets().state_len()] in -1.0..1.0;
        write first_state: f32[d.sizes()[1], d.nets().state_len()];
        write obs: f32[d.sizes()[0], d.sizes()[1], d.sizes()[2]];
        write action: f32[d.sizes()[0], d.sizes()[1], d.sizes()[3]];
        write log_prob: f32[d.sizes()[0], d.sizes()[1]];
        write value: f32[d.sizes()[0] + 1, d.sizes()[1]];
        write bootstrap: f32[d.sizes()[0], d.sizes()[1]];
        write reward: f32[d.sizes()[0], d.sizes()[1]];
        write ended: u32[d.sizes()[0], d.sizes()[1]];
        write finished_return: f32[d.sizes()[0], d.sizes()[1]];
        write finished_length: u32[d.sizes()[0], d.sizes()[1]];
    }
}

/// The plain definition: that of `rollout`, with an agent that remembers.
fn define(d: &RecurrentShape, a: Args<'_>) {
    a.first_state.copy_from_slice(a.state);
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let state = a.state.iter().map(|&x| x.into()).collect();
    let mut agent = RecurrentDefinition { nets: d.nets(), body: d.body(), params: &params, state };
    let records = rollout::Args {
        params: a.params,
        hyper: a.hyper,
        schedule: a.schedule,
        normalizer: a.normalizer,
        seed: a.seed,
        clock: a.clock,
        env_state: a.env_state,
        episode_return: a.episode_return,
        episode_step: a.episode_step,
        obs: a.obs,
        next_obs: &mut [],
        action: a.action,
        log_prob: a.log_prob,
        value: a.value,
        bootstrap: a.bootstrap,
        reward: a.reward,
        ended: a.ended,
        finished_return: a.finished_return,
        finished_length: a.finished_length,
    };
    define_steps(&d.rollout, records, Some(&mut agent));
    a.state.iter_mut().zip(&agent.state).for_each(|(to, &from)| *to = from as f32);
}

fn run(d: &RecurrentShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let (nets, len) = (d.nets(), d.nets().state_len());
    let envs = cx.tile * ROWS..((cx.tile + 1) * ROWS).min(d.rollout.n);
    let range = envs.start * len..envs.end * len;
    // SAFETY: every tile has its own environments
    let (state, first_state) = unsafe { (a.state.part(range.clone()), a.first_state.part(range)) };
    first_state.copy_from_slice(state);
    let mut scratch = &mut *cx.scratch;
    let mut agent = Recurrent::new(nets, d.body(), a.params, state, &mut scratch);
    let records = rollout::Tile {
        params: a.params,
        hyper: a.hyper,
        schedule: a.schedule,
        normalizer: a.normalizer,
        seed: a.seed,
        clock: a.clock,
        env_state: a.env_state,
        episode_return: a.episode_return,
        episode_step: a.episode_step,
        obs: a.obs,
        // SAFETY: nothing lies there
        next_obs: unsafe { Scatter::new(std::ptr::NonNull::dangling().as_ptr(), 0) },
        action: a.action,
        log_prob: a.log_prob,
        value: a.value,
        bootstrap: a.bootstrap,
        reward: a.reward,
        ended: a.ended,
        finished_return: a.finished_return,
        finished_length: a.finished_length,
    };
    run_steps(&d.rollout, cx.isa, cx.tile, records, Some(&mut agent), scratch);
    agent.store(state);
}
