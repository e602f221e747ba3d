//! Ops of recurrent nets, at the sizes of PPO on CartPole.

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
use slm_fast::op::minibatch_grad::GradShape;
use slm_fast::op::recurrent_rollout::{RecurrentRollout, RecurrentShape};
use slm_fast::op::rollout::RolloutShape;
use slm_fast::op::sequence_grad::{SequenceGrad, SequenceShape, tile};

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
}
