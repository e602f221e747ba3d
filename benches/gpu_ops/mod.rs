//! The ops on a gpu: time by the device's clock, and its share of the ceilings measured just before.
//!
//! An op is in a queue several times and the queue is replayed, as in a training: a figure is the time from one launch's
//! start to the next one's.

mod recurrent;
pub mod replay;

use crate::common::{Gpu, Options, Report, human, median};
use crate::{ENVS, Launch, grad, launch, nets, optimize, rollout, small_nets, write};
use slm_fast::device::{Device, Layout};
use slm_fast::op::Shape;
use slm_fast::op::advantage::{Advantage, AdvantageShape, Mode};
use slm_fast::op::lib::activation::Activation;
use slm_fast::op::lib::policy::Policy;
use slm_fast::op::log::{Log, LogShape};
use slm_fast::op::minibatch_grad::MinibatchGrad;
use slm_fast::op::obs_moments::{ObsMoments, ObsMomentsShape};
use slm_fast::op::optimize::Optimize;
use slm_fast::op::rollout::{Rollout, RolloutShape};
use slm_fast::op::schedule::{Schedule, ScheduleShape};
use slm_fast::op::shuffle::{Normalize, Shuffle, ShuffleShape};

/// Ops that read a few rows of a ring: what their arguments could hold says nothing about what they move.
const FROM_RING: [&str; 7] =
    ["sample", "prioritize", "td_grad", "sequence_td_grad", "critic_grad", "actor_grad", "crossq_grad"];
/// Rows of a batch from a ring, and sessions that learn from such.
const BATCHES: [(usize, usize); 3] = [(64, 1), (256, 1), (256, 256)];

/// Launches in a queue.
const COPIES: usize = 8;
/// Measurements of which the middle one counts, and how long one takes.
const SAMPLES: usize = 5;
const MILLISECONDS: f64 = 20.0;

/// Environments x steps of the environments alone.
const ENV_SHAPES: [(usize, usize); 3] = [(4_096, 32), (65_536, 32), (262_144, 32)];
/// Environments x steps of the ops of a training.
const SHAPES: [(usize, usize); 4] = [(4, 128), (2_048, 32), (16_384, 32), (65_536, 32)];
const WIDTHS: [usize; 5] = [32, 64, 128, 256, 512];
const SESSIONS: [usize; 4] = [1, 16, 256, 1_024];

struct Bench<'a> {
    gpu: &'a Gpu,
    options: &'a Options,
    report: Report,
    /// Of copies, multiply-adds and matrix products, where they are measured.
    ceilings: Option<[f64; 3]>,
}

impl Bench<'_> {
    /// A layout of so many sessions.
    fn on(&self, sessions: usize) -> Layout {
        Layout::on(self.gpu.kind(), sessions)
    }

    /// Seconds of one launch, or none where the device says why not.
    fn seconds(&self, name: &str, sessions: usize, launch: Launch) -> Option<f64> {
        let queue = launch.queue(COPIES);
        let sessions: Vec<usize> = (0..sessions).collect();
        let measured = || {
            let device = self.gpu.open();
            let mut memory = launch.layout.allocate_on(&device)?;
            write(&launch.inputs, &mut memory);
            let once = queue.time(&device, &mut memory, &sessions, 2)?.replay_ms;
            let repeats = (MILLISECONDS / once).clamp(2.0, 1_000.0) as u32;
            let mut samples = Vec::new();
            for _ in 0..SAMPLES {
                samples.push(queue.time(&device, &mut memory, &sessions, repeats)?.replay_ms);
            }
            Ok(median(&mut samples).expect("some samples") / 1e3 / COPIES as f64)
        };
        let seconds: slm_fast::error::Result<f64> = measured();
        seconds.map_err(|error| println!("{name:48} not measured: {}", error.what)).ok()
    }

    /// Measures an op of one or more sessions and reports it; it is made only when it is asked for.
    fn op(&mut self, name: &str, sessions: usize, launch: impl FnOnce(Layout) -> Launch) {
        let on = self.gpu.suffix();
        let name = if sessions == 1 { format!("{name}.{on}") } else { format!("{name}.{on}_{sessions}_sessions") };
        if !self.options.wants(&name) {
            return;
        }
        let launch = launch(self.on(sessions));
        let bytes = (!FROM_RING.contains(&launch.op)).then(|| (launch.bytes() * sessions) as f64);
        let flops = launch.call.flops() * sessions as f64;
        let Some(seconds) = self.seconds(&name, sessions, launch) else { return };
        let gflop = flops / seconds / 1e9;
        let mut line = format!("{name:48} {:>14} ns", human(seconds * 1e9));
        self.report.row(&name, seconds * 1e9, "ns");
        if let Some(gb) = bytes.map(|bytes| bytes / seconds / 1e9) {
            line += &format!(" {gb:>9.2} GB/s");
            self.report.row(&name, gb, "GB/s");
            if let Some([copy, ..]) = self.ceilings {
                line += &format!(" {:>5.1} % of a copy", gb / copy * 100.0);
                self.report.row(&name, gb / copy, "share of copy");
            }
        }
        line += &format!(" {gflop:>10.2} GFLOP/s");
        if flops > 0.0 {
            self.report.row(&name, gflop, "GFLOP/s");
        }
        if let Some([_, fma, mma]) = self.ceilings {
            let (peak, unit) = if name.contains("bf16") { (mma, "matrix") } else { (fma, "FMA") };
            line += &format!(" {:>5.1} % of the {unit} peak", gflop / peak * 100.0);
            self.report.row(&name, gflop / peak, "share");
        }
        println!("{line}");
    }

    /// Measures an environment that takes random actions.
    fn env(&mut self, env: &str, n: usize, t: usize) {
        let name = format!("env_step.{env}.{n}x{t}.{}", self.gpu.suffix());
        if !self.options.wants(&name) {
            return;
        }
        let shape = RolloutShape { nets: None, params: 0, ..rollout(env, t, n) };
        if let Some(seconds) = self.seconds(&name, 1, launch!(Rollout, shape, self.on(1))) {
            self.report.line(&name, (t * n) as f64 / seconds, "steps/s");
        }
    }

    /// The ops of a training of `n` environments and `t` steps with CartPole's nets.
    fn training(&mut self, n: usize, t: usize, sessions: usize) {
        let (size, m) = (format!("{n}x{t}"), n * t);
        let minibatch = m / 4;
        let gae = AdvantageShape {
            t,
            n,
            groups: 2,
            mode: Mode::Gae,
            normalize_reward: false,
            normalize_values: false,
            percentile: false,
        };
        let shuffle = ShuffleShape { m, minibatch, epochs: 1, normalize: Normalize::Standardize, ordered: false };
        // a row per eight iterations
        let every = 8 * m as u64;
        let rows = LogShape::rows_needed(t, n, every);
        let log = LogShape { t, n, groups: 2, log_frequency: every, max_frame: u64::MAX, rows };
        let gradient = grad(self.gpu.kind(), small_nets(), n, minibatch);
        let tiles = gradient.tiles();
        let op = |op: &str| format!("{op}.{size}");
        for &(format, precision) in self.gpu.formats() {
            let nets = || small_nets().with_precision(precision);
            let rollout = || RolloutShape { nets: Some(nets()), ..rollout("CartPole-v1", t, n) };
            let gradient = || grad(self.gpu.kind(), nets(), n, minibatch);
            self.op(&op(&format!("rollout.cartpole_{format}")), sessions, |on| launch!(Rollout, rollout(), on));
            self.op(&op(&format!("minibatch_grad.2x64_{format}")), sessions, |on| {
                launch!(MinibatchGrad, gradient(), on)
            });
        }
        self.op(&op("optimize.2x64"), sessions, |on| launch!(Optimize, optimize(tiles, minibatch), on));
        self.op(&op("advantage"), sessions, |on| launch!(Advantage, gae, on));
        self.op(&op("shuffle"), sessions, |on| launch!(Shuffle, shuffle, on));
        self.op(&op("log"), sessions, |on| launch!(Log, log, on));
        self.op(&op("schedule"), sessions, |on| {
            launch!(Schedule, ScheduleShape { t, n, groups: 2, params: 1, log_alpha: None }, on)
        });
        self.op(&op("obs_moments"), sessions, |on| launch!(ObsMoments, ObsMomentsShape { t, n, o: 4 }, on));
    }
}

/// What a device can do at most, in GB/s of a copy and GFLOP/s of multiply-adds and of matrix products: of cuda alone.
fn ceilings(device: &Device) -> Option<[f64; 3]> {
    match device {
        #[cfg(feature = "cuda")]
        Device::Cuda(cuda) => {
            let ceilings = cuda.ceilings().unwrap_or_else(|error| panic!("{error}"));
            Some([ceilings.copy, ceilings.fma, ceilings.mma])
        }
        _ => None,
    }
}

/// Measures everything that is asked for.
pub fn run(gpu: &Gpu, options: &Options) {
    let mut b = Bench { gpu, options, report: Report::open(), ceilings: ceilings(&gpu.open()) };
    println!("ops on {}", gpu.describe());
    if let Some([copy, fma, mma]) = b.ceilings {
        b.report.line("ceiling.fma.cuda", fma, "GFLOP/s");
        b.report.line("ceiling.matrix_bf16.cuda", mma, "GFLOP/s");
        b.report.line("ceiling.copy.cuda", copy, "GB/s");
    }
    if gpu.is_software() {
        b.training(SHAPES[0].0, SHAPES[0].1, 1);
        b.training(SHAPES[1].0, SHAPES[1].1, 1);
        b.replay(BATCHES[0].0, BATCHES[0].1);
        b.recurrent(SHAPES[0].0, SHAPES[0].1);
        b.sequences(1);
        return;
    }
    for (n, t) in SHAPES {
        b.training(n, t, 1);
    }
    // many sessions at once, each of the size that SLM Lab and PureJaxRL train
    for sessions in SESSIONS.into_iter().skip(1) {
        b.training(4, 128, sessions);
    }
    for (batch, sessions) in BATCHES {
        b.replay(batch, sessions);
    }
    for (n, t) in &SHAPES[..2] {
        b.recurrent(*n, *t);
    }
    for sessions in &SESSIONS[..3] {
        b.sequences(*sessions);
    }
    let formats = |width| gpu.formats().iter().map(move |format| (width, *format));
    for (width, (format, precision)) in WIDTHS.into_iter().flat_map(formats) {
        let wide = || nets(4, width, Activation::Tanh, Policy::Categorical { n: 2 }).with_precision(precision);
        let shape = || RolloutShape { nets: Some(wide()), params: wide().len(), ..rollout("CartPole-v1", 32, 2_048) };
        let gradient = || grad(gpu.kind(), wide(), 2_048, 16_384);
        b.op(&format!("rollout.cartpole_2x{width}_{format}.2048x32"), 1, |on| launch!(Rollout, shape(), on));
        let name = format!("minibatch_grad.2x{width}_{format}.16384_rows");
        b.op(&name, 1, |on| launch!(MinibatchGrad, gradient(), on));
    }
    for env in ENVS {
        for (n, t) in ENV_SHAPES {
            b.env(env, n, t);
        }
    }
}
