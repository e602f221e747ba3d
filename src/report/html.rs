//! Reports: one HTML file per trial and per experiment, with its data, script and style inside, that needs no network.
//!
//! The data are compact JSON: curves thinned to a few hundred points, numbers to five digits. The live view shows the same
//! data with the same script.

use serde_json::{Map, Value as Json, json};

use super::experiment::{Experiment, METRICS, Value};
use super::files::{RunFolder, write_whole};
use super::frame::DataFrame;
use super::runs::{self, Curve};
use crate::error::Result;

/// The look of every page.
pub const STYLE: &str = include_str!("web/page.css");
/// Charts and tables.
pub const CHART_SCRIPT: &str = include_str!("web/chart.js");
/// The pages of a trial and of an experiment.
pub const REPORT_SCRIPT: &str = include_str!("web/report.js");

/// Numbers of all return curves of a trial, and of all its other columns: what keeps a report below 150 KB.
const RETURN_NUMBERS: usize = 6_000;
const COLUMN_NUMBERS: usize = 9_000;
/// Numbers of all curves of an experiment.
const EXPERIMENT_NUMBERS: usize = 30_000;
/// Points of a curve, at most and at least.
const POINTS: (usize, usize) = (400, 24);
/// Columns that are drawn as the return.
const RETURN_COLUMNS: [&str; 2] = ["total_reward", "total_reward_ma"];

/// Writes `{spec}_t{T}_report.html`.
///
/// # Errors
/// A file of the trial that cannot be read, a report that cannot be written.
pub fn trial(folder: &RunFolder, trial: u32) -> Result<()> {
    let title = format!("{} trial {trial}", folder.spec_name());
    write_whole(&folder.trial_report(trial), page(&title, &trial_data(folder, trial)?).as_bytes())
}

/// Writes `{spec}_report.html`.
///
/// # Errors
/// A folder without a table of trials, a file that cannot be read or written.
pub fn experiment(folder: &RunFolder, experiment: &Experiment, curves: &[Curve]) -> Result<()> {
    let data = experiment_data(folder, experiment, curves);
    write_whole(&folder.report(), page(folder.spec_name(), &data).as_bytes())
}

/// A page that holds everything it shows.
fn page(title: &str, data: &Json) -> String {
    let title = escape(title);
    // `<` stands in JSON inside strings alone, where this is the same letter: no text can end the script
    let data = data.to_string().replace('<', "\\u003c");
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'unsafe-inline'; \
         style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'\">\n\
         <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <main id=\"page\"><noscript>{title}: this report is drawn by its script.</noscript></main>\n\
         <script type=\"application/json\" id=\"data\">{data}</script>\n\
         <script>\n{CHART_SCRIPT}{REPORT_SCRIPT}\
         reportPage(document.getElementById('page'), JSON.parse(document.getElementById('data').textContent));\n\
         </script>\n</body>\n</html>\n"
    )
}

/// Text inside HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Everything that the page of a trial shows. A trial that is running has no metrics yet; a file that is not there yet
/// leaves its part out.
///
/// # Errors
/// A file that is there and cannot be read.
pub fn trial_data(folder: &RunFolder, trial: u32) -> Result<Json> {
    let sessions = runs::sessions(folder)?.remove(&trial).unwrap_or_default();
    let frames = sessions.iter().map(|&session| runs::session_frame(folder, trial, session));
    let frames = frames.collect::<Result<Vec<DataFrame>>>()?;
    let spec = read_json(&folder.trial_spec(trial)).or_else(|| read_json(&folder.spec())).unwrap_or(Json::Null);

    let columns = frames.first().map_or(0, |frame| frame.names.len()).max(1);
    let each = frames.len().max(1);
    let clamp = |points: usize| points.clamp(POINTS.1, POINTS.0);
    let (points, column_points) = (clamp(RETURN_NUMBERS / (3 * each)), clamp(COLUMN_NUMBERS / (columns * each)));
    let session_json = |(frame, &session): (&DataFrame, &u32)| {
        let column = |name: &str, points: usize| {
            let numbers = frame.column(name).unwrap_or_default();
            thin(numbers.len(), points).map(|i| numbers[i]).collect::<Vec<f64>>()
        };
        let mut others = Map::new();
        for name in &frame.names {
            let numbers = column(name, column_points);
            let is_shown = name != "frame" && !RETURN_COLUMNS.contains(&name.as_str());
            if is_shown && numbers.iter().any(|x| x.is_finite()) {
                others.insert(name.clone(), compact(&numbers));
            }
        }
        json!({
            "session": session,
            "metrics": read_json(&folder.session_info(trial, session, "metrics_scalar_train.json")),
            "frame": numbers(&column("frame", points)),
            "total_reward": compact(&column("total_reward", points)),
            "total_reward_ma": compact(&column("total_reward_ma", points)),
            "columns_frame": numbers(&column("frame", column_points)),
            "columns": others,
        })
    };
    let searched = searched(folder, &spec);
    let mut data = about(folder, &spec);
    let own = json!({
        "kind": "trial",
        "trial": trial,
        "metrics": read_json(&folder.trial_metrics_scalar(trial)),
        // written when the search ends, which is after this
        "experiment_report": searched.as_ref().map(|_| file_name(&folder.report())),
        "searched": searched,
        "points": points,
        "rows": frames.iter().map(|frame| frame.rows.len()).max().unwrap_or(0),
        "sessions": frames.iter().zip(&sessions).map(session_json).collect::<Vec<Json>>(),
    });
    extend(&mut data, own);
    Ok(data)
}

/// Everything that the page of an experiment shows.
pub fn experiment_data(folder: &RunFolder, experiment: &Experiment, curves: &[Curve]) -> Json {
    let spec = read_json(&folder.spec()).unwrap_or(Json::Null);
    let points = (EXPERIMENT_NUMBERS / (3 * curves.len().max(1))).clamp(POINTS.1, POINTS.0);
    let value = |value: &Value| match value {
        Value::Number(x) => number(*x),
        Value::Text(text) => json!(text),
    };
    let rows: Vec<Json> = (experiment.rows.iter())
        .map(|row| {
            let report = folder.trial_report(row.trial);
            json!({
                "trial": row.trial,
                "status": row.status,
                "frame": number(row.frame),
                "values": row.values.iter().map(value).collect::<Vec<Json>>(),
                "metrics": numbers(&row.metrics),
                "report": report.exists().then(|| file_name(&report)),
            })
        })
        .collect();
    let curve = |curve: &Curve| {
        let thinned = |numbers: &[f64]| thin(numbers.len(), points).map(|i| numbers[i]).collect::<Vec<f64>>();
        json!({
            "trial": curve.trial,
            "frame": numbers(&thinned(&curve.frames)),
            "total_reward": compact(&thinned(&curve.total_reward)),
            "total_reward_ma": compact(&thinned(&curve.total_reward_ma)),
        })
    };
    let mut data = about(folder, &spec);
    let own = json!({
        "kind": "experiment",
        "trials": spec["meta"]["max_trial"],
        "variables": experiment.variables,
        "metric_names": METRICS,
        "rows": rows,
        "curves": curves.iter().map(curve).collect::<Vec<Json>>(),
    });
    extend(&mut data, own);
    data
}

/// What a page says of any run: its names, seed, commit and machine, and the whole spec.
fn about(folder: &RunFolder, spec: &Json) -> Json {
    let (env, meta) = (&spec["env"], &spec["meta"]);
    json!({
        "spec_name": folder.spec_name(),
        "env": env["name"],
        "algorithm": spec["agent"]["algorithm"]["name"],
        "max_frame": env["max_frame"],
        "device": meta["device"],
        "seed": meta["random_seed"],
        "git_sha": meta["git_sha"],
        "git_dirty": meta["git_dirty"],
        "facts": read_json(&folder.run_facts()),
        "spec": spec,
    })
}

/// The values that a search gave this trial, by their dotted keys; none for the trial of a `train`.
fn searched(folder: &RunFolder, spec: &Json) -> Option<Map<String, Json>> {
    let all = read_json(&folder.spec())?;
    let keys = all.get("search")?.as_object()?.keys().filter_map(|key| Some(key.rsplit_once("__")?.0.to_string()));
    let value = |key: &str| key.split('.').try_fold(spec, |at, part| at.get(part)).cloned();
    Some(keys.filter_map(|key| value(&key).map(|value| (key, value))).collect())
}

/// JSON that may be missing or, in a run from elsewhere, damaged: a page shows the rest.
fn read_json(path: &std::path::Path) -> Option<Json> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

fn file_name(path: &std::path::Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Puts the keys of one object behind those of another.
fn extend(data: &mut Json, more: Json) {
    if let (Json::Object(data), Json::Object(more)) = (data, more) {
        data.extend(more);
    }
}

/// Rows that are kept of `rows`: all, or `points` at even distances with the first and the last among them.
fn thin(rows: usize, points: usize) -> impl Iterator<Item = usize> {
    let kept = rows.min(points);
    (0..kept).map(move |i| if kept < 2 { i } else { i * (rows - 1) / (kept - 1) })
}

/// A number of at most five digits; a whole one is kept as it is, one that is not finite is null.
fn number(x: f64) -> Json {
    if !x.is_finite() {
        Json::Null
    } else if x.fract() == 0.0 && x.abs() < 1e15 {
        json!(x as i64)
    } else {
        let short: f64 = format!("{x:.4e}").parse().unwrap_or(x);
        if short.fract() == 0.0 && short.abs() < 1e15 { json!(short as i64) } else { json!(short) }
    }
}

fn numbers(all: &[f64]) -> Json {
    Json::Array(all.iter().map(|&x| number(x)).collect())
}

/// Numbers, or the one that they all are.
fn compact(all: &[f64]) -> Json {
    match all {
        [first, rest @ ..] if !rest.is_empty() && rest.iter().all(|x| x == first) => json!({ "every": number(*first) }),
        _ => numbers(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture(data: &std::path::Path) -> RunFolder {
        let folder = RunFolder::create(data, "ppo_x").expect("made");
        let write = |path: std::path::PathBuf, text: &str| write_whole(&path, text.as_bytes()).expect("written");
        let spec = |search: &str| {
            format!(
                "{{\"agent\": {{\"algorithm\": {{\"name\": \"PPO\", \"gamma\": 0.97}}}}, \"env\": {{\"name\": \
                 \"CartPole-v1\", \"max_frame\": 1000}}, \"meta\": {{\"random_seed\": 4000000000, \"git_sha\": \
                 \"</script><b>\", \"max_trial\": 2}}{search}}}"
            )
        };
        write(folder.spec(), &spec(", \"search\": {\"agent.algorithm.gamma__uniform\": [0.9, 1]}"));
        write(folder.trial_spec(1), &spec(""));
        let mut csv = "frame,total_reward,total_reward_ma,loss,lr\n".to_string();
        for i in 1..=1000 {
            csv.push_str(&format!("{},{},{},{},0.001\n", i * 500, i as f64 / 7.0, i as f64 / 9.0, 1.0 / i as f64));
        }
        write(folder.session_info(1, 0, "df_train.csv"), &csv);
        write(folder.session_info(1, 1, "df_train.csv"), "frame,total_reward,total_reward_ma,loss,lr\n500,,,,0.001\n");
        write(folder.trial_metrics_scalar(1), "{\"strength\": 5.5}");
        write(
            folder.experiment_df(),
            "trial,agent.algorithm.gamma,status,frame,total_reward_ma,strength\n1,0.97,complete,500000,9,5.5\n",
        );
        folder
    }

    #[test]
    fn the_data_of_a_trial_are_whole_and_thin() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = fixture(temp.path());
        let data = trial_data(&folder, 1).expect("read");
        let first = &data["sessions"][0];
        let frame = first["frame"].as_array().expect("numbers");
        assert_eq!((frame.len(), frame[0].as_i64(), frame[399].as_i64()), (400, Some(500), Some(500_000)));
        assert_eq!(first["total_reward"][1], json!(0.42857));
        assert_eq!(first["columns"]["lr"], json!({ "every": 0.001 }));
        assert_eq!(data["sessions"][1]["total_reward"], json!([null]));
        assert_eq!(
            data["sessions"][1]["columns"].as_object().expect("columns").len(),
            1,
            "a column of gaps is left out"
        );
        assert_eq!(data["searched"], json!({ "agent.algorithm.gamma": 0.97 }));
        assert_eq!(data["experiment_report"], "ppo_x_report.html");
        assert_eq!((&data["rows"], &data["seed"]), (&json!(1000), &json!(4_000_000_000u32)));
        assert_eq!(data["facts"], Json::Null, "an older run has none");
    }

    #[test]
    fn no_text_of_a_run_ends_the_script_and_nothing_comes_from_elsewhere() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = fixture(temp.path());
        trial(&folder, 1).expect("written");
        super::super::experiment::write(&folder).expect("written");
        for path in [folder.trial_report(1), folder.report()] {
            let html = std::fs::read_to_string(&path).expect("a report");
            assert_eq!(html.matches("</script>").count(), 2, "{}", path.display());
            assert!(html.contains("\\u003c/script>"), "the commit as it is written in the spec");
            for outside in ["src=", "http://", "https://", "@import", "url(h"] {
                assert!(!html.replace("http://www.w3.org/2000/svg", "").contains(outside), "{outside}");
            }
        }
    }

    #[test]
    fn an_experiment_links_the_reports_of_its_trials() {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let folder = fixture(temp.path());
        let table = Experiment::open(&folder).expect("read");
        assert_eq!(experiment_data(&folder, &table, &[])["rows"][0]["report"], Json::Null);
        trial(&folder, 1).expect("written");
        let curves = runs::curves(&folder, [1].into_iter()).expect("read");
        let data = experiment_data(&folder, &table, &curves);
        assert_eq!(data["rows"][0]["report"], "ppo_x_t1_report.html");
        assert_eq!(data["curves"][0]["frame"].as_array().map(Vec::len), Some(400));
        assert_eq!(data["variables"], json!(["agent.algorithm.gamma"]));
    }

    #[test]
    fn numbers_are_short() {
        let json = numbers(&[500.0, 0.123_456_789, -1e-9, f64::NAN, f64::INFINITY, 123_456.7]);
        assert_eq!(json.to_string(), "[500,0.12346,-1e-9,null,null,123460]");
        assert_eq!(thin(1000, 3).collect::<Vec<_>>(), [0, 499, 999]);
        assert_eq!(thin(1, 400).collect::<Vec<_>>(), [0]);
        assert_eq!(thin(0, 400).count(), 0);
    }
}
