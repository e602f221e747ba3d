//! REINFORCE (Williams 1992): policy gradient on returns, without a critic.

use super::Recorder;
use crate::device::Queue;

/// Learns from one rollout: one step on all of it. Returns are cut where an episode ends and where the batch ends, and
/// are standardised over the batch.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue) {
    r.advantage(q, r.plan.learning.mode);
    r.shuffle(q, true);
    r.step(q, 0, 0);
}
