//! Soft Actor-Critic (Haarnoja et al. 2018): two critics learn from targets that count the entropy of the next action,
//! the actor follows the critics, and the weight of the entropy is learnt. With discrete actions (Christodoulou 2019)
//! expectations over all of them take the place of samples.

use super::Recorder;
use crate::device::{Buf, Queue};
use crate::op::Shape;
use crate::op::actor_grad::{ActorGrad, ActorGradShape};
use crate::op::critic_grad::{CriticGrad, CriticGradShape};
use crate::op::lib::soft::{SoftNets, tile_rows};
use crate::op::optimize::OptimizeShape;
use crate::plan::Method;

/// Learns once: batches from the memory, a step of the critics on each; at every `delay`-th one the actor and the weight
/// of its entropy step too, and the target critics follow.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue, round: usize, delay: usize) {
    let memory = r.memory();
    for batch in 0..memory.updates {
        r.sample(q, round, batch);
        r.critic_step(q, batch);
        r.prioritize(q, round, batch);
        if (round * memory.updates + batch + 1).is_multiple_of(delay) {
            r.actor_step(q, batch);
            r.follow(q, round);
        }
    }
}

impl Recorder<'_> {
    pub(super) fn soft_nets(&self) -> SoftNets {
        let critic = self.plan.critics.as_ref().expect("a plan of Soft Actor-Critic has critics");
        SoftNets { actor: self.plan.nets.actor.clone(), critic: critic.mlp().clone(), policy: self.plan.nets.policy }
    }

    /// One gradient step of both critics on a batch.
    fn critic_step(&mut self, q: &mut Queue, batch: usize) {
        let (p, b, memory, nets) = (self.plan, self.b, self.memory(), self.soft_nets());
        let at = nets.critic_at(0);
        let shape = CriticGradShape {
            nets,
            rows: memory.ring * p.num_envs as usize,
            samples: memory.samples(),
            start: self.start(batch),
            batch: memory.batch,
            groups: p.groups.len(),
            learned: matches!(memory.method, Method::Soft { learned: true, .. }),
            distance: p.learning.distance,
            symlog: p.learning.symlog,
            normalize_obs: p.filters_obs(),
            tile_rows: tile_rows(memory.batch),
        };
        let tiles = shape.tiles();
        let (partial, partial_loss) = self.gradient(tiles, p.params - at);
        CriticGrad {
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
            target: b.replay.target,
            partial,
            partial_loss,
            error: b.replay.error,
        }
        .record(self.layout, q);
        self.optimize_critics(q, at, tiles, partial, partial_loss);
    }

    /// A step of the optimisers of both critics, whose parameters begin at `at`.
    pub(super) fn optimize_critics(
        &mut self,
        q: &mut Queue,
        at: usize,
        tiles: usize,
        partial: Buf<f32>,
        partial_loss: Buf<f32>,
    ) {
        let (p, rows) = (self.plan, self.memory().batch);
        let whole = OptimizeShape::new(p.params - at, tiles, rows, p.groups[2..].to_vec());
        let shape = OptimizeShape { params: p.params, all_groups: p.groups.len(), at, first_group: 2, ..whole };
        self.optimize(q, shape, partial, partial_loss);
    }

    /// One gradient step of the actor and of the weight of its entropy on a batch.
    pub(super) fn actor_step(&mut self, q: &mut Queue, batch: usize) {
        let (p, b, memory, nets) = (self.plan, self.b, self.memory(), self.soft_nets());
        let Method::Soft { delay, learned, crossed } = memory.method else { unreachable!("actors are learnt softly") };
        let shape = ActorGradShape {
            nets,
            params: p.params,
            folded: crossed,
            rows: memory.ring * p.num_envs as usize,
            samples: memory.samples(),
            start: self.start(batch),
            batch: memory.batch,
            groups: p.groups.len(),
            learned,
            normalize_obs: p.filters_obs(),
            tile_rows: tile_rows(memory.batch),
        };
        let (tiles, moved) = (shape.tiles(), shape.moved());
        let (partial, partial_loss) = self.gradient(tiles, moved);
        ActorGrad {
            shape,
            index: b.replay.index,
            obs: b.obs,
            normalizer: b.normalizer,
            hyper: b.hyper,
            schedule: b.schedule,
            seed: b.seed,
            clock: b.clock,
            params: b.params,
            target: b.replay.target,
            partial,
            partial_loss,
        }
        .record(self.layout, q);
        let whole = OptimizeShape::new(moved, tiles, memory.batch, p.groups[..2].to_vec());
        let (params, all_groups, share) = (p.params, p.groups.len(), delay as f32);
        let shape = OptimizeShape { params, all_groups, share, counts: false, bonus: false, ..whole };
        self.optimize(q, shape, partial, partial_loss);
    }
}
