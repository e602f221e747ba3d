//! Values that change with the frame clock: `clip_eps_spec`, `entropy_coef_spec`, `explore_var_spec`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a scheduled value moves between its start and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Constant at `start_val`.
    NoDecay,
    /// A straight line, downwards or upwards.
    LinearDecay,
    /// A factor of 0.9 for each twentieth of the way, cut off at `end_val`.
    RateDecay,
    /// A cosine of ten periods whose height falls linearly from `start_val` to `end_val`.
    PeriodicDecay,
}

/// A value as a function of the frame clock.
///
/// Differs from SLM Lab where its code does not do what its documents say: an `end_val` of 0 is a value like any other,
/// increasing schedules work, and `periodic_decay` moves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// How the value moves.
    pub name: Decay,
    /// Value up to `start_step`.
    pub start_val: f64,
    /// Value from `end_step` on; absent: `start_val`.
    #[serde(default)]
    pub end_val: Option<f64>,
    /// Frame at which the value begins to move.
    #[serde(default)]
    pub start_step: u64,
    /// Frame at which the value has arrived; absent: `start_step`.
    #[serde(default)]
    pub end_step: Option<u64>,
}

impl Schedule {
    /// A constant.
    pub fn constant(value: f64) -> Self {
        Schedule { name: Decay::NoDecay, start_val: value, end_val: Some(value), start_step: 0, end_step: Some(0) }
    }

    /// The last value.
    pub fn end_val(&self) -> f64 {
        if self.name == Decay::NoDecay { self.start_val } else { self.end_val.unwrap_or(self.start_val) }
    }

    /// The value at a frame.
    pub fn at(&self, frame: u64) -> f64 {
        let (start, end) = (self.start_val, self.end_val());
        let end_step = self.end_step.unwrap_or(self.start_step);
        if self.name == Decay::NoDecay || frame <= self.start_step {
            return start;
        }
        if frame >= end_step {
            return end;
        }
        let way = (frame - self.start_step) as f64 / (end_step - self.start_step) as f64;
        match self.name {
            Decay::NoDecay => start,
            Decay::LinearDecay => start + (end - start) * way,
            Decay::RateDecay => (start * 0.9_f64.powf(20.0 * way)).max(end),
            Decay::PeriodicDecay => {
                let height = start + (end - start) * way;
                end + (height - end) * 0.5 * (1.0 + (20.0 * std::f64::consts::PI * way).cos())
            }
        }
    }
}
