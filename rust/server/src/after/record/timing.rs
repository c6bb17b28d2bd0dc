//! When the phases of a request ended, and how long they took.

use headgate_core::trial::outcome::RunStage;
use headgate_engine::Instant;

/// The phases that a request has reached.
pub struct PhaseTiming {
    /// When its first byte came.
    pub received: Instant,
    /// When the newest phase ended.
    pub phase_end: Instant,
    /// When the version was asked to admit it. Decoding begins then.
    pub admitted: Instant,
    /// How long decoding took, in nanoseconds.
    pub decode_ns: Option<u64>,
    /// How long the request waited for a pool thread.
    pub queue_ns: Option<u64>,
    /// How long the run took.
    pub run_ns: Option<u64>,
    /// Whether the run is counted for this request; false if another request of the same batch stands for it.
    pub counts_run: bool,
    /// How far the run has come.
    pub stage: RunStage,
    /// Whether the model was fetched, or the run placed anew, while the request waited: its times say nothing about the version.
    pub was_disturbed: bool,
}

impl PhaseTiming {
    /// A request that has reached no phase.
    pub fn new(received: Instant) -> PhaseTiming {
        PhaseTiming {
            received,
            phase_end: received,
            admitted: received,
            decode_ns: None,
            queue_ns: None,
            run_ns: None,
            counts_run: true,
            stage: RunStage::NotBegun,
            was_disturbed: false,
        }
    }

    /// The inputs are typed values.
    pub fn decoded(&mut self, now: Instant) {
        self.decode_ns = Some(now.nanos_since(self.admitted));
        self.phase_end = now;
    }

    /// Whether the inputs were typed values, so that a failure is one of the run or of writing its response.
    pub fn is_decoded(&self) -> bool {
        self.decode_ns.is_some()
    }

    /// The phases that were reached and the time since the first byte, in nanoseconds.
    pub fn times(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        let total = Some(Instant::now().nanos_since(self.received));
        let times =
            [("decode", self.decode_ns), ("queue", self.queue_ns), ("run", self.run_ns), ("total", total)];
        times.into_iter().filter_map(|(name, ns)| Some((name, ns?)))
    }
}
