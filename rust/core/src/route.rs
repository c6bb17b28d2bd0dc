//! The choice of the version that answers a request: the one that the caller names, else the one of the request's slot.
//!
//! The choice is a pure function of the snapshot, the request and, for a request without a key, one random draw.
//! Next on the hot path: the engine's placement.

use crate::error::{Code, Error, Result};
use crate::slots::{slot_of, slot_of_hash};
use crate::snapshot::Endpoint;

/// How the version of a request was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteReason {
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
    /// The slot, unless the caller named the version.
    pub slot: Option<u16>,
}

/// Chooses by the sticky key, or by `draw` if there is none.
pub fn choose_version<V>(
    endpoint: &Endpoint<V>,
    key: Option<&[u8]>,
    draw: impl FnOnce() -> u64,
) -> RouteDecision {
    let (slot, reason) = match key {
        Some(key) => (slot_of(&endpoint.salt, key), RouteReason::Sticky),
        None => (slot_of_hash(draw()), RouteReason::Drawn),
    };
    RouteDecision { version: endpoint.table[slot as usize], reason, slot: Some(slot) }
}

/// Chooses the version that the caller named.
///
/// # Errors
/// `version_not_found`, with the versions that there are; `model_not_ready` for a version that is left out because it does not load, with
/// the reason.
pub fn choose_named_version<V>(endpoint: &Endpoint<V>, version: &str) -> Result<RouteDecision> {
    match endpoint.version(version) {
        Some((version, _)) => Ok(RouteDecision { version, reason: RouteReason::Direct, slot: None }),
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
    use crate::snapshot::{compile, tests as fixtures};

    #[test]
    fn a_key_keeps_its_version_and_a_missing_key_draws() {
        let endpoint = compile(&fixtures::spec(fixtures::TWO), |_| Ok(())).unwrap();
        let mut challenger = 0;
        for user in 0..10_000 {
            let key = format!("user-{user}");
            let first =
                choose_version(&endpoint, Some(key.as_bytes()), || unreachable!("a key needs no draw"));
            assert_eq!(
                first,
                choose_version(&endpoint, Some(key.as_bytes()), || unreachable!("a key needs no draw"))
            );
            assert_eq!(first.reason, RouteReason::Sticky);
            challenger += usize::from(first.version == 1);
        }
        assert!((900..1100).contains(&challenger), "{challenger} of 10 000 keys on 10 %");
        assert_eq!(choose_version(&endpoint, None, || 0).version, 1);
        assert_eq!(choose_version(&endpoint, None, || u64::MAX).version, 0);
        assert_eq!(choose_version(&endpoint, None, || 0).reason, RouteReason::Drawn);
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
