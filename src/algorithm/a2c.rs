//! Advantage actor-critic, A2C (Mnih et al. 2016), with generalised advantage estimation or n-step returns.

use super::Recorder;
use crate::device::Queue;

/// Learns from one rollout: one step on all of it, with advantages standardised over the batch.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue) {
    r.advantage(q, r.plan.learning.mode);
    r.shuffle(q, true);
    r.step(q, 0, 0);
}
