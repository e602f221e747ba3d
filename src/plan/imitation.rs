//! What of a plan belongs to self-imitation: a ring of the agent's own episodes beside its rollouts, and what is drawn
//! from it.

use super::{MAX_ROWS, Plan, schedule};
use crate::error::{Error, Result};
use crate::op::hyper;
use crate::spec::{Memory, OnPolicyArgs, Spec};
use std::fmt;

/// How an agent learns from what it once did well: behind every on-policy update come `updates` batches out of the ring,
/// each of which gives `repeats` gradient steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Imitation {
    /// Vector steps of the ring, `C`; at least those of a rollout.
    pub ring: usize,
    pub updates: usize,
    pub repeats: usize,
    /// Rows of a batch, `B`.
    pub batch: usize,
    /// Rows are drawn by how much better they were than expected; otherwise all alike.
    pub prioritized: bool,
    /// Newest rows that take the last places of the first batch of a training.
    pub newest: usize,
}

fn second_memory(spec: &Spec) -> Option<&OnPolicyArgs> {
    match &spec.agent.memory {
        Memory::OnPolicyBatchReplay(a) => Some(a),
        _ => None,
    }
}

impl Imitation {
    /// The plan of an algorithm that imitates itself, with rollouts of `horizon` vector steps; `None` for others.
    ///
    /// # Errors
    /// Names the key whose number does not fit.
    pub(super) fn new(spec: &Spec, horizon: usize) -> Result<Option<Imitation>> {
        let (Some(a), Some(memory)) = (spec.agent.algorithm.imitating(), second_memory(spec)) else { return Ok(None) };
        let n = spec.env.num_envs;
        let stated = |key: &str, number: Option<usize>| {
            number.ok_or_else(|| Error::new(format!("agent.memory.{key}"), "missing key"))
        };
        let ring = stated("max_size", memory.max_size)?.div_ceil(n);
        if ring < horizon {
            let what = format!("{} rows are {ring} vector steps, and a rollout has {horizon}", ring * n);
            return Err(Error::new("agent.memory.max_size", what)
                .hint(format!("the memory keeps whole rollouts: {} or more", horizon * n)));
        }
        if ring.checked_mul(n).is_none_or(|rows| rows >= MAX_ROWS) {
            return Err(Error::new("agent.memory.max_size", "more rows than the kernels count").hint("lower it"));
        }
        Ok(Some(Imitation {
            ring,
            updates: a.updates,
            repeats: a.repeats,
            batch: stated("batch_size", memory.batch_size)?,
            prioritized: memory.sil_replay_name.as_deref() == Some("PrioritizedReplay"),
            newest: if memory.use_cer.unwrap_or(false) { horizon * n } else { 0 },
        }))
    }

    /// Rows that one sampling draws.
    pub fn samples(&self) -> usize {
        // priorities move with every update, so those rows cannot be drawn ahead
        if self.prioritized { self.batch } else { self.batch * self.updates }
    }

    /// Gradient steps of one iteration.
    pub fn gradient_steps(&self) -> usize {
        self.updates.saturating_mul(self.repeats)
    }
}

impl Plan {
    /// The table `hyper` of the steps that imitate: their own weights of the losses, and no entropy bonus.
    pub fn imitation_hyper(&self) -> Vec<f32> {
        let mut table = self.hyper.clone();
        if let Some(a) = self.spec.agent.algorithm.imitating() {
            table[hyper::POLICY_LOSS_COEF] = a.policy_loss_coef as f32;
            // of a squared error, whose slope is twice the error
            table[hyper::VAL_LOSS_COEF] = 0.5 * a.val_loss_coef as f32;
            table[hyper::ENTROPY_COEF..=hyper::ENTROPY_COEF + hyper::END_STEP].fill(0.0);
        }
        table
    }
}

/// The numbers of the second memory, where it has priorities.
pub(super) fn priorities(spec: &Spec, table: &mut [f32]) {
    let Some(a) = second_memory(spec).filter(|_| spec.agent.algorithm.imitating().is_some()) else { return };
    let number = |x: Option<f64>| x.unwrap_or(0.0) as f32;
    (table[hyper::PRIORITY_ALPHA], table[hyper::PRIORITY_EPSILON]) = (number(a.alpha), number(a.epsilon));
    schedule(&mut table[hyper::BETA..], a.beta_spec.as_ref());
}

/// The lines that `check` prints of it.
pub(super) struct Outline<'a>(pub &'a Imitation, pub usize);

impl fmt::Display for Outline<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outline(p, n) = *self;
        let drawn = if p.prioritized { "drawn by priority" } else { "drawn uniformly" };
        writeln!(f, "  imitation     {} vector steps = {} transitions, {drawn}", p.ring, p.ring * n)?;
        writeln!(f, "                {} batches of {} rows, {} gradient steps each", p.updates, p.batch, p.repeats)
    }
}
