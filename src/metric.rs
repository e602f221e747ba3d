//! SLM Lab's metrics, by its published formulas: pure functions on slices of f64.
//!
//! Over the N log rows of a session: `R_i` is `total_reward` at row i, `R_rand` the mean return of a uniformly random
//! policy, `str_i = R_i - R_rand` the local strength. A row whose reward is NaN (no episode finished yet) is left out of
//! every sum; a metric of no rows is NaN, which JSON shows as `null`.

use serde::{Deserialize, Deserializer, Serialize};

/// Rows of the moving average of `total_reward`.
pub const MA_WINDOW: usize = 100;

/// Reads `null` as NaN, the inverse of what serde_json does to a NaN.
fn nan<'de, D: Deserializer<'de>>(de: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(de)?.unwrap_or(f64::NAN))
}

/// Scalars of one session, with the keys of SLM Lab's `session_metrics_scalar_train.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SessionMetrics {
    #[serde(deserialize_with = "nan")]
    pub total_reward_ma: f64,
    #[serde(deserialize_with = "nan")]
    pub strength: f64,
    #[serde(deserialize_with = "nan")]
    pub max_strength: f64,
    #[serde(deserialize_with = "nan")]
    pub final_strength: f64,
    #[serde(deserialize_with = "nan")]
    pub sample_efficiency: f64,
    #[serde(deserialize_with = "nan")]
    pub training_efficiency: f64,
    #[serde(deserialize_with = "nan")]
    pub stability: f64,
}

/// Scalars of a trial, with the keys of SLM Lab's `trial_metrics_scalar.json`: `frame` is the last, `consistency` is over
/// the sessions, every other the mean over sessions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct TrialMetrics {
    #[serde(deserialize_with = "nan")]
    pub frame: f64,
    #[serde(deserialize_with = "nan")]
    pub total_reward_ma: f64,
    #[serde(deserialize_with = "nan")]
    pub strength: f64,
    #[serde(deserialize_with = "nan")]
    pub max_strength: f64,
    #[serde(deserialize_with = "nan")]
    pub final_strength: f64,
    #[serde(deserialize_with = "nan")]
    pub sample_efficiency: f64,
    #[serde(deserialize_with = "nan")]
    pub training_efficiency: f64,
    #[serde(deserialize_with = "nan")]
    pub stability: f64,
    #[serde(deserialize_with = "nan")]
    pub consistency: f64,
}
