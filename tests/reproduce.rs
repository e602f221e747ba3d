//! Is a run made again the same to the bit, and does `reproduce` say where it is not?

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{expect, files, only_run, small_spec, write_spec};
use serde_json::{Value, json};

/// A small run below `folder/data`.
fn trained(folder: &Path, frames: u64, sessions: u32) -> PathBuf {
    let spec = write_spec(folder, &small_spec(frames, sessions, None));
    expect(folder, &["train", spec, "--quiet"], 0);
    only_run(&folder.join("data"))
}

/// Changes a JSON file of a run.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut json);
    std::fs::write(path, serde_json::to_vec_pretty(&json).unwrap()).unwrap();
}

#[test]
fn a_run_made_again_is_bit_identical() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), 2000, 2);
    let moved = folder.path().join("elsewhere");
    std::fs::rename(&run, &moved).unwrap();
    let before = files(&moved);
    let text = expect(folder.path(), &["reproduce", "elsewhere", "--data", "again", "--threads", "1"], 0);
    for line in ["small_t0_s0: bit-identical", "small_t0_s1: bit-identical", "bit-identical: elsewhere"] {
        assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
    }
    assert_eq!(files(&moved), before);
    assert!(only_run(&folder.path().join("again")).join("small_t0_trial_metrics_scalar.json").exists());
}

#[test]
fn the_first_difference_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), 1000, 2);
    let saved = std::fs::read(run.join("small_spec.json")).unwrap();
    edit(&run.join("small_spec.json"), |spec| spec["agent"]["algorithm"]["gamma"] = json!(0.97));
    let reproduce = ["reproduce", run.to_str().unwrap(), "--data", "again", "--quiet"];
    let text = expect(folder.path(), &reproduce, 1);
    let key = "small_t0_spec.json: agent.algorithm.gamma is 0.98 in the run, 0.97 in the run made again";
    assert!(text.contains(key) && text.contains("\nnot bit-identical: "), "{text}");
    for s in 0..2 {
        let line = text.lines().find(|line| line.starts_with(&format!("small_t0_s{s}: frame "))).expect(&text);
        assert!(line.contains(": column ") && line.contains(" in the run, "), "{line}");
    }

    // a number of one session's data frame, then one of its model's
    std::fs::write(run.join("small_spec.json"), saved).unwrap();
    let csv = run.join("info/small_t0_s1_session_df_train.csv");
    let rows = std::fs::read_to_string(&csv).unwrap();
    let wrong: String = (rows.lines().enumerate())
        .map(|(n, row)| if n == 3 { format!("7.5{}\n", &row[row.find(',').unwrap()..]) } else { format!("{row}\n") })
        .collect();
    std::fs::write(&csv, wrong).unwrap();
    let text = expect(folder.path(), &reproduce, 1);
    assert!(text.contains("small_t0_s0: bit-identical\n"), "{text}");
    assert!(text.contains("small_t0_s1: frame 384: column total_reward: 7.5 in the run, "), "{text}");
    std::fs::write(&csv, rows).unwrap();
    let (one, other) = ("model/small_t0_s0_net_model.safetensors", "model/small_t0_s1_net_model.safetensors");
    std::fs::copy(run.join(other), run.join(one)).unwrap();
    let text = expect(folder.path(), &reproduce, 1);
    assert!(text.contains("small_t0_s0: final model, actor.0.weight, number 0: "), "{text}");
    assert!(text.contains("small_t0_s1: bit-identical\n"), "{text}");
}

#[test]
fn a_search_made_again_is_bit_identical_and_names_the_trial_that_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = small_spec(1000, 2, Some(4));
    spec["small"]["meta"]["max_trial"] = json!(4);
    spec["small"]["search"] = json!({ "agent.algorithm.gamma__uniform": [0.9, 0.99] });
    let spec = write_spec(folder.path(), &spec);
    expect(folder.path(), &["search", spec, "--quiet", "--keep", "1"], 0);
    let run = only_run(&folder.path().join("data"));
    let reproduce = ["reproduce", run.to_str().unwrap(), "--data", "again", "--quiet"];
    let text = expect(folder.path(), &reproduce, 0);
    assert_eq!(text.lines().filter(|line| line.ends_with(": bit-identical")).count(), 8, "{text}");
    assert!(only_run(&folder.path().join("again")).join("small_experiment_df.csv").exists());
    edit(&run.join("small_t2_spec.json"), |spec| spec["agent"]["algorithm"]["gamma"] = json!(0.5));
    let text = expect(folder.path(), &reproduce, 1);
    assert!(text.contains("small_t2_spec.json: agent.algorithm.gamma is 0.5 in the run, 0.9"), "{text}");
    assert!(text.contains("small_t2_s0: bit-identical"), "{text}");
    std::fs::remove_file(run.join("small_experiment_df.csv")).unwrap();
    let text = expect(folder.path(), &reproduce, 2);
    assert!(text.contains("this run is not complete") && text.contains("search --resume"), "{text}");
}

#[test]
fn what_may_change_the_bits_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), 256, 1);
    let sha = "0123456789012345678901234567890123456789";
    edit(&run.join("info/small_run.json"), |facts| {
        facts["binary_git_sha"] = json!(sha);
        facts["binary_git_dirty"] = json!(false);
        facts["device"] = json!("cuda:1");
        facts["earlier_device"] = json!("wgpu");
    });
    let reproduce = ["reproduce", run.to_str().unwrap(), "--data", "again", "--device", "cpu"];
    let text = expect(folder.path(), &reproduce, 0);
    let checkout = format!("  git checkout {sha}\n  cargo build --release\n  target/release/slm-fast reproduce ");
    assert!(text.contains(&format!("made by a build of {sha}, this program is built from ")), "{text}");
    assert!(text.contains(&checkout) && text.contains("made on cuda:1, this one is made on cpu"), "{text}");
    assert!(text.contains("begun on other devices (wgpu)"), "{text}");
    edit(&run.join("info/small_run.json"), |facts| facts["binary_git_dirty"] = json!(true));
    let text = expect(folder.path(), &reproduce, 0);
    assert!(text.contains(&format!("a build of {sha} with changes that are in no commit")), "{text}");
}

#[test]
fn what_cannot_be_made_again_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), 256, 1);
    let metrics = run.join("small_t0_trial_metrics_scalar.json");
    let (spec, last) = (run.join("small_spec.json"), std::fs::read(&metrics).unwrap());
    let reproduce = ["reproduce", run.to_str().unwrap(), "--data", "again"];
    std::fs::remove_file(&metrics).unwrap();
    let text = expect(folder.path(), &reproduce, 2);
    assert!(text.contains("this run is not complete") && text.contains("train --resume"), "{text}");
    std::fs::write(&metrics, last).unwrap();
    edit(&spec, |spec| spec["meta"]["random_seed"] = Value::Null);
    let text = expect(folder.path(), &reproduce, 2);
    assert!(text.contains("`meta.random_seed` is not set"), "{text}");
    edit(&spec, |spec| spec["agent"]["algorithm"]["gama"] = json!(1));
    let text = expect(folder.path(), &reproduce, 2);
    assert!(text.contains("small_spec.json") && text.contains("gama"), "{text}");
    let text = expect(folder.path(), &["reproduce", "absent"], 2);
    assert!(text.contains("absent"), "{text}");
    assert!(!folder.path().join("again").exists());
}

/// Runs a program to its end and returns what it printed.
fn done(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}\n{}", common::text(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The script of a run, with a small program in the place of this one: from a bare clone it builds the run's commit and
/// hands its own folder to it.
#[test]
#[cfg(unix)]
fn the_script_builds_the_commit_from_a_bare_clone() {
    let folder = tempfile::tempdir().unwrap();
    let run = trained(folder.path(), 256, 1);
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("src")).unwrap();
    let write = |name: &str, text: &str| std::fs::write(source.join(name), text).unwrap();
    write("Cargo.toml", "[package]\nname = \"slm-fast\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n");
    write("Cargo.lock", "version = 4\n\n[[package]]\nname = \"slm-fast\"\nversion = \"0.0.0\"\n");
    write("src/main.rs", "fn main() { println!(\"{:?}\", std::env::args().skip(1).collect::<Vec<_>>()); }");
    let git = |args: &[&str]| {
        let who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"];
        done(Command::new("git").current_dir(&source).args(who).args(args))
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "one"]);
    let sha = git(&["rev-parse", "HEAD"]).trim().to_string();
    // a later commit that must not be the one
    write("src/main.rs", "fn main() {}");
    git(&["commit", "--quiet", "-am", "two"]);
    git(&["clone", "--quiet", "--bare", ".", "../bare.git"]);

    let moved = folder.path().join("moved");
    std::fs::rename(&run, &moved).unwrap();
    let script = moved.join("reproduce.sh");
    let text = std::fs::read_to_string(&script).unwrap();
    let of_run = text.lines().find(|line| line.starts_with("sha=")).expect("the run's commit").to_string();
    let version = expect(folder.path(), &["--version"], 0);
    assert!(version.contains(&format!("({}", &of_run["sha=".len()..])), "{version} {of_run}");
    // written in place, so that it stays a program
    std::fs::write(&script, text.replace(&of_run, &format!("sha={sha}"))).unwrap();
    let run_script = |clone: &[&str]| {
        let mut command = Command::new(&script);
        command.current_dir(folder.path()).env("CARGO_TARGET_DIR", folder.path().join("target")).args(clone);
        command
    };
    let found = done(run_script(&["bare.git"]).args(["--device", "cpu"]));
    let expected = ["reproduce", moved.to_str().unwrap(), "--device", "cpu"];
    assert_eq!(found.trim(), format!("{expected:?}"));
    assert_eq!(git(&["worktree", "list"]).lines().count(), 1);

    let output = run_script(&[]).output().unwrap();
    let text = common::text(&output);
    assert!(output.status.code() == Some(2) && text.contains("name a clone of slm-fast"), "{text}");
    std::fs::write(&script, std::fs::read_to_string(&script).unwrap().replace(&sha, &"0".repeat(40))).unwrap();
    let output = run_script(&["bare.git"]).output().unwrap();
    let text = common::text(&output);
    assert!(output.status.code() == Some(2) && text.contains("is not in bare.git"), "{text}");
}
