//! The counters of an arm on the IO threads: one version, in one split of the slots, in one trial.
//!
//! Each thread has a shard of its own that only it writes. What threads share is the trial's [`UnitTable`], whose bytes they exchange,
//! and the thresholds, which they read. [`TrialArm::begin`] and [`TrialArm::end`] stand around a request; time is handed in.
//!
//! Not here: the counters themselves (`shard`), what they add up to (`ledger`), how a request ended (`outcome`).

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};
use std::sync::{Arc, OnceLock};

use super::counts::{ArmCounts, REFUSALS, TrialCount};
use super::event_ring::RawEvent;
use super::non_finite::NonFiniteOutputs;
use super::outcome::{RequestEnd, RunStage, TrialError, TrialOutcome};
use super::outputs::{OutputBins, VersionOutputs};
pub use super::shard::ArmReading;
use super::shard::{ArmShard, count_outputs};
use super::units::{MAX_LEVELS, Side, UnitError, UnitTable};

/// The most arms of a trial.
pub const MAX_ARMS: usize = 16;

/// What all arms of a trial share on the IO threads.
pub struct TrialShared {
    /// The bytes of the units; `None` if the endpoint has no sticky key, so that the unit is the request.
    pub units: Option<UnitTable>,
    /// The slots of all challengers at each split.
    pub challengers_slots: [AtomicU32; MAX_LEVELS],
    /// The number of the window of the thresholds; 0 while there are none.
    window: AtomicU32,
    thresholds: [ArmThresholds; MAX_ARMS],
}

/// The thresholds of an arm, in nanoseconds; 0 is none.
#[derive(Default)]
struct ArmThresholds {
    run_ns: AtomicU64,
    reply_ns: AtomicU64,
}

impl TrialShared {
    /// Without thresholds.
    pub fn new(units: Option<UnitTable>) -> TrialShared {
        TrialShared {
            units,
            challengers_slots: std::array::from_fn(|_| AtomicU32::new(0)),
            window: AtomicU32::new(0),
            thresholds: std::array::from_fn(|_| ArmThresholds::default()),
        }
    }

    /// Takes no more requests into the present window.
    pub fn close_window(&self) {
        self.window.store(0, Release);
    }

    /// Opens a window with the thresholds of each arm for run time and for admission to reply, in nanoseconds. The one before must have
    /// been closed. Each unit has a first request again.
    pub fn open_window(&self, window: u32, thresholds: &[(u64, u64)]) {
        if let Some(units) = &self.units {
            units.clear_taken();
        }
        self.resume_window(window, thresholds);
    }

    /// Goes on with a window that was open before. The units whose first request was taken stay so.
    pub fn resume_window(&self, window: u32, thresholds: &[(u64, u64)]) {
        let none = std::iter::repeat(&(0, 0));
        for (arm, &(run_ns, reply_ns)) in self.thresholds.iter().zip(thresholds.iter().chain(none)) {
            arm.run_ns.store(run_ns, Relaxed);
            arm.reply_ns.store(reply_ns, Relaxed);
        }
        self.window.store(window, Release);
    }
}

/// What counts once for a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UnitEvent {
    Error,
    Refusal,
}

/// One version in one split.
pub struct TrialArm {
    shared: Arc<TrialShared>,
    /// The number of the version among the trial's.
    pub arm: u8,
    /// Champion or challenger.
    pub side: Side,
    /// The number of the split; `None` beyond [`MAX_LEVELS`].
    pub level: Option<u8>,
    /// The features of its outputs that are counted, if any are.
    pub outputs: Option<Arc<VersionOutputs>>,
    shards: Box<[OnceLock<Box<ArmShard>>]>,
}

/// A slot-routed request in progress.
#[derive(Clone, Copy, Debug)]
pub struct TrialRequest {
    unit: Option<u32>,
    begun_ns: u64,
    /// The window whose thresholds it is compared with; 0 for none.
    window: u32,
    watched: Option<u8>,
}

/// What is known of a request at its end.
#[derive(Clone, Copy, Debug)]
pub struct TrialEnd {
    /// How it ended.
    pub end: RequestEnd,
    /// The present time, on the gateway's clock.
    pub now_ns: u64,
    /// How long its run took.
    pub run_ns: Option<u64>,
    /// Whether its times say something about the version.
    pub is_settled: bool,
    /// Whether `now_ns` is when its reply was out. Of an answer that its client did not take, it is when the answer was there.
    pub is_replied: bool,
    /// What is in its outputs; `None` if they were freed before.
    pub outputs: Option<NonFiniteOutputs>,
    /// The bins of the values of its outputs.
    pub bins: OutputBins,
}

/// Why a request is no evidence though the version answered it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotCompared {
    /// A rule sent it.
    ByRule,
    /// It named the version.
    Direct,
    /// The version answered in another one's place.
    Fallback,
}

impl TrialArm {
    /// An arm without counts, for a number of IO threads.
    pub fn new(shared: Arc<TrialShared>, arm: u8, side: Side, level: Option<u8>, threads: usize) -> TrialArm {
        let shards = (0..threads).map(|_| OnceLock::new()).collect();
        TrialArm { shared, arm, side, level, outputs: None, shards }
    }

    /// The same, which counts these features of the outputs.
    pub fn with_outputs(self, outputs: Option<Arc<VersionOutputs>>) -> TrialArm {
        TrialArm { outputs, ..self }
    }

    fn shard(&self, thread: usize) -> &ArmShard {
        self.shards[thread].get_or_init(Box::default)
    }

    fn shards(&self) -> impl Iterator<Item = &ArmShard> {
        self.shards.iter().filter_map(|shard| shard.get().map(|shard| &**shard))
    }

    /// A request of that unit (`None`: the request is its own) was routed to the arm.
    pub fn begin(&self, thread: usize, unit: Option<u32>, now_ns: u64) -> TrialRequest {
        let shard = self.shard(thread);
        shard.counts.add(TrialCount::Begun as usize);
        let unit = unit.filter(|_| self.shared.units.is_some());
        let window = self.shared.window.load(Acquire);
        let mut request = TrialRequest { unit, begun_ns: now_ns, window: 0, watched: None };
        if window != 0 && self.has_thresholds() && self.take(unit) {
            request.window = window;
            request.watched = shard.pending.begin(now_ns);
        }
        request
    }

    fn thresholds(&self) -> &ArmThresholds {
        &self.shared.thresholds[usize::from(self.arm)]
    }

    fn has_thresholds(&self) -> bool {
        let ArmThresholds { run_ns, reply_ns } = self.thresholds();
        run_ns.load(Relaxed) | reply_ns.load(Relaxed) != 0
    }

    fn take(&self, unit: Option<u32>) -> bool {
        unit.zip(self.shared.units.as_ref()).is_none_or(|(unit, units)| units.take(unit))
    }

    /// Counts a request that is no evidence.
    pub fn count_apart(&self, thread: usize, why: NotCompared) {
        let count = match why {
            NotCompared::ByRule => TrialCount::ByRule,
            NotCompared::Direct => TrialCount::Direct,
            NotCompared::Fallback => TrialCount::Fallback,
        };
        self.shard(thread).counts.add(count as usize);
    }

    /// The request has ended.
    pub fn end(&self, thread: usize, request: TrialRequest, ended: &TrialEnd) {
        let shard = self.shard(thread);
        if let Some(place) = request.watched {
            shard.pending.end(place);
        }
        let outcome = TrialOutcome::of(&ended.end);
        self.compare(shard, &request, outcome, ended);
        let count = match outcome {
            TrialOutcome::ClientMistake => {
                shard.counts.add(TrialCount::ClientMistakes as usize);
                return;
            }
            TrialOutcome::Ran(error) => {
                self.count_run(shard, &request, error, ended);
                TrialCount::Ran
            }
            TrialOutcome::Shed => TrialCount::Shed,
            TrialOutcome::NotReady => TrialCount::NotReady,
            TrialOutcome::FellBack => TrialCount::FellBack,
            TrialOutcome::Cancelled => TrialCount::Cancelled,
            TrialOutcome::Lost => TrialCount::Lost,
        };
        shard.counts.add(count as usize);
        if REFUSALS.contains(&count) {
            self.count_once(shard, &request, UnitEvent::Refusal);
        }
        let sighting =
            request.unit.zip(self.shared.units.as_ref()).map(|(unit, units)| units.see(unit, self.side));
        if sighting.is_none_or(|sighting| sighting.is_first) {
            shard.counts.add(TrialCount::FirstRequests as usize);
        }
        if sighting.is_none_or(|sighting| sighting.is_first_on_side) {
            shard.counts.add(TrialCount::Units as usize);
        }
    }

    /// Counts what a run shows: its error, its outputs, its times.
    fn count_run(
        &self,
        shard: &ArmShard,
        request: &TrialRequest,
        error: Option<TrialError>,
        ended: &TrialEnd,
    ) {
        if ended.end.passed_on.is_some() {
            shard.counts.add(TrialCount::PassedOn as usize);
        }
        if ended.end.stage == RunStage::Succeeded {
            count_outputs(shard, ended.outputs);
        }
        if !ended.is_settled {
            shard.counts.add(TrialCount::Unsettled as usize);
        }
        if error.is_none() {
            self.count_bins(shard, request, ended.bins);
        }
        match error {
            Some(error) => self.count_error(shard, request, error, ended.now_ns),
            None if ended.end.code.is_some() => shard.counts.add(TrialCount::Unwritable as usize),
            None if ended.is_settled => {
                if let Some(run_ns) = ended.run_ns {
                    shard.run.record(run_ns);
                }
                if ended.is_replied {
                    shard.reply.record(ended.now_ns.saturating_sub(request.begun_ns));
                }
            }
            None => {}
        }
    }

    /// The features whose values would be counted if this request had an answer now.
    pub fn wanted_outputs(&self, request: &TrialRequest) -> Option<&VersionOutputs> {
        let (outputs, level) = (self.outputs.as_deref()?, self.level?);
        let is_wanted = match request.unit.zip(self.shared.units.as_ref()) {
            None => true,
            Some((unit, units)) => units.would_count_outputs(unit, level, |level| self.slots_at(level)),
        };
        is_wanted.then_some(outputs)
    }

    /// Counts the values of an answer, once for its unit.
    fn count_bins(&self, shard: &ArmShard, request: &TrialRequest, bins: OutputBins) {
        let (Some(outputs), Some(level)) = (&self.outputs, self.level) else { return };
        if bins.is_empty() {
            return;
        }
        let found = match request.unit.zip(self.shared.units.as_ref()) {
            None => UnitError::First,
            Some((unit, units)) => units.count_outputs(unit, self.side, level, |level| self.slots_at(level)),
        };
        let earlier = match found {
            UnitError::Repeated => return,
            UnitError::First => None,
            UnitError::After(earlier) => Some(earlier),
        };
        let watched = &outputs.watched;
        shard.count_bins(earlier, watched.counters(), watched.counters_of(bins));
    }

    /// The slots of all challengers at a split.
    fn slots_at(&self, level: u8) -> u16 {
        self.shared.challengers_slots[usize::from(level)].load(Relaxed) as u16
    }

    fn count_error(&self, shard: &ArmShard, request: &TrialRequest, error: TrialError, now_ns: u64) {
        let count = match error {
            TrialError::BackendFailed => TrialCount::BackendFailed,
            TrialError::Internal => TrialCount::Internal,
            TrialError::DeadlineExceeded => TrialCount::DeadlineExceeded,
        };
        shard.counts.add(count as usize);
        if let Some(unit) = request.unit {
            shard.erring.push(unit);
        }
        if self.level.is_none() {
            shard.counts.add(TrialCount::UnplacedErrors as usize);
        }
        let Some(event) = self
            .count_once(shard, request, UnitEvent::Error)
            .and_then(|first| RawEvent::of(now_ns, error, first))
        else {
            return;
        };
        shard.events.push(event);
    }

    /// Counts an error or a refusal once for its unit; what it is for its unit, if the split has a number.
    fn count_once(&self, shard: &ArmShard, request: &TrialRequest, event: UnitEvent) -> Option<UnitError> {
        let level = self.level?;
        let slots = |level: u8| self.slots_at(level);
        let first = match (request.unit.zip(self.shared.units.as_ref()), event) {
            (None, _) => UnitError::First,
            (Some((unit, units)), UnitEvent::Error) => units.err(unit, self.side, level, slots),
            (Some((unit, units)), UnitEvent::Refusal) => units.refuse(unit, self.side, level, slots),
        };
        let count = match (first, event) {
            (UnitError::Repeated, _) => return Some(first),
            (UnitError::First, UnitEvent::Error) => TrialCount::FirstErrors,
            (UnitError::First, UnitEvent::Refusal) => TrialCount::FirstRefusals,
            (UnitError::After(_), UnitEvent::Error) => TrialCount::FirstErrorsAfter,
            (UnitError::After(_), UnitEvent::Refusal) => TrialCount::FirstRefusalsAfter,
        };
        shard.counts.add(count as usize);
        if let UnitError::After(earlier) = first {
            shard.count_after(event as usize, earlier);
        }
        Some(first)
    }

    /// Compares the first request of a unit with the thresholds.
    fn compare(&self, shard: &ArmShard, request: &TrialRequest, outcome: TrialOutcome, ended: &TrialEnd) {
        if request.window == 0 || request.window != self.shared.window.load(Acquire) {
            return;
        }
        let ArmThresholds { run_ns, reply_ns } = self.thresholds();
        let slower = |ns: u64, threshold: &AtomicU64| (1..ns).contains(&threshold.load(Relaxed));
        let took_ns = ended.now_ns.saturating_sub(request.begun_ns);
        // An answer that its client did not take may have been slower before.
        let is_decided = ended.is_replied || reply_ns.load(Relaxed) == 0 || slower(took_ns, reply_ns);
        let (slower_run, slower_reply) = match outcome {
            TrialOutcome::Ran(Some(_)) => (run_ns.load(Relaxed) > 0, reply_ns.load(Relaxed) > 0),
            TrialOutcome::Ran(None) if ended.is_settled && is_decided => {
                (slower(ended.run_ns.unwrap_or(0), run_ns), slower(took_ns, reply_ns))
            }
            // It ran beyond the threshold before its client left.
            TrialOutcome::Cancelled if slower(took_ns, reply_ns) => (false, true),
            _ => {
                // The unit's next request is compared in its place.
                if let (Some(unit), Some(units)) = (request.unit, &self.shared.units) {
                    units.give_back(unit);
                }
                return;
            }
        };
        let exceedances = &shard.exceedances[(request.window & 1) as usize];
        exceedances.add(0);
        if slower_run {
            exceedances.add(1);
        }
        if slower_reply {
            exceedances.add(2);
        }
    }

    /// The counters alone. They change last when a request ends, so that nothing else is new while they are the same.
    pub fn counts(&self) -> ArmCounts {
        let mut counts = ArmCounts::default();
        for shard in self.shards() {
            TrialCount::ALL.iter().for_each(|&count| counts.add_one(count, shard.counts.get(count as usize)));
        }
        counts
    }

    /// What the threads have counted so far. One thread at a time may call this: first errors come once.
    pub fn read(&self) -> ArmReading {
        let outputs_digest = self.outputs.as_ref().map_or(0, |outputs| outputs.watched.digest);
        let mut reading = ArmReading { outputs_digest, ..ArmReading::default() };
        self.shards().for_each(|shard| shard.add_to(&mut reading));
        reading
    }

    /// Watched requests in progress that have taken longer than the threshold from admission to reply, and those not watched so far.
    pub fn running_slower(&self, now_ns: u64) -> (u64, u64) {
        let threshold = self.thresholds().reply_ns.load(Relaxed);
        let before = if threshold == 0 { 0 } else { now_ns.saturating_sub(threshold) };
        let slower = self.shards().map(|shard| shard.pending.begun_before(before)).sum();
        (slower, self.shards().map(|shard| shard.pending.unwatched()).sum())
    }
}

#[cfg(test)]
mod tests;
