//! Updates whose outcome is reported before their load ends: those that are withdrawn, and those whose load does not end.
//!
//! Each update has one outcome. Who takes it out of `PublishState::open`, under the lock of the swap, reports it: the swap, the end of the
//! load, a withdrawal, or the check of loads.

use std::sync::Arc;
use std::time::Duration;

use headgate_engine::Instant;

use super::{Publisher, PublisherCore};
use crate::serving::load_versions::LoadFailure;
use crate::serving::update_outcome::UpdateOutcome;
use crate::serving::updates::EndpointUpdate;

impl Publisher {
    /// Withdraws an update that is neither swapped in nor reported: it is never served, and its outcome is "superseded", which is reported
    /// before this returns. False if it is too late. Other updates stay as they are.
    pub fn withdraw(&self, ticket: u64) -> bool {
        let inner = &self.inner;
        let update = {
            let mut state = inner.state();
            let Some(update) = state.open.remove(&ticket) else { return false };
            state.abandoned.insert(ticket);
            update
        };
        inner.report(&update, UpdateOutcome::Superseded);
        inner.release_urgent(&update.spec.name, ticket);
        inner.bound_withdrawn_loads(&update);
        true
    }
}

impl PublisherCore {
    /// Cancels the load of a withdrawn update if there is another one of the endpoint. One may go on, because the next update may need its
    /// models; if it does not, it cancels that one. More would only keep threads.
    fn bound_withdrawn_loads(&self, update: &EndpointUpdate) {
        let is_withdrawn = |load: &Arc<EndpointUpdate>| {
            load.spec.name == update.spec.name && self.state().abandoned.contains(&load.id())
        };
        if self.loads.running_for(Instant::now(), Duration::ZERO, is_withdrawn) > 1 {
            self.loads.cancel(|load| load.id() == update.id());
        }
    }

    /// Abandons an update whose load does not end: reports a failure now, and drops the result of the load later.
    pub(super) fn abandon(&self, update: &EndpointUpdate) {
        let superseded = {
            let mut state = self.state();
            let superseded = state.supersedes(update);
            if update.reload.is_none() && state.open.remove(&update.ticket).is_none() {
                // It was swapped in, failed or was withdrawn just now, and is reported there.
                return;
            }
            // Set before the report, so that the loader thread neither swaps nor reports from here on.
            state.abandoned.insert(update.id());
            superseded
        };
        let outcome = match superseded {
            true => UpdateOutcome::Superseded,
            false => UpdateOutcome::Failed(LoadFailure {
                version: String::new(),
                error: self.loads.timeout_error(),
            }),
        };
        self.report(update, outcome);
        self.release_urgent(&update.spec.name, update.ticket);
    }

    /// Whether the loader thread reports the outcome. It does not for an update that was abandoned or withdrawn; from here on, neither is
    /// possible.
    pub(super) fn claim_report(&self, update: &EndpointUpdate) -> bool {
        let mut state = self.state();
        state.open.remove(&update.id());
        !state.abandoned.remove(&update.id())
    }
}
