//! Where the files of a run are and how one is written: whole or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Inner folders of a run.
const INNER: [&str; 4] = ["info", "graph", "log", "model"];

/// Start of the names of files that are being written.
const TEMPORARY: &str = ".writing-";

/// Writes `bytes` to `path` whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// Names `path` and what the operating system said; the old file, if there was one, is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let failed = |err: std::io::Error| Error::io(path, "cannot write", &err);
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut temp = temporary(folder).map_err(failed)?;
    temp.write_all(bytes).map_err(failed)?;
    temp.as_file().sync_all().map_err(failed)?;
    temp.persist(path).map_err(|err| failed(err.error))?;
    sync_folder(folder).map_err(failed)
}

/// Writes a script, whole or not at all, that may be run.
///
/// # Errors
/// As [`write_whole`].
pub fn write_program(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole(path, bytes)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let failed = |err: std::io::Error| Error::io(path, "cannot write", &err);
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        // whoever may read it may run it
        let mode = mode | ((mode & 0o444) >> 2);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(())
}

/// A temporary file that is removed unless it is kept; with the rights of any new file, not the private ones of a
/// temporary.
fn temporary(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Makes a rename in `folder` survive a loss of power.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// Makes a new folder `data/{name}_{timestamp}`. Never takes one that exists: a second one within the same second gets
/// `_2`, `_3`, ... at the end.
///
/// # Errors
/// Where the folder cannot be made; a name that would lead out of `data`.
pub fn new_folder(data: &Path, name: &str) -> Result<PathBuf> {
    if name.contains(['/', '\\', '\0']) {
        return Err(Error::new("", format!("the name `{name}` cannot be the name of a file"))
            .hint("give the spec or suite a name without slashes"));
    }
    fs::create_dir_all(data).map_err(|err| Error::io(data, "cannot make the data folder", &err))?;
    let stamp = jiff::Zoned::now().strftime("%Y_%m_%d_%H%M%S").to_string();
    for n in 1u32.. {
        let tail = if n == 1 { String::new() } else { format!("_{n}") };
        let root = data.join(format!("{name}_{stamp}{tail}"));
        // `create_dir`, unlike `create_dir_all`, fails on a folder that exists: another run may be making it right now
        match fs::create_dir(&root) {
            Ok(()) => return Ok(root),
            Err(err) if err.kind() == ErrorKind::AlreadyExists => {}
            Err(err) => return Err(Error::io(&root, "cannot make the folder", &err)),
        }
    }
    unreachable!("2^32 folders within one second")
}

/// The folder of one run, in SLM Lab's layout: `data/{spec}_{YYYY_MM_DD_HHMMSS}/{info,graph,log,model}`, with files named
/// `{spec}_t{T}_s{S}_{type}.{ext}`. One method per kind of file; none of them touches the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder {
    root: PathBuf,
    spec: String,
}

impl RunFolder {
    /// Makes a new folder `data/{spec}_{timestamp}` with its four inner folders. Never takes one that exists: a second
    /// run within the same second gets `_2`, `_3`, ... at the end.
    ///
    /// # Errors
    /// Where the folder cannot be made; a name that would lead out of `data`.
    pub fn create(data: &Path, spec: &str) -> Result<RunFolder> {
        RunFolder::within(&new_folder(data, spec)?, spec)
    }

    /// A folder that is there, with the four inner folders of a run made in it.
    ///
    /// # Errors
    /// Where they cannot be made.
    pub fn within(root: &Path, spec: &str) -> Result<RunFolder> {
        for inner in INNER {
            let path = root.join(inner);
            fs::create_dir_all(&path).map_err(|err| Error::io(&path, "cannot make the folder", &err))?;
        }
        Ok(RunFolder { root: root.to_path_buf(), spec: spec.to_string() })
    }

    /// The folder of an earlier run; the spec's name is read from the `{spec}_spec.json` in it.
    ///
    /// # Errors
    /// Where `root` is no folder, or holds no run.
    pub fn open(root: &Path) -> Result<RunFolder> {
        let entries = fs::read_dir(root).map_err(|err| Error::io(root, "cannot read the run's folder", &err))?;
        // `{spec}_t0_spec.json` ends the same way and is longer than `{spec}_spec.json`
        let spec = entries
            .filter_map(|entry| Some(entry.ok()?.file_name().to_str()?.strip_suffix("_spec.json")?.to_string()))
            .min_by_key(String::len);
        match spec {
            Some(spec) => Ok(RunFolder { root: root.to_path_buf(), spec }),
            None => Err(Error::new(root.display().to_string(), "no run is here: there is no `*_spec.json`")
                .hint("give the folder of one run, `data/{spec}_{timestamp}`")),
        }
    }

    /// The numbers of the trials whose spec is here.
    ///
    /// # Errors
    /// Where the folder cannot be read.
    pub fn trials(&self) -> Result<BTreeSet<u32>> {
        let failed = |err: std::io::Error| Error::io(&self.root, "cannot read the run's folder", &err);
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.root).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number: Option<u32> = name.to_str().and_then(|name| {
                name.strip_prefix(self.spec.as_str())?.strip_prefix("_t")?.strip_suffix("_spec.json")?.parse().ok()
            });
            found.extend(number);
        }
        Ok(found)
    }

    /// Removes what a kill in the middle of writing left behind. What cannot be removed stays: it does no harm.
    pub fn remove_leftovers(&self) {
        let folders = INNER.iter().map(|inner| self.root.join(inner)).chain([self.root.clone()]);
        for entry in folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Name of the spec, the first part of every file name.
    pub fn spec_name(&self) -> &str {
        &self.spec
    }

    /// `{spec}_spec.json`: the spec as it ran, with its `meta`.
    pub fn spec(&self) -> PathBuf {
        self.root.join(format!("{}_spec.json", self.spec))
    }

    /// `{spec}_experiment_df.csv` in the root: a row per trial of a search; the last file that it writes.
    pub fn experiment_df(&self) -> PathBuf {
        self.root.join(format!("{}_experiment_df.csv", self.spec))
    }

    /// `info/{spec}_{kind}`: of the experiment as a whole, for example `experiment_df.csv` as it stands so far.
    pub fn experiment_info(&self, kind: &str) -> PathBuf {
        self.root.join("info").join(format!("{}_{kind}", self.spec))
    }

    /// `log/{spec}.log`: the log of a search.
    pub fn experiment_log(&self) -> PathBuf {
        self.log_dir().join(format!("{}.log", self.spec))
    }

    /// `{spec}_t{T}_spec.json`: the spec of one trial.
    pub fn trial_spec(&self, trial: u32) -> PathBuf {
        self.root.join(format!("{}_t{trial}_spec.json", self.spec))
    }

    /// `{spec}_t{T}_trial_metrics_scalar.json` in the root; a copy is in `info/`, see [`RunFolder::trial_info`].
    pub fn trial_metrics_scalar(&self, trial: u32) -> PathBuf {
        self.root.join(format!("{}_t{trial}_trial_metrics_scalar.json", self.spec))
    }

    /// `info/{spec}_run.json`: which build of the program made the run, on which machine, with which command.
    pub fn run_facts(&self) -> PathBuf {
        self.root.join("info").join(format!("{}_run.json", self.spec))
    }

    /// `info/{spec}_t{T}_{kind}`, for example `trial_metrics.json`.
    pub fn trial_info(&self, trial: u32, kind: &str) -> PathBuf {
        self.root.join("info").join(format!("{}_t{trial}_{kind}", self.spec))
    }

    /// `info/{spec}_t{T}_s{S}_session_{kind}`, for example `df_train.csv`, `metrics_scalar_train.json`.
    pub fn session_info(&self, trial: u32, session: u32, kind: &str) -> PathBuf {
        self.root.join("info").join(format!("{}_t{trial}_s{session}_session_{kind}", self.spec))
    }

    /// `graph/{spec}_t{T}_s{S}_session_graph_train_{kind}.{ext}`, for example `mean_returns_vs_frames`.
    pub fn session_graph(&self, trial: u32, session: u32, kind: &str, ext: &str) -> PathBuf {
        self.root.join("graph").join(format!("{}_t{trial}_s{session}_session_graph_train_{kind}.{ext}", self.spec))
    }

    /// `graph/{spec}_t{T}_trial_graph_{kind}.{ext}`.
    pub fn trial_graph(&self, trial: u32, kind: &str, ext: &str) -> PathBuf {
        self.root.join("graph").join(format!("{}_t{trial}_trial_graph_{kind}.{ext}", self.spec))
    }

    /// The two trial graphs that SLM Lab also puts into the root: `{spec}_t{T}_trial_graph_{kind}.{ext}`.
    pub fn trial_graph_root(&self, trial: u32, kind: &str, ext: &str) -> PathBuf {
        self.root.join(format!("{}_t{trial}_trial_graph_{kind}.{ext}", self.spec))
    }

    /// `{spec}_{kind}.{ext}`: a graph of a search, for example `experiment_graph`.
    pub fn experiment_graph(&self, kind: &str, ext: &str) -> PathBuf {
        self.root.join(format!("{}_{kind}.{ext}", self.spec))
    }

    /// `{spec}_report.html`: the report of a search.
    pub fn report(&self) -> PathBuf {
        self.root.join(format!("{}_report.html", self.spec))
    }

    /// `{spec}_t{T}_report.html`: the report of a trial.
    pub fn trial_report(&self, trial: u32) -> PathBuf {
        self.root.join(format!("{}_t{trial}_report.html", self.spec))
    }

    /// `log/`, where TensorBoard looks.
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// `log/{spec}_t{T}.log`.
    pub fn trial_log(&self, trial: u32) -> PathBuf {
        self.log_dir().join(format!("{}_t{trial}.log", self.spec))
    }

    /// `model/{spec}_t{T}_s{S}_net_model.safetensors`: the final parameters.
    pub fn model(&self, trial: u32, session: u32) -> PathBuf {
        self.root.join("model").join(format!("{}_t{trial}_s{session}_net_model.safetensors", self.spec))
    }

    /// `model/{spec}_t{T}_s{S}_ckpt-best_net_model.safetensors`: the parameters at the best `total_reward_ma`.
    pub fn best_model(&self, trial: u32, session: u32) -> PathBuf {
        self.root.join("model").join(format!("{}_t{trial}_s{session}_ckpt-best_net_model.safetensors", self.spec))
    }

    /// `model/{spec}_t{T}_resume.safetensors`: everything that the next iteration of the trial reads.
    pub fn resume(&self, trial: u32) -> PathBuf {
        self.root.join("model").join(format!("{}_t{trial}_resume.safetensors", self.spec))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_never_takes_the_folder_of_another() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let mut roots: Vec<PathBuf> = (0..3)
            .map(|_| RunFolder::create(&data.path().join("data"), "ppo_x").expect("made").root().to_path_buf())
            .collect();
        roots.sort();
        roots.dedup();
        assert_eq!(roots.len(), 3);
        assert!(roots.iter().all(|root| INNER.iter().all(|inner| root.join(inner).is_dir())));
    }

    #[test]
    fn a_name_never_leads_out_of_the_data_folder() {
        let data = tempfile::tempdir().expect("a temporary folder");
        for name in ["../x", "a/b", "a\\b"] {
            let err = RunFolder::create(&data.path().join("data"), name).expect_err(name);
            assert!(err.what.contains(name), "{err}");
        }
        assert!(!data.path().join("data").exists());
    }

    #[test]
    fn opens_the_folder_it_made() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let made = RunFolder::create(data.path(), "ppo_x").expect("made");
        assert!(RunFolder::open(made.root()).expect_err("empty").what.contains("no run is here"));
        write_whole(&made.trial_spec(0), b"{}").expect("written");
        write_whole(&made.spec(), b"{}").expect("written");
        write_whole(&made.trial_spec(12), b"{}").expect("written");
        let opened = RunFolder::open(made.root()).expect("opened");
        assert_eq!(opened, made);
        assert_eq!(opened.trials().expect("read"), BTreeSet::from([0, 12]));
    }

    #[test]
    fn leftovers_go_and_files_stay() {
        let data = tempfile::tempdir().expect("a temporary folder");
        let run = RunFolder::create(data.path(), "ppo_x").expect("made");
        let (left, kept) = (run.root().join("model/.writing-abc"), run.model(0, 0));
        fs::write(&left, b"x").expect("written");
        write_whole(&kept, b"y").expect("written");
        run.remove_leftovers();
        assert!(!left.exists() && kept.exists());
    }

    #[test]
    fn names_are_those_of_slm_lab() {
        let run = RunFolder { root: PathBuf::from("data/r"), spec: "ppo".into() };
        let name = |path: PathBuf| path.strip_prefix("data/r").expect("inside").display().to_string();
        assert_eq!(name(run.session_info(0, 3, "df_train.csv")), "info/ppo_t0_s3_session_df_train.csv");
        assert_eq!(
            name(run.session_graph(0, 1, "mean_returns_vs_frames", "png")),
            "graph/ppo_t0_s1_session_graph_train_mean_returns_vs_frames.png"
        );
        assert_eq!(name(run.trial_metrics_scalar(2)), "ppo_t2_trial_metrics_scalar.json");
        assert_eq!(name(run.best_model(0, 0)), "model/ppo_t0_s0_ckpt-best_net_model.safetensors");
    }

    #[test]
    fn writing_replaces_whole_and_leaves_nothing_else() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("a.txt");
        write_whole(&path, b"one").expect("written");
        write_whole(&path, b"two").expect("written");
        assert_eq!(fs::read(&path).expect("read"), b"two");
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1);
    }
}
