//! The `meta` section: sessions, trials, log points, device, and what a run writes about itself.

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use std::fmt;
use std::str::FromStr;

/// The devices that there are, for messages.
const EXPECTED: &str = "`auto`, `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`";

/// Where a run computes: `auto`, `cpu`, `cuda`, `cuda:N`, `wgpu` or `wgpu:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The fastest device present.
    #[default]
    Auto,
    /// Threads and SIMD.
    Cpu,
    /// An NVIDIA GPU through the driver, by its number.
    Cuda(usize),
    /// Any GPU through Vulkan, Metal or DX12, by its number.
    Wgpu(usize),
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => write!(f, "auto"),
            DeviceChoice::Cpu => write!(f, "cpu"),
            DeviceChoice::Cuda(0) => write!(f, "cuda"),
            DeviceChoice::Cuda(number) => write!(f, "cuda:{number}"),
            DeviceChoice::Wgpu(0) => write!(f, "wgpu"),
            DeviceChoice::Wgpu(number) => write!(f, "wgpu:{number}"),
        }
    }
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let (name, number) = match text.split_once(':') {
            None => (text, Some(0)),
            Some((name, number)) => (name, number.parse().ok()),
        };
        match (name, number) {
            ("auto", _) if text == name => Ok(DeviceChoice::Auto),
            ("cpu", _) if text == name => Ok(DeviceChoice::Cpu),
            ("cuda", Some(number)) => Ok(DeviceChoice::Cuda(number)),
            ("wgpu", Some(number)) => Ok(DeviceChoice::Wgpu(number)),
            _ => Err(format!("unknown device `{text}`, expected {EXPECTED}")),
        }
    }
}

impl Serialize for DeviceChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceChoice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for DeviceChoice {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DeviceChoice".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": format!("Where a run computes: {EXPECTED}."),
            "type": "string",
            "pattern": "^(auto|cpu|(cuda|wgpu)(:[0-9]+)?)$"
        })
    }
}

/// Number format of the nets' forward and backward passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// bfloat16 with 32-bit sums.
    Bf16,
}

/// The `meta` section.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// Version of the spec format; a larger one than [`super::SPEC_VERSION`] is refused.
    #[serde(default = "spec_version")]
    pub spec_version: u32,
    /// SLM Lab's sharing of nets between processes; not built.
    #[serde(default)]
    pub distributed: Distributed,
    /// Frames between two rows of the data frame.
    #[serde(default = "frequency")]
    pub log_frequency: u64,
    /// Frames between two evaluations; used with `rigorous_eval`.
    #[serde(default = "frequency")]
    pub eval_frequency: u64,
    /// Evaluate in environments of their own; 0 or false: not.
    #[serde(default, deserialize_with = "number_or_switch")]
    pub rigorous_eval: u32,
    /// Sessions of one trial; they differ in seed alone.
    #[serde(default = "one")]
    pub max_session: usize,
    /// Trials of an experiment; null: 1.
    #[serde(default)]
    pub max_trial: Option<usize>,
    /// The seed every random number follows from; null: drawn once and saved.
    #[serde(default)]
    pub random_seed: Option<u32>,
    /// Where the run computes.
    #[serde(default)]
    pub device: DeviceChoice,
    /// Number format of the nets.
    #[serde(default)]
    pub precision: Precision,
    /// CPU cores and GPUs of one trial in a search.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_resources: Option<SearchResources>,
    /// How a search draws its trials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_sampler: Option<SearchSampler>,
    /// Trials that a search draws at once; the next are drawn when these are done. null: all for `random` and `grid`,
    /// 16 for `tpe`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_wave: Option<usize>,
    /// When a search stops a trial early (ASHA, Li et al. 2020).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search_scheduler: Option<SearchScheduler>,

    /// Written by a run: whose output it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment: Option<i64>,
    /// Written by a run: index of the trial.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<i64>,
    /// Written by a run: index of the session; -1 at trial level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<i64>,
    /// Written by SLM Lab: the first GPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda_offset: Option<i64>,
    /// Written by a run: it was resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume: Option<bool>,
    /// Written by a run: when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub experiment_ts: Option<String>,
    /// Written by a run: folder and stem of its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepath: Option<String>,
    /// Written by a run: its folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub predir: Option<String>,
    /// Written by a run: folder and stem of its graphs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph_prepath: Option<String>,
    /// Written by a run: folder and stem of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub info_prepath: Option<String>,
    /// Written by a run: folder and stem of its logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_prepath: Option<String>,
    /// Written by a run: folder and stem of its models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_prepath: Option<String>,
    /// Written by a run: the commit that the program was built from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_sha: Option<String>,
    /// Written by a run: the sources it was built from had changes beside that commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_dirty: Option<bool>,
}

/// SLM Lab's sharing of nets between processes (Hogwild), not built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Distributed {
    /// `false`.
    #[default]
    No,
    /// Gradients are pushed to nets in shared memory.
    Shared,
    /// The same, and the session waits for them.
    Synced,
}

impl Serialize for Distributed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Distributed::No => serializer.serialize_bool(false),
            Distributed::Shared => serializer.serialize_str("shared"),
            Distributed::Synced => serializer.serialize_str("synced"),
        }
    }
}

impl<'de> Deserialize<'de> for Distributed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Value::deserialize(deserializer)? {
            Value::Null | Value::Bool(false) => Ok(Distributed::No),
            Value::String(s) if s == "shared" => Ok(Distributed::Shared),
            Value::String(s) if s == "synced" => Ok(Distributed::Synced),
            other => Err(D::Error::custom(format!("invalid type: {other}, expected false, `shared` or `synced`"))),
        }
    }
}

impl JsonSchema for Distributed {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Distributed".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "enum": [false, "shared", "synced"] })
    }
}

/// `meta.search_resources`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchResources {
    /// CPU cores of one trial.
    #[serde(default = "unit")]
    pub cpu: f64,
    /// GPUs of one trial.
    #[serde(default)]
    pub gpu: f64,
}

/// How a search draws its trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SearchSampler {
    /// Each value from its own distribution.
    Random,
    /// Every combination of the listed values, in order.
    Grid,
    /// Tree-structured Parzen estimator (Bergstra et al. 2011), from the trials that are done.
    Tpe,
}

/// `meta.search_scheduler`: the arguments of asynchronous successive halving.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SearchScheduler {
    /// Frames before a trial may be stopped.
    #[serde(default = "grace_period")]
    pub grace_period: u64,
    /// Of this many trials one goes on at each rung.
    #[serde(default = "reduction_factor")]
    pub reduction_factor: f64,
    /// Brackets of different grace periods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub brackets: Option<usize>,
    /// Stop trials of the last rung too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_last_trials: Option<bool>,
}

fn grace_period() -> u64 {
    1
}

fn reduction_factor() -> f64 {
    4.0
}

fn unit() -> f64 {
    1.0
}

fn number_or_switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(0),
        Value::Bool(on) => Ok(on.into()),
        other => u32::deserialize(&other).map_err(D::Error::custom),
    }
}

fn spec_version() -> u32 {
    super::SPEC_VERSION
}

fn frequency() -> u64 {
    10_000
}

fn one() -> usize {
    1
}
