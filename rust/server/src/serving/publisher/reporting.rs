//! Reports the outcome of updates: to the control plane, and to loads over the protocol that wait for it.

use std::sync::Arc;

use headgate_core::error::Result;

use super::PublisherCore;
use crate::serving::residency;
use crate::serving::update_outcome::{UnavailableReason, UpdateOutcome};
use crate::serving::updates::{EndpointUpdate, Reload};

impl PublisherCore {
    /// Records why an endpoint is not served that was served before the start.
    pub(super) fn mark_unavailable(&self, update: &EndpointUpdate, reason: &UnavailableReason<'_>) {
        let mut state = self.state();
        if !reason.is_current(update, &state) {
            return;
        }
        let name = &update.spec.name;
        if let Some(newest) = state.reason_tickets.get_mut(name) {
            *newest = update.ticket;
        }
        let Some(next) = self.shared.snapshot.load().with_unavailable(name, reason.message()) else { return };
        state.reason_tickets.insert(name.clone(), update.ticket);
        self.shared.store(next);
        drop(state);
        self.refresh();
    }

    /// Ends the precedence of an urgent update. Loads that waited for it get their outcome.
    pub(super) fn release_urgent(&self, name: &str, ticket: u64) {
        let mut state = self.state();
        state.open.remove(&ticket);
        if state.urgent.get(name) != Some(&ticket) {
            return;
        }
        state.urgent.remove(name);
        let waiting = state.waiting.remove(name).unwrap_or_default();
        drop(state);
        waiting.into_iter().for_each(|notifier| notifier.notify(self.check_served(name)));
    }

    /// `Ok` if an endpoint is served, else the error of its requests.
    fn check_served(&self, name: &str) -> Result<()> {
        self.shared.snapshot.load().endpoint(name).map(|_| ())
    }

    /// Reports to a load over the protocol that its update was superseded. The load succeeds if a newer state is served. If an urgent
    /// update is in progress, the load waits for that one.
    fn report_superseded(&self, name: &str, notifier: &Arc<residency::LoadNotifier>) {
        let mut state = self.state();
        if state.urgent.contains_key(name) {
            state.waiting.entry(name.to_owned()).or_default().push(notifier.clone());
            return;
        }
        drop(state);
        notifier.notify(self.check_served(name));
    }

    /// Reports the outcome of an update to the load that asked for it, or to the control plane.
    pub(super) fn report(&self, update: &EndpointUpdate, outcome: UpdateOutcome) {
        let endpoint = &update.spec.name;
        if let Some(Reload { notifier, .. }) = &update.reload {
            match outcome {
                UpdateOutcome::Failed(failure) => notifier.notify(Err(failure.error)),
                UpdateOutcome::Applied { .. } => notifier.notify(Ok(())),
                UpdateOutcome::Superseded => self.report_superseded(endpoint, notifier),
            }
            return;
        }
        if let (UpdateOutcome::Failed(failure), true) = (&outcome, update.is_urgent()) {
            // The loads that waited for this update fail with it.
            let waiting = self.state().waiting.remove(endpoint).unwrap_or_default();
            waiting.into_iter().for_each(|notifier| notifier.notify(Err(failure.error.clone())));
        }
        if let Some(reason) = outcome.unavailable_reason() {
            self.mark_unavailable(update, &reason);
        }
        self.events.push(outcome.event(update));
    }
}
