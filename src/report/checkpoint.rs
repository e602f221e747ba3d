//! Model files and resumable checkpoints: safetensors with a map of strings in the header.

use std::collections::BTreeMap;
use std::path::Path;

use super::frame::DataFrame;
use crate::error::Result;
use crate::lab::cohort::Tensor;

/// Value of the key `format` in the metadata of every file that this program writes.
pub const FORMAT: &str = "slm-fast";
/// Value of the key `format_version`; a file with a larger one was written by a newer program.
pub const FORMAT_VERSION: u32 = 1;

/// What a model file or a resumable checkpoint holds.
#[derive(Debug, Clone, Default)]
pub struct Checkpoint {
    /// Strings by name: `spec` (JSON text), `git_sha`, `seed`, `trial`, `session`, `frame`, ...; `format` and
    /// `format_version` are added in writing.
    pub meta: BTreeMap<String, String>,
    /// F32 and U32 arrays, in order.
    pub tensors: Vec<Tensor>,
    /// Data frames of the sessions; empty in a model file. Kept as F64 arrays, so they come back bit for bit.
    pub frames: Vec<DataFrame>,
}

impl Checkpoint {
    /// The file's bytes, equal for equal contents.
    pub fn to_bytes(&self) -> Vec<u8> {
        todo!()
    }

    /// The inverse of [`Checkpoint::to_bytes`]; `place` names the file in errors.
    ///
    /// # Errors
    /// For a truncated file, one that is not safetensors, one of another program, one of a newer version.
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Checkpoint> {
        let _ = (bytes, place);
        todo!()
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        super::files::write_whole(path, &self.to_bytes())
    }

    /// Reads a file.
    ///
    /// # Errors
    /// Where it cannot be read, and as [`Checkpoint::from_bytes`].
    pub fn read(path: &Path) -> Result<Checkpoint> {
        let _ = path;
        todo!()
    }

    /// A metadata value; an error that names the key where it is missing.
    ///
    /// # Errors
    /// Where the key is missing.
    pub fn meta(&self, key: &str) -> Result<&str> {
        let _ = key;
        todo!()
    }
}
