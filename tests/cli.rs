//! What does a person see; is every promised file written, with the promised columns?

mod common;

use common::{expect, files, only_run, slm_fast, small_spec, write_spec};
use serde_json::Value;
use slm_fast::report::checkpoint::Checkpoint;
use slm_fast::report::frame::{DataFrame, SESSION_COLUMNS};

fn json(path: &std::path::Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("written")).expect("JSON")
}

#[test]
fn train_writes_every_promised_file() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(1000, 2, Some(7)));
    let text = expect(folder.path(), &["train", spec], 0);
    assert!(text.contains("trial_metrics: frame:1000 | total_reward_ma:"), "{text}");
    assert!(text.contains("device: cpu"), "{text}");

    let run = only_run(&folder.path().join("data"));
    let found = files(&run);
    let mut promised: Vec<String> = vec![
        "small_spec.json".into(),
        "small_t0_spec.json".into(),
        "small_t0_trial_metrics_scalar.json".into(),
        "info/small_run.json".into(),
        "reproduce.sh".into(),
        "info/small_t0_trial_metrics.json".into(),
        "info/small_t0_trial_metrics_scalar.json".into(),
        "log/small_t0.log".into(),
        "model/small_t0_resume.safetensors".into(),
    ];
    for s in 0..2 {
        for kind in ["df_train.csv", "metrics_train.json", "metrics_scalar_train.json"] {
            promised.push(format!("info/small_t0_s{s}_session_{kind}"));
        }
        for kind in ["mean_returns_vs_frames", "mean_returns_ma_vs_frames"] {
            for ext in ["png", "svg"] {
                promised.push(format!("graph/small_t0_s{s}_session_graph_train_{kind}.{ext}"));
            }
        }
        for prefix in ["", "ckpt-best_"] {
            promised.push(format!("model/small_t0_s{s}_{prefix}net_model.safetensors"));
        }
    }
    for kind in ["mean_returns_vs_frames", "mean_returns_ma_vs_frames"] {
        for ext in ["png", "svg"] {
            promised.push(format!("graph/small_t0_trial_graph_{kind}.{ext}"));
        }
    }
    let missing: Vec<&String> = promised.iter().filter(|name| !found.contains(name)).collect();
    assert!(missing.is_empty(), "missing {missing:#?}\nfound {found:#?}");
    assert!(found.iter().any(|name| name.starts_with("log/events.out.tfevents")), "{found:#?}");
    let parts: Vec<&String> = found.iter().filter(|name| name.contains(".writing-")).collect();
    assert!(parts.is_empty(), "left behind: {parts:?}");

    // the spec as it ran, with what the run knows of itself
    let spec = json(&run.join("small_t0_spec.json"));
    let meta = &spec["meta"];
    assert_eq!((&meta["random_seed"], &meta["device"], &meta["precision"]), (&7.into(), &"cpu".into(), &"f32".into()));
    // the commit of the program, not of the folder it runs in
    let version = expect(folder.path(), &["--version"], 0);
    let (number, sha) = (env!("CARGO_PKG_VERSION"), meta["git_sha"].as_str().expect("text"));
    let changes = if meta["git_dirty"] == true { " with changes" } else { "" };
    assert_eq!(version.trim(), format!("slm-fast {number} ({sha}{changes})"));
    let facts = json(&run.join("info/small_run.json"));
    assert_eq!((&facts["binary_git_sha"], &facts["version"]), (&meta["git_sha"], &number.into()));
    assert_eq!((&facts["device"], &facts["command"]), (&"cpu".into(), &"slm-fast train small.json".into()));
    assert!(["cpu", "os", "started", "device_name", "isa"].iter().all(|key| facts[*key].is_string()), "{facts}");
    assert_eq!(meta["trial"], 0);
    assert!(spec["name"] == "small" && meta["experiment_ts"].is_string(), "{spec}");

    for s in 0..2 {
        let text = std::fs::read_to_string(run.join(format!("info/small_t0_s{s}_session_df_train.csv"))).unwrap();
        let frame = DataFrame::from_csv(&text, "csv").unwrap();
        assert_eq!(frame.names, SESSION_COLUMNS.map(|(name, _)| name));
        let frames = frame.column("frame").unwrap();
        assert_eq!(frames, [128.0, 256.0, 384.0, 512.0, 640.0, 768.0, 896.0, 1000.0]);
        assert!(frame.column("wall_t").unwrap().is_sorted());
        assert!(frame.column("total_reward").unwrap().last().unwrap().is_finite());
        let model = Checkpoint::read(&run.join(format!("model/small_t0_s{s}_net_model.safetensors"))).unwrap();
        assert!(model.tensors.iter().any(|tensor| tensor.name == "actor.0.weight" && tensor.shape == [16, 4]));
        assert!(model.meta("spec").unwrap().contains("CartPole-v1"));
    }
}

#[test]
fn a_seed_is_drawn_and_saved() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(128, 1, None));
    for data in ["a", "b"] {
        expect(folder.path(), &["train", spec, "--data", data, "--quiet"], 0);
    }
    let seed = |data: &str| {
        json(&only_run(&folder.path().join(data)).join("small_t0_spec.json"))["meta"]["random_seed"].as_u64().unwrap()
    };
    assert_ne!(seed("a"), seed("b"));
    expect(folder.path(), &["train", spec, "--data", "c", "--seed", "3", "--quiet"], 0);
    assert_eq!(seed("c"), 3);
}

#[test]
fn quiet_says_only_the_result() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(256, 1, Some(0)));
    let output = common::run(folder.path(), &["train", spec, "--quiet"]);
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(err.is_empty(), "{err}");
    let starts: Vec<&str> = out.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(starts, ["trial_metrics:", "folder:", "256"], "{out}");
}

#[test]
fn wrong_inputs_say_what_and_write_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(256, 1, Some(0)));
    let recurrent = common::root().join("specs/ppo/ppo_gru_cartpole_masked.json");
    let recurrent = recurrent.to_str().unwrap();
    std::fs::write(folder.path().join("broken.json"), "{ \"a\": ").unwrap();
    std::fs::create_dir(folder.path().join("empty")).unwrap();
    let cases: [(&[&str], &str); 18] = [
        (&["train"], "<SPEC>"),
        (&["train", "absent.json"], "absent.json"),
        (&["train", "broken.json"], "broken.json"),
        (&["train", spec, "other"], "other"),
        (&["train", spec, "--set", "agent.algorithm.gama=0.9"], "gamma"),
        (&["train", spec, "--set", "env.name=CartPole-v9"], "CartPole-v1"),
        (&["train", spec, "--set", "agent.algorithm.gamma=x"], "agent.algorithm.gamma"),
        (&["train", spec, "--device", "cuda"], "--device: no cuda device: "),
        (&["train", spec, "--device", "cuda:9999"], "no cuda device: "),
        (&["train", spec, "--device", "wgpu:99"], "no wgpu device"),
        (
            &["train", spec, "--device", "tpu"],
            "unknown device `tpu`, expected `auto`, `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`",
        ),
        (&["train", recurrent, "--set", "meta.precision=bf16"], "bf16 is not built yet for RecurrentNet"),
        (&["train", spec, "--threads", "0"], "--threads"),
        (&["train", spec, "--checkpoint-every", "1e30"], "not a number of seconds"),
        (&["train", "--resume", "absent"], "absent"),
        (&["train", "--resume", "empty"], "empty"),
        (&["train", spec, "--resume", "empty"], "cannot be used with"),
        (&["enjoy", "empty"], "empty"),
    ];
    let before = files(folder.path());
    for (args, expected) in cases {
        let text = expect(folder.path(), args, 2);
        assert!(text.contains(expected), "slm-fast {}: expected `{expected}` in\n{text}", args.join(" "));
        assert_eq!(files(folder.path()), before, "slm-fast {} left something", args.join(" "));
    }
    assert!(!folder.path().join("data").exists());
}

#[test]
fn a_run_that_ends_before_the_first_training_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let long = write_spec(folder.path(), &small_spec(1000, 1, Some(7)));
    assert!(!expect(folder.path(), &["train", long], 0).contains("warning"));
    let text = expect(folder.path(), &["train", long, "--set", "env.max_frame=8"], 0);
    assert!(
        text.contains("warning: `env.max_frame` is reached before the first training: nothing is learnt"),
        "{text}"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(256, 1, Some(0)));
    // a file in the way stops everyone, root too
    std::fs::write(folder.path().join("taken"), "").unwrap();
    let text = expect(folder.path(), &["train", spec, "--data", "taken"], 2);
    assert!(text.contains("error: taken"), "{text}");
    if cfg!(target_os = "linux") {
        // no file system of the kernel takes folders of ours
        let text = expect(folder.path(), &["train", spec, "--data", "/proc/slm-fast"], 2);
        assert!(text.contains("/proc/slm-fast"), "{text}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let locked = folder.path().join("locked");
        std::fs::create_dir(&locked).unwrap();
        std::fs::set_permissions(&locked, std::fs::Permissions::from_mode(0o555)).unwrap();
        if std::fs::write(locked.join("probe"), "").is_ok() {
            println!("skipped: this user may write into read-only folders");
            return;
        }
        let text = expect(folder.path(), &["train", spec, "--data", "locked"], 2);
        assert!(text.contains("hint: choose a folder you can write to"), "{text}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(50_000, 2, Some(0)));
    // a file system of 64 KiB in a user namespace of its own, gone with the process
    let script = "mkdir small && mount -t tmpfs -o size=64k none small && exec \"$0\" \"$@\"";
    let unshare = |probe: bool| {
        let mut command = std::process::Command::new("unshare");
        command.current_dir(folder.path()).args(["--map-root-user", "--mount", "sh", "-c"]);
        if probe {
            command.args(["mkdir probe && mount -t tmpfs -o size=64k none probe"]);
        } else {
            command.arg(script).arg(slm_fast().get_program()).args(["train", spec, "--data", "small", "--quiet"]);
        }
        command.output()
    };
    if !unshare(true).is_ok_and(|output| output.status.success()) {
        println!("skipped: no file system may be mounted here");
        return;
    }
    let output = unshare(false).unwrap();
    let text = common::text(&output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("hint: free some disk space"), "{text}");
}

#[test]
fn enjoy_plays_the_best_model_and_leaves_the_run_alone() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(2048, 2, Some(1)));
    expect(folder.path(), &["train", spec, "--quiet"], 0);
    let run = only_run(&folder.path().join("data"));
    let contents = || -> Vec<(String, Vec<u8>)> {
        files(&run).into_iter().map(|name| (name.clone(), std::fs::read(run.join(name)).unwrap())).collect()
    };
    let before = contents();
    let args = ["enjoy", run.to_str().unwrap(), "--episodes", "3", "--seed", "5", "--record", "out.gif"];
    let text = expect(folder.path(), &args, 0);
    assert_eq!(text.lines().filter(|line| line.starts_with("episode ")).count(), 3, "{text}");
    assert!(text.contains("mean ") && text.contains("small_t0_s"), "{text}");
    assert_eq!(&std::fs::read(folder.path().join("out.gif")).unwrap()[..6], b"GIF89a");
    assert!(before == contents(), "enjoy changed the run");
    // the same seed plays the same episodes
    assert_eq!(expect(folder.path(), &args, 0), text);
    let inside = run.join("inside.gif");
    let text = expect(folder.path(), &["enjoy", run.to_str().unwrap(), "--record", inside.to_str().unwrap()], 2);
    assert!(text.contains("never writes"), "{text}");
}

#[test]
fn numbers_that_are_not_finite_stop_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(1000, 2, Some(1)));
    let text = expect(folder.path(), &["train", spec, "--set", "agent.net.critic_optim_spec.lr=1e30"], 2);
    for s in 0..2 {
        assert!(text.contains(&format!("warning: small_t0_s{s} stopped: `")), "{text}");
    }
    assert!(text.contains("at frame ") && text.contains("2 of 2 sessions stopped early"), "{text}");
    let run = only_run(&folder.path().join("data"));
    let log = std::fs::read_to_string(run.join("log/small_t0.log")).unwrap();
    assert!(log.contains("gave a number that is not finite at frame"), "{log}");
}

#[test]
fn dev_shows_every_update() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(512, 4, Some(1)));
    let text = expect(folder.path(), &["dev", spec], 0);
    assert_eq!(text.lines().filter(|line| line.starts_with("update ")).count(), 4, "{text}");
    assert!(text.contains("actor.0.weight"), "{text}");
    assert_eq!(json(&only_run(&folder.path().join("data")).join("small_t0_spec.json"))["meta"]["max_session"], 1);
}

#[test]
fn a_reader_that_has_gone_away_is_no_failure() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(512, 1, Some(1)));
    for command in ["dev", "train", "check"] {
        let mut child = slm_fast();
        child.current_dir(folder.path()).args([command, spec]);
        let mut child =
            child.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(0), "{command}");
    }
}

#[test]
fn check_prints_plans_and_every_problem() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(256, 1, None));
    let text = expect(folder.path(), &["check", spec], 0);
    assert!(text.contains("small") && text.contains("CartPole-v1"), "{text}");
    std::fs::write(folder.path().join("broken.json"), "[]").unwrap();
    let text = expect(folder.path(), &["check", "absent.json", spec, "broken.json"], 2);
    assert!(text.contains("absent.json") && text.contains("broken.json") && text.contains("CartPole-v1"), "{text}");
}

#[test]
fn verify_env_compares_with_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let trace = common::root().join("tests/fixtures/classic/classic_CartPole.npz");
    let trace = trace.to_str().expect("UTF-8");
    let text = expect(folder.path(), &["verify-env", "CartPole-v1", trace, "--device", "cpu"], 0);
    assert!(text.contains("next_state") && text.contains("reward"), "{text}");
    expect(folder.path(), &["verify-env", "CartPole-v1", trace, "--tolerance", "1e-9"], 1);
    let wrong: [(&[&str], &str); 3] = [
        (&["CartPole-v0", trace], "CartPole-v1"),
        (&["CartPole-v1", "absent.npz"], "absent.npz"),
        (&["CartPole-v1", trace, "--device", "cuda"], "on the cpu alone"),
    ];
    for (args, expected) in wrong {
        let text = expect(folder.path(), &[&["verify-env"], args].concat(), 2);
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
#[cfg(not(feature = "hub"))]
fn without_the_hub_its_commands_say_how_to_get_it() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &small_spec(128, 1, Some(0)));
    for args in [&["push", "data/x", "--repo", "user/name"][..], &["pull", "x"], &["pull", "--list"]] {
        let text = expect(folder.path(), args, 2);
        assert!(text.contains("without the Hugging Face hub") && text.contains("--features hub"), "{text}");
    }
    let mut train = slm_fast();
    let output = train.current_dir(folder.path()).args(["train", spec, "--quiet"]).env("UPLOAD_HF", "true").output();
    let output = output.expect("the program starts");
    let text = common::text(&output);
    assert!(output.status.success() && text.contains("is not uploaded") && text.contains("--features hub"), "{text}");
}

#[test]
fn schema_devices_and_help_print() {
    let folder = tempfile::tempdir().unwrap();
    let schema: Value = serde_json::from_str(&expect(folder.path(), &["schema"], 0)).expect("a JSON schema");
    assert!(schema.is_object());
    let devices = expect(folder.path(), &["devices"], 0);
    assert!(devices.starts_with("cpu ") && devices.contains("core"), "{devices}");
    let help = expect(folder.path(), &["--help"], 0);
    for command in ["train", "dev", "enjoy", "reproduce", "push", "pull", "check", "schema", "verify-env", "devices"] {
        assert!(help.contains(command), "{command}:\n{help}");
    }
}
