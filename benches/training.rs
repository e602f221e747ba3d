//! Whole trainings, without files: from first parameters to the last frame.
//!
//! `cargo bench --bench training`, with `-- --device cuda` or `wgpu` on a gpu. Frames are trained frames of all sessions; a
//! CPU-second is a second of one core, from the process's own CPU clock.

mod common;
mod gpu_training;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Effort, Options, Report, median, time};
use criterion::Criterion;
use slm_fast::device::Device;
use slm_fast::lab::cohort::{COLUMNS, Cohort};
use slm_fast::plan::Plan;
use slm_fast::spec::{self, Spec};

/// Criterion takes no fewer samples; one sample is one training.
const EFFORT: Effort = Effort { samples: 10, warm_up: Duration::from_millis(1), measure: Duration::from_secs(5) };

/// The settings of PureJaxRL's `ppo.py` for CartPole.
const PUREJAXRL: &str = "benches/ppo_cartpole_purejaxrl.json";
/// The defaults of Stable-Baselines3's SAC, on Pendulum.
const SB3_SAC: &str = "benches/sac_pendulum_sb3.json";
/// One session, long enough for its ring to go through the cache.
const SHORT: [(&str, &str); 2] = [("meta.max_session", "1"), ("env.max_frame", "10000")];
/// What makes of PureJaxRL's settings the same nets over many environments, in four large minibatches.
const MANY_ENVS: [(&str, &str); 5] = [
    ("env.num_envs", "1024"),
    ("env.max_frame", "1048576"),
    ("agent.algorithm.time_horizon", "32"),
    ("agent.algorithm.minibatch_size", "8192"),
    ("agent.net.lr_scheduler_spec.frame", "1048576"),
];

/// The repository: where this was compiled, or where a carried bench runs.
fn root() -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os("SLM_FAST_ROOT") {
        Some(root) => root.into(),
        None if compiled.is_dir() => compiled.into(),
        None => ".".into(),
    }
}

fn load(path: &str, sets: &[(&str, &str)]) -> Spec {
    let path = root().join(path);
    let sets: Vec<(String, String)> = sets.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    spec::load(&path, None, &sets).expect("the spec loads").spec
}

/// Sessions of a plan, frames of all of them, and the column of log rows that says how good they are.
fn sizes(plan: &Plan) -> (Vec<u32>, f64, usize) {
    let sessions: Vec<u32> = (0..plan.max_session).collect();
    let frames = (plan.steps() * u64::from(plan.num_envs)) as f64 * sessions.len() as f64;
    let reward = COLUMNS.iter().position(|&column| column == "total_reward").expect("a column of log rows");
    (sessions, frames, reward)
}

/// Times whole trainings of a spec on `threads` threads (0 for all).
fn training(criterion: &mut Criterion, report: &mut Report, name: &str, spec: &Spec, threads: usize) {
    let plan = Plan::new(spec).expect("the spec can be planned");
    let (sessions, frames, reward) = sizes(&plan);
    let (mut cpu, mut last) = (Vec::new(), f64::NAN);
    let seconds = time(criterion, "training", name, EFFORT, || {
        let start = cpu_seconds();
        let mut cohort = Cohort::new(&plan, 1, &sessions, Device::cpu(threads)).expect("memory for a training");
        while !cohort.done() {
            cohort.iterate().expect("the cpu does not fail");
            last = cohort.rows(0).last().map_or(last, |row| row[reward]);
        }
        cpu.push(cpu_seconds() - start);
    });
    let (Some(seconds), Some(cpu)) = (seconds, median(&mut cpu)) else { return };
    let name = format!("training.{name}");
    report.line(&name, frames / seconds, "frames/s");
    report.line(&name, frames / cpu, "frames/CPU-s");
    report.line(&name, seconds, "s");
    report.line(&name, last, "final total_reward");
}

/// Seconds of CPU that this process has used.
#[cfg(unix)]
fn cpu_seconds() -> f64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a timespec to write to
    let code = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut now) };
    assert_eq!(code, 0, "every unix has this clock");
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Unknown here: figures by CPU-second come out as not a number.
#[cfg(not(unix))]
fn cpu_seconds() -> f64 {
    f64::NAN
}

fn main() {
    let options = Options::read();
    if let Some(gpu) = options.gpu() {
        return gpu_training::run(&gpu, &options);
    }
    let mut criterion = options.criterion();
    let mut report = Report::open();
    for (name, spec, threads) in [
        ("ppo_cartpole_4x128_purejaxrl.1_thread", load(PUREJAXRL, &[]), 1),
        ("ppo_cartpole_1024x32.1_thread", load(PUREJAXRL, &MANY_ENVS), 1),
        ("ppo_cartpole_1024x32.all_threads", load(PUREJAXRL, &MANY_ENVS), 0),
        ("ppo_cartpole_slm_lab_4_sessions.all_threads", load("specs/ppo/ppo_cartpole.json", &[]), 0),
        ("ddqn_per_cartpole_slm_lab.1_thread", load("specs/ddqn/ddqn_per_cartpole.json", &SHORT), 1),
        ("sac_pendulum_sb3.1_thread", load(SB3_SAC, &[("env.max_frame", "1000")]), 1),
    ] {
        training(&mut criterion, &mut report, name, &spec, threads);
    }
    criterion.final_summary();
}
