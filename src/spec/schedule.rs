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

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(name: Decay, start_val: f64, end_val: f64) -> Schedule {
        Schedule { name, start_val, end_val: Some(end_val), start_step: 100, end_step: Some(200) }
    }

    #[test]
    fn linear_decay_reaches_zero_and_rises() {
        let falling = schedule(Decay::LinearDecay, 0.01, 0.0);
        assert_eq!([0, 100, 150, 200, 999].map(|f| falling.at(f)), [0.01, 0.01, 0.005, 0.0, 0.0]);
        let rising = schedule(Decay::LinearDecay, 1.0, 3.0);
        assert_eq!([0, 150, 200].map(|f| rising.at(f)), [1.0, 2.0, 3.0]);
    }

    #[test]
    fn no_decay_stays() {
        let constant = Schedule::constant(0.2);
        assert_eq!([0, 1, u64::MAX].map(|f| constant.at(f)), [0.2; 3]);
        assert_eq!(constant.end_val(), 0.2);
    }

    #[test]
    fn rate_decay_is_nine_tenths_a_twentieth() {
        let rate = schedule(Decay::RateDecay, 1.0, 0.2);
        assert!((rate.at(110) - 0.81).abs() < 1e-12);
        assert_eq!([100, 199, 200].map(|f| rate.at(f)), [1.0, 0.2, 0.2]);
    }

    #[test]
    fn periodic_decay_swings_between_its_height_and_the_end() {
        let periodic = schedule(Decay::PeriodicDecay, 1.0, 0.0);
        assert!((periodic.at(105) - 0.0).abs() < 1e-12, "half a period");
        assert!((periodic.at(110) - 0.9).abs() < 1e-12, "a whole period");
        assert_eq!(periodic.at(200), 0.0);
    }
}
