//! `slm-fast enjoy`: the best model of a run at play, on the screen or in an animation.

use std::path::{Path, PathBuf};

use slm_fast::error::{Error, Result};
use slm_fast::lab::enjoy::Enjoy;
use slm_fast::metric::mean_std;

use super::screen::Screen;
use super::{Ending, EnjoyArgs, Surroundings, say};

/// Plays the episodes and prints their returns.
pub fn enjoy(args: &EnjoyArgs, around: &Surroundings) -> Result<Ending> {
    if args.render && !around.has_display {
        return Err(Error::new("--render", "there is no display here").hint("use `--record out.gif`"));
    }
    if let Some(path) = &args.record {
        outside(path, &args.folder)?;
    }
    let mut game = Enjoy::open(&args.folder, args.seed, args.deterministic)?;
    let mut screen = Screen::open(game.env.name, args.render, args.record.as_deref())?;
    let mut returns = Vec::new();
    for n in 1..=args.episodes {
        let (mut open, mut total) = (true, 0.0);
        let episode = game.episode(|step| {
            total += step.reward;
            open = open && screen.show(step, &format!("episode {n}  return {total:.1}"))?;
            Ok(())
        })?;
        if !open {
            // the window was closed in the middle of this episode
            break;
        }
        say(&format!("episode {n}  return {:.2}  {} steps", episode.total_reward, episode.steps));
        returns.push(episode.total_reward);
    }
    screen.finish()?;
    if returns.is_empty() {
        return Ok(Ending::Success);
    }
    let (mean, std) = mean_std(&returns);
    let score = game.total_reward_ma.map_or(String::new(), |score| format!(", total_reward_ma {score:.2} in training"));
    say(&format!("mean {mean:.2}, std {std:.2} over {} episodes of {}{score}", returns.len(), game.name));
    Ok(Ending::Success)
}

/// Refuses to write into the folder of the run.
fn outside(path: &Path, run: &Path) -> Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let real = |path: &Path| -> Option<PathBuf> { path.canonicalize().ok() };
    match (real(parent), real(run)) {
        (Some(parent), Some(run)) if parent.starts_with(&run) => Err(Error::new(
            path.display().to_string(),
            "this file would be in the run's folder, which `enjoy` never writes into",
        )
        .hint("record to another place")),
        _ => Ok(()),
    }
}
