//! What a version of a snapshot needs to issue receipts, and the way of feedback to the trial of its answer.
//!
//! Not here: receipts themselves (the room `feedback`), what a trial counts (`headgate_core::trial::feedback`).

use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::trial::arm::TrialArm;
use headgate_core::trial::feedback::GivenFeedback;
use headgate_core::trial::feedback_count::Counted;
use headgate_core::trial::ledger::TrialIdentity;
use headgate_core::trial::units::MAX_LEVELS;

use crate::feedback::endpoint::{TakenFeedback, VersionReceipts, version_tag};
use crate::feedback::receipt::ReceiptArm;
use crate::serving::shared::{LiveEndpoint, Shared};

/// What a version of `spec` needs to issue receipts. `None` if the endpoint takes no feedback, or its receipts cannot be read: it is served
/// all the same, because a full or broken disk must not keep a rollback from happening.
pub(super) fn receipts(
    shared: &Shared,
    spec: &EndpointSpec,
    version: &VersionSpec,
    trial: Option<&TrialArm>,
) -> Option<VersionReceipts> {
    if spec.feedback.is_empty() {
        return None;
    }
    let endpoint = shared.feedback.endpoint(&spec.name, now_s(shared)).ok()?;
    endpoint.know(&version.name, &version.digest);
    let champion = spec.versions.iter().find(|one| one.name == spec.champion)?;
    let identity = TrialIdentity {
        attempt: spec.table.salt.clone(),
        champion: champion.name.clone(),
        digest: champion.digest.clone(),
        sticky: spec.sticky.clone(),
    };
    let place = |arm: &TrialArm| ReceiptArm {
        trial: identity.tag(),
        arm: arm.arm,
        split: arm.level.unwrap_or(MAX_LEVELS as u8),
    };
    Some(VersionReceipts {
        endpoint,
        revision: u32::try_from(spec.revision).unwrap_or(u32::MAX),
        version: version_tag(&version.name, &version.digest),
        arm: trial.map(place),
    })
}

/// Removes sets of used receipts of feedbacks that are not declared any more.
pub(super) fn remove_undeclared(shared: &Shared) {
    let snapshot = shared.snapshot.load_full();
    let declared = |name: &str| snapshot.endpoints.get(name).map(|endpoint| endpoint.feedback.clone());
    shared.feedback.remove_undeclared(now_s(shared), declared);
}

/// The present time in seconds since 1970, by the clock that receipts are issued with.
fn now_s(shared: &Shared) -> u64 {
    shared.unix_ms_at(shared.now_ns()) / 1_000
}

/// Hands feedback to the trial of its answer, if the answer was part of one that is still known.
pub fn count(shared: &Shared, endpoint: &LiveEndpoint, taken: &TakenFeedback) -> Option<Counted> {
    let place = taken.receipt.arm?;
    let spec = endpoint.feedback.get(&taken.name)?;
    let given = GivenFeedback {
        arm: place.arm,
        split: place.split,
        unit: taken.receipt.unit,
        issued_s: taken.receipt.issued_s,
        value: taken.value,
    };
    shared.trial_registry.add_feedback(&endpoint.name, place.trial, (&taken.name, spec), given)
}
