//! The snapshot that requests read: every endpoint, compiled and immutable, under one generation number.
//!
//! `V` is what the server keeps of a version (the loaded model, metric handles). This crate does not look at it.
//! Not here: loading (`headgate-engine`) and publishing (`headgate-server`). Next: `route`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::feedback::declared::{Feedbacks, feedback_fault};
use crate::id::is_name;
use crate::limits::{FallbackSpec, PrioritySpec};
use crate::name_map::NameMap;
use crate::rate::RateLimiter;
use crate::rules::{MAX_RULES, Rules};
use crate::shadow::{Capture, MAX_SHADOWS, Shadow};
use crate::slots::SLOTS;
use crate::spec::{EndpointSpec, NonFinite, VersionSpec};

/// The most versions an endpoint may have: a slot holds a version's index in one byte.
pub const MAX_VERSIONS: usize = 255;

/// Everything the data plane serves at one moment.
#[derive(Debug)]
pub struct Snapshot<V> {
    /// Grows by one with every change of an endpoint.
    pub generation: u64,
    /// The endpoints by name.
    pub endpoints: NameMap<Arc<Endpoint<V>>>,
    /// The specs of endpoints that were taken out of memory, by name.
    pub unloaded: HashMap<Box<str>, Arc<EndpointSpec>>,
    /// Why an endpoint that was served before is not served now, by name: it is being loaded, or it could not be.
    pub unavailable: HashMap<Box<str>, Box<str>>,
    /// Endpoints and versions that were never served, with the reason.
    pub refusals: Arc<Refusals>,
}

/// The reasons why versions were never served, by endpoint and version. An empty version stands for the whole endpoint.
pub type Refusals = BTreeMap<Box<str>, BTreeMap<Box<str>, Box<str>>>;

impl<V> Default for Snapshot<V> {
    fn default() -> Self {
        Self {
            generation: 0,
            endpoints: NameMap::default(),
            unloaded: HashMap::new(),
            unavailable: HashMap::new(),
            refusals: Arc::default(),
        }
    }
}

impl<V> Snapshot<V> {
    /// The next generation, with one endpoint set; `None` removes it.
    pub fn with_endpoint(&self, name: &str, endpoint: Option<Arc<Endpoint<V>>>) -> Snapshot<V> {
        let (mut endpoints, mut unloaded) = (self.endpoints.clone(), self.unloaded.clone());
        let mut unavailable = self.unavailable.clone();
        unloaded.remove(name);
        unavailable.remove(name);
        match endpoint {
            Some(endpoint) => endpoints.insert(name.into(), endpoint),
            None => endpoints.remove(name),
        };
        Snapshot {
            generation: self.generation + 1,
            endpoints,
            unloaded,
            unavailable,
            refusals: self.refusals.clone(),
        }
    }

    /// The same generation, with the reason why an endpoint is not served. `None` if nothing changes: the endpoint is served, or it was
    /// unloaded on purpose, or the reason is there already.
    pub fn with_unavailable(&self, name: &str, reason: &str) -> Option<Snapshot<V>> {
        let unchanged = self.unavailable.get(name).is_some_and(|unchanged| **unchanged == *reason);
        if unchanged || self.endpoints.contains_key(name) || self.unloaded.contains_key(name) {
            return None;
        }
        let mut unavailable = self.unavailable.clone();
        unavailable.insert(name.into(), reason.into());
        Some(Snapshot { unavailable, ..self.duplicate() })
    }

    /// The same generation, with another list of what was never served.
    pub fn with_refusals(&self, refusals: Refusals) -> Snapshot<V> {
        Snapshot { refusals: Arc::new(refusals), ..self.duplicate() }
    }

    fn duplicate(&self) -> Snapshot<V> {
        Snapshot {
            generation: self.generation,
            endpoints: self.endpoints.clone(),
            unloaded: self.unloaded.clone(),
            unavailable: self.unavailable.clone(),
            refusals: self.refusals.clone(),
        }
    }

    /// The next generation, with one endpoint taken out of memory.
    pub fn with_unloaded(&self, spec: &Arc<EndpointSpec>) -> Snapshot<V> {
        let mut next = self.with_endpoint(&spec.name, None);
        next.unloaded.insert(spec.name.as_str().into(), spec.clone());
        next
    }

    /// The endpoint of that name.
    ///
    /// # Errors
    /// `model_not_found`; `model_not_ready` for an endpoint that was unloaded, is still loaded after a start, or was refused.
    pub fn endpoint(&self, name: &str) -> Result<&Arc<Endpoint<V>>> {
        self.endpoints.get(name).ok_or_else(|| self.not_served_error(name))
    }

    #[cold]
    fn not_served_error(&self, name: &str) -> Error {
        if self.unloaded.contains_key(name) {
            return Error::new(
                Code::ModelNotReady,
                format!("endpoint {name:?} was unloaded over the protocol; load it or apply its document"),
            );
        }
        if let Some(reason) = self.unavailable.get(name) {
            return Error::new(Code::ModelNotReady, format!("endpoint {name:?} is not served: {reason}"));
        }
        if let Some(versions) = self.refusals.get(name) {
            let reason: Vec<_> =
                versions.iter().map(|(version, reason)| describe_refusal(version, reason)).collect();
            let message = format!("endpoint {name:?} was never served: {}", reason.join("; "));
            return Error::new(Code::ModelNotReady, message);
        }
        Error::new(Code::ModelNotFound, format!("no endpoint is called {name:?}"))
    }
}

fn describe_refusal(version: &str, reason: &str) -> String {
    if version.is_empty() { reason.to_owned() } else { format!("{version}: {reason}") }
}

/// One endpoint, ready to route.
#[derive(Debug)]
pub struct Endpoint<V> {
    /// The name that clients call.
    pub name: Box<str>,
    /// The control plane's revision; responses carry it.
    pub revision: u64,
    /// The versions, in the document's order.
    pub versions: Vec<Version<V>>,
    /// The champion's index in `versions`.
    pub champion: u8,
    /// For each slot the index of its version in `versions`.
    pub table: Box<[u8; SLOTS]>,
    /// Hashed together with sticky keys.
    pub salt: Box<str>,
    /// The header that holds the sticky key, in lower case.
    pub sticky: Option<Box<str>>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Names for the classes of an output, by tensor.
    pub labels: BTreeMap<String, Vec<String>>,
    /// What JSON responses say for NaN and the infinities.
    pub non_finite: NonFinite,
    /// The rate of each caller.
    pub quota: Option<Quota>,
    /// Which requests run first.
    pub priority: Option<Priority>,
    /// The versions that answer when the chosen one does not.
    pub fallback: Fallback,
    /// Who answers certain requests, before the slots; the first that matches.
    pub rules: Rules,
    /// The versions that get copies of requests.
    pub shadows: Box<[Shadow]>,
    /// Which requests are captured.
    pub capture: Option<Capture>,
    /// What may be given on answers.
    pub feedback: Feedbacks,
    /// Versions that are left out because they do not load, with the reason.
    pub omitted: BTreeMap<String, String>,
    /// Whether any of these is there: rules, a sticky key, classes, a time after which a version's fallbacks are asked, shadows, a
    /// capture. Without them a request to the endpoint pays for this one test.
    pub has_policies: bool,
}

/// The rate of each caller, and the header that identifies one.
#[derive(Clone, Debug)]
pub struct Quota {
    /// The header, in lower case; without one all callers share the rate.
    pub by: Option<Box<str>>,
    /// Counts the requests. It outlives the revision, so that a change of weights gives no caller a new burst.
    pub limiter: Arc<RateLimiter>,
}

/// Which requests run first.
#[derive(Clone, Debug)]
pub struct Priority {
    /// The header that names the class, in lower case.
    pub by: Box<str>,
    /// The classes, the most urgent first.
    pub classes: Vec<Box<str>>,
    /// The class of a request that names none of them.
    pub unnamed: u8,
}

impl Priority {
    /// The class of a request with this value of the header.
    pub fn class(&self, header: Option<&[u8]>) -> u8 {
        let named = header.and_then(|name| self.classes.iter().position(|class| class.as_bytes() == name));
        named.map_or(self.unnamed, |class| class as u8)
    }
}

/// The versions that answer when the chosen one does not.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Whether the champion answers for a challenger that fails, before the listed versions.
    pub champion: bool,
    /// The listed versions, in their order.
    pub to: Vec<u8>,
    /// How long the chosen version has.
    pub after: Option<Duration>,
}

/// One version of an endpoint.
#[derive(Debug)]
pub struct Version<V> {
    /// Its name; responses carry it.
    pub name: Box<str>,
    /// The digest of the model, or of the constant.
    pub digest: Box<str>,
    /// What the server keeps of it.
    pub payload: V,
}

impl<V> Endpoint<V> {
    /// The version of that name and its index.
    pub fn version(&self, name: &str) -> Option<(u8, &Version<V>)> {
        let index = self.versions.iter().position(|version| &*version.name == name)?;
        Some((index as u8, &self.versions[index]))
    }

    /// Whether requests that name no version may come to the version of this index.
    pub fn gets_requests(&self, version: u8) -> bool {
        self.champion == version
            || self.table.contains(&version)
            || self.rules.send_to(version)
            || self.fallback.to.contains(&version)
    }
}

/// Checks a spec and compiles it. `payload` is called once for each version, in their order. The quota is left out: the server adds it,
/// because a rate limiter outlives the spec.
///
/// # Errors
/// `policy_invalid` for the first contradiction; the errors of `payload`.
pub fn compile<V>(
    spec: &EndpointSpec,
    mut payload: impl FnMut(&VersionSpec) -> Result<V>,
) -> Result<Endpoint<V>> {
    check(spec)?;
    let index = |name: &str| {
        spec.versions.iter().position(|version| version.name == name).map(|index| index as u8).ok_or_else(
            || fault(spec, format!("version {name:?} gets traffic but is not among the versions")),
        )
    };
    let champion = index(&spec.champion)?;
    let mut table = Box::new([champion; SLOTS]);
    for (slot, version) in spec.table.entries().map_err(|error| fault(spec, error.message))? {
        table[slot as usize] = index(version)?;
    }
    let versions = spec
        .versions
        .iter()
        .map(|version| {
            Ok(Version {
                name: version.name.as_str().into(),
                digest: version.digest.as_str().into(),
                payload: payload(version)?,
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Endpoint {
        name: spec.name.as_str().into(),
        revision: spec.revision,
        versions,
        champion,
        table,
        salt: spec.table.salt.as_str().into(),
        sticky: spec.sticky.as_deref().map(Into::into),
        timeout: Duration::from_millis(spec.timeout_ms),
        labels: spec.labels.clone(),
        non_finite: spec.non_finite,
        quota: None,
        priority: spec.limits.priority.as_ref().map(priority),
        fallback: fallback(spec.fallback.as_ref(), index)?,
        rules: Rules::new(&spec.rules, |name| index(name).ok()),
        shadows: shadows(spec, index)?,
        capture: spec.capture.as_ref().map(|capture| Capture::new(&spec.name, capture)),
        feedback: spec.feedback.clone(),
        omitted: spec.omitted.clone(),
        has_policies: has_policies(spec),
    })
}

fn has_policies(spec: &EndpointSpec) -> bool {
    !spec.rules.is_empty()
        || spec.sticky.is_some()
        || spec.limits.priority.is_some()
        || spec.fallback.as_ref().and_then(FallbackSpec::after_ms).is_some()
        || !spec.shadows.is_empty()
        || spec.capture.is_some()
}

fn shadows(spec: &EndpointSpec, index: impl Fn(&str) -> Result<u8>) -> Result<Box<[Shadow]>> {
    spec.shadows.iter().map(|shadow| Ok(Shadow::new(&spec.name, index(&shadow.to)?, shadow))).collect()
}

fn fallback(spec: Option<&FallbackSpec>, index: impl Fn(&str) -> Result<u8>) -> Result<Fallback> {
    let to = spec.map_or(&[][..], FallbackSpec::to).iter().map(|name| index(name)).collect::<Result<_>>()?;
    let after = spec.and_then(FallbackSpec::after_ms).map(Duration::from_millis);
    Ok(Fallback { champion: !matches!(spec, Some(FallbackSpec::Disabled(_))), to, after })
}

fn priority(spec: &PrioritySpec) -> Priority {
    let unnamed = spec.classes.iter().position(|class| *class == spec.unnamed).unwrap_or_default() as u8;
    let classes = spec.classes.iter().map(|class| class.as_str().into()).collect();
    Priority { by: spec.by.as_str().into(), classes, unnamed }
}

/// Checks everything in a spec that can be checked without its models.
///
/// # Errors
/// `policy_invalid` for the first contradiction.
pub fn check(spec: &EndpointSpec) -> Result<()> {
    if !is_name(&spec.name) {
        return Err(fault(spec, "the endpoint's name is not valid"));
    }
    if spec.versions.is_empty() || spec.versions.len() > MAX_VERSIONS {
        return Err(fault(spec, format!("an endpoint has 1 to {MAX_VERSIONS} versions")));
    }
    let (rules, shadows) = (spec.rules.len(), spec.shadows.len());
    let lists = [("rules", rules, MAX_RULES), ("shadows", shadows, MAX_SHADOWS)];
    if let Some((list, _, most)) = lists.into_iter().find(|(_, count, most)| count > most) {
        return Err(fault(spec, format!("an endpoint has at most {most} {list}")));
    }
    if spec.timeout_ms == 0 {
        return Err(fault(spec, "the time-out must be above zero"));
    }
    for (index, version) in spec.versions.iter().enumerate() {
        check_version(spec, version)?;
        if spec.versions[..index].iter().any(|other| other.name == version.name) {
            return Err(fault(spec, format!("version {:?} is there twice", version.name)));
        }
    }
    if let Some(reason) = spec.limits.fault().or_else(|| feedback_fault(&spec.feedback)) {
        return Err(fault(spec, reason));
    }
    let known = |name: &str| spec.versions.iter().any(|version| version.name == name);
    let weights = spec.table.weights().map_err(|error| fault(spec, error.message))?;
    let fallback = spec.fallback.iter().flat_map(FallbackSpec::to).map(String::as_str);
    let named = weights.keys().copied().chain([spec.champion.as_str()]).chain(fallback);
    match named.into_iter().find(|name| !known(name)) {
        Some(name) => {
            Err(fault(spec, format!("version {name:?} gets traffic but is not among the versions")))
        }
        None => Ok(()),
    }
}

fn check_version(spec: &EndpointSpec, version: &VersionSpec) -> Result<()> {
    if !is_name(&version.name) {
        return Err(fault(spec, format!("version name {:?} is not valid", version.name)));
    }
    if version.artifact.is_some() == version.constant.is_some() {
        return Err(fault(
            spec,
            format!("version {:?} must be exactly one of artifact and constant", version.name),
        ));
    }
    if let Some(reason) = version.run.fault() {
        return Err(fault(spec, format!("version {:?}: run: {reason}", version.name)));
    }
    Ok(())
}

fn fault(spec: &EndpointSpec, message: impl std::fmt::Display) -> Error {
    Error::new(Code::PolicyInvalid, format!("endpoint {:?}: {message}", spec.name))
}

#[cfg(test)]
pub(crate) mod tests;
