//! Replays of captured requests: started, read and ended.

use headgate_core::error::{Code, Error, Result};
use serde_json::Value;

use super::Gateway;
use crate::replay::registry::{ReplayRequest, RunnableVersion};
use crate::serving::version::VersionState;

impl Gateway {
    /// Begins a replay, and gives its report so far. Reads files.
    ///
    /// # Errors
    /// `model_not_found`, `version_not_found`, `model_not_ready`; `policy_invalid` without captured requests that fit; `overloaded`.
    pub fn start_replay(&self, endpoint: &str, request: &[u8]) -> Result<Value> {
        let request: ReplayRequest =
            serde_json::from_slice(request).map_err(|error| Error::invalid(format!("replay: {error}")))?;
        let live = self.shared.snapshot.load().endpoint(endpoint)?.clone();
        let folder = self.shared.captures.folder().ok_or_else(|| {
            Error::new(
                Code::PolicyInvalid,
                "nothing is captured: the gateway has no folder for captured requests",
            )
        })?;
        let runnable = |version: &VersionState| RunnableVersion {
            model: version.model.clone(),
            run_threads: version.run_threads,
        };
        let begun =
            self.shared.replays.start(folder, &live, (&request, runnable), self.shared.shadows.budget())?;
        // The endpoint may have changed since the snapshot was read.
        self.shared.cancel_outdated_replays(endpoint);
        Ok(begun)
    }

    /// The reports of an endpoint's replays since the start of the gateway, the newest first.
    pub fn replays(&self, endpoint: &str) -> Value {
        self.shared.replays.reports(endpoint)
    }

    /// Ends a replay.
    ///
    /// # Errors
    /// `not_found`.
    pub fn cancel_replay(&self, endpoint: &str, id: u64) -> Result<Value> {
        self.shared.replays.cancel(endpoint, id)
    }
}
