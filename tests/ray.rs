//! A search on a real Ray of two workers, one of them killed in the middle: are its files those of a search here?

mod common;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{expect, only_run, outcome, slm_fast, small_spec, write_spec};
use serde_json::json;

/// A Python interpreter that has Ray and the driver of `tools/ray`: the one that the variable names, or the system's.
fn python() -> Option<PathBuf> {
    let named = std::env::var_os("SLM_FAST_PYTHON").filter(|path| !path.is_empty());
    let python = PathBuf::from(named.unwrap_or_else(|| "python3".into()));
    let probe = Command::new(&python).args(["-c", "import ray, slm_fast_ray"]).output();
    match probe {
        Ok(output) if output.status.success() => Some(python),
        found => {
            let reason = match found {
                Ok(_) => "it has no Ray, or not tools/ray".to_string(),
                Err(error) => error.to_string(),
            };
            common::skip("ray", &format!("{}: {reason}", python.display()));
            None
        }
    }
}

/// Processes whose command line begins with a word, and how old they are in no order.
fn processes(begin: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_meant = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).starts_with(begin)
    };
    numbers.filter(is_meant).collect()
}

/// Waits for something to be there, a minute at most.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no {what} in a minute");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn has_checkpoint(data: &Path) -> Option<()> {
    let run = std::fs::read_dir(data).ok()?.next()?.ok()?.path();
    let names = std::fs::read_dir(run.join("model")).ok()?.flatten().map(|entry| entry.file_name());
    names.map(|name| name.to_string_lossy().into_owned()).find(|name| name.ends_with("resume.safetensors")).map(drop)
}

#[test]
fn a_search_on_ray_with_a_worker_killed_is_the_search_here() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut spec = small_spec(60_000, 2, Some(5));
    let small = &mut spec["small"];
    small["search"] = json!({ "agent.net.actor_optim_spec.lr__loguniform": [1e-4, 1e-2] });
    small["meta"]["max_trial"] = json!(6);
    small["meta"]["search_scheduler"] = json!({ "grace_period": 40_000, "reduction_factor": 2 });
    let spec = write_spec(folder.path(), &spec);
    expect(folder.path(), &["search", spec, "--quiet", "--data", "here", "--keep", "-1"], 0);

    let mut command = slm_fast();
    command.current_dir(folder.path()).args(["search", spec, "--data", "there", "--keep", "-1", "--engine", "ray"]);
    command.args(["--address", "local", "--checkpoint-every", "0.1", "--python"]).arg(&python);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    wait_for("checkpoint from a worker", || has_checkpoint(&folder.path().join("there")));
    let worker = wait_for("worker", || processes("ray::slm-fast job").first().copied());
    // SAFETY: the process is a worker of the Ray that this test started
    unsafe { libc::kill(worker as i32, libc::SIGKILL) };
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert!(child.wait().expect("ended").success(), "{said}");
    assert!(said.contains("is lost") && said.contains("it goes on from its checkpoint"), "{said}");

    let (here, there) = (only_run(&folder.path().join("here")), only_run(&folder.path().join("there")));
    let df = |run: &Path| std::fs::read_to_string(run.join("small_experiment_df.csv")).expect("a table");
    assert_eq!(df(&here), df(&there));
    assert_eq!(outcome(&here), outcome(&there));
    let names = |run: &Path| {
        let mut names = common::files(run);
        // a log per job, and how the trials were split, tell who computed
        names.retain(|name| !name.starts_with("log/"));
        names
    };
    assert_eq!(names(&here), names(&there));
}

#[test]
fn what_is_wrong_with_a_cluster_is_said() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut spec = small_spec(500, 1, Some(5));
    spec["small"]["search"] = json!({ "agent.net.actor_optim_spec.lr__loguniform": [1e-4, 1e-2] });
    let spec = write_spec(folder.path(), &spec);
    let python = python.display().to_string();
    let ray = ["search", spec, "--engine", "ray", "--python", &python];
    let said = expect(folder.path(), &[&ray[..], &["--address", "127.0.0.1:1"]].concat(), 2);
    assert!(said.contains("no Ray cluster can be reached") && said.contains("ray start --head"), "{said}");
    let large = ["--address", "local", "--set", "meta.search_resources={\"cpu\":1e6}"];
    let said = expect(folder.path(), &[&ray[..], &large].concat(), 2);
    assert!(said.contains("less than one job takes"), "{said}");
    assert!(!folder.path().join("data").exists(), "nothing is written");
}
