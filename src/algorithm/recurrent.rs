//! What recurrent nets have in place of other ops: rollouts with a state, minibatches of whole sequences, batches of
//! sequences out of a replay ring.

use super::{Buffers, Recorder};
use crate::device::{Buf, Keep, Layout, Queue};
use crate::op::Shape;
use crate::op::minibatch_grad::GradShape;
use crate::op::recurrent_rollout::{RecurrentRollout, RecurrentShape};
use crate::op::rollout::RolloutShape;
use crate::op::sequence_grad::{SequenceGrad, SequenceShape, tile};
use crate::op::sequence_order::{OrderShape, SequenceOrder};
use crate::op::sequence_td_grad::{SequenceTdGrad, SequenceTdShape};
use crate::op::td_grad::TdShape;
use crate::plan::Plan;

/// Buffers of a cohort with recurrent nets.
#[derive(Debug, Clone, Copy)]
pub struct States {
    /// `[N, bodies, ..]` what every environment's bodies carry from step to step.
    pub state: Buf<f32>,
    /// `[1, N, ..]` the same at the rollout's beginning; `[C, N, ..]` before the step of every slot of a replay ring.
    pub first_state: Buf<f32>,
}

impl States {
    /// Those of a plan whose nets are recurrent.
    pub(super) fn new(plan: &Plan, layout: &mut Layout) -> Option<States> {
        plan.nets.body.as_ref()?;
        let (n, len) = (plan.num_envs as usize, plan.nets.state_len());
        let (kept, keep) =
            plan.off_policy.map_or((1, Keep::Scratch), |memory| (memory.ring, super::replay::keep(plan)));
        Some(States {
            state: layout.buf("state", &[n, len], Keep::Saved),
            first_state: layout.buf("first_state", &[kept, n, len], keep),
        })
    }
}

/// A rollout of recurrent nets into the records of `b`.
pub(super) fn rollout(b: &Buffers, states: States, rollout: RolloutShape) -> RecurrentRollout {
    RecurrentRollout {
        shape: RecurrentShape { rollout },
        params: b.params,
        hyper: b.hyper,
        schedule: b.schedule,
        normalizer: b.normalizer,
        seed: b.seed,
        clock: b.clock,
        env_state: b.env_state,
        episode_return: b.episode_return,
        episode_step: b.episode_step,
        state: states.state,
        first_state: states.first_state,
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

impl Recorder<'_> {
    /// As `shuffle`, of whole sequences.
    pub(super) fn order(&mut self, q: &mut Queue, ordered: bool) {
        let (p, b) = (self.plan, self.b);
        SequenceOrder {
            shape: OrderShape {
                t: p.horizon,
                n: p.num_envs as usize,
                minibatch: p.minibatch / p.horizon,
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

    /// The gradient of a minibatch of whole sequences: tiles, and the partial gradients and losses.
    pub(super) fn sequences(
        &mut self,
        q: &mut Queue,
        states: States,
        rows: GradShape,
    ) -> (usize, (Buf<f32>, Buf<f32>)) {
        let b = self.b;
        let (t, kind) = (self.plan.horizon, self.layout.kind());
        let shape = SequenceShape { t, tile: tile(kind, rows.len / t), rows };
        let tiles = shape.tiles();
        let (partial, partial_loss) = self.gradient(tiles, self.plan.params);
        SequenceGrad {
            shape,
            index: b.index,
            moments: b.moments,
            obs: b.obs,
            normalizer: b.normalizer,
            ended: b.ended,
            first_state: states.first_state,
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

    /// The gradient of a batch of sequences: tiles, and the partial gradients and losses.
    pub(super) fn sequences_td(&mut self, q: &mut Queue, states: States, td: TdShape) -> (usize, (Buf<f32>, Buf<f32>)) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        let sequence = memory.sequence.expect("a recurrent net learns from sequences");
        let shape = SequenceTdShape {
            tile: tile(self.layout.kind(), memory.learned() / sequence.learned),
            td: TdShape { batch: memory.learned(), ..td },
            body: p.nets.body.clone().expect("a recurrent net has a body"),
            burn_in: sequence.burn_in,
            learned: sequence.learned,
            ahead: sequence.ahead,
        };
        let tiles = shape.tiles();
        let (partial, partial_loss) = self.gradient(tiles, p.params);
        SequenceTdGrad {
            shape,
            index: b.replay.index,
            last: b.replay.last,
            returns: b.replay.returns,
            discount: b.replay.discount,
            weight: b.replay.weight,
            obs: b.obs,
            next_obs: b.next_obs,
            ended: b.ended,
            first_state: states.first_state,
            action: b.action,
            normalizer: b.normalizer,
            hyper: b.hyper,
            params: b.params,
            target: b.replay.target,
            partial,
            partial_loss,
            error: b.replay.error,
        }
        .record(self.layout, q);
        (tiles, (partial, partial_loss))
    }
}
