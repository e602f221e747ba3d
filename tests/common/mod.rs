//! What the tests of the command line share: a small spec, a way to run the program, and a look at its folder.
#![allow(dead_code, reason = "each test file uses its own part")]

pub mod cuda;
pub mod cuda_sim;
pub mod gpu;
pub mod ops;
pub mod search;
pub mod wgpu;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use slm_fast::report::checkpoint::Checkpoint;
use slm_fast::report::frame::{CLOCK_COLUMNS, DataFrame};

/// Says why a test does not run; fails if `SLM_REQUIRE` asks for it.
#[track_caller]
pub fn skip(what: &str, reason: &str) {
    assert!(!wgpu::is_required(what), "SLM_REQUIRE asks for {what}: {reason}");
    println!("skipped: {reason}");
}

/// The repository: where this was compiled, or where a carried test binary runs.
pub fn root() -> PathBuf {
    let compiled = Path::new(env!("CARGO_MANIFEST_DIR"));
    match std::env::var_os("SLM_FAST_ROOT") {
        Some(root) => root.into(),
        None if compiled.is_dir() => compiled.into(),
        None => std::env::current_dir().expect("a current folder"),
    }
}

/// The program under test, with nothing of the tester's surroundings that it reads.
pub fn slm_fast() -> Command {
    let built = || assert_cmd::cargo::cargo_bin!("slm-fast").into();
    // set where test binaries are carried to a machine that has no target folder
    let mut command = Command::new(std::env::var_os("SLM_FAST_PROGRAM").map_or_else(built, PathBuf::from));
    for name in ["DISPLAY", "WAYLAND_DISPLAY", "UPLOAD_HF", "HF_REPO", "HF_TOKEN", "HF_TOKEN_PATH", "HF_ENDPOINT"] {
        command.env_remove(name);
    }
    command
}

/// Runs the program in `folder`.
pub fn run(folder: &Path, args: &[&str]) -> Output {
    slm_fast().current_dir(folder).args(args).output().expect("the program starts")
}

/// Stdout and stderr together, for messages.
pub fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs the program and asserts its exit code.
#[track_caller]
pub fn expect(folder: &Path, args: &[&str], code: i32) -> String {
    let output = run(folder, args);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "slm-fast {}\n{text}", args.join(" "));
    text
}

/// A CartPole spec small enough for a test: `max_frame` frames of `sessions` sessions, a row every 128 frames.
pub fn small_spec(max_frame: u64, sessions: u32, seed: Option<u32>) -> serde_json::Value {
    let constant = |value: f64| {
        serde_json::json!({
            "name": "no_decay", "start_val": value, "end_val": value, "start_step": 0, "end_step": max_frame,
        })
    };
    serde_json::json!({ "small": {
        "agent": {
            "name": "PPO",
            "algorithm": {
                "name": "PPO",
                "gamma": 0.98,
                "lam": 0.92,
                "clip_eps_spec": constant(0.2),
                "entropy_coef_spec": constant(0.01),
                "val_loss_coef": 0.5,
                "time_horizon": 32,
                "minibatch_size": 32,
                "training_epoch": 4,
            },
            "memory": { "name": "OnPolicyBatchReplay" },
            "net": {
                "type": "MLPNet",
                "shared": false,
                "hid_layers": [16, 16],
                "hid_layers_activation": "tanh",
                "clip_grad_val": 0.5,
                "use_same_optim": false,
                "actor_optim_spec": { "name": "Adam", "lr": 0.003 },
                "critic_optim_spec": { "name": "Adam", "lr": 0.003 },
            },
        },
        "env": { "name": "CartPole-v1", "num_envs": 4, "max_frame": max_frame, "normalize_obs": true },
        "meta": { "log_frequency": 128, "max_session": sessions, "max_trial": 1, "random_seed": seed, "device": "cpu" },
    }})
}

/// Writes a spec into `folder` and returns its file name.
pub fn write_spec(folder: &Path, spec: &serde_json::Value) -> &'static str {
    std::fs::write(folder.join("small.json"), serde_json::to_vec_pretty(spec).expect("plain JSON")).expect("writable");
    "small.json"
}

/// The only run below `data`.
#[track_caller]
pub fn only_run(data: &Path) -> PathBuf {
    let mut runs: Vec<PathBuf> =
        std::fs::read_dir(data).expect("a data folder").map(|e| e.expect("entry").path()).collect();
    assert_eq!(runs.len(), 1, "{runs:?}");
    runs.pop().expect("one run")
}

/// Every file below `root`, relative to it, sorted.
pub fn files(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root).expect("below root").display().to_string());
            }
        }
    }
    found.sort();
    found
}

/// `experiment_df.csv` as a map per row, in its order.
pub fn table(run: &Path) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(run.join("small_experiment_df.csv")).expect("a table");
    let names = reader.headers().expect("a header").clone();
    let row = |record: &csv::StringRecord| -> BTreeMap<String, String> {
        names.iter().map(str::to_string).zip(record.iter().map(str::to_string)).collect()
    };
    reader.records().map(|record| row(&record.expect("a row"))).collect()
}

/// Everything of a run that must repeat: models, the resumable checkpoint, data frames without their clocks.
pub fn outcome(run: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let frame = |frame: DataFrame| frame.without(&CLOCK_COLUMNS).to_csv();
    for name in files(run) {
        if name.ends_with(".safetensors") {
            let checkpoint = Checkpoint::read(&run.join(&name)).expect("whole");
            let frames: Vec<String> = checkpoint.frames.into_iter().map(frame).collect();
            // the digest keeps a failure readable
            let digest = fnv(&format!("{:?}{frames:?}{:?}", checkpoint.tensors, checkpoint.meta.get("frame")));
            found.insert(name, format!("{} tensors, {digest:016x}", checkpoint.tensors.len()));
        } else if name.ends_with("df_train.csv") {
            let text = std::fs::read_to_string(run.join(&name)).expect("readable");
            found.insert(name, frame(DataFrame::from_csv(&text, "csv").expect("as written")));
        }
    }
    found
}

/// FNV-1a.
fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
