//! What a request reads: every endpoint compiled, immutable, under one generation number.
//!
//! `V` is whatever the server keeps beside a version (the loaded model, metric handles); the domain does not look at it.
//! Not here: loading (`headgate-engine`) and publishing (`headgate-server`). Next: `route`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crate::error::{Code, Error, Result};
use crate::id::is_name;
use crate::limits::{FallbackSpec, PrioritySpec};
use crate::rate::RateLimiter;
use crate::slots::SLOTS;
use crate::spec::{EndpointSpec, NonFinite, VersionSpec};

/// The most versions an endpoint may have: a slot holds a version's index in one byte.
pub const MAX_VERSIONS: usize = 255;

/// Everything the data plane serves at one moment.
#[derive(Debug)]
pub struct Snapshot<V> {
    /// Grows by one with every change.
    pub generation: u64,
    /// The endpoints by name.
    pub endpoints: HashMap<Box<str>, Arc<Endpoint<V>>>,
    /// What would be served under these names, and was taken out of memory.
    pub unloaded: HashMap<Box<str>, Arc<EndpointSpec>>,
    /// Why what was served under these names before is not served now: it is being loaded, or could not be.
    pub unavailable: HashMap<Box<str>, Box<str>>,
    /// What was never served, and why.
    pub refusals: Arc<Refusals>,
}

/// Why something is not served that never was, by endpoint and version; an empty version stands for the whole endpoint.
pub type Refusals = BTreeMap<Box<str>, BTreeMap<Box<str>, Box<str>>>;

impl<V> Default for Snapshot<V> {
    fn default() -> Self {
        Self {
            generation: 0,
            endpoints: HashMap::new(),
            unloaded: HashMap::new(),
            unavailable: HashMap::new(),
            refusals: Arc::default(),
        }
    }
}

impl<V> Snapshot<V> {
    /// The next generation, with one endpoint set or, with `None`, taken away.
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

    /// The same generation, which says why an endpoint is not served. `None` for one that is served, or was unloaded on purpose, or of
    /// which the same is said already.
    pub fn with_unavailable(&self, name: &str, reason: &str) -> Option<Snapshot<V>> {
        let unchanged = self.unavailable.get(name).is_some_and(|unchanged| **unchanged == *reason);
        if unchanged || self.endpoints.contains_key(name) || self.unloaded.contains_key(name) {
            return None;
        }
        let mut unavailable = self.unavailable.clone();
        unavailable.insert(name.into(), reason.into());
        Some(Snapshot { unavailable, ..self.duplicate() })
    }

    /// The same generation, which says what was never served.
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

    /// The next generation, with one endpoint out of memory.
    pub fn with_unloaded(&self, spec: &Arc<EndpointSpec>) -> Snapshot<V> {
        let mut next = self.with_endpoint(&spec.name, None);
        next.unloaded.insert(spec.name.as_str().into(), spec.clone());
        next
    }

    /// The endpoint of that name.
    ///
    /// # Errors
    /// `model_not_found`, or `model_not_ready` for one that is out of memory, is loaded after a start, or was refused.
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
    /// The name clients call.
    pub name: Box<str>,
    /// The control plane's revision; answers carry it.
    pub revision: u64,
    /// The versions, in the document's order.
    pub versions: Vec<Version<V>>,
    /// The champion's index in `versions`.
    pub champion: u8,
    /// For each slot the index of its version in `versions`.
    pub table: Box<[u8; SLOTS]>,
    /// What sticky keys are hashed with.
    pub salt: Box<str>,
    /// The header that holds the sticky key, in lower case.
    pub sticky: Option<Box<str>>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Names for the classes of an output, by tensor.
    pub labels: BTreeMap<String, Vec<String>>,
    /// What JSON answers say where a number is none.
    pub non_finite: NonFinite,
    /// How often callers may come.
    pub quota: Option<Quota>,
    /// Who is run first.
    pub priority: Option<Priority>,
    /// Who answers when the chosen version does not.
    pub fallback: Fallback,
    /// Versions that are left out because they do not load, with the reason.
    pub omitted: BTreeMap<String, String>,
}

/// How often callers may come, and what tells them apart.
#[derive(Clone, Debug)]
pub struct Quota {
    /// The header, in lower case; without one all callers are one.
    pub by: Option<Box<str>>,
    /// What counts; it outlives the revision, so that a change of weights gives nobody a new burst.
    pub limiter: Arc<RateLimiter>,
}

/// Who is run first.
#[derive(Clone, Debug)]
pub struct Priority {
    /// The header that names the class, in lower case.
    pub by: Box<str>,
    /// The classes, the first of them first.
    pub classes: Vec<Box<str>>,
    /// The class of whoever names none of them.
    pub unnamed: u8,
}

impl Priority {
    /// The class of a request with that header.
    pub fn class(&self, header: Option<&[u8]>) -> u8 {
        let named = header.and_then(|name| self.classes.iter().position(|class| class.as_bytes() == name));
        named.map_or(self.unnamed, |class| class as u8)
    }
}

/// Who answers when the chosen version does not.
#[derive(Clone, Debug)]
pub struct Fallback {
    /// Whether the champion answers for a challenger that fails, before the others.
    pub champion: bool,
    /// The versions to ask, in their order.
    pub to: Vec<u8>,
    /// How long the chosen version has.
    pub after: Option<Duration>,
}

/// One version of an endpoint.
#[derive(Debug)]
pub struct Version<V> {
    /// Its name; answers carry it.
    pub name: Box<str>,
    /// What it is.
    pub digest: Box<str>,
    /// What the server keeps beside it.
    pub payload: V,
}

impl<V> Endpoint<V> {
    /// The version of that name and its index.
    pub fn version(&self, name: &str) -> Option<(u8, &Version<V>)> {
        let index = self.versions.iter().position(|version| &*version.name == name)?;
        Some((index as u8, &self.versions[index]))
    }
}

/// Checks a spec and compiles it; `payload` is called once for each version, in order. The quota is for whoever keeps limiters
/// to put in.
///
/// # Errors
/// `policy_invalid` naming the first contradiction, or whatever `payload` refuses with.
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
        omitted: spec.omitted.clone(),
    })
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

/// Everything about a spec that can be wrong without looking at a model.
///
/// # Errors
/// `policy_invalid` naming the first contradiction.
pub fn check(spec: &EndpointSpec) -> Result<()> {
    if !is_name(&spec.name) {
        return Err(fault(spec, "the endpoint's name is not valid"));
    }
    if spec.versions.is_empty() || spec.versions.len() > MAX_VERSIONS {
        return Err(fault(spec, format!("an endpoint has 1 to {MAX_VERSIONS} versions")));
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
    if let Some(reason) = spec.limits.fault() {
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
pub(crate) mod tests {
    use super::*;

    pub(crate) fn spec(json: &str) -> EndpointSpec {
        EndpointSpec::from_json(json.as_bytes()).unwrap()
    }

    pub(crate) const TWO: &str = r#"{"name":"digits","revision":3,
        "spec":{"versions":{"v1":{"digest":"sha256:1"},"v2":{"digest":"sha256:2"}},
            "traffic":{"champion":"v1","sticky":"header.x-user-id"},"limits":{"timeout":30000}},
        "traffic":{"champion":"v1","last_good":"v1","table":{"salt":"digits/2/1","given":[["v2",0,999]]}},
        "load":{"versions":["v1","v2"],"artifacts":{"v1":"one.onnx","v2":"two.onnx"}}}"#;

    #[test]
    fn a_table_gives_the_champion_the_rest() {
        let endpoint = compile(&spec(TWO), |_| Ok(())).unwrap();
        assert!(endpoint.table[..1000].iter().all(|&version| version == 1));
        assert!(endpoint.table[1000..].iter().all(|&version| version == 0));
        assert_eq!(endpoint.version("v2").unwrap().0, 1);
    }

    #[test]
    fn contradictions_are_named() {
        type Change = fn(&mut EndpointSpec);
        let changes: [(Change, &str); 6] = [
            (|spec| spec.champion = "v9".into(), "v9"),
            (|spec| spec.table.given[0].0 = "v3".into(), "v3"),
            (|spec| spec.versions[1].name = "v1".into(), "twice"),
            (|spec| spec.versions[1].constant = Some(BTreeMap::new()), "exactly one"),
            (|spec| spec.timeout_ms = 0, "time-out"),
            (|spec| spec.name = "di/gits".into(), "not valid"),
        ];
        for (change, words) in changes {
            let mut contradictory = spec(TWO);
            change(&mut contradictory);
            let error = compile(&contradictory, |_| Ok(())).unwrap_err();
            assert_eq!(error.code, Code::PolicyInvalid);
            assert!(error.message.contains(words), "{error}");
        }
    }

    #[test]
    fn what_was_never_served_is_not_ready_and_says_why() {
        let of = |name: &str, version: &str, reason: &str| {
            Refusals::from([(name.into(), [(version.into(), reason.into())].into())])
        };
        let first = Snapshot::<()>::default().with_refusals(of("a", "v1", "no such operator"));
        let error = first.endpoint("a").unwrap_err();
        assert_eq!(
            (error.code, &*error.message),
            (Code::ModelNotReady, "endpoint \"a\" was never served: v1: no such operator")
        );
        assert_eq!(first.endpoint("b").unwrap_err().code, Code::ModelNotFound);
        let served = first.with_endpoint("a", Some(Arc::new(compile(&spec(TWO), |_| Ok(())).unwrap())));
        assert!(served.endpoint("a").is_ok());
        // What was said last counts, through every other change.
        let second = served.with_endpoint("a", None).with_refusals(of("b", "", "its folder is empty"));
        assert_eq!(second.generation, served.generation + 1);
        assert_eq!(second.endpoint("a").unwrap_err().code, Code::ModelNotFound);
        let error = second.with_unavailable("c", "damaged").unwrap().endpoint("b").unwrap_err();
        assert!(error.message.ends_with("never served: its folder is empty"), "{error}");
    }

    #[test]
    fn a_snapshot_changes_one_endpoint_and_keeps_the_others() {
        let first =
            Snapshot::default().with_endpoint("a", Some(Arc::new(compile(&spec(TWO), |_| Ok(())).unwrap())));
        let second = first.with_endpoint("b", Some(first.endpoint("a").unwrap().clone()));
        let third = second.with_endpoint("a", None);
        assert_eq!((first.generation, second.generation, third.generation), (1, 2, 3));
        assert!(second.endpoint("a").is_ok() && second.endpoint("b").is_ok());
        assert_eq!(third.endpoint("a").unwrap_err().code, Code::ModelNotFound);
    }
}
