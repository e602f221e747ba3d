//! Sequences that recurrent nets learn from, out of a replay memory.

use super::{MAX_ROWS, OffPolicy};
use crate::error::{Error, Result};
use crate::op::sample::Drawing;
use crate::spec::{Algorithm, NetType, Spec};

/// Vector steps of a sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequence {
    /// Those that only bring the stored state up to date.
    pub burn_in: usize,
    /// Those that are learnt from.
    pub learned: usize,
    /// Those behind them that n-step returns reach to.
    pub ahead: usize,
}

impl Sequence {
    /// All of them.
    pub fn steps(&self) -> usize {
        self.burn_in.saturating_add(self.learned).saturating_add(self.ahead)
    }
}

impl OffPolicy {
    /// The same for a recurrent net, whose batches are sequences.
    ///
    /// # Errors
    /// Names the key that is missing or whose number does not fit.
    pub(super) fn with_sequences(self, spec: &Spec) -> Result<OffPolicy> {
        let (net, n) = (&spec.agent.net, spec.env.num_envs);
        if net.kind != NetType::RecurrentNet {
            return Ok(self);
        }
        let Some(learned) = net.seq_len else {
            return Err(Error::new("agent.net.seq_len", "missing key").hint(
                "a recurrent net learns from sequences of its replay memory: say how many steps each has, for example `16`",
            ));
        };
        let sequence = Sequence { burn_in: net.burn_in.unwrap_or(0), learned, ahead: self.n_step.saturating_sub(1) };
        let steps = sequence.steps();
        let samples = self.batch.saturating_mul(steps).saturating_mul(self.updates);
        if samples >= MAX_ROWS {
            let what = format!("{} sequences of {steps} steps are more rows than the kernels count", self.batch);
            return Err(Error::new("agent.memory.batch_size", what).hint("lower it, `agent.net.seq_len` or `burn_in`"));
        }
        if self.ring < steps {
            let what = format!(
                "{} rows are {} vector steps, and a sequence has {steps}: `burn_in`, `seq_len` and what n-step returns \
                 reach to",
                self.ring * n,
                self.ring
            );
            return Err(Error::new("agent.memory.max_size", what).hint("raise it, or lower `env.num_envs`"));
        }
        if let Some(start) = training_start_step(&spec.agent.algorithm).filter(|_| self.warmup < steps) {
            let what = format!("{start} frames are {} vector steps, and a sequence has {steps}", self.warmup);
            let hint = format!("{} is the least", steps * n);
            return Err(Error::new("agent.algorithm.training_start_step", what).hint(hint));
        }
        // what fills the ring where no checkpoint holds it is as long as an iteration
        let refilled = if self.in_checkpoint { 0 } else { steps.div_ceil(self.every) };
        Ok(OffPolicy {
            warmup: self.warmup.max(steps),
            rounds: self.rounds.max(refilled),
            batch: self.batch * steps,
            drawing: Drawing::Sequences { steps },
            sequence: Some(sequence),
            ..self
        })
    }

    /// Rows of a batch that are learnt from: all of them, but for those of a sequence's ends.
    pub fn learned(&self) -> usize {
        self.sequence.map_or(self.batch, |sequence| self.batch / sequence.steps() * sequence.learned)
    }
}

/// Frames before the first training of a Q net, where they are given.
fn training_start_step(algorithm: &Algorithm) -> Option<u64> {
    match algorithm {
        Algorithm::VanillaDQN(a) | Algorithm::DQNBase(a) | Algorithm::DQN(a) | Algorithm::DoubleDQN(a) => {
            a.training_start_step
        }
        _ => None,
    }
}
