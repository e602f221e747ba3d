//! What the tests of every gpu ask of a search: are its trials those that `train` runs alone on the same device?

use std::path::Path;

use super::{only_run, outcome, small_spec, table, write_spec};
use serde_json::{Value, json};
use slm_fast::report::json;

/// A search of two widths of nets and two learning rates, of which a half is stopped early.
pub fn halving(max_frame: u64) -> Value {
    let mut spec = small_spec(max_frame, 2, Some(5));
    let small = &mut spec["small"];
    small["search"] = json!({
        "agent.net.hid_layers__grid_search": [[8], [16, 16]],
        "agent.net.actor_optim_spec.lr__grid_search": [1e-3, 1e-2],
    });
    small["meta"]["max_trial"] = json!(null);
    small["meta"]["search_scheduler"] = json!({ "grace_period": max_frame / 3, "reduction_factor": 2 });
    spec
}

/// Such a search. `run` carries out the program in a folder, on the device, and gives what it said.
pub fn trials_are_those_of_train(run: impl Fn(&Path, &[&str]) -> String) {
    let folder = tempfile::tempdir().expect("a folder");
    let spec = write_spec(folder.path(), &halving(1920));
    let said = run(folder.path(), &["search", spec, "--data", "search", "--keep", "-1"]);
    assert!(said.contains("4 trials: ") && said.contains(" 0 faulted"), "{said}");
    let search = only_run(&folder.path().join("search"));
    let jobs: Value = json::read(&search.join("info/small_jobs.json")).expect("jobs");
    assert_eq!(jobs["waves"][0].as_array().expect("jobs of a wave").len(), 2, "a job for each shape: {jobs}");
    let trials = outcome(&search);

    let rows = table(&search);
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().any(|row| row["status"] == "stopped"), "{rows:?}");
    assert!(rows.iter().any(|row| row["status"] == "complete"), "{rows:?}");
    for row in &rows {
        let trial = &row["trial"];
        // a trial that was stopped is one that was never to go further
        let (saved, data) = (format!("small_t{trial}_spec.json"), format!("alone{trial}"));
        let (saved, until) = (search.join(saved).display().to_string(), format!("env.max_frame={}", row["frame"]));
        run(folder.path(), &["train", &saved, "--quiet", "--data", &data, "--set", &until]);
        let alone = only_run(&folder.path().join(data));
        let mut files = 0;
        for (name, content) in outcome(&alone).iter().filter(|(name, _)| !name.contains("resume")) {
            let of_search = trials.get(&name.replace("_t0_", &format!("_t{trial}_")));
            assert_eq!(of_search, Some(content), "trial {trial}: {name}");
            files += 1;
        }
        assert!(files >= 4, "trial {trial}: data frames and parameters of two sessions");
        let metrics: Value = json::read(&alone.join("small_t0_trial_metrics_scalar.json")).expect("metrics");
        for (name, metric) in metrics.as_object().expect("metrics by name") {
            assert_eq!(row[name].parse().ok(), metric.as_f64(), "trial {trial}: {name}");
        }
    }
}
