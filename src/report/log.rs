//! The text log of a trial: `[2026-01-31 12:00:00] [INFO] text`, one line per event, append-only.

use std::fs::File;
use std::path::{Path, PathBuf};

use crate::error::Result;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Info,
    Warning,
    Error,
}

/// A log file, opened for appending.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens (or makes) the file and goes to its end.
    ///
    /// # Errors
    /// Where it cannot be opened.
    pub fn open(path: &Path) -> Result<Log> {
        let _ = path;
        todo!()
    }

    /// Appends a line; the lines of a text with several are indented below the first.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn line(&mut self, level: Level, text: &str) -> Result<()> {
        let _ = (level, text, &self.path, &self.file);
        todo!()
    }
}
