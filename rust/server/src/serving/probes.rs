//! The outcomes of probes: runs of a known input, which tell whether a failure is the fault of the version or of the request.

use headgate_core::snapshot::Snapshot;
use headgate_engine::Model;
use serde_json::{Value, json};

use crate::serving::version::VersionState;
use crate::serving::version_families::per_version;

/// The metrics of probes, for each version.
#[rustfmt::skip]
pub fn families(snapshot: &Snapshot<VersionState>) -> [Value; 2] {
    [
        per_version(snapshot, "headgate_probes_total", "Runs of a known input after the run of a request failed, to find whether the version or the request is at fault.", "counter", |model| model.probes().counts().0),
        per_version(snapshot, "headgate_probes_failed_total", "Probes that failed as well, so that the version is at fault and not the request.", "counter", |model| model.probes().counts().1),
    ]
}

/// The status of the probes of a version.
pub fn probe_status(model: &Model) -> Value {
    let (runs, failed) = model.probes().counts();
    json!({"runs": runs, "failed": failed})
}
