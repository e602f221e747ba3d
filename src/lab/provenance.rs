//! What made a run: which build of this program, on which machine, with which command.

use std::path::Path;

use serde_json::{Map, Value};

use crate::device::cpu::Isa;
use crate::device::host;
use crate::error::Result;
use crate::report::files::RunFolder;
use crate::report::json;
use crate::spec::DeviceChoice;

/// What the program knows of itself; the library takes it as it is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The commit that it was built from; `unknown` where nothing knew.
    pub git_sha: String,
    /// Whether a source file differed from that commit; none where the commit is unknown.
    pub git_dirty: Option<bool>,
    /// What a person typed, the program's name first.
    pub command: String,
}

/// The name of a commit that nobody knows.
pub const UNKNOWN: &str = "unknown";

impl Program {
    /// One that says nothing of itself.
    pub fn unknown() -> Program {
        Program { git_sha: UNKNOWN.to_string(), git_dirty: None, command: String::new() }
    }
}

/// Keys whose earlier values are kept where another process continues a run, since its bits may depend on them.
const KEPT: [&str; 6] = ["version", "binary_git_sha", "binary_git_dirty", "device", "isa", "cpu"];

/// The facts of one process about itself, in the order of `info/{spec}_run.json`.
pub struct Facts(Map<String, Value>);

impl Facts {
    /// Of this process, which computes on `device`, known to a person as `name`. Asking the system takes a while on large
    /// machines: call it beside the work, not before it.
    pub fn now(program: &Program, device: DeviceChoice, name: &str) -> Facts {
        let cpu = host::cpu_model().unwrap_or_else(|| std::env::consts::ARCH.to_string());
        let name = if device == DeviceChoice::Cpu { &cpu } else { name };
        let known = [
            ("version", Some(env!("CARGO_PKG_VERSION").into())),
            ("binary_git_sha", Some(program.git_sha.clone().into())),
            ("binary_git_dirty", program.git_dirty.map(Value::from)),
            ("device", Some(device.to_string().into())),
            ("device_name", Some(name.into())),
            ("cpu", Some(cpu.as_str().into())),
            ("isa", Some(Isa::detect().name().into())),
            ("cores", Some(host::cores().into())),
            ("memory_bytes", host::memory_bytes().map(Value::from)),
            ("os", Some(host::os().into())),
            ("started", Some(jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().into())),
            ("command", Some(program.command.clone().into())),
        ];
        Facts(known.into_iter().filter_map(|(key, value)| Some((key.to_string(), value?))).collect())
    }

    /// A fact as text; empty where it is not known.
    pub fn get(&self, key: &str) -> String {
        self.0.get(key).map(text).unwrap_or_default()
    }

    /// Writes them as those of a new run.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        json::write(&folder.run_facts(), &self.0)
    }

    /// Writes them as those of a run that this process continues: what differs from before is kept as `earlier_{key}`,
    /// and the run keeps when and how it was started.
    ///
    /// # Errors
    /// Where the file cannot be written.
    pub fn write_again(&self, folder: &RunFolder) -> Result<()> {
        let before = read(&folder.run_facts());
        let mut facts = self.0.clone();
        for key in ["started", "command"] {
            if let Some(value) = before.get(key) {
                facts.insert(key.to_string(), value.clone());
            }
        }
        for key in KEPT {
            let earlier = format!("earlier_{key}");
            let mut values: Vec<String> = before.get(&earlier).map(text).into_iter().collect();
            if let Some(value) = before.get(key).filter(|value| facts.get(key) != Some(value)) {
                values.push(text(value));
            }
            if !values.is_empty() {
                facts.insert(earlier, values.join(", ").into());
            }
        }
        json::write(&folder.run_facts(), &facts)
    }
}

/// The facts that a run wrote; none where the file is missing or damaged, as in a run of an earlier version.
pub fn read(path: &Path) -> Map<String, Value> {
    json::read(path).unwrap_or_default()
}

/// A fact without quotation marks.
pub fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_remembers_every_program_that_worked_on_it() {
        let data = tempfile::tempdir().unwrap();
        let folder = RunFolder::create(data.path(), "x").unwrap();
        let of = |sha: &str| {
            let program = Program {
                git_sha: sha.to_string(),
                git_dirty: Some(false),
                command: format!("slm-fast train {sha}.json"),
            };
            Facts::now(&program, DeviceChoice::Cpu, "")
        };
        of("a").write(&folder).unwrap();
        let first = read(&folder.run_facts());
        assert_eq!((&first["binary_git_sha"], &first["device"]), (&"a".into(), &"cpu".into()));
        assert!(first["cores"].as_u64().unwrap() > 0 && first["os"].is_string());
        for sha in ["a", "b", "c"] {
            of(sha).write_again(&folder).unwrap();
        }
        let last = read(&folder.run_facts());
        assert_eq!((&last["binary_git_sha"], &last["earlier_binary_git_sha"]), (&"c".into(), &"a, b".into()));
        assert_eq!((&last["command"], &last["started"]), (&"slm-fast train a.json".into(), &first["started"]));
        assert!(last.get("earlier_device").is_none());
    }
}
