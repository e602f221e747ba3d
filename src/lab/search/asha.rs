//! Successive halving (ASHA, Li et al. 2020): at growing numbers of frames, the rungs, trials that did not do as well
//! as the best of those that came as far are stopped.
//!
//! A wave's trials are judged together when all of them are at the rung, against each other and against what earlier waves
//! scored there. So the outcome follows from the scores alone, not from who arrives first, and a search gives the same
//! experiment on any number of machines.

use std::collections::BTreeMap;

use crate::spec::SearchScheduler;

/// Rungs and what was scored at them.
#[derive(Debug, Clone)]
pub struct Asha {
    scheduler: SearchScheduler,
    max_frame: u64,
    /// By bracket and frame.
    scores: BTreeMap<(usize, u64), Vec<f64>>,
}

impl Asha {
    /// Halving up to `max_frame`, with nothing scored yet.
    pub fn new(scheduler: SearchScheduler, max_frame: u64) -> Asha {
        Asha { scheduler, max_frame, scores: BTreeMap::new() }
    }

    fn brackets(&self) -> usize {
        self.scheduler.brackets.unwrap_or(1).max(1)
    }

    /// Trials take turns at the brackets.
    fn bracket(&self, trial: u32) -> usize {
        trial as usize % self.brackets()
    }

    /// Frames at which trials of a bracket are judged, ascending, all before the last frame.
    fn rungs_of(&self, bracket: usize) -> Vec<u64> {
        let factor = self.scheduler.reduction_factor;
        let first = (self.scheduler.grace_period.max(1) as f64) * factor.powi(bracket as i32);
        std::iter::successors(Some(first), |rung| Some(rung * factor))
            .map(|rung| rung.round() as u64)
            .take_while(|&rung| rung < self.max_frame)
            .collect()
    }

    /// Every frame at which some trial is judged, ascending.
    pub fn rungs(&self) -> Vec<u64> {
        let mut all: Vec<u64> = (0..self.brackets()).flat_map(|bracket| self.rungs_of(bracket)).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Judges the trials that have come to a rung, `(trial, score)` each: those that stop there. A trial goes on where its
    /// score is not below the quantile `1 - 1 / reduction_factor` of all that were scored at the rung; one without a score
    /// stops if any has one.
    pub fn judge(&mut self, rung: u64, arrived: &[(u32, f64)]) -> Vec<u32> {
        let mut stopped = Vec::new();
        for bracket in 0..self.brackets() {
            if !self.rungs_of(bracket).contains(&rung) {
                continue;
            }
            let theirs: Vec<(u32, f64)> =
                arrived.iter().copied().filter(|(trial, _)| self.bracket(*trial) == bracket).collect();
            let scores = self.scores.entry((bracket, rung)).or_default();
            scores.extend(theirs.iter().map(|(_, score)| *score).filter(|score| score.is_finite()));
            scores.sort_by(f64::total_cmp);
            if let Some(least) = quantile(scores, 1.0 - 1.0 / self.scheduler.reduction_factor) {
                let stays = |score: f64| score >= least;
                stopped.extend(theirs.iter().filter(|(_, score)| !stays(*score)).map(|(trial, _)| *trial));
            }
        }
        stopped.sort_unstable();
        stopped
    }
}

/// A quantile of ascending numbers, between neighbours in proportion.
fn quantile(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let at = q * last as f64;
    let (below, share) = (at.floor() as usize, at.fract());
    Some(sorted[below] + share * (sorted[(below + 1).min(last)] - sorted[below]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asha(grace_period: u64, reduction_factor: f64, brackets: Option<usize>) -> Asha {
        Asha::new(SearchScheduler { grace_period, reduction_factor, brackets, stop_last_trials: None }, 100_000)
    }

    #[test]
    fn rungs_grow_by_the_factor_and_end_before_the_last_frame() {
        assert_eq!(asha(1000, 3.0, None).rungs(), [1000, 3000, 9000, 27_000, 81_000]);
        assert_eq!(asha(100_000, 3.0, None).rungs(), [0; 0]);
        assert_eq!(asha(10_000, 3.0, Some(2)).rungs(), [10_000, 30_000, 90_000]);
    }

    #[test]
    fn the_best_go_on() {
        let arrived: Vec<(u32, f64)> = (0..9).map(|t| (t, f64::from(t * 7 % 9))).collect();
        let stopped = asha(1000, 3.0, None).judge(1000, &arrived);
        let kept: Vec<f64> = arrived.iter().filter(|(t, _)| !stopped.contains(t)).map(|(_, s)| *s).collect();
        assert_eq!(stopped.len(), 6);
        assert!(kept.iter().all(|score| *score >= 6.0), "{kept:?}");
    }

    #[test]
    fn equal_trials_all_go_on_and_those_without_a_score_do_not() {
        let mut asha = asha(1000, 3.0, None);
        assert_eq!(asha.judge(1000, &[(0, f64::NAN), (1, f64::NAN)]), [0; 0]);
        assert_eq!(asha.judge(1000, &[(2, 5.0), (3, 5.0), (4, f64::NAN)]), [4]);
    }

    #[test]
    fn later_waves_are_held_against_earlier_ones() {
        let mut asha = asha(1000, 2.0, None);
        asha.judge(1000, &[(0, 10.0), (1, 20.0), (2, 30.0)]);
        assert_eq!(asha.judge(1000, &[(3, 15.0), (4, 40.0)]), [3]);
    }

    #[test]
    fn brackets_are_judged_apart() {
        let mut asha = asha(10_000, 3.0, Some(2));
        assert_eq!(asha.judge(10_000, &[(0, 1.0), (1, 0.0), (2, 9.0), (3, 0.0), (4, 9.0)]), [0]);
        assert_eq!(asha.judge(30_000, &[(1, 0.0), (2, 9.0), (3, 5.0), (4, 9.0)]), [1]);
    }
}
