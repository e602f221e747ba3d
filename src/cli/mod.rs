//! What a person types: every command and option, and the code that the process ends with.

mod benchmark;
mod check;
mod dev;
mod devices;
mod enjoy;
mod hub;
mod list;
mod report;
mod reproduce;
mod screen;
mod search;
mod serve;
mod train;
mod verify;

use std::io::Write;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use slm_fast::env::verify::DEFAULT_TOLERANCE;
use slm_fast::error::Error;
use slm_fast::lab::provenance::Program;
use slm_fast::spec::DeviceChoice;

/// What the program found around itself when it started.
pub struct Surroundings {
    /// When the process started.
    pub started: Instant,
    /// Whether a window can be opened.
    pub has_display: bool,
    /// The commit that the program was built from, and whether its sources differed from it.
    pub built_from: (&'static str, Option<bool>),
    /// The command line.
    pub command: String,
}

impl Surroundings {
    /// What a run's files say about this program.
    fn program(&self) -> Program {
        let (sha, git_dirty) = self.built_from;
        Program { git_sha: sha.to_string(), git_dirty, command: self.command.clone() }
    }

    /// `0.1.0 (1a2b3c4d5 with changes)`.
    fn version(&self) -> String {
        let (sha, dirty) = self.built_from;
        let changes = if dirty == Some(true) { " with changes" } else { "" };
        format!("{} ({sha}{changes})", env!("CARGO_PKG_VERSION"))
    }
}

/// How a command ended, as the process tells its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// 0.
    Success,
    /// 1: an environment does not match its trace, a run not itself made again.
    Mismatch,
    /// 2: the command could not do what was asked; the message is already printed.
    Failure,
    /// 130: stopped by Ctrl-C, with a checkpoint saved.
    Interrupted,
}

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> ExitCode {
        ExitCode::from(match ending {
            Ending::Success => 0,
            Ending::Mismatch => 1,
            Ending::Failure => 2,
            Ending::Interrupted => 130,
        })
    }
}

/// A deep-RL lab: one JSON spec in, trained agents, data and graphs out.
#[derive(Debug, Parser)]
#[command(name = "slm-fast", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 verify-env or reproduce found a difference; 2 something is wrong (the message says what and where);
130 stopped by Ctrl-C with a checkpoint saved.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a trial: every session of a spec, together
    Train(TrainArgs),
    /// Search: many trials of a spec whose `search` section says what differs between them
    Search(SearchArgs),
    /// Run many specs with several seeds each, and hold their scores against targets
    Benchmark(BenchmarkArgs),
    /// One job of a search, as a cluster's worker runs it
    #[command(hide = true)]
    SearchJob(JobArgs),
    /// One quick session with debug output of every update, in a window where a display exists
    Dev(DevArgs),
    /// Replay the best model of a finished run; never writes into its folder
    Enjoy(EnjoyArgs),
    /// Make a finished run again from its saved spec and seed, and say whether every bit is the same
    Reproduce(ReproduceArgs),
    /// Send a run to a dataset of the Hugging Face hub (HF_TOKEN, HF_ENDPOINT)
    Push(PushArgs),
    /// Bring runs from a dataset of the Hugging Face hub, or list them
    Pull(PullArgs),
    /// List the runs of a data folder with their state and score
    List(ListArgs),
    /// Show the runs of a data folder live, in a browser
    Serve(ServeArgs),
    /// Draw runs over each other: the mean return of each with its deviation
    Plot(PlotArgs),
    /// Write the graphs of a search and the report pages of runs again, from the data in their folders
    Report(ReportArgs),
    /// Print the resolved plan of each spec, or everything that is wrong with it
    Check(CheckArgs),
    /// Print the JSON Schema of a spec file, for editors
    Schema,
    /// Replay recorded transitions through an environment and print the worst errors
    VerifyEnv(VerifyArgs),
    /// List the devices of this machine
    Devices,
}

#[derive(Debug, Args)]
struct SpecArgs {
    /// Which spec of the file, where it holds several
    name: Option<String>,
    /// Set any key of the spec, or fill a `${var}`: `--set agent.algorithm.gamma=0.98`
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Where it runs: auto, cpu, cuda, cuda:N, wgpu, wgpu:N (default: the spec's `meta.device`)
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// The seed of every random number (default: the spec's `meta.random_seed`, else drawn once and saved)
    #[arg(long)]
    seed: Option<u32>,
    /// Folder that receives the run's folder
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// CPU threads (default: one per core); changes the speed, never a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// The spec file (JSON or YAML)
    #[arg(required_unless_present = "resume")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    common: SpecArgs,
    /// Continue the run in this folder, with its own spec and seed
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["spec", "name", "set", "seed", "data"])]
    resume: Option<PathBuf>,
    /// Seconds between resumable checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    checkpoint_every: Duration,
    /// Print every log row
    #[arg(long, short, conflicts_with = "quiet")]
    verbose: bool,
    /// Print only the result
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct SearchArgs {
    /// The spec file (JSON or YAML), with a `search` section
    #[arg(required_unless_present = "resume")]
    spec: Option<PathBuf>,
    #[command(flatten)]
    common: SpecArgs,
    /// Continue the search in this folder, with its own spec and seed
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["spec", "name", "set", "seed", "data"])]
    resume: Option<PathBuf>,
    /// Who computes: this process, or a Ray cluster (see tools/ray)
    #[arg(long, value_enum, default_value_t = EngineName::Local)]
    engine: EngineName,
    /// Ray's address: auto, HOST:PORT, ray://HOST:PORT, or local to start Ray on this machine
    #[arg(long, value_name = "ADDRESS", default_value = "auto")]
    address: String,
    /// The Python interpreter that has Ray and tools/ray
    #[arg(long, value_name = "FILE", default_value = "python3")]
    python: PathBuf,
    /// Trials whose models are kept, best first; -1: all
    #[arg(long, value_name = "N", default_value_t = 3, allow_negative_numbers = true)]
    keep: i64,
    /// Seconds between resumable checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    checkpoint_every: Duration,
    /// Print only the result
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct BenchmarkArgs {
    /// A suite file, or spec files
    #[arg(required_unless_present = "resume")]
    specs: Vec<PathBuf>,
    /// Seeds, a trial of every spec each (default: the suite's, else 1,2,3)
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    seeds: Option<Vec<u32>>,
    /// Set any key of every spec, or fill a `${var}`
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
    /// Where it runs: auto, cpu, cuda, cuda:N, wgpu, wgpu:N
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// Folder that receives the benchmark's folder
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// CPU threads (default: one per core); changes the speed, never a score
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Continue the benchmark in this folder, with its own specs and seeds
    #[arg(long, value_name = "FOLDER", conflicts_with_all = ["specs", "seeds", "set", "data"])]
    resume: Option<PathBuf>,
    /// Seconds between resumable checkpoints
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    checkpoint_every: Duration,
    /// Print only the result
    #[arg(long, short)]
    quiet: bool,
}

/// Who computes a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum EngineName {
    Local,
    Ray,
}

#[derive(Debug, Args)]
struct JobArgs {
    /// A folder with a `job.json`
    folder: PathBuf,
}

#[derive(Debug, Args)]
struct DevArgs {
    /// The spec file (JSON or YAML)
    spec: PathBuf,
    #[command(flatten)]
    common: SpecArgs,
    /// Open no window
    #[arg(long)]
    no_render: bool,
}

#[derive(Debug, Args)]
struct EnjoyArgs {
    /// The folder of a run
    folder: PathBuf,
    /// Episodes to play
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    episodes: u32,
    /// Act by the policy's mode, not by a sample
    #[arg(long)]
    deterministic: bool,
    /// Show the environment in a window
    #[arg(long)]
    render: bool,
    /// Write an animation of the episodes
    #[arg(long, value_name = "FILE.gif")]
    record: Option<PathBuf>,
    /// The seed of the episodes
    #[arg(long, default_value_t = 0)]
    seed: u32,
}

#[derive(Debug, Args)]
struct ReproduceArgs {
    /// The folder of a finished run; it is only read from
    folder: PathBuf,
    /// Folder that receives the folder of the run made again
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Where it runs (default: where the run was made)
    #[arg(long, value_name = "DEVICE")]
    device: Option<DeviceChoice>,
    /// CPU threads (default: one per core); changes the speed, never a result
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
    /// Print only the result
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct PushArgs {
    /// The folder of a run
    folder: PathBuf,
    /// The dataset (default: the variable HF_REPO); it is made where there is none
    #[arg(long, value_name = "USER/NAME")]
    repo: Option<String>,
    /// Print what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// Make the dataset a private one, where it is made
    #[arg(long)]
    private: bool,
    /// Send the checkpoints that continue the run, too
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Args)]
struct PullArgs {
    /// A part of the names of the runs' folders, or USER/NAME/PART
    #[arg(required_unless_present = "list")]
    what: Option<String>,
    /// The dataset (default: the variable HF_REPO)
    #[arg(long, value_name = "USER/NAME")]
    repo: Option<String>,
    /// Folder that receives the runs' folders; one that is there is never written to
    #[arg(long, value_name = "DIR", default_value = "data")]
    data: PathBuf,
    /// Print the names of the runs, and bring none
    #[arg(long)]
    list: bool,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The folder that holds the runs
    #[arg(value_name = "DATA", default_value = "data")]
    data: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// The folder that holds the runs
    #[arg(value_name = "DATA", default_value = "data")]
    data: PathBuf,
    /// Where to listen; 0 takes any port that is free
    #[arg(long, value_name = "N", default_value_t = 8040)]
    port: u16,
    /// Which of the machine's addresses to listen on; any but the loopback one needs a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    address: IpAddr,
    /// Only who knows it may look: `?token=T` in the address, or `Authorization: Bearer T`
    #[arg(long, value_name = "T")]
    token: Option<String>,
}

#[derive(Debug, Args)]
struct PlotArgs {
    /// Folders of runs; of a search the best trial is drawn
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// Where to draw, as PNG and SVG (default: `{env}_multi_trial_graph_mean_returns_ma_vs_frames` here)
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Above the graph (default: the environment)
    #[arg(long)]
    title: Option<String>,
    /// A name per folder (default: the algorithms)
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    legends: Option<Vec<String>>,
}

#[derive(Debug, Args)]
struct ReportArgs {
    /// Folders of runs
    #[arg(required = true)]
    folders: Vec<PathBuf>,
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// Spec files (JSON or YAML)
    #[arg(required = true)]
    specs: Vec<PathBuf>,
    /// Set any key of every spec, or fill a `${var}`
    #[arg(long = "set", short = 's', value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

#[derive(Debug, Args)]
struct VerifyArgs {
    /// Gymnasium's id, for example `CartPole-v1`
    env: String,
    /// Recorded one-step transitions
    trace: PathBuf,
    /// Where the environment runs: auto or cpu
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
    /// Largest error of a field that passes, as a share of 1 + |recorded|
    #[arg(long, value_name = "X", default_value_t = DEFAULT_TOLERANCE)]
    tolerance: f64,
}

fn key_value(text: &str) -> std::result::Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_string(), value.to_string())),
        _ => Err("write KEY=VALUE, for example `--set agent.algorithm.gamma=0.98`".to_string()),
    }
}

fn seconds(text: &str) -> std::result::Result<Duration, String> {
    match text.parse::<f64>() {
        // thirty years: a clock can still count on from now
        Ok(value) if (0.0..=1e9).contains(&value) => Ok(Duration::from_secs_f64(value)),
        _ => Err("not a number of seconds from 0 to 1e9".to_string()),
    }
}

/// Reads the arguments, does what they say, prints what went wrong.
pub fn run(around: &Surroundings) -> ExitCode {
    let cli = Cli::command().version(&*around.version().leak()).get_matches();
    let cli = Cli::from_arg_matches(&cli).unwrap_or_else(|error| error.exit());
    let outcome = match cli.command {
        Command::Train(args) => train::train(&args, around),
        Command::Search(args) => search::search(&args, around),
        Command::Benchmark(args) => benchmark::benchmark(&args, around),
        Command::SearchJob(args) => search::job(&args),
        Command::Dev(args) => train::dev(&args, around),
        Command::Enjoy(args) => enjoy::enjoy(&args, around),
        Command::Reproduce(args) => reproduce::reproduce(&args, around),
        Command::Push(args) => hub::push(&args),
        Command::Pull(args) => hub::pull(&args),
        Command::List(args) => list::list(&args),
        Command::Serve(args) => serve::serve(&args),
        Command::Plot(args) => list::plot(&args),
        Command::Report(args) => report::report(&args),
        Command::Check(args) => Ok(check::check(&args)),
        Command::Schema => Ok(check::schema()),
        Command::VerifyEnv(args) => verify::verify_env(&args),
        Command::Devices => Ok(devices::list()),
    };
    outcome
        .unwrap_or_else(|error| {
            complain(&error);
            Ending::Failure
        })
        .into()
}

/// Prints an error the way every command does.
fn complain(error: &Error) {
    note(&format!("error: {error}"));
}

/// Prints a line about the work to stderr. Nobody to tell is no failure, as it would be with `eprintln!`.
fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Prints a line of a command's result. A reader that has gone away (`| head`) is no failure.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}
