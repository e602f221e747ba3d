//! Q-learning from a replay memory: DQN (Mnih et al. 2015), double DQN (van Hasselt et al. 2016), with dueling nets,
//! n-step returns and priorities in any combination; and SARSA (Rummery & Niranjan 1994), whose memory is its last
//! rollout.

use super::Recorder;
use crate::device::Queue;

/// Learns once: batches from the memory, some gradient steps on each, and the target net follows.
pub(super) fn learn(r: &mut Recorder<'_>, q: &mut Queue, round: usize) {
    let memory = r.memory();
    for batch in 0..memory.updates {
        r.sample(q, round, batch);
        for _ in 0..memory.repeats {
            r.td_step(q, batch);
        }
        r.prioritize(q, round, batch);
    }
    r.follow(q, round);
}
