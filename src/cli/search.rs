//! `slm-fast search`.

use slm_fast::error::Result;
use slm_fast::lab::progress::{count, number};
use slm_fast::lab::search::{self, Cluster, Options, Status, Summary, worker};

use super::train::{load, stop_on_ctrl_c, verbosity};
use super::{Ending, EngineName, JobArgs, SearchArgs, Surroundings, hub, say};

/// Trials that are shown at the end.
const SHOWN: usize = 5;

/// Searches, or continues a search.
pub fn search(args: &SearchArgs, around: &Surroundings) -> Result<Ending> {
    let verbosity = verbosity(args.quiet, false);
    let options = Options {
        data: args.common.data.clone(),
        device: args.common.device,
        threads: args.common.threads.map_or(0, usize::from),
        checkpoint_every: args.checkpoint_every,
        verbosity,
        stop: stop_on_ctrl_c()?,
        started: around.started,
        program: around.program(),
        keep: usize::try_from(args.keep).ok(),
        cluster: (args.engine == EngineName::Ray)
            .then(|| Cluster { address: args.address.clone(), python: args.python.clone() }),
    };
    let ended = match (&args.resume, &args.spec) {
        (Some(folder), _) => search::resume(folder, options),
        (None, Some(path)) => search::search(load(path, &args.common, &[], verbosity)?, options),
        (None, None) => unreachable!("clap asks for SPEC or --resume"),
    }?;
    Ok(match ended {
        search::Ending::Finished(summary) => {
            let ending = summarise(&summary);
            hub::after_run(&summary.folder);
            ending
        }
        search::Ending::Interrupted { folder } => {
            say("interrupted; every trial has a checkpoint");
            say(&format!("continue with: slm-fast search --resume {}", folder.display()));
            Ending::Interrupted
        }
        search::Ending::AlreadyComplete { folder } => {
            say(&format!("{}: this search is complete; nothing to do", folder.display()));
            Ending::Success
        }
    })
}

/// Does one job of a search for a cluster.
pub fn job(args: &JobArgs) -> Result<Ending> {
    worker::work(&args.folder).map(|()| Ending::Success)
}

/// Prints the best trials, what became of the others, folder and speed.
fn summarise(summary: &Summary) -> Ending {
    for record in summary.ranking.iter().take(SHOWN) {
        let values: Vec<String> = record.values.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let (score, strength) = (number(record.metrics.total_reward_ma), number(record.metrics.strength));
        say(&format!("trial {:>4}  total_reward_ma {score}  strength {strength}  {}", record.trial, values.join(" ")));
    }
    let of = |status| summary.ranking.iter().filter(|record| record.status == status).count();
    say(&format!(
        "{} trials: {} complete, {} stopped early, {} faulted",
        summary.ranking.len(),
        of(Status::Complete),
        of(Status::Stopped),
        of(Status::Faulted)
    ));
    say(&format!("folder: {}", summary.folder.display()));
    let wall_s = summary.wall.as_secs_f64();
    let rate = summary.frames as f64 / wall_s.max(1e-9);
    say(&format!("{} frames in {wall_s:.2} s, {} frames/s", count(summary.frames as f64), count(rate)));
    if of(Status::Faulted) == summary.ranking.len() { Ending::Failure } else { Ending::Success }
}
