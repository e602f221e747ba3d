//! What both benches share: criterion as the clock, a line of our own per figure, and the CSV of the run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use slm_fast::lab::git::Source;

/// Where figures go: standard output, and the file that `SLM_FAST_BENCH_CSV` names.
pub struct Report {
    csv: Option<Csv>,
}

/// `benches/runs/<date>-<machine>.csv`; columns date, sha, machine, name, value, unit.
struct Csv {
    file: File,
    /// The first three columns of every row.
    stamp: String,
}

impl Report {
    /// Opens the CSV to append to, if one is asked for. Its name says date and machine.
    pub fn open() -> Report {
        let csv = std::env::var_os("SLM_FAST_BENCH_CSV").map(|path| {
            let path = PathBuf::from(path);
            Csv::open(&path).unwrap_or_else(|what| {
                eprintln!("error: SLM_FAST_BENCH_CSV: {}: {what}", path.display());
                std::process::exit(2)
            })
        });
        Report { csv }
    }

    /// One figure, to the CSV alone.
    pub fn row(&mut self, name: &str, value: f64, unit: &str) {
        if let Some(csv) = &mut self.csv {
            let row = format!("{},{name},{value},{unit}\n", csv.stamp);
            csv.file.write_all(row.as_bytes()).expect("the CSV takes a row");
        }
    }

    /// One figure, as a line and as a row.
    pub fn line(&mut self, name: &str, value: f64, unit: &str) {
        println!("{name:48} {:>14} {unit}", human(value));
        self.row(name, value, unit);
    }
}

impl Csv {
    fn open(path: &Path) -> Result<Csv, String> {
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let (date, machine) = match (stem.get(..10), stem.get(10..11), stem.get(11..)) {
            (Some(date), Some("-"), Some(machine)) if !machine.is_empty() && !machine.contains(',') => (date, machine),
            _ => return Err("is not named <date>-<machine>.csv, for example 2026-11-21-laptop.csv".to_string()),
        };
        let failed = |err: std::io::Error| err.to_string();
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            file.write_all(b"date,sha,machine,name,value,unit\n").map_err(failed)?;
        }
        let source = Source::of(Path::new("."));
        let sha = source.sha.get(..9).unwrap_or(&source.sha);
        let changed = if source.dirty == Some(true) { "+" } else { "" };
        Ok(Csv { file, stamp: format!("{date},{sha}{changed},{machine}") })
    }
}

/// Thousands with commas; three digits of anything small.
pub fn human(value: f64) -> String {
    if value.abs() < 1000.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{value:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// How long and how often criterion measures.
#[derive(Clone, Copy)]
pub struct Effort {
    pub samples: usize,
    pub warm_up: Duration,
    pub measure: Duration,
}

/// Lets criterion time `work` and gives the median seconds of one call, or none where a filter left it out.
pub fn time(c: &mut Criterion, group: &str, name: &str, effort: Effort, mut work: impl FnMut()) -> Option<f64> {
    let mut samples: Vec<f64> = Vec::new();
    let mut group = c.benchmark_group(group);
    group.sample_size(effort.samples).warm_up_time(effort.warm_up).measurement_time(effort.measure);
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function(BenchmarkId::from_parameter(name), |b| {
        b.iter_custom(|calls| {
            let start = Instant::now();
            (0..calls).for_each(|_| work());
            let took = start.elapsed();
            samples.push(took.as_secs_f64() / calls as f64);
            took
        });
    });
    group.finish();
    // criterion warms up first; its samples are the last
    let measured = samples.len().saturating_sub(effort.samples);
    median(&mut samples[measured..])
}

/// The middle of some numbers.
pub fn median(numbers: &mut [f64]) -> Option<f64> {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied()
}
