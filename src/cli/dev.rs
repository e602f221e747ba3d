//! What `slm-fast dev` shows of a training: how far each update moved each array, and the agent at play in a window.

use std::time::{Duration, Instant};

use slm_fast::error::Result;
use slm_fast::lab::cohort::{Cohort, Dtype, Player, Tensor};
use slm_fast::plan::Plan;

use super::note;
use super::screen::Screen;

/// Compares the parameters after every iteration with those before it.
#[derive(Default)]
pub struct Updates {
    before: Vec<Tensor>,
    seen: u64,
}

impl Updates {
    /// Prints size and movement of every array of the first session; says which one an update left as it was.
    ///
    /// # Errors
    /// A gpu that failed.
    pub fn see(&mut self, cohort: &Cohort) -> Result<()> {
        let after = cohort.model(0)?;
        let moved = movements(&self.before, &after);
        if !self.before.is_empty() && moved.iter().any(|m| m.change > 0.0) {
            self.seen += 1;
            note(&format!("update {} at frame {}", self.seen, cohort.frame()));
            for m in &moved {
                let still = if m.change == 0.0 { "  not moved by this update" } else { "" };
                note(&format!("  {:<24} norm {:<12.5} moved {:.3e}{still}", m.name, m.norm, m.change));
            }
        }
        self.before = after;
        Ok(())
    }
}

/// One array's size and how far it moved, both as Euclidean norms.
#[derive(Debug, PartialEq)]
struct Movement<'a> {
    name: &'a str,
    norm: f64,
    change: f64,
}

fn movements<'a>(before: &[Tensor], after: &'a [Tensor]) -> Vec<Movement<'a>> {
    let value = |word: &u32| f64::from(f32::from_bits(*word));
    let length = |squares: f64| squares.sqrt();
    let pairs = after.iter().zip(before).filter(|(a, _)| a.dtype == Dtype::F32);
    let movement = |(a, b): (&'a Tensor, &Tensor)| Movement {
        name: &a.name,
        norm: length(a.words.iter().map(|w| value(w).powi(2)).sum()),
        change: length(a.words.iter().zip(&b.words).map(|(x, y)| (value(x) - value(y)).powi(2)).sum()),
    };
    pairs.map(movement).collect()
}

/// Training between two looks at the agent.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest look, in steps.
const LOOK_STEPS: u32 = 200;

/// The agent at play in a window: one episode, or its beginning, every two seconds of training.
#[derive(Default)]
pub struct Stage {
    screen: Option<Screen>,
    next: Option<Instant>,
    closed: bool,
}

impl Stage {
    /// Plays with the parameters of the first session as they are now, if it is time.
    ///
    /// # Errors
    /// The display went away; a gpu that failed.
    pub fn see(&mut self, plan: &Plan, cohort: &Cohort) -> Result<()> {
        if self.closed || self.next.is_some_and(|next| Instant::now() < next) {
            return Ok(());
        }
        let screen = match &mut self.screen {
            Some(screen) => screen,
            None => self.screen.insert(Screen::open(plan.env_name, true, None)?),
        };
        let mut player = Player::new(plan, &cohort.model(0)?, 0, false)?;
        let text = format!("frame {}", cohort.frame());
        for _ in 0..LOOK_STEPS {
            let step = player.step();
            self.closed = !screen.show(&step, &text)?;
            if self.closed || step.terminated || step.truncated {
                break;
            }
        }
        if self.closed {
            self.screen = None;
        }
        self.next = Some(Instant::now() + LOOK_EVERY);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn movement_is_a_distance() {
        let tensor = |values: [f32; 2]| Tensor {
            name: "actor.0.bias".into(),
            dtype: Dtype::F32,
            shape: vec![2],
            words: values.map(f32::to_bits).to_vec(),
        };
        let (before, after) = ([tensor([0.0, 0.0])], [tensor([3.0, 4.0])]);
        assert_eq!(movements(&before, &after), [Movement { name: "actor.0.bias", norm: 5.0, change: 5.0 }]);
        assert_eq!(movements(&after, &after)[0].change, 0.0);
    }
}
