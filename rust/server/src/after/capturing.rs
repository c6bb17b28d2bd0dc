//! What a row of a capture says of a request beside its tensors: drawn when the version is chosen, completed after the response.
//!
//! Not here: which requests are drawn (`copies`), the queue and the files (`capture`).

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use headgate_capture::row::RowFacts;
use headgate_core::error::Code;
use headgate_core::route::{RouteDecision, RouteReason};
use headgate_core::shadow::Capture;
use headgate_core::slots::key_hash;
use headgate_engine::Instant;

use crate::copied_run::CopiedRun;
use crate::serving::shared::LiveEndpoint;

/// A request that is captured.
pub struct DrawnCapture {
    /// The index of the version that it is put to.
    version: u8,
    /// The number by which it was drawn.
    number: u64,
    /// A hash of its sticky key.
    unit: Option<u64>,
    reason: RouteReason,
    received: Instant,
}

/// How a captured request ended.
#[derive(Clone, Copy)]
pub struct CapturedEnd {
    /// `None` for success.
    pub code: Option<Code>,
    /// How long the run took, in nanoseconds.
    pub run_ns: Option<u64>,
}

impl DrawnCapture {
    /// What is captured of a request that was drawn by `number`, has that sticky key, and whose first byte came at `received`.
    pub fn new(
        capture: &Capture,
        decision: RouteDecision,
        number: u64,
        key: Option<&[u8]>,
        received: Instant,
    ) -> DrawnCapture {
        let unit = key.map(|key| key_hash(capture.sample.salt(), key));
        let RouteDecision { version, reason, .. } = decision;
        DrawnCapture { version, number, unit, reason, received }
    }

    /// Hands it over; `run` has the tensors, unless they were lost.
    pub fn hand_over(self, endpoint: &LiveEndpoint, end: CapturedEnd, run: Option<&Arc<CopiedRun>>) {
        // Without a folder for captures there is nowhere to put it.
        let Some(capture) = &endpoint.versions[usize::from(self.version)].payload.capture else { return };
        let (reason, rule) = match self.reason {
            RouteReason::Rule(number) => ("rule", Some(number)),
            RouteReason::Sticky => ("sticky", None),
            RouteReason::Drawn => ("drawn", None),
            RouteReason::Direct => ("direct", None),
        };
        let at = run.map_or_else(SystemTime::now, |run| run.time());
        let facts = RowFacts {
            time_us: at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as i64),
            request: self.number,
            revision: endpoint.revision,
            unit: self.unit,
            reason,
            rule,
            code: end.code.map_or("ok", Code::as_str),
            run_ns: end.run_ns,
            total_ns: self.received.elapsed().as_nanos() as u64,
        };
        capture.capture(facts, run.cloned());
    }
}
