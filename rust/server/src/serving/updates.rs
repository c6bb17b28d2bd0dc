//! Specs on their way, and who has the say over an endpoint: whoever came last, or whoever is urgent.
//!
//! Next: back to `publish`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use headgate_core::spec::{EndpointSpec, VersionSpec};

use crate::serving::residency;
use crate::serving::shared::LiveEndpoint;

/// A spec on its way.
pub(crate) struct EndpointUpdate {
    pub(crate) ticket: u64,
    pub(crate) spec: Arc<EndpointSpec>,
    /// Set where it brings an endpoint back that was unloaded: nobody on the control plane asked for it.
    pub(crate) reload: Option<Reload>,
}

/// A load over the protocol.
pub(crate) struct Reload {
    /// The ticket at which it was asked for.
    pub(crate) ticket: u64,
    /// Who waits for the outcome.
    pub(crate) notifier: Arc<residency::LoadNotifier>,
}

/// Who came last, by endpoint.
#[derive(Default)]
pub(crate) struct PublishState {
    pub(crate) ticket: u64,
    /// The newest ticket that was swapped in: older ones are superseded.
    pub(crate) applied: HashMap<String, u64>,
    /// The newest urgent ticket on its way: ordinary ones, newer or not, are superseded.
    pub(crate) urgent: HashMap<String, u64>,
    /// Loads over the protocol that an urgent order on its way has overtaken: they end with it.
    pub(crate) waiting: HashMap<String, Vec<Arc<residency::LoadNotifier>>>,
    /// The newest ticket at which an endpoint was taken out of memory: loads that were asked for before are superseded.
    pub(crate) unloads: HashMap<String, u64>,
    /// What each served endpoint was made from.
    pub(crate) specs: HashMap<String, Arc<EndpointSpec>>,
    /// The newest ticket at which an endpoint's loads were cancelled: ordinary ones that were asked for before are superseded.
    pub(crate) cancelled: HashMap<String, u64>,
    /// The newest ticket that said why an endpoint is not served, for each in the snapshot's `absent`.
    pub(crate) reason_tickets: HashMap<String, u64>,
    /// The ids of loads that were abandoned: whoever asked was told, and what they bring is thrown away.
    pub(crate) abandoned: HashSet<u64>,
    /// Endpoints that were replaced; they are freed here and not on an IO thread.
    pub(crate) retired: Vec<Arc<LiveEndpoint>>,
}

impl EndpointUpdate {
    /// What tells it from every other order: the ticket of a load over the protocol is that of the state that it brings back.
    pub(crate) fn id(&self) -> u64 {
        self.reload.as_ref().map_or(self.ticket, |reload| reload.ticket)
    }

    /// Whether it is a new state that is urgent. To bring one back is not: clients must not keep the urgent loader busy.
    pub(crate) fn is_urgent(&self) -> bool {
        self.reload.is_none() && self.spec.urgent
    }

    /// Whether it is a new state that is not urgent.
    fn is_ordinary(&self) -> bool {
        self.reload.is_none() && !self.spec.urgent
    }

    /// Whether this is a newer state of the same endpoint, which does not need all of what the older one loads. An ordinary state
    /// never replaces an urgent one: the urgent one has the say, and a load that both lost would serve neither.
    pub(crate) fn replaces(&self, older: &EndpointUpdate) -> bool {
        let needs = |version: &VersionSpec| {
            self.spec.versions.iter().any(|own| own.digest == version.digest && own.run == version.run)
        };
        self.spec.name == older.spec.name
            && self.ticket > older.ticket
            && (self.is_urgent() || !older.is_urgent())
            && !older.spec.versions.iter().all(needs)
    }
}

impl PublishState {
    pub(crate) fn next_ticket(&mut self) -> u64 {
        self.ticket += 1;
        self.ticket
    }

    /// Whether somebody who came later, or who is urgent and on the way, has the say over the order's endpoint.
    pub(crate) fn supersedes(&self, update: &EndpointUpdate) -> bool {
        let after = |table: &HashMap<String, u64>, ticket: u64| {
            table.get(&update.spec.name).is_some_and(|&newest| newest > ticket)
        };
        self.abandoned.contains(&update.id())
            || after(&self.applied, update.ticket)
            || (update.is_ordinary() && after(&self.cancelled, update.ticket))
            || update.reload.as_ref().is_some_and(|reload| after(&self.unloads, reload.ticket))
            || (!update.is_urgent() && self.urgent.contains_key(&update.spec.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(ticket: u64, urgent: bool, reload: Option<u64>) -> EndpointUpdate {
        let spec = serde_json::json!({
            "name": "model", "revision": ticket,
            "spec": {
                "versions": {"v1": {"digest": "sha256:1"}},
                "traffic": {"champion": "v1"}, "limits": {"timeout": 1000},
            },
            "traffic": {"champion": "v1", "last_good": "v1"},
            "load": {"versions": ["v1"], "artifacts": {"v1": "nowhere"}, "urgent": urgent},
        });
        let spec = EndpointSpec::from_json(spec.to_string().as_bytes()).expect("a spec");
        let reload = reload.map(|ticket| Reload { ticket, notifier: residency::load_completion().0 });
        EndpointUpdate { ticket, spec: Arc::new(spec), reload }
    }

    #[test]
    fn what_brings_an_urgent_state_back_is_not_urgent_itself() {
        let mut state = PublishState::default();
        state.urgent.insert("model".to_owned(), 3);
        assert!(!state.supersedes(&update(3, true, None)));
        let back = update(1, true, Some(2));
        assert!(!back.is_urgent() && state.supersedes(&back), "an urgent state is on its way");
        assert!(!back.replaces(&update(3, true, None)));
    }

    #[test]
    fn an_abandoned_load_takes_nothing_from_the_next_one_of_the_same_state() {
        let mut state = PublishState::default();
        let (abandoned, next) = (update(1, false, Some(2)), update(1, false, Some(3)));
        state.abandoned.insert(abandoned.id());
        assert!(state.supersedes(&abandoned) && !state.supersedes(&next));
        assert!(!state.supersedes(&update(1, false, None)));
    }
}
