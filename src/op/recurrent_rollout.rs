//! Collecting experience with a recurrent agent: as `rollout`, with states that go from step to step and from rollout to
//! rollout, and become 0 where an episode ends. A replay ring holds the state before every step as well, from which a
//! sequence drawn later begins (Kapturowski et al. 2019).

use super::hyper;
use super::lib::agent::{Recurrent, RecurrentDefinition};
use super::lib::mlp::ROWS;
use super::lib::nets::Nets;
use super::lib::recurrent::Body;
use super::rollout::{self, RolloutShape, Store, define_steps, run_steps};
use super::{Draw, Shape, gpu, schedule};
use crate::device::{Cx, Kernel, Kind, Limits, Shader};

/// What is fixed when a rollout of a recurrent agent is recorded.
#[derive(Debug, Clone)]
pub struct RecurrentShape {
    /// With nets that have a body.
    pub rollout: RolloutShape,
}

impl RecurrentShape {
    pub(super) fn nets(&self) -> &Nets {
        self.rollout.nets.as_ref().expect("a recurrent agent has nets")
    }

    pub(super) fn body(&self) -> &Body {
        self.nets().body.as_ref().expect("a recurrent agent has a body")
    }

    /// Vector steps before which states are kept: the first of a rollout, or all of a replay ring.
    fn kept(&self) -> usize {
        if let Store::Ring { steps, .. } = self.rollout.store { steps } else { 1 }
    }
}

impl Shape for RecurrentShape {
    fn tiles(&self) -> usize {
        self.rollout.tiles()
    }

    fn scratch_words(&self) -> usize {
        Recurrent::scratch_words(self.nets(), self.body()) + 3 * ROWS * self.rollout.obs()
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::recurrent_rollout::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::recurrent_rollout::scratch(self)
    }

    fn flops(&self) -> f64 {
        self.rollout.flops()
    }

    fn on(&self, kind: Kind) -> bool {
        self.rollout.on(kind)
    }

    fn kernels(&self) -> Vec<Kernel> {
        gpu::recurrent_rollout::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        gpu::recurrent_rollout::scratch(self)
    }

    fn cases() -> Vec<RecurrentShape> {
        super::lib::cases::recurrent_rollout_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        self.rollout.sample(arg, words, draw)
    }
}

crate::op! {
    /// T steps of every environment, as `rollout` writes them: into its own records, or into a replay ring. `first_state` is
    /// `state` as it was before the first step, where the gradient of a rollout begins as well; of a ring, as it was before
    /// the step of each slot. The value of a true final observation comes from the state before the episode ended. The nets
    /// go forward even where they have no say, for their states.
    RecurrentRollout(d: RecurrentShape) = "recurrent_rollout", within 1e-4, run = run {
        read params: f32[d.rollout.params] in -0.7..0.7;
        read hyper: f32[hyper::len(d.rollout.groups)];
        read schedule: f32[schedule::LEN + d.rollout.groups] in 0.2..0.8;
        read normalizer: f32[2, d.rollout.obs()] in 0.5..1.5;
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        update env_state: f32[d.rollout.n, d.rollout.state()];
        update episode_return: f32[d.rollout.n] in 0.0..5.0;
        update episode_step: u32[d.rollout.n];
        update state: f32[d.rollout.n, d.nets().state_len()] in -1.0..1.0;
        update first_state: f32[d.kept(), d.rollout.n, d.nets().state_len()];
        update obs: f32[d.rollout.stored(), d.rollout.n, d.rollout.obs()];
        update next_obs: f32[d.rollout.followed(), d.rollout.n, d.rollout.obs()];
        update action: f32[d.rollout.stored(), d.rollout.n, d.rollout.action()];
        write log_prob: f32[d.rollout.t, d.rollout.judged()];
        write value: f32[d.rollout.t + 1, d.rollout.judged()];
        write bootstrap: f32[d.rollout.t, d.rollout.judged()];
        update reward: f32[d.rollout.stored(), d.rollout.n];
        update ended: u32[d.rollout.stored(), d.rollout.n];
        update finished_return: f32[d.rollout.finished(), d.rollout.n];
        update finished_length: u32[d.rollout.finished(), d.rollout.n];
    }
}

/// The plain definition: that of `rollout`, with an agent that remembers.
fn define(d: &RecurrentShape, a: Args<'_>) {
    let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
    let state = a.state.iter().map(|&x| x.into()).collect();
    if !d.rollout.in_ring() {
        a.first_state.copy_from_slice(a.state);
    }
    let ring = d.rollout.in_ring().then_some(a.first_state);
    let mut agent = RecurrentDefinition { nets: d.nets(), body: d.body(), params: &params, state, ring };
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
        next_obs: a.next_obs,
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
    let state = unsafe { a.state.part(range.clone()) };
    let ring = d.rollout.in_ring().then_some(a.first_state);
    if ring.is_none() {
        // SAFETY: as above
        unsafe { a.first_state.part(range) }.copy_from_slice(state);
    }
    let mut scratch = &mut *cx.scratch;
    let mut agent = Recurrent::new(cx.isa, nets, d.body(), a.params, state, ring, &mut scratch);
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
        next_obs: a.next_obs,
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
