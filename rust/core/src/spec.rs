//! An endpoint's state as the data plane works with it: plain data with nothing left open, not yet checked.
//!
//! Not here: the form in which it is handed over (`endpoint_state`), the checks and the compiled form (`snapshot`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::limits::{FallbackSpec, LimitsSpec};
use crate::slots::SlotTable;

/// The whole state of one endpoint.
#[derive(Clone, Debug, PartialEq)]
pub struct EndpointSpec {
    /// The name clients call.
    pub name: String,
    /// The control plane's number for this state; answers carry it.
    pub revision: u64,
    /// Every version to be loaded.
    pub versions: Vec<VersionSpec>,
    /// The version that takes every slot not given away.
    pub champion: String,
    /// The slots given away.
    pub table: SlotTable,
    /// The header that holds the sticky key, in lower case; `None` draws per request.
    pub sticky: Option<String>,
    /// How long a request may take, in milliseconds.
    pub timeout_ms: u64,
    /// Names for a tensor's columns, by tensor.
    pub columns: BTreeMap<String, Vec<String>>,
    /// Names for the classes of an output, by tensor: what the classification extension says.
    pub labels: BTreeMap<String, Vec<String>>,
    /// What JSON answers say where a number is none.
    pub non_finite: NonFinite,
    /// What callers may take.
    pub limits: LimitsSpec,
    /// Who answers when the chosen version does not.
    pub fallback: Option<FallbackSpec>,
    /// Versions that are left out because they do not load, with the reason.
    pub omitted: BTreeMap<String, String>,
    /// The file that holds the drift baseline.
    pub baseline: Option<String>,
    /// Whether a document asks for this now, so that it has to fit its models; what was served before is not judged again.
    pub fresh: bool,
    /// Whether this state overtakes a load of the same endpoint that is in progress.
    pub urgent: bool,
}

/// What a JSON answer says for NaN and the infinities, which JSON has no numbers for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NonFinite {
    /// Nothing: the request fails and names the element.
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
    /// What it is, whatever it is called: equal digests are the same thing.
    pub digest: String,
    /// The model file to load.
    pub artifact: Option<String>,
    /// Outputs that are always the same, by output name: a scalar or one row's values.
    pub constant: Option<BTreeMap<String, Value>>,
    /// How it is run.
    pub run: RunSpec,
    /// Whether it stays in memory whatever else needs room.
    pub pinned: bool,
    /// Whether callers may take it for the champion: its signature has to be the same.
    pub compatible: bool,
}

/// What a version computes on.
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

/// How a version's model is run; the default decides from what is measured.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunSpec {
    /// On which thread.
    pub placement: PlacementRule,
    /// Runs at the same time at most; 0 is as many as there are pool threads.
    pub instances: u16,
    /// Threads within one run; 0 measures one against all cores when the model is loaded.
    pub threads: u16,
    /// Rows that are run together at most; 1 is no batching.
    pub max_batch: u32,
    /// How long a batch may wait for rows that are expected, in microseconds.
    #[serde(rename = "max_delay")]
    pub max_delay_us: u64,
    /// Sizes that batches are filled up to, ascending, the last one `max_batch`; empty runs them as they are.
    pub buckets: Vec<u32>,
    /// Whether the session keeps its memory between runs.
    pub arena: bool,
    /// How far the runtime rewrites the graph.
    pub graph_optimization: GraphOptimization,
    /// What it computes on: the first of these that can.
    pub device: Vec<Device>,
    /// Memory of the device that an instance takes at most, in bytes; 0 is no bound.
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

/// Which thread runs a version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementRule {
    /// Decided from measured run times.
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
    /// Everything, layouts included.
    #[default]
    All,
    /// Fusions as well.
    Extended,
    /// What keeps the graph's operators.
    Basic,
    /// Nothing.
    Off,
}

impl RunSpec {
    /// The most rows of a batch that may be asked for.
    pub const MAX_BATCH: u32 = 4096;

    /// What contradicts itself in it, in words.
    pub fn fault(&self) -> Option<&'static str> {
        let batched = self.max_batch > 1;
        if self.max_batch == 0 || self.max_batch > Self::MAX_BATCH {
            return Some("max_batch must be from 1 to 4096");
        }
        if !batched && (self.max_delay_us > 0 || !self.buckets.is_empty()) {
            return Some("max_delay and buckets are about batches: max_batch must be above 1");
        }
        if batched && self.placement == PlacementRule::Inline {
            return Some("nothing is batched inline");
        }
        let devices = self.device.iter().any(|device| *device != Device::Cpu);
        if self.device.is_empty() {
            return Some("device must name at least one");
        }
        if devices && self.placement == PlacementRule::Inline {
            return Some("a device has threads of its own, so nothing runs inline there");
        }
        if !devices && self.device_memory > 0 {
            return Some("device_memory is about devices, and none is named");
        }
        let ascending = self.buckets.is_sorted_by(|a, b| a < b) && self.buckets.first() != Some(&0);
        if !ascending || self.buckets.last().is_some_and(|last| *last != self.max_batch) {
            return Some("buckets must ascend from 1 and end with max_batch");
        }
        None
    }
}
