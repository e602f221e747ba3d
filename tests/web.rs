//! What shows runs: `list`, `plot`, `report` and `serve`, and every page of them in headless Chromium.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{expect, small_spec, write_spec};

/// A search of three trials with two sessions, and a trained trial, in a data folder with their reports.
fn data(folder: &Path) -> (PathBuf, PathBuf) {
    let mut spec = small_spec(2048, 2, Some(7));
    spec["small"]["meta"]["max_trial"] = 3.into();
    spec["small"]["search"] = serde_json::json!({
        "agent.algorithm.gamma__uniform": [0.9, 0.99],
        "agent.net.hid_layers_activation__choice": ["tanh", "relu"],
    });
    expect(folder, &["search", write_spec(folder, &spec), "--quiet"], 0);
    let search = common::only_run(&folder.join("data"));
    expect(folder, &["train", write_spec(folder, &small_spec(4096, 2, Some(7))), "--quiet"], 0);
    let runs = fs::read_dir(folder.join("data")).expect("a data folder").map(|entry| entry.expect("an entry").path());
    let trained = runs.into_iter().find(|run| *run != search).expect("a second run");
    (trained, search)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn runs_are_listed_plotted_and_reported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let (trained, searched) = data(folder);

    let table = expect(folder, &["list"], 0);
    let line = |what: &str| table.lines().find(|line| line.contains(what)).unwrap_or_else(|| panic!("{what}\n{table}"));
    assert!(line(" train ").contains("complete") && line(" train ").contains("4,096 of 4,096 frames"), "{table}");
    assert!(line(" search ").contains("3 of 3 trials"), "{table}");
    let entries: serde_json::Value = serde_json::from_str(&expect(folder, &["list", "--json"], 0)).expect("JSON");
    assert_eq!(entries.as_array().map(Vec::len), Some(2));
    assert!(entries.as_array().expect("a list").iter().all(|entry| entry["score"].as_f64() > Some(1.0)), "{entries}");

    expect(folder, &["plot", text(&trained), text(&searched)], 0);
    let stem = "CartPole-v1_multi_trial_graph_mean_returns_ma_vs_frames";
    let svg = fs::read_to_string(folder.join(format!("{stem}.svg"))).expect("drawn here");
    assert!(svg.contains(">CartPole-v1</text>") && svg.matches("<polygon").count() == 2, "two lines with their bands");
    assert!(folder.join(format!("{stem}.png")).exists());
    expect(folder, &["plot", text(&trained), "-o", "one.png", "--title", "T", "--legends", "mine"], 0);
    assert!(fs::read_to_string(folder.join("one.svg")).expect("drawn").contains(">T</text>"));
    let refused = expect(folder, &["plot", text(&trained), "-o", "one.pdf"], 2);
    assert!(refused.contains("both `.png` and `.svg` are written"), "{refused}");
    let refused = expect(folder, &["plot", text(&trained), "--legends", "a,b"], 2);
    assert!(refused.contains("2 legends for 1 folders"), "{refused}");

    let said = expect(folder, &["report", text(&trained), text(&searched)], 0);
    assert_eq!(said.lines().filter(|line| line.ends_with("_report.html")).count(), 5, "{said}");
    for graph in ["experiment_graph", "multi_trial_graph_mean_returns_ma_vs_frames", "parallel_coordinates"] {
        for ext in ["png", "svg"] {
            assert!(searched.join(format!("small_{graph}.{ext}")).exists(), "{graph}.{ext}");
        }
    }
    for path in [trained.join("small_t0_report.html"), searched.join("small_t2_report.html")] {
        let bytes = fs::metadata(&path).expect("a report").len();
        assert!(bytes < 150_000, "{}: {bytes} bytes", path.display());
    }
}

#[test]
fn what_cannot_be_shown_is_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let told = |args: &[&str], what: &str| {
        let said = expect(folder, args, 2);
        assert!(said.contains(what) && said.contains("hint: "), "{said}");
    };
    told(&["list"], "cannot read the data folder");
    told(&["serve"], "cannot read the data folder");
    told(&["report", "."], "no run is here");
    told(&["plot", "."], "no run is here");
    fs::create_dir(folder.join("data")).expect("made");
    assert_eq!(expect(folder, &["list"], 0), "no runs in data\n");
    told(&["serve", "--address", "0.0.0.0"], "there is no token");
    told(&["serve", "--token", "short"], "a token has 16 or more");
}

/// `chromium` and `chromedriver` open every page; told and left out where they are not installed.
#[test]
fn every_page_is_right_in_a_browser() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (trained, searched) = data(folder.path());
    expect(folder.path(), &["report", text(&trained), text(&searched)], 0);
    let mut check = Command::new("python3");
    check.arg(common::root().join("tools/check_web.py")).arg(common::slm_fast().get_program());
    check.arg(folder.path().join("data")).arg("--train");
    // longer than anyone watches
    let output = check.arg(folder.path().join(write_spec(folder.path(), &small_spec(1 << 30, 2, Some(7))))).output();
    let missing = match &output {
        Err(error) => Some(format!("python3: {error}")),
        Ok(output) if output.status.code() == Some(3) => Some(common::text(output)),
        Ok(_) => None,
    };
    if let Some(missing) = missing {
        assert!(!common::wgpu::is_required("web"), "SLM_REQUIRE asks for web: {missing}");
        println!("skipped: {}", missing.trim());
        return;
    }
    let output = output.expect("python3 ran");
    let said = common::text(&output);
    assert!(output.status.success(), "{said}");
    // 4 report pages and 3 of the live view, each at two widths, and the run that is watched
    assert!(said.contains("15 pages, 0 with faults"), "{said}");
}
