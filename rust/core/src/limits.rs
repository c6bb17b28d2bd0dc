//! What an endpoint's document says about limits and about who answers when a version does not: plain data and its checks.
//!
//! Not here: what enforces it (`rate`, `breaker`, the engine's lanes). Next: `snapshot`.

use std::time::Duration;

use serde::Deserialize;

/// The limits of an endpoint, beside its time-out.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsSpec {
    /// How often a caller may come.
    pub rate: Option<RateSpec>,
    /// When a version that fails is left alone.
    pub breaker: Option<BreakerSpec>,
    /// Who is run first.
    pub priority: Option<PrioritySpec>,
}

/// How often a caller may come.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateSpec {
    /// The header that tells callers apart, in lower case; without one they share the rate.
    #[serde(default)]
    pub by: Option<String>,
    /// Requests in a second, in the long run.
    pub per_second: f64,
    /// Requests at once.
    pub burst: u32,
}

/// When a version that fails is left alone.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakerSpec {
    /// Failures in a row.
    pub consecutive: u32,
    /// The least share of good answers, from 0 to 1.
    pub success_rate: f64,
    /// How long failures and good answers are counted for that share, in milliseconds.
    pub window_ms: u64,
    /// Answers below which that share says nothing.
    pub min_requests: u32,
}

/// Who is run first.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrioritySpec {
    /// The header that names the class, in lower case.
    pub by: String,
    /// The classes, the first of them first.
    pub classes: Vec<String>,
    /// The class of whoever names none of them.
    pub unnamed: String,
}

/// Who answers when the chosen version does not, beside the champion.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(untagged, expecting = "fallback must be \"none\" or {to, after_ms}")]
pub enum FallbackSpec {
    /// `"none"`: not even the champion.
    Nobody(Nobody),
    /// These, after the champion.
    Listed(FallbackList),
}

/// The word `"none"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Nobody {
    /// See [`FallbackSpec::Nobody`].
    #[serde(rename = "none")]
    None,
}

/// Versions that answer when the chosen one does not.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FallbackList {
    /// The versions to ask, in their order.
    pub to: Vec<String>,
    /// How long the chosen version has, in milliseconds; the request's whole time unless written.
    #[serde(default)]
    pub after_ms: Option<u64>,
}

impl FallbackSpec {
    /// The versions that are written, in their order.
    pub fn to(&self) -> &[String] {
        match self {
            FallbackSpec::Nobody(_) => &[],
            FallbackSpec::Listed(list) => &list.to,
        }
    }

    /// How long the chosen version has, in milliseconds, where that is written.
    pub fn after_ms(&self) -> Option<u64> {
        match self {
            FallbackSpec::Nobody(_) => None,
            FallbackSpec::Listed(list) => list.after_ms,
        }
    }
}

impl LimitsSpec {
    /// The most classes.
    pub const MAX_CLASSES: usize = 8;

    /// What contradicts itself, in words.
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
            return Some(format!("limits.priority: there are 1 to {} classes", LimitsSpec::MAX_CLASSES));
        }
        (!classes.contains(unnamed))
            .then(|| format!("limits.priority: {unnamed:?} is not among the classes {}", classes.join(", ")))
    }
}
