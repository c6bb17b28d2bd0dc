//! What became of an order, for whoever asked for it and for clients of an endpoint that is not served yet.
//!
//! Next: back to `publish`.

use std::sync::Arc;

use headgate_core::spec::EndpointSpec;
use headgate_engine::Model;
use serde_json::{Map, Value, json};

use crate::serving::load_versions::LoadFailure;
use crate::serving::orders::{Order, State};

/// What became of an order.
pub(crate) enum Outcome {
    /// It is served.
    Applied { generation: u64, models: Vec<Arc<Model>> },
    /// Somebody newer was first.
    Superseded,
    /// What was served before goes on.
    Failed(LoadFailure),
}

impl Outcome {
    /// What it is to clients of an endpoint that is not served; `None` for one that is.
    pub(crate) fn news(&self) -> Option<News<'_>> {
        match self {
            Outcome::Applied { .. } => None,
            Outcome::Superseded => Some(News::Overtaken),
            Outcome::Failed(failure) => Some(News::Failed(&failure.error.message)),
        }
    }

    /// The event for whoever asked.
    pub(crate) fn event(self, order: &Order) -> Value {
        let Order { ticket, spec, .. } = order;
        let (endpoint, revision) = (&spec.name, spec.revision);
        match self {
            Outcome::Applied { generation, models } => json!({
                "event": "applied", "ticket": ticket, "endpoint": endpoint, "revision": revision,
                "generation": generation, "versions": loaded(spec, &models),
            }),
            Outcome::Superseded => json!({
                "event": "superseded", "ticket": ticket, "endpoint": endpoint, "revision": revision,
            }),
            Outcome::Failed(LoadFailure { version, error }) => json!({
                "event": "failed", "ticket": ticket, "endpoint": endpoint, "revision": revision,
                "code": error.code, "version": version, "message": error.message,
            }),
        }
    }
}

fn loaded(spec: &EndpointSpec, models: &[Arc<Model>]) -> Value {
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

/// Why an endpoint is not served that was before the start.
pub(crate) enum News<'a> {
    Loading,
    Failed(&'a str),
    Overtaken,
}

impl News<'_> {
    pub(crate) fn words(&self) -> &str {
        match self {
            News::Loading => "it is being loaded",
            News::Failed(why) => why,
            News::Overtaken => {
                "its load was cancelled for a newer state; if that does not come, apply its document again"
            }
        }
    }

    /// Whether this is the last that is known of the order's endpoint. The newest order has the say: what becomes of an older one
    /// is not what clients wait for.
    pub(crate) fn counts(&self, order: &Order, state: &State) -> bool {
        if order.reload.is_some() {
            return false;
        }
        let newest = state.excused.get(&order.spec.name).copied();
        match (self, newest) {
            (News::Overtaken, newest) => newest == Some(order.ticket),
            (News::Loading | News::Failed(_), None) => !order.spec.fresh && !state.supersedes(order),
            (News::Loading, Some(newest)) => order.ticket >= newest && !state.supersedes(order),
            // One that was abandoned is superseded from then on, and its failure is known all the same.
            (News::Failed(_), Some(newest)) => order.ticket >= newest,
        }
    }
}
