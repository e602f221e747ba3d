//! Trainings on a gpu: whole ones by the wall clock, and how the rate grows with environments, sessions and widths.

use std::time::Instant;

use crate::common::{Gpu, Options, Report, median};
use crate::{PUREJAXRL, SB3_SAC, SHORT, load, sizes};
use slm_fast::error::Result;
use slm_fast::lab::cohort::Cohort;
use slm_fast::plan::Plan;
use slm_fast::spec::Spec;

/// Whole trainings of which the middle one counts.
const SAMPLES: usize = 3;
/// Seconds of a training that a rate is measured over, and iterations before it.
const SECONDS: f64 = 0.5;
const WARM_UP: usize = 4;
/// Steps of a rollout of many environments.
const STEPS: usize = 32;

/// Algorithms that learn from a replay memory.
const OFF_POLICY: [(&str, &str); 3] = [
    ("ddqn_per_cartpole", "specs/ddqn/ddqn_per_cartpole.json"),
    ("sac_pendulum_sb3", SB3_SAC),
    ("crossq_pendulum", "specs/crossq/crossq_pendulum.json"),
];
/// What makes of these a training that goes on for as long as a rate is measured, with a ring that many sessions have
/// room for.
const LONG: [(&str, &str); 3] =
    [("env.max_frame", "200000000"), ("meta.log_frequency", "100000"), ("agent.memory.max_size", "50000")];

struct Bench<'a> {
    gpu: &'a Gpu,
    options: &'a Options,
    report: Report,
}

/// PureJaxRL's settings with many environments, in four minibatches as well; it does not end, and logs now and then.
fn many(envs: usize, steps: usize, width: usize, format: &str) -> Spec {
    let rows = envs * steps;
    let sets = [
        ("env.num_envs", envs.to_string()),
        ("env.max_frame", (rows * 20_000).to_string()),
        ("agent.algorithm.time_horizon", steps.to_string()),
        ("agent.algorithm.minibatch_size", (rows / 4).to_string()),
        ("agent.net.lr_scheduler_spec.frame", (rows * 20_000).to_string()),
        ("agent.net.hid_layers", format!("[{width}, {width}]")),
        ("meta.log_frequency", (rows * 50).to_string()),
        ("meta.precision", format.to_string()),
    ];
    let sets: Vec<(&str, &str)> = sets.iter().map(|(key, value)| (*key, value.as_str())).collect();
    load(PUREJAXRL, &sets)
}

impl Bench<'_> {
    fn cohort(&self, plan: &Plan, sessions: &[u32]) -> Result<Cohort> {
        Cohort::new(plan, 1, sessions, self.gpu.open())
    }

    /// A result, or a line that says why there is none.
    fn shown<T>(name: &str, result: Result<T>) -> Option<T> {
        result.map_err(|error| println!("{name:48} not measured: {}", error.what)).ok()
    }

    /// Whole trainings of a spec.
    fn whole(&mut self, name: &str, spec: &Spec, samples: usize) {
        let name = format!("training.{name}.{}", self.gpu.suffix());
        if !self.options.wants(&name) {
            return;
        }
        let measured = || {
            let plan = Plan::new(spec)?;
            let (sessions, frames, reward) = sizes(&plan);
            let (mut seconds, mut last) = (Vec::new(), f64::NAN);
            // the first one compiles the kernels
            for _ in 0..=samples {
                let start = Instant::now();
                let mut cohort = self.cohort(&plan, &sessions)?;
                while !cohort.done() {
                    cohort.iterate()?;
                    last = cohort.rows(0).last().map_or(last, |row| row[reward]);
                }
                cohort.wait()?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            Ok((frames, median(&mut seconds[1..]).expect("some samples"), last))
        };
        let Some((frames, seconds, last)) = Self::shown(&name, measured()) else { return };
        self.report.line(&name, frames / seconds, "frames/s");
        self.report.line(&name, seconds, "s");
        self.report.line(&name, last, "final total_reward");
    }

    /// Frames per second in the middle of a training.
    fn rate(&mut self, name: &str, spec: &Spec, sessions: u32) {
        let name = format!("training.{name}.{}", self.gpu.suffix());
        if !self.options.wants(&name) {
            return;
        }
        let measured = || {
            let plan = Plan::new(spec)?;
            let mut cohort = self.cohort(&plan, &(0..sessions).collect::<Vec<_>>())?;
            (0..WARM_UP).try_for_each(|_| cohort.iterate().map(drop))?;
            cohort.wait()?;
            let (start, begins) = (Instant::now(), cohort.frame());
            while start.elapsed().as_secs_f64() < SECONDS && !cohort.done() {
                cohort.iterate()?;
            }
            cohort.wait()?;
            let frames = (cohort.frame() - begins) as f64 * f64::from(sessions);
            // batches from a replay memory that one frame pays for
            let updates = plan.off_policy.map(|memory| {
                let frames = memory.horizon() * plan.num_envs as usize;
                (memory.rounds * memory.updates * memory.repeats) as f64 / frames as f64
            });
            Ok((frames / start.elapsed().as_secs_f64(), updates))
        };
        let Some((rate, updates)) = Self::shown(&name, measured()) else { return };
        self.report.line(&name, rate, "frames/s");
        if let Some(updates) = updates {
            self.report.line(&name, rate * updates, "gradient steps/s");
        }
    }
}

/// Measures everything that is asked for.
pub fn run(gpu: &Gpu, options: &Options) {
    let mut b = Bench { gpu, options, report: Report::open() };
    println!("trainings on {}", gpu.describe());
    if gpu.is_software() {
        b.rate(&format!("f32.64x{STEPS}"), &many(64, STEPS, 64, "f32"), 1);
        b.rate("slm_lab.4_sessions", &load("specs/ppo/ppo_cartpole.json", &[]), 4);
        let small = [("agent.net.hid_layers", "[16, 16]"), ("agent.memory.batch_size", "16")];
        for (name, path) in OFF_POLICY {
            b.rate(&format!("{name}_2x16.1_sessions"), &load(path, &[&LONG[..], &small].concat()), 1);
        }
        return;
    }
    b.whole("ppo_cartpole_4x128_purejaxrl", &load(PUREJAXRL, &[]), SAMPLES);
    b.whole("ppo_cartpole_slm_lab_4_sessions", &load("specs/ppo/ppo_cartpole.json", &[]), SAMPLES);
    let agents = load(PUREJAXRL, &[("meta.max_session", "2048"), ("meta.log_frequency", "100000")]);
    b.whole("ppo_cartpole_4x128_purejaxrl_2048_sessions", &agents, 1);
    for (name, path) in OFF_POLICY {
        for sessions in [1, 4, 256] {
            b.rate(&format!("{name}.{sessions}_sessions"), &load(path, &LONG), sessions);
        }
    }
    for sessions in [1, 64] {
        let spec = load("specs/ppo/ppo_gru_cartpole_masked.json", &LONG[..2]);
        b.rate(&format!("ppo_gru_cartpole_masked.{sessions}_sessions"), &spec, sessions);
    }
    b.whole("ddqn_per_cartpole_10000_frames", &load(OFF_POLICY[0].1, &SHORT), SAMPLES);
    b.whole("sac_pendulum_sb3_3000_frames", &load(SB3_SAC, &[]), SAMPLES);
    for &(format, _) in gpu.formats() {
        for power in 1..=8 {
            let envs = 4_usize.pow(power);
            b.rate(&format!("{format}.{envs}x{STEPS}"), &many(envs, STEPS, 64, format), 1);
        }
        for envs in [2_048, 8_192, 32_768] {
            b.rate(&format!("{format}.{envs}x{STEPS}"), &many(envs, STEPS, 64, format), 1);
        }
        for width in [32, 128, 256, 512] {
            b.rate(&format!("{format}.4096x{STEPS}.2x{width}"), &many(4_096, STEPS, width, format), 1);
        }
    }
    for power in 0..=5 {
        let sessions = 4_u32.pow(power);
        b.rate(&format!("f32.4x128.{sessions}_sessions"), &many(4, 128, 64, "f32"), sessions);
    }
    let slm_lab = [("env.max_frame", "200000000"), ("meta.log_frequency", "200000")];
    for sessions in [1, 4, 64, 512] {
        b.rate(&format!("slm_lab.{sessions}_sessions"), &load("specs/ppo/ppo_cartpole.json", &slm_lab), sessions);
    }
}
