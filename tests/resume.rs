//! Resumed after a kill at any moment: same bits as unbroken? And what if the folder or its checkpoint is damaged?

mod common;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{expect, files, only_run, outcome, slm_fast, small_spec, write_spec};
use slm_fast::device::Device;
use slm_fast::lab::cohort::Cohort;
use slm_fast::op::lib::rng::{philox, unit};
use slm_fast::report::checkpoint::Checkpoint;

/// Frames of a run: about half a second of training.
const FRAMES: u64 = 60_000;
const SESSIONS: u32 = 2;

/// Starts a training in the background.
fn start(folder: &Path, args: &[&str]) -> std::process::Child {
    slm_fast()
        .current_dir(folder)
        .args(args)
        .args(["--quiet", "--checkpoint-every", "0.02"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts")
}

#[test]
fn killed_at_ten_moments_ends_in_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(FRAMES, SESSIONS, Some(5)));
    let begun = Instant::now();
    expect(folder.path(), &["train", spec, "--quiet", "--data", "whole"], 0);
    let whole_s = begun.elapsed().as_secs_f64();
    let expected = outcome(&only_run(&folder.path().join("whole")));
    assert_eq!(expected.len(), 3 * SESSIONS as usize + 1, "{:?}", expected.keys());

    let mut resumed_from_checkpoint = 0;
    for moment in 0..10u32 {
        let data = format!("killed{moment}");
        let after = Duration::from_secs_f64(whole_s * 0.95 * f64::from(unit(philox([moment, 0, 0, 0], [5, 0])[0])));
        let mut child = start(folder.path(), &["train", spec, "--data", &data]);
        std::thread::sleep(after);
        // a child that has already finished makes this round a test of resuming a finished run
        let _ = child.kill();
        child.wait().expect("ended");
        let Some(run) = std::fs::read_dir(folder.path().join(&data)).ok().and_then(|mut entries| entries.next()) else {
            continue;
        };
        let run = run.expect("entry").path();
        if !run.join("small_spec.json").exists() {
            // killed before the run had a spec: there is nothing to resume, and the program says so
            expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 2);
            continue;
        }
        resumed_from_checkpoint += u32::from(run.join("model/small_t0_resume.safetensors").exists());
        expect(folder.path(), &["train", "--quiet", "--resume", run.to_str().unwrap()], 0);
        assert_eq!(outcome(&run), expected, "killed after {after:?}");
    }
    assert!(resumed_from_checkpoint >= 3, "only {resumed_from_checkpoint} of ten had a checkpoint");
}

#[test]
fn killed_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(FRAMES / 4, 1, Some(6)));
    expect(folder.path(), &["train", spec, "--quiet", "--data", "whole"], 0);
    let run = kill_at_first_checkpoint(folder.path(), &["train", spec, "--data", "data"], "data");
    for _ in 0..3 {
        let mut child = start(folder.path(), &["train", "--resume", run.to_str().unwrap()]);
        std::thread::sleep(Duration::from_millis(60));
        let _ = child.kill();
        child.wait().expect("ended");
    }
    expect(folder.path(), &["train", "--quiet", "--resume", run.to_str().unwrap()], 0);
    assert_eq!(outcome(&run), outcome(&only_run(&folder.path().join("whole"))));
}

#[test]
fn a_checkpoint_of_another_device_continues_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(FRAMES, 1, Some(6)));
    let run = kill_at_first_checkpoint(folder.path(), &["train", spec, "--data", "data"], "data");
    let path = run.join("model/small_t0_resume.safetensors");
    let mut checkpoint = Checkpoint::read(&path).unwrap();
    let written = checkpoint.meta("spec").unwrap();
    assert!(written.contains(r#""device":"cpu""#), "{written}");
    // the last number that a machine could have
    let elsewhere = written.replace(r#""device":"cpu""#, r#""device":"cuda:9999""#);
    checkpoint.meta.insert("spec".to_string(), elsewhere);
    checkpoint.write(&path).unwrap();
    let resume = ["train", "--resume", run.to_str().unwrap()];
    let text = expect(folder.path(), &resume, 2);
    assert!(text.contains("no cuda device") && text.contains("`--device cpu`"), "{text}");
    let text = expect(folder.path(), &[&resume[..], &["--device", "cpu"]].concat(), 0);
    let note =
        "note: the checkpoint was written on cuda:9999; on cpu the run goes on as well, but not in the same bits";
    assert!(text.contains(note), "{text}");
    let model = Checkpoint::read(&run.join("model/small_t0_s0_net_model.safetensors")).unwrap();
    assert!(model.meta("spec").unwrap().contains(r#""device":"cpu""#));
}

/// Starts a training, kills it as soon as it has a resumable checkpoint, and returns the run's folder.
fn kill_at_first_checkpoint(folder: &Path, args: &[&str], data: &str) -> PathBuf {
    let mut child = start(folder, args);
    let run = wait_for(&folder.join(data), "model/small_t0_resume.safetensors");
    child.kill().expect("still running");
    child.wait().expect("ended");
    run
}

/// Waits until the run below `data` has a file, and returns the run's folder.
fn wait_for(data: &Path, file: &str) -> PathBuf {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let run = std::fs::read_dir(data).ok().and_then(|mut entries| entries.next());
        let run = run.map(|entry| entry.expect("entry").path());
        if let Some(run) = run.filter(|run| run.join(file).exists()) {
            return run;
        }
        assert!(Instant::now() < deadline, "no {file} within 30 s");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_a_checkpoint_and_says_how_to_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(100_000_000, 1, Some(5)));
    let child = slm_fast()
        .current_dir(folder.path())
        .args(["train", spec])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let run = wait_for(&folder.path().join("data"), "log/small_t0.log");
    let text = expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 2);
    assert!(text.contains("this run is being trained by another process"), "{text}");
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let text = common::text(&output);
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(text.contains("continue with: slm-fast train --resume data/small_"), "{text}");
    let checkpoint = Checkpoint::read(&run.join("model/small_t0_resume.safetensors")).unwrap();
    assert!(text.contains("interrupted at frame"), "{text}");
    assert!(checkpoint.meta("frame").unwrap().parse::<u64>().unwrap() > 0);
}

#[test]
fn a_session_that_stops_leaves_the_others_alone_and_a_lost_ending_is_written_again() {
    let folder = tempfile::tempdir().unwrap();
    // a critic that diverges, in some sessions sooner than in others
    let mut json = small_spec(640, 4, Some(5));
    let net = &mut json["small"]["agent"]["net"];
    net["clip_grad_val"] = serde_json::Value::Null;
    net["critic_optim_spec"] = serde_json::json!({ "name": "SGD", "lr": 0.3 });
    let spec = write_spec(folder.path(), &json);
    let text = expect(folder.path(), &["train", spec], 0);
    let stopped = |s: &u32| text.contains(&format!("warning: small_t0_s{s} stopped: `"));
    let (stopped, running): (Vec<u32>, Vec<u32>) = (0..4).partition(stopped);
    assert!(!stopped.is_empty() && !running.is_empty(), "{text}");
    assert!(text.contains(&format!("{} of 4 sessions stopped early", stopped.len())), "{text}");

    let run = only_run(&folder.path().join("data"));
    let model = |s: u32, prefix: &str| run.join(format!("model/small_t0_s{s}_{prefix}net_model.safetensors"));
    let loaded = slm_fast::spec::load(&folder.path().join(spec), None, &[]).unwrap().spec;
    let plan = slm_fast::plan::Plan::new(&loaded).unwrap();
    for s in running {
        let mut alone = Cohort::new(&plan, 5, &[s], Device::cpu(1)).unwrap();
        while !alone.done() {
            alone.iterate().unwrap();
        }
        assert!(Checkpoint::read(&model(s, "")).unwrap().tensors == alone.model(0).unwrap(), "session {s}");
    }
    for s in stopped {
        assert!(!model(s, "").exists(), "a final model of session {s}");
        let best = model(s, "ckpt-best_");
        let tensors = if best.exists() { Checkpoint::read(&best).unwrap().tensors } else { Vec::new() };
        assert!(tensors.iter().flat_map(|t| t.values()).all(|x| x.is_finite()), "the best model of session {s}");
    }

    // killed just before the last file was there
    let before = outcome(&run);
    std::fs::remove_file(run.join("small_t0_trial_metrics_scalar.json")).unwrap();
    std::fs::write(run.join("model/.writing-x"), "half").unwrap();
    let text = expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 0);
    assert!(text.contains("\n0 frames in "), "{text}");
    assert!(run.join("small_t0_trial_metrics_scalar.json").exists() && !run.join("model/.writing-x").exists());
    assert_eq!(outcome(&run), before);
}

#[test]
fn a_finished_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(512, 1, Some(5)));
    expect(folder.path(), &["train", spec, "--quiet"], 0);
    let run = only_run(&folder.path().join("data"));
    let before = files(&run);
    let text = expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 0);
    assert!(text.contains("this run is complete"), "{text}");
    assert_eq!(files(&run), before);
}

#[test]
fn damaged_and_foreign_checkpoints_are_refused_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(FRAMES, 1, Some(5)));
    let run = kill_at_first_checkpoint(folder.path(), &["train", spec, "--data", "data"], "data");
    let path = run.join("model/small_t0_resume.safetensors");
    let whole = std::fs::read(&path).unwrap();
    write_spec(folder.path(), &small_spec(FRAMES, 1, Some(6)));
    let other = kill_at_first_checkpoint(folder.path(), &["train", spec, "--data", "other"], "other");
    let foreign = std::fs::read(other.join("model/small_t0_resume.safetensors")).unwrap();

    let newer = {
        let at = find(&whole, b"\"format_version\":\"").expect("in the header") + b"\"format_version\":\"".len();
        let mut bytes = whole.clone();
        bytes[at] = b'9';
        bytes
    };
    let cases: [(&str, &[u8], &str); 5] = [
        ("truncated", &whole[..whole.len() / 2], "hint:"),
        ("empty", b"", "hint:"),
        ("no safetensors", b"this is something else entirely", "hint:"),
        ("of another run", &foreign, "another run"),
        ("of a newer version", &newer, "newer"),
    ];
    for (what, bytes, expected) in cases {
        std::fs::write(&path, bytes).unwrap();
        let before = files(&run);
        let text = expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 2);
        assert!(text.contains("small_t0_resume.safetensors") && text.contains(expected), "{what}: {text}");
        assert_eq!(files(&run), before, "{what}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{what}");
    }

    // a spec of a newer program
    std::fs::write(&path, &whole).unwrap();
    let saved = run.join("small_t0_spec.json");
    let mut spec: serde_json::Value = serde_json::from_slice(&std::fs::read(&saved).unwrap()).unwrap();
    spec["meta"]["spec_version"] = 99.into();
    std::fs::write(&saved, spec.to_string()).unwrap();
    let text = expect(folder.path(), &["train", "--resume", run.to_str().unwrap()], 2);
    assert!(text.contains("newer") && text.contains("99"), "{text}");
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
