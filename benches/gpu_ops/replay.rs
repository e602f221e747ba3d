//! Ops of learning from a replay memory, at the sizes of DDQN with priorities on CartPole and of SAC and CrossQ on
//! Pendulum as they are usually trained.

use super::Bench;
use crate::launch;
use slm_fast::device::{self, Precision};
use slm_fast::op::Shape;
use slm_fast::op::actor_grad::{ActorGrad, ActorGradShape};
use slm_fast::op::critic_grad::{CriticGrad, CriticGradShape};
use slm_fast::op::crossq_grad::{CrossqGrad, CrossqShape};
use slm_fast::op::fold::{Fold, FoldShape};
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::mlp::Mlp;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::lib::renorm::Renorm;
use slm_fast::op::lib::soft;
use slm_fast::op::lib::soft::SoftNets;
use slm_fast::op::minibatch_grad::Distance;
use slm_fast::op::optimize::{Group, Kind, Optimize, OptimizeShape};
use slm_fast::op::prioritize::{Prioritize, PrioritizeShape};
use slm_fast::op::sample::{Drawing, Sample, SampleShape};
use slm_fast::op::target::{Follow, Target, TargetShape};
use slm_fast::op::td_grad::{Backup, TdGrad, TdShape, tile_rows};

/// Environments and vector steps of a ring.
const ENVS: usize = 4;
const RING: usize = 8_192;
/// Parameter groups of a soft actor-critic: actor, weight of the entropy, two critics.
const GROUPS: usize = 4;

fn mlp(input: usize, hidden: [usize; 2], activation: Activation, output: usize) -> Mlp {
    Mlp { input, hidden: hidden.to_vec(), activation, output, precision: Precision::F32 }
}

/// Nets of 2 x 256 units on Pendulum.
pub fn pendulum() -> SoftNets {
    let net = |input, output| mlp(input, [256, 256], Activation::Relu, output);
    let policy = Policy::Gaussian { n: 1, free_std: false, squashed: true };
    SoftNets { actor: net(3, 2), critic: net(4, 1), policy }
}

/// The gradient of a Q net of 256 and 128 units.
pub fn q_gradient(kind: device::Kind, batch: usize) -> TdShape {
    let net = mlp(4, [256, 128], Activation::Selu, 2);
    TdShape {
        tile_rows: tile_rows(kind, &net, batch),
        net,
        actions: 2,
        dueling: false,
        rows: RING * ENVS,
        envs: ENVS,
        samples: batch,
        start: 0,
        batch,
        backup: Backup::Double,
        distance: Distance::SmoothL1 { beta: 1.0 },
        normalize_obs: false,
    }
}

/// CrossQ's gradient of critics of the sizes of `nets`.
pub fn crossed_gradient(nets: SoftNets, batch: usize) -> CrossqShape {
    let SoftNets { actor, critic, policy } = nets;
    CrossqShape {
        actor,
        policy,
        critic: Renorm { mlp: critic, momentum: 0.01, eps: 1e-3, warmup: 5_000, r_max: 3.0, d_max: 5.0 },
        rows: RING * ENVS,
        samples: batch,
        start: 0,
        batch,
        groups: GROUPS,
        learned: true,
        distance: Distance::Mse,
        symlog: false,
        normalize_obs: false,
    }
}

/// Both gradients of Soft Actor-Critic.
pub fn soft_gradients(nets: SoftNets, batch: usize) -> (CriticGradShape, ActorGradShape) {
    let (params, tile_rows) = (nets.len(), soft::tile_rows(batch));
    let of_critics = CriticGradShape {
        nets: nets.clone(),
        rows: RING * ENVS,
        samples: batch,
        start: 0,
        batch,
        groups: GROUPS,
        learned: true,
        distance: Distance::Mse,
        symlog: false,
        normalize_obs: false,
        tile_rows,
    };
    let of_actor = ActorGradShape {
        nets: nets.clone(),
        params,
        folded: false,
        rows: RING * ENVS,
        samples: batch,
        start: 0,
        batch,
        groups: GROUPS,
        learned: true,
        normalize_obs: false,
        tile_rows,
    };
    (of_critics, of_actor)
}

/// A step of groups that lie one behind the other, of `lengths` parameters, numbered from `first` on.
fn part(params: usize, at: usize, lengths: &[usize], first: usize, tiles: usize, rows: usize) -> OptimizeShape {
    let mut end = at;
    let group = |len: &usize| {
        end += len;
        Group::new(end - len..end, Kind::Adam)
    };
    let groups = lengths.iter().map(group).collect();
    let whole = OptimizeShape::new(lengths.iter().sum(), tiles, rows, groups);
    OptimizeShape { params, all_groups: GROUPS, at, first_group: first, ..whole }
}

impl Bench<'_> {
    /// Ops of batches of so many rows, in as many sessions.
    pub fn replay(&mut self, batch: usize, sessions: usize) {
        self.q_learning(batch, sessions);
        self.soft(batch, sessions);
        self.crossed(batch, sessions);
    }

    /// Drawing by priority and a step of a Q net of 256 and 128 units.
    fn q_learning(&mut self, batch: usize, sessions: usize) {
        let kind = self.gpu.kind();
        for (name, drawing) in [("uniform", Drawing::Uniform), ("by_priority", Drawing::Prioritized)] {
            let shape = SampleShape {
                c: RING,
                n: ENVS,
                groups: 1,
                // the ring is full
                at: RING,
                batch,
                batches: 1,
                first: 0,
                drawing,
                newest: 0,
                n_step: 1,
                begins: false,
            };
            self.op(&format!("sample.{name}.{batch}_rows"), sessions, |on| launch!(Sample, shape, on));
        }
        let (c, n) = (RING, ENVS);
        let of_batch =
            PrioritizeShape { c, n, groups: 1, at: RING, new: 0, errors: batch, batch, start: 0, samples: batch };
        self.op(&format!("prioritize.{batch}_rows"), sessions, |on| launch!(Prioritize, of_batch, on));
        let gradient = q_gradient(kind, batch);
        let len = gradient.net.len();
        let tiles = gradient.tiles();
        self.op(&format!("td_grad.256x128.{batch}_rows"), sessions, |on| launch!(TdGrad, gradient, on));
        let step = OptimizeShape::new(len, tiles, batch, vec![Group::new(0..len, Kind::AdamW)]);
        self.op(&format!("optimize.256x128.{tiles}_tiles"), sessions, |on| launch!(Optimize, step, on));
    }

    /// Both gradients of Soft Actor-Critic, the steps of its parts, and target critics that follow.
    fn soft(&mut self, batch: usize, sessions: usize) {
        let nets = pendulum();
        let (params, moved, critics) = (nets.len(), nets.critic_at(0), 2 * nets.critic.len());
        let (of_critics, of_actor) = soft_gradients(nets.clone(), batch);
        let tiles = of_critics.tiles();
        self.op(&format!("critic_grad.2x256.{batch}_rows"), sessions, |on| launch!(CriticGrad, of_critics, on));
        self.op(&format!("actor_grad.2x256.{batch}_rows"), sessions, |on| launch!(ActorGrad, of_actor, on));
        let both = part(params, moved, &[critics / 2; 2], 2, tiles, batch);
        let actor = part(params, 0, &[moved - 1, 1], 0, tiles, batch);
        self.op(&format!("optimize.critics_2x256.{tiles}_tiles"), sessions, |on| launch!(Optimize, both, on));
        self.op(&format!("optimize.actor_2x256.{tiles}_tiles"), sessions, |on| launch!(Optimize, actor, on));
        let follow = Follow::Polyak;
        let target =
            TargetShape { params, groups: GROUPS, from: moved, len: critics, follow, n: ENVS, at: 1, every: 1 };
        self.op("target.critics_2x256.polyak", sessions, |on| launch!(Target, target, on));
    }

    /// The gradient of CrossQ's critics, and those as plain nets.
    fn crossed(&mut self, batch: usize, sessions: usize) {
        let gradient = crossed_gradient(pendulum(), batch);
        let critic = gradient.critic.clone();
        let (at, len) = (gradient.critics(), critic.len());
        self.op(&format!("crossq_grad.2x256.{batch}_rows"), sessions, |on| launch!(CrossqGrad, gradient, on));
        self.op("fold.2x256", sessions, |on| launch!(Fold, FoldShape { critic, p: at + 2 * len, at }, on));
    }
}
