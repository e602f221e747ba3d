//! CrossQ (Bhatt et al. 2024): Soft Actor-Critic without target nets. Its critics see states and their successors in one
//! batch and normalise them together; the actor is judged by the same critics in evaluation mode.

use super::Recorder;
use crate::device::Queue;
use crate::op::Shape;
use crate::op::crossq_grad::{CrossqGrad, CrossqShape};
use crate::op::fold::{Fold, FoldShape};
use crate::op::lib::renorm::Renorm;
use crate::plan::Method;

/// Learns once: batches from the memory, a step of the critics on each; at every `delay`-th one the actor and the weight
/// of its entropy step too.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue, round: usize, delay: usize) {
    let memory = r.memory();
    for batch in 0..memory.updates {
        r.sample(q, round, batch);
        r.crossed_step(q, batch);
        r.prioritize(q, round, batch);
        if (round * memory.updates + batch + 1).is_multiple_of(delay) {
            r.fold(q);
            r.actor_step(q, batch);
        }
    }
}

impl Recorder<'_> {
    fn crossed_critic(&self) -> Renorm {
        let critic = self.plan.critics.as_ref().and_then(|critic| critic.renorm());
        critic.expect("a plan of CrossQ has normalised critics").clone()
    }

    /// One gradient step of both critics on a batch.
    fn crossed_step(&mut self, q: &mut Queue, batch: usize) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        let shape = CrossqShape {
            actor: p.nets.actor.clone(),
            policy: p.nets.policy,
            critic: self.crossed_critic(),
            rows: memory.ring * p.num_envs as usize,
            samples: memory.samples(),
            start: self.start(batch),
            batch: memory.batch,
            groups: p.groups.len(),
            learned: matches!(memory.method, Method::Soft { learned: true, .. }),
            distance: p.learning.distance,
            symlog: p.learning.symlog,
            normalize_obs: p.filters_obs(),
        };
        let (tiles, at) = (shape.tiles(), shape.critics());
        let (partial, partial_loss) = self.gradient(tiles, p.params - at);
        CrossqGrad {
            shape,
            index: b.replay.index,
            last: b.replay.last,
            returns: b.replay.returns,
            discount: b.replay.discount,
            weight: b.replay.weight,
            obs: b.obs,
            next_obs: b.next_obs,
            action: b.action,
            normalizer: b.normalizer,
            hyper: b.hyper,
            schedule: b.schedule,
            seed: b.seed,
            clock: b.clock,
            params: b.params,
            partial,
            partial_loss,
            error: b.replay.error,
            norm: b.replay.norm,
            batches: b.replay.batches,
        }
        .record(self.layout, q);
        self.optimize_critics(q, at, tiles, partial, partial_loss);
    }

    /// The critics in evaluation mode, where the actor looks for its critics.
    fn fold(&mut self, q: &mut Queue) {
        let (p, b, critic) = (self.plan, self.b, self.crossed_critic());
        let at = p.params - 2 * critic.len();
        Fold {
            shape: FoldShape { critic, p: p.params, at },
            params: b.params,
            norm: b.replay.norm,
            target: b.replay.target,
        }
        .record(self.layout, q);
    }
}
