//! Recorded transitions: `.npz` files as numpy writes them, read and checked against an environment.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::{ActionSpace, EnvSpec};
use crate::error::{Error, Result};

/// The most bytes of one array that are read; ten million f64 words.
const MAX_ARRAY_BYTES: u64 = 80_000_000;

/// An array of any numeric type, as f64, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Lengths of the dimensions, outermost first.
    pub shape: Vec<usize>,
    /// All words.
    pub data: Vec<f64>,
}

impl Array {
    /// Length of the first dimension.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Words in one row.
    pub fn width(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f64] {
        &self.data[row * self.width()..(row + 1) * self.width()]
    }
}

/// Independent one-step transitions of one environment; row by row: set `state`, apply `action`, compare the rest.
#[derive(Debug, Clone)]
pub struct Trace {
    /// `[N, K]`, f64 as the recorder held it.
    pub state: Array,
    /// `[N, A]`
    pub action: Array,
    /// `[N, K]`
    pub next_state: Array,
    /// `[N]`
    pub reward: Array,
    /// `[N]`, 0 or 1; true ends only, no time limits.
    pub terminated: Array,
    /// `[M, O]`, observations after the step for the first M rows.
    pub obs0: Array,
    /// `[R, K]`, first states of episodes.
    pub reset_states: Array,
}

impl Trace {
    /// Reads a trace and checks that it can be one of `spec`.
    ///
    /// # Errors
    /// A file that cannot be opened or is no `.npz`; an array that is missing, of another shape than the environment
    /// asks for, not finite, or (actions, ends) outside of its range.
    pub fn load(path: &Path, spec: &EnvSpec) -> Result<Trace> {
        let place = path.display().to_string();
        let mut arrays = read_npz(path)?;
        let mut take = |name: &str, width: usize| {
            let array = arrays.remove(name).ok_or_else(|| {
                Error::new(name, "there is no such array in the file")
                    .hint("a trace holds state, action, next_state, reward, terminated, obs0 and reset_states")
            })?;
            check(name, array, width, spec)
        };
        let mut read = || -> Result<Trace> {
            let (k, o, a) = (spec.state_len, spec.obs_len, spec.action_space.words());
            let trace = Trace {
                state: take("state", k)?,
                action: take("action", a)?,
                next_state: take("next_state", k)?,
                reward: take("reward", 1)?,
                terminated: take("terminated", 1)?,
                obs0: take("obs0", o)?,
                reset_states: take("reset_states", k)?,
            };
            trace.check_together(spec)?;
            Ok(trace)
        };
        read().map_err(|err| err.within(&place))
    }

    /// What no array can tell alone: equal numbers of rows, actions and ends within their ranges.
    fn check_together(&self, spec: &EnvSpec) -> Result<()> {
        let rows = self.state.rows();
        if rows == 0 {
            return Err(Error::new("state", "the file holds no transitions"));
        }
        for (name, array) in [
            ("action", &self.action),
            ("next_state", &self.next_state),
            ("reward", &self.reward),
            ("terminated", &self.terminated),
        ] {
            if array.rows() != rows {
                return Err(Error::new(name, format!("has {} rows where `state` has {rows}", array.rows())));
            }
        }
        if self.obs0.rows() > rows {
            return Err(Error::new("obs0", format!("has {} rows where `state` has {rows}", self.obs0.rows())));
        }
        if let Some(row) = self.terminated.data.iter().position(|&end| end != 0.0 && end != 1.0) {
            return Err(Error::new("terminated", format!("row {row} is {}, not 0 or 1", self.terminated.data[row])));
        }
        if let ActionSpace::Discrete(n) = spec.action_space {
            let wrong = |&a: &f64| a.fract() != 0.0 || a < 0.0 || a >= n as f64;
            if let Some(row) = self.action.data.iter().position(wrong) {
                let what =
                    format!("row {row} is {}, not one of the {n} actions of {}", self.action.data[row], spec.name);
                return Err(Error::new("action", what));
            }
        }
        Ok(())
    }
}

/// Checks one array alone: `[rows]` or `[rows, width]`, all numbers finite.
fn check(name: &str, array: Array, width: usize, spec: &EnvSpec) -> Result<Array> {
    let fits = match array.shape[..] {
        [_] => width == 1,
        [_, words] => words == width,
        _ => false,
    };
    if !fits {
        let what = format!("has shape {:?} where {} asks for [rows, {width}]", array.shape, spec.name);
        return Err(Error::new(name, what).hint("is this a trace of another environment?"));
    }
    match array.data.iter().position(|x| !x.is_finite()) {
        Some(at) => Err(Error::new(name, format!("row {} holds {}", at / width, array.data[at]))),
        None => Ok(array),
    }
}

/// All arrays of a `.npz` file by name.
///
/// # Errors
/// A file that cannot be opened, is no zip archive, or holds an array that numpy would not read as plain numbers.
pub fn read_npz(path: &Path) -> Result<HashMap<String, Array>> {
    let place = path.display().to_string();
    let file = File::open(path).map_err(|err| Error::io(path, "opening the trace", &err))?;
    let not_npz = |err: zip::result::ZipError| {
        Error::new(&place, format!("not an .npz file: {err}")).hint("numpy.savez_compressed writes such files")
    };
    let mut archive = zip::ZipArchive::new(BufReader::new(file)).map_err(not_npz)?;
    let mut arrays = HashMap::new();
    for index in 0..archive.len() {
        let mut member = archive.by_index(index).map_err(not_npz)?;
        let Some(name) = member.name().map_err(not_npz)?.strip_suffix(".npy").map(str::to_string) else { continue };
        let mut bytes = Vec::new();
        member
            .by_ref()
            .take(MAX_ARRAY_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|err| Error::new(&name, format!("damaged: {err}")).within(&place))?;
        if bytes.len() as u64 > MAX_ARRAY_BYTES {
            let what = format!("larger than {} MB, too large for a trace", MAX_ARRAY_BYTES / 1_000_000);
            return Err(Error::new(&name, what).within(&place));
        }
        let array = parse_npy(&bytes).map_err(|what| Error::new(&name, what).within(&place))?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

/// One `.npy` file, format versions 1 to 3 (numpy.lib.format): little-endian numbers in row-major order.
fn parse_npy(bytes: &[u8]) -> Result<Array, String> {
    let cut = || "damaged: the array ends too early".to_string();
    if bytes.get(..6) != Some(b"\x93NUMPY") {
        return Err("not a numpy array".to_string());
    }
    let (start, len): (usize, usize) = match bytes.get(6).ok_or_else(cut)? {
        1 => (10, usize::from(u16::from_le_bytes(word(bytes, 8).ok_or_else(cut)?))),
        2 | 3 => (12, u32::from_le_bytes(word(bytes, 8).ok_or_else(cut)?) as usize),
        version => return Err(format!("numpy format version {version} is not known")),
    };
    let header = bytes.get(start..start.saturating_add(len)).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "damaged header".to_string())?;
    let body = &bytes[start + len..];

    let descr = quoted(value_of(header, "descr")?);
    if !value_of(header, "fortran_order")?.starts_with("False") {
        return Err("stored in Fortran order; save it through numpy.ascontiguousarray".to_string());
    }
    let shape = value_of(header, "shape")?;
    let shape = shape.strip_prefix('(').and_then(|s| s.split_once(')')).ok_or("damaged header")?.0;
    let shape: Vec<usize> = shape
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty())
        .map(|dim| dim.parse().map_err(|_| "damaged header".to_string()))
        .collect::<Result<_, _>>()?;
    let shape = if shape.is_empty() { vec![1] } else { shape };
    let words = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).ok_or("damaged header")?;

    let data = match descr {
        "<f8" => decode(body, words, f64::from_le_bytes),
        "<f4" => decode(body, words, |b| f64::from(f32::from_le_bytes(b))),
        "<i8" => decode(body, words, |b| i64::from_le_bytes(b) as f64),
        "<i4" => decode(body, words, |b| f64::from(i32::from_le_bytes(b))),
        "<i2" => decode(body, words, |b| f64::from(i16::from_le_bytes(b))),
        "|i1" => decode(body, words, |b| f64::from(i8::from_le_bytes(b))),
        "|u1" | "|b1" => decode(body, words, |[b]: [u8; 1]| f64::from(b)),
        other => return Err(format!("holds `{other}`; numbers of type f8, f4, i8, i4, i2, i1, u1 or b1 are read")),
    };
    Ok(Array { shape, data: data.ok_or_else(cut)? })
}

/// `N` bytes at `at`.
fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

/// `words` numbers of `N` bytes each; `None` unless there are exactly so many.
fn decode<const N: usize>(body: &[u8], words: usize, number: impl Fn([u8; N]) -> f64) -> Option<Vec<f64>> {
    let (chunks, rest) = body.as_chunks::<N>();
    (chunks.len() == words && rest.is_empty()).then(|| chunks.iter().map(|&chunk| number(chunk)).collect())
}

/// The text after `'key':` in the header, a Python dict literal.
fn value_of<'a>(header: &'a str, key: &str) -> Result<&'a str, String> {
    let at = header.find(&format!("'{key}':")).ok_or_else(|| format!("damaged header: no `{key}`"))?;
    Ok(header[at + key.len() + 3..].trim_start())
}

/// The text within the quotes that open `text`.
fn quoted(text: &str) -> &str {
    text.strip_prefix('\'').and_then(|rest| rest.split_once('\'')).map_or("structured", |(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn npy(header: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((header.len() as u16).to_le_bytes());
        bytes.extend(header.as_bytes());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn reads_what_numpy_writes() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }\n";
        let body: Vec<u8> = [1.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!(parse_npy(&npy(header, &body)), Ok(Array { shape: vec![2, 1], data: vec![1.5, -2.0] }));
        let header = "{'descr': '|i1', 'fortran_order': False, 'shape': (3,), }\n";
        assert_eq!(parse_npy(&npy(header, &[1, 255, 0])), Ok(Array { shape: vec![3], data: vec![1.0, -1.0, 0.0] }));
    }

    #[test]
    fn says_what_is_wrong_with_an_array() {
        let error = |bytes: &[u8]| parse_npy(bytes).unwrap_err();
        assert_eq!(error(b"no"), "not a numpy array");
        assert_eq!(error(b"\x93NUMPY\x01\x00\xff\xff"), "damaged: the array ends too early");
        assert_eq!(error(b"\x93NUMPY\x09\x00\x00\x00"), "numpy format version 9 is not known");
        let with =
            |descr: &str, shape: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}");
        assert_eq!(error(&npy(&with("'<f8'", "(2,)"), &[0; 15])), "damaged: the array ends too early");
        assert_eq!(error(&npy(&with("'<f8'", "(x,)"), &[])), "damaged header");
        let huge = format!("({0}, {0})", u64::MAX);
        assert_eq!(error(&npy(&with("'<f8'", &huge), &[])), "damaged header");
        assert!(error(&npy(&with("'<c16'", "(1,)"), &[])).starts_with("holds `<c16`"));
        assert!(error(&npy(&with("[('a', '<f8')]", "(1,)"), &[])).starts_with("holds `structured`"));
        let fortran = "{'descr': '<f8', 'fortran_order': True, 'shape': (2, 2), }";
        assert!(error(&npy(fortran, &[])).starts_with("stored in Fortran order"));
    }
}
