//! What the scheduled numbers are in this iteration: clip range, entropy coefficient, exploration, learning rates.
//!
//! The formulas are SLM Lab's, with its faults removed: an `end_val` of 0 is reached, a schedule may rise, and the
//! periodic one is a cosine.

use crate::device::{Kernel, Limits, Shader};
use crate::op::lib::trig;
use crate::op::{Draw, Shape, hyper};

/// Clip range of the policy ratio.
pub const CLIP_EPS: usize = 0;
/// Weight of the entropy bonus; SAC's alpha, where it is learnt as the iteration found it.
pub const ENTROPY_COEF: usize = 1;
/// Epsilon, or the temperature, of a policy that explores.
pub const EXPLORE: usize = 2;
/// Exponent of importance weights.
pub const BETA: usize = 3;
/// Entropy that SAC aims at, in nats.
pub const TARGET_ENTROPY: usize = 4;
/// Words before the learning rates, one per group.
pub const LEN: usize = 5;

/// Sizes of [`Schedule`].
#[derive(Debug, Clone)]
pub struct ScheduleShape {
    /// Vector steps of this iteration's rollout.
    pub t: usize,
    /// Environments.
    pub n: usize,
    /// Parameter groups.
    pub groups: usize,
    /// All parameters of the session.
    pub params: usize,
    /// Which of them is the logarithm of the entropy's weight, where that is learnt.
    pub log_alpha: Option<usize>,
}

impl Shape for ScheduleShape {
    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::schedule::kernels(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::schedule::shaders(self, limits)
    }

    fn cases() -> Vec<Self> {
        [(5, 3, 1, None), (128, 4, 2, Some(8)), (1, 1, 3, Some(0))]
            .map(|(t, n, groups, log_alpha)| ScheduleShape { t, n, groups, params: 9, log_alpha })
            .to_vec()
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "hyper" {
            hyper::sample(words, draw);
        }
        arg == "hyper"
    }
}

crate::op! {
    /// Evaluates the schedules: what an update uses at the frame where the coming rollout ends, when the update happens;
    /// exploration and learning rates at the frame where it began, so that the first update uses the full rate. An
    /// entropy's weight that is learnt is that of the parameters, for the log: the gradients read the parameters
    /// themselves. Runs first in an iteration.
    Schedule(d: ScheduleShape) = "schedule", within 1e-6, run = define {
        read hyper: f32[hyper::len(d.groups)];
        read clock: u32[hyper::CLOCK_LEN] in 0.0..2000.0;
        read params: f32[d.params] in -5.0..2.0;
        write schedule: f32[LEN + d.groups];
    }
}

fn define(d: &ScheduleShape, a: Args) {
    let step = u64::from(a.clock[hyper::CLOCK_STEP]);
    let (began, ends) = (step * d.n as u64, (step + d.t as u64) * d.n as u64);
    a.schedule[CLIP_EPS] = value(&a.hyper[hyper::CLIP_EPS..], ends);
    a.schedule[ENTROPY_COEF] = match d.log_alpha {
        Some(at) => trig::exp(a.params[at]),
        None => value(&a.hyper[hyper::ENTROPY_COEF..], ends),
    };
    a.schedule[EXPLORE] = value(&a.hyper[hyper::EXPLORE..], began);
    a.schedule[BETA] = value(&a.hyper[hyper::BETA..], ends);
    a.schedule[TARGET_ENTROPY] = value(&a.hyper[hyper::TARGET_ENTROPY..], ends);
    for g in 0..d.groups {
        let group = &a.hyper[hyper::group(g)..];
        let factor = if group[hyper::LR_KIND] == hyper::LR_LINEAR_TO_MIN {
            let left = 1.0 - began as f64 / f64::from(group[hyper::LR_FRAMES]);
            left.max(f64::from(group[hyper::LR_MIN_FACTOR]))
        } else {
            1.0
        };
        a.schedule[LEN + g] = (f64::from(group[hyper::LR]) * factor) as f32;
    }
}

/// A schedule's value at a frame, from its five words.
pub fn value(words: &[f32], frame: u64) -> f32 {
    let (start, end) = (f64::from(words[hyper::START_VAL]), f64::from(words[hyper::END_VAL]));
    let (first, last) = (f64::from(words[hyper::START_STEP]), f64::from(words[hyper::END_STEP]));
    let (kind, frame) = (words[hyper::KIND], frame as f64);
    if kind == hyper::NO_DECAY || frame <= first {
        return words[hyper::START_VAL];
    }
    if frame >= last {
        return words[hyper::END_VAL];
    }
    let done = (frame - first) / (last - first);
    let now = if kind == hyper::LINEAR_DECAY {
        start + (end - start) * done
    } else if kind == hyper::RATE_DECAY {
        start * exp(20.0 * done * LN_0_9)
    } else {
        end + (start - end) * (1.0 - done) * 0.5 * (1.0 + cos(60.0 * done))
    };
    now.clamp(start.min(end), start.max(end)) as f32
}

/// `ln 0.9`.
const LN_0_9: f64 = -0.105_360_515_657_826_3;

/// `e^x` for x in -4..0, the same bits on every machine (a platform's own may differ in the last bit).
fn exp(x: f64) -> f64 {
    let x = x / 8.0;
    let root = (1..=14).rev().fold(1.0, |sum, k| 1.0 + x / f64::from(k) * sum);
    root.powi(2).powi(2).powi(2)
}

/// cos x for x in 0..60, the same bits on every machine.
fn cos(x: f64) -> f64 {
    let turns = (x / std::f64::consts::TAU).round();
    let x = x - turns * std::f64::consts::TAU;
    (1..=14).rev().fold(1.0, |sum, k| 1.0 - x * x / f64::from(2 * k * (2 * k - 1)) * sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_at_their_edges() {
        let linear = [hyper::LINEAR_DECAY, 0.01, 0.0, 0.0, 40_000.0];
        assert_eq!(value(&linear, 0), 0.01);
        assert_eq!(value(&linear, 20_000), 0.005);
        assert_eq!(value(&linear, 40_000), 0.0, "a schedule reaches 0");
        assert_eq!(value(&linear, 1 << 40), 0.0);
        let rising = [hyper::LINEAR_DECAY, 0.1, 0.2, 100.0, 200.0];
        assert_eq!([100, 150, 200].map(|f| value(&rising, f)), [0.1, 0.15, 0.2]);
        let sudden = [hyper::LINEAR_DECAY, 1.0, 0.5, 100.0, 100.0];
        assert_eq!([100, 101].map(|f| value(&sudden, f)), [1.0, 0.5]);
        assert_eq!(value(&[hyper::NO_DECAY, 0.2, 0.9, 0.0, 10.0], 11), 0.2);
        let rate = [hyper::RATE_DECAY, 1.0, 0.5, 0.0, 100.0];
        assert!((value(&rate, 10) - 0.81).abs() < 1e-6);
        assert_eq!(value(&rate, 90), 0.5, "never beyond the end");
        let wave = [hyper::PERIODIC_DECAY, 2.0, 1.0, 0.0, 60.0];
        assert_eq!(value(&wave, 0), 2.0);
        assert!((value(&wave, 3) - (1.0 + 0.95 * 0.5 * (1.0 + 3f32.cos()))).abs() < 1e-6);
        assert!((value(&wave, 50) - (1.0 + 0.5 / 6.0 * (1.0 + 50f32.cos()))).abs() < 1e-6);
        assert_eq!(value(&wave, 60), 1.0);
    }

    #[test]
    fn own_functions_match_the_platform() {
        for i in 0..600 {
            let x = f64::from(i) / 10.0;
            assert!((cos(x) - x.cos()).abs() < 1e-12, "cos {x}");
            assert!((exp(-x / 20.0) - (-x / 20.0).exp()).abs() < 1e-14, "exp {x}");
        }
    }

    #[test]
    fn rates_are_those_of_the_start_and_coefficients_those_of_the_end() {
        let mut d = ScheduleShape { t: 10, n: 4, groups: 2, params: 2, log_alpha: None };
        let mut hyper = vec![0.0; hyper::len(2)];
        hyper[hyper::CLIP_EPS..][..5].copy_from_slice(&[hyper::LINEAR_DECAY, 0.2, 0.1, 0.0, 80.0]);
        hyper[hyper::EXPLORE..][..5].copy_from_slice(&[hyper::LINEAR_DECAY, 1.0, 0.0, 0.0, 100.0]);
        hyper[hyper::group(0) + hyper::LR] = 3e-4;
        hyper[hyper::group(1)..][..10].copy_from_slice(&[
            1e-3,
            0.,
            0.,
            0.,
            0.,
            0.,
            0.,
            hyper::LR_LINEAR_TO_MIN,
            100.0,
            0.3,
        ]);
        let at = |d: &ScheduleShape, step: u32| {
            let mut schedule = vec![f32::NAN; LEN + 2];
            let args = Args { hyper: &hyper, clock: &[step, 0, 0, 0], params: &[5.0, -1.0], schedule: &mut schedule };
            define(d, args);
            schedule
        };
        assert_eq!(at(&d, 0), [0.15, 0.0, 1.0, 0.0, 0.0, 3e-4, 1e-3]);
        assert_eq!(at(&d, 10), [0.1, 0.0, 0.6, 0.0, 0.0, 3e-4, 6e-4]);
        assert_eq!(at(&d, 20)[LEN + 1], 3e-4);
        d.log_alpha = Some(1);
        assert_eq!(at(&d, 0), [0.15, trig::exp(-1.0), 1.0, 0.0, 0.0, 3e-4, 1e-3]);
    }
}
