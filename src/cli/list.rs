//! `slm-fast list` and `slm-fast plot`: the runs of a data folder as a table, and several runs in one graph.

use std::path::{Path, PathBuf};

use slm_fast::error::{Error, Result};
use slm_fast::lab::progress::{count, number};
use slm_fast::report::files::write_whole;
use slm_fast::report::list::{Entry, Kind, State, list as runs};
use slm_fast::report::overlay::{Run, file_stem, graph};

use super::{Ending, ListArgs, PlotArgs, say};

/// Prints a line per run, or JSON.
pub fn list(args: &ListArgs) -> Result<Ending> {
    let entries = runs(&args.data)?;
    if args.json {
        let text = serde_json::to_string_pretty(&entries)
            .map_err(|error| Error::new("", format!("cannot be expressed in JSON: {error}")))?;
        say(&text);
        return Ok(Ending::Success);
    }
    if entries.is_empty() {
        say(&format!("no runs in {}", args.data.display()));
        return Ok(Ending::Success);
    }
    let heads = ["folder", "spec", "kind", "state", "done", "score", "device", "started"].map(str::to_string);
    let rows: Vec<[String; 8]> = std::iter::once(heads).chain(entries.iter().map(cells)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..8).map(width).collect();
    for row in &rows {
        let padded: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        say(padded.join("  ").trim_end());
    }
    Ok(Ending::Success)
}

/// A run as text.
fn cells(entry: &Entry) -> [String; 8] {
    let frames = |frames: Option<u64>| frames.map_or("?".to_string(), |frames| count(frames as f64));
    let done = match entry.kind {
        Kind::Train => format!("{} of {} frames", frames(Some(entry.frame)), frames(entry.max_frame)),
        Kind::Search => format!("{} of {} trials", frames(entry.trials_done), frames(entry.trials)),
    };
    let kind = match entry.kind {
        Kind::Train => "train",
        Kind::Search => "search",
    };
    let state = match entry.state {
        State::Complete => "complete",
        State::Running => "running",
        State::Interrupted => "interrupted",
    };
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let (folder, score) = (entry.folder.display().to_string(), entry.score.map_or(String::new(), number));
    let (device, started) = (text(&entry.device), text(&entry.started));
    [folder, entry.spec.clone(), kind.to_string(), state.to_string(), done, score, device, started]
}

/// Draws runs over each other as PNG and SVG.
pub fn plot(args: &PlotArgs) -> Result<Ending> {
    let runs = args.folders.iter().map(|folder| Run::open(folder)).collect::<Result<Vec<Run>>>()?;
    let graph = graph(runs, args.title.clone(), args.legends.as_deref())?;
    let stem = match &args.output {
        Some(path) => stem(path)?,
        None => PathBuf::from(file_stem(&graph)),
    };
    for (ext, bytes) in [("png", graph.to_png()), ("svg", graph.to_svg().into_bytes())] {
        let path = PathBuf::from(format!("{}.{ext}", stem.display()));
        write_whole(&path, &bytes)?;
        say(&path.display().to_string());
    }
    Ok(Ending::Success)
}

/// A file's path without `.png` or `.svg`.
fn stem(path: &Path) -> Result<PathBuf> {
    match path.extension().and_then(|ext| ext.to_str()) {
        None | Some("png" | "svg") => Ok(path.with_extension("")),
        Some(other) => Err(Error::new(path.display().to_string(), format!("a graph is no `.{other}` file"))
            .hint("both `.png` and `.svg` are written; give either name")),
    }
}
