//! Episode statistics and log rows, from the records of the rollout that just ended.
//!
//! A row belongs to a vector step, not to an iteration: a log frequency finer than a rollout costs nothing.

use crate::device::{Kernel, Limits, Shader};
use crate::op::{Draw, Shape, hyper, hyper::update, schedule};

/// Episodes that `total_reward` and `episode_length` average over.
pub const WINDOW: usize = 100;

/// Words of a row of `row_ints`: vector steps, optimiser steps, episodes, 0.
pub const INTS: usize = 4;
/// Numbers of a row of `row_nums`, in order.
pub const NUMS: [&str; 13] = [
    "total_reward",
    "episode_length",
    "loss",
    "policy_loss",
    "value_loss",
    "entropy",
    "approx_kl",
    "clip_frac",
    "explained_var",
    "grad_norm",
    "lr",
    "clip_eps",
    "entropy_coef",
];

/// Names of the numbers of a log row, in order: what [`INTS`] becomes on the host, then [`NUMS`]. They are the columns of
/// the session data frame that come from the device.
pub const COLUMNS: [&str; INTS + NUMS.len()] = {
    let mut all = ["frame"; INTS + NUMS.len()];
    (all[1], all[2], all[3]) = ("t", "opt_step", "episodes");
    let mut i = 0;
    while i < NUMS.len() {
        all[INTS + i] = NUMS[i];
        i += 1;
    }
    all
};

/// One log row of one session; NaN where there is nothing yet (no finished episode, no update). `frame` and `opt_step`
/// are exact integers up to 2^53, so a row is f64.
pub type Row = [f64; COLUMNS.len()];

/// Sizes of [`Log`].
#[derive(Debug, Clone)]
pub struct LogShape {
    /// Vector steps of this iteration's rollout.
    pub t: usize,
    /// Environments.
    pub n: usize,
    /// Parameter groups.
    pub groups: usize,
    /// Frames between rows, at least 1.
    pub log_frequency: u64,
    /// A row is written where this frame is reached.
    pub max_frame: u64,
    /// Rows that there is room for, at least [`LogShape::rows_needed`].
    pub rows: usize,
}

impl LogShape {
    /// Most rows that `t` vector steps of `n` environments can give.
    pub fn rows_needed(t: usize, n: usize, log_frequency: u64) -> usize {
        let crossings = (t * n) as u64 / log_frequency + 1;
        t.min(crossings as usize + 1)
    }
}

impl Shape for LogShape {
    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::log::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::log::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::log::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::log::scratch(self)
    }

    fn cases() -> Vec<Self> {
        let case = |t, n, groups, log_frequency, max_frame| {
            let rows = LogShape::rows_needed(t, n, log_frequency) + 1;
            LogShape { t, n, groups, log_frequency, max_frame, rows }
        };
        vec![
            case(16, 3, 2, 10, 1_000),
            case(7, 1, 1, 1, 300),
            case(64, 5, 1, 1_000, 200),
            case(9, 20, 2, 7, 1),
            // several tiles of records on a gpu: more steps than lanes, more rows than warps; one step over two tiles
            case(1_100, 9, 1, 90, 1_000_000),
            case(2, 9_000, 2, 1 << 33, 1 << 40),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        if arg == "ep_return" {
            for word in words.iter_mut() {
                let ended = draw.below(4) == 0;
                *word = if ended { draw.range(-100.0, 100.0) } else { f32::NAN }.to_bits();
            }
        }
        arg == "ep_return"
    }
}

crate::op! {
    /// Counts the rollout, keeps the last [`WINDOW`] episodes and writes a row at every vector step where
    /// `frame / log_frequency` grows in whole numbers or `max_frame` is reached. Runs right after the rollout, before
    /// the sums of the last update are cleared, so a row shows the last update that was done by then.
    Log(d: LogShape) = "log", within 1e-6, run = define {
        // NaN where no episode ended
        read ep_return: f32[d.t, d.n];
        read ep_length: u32[d.t, d.n] in 1.0..500.0;
        read update: f32[update::LEN] in 0.0..5.0;
        read schedule: f32[schedule::LEN + d.groups];
        // returns, then lengths; the episode with number e lies at e % WINDOW
        update recent: f32[2, WINDOW] in -100.0..100.0;
        update clock: u32[hyper::CLOCK_LEN] in 0.0..300.0;
        write row_count: u32[1];
        write row_ints: u32[d.rows, INTS];
        write row_nums: f32[d.rows, NUMS.len()];
    }
}

fn define(d: &LogShape, a: Args) {
    let (returns, lengths) = a.recent.split_at_mut(WINDOW);
    let mut rows = 0;
    for (t, (ended, length)) in a.ep_return.chunks_exact(d.n).zip(a.ep_length.chunks_exact(d.n)).enumerate() {
        for (total, length) in ended.iter().zip(length).filter(|(total, _)| !total.is_nan()) {
            let slot = a.clock[hyper::CLOCK_EPISODES] as usize % WINDOW;
            (returns[slot], lengths[slot]) = (*total, *length as f32);
            a.clock[hyper::CLOCK_EPISODES] += 1;
        }
        let step = u64::from(a.clock[hyper::CLOCK_STEP]) + t as u64 + 1;
        let (before, frame) = ((step - 1) * d.n as u64, step * d.n as u64);
        let due = frame / d.log_frequency > before / d.log_frequency;
        if due || (before < d.max_frame && d.max_frame <= frame) {
            let episodes = a.clock[hyper::CLOCK_EPISODES];
            a.row_ints[rows * INTS..][..INTS].copy_from_slice(&[step as u32, a.clock[hyper::CLOCK_OPT], episodes, 0]);
            let seen = WINDOW.min(episodes as usize);
            let mean = |x: &[f32]| (x.iter().map(|v| f64::from(*v)).sum::<f64>() / seen as f64) as f32;
            let nums = &mut a.row_nums[rows * NUMS.len()..][..NUMS.len()];
            nums[0] = mean(&returns[..seen]);
            nums[1] = mean(&lengths[..seen]);
            losses(&mut nums[2..], a.update, a.schedule);
            rows += 1;
        }
    }
    a.clock[hyper::CLOCK_STEP] += d.t as u32;
    a.clock[hyper::CLOCK_ITER] += 1;
    a.row_count[0] = rows as u32;
    a.row_ints[rows * INTS..].fill(0);
    a.row_nums[rows * NUMS.len()..].fill(0.0);
}

/// The columns from `loss` on: means over the minibatches of the last update, NaN before the first.
fn losses(nums: &mut [f32], sums: &[f32], schedule: &[f32]) {
    let count = sums[update::COUNT];
    let mean = |column: usize| if count > 0.0 { sums[column] / count } else { f32::NAN };
    let of = [update::LOSS, update::POLICY, update::VALUE, update::ENTROPY, update::KL, update::CLIP_FRAC];
    for (num, column) in nums.iter_mut().zip(of) {
        *num = mean(column);
    }
    nums[6] = if count > 0.0 { sums[update::EXPLAINED_VAR] } else { f32::NAN };
    nums[7] = mean(update::GRAD_NORM);
    nums[8] = schedule[schedule::LEN];
    nums[9] = schedule[schedule::CLIP_EPS];
    nums[10] = schedule[schedule::ENTROPY_COEF];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(d: &LogShape, ep_return: &[f32], clock: &mut [u32], recent: &mut [f32]) -> (Vec<[u32; 3]>, Vec<f32>) {
        let update = [2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0, 2.0, 0.75];
        let (mut count, mut ints, mut nums) = ([9], vec![9; d.rows * INTS], vec![f32::NAN; d.rows * NUMS.len()]);
        let args = Args {
            ep_return,
            ep_length: &(1..=ep_return.len() as u32).collect::<Vec<_>>(),
            update: &update,
            schedule: &[0.2, 0.01, 1.0, 0.0, 0.0, 3e-4],
            recent,
            clock,
            row_count: &mut count,
            row_ints: &mut ints,
            row_nums: &mut nums,
        };
        define(d, args);
        let rows = count[0] as usize;
        nums.truncate(rows * NUMS.len());
        (ints.chunks(INTS).take(rows).map(|r| [r[0], r[1], r[2]]).collect(), nums)
    }

    #[test]
    fn rows_inside_a_rollout() {
        let d = LogShape { t: 5, n: 2, groups: 1, log_frequency: 4, max_frame: 25, rows: 4 };
        let nan = f32::NAN;
        let ended = [nan, nan, nan, 10.0, 20.0, 30.0, nan, nan, nan, 60.0];
        let (mut clock, mut recent) = ([9, 7, 3, 0], vec![0.0; 2 * WINDOW]);
        // frames 20, 22, 24, 26, 28: rows where a multiple of 4 is passed, and at 26, the first not below 25
        let (ints, nums) = run(&d, &ended, &mut clock, &mut recent);
        assert_eq!(ints, [[10, 7, 0], [12, 7, 3], [13, 7, 3], [14, 7, 4]]);
        assert_eq!(clock, [14, 7, 4, 4]);
        let row = |i: usize| &nums[i * NUMS.len()..][..NUMS.len()];
        assert!(row(0)[0].is_nan() && row(0)[1].is_nan());
        assert_eq!(row(1)[..2], [20.0, 5.0]);
        assert_eq!(row(3)[..2], [30.0, 6.25]);
        assert_eq!(row(1)[2..], [6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 0.75, 7.0, 3e-4, 0.2, 0.01]);
    }

    #[test]
    fn the_window_holds_the_last_hundred_episodes() {
        let d = LogShape { t: 130, n: 1, groups: 1, log_frequency: 130, max_frame: 1 << 40, rows: 2 };
        let ended: Vec<f32> = (0..130u8).map(f32::from).collect();
        let (mut clock, mut recent) = ([0; 4], vec![0.0; 2 * WINDOW]);
        let (ints, nums) = run(&d, &ended, &mut clock, &mut recent);
        assert_eq!(ints, [[130, 0, 130]]);
        assert_eq!(nums[0], (30..130).sum::<i32>() as f32 / 100.0);
    }

    #[test]
    fn there_is_room_for_every_row() {
        for (t, n, frequency) in [(5, 2, 4), (1, 1, 1), (128, 4, 500), (10, 1, 10), (7, 3, 21), (3, 1000, 7)] {
            for start in 0..50u64 {
                for end in 0..n * (t + 50) {
                    let rows = (0..t as u64)
                        .filter(|i| {
                            let (before, frame) = ((start + i) * n as u64, (start + i + 1) * n as u64);
                            frame / frequency > before / frequency || (before < end as u64 && end as u64 <= frame)
                        })
                        .count();
                    assert!(rows <= LogShape::rows_needed(t, n, frequency), "{t} {n} {frequency} {start} {end}");
                    if n > 100 {
                        break;
                    }
                }
            }
        }
    }
}
