//! Proximal policy optimisation (Schulman et al. 2017), clipped surrogate.
//!
//! Log-probabilities of the old policy are those that the rollout stored, so nothing is recomputed for them.

use super::Recorder;
use crate::device::Queue;

/// Learns from one rollout: several epochs of shuffled minibatches.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue) {
    r.advantage(q, r.plan.learning.mode);
    r.shuffle(q, false);
    for epoch in 0..r.plan.epochs {
        for minibatch in 0..r.plan.minibatches() {
            r.step(q, epoch, minibatch);
        }
    }
}
