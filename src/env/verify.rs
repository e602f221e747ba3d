//! `verify-env`: recorded one-step transitions replayed from their recorded states, and the errors by field.
//!
//! Every row stands alone: its state is rounded to f32 and set, its action applied, and the outcome compared. So errors
//! are those of one step and cannot grow. The step is [`step_block`], the code that training runs.

use std::f64::consts::TAU;
use std::fmt;
use std::path::Path;

use super::trace::{Array, Trace};
use super::{Dynamics, EnvSpec, LANES, Lanes, Visitor, dispatch, find, observe_block, step_block};
use crate::error::{Error, Result};
use crate::op::lib::rng::{Purpose, philox, unit};

/// What `|ours - recorded| / (1 + |recorded|)` may reach.
pub const DEFAULT_TOLERANCE: f64 = 1e-5;

/// How far f32 rounding may move a state, as a share of `1 + |word|`: four times the largest rounding error.
const ROUNDING: f64 = 2.4e-7;

/// An outcome that a shift of the state by [`ROUNDING`] moves further than this has crossed a threshold.
const JUMP: f64 = 1e-4;

/// First states of our own that the recorded ones are compared with.
const RESETS: usize = 10_000;

/// Below this probability recorded and own first states are not from one distribution.
const LEAST_P: f64 = 1e-4;

/// Room for the state, the observation or the action of one block.
const MAX_WORDS: usize = 16;

/// Errors of one word over all rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// For example `next_state.theta`.
    pub name: String,
    /// Rows compared.
    pub rows: usize,
    /// Largest error, and its row.
    pub worst: f64,
    /// Row of the largest error.
    pub worst_row: usize,
    /// 99th percentile of the errors.
    pub p99: f64,
}

/// Recorded first states against ours, for one state word.
#[derive(Debug, Clone, PartialEq)]
pub struct ResetField {
    /// For example `reset.theta`.
    pub name: String,
    /// Recorded first states outside of the range of ours.
    pub outside: usize,
    /// Two-sample Kolmogorov-Smirnov: probability of a difference this large by chance.
    pub p: f64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Gymnasium's id.
    pub env: &'static str,
    /// Transitions in the trace.
    pub rows: usize,
    /// Largest error that passes.
    pub tolerance: f64,
    /// Errors by word of next state, reward and observation.
    pub fields: Vec<Field>,
    /// Rows whose `terminated` differs although the state is not at a threshold.
    pub terminated_wrong: Vec<usize>,
    /// Rows so near to a threshold of the environment that f32 rounding decides the outcome; not compared.
    pub at_threshold: Vec<usize>,
    /// Recorded first states.
    pub resets: usize,
    /// First states by word.
    pub reset_fields: Vec<ResetField>,
}

impl Report {
    /// Whether everything is within the tolerance.
    pub fn passed(&self) -> bool {
        self.terminated_wrong.is_empty()
            && self.fields.iter().all(|field| field.worst <= self.tolerance)
            && self.reset_fields.iter().all(ResetField::passed)
    }
}

impl ResetField {
    fn passed(&self) -> bool {
        self.outside == 0 && self.p >= LEAST_P
    }
}

/// Replays the trace at `path` through environment `env` on `device` (`"cpu"`).
///
/// # Errors
/// An unknown environment or device, a tolerance that is no positive number, a file that is no trace of `env`.
pub fn verify(env: &str, path: &Path, device: &str, tolerance: f64) -> Result<Report> {
    let spec = find(env)?;
    if device != "cpu" {
        return Err(Error::new("--device", format!("`{device}` is not built yet")).hint("use `--device cpu`"));
    }
    if !(tolerance > 0.0 && tolerance.is_finite()) {
        return Err(Error::new("--tolerance", format!("{tolerance} is not a positive number")));
    }
    let trace = Trace::load(path, spec)?;
    let report = dispatch(env, Replay { spec, trace: &trace, tolerance });
    Ok(report.expect("find and dispatch are written from one list"))
}

/// What one step gave, in f64, angles reduced.
#[derive(Debug, Clone)]
struct Outcome {
    next_state: Vec<f64>,
    reward: f64,
    terminated: bool,
    obs: Vec<f64>,
}

struct Replay<'a> {
    spec: &'static EnvSpec,
    trace: &'a Trace,
    tolerance: f64,
}

impl Visitor for Replay<'_> {
    type Out = Report;

    fn visit<E: Dynamics>(self) -> Report {
        let rows = self.trace.state.rows();
        let starts: Vec<Vec<f64>> = (0..rows).map(|row| self.start(row)).collect();
        let ours = step_all::<E>(&starts, |row| self.trace.action.row(row));

        let mut errors = vec![Vec::with_capacity(rows); self.names().len()];
        let (mut terminated_wrong, mut at_threshold) = (Vec::new(), Vec::new());
        for (row, (start, outcome)) in starts.iter().zip(&ours).enumerate() {
            let found = self.errors(row, outcome);
            let wrong_end = outcome.terminated != (self.trace.terminated.data[row] != 0.0);
            let fails = wrong_end || found.iter().any(|&error| error > self.tolerance);
            if fails && self.excused::<E>(row, start, outcome) {
                at_threshold.push(row);
                continue;
            }
            if wrong_end {
                terminated_wrong.push(row);
            }
            for (errors, error) in errors.iter_mut().zip(found) {
                errors.push((error, row));
            }
        }
        let fields = self.names().into_iter().zip(errors).map(|(name, errors)| summary(name, errors)).collect();
        let (resets, reset_fields) = (self.trace.reset_states.rows(), self.resets(&E::default()));
        let (env, tolerance) = (self.spec.name, self.tolerance);
        Report { env, rows, tolerance, fields, terminated_wrong, at_threshold, resets, reset_fields }
    }
}

impl Replay<'_> {
    fn names(&self) -> Vec<String> {
        let state = self.spec.state_names.iter().map(|name| format!("next_state.{name}"));
        let obs = (0..self.spec.obs_len).map(|word| format!("obs[{word}]"));
        state.chain(["reward".to_string()]).chain(obs).collect()
    }

    /// The recorded state, angles reduced before they are rounded to f32: a recorder may let them grow.
    fn start(&self, row: usize) -> Vec<f64> {
        let mut state = self.trace.state.row(row).to_vec();
        for &word in self.spec.angles {
            state[word] = reduced(state[word]);
        }
        state
    }

    /// Errors in the order of `names`; observations only where they were recorded.
    fn errors(&self, row: usize, ours: &Outcome) -> Vec<f64> {
        let error = |ours: f64, recorded: f64| (ours - recorded).abs() / (1.0 + recorded.abs());
        let mut errors = Vec::with_capacity(self.spec.state_len + 1 + self.spec.obs_len);
        for (word, (&ours, &recorded)) in ours.next_state.iter().zip(self.trace.next_state.row(row)).enumerate() {
            errors.push(match self.spec.angles.contains(&word) {
                true => reduced(ours - recorded).abs() / (1.0 + reduced(recorded).abs()),
                false => error(ours, recorded),
            });
        }
        errors.push(error(ours.reward, self.trace.reward.data[row]));
        if row < self.trace.obs0.rows() {
            errors
                .extend(ours.obs.iter().zip(self.trace.obs0.row(row)).map(|(&ours, &recorded)| error(ours, recorded)));
        }
        errors
    }

    /// Whether a shift of the state that rounding could cause makes the outcome jump, and to the recorded one.
    fn excused<E: Dynamics>(&self, row: usize, start: &[f64], unshifted: &Outcome) -> bool {
        let shifted: Vec<Vec<f64>> = (0..2 * start.len())
            .map(|shift| {
                let (word, sign) = (shift / 2, if shift % 2 == 0 { 1.0 } else { -1.0 });
                let mut state = start.to_vec();
                state[word] += sign * ROUNDING * (1.0 + state[word].abs());
                state
            })
            .collect();
        step_all::<E>(&shifted, |_| self.trace.action.row(row)).iter().any(|outcome| {
            let moved = outcome.next_state.iter().zip(&unshifted.next_state).enumerate();
            let jumps = outcome.terminated != unshifted.terminated
                || moved.into_iter().any(|(word, (a, b))| {
                    let shift = if self.spec.angles.contains(&word) { reduced(a - b) } else { a - b };
                    shift.abs() > JUMP * (1.0 + b.abs())
                });
            let agrees = outcome.terminated == (self.trace.terminated.data[row] != 0.0)
                && self.errors(row, outcome).iter().all(|&error| error <= self.tolerance);
            jumps && agrees
        })
    }

    /// Recorded first states against the distribution of ours.
    fn resets<E: Dynamics>(&self, env: &E) -> Vec<ResetField> {
        let recorded = &self.trace.reset_states;
        let ours: Vec<E::State> =
            (0..RESETS as u32).map(|n| env.reset(philox([n, 0, Purpose::Reset as u32, 0], [0, 0]).map(unit))).collect();
        // every word is monotone in its number, so the ends of the range are those of the numbers
        let ends = [env.reset([0.0; 4]), env.reset([1.0; 4])];
        let names = self.spec.state_names.iter().enumerate();
        names
            .map(|(word, name)| {
                let [a, b] = ends.map(|end| f64::from(end.as_ref()[word]));
                let slack = ROUNDING * (1.0 + a.abs().max(b.abs()));
                let column = column(recorded, word);
                let outside = column.iter().filter(|&&x| x < a.min(b) - slack || x > a.max(b) + slack).count();
                let ours = ours.iter().map(|state| f64::from(state.as_ref()[word])).collect();
                ResetField { name: format!("reset.{name}"), outside, p: kolmogorov_smirnov(column, ours) }
            })
            .collect()
    }
}

fn column(array: &Array, word: usize) -> Vec<f64> {
    (0..array.rows()).map(|row| array.row(row)[word]).collect()
}

/// Steps every start once, in blocks of [`LANES`]; a last block that is not full repeats its last row.
fn step_all<'a, E: Dynamics>(starts: &[Vec<f64>], action: impl Fn(usize) -> &'a [f64]) -> Vec<Outcome> {
    let env = E::default();
    let words = E::SPEC.action_space.words();
    let mut outcomes = Vec::with_capacity(starts.len());
    for first in (0..starts.len()).step_by(LANES) {
        let (mut state, mut acts, mut obs) =
            ([[0.0; LANES]; MAX_WORDS], [[0.0; LANES]; MAX_WORDS], [[0.0; LANES]; MAX_WORDS]);
        let state: &mut [Lanes] = &mut state[..E::SPEC.state_len];
        let acts: &mut [Lanes] = &mut acts[..words];
        let obs: &mut [Lanes] = &mut obs[..E::SPEC.obs_len];
        for lane in 0..LANES {
            let row = (first + lane).min(starts.len() - 1);
            for (lanes, &word) in state.iter_mut().zip(&starts[row]) {
                lanes[lane] = word as f32;
            }
            for (lanes, &word) in acts.iter_mut().zip(action(row)) {
                lanes[lane] = word as f32;
            }
        }
        let (mut reward, mut terminated) = ([0.0; LANES], [0; LANES]);
        step_block(&env, state, acts, &mut reward, &mut terminated);
        observe_block(&env, state, obs);
        for lane in 0..LANES.min(starts.len() - first) {
            outcomes.push(Outcome {
                next_state: state.iter().map(|lanes| f64::from(lanes[lane])).collect(),
                reward: f64::from(reward[lane]),
                terminated: terminated[lane] != 0,
                obs: obs.iter().map(|lanes| f64::from(lanes[lane])).collect(),
            });
        }
    }
    outcomes
}

/// The angle equal to `x` modulo 2 pi within `[-pi, pi]`.
fn reduced(x: f64) -> f64 {
    x - TAU * (x / TAU).round()
}

fn summary(name: String, mut errors: Vec<(f64, usize)>) -> Field {
    // by error, then the later row first, so that the last is the first row of the largest error
    errors.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    let (worst, worst_row) = errors.last().copied().unwrap_or((0.0, 0));
    let p99 = errors.get((errors.len() * 99 / 100).min(errors.len().saturating_sub(1))).map_or(0.0, |error| error.0);
    Field { name, rows: errors.len(), worst, worst_row, p99 }
}

/// Two-sample Kolmogorov-Smirnov test: the probability that two samples of one distribution differ at least this much
/// (asymptotic series with Stephens' correction for small samples). 1 where a sample is empty.
fn kolmogorov_smirnov(mut a: Vec<f64>, mut b: Vec<f64>) -> f64 {
    if a.is_empty() || b.is_empty() {
        return 1.0;
    }
    a.sort_by(f64::total_cmp);
    b.sort_by(f64::total_cmp);
    let (n, m) = (a.len() as f64, b.len() as f64);
    let (mut i, mut j, mut d) = (0, 0, 0.0f64);
    while i < a.len() && j < b.len() {
        // equal values move both: a tie is no difference
        let x = a[i].min(b[j]);
        i += a[i..].iter().take_while(|&&y| y <= x).count();
        j += b[j..].iter().take_while(|&&y| y <= x).count();
        d = d.max((i as f64 / n - j as f64 / m).abs());
    }
    let root = (n * m / (n + m)).sqrt();
    let x = (root + 0.12 + 0.11 / root) * d;
    // the series does not converge near 0, where the probability is 1
    if x < 0.2 {
        return 1.0;
    }
    let terms = (1..=100).map(|k: i32| {
        let sign = if k % 2 == 1 { 2.0 } else { -2.0 };
        sign * (-2.0 * f64::from(k * k) * x * x).exp()
    });
    terms.sum::<f64>().clamp(0.0, 1.0)
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = |ok: bool| if ok { "" } else { "  FAIL" };
        writeln!(f, "{}: {} transitions, tolerance {:e}", self.env, self.rows, self.tolerance)?;
        writeln!(f, "  error = |ours - recorded| / (1 + |recorded|), angles modulo 2 pi")?;
        writeln!(f)?;
        writeln!(f, "  {:<24} {:>7} {:>10} {:>10} {:>8}", "field", "rows", "worst", "99th pct", "at row")?;
        for field in &self.fields {
            let Field { name, rows, worst, worst_row, p99 } = field;
            write!(f, "  {name:<24} {rows:>7} {worst:>10.2e} {p99:>10.2e} {worst_row:>8}")?;
            writeln!(f, "{}", mark(*worst <= self.tolerance))?;
        }
        let compared = self.rows - self.at_threshold.len();
        let wrong = &self.terminated_wrong;
        write!(f, "  {:<24} {compared:>7} {:>10}", "terminated", format!("{} wrong", wrong.len()))?;
        match wrong.first() {
            Some(row) => writeln!(f, " {:>10} {row:>8}{}", "", mark(false))?,
            None => writeln!(f)?,
        }
        if let Some(first) = self.at_threshold.first() {
            let rows = self.at_threshold.len();
            writeln!(
                f,
                "  left out: {rows} rows where f32 rounding decides which side of a threshold (first: {first})"
            )?;
        }
        writeln!(f)?;
        writeln!(f, "  {:<24} {:>7} {:>10} {:>10}", "first states", "rows", "outside", "KS p")?;
        for field in &self.reset_fields {
            let (ok, rows) = (mark(field.passed()), self.resets);
            writeln!(f, "  {:<24} {rows:>7} {:>10} {:>10.3}{ok}", field.name, field.outside, field.p)?;
        }
        writeln!(f)?;
        write!(f, "  {}", if self.passed() { "passed" } else { "FAILED" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::CartPole;

    fn report() -> Report {
        let field = |name: &str, worst| Field { name: name.into(), rows: 9, worst, worst_row: 4, p99: worst / 2.0 };
        Report {
            env: "CartPole-v1",
            rows: 10,
            tolerance: 1e-5,
            fields: vec![field("next_state.x", 1e-7), field("reward", 0.0)],
            terminated_wrong: vec![],
            at_threshold: vec![3],
            resets: 2,
            reset_fields: vec![ResetField { name: "reset.x".into(), outside: 0, p: 0.5 }],
        }
    }

    #[test]
    fn each_kind_of_error_fails_the_report() {
        assert!(report().passed());
        let fails = |change: fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            assert!(!report.passed());
            assert!(report.to_string().contains("FAIL\n"), "{report}");
            assert!(report.to_string().ends_with("FAILED"));
        };
        fails(|r| r.fields[0].worst = 1.1e-5);
        fails(|r| r.fields[0].worst = f64::NAN);
        fails(|r| r.terminated_wrong.push(7));
        fails(|r| r.reset_fields[0].outside = 1);
        fails(|r| r.reset_fields[0].p = 1e-5);
    }

    #[test]
    fn same_and_different_distributions() {
        let grid = |low: f64, high: f64, n: u32| -> Vec<f64> {
            (0..n).map(|i| low + (high - low) * (f64::from(i) + 0.5) / f64::from(n)).collect()
        };
        assert!(kolmogorov_smirnov(grid(0.0, 1.0, 50), grid(0.0, 1.0, 10_000)) > 0.99);
        assert!(kolmogorov_smirnov(grid(0.0, 0.5, 50), grid(0.0, 1.0, 10_000)) < LEAST_P);
        assert!(kolmogorov_smirnov(grid(0.2, 1.2, 50), grid(0.0, 1.0, 10_000)) > LEAST_P, "50 are too few to tell");
        assert_eq!(kolmogorov_smirnov(vec![0.0; 50], vec![0.0; 100]), 1.0);
        assert_eq!(kolmogorov_smirnov(vec![], vec![0.0; 100]), 1.0);
        // the table of Smirnov: D = 1.36 sqrt(2/n) has probability 5 percent in large samples
        let shifted = grid(0.136 * 0.2f64.sqrt(), 1.0 + 0.136 * 0.2f64.sqrt(), 1000);
        let p = kolmogorov_smirnov(grid(0.0, 1.0, 1000), shifted);
        assert!((0.04..0.06).contains(&p), "{p}");
    }

    /// One recorded step of a cart at rest at `x`, in the flat middle of everything else.
    fn resting(x: f64, terminated: bool) -> Report {
        let array = |shape: &[usize], data: &[f64]| Array { shape: shape.to_vec(), data: data.to_vec() };
        let next = CartPole::default().step([x as f32, 0.0, 0.0, 0.0], [1.0]).0.map(f64::from);
        let trace = Trace {
            state: array(&[1, 4], &[x, 0.0, 0.0, 0.0]),
            action: array(&[1], &[1.0]),
            next_state: array(&[1, 4], &next),
            reward: array(&[1], &[1.0]),
            terminated: array(&[1], &[f64::from(u8::from(terminated))]),
            obs0: array(&[0, 4], &[]),
            reset_states: array(&[0, 4], &[]),
        };
        let spec = find("CartPole-v1").expect("registered");
        Replay { spec, trace: &trace, tolerance: DEFAULT_TOLERANCE }.visit::<CartPole>()
    }

    #[test]
    fn a_wrong_end_is_excused_only_at_a_threshold() {
        let clear = |report: Report| (report.terminated_wrong.len(), report.at_threshold.len());
        assert_eq!(clear(resting(2.39, false)), (0, 0));
        assert_eq!(clear(resting(2.39, true)), (1, 0));
        assert_eq!(clear(resting(2.41, false)), (1, 0));
        assert_eq!(clear(resting(2.4 + 1e-9, true)), (0, 1));
        assert_eq!(clear(resting(2.4 + 1e-9, false)), (0, 0));
        assert!(!resting(2.39, true).passed());
    }

    #[test]
    fn a_block_that_is_not_full_loses_no_row() {
        let starts: Vec<Vec<f64>> = (0..21).map(|i| vec![0.01 * f64::from(i), 0.0, 0.0, 0.0]).collect();
        let outcomes = step_all::<CartPole>(&starts, |_| &[1.0]);
        assert_eq!(outcomes.len(), 21);
        let last = CartPole::default().step([0.2, 0.0, 0.0, 0.0], [1.0]).0;
        assert_eq!(outcomes[20].next_state, last.map(f64::from).to_vec());
    }
}
