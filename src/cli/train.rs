//! `slm-fast train` and `slm-fast dev`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slm_fast::error::{Error, Result};
use slm_fast::lab::progress::{Verbosity, count};
use slm_fast::lab::trial::{self, Options, Summary};
use slm_fast::spec::{self, Spec};

use super::dev::{Stage, Updates};
use super::{DevArgs, Ending, SpecArgs, Surroundings, TrainArgs, hub, note, say};

/// Frames of a `dev` session, unless the command sets them.
const DEV_FRAMES: u64 = 10_000;

/// Trains a trial, or continues one.
pub fn train(args: &TrainArgs, around: &Surroundings) -> Result<Ending> {
    let verbosity = verbosity(args.quiet, args.verbose);
    let options = Options {
        data: args.common.data.clone(),
        device: args.common.device,
        threads: args.common.threads.map_or(0, usize::from),
        one_by_one: false,
        checkpoint_every: args.checkpoint_every,
        verbosity,
        stop: stop_on_ctrl_c()?,
        started: around.started,
        program: around.program(),
        watch: None,
    };
    let ended = match (&args.resume, &args.spec) {
        (Some(folder), _) => trial::resume(folder, options),
        (None, Some(path)) => {
            let spec = load(path, &args.common, &[], verbosity)?;
            trial::train(spec, options)
        }
        (None, None) => unreachable!("clap asks for SPEC or --resume"),
    }?;
    let finished = if let trial::Ending::Finished(summary) = &ended { Some(summary.folder.clone()) } else { None };
    let ending = tell(ended);
    if let Some(folder) = finished {
        hub::after_run(&folder);
    }
    Ok(ending)
}

/// Trains one quick session and shows what every update does.
pub fn dev(args: &DevArgs, around: &Surroundings) -> Result<Ending> {
    let is_set = |key: &str| args.common.set.iter().any(|(set, _)| set == key);
    let mut sets = vec![("meta.max_session".to_string(), "1".to_string())];
    let mut spec = load(&args.spec, &args.common, &sets, Verbosity::Verbose)?;
    if !is_set("env.max_frame") && spec.env.max_frame > DEV_FRAMES {
        sets.push(("env.max_frame".to_string(), DEV_FRAMES.to_string()));
        spec = load(&args.spec, &args.common, &sets, Verbosity::Quiet)?;
    }
    let mut updates = Updates::default();
    let mut stage = (around.has_display && !args.no_render).then(Stage::default);
    let options = Options {
        data: args.common.data.clone(),
        device: args.common.device,
        threads: args.common.threads.map_or(0, usize::from),
        one_by_one: true,
        checkpoint_every: Duration::from_secs(5),
        verbosity: Verbosity::Verbose,
        stop: stop_on_ctrl_c()?,
        started: around.started,
        program: around.program(),
        watch: Some(Box::new(move |plan, cohort| {
            updates.see(cohort)?;
            stage.as_mut().map_or(Ok(()), |stage| stage.see(plan, cohort))
        })),
    };
    Ok(tell(trial::train(spec, options)?))
}

/// How much two switches ask for.
pub(super) fn verbosity(quiet: bool, verbose: bool) -> Verbosity {
    match (quiet, verbose) {
        (true, _) => Verbosity::Quiet,
        (_, true) => Verbosity::Verbose,
        _ => Verbosity::Normal,
    }
}

/// Reads the spec with everything the command line sets in it, and prints the loader's warnings.
pub(super) fn load(path: &Path, common: &SpecArgs, more: &[(String, String)], verbosity: Verbosity) -> Result<Spec> {
    let sets: Vec<(String, String)> = common.set.iter().chain(more).cloned().collect();
    let loaded = spec::load(path, common.name.as_deref(), &sets)?;
    let mut spec = loaded.spec;
    if verbosity > Verbosity::Quiet {
        for warning in &loaded.warnings {
            note(&format!("warning: {warning}"));
        }
    }
    if let Some(seed) = common.seed {
        spec.meta.random_seed = Some(seed);
    }
    Ok(spec)
}

/// The first Ctrl-C (or a polite kill) asks the trial to stop, the second ends the process at once.
pub(super) fn stop_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    ctrlc::set_handler(move || {
        if asked.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note("\nstopping after this iteration; once more stops at once");
    })
    .map_err(|error| Error::new("", format!("cannot listen for Ctrl-C: {error}")))?;
    Ok(stop)
}

/// Prints how a trial ended.
fn tell(ended: trial::Ending) -> Ending {
    match ended {
        trial::Ending::Finished(summary) => summarise(&summary),
        trial::Ending::Interrupted { folder, frame } => {
            say(&format!("interrupted at frame {}; a checkpoint is saved", count(frame as f64)));
            say(&format!("continue with: slm-fast train --resume {}", folder.display()));
            Ending::Interrupted
        }
        trial::Ending::AlreadyComplete { folder } => {
            say(&format!("{}: this run is complete; nothing to do", folder.display()));
            Ending::Success
        }
    }
}

/// Prints the result of a trial: metrics, folder, speed.
fn summarise(summary: &Summary) -> Ending {
    say(&format!("trial_metrics: {}", summary.outcome.trial));
    say(&format!("folder: {}", summary.folder.display()));
    let wall_s = summary.wall.as_secs_f64();
    let rate = summary.frames as f64 / wall_s.max(1e-9);
    say(&format!("{} frames in {wall_s:.2} s, {} frames/s", count(summary.frames as f64), count(rate)));
    let sessions = summary.outcome.sessions.len();
    if summary.faults > 0 {
        say(&format!("{} of {sessions} sessions stopped early: see the log", summary.faults));
    }
    if summary.faults == sessions { Ending::Failure } else { Ending::Success }
}
