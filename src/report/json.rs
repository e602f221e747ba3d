//! JSON files: pretty, two spaces, a newline at the end; a number that is not finite is `null`.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::files::write_whole;
use crate::error::{Error, Result};

/// Writes `value` as a JSON file, whole or not at all.
///
/// # Errors
/// Where the file cannot be written.
pub fn write<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut bytes = serde_json::to_vec_pretty(value)
        .map_err(|err| Error::new(path.display().to_string(), format!("cannot be expressed in JSON: {err}")))?;
    bytes.push(b'\n');
    write_whole(path, &bytes)
}

/// Reads a JSON file into `T`.
///
/// # Errors
/// Names the file, and line and column of what is wrong in it.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read(path).map_err(|err| Error::io(path, "cannot read", &err))?;
    serde_json::from_slice(&text)
        .map_err(|err| Error::new(path.display().to_string(), format!("not the JSON that was expected: {err}")))
}
