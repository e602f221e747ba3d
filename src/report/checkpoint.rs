//! Model files and resumable checkpoints: safetensors with a map of strings in the header.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::{SafeTensorError, SafeTensors};
use serde_json::{Map, Value, json};

use super::frame::DataFrame;
use crate::device::Dtype;
use crate::error::{Error, Result};
use crate::net::Tensor;

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
        let mut strings: BTreeMap<&str, String> =
            self.meta.iter().map(|(key, text)| (key.as_str(), text.clone())).collect();
        strings.insert("format", FORMAT.to_string());
        strings.insert("format_version", FORMAT_VERSION.to_string());
        let columns: Vec<&[String]> = self.frames.iter().map(|frame| frame.names.as_slice()).collect();
        strings.insert(FRAMES, serde_json::to_string(&columns).expect("lists of strings are JSON"));

        // f64 first, so that every array is aligned to its word
        let mut header = Map::new();
        header.insert("__metadata__".to_string(), json!(strings));
        let mut end = 0;
        let mut entry = |name: String, dtype: &str, shape: Value, bytes: usize| {
            let place = json!({ "dtype": dtype, "shape": shape, "data_offsets": [end, end + bytes] });
            end += bytes;
            assert!(header.insert(name.clone(), place).is_none(), "two arrays of a checkpoint are named `{name}`");
        };
        for (i, frame) in self.frames.iter().enumerate() {
            let (rows, columns) = (frame.rows.len(), frame.names.len());
            entry(frame_name(i), "F64", json!([rows, columns]), 8 * rows * columns);
        }
        for tensor in &self.tensors {
            let words = tensor.shape.iter().product::<usize>();
            assert_eq!(words, tensor.words.len(), "words of the array `{}`", tensor.name);
            let dtype = match tensor.dtype {
                Dtype::F32 => "F32",
                Dtype::U32 => "U32",
            };
            entry(tensor.name.clone(), dtype, json!(tensor.shape), 4 * words);
        }

        let mut header = serde_json::to_vec(&header).expect("strings and numbers are JSON");
        header.resize(header.len().next_multiple_of(8), b' ');
        let mut bytes = Vec::with_capacity(8 + header.len() + end);
        bytes.extend((header.len() as u64).to_le_bytes());
        bytes.extend(header);
        for row in self.frames.iter().flat_map(|frame| &frame.rows) {
            bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
        }
        for tensor in &self.tensors {
            bytes.extend(tensor.words.iter().flat_map(|word| word.to_le_bytes()));
        }
        bytes
    }

    /// The inverse of [`Checkpoint::to_bytes`]; `place` names the file in errors.
    ///
    /// # Errors
    /// For a truncated file, one that is not safetensors, one of another program, one of a newer version.
    pub fn from_bytes(bytes: &[u8], place: &str) -> Result<Checkpoint> {
        let broken = |what: String| {
            Error::new(place, what).hint("the file was cut off or changed; take an older copy, or train again")
        };
        let foreign =
            || Error::new(place, "not a file of slm-fast").hint("give a file from the `model/` folder of a run");
        if bytes.is_empty() {
            return Err(broken("the file is empty".to_string()));
        }
        // safetensors: a length, then a JSON object of that length
        let length = bytes.first_chunk().map(|first: &[u8; 8]| u64::from_le_bytes(*first));
        match (length, bytes.get(8)) {
            (Some(length), Some(b'{')) if length.saturating_add(8) > bytes.len() as u64 => {
                return Err(broken(format!("cut off in its header: {} bytes, {} promised", bytes.len(), length + 8)));
            }
            (Some(_), Some(b'{')) => {}
            _ => return Err(foreign()),
        }
        let (_, info) = SafeTensors::read_metadata(bytes).map_err(|err| match err {
            SafeTensorError::MetadataIncompleteBuffer => {
                broken(format!("cut off: its {} bytes are not what its header promises", bytes.len()))
            }
            err => broken(format!("damaged: {err}")),
        })?;
        let meta: BTreeMap<String, String> = info.metadata().clone().unwrap_or_default().into_iter().collect();
        if meta.get("format").map(String::as_str) != Some(FORMAT) {
            return Err(foreign());
        }
        let version = meta.get("format_version").and_then(|text| text.parse::<u32>().ok());
        match version {
            Some(version) if version > FORMAT_VERSION => {
                return Err(Error::new(
                    place,
                    format!("format version {version}; this program reads up to {FORMAT_VERSION}"),
                )
                .hint("it was written by a newer slm-fast: update this one"));
            }
            Some(_) => {}
            None => return Err(broken("its format version is missing".to_string())),
        }
        let file = SafeTensors::deserialize(bytes).map_err(|err| broken(format!("damaged: {err}")))?;

        let mut meta = meta;
        let columns = meta.remove(FRAMES).unwrap_or_else(|| "[]".to_string());
        let columns: Vec<Vec<String>> =
            serde_json::from_str(&columns).map_err(|err| broken(format!("damaged `{FRAMES}`: {err}")))?;
        meta.remove("format");
        meta.remove("format_version");

        let mut frames = Vec::new();
        for (i, names) in columns.into_iter().enumerate() {
            let name = frame_name(i);
            let array = file.tensor(&name).map_err(|_| broken(format!("the array `{name}` is missing")))?;
            if array.dtype() != safetensors::Dtype::F64 || array.shape().len() != 2 || array.shape()[1] != names.len() {
                return Err(broken(format!("the array `{name}` is not F64 of [rows, {}]", names.len())));
            }
            let numbers: Vec<f64> = array.data().chunks_exact(8).map(|b| f64::from_le_bytes(word(b))).collect();
            let rows = numbers.chunks_exact(names.len().max(1)).map(<[f64]>::to_vec).collect();
            frames.push(DataFrame { names, rows });
        }

        let mut tensors = Vec::new();
        // in the order of the file
        for name in info.offset_keys().into_iter().filter(|name| !name.starts_with(FRAME)) {
            let array = file.tensor(&name).map_err(|err| broken(format!("damaged: {err}")))?;
            let dtype = match array.dtype() {
                safetensors::Dtype::F32 => Dtype::F32,
                safetensors::Dtype::U32 => Dtype::U32,
                other => return Err(broken(format!("the array `{name}` is {other:?}, neither F32 nor U32"))),
            };
            let words = array.data().chunks_exact(4).map(|b| u32::from_le_bytes(word(b))).collect();
            tensors.push(Tensor { name, dtype, shape: array.shape().to_vec(), words });
        }
        Ok(Checkpoint { meta, tensors, frames })
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
        let bytes = std::fs::read(path).map_err(|err| Error::io(path, "cannot read", &err))?;
        Checkpoint::from_bytes(&bytes, &path.display().to_string())
    }

    /// A metadata value; an error that names the key where it is missing.
    ///
    /// # Errors
    /// Where the key is missing.
    pub fn meta(&self, key: &str) -> Result<&str> {
        self.meta.get(key).map(String::as_str).ok_or_else(|| Error::new("", format!("the metadata `{key}` is missing")))
    }

    /// A metadata value as a number, an index or any other type that is read from text.
    ///
    /// # Errors
    /// Where the key is missing, or its text is no `T`.
    pub fn meta_as<T: std::str::FromStr>(&self, key: &str) -> Result<T> {
        let text = self.meta(key)?;
        text.parse().map_err(|_| Error::new("", format!("the metadata `{key}` is `{text}`, not what was expected")))
    }

    /// A metadata value that lists numbers with commas between; none where there is no such value.
    pub fn numbers(&self, key: &str) -> Vec<u32> {
        self.meta.get(key).into_iter().flat_map(|text| text.split(',')).filter_map(|part| part.parse().ok()).collect()
    }
}

/// Metadata key of the data frames' column names, a JSON list of lists.
const FRAMES: &str = "data_frames";
/// Start of the names of their arrays.
const FRAME: &str = "data_frame.";

fn frame_name(i: usize) -> String {
    format!("{FRAME}{i}")
}

/// A chunk of W bytes as an array.
fn word<const W: usize>(chunk: &[u8]) -> [u8; W] {
    chunk.try_into().expect("chunks_exact gives whole words")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Checkpoint {
        let f = |words: &[f32]| words.iter().map(|x| x.to_bits()).collect();
        Checkpoint {
            meta: BTreeMap::from([("spec".into(), "{\"name\": \"x\"}".into()), ("frame".into(), "12".into())]),
            tensors: vec![
                Tensor { name: "z".into(), dtype: Dtype::F32, shape: vec![2, 1], words: f(&[1.5, f32::NAN]) },
                Tensor { name: "a".into(), dtype: Dtype::U32, shape: vec![3], words: vec![1, u32::MAX, 0] },
                Tensor { name: "scalar".into(), dtype: Dtype::F32, shape: vec![], words: f(&[2.0]) },
                Tensor { name: "none".into(), dtype: Dtype::F32, shape: vec![0, 4], words: vec![] },
            ],
            frames: vec![
                DataFrame { names: vec!["a".into(), "b".into()], rows: vec![vec![0.1, f64::NAN]] },
                DataFrame::session(),
            ],
        }
    }

    #[test]
    fn comes_back_as_it_was() {
        let one = small();
        let bytes = one.to_bytes();
        let two = Checkpoint::from_bytes(&bytes, "x").expect("read");
        assert_eq!((&two.meta, &two.tensors), (&one.meta, &one.tensors));
        assert!(two.frames.iter().zip(&one.frames).all(|(a, b)| a.same_bits(b)) && two.frames.len() == 2);
        assert_eq!(two.to_bytes(), bytes);
    }

    #[test]
    fn the_crates_own_reader_agrees() {
        let bytes = small().to_bytes();
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        assert_eq!(file.tensor("z").expect("there").shape(), [2, 1]);
        assert_eq!(file.tensor("data_frame.0").expect("there").data()[..8], 0.1f64.to_le_bytes());
    }

    #[test]
    fn cut_anywhere_it_is_an_error() {
        let bytes = small().to_bytes();
        for n in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..n], "x").is_err(), "cut to {n} bytes");
        }
    }

    #[test]
    fn what_is_expected_is_checked() {
        let file = small();
        assert_eq!(file.meta_as::<u64>("frame"), Ok(12));
        assert!(file.meta("seed").expect_err("missing").what.contains("`seed`"));
        assert!(file.meta_as::<u64>("spec").expect_err("text").what.contains("`spec`"));
    }
}
