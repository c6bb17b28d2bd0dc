//! The state of an endpoint in the form in which the control plane sends it: the stored spec, the live traffic, and what must be loaded.
//!
//! The spec has the names and units of a document. So a new field of a document needs no code between the document and this file.
//! The state becomes an [`EndpointSpec`] at once, with a default for everything that a document leaves open. A field may be missing
//! because an older build, which did not know it, wrote the state.
//! Not here: contradictions within a spec (`snapshot`). Next: `spec`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error, Result};
use crate::feedback::declared::Feedbacks;
use crate::limits::{BreakerSpec, FallbackSpec, HeaderRef, LimitsSpec, PrioritySpec, RateSpec};
use crate::rules::RuleSpec;
use crate::shadow::{CaptureSpec, IdleShadow, IdleState, ShadowSpec};
use crate::slots::SlotTable;
use crate::spec::{EndpointSpec, NonFinite, RunSpec, VersionSpec};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointState {
    name: String,
    revision: u64,
    spec: DocumentSpec,
    traffic: LiveTraffic,
    load: LoadSection,
}

/// The document, with every reference replaced by a digest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentSpec {
    versions: BTreeMap<String, DocumentVersion>,
    traffic: DeclaredTraffic,
    #[serde(default)]
    columns: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    labels: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    drift: DriftSection,
    limits: LimitsSection,
    #[serde(default)]
    answers: AnswersSection,
    #[serde(default)]
    capture: Option<CaptureSpec>,
    #[serde(default)]
    feedback: Feedbacks,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DocumentVersion {
    digest: String,
    #[serde(default)]
    constant: Option<BTreeMap<String, Value>>,
    #[serde(default)]
    run: RunSpec,
    #[serde(default = "default_true")]
    compatible: bool,
}

fn default_true() -> bool {
    true
}

/// The traffic of the document. Live traffic began with this champion and these weights, and may differ by now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTraffic {
    champion: String,
    #[serde(default)]
    weights: BTreeMap<String, u16>,
    #[serde(default)]
    sticky: Option<HeaderRef>,
    #[serde(default)]
    keep_warm: bool,
    #[serde(default)]
    fallback: Option<FallbackSpec>,
    #[serde(default)]
    rules: Vec<RuleSpec>,
    #[serde(default)]
    shadow: Vec<ShadowSpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct DriftSection {
    #[serde(default)]
    baseline: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsSection {
    timeout: u64,
    #[serde(default)]
    rate: Option<RateSpec>,
    #[serde(default)]
    breaker: Option<BreakerSpec>,
    #[serde(default)]
    priority: Option<PrioritySpec>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AnswersSection {
    #[serde(default)]
    non_finite: NonFinite,
}

/// The traffic as it is shared now.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LiveTraffic {
    champion: String,
    last_good: String,
    #[serde(default)]
    table: SlotTable,
    /// The shadows that are switched off, by version.
    #[serde(default)]
    shadows_off: Vec<String>,
    #[serde(default)]
    capture_off: bool,
}

/// The versions that must be in memory, in their order, and the files of those that are models.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoadSection {
    versions: Vec<String>,
    #[serde(default)]
    artifacts: BTreeMap<String, String>,
    #[serde(default)]
    omitted: BTreeMap<String, String>,
    #[serde(default)]
    baseline: Option<String>,
    #[serde(default)]
    urgent: bool,
    #[serde(default)]
    fresh: bool,
}

impl EndpointSpec {
    /// Reads the state that the control plane sends.
    ///
    /// # Errors
    /// `policy_invalid` with the path of the fault.
    pub fn from_json(json: &[u8]) -> Result<EndpointSpec> {
        let mut reader = serde_json::Deserializer::from_slice(json);
        let state: EndpointState = serde_path_to_error::deserialize(&mut reader)
            .map_err(|error| invalid_state(format!("{}: {}", error.path(), error.inner())))?;
        reader.end().map_err(|error| invalid_state(error.to_string()))?;
        state.into_spec().map_err(invalid_state)
    }
}

fn invalid_state(message: String) -> Error {
    Error::new(Code::PolicyInvalid, format!("endpoint state: {message}"))
}

type Validated<T> = std::result::Result<T, String>;

impl EndpointState {
    fn into_spec(self) -> Validated<EndpointSpec> {
        let Self { name, revision, spec, traffic, load } = self;
        spec.traffic.check(&spec.versions)?;
        if load.baseline.is_some() && spec.drift.baseline.is_none() {
            return Err("load.baseline: spec.drift names no baseline".to_owned());
        }
        let fallback = spec.traffic.fallback.and_then(|fallback| fallback.restricted_to(&load.versions));
        let is_kept = |version: &str| version == traffic.champion || version == traffic.last_good;
        let pinned = |version: &str| spec.traffic.keep_warm && is_kept(version);
        let (shadows, idle_shadows) = shadows(spec.traffic.shadow, &traffic, &load);
        let versions = version_specs(spec.versions, load.versions, load.artifacts, pinned)?;
        let LimitsSection { timeout, rate, breaker, priority } = spec.limits;
        Ok(EndpointSpec {
            name,
            revision,
            versions,
            champion: traffic.champion,
            table: traffic.table,
            sticky: spec.traffic.sticky.map(String::from),
            timeout_ms: timeout,
            columns: spec.columns,
            labels: spec.labels,
            non_finite: spec.answers.non_finite,
            limits: LimitsSpec { rate, breaker, priority },
            fallback,
            rules: spec.traffic.rules,
            shadows,
            idle_shadows,
            capture: spec.capture.filter(|_| !traffic.capture_off),
            feedback: spec.feedback,
            omitted: load.omitted,
            baseline: load.baseline,
            fresh: load.fresh,
            urgent: load.urgent,
        })
    }
}

impl DeclaredTraffic {
    fn check(&self, versions: &BTreeMap<String, DocumentVersion>) -> Validated<()> {
        let weights = self.weights.keys().map(|name| ("weights", name));
        let fallback = self.fallback.iter().flat_map(FallbackSpec::to).map(|name| ("fallback.to", name));
        let rules = self.rules.iter().map(|rule| ("rules", &rule.to));
        let shadows = self.shadow.iter().map(|shadow| ("shadow", &shadow.to));
        let others = fallback.chain(rules).chain(shadows).chain([("champion", &self.champion)]);
        let mut named = weights.chain(others);
        match named.find(|(_, name)| !versions.contains_key(*name)) {
            Some((key, name)) => Err(format!("spec.traffic.{key}: {name:?} is not among spec.versions")),
            None => Ok(()),
        }
    }
}

/// The shadows that run, and those that do not: the version that answers is no shadow, because it would be compared with itself.
fn shadows(
    declared: Vec<ShadowSpec>,
    traffic: &LiveTraffic,
    load: &LoadSection,
) -> (Vec<ShadowSpec>, Vec<IdleShadow>) {
    let (mut running, mut idle) = (Vec::new(), Vec::new());
    for (place, spec) in declared.into_iter().enumerate() {
        match idle_state(&spec.to, traffic, load) {
            Some((state, reason)) => idle.push(IdleShadow { place, spec, state, reason }),
            None => running.push(spec),
        }
    }
    (running, idle)
}

fn idle_state(version: &String, traffic: &LiveTraffic, load: &LoadSection) -> Option<(IdleState, String)> {
    if *version == traffic.champion {
        return Some((IdleState::Champion, "it is the champion".to_owned()));
    }
    if traffic.shadows_off.contains(version) {
        return Some((IdleState::Off, "it is switched off".to_owned()));
    }
    if load.versions.contains(version) {
        return None;
    }
    let reason = load.omitted.get(version).cloned();
    Some((IdleState::NotLoaded, reason.unwrap_or_else(|| "its version is blocked".to_owned())))
}

/// The versions that must be in memory, with the files of those that are models.
fn version_specs(
    mut described: BTreeMap<String, DocumentVersion>,
    names: Vec<String>,
    mut artifacts: BTreeMap<String, String>,
    pinned: impl Fn(&str) -> bool,
) -> Validated<Vec<VersionSpec>> {
    let mut versions = Vec::with_capacity(names.len());
    for name in names {
        let Some(DocumentVersion { digest, constant, run, compatible }) = described.remove(&name) else {
            return Err(format!("load.versions: {name:?} is not among spec.versions, or is there twice"));
        };
        let (artifact, pinned) = (artifacts.remove(&name), pinned(&name));
        versions.push(VersionSpec { name, digest, artifact, constant, run, pinned, compatible });
    }
    match artifacts.into_keys().next() {
        Some(name) => Err(format!("load.artifacts: {name:?} is not among load.versions")),
        None => Ok(versions),
    }
}

#[cfg(test)]
mod tests;
