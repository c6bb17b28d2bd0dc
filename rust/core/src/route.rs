//! The choice of the version that answers a request: the one that the caller names, else the one of the first rule that
//! matches, else the one of the request's slot.
//!
//! The choice is a pure function of the snapshot, the request and, for a request without a key, one random draw.
//! Next on the hot path: the engine's placement.

use crate::error::{Code, Error, Result};
use crate::rules::RequestFields;
use crate::slots::{key_hash, slot_of_hash};
use crate::snapshot::Endpoint;
use crate::trial::units::unit_of_hash;

/// How the version of a request was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteReason {
    /// By the rule with this number. Such requests are no random part of the traffic, so they are counted apart.
    Rule(u16),
    /// By the slot of its sticky key.
    Sticky,
    /// By a random draw: the endpoint has no sticky key, or the request has none.
    Drawn,
    /// By its name, which the caller gave. Such requests take no part in comparisons of versions.
    Direct,
}

/// The version that was chosen, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteDecision {
    /// The version's index in the endpoint.
    pub version: u8,
    /// How the version was chosen.
    pub reason: RouteReason,
    /// The slot, where a slot decided.
    pub slot: Option<u16>,
    /// The unit of the sticky key, where one decided.
    pub unit: Option<u32>,
}

/// Chooses by the first rule that matches, else by the sticky key, else by `draw`.
#[inline]
pub fn choose_version<V>(
    endpoint: &Endpoint<V>,
    request: &impl RequestFields,
    draw: impl FnOnce() -> u64,
) -> RouteDecision {
    if !endpoint.has_policies {
        return by_slot(endpoint, draw(), RouteReason::Drawn);
    }
    if let Some((rule, version)) = endpoint.rules.first_match(request) {
        return RouteDecision { version, reason: RouteReason::Rule(rule), slot: None, unit: None };
    }
    let (hash, reason) = match sticky_key(endpoint, request) {
        Some(key) => (key_hash(&endpoint.salt, key), RouteReason::Sticky),
        None => (draw(), RouteReason::Drawn),
    };
    by_slot(endpoint, hash, reason)
}

/// Chooses the version whose slot a hash falls into.
#[inline]
fn by_slot<V>(endpoint: &Endpoint<V>, hash: u64, reason: RouteReason) -> RouteDecision {
    let slot = slot_of_hash(hash);
    let unit = (reason == RouteReason::Sticky).then(|| unit_of_hash(hash));
    RouteDecision { version: endpoint.table[slot as usize], reason, slot: Some(slot), unit }
}

/// The sticky key of a request; an empty one is none.
#[inline]
pub fn sticky_key<'a, V>(endpoint: &Endpoint<V>, request: &'a impl RequestFields) -> Option<&'a [u8]> {
    let name = endpoint.sticky.as_deref()?;
    request.header(name).filter(|key| !key.is_empty())
}

/// Chooses the version that the caller named.
///
/// # Errors
/// `version_not_found`, with the versions that there are; `model_not_ready` for a version that is left out because it does not load, with
/// the reason.
pub fn choose_named_version<V>(endpoint: &Endpoint<V>, version: &str) -> Result<RouteDecision> {
    match endpoint.version(version) {
        Some((version, _)) => {
            Ok(RouteDecision { version, reason: RouteReason::Direct, slot: None, unit: None })
        }
        None => Err(unknown_version(endpoint, version)),
    }
}

#[cold]
fn unknown_version<V>(endpoint: &Endpoint<V>, version: &str) -> Error {
    if let Some(reason) = endpoint.omitted.get(version) {
        let message = format!("version {version:?} of endpoint {:?} is not served: {reason}", endpoint.name);
        return Error::new(Code::ModelNotReady, message);
    }
    let names: Vec<&str> = endpoint.versions.iter().map(|version| &*version.name).collect();
    let known = names.join(", ");
    let message = format!("endpoint {:?} has no version {version:?}; it has {known}", endpoint.name);
    Error::new(Code::VersionNotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::FieldValue;
    use crate::snapshot::{compile, tests as fixtures};

    /// A request with the header `x-user-id` and no other field.
    struct Caller<'a>(Option<&'a str>);

    impl RequestFields for Caller<'_> {
        fn header(&self, name: &str) -> Option<&[u8]> {
            (name == "x-user-id").then_some(self.0?.as_bytes())
        }

        fn parameter(&self, _name: &str) -> Option<FieldValue<'_>> {
            None
        }
    }

    #[test]
    fn a_key_keeps_its_version_and_a_missing_key_draws() {
        let endpoint = compile(&fixtures::spec(fixtures::TWO), |_| Ok(())).unwrap();
        let mut challenger = 0;
        for user in 0..10_000 {
            let key = format!("user-{user}");
            let choose =
                || choose_version(&endpoint, &Caller(Some(&key)), || unreachable!("a key needs no draw"));
            let first = choose();
            assert_eq!(first, choose());
            assert_eq!(first.reason, RouteReason::Sticky);
            challenger += usize::from(first.version == 1);
        }
        assert!((900..1100).contains(&challenger), "{challenger} of 10 000 keys on 10 %");
        let drawn = |key, draw| choose_version(&endpoint, &Caller(key), || draw);
        assert_eq!(drawn(None, 0).version, 1);
        assert_eq!(drawn(None, u64::MAX).version, 0);
        assert_eq!(drawn(Some(""), 0).reason, RouteReason::Drawn);
    }

    #[test]
    fn a_rule_comes_before_the_slots() {
        let rules = r#""rules":[{"when":{"header.x-user-id":{"prefix":"test-"}},"to":"v2"}],"champion":"v1","sticky":"#;
        let spec = fixtures::TWO.replace(r#""champion":"v1","sticky":"#, rules);
        let endpoint = compile(&fixtures::spec(&spec), |_| Ok(())).unwrap();
        let choose = |key| choose_version(&endpoint, &Caller(key), || u64::MAX);
        let ruled = RouteDecision { version: 1, reason: RouteReason::Rule(0), slot: None, unit: None };
        assert_eq!(choose(Some("test-7")), ruled);
        assert_eq!(choose(Some("user-7")).reason, RouteReason::Sticky);
        assert_eq!(choose(None).reason, RouteReason::Drawn);
    }

    #[test]
    fn a_rule_for_a_version_that_is_not_loaded_matches_nothing() {
        let rules = r#""rules":[{"when":{"header.x-user-id":{"prefix":"test-"}},"to":"v3"},
            {"when":{"header.x-user-id":{"one_of":["test-8"]}},"to":"v2"}],"champion":"v1","sticky":"#;
        let spec = fixtures::TWO
            .replace(r#""champion":"v1","sticky":"#, rules)
            .replace(r#""v2":{"digest""#, r#""v3":{"digest":"sha256:3"},"v2":{"digest""#);
        let endpoint = compile(&fixtures::spec(&spec), |_| Ok(())).unwrap();
        let choose = |key| choose_version(&endpoint, &Caller(Some(key)), || 0).reason;
        assert_eq!(choose("test-7"), RouteReason::Sticky);
        // A rule keeps the number that it has in the document.
        assert_eq!(choose("test-8"), RouteReason::Rule(1));
    }

    #[test]
    fn a_named_version_is_taken_or_refused() {
        let endpoint = compile(&fixtures::spec(fixtures::TWO), |_| Ok(())).unwrap();
        assert_eq!(choose_named_version(&endpoint, "v2").unwrap().version, 1);
        let left_out = fixtures::spec(
            &fixtures::TWO.replace(r#""artifacts":"#, r#""omitted":{"v3":"it is damaged"},"artifacts":"#),
        );
        let left_out = choose_named_version(&compile(&left_out, |_| Ok(())).unwrap(), "v3").unwrap_err();
        assert_eq!(left_out.code, Code::ModelNotReady);
        assert!(left_out.message.ends_with("it is damaged"), "{left_out}");
        let error = choose_named_version(&endpoint, "v9").unwrap_err();
        assert_eq!(error.code, Code::VersionNotFound);
        assert!(error.message.contains("v1, v2"), "{error}");
    }
}
