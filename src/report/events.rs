//! TensorBoard event files: TFRecord framing and the few protobuf messages that scalars, histograms and texts need.

use std::path::{Path, PathBuf};

use crate::error::Result;

/// An append-only event file.
pub struct EventWriter {
    path: PathBuf,
    bytes: u64,
}

impl EventWriter {
    /// Makes `dir/events.out.tfevents.{seconds}.slm-fast.{pid}.{n}`, never over an existing file.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(dir: &Path) -> Result<EventWriter> {
        let _ = dir;
        todo!()
    }

    /// Continues a file after its first `bytes` bytes; what lies behind (written after the checkpoint that is resumed)
    /// is cut off.
    ///
    /// # Errors
    /// Where the file cannot be opened or is shorter than that.
    pub fn reopen(path: &Path, bytes: u64) -> Result<EventWriter> {
        let _ = (path, bytes);
        todo!()
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written so far, flushed or not.
    pub fn len_bytes(&self) -> u64 {
        self.bytes
    }

    /// One point of several curves: tag and value; non-finite values are left out.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn scalars(&mut self, step: u64, values: &[(&str, f64)]) -> Result<()> {
        let _ = (step, values);
        todo!()
    }

    /// A histogram of `values` in 30 equal buckets; non-finite values are left out.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        let _ = (step, tag, values);
        todo!()
    }

    /// A text in Markdown.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        let _ = (step, tag, text);
        todo!()
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        todo!()
    }
}
