//! `slm-fast verify-env`.

use slm_fast::env::verify::verify;
use slm_fast::error::{Error, Result};
use slm_fast::spec::DeviceChoice;

use super::{Ending, VerifyArgs, say};

/// Replays a trace and prints the worst and the 99th-percentile error of every field.
pub fn verify_env(args: &VerifyArgs) -> Result<Ending> {
    if !matches!(args.device, DeviceChoice::Auto | DeviceChoice::Cpu) {
        return Err(Error::new("--device", "traces are replayed on the cpu alone")
            .hint("the tests hold the environments of other devices to the cpu's; leave `--device` out"));
    }
    let report = verify(&args.env, &args.trace, "cpu", args.tolerance)?;
    say(&report.to_string());
    Ok(if report.passed() { Ending::Success } else { Ending::Mismatch })
}
