//! TensorBoard event files: TFRecord framing and the few protobuf messages that scalars, histograms and texts need.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, ErrorKind, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::{Error, Result};

/// Start of the names of event files, by which TensorBoard knows them.
const NAME: &str = "events.out.tfevents.";
/// Buckets of a histogram.
const BUCKETS: usize = 30;

/// An append-only event file.
pub struct EventWriter {
    path: PathBuf,
    file: BufWriter<File>,
    bytes: u64,
}

impl EventWriter {
    /// Makes `dir/events.out.tfevents.{seconds}.slm-fast.{pid}.{n}`, never over an existing file.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn create(dir: &Path) -> Result<EventWriter> {
        let (seconds, pid) = (now_s() as u64, std::process::id());
        for n in 0u32.. {
            let path = dir.join(format!("{NAME}{seconds:010}.slm-fast.{pid}.{n}"));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => {
                    let mut writer = EventWriter { path, file: BufWriter::new(file), bytes: 0 };
                    // the first record names the version of the format
                    writer.record(&Message::default().double(1, now_s()).bytes(3, b"brain.Event:2").0)?;
                    return Ok(writer);
                }
                Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
                Err(err) => return Err(Error::io(&path, "cannot make the event file", &err)),
            }
        }
        unreachable!("2^32 event files of one process within one second")
    }

    /// Removes every event file of `dir`.
    ///
    /// # Errors
    /// Where one cannot be removed.
    pub fn remove_all(dir: &Path) -> Result<()> {
        for entry in std::fs::read_dir(dir).map_err(|err| Error::io(dir, "cannot read", &err))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NAME) {
                let path = entry.path();
                std::fs::remove_file(&path).map_err(|err| Error::io(&path, "cannot remove", &err))?;
            }
        }
        Ok(())
    }

    /// Continues a file after its first `bytes` bytes; what lies behind (written after the checkpoint that is resumed)
    /// is cut off.
    ///
    /// # Errors
    /// Where the file cannot be opened or is shorter than that.
    pub fn reopen(path: &Path, bytes: u64) -> Result<EventWriter> {
        let failed = |err: std::io::Error| Error::io(path, "cannot continue the event file", &err);
        let mut file = OpenOptions::new().write(true).open(path).map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        if length < bytes {
            return Err(Error::new(
                path.display().to_string(),
                format!("the event file has {length} bytes, fewer than the {bytes} that the checkpoint knows of"),
            )
            .hint("delete the event file; a new one is begun"));
        }
        file.set_len(bytes).map_err(failed)?;
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok(EventWriter { path: path.to_path_buf(), file: BufWriter::new(file), bytes })
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
    pub fn scalars<T: AsRef<str>>(&mut self, step: u64, values: &[(T, f64)]) -> Result<()> {
        let mut summary = Message::default();
        for (tag, value) in values.iter().filter(|(_, value)| value.is_finite()) {
            let point = Message::default().bytes(1, tag.as_ref().as_bytes()).float(2, *value as f32);
            summary = summary.bytes(1, &point.0);
        }
        if summary.0.is_empty() { Ok(()) } else { self.summary(step, &summary) }
    }

    /// A histogram of `values` in 30 equal buckets; non-finite values are left out.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn histogram(&mut self, step: u64, tag: &str, values: &[f32]) -> Result<()> {
        let values: Vec<f64> = values.iter().map(|&x| f64::from(x)).filter(|x| x.is_finite()).collect();
        if values.is_empty() {
            return Ok(());
        }
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        // equal values still need a bucket with a width
        let width = ((high - low) / BUCKETS as f64).max(low.abs().max(high.abs()) * 1e-9).max(1e-12);
        let limits: Vec<f64> = (1..=BUCKETS).map(|i| low + width * i as f64).collect();
        let mut counts = vec![0.0; BUCKETS];
        for x in &values {
            counts[(((x - low) / width) as usize).min(BUCKETS - 1)] += 1.0;
        }
        let histogram = Message::default()
            .double(1, low)
            .double(2, high)
            .double(3, values.len() as f64)
            .double(4, values.iter().sum())
            .double(5, values.iter().map(|x| x * x).sum())
            .doubles(6, &limits)
            .doubles(7, &counts);
        let value = Message::default().bytes(1, tag.as_bytes()).bytes(5, &histogram.0);
        self.summary(step, &Message::default().bytes(1, &value.0))
    }

    /// A text in Markdown.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn text(&mut self, step: u64, tag: &str, text: &str) -> Result<()> {
        // a string tensor (DT_STRING is 7) of shape [1]
        let shape = Message::default().bytes(2, &Message::default().integer(1, 1).0);
        let tensor = Message::default().integer(1, 7).bytes(2, &shape.0).bytes(8, text.as_bytes());
        let plugin = Message::default().bytes(1, &Message::default().bytes(1, b"text").0);
        let value = Message::default().bytes(1, tag.as_bytes()).bytes(8, &tensor.0).bytes(9, &plugin.0);
        self.summary(step, &Message::default().bytes(1, &value.0))
    }

    /// Hands everything to the operating system.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        self.file.flush().map_err(|err| Error::io(&self.path, "cannot write the event file", &err))
    }

    /// Flushes, and waits until the disk has it.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        self.file.get_ref().sync_all().map_err(|err| Error::io(&self.path, "cannot write the event file", &err))
    }

    /// An event: wall time, step, summary.
    fn summary(&mut self, step: u64, summary: &Message) -> Result<()> {
        self.record(&Message::default().double(1, now_s()).integer(2, step).bytes(5, &summary.0).0)
    }

    /// TFRecord: length, its checksum, data, its checksum.
    fn record(&mut self, data: &[u8]) -> Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        let mut bytes = Vec::with_capacity(data.len() + 16);
        bytes.extend(length);
        bytes.extend(masked_crc32c(&length).to_le_bytes());
        bytes.extend(data);
        bytes.extend(masked_crc32c(data).to_le_bytes());
        self.bytes += bytes.len() as u64;
        self.file.write_all(&bytes).map_err(|err| Error::io(&self.path, "cannot write the event file", &err))
    }
}

/// Seconds since 1970.
fn now_s() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// A protobuf message under construction: fields appended in the order of the calls.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut x: u64) {
        while x > 127 {
            self.0.push(x as u8 | 128);
            x >>= 7;
        }
        self.0.push(x as u8);
    }

    fn key(&mut self, field: u64, wire_type: u64) {
        self.varint(field << 3 | wire_type);
    }

    fn integer(mut self, field: u64, x: u64) -> Message {
        self.key(field, 0);
        self.varint(x);
        self
    }

    fn double(mut self, field: u64, x: f64) -> Message {
        self.key(field, 1);
        self.0.extend(x.to_le_bytes());
        self
    }

    fn float(mut self, field: u64, x: f32) -> Message {
        self.key(field, 5);
        self.0.extend(x.to_le_bytes());
        self
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Message {
        self.key(field, 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn doubles(self, field: u64, xs: &[f64]) -> Message {
        let packed: Vec<u8> = xs.iter().flat_map(|x| x.to_le_bytes()).collect();
        self.bytes(field, &packed)
    }
}

/// CRC-32C (Castagnoli, reflected polynomial 0x82F63B78), the remainder of each byte.
static CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { 0x82F6_3B78 ^ (crc >> 1) } else { crc >> 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, &byte| CRC_TABLE[((crc ^ u32::from(byte)) & 255) as usize] ^ (crc >> 8))
}

/// TFRecord stores a rotated and shifted checksum, so that a record of records is not its own checksum.
fn masked_crc32c(bytes: &[u8]) -> u32 {
    crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_has_its_published_check_value() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // RFC 3720, B.4: 32 bytes of zeros, of ones
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(crc32c(&[255; 32]), 0x62A8_AB43);
    }

    #[test]
    fn a_reopened_file_continues_at_the_given_byte() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut writer = EventWriter::create(folder.path()).expect("made");
        writer.scalars(1, &[("a", 1.0)]).expect("written");
        let bytes = writer.len_bytes();
        writer.scalars(2, &[("a", 2.0)]).expect("written");
        writer.flush().expect("flushed");
        let path = writer.path().to_path_buf();
        assert_eq!(std::fs::metadata(&path).expect("there").len(), writer.len_bytes());

        let mut again = EventWriter::reopen(&path, bytes).expect("opened");
        again.scalars(3, &[("a", 2.0)]).expect("written");
        again.flush().expect("flushed");
        assert_eq!(std::fs::metadata(&path).expect("there").len(), writer.len_bytes());
        assert!(EventWriter::reopen(&path, 1 << 40).is_err());
    }

    #[test]
    fn a_second_file_of_the_same_second_is_another() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let one = EventWriter::create(folder.path()).expect("made");
        let two = EventWriter::create(folder.path()).expect("made");
        assert_ne!(one.path(), two.path());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_is_an_error_with_a_hint() {
        let full = Path::new("/dev/full");
        let file = BufWriter::new(OpenOptions::new().write(true).open(full).expect("Linux has it"));
        let mut writer = EventWriter { path: full.to_path_buf(), file, bytes: 0 };
        writer.scalars(1, &[("a", 1.0)]).expect("buffered");
        let err = writer.flush().expect_err("full");
        assert!(err.to_string().starts_with("/dev/full: cannot write the event file: No space left"), "{err}");
        assert!(err.hint.starts_with("free some disk space"), "{err}");
    }
}
