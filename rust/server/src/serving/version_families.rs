//! Metrics that are read from the models of the versions that are served.

use headgate_core::snapshot::Snapshot;
use headgate_engine::Model;
use serde_json::{Value, json};

use crate::metrics::rendering::family;
use crate::serving::version::VersionState;

/// A family with one series for each version that is served.
pub fn per_version(
    snapshot: &Snapshot<VersionState>,
    name: &str,
    help: &str,
    kind: &str,
    read: fn(&Model) -> u64,
) -> Value {
    let mut endpoints: Vec<_> = snapshot.endpoints.values().collect();
    endpoints.sort_by(|a, b| a.name.cmp(&b.name));
    let versions = endpoints
        .iter()
        .flat_map(|endpoint| endpoint.versions.iter().map(move |version| (endpoint, version)));
    family(
        name,
        help,
        kind,
        versions.map(|(endpoint, version)| {
            json!([{"endpoint": endpoint.name, "version": version.name}, read(&version.payload.model)])
        }),
    )
}
