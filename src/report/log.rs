//! The text log of a trial: `[2026-01-31 12:00:00] [INFO] text`, one line per event, append-only. Whoever has it open
//! owns the run's folder.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// What happened, as planned.
    Info,
    /// Something a person should look at; the run goes on.
    Warning,
    /// Something stopped.
    Error,
}

/// How often, and after which pause, a lock is asked for again.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(10);

/// Whether a process has the log open, which is to say, trains the run.
pub fn is_open(path: &Path) -> bool {
    // shared, so that those who look do not see each other
    File::open(path).is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
}

/// A log file, opened for appending.
pub struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    /// Opens (or makes) the file, locks it until this log or its process ends, and goes to its end.
    ///
    /// # Errors
    /// Where it cannot be opened, or another process has it open.
    pub fn open(path: &Path) -> Result<Log> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|err| Error::io(path, "cannot open the log", &err))?;
        // who only looks whether the run is being trained holds it for a moment
        let is_taken = || matches!(file.try_lock(), Err(TryLockError::WouldBlock));
        // a file system without locks is no reason not to train
        let is_taken = (1..=LOOKS).all(|n| {
            let taken = is_taken();
            if taken && n < LOOKS {
                std::thread::sleep(LOOK);
            }
            taken
        });
        if is_taken {
            return Err(Error::new(path.display().to_string(), "this run is being trained by another process")
                .hint("wait until it ends, or stop it with Ctrl-C"));
        }
        Ok(Log { path: path.to_path_buf(), file })
    }

    /// Appends a line; the lines of a text with several are indented below the first.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn line(&mut self, level: Level, text: &str) -> Result<()> {
        let level = match level {
            Level::Info => "INFO",
            Level::Warning => "WARNING",
            Level::Error => "ERROR",
        };
        let now = jiff::Zoned::now().strftime("%Y-%m-%d %H:%M:%S").to_string();
        let line = format!("[{now}] [{level}] {}\n", text.trim_end().replace('\n', "\n    "));
        // one call, so that a line is not torn by a kill
        self.file.write_all(line.as_bytes()).map_err(|err| Error::io(&self.path, "cannot write the log", &err))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_has_one_writer() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.log");
        let first = Log::open(&path).expect("opened");
        let err = Log::open(&path).err().expect("taken");
        assert_eq!(err.what, "this run is being trained by another process");
        assert!(is_open(&path));
        drop(first);
        assert!(!is_open(&path) && !is_open(&folder.path().join("none.log")));
        Log::open(&path).expect("free again");
    }

    #[test]
    fn lines_have_time_and_level_and_are_appended() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("x.log");
        Log::open(&path).expect("opened").line(Level::Info, "one\ntwo\n").expect("written");
        Log::open(&path).expect("opened").line(Level::Error, "three").expect("written");
        let text = std::fs::read_to_string(&path).expect("read");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        assert_eq!(&lines[0][21..], " [INFO] one");
        assert_eq!(lines[1], "    two");
        assert_eq!(&lines[2][21..], " [ERROR] three");
        let stamp = jiff::civil::DateTime::strptime("[%Y-%m-%d %H:%M:%S]", &lines[0][..21]);
        assert!(stamp.is_ok(), "{stamp:?}");
    }
}
