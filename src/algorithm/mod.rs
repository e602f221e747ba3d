//! Algorithms: what a training iteration launches, recorded once. An algorithm knows neither the device nor the
//! environment; it names ops in order.

mod a2c;
mod crossq;
mod dqn;
mod imitation;
mod ppo;
mod recurrent;
mod reinforce;
mod replay;
mod sac;

use crate::device::{Buf, Keep, Kind, Layout, Queue};
use crate::op::advantage::{Advantage, AdvantageShape, Mode};
use crate::op::hyper::{self, fault, update};
use crate::op::lib::envs::EnvFns;
use crate::op::log::{INTS, Log, LogShape, NUMS, WINDOW};
use crate::op::minibatch_grad::{GradShape, MinibatchGrad, tile_rows};
use crate::op::obs_moments::{ObsMoments, ObsMomentsShape};
use crate::op::optimize::OptimizeShape;
use crate::op::rollout::{Rollout, RolloutShape};
use crate::op::schedule::{self, Schedule, ScheduleShape};
use crate::op::shuffle::{Normalize, Shuffle, ShuffleShape};
use crate::op::{Shape, log};
use crate::plan::{Method, Plan};
use crate::spec::Algorithm;
pub use replay::ReplayBuffers;

/// Every buffer of a cohort; shapes without the leading session axis.
#[derive(Debug, Clone, Copy)]
pub struct Buffers {
    /// `[2]` the trial's seed and the session's index.
    pub seed: Buf<u32>,
    pub clock: Buf<u32>,
    pub hyper: Buf<f32>,
    pub schedule: Buf<f32>,
    /// `[P]`
    pub params: Buf<f32>,
    /// `[2, P]`
    pub slots: Buf<f32>,
    /// Optimiser steps of every parameter group.
    pub steps: Buf<u32>,
    /// `[N, K]`
    pub env_state: Buf<f32>,
    pub episode_return: Buf<f32>,
    pub episode_step: Buf<u32>,
    /// Where the nets are recurrent.
    pub states: Option<recurrent::States>,
    /// Rollout records, `[T, N, ..]`.
    pub obs: Buf<f32>,
    /// Empty but for a replay ring.
    pub next_obs: Buf<f32>,
    pub action: Buf<f32>,
    pub log_prob: Buf<f32>,
    /// `[T + 1, N]`
    pub value: Buf<f32>,
    pub bootstrap: Buf<f32>,
    pub reward: Buf<f32>,
    pub ended: Buf<u32>,
    pub finished_return: Buf<f32>,
    pub finished_length: Buf<u32>,
    pub advantage: Buf<f32>,
    pub returns: Buf<f32>,
    /// Running moments of the wrappers and of the value targets.
    pub discounted: Buf<f32>,
    pub reward_moments: Buf<f32>,
    pub value_moments: Buf<f32>,
    pub percentiles: Buf<f32>,
    pub obs_moments: Buf<f32>,
    pub normalizer: Buf<f32>,
    /// Order of every epoch, and what normalises the advantages of its minibatches.
    pub index: Buf<u32>,
    pub moments: Buf<f32>,
    pub replay: ReplayBuffers,
    /// Where the agent imitates itself.
    pub imitation: Option<imitation::Records>,
    /// Sums over the minibatches of an update.
    pub update: Buf<f32>,
    pub fault: Buf<u32>,
    /// The last episodes, and the rows that the last rollout logged.
    pub recent: Buf<f32>,
    pub row_count: Buf<u32>,
    pub row_ints: Buf<u32>,
    pub row_nums: Buf<f32>,
}

/// What a plan launches: what fills a replay memory before the first iteration, a full iteration, the last one, whose
/// rollout is too short to learn from, and an iteration that only fills a memory which no checkpoint holds.
pub struct Program {
    pub buffers: Buffers,
    pub warmup: Option<Queue>,
    pub iteration: Queue,
    pub tail: Option<Queue>,
    pub refill: Option<Queue>,
}

impl Program {
    /// Every queue.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.warmup.iter().chain([&self.iteration]).chain(&self.tail).chain(&self.refill)
    }
}

/// The buffers of a cohort alone.
pub fn buffers(plan: &Plan, kind: Kind, sessions: usize) -> (Layout, Buffers) {
    let mut layout = Layout::on(kind, sessions);
    let buffers = Recorder::new(plan, &mut layout).b;
    (layout, buffers)
}

/// Plans the buffers of a cohort of `sessions` sessions on a kind of device and records its program.
pub fn record(plan: &Plan, kind: Kind, sessions: usize) -> (Layout, Program) {
    let mut layout = Layout::on(kind, sessions);
    let mut recorder = Recorder::new(plan, &mut layout);
    let mut iteration = Queue::default();
    if let Some(off_policy) = plan.off_policy {
        recorder.begin(&mut iteration, plan.horizon);
        for round in 0..off_policy.rounds {
            recorder.gather(&mut iteration, round);
            match off_policy.method {
                Method::Q { .. } => dqn::learn(&mut recorder, &mut iteration, round),
                Method::Soft { delay, crossed: true, .. } => crossq::learn(&mut recorder, &mut iteration, round, delay),
                Method::Soft { delay, .. } => sac::learn(&mut recorder, &mut iteration, round, delay),
            }
        }
        recorder.log(&mut iteration, plan.horizon);
        let buffers = recorder.b;
        let mut part = |steps: usize, name: &str, explore| {
            (steps > 0).then(|| replay::fill(plan, &mut layout, buffers, steps, name, explore))
        };
        let warmup = part(plan.warmup(), "warmup_", off_policy.warmup_explore);
        let tail = part(plan.iterations().1, "tail_", off_policy.explore);
        let lost = if off_policy.in_checkpoint { 0 } else { plan.horizon };
        let refill = part(lost, "refill_", off_policy.explore);
        return (layout, Program { buffers, warmup, iteration, tail, refill });
    }
    recorder.begin_imitation(&mut iteration);
    recorder.collect(&mut iteration, plan.horizon);
    match plan.spec.agent.algorithm {
        Algorithm::Reinforce(_) => reinforce::learn(&mut recorder, &mut iteration),
        Algorithm::ActorCritic(_) | Algorithm::SIL(_) => a2c::learn(&mut recorder, &mut iteration),
        Algorithm::PPO(_) | Algorithm::PPOSIL(_) => ppo::learn(&mut recorder, &mut iteration),
        ref other => unreachable!("`require_built` refuses {other:?}"),
    }
    imitation::learn(&mut recorder, &mut iteration);
    recorder.observe(&mut iteration);
    let buffers = recorder.b;
    let tail = (plan.iterations().1 > 0).then(|| tail(plan, &mut layout, buffers));
    (layout, Program { buffers, warmup: None, iteration, tail, refill: None })
}

/// The last, shorter rollout writes records of its own size.
fn tail(plan: &Plan, layout: &mut Layout, whole: Buffers) -> Queue {
    let steps = plan.iterations().1;
    let mut queue = Queue::default();
    let records = Records::new(plan, layout, steps, "tail_");
    let b = records.within(whole);
    Recorder { plan, layout, b, gradients: Vec::new() }.collect(&mut queue, steps);
    queue
}

/// The buffers whose size follows the rollout's length.
struct Records([Buf<f32>; 8], [Buf<u32>; 2]);

impl Records {
    fn new(plan: &Plan, layout: &mut Layout, t: usize, prefix: &str) -> Records {
        let (n, o, a) = (plan.num_envs as usize, plan.env.obs_len, plan.nets.policy.action_len());
        // a ring outlives an iteration, and nothing in it is judged
        let (stored, next, judged, keep) = match plan.off_policy {
            Some(off_policy) => (off_policy.ring, off_policy.ring, 0, replay::keep(plan)),
            None => (t, 0, n, Keep::Scratch),
        };
        let mut f = |name: &str, shape: &[usize], keep| layout.buf(&format!("{prefix}{name}"), shape, keep);
        let floats = [
            f("obs", &[stored, n, o], keep),
            f("next_obs", &[next, n, o], keep),
            f("action", &[stored, n, a], keep),
            f("log_prob", &[t, judged], Keep::Scratch),
            f("value", &[t + 1, judged], Keep::Scratch),
            f("bootstrap", &[t, judged], Keep::Scratch),
            f("reward", &[stored, n], keep),
            f("finished_return", &[t, n], Keep::Scratch),
        ];
        let ended = layout.buf(&format!("{prefix}ended"), &[stored, n], keep);
        Records(floats, [ended, layout.buf(&format!("{prefix}finished_length"), &[t, n], Keep::Scratch)])
    }

    /// Returns and lengths of the episodes that end in `t` vector steps.
    fn finished(plan: &Plan, layout: &mut Layout, t: usize, prefix: &str) -> (Buf<f32>, Buf<u32>) {
        let shape = [t, plan.num_envs as usize];
        let returns = layout.buf(&format!("{prefix}finished_return"), &shape, Keep::Scratch);
        (returns, layout.buf(&format!("{prefix}finished_length"), &shape, Keep::Scratch))
    }

    fn within(self, b: Buffers) -> Buffers {
        let Records(floats, [ended, finished_length]) = self;
        let [obs, next_obs, action, log_prob, value, bootstrap, reward, finished_return] = floats;
        Buffers {
            obs,
            next_obs,
            action,
            log_prob,
            value,
            bootstrap,
            reward,
            finished_return,
            ended,
            finished_length,
            ..b
        }
    }
}

/// Writes an algorithm's launches in its own words.
struct Recorder<'a> {
    plan: &'a Plan,
    layout: &'a mut Layout,
    b: Buffers,
    /// Partial gradients and losses by number of tiles and of parameters: minibatches of one size share them.
    gradients: Vec<([usize; 2], Buf<f32>, Buf<f32>)>,
}

impl<'a> Recorder<'a> {
    fn new(plan: &'a Plan, layout: &'a mut Layout) -> Recorder<'a> {
        let (t, n, o, m) = (plan.horizon, plan.num_envs as usize, plan.env.obs_len, plan.rows());
        let groups = plan.groups.len();
        let rows = LogShape::rows_needed(t.max(plan.warmup()), n, plan.log_frequency);
        let Records(floats, [ended, finished_length]) = Records::new(plan, layout, t, "");
        let [obs, next_obs, action, log_prob, value, bootstrap, reward, finished_return] = floats;
        // what whole rollouts are learnt from, where they are
        let (t, m) = if plan.off_policy.is_some() { (0, 0) } else { (t, m) };
        let replay = ReplayBuffers::new(plan, layout);
        let seed = layout.buf("seed", &[2], Keep::Saved);
        let steps = layout.buf("steps", &[groups], Keep::Saved);
        let episode_step = layout.buf("episode_step", &[n], Keep::Saved);
        let states = recurrent::States::new(plan, layout);
        let imitation = imitation::Records::new(plan, layout);
        // recurrent nets learn from whole sequences: what has an order is the environments
        let ordered = if states.is_some() && t > 0 { n } else { m };
        let index = layout.buf("index", &[plan.epochs, ordered], Keep::Scratch);
        // what is read back at a log point lies side by side, so that it comes as one copy
        let clock = layout.buf("clock", &[hyper::CLOCK_LEN], Keep::Saved);
        let fault = layout.buf("fault", &[fault::LEN], Keep::Saved);
        let row_count = layout.buf("row_count", &[1], Keep::Scratch);
        let row_ints = layout.buf("row_ints", &[rows, INTS], Keep::Scratch);
        let row_nums = layout.buf("row_nums", &[rows, NUMS.len()], Keep::Scratch);
        let mut saved = |name: &str, shape: &[usize]| layout.buf(name, shape, Keep::Saved);
        let b = Buffers {
            hyper: saved("hyper", &[hyper::len(groups)]),
            params: saved("params", &[plan.params]),
            slots: saved("slots", &[2, plan.params]),
            env_state: saved("env_state", &[n, plan.env.state_len]),
            episode_return: saved("episode_return", &[n]),
            discounted: saved("discounted", &[n]),
            reward_moments: saved("reward_moments", &[4]),
            value_moments: saved("value_moments", &[4]),
            percentiles: saved("percentiles", &[4]),
            obs_moments: saved("obs_moments", &[1 + 2 * o]),
            normalizer: saved("normalizer", &[2, o]),
            update: saved("update", &[update::LEN]),
            recent: saved("recent", &[2, WINDOW]),
            schedule: layout.buf("schedule", &[schedule::LEN + groups], Keep::Scratch),
            advantage: layout.buf("advantage", &[t, n], Keep::Scratch),
            returns: layout.buf("returns", &[t, n], Keep::Scratch),
            moments: layout.buf("moments", &[plan.epochs, m.div_ceil(plan.minibatch), 2], Keep::Scratch),
            states,
            obs,
            next_obs,
            steps,
            replay,
            imitation,
            action,
            log_prob,
            value,
            bootstrap,
            reward,
            finished_return,
            ended,
            finished_length,
            seed,
            clock,
            episode_step,
            fault,
            index,
            row_count,
            row_ints,
            row_nums,
        };
        Recorder { plan, layout, b, gradients: Vec::new() }
    }

    /// Schedules, `t` steps of every environment, and the log rows of those steps.
    fn collect(&mut self, q: &mut Queue, t: usize) {
        self.begin(q, t);
        record_rollout(&self.b, self.rollout_shape(t), self.layout, q);
        self.log(q, t);
    }

    /// The schedules of an iteration of `t` vector steps.
    fn begin(&mut self, q: &mut Queue, t: usize) {
        let (p, b) = (self.plan, self.b);
        let learned = p.off_policy.is_some_and(|p| matches!(p.method, Method::Soft { learned: true, .. }));
        let log_alpha = learned.then(|| self.soft_nets().log_alpha());
        let shape = ScheduleShape { t, n: p.num_envs as usize, groups: p.groups.len(), params: p.params, log_alpha };
        Schedule { shape, hyper: b.hyper, clock: b.clock, params: b.params, schedule: b.schedule }
            .record(self.layout, q);
    }

    fn rollout_shape(&self, t: usize) -> RolloutShape {
        let p = self.plan;
        RolloutShape {
            params: p.params,
            groups: p.groups.len(),
            limit: p.time_limit(),
            normalize_obs: p.filters_obs(),
            ..RolloutShape::new(EnvFns::new(p.env), Some(p.nets.clone()), t, p.num_envs as usize)
        }
    }

    /// The log rows of `t` vector steps, which the clock counts from here on.
    fn log(&mut self, q: &mut Queue, t: usize) {
        let (p, b) = (self.plan, self.b);
        let (n, groups) = (p.num_envs as usize, p.groups.len());
        let rows = self.layout.len_of(b.row_ints) / log::INTS;
        Log {
            shape: LogShape { t, n, groups, log_frequency: p.log_frequency, max_frame: p.max_frame, rows },
            ep_return: b.finished_return,
            ep_length: b.finished_length,
            update: b.update,
            schedule: b.schedule,
            recent: b.recent,
            clock: b.clock,
            row_count: b.row_count,
            row_ints: b.row_ints,
            row_nums: b.row_nums,
        }
        .record(self.layout, q);
    }

    /// Advantages and value targets of the rollout; begins an update.
    fn advantage(&mut self, q: &mut Queue, mode: Mode) {
        let (p, b) = (self.plan, self.b);
        Advantage {
            shape: AdvantageShape {
                t: p.horizon,
                n: p.num_envs as usize,
                groups: p.groups.len(),
                mode,
                normalize_reward: p.spec.env.normalize_reward,
                normalize_values: p.learning.normalize_targets,
                percentile: p.learning.normalize == Normalize::Percentile,
            },
            reward: b.reward,
            value: b.value,
            bootstrap: b.bootstrap,
            ended: b.ended,
            hyper: b.hyper,
            discounted: b.discounted,
            reward_moments: b.reward_moments,
            value_moments: b.value_moments,
            percentiles: b.percentiles,
            advantage: b.advantage,
            returns: b.returns,
            update: b.update,
        }
        .record(self.layout, q);
    }

    /// The order of every epoch's rows (`ordered`: as they were collected) and the normalisation of its minibatches: all
    /// at once, since nothing that they come from changes before the next rollout.
    fn shuffle(&mut self, q: &mut Queue, ordered: bool) {
        let (p, b) = (self.plan, self.b);
        if b.states.is_some() {
            return self.order(q, ordered);
        }
        Shuffle {
            shape: ShuffleShape {
                m: p.rows(),
                minibatch: p.minibatch,
                epochs: p.epochs,
                normalize: p.learning.normalize,
                ordered,
            },
            seed: b.seed,
            clock: b.clock,
            advantage: b.advantage,
            percentiles: b.percentiles,
            index: b.index,
            moments: b.moments,
        }
        .record(self.layout, q);
    }

    /// One gradient step on one minibatch of an epoch.
    fn step(&mut self, q: &mut Queue, epoch: usize, minibatch: usize) {
        let (p, b) = (self.plan, self.b);
        let start = minibatch * p.minibatch;
        let len = p.minibatch.min(p.rows() - start);
        let shape = GradShape {
            nets: p.nets.clone(),
            obs: p.env.obs_len,
            rows: p.rows(),
            envs: p.num_envs as usize,
            start: epoch * p.rows() + start,
            len,
            minibatch: epoch * p.minibatches() + minibatch,
            minibatches: p.minibatches(),
            epochs: p.epochs,
            clipped: p.learning.clipped,
            distance: p.learning.distance,
            one_sided: false,
            clip_value: p.learning.clip_value,
            symlog: p.learning.symlog,
            normalize_targets: p.learning.normalize_targets,
            normalize_obs: p.filters_obs(),
            tile_rows: tile_rows(self.layout.kind(), &p.nets, len),
        };
        let (tiles, (partial, partial_loss)) = match b.states {
            None => self.rows(q, shape),
            Some(states) => self.sequences(q, states, shape),
        };
        self.optimize(q, OptimizeShape::new(p.params, tiles, len, p.groups.clone()), partial, partial_loss);
    }

    /// The gradient of a minibatch of rows: tiles, and the partial gradients and losses.
    fn rows(&mut self, q: &mut Queue, shape: GradShape) -> (usize, (Buf<f32>, Buf<f32>)) {
        let b = self.b;
        let tiles = shape.tiles();
        let (partial, partial_loss) = self.gradient(tiles, self.plan.params);
        MinibatchGrad {
            shape,
            index: b.index,
            moments: b.moments,
            obs: b.obs,
            normalizer: b.normalizer,
            action: b.action,
            log_prob: b.log_prob,
            value: b.value,
            advantage: b.advantage,
            returns: b.returns,
            value_moments: b.value_moments,
            hyper: b.hyper,
            schedule: b.schedule,
            params: b.params,
            partial,
            partial_loss,
        }
        .record(self.layout, q);
        (tiles, (partial, partial_loss))
    }

    /// Partial gradients of `p` parameters for that many tiles.
    fn gradient(&mut self, tiles: usize, p: usize) -> (Buf<f32>, Buf<f32>) {
        if let Some(&(_, partial, partial_loss)) = self.gradients.iter().find(|g| g.0 == [tiles, p]) {
            return (partial, partial_loss);
        }
        let name = |part: &str| format!("{part}_{tiles}_{p}");
        let partial = self.layout.buf(&name("partial"), &[tiles, p], Keep::Scratch);
        let partial_loss = self.layout.buf(&name("partial_loss"), &[tiles, update::LOSSES], Keep::Scratch);
        self.gradients.push(([tiles, p], partial, partial_loss));
        (partial, partial_loss)
    }

    /// Brings the observation normaliser up to date for the next rollout.
    fn observe(&mut self, q: &mut Queue) {
        let (p, b) = (self.plan, self.b);
        if p.spec.env.normalize_obs {
            let shape = ObsMomentsShape { t: p.horizon, n: p.num_envs as usize, o: p.env.obs_len };
            ObsMoments { shape, obs: b.obs, obs_moments: b.obs_moments, normalizer: b.normalizer }
                .record(self.layout, q);
        }
    }
}

/// Records a rollout into the records of `b`, by the op that its nets need.
pub fn record_rollout(b: &Buffers, shape: RolloutShape, layout: &mut Layout, queue: &mut Queue) {
    match b.states {
        None => rollout(b, shape).record(layout, queue),
        Some(states) => recurrent::rollout(b, states, shape).record(layout, queue),
    }
}

/// A rollout into the records of `b`.
fn rollout(b: &Buffers, shape: RolloutShape) -> Rollout {
    Rollout {
        shape,
        params: b.params,
        hyper: b.hyper,
        schedule: b.schedule,
        normalizer: b.normalizer,
        seed: b.seed,
        clock: b.clock,
        env_state: b.env_state,
        episode_return: b.episode_return,
        episode_step: b.episode_step,
        obs: b.obs,
        next_obs: b.next_obs,
        action: b.action,
        log_prob: b.log_prob,
        value: b.value,
        bootstrap: b.bootstrap,
        reward: b.reward,
        ended: b.ended,
        finished_return: b.finished_return,
        finished_length: b.finished_length,
    }
}
