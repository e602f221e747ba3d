//! `slm-fast check` and `slm-fast schema`.

use std::path::Path;

use slm_fast::device::{Kind, human_bytes};
use slm_fast::error::{Error, Result};
use slm_fast::lab::{cohort, search};
use slm_fast::plan::Plan;
use slm_fast::spec::{self, DeviceChoice};

use super::{CheckArgs, Ending, complain, note, say};

/// Prints the resolved plan of every spec of every file; the problems of all of them, not just the first.
pub fn check(args: &CheckArgs) -> Ending {
    let mut ending = Ending::Success;
    for path in &args.specs {
        // a file without a name in it is loaded too, for the message
        let names = spec::names(path).unwrap_or_default();
        let names = if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() };
        for name in names {
            if let Err(error) = check_one(path, name.as_deref(), &args.set) {
                complain(&error);
                ending = Ending::Failure;
            }
        }
    }
    ending
}

fn check_one(path: &Path, name: Option<&str>, set: &[(String, String)]) -> Result<()> {
    let loaded = spec::load(path, name, set)?;
    for warning in &loaded.warnings {
        note(&format!("warning: {}: {warning}", path.display()));
    }
    let plan = Plan::new(&loaded.spec).map_err(|error| error.within(&path.display().to_string()))?;
    let kind = match loaded.spec.meta.device {
        DeviceChoice::Cuda(_) => Kind::Cuda,
        DeviceChoice::Wgpu(_) => Kind::Wgpu,
        DeviceChoice::Cpu | DeviceChoice::Auto => Kind::Cpu,
    };
    let search = search::outline(&loaded.spec).map_err(|error| error.within(&path.display().to_string()))?;
    let search = search.map_or(String::new(), |text| format!("\n  search        {text}"));
    let memory = human_bytes(cohort::bytes(&plan, kind, plan.max_session as usize));
    let spec = serde_json::to_string_pretty(&loaded.spec)
        .map_err(|error| Error::new(path.display().to_string(), error.to_string()))?;
    say(&format!(
        "{}: {}\n{plan}\n  memory        {memory} for all buffers of the cohort{search}\n  spec with every default:\n{spec}",
        path.display(),
        loaded.spec.name
    ));
    Ok(())
}

/// Prints the JSON Schema of a spec file.
pub fn schema() -> Ending {
    say(&format!("{:#}", spec::schema()));
    Ending::Success
}
