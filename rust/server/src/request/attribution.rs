//! Whether the request or the version is at fault for a failed run.
//!
//! ONNX Runtime does not say: most failures have one code, whether an index is out of range or a device is lost. So the version
//! runs an input that it is known to take (`probes` of the engine). If that works, the request is at fault; if it fails, the
//! version is. The same holds for a run that does not end in time, because one request may make a loop go on for ever. A version
//! without such an input is judged by its other requests: while it answers those, the request is at fault. Before it has answered
//! any, the fault is unknown, and the failure counts against neither.

use std::time::Duration;

use headgate_core::breaker::HealthSignal;
use headgate_core::snapshot::Version;
use headgate_engine::{ProbeAnswer, ProbeOutcome};
use tokio::sync::oneshot;

use crate::request::attempt::Attempt;
use crate::serving::version::VersionState;
use crate::thread::io::{self, Io};

/// What is at fault for a failed run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request: the version works.
    Request,
    /// The version.
    Version,
    /// No input is known that the version takes, and it has answered no request lately.
    Unknown,
    /// The probe did not end by the request's deadline.
    TimedOut,
}

/// Waits until it is known what is at fault for a failed run.
pub async fn find_fault(attempt: &Attempt) -> Fault {
    let receiver = match io::with(|io| ask_probe(io, attempt.record.version())) {
        None => return Fault::Unknown,
        Some(ProbeAnswer::Known(finding)) => return fault(finding, None),
        Some(ProbeAnswer::InProgress(receiver) | ProbeAnswer::Started(receiver)) => receiver,
    };
    let finding = tokio::time::timeout_at(attempt.deadlines.request.into(), await_finding(receiver)).await;
    finding.map_or(Fault::TimedOut, |finding| fault(finding, None))
}

/// Reports to the breaker what a run that failed, or did not end in time, says about its version: now, or when a probe has ended. The
/// request does not wait for that.
pub fn report_when_known(io: &Io, attempt: &mut Attempt) {
    let within = attempt.overran_within();
    let Some(report) = attempt.record.report_later() else { return };
    match ask_probe(io, attempt.record.version()) {
        Some(ProbeAnswer::Known(finding)) => report.send(health_signal(finding, within)),
        Some(ProbeAnswer::Started(receiver)) => {
            tokio::task::spawn_local(async move {
                report.send(health_signal(await_finding(receiver).await, within))
            });
        }
        // One report for each probe, so that reports do not pile up. Without a probe the fault is unknown.
        Some(ProbeAnswer::InProgress(_)) | None => {}
    }
}

/// The fault by what a probe found. `within` is the time that the version had, for a run that did not end in it: a version that needs
/// longer for an input that it is known to take is too slow for any.
fn fault(finding: ProbeOutcome, within: Option<Duration>) -> Fault {
    match finding {
        ProbeOutcome::Works { run } if within.is_none_or(|within| run < within) => Fault::Request,
        _ => Fault::Version,
    }
}

fn health_signal(finding: ProbeOutcome, within: Option<Duration>) -> HealthSignal {
    match fault(finding, within) {
        Fault::Version => HealthSignal::Failure,
        _ => HealthSignal::Neutral,
    }
}

/// The finding of a probe that was dropped, because the gateway stops: nothing against the version.
const NO_FINDING: ProbeOutcome = ProbeOutcome::Works { run: Duration::ZERO };

/// Asks for a probe of the version; `None` if no input is known that it takes, and it has not answered lately.
fn ask_probe(io: &Io, version: &Version<VersionState>) -> Option<ProbeAnswer> {
    let version = &version.payload;
    let (probed, now_ns) = (io.shared.pool.probe(&version.model), io.shared.now_ns());
    let by_record = || version.recent_success.is_recent(version.metrics.request_totals().succeeded, now_ns);
    probed.or_else(|| by_record().then_some(ProbeAnswer::Known(NO_FINDING)))
}

async fn await_finding(receiver: oneshot::Receiver<ProbeOutcome>) -> ProbeOutcome {
    receiver.await.unwrap_or(NO_FINDING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_late_is_the_version_s_if_that_is_slow_on_what_it_is_known_to_take() {
        let (long, short) = (Duration::from_secs(2), Duration::from_secs(1));
        let works = ProbeOutcome::Works { run: long };
        assert_eq!(fault(works, None), Fault::Request);
        assert_eq!(fault(works, Some(2 * long)), Fault::Request);
        assert_eq!(fault(works, Some(short)), Fault::Version);
        assert_eq!(fault(ProbeOutcome::Fails, Some(2 * long)), Fault::Version);
    }
}
