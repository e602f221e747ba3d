//! `slm-fast verify-env`.

use slm_fast::error::Result;

use super::{Ending, VerifyArgs};

pub fn verify_env(_args: &VerifyArgs) -> Result<Ending> {
    Ok(Ending::Success)
}
