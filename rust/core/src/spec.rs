//! The state of an endpoint as the data plane uses it: plain data in which every field has a value, not yet checked.
//!
//! Not here: the form in which it is handed over (`endpoint_state`), the checks and the compiled form (`snapshot`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::feedback::declared::Feedbacks;
use crate::limits::{FallbackSpec, LimitsSpec};
use crate::rules::RuleSpec;
use crate::shadow::{CaptureSpec, IdleShadow, ShadowSpec};
use crate::slots::SlotTable;

/// The whole state of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSpec {
    /// The name that clients call.
    pub name: String,
    /// The control plane's number for this state; responses carry it.
    pub revision: u64,
    /// Every version that must be loaded.
    pub versions: Vec<VersionSpec>,
    /// The version that has every slot that is not given away.
    pub champion: String,
    /// The slots given away.
    pub table: SlotTable,
    /// The header that holds the sticky key, in lower case; with `None` each request draws its slot.
    pub sticky: Option<String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Names for a tensor's columns, by tensor.
    pub columns: BTreeMap<String, Vec<String>>,
    /// Names for the classes of an output, by tensor, for the classification extension.
    pub labels: BTreeMap<String, Vec<String>>,
    /// What JSON responses say for NaN and the infinities.
    pub non_finite: NonFinite,
    /// The limits of callers.
    pub limits: LimitsSpec,
    /// The versions that answer when the chosen one does not.
    pub fallback: Option<FallbackSpec>,
    /// Who answers certain requests, before weights; a rule whose version is not among `versions` matches nothing.
    pub rules: Vec<RuleSpec>,
    /// The versions that get copies of requests: each is among `versions` and is not the champion.
    pub shadows: Vec<ShadowSpec>,
    /// The shadows of the document that do not run.
    pub idle_shadows: Vec<IdleShadow>,
    /// Which requests are captured.
    pub capture: Option<CaptureSpec>,
    /// What may be given on answers; without any, answers carry no receipt.
    pub feedback: Feedbacks,
    /// Versions that are left out because they do not load, with the reason.
    pub omitted: BTreeMap<String, String>,
    /// The file that holds the drift baseline.
    pub baseline: Option<String>,
    /// Whether a document asks for this state now. Such a state must fit its models; one that was served before is not checked again.
    pub fresh: bool,
    /// Whether this state supersedes loads of the same endpoint that are in progress.
    pub urgent: bool,
}

/// What a JSON response says for NaN and the infinities, which are no numbers in JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// The request fails, and its error names the element.
    #[default]
    Error,
    /// `null`.
    Null,
    /// `"NaN"`, `"Infinity"` or `"-Infinity"`.
    String,
}

/// One version: exactly one of `artifact` and `constant`.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionSpec {
    /// The version's name.
    pub name: String,
    /// The digest of what is served: versions with equal digests serve the same.
    pub digest: String,
    /// The model file to load.
    pub artifact: Option<String>,
    /// Constant outputs, by name: a scalar, or the values of one row.
    pub constant: Option<BTreeMap<String, Value>>,
    /// How the model is run.
    pub run: RunSpec,
    /// Whether it stays in memory even if other models need room.
    pub pinned: bool,
    /// Whether it must have the signature of the champion, so that callers need not know which version answers.
    pub compatible: bool,
}

/// The device that a version computes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// An NVIDIA device by its number.
    Cuda(u16),
}

impl std::fmt::Display for Device {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl From<Device> for String {
    fn from(device: Device) -> String {
        device.to_string()
    }
}

impl TryFrom<String> for Device {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Device, String> {
        let number = |text: &str| text.strip_prefix("cuda:")?.parse().ok();
        match (text.as_str(), number(&text)) {
            ("cpu", _) => Ok(Device::Cpu),
            (_, Some(number)) => Ok(Device::Cuda(number)),
            _ => Err(format!("{text:?} is no device: \"cpu\" or \"cuda:0\"")),
        }
    }
}

/// How the model of a version is run. By default measurements decide.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// The kind of thread.
    pub placement: PlacementRule,
    /// The most runs at the same time; 0 is the number of pool threads.
    pub instances: u16,
    /// Threads within one run; with 0 the load measures whether one thread or all cores are faster.
    pub threads: u16,
    /// The most rows of a batch; 1 is no batching.
    pub max_batch: u32,
    /// How long a batch may wait for more rows, in microseconds.
    #[serde(rename = "max_delay")]
    pub max_delay_us: u64,
    /// The sizes that batches are padded to, ascending; the last is `max_batch`. If empty, batches are not padded.
    pub buckets: Vec<u32>,
    /// Whether the session keeps its memory from one run to the next.
    pub arena: bool,
    /// How far the runtime rewrites the graph.
    pub graph_optimization: GraphOptimization,
    /// The devices to compute on: the first that can is used.
    pub device: Vec<Device>,
    /// The most device memory of an instance, in bytes; 0 is no bound.
    pub device_memory: u64,
}

impl Default for RunSpec {
    fn default() -> Self {
        Self {
            placement: PlacementRule::Auto,
            instances: 0,
            threads: 1,
            max_batch: 1,
            max_delay_us: 0,
            buckets: Vec::new(),
            arena: false,
            graph_optimization: GraphOptimization::All,
            device: vec![Device::Cpu],
            device_memory: 0,
        }
    }
}

/// The kind of thread that runs a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementRule {
    /// The data plane decides from measured run times.
    #[default]
    Auto,
    /// Always the IO thread that has the request.
    Inline,
    /// Always a pool thread.
    Pool,
}

/// How far the runtime rewrites a graph when it loads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GraphOptimization {
    /// All optimisations, those of layouts included.
    #[default]
    All,
    /// Basic ones and fusions of operators.
    Extended,
    /// Those that keep the operators of the graph.
    Basic,
    /// None.
    Off,
}

impl RunSpec {
    /// The largest `max_batch`.
    pub const MAX_BATCH: u32 = 4096;

    /// The first contradiction, in words.
    pub fn fault(&self) -> Option<&'static str> {
        let batched = self.max_batch > 1;
        if self.max_batch == 0 || self.max_batch > Self::MAX_BATCH {
            return Some("max_batch must be from 1 to 4096");
        }
        if !batched && (self.max_delay_us > 0 || !self.buckets.is_empty()) {
            return Some("max_delay and buckets need batches: max_batch must be above 1");
        }
        if batched && self.placement == PlacementRule::Inline {
            return Some("placement inline and max_batch exclude each other: inline runs are not batched");
        }
        let devices = self.device.iter().any(|device| *device != Device::Cpu);
        if self.device.is_empty() {
            return Some("device must name at least one device");
        }
        if devices && self.placement == PlacementRule::Inline {
            return Some("placement inline and a device exclude each other: a device has threads of its own");
        }
        if !devices && self.device_memory > 0 {
            return Some("device_memory needs a device: device names none");
        }
        let ascending = self.buckets.is_sorted_by(|a, b| a < b) && self.buckets.first() != Some(&0);
        if !ascending || self.buckets.last().is_some_and(|last| *last != self.max_batch) {
            return Some("buckets must ascend from 1 and end with max_batch");
        }
        None
    }
}
