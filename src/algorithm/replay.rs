//! The words of algorithms that learn from a ring of transitions: gather, sample, prioritize, a temporal-difference step,
//! a target net that follows.

use super::{Recorder, Records, record_rollout};
use crate::device::{Buf, Keep, Layout, Queue};
use crate::op::Shape;
use crate::op::lib::acting::Explore;
use crate::op::lib::critic::Critic;
use crate::op::lib::tree;
use crate::op::optimize::{Optimize, OptimizeShape};
use crate::op::prioritize::{Prioritize, PrioritizeShape};
use crate::op::rollout::{RolloutShape, Store};
use crate::op::sample::{Sample, SampleShape};
use crate::op::target::{Target, TargetShape};
use crate::op::td_grad::{TdGrad, TdShape, tile_rows};
use crate::plan::{Method, OffPolicy, Plan};

/// What learning from a ring needs beside it; empty where there is none.
#[derive(Debug, Clone, Copy)]
pub struct ReplayBuffers {
    /// What was drawn, `[samples]`.
    pub index: Buf<u32>,
    pub last: Buf<u32>,
    pub returns: Buf<f32>,
    pub discount: Buf<f32>,
    pub weight: Buf<f32>,
    /// Sizes of the errors of a batch.
    pub error: Buf<f32>,
    /// Priorities and their sums; the largest priority so far.
    pub tree: Buf<f32>,
    pub top: Buf<f32>,
    /// The target net, or CrossQ's critics in evaluation mode.
    pub target: Buf<f32>,
    /// Running moments of CrossQ's critics, and how many batches they have seen.
    pub norm: Buf<f32>,
    pub batches: Buf<u32>,
}

/// What becomes of a ring between two processes.
pub(super) fn keep(plan: &Plan) -> Keep {
    if plan.off_policy.is_none_or(|memory| memory.in_checkpoint) { Keep::Saved } else { Keep::Scratch }
}

impl ReplayBuffers {
    pub(super) fn new(plan: &Plan, layout: &mut Layout) -> ReplayBuffers {
        let memory = plan.off_policy;
        let drawn = memory.map(|m| (m.samples(), m.learned(), m.prioritized(), m.ring));
        // rows of episodes that go on are not to be drawn, so what is imitated has priorities always
        let drawn = drawn.or(plan.imitation.map(|m| (m.samples(), m.batch, true, m.ring)));
        let (samples, batch, prioritized, ring) = drawn.unwrap_or((0, 0, false, 0));
        let rows = prioritized.then_some(ring * plan.num_envs as usize);
        let keep = keep(plan);
        let target = if memory.is_some_and(|memory| memory.has_target()) { plan.target_len() } else { 0 };
        ReplayBuffers {
            index: layout.buf("sample_index", &[samples], Keep::Scratch),
            last: layout.buf("sample_last", &[samples], Keep::Scratch),
            returns: layout.buf("sample_returns", &[samples], Keep::Scratch),
            discount: layout.buf("sample_discount", &[samples], Keep::Scratch),
            weight: layout.buf("sample_weight", &[samples], Keep::Scratch),
            error: layout.buf("error", &[batch], Keep::Scratch),
            tree: layout.buf("priority_tree", &[rows.map_or(0, tree::len)], keep),
            top: layout.buf("priority_top", &[1], keep),
            target: layout.buf("target", &[target], Keep::Saved),
            norm: layout.buf("norm", &[plan.critics.as_ref().map_or(0, Critic::norms_len)], Keep::Saved),
            batches: layout.buf("batches", &[1], Keep::Saved),
        }
    }
}

/// Vector steps that only fill the ring: before the first iteration, behind the last, or where a run goes on without one.
pub(super) fn fill(
    plan: &Plan,
    layout: &mut Layout,
    whole: super::Buffers,
    steps: usize,
    name: &str,
    explore: Explore,
) -> Queue {
    let mut queue = Queue::default();
    let (finished_return, finished_length) = Records::finished(plan, layout, steps, name);
    let b = super::Buffers { finished_return, finished_length, ..whole };
    let mut r = Recorder { plan, layout, b, gradients: Vec::new() };
    let memory = r.memory();
    r.begin(&mut queue, steps);
    let store = Store::Ring { steps: memory.ring, at: 0, of: steps };
    record_rollout(&b, RolloutShape { explore, store, ..r.rollout_shape(steps) }, r.layout, &mut queue);
    if memory.prioritized() {
        r.priorities(&mut queue, steps, steps, 0, 0);
    }
    r.log(&mut queue, steps);
    queue
}

impl Recorder<'_> {
    pub(super) fn memory(&self) -> OffPolicy {
        self.plan.off_policy.expect("an algorithm that learns from a ring has one in its plan")
    }

    /// Vector steps since the clock when a round has been gathered.
    fn gathered(&self, round: usize) -> usize {
        (round + 1) * self.memory().every
    }

    /// The vector steps of one round, into the ring.
    pub(super) fn gather(&mut self, q: &mut Queue, round: usize) {
        let (memory, b) = (self.memory(), self.b);
        let store = Store::Ring { steps: memory.ring, at: round * memory.every, of: self.plan.horizon };
        let shape = RolloutShape { explore: memory.explore, store, ..self.rollout_shape(memory.every) };
        record_rollout(&b, shape, self.layout, q);
        if memory.prioritized() {
            self.priorities(q, self.gathered(round), memory.every, 0, 0);
        }
    }

    /// Draws the rows of a batch; of all batches of a round at once where no update changes what is drawn.
    pub(super) fn sample(&mut self, q: &mut Queue, round: usize, batch: usize) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        let batches = memory.samples() / memory.batch;
        if !batch.is_multiple_of(batches) {
            return;
        }
        Sample {
            shape: SampleShape {
                c: memory.ring,
                n: p.num_envs as usize,
                groups: p.groups.len(),
                at: self.gathered(round),
                batch: memory.batch,
                batches,
                first: batch,
                drawing: memory.drawing,
                newest: if batch == 0 { memory.newest } else { 0 },
                n_step: memory.n_step,
                begins: round == 0 && batch == 0,
            },
            seed: b.seed,
            clock: b.clock,
            hyper: b.hyper,
            schedule: b.schedule,
            reward: b.reward,
            ended: b.ended,
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

    /// Where a batch of a round lies among what was drawn.
    pub(super) fn start(&self, batch: usize) -> usize {
        let memory = self.memory();
        batch * memory.batch % memory.samples()
    }

    /// One gradient step of a Q net on a batch.
    pub(super) fn td_step(&mut self, q: &mut Queue, batch: usize) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        let Method::Q { backup, dueling } = memory.method else { unreachable!("a Q net is learnt by its own method") };
        let n = p.num_envs as usize;
        let shape = TdShape {
            net: p.nets.actor.clone(),
            actions: p.nets.policy.outputs(),
            dueling,
            rows: memory.ring * n,
            envs: n,
            samples: memory.samples(),
            start: self.start(batch),
            batch: memory.batch,
            backup,
            distance: p.learning.distance,
            normalize_obs: p.filters_obs(),
            tile_rows: tile_rows(self.layout.kind(), &p.nets.actor, memory.batch),
        };
        let (tiles, (partial, partial_loss)) = match b.states {
            None => self.transitions(q, shape),
            Some(states) => self.sequences_td(q, states, shape),
        };
        self.optimize(
            q,
            OptimizeShape::new(p.params, tiles, memory.learned(), p.groups.clone()),
            partial,
            partial_loss,
        );
    }

    /// The gradient of a batch of transitions: tiles, and the partial gradients and losses.
    fn transitions(&mut self, q: &mut Queue, shape: TdShape) -> (usize, (Buf<f32>, Buf<f32>)) {
        let (b, tiles) = (self.b, shape.tiles());
        let (partial, partial_loss) = self.gradient(tiles, self.plan.params);
        TdGrad {
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
            params: b.params,
            target: b.replay.target,
            partial,
            partial_loss,
            error: b.replay.error,
        }
        .record(self.layout, q);
        (tiles, (partial, partial_loss))
    }

    /// A step of the optimiser.
    pub(super) fn optimize(&mut self, q: &mut Queue, shape: OptimizeShape, partial: Buf<f32>, partial_loss: Buf<f32>) {
        let b = self.b;
        Optimize {
            shape,
            partial,
            partial_loss,
            hyper: b.hyper,
            schedule: b.schedule,
            params: b.params,
            slots: b.slots,
            steps: b.steps,
            clock: b.clock,
            update: b.update,
            fault: b.fault,
        }
        .record(self.layout, q);
    }

    /// New priorities of the rows of a batch, where rows have any.
    pub(super) fn prioritize(&mut self, q: &mut Queue, round: usize, batch: usize) {
        let memory = self.memory();
        if memory.prioritized() {
            self.priorities(q, self.gathered(round), 0, self.start(batch), memory.batch);
        }
    }

    fn priorities(&mut self, q: &mut Queue, at: usize, new: usize, start: usize, batch: usize) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        let shape = PrioritizeShape {
            c: memory.ring,
            n: p.num_envs as usize,
            groups: p.groups.len(),
            at,
            new,
            errors: memory.batch,
            batch,
            start,
            samples: memory.samples(),
        };
        Prioritize {
            shape,
            hyper: b.hyper,
            clock: b.clock,
            index: b.replay.index,
            error: b.replay.error,
            tree: b.replay.tree,
            top: b.replay.top,
        }
        .record(self.layout, q);
    }

    /// The target net follows, where there is one.
    pub(super) fn follow(&mut self, q: &mut Queue, round: usize) {
        let (p, b, memory) = (self.plan, self.b, self.memory());
        if !memory.has_target() {
            return;
        }
        let len = p.target_len();
        Target {
            shape: TargetShape {
                params: p.params,
                groups: p.groups.len(),
                from: p.params - len,
                len,
                follow: memory.follow,
                n: p.num_envs as usize,
                at: self.gathered(round),
                every: memory.every,
            },
            params: b.params,
            hyper: b.hyper,
            clock: b.clock,
            target: b.replay.target,
        }
        .record(self.layout, q);
    }
}
