//! What went wrong, where, and what to do about it.
//!
//! Every mistake a user can make or meet is a value of [`Error`]: a message that names the place, then a hint. The
//! program prints it and exits with code 2. A broken promise inside the program is a panic that states the promise.

use std::fmt;

/// A user-visible failure: `place: what`, then `  hint: ...` on its own line.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    /// A file, a JSON place such as `agent.algorithm.lam`, or both; empty where there is none.
    pub place: String,
    /// What is wrong there.
    pub what: String,
    /// What to do about it; empty where nothing useful can be said.
    pub hint: String,
}

/// A result whose error a user will read.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error at a place (`""` for none).
    pub fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Error { place: place.into(), what: what.into(), hint: String::new() }
    }

    /// Adds the line that says what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// An error of the operating system about a file, with a hint for the common kinds.
    pub fn io(path: &std::path::Path, doing: &str, err: &std::io::Error) -> Self {
        use std::io::ErrorKind::{NotFound, PermissionDenied, ReadOnlyFilesystem, StorageFull};
        let hint = match err.kind() {
            NotFound => "check the path",
            PermissionDenied | ReadOnlyFilesystem => "choose a folder you can write to, for example with `--data DIR`",
            StorageFull => "free some disk space; what was written before is whole and `--resume` continues from it",
            _ => "",
        };
        Error::new(path.display().to_string(), format!("{doing}: {err}")).hint(hint)
    }

    /// Puts the error under an outer place: `specs/x.json` before `agent.net`.
    #[must_use]
    pub fn within(mut self, outer: &str) -> Self {
        self.place = match (outer.is_empty(), self.place.is_empty()) {
            (true, _) => self.place,
            (false, true) => outer.to_string(),
            (false, false) => format!("{outer}: {}", self.place),
        };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", self.place)?;
        }
        write!(f, "{}", self.what)?;
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
