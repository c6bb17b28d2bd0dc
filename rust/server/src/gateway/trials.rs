//! The trials of endpoints, as the control plane reads, stores and restores them.

use std::sync::Arc;

use headgate_core::error::Result;
use headgate_core::trial::arm::TrialArm;
use headgate_core::trial::report::Detail;
use serde_json::Value;

use super::Gateway;
use crate::serving::shared::LiveEndpoint;
use crate::serving::trial_families;
use crate::serving::trial_registry::StoredTrial;

impl Gateway {
    /// The newest trial of an endpoint, and in short those before it that are still in memory: `{"trial": ..., "earlier": [...]}`, with
    /// null for an endpoint that had none.
    ///
    /// # Errors
    /// `model_not_found` for an endpoint that is not served and had no trial.
    pub fn trial(&self, endpoint: &str, detail: Detail) -> Result<Value> {
        let snapshot = self.shared.snapshot.load();
        let live = snapshot.endpoint(endpoint);
        let served = live.as_ref().ok().and_then(|endpoint| served_arm(endpoint));
        let report = self.shared.trial_registry.report(endpoint, served, self.shared.trial_clock(), detail);
        match (&report["trial"], live) {
            (Value::Null, Err(error)) => Err(error),
            _ => Ok(report),
        }
    }

    /// Sets the thresholds that a trial's first requests of units are compared with, as JSON `{"attempt", "arms": {version: {"run_ns",
    /// "reply_ns"}}}`; the number of the window that begins.
    ///
    /// # Errors
    /// `invalid_argument` for other JSON, or a version that is no arm; `not_found` if the endpoint has no such trial.
    pub fn set_trial_thresholds(&self, endpoint: &str, thresholds: &[u8]) -> Result<u32> {
        self.shared.trial_registry.set_thresholds(endpoint, thresholds, self.shared.trial_clock())
    }

    /// Every trial in memory with the number of its newest change.
    pub fn trials(&self) -> Value {
        self.shared.trial_registry.list(self.shared.trial_clock())
    }

    /// The state of the trial that began then, for a store; `None` if it is not in memory any more, or the receipts that were used
    /// for it cannot be written.
    pub fn stored_trial(&self, endpoint: &str, begun_ms: u64) -> Option<StoredTrial> {
        let stored = self.shared.trial_registry.stored(endpoint, begun_ms, self.shared.trial_clock())?;
        // Behind the ledger, and before the store has it: a receipt whose feedback is in the ledger must not count again after a crash.
        self.shared.feedback.save(endpoint).is_ok().then_some(stored)
    }

    /// Takes in a trial that was stored. It goes on, after a gap, if the endpoint is served with it again.
    ///
    /// # Errors
    /// `invalid_argument` for a state that cannot be read.
    pub fn restore_trial(&self, endpoint: &str, stored: &StoredTrial) -> Result<()> {
        self.shared.trial_registry.restore(endpoint, stored)
    }

    /// The metrics of the trials that are on.
    pub(super) fn trial_families(&self) -> Vec<Value> {
        let snapshot = self.shared.snapshot.load();
        let served =
            snapshot.endpoints.iter().filter_map(|(name, endpoint)| Some((&**name, served_arm(endpoint)?)));
        let mut summaries = self.shared.trial_registry.summaries(served, self.shared.trial_clock());
        summaries.sort_by(|(a, _), (b, _)| a.cmp(b));
        trial_families::families(&summaries)
    }
}

/// An arm of the endpoint, if a trial is on.
fn served_arm(endpoint: &LiveEndpoint) -> Option<&Arc<TrialArm>> {
    endpoint.versions.iter().find_map(|version| version.payload.trial.as_ref())
}
