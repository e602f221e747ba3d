//! Self-imitation (Oh et al. 2018) behind an on-policy update: the agent learns once more what it once did better than it
//! now expects, from a ring of its own episodes.

use super::Recorder;
use crate::device::{Buf, Keep, Layout, Queue};
use crate::op::Shape;
use crate::op::episode_returns::{EpisodeReturns, EpisodeShape};
use crate::op::hyper;
use crate::op::imitate::{Imitate, ImitateShape};
use crate::op::minibatch_grad::{Distance, GradShape, MinibatchGrad, tile_rows};
use crate::op::optimize::OptimizeShape;
use crate::op::prioritize::{Prioritize, PrioritizeShape};
use crate::op::sample::{Drawing, Sample, SampleShape};
use crate::op::schedule::{self, Schedule, ScheduleShape};
use crate::plan::{Imitation, Plan};

/// Buffers of a cohort that imitates itself.
#[derive(Debug, Clone, Copy)]
pub struct Records {
    /// The tables of these steps, whose losses have weights of their own.
    pub hyper: Buf<f32>,
    schedule: Buf<f32>,
    /// The ring, `[C, N, ..]`.
    obs: Buf<f32>,
    action: Buf<f32>,
    reward: Buf<f32>,
    ended: Buf<u32>,
    returns: Buf<f32>,
    /// A batch, `[B, ..]`.
    order: Buf<u32>,
    moments: Buf<f32>,
    seen: Buf<f32>,
    taken: Buf<f32>,
    log_prob: Buf<f32>,
    value: Buf<f32>,
    advantage: Buf<f32>,
    target: Buf<f32>,
}

impl Records {
    /// Those of a plan that imitates.
    pub(super) fn new(plan: &Plan, layout: &mut Layout) -> Option<Records> {
        let Imitation { ring: c, batch, .. } = plan.imitation?;
        let (n, groups) = (plan.num_envs as usize, plan.groups.len());
        let (o, a) = (plan.env.obs_len, plan.nets.policy.action_len());
        let mut ring = |name: &str, shape: &[usize]| layout.buf(&format!("episodes_{name}"), shape, Keep::Saved);
        let (obs, action) = (ring("obs", &[c, n, o]), ring("action", &[c, n, a]));
        let (reward, returns) = (ring("reward", &[c, n]), ring("returns", &[c, n]));
        let ended = layout.buf("episodes_ended", &[c, n], Keep::Saved);
        let mut drawn = |name: &str, shape: &[usize]| layout.buf(&format!("imitation_{name}"), shape, Keep::Scratch);
        Some(Records {
            obs,
            action,
            reward,
            ended,
            returns,
            schedule: drawn("schedule", &[schedule::LEN + groups]),
            moments: drawn("moments", &[1, 2]),
            seen: drawn("obs", &[batch, o]),
            taken: drawn("action", &[batch, a]),
            log_prob: drawn("log_prob", &[batch]),
            value: drawn("value", &[batch]),
            advantage: drawn("advantage", &[batch]),
            target: drawn("target", &[batch]),
            order: layout.buf("imitation_order", &[batch], Keep::Scratch),
            hyper: layout.buf("imitation_hyper", &[hyper::len(groups)], Keep::Saved),
        })
    }
}

/// Keeps the rollout, then learns from batches of what is kept, where the plan says so.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue) {
    let (Some(plan), Some(records)) = (r.plan.imitation, r.b.imitation) else { return };
    r.keep_episodes(q, plan, records);
    for batch in 0..plan.updates {
        r.draw_episodes(q, plan, records, batch);
        for _ in 0..plan.repeats {
            r.imitate(q, plan, records, batch);
        }
        if plan.prioritized {
            r.prioritize_episodes(q, plan, batch);
        }
    }
}

/// Where a batch lies among what was drawn.
fn start(plan: Imitation, batch: usize) -> usize {
    batch * plan.batch % plan.samples()
}

impl Recorder<'_> {
    /// The schedules of the steps that imitate.
    pub(super) fn begin_imitation(&mut self, q: &mut Queue) {
        let Some(Records { hyper, schedule, .. }) = self.b.imitation else { return };
        let (p, b) = (self.plan, self.b);
        let (n, groups) = (p.num_envs as usize, p.groups.len());
        let shape = ScheduleShape { t: p.horizon, n, groups, params: p.params, log_alpha: None };
        Schedule { shape, hyper, clock: b.clock, params: b.params, schedule }.record(self.layout, q);
    }

    fn keep_episodes(&mut self, q: &mut Queue, plan: Imitation, records: Records) {
        let (p, b) = (self.plan, self.b);
        EpisodeReturns {
            shape: EpisodeShape {
                t: p.horizon,
                n: p.num_envs as usize,
                c: plan.ring,
                obs: p.env.obs_len,
                action: p.nets.policy.action_len(),
                groups: p.groups.len(),
                prioritized: plan.prioritized,
            },
            clock: b.clock,
            hyper: b.hyper,
            reward_moments: b.reward_moments,
            obs: b.obs,
            action: b.action,
            reward: b.reward,
            ended: b.ended,
            bootstrap: b.bootstrap,
            top: b.replay.top,
            ring_obs: records.obs,
            ring_action: records.action,
            ring_reward: records.reward,
            ring_ended: records.ended,
            ring_returns: records.returns,
            tree: b.replay.tree,
        }
        .record(self.layout, q);
    }

    /// Draws the rows of a batch; of all batches at once where no update changes what is drawn.
    fn draw_episodes(&mut self, q: &mut Queue, plan: Imitation, records: Records, batch: usize) {
        let (p, b) = (self.plan, self.b);
        let batches = plan.samples() / plan.batch;
        if !batch.is_multiple_of(batches) {
            return;
        }
        Sample {
            shape: SampleShape {
                c: plan.ring,
                n: p.num_envs as usize,
                groups: p.groups.len(),
                // the clock has counted the rollout
                at: 0,
                batch: plan.batch,
                batches,
                first: batch,
                drawing: Drawing::Prioritized,
                newest: if batch == 0 { plan.newest } else { 0 },
                n_step: 1,
                begins: false,
            },
            seed: b.seed,
            clock: b.clock,
            hyper: b.hyper,
            schedule: b.schedule,
            reward: records.reward,
            ended: records.ended,
            tree: b.replay.tree,
            index: b.replay.index,
            last: b.replay.last,
            returns: b.replay.returns,
            discount: b.replay.discount,
            weight: b.replay.weight,
            update: b.update,
        }
        .record(self.layout, q);
    }

    /// One gradient step on a batch. The rows of the log show the losses of the on-policy update alone.
    fn imitate(&mut self, q: &mut Queue, plan: Imitation, records: Records, batch: usize) {
        let (p, b, len) = (self.plan, self.b, plan.batch);
        Imitate {
            shape: ImitateShape {
                // which rows are worth imitating is said in f32
                nets: p.nets.clone().in_f32(),
                obs: p.env.obs_len,
                rows: plan.ring * p.num_envs as usize,
                samples: plan.samples(),
                start: start(plan, batch),
                batch: len,
                normalize_obs: p.filters_obs(),
            },
            index: b.replay.index,
            weight: b.replay.weight,
            obs: records.obs,
            action: records.action,
            returns: records.returns,
            normalizer: b.normalizer,
            hyper: b.hyper,
            params: b.params,
            order: records.order,
            moments: records.moments,
            seen: records.seen,
            taken: records.taken,
            log_prob: records.log_prob,
            value: records.value,
            advantage: records.advantage,
            target: records.target,
            error: b.replay.error,
        }
        .record(self.layout, q);
        let shape = GradShape {
            nets: p.nets.clone(),
            obs: p.env.obs_len,
            rows: len,
            envs: 0,
            start: 0,
            len,
            minibatch: 0,
            minibatches: 1,
            epochs: 1,
            clipped: false,
            distance: Distance::Mse,
            one_sided: true,
            clip_value: false,
            symlog: false,
            normalize_targets: false,
            normalize_obs: p.filters_obs(),
            tile_rows: tile_rows(self.layout.kind(), &p.nets, len),
        };
        let tiles = shape.tiles();
        let (partial, partial_loss) = self.gradient(tiles, p.params);
        MinibatchGrad {
            shape,
            index: records.order,
            moments: records.moments,
            obs: records.seen,
            normalizer: b.normalizer,
            action: records.taken,
            log_prob: records.log_prob,
            value: records.value,
            advantage: records.advantage,
            returns: records.target,
            value_moments: b.value_moments,
            hyper: records.hyper,
            schedule: records.schedule,
            params: b.params,
            partial,
            partial_loss,
        }
        .record(self.layout, q);
        let whole = OptimizeShape::new(p.params, tiles, len, p.groups.clone());
        self.optimize(q, OptimizeShape { share: 0.0, counts: false, ..whole }, partial, partial_loss);
    }

    /// New priorities of the rows of a batch.
    fn prioritize_episodes(&mut self, q: &mut Queue, plan: Imitation, batch: usize) {
        let (p, b) = (self.plan, self.b);
        Prioritize {
            shape: PrioritizeShape {
                c: plan.ring,
                n: p.num_envs as usize,
                groups: p.groups.len(),
                at: 0,
                new: 0,
                errors: plan.batch,
                batch: plan.batch,
                start: start(plan, batch),
                samples: plan.samples(),
            },
            hyper: b.hyper,
            clock: b.clock,
            index: b.replay.index,
            error: b.replay.error,
            tree: b.replay.tree,
            top: b.replay.top,
        }
        .record(self.layout, q);
    }
}
