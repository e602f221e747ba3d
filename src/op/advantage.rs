//! Advantages and value targets of a rollout, with the running moments they need.
//!
//! An episode's end cuts every recursion. After a termination the next value is 0; after a truncation it is the value
//! of the true final observation; neither ever comes from the first observation of the next episode.

use crate::device::{Cx, Kernel, Limits, Shader};
use crate::op::lib::envs::TRUNCATED;
use crate::op::lib::sums;
use crate::op::{Draw, Shape, hyper, hyper::update};

/// Words of `reward_moments` and `value_moments`: count, mean, sum of squared deviations, and what to multiply with.
pub const COUNT: usize = 0;
pub const MEAN: usize = 1;
pub const M2: usize = 2;
/// Rewards: `1 / sqrt(variance of the discounted return + EPSILON)`. Values: `1 / max(1, std of the targets)`. 1 where the
/// normalisation is off.
pub const SCALE: usize = 3;

/// Words of `percentiles`: moving averages of the 5th and the 95th percentile, and how many rollouts they have seen.
pub const LOW: usize = 0;
pub const HIGH: usize = 1;
pub const SEEN: usize = 2;

/// The two percentiles, as fractions.
pub const LOW_QUANTILE: f64 = 0.05;
pub const HIGH_QUANTILE: f64 = 0.95;
/// Added to the variance of the discounted return under the root.
pub const EPSILON: f64 = 1e-8;
/// Weight of the old value in the moving average of a percentile; the first rollout sets it.
pub const PERCENTILE_KEEP: f32 = 0.99;

/// How the return of a step is estimated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Generalised advantage estimation (Schulman et al. 2016) with `hyper[LAM]`.
    Gae,
    /// At most this many rewards, then the value.
    NStep(usize),
    /// Rewards alone up to the episode's or the rollout's end (REINFORCE); values are ignored. `center` subtracts the
    /// batch mean from the advantage.
    Returns { center: bool },
}

/// Sizes and choices of [`Advantage`].
#[derive(Debug, Clone)]
pub struct AdvantageShape {
    /// Vector steps of the rollout.
    pub t: usize,
    /// Environments.
    pub n: usize,
    /// Parameter groups.
    pub groups: usize,
    pub mode: Mode,
    /// Divide rewards by the running std of the discounted return.
    pub normalize_reward: bool,
    /// Keep the running moments of the value targets.
    pub normalize_values: bool,
    /// Keep the moving percentiles of the advantages.
    pub percentile: bool,
}

impl Shape for AdvantageShape {
    fn scratch_words(&self) -> usize {
        self.t * self.n
    }

    fn flops(&self) -> f64 {
        let reach = if let Mode::NStep(k) = self.mode { k.min(self.t) } else { 1 };
        (self.t * self.n * (30 + 4 * reach)) as f64
    }

    fn kernels(&self) -> Vec<Kernel> {
        super::gpu::advantage::kernels(self)
    }

    fn device_scratch(&self) -> usize {
        super::gpu::advantage::scratch(self)
    }

    fn shaders(&self, limits: &Limits) -> Vec<Shader> {
        super::shaders::advantage::shaders(self, limits)
    }

    fn shader_scratch(&self) -> usize {
        super::shaders::advantage::scratch(self)
    }

    fn cases() -> Vec<Self> {
        let case = |t, n, mode, on: [bool; 3]| AdvantageShape {
            t,
            n,
            groups: 1,
            mode,
            normalize_reward: on[0],
            normalize_values: on[1],
            percentile: on[2],
        };
        vec![
            case(7, 3, Mode::Gae, [false; 3]),
            case(33, 20, Mode::Gae, [true; 3]),
            case(1, 1, Mode::Gae, [false, true, true]),
            case(12, 5, Mode::NStep(3), [false, false, true]),
            case(5, 17, Mode::NStep(9), [true, false, false]),
            case(9, 4, Mode::Returns { center: true }, [true, false, true]),
            case(16, 16, Mode::Returns { center: false }, [false; 3]),
            // several tiles of environments, more steps than a gpu stages at once, several blocks that count digits
            case(140, 70, Mode::Gae, [true; 3]),
            case(130, 33, Mode::Returns { center: true }, [false, false, true]),
            case(6, 70, Mode::NStep(4), [true, true, false]),
            case(4_100, 1, Mode::NStep(5_000), [true, false, true]),
            // clipped rewards alone: percentiles among many equal values
            case(1, 300, Mode::Returns { center: false }, [false, false, true]),
        ]
    }

    fn sample(&self, arg: &str, words: &mut [u32], draw: &mut Draw) -> bool {
        match arg {
            "hyper" => hyper::sample(words, draw),
            "ended" => words.iter_mut().for_each(|word| *word = [0, 0, 0, 0, 0, 1, 2, 3][draw.below(8) as usize]),
            "reward_moments" | "value_moments" if draw.below(3) > 0 => {
                let moments = [draw.below(1_000) as f32, draw.range(-2.0, 2.0), draw.range(0.0, 9e3), 1.0];
                words.copy_from_slice(&moments.map(f32::to_bits));
            }
            "percentiles" if draw.below(3) > 0 => {
                words.copy_from_slice(&[-1.5, draw.range(0.0, 9.0), 4.0, 0.0].map(f32::to_bits));
            }
            // nothing seen yet
            "reward_moments" | "value_moments" | "percentiles" => words.fill(0),
            _ => return false,
        }
        true
    }
}

crate::op! {
    /// Rewards as the agent sees them (`clip(reward * scale * REWARD_SCALE)`), advantages and value targets; clears the
    /// sums of the coming update. Running moments take this rollout in once, before they are used on it. The counts
    /// are f32: past 2^24 rows they grow in coarser steps.
    Advantage(d: AdvantageShape) = "advantage", within 2e-5, run = run {
        // as the environment gave it
        read reward: f32[d.t, d.n] in -2.0..2.0;
        // row T: the value of the observation after the last step
        read value: f32[d.t + 1, d.n] in -3.0..3.0;
        // value of the true final observation, read where a step was truncated
        read bootstrap: f32[d.t, d.n] in -3.0..3.0;
        // bits of `lib::envs`: TERMINATED | TRUNCATED
        read ended: u32[d.t, d.n] in 0.0..4.0;
        read hyper: f32[hyper::len(d.groups)];
        // discounted return so far of every environment
        update discounted: f32[d.n] in -3.0..3.0;
        update reward_moments: f32[4];
        update value_moments: f32[4];
        update percentiles: f32[4];
        write advantage: f32[d.t, d.n];
        write returns: f32[d.t, d.n];
        write update: f32[update::LEN];
    }
}

/// Everything environment by environment, in f64, as the formulas are written.
fn define(d: &AdvantageShape, a: Args) {
    let (gamma, lam) = (f64::from(a.hyper[hyper::GAMMA]), f64::from(a.hyper[hyper::LAM]));
    let at = |t: usize, n: usize| t * d.n + n;
    let mut carried = vec![0.0; d.t * d.n];
    if d.normalize_reward {
        for n in 0..d.n {
            let mut sum = f64::from(a.discounted[n]);
            for t in 0..d.t {
                sum = sum * gamma + f64::from(a.reward[at(t, n)]);
                carried[at(t, n)] = sum;
                sum = if a.ended[at(t, n)] != 0 { 0.0 } else { sum };
            }
            a.discounted[n] = sum as f32;
        }
    }
    let scale = reward_scale(d, &carried, a.reward_moments);
    let (low, high) = (a.hyper[hyper::REWARD_CLIP_LOW], a.hyper[hyper::REWARD_CLIP_HIGH]);
    let reward: Vec<f64> = a
        .reward
        .iter()
        .map(|r| f64::from(*r) * scale * f64::from(a.hyper[hyper::REWARD_SCALE]))
        .map(|r| f64::from(clip(r as f32, low, high)))
        .collect();
    let uses_values = !matches!(d.mode, Mode::Returns { .. });
    let value = |t: usize, n: usize| if uses_values { f64::from(a.value[at(t, n)]) } else { 0.0 };
    // what follows step t where it ended an episode
    let end = |t: usize, n: usize| match a.ended[at(t, n)] {
        TRUNCATED if uses_values => f64::from(a.bootstrap[at(t, n)]),
        _ => 0.0,
    };
    for n in 0..d.n {
        for t in 0..d.t {
            let (mut total, mut weight) = (0.0, 1.0);
            match d.mode {
                Mode::Gae => {
                    for k in t..d.t {
                        let ended = a.ended[at(k, n)] != 0;
                        let next = if ended { end(k, n) } else { value(k + 1, n) };
                        total += weight * (reward[at(k, n)] + gamma * next - value(k, n));
                        weight *= gamma * lam;
                        if ended {
                            break;
                        }
                    }
                    (a.advantage[at(t, n)], a.returns[at(t, n)]) = (total as f32, (total + value(t, n)) as f32);
                }
                Mode::NStep(_) | Mode::Returns { .. } => {
                    let steps = if let Mode::NStep(steps) = d.mode { steps } else { d.t };
                    for k in t..d.t.min(t + steps) {
                        let ended = a.ended[at(k, n)] != 0;
                        total += weight * reward[at(k, n)];
                        weight *= gamma;
                        if ended {
                            total += weight * end(k, n);
                            break;
                        }
                        if k + 1 == d.t.min(t + steps) {
                            total += weight * value(k + 1, n);
                        }
                    }
                    (a.advantage[at(t, n)], a.returns[at(t, n)]) = ((total - value(t, n)) as f32, total as f32);
                }
            }
        }
    }
    let rows = d.t * d.n;
    if d.mode == (Mode::Returns { center: true }) {
        let mean = a.returns.iter().map(|r| f64::from(*r)).sum::<f64>() / rows as f64;
        a.advantage.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
    }
    statistics(d, a.value, a.advantage, a.returns, a.value_moments, a.update);
    if d.percentile {
        let mut sorted = a.advantage.to_vec();
        sorted.sort_by(f32::total_cmp);
        let quantile = |q: f64| {
            let place = q * (rows - 1) as f64;
            let (low, high) = (sorted[place as usize], sorted[(place.ceil()) as usize]);
            low + (high - low) * place.fract() as f32
        };
        move_percentiles([quantile(LOW_QUANTILE), quantile(HIGH_QUANTILE)], a.percentiles);
    }
}

/// Adds the discounted returns to the reward's moments and gives the factor for rewards.
#[inline(always)]
fn reward_scale<T: Copy + Into<f64>>(d: &AdvantageShape, carried: &[T], moments: &mut [f32]) -> f64 {
    moments[SCALE] = 1.0;
    if d.normalize_reward {
        let (count, m2) = take_in(moments, carried);
        // one number has no variance yet
        let variance = if count > 1.0 { m2 / count } else { 1.0 };
        moments[SCALE] = (1.0 / (variance + EPSILON).sqrt()) as f32;
    }
    f64::from(moments[SCALE])
}

/// Joins `x` to running moments; the new count and sum of squared deviations.
#[inline(always)]
fn take_in<T: Copy + Into<f64>>(moments: &mut [f32], x: &[T]) -> (f64, f64) {
    let (mean, m2) = sums::mean_m2(x.len(), |i| x[i].into());
    let old = (f64::from(moments[COUNT]), f64::from(moments[MEAN]), f64::from(moments[M2]));
    let new = sums::merge(old, (x.len() as f64, mean, m2));
    (moments[COUNT], moments[MEAN], moments[M2]) = (new.0 as f32, new.1 as f32, new.2 as f32);
    (new.0, new.2)
}

/// Moments of the targets, and the cleared sums of the coming update with this rollout's explained variance.
#[inline(always)]
fn statistics(
    d: &AdvantageShape,
    value: &[f32],
    advantage: &[f32],
    returns: &[f32],
    moments: &mut [f32],
    sums: &mut [f32],
) {
    moments[SCALE] = 1.0;
    if d.normalize_values {
        let (count, m2) = take_in(moments, returns);
        moments[SCALE] = (1.0 / (m2 / count).sqrt().max(1.0)) as f32;
    }
    sums.fill(0.0);
    // nothing predicts returns where values are ignored
    sums[update::EXPLAINED_VAR] = f32::NAN;
    if !matches!(d.mode, Mode::Returns { .. }) {
        let all = sums::mean_m2(returns.len(), |i| f64::from(returns[i])).1;
        let rest = sums::mean_m2(advantage.len(), |i| f64::from(returns[i]) - f64::from(value[i])).1;
        if all > 0.0 {
            sums[update::EXPLAINED_VAR] = (1.0 - rest / all) as f32;
        }
    }
}

fn move_percentiles(now: [f32; 2], state: &mut [f32]) {
    let keep = if state[SEEN] == 0.0 { 0.0 } else { PERCENTILE_KEEP };
    for (old, now) in state[..2].iter_mut().zip(now) {
        *old = keep * *old + (1.0 - keep) * now;
    }
    state[SEEN] += 1.0;
}

fn run(d: &AdvantageShape, cx: &mut Cx<'_>, a: Tile<'_>) {
    // SAFETY: one tile
    let a = unsafe {
        Args {
            reward: a.reward,
            value: a.value,
            bootstrap: a.bootstrap,
            ended: a.ended,
            hyper: a.hyper,
            discounted: a.discounted.all(),
            reward_moments: a.reward_moments.all(),
            value_moments: a.value_moments.all(),
            percentiles: a.percentiles.all(),
            advantage: a.advantage.all(),
            returns: a.returns.all(),
            update: a.update.all(),
        }
    };
    estimate(cx.isa, d, a, &mut cx.scratch[..d.t * d.n]);
}

crate::per_isa! {
    /// Time by time, backwards, over all environments at once.
    fn estimate(d: &AdvantageShape, a: Args<'_>, scratch: &mut [f32]) {
        let (n, rows) = (d.n, d.t * d.n);
        let gamma = a.hyper[hyper::GAMMA];
        if d.normalize_reward {
            // `returns` is free until the recursion writes it
            for (t, carried) in a.returns.chunks_exact_mut(n).enumerate() {
                let (reward, ended) = (&a.reward[t * n..][..n], &a.ended[t * n..][..n]);
                for (((x, sum), r), e) in carried.iter_mut().zip(a.discounted.iter_mut()).zip(reward).zip(ended) {
                    *x = *sum * gamma + *r;
                    *sum = if *e != 0 { 0.0 } else { *x };
                }
            }
        }
        let scale = reward_scale(d, a.returns, a.reward_moments) as f32 * a.hyper[hyper::REWARD_SCALE];
        let (low, high) = (a.hyper[hyper::REWARD_CLIP_LOW], a.hyper[hyper::REWARD_CLIP_HIGH]);
        for (scaled, r) in scratch.iter_mut().zip(a.reward) {
            *scaled = clip(*r * scale, low, high);
        }
        match d.mode {
            Mode::Gae => gae(d, a.hyper, [a.value, a.bootstrap, scratch], a.ended, [a.advantage, a.returns]),
            _ => returns(d, gamma, [a.value, a.bootstrap, scratch], a.ended, [a.advantage, a.returns]),
        }
        if d.mode == (Mode::Returns { center: true }) {
            let mean = sums::mean_m2(rows, |i| f64::from(a.returns[i])).0;
            for x in a.advantage.iter_mut() {
                *x = (f64::from(*x) - mean) as f32;
            }
        }
        statistics(d, a.value, a.advantage, a.returns, a.value_moments, a.update);
        if d.percentile {
            let mut quantile = |q: f64| {
                scratch.copy_from_slice(a.advantage);
                let place = q * (rows - 1) as f64;
                let (_, low, above) = scratch.select_nth_unstable_by(place as usize, f32::total_cmp);
                let next = above.iter().copied().reduce(f32::min).unwrap_or(*low);
                *low + (next - *low) * place.fract() as f32
            };
            move_percentiles([quantile(LOW_QUANTILE), quantile(HIGH_QUANTILE)], a.percentiles);
        }
    }
}

/// Keeps a NaN, so that the fault is seen.
#[inline(always)]
fn clip(x: f32, low: f32, high: f32) -> f32 {
    if x < low {
        low
    } else if x > high {
        high
    } else {
        x
    }
}

/// What follows a step: `inside` within an episode, else by how it ended.
#[inline(always)]
fn follow(ended: u32, bootstrap: f32, inside: f32) -> f32 {
    let over = if ended == TRUNCATED { bootstrap } else { 0.0 };
    if ended == 0 { inside } else { over }
}

#[inline(always)]
fn gae(
    d: &AdvantageShape,
    hyper: &[f32],
    [value, bootstrap, reward]: [&[f32]; 3],
    ended: &[u32],
    [advantage, returns]: [&mut [f32]; 2],
) {
    let (n, gamma) = (d.n, hyper[hyper::GAMMA]);
    let keep = gamma * hyper[hyper::LAM];
    advantage[(d.t - 1) * n..].fill(0.0);
    for t in (0..d.t).rev() {
        let now = t * n..(t + 1) * n;
        if t + 1 < d.t {
            advantage.copy_within((t + 1) * n..(t + 2) * n, t * n);
        }
        let (x, target) = (&mut advantage[now.clone()], &mut returns[now.clone()]);
        let (e, boot, r) = (&ended[now.clone()], &bootstrap[now.clone()], &reward[now.clone()]);
        let (v, next) = (&value[now], &value[(t + 1) * n..][..n]);
        for i in 0..n {
            let error = r[i] + gamma * follow(e[i], boot[i], next[i]) - v[i];
            x[i] = error + keep * if e[i] == 0 { x[i] } else { 0.0 };
            target[i] = x[i] + v[i];
        }
    }
}

#[inline(always)]
fn returns(
    d: &AdvantageShape,
    gamma: f32,
    [value, bootstrap, reward]: [&[f32]; 3],
    ended: &[u32],
    [advantage, returns]: [&mut [f32]; 2],
) {
    let n = d.n;
    // REINFORCE: no value and no bootstrap, all the rewards there are
    let (steps, values) = if let Mode::NStep(steps) = d.mode { (steps, true) } else { (d.t, false) };
    for t in (0..d.t).rev() {
        let last = d.t.min(t + steps);
        let now = t * n..(t + 1) * n;
        // a window that reaches the rollout's end continues the one behind it
        let from = if last == d.t && t + 1 < d.t {
            returns.copy_within((t + 1) * n..(t + 2) * n, t * n);
            t + 1
        } else {
            for (target, v) in returns[now.clone()].iter_mut().zip(&value[last * n..]) {
                *target = if values { *v } else { 0.0 };
            }
            last
        };
        let target = &mut returns[now.clone()];
        for k in (t..from).rev() {
            let then = k * n..(k + 1) * n;
            let (e, boot, r) = (&ended[then.clone()], &bootstrap[then.clone()], &reward[then]);
            for i in 0..n {
                let over = if values { boot[i] } else { 0.0 };
                target[i] = r[i] + gamma * follow(e[i], over, target[i]);
            }
        }
        for ((x, target), v) in advantage[now.clone()].iter_mut().zip(target).zip(&value[now]) {
            *x = *target - if values { *v } else { 0.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cpu::Isa;
    use crate::op::lib::envs::TERMINATED;

    /// Outputs of one run on one environment with gamma 0.5 and lam 0.5.
    #[derive(Debug, PartialEq)]
    struct Out {
        advantage: Vec<f32>,
        returns: Vec<f32>,
        discounted: Vec<f32>,
        rewards: [f32; 4],
        values: [f32; 4],
        percentiles: [f32; 4],
        explained_var: f32,
    }

    fn shape(t: usize, mode: Mode) -> AdvantageShape {
        AdvantageShape { t, n: 1, groups: 0, mode, normalize_reward: false, normalize_values: false, percentile: false }
    }

    /// The definition's answer, which the fast variant must share here to the last bit or nearly.
    fn go(d: &AdvantageShape, reward: &[f32], value: &[f32], bootstrap: &[f32], ended: &[u32]) -> Out {
        let mut hyper = [0.0; hyper::LEN];
        (hyper[hyper::GAMMA], hyper[hyper::LAM], hyper[hyper::REWARD_SCALE]) = (0.5, 0.5, 1.0);
        (hyper[hyper::REWARD_CLIP_LOW], hyper[hyper::REWARD_CLIP_HIGH]) = (f32::NEG_INFINITY, f32::INFINITY);
        let [defined, fast] = [false, true].map(|fast| {
            let mut out = Out {
                advantage: vec![f32::NAN; d.t],
                returns: vec![f32::NAN; d.t],
                discounted: vec![2.0],
                rewards: [0.0; 4],
                values: [0.0; 4],
                percentiles: [0.0; 4],
                explained_var: 0.0,
            };
            let mut update = [f32::NAN; update::LEN];
            let args = Args {
                reward,
                value,
                bootstrap,
                ended,
                hyper: &hyper,
                discounted: &mut out.discounted,
                reward_moments: &mut out.rewards,
                value_moments: &mut out.values,
                percentiles: &mut out.percentiles,
                advantage: &mut out.advantage,
                returns: &mut out.returns,
                update: &mut update,
            };
            if fast {
                estimate(Isa::Base, d, args, &mut vec![f32::NAN; d.t])
            } else {
                define(d, args)
            }
            out.explained_var = update[update::EXPLAINED_VAR];
            assert!(update[..update::EXPLAINED_VAR].iter().all(|sum| *sum == 0.0));
            out
        });
        for (x, y) in fast.advantage.iter().zip(&defined.advantage) {
            assert!((x - y).abs() < 1e-6, "{fast:?} {defined:?}");
        }
        defined
    }

    const REWARD: [f32; 4] = [1.0, 2.0, 3.0, 4.0];
    const VALUE: [f32; 5] = [1.0, 1.0, 2.0, 0.0, 4.0];
    const BOOTSTRAP: [f32; 4] = [100.0, 6.0, 100.0, 100.0];

    fn of(mode: Mode, ended: u32) -> Out {
        go(&shape(4, mode), &REWARD, &VALUE, &BOOTSTRAP, &[0, ended, 0, 0])
    }

    #[test]
    fn gae_by_hand() {
        // errors: 1 + 0.5 - 1, 2 + 0.5 * 6 - 1, 3 + 0 - 2, 4 + 0.5 * 4 - 0; the second ends an episode
        let truncated = of(Mode::Gae, TRUNCATED);
        assert_eq!(truncated.advantage, [1.5, 4.0, 2.5, 6.0]);
        assert_eq!(truncated.returns, [2.5, 5.0, 4.5, 6.0]);
        // without the bootstrap
        for ended in [TERMINATED, TERMINATED | TRUNCATED] {
            assert_eq!(of(Mode::Gae, ended).advantage, [0.75, 1.0, 2.5, 6.0]);
        }
        assert_eq!(of(Mode::Gae, 0).advantage, [0.5 + 0.25 * 2.625, 2.0 + 0.25 * 2.5, 2.5, 6.0]);
    }

    #[test]
    fn n_step_by_hand() {
        assert_eq!(of(Mode::NStep(1), TRUNCATED).returns, [1.5, 5.0, 3.0, 6.0]);
        let two = of(Mode::NStep(2), TRUNCATED);
        assert_eq!(two.returns, [3.5, 5.0, 6.0, 6.0]);
        assert_eq!(two.advantage, [2.5, 4.0, 4.0, 6.0]);
        assert_eq!(of(Mode::NStep(2), TERMINATED).returns, [2.0, 2.0, 6.0, 6.0]);
        assert_eq!(of(Mode::NStep(2), 0).returns, [2.5, 3.5, 6.0, 6.0]);
        assert_eq!(of(Mode::NStep(99), TRUNCATED).returns, [3.5, 5.0, 6.0, 6.0]);
    }

    #[test]
    fn returns_end_with_the_episode_and_need_no_value() {
        for ended in [TERMINATED, TRUNCATED] {
            let plain = of(Mode::Returns { center: false }, ended);
            assert_eq!(plain.returns, [2.0, 2.0, 5.0, 4.0]);
            assert_eq!(plain.advantage, plain.returns);
            assert!(plain.explained_var.is_nan());
        }
        assert_eq!(of(Mode::Returns { center: true }, TRUNCATED).advantage, [-1.25, -1.25, 1.75, 0.75]);
    }

    #[test]
    fn rewards_are_divided_by_the_std_of_the_discounted_return() {
        let d = AdvantageShape { normalize_reward: true, ..shape(3, Mode::NStep(1)) };
        let out = go(&d, &[1.0, 2.0, 3.0], &[0.0; 4], &[0.0; 3], &[TERMINATED, 0, 0]);
        // carried: 0.5 * 2 + 1, then 2 and 4 after the reset; variance 8 / 9
        assert_eq!(out.discounted, [4.0]);
        let scale = (1.0 / (8.0f64 / 9.0 + 1e-8).sqrt()) as f32;
        assert_eq!(out.rewards, [3.0, 8.0 / 3.0, 24.0 / 9.0, scale]);
        for (x, y) in out.returns.iter().zip([1.0, 2.0, 3.0]) {
            assert!((x - y * scale).abs() < 1e-6);
        }
        let off = go(&shape(3, Mode::NStep(1)), &[1.0, 2.0, 3.0], &[0.0; 4], &[0.0; 3], &[0; 3]);
        assert_eq!((off.discounted, off.rewards), (vec![2.0], [0.0, 0.0, 0.0, 1.0]));
    }

    #[test]
    fn running_statistics_see_a_rollout_once() {
        let d = AdvantageShape { normalize_values: true, percentile: true, ..shape(21, Mode::NStep(1)) };
        let reward: Vec<f32> = (0..21u8).map(|i| f32::from(i * 8 % 21)).collect();
        let out = go(&d, &reward, &[0.0; 22], &[0.0; 21], &[0; 21]);
        assert_eq!(out.percentiles, [1.0, 19.0, 1.0, 0.0]);
        assert_eq!(out.values[..3], [21.0, 10.0, 770.0]);
        assert!((out.values[SCALE] - 1.0 / (770f32 / 21.0).sqrt()).abs() < 1e-7);
        assert_eq!(out.explained_var, 0.0);
        let mut state = [1.0, 19.0, 1.0, 0.0];
        move_percentiles([2.0, 119.0], &mut state);
        assert!((state[LOW] - 1.01).abs() < 1e-6 && (state[HIGH] - 20.0).abs() < 1e-5 && state[SEEN] == 2.0);
        // small targets are left as they are
        let d = AdvantageShape { normalize_values: true, ..shape(2, Mode::NStep(1)) };
        assert_eq!(go(&d, &[0.1, 0.2], &[0.0; 3], &[0.0; 2], &[0; 2]).values[SCALE], 1.0);
    }

    #[test]
    fn a_reward_that_is_no_number_is_not_clipped_away() {
        assert!(clip(f32::NAN, -1.0, 1.0).is_nan());
        assert_eq!([clip(-2.0, -1.0, 1.0), clip(0.5, -1.0, 1.0), clip(2.0, -1.0, 1.0)], [-1.0, 0.5, 1.0]);
    }
}
