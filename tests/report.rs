//! What a run leaves on disk: which files, with which columns, readable by whom, and what happens when they break.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use slm_fast::error::Result;
use slm_fast::lab::cohort::{COLUMNS, Dtype, Row, Tensor};
use slm_fast::metric::{SessionMetrics, TrialMetrics};
use slm_fast::report::checkpoint::Checkpoint;
use slm_fast::report::events::EventWriter;
use slm_fast::report::files::{RunFolder, write_whole};
use slm_fast::report::frame::{CLOCK_COLUMNS, DataFrame};
use slm_fast::report::json;
use slm_fast::report::log::Level;
use slm_fast::report::writer::{Options, Outcome, Reporter, TrialOptions};

/// SLM Lab's columns of a PPO run, then ours.
const HEADER: &str = "total_reward,total_reward_ma,loss,fps,frame,wall_t,t,epi,opt_step,lr,clip_eps,entropy,\
    entropy_coef,policy_loss,value_loss,approx_kl,clip_frac,explained_var,grad_norm,episode_length";

/// A log row of session s at a frame; no reward and no loss before frame 1000.
fn row(s: usize, frame: u64) -> Row {
    let late = |x: f64| if frame < 1000 { f64::NAN } else { x };
    COLUMNS.map(|column| match column {
        "frame" => frame as f64,
        "t" => frame as f64 / 4.0,
        "opt_step" => frame as f64 / 10.0,
        "total_reward" => late(100.0 + frame as f64 / 50.0 + s as f64),
        "loss" => late(1.0 / frame as f64),
        "entropy" => 0.1,
        "clip_eps" => f64::NAN,
        _ => 1.5,
    })
}

fn model(x: f32) -> Vec<Tensor> {
    let words = (0..6).map(|i| (x + i as f32).to_bits()).collect();
    vec![Tensor { name: "actor.0.weight".into(), dtype: Dtype::F32, shape: vec![2, 3], words }]
}

fn trial(trial: u32) -> TrialOptions {
    TrialOptions {
        trial,
        sessions: vec![0, 1],
        random_return: 20.0,
        meta: BTreeMap::from([("spec".to_string(), "{\"name\": \"ppo_x\"}".to_string())]),
    }
}

fn options(folder: &RunFolder) -> Options {
    Options { folder: folder.clone(), trials: vec![trial(0)], tensorboard: true, graphs: true, shared: false }
}

/// What the one trial came to.
fn finish(reporter: Reporter) -> Outcome {
    let outcomes = reporter.finish().expect("finished");
    assert_eq!(outcomes.len(), 1);
    outcomes.into_iter().next().expect("one")
}

fn new_run(data: &Path) -> RunFolder {
    RunFolder::create(data, "ppo_x").expect("made")
}

/// Frames `from..=to` in steps of 500, two rows at a time, to both sessions.
fn feed(reporter: &mut Reporter, from: u64, to: u64) -> Result<()> {
    for first in (from..=to).step_by(1000) {
        for s in 0..2 {
            if reporter.rows(s, (first + 500) as f64 / 1e5, &[row(s, first), row(s, first + 500)])? {
                reporter.best_model(s, first + 500, model(s as f32))?;
            }
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("listed")
        .map(|entry| entry.expect("an entry"))
        .filter(|entry| entry.path().is_file())
        .map(|entry| entry.file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[test]
fn a_trial_leaves_slm_labs_files() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let folder = new_run(data.path());
    let mut reporter = Reporter::start(options(&folder)).expect("started");
    feed(&mut reporter, 500, 9_500).expect("fed");
    assert_eq!(reporter.wall_t_s(), 0.1);
    reporter.log(Level::Info, "a line").expect("logged");
    for s in 0..2 {
        reporter.model(s, 10_000, model(7.0)).expect("sent");
    }
    reporter.checkpoint(10_000, model(9.0)).expect("sent");
    let outcome = finish(reporter);

    assert_eq!(
        names(folder.root()),
        [
            "ppo_x_t0_report.html",
            "ppo_x_t0_trial_graph_mean_returns_ma_vs_frames.png",
            "ppo_x_t0_trial_graph_mean_returns_ma_vs_frames.svg",
            "ppo_x_t0_trial_graph_mean_returns_vs_frames.png",
            "ppo_x_t0_trial_graph_mean_returns_vs_frames.svg",
            "ppo_x_t0_trial_metrics_scalar.json",
        ]
    );
    let mut info = vec!["ppo_x_t0_trial_metrics.json".to_string(), "ppo_x_t0_trial_metrics_scalar.json".to_string()];
    let mut graphs = Vec::new();
    for s in 0..2 {
        for kind in ["df_train.csv", "df_eval.csv", "metrics_train.json", "metrics_eval.json"] {
            info.push(format!("ppo_x_t0_s{s}_session_{kind}"));
        }
        for kind in ["train", "eval"] {
            info.push(format!("ppo_x_t0_s{s}_session_metrics_scalar_{kind}.json"));
        }
        for kind in ["mean_returns_vs_frames", "mean_returns_ma_vs_frames", "loss_vs_frame", "entropy_vs_frame"] {
            graphs.extend(["png", "svg"].map(|ext| format!("ppo_x_t0_s{s}_session_graph_train_{kind}.{ext}")));
        }
    }
    for kind in ["mean_returns_vs_frames", "mean_returns_ma_vs_frames"] {
        graphs.extend(["png", "svg"].map(|ext| format!("ppo_x_t0_trial_graph_{kind}.{ext}")));
    }
    info.sort();
    graphs.sort();
    assert_eq!(names(&folder.root().join("info")), info);
    assert_eq!(names(&folder.root().join("graph")), graphs);
    assert_eq!(
        names(&folder.root().join("model")),
        [
            "ppo_x_t0_resume.safetensors",
            "ppo_x_t0_s0_ckpt-best_net_model.safetensors",
            "ppo_x_t0_s0_net_model.safetensors",
            "ppo_x_t0_s1_ckpt-best_net_model.safetensors",
            "ppo_x_t0_s1_net_model.safetensors",
        ]
    );

    // the columns, and a row of each kind
    let csv = fs::read_to_string(folder.session_info(0, 1, "df_train.csv")).expect("read");
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 21);
    assert_eq!(lines[0], HEADER);
    assert_eq!(lines[1], ",,,100000,500,0.005,125,1.5,50,1.5,,0.1,1.5,1.5,1.5,1.5,1.5,1.5,1.5,1.5");
    assert_eq!(lines[2], "121,121,0.001,100000,1000,0.01,250,1.5,100,1.5,,0.1,1.5,1.5,1.5,1.5,1.5,1.5,1.5,1.5");

    // metrics agree with what is returned, by SLM Lab's keys
    let scalar: SessionMetrics = json::read(&folder.session_info(0, 0, "metrics_scalar_train.json")).expect("read");
    assert_eq!(scalar, outcome.sessions[0]);
    assert_eq!(scalar.max_strength, 300.0 - 20.0);
    let trial: TrialMetrics = json::read(&folder.trial_metrics_scalar(0)).expect("read");
    assert_eq!(trial, outcome.trial);
    assert_eq!((trial.frame, trial.max_strength, trial.stability), (10_000.0, 280.5, 1.0));
    let full: serde_json::Value = json::read(&folder.session_info(0, 0, "metrics_train.json")).expect("read");
    let keys: Vec<&String> = full["local"].as_object().expect("an object").keys().collect();
    let expected = [
        "mean_returns",
        "strengths",
        "sample_efficiencies",
        "training_efficiencies",
        "stabilities",
        "frames",
        "opt_steps",
    ];
    assert_eq!(keys, expected);
    assert!(full["local"]["strengths"][0].is_null());

    let log = fs::read_to_string(folder.trial_log(0)).expect("read");
    assert!(log.contains("[INFO] a line") && log.contains("trial_metrics: frame:10000 | total_reward_ma:"), "{log}");

    let best = Checkpoint::read(&folder.best_model(0, 1)).expect("read");
    assert_eq!((best.meta("frame"), best.meta("session")), (Ok("10000"), Ok("1")));
    assert_eq!(best.tensors, model(1.0));
    let png = fs::read(folder.trial_graph(0, "mean_returns_vs_frames", "png")).expect("read");
    let image = png::Decoder::new(std::io::Cursor::new(png)).read_info().expect("a PNG");
    assert_eq!((image.info().width, image.info().height), (1000, 700));
}

#[test]
fn a_resumed_run_has_the_data_of_an_unbroken_one() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let whole = new_run(data.path());
    let mut reporter = Reporter::start(options(&whole)).expect("started");
    feed(&mut reporter, 500, 9_500).expect("fed");
    let outcome = finish(reporter);

    let broken = new_run(data.path());
    let mut reporter = Reporter::start(options(&broken)).expect("started");
    feed(&mut reporter, 500, 3_500).expect("fed");
    reporter.checkpoint(4_000, model(4.0)).expect("sent");
    // lost: it comes after the checkpoint
    feed(&mut reporter, 4_500, 6_500).expect("fed");
    reporter.sync().expect("synced");
    drop(reporter);

    let checkpoint = Checkpoint::read(&broken.resume(0)).expect("read");
    assert_eq!((checkpoint.meta("frame"), checkpoint.meta("kind")), (Ok("4000"), Ok("resume")));
    assert_eq!(checkpoint.tensors, model(4.0));
    let mut reporter = Reporter::resume(options(&broken), &checkpoint).expect("resumed");
    assert_eq!(reporter.wall_t_s(), 0.04);
    feed(&mut reporter, 4_500, 9_500).expect("fed");
    let again = finish(reporter);

    assert_eq!(again.trial, outcome.trial);
    for s in 0..2 {
        let frame = |folder: &RunFolder| {
            let text = fs::read_to_string(folder.session_info(0, s, "df_train.csv")).expect("read");
            DataFrame::from_csv(&text, "csv").expect("a frame").without(&CLOCK_COLUMNS)
        };
        assert!(frame(&whole).same_bits(&frame(&broken)));
    }
    // every point once: the points behind the checkpoint were cut off
    let points = |folder: &RunFolder| -> Vec<(u64, String)> {
        let mut points: Vec<(u64, String)> =
            decode(&events_of(folder)).into_iter().flat_map(|event| event.scalars_as_text()).collect();
        points.retain(|(_, text)| !text.starts_with("fps/") && !text.starts_with("wall_t/"));
        points.sort();
        points
    };
    assert_eq!(points(&whole), points(&broken));

    let mut other = options(&broken);
    other.trials[0].sessions = vec![0, 1, 2];
    let err = Reporter::resume(other, &checkpoint).err().expect("other sessions");
    assert!(err.what.contains("other sessions"), "{err}");
}

#[test]
fn an_error_of_the_thread_reaches_the_trainer() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let folder = new_run(data.path());
    let mut reporter = Reporter::start(options(&folder)).expect("started");
    fs::remove_dir(folder.root().join("model")).expect("removed");
    reporter.checkpoint(0, model(0.0)).expect("sent");
    let err = reporter.sync().expect_err("no folder");
    assert!(err.place.ends_with("ppo_x_t0_resume.safetensors"), "{err}");
    assert!(err.what.starts_with("cannot write: "), "{err}");
    assert_eq!(feed(&mut reporter, 500, 9_500), Err(err.clone()));
    assert_eq!(reporter.finish().err(), Some(err.clone()));
    assert!(fs::read_to_string(folder.trial_log(0)).expect("read").contains("[ERROR]"));
}

#[test]
fn a_file_that_cannot_be_written_leaves_the_old_and_nothing_else() {
    let data = tempfile::tempdir().expect("a temporary folder");
    // a folder stands where the file should go, so the last step, the rename, fails
    let taken = data.path().join("taken.json");
    fs::create_dir(&taken).expect("made");
    fs::write(taken.join("old"), b"old").expect("written");
    let err = write_whole(&taken, b"new").expect_err("a folder");
    assert_eq!(err.place, taken.display().to_string());
    assert_eq!(fs::read(taken.join("old")).expect("read"), b"old");
    assert_eq!(fs::read_dir(data.path()).expect("listed").count(), 1);
    let err = write_whole(&data.path().join("none").join("x"), b"new").expect_err("no folder");
    assert_eq!(err.hint, "check the path");
    let err = RunFolder::create(&taken.join("old"), "x").expect_err("a file");
    assert!(err.what.starts_with("cannot make the data folder"), "{err}");
}

#[cfg(unix)]
#[test]
fn a_read_only_folder_is_an_error_with_a_hint() {
    use std::os::unix::fs::PermissionsExt;
    let data = tempfile::tempdir().expect("a temporary folder");
    let mode = |mode| fs::set_permissions(data.path(), fs::Permissions::from_mode(mode)).expect("set");
    mode(0o555);
    if fs::write(data.path().join("probe"), b"").is_ok() {
        println!("skipped: this user may write to read-only folders");
        return;
    }
    let err = write_whole(&data.path().join("x.json"), b"{}").expect_err("read-only");
    let made = RunFolder::create(data.path(), "x").expect_err("read-only");
    mode(0o755);
    for err in [err, made] {
        assert!(err.hint.starts_with("choose a folder you can write to"), "{err}");
    }
}

/// Bytes of a checkpoint and what its errors must say.
#[test]
fn broken_and_foreign_checkpoints_are_named() {
    let whole = Checkpoint { tensors: model(1.0), ..Checkpoint::default() }.to_bytes();
    let header_end = 8 + u64::from_le_bytes(whole[..8].try_into().expect("eight")) as usize;
    let changed = |from: &str, to: &str| {
        let header = std::str::from_utf8(&whole[8..header_end]).expect("text").replace(from, to);
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(&whole[header_end..]);
        bytes
    };
    let cases = [
        (whole[..whole.len() - 1].to_vec(), "cut off: "),
        (whole[..header_end - 9].to_vec(), "cut off in its header: "),
        (Vec::new(), "the file is empty"),
        (b"PK\x03\x04 a zip of torch".to_vec(), "not a file of slm-fast"),
        (changed("\"slm-fast\"", "\"pt\""), "not a file of slm-fast"),
        (
            changed("\"format_version\":\"1\"", "\"format_version\":\"2\""),
            "format version 2; this program reads up to 1",
        ),
        (changed("\"format_version\":\"1\"", "\"format_version\":\"?\""), "its format version is missing"),
        (changed("\"F32\"", "\"I32\""), "the array `actor.0.weight` is I32, neither F32 nor U32"),
        (changed("[2,3]", "[2,4]"), "damaged: "),
    ];
    for (bytes, what) in cases {
        let err = Checkpoint::from_bytes(&bytes, "m.safetensors").expect_err(what);
        assert!(err.what.starts_with(what) && err.place == "m.safetensors" && !err.hint.is_empty(), "{err}");
    }
    let missing = Checkpoint::read(Path::new("no/such.safetensors")).expect_err("missing");
    assert!(missing.to_string().starts_with("no/such.safetensors: cannot read: "), "{missing}");
}

/// One record of an event file, by an own reading of the format: see [`decode`].
#[derive(Debug, Default)]
struct Event {
    step: u64,
    version: String,
    scalars: Vec<(String, f32)>,
    /// Tag and numbers in the buckets.
    histograms: Vec<(String, Vec<f64>)>,
    texts: Vec<(String, String)>,
}

impl Event {
    fn scalars_as_text(&self) -> Vec<(u64, String)> {
        self.scalars.iter().map(|(tag, x)| (self.step, format!("{tag} {x}"))).collect()
    }
}

/// A field of a protobuf message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Fields of a protobuf message by number.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut x = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().expect("a byte");
            *bytes = rest;
            x |= u64::from(byte & 127) << shift;
            if byte & 128 == 0 {
                break;
            }
        }
        x
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                fields.push((key >> 3, Field::Number(varint(&mut bytes))));
                continue;
            }
            1 => 8,
            2 => varint(&mut bytes) as usize,
            5 => 4,
            other => panic!("wire type {other}"),
        };
        let (field, rest) = bytes.split_at(length);
        bytes = rest;
        fields.push((key >> 3, Field::Bytes(field)));
    }
    fields
}

fn bytes_of<'a>(message: &'a [u8], number: u64) -> Vec<&'a [u8]> {
    let bytes = |(n, field): (u64, Field<'a>)| match field {
        Field::Bytes(bytes) if n == number => Some(bytes),
        _ => None,
    };
    fields(message).into_iter().filter_map(bytes).collect()
}

/// CRC-32C bit by bit, masked as TFRecord has it.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0x82F6_3B78 } else { 0 };
        }
    }
    let crc = !crc;
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

fn decode(mut file: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    let u32_at = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four"));
    while !file.is_empty() {
        let length = u64::from_le_bytes(file[..8].try_into().expect("eight")) as usize;
        assert_eq!(u32_at(file, 8), masked_crc(&file[..8]), "checksum of a length");
        let data = &file[12..12 + length];
        assert_eq!(u32_at(file, 12 + length), masked_crc(data), "checksum of a record");
        file = &file[16 + length..];

        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        let mut event = Event::default();
        for (number, field) in fields(data) {
            match (number, field) {
                (2, Field::Number(step)) => event.step = step,
                (3, Field::Bytes(bytes)) => event.version = text(bytes),
                _ => {}
            }
        }
        for value in bytes_of(data, 5).into_iter().flat_map(|summary| bytes_of(summary, 1)) {
            let tag = text(bytes_of(value, 1)[0]);
            if let [x] = bytes_of(value, 2)[..] {
                event.scalars.push((tag.clone(), f32::from_le_bytes(x.try_into().expect("four"))));
            }
            if let [histogram] = bytes_of(value, 5)[..] {
                let buckets = bytes_of(histogram, 7)[0].chunks_exact(8);
                let buckets = buckets.map(|x| f64::from_le_bytes(x.try_into().expect("eight"))).collect();
                event.histograms.push((tag.clone(), buckets));
            }
            if let [tensor] = bytes_of(value, 8)[..] {
                event.texts.push((tag, text(bytes_of(tensor, 8)[0])));
            }
        }
        events.push(event);
    }
    events
}

/// The bytes of the only event file of a run.
fn events_of(folder: &RunFolder) -> Vec<u8> {
    let all = names(&folder.log_dir());
    let events: Vec<&String> = all.iter().filter(|name| name.starts_with("events.out.tfevents.")).collect();
    assert_eq!(events.len(), 1, "{all:?}");
    fs::read(folder.log_dir().join(events[0])).expect("read")
}

#[test]
fn events_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer = EventWriter::create(folder.path()).expect("made");
    writer.scalars(500, &[("a/b", 1.5), ("nan", f64::NAN), ("c", -2.0)]).expect("written");
    writer.scalars(600, &[("nan", f64::NAN)]).expect("nothing to write");
    writer.histogram(1 << 40, "w", &[0.0, 1.0, 1.0, f32::NAN, 30.0]).expect("written");
    writer.histogram(1, "same", &[2.0; 7]).expect("written");
    writer.text(3, "spec", "**x** \u{b1}").expect("written");
    writer.flush().expect("flushed");

    let bytes = fs::read(writer.path()).expect("read");
    assert_eq!(bytes.len() as u64, writer.len_bytes());
    let events = decode(&bytes);
    assert_eq!(events.len(), 5);
    assert_eq!(events[0].version, "brain.Event:2");
    assert_eq!((events[1].step, &events[1].scalars), (500, &vec![("a/b".to_string(), 1.5), ("c".to_string(), -2.0)]));
    let (tag, buckets) = &events[2].histograms[0];
    assert_eq!((events[2].step, tag.as_str(), buckets.len()), (1 << 40, "w", 30));
    assert_eq!((buckets[0], buckets[1], buckets[29]), (1.0, 2.0, 1.0));
    assert_eq!(events[3].histograms[0].1.iter().sum::<f64>(), 7.0);
    assert_eq!(events[4].texts, [("spec".to_string(), "**x** \u{b1}".to_string())]);
}

/// Runs Python, or says why not. `SLM_PYTHON` names another interpreter.
fn python(args: &[&str]) -> Option<String> {
    let program = std::env::var("SLM_PYTHON").unwrap_or_else(|_| "python3".to_string());
    let output = match Command::new(&program).args(args).output() {
        Ok(output) if output.status.code() != Some(3) => output,
        Ok(output) => {
            println!("skipped: {}", String::from_utf8_lossy(&output.stdout).trim());
            return None;
        }
        Err(err) => {
            println!("skipped: {program}: {err}");
            return None;
        }
    };
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    Some(text)
}

#[test]
fn tensorboard_itself_reads_the_events() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let folder = new_run(data.path());
    let mut reporter = Reporter::start(Options { graphs: false, ..options(&folder) }).expect("started");
    feed(&mut reporter, 500, 9_500).expect("fed");
    reporter.histograms(0, 10_000, model(0.0)).expect("sent");
    reporter.finish().expect("finished");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tools/check_tensorboard.py");
    let Some(text) = python(&[script, folder.log_dir().to_str().expect("UTF-8")]) else { return };
    for line in [
        "scalar total_reward/trial0_session1 19 1000 10000 301",
        "scalar frame/trial0_session0 20 500 10000 10000",
        "histogram actor.0.weight/trial0_session0 1 10000 10000 6",
        "text spec/trial0 1 0 0 29",
    ] {
        assert!(text.lines().any(|found| found == line), "no `{line}` in\n{text}");
    }
}

#[test]
fn python_opens_a_model() {
    let data = tempfile::tempdir().expect("a temporary folder");
    let path = data.path().join("m.safetensors");
    let frame = DataFrame { names: vec!["a".into()], rows: vec![vec![0.25], vec![f64::NAN]] };
    let meta = BTreeMap::from([("spec".to_string(), "{}".to_string())]);
    Checkpoint { meta, tensors: model(1.0), frames: vec![frame] }.write(&path).expect("written");
    let script = "
import sys
try:
    from safetensors import safe_open
    from safetensors.numpy import load_file
except ImportError:
    print('the Python package `safetensors` is not installed')
    sys.exit(3)
arrays = load_file(sys.argv[1])
print({name: (str(array.dtype), array.shape) for name, array in sorted(arrays.items())})
print(arrays['actor.0.weight'].tolist(), safe_open(sys.argv[1], 'np').metadata()['format'])";
    let Some(text) = python(&["-c", script, path.to_str().expect("UTF-8")]) else { return };
    let shapes = "{'actor.0.weight': ('float32', (2, 3)), 'data_frame.0': ('float64', (2, 1))}";
    assert_eq!(text.trim(), format!("{shapes}\n[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]] slm-fast"));
}
