//! What cuda devices there are: for `slm-fast devices`.

use super::driver::{Attribute, Checked, Context, version};
use super::{capability, count, version_text};

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    pub ordinal: usize,
    pub name: String,
    /// Bytes of device memory.
    pub free: usize,
    pub total: usize,
    /// The newest CUDA version that the driver knows, for example `12.4`.
    pub driver: String,
    /// Compute capability.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub processors: usize,
}

/// Every device of the machine; or why there is none.
///
/// # Errors
/// The reason, in words.
pub fn survey() -> Result<Vec<Result<Facts, String>>, String> {
    let count = count()?;
    let text = |failure: super::driver::Failure| failure.to_string();
    Ok((0..count).map(|ordinal| facts(ordinal).map_err(text)).collect())
}

fn facts(ordinal: i32) -> Checked<Facts> {
    let context = Context::new(ordinal)?;
    let (free, total) = context.memory()?;
    Ok(Facts {
        ordinal: ordinal as usize,
        name: context.name()?,
        free,
        total,
        driver: version_text(version()?),
        capability: capability(&context)?,
        processors: context.attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
    })
}
