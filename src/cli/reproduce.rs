//! `slm-fast reproduce`: a finished run once more, compared bit for bit.

use std::time::Duration;

use slm_fast::error::Result;
use slm_fast::lab::progress::Verbosity;
use slm_fast::lab::reproduce::Original;
use slm_fast::lab::trial::Options;

use super::train::stop_on_ctrl_c;
use super::{Ending, ReproduceArgs, Surroundings, note, say};

/// Makes the run again and prints what came out the same, per session.
pub fn reproduce(args: &ReproduceArgs, around: &Surroundings) -> Result<Ending> {
    let original = Original::open(&args.folder)?;
    let program = around.program();
    for doubt in original.doubts(&program, args.device) {
        note(&format!("warning: {doubt}"));
    }
    let again = original.again(Options {
        data: args.data.clone(),
        device: args.device,
        threads: args.threads.map_or(0, usize::from),
        one_by_one: false,
        checkpoint_every: Duration::from_secs(60),
        verbosity: if args.quiet { Verbosity::Quiet } else { Verbosity::Normal },
        stop: stop_on_ctrl_c()?,
        started: around.started,
        program,
        watch: None,
    })?;
    let Some(again) = again else {
        say("interrupted before there was anything to compare");
        return Ok(Ending::Interrupted);
    };
    let verdicts = original.compare(&again)?;
    say(&format!("made again in {}", again.display()));
    for verdict in &verdicts {
        say(&format!("{}: {}", verdict.of, verdict.difference.as_deref().unwrap_or("bit-identical")));
    }
    let differing = verdicts.iter().filter(|verdict| verdict.difference.is_some()).count();
    if differing == 0 {
        say(&format!("bit-identical: {}", args.folder.display()));
        return Ok(Ending::Success);
    }
    say(&format!("not bit-identical: {}", args.folder.display()));
    Ok(Ending::Mismatch)
}
