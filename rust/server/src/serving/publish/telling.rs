//! Who is told what became of an order: the control plane, and loads over the protocol that wait.

use std::sync::Arc;

use headgate_core::error::Result;

use super::Inner;
use crate::serving::orders::{Order, Reload};
use crate::serving::outcome::{News, Outcome};
use crate::serving::residency;

impl Inner {
    /// Says why an endpoint is not served that was before the start.
    pub(super) fn excuse(&self, order: &Order, news: &News<'_>) {
        let mut state = self.state();
        if !news.counts(order, &state) {
            return;
        }
        let name = &order.spec.name;
        if let Some(newest) = state.excused.get_mut(name) {
            *newest = order.ticket;
        }
        let Some(next) = self.shared.snapshot.load().with_unavailable(name, news.words()) else { return };
        state.excused.insert(name.clone(), order.ticket);
        self.shared.store(next);
        drop(state);
        self.refresh();
    }

    /// An urgent order no longer stands in anybody's way.
    pub(super) fn settle(&self, name: &str, ticket: u64) {
        let mut state = self.state();
        if state.urgent.get(name) != Some(&ticket) {
            return;
        }
        state.urgent.remove(name);
        let heirs = state.heirs.remove(name).unwrap_or_default();
        drop(state);
        heirs.into_iter().for_each(|heir| heir.tell(self.served(name)));
    }

    /// Whether an endpoint is served.
    fn served(&self, name: &str) -> Result<()> {
        self.shared.snapshot.load().endpoint(name).map(|_| ())
    }

    /// Tells a load over the protocol that somebody else had the say. A newer state that is served instead is as good, and so
    /// is one that is on its way.
    fn overtaken(&self, name: &str, waits: &Arc<residency::Waiter>) {
        let mut state = self.state();
        if state.urgent.contains_key(name) {
            state.heirs.entry(name.to_owned()).or_default().push(waits.clone());
            return;
        }
        drop(state);
        waits.tell(self.served(name));
    }

    /// Tells whoever asked what became of an order.
    pub(super) fn tell(&self, order: &Order, outcome: Outcome) {
        let endpoint = &order.spec.name;
        if let Some(Reload { waits, .. }) = &order.reload {
            match outcome {
                Outcome::Failed(failure) => waits.tell(Err(failure.error)),
                Outcome::Applied { .. } => waits.tell(Ok(())),
                Outcome::Superseded => self.overtaken(endpoint, waits),
            }
            return;
        }
        if let (Outcome::Failed(failure), true) = (&outcome, order.is_urgent()) {
            // Loads that waited for this one are not served by it.
            let heirs = self.state().heirs.remove(endpoint).unwrap_or_default();
            heirs.into_iter().for_each(|heir| heir.tell(Err(failure.error.clone())));
        }
        if let Some(news) = outcome.news() {
            self.excuse(order, &news);
        }
        self.events.push(outcome.event(order));
    }
}
