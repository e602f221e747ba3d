//! What a folder of an earlier run holds: whether it is finished, and if not, where it continues.

use std::path::Path;

use crate::error::{Error, Result};
use crate::lab::trial::TRIAL;
use crate::report::checkpoint::Checkpoint;
use crate::report::files::RunFolder;
use crate::spec::{self, DeviceChoice, Spec};

/// The state of a run's folder.
#[derive(Debug)]
pub enum Found {
    /// All its files are written.
    Complete(RunFolder),
    /// It was interrupted or killed; no checkpoint where that happened before the first one.
    /// `device`: where the checkpoint was written.
    Unfinished { folder: RunFolder, spec: Box<Spec>, checkpoint: Option<Checkpoint>, device: DeviceChoice },
}

/// Looks at the folder of an earlier run. Writes nothing.
///
/// # Errors
/// A folder that is no run, a saved spec that does not load, a checkpoint that is damaged, of another program, of a
/// newer version or of another run.
pub fn find(root: &Path) -> Result<Found> {
    let folder = RunFolder::open(root)?;
    if folder.experiment_log().exists() {
        return Err(Error::new(root.display().to_string(), "this is a search, not a run of one trial")
            .hint(format!("`slm-fast search --resume {}` continues it", root.display())));
    }
    // the last file of a run: once it is there, so are all others
    if folder.trial_metrics_scalar(TRIAL).exists() {
        return Ok(Found::Complete(folder));
    }
    let spec = saved_spec(&folder)?;
    let path = folder.resume(TRIAL);
    let checkpoint = if path.exists() { Some(Checkpoint::read(&path)?) } else { None };
    let device = match &checkpoint {
        Some(checkpoint) => belongs(checkpoint, &spec).map_err(|error| error.within(&path.display().to_string()))?,
        None => spec.meta.device,
    };
    Ok(Found::Unfinished { folder, spec: Box::new(spec), checkpoint, device })
}

/// The spec that a run saved: of its trial, or of the experiment where there was no time for both.
///
/// # Errors
/// A file that is missing, damaged, or of a newer version.
pub fn saved_spec(folder: &RunFolder) -> Result<Spec> {
    let trial = folder.trial_spec(TRIAL);
    let path = if trial.exists() { trial } else { folder.spec() };
    Ok(spec::load(&path, Some(folder.spec_name()), &[])?.spec)
}

/// The seed that a run saved.
///
/// # Errors
/// A saved spec without one.
pub fn seed(spec: &Spec, folder: &RunFolder) -> Result<u32> {
    spec.meta.random_seed.ok_or_else(|| {
        Error::new(
            folder.trial_spec(TRIAL).display().to_string(),
            "`meta.random_seed` is not set, so it is not the spec of a run",
        )
        .hint("start a new run with `slm-fast train SPEC`")
    })
}

/// Refuses a checkpoint that was copied from a run of another spec or seed; says on which device it was written.
pub(super) fn belongs(checkpoint: &Checkpoint, spec: &Spec) -> Result<DeviceChoice> {
    let written: Spec = serde_json::from_str(checkpoint.meta("spec")?)
        .map_err(|error| Error::new("", format!("the spec in its metadata cannot be read: {error}")))?;
    let same = written.agent == spec.agent
        && written.env == spec.env
        && written.meta.random_seed == spec.meta.random_seed
        && written.meta.max_session == spec.meta.max_session
        && written.meta.log_frequency == spec.meta.log_frequency
        && written.meta.precision == spec.meta.precision;
    if same {
        return Ok(written.meta.device);
    }
    Err(Error::new("", "this checkpoint is of another run: its spec or seed is not the one saved in the folder")
        .hint("put the folder's own checkpoint back, or delete this one to start again from frame 0"))
}
