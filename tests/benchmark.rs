//! A benchmark: does its table say what its runs reached, and does it go on where it was stopped?

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{expect, only_run, outcome, slm_fast, small_spec};
use serde_json::{Value, json};
use slm_fast::lab::benchmark::Suite;
use slm_fast::report::json;

/// A suite of two specs, one of them with a target and a key of its own.
fn suite(folder: &Path, max_frame: u64) -> &'static str {
    let mut specs = small_spec(max_frame, 2, None);
    specs["other"] = specs["small"].clone();
    json::write(&folder.join("specs.json"), &specs).unwrap();
    let suite = json!({
        "name": "two",
        "seeds": [3, 4],
        "source": "someone",
        "rows": [
            { "spec": "specs.json", "name": "small", "target": 20 },
            { "spec": "specs.json", "name": "other", "set": { "agent.algorithm.gamma": 0.9 } },
        ],
    });
    json::write(&folder.join("two.json"), &suite).unwrap();
    "two.json"
}

/// The rows of the table without the columns that a clock decides.
fn rows(run: &Path) -> Vec<Value> {
    let table: Value = json::read(&run.join("two_table.json")).unwrap();
    let mut rows = table["rows"].as_array().expect("rows").clone();
    for row in &mut rows {
        for clock in ["frames_per_s", "wall_s"] {
            assert!(row[clock].as_f64().is_some_and(|x| x > 0.0), "{row}");
            row.as_object_mut().expect("a row").remove(clock);
        }
    }
    rows
}

#[test]
fn the_table_says_what_the_runs_reached() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let suite = suite(path, 2000);
    let said = expect(path, &["benchmark", suite], 0);
    let run = only_run(&path.join("data"));
    assert_eq!(said.matches("| `small` | CartPole-v1 | 2,000 |").count(), 1, "{said}");
    assert!(std::fs::read_to_string(run.join("two_table.md")).unwrap().contains("20.00 (someone)"));
    let rows = rows(&run);
    for (row, name) in rows.iter().zip(["small", "other"]) {
        let mut scores = Vec::new();
        for trial in 0..2 {
            let metrics: Value =
                json::read(&run.join(format!("{name}/{name}_t{trial}_trial_metrics_scalar.json"))).unwrap();
            scores.push(metrics["total_reward_ma"].as_f64().unwrap());
        }
        assert_eq!(row["scores"], json!(scores));
        assert_eq!(row["score_mean"], json!((scores[0] + scores[1]) / 2.0));
        assert!(
            row["worst"].as_f64() <= row["score_mean"].as_f64() && row["score_mean"].as_f64() <= row["best"].as_f64()
        );
        assert_eq!((&row["seeds"], &row["sessions"]), (&json!([3, 4]), &json!(2)));
    }
    assert_eq!(rows[0]["ratio"], json!(rows[0]["score_mean"].as_f64().unwrap() / 20.0));
    assert_eq!(rows[1]["ratio"], Value::Null);
    assert_ne!(rows[0]["scores"], rows[1]["scores"], "the second spec has another gamma");

    // a trial of the benchmark is the one that `train` runs with that seed
    expect(path, &["train", "specs.json", "small", "--seed", "4", "--quiet", "--data", "alone", "--device", "cpu"], 0);
    let (alone, all) = (outcome(&only_run(&path.join("alone"))), outcome(&run.join("small")));
    let csv = "info/small_t0_s1_session_df_train.csv";
    assert_eq!(alone[csv], all[&csv.replace("_t0_", "_t1_")]);

    let said = expect(path, &["benchmark", "--resume", &run.display().to_string(), "--quiet"], 0);
    assert!(said.contains("| `other` |"), "{said}");
}

#[test]
fn killed_again_and_again_ends_in_the_same_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let suite = suite(path, 60_000);
    let begun = Instant::now();
    expect(path, &["benchmark", suite, "--quiet", "--data", "whole"], 0);
    let whole_s = begun.elapsed().as_secs_f64();
    let args = ["benchmark", suite, "--data", "killed", "--quiet", "--checkpoint-every", "0.05"];
    let start = |args: &[&str]| {
        let mut command = slm_fast();
        command.current_dir(path).args(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starts")
    };
    let mut child = start(&args);
    let mut kills = 0;
    for share in [0.4, 0.3, 0.2] {
        std::thread::sleep(Duration::from_secs_f64(whole_s * share));
        kills += u32::from(child.try_wait().expect("a child").is_none());
        let _ = child.kill();
        child.wait().expect("ended");
        let run = only_run(&path.join("killed")).display().to_string();
        child = start(&["benchmark", "--resume", &run, "--quiet", "--checkpoint-every", "0.05"]);
    }
    assert!(child.wait().expect("ended").success());
    assert!(kills >= 1, "the benchmark was over before the first kill");
    let (whole, killed) = (only_run(&path.join("whole")), only_run(&path.join("killed")));
    assert_eq!(rows(&whole), rows(&killed));
    for name in ["small", "other"] {
        assert_eq!(outcome(&whole.join(name)), outcome(&killed.join(name)), "{name}");
    }
}

#[test]
fn every_suite_that_is_shipped_can_be_run() {
    let mut suites = 0;
    for entry in std::fs::read_dir(common::root().join("specs/suites")).expect("specs/suites") {
        let path = entry.expect("an entry").path();
        let suite = Suite::read(&path).unwrap_or_else(|error| panic!("{error}"));
        let plans = suite.plans(&[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(plans.rows.iter().all(|row| row.target.is_some() && row.source.is_some()), "{}", path.display());
        suites += 1;
    }
    assert!(suites > 0);
}

#[test]
fn what_cannot_be_benchmarked_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let suite = suite(path, 500);
    let complain = |args: &[&str], word: &str| {
        let said = expect(path, &[&["benchmark"][..], args].concat(), 2);
        assert!(said.contains(word), "`{word}` is missing in:\n{said}");
        assert!(!path.join("data").exists(), "nothing is written");
    };
    complain(&["none.json"], "none.json");
    complain(&[suite, "specs.json"], "a suite is run by itself");
    complain(&["specs.json", "specs.json"], "a second spec named `small`");
    complain(&[suite, "--set", "agent.algorithm.gama=1"], "gama");
    complain(&["--resume", "."], "no benchmark is here");
    let wrong = json!({ "name": "x", "rows": [{ "spec": "specs.json", "traget": 3 }] });
    json::write(&path.join("wrong.json"), &wrong).unwrap();
    complain(&["wrong.json"], "traget");
}
