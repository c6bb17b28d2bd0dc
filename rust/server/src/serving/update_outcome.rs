//! The outcome of an update: an event for the control plane, and a reason for clients of an endpoint that is not served yet.
//!
//! Next: back to `publisher`.

use std::sync::Arc;

use headgate_core::spec::EndpointSpec;
use headgate_engine::Model;
use serde_json::{Map, Value, json};

use crate::serving::load_versions::LoadFailure;
use crate::serving::updates::{EndpointUpdate, PublishState};

/// The outcome of an update.
pub(crate) enum UpdateOutcome {
    /// The new state is served.
    Applied { generation: u64, models: Vec<Arc<Model>> },
    /// Another update took precedence.
    Superseded,
    /// The new state could not be loaded. The state before it is served on.
    Failed(LoadFailure),
}

impl UpdateOutcome {
    /// The reason for clients of an endpoint that is not served; `None` if it is served.
    pub(crate) fn unavailable_reason(&self) -> Option<UnavailableReason<'_>> {
        match self {
            UpdateOutcome::Applied { .. } => None,
            UpdateOutcome::Superseded => Some(UnavailableReason::Superseded),
            UpdateOutcome::Failed(failure) => Some(UnavailableReason::Failed(&failure.error.message)),
        }
    }

    /// The event for the control plane.
    pub(crate) fn event(self, update: &EndpointUpdate) -> Value {
        let EndpointUpdate { ticket, spec, .. } = update;
        let (endpoint, revision) = (&spec.name, spec.revision);
        match self {
            UpdateOutcome::Applied { generation, models } => json!({
                "event": "applied", "ticket": ticket, "endpoint": endpoint, "revision": revision,
                "generation": generation, "versions": loaded_versions(spec, &models),
            }),
            UpdateOutcome::Superseded => json!({
                "event": "superseded", "ticket": ticket, "endpoint": endpoint, "revision": revision,
            }),
            UpdateOutcome::Failed(LoadFailure { version, error }) => json!({
                "event": "failed", "ticket": ticket, "endpoint": endpoint, "revision": revision,
                "code": error.code, "version": version, "message": error.message,
            }),
        }
    }
}

fn loaded_versions(spec: &EndpointSpec, models: &[Arc<Model>]) -> Value {
    let versions: Map<String, Value> = spec
        .versions
        .iter()
        .zip(models)
        .map(|(version, model)| {
            let facts = json!({"load_ms": model.load_ns() as f64 / 1e6, "signature": model.signature()});
            (version.name.clone(), facts)
        })
        .collect();
    Value::Object(versions)
}

/// Why an endpoint is not served that was served before the start.
pub(crate) enum UnavailableReason<'a> {
    Loading,
    Failed(&'a str),
    Superseded,
}

impl UnavailableReason<'_> {
    pub(crate) fn message(&self) -> &str {
        match self {
            UnavailableReason::Loading => "it is being loaded",
            UnavailableReason::Failed(reason) => reason,
            UnavailableReason::Superseded => {
                "its load was cancelled for a newer state; if that does not come, apply its document again"
            }
        }
    }

    /// Whether this reason replaces the one that is known. The reason of the newest update counts, because clients wait for that one.
    pub(crate) fn is_current(&self, update: &EndpointUpdate, state: &PublishState) -> bool {
        if update.reload.is_some() {
            return false;
        }
        let newest = state.reason_tickets.get(&update.spec.name).copied();
        match (self, newest) {
            (UnavailableReason::Superseded, newest) => newest == Some(update.ticket),
            (UnavailableReason::Loading | UnavailableReason::Failed(_), None) => {
                !update.spec.fresh && !state.supersedes(update)
            }
            (UnavailableReason::Loading, Some(newest)) => {
                update.ticket >= newest && !state.supersedes(update)
            }
            // `supersedes` is not asked: an abandoned update is superseded, and its failure counts all the same.
            (UnavailableReason::Failed(_), Some(newest)) => update.ticket >= newest,
        }
    }
}
