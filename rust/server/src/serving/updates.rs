//! Updates of endpoints, and their precedence: the newest update of an endpoint is served, but an urgent one supersedes ordinary ones.
//!
//! Next: back to `publisher`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use headgate_core::spec::{EndpointSpec, VersionSpec};

use crate::serving::residency;
use crate::serving::shared::LiveEndpoint;

/// A new state of an endpoint that is not served yet.
pub(crate) struct EndpointUpdate {
    pub(crate) ticket: u64,
    pub(crate) spec: Arc<EndpointSpec>,
    /// Set if a client of the protocol asked for it, to load an endpoint that was unloaded.
    pub(crate) reload: Option<Reload>,
}

/// A load over the protocol.
pub(crate) struct Reload {
    /// The ticket of the load itself; the ticket of the update is that of the state that is loaded again.
    pub(crate) ticket: u64,
    /// Reports the outcome to the client.
    pub(crate) notifier: Arc<residency::LoadNotifier>,
}

/// The tickets that decide the precedence, by endpoint.
#[derive(Default)]
pub(crate) struct PublishState {
    pub(crate) ticket: u64,
    /// The newest ticket that was swapped in. Older updates are superseded.
    pub(crate) applied: HashMap<String, u64>,
    /// The newest urgent ticket in progress. Ordinary updates are superseded, newer ones as well.
    pub(crate) urgent: HashMap<String, u64>,
    /// Loads over the protocol that an urgent update in progress superseded. They end with it.
    pub(crate) waiting: HashMap<String, Vec<Arc<residency::LoadNotifier>>>,
    /// The ticket of the newest unload. Loads over the protocol with an older ticket are superseded.
    pub(crate) unloads: HashMap<String, u64>,
    /// The spec of each endpoint that is served.
    pub(crate) specs: HashMap<String, Arc<EndpointSpec>>,
    /// The ticket of the newest cancellation. Ordinary updates with an older ticket are superseded.
    pub(crate) cancelled: HashMap<String, u64>,
    /// The newest ticket that gave a reason, for each endpoint in the snapshot's `unavailable`.
    pub(crate) reason_tickets: HashMap<String, u64>,
    /// The updates of the control plane that are neither swapped in nor reported, by ticket. They can be withdrawn.
    pub(crate) open: HashMap<u64, Arc<EndpointUpdate>>,
    /// The ids of abandoned and of withdrawn updates. Their outcome was reported, and the result of their load is dropped.
    pub(crate) abandoned: HashSet<u64>,
    /// Endpoints that were replaced. They are kept so that they are not freed on an IO thread.
    pub(crate) retired: Vec<Arc<LiveEndpoint>>,
}

impl EndpointUpdate {
    /// A ticket that no other update has. Loads of the same state over the protocol share the ticket of the state.
    pub(crate) fn id(&self) -> u64 {
        self.reload.as_ref().map_or(self.ticket, |reload| reload.ticket)
    }

    /// Whether it is an urgent update of the control plane. A load over the protocol is not: clients must not keep the urgent loader busy.
    pub(crate) fn is_urgent(&self) -> bool {
        self.reload.is_none() && self.spec.urgent
    }

    /// Whether it is an update of the control plane that is not urgent.
    fn is_ordinary(&self) -> bool {
        self.reload.is_none() && !self.spec.urgent
    }

    /// Whether this is a newer state of the same endpoint that does not need every model of the older one. An ordinary update never
    /// replaces an urgent one: it is superseded itself, so neither would be served.
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

    /// Whether a newer update, or an urgent one in progress, takes precedence over this one.
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
    fn a_reload_of_an_urgent_state_is_not_urgent_itself() {
        let mut state = PublishState::default();
        state.urgent.insert("model".to_owned(), 3);
        assert!(!state.supersedes(&update(3, true, None)));
        let back = update(1, true, Some(2));
        assert!(!back.is_urgent() && state.supersedes(&back), "an urgent state is on its way");
        assert!(!back.replaces(&update(3, true, None)));
    }

    #[test]
    fn an_abandoned_update_does_not_supersede_the_next_one_of_the_same_state() {
        let mut state = PublishState::default();
        let (abandoned, next) = (update(1, false, Some(2)), update(1, false, Some(3)));
        state.abandoned.insert(abandoned.id());
        assert!(state.supersedes(&abandoned) && !state.supersedes(&next));
        assert!(!state.supersedes(&update(1, false, None)));
    }
}
