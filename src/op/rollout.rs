//! Collecting experience: T steps of N environments in one launch, each step policy forward, sample, environment step,
//! auto-reset, store. Environments go in tiles of up to 64 that never meet, so no step waits for another tile.

use super::hyper::{self, CLOCK_STEP};
pub use super::lib::acting::Explore;
use super::lib::acting::{Acting, Work, act, random_action, to_env};
use super::lib::agent::{self, Agent, Define};
use super::lib::envs::{Block, EnvFns, TERMINATED, TRUNCATED};
use super::lib::mlp::ROWS;
use super::lib::nets::{Nets, cut, normalize};
use super::lib::policy::{LANES, LOG_STD, Lanes, Policy};
use super::lib::rng::{Purpose, philox, unit};
use super::lib::trig;
use super::{Draw, Shape, schedule};
use crate::device::cpu::Isa;
use crate::device::{Cx, Kernel, Kind, Limits, Precision, Shader};

/// Where the steps go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// Records of this rollout alone, `[T, N, ..]`, with log-probabilities and values.
    Rollout,
    /// A replay ring of `steps` vector steps: the session's step number s lies in slot `s % steps`, with the observation
    /// after it. The rollout begins `at` vector steps after the clock; finished episodes lie in `[of, N]` from there on.
    Ring { steps: usize, at: usize, of: usize },
}

/// What is fixed when a rollout is recorded.
#[derive(Debug, Clone)]
pub struct RolloutShape {
    pub env: EnvFns,
    /// Without nets actions are uniformly random.
    pub nets: Option<Nets>,
    /// All parameters of the session; those of the nets come first.
    pub params: usize,
    /// Parameter groups of the session.
    pub groups: usize,
    pub explore: Explore,
    pub store: Store,
    /// Vector steps, `T`, and environments, `N`.
    pub t: usize,
    pub n: usize,
    /// Steps after which an episode is truncated.
    pub limit: u32,
    pub normalize_obs: bool,
}

/// Blocks of 16 environments in a tile.
const BLOCKS: usize = ROWS / LANES;

impl RolloutShape {
    /// Records of `t` steps of `n` environments with Gymnasium's time limit; actions sampled, observations as they are.
    pub fn new(env: EnvFns, nets: Option<Nets>, t: usize, n: usize) -> RolloutShape {
        RolloutShape {
            env,
            params: nets.as_ref().map_or(0, Nets::len),
            groups: nets.as_ref().map_or(1, Nets::groups),
            nets,
            explore: Explore::Sample,
            store: Store::Rollout,
            t,
            n,
            limit: env.spec.max_episode_steps,
            normalize_obs: false,
        }
    }
    pub fn obs(&self) -> usize {
        self.env.spec.obs_len
    }
    pub fn state(&self) -> usize {
        self.env.spec.state_len
    }
    pub fn action(&self) -> usize {
        self.env.action_len()
    }
    /// Whether steps go to a replay ring.
    pub fn in_ring(&self) -> bool {
        self.store != Store::Rollout
    }
    /// Environments with log-probabilities and values: none where nothing judges actions.
    pub(super) fn judged(&self) -> usize {
        if self.nets.is_some() && !self.in_ring() { self.n } else { 0 }
    }
    /// Vector steps that there is room for: of records, of observations after a step, of finished episodes.
    pub(super) fn stored(&self) -> usize {
        if let Store::Ring { steps, .. } = self.store { steps } else { self.t }
    }
    pub(super) fn followed(&self) -> usize {
        if let Store::Ring { steps, .. } = self.store { steps } else { 0 }
    }
    pub(super) fn finished(&self) -> usize {
        if let Store::Ring { of, .. } = self.store { of } else { self.t }
    }
    /// The first vector step, counted from the clock and in the rows of finished episodes.
    pub fn at(&self) -> usize {
        if let Store::Ring { at, .. } = self.store { at } else { 0 }
    }
    /// Where vector step `t` of this rollout lies in the records; `step` is its number in the session.
    fn slot(&self, t: usize, step: u32) -> usize {
        if let Store::Ring { steps, .. } = self.store { step as usize % steps } else { t }
    }
    /// Of the products of its nets.
    pub fn precision(&self) -> Precision {
        self.nets.as_ref().map_or(Precision::F32, Nets::precision)
    }
    fn policy(&self) -> Option<Policy> {
        self.nets.as_ref().map(|nets| nets.policy)
    }
    fn squashed(&self) -> bool {
        matches!(self.policy(), Some(Policy::Gaussian { squashed: true, .. }))
    }
    /// Whether an action is squashed when it is stored, not when the environment takes it: a critic is to see it so.
    fn stores_squashed(&self) -> bool {
        self.squashed() && self.in_ring()
    }
    /// Whether the nets have nothing to say.
    fn is_blind(&self) -> bool {
        self.nets.is_none() || self.explore == Explore::Uniform
    }
}

impl Shape for RolloutShape {
    fn tiles(&self) -> usize {
        self.n.div_ceil(ROWS)
    }

    fn scratch_words(&self) -> usize {
        self.nets.as_ref().map_or(0, Nets::packed_len) + 3 * ROWS * self.obs()
    }

    fn flops(&self) -> f64 {
        (self.t * self.n) as f64 * (2.0 * self.nets.as_ref().map_or(0, Nets::madds) as f64 + 100.0)
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::rollout::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::rollout::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::rollout::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::rollout::scratch(self)
    }

    fn on(&self, kind: Kind) -> bool {
        match kind {
            Kind::Cpu => self.env.has_defaults(),
            Kind::Cuda => true,
            Kind::Wgpu => self.precision() == Precision::F32,
        }
    }

    // a sum that falls on the other side of a tie moves an activation by 2^-9 of itself
    fn tolerance(&self, declared: f64) -> f64 {
        if self.precision() == Precision::F32 { declared } else { 100.0 * declared }
    }

    fn cases() -> Vec<RolloutShape> {
        super::lib::cases::rollout_shapes()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            "env_state" => {
                for (n, state) in words.chunks_exact_mut(self.state()).enumerate() {
                    let mut row = vec![0.0; state.len()];
                    self.env.plain_reset(&mut row, [draw.word(), 1], n as u32, 3);
                    // one in three is somewhere else: about to end, or at a bound
                    let far = draw.below(3) == 0;
                    for (to, from) in state.iter_mut().zip(row) {
                        let most = [0.1, 1.0, 10.0, 40.0][draw.below(4) as usize];
                        *to = (from + if far { draw.range(-most, most) } else { 0.0 }).to_bits();
                    }
                }
            }
            // one environment in three is at its time limit, in this step or in the next
            "episode_step" => {
                let (limit, near) = (self.limit, self.limit - 1);
                words.iter_mut().for_each(|word| {
                    *word = if draw.below(3) == 0 { near - draw.below(2) } else { draw.below(limit / 2) };
                });
            }
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// T steps of every environment. `value[T]` is the value of what the agent sees after the last step; `bootstrap` is
    /// the value of the true final observation where an episode was truncated, 0 elsewhere. Observations and rewards are
    /// stored raw; the nets see normalised observations. What goes to a replay ring has no log-probabilities and no
    /// values, but `next_obs`, the observation after the step, the true final one where the episode ended; squashed
    /// actions are stored squashed there. Random actions without nets are stored in the environment's own units.
    Rollout(d: RolloutShape) = "rollout", within 1e-4, run = run {
        read params: f32[d.params] in -0.7..0.7;
        read hyper: f32[hyper::len(d.groups)];
        read schedule: f32[schedule::LEN + d.groups] in 0.2..0.8;
        read normalizer: f32[2, d.obs()] in 0.5..1.5;
        read seed: u32[2] in 0.0..1e6;
        read clock: u32[hyper::CLOCK_LEN] in 0.0..1000.0;
        update env_state: f32[d.n, d.state()];
        update episode_return: f32[d.n] in 0.0..5.0;
        update episode_step: u32[d.n];
        update obs: f32[d.stored(), d.n, d.obs()];
        update next_obs: f32[d.followed(), d.n, d.obs()];
        update action: f32[d.stored(), d.n, d.action()];
        write log_prob: f32[d.t, d.judged()];
        write value: f32[d.t + 1, d.judged()];
        write bootstrap: f32[d.t, d.judged()];
        update reward: f32[d.stored(), d.n];
        update ended: u32[d.stored(), d.n];
        update finished_return: f32[d.finished(), d.n];
        update finished_length: u32[d.finished(), d.n];
    }
}

/// The plain definition: environments one by one, nets in f64.
fn define(d: &RolloutShape, a: Args<'_>) {
    match &d.nets {
        Some(nets) => {
            let params: Vec<f64> = a.params.iter().map(|&p| p.into()).collect();
            define_steps(d, a, Some(&mut agent::Definition { nets, params: &params }));
        }
        None => define_steps(d, a, None::<&mut agent::Definition<'_>>),
    }
}

/// The definition of a rollout with any kind of agent.
pub(super) fn define_steps(d: &RolloutShape, a: Args<'_>, mut agent: Option<&mut impl Define>) {
    let (o, k, len) = (d.obs(), d.state(), d.action());
    let key = [a.seed[0], a.seed[1]];
    let clip = (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]);
    let space = &d.env.spec.action_space;
    let see = |obs: &[f32]| -> Vec<f64> {
        let seen =
            |(i, &x): (usize, &f32)| f64::from(if d.normalize_obs { normalize(x, i, a.normalizer, clip) } else { x });
        obs.iter().enumerate().map(seen).collect()
    };
    let explore = a.schedule[schedule::EXPLORE];
    let judged = d.judged() > 0;
    for n in 0..d.n {
        let state = &mut a.env_state[n * k..(n + 1) * k];
        let mut obs = vec![0.0; o];
        for t in 0..d.t {
            let step = a.clock[CLOCK_STEP] + (d.at() + t) as u32;
            let at = d.slot(t, step) * d.n + n;
            d.env.plain_observe(state, &mut obs);
            a.obs[at * o..][..o].copy_from_slice(&obs);
            agent.iter_mut().for_each(|agent| agent.keep(n, at));
            let (mut out, value) = agent.as_mut().map_or((Vec::new(), 0.0), |agent| agent.act(n, &see(&obs)));
            if judged {
                a.value[at] = value as f32;
            }

            let word = |w: usize| unit(philox([n as u32, step, Purpose::Action as u32, (w / 4) as u32], key)[w % 4]);
            let action = &mut a.action[at * len..][..len];
            match d.policy() {
                _ if d.is_blind() => {
                    (0..len).for_each(|i| action[i] = random_action(space, d.nets.is_some(), i, word(i)));
                }
                None => unreachable!("without nets actions are random"),
                Some(Policy::Categorical { n }) => {
                    if d.explore == Explore::Boltzmann {
                        out[..n].iter_mut().for_each(|logit| *logit /= f64::from(explore));
                    }
                    let best = (0..n).max_by(|&i, &j| out[i].total_cmp(&out[j]).then(j.cmp(&i))).unwrap_or(0);
                    let top = out[best];
                    let sum: f64 = out[..n].iter().map(|l| (l - top).exp()).sum();
                    let passed = |j: usize| f64::from(word(0)) > out[..=j].iter().map(|l| (l - top).exp() / sum).sum();
                    action[0] = match d.explore {
                        Explore::Greedy => best as f32,
                        Explore::EpsilonGreedy if word(0) < explore => random_action(space, true, 0, word(1)),
                        Explore::EpsilonGreedy => best as f32,
                        _ => (0..n - 1).filter(|&j| passed(j)).count() as f32,
                    };
                }
                Some(Policy::Gaussian { n, .. }) => {
                    for i in 0..n {
                        let (u, v) = (f64::from(word(i & !1)), f64::from(word((i & !1) + 1)) * std::f64::consts::TAU);
                        let normal = (-2.0 * u.ln()).sqrt() * if i % 2 == 0 { v.cos() } else { v.sin() };
                        let std = out[n + i].clamp(LOG_STD.0.into(), LOG_STD.1.into()).exp();
                        action[i] = (out[i] + if d.explore == Explore::Greedy { 0.0 } else { std * normal }) as f32;
                    }
                    if d.stores_squashed() {
                        action.iter_mut().for_each(|x| *x = trig::tanh(*x));
                    }
                }
            }
            if let (Some(nets), true) = (&d.nets, judged) {
                a.log_prob[at] = nets.policy.define(&out, action).0 as f32;
            }

            let squash = d.squashed() && !d.in_ring();
            let taken: Vec<f32> = match d.nets {
                None => action.to_vec(),
                Some(_) => action.iter().enumerate().map(|(i, &x)| to_env(space, squash, i, x)).collect(),
            };
            let (reward, terminated) = d.env.plain_step(state, &taken);
            a.reward[at] = reward;
            a.episode_return[n] += reward;
            a.episode_step[n] += 1;
            let truncated = a.episode_step[n] >= d.limit;
            let ended = u32::from(terminated) * TERMINATED + u32::from(truncated) * TRUNCATED;
            a.ended[at] = ended;
            d.env.plain_observe(state, &mut obs);
            if d.in_ring() {
                a.next_obs[at * o..][..o].copy_from_slice(&obs);
            }
            if judged {
                let value = |agent: &mut &mut _| Define::value(*agent, n, &see(&obs));
                a.bootstrap[at] = if ended == TRUNCATED { agent.as_mut().map_or(0.0, value) as f32 } else { 0.0 };
            }
            let at = (d.at() + t) * d.n + n;
            (a.finished_return[at], a.finished_length[at]) = (f32::NAN, 0);
            if ended != 0 {
                (a.finished_return[at], a.finished_length[at]) = (a.episode_return[n], a.episode_step[n]);
                (a.episode_return[n], a.episode_step[n]) = (0.0, 0);
                d.env.plain_reset(state, key, n as u32, step + 1);
                agent.iter_mut().for_each(|agent| agent.forget(n));
            }
        }
        if let (true, Some(agent)) = (judged, &mut agent) {
            d.env.plain_observe(state, &mut obs);
            a.value[d.t * d.n + n] = agent.value(n, &see(&obs)) as f32;
        }
    }
}

/// What of the environments of a tile lives from step to step.
struct Envs {
    state: [[Lanes; 16]; BLOCKS],
    steps: [[u32; LANES]; BLOCKS],
    returns: [Lanes; BLOCKS],
}

fn run(d: &RolloutShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    let mut scratch = &mut *cx.scratch;
    let nets = d.nets.as_ref().filter(|_| !d.is_blind());
    let mut agent = nets.map(|nets| agent::FeedForward::new(cx.isa, nets, a.params, &mut scratch));
    run_steps(d, cx.isa, cx.tile, a, agent.as_mut(), scratch);
}

/// One tile of a rollout with any kind of agent.
#[inline(always)]
pub(super) fn run_steps(
    d: &RolloutShape,
    isa: Isa,
    tile: usize,
    a: Tile<'_>,
    mut agent: Option<&mut impl Agent>,
    mut scratch: &mut [f32],
) {
    assert!(d.on(Kind::Cpu), "the fast variant has the constants of its environment folded in");
    let (o, k, len) = (d.obs(), d.state(), d.action());
    let first = tile * ROWS;
    let envs = ROWS.min(d.n - first);
    let key = [a.seed[0], a.seed[1]];
    let judged = d.judged() > 0;
    let seen = cut(&mut scratch, ROWS * o);
    let next = cut(&mut scratch, ROWS * o);
    let last = cut(&mut scratch, ROWS * o);
    let see = Seen { d, normalizer: a.normalizer, clip: (a.hyper[hyper::OBS_CLIP_LOW], a.hyper[hyper::OBS_CLIP_HIGH]) };
    // SAFETY: every tile has its own environments, here and below
    let (env_state, env_return, env_step) = unsafe {
        (
            a.env_state.part(first * k..(first + envs) * k),
            a.episode_return.part(first..first + envs),
            a.episode_step.part(first..first + envs),
        )
    };
    let mut live =
        Envs { state: [[[0.0; LANES]; 16]; BLOCKS], steps: [[0; LANES]; BLOCKS], returns: [[0.0; LANES]; BLOCKS] };
    for n in 0..envs {
        let (b, i) = (n / LANES, n % LANES);
        for j in 0..k {
            live.state[b][j][i] = env_state[n * k + j];
        }
        live.steps[b][i] = env_step[n];
        live.returns[b][i] = env_return[n];
        d.env.plain_observe(&env_state[n * k..(n + 1) * k], &mut next[n * o..(n + 1) * o]);
    }

    let acting = Acting {
        policy: d.policy(),
        explore: d.explore,
        space: &d.env.spec.action_space,
        stores_squashed: d.stores_squashed(),
    };
    let mut w = Work::new();
    for t in 0..d.t {
        let step = a.clock[CLOCK_STEP] + (d.at() + t) as u32;
        let at = d.slot(t, step) * d.n + first;
        let rows = if judged { at..at + envs } else { 0..0 };
        // SAFETY: as above
        let (obs, value, log_prob, bootstrap) = unsafe {
            (
                a.obs.part(at * o..(at + envs) * o),
                a.value.part(rows.clone()),
                a.log_prob.part(rows.clone()),
                a.bootstrap.part(rows),
            )
        };
        obs.copy_from_slice(&next[..envs * o]);
        bootstrap.fill(0.0);
        if let Some(agent) = &mut agent {
            agent.keep(at, envs);
            agent.act(isa, see.rows(obs, seen, envs), envs, value);
        }
        for b in 0..envs.div_ceil(LANES) {
            let n = first + b * LANES;
            let lanes = LANES.min(envs - b * LANES);
            if let Some(agent) = &agent {
                agent.policy(b * LANES, &mut w.out);
            }
            act(isa, acting, [n as u32, step], key, a.schedule[schedule::EXPLORE], &mut w);
            if judged {
                put(&mut log_prob[b * LANES..][..lanes], &w.log_prob);
            }
            let at = at + b * LANES;
            // SAFETY: as above
            let stored = unsafe { a.action.part(at * len..(at + lanes) * len) };
            if len == 1 {
                put(stored, &w.action[0]);
            } else {
                for (i, row) in stored.chunks_exact_mut(len).enumerate() {
                    row.iter_mut().zip(&w.action).for_each(|(to, from)| *to = from[i]);
                }
            }
            if d.nets.is_some() {
                let squash = d.squashed() && !d.in_ring();
                for (j, words) in w.action[..len].iter_mut().enumerate() {
                    words.iter_mut().for_each(|x| *x = to_env(&d.env.spec.action_space, squash, j, *x));
                }
            }
            let (mut reward, mut ended, mut cut_any) = ([0.0; LANES], [0; LANES], false);
            let (mut finished_return, mut finished_length) = ([0.0; LANES], [0; LANES]);
            (d.env.step)(
                isa,
                Block {
                    state: &mut live.state[b],
                    steps: &mut live.steps[b],
                    returns: &mut live.returns[b],
                    action: &w.action,
                    reward: &mut reward,
                    ended: &mut ended,
                    episode_return: &mut finished_return,
                    episode_length: &mut finished_length,
                    obs: &mut next[b * LANES * o..][..LANES * o],
                    final_obs: &mut last[..LANES * o],
                    keep_final: d.in_ring(),
                    cut: &mut cut_any,
                    first: n as u32,
                    step: step + 1,
                    key,
                    limit: d.limit,
                },
            );
            // SAFETY: as above
            unsafe {
                put(a.reward.part(at..at + lanes), &reward);
                put(a.ended.part(at..at + lanes), &ended);
                let at_episode = (d.at() + t) * d.n + n;
                put(a.finished_return.part(at_episode..at_episode + lanes), &finished_return);
                put(a.finished_length.part(at_episode..at_episode + lanes), &finished_length);
            }
            if d.in_ring() {
                // SAFETY: as above
                let follow = unsafe { a.next_obs.part(at * o..(at + lanes) * o) };
                let after = &next[b * LANES * o..][..lanes * o];
                for ((to, after), i) in follow.chunks_exact_mut(o).zip(after.chunks_exact(o)).zip(0..) {
                    to.copy_from_slice(if ended[i] == 0 { after } else { &last[i * o..][..o] });
                }
            }
            let Some(agent) = &mut agent else { continue };
            if cut_any && judged {
                let mut value = [0.0; LANES];
                // this overwrites the outputs of the first block, which has acted already
                agent.value(isa, see.rows(last, seen, lanes), b * LANES, &mut value[..lanes]);
                for i in 0..lanes {
                    bootstrap[b * LANES + i] = if ended[i] == TRUNCATED { value[i] } else { 0.0 };
                }
            }
            agent.forget(b * LANES, &ended);
        }
    }

    if let (true, Some(agent)) = (judged, &mut agent) {
        // SAFETY: as above
        let value = unsafe { a.value.part(d.t * d.n + first..d.t * d.n + first + envs) };
        agent.value(isa, see.rows(next, seen, envs), 0, value);
    }
    for n in 0..envs {
        let (b, i) = (n / LANES, n % LANES);
        for j in 0..k {
            env_state[n * k + j] = live.state[b][j][i];
        }
        env_step[n] = live.steps[b][i];
        env_return[n] = live.returns[b][i];
    }
}

/// Copies as many lanes as `to` holds; a whole block is one vector store.
#[inline(always)]
fn put<T: Copy>(to: &mut [T], from: &[T; LANES]) {
    if let Ok(whole) = <&mut [T; LANES]>::try_from(&mut *to) {
        *whole = *from;
    } else {
        to.copy_from_slice(&from[..to.len()]);
    }
}

/// How observations reach the nets.
struct Seen<'a> {
    d: &'a RolloutShape,
    normalizer: &'a [f32],
    clip: (f32, f32),
}

impl Seen<'_> {
    /// `rows` observations as the nets see them: themselves, or normalised in `scratch`.
    #[inline(always)]
    fn rows<'b>(&self, obs: &'b [f32], scratch: &'b mut [f32], rows: usize) -> &'b [f32] {
        let o = self.d.obs();
        if !self.d.normalize_obs {
            return obs;
        }
        for (to, from) in scratch.chunks_exact_mut(o).zip(obs.chunks_exact(o)).take(rows) {
            for j in 0..o {
                to[j] = normalize(from[j], j, self.normalizer, self.clip);
            }
        }
        scratch
    }
}
