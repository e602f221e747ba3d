//! `slm-fast benchmark`.

use std::io::Write;

use slm_fast::error::{Error, Result};
use slm_fast::lab::benchmark::{self, Options, Suite};

use super::train::{stop_on_ctrl_c, verbosity};
use super::{BenchmarkArgs, Ending, Surroundings, say};

/// Benchmarks, or continues a benchmark.
pub fn benchmark(args: &BenchmarkArgs, around: &Surroundings) -> Result<Ending> {
    let options = Options {
        data: args.data.clone(),
        device: args.device,
        threads: args.threads.map_or(0, usize::from),
        checkpoint_every: args.checkpoint_every,
        verbosity: verbosity(args.quiet, false),
        stop: stop_on_ctrl_c()?,
        program: around.program(),
    };
    let ended = match &args.resume {
        Some(folder) => benchmark::resume(folder, options),
        None => benchmark::benchmark(suite(args)?.plans(&args.set)?, options),
    }?;
    Ok(match ended {
        benchmark::Ending::Finished { folder, table } => {
            // a reader that has gone away is no failure
            let _ = write!(std::io::stdout().lock(), "{}", table.markdown());
            say(&format!("folder: {}", folder.display()));
            Ending::Success
        }
        benchmark::Ending::Interrupted { folder } => {
            say("interrupted; every spec has a checkpoint");
            say(&format!("continue with: slm-fast benchmark --resume {}", folder.display()));
            Ending::Interrupted
        }
    })
}

/// The suite that the arguments name, or one of the specs that they name.
fn suite(args: &BenchmarkArgs) -> Result<Suite> {
    let suites: Vec<_> = args.specs.iter().filter(|path| Suite::is_one(path)).collect();
    let mut suite = match (suites.as_slice(), args.specs.len()) {
        ([only], 1) => Suite::read(only)?,
        ([], _) => Suite::of(&args.specs)?,
        ([first, ..], _) => {
            let what = "a suite is run by itself";
            return Err(Error::new(first.display().to_string(), what).hint("name one suite, or only specs"));
        }
    };
    if let Some(seeds) = &args.seeds {
        suite.seeds.clone_from(seeds);
    }
    Ok(suite)
}
