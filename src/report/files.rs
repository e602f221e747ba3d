//! Where the files of a run are and how one is written: whole or not at all.

use std::path::{Path, PathBuf};

use crate::error::Result;

/// Writes `bytes` to `path` whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder.
///
/// # Errors
/// Names `path` and what the operating system said; the old file, if there was one, is still there.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let _ = (path, bytes);
    todo!()
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
    /// Where the folder cannot be made.
    pub fn create(data: &Path, spec: &str) -> Result<RunFolder> {
        let _ = (data, spec);
        todo!()
    }

    /// The folder of an earlier run; the spec's name is read from the `{spec}_spec.json` in it.
    ///
    /// # Errors
    /// Where `root` is no folder, or holds no run.
    pub fn open(root: &Path) -> Result<RunFolder> {
        let _ = root;
        todo!()
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

    /// `{spec}_t{T}_spec.json`: the spec of one trial.
    pub fn trial_spec(&self, trial: u32) -> PathBuf {
        self.root.join(format!("{}_t{trial}_spec.json", self.spec))
    }

    /// `{spec}_t{T}_trial_metrics_scalar.json` in the root; a copy is in `info/`, see [`RunFolder::trial_info`].
    pub fn trial_metrics_scalar(&self, trial: u32) -> PathBuf {
        self.root.join(format!("{}_t{trial}_trial_metrics_scalar.json", self.spec))
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
