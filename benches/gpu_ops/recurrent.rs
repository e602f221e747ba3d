//! Ops of recurrent nets, at the sizes of PPO and of Double DQN on CartPole.

use super::Bench;
use crate::{grad, launch, small_nets};
use slm_fast::device::Precision;
use slm_fast::env;
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::envs::EnvFns;
use slm_fast::op::lib::mlp::Mlp;
use slm_fast::op::lib::nets::Nets;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::lib::recurrent::{Body, Cell};
use slm_fast::op::minibatch_grad::{Distance, GradShape};
use slm_fast::op::recurrent_rollout::{RecurrentRollout, RecurrentShape};
use slm_fast::op::rollout::RolloutShape;
use slm_fast::op::sequence_grad::{SequenceGrad, SequenceShape, tile};
use slm_fast::op::sequence_td_grad::{SequenceTdGrad, SequenceTdShape};
use slm_fast::op::td_grad::{Backup, TdShape};

/// Units of the layer in front of the cell, and of the cell.
const UNITS: usize = 64;

/// Actor and critic on one body.
fn nets(cell: Cell) -> Nets {
    let policy = Policy::Categorical { n: 2 };
    let activation = Activation::Tanh;
    let actor =
        Mlp { input: UNITS, hidden: Vec::new(), activation, output: policy.outputs() + 1, precision: Precision::F32 };
    Nets { actor, critic: None, policy, body: Some(Body::new(4, &[UNITS], activation, cell, UNITS)) }
}

impl Bench<'_> {
    /// Rollouts of `n` environments and `t` steps, and the gradient of a quarter of one.
    pub fn recurrent(&mut self, n: usize, t: usize) {
        for (name, cell) in [("gru", Cell::Gru), ("lstm", Cell::Lstm)] {
            let env = EnvFns::new(env::find("CartPole-v1").expect("a built environment"));
            let rollout = RecurrentShape { rollout: RolloutShape::new(env, Some(nets(cell)), t, n) };
            self.op(&format!("recurrent_rollout.cartpole_{name}{UNITS}.{n}x{t}"), 1, |on| {
                launch!(RecurrentRollout, rollout, on)
            });
            let (kind, len) = (self.gpu.kind(), t * n / 4);
            let rows = GradShape { nets: nets(cell), start: len, ..grad(kind, small_nets(), n, len) };
            let gradient = SequenceShape { t, tile: tile(kind, n / 4), rows };
            self.op(&format!("sequence_grad.{name}{UNITS}.{n}x{t}"), 1, |on| launch!(SequenceGrad, gradient, on));
        }
    }

    /// The gradient of batches of 32 sequences out of a ring, of 16 steps behind 8 others, in as many sessions.
    pub fn sequences(&mut self, sessions: usize) {
        let (count, burn_in, learned, envs) = (32, 8, 16, 8);
        for (name, cell) in [("gru", Cell::Gru), ("lstm", Cell::Lstm)] {
            let activation = Activation::Tanh;
            let td = TdShape {
                net: Mlp { input: UNITS, hidden: Vec::new(), activation, output: 2, precision: Precision::F32 },
                actions: 2,
                dueling: false,
                rows: 4_096 * envs,
                envs,
                samples: count * (burn_in + learned),
                start: 0,
                batch: count * learned,
                backup: Backup::Double,
                distance: Distance::SmoothL1 { beta: 1.0 },
                normalize_obs: false,
                tile_rows: 0,
            };
            let body = Body::new(4, &[UNITS / 2], activation, cell, UNITS);
            let shape = SequenceTdShape { td, body, burn_in, learned, ahead: 0, tile: tile(self.gpu.kind(), count) };
            self.op(&format!("sequence_td_grad.{name}{UNITS}.{count}x{learned}"), sessions, |on| {
                launch!(SequenceTdGrad, shape, on)
            });
        }
    }
}
