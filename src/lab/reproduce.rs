//! `reproduce`: a finished run is made again from its saved spec and seed, and compared bit for bit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::device::Dtype;
use crate::device::cpu::Isa;
use crate::error::{Error, Result};
use crate::lab::provenance::{self, Program, UNKNOWN};
use crate::lab::resume;
use crate::lab::search;
use crate::lab::trial::{self, Options, TRIAL};
use crate::net::Tensor;
use crate::report::checkpoint::Checkpoint;
use crate::report::files::{self, RunFolder};
use crate::report::frame::{CLOCK_COLUMNS, DataFrame, number_text};
use crate::spec::{self, DeviceChoice, Spec};

/// A finished run that is to be made again.
pub struct Original {
    folder: RunFolder,
    spec: Spec,
    facts: Map<String, Value>,
    is_search: bool,
}

/// One session of both runs, or something that both have of a trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// `{spec}_t{T}_s{S}`, or a file.
    pub of: String,
    /// The first thing that differs; none where every bit is the same.
    pub difference: Option<String>,
}

impl Original {
    /// Reads a run's folder.
    ///
    /// # Errors
    /// A folder that is no run, a run that is not finished, a saved spec that does not load or has no seed.
    pub fn open(root: &Path) -> Result<Original> {
        let folder = RunFolder::open(root)?;
        let is_search = folder.experiment_df().exists() || folder.experiment_log().exists();
        let last = if is_search { folder.experiment_df() } else { folder.trial_metrics_scalar(TRIAL) };
        if !last.exists() {
            let command = if is_search { "search" } else { "train" };
            return Err(Error::new(
                root.display().to_string(),
                "this run is not complete, so there is no end to compare",
            )
            .hint(format!("`slm-fast {command} --resume {}` continues it", root.display())));
        }
        let spec = spec::load(&folder.spec(), Some(folder.spec_name()), &[])?.spec;
        let place = folder.spec().display().to_string();
        resume::seed(&spec, &folder).map_err(|error| Error { place, ..error })?;
        let facts = provenance::read(&folder.run_facts());
        Ok(Original { folder, spec, facts, is_search })
    }

    /// Why the bits may differ: another build of the program, another kind of device. One text per reason.
    ///
    /// `device`: where it will run, if not where it ran.
    pub fn doubts(&self, program: &Program, device: Option<DeviceChoice>) -> Vec<String> {
        let mut doubts: Vec<String> = self.other_program(program).into_iter().collect();
        let (there, here) = (self.device(), device.unwrap_or(self.device()));
        if std::mem::discriminant(&there) != std::mem::discriminant(&here) {
            doubts.push(format!("the run was made on {there}, this one is made on {here}: bits may differ"));
        }
        let fact = |key: &str| self.facts.get(key).map(provenance::text);
        let (isa, base) = (Isa::detect(), Isa::Base);
        if (there, here) == (DeviceChoice::Cpu, DeviceChoice::Cpu)
            && let Some(there) = fact("isa").filter(|name| (name == base.name()) != (isa == base))
        {
            doubts.push(format!(
                "the run was made with {there}, this machine has {}: only one of them fuses multiply and add, so bits differ",
                isa.name()
            ));
        }
        for (key, what) in
            [("earlier_binary_git_sha", "other builds of the program"), ("earlier_device", "other devices")]
        {
            if let Some(earlier) = fact(key) {
                doubts.push(format!("the run was interrupted, and begun on {what} ({earlier}): bits may differ"));
            }
        }
        doubts
    }

    /// Says whether the program is not the one that made the run, and how to build that one.
    fn other_program(&self, program: &Program) -> Option<String> {
        let meta = &self.spec.meta;
        let sha = self.facts.get("binary_git_sha").and_then(Value::as_str).or(meta.git_sha.as_deref());
        let sha = sha.unwrap_or(UNKNOWN);
        let dirty = self.facts.get("binary_git_dirty").and_then(Value::as_bool).or(meta.git_dirty) == Some(true);
        let what = if sha == UNKNOWN {
            return Some("nobody knows which commit made the run: its program was built without git".to_string());
        } else if dirty {
            format!("the run was made by a build of {sha} with changes that are in no commit: bits may differ")
        } else if program.git_sha != sha {
            format!(
                "the run was made by a build of {sha}, this program is built from {}: bits may differ",
                program.git_sha
            )
        } else if program.git_dirty == Some(true) {
            format!("this program is built from {sha} with changes that are in no commit: bits may differ")
        } else {
            return None;
        };
        Some(format!(
            "{what}\nin a clone of slm-fast, these build the commit and make the run again:\n  git checkout {sha}\n  cargo \
             build --release\n  target/release/slm-fast reproduce {}",
            self.folder.root().display()
        ))
    }

    /// Where the run was made.
    pub fn device(&self) -> DeviceChoice {
        let of_facts = self.facts.get("device").and_then(Value::as_str).and_then(|text| text.parse().ok());
        of_facts.unwrap_or(self.spec.meta.device)
    }

    /// Makes the run again, in a new folder below `options.data`. None where it was interrupted.
    ///
    /// # Errors
    /// As [`trial::train`] and [`search::search`].
    pub fn again(&self, mut options: Options) -> Result<Option<PathBuf>> {
        let device = *options.device.get_or_insert(self.device());
        if !self.is_search {
            return Ok(match trial::train(self.spec.clone(), options)? {
                trial::Ending::Finished(summary) => Some(summary.folder),
                trial::Ending::Interrupted { .. } | trial::Ending::AlreadyComplete { .. } => None,
            });
        }
        let options = search::Options {
            data: options.data,
            device: Some(device),
            threads: options.threads,
            checkpoint_every: options.checkpoint_every,
            verbosity: options.verbosity,
            stop: options.stop,
            started: options.started,
            program: options.program,
            keep: None,
            cluster: None,
        };
        Ok(match search::search(self.spec.clone(), options)? {
            search::Ending::Finished(summary) => Some(summary.folder),
            search::Ending::Interrupted { .. } | search::Ending::AlreadyComplete { .. } => None,
        })
    }

    /// Compares every trial and session with those of a run in `root`.
    ///
    /// # Errors
    /// A file of either run that is missing or damaged.
    pub fn compare(&self, root: &Path) -> Result<Vec<Verdict>> {
        let again = RunFolder::open(root)?;
        let (before, after) = (self.folder.trials()?, again.trials()?);
        let mut verdicts = Vec::new();
        for trial in before.union(&after).copied().collect::<BTreeSet<u32>>() {
            let of = format!("{}_t{trial}", self.folder.spec_name());
            match (before.contains(&trial), after.contains(&trial)) {
                (true, true) => self.compare_trial(&again, trial, &mut verdicts)?,
                (true, false) => verdicts.push(Verdict { of, difference: Some("only in the run".to_string()) }),
                _ => verdicts.push(Verdict { of, difference: Some("only in the run made again".to_string()) }),
            }
        }
        Ok(verdicts)
    }

    fn compare_trial(&self, again: &RunFolder, trial: u32, verdicts: &mut Vec<Verdict>) -> Result<()> {
        let load = |folder: &RunFolder| spec::load(&folder.trial_spec(trial), Some(folder.spec_name()), &[]);
        let (one, two) = (load(&self.folder)?.spec, load(again)?.spec);
        if let Some(difference) = first_key(&decisive(&one), &decisive(&two), "") {
            let of = format!("{}_t{trial}_spec.json", self.folder.spec_name());
            verdicts.push(Verdict { of, difference: Some(difference) });
        }
        for session in 0..u32::try_from(one.meta.max_session.max(two.meta.max_session)).unwrap_or(u32::MAX) {
            let of = format!("{}_t{trial}_s{session}", self.folder.spec_name());
            let frame = |folder: &RunFolder| read_frame(&folder.session_info(trial, session, "df_train.csv"));
            let model = |folder: &RunFolder| read_model(&folder.model(trial, session));
            let (rows, rows_again) = (frame(&self.folder)?, frame(again)?);
            let difference = match first_cell(&rows, &rows_again) {
                // a search keeps the models of its best trials alone
                None if self.is_search && !self.folder.model(trial, session).exists() => None,
                None => first_parameter(model(&self.folder)?.as_deref(), model(again)?.as_deref()),
                some => some,
            };
            verdicts.push(Verdict { of, difference });
        }
        Ok(())
    }
}

fn read_frame(path: &Path) -> Result<DataFrame> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io(path, "cannot read", &error))?;
    Ok(DataFrame::from_csv(&text, &path.display().to_string())?.without(&CLOCK_COLUMNS))
}

/// The final parameters; none of a session that a fault stopped.
fn read_model(path: &Path) -> Result<Option<Vec<Tensor>>> {
    if path.exists() { Ok(Some(Checkpoint::read(path)?.tensors)) } else { Ok(None) }
}

/// What of a spec decides every bit.
fn decisive(spec: &Spec) -> Value {
    let meta = &spec.meta;
    serde_json::json!({
        "agent": spec.agent,
        "env": spec.env,
        "meta": {
            "random_seed": meta.random_seed,
            "max_session": meta.max_session,
            "log_frequency": meta.log_frequency,
            "precision": meta.precision,
        },
    })
}

/// The first key in which two values differ, with both.
fn first_key(one: &Value, two: &Value, place: &str) -> Option<String> {
    if let (Value::Object(one), Value::Object(two)) = (one, two) {
        let added = two.keys().filter(|key| !one.contains_key(*key));
        return one.keys().chain(added).find_map(|key| {
            let place = if place.is_empty() { key.clone() } else { format!("{place}.{key}") };
            first_key(one.get(key).unwrap_or(&Value::Null), two.get(key).unwrap_or(&Value::Null), &place)
        });
    }
    (one != two).then(|| format!("{place} is {one} in the run, {two} in the run made again"))
}

/// The first number in which two data frames differ.
fn first_cell(one: &DataFrame, two: &DataFrame) -> Option<String> {
    if one.names != two.names {
        let lacks = |a: &DataFrame, b: &DataFrame| a.names.iter().find(|name| !b.names.contains(name)).cloned();
        return Some(match (lacks(one, two), lacks(two, one)) {
            (Some(name), _) => format!("column {name} is only in the run"),
            (None, Some(name)) => format!("column {name} is only in the run made again"),
            (None, None) => "the columns are in another order".to_string(),
        });
    }
    let frame = one.names.iter().position(|name| name == "frame");
    let frame_of = |row: &[f64]| frame.map_or_else(String::new, |i| format!("frame {}: ", number_text(row[i])));
    for (a, b) in one.rows.iter().zip(&two.rows) {
        let differs = |i: &usize| a[*i].to_bits() != b[*i].to_bits() && !(a[*i].is_nan() && b[*i].is_nan());
        if let Some(i) = (0..a.len()).find(differs) {
            let (x, y) = (shown(a[i]), shown(b[i]));
            return Some(format!("{}column {}: {x} in the run, {y} in the run made again", frame_of(a), one.names[i]));
        }
    }
    let (rows, again) = (one.rows.len(), two.rows.len());
    let next = one.rows.get(again).or(two.rows.get(rows))?;
    Some(format!("{}{rows} rows in the run, {again} in the run made again", frame_of(next)))
}

fn shown(x: f64) -> String {
    if x.is_nan() { "nothing".to_string() } else { number_text(x) }
}

/// The first parameter in which two models differ.
fn first_parameter(one: Option<&[Tensor]>, two: Option<&[Tensor]>) -> Option<String> {
    let (one, two) = match (one, two) {
        (Some(one), Some(two)) => (one, two),
        (None, None) => return None,
        (Some(_), None) => return Some("only the run has a final model".to_string()),
        (None, Some(_)) => return Some("only the run made again has a final model".to_string()),
    };
    for (a, b) in one.iter().zip(two) {
        if (&a.name, &a.shape, a.dtype) != (&b.name, &b.shape, b.dtype) {
            let of = |tensor: &Tensor| format!("{} {:?}", tensor.name, tensor.shape);
            return Some(format!("final model: {} in the run, {} in the run made again", of(a), of(b)));
        }
        if let Some(i) = (0..a.words.len()).find(|&i| a.words[i] != b.words[i]) {
            let value = |word: u32| match a.dtype {
                Dtype::F32 => format!("{:?}", f32::from_bits(word)),
                Dtype::U32 => word.to_string(),
            };
            let (x, y) = (value(a.words[i]), value(b.words[i]));
            return Some(format!("final model, {}, number {i}: {x} in the run, {y} in the run made again", a.name));
        }
    }
    let (arrays, again) = (one.len(), two.len());
    (arrays != again).then(|| format!("final model: {arrays} arrays in the run, {again} in the run made again"))
}

/// Writes the script that makes the run again from a clone of this program's repository.
///
/// # Errors
/// Where it cannot be written.
pub fn write_script(folder: &RunFolder, git_sha: &str) -> Result<()> {
    let text = include_str!("reproduce.sh").replace("@SHA@", git_sha);
    files::write_program(&folder.root().join("reproduce.sh"), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(rows: &[[f64; 2]]) -> DataFrame {
        DataFrame { names: vec!["frame".into(), "loss".into()], rows: rows.iter().map(|row| row.to_vec()).collect() }
    }

    #[test]
    fn the_first_cell_is_named() {
        let one = frame(&[[128.0, f64::NAN], [256.0, 0.5]]);
        assert_eq!(first_cell(&one, &one), None);
        let two = frame(&[[128.0, f64::NAN], [256.0, 0.25]]);
        let text = first_cell(&one, &two).unwrap();
        assert_eq!(text, "frame 256: column loss: 0.5 in the run, 0.25 in the run made again");
        let text = first_cell(&one, &frame(&[[128.0, 1.0]])).unwrap();
        assert_eq!(text, "frame 128: column loss: nothing in the run, 1 in the run made again");
        let text = first_cell(&one, &frame(&[[128.0, f64::NAN]])).unwrap();
        assert_eq!(text, "frame 256: 2 rows in the run, 1 in the run made again");
        assert_eq!(first_cell(&one, &one.without(&["loss"])).unwrap(), "column loss is only in the run");
    }

    #[test]
    fn the_first_parameter_is_named() {
        let tensor = |values: &[f32]| Tensor {
            name: "actor.0.bias".into(),
            dtype: Dtype::F32,
            shape: vec![values.len()],
            words: values.iter().map(|x| x.to_bits()).collect(),
        };
        let (one, two) = ([tensor(&[0.0, 1.0])], [tensor(&[0.0, 2.0])]);
        assert_eq!(first_parameter(Some(&one), Some(&one)), None);
        let text = first_parameter(Some(&one), Some(&two)).unwrap();
        assert_eq!(text, "final model, actor.0.bias, number 1: 1.0 in the run, 2.0 in the run made again");
        assert!(first_parameter(Some(&one), Some(&[tensor(&[0.0])])).unwrap().contains("actor.0.bias [2] in the run"));
        assert!(first_parameter(Some(&one), None).is_some() && first_parameter(None, None).is_none());
        assert!(first_parameter(Some(&one), Some(&[])).unwrap().contains("1 arrays in the run, 0"));
    }

    #[test]
    fn the_first_key_is_named() {
        let (one, two) = (serde_json::json!({"a": {"b": 1, "c": 2}}), serde_json::json!({"a": {"b": 1, "c": 3}}));
        assert_eq!(first_key(&one, &two, "").unwrap(), "a.c is 2 in the run, 3 in the run made again");
        assert_eq!(first_key(&one, &one, ""), None);
    }
}
