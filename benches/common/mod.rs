//! What both benches share: what was asked for, criterion as the clock of the cpu, a line of our own per figure, and the
//! CSV of the run.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode};
use slm_fast::device::{Device, Kind, Precision};
use slm_fast::lab::device::open;
use slm_fast::spec::DeviceChoice;

/// What stands behind `cargo bench --`: `--device cuda` or `wgpu`, with `:N` or without, for that device (default: cpu),
/// and words of which one has to be in a figure's name.
pub struct Options {
    device: Option<DeviceChoice>,
    filters: Vec<String>,
}

impl Options {
    /// Reads the command line; on an unknown device the process ends.
    pub fn read() -> Options {
        let mut options = Options { device: None, filters: Vec::new() };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let device = match word.strip_prefix("--device") {
                Some("") => words.next(),
                Some(rest) => rest.strip_prefix('=').map(str::to_string),
                None => {
                    options.filters.extend((!word.starts_with('-')).then_some(word));
                    continue;
                }
            };
            let parsed = device.ok_or_else(|| "--device: which one?".to_string()).and_then(|device| device.parse());
            options.device = Some(parsed.unwrap_or_else(|what| stop(&what)));
        }
        options
    }

    /// The gpu to measure; none for the cpu. Ends the process with code 2 where there is no such device.
    pub fn gpu(&self) -> Option<Gpu> {
        let choice = self.device.filter(|choice| *choice != DeviceChoice::Cpu)?;
        let device = open(choice, 0).unwrap_or_else(|error| stop(&error.to_string())).device;
        if device.kind() == Kind::Cpu {
            return None;
        }
        Some(Gpu { choice, device })
    }

    /// The clock of the cpu. Criterion takes no options but its own, so it reads them where there is none of ours.
    pub fn criterion(&self) -> Criterion {
        match (&self.device, self.filters.first()) {
            (None, _) => Criterion::default().configure_from_args(),
            (Some(_), None) => Criterion::default(),
            (Some(_), Some(filter)) => Criterion::default().with_filter(filter),
        }
    }

    /// Whether a figure of a gpu is asked for.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|filter| name.contains(filter.as_str()))
    }
}

/// A gpu to measure. While this is held, opening it again shares everything that is compiled.
pub struct Gpu {
    choice: DeviceChoice,
    device: Device,
}

impl Gpu {
    /// The device once more.
    pub fn open(&self) -> Device {
        open(self.choice, 0).unwrap_or_else(|error| stop(&error.to_string())).device
    }

    pub fn kind(&self) -> Kind {
        self.device.kind()
    }

    /// Its kind in the name of a figure.
    pub fn suffix(&self) -> &'static str {
        if self.kind() == Kind::Cuda { "cuda" } else { "wgpu" }
    }

    pub fn describe(&self) -> String {
        self.device.describe()
    }

    /// Whether it is a program that stands in for a GPU: large sizes would take hours.
    pub fn is_software(&self) -> bool {
        match &self.device {
            #[cfg(feature = "wgpu")]
            Device::Wgpu(wgpu) => wgpu.is_software(),
            _ => false,
        }
    }

    /// Number formats that it has.
    pub fn formats(&self) -> &'static [(&'static str, Precision)] {
        const FORMATS: [(&str, Precision); 2] = [("f32", Precision::F32), ("bf16", Precision::Bf16)];
        if self.kind() == Kind::Cuda { &FORMATS } else { &FORMATS[..1] }
    }
}

fn stop(what: &str) -> ! {
    eprintln!("error: {what}");
    std::process::exit(2)
}

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
            Csv::open(&path).unwrap_or_else(|what| stop(&format!("SLM_FAST_BENCH_CSV: {}: {what}", path.display())))
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
        let (sha, dirty): (&str, Option<bool>) = slm_fast_commit::commit!("benches");
        let sha = sha.get(..9).unwrap_or(sha);
        let changed = if dirty == Some(true) { "+" } else { "" };
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
