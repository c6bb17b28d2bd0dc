//! The limits and the fallback of an endpoint's document: plain data and its checks.
//!
//! Not here: the code that enforces them (`rate`, `breaker`, the engine's run queues). Next: `snapshot`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::slots::SLOTS;

/// A reference to a header, by its name in lower case; written `header.<name>`.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HeaderRef(String);

impl TryFrom<String> for HeaderRef {
    type Error = String;

    fn try_from(text: String) -> Result<HeaderRef, String> {
        match text.strip_prefix("header.") {
            Some(name) if !name.is_empty() => Ok(HeaderRef(name.to_ascii_lowercase())),
            _ => Err(format!("{text:?} names no header: \"header.<name>\"")),
        }
    }
}

impl From<HeaderRef> for String {
    fn from(header: HeaderRef) -> String {
        header.0
    }
}

/// Reads a share that is written in slots of 0.01 %.
fn slots_as_fraction<'de, D: Deserializer<'de>>(written: D) -> Result<f64, D::Error> {
    Ok(f64::from(u16::deserialize(written)?) / SLOTS as f64)
}

/// The limits of an endpoint, except its time-out.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LimitsSpec {
    /// The rate of each caller.
    pub rate: Option<RateSpec>,
    /// When a version that fails gets no requests for a while.
    pub breaker: Option<BreakerSpec>,
    /// Which requests run first.
    pub priority: Option<PrioritySpec>,
}

/// The rate of each caller.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "WrittenRate")]
pub struct RateSpec {
    /// The header that identifies a caller, in lower case; without one all callers share the rate.
    pub by: Option<String>,
    /// Requests per second in the long run.
    pub per_second: f64,
    /// Requests at once.
    pub burst: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenRate {
    #[serde(default)]
    by: Option<HeaderRef>,
    per_second: f64,
    #[serde(default)]
    burst: Option<u32>,
}

impl From<WrittenRate> for RateSpec {
    /// The burst is by default the requests of one second.
    fn from(WrittenRate { by, per_second, burst }: WrittenRate) -> RateSpec {
        let burst = burst.unwrap_or(per_second.ceil() as u32);
        RateSpec { by: by.map(String::from), per_second, burst }
    }
}

/// When a version that fails gets no requests for a while.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Failures in a row.
    pub consecutive: u32,
    /// The least share of successes, from 0 to 1.
    #[serde(deserialize_with = "slots_as_fraction")]
    pub success_rate: f64,
    /// The span that the share is taken over, in milliseconds.
    #[serde(rename = "window")]
    pub window_ms: u64,
    /// With fewer responses than this the share says nothing.
    pub min_requests: u32,
}

/// Which requests run first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "WrittenPriority")]
pub struct PrioritySpec {
    /// The header that names the class, in lower case.
    pub by: String,
    /// The classes, the most urgent first.
    pub classes: Vec<String>,
    /// The class of a request that names none of them.
    pub unnamed: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenPriority {
    by: HeaderRef,
    classes: Vec<String>,
    #[serde(default)]
    unnamed: Option<String>,
}

impl From<WrittenPriority> for PrioritySpec {
    /// The class of a request that names none is by default the last one.
    fn from(WrittenPriority { by, classes, unnamed }: WrittenPriority) -> PrioritySpec {
        let unnamed = unnamed.or_else(|| classes.last().cloned()).unwrap_or_default();
        PrioritySpec { by: by.into(), classes, unnamed }
    }
}

/// The versions that answer when the chosen one does not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "must be \"none\" or {to, after}")]
pub enum FallbackSpec {
    /// `"none"`: no other version, not even the champion.
    Disabled(NoFallback),
    /// The champion, then these.
    Listed(FallbackList),
}

/// The word `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum NoFallback {
    /// See [`FallbackSpec::Disabled`].
    #[serde(rename = "none")]
    None,
}

/// Versions that answer when the chosen one does not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackList {
    /// The versions, in their order.
    pub to: Vec<String>,
    /// How long the chosen version has, in milliseconds; by default the whole time of the request.
    #[serde(rename = "after", default)]
    pub after_ms: Option<u64>,
}

impl FallbackSpec {
    /// The same, without versions that are not among `versions`; `None` if none is left.
    pub(crate) fn restricted_to(mut self, versions: &[String]) -> Option<FallbackSpec> {
        if let FallbackSpec::Listed(list) = &mut self {
            list.to.retain(|name| versions.contains(name));
            if list.to.is_empty() {
                return None;
            }
        }
        Some(self)
    }

    /// The listed versions, in their order.
    pub fn to(&self) -> &[String] {
        match self {
            FallbackSpec::Disabled(_) => &[],
            FallbackSpec::Listed(list) => &list.to,
        }
    }

    /// How long the chosen version has, in milliseconds, if the document says it.
    pub fn after_ms(&self) -> Option<u64> {
        match self {
            FallbackSpec::Disabled(_) => None,
            FallbackSpec::Listed(list) => list.after_ms,
        }
    }
}

impl LimitsSpec {
    /// The most classes.
    pub const MAX_CLASSES: usize = 8;

    /// The first contradiction, in words.
    pub fn fault(&self) -> Option<String> {
        let rate = self.rate.as_ref().and_then(RateSpec::fault);
        let breaker = self.breaker.as_ref().and_then(BreakerSpec::fault);
        rate.or(breaker).map(str::to_owned).or_else(|| self.priority.as_ref().and_then(PrioritySpec::fault))
    }
}

impl RateSpec {
    fn fault(&self) -> Option<&'static str> {
        if !(1e-5..=1e6).contains(&self.per_second) {
            return Some("limits.rate: per_second must be from 0.00001 to 1000000");
        }
        (self.burst == 0).then_some("limits.rate: burst must be at least 1")
    }
}

impl BreakerSpec {
    /// The window.
    pub fn window(&self) -> Duration {
        Duration::from_millis(self.window_ms)
    }

    fn fault(&self) -> Option<&'static str> {
        if self.consecutive == 0 || self.min_requests == 0 || self.window_ms == 0 {
            return Some("limits.breaker: consecutive, min_requests and window must be above 0");
        }
        (!(0.0..=1.0).contains(&self.success_rate))
            .then_some("limits.breaker: success_rate must be from 0% to 100%")
    }
}

impl PrioritySpec {
    fn fault(&self) -> Option<String> {
        let Self { classes, unnamed, .. } = self;
        if classes.is_empty() || classes.len() > LimitsSpec::MAX_CLASSES {
            return Some(format!("limits.priority: there must be 1 to {} classes", LimitsSpec::MAX_CLASSES));
        }
        (!classes.contains(unnamed))
            .then(|| format!("limits.priority: {unnamed:?} is not among the classes {}", classes.join(", ")))
    }
}
