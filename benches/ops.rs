//! Every op at the sizes of real trainings, and environments alone, against the ceilings of this machine.
//!
//! `cargo bench --bench ops`. One line a figure: nanoseconds a launch, GB/s over the declared arguments (an update counts
//! twice), GFLOP/s and its share of the multiply-add peak that was measured just before.

mod ceilings;
mod common;

use std::time::Duration;

use ceilings::Ceilings;
use common::{Effort, Report, human, time};
use criterion::Criterion;
use slm_fast::device::{self, Device, Layout, Queue};
use slm_fast::env;
use slm_fast::op::advantage::{Advantage, AdvantageShape, Mode};
use slm_fast::op::lib::envs::EnvFns;
use slm_fast::op::lib::mlp::{Activation, Mlp};
use slm_fast::op::lib::nets::Nets;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::log::{Log, LogShape};
use slm_fast::op::minibatch_grad::{Distance, GradShape, MinibatchGrad, tile_rows};
use slm_fast::op::obs_moments::{ObsMoments, ObsMomentsShape};
use slm_fast::op::optimize::{Group, Kind, Optimize, OptimizeShape};
use slm_fast::op::rollout::{Rollout, RolloutShape};
use slm_fast::op::schedule::{Schedule, ScheduleShape};
use slm_fast::op::shuffle::{Normalize, Shuffle, ShuffleShape};
use slm_fast::op::{Arg, Draw, Role, Shape};

const EFFORT: Effort = Effort { samples: 20, warm_up: Duration::from_millis(200), measure: Duration::from_millis(800) };

/// Environments that step alone, and how.
const ENVS: [&str; 5] = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];
const ENV_SHAPE: (usize, usize) = (32, 4096);

/// An op with buffers of its own, ready to launch.
struct Launch {
    op: &'static str,
    args: Vec<Arg>,
    inputs: Vec<Vec<u32>>,
    layout: Layout,
    queue: Queue,
}

macro_rules! launch {
    ($Op:ident, $shape:expr) => {{
        let shape = $shape;
        let (args, inputs) = ($Op::args(&shape), $Op::inputs(&shape, &mut Draw::new(7)));
        let (mut layout, mut queue) = (Layout::new(1), Queue::default());
        $Op::alone(shape, &mut layout).record(&mut layout, &mut queue);
        Launch { op: $Op::ENTRY.name, args, inputs, layout, queue }
    }};
}

struct Bench {
    criterion: Criterion,
    report: Report,
    ceilings: Ceilings,
}

impl Bench {
    /// Seconds of one launch on `threads` threads (0 for all), or none where a filter left it out.
    fn seconds(&mut self, group: &str, name: &str, threads: usize, launch: Launch) -> Option<f64> {
        let device = Device::cpu(threads);
        let mut memory = launch.layout.allocate().expect("memory for the buffers of one op");
        for (id, (arg, words)) in launch.args.iter().zip(&launch.inputs).enumerate() {
            let to = memory.words_mut(id, 0);
            to.copy_from_slice(words);
            match arg.name {
                // test inputs include sessions that have stopped, and gradients that stop them
                "fault" => to.fill(0),
                "partial" => to.iter_mut().filter(|x| !f32::from_bits(**x).is_finite()).for_each(|x| *x = 0),
                _ => {}
            }
        }
        time(&mut self.criterion, group, name, EFFORT, || {
            launch.queue.replay(&device, &mut memory, &[0]).expect("the cpu launches whatever is recorded")
        })
    }

    /// Times one op and reports it. `threads`: 1, or 0 for all.
    fn op(&mut self, shape: &str, threads: usize, launch: Launch) {
        let bytes: usize = launch.args.iter().map(|arg| arg.len() * if arg.role == Role::Update { 8 } else { 4 }).sum();
        let flops = launch.queue.calls()[0].flops();
        let suffix = if threads == 0 { ".all_threads" } else { "" };
        let (op, shape) = (launch.op, format!("{shape}{suffix}"));
        let Some(seconds) = self.seconds(op, &shape, threads, launch) else { return };

        let name = format!("{op}.{shape}");
        let gflops = flops / seconds / 1e9;
        let share = gflops / if threads == 0 { self.ceilings.fma_all } else { self.ceilings.fma_one };
        let speed = if flops > 0.0 {
            format!("{gflops:>9.2} GFLOP/s {:>5.1} % of the FMA peak", share * 100.0)
        } else {
            String::new()
        };
        println!("{name:48} {:>14} ns {:>8.2} GB/s {speed}", human(seconds * 1e9), bytes as f64 / seconds / 1e9);
        self.report.row(&name, seconds * 1e9, "ns");
        self.report.row(&name, bytes as f64 / seconds / 1e9, "GB/s");
        if flops > 0.0 {
            self.report.row(&name, gflops, "GFLOP/s");
            self.report.row(&name, share, "share");
        }
    }

    /// Times an environment that takes random actions.
    fn env(&mut self, name: &str, threads: usize) {
        let (t, n) = ENV_SHAPE;
        let shape = RolloutShape { nets: None, ..rollout(name, t, n) };
        let how = format!("{name}.{}", if threads == 0 { "all_threads" } else { "1_thread" });
        if let Some(seconds) = self.seconds("env_step", &how, threads, launch!(Rollout, shape)) {
            self.report.line(&format!("env_step.{how}"), (t * n) as f64 / seconds, "steps/s");
        }
    }
}

/// Two separate nets of two layers.
fn nets(input: usize, hidden: usize, activation: Activation, policy: Policy) -> Nets {
    let mlp = |output| Mlp { input, hidden: vec![hidden, hidden], activation, output };
    Nets { actor: mlp(policy.outputs()), critic: Some(mlp(1)), policy }
}

/// CartPole's 2x64 tanh nets: 9,155 parameters.
fn small_nets() -> Nets {
    nets(4, 64, Activation::Tanh, Policy::Categorical { n: 2 })
}

fn rollout(env: &str, t: usize, n: usize) -> RolloutShape {
    let env = EnvFns::new(env::find(env).expect("a built environment"));
    RolloutShape {
        env,
        nets: Some(small_nets()),
        t,
        n,
        limit: env.spec.max_episode_steps,
        greedy: false,
        normalize_obs: false,
    }
}

/// PPO's gradient of one of four minibatches.
fn grad(nets: Nets, envs: usize, len: usize) -> GradShape {
    GradShape {
        obs: nets.actor.input,
        tile_rows: tile_rows(device::Kind::Cpu, &nets, len),
        nets,
        rows: 4 * len,
        envs,
        start: len,
        len,
        minibatch: 1,
        minibatches: 4,
        epochs: 1,
        clipped: true,
        distance: Distance::Mse,
        clip_value: false,
        symlog: false,
        normalize_targets: false,
        normalize_obs: false,
    }
}

fn optimize(tiles: usize, rows: usize) -> OptimizeShape {
    let nets = small_nets();
    let group = |range| Group { range, kind: Kind::Adam };
    let groups = vec![group(0..nets.actor_len()), group(nets.actor_len()..nets.len())];
    OptimizeShape { p: nets.len(), tiles, rows, groups }
}

fn ops(b: &mut Bench) {
    let pendulum = Policy::Gaussian { n: 1, free_std: false, squashed: false };
    let wide = || nets(3, 256, Activation::Relu, pendulum);
    b.op("cartpole_4x128", 1, launch!(Rollout, rollout("CartPole-v1", 128, 4)));
    b.op("cartpole_1024x32", 1, launch!(Rollout, rollout("CartPole-v1", 32, 1024)));
    b.op("cartpole_1024x32", 0, launch!(Rollout, rollout("CartPole-v1", 32, 1024)));
    b.op("2x64_128_rows", 1, launch!(MinibatchGrad, grad(small_nets(), 4, 128)));
    b.op("2x64_8192_rows", 1, launch!(MinibatchGrad, grad(small_nets(), 1024, 8192)));
    b.op("2x64_8192_rows", 0, launch!(MinibatchGrad, grad(small_nets(), 1024, 8192)));
    b.op("2x256_relu_64_rows", 1, launch!(MinibatchGrad, grad(wide(), 4, 64)));
    b.op("9155_1_tile", 1, launch!(Optimize, optimize(1, 128)));
    let tiles = grad(small_nets(), 1024, 8192).tiles();
    b.op(&format!("9155_{tiles}_tiles"), 1, launch!(Optimize, optimize(tiles, 8192)));
    for (n, t) in [(4, 128), (1024, 32)] {
        let size = format!("{n}x{t}");
        let gae = AdvantageShape {
            t,
            n,
            groups: 2,
            mode: Mode::Gae,
            normalize_reward: false,
            normalize_values: false,
            percentile: false,
        };
        let (m, normalize) = (t * n, Normalize::Standardize);
        let shuffle = ShuffleShape { m, minibatch: m / 4, epochs: 1, normalize, ordered: false };
        let rows = LogShape::rows_needed(t, n, 500);
        let log = LogShape { t, n, groups: 2, log_frequency: 500, max_frame: u64::MAX, rows };
        b.op(&size, 1, launch!(Advantage, gae));
        b.op(&size, 1, launch!(Shuffle, shuffle));
        b.op(&size, 1, launch!(Log, log));
        b.op(&size, 1, launch!(Schedule, ScheduleShape { t, n, groups: 2 }));
        b.op(&size, 1, launch!(ObsMoments, ObsMomentsShape { t, n, o: 4 }));
    }
}

fn main() {
    let criterion = Criterion::default().configure_from_args();
    let mut report = Report::open();
    let ceilings = Ceilings::measure();
    ceilings.report(&mut report);
    let mut bench = Bench { criterion, report, ceilings };
    ops(&mut bench);
    for env in ENVS {
        bench.env(env, 1);
        bench.env(env, 0);
    }
    bench.criterion.final_summary();
}
