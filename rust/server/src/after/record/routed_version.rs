//! The version that a request was routed to, and where it is counted.

use std::sync::Arc;

use headgate_core::route::RouteReason;
use headgate_core::snapshot::Version;

use crate::metrics::Shard;
use crate::serving::shared::LiveEndpoint;
use crate::serving::version::VersionState;

/// The version that a request was routed to, as the endpoint was then.
#[derive(Clone)]
pub struct RoutedVersion {
    /// The endpoint.
    pub endpoint: Arc<LiveEndpoint>,
    /// The version's place in it.
    pub index: u8,
    /// The IO thread of the request.
    pub thread: usize,
    /// What decided for the version.
    pub reason: RouteReason,
}

impl RoutedVersion {
    /// The version.
    pub fn version(&self) -> &Version<VersionState> {
        &self.endpoint.versions[usize::from(self.index)]
    }

    /// Whether the caller named the version.
    pub fn is_direct(&self) -> bool {
        self.reason == RouteReason::Direct
    }

    /// The number of the rule that decided.
    pub fn rule(&self) -> Option<u16> {
        match self.reason {
            RouteReason::Rule(number) => Some(number),
            _ => None,
        }
    }

    /// The counters of the version on this thread.
    pub fn shard(&self) -> &Shard {
        self.version().payload.metrics.shard(self.thread)
    }
}
