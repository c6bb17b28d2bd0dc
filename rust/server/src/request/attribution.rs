//! Whose mistake a failed run is: the request's, or the version's.
//!
//! ONNX Runtime does not say: most failures have one code, whether an index is out of range or a device is lost. So the version
//! runs an input that it is known to take (`headgate_engine::probe`): where it does, the request was at fault, and where it does not, the
//! version is. Of a version without such an input its answers tell: while it answers others, the request was at fault.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use headgate_core::breaker::Verdict;
use headgate_core::snapshot::Snapshot;
use headgate_engine::{Asked, Finding, Model};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::io;
use crate::serving::run_watch::per_version;
use crate::taps::Tap;
use crate::version::VersionState;

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
    fn finding(&self, good: u64, now_ns: u64) -> Finding {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if good != seen.good {
            *seen = Seen { good, more_ns: Some(now_ns) };
        }
        let recent = |at: u64| now_ns.saturating_sub(at) < RECENT.as_nanos() as u64;
        if seen.more_ns.is_some_and(recent) { Finding::Works } else { Finding::Fails }
    }
}

/// Whether the version of a run that failed works; `None` when that is not known by the request's deadline.
pub async fn finding(tap: &Tap) -> Option<Finding> {
    let coming = match asked(tap) {
        Asked::Known(finding) => return Some(finding),
        Asked::Awaited(coming) | Asked::Begun(coming) => coming,
    };
    tokio::time::timeout_at(tap.until().into(), told(coming)).await.ok()
}

/// Tells the breaker what a failed run says about its version, now or when a probe has told; the request does not wait for that.
pub fn report_in_time(tap: &mut Tap) {
    let Some(report) = tap.report_later() else { return };
    match asked(tap) {
        Asked::Known(finding) => report.tell(verdict(finding)),
        Asked::Begun(coming) => {
            tokio::task::spawn_local(async move { report.tell(verdict(told(coming).await)) });
        }
        // One report for each probe: those that nobody waits for must not pile up.
        Asked::Awaited(_) => {}
    }
}

/// What a failed run says about its version.
fn verdict(finding: Finding) -> Verdict {
    match finding {
        Finding::Works => Verdict::Neither,
        Finding::Fails => Verdict::Bad,
    }
}

fn asked(tap: &Tap) -> Asked {
    let version = &tap.version().payload;
    let (probed, now_ns) = io::with(|io| (io.shared.pool.probe(&version.model), io.shared.now_ns()));
    probed.unwrap_or_else(|| Asked::Known(version.track.finding(version.metrics.outcome().succeeded, now_ns)))
}

/// A probe that comes to nothing (the gateway stops) says nothing against the version.
async fn told(coming: oneshot::Receiver<Finding>) -> Finding {
    coming.await.unwrap_or(Finding::Works)
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
        assert_eq!(track.finding(0, 1), Finding::Fails);
        assert_eq!(track.finding(3, 2), Finding::Works);
        assert_eq!(track.finding(3, 1 + recent), Finding::Works);
        assert_eq!(track.finding(3, 2 + recent), Finding::Fails);
        assert_eq!(track.finding(4, 3 + recent), Finding::Works);
    }
}
