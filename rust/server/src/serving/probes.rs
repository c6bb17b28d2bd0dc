//! What is known of a version beside its failures: whether it answers others, and how its probes ended.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headgate_core::snapshot::Snapshot;
use headgate_engine::Model;
use serde_json::{Value, json};

use crate::serving::run_watch::per_version;
use crate::serving::version::VersionState;

/// How long a version's answer to somebody else says that it works.
const RECENT: Duration = Duration::from_secs(10);

/// What a version's answers say of it.
#[derive(Debug, Default)]
pub struct TrackRecord(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Good answers at the last look.
    good: u64,
    /// When a look found more of them than the one before.
    more_ns: Option<u64>,
}

impl TrackRecord {
    /// Whether the version, which has given so many good answers by now, gave one lately.
    pub fn works(&self, good: u64, now_ns: u64) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if good != seen.good {
            *seen = Seen { good, more_ns: Some(now_ns) };
        }
        seen.more_ns.is_some_and(|at| now_ns.saturating_sub(at) < RECENT.as_nanos() as u64)
    }
}

/// What is counted of probes, for each version.
#[rustfmt::skip]
pub fn families(snapshot: &Snapshot<VersionState>) -> [Value; 2] {
    [
        per_version(snapshot, "headgate_probes_total", "Runs of a known input because a request's run had failed: whose mistake that was.", "counter", |model| model.probes().counts().0),
        per_version(snapshot, "headgate_probes_failed_total", "Those that failed as well: the version is at fault, not the request.", "counter", |model| model.probes().counts().1),
    ]
}

/// What is shown of a version's probes.
pub fn shown(model: &Model) -> Value {
    let (runs, failed) = model.probes().counts();
    json!({"runs": runs, "failed": failed})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_answers_others_works_and_one_that_has_not_lately_does_not() {
        let (track, recent) = (TrackRecord::default(), RECENT.as_nanos() as u64);
        assert!(!track.works(0, 1));
        assert!(track.works(3, 2));
        assert!(track.works(3, 1 + recent));
        assert!(!track.works(3, 2 + recent));
        assert!(track.works(4, 3 + recent));
    }
}
