//! Every op at the sizes of real trainings, and environments alone, against the ceilings of this machine.
//!
//! `cargo bench --bench ops`, with `-- --device cuda` or `wgpu` on a gpu. One line a figure: nanoseconds a launch, GB/s over the
//! declared arguments (an update counts twice), GFLOP/s and its share of the multiply-add peak that was measured just
//! before.

mod ceilings;
mod common;
mod gpu_ops;

use std::sync::Arc;
use std::time::Duration;

use ceilings::Ceilings;
use common::{Effort, Options, Report, human, time};
use criterion::Criterion;
use gpu_ops::replay;
use slm_fast::device::{self, Call, Device, Layout, Memory, Precision, Queue};
use slm_fast::env;
use slm_fast::op::actor_grad::ActorGrad;
use slm_fast::op::advantage::{Advantage, AdvantageShape, Mode};
use slm_fast::op::critic_grad::CriticGrad;
use slm_fast::op::crossq_grad::CrossqGrad;
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::envs::EnvFns;
use slm_fast::op::lib::mlp::Mlp;
use slm_fast::op::lib::nets::Nets;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::log::{Log, LogShape};
use slm_fast::op::minibatch_grad::{Distance, GradShape, MinibatchGrad, tile_rows};
use slm_fast::op::obs_moments::{ObsMoments, ObsMomentsShape};
use slm_fast::op::optimize::{Group, Kind, Optimize, OptimizeShape};
use slm_fast::op::rollout::{Rollout, RolloutShape};
use slm_fast::op::schedule::{Schedule, ScheduleShape};
use slm_fast::op::shuffle::{Normalize, Shuffle, ShuffleShape};
use slm_fast::op::td_grad::TdGrad;
use slm_fast::op::{self, Arg, Draw, Role, Shape};

const EFFORT: Effort = Effort { samples: 20, warm_up: Duration::from_millis(200), measure: Duration::from_millis(800) };

/// Environments that step alone, and how.
const ENVS: [&str; 5] = ["CartPole-v1", "Acrobot-v1", "MountainCar-v0", "MountainCarContinuous-v0", "Pendulum-v1"];
const ENV_SHAPE: (usize, usize) = (32, 4096);

/// An op with buffers of its own, ready to launch.
struct Launch {
    op: &'static str,
    args: Vec<Arg>,
    /// Words of every argument that is read.
    inputs: Vec<Vec<u32>>,
    layout: Layout,
    call: Arc<dyn Call>,
}

/// An op of one session of the cpu, or of `sessions` sessions of a kind of device.
#[macro_export]
macro_rules! launch {
    ($Op:ident, $shape:expr) => {
        $crate::launch!($Op, $shape, $crate::Layout::new(1))
    };
    ($Op:ident, $shape:expr, $layout:expr) => {{
        let (shape, mut layout, mut draw) = ($shape, $layout, $crate::Draw::new(7));
        let args = $Op::args(&shape);
        let inputs = args.iter().map(|arg| $crate::input(&shape, arg, &mut draw)).collect();
        let call = std::sync::Arc::new($Op::alone(shape, &mut layout));
        $crate::Launch { op: $Op::ENTRY.name, args, inputs, layout, call }
    }};
}

/// Words of an argument before the first launch: nothing that a training would not put there.
fn input(shape: &impl Shape, arg: &Arg, draw: &mut Draw) -> Vec<u32> {
    let mut words = vec![0; if arg.role == Role::Write { 0 } else { arg.len() }];
    if !words.is_empty() && !shape.sample(arg.name, &mut words, draw) {
        op::fill(arg, &mut words, draw);
    }
    match arg.name {
        // test inputs include sessions that have stopped, and gradients that stop them
        "fault" => words.fill(0),
        "partial" => words.iter_mut().filter(|x| !f32::from_bits(**x).is_finite()).for_each(|x| *x = 0),
        _ => {}
    }
    words
}

impl Launch {
    /// A queue with the op as often as that.
    fn queue(&self, copies: usize) -> Queue {
        let mut queue = Queue::default();
        (0..copies).for_each(|_| queue.push(self.call.clone()));
        queue
    }

    /// Bytes that a session moves at least.
    fn bytes(&self) -> usize {
        self.args.iter().map(|arg| arg.len() * if arg.role == Role::Update { 8 } else { 4 }).sum()
    }
}

/// Gives every session its inputs.
fn write(inputs: &[Vec<u32>], memory: &mut Memory) {
    for s in 0..memory.sessions() {
        for (id, words) in inputs.iter().enumerate().filter(|(_, words)| !words.is_empty()) {
            memory.words_mut(id, s).copy_from_slice(words);
        }
    }
}

struct Bench {
    criterion: Criterion,
    report: Report,
    ceilings: Ceilings,
}

impl Bench {
    /// Seconds of one launch on `threads` threads (0 for all), or none where a filter left it out.
    fn seconds(&mut self, group: &str, name: &str, threads: usize, launch: Launch) -> Option<f64> {
        let (device, queue) = (Device::cpu(threads), launch.queue(1));
        let mut memory = launch.layout.allocate().expect("memory for the buffers of one op");
        write(&launch.inputs, &mut memory);
        time(&mut self.criterion, group, name, EFFORT, || {
            queue.replay(&device, &mut memory, &[0]).expect("the cpu launches whatever is recorded")
        })
    }

    /// Times one op and reports it. `threads`: 1, or 0 for all.
    fn op(&mut self, shape: &str, threads: usize, launch: Launch) {
        let (bytes, flops) = (launch.bytes(), launch.call.flops());
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
        let shape = RolloutShape { nets: None, params: 0, ..rollout(name, t, n) };
        let how = format!("{name}.{}", if threads == 0 { "all_threads" } else { "1_thread" });
        if let Some(seconds) = self.seconds("env_step", &how, threads, launch!(Rollout, shape)) {
            self.report.line(&format!("env_step.{how}"), (t * n) as f64 / seconds, "steps/s");
        }
    }
}

/// Two separate nets of two layers.
fn nets(input: usize, hidden: usize, activation: Activation, policy: Policy) -> Nets {
    let mlp = |output| Mlp { input, hidden: vec![hidden, hidden], activation, output, precision: Precision::F32 };
    Nets { actor: mlp(policy.outputs()), critic: Some(mlp(1)), policy, body: None }
}

/// CartPole's 2x64 tanh nets: 9,155 parameters.
fn small_nets() -> Nets {
    nets(4, 64, Activation::Tanh, Policy::Categorical { n: 2 })
}

fn rollout(env: &str, t: usize, n: usize) -> RolloutShape {
    let env = EnvFns::new(env::find(env).expect("a built environment"));
    RolloutShape::new(env, Some(small_nets()), t, n)
}

/// PPO's gradient of one of four minibatches.
fn grad(kind: device::Kind, nets: Nets, envs: usize, len: usize) -> GradShape {
    GradShape {
        obs: nets.actor.input,
        tile_rows: tile_rows(kind, &nets, len),
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
        one_sided: false,
        symlog: false,
        normalize_targets: false,
        normalize_obs: false,
    }
}

fn optimize(tiles: usize, rows: usize) -> OptimizeShape {
    let nets = small_nets();
    let group = |range| Group::new(range, Kind::Adam);
    let groups = vec![group(0..nets.actor_len()), group(nets.actor_len()..nets.len())];
    OptimizeShape::new(nets.len(), tiles, rows, groups)
}

fn ops(b: &mut Bench) {
    let grad = |nets, envs, len| grad(device::Kind::Cpu, nets, envs, len);
    let pendulum = Policy::Gaussian { n: 1, free_std: false, squashed: false };
    let wide = || nets(3, 256, Activation::Relu, pendulum);
    b.op("cartpole_4x128", 1, launch!(Rollout, rollout("CartPole-v1", 128, 4)));
    b.op("cartpole_1024x32", 1, launch!(Rollout, rollout("CartPole-v1", 32, 1024)));
    b.op("cartpole_1024x32", 0, launch!(Rollout, rollout("CartPole-v1", 32, 1024)));
    b.op("2x64_128_rows", 1, launch!(MinibatchGrad, grad(small_nets(), 4, 128)));
    b.op("2x64_8192_rows", 1, launch!(MinibatchGrad, grad(small_nets(), 1024, 8192)));
    b.op("2x64_8192_rows", 0, launch!(MinibatchGrad, grad(small_nets(), 1024, 8192)));
    b.op("2x256_relu_64_rows", 1, launch!(MinibatchGrad, grad(wide(), 4, 64)));
    for (format, precision) in [("f32", Precision::F32), ("bf16", Precision::Bf16)] {
        let named = |name: &str| format!("{name}_{format}");
        if precision == Precision::Bf16 {
            let half = |nets: Nets| nets.with_precision(precision);
            b.op(&named("2x64_8192_rows"), 1, launch!(MinibatchGrad, grad(half(small_nets()), 1024, 8192)));
            b.op(&named("2x256_relu_64_rows"), 1, launch!(MinibatchGrad, grad(half(wide()), 4, 64)));
        }
        let mut of_q = replay::q_gradient(device::Kind::Cpu, 64);
        of_q.net.precision = precision;
        let (of_critics, of_actor) = replay::soft_gradients(replay::pendulum().with_precision(precision), 256);
        b.op(&named("256x128_64_rows"), 1, launch!(TdGrad, of_q));
        b.op(&named("2x256_256_rows"), 1, launch!(CriticGrad, of_critics));
        b.op(&named("2x256_256_rows"), 1, launch!(ActorGrad, of_actor));
        let crossed = replay::crossed_gradient(replay::pendulum().with_precision(precision), 256);
        b.op(&named("2x256_256_rows"), 1, launch!(CrossqGrad, crossed));
    }
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
        b.op(&size, 1, launch!(Schedule, ScheduleShape { t, n, groups: 2, params: 1, log_alpha: None }));
        b.op(&size, 1, launch!(ObsMoments, ObsMomentsShape { t, n, o: 4 }));
    }
}

fn main() {
    let options = Options::read();
    if let Some(gpu) = options.gpu() {
        return gpu_ops::run(&gpu, &options);
    }
    let criterion = options.criterion();
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
