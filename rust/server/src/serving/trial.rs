//! One trial: its ledger, and the arms that snapshots and requests hold.
//!
//! Not here: which trials there are (`trial_registry`), the counters (`headgate_core::trial`).

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use headgate_core::error::{Error, Result};
use headgate_core::feedback::declared::FeedbackSpec;
use headgate_core::trial::arm::{ArmReading, TrialArm, TrialShared};
use headgate_core::trial::feedback::GivenFeedback;
use headgate_core::trial::feedback_count::Counted;
use headgate_core::trial::ledger::{ArmName, Ledger};
use headgate_core::trial::outputs::VersionOutputs;
use headgate_core::trial::report::{Detail, RunningTrial};
use headgate_core::trial::units::UnitTable;
use serde::Deserialize;
use serde_json::Value;

/// The gateway's clock, as a trial needs it.
#[derive(Clone, Copy, Debug)]
pub struct TrialClock {
    /// The present time on the gateway's clock, in nanoseconds.
    pub now_ns: u64,
    /// The zero of that clock, in milliseconds since 1970.
    pub epoch_unix_ms: u64,
}

impl TrialClock {
    /// A time of the gateway's clock in milliseconds since 1970.
    pub fn unix_ms(self, ns: u64) -> u64 {
        self.epoch_unix_ms + ns / 1_000_000
    }

    /// The present time in milliseconds since 1970.
    pub fn now_ms(self) -> u64 {
        self.unix_ms(self.now_ns)
    }
}

/// A version of an endpoint, as a trial needs it.
pub(super) struct TrialVersion {
    /// Its name.
    pub(super) name: ArmName,
    /// What is counted of its outputs.
    pub(super) outputs: Option<Arc<VersionOutputs>>,
}

/// One trial.
pub(super) struct Trial {
    pub(super) shared: Arc<TrialShared>,
    state: Mutex<TrialState>,
}

pub(super) struct TrialState {
    pub(super) ledger: Ledger,
    /// The arms that a snapshot or a request may hold.
    pub(super) live: Vec<LiveArm>,
    /// Whether it comes from the store, and was not served since.
    pub(super) is_stored: bool,
    /// Grows with every change of the ledger.
    pub(super) changes: u64,
}

pub(super) struct LiveArm {
    arm: Arc<TrialArm>,
    split: u8,
    /// What the ledger has of it.
    last: ArmReading,
}

/// The thresholds of an arm, in nanoseconds; 0 is none.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ArmThresholds {
    #[serde(default)]
    run_ns: u64,
    #[serde(default)]
    reply_ns: u64,
}

impl TrialState {
    /// The split of a served arm, if it is one of this trial.
    fn served_split(&self, served: Option<&Arc<TrialArm>>) -> Option<u8> {
        let served = served?;
        self.live.iter().find(|live| Arc::ptr_eq(&live.arm, served)).map(|live| live.split)
    }

    pub(super) fn serves(&self, served: Option<&Arc<TrialArm>>) -> bool {
        self.served_split(served).is_some()
    }
}

impl Trial {
    pub(super) fn new(ledger: Ledger, units: Option<UnitTable>, is_stored: bool) -> Trial {
        let shared = Arc::new(TrialShared::new(units));
        for (split, slots) in shared.challengers_slots.iter().zip(0..ledger.splits.len()) {
            split.store(u32::from(ledger.challengers_slots(slots as u8)), Relaxed);
        }
        if let Some(window) = &ledger.window {
            shared.resume_window(window.number, &window.thresholds);
        }
        let state = TrialState { ledger, live: Vec::new(), is_stored, changes: 1 };
        Trial { shared, state: Mutex::new(state) }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, TrialState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The arms of those versions that have slots.
    pub(super) fn arms(
        &self,
        versions: &[TrialVersion],
        slots: &[u16],
        threads: usize,
        clock: TrialClock,
    ) -> Vec<Option<Arc<TrialArm>>> {
        let mut state = self.state();
        let TrialState { ledger, live, is_stored, changes } = &mut *state;
        *changes += 1;
        if std::mem::take(is_stored) {
            ledger.resume(clock.now_ms());
        }
        ledger.ended_ms = None;
        let with_slots =
            versions.iter().zip(slots).map(|(version, &slots)| (slots > 0).then_some(&version.name));
        let numbers: Vec<Option<u8>> = with_slots.map(|name| ledger.arm(name?)).collect();
        let split_slots = numbers.iter().zip(slots).filter_map(|(number, &slots)| Some(((*number)?, slots)));
        let (split, level) = ledger.split(&split_slots.collect());
        if let Some(level) = level {
            self.shared.challengers_slots[usize::from(level)]
                .store(u32::from(ledger.challengers_slots(level)), Relaxed);
        }
        let mut arm = |(number, outputs): (u8, &Option<Arc<VersionOutputs>>)| {
            let is_it = |live: &&LiveArm| {
                live.split == split && live.arm.arm == number && live.arm.outputs == *outputs
            };
            live.iter().find(is_it).map(|live| live.arm.clone()).unwrap_or_else(|| {
                let side = Ledger::side(number);
                let arm = TrialArm::new(self.shared.clone(), number, side, level, threads);
                let arm = Arc::new(arm.with_outputs(outputs.clone()));
                live.push(LiveArm { arm: arm.clone(), split, last: ArmReading::default() });
                arm
            })
        };
        let of_versions = numbers.into_iter().zip(versions);
        of_versions.map(|(number, version)| Some(arm((number?, &version.outputs)))).collect()
    }

    /// These arms are served from now on, if they are of this trial. What a build that is not served would count takes nothing away.
    pub(super) fn serve(&self, arms: &[Arc<TrialArm>]) {
        let mut state = self.state();
        if arms.iter().any(|arm| state.serves(Some(arm))) {
            state.changes += 1;
            state.ledger.watch(arms.iter().find_map(|arm| Some(&*arm.outputs.as_ref()?.watched)));
        }
    }

    /// Collects the counts of the IO threads.
    pub(super) fn collect(&self, clock: TrialClock) {
        let mut state = self.state();
        let TrialState { ledger, live, changes, .. } = &mut *state;
        live.retain_mut(|live| {
            // Looked at first: if nobody holds it any more, this is the last reading.
            let is_held = Arc::strong_count(&live.arm) > 1;
            // The count is loaded without an order, and what its last holder has counted must be read below.
            fence(Acquire);
            if live.arm.counts() == live.last.counts {
                // A thousand trials that rest cost little.
                return is_held;
            }
            let reading = live.arm.read();
            let delta = reading.since(&live.last);
            if !delta.is_empty() {
                ledger.add(clock.now_ms(), (live.split, live.arm.arm), &delta, |ns| clock.unix_ms(ns));
                *changes += 1;
            }
            live.last = reading;
            is_held
        });
        ledger.settle_events();
        ledger.settle_outputs();
    }

    /// Counts feedback on one of its answers.
    pub(super) fn add_feedback(&self, name: &str, spec: &FeedbackSpec, given: GivenFeedback) -> Counted {
        let mut state = self.state();
        let TrialState { ledger, changes, .. } = &mut *state;
        *changes += 1;
        ledger.add_feedback(name, spec, given, self.shared.units.as_ref())
    }

    /// Ends the trial if no snapshot and no request has it any more. False if it has ended and counted nothing.
    pub(super) fn end_if_unserved(&self, clock: TrialClock) -> bool {
        let mut state = self.state();
        let TrialState { ledger, live, is_stored, changes } = &mut *state;
        if !live.is_empty() || *is_stored {
            return true;
        }
        if ledger.ended_ms.is_none() {
            ledger.ended_ms = Some(clock.now_ms());
            *changes += 1;
        }
        ledger.totals().iter().any(|total| !total.counts.is_zero())
    }

    pub(super) fn report(&self, served: Option<&Arc<TrialArm>>, clock: TrialClock, detail: Detail) -> Value {
        let state = self.state();
        let mut running = RunningTrial {
            now_ms: clock.now_ms(),
            split: state.served_split(served),
            unit_bytes: self.shared.units.as_ref().map_or(0, UnitTable::bytes),
            ..RunningTrial::default()
        };
        for live in &state.live {
            let (slower, unwatched) = live.arm.running_slower(clock.now_ns);
            let sum = running.running_slower.entry(live.arm.arm).or_default();
            *sum = (sum.0 + slower, sum.1 + unwatched);
        }
        state.ledger.report(&running, detail)
    }

    pub(super) fn set_thresholds(
        &self,
        of: &BTreeMap<String, ArmThresholds>,
        clock: TrialClock,
    ) -> Result<u32> {
        self.shared.close_window();
        // What was compared so far belongs to the window that is closed.
        self.collect(clock);
        let mut state = self.state();
        let TrialState { ledger, changes, .. } = &mut *state;
        let unknown = of.keys().find(|name| ledger.arms.iter().all(|arm| arm.version != **name));
        let result = match unknown {
            Some(name) => Err(Error::invalid(format!(
                "thresholds: arms.{name}: the trial has no such version; it has {}",
                ledger.arms.iter().map(|arm| arm.version.as_str()).collect::<Vec<_>>().join(", ")
            ))),
            None => {
                let threshold =
                    |arm: &ArmName| of.get(&arm.version).map_or((0, 0), |of| (of.run_ns, of.reply_ns));
                let thresholds = ledger.arms.iter().map(threshold).collect();
                *changes += 1;
                Ok(ledger.open_window(clock.now_ms(), thresholds))
            }
        };
        // With an error the window before goes on.
        match (&ledger.window, result.is_ok()) {
            (Some(window), true) => self.shared.open_window(window.number, &window.thresholds),
            (Some(window), false) => self.shared.resume_window(window.number, &window.thresholds),
            (None, _) => {}
        }
        result
    }
}
