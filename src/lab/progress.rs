//! What a person sees while a trial runs: a bar per session on a terminal, a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, HumanDuration, MultiProgress, ProgressBar, ProgressStyle};

/// How much is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Verbosity {
    /// Only the result.
    Quiet,
    /// Progress and the result.
    #[default]
    Normal,
    /// Every log row.
    Verbose,
}

/// Least time between two drawings of the bars.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// Least time between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(2);
/// Plain lines over a whole run, at most.
const LINES: u64 = 20;

/// The progress of one trial, on stderr.
pub struct Progress {
    label: String,
    max_frame: u64,
    start_frame: u64,
    started: Instant,
    bars: Option<(MultiProgress, Vec<ProgressBar>)>,
    verbosity: Verbosity,
    drawn: Option<Instant>,
    lined_frame: u64,
    /// Whose frames are counted.
    unit: &'static str,
}

impl Progress {
    /// The progress of sessions named `names`, from `frames.start` (0, or where a resumed run continues), where they
    /// were when the clock was at `started`, to `frames.end`.
    pub fn new(label: &str, names: &[String], frames: Range<u64>, started: Instant, verbosity: Verbosity) -> Progress {
        let (start_frame, max_frame) = (frames.start, frames.end);
        let bars = (verbosity == Verbosity::Normal && std::io::stderr().is_terminal()).then(|| {
            let all = MultiProgress::new();
            let style = ProgressStyle::with_template("{prefix} {bar:24} {human_pos:>11}/{human_len} {msg}")
                .expect("the template is a constant");
            let add = |name: &String| {
                all.add(ProgressBar::new(max_frame).with_style(style.clone()).with_prefix(name.clone()))
            };
            let bars = names.iter().map(add).collect();
            (all, bars)
        });
        let label = label.to_string();
        let unit = " per session";
        Progress {
            label,
            max_frame,
            start_frame,
            started,
            bars,
            verbosity,
            drawn: None,
            lined_frame: start_frame,
            unit,
        }
    }

    /// One bar for everything together: frames are those of all sessions.
    #[must_use]
    pub fn together(self) -> Progress {
        Progress { unit: "", ..self }
    }

    /// Frames that were done before, which say nothing of the speed.
    pub fn skip(&mut self, frames: u64) {
        self.start_frame += frames;
    }

    /// Whether enough time has passed to show where the run is.
    pub fn is_due(&self, frame: u64, now: Instant) -> bool {
        let is_last = frame >= self.max_frame;
        let pause = if self.bars.is_some() { DRAW_EVERY } else { LINE_EVERY };
        self.verbosity > Verbosity::Quiet && (is_last || self.drawn.is_none_or(|last| now - last >= pause))
    }

    /// Shows where the run is, if it is due: one `(total_reward_ma, stopped)` per session, NaN before the first finished
    /// episode.
    pub fn update(&mut self, frame: u64, sessions: &[(f64, bool)]) {
        let now = Instant::now();
        if !self.is_due(frame, now) {
            return;
        }
        let is_last = frame >= self.max_frame;
        let elapsed_s = (now - self.started).as_secs_f64();
        let fps = frame.saturating_sub(self.start_frame) as f64 / elapsed_s.max(1e-3);
        let eta = HumanDuration(Duration::from_secs_f64((self.max_frame.saturating_sub(frame)) as f64 / fps.max(1.0)));
        if let Some((_, bars)) = &self.bars {
            for (bar, &(reward, stopped)) in bars.iter().zip(sessions) {
                if stopped {
                    bar.abandon_with_message("stopped: not finite");
                } else {
                    bar.set_position(frame);
                    bar.set_message(format!("{} frames/s  return {}  {eta:#} left", count(fps), number(reward)));
                }
            }
            self.drawn = Some(now);
        } else if is_last || frame.saturating_sub(self.lined_frame) >= self.max_frame / LINES {
            let running: Vec<f64> = sessions.iter().filter(|s| !s.1 && s.0.is_finite()).map(|s| s.0).collect();
            let mean = running.iter().sum::<f64>() / running.len() as f64;
            let done = HumanCount(frame);
            let percent = frame * 100 / self.max_frame.max(1);
            self.line(&format!(
                "{}  frame {done}/{} ({percent} %)  {} frames/s{}  return {}  {eta:#} left",
                self.label,
                HumanCount(self.max_frame),
                count(fps),
                self.unit,
                number(mean),
            ));
            self.drawn = Some(now);
            self.lined_frame = frame;
        }
    }

    /// Prints a line above the bars, unless only the result is wanted.
    pub fn line(&self, text: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.warn(text);
        }
    }

    /// Prints a line above the bars, however little is wanted.
    pub fn warn(&self, text: &str) {
        match &self.bars {
            // a terminal that has gone away is no reason to stop training
            Some((all, _)) => drop(all.println(text)),
            None => drop(writeln!(std::io::stderr().lock(), "{text}")),
        }
    }

    /// Leaves the bars as they are.
    pub fn finish(&self) {
        for bar in self.bars.iter().flat_map(|(_, bars)| bars) {
            bar.abandon();
        }
    }
}

/// A rate or count without decimals, with thousands separated.
pub fn count(value: f64) -> String {
    HumanCount(value.max(0.0).round() as u64).to_string()
}

/// A return as people write it; `-` where there is none yet.
pub fn number(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { "-".to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(count(1_234_567.4), "1,234,567");
        assert_eq!(number(498.876), "498.88");
        assert_eq!(number(f64::NAN), "-");
    }

    #[test]
    fn plain_lines_are_few() {
        let mut progress = Progress::new("x t0", &["s0".into()], 0..1000, Instant::now(), Verbosity::Normal);
        progress.bars = None;
        let mut lines = 0;
        for frame in 1..=1000 {
            let before = progress.lined_frame;
            progress.update(frame, &[(f64::NAN, false)]);
            lines += u32::from(progress.lined_frame != before);
        }
        // the first that is due and the last, the rest come too fast
        assert_eq!(lines, 2);
    }
}
