//! SLM Lab's metrics, by its published formulas: pure functions on slices of f64.
//!
//! Over the N log rows of a session: `R_i` is `total_reward` at row i, `R_rand` the mean return of a uniformly random
//! policy, `str_i = R_i - R_rand` the local strength. A row whose reward is NaN (no episode finished yet) is left out of
//! every sum; a metric of no rows is NaN, which JSON shows as `null`.

use std::fmt;

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

impl TrialMetrics {
    /// The names of its numbers, in SLM Lab's order.
    pub const NAMES: [&str; 9] = [
        "frame",
        "total_reward_ma",
        "strength",
        "max_strength",
        "final_strength",
        "sample_efficiency",
        "training_efficiency",
        "stability",
        "consistency",
    ];

    /// Its numbers, in the order of [`TrialMetrics::NAMES`].
    pub fn values(&self) -> [f64; 9] {
        [
            self.frame,
            self.total_reward_ma,
            self.strength,
            self.max_strength,
            self.final_strength,
            self.sample_efficiency,
            self.training_efficiency,
            self.stability,
            self.consistency,
        ]
    }
}

/// `frame:200000 | total_reward_ma:499.44 | ...`, as SLM Lab logs it.
impl fmt::Display for TrialMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let each: Vec<String> =
            Self::NAMES.iter().zip(self.values()).map(|(name, x)| format!("{name}:{}", short(x))).collect();
        f.write_str(&each.join(" | "))
    }
}

/// A number as people read it: integers whole, others with four significant digits or more, `nan` for none.
pub fn short(x: f64) -> String {
    match x.abs() {
        size if size.is_nan() => "nan".to_string(),
        size if size.fract() == 0.0 && size < 1e15 => format!("{x}"),
        size if size >= 100.0 => format!("{x:.2}"),
        size if size >= 0.1 => format!("{x:.4}"),
        _ => format!("{x:.4e}"),
    }
}

/// Local series of one session, one number per log row, with the keys of SLM Lab's `session_metrics_train.json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LocalMetrics {
    /// `R_i`.
    pub mean_returns: Vec<f64>,
    /// `str_i`.
    pub strengths: Vec<f64>,
    /// [`sample_efficiency`] of the rows up to each.
    pub sample_efficiencies: Vec<f64>,
    /// [`training_efficiency`] of the rows up to each.
    pub training_efficiencies: Vec<f64>,
    /// [`stability`] of the rows up to each.
    pub stabilities: Vec<f64>,
    /// Frames done.
    pub frames: Vec<f64>,
    /// Optimiser steps done.
    pub opt_steps: Vec<f64>,
}

/// `str_i = R_i - R_rand`: how much better than a random policy.
pub fn strengths(total_rewards: &[f64], random_return: f64) -> Vec<f64> {
    total_rewards.iter().map(|r| r - random_return).collect()
}

/// `strength = 1/N sum_i str_i`.
pub fn strength(strengths: &[f64]) -> f64 {
    mean(finite(strengths))
}

/// `max_strength = max_i str_i`.
pub fn max_strength(strengths: &[f64]) -> f64 {
    // `f64::max` gives the other number where one is NaN
    finite(strengths).fold(f64::NAN, f64::max)
}

/// `final_strength = str_N`, of the last row that has a reward.
pub fn final_strength(strengths: &[f64]) -> f64 {
    finite(strengths).last().unwrap_or(f64::NAN)
}

/// `sample_efficiency = sum_i (str_i / frame_i) / sum_i (1 / frame_i)`: the mean strength with early rows weighted most.
///
/// This is SLM Lab's published formula. Its code divides by `sum_i str_i` instead, which makes a strength-weighted mean of
/// `1 / frame_i`, so the two numbers differ. Rows at frame 0 have no weight and are left out.
pub fn sample_efficiency(strengths: &[f64], frames: &[f64]) -> f64 {
    early_weighted(strengths, frames).last().copied().unwrap_or(f64::NAN)
}

/// `training_efficiency = sum_i (str_i / opt_step_i) / sum_i (1 / opt_step_i)`: as [`sample_efficiency`] over optimiser
/// steps, and with the same difference between SLM Lab's formula (followed here) and its code. Rows before the first
/// optimiser step are left out.
pub fn training_efficiency(strengths: &[f64], opt_steps: &[f64]) -> f64 {
    early_weighted(strengths, opt_steps).last().copied().unwrap_or(f64::NAN)
}

/// `stability = 1 - |sum_{i<N} min(str_{i+1} - str_i, 0) / sum_{i<N} str_i|`: 1 for a curve that never falls.
pub fn stability(strengths: &[f64]) -> f64 {
    stabilities(strengths).last().copied().unwrap_or(f64::NAN)
}

/// `consistency = 1 - 2 sum_i std_j(str_ij) / sum_i mean_j(str_ij)` over rows i and sessions j: 1 where all sessions have
/// the same curve.
///
/// `std_j` is the sample standard deviation; that of a single session counts as 0, so its consistency is 1. The series are
/// cut to the shortest; a row counts the sessions that have a reward there.
pub fn consistency(sessions: &[Vec<f64>]) -> f64 {
    consistencies(sessions).last().copied().unwrap_or(f64::NAN)
}

/// [`consistency`] of the rows up to each.
pub fn consistencies(sessions: &[Vec<f64>]) -> Vec<f64> {
    let (means, stds) = mean_and_std(sessions);
    let (mut mean_sum, mut std_sum) = (0.0, 0.0);
    means
        .iter()
        .zip(&stds)
        .map(|(mean, std)| {
            if mean.is_finite() {
                mean_sum += mean;
                std_sum += std;
            }
            1.0 - 2.0 * std_sum / mean_sum
        })
        .collect()
}

/// Mean of the last `min(N, 100)` rows, NaN rows skipped.
pub fn total_reward_ma(total_rewards: &[f64]) -> f64 {
    mean(finite(&total_rewards[total_rewards.len().saturating_sub(MA_WINDOW)..]))
}

/// Mean and sample standard deviation; the deviation of one number is 0, both of none are NaN.
pub fn mean_std(numbers: &[f64]) -> (f64, f64) {
    let mean = mean(numbers.iter().copied());
    let squares: f64 = numbers.iter().map(|x| (x - mean) * (x - mean)).sum();
    (mean, if numbers.len() > 1 { (squares / (numbers.len() - 1) as f64).sqrt() } else { 0.0 * mean })
}

/// Row by row, [`mean_std`] over the numbers of several series, cut to the shortest; NaN where no series has a number.
pub fn mean_and_std(series: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
    let rows = series.iter().map(Vec::len).min().unwrap_or(0);
    (0..rows)
        .map(|i| {
            let numbers: Vec<f64> = series.iter().map(|s| s[i]).filter(|x| x.is_finite()).collect();
            mean_std(&numbers)
        })
        .unzip()
}

/// The metrics of one session from its columns, each `[N]`.
pub fn session(total_rewards: &[f64], frames: &[f64], opt_steps: &[f64], random_return: f64) -> SessionMetrics {
    let strengths = strengths(total_rewards, random_return);
    SessionMetrics {
        total_reward_ma: total_reward_ma(total_rewards),
        strength: strength(&strengths),
        max_strength: max_strength(&strengths),
        final_strength: final_strength(&strengths),
        sample_efficiency: sample_efficiency(&strengths, frames),
        training_efficiency: training_efficiency(&strengths, opt_steps),
        stability: stability(&strengths),
    }
}

/// The series behind [`session`].
pub fn local(total_rewards: &[f64], frames: &[f64], opt_steps: &[f64], random_return: f64) -> LocalMetrics {
    let strengths = strengths(total_rewards, random_return);
    LocalMetrics {
        mean_returns: total_rewards.to_vec(),
        sample_efficiencies: early_weighted(&strengths, frames),
        training_efficiencies: early_weighted(&strengths, opt_steps),
        stabilities: stabilities(&strengths),
        frames: frames.to_vec(),
        opt_steps: opt_steps.to_vec(),
        strengths,
    }
}

/// The metrics of a trial: the mean over sessions of each (sessions without one are left out), the last `frame`, and the
/// [`consistency`] of the sessions' strengths.
pub fn trial(frame: f64, sessions: &[SessionMetrics], strengths: &[Vec<f64>]) -> TrialMetrics {
    let over = |metric: fn(&SessionMetrics) -> f64| mean(sessions.iter().map(metric).filter(|x| x.is_finite()));
    TrialMetrics {
        frame,
        total_reward_ma: over(|m| m.total_reward_ma),
        strength: over(|m| m.strength),
        max_strength: over(|m| m.max_strength),
        final_strength: over(|m| m.final_strength),
        sample_efficiency: over(|m| m.sample_efficiency),
        training_efficiency: over(|m| m.training_efficiency),
        stability: over(|m| m.stability),
        consistency: consistency(strengths),
    }
}

fn finite(series: &[f64]) -> impl Iterator<Item = f64> + '_ {
    series.iter().copied().filter(|x| x.is_finite())
}

/// NaN for no numbers.
fn mean(numbers: impl Iterator<Item = f64>) -> f64 {
    let (n, sum) = numbers.fold((0u32, 0.0), |(n, sum), x| (n + 1, sum + x));
    if n == 0 { f64::NAN } else { sum / f64::from(n) }
}

/// `sum_{k<=i} (str_k / t_k) / sum_{k<=i} (1 / t_k)` for every i.
fn early_weighted(strengths: &[f64], times: &[f64]) -> Vec<f64> {
    let (mut above, mut below) = (0.0, 0.0);
    strengths
        .iter()
        .zip(times)
        .map(|(&strength, &t)| {
            if strength.is_finite() && t > 0.0 {
                above += strength / t;
                below += 1.0 / t;
            }
            // 0/0 before the first row that counts
            above / below
        })
        .collect()
}

/// [`stability`] of the rows up to each; NaN until two rows have a reward.
fn stabilities(strengths: &[f64]) -> Vec<f64> {
    let (mut last, mut drops, mut sum) = (f64::NAN, 0.0, 0.0);
    strengths
        .iter()
        .map(|&now| {
            if now.is_finite() {
                if last.is_finite() {
                    drops += f64::min(now - last, 0.0);
                    sum += last;
                }
                last = now;
            }
            1.0 - f64::abs(drops / sum)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAN: f64 = f64::NAN;

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-12 || (a.is_nan() && b.is_nan()), "{a} is not {b}");
    }

    /// Rewards 30 20 50 over a random 10: strengths 20 10 40.
    #[test]
    fn a_session_by_hand() {
        let m = session(&[NAN, 30.0, 20.0, 50.0], &[50.0, 100.0, 200.0, 400.0], &[0.0, 0.0, 4.0, 8.0], 10.0);
        close(m.total_reward_ma, 100.0 / 3.0);
        close(m.strength, 70.0 / 3.0);
        close(m.max_strength, 40.0);
        close(m.final_strength, 40.0);
        // (20/100 + 10/200 + 40/400) / (1/100 + 1/200 + 1/400) = 0.35 / 0.0175
        close(m.sample_efficiency, 20.0);
        // (10/4 + 40/8) / (1/4 + 1/8) = 7.5 / 0.375
        close(m.training_efficiency, 20.0);
        // 1 - |-10 / (20 + 10)|
        close(m.stability, 2.0 / 3.0);
    }

    #[test]
    fn a_trial_by_hand() {
        let one = session(&[1.0, 3.0], &[1.0, 2.0], &[1.0, 2.0], 0.0);
        let two = session(&[3.0, 5.0, 9.0], &[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0], 0.0);
        let m = trial(2.0, &[one, two], &[vec![1.0, 3.0], vec![3.0, 5.0, 9.0]]);
        close(m.frame, 2.0);
        close(m.strength, (2.0 + 17.0 / 3.0) / 2.0);
        // std of (1, 3) and of (3, 5) is sqrt 2; means are 2 and 4
        close(m.consistency, 1.0 - 2.0 * (2.0 * 2f64.sqrt()) / 6.0);
        close(m.stability, 1.0);
    }

    #[test]
    fn one_session_is_consistent_and_no_rows_have_no_metrics() {
        close(consistency(&[vec![1.0, 2.0]]), 1.0);
        close(consistency(&[]), NAN);
        let m = session(&[NAN, NAN], &[1.0, 2.0], &[0.0, 0.0], 0.0);
        for x in [m.total_reward_ma, m.strength, m.max_strength, m.final_strength, m.sample_efficiency, m.stability] {
            close(x, NAN);
        }
        close(session(&[], &[], &[], 0.0).total_reward_ma, NAN);
    }

    #[test]
    fn the_moving_average_sees_100_rows() {
        let rewards: Vec<f64> = (0..250).map(f64::from).collect();
        for (rows, ma) in [(1, 0.0), (10, 4.5), (100, 49.5), (250, 199.5)] {
            close(total_reward_ma(&rewards[..rows]), ma);
        }
        close(total_reward_ma(&[NAN, 4.0, NAN, 8.0]), 6.0);
    }

    #[test]
    fn numbers_read_well() {
        let texts = [200_000.0, 498.876_54, 0.125, 1.234_567e-5, -2.0, NAN].map(short);
        assert_eq!(texts, ["200000", "498.88", "0.1250", "1.2346e-5", "-2", "nan"]);
    }

    #[test]
    fn mean_and_deviation() {
        assert_eq!(mean_std(&[2.0, 4.0, 6.0]), (4.0, 2.0));
        assert_eq!(mean_std(&[5.0]), (5.0, 0.0));
        assert!(mean_std(&[]).0.is_nan());
    }

    #[test]
    fn local_series_end_in_the_scalars() {
        let (rewards, frames, steps) = ([NAN, 30.0, 20.0, 50.0], [50.0, 100.0, 200.0, 400.0], [0.0, 0.0, 4.0, 8.0]);
        let (local, m) = (local(&rewards, &frames, &steps, 10.0), session(&rewards, &frames, &steps, 10.0));
        assert_eq!(local.sample_efficiencies.len(), 4);
        close(local.sample_efficiencies[0], NAN);
        close(local.sample_efficiencies[1], 20.0);
        close(local.sample_efficiencies[3], m.sample_efficiency);
        close(local.training_efficiencies[3], m.training_efficiency);
        close(local.stabilities[2], 0.5);
        close(local.stabilities[3], m.stability);
    }

    #[test]
    fn json_has_slm_labs_keys_and_null_for_nan() {
        let m = trial(0.0, &[session(&[], &[], &[], 0.0)], &[]);
        let text = serde_json::to_string(&m).expect("JSON");
        assert_eq!(
            text,
            "{\"frame\":0.0,\"total_reward_ma\":null,\"strength\":null,\"max_strength\":null,\"final_strength\":null,\
             \"sample_efficiency\":null,\"training_efficiency\":null,\"stability\":null,\"consistency\":null}"
        );
        let back: TrialMetrics = serde_json::from_str(&text).expect("read");
        assert!(back.frame == 0.0 && back.stability.is_nan());
    }
}
