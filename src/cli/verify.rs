//! `slm-fast verify-env`.

use slm_fast::env::verify::verify;
use slm_fast::error::Result;

use super::{Ending, VerifyArgs, resolve, say};

/// Replays a trace and prints the worst and the 99th-percentile error of every field.
pub fn verify_env(args: &VerifyArgs) -> Result<Ending> {
    resolve(args.device)?;
    let report = verify(&args.env, &args.trace, "cpu", args.tolerance)?;
    say(&report.to_string());
    Ok(if report.passed() { Ending::Success } else { Ending::Mismatch })
}
