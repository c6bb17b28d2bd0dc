//! How the probes of versions ended: runs of a known input that tell whose mistake a failure was.

use headgate_core::snapshot::Snapshot;
use headgate_engine::Model;
use serde_json::{Value, json};

use crate::serving::version::VersionState;
use crate::serving::version_families::per_version;

/// What is counted of probes, for each version.
#[rustfmt::skip]
pub fn families(snapshot: &Snapshot<VersionState>) -> [Value; 2] {
    [
        per_version(snapshot, "headgate_probes_total", "Runs of a known input because a request's run had failed: whose mistake that was.", "counter", |model| model.probes().counts().0),
        per_version(snapshot, "headgate_probes_failed_total", "Those that failed as well: the version is at fault, not the request.", "counter", |model| model.probes().counts().1),
    ]
}

/// What is shown of a version's probes.
pub fn probe_status(model: &Model) -> Value {
    let (runs, failed) = model.probes().counts();
    json!({"runs": runs, "failed": failed})
}
