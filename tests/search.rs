//! A search: are its files what they should be, does it end the same however often it is killed, and are its trials the
//! ones that `train` runs alone?

mod common;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{expect, files, only_run, outcome, slm_fast, small_spec, table, write_spec};
use serde_json::{Value, json};
use slm_fast::report::json;

const LR: &str = "agent.net.actor_optim_spec.lr";
const GAMMA: &str = "agent.algorithm.gamma";

/// The small spec with a `search` section, and more keys of `meta`.
fn searching(max_frame: u64, sessions: u32, trials: u32, meta: &Value) -> Value {
    let mut spec = small_spec(max_frame, sessions, Some(5));
    let small = &mut spec["small"];
    small["search"] = json!({ format!("{LR}__loguniform"): [1e-4, 1e-2], format!("{GAMMA}__uniform"): [0.9, 0.999] });
    small["meta"]["max_trial"] = json!(trials);
    for (key, value) in meta.as_object().expect("an object") {
        small["meta"][key] = value.clone();
    }
    spec
}

#[test]
fn a_search_leaves_its_files_and_its_trials_are_those_of_train() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &searching(2000, 2, 4, &json!({})));
    let said = expect(folder.path(), &["search", spec, "--keep", "2"], 0);
    assert!(said.contains("4 trials: 4 complete, 0 stopped early, 0 faulted"), "{said}");
    let run = only_run(&folder.path().join("data"));

    let header = std::fs::read_to_string(run.join("small_experiment_df.csv")).unwrap();
    assert_eq!(
        header.lines().next(),
        Some(
            "trial,agent.algorithm.gamma,agent.net.actor_optim_spec.lr,status,frame,total_reward_ma,strength,max_strength,\
             final_strength,sample_efficiency,training_efficiency,stability,consistency"
        )
    );
    let rows = table(&run);
    let strengths: Vec<f64> = rows.iter().map(|row| row["strength"].parse().unwrap()).collect();
    assert!(strengths.is_sorted_by(|a, b| a >= b), "{strengths:?}");
    let dict: Value = json::read(&run.join("info/small_trial_data_dict.json")).unwrap();
    for row in &rows {
        let trial = &row["trial"];
        let saved: Value = json::read(&run.join(format!("small_t{trial}_spec.json"))).unwrap();
        let lr = saved["agent"]["net"]["actor_optim_spec"]["lr"].as_f64().unwrap();
        assert_eq!(row[LR].parse::<f64>().unwrap(), lr);
        assert_eq!(dict[trial][GAMMA], saved["agent"]["algorithm"]["gamma"]);
        assert!(saved.get("search").is_none() && saved["meta"]["trial"] == json!(trial.parse::<u32>().unwrap()));
    }
    // models of the two best are kept, and nothing is left to resume
    let models: Vec<String> = files(&run.join("model"));
    let expected: usize = rows[..2]
        .iter()
        .map(|row| {
            let of = format!("small_t{}_s", row["trial"]);
            models.iter().filter(|name| name.starts_with(&of)).count()
        })
        .sum();
    assert_eq!((models.len(), expected), (8, 8), "{models:?}");

    // each trial alone, from the spec that it saved
    let trials = outcome(&run);
    for trial in 0..4 {
        let (saved, data) = (run.join(format!("small_t{trial}_spec.json")), format!("alone{trial}"));
        let saved = saved.display().to_string();
        expect(folder.path(), &["train", &saved, "--quiet", "--data", &data, "--device", "cpu"], 0);
        let alone = outcome(&only_run(&folder.path().join(data)));
        let mut compared = 0;
        for (name, content) in alone.iter().filter(|(name, _)| !name.contains("resume")) {
            if let Some(of_search) = trials.get(&name.replace("_t0_", &format!("_t{trial}_"))) {
                assert_eq!(of_search, content, "trial {trial}: {name}");
                compared += 1;
            }
        }
        assert!(compared >= 2, "trial {trial}: {compared} files");
    }
    let said = expect(folder.path(), &["search", "--resume", &run.display().to_string()], 0);
    assert!(said.contains("this search is complete"), "{said}");
}

/// Starts a search in the background.
fn start(folder: &Path, args: &[&str]) -> Child {
    let mut command = slm_fast();
    command.current_dir(folder).args(args).args(["--quiet", "--checkpoint-every", "0.05"]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program starts")
}

#[test]
fn killed_again_and_again_ends_in_the_same_table_and_bits() {
    let halving = json!({ "search_scheduler": { "grace_period": 2000, "reduction_factor": 2 } });
    let learning = json!({ "search_sampler": "tpe", "search_wave": 3, "search_scheduler":
        { "grace_period": 3000, "reduction_factor": 3, "brackets": 2 } });
    for (what, meta) in [("random", json!({})), ("halving", halving), ("tpe", learning)] {
        let folder = tempfile::tempdir().unwrap();
        let spec = write_spec(folder.path(), &searching(12_000, 2, 9, &meta));
        let begun = Instant::now();
        expect(folder.path(), &["search", spec, "--quiet", "--data", "whole"], 0);
        let whole_s = begun.elapsed().as_secs_f64();
        let whole = only_run(&folder.path().join("whole"));

        let mut child = start(folder.path(), &["search", spec, "--data", "killed"]);
        let mut kills = 0;
        for share in [0.4, 0.3, 0.5, 0.2] {
            std::thread::sleep(Duration::from_secs_f64(whole_s * share));
            kills += u32::from(child.try_wait().expect("a child").is_none());
            let _ = child.kill();
            child.wait().expect("ended");
            let run = only_run(&folder.path().join("killed")).display().to_string();
            child = start(folder.path(), &["search", "--resume", &run]);
        }
        assert!(child.wait().expect("ended").success(), "{what}");
        assert!(kills >= 1, "{what}: the search was over before the first kill");
        let killed = only_run(&folder.path().join("killed"));
        assert_eq!(table(&whole), table(&killed), "{what}");
        assert_eq!(outcome(&whole), outcome(&killed), "{what}");
        let statuses: Vec<String> = table(&whole).into_iter().map(|mut row| row.remove("status").unwrap()).collect();
        assert_eq!(statuses.iter().any(|status| status == "stopped"), what != "random", "{what}: {statuses:?}");
    }
}

#[test]
fn shapes_threads_and_the_order_of_jobs_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = searching(2000, 1, 8, &json!({}));
    spec["small"]["search"]["agent.net.hid_layers__choice"] = json!([[8], [16, 16], [24]]);
    spec["small"]["search"]["env.num_envs__choice"] = json!([2, 4]);
    let spec = write_spec(folder.path(), &spec);
    let run = |threads: &str| {
        let data = format!("threads{threads}");
        expect(folder.path(), &["search", spec, "--quiet", "--data", &data, "--threads", threads, "--keep", "-1"], 0);
        only_run(&folder.path().join(data))
    };
    let (one, four) = (run("1"), run("4"));
    let said = expect(folder.path(), &["check", spec], 0);
    assert!(said.contains("search        8 trials by random over 4 keys, in 1 wave; "), "{said}");
    let jobs: Value = json::read(&one.join("info/small_jobs.json")).unwrap();
    assert!(jobs["waves"][0].as_array().unwrap().len() > 2, "{jobs}");
    assert_eq!(table(&one), table(&four));
    assert_eq!(outcome(&one), outcome(&four));
}

#[test]
fn a_trial_that_is_not_finite_is_faulted_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut spec = searching(2000, 2, 1, &json!({ "max_trial": null }));
    spec["small"]["search"] =
        json!({ format!("{LR}__grid_search"): [1e-3, 1e38], format!("{GAMMA}__grid_search"): [0.9, 0.99] });
    let spec = write_spec(folder.path(), &spec);
    let said = expect(folder.path(), &["search", spec], 0);
    assert!(said.contains("4 trials: 2 complete, 0 stopped early, 2 faulted"), "{said}");
    assert!(said.contains("gave a number that is not finite"), "{said}");
    let rows = table(&only_run(&folder.path().join("data")));
    for row in rows {
        assert_eq!(row["status"] == "faulted", row[LR].parse::<f64>().unwrap() > 1.0, "{row:?}");
    }
}

#[test]
fn a_trial_that_is_judged_at_its_last_frame_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let late = json!({ "search_scheduler": { "grace_period": 1950, "reduction_factor": 2 } });
    let spec = write_spec(folder.path(), &searching(2000, 1, 4, &late));
    let said = expect(folder.path(), &["search", spec], 0);
    assert!(said.contains("4 trials: 4 complete, 0 stopped early, 0 faulted"), "{said}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_the_search_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let spec = write_spec(folder.path(), &searching(20_000, 2, 6, &json!({})));
    expect(folder.path(), &["search", spec, "--quiet", "--data", "whole"], 0);
    let child = start(folder.path(), &["search", spec, "--data", "stopped"]);
    let begun = Instant::now();
    let has_begun = || files(folder.path()).iter().any(|name| name.starts_with("stopped") && name.contains("resume"));
    while !has_begun() {
        assert!(begun.elapsed() < Duration::from_secs(60), "no checkpoint in a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
    // SAFETY: the child is ours and has not been waited for
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
    let code = child.wait_with_output().expect("ended").status.code();
    assert_eq!(code, Some(130));
    let run = only_run(&folder.path().join("stopped"));
    let said = expect(folder.path(), &["search", "--resume", &run.display().to_string()], 0);
    assert!(said.contains("6 complete"), "{said}");
    assert_eq!(outcome(&only_run(&folder.path().join("whole"))), outcome(&run));
}

#[test]
fn what_cannot_be_searched_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let complain = |spec: &Value, args: &[&str], words: &[&str]| {
        let spec = write_spec(path, spec);
        let said = expect(path, &[&["search", spec][..], args].concat(), 2);
        words.iter().for_each(|word| assert!(said.contains(word), "`{word}` is missing in:\n{said}"));
        assert!(!path.join("data").exists(), "nothing is written");
    };
    let good = searching(500, 1, 2, &json!({}));
    complain(&small_spec(500, 1, None), &[], &["no `search` section", "use `train`"]);
    complain(&good, &["--set", "meta.search_sampler=grid"], &["a grid has listed values alone", LR]);
    complain(
        &good,
        &["--engine", "ray", "--python", "/no/such/python"],
        &["/no/such/python", "pip install ./tools/ray"],
    );
    let mut odd = good.clone();
    odd["small"]["search"] = json!({ format!("{LR}__uniform"): [2.0, 1.0] });
    complain(&odd, &[], &["2 is not below 1", LR]);
    let mut odd = good.clone();
    odd["small"]["search"] = json!({ "env.name__choice": ["CartPole-v1", "Pendulum-v1"] });
    odd["small"]["agent"]["algorithm"]["action_pdtype"] = json!("Categorical");
    odd["small"]["meta"]["search_sampler"] = json!("grid");
    complain(&odd, &[], &["env.name = \"Pendulum-v1\"", "trial 1 drew"]);

    // each command goes on with its own runs alone
    let spec = write_spec(path, &good);
    expect(path, &["search", spec, "--quiet"], 0);
    let run = only_run(&path.join("data"));
    std::fs::remove_file(run.join("small_experiment_df.csv")).unwrap();
    let said = expect(path, &["train", "--resume", &run.display().to_string()], 2);
    assert!(said.contains("search --resume"), "{said}");
    let spec = write_spec(path, &small_spec(500, 1, Some(1)));
    expect(path, &["train", spec, "--quiet", "--data", "trained"], 0);
    let run = only_run(&path.join("trained"));
    let said = expect(path, &["search", "--resume", &run.display().to_string()], 2);
    assert!(said.contains("train --resume"), "{said}");
}
