//! What the arms of a trial add up to: totals by split, a row for each minute, first errors in order, gaps. It is stored as it is.
//!
//! First errors are bounded: the oldest fall out and are counted, while the totals and the rows keep their counts.
//! Not here: the counters of the threads (`arm`), how rows are merged (`rows`), the form in which it is told (`report`).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::arm::{ArmReading, MAX_ARMS};
use super::counts::{ArmCounts, Exceedances, TrialCount};
use super::erring::ErringUnits;
use super::feedback::FeedbackLedger;
use super::output_ledger::OutputLedger;
use super::rows;
pub use super::rows::{MAX_ROWS, MINUTE_MS, MinuteRow, RowCounts};
use super::units::{MAX_LEVELS, Side};
use crate::error::Code;
use crate::feedback::declared::MAX_FEEDBACKS;
use crate::fine_histogram::FineCounts;

/// The most first errors that are kept.
pub const MAX_EVENTS: usize = 2048;
/// The most gaps that are kept.
pub const MAX_GAPS: usize = 64;

/// What makes a trial another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialIdentity {
    /// The salt of the slot table.
    pub attempt: String,
    /// The name of the champion.
    pub champion: String,
    /// The digest of the champion.
    pub digest: String,
    /// The header of the sticky key.
    pub sticky: Option<String>,
}

impl TrialIdentity {
    /// A hash by which receipts name the trial.
    pub fn tag(&self) -> u32 {
        let sticky = self.sticky.as_deref().unwrap_or_default();
        let parts = [&self.attempt, &self.champion, &self.digest, sticky];
        xxhash_rust::xxh64::xxh64(parts.join("\0").as_bytes(), 0) as u32
    }
}

/// A version of the trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArmName {
    /// Its name.
    pub version: String,
    /// Its digest.
    pub digest: String,
    /// Its outputs, in their order.
    pub outputs: Vec<String>,
}

/// A division of the slots, and what was counted while it was served.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SplitLedger {
    /// The slots of each arm; none for the split that stands for all beyond [`MAX_LEVELS`].
    pub slots: BTreeMap<u8, u16>,
    /// What was counted of each arm.
    pub arms: BTreeMap<u8, ArmLedger>,
}

/// What was counted of an arm.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct ArmLedger {
    /// The counters.
    pub counts: ArmCounts,
    /// Answers with a NaN, by output.
    pub nan: BTreeMap<u8, u64>,
    /// The run times of answers.
    pub run: FineCounts,
    /// The times of answers from admission to reply.
    pub reply: FineCounts,
    /// The first requests of units in the present window.
    pub exceedances: Exceedances,
}

impl ArmLedger {
    /// Adds another one.
    pub fn add(&mut self, other: &ArmLedger) {
        self.counts.add(&other.counts);
        other.nan.iter().for_each(|(output, count)| *self.nan.entry(*output).or_insert(0) += count);
        self.run.add(&other.run);
        self.reply.add(&other.reply);
        self.exceedances.add(other.exceedances);
    }
}

/// A first error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirstError {
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// The number of the split that was served.
    pub split: u8,
    /// The arm.
    pub arm: u8,
    /// The code.
    pub code: String,
    /// The split at which the unit erred on the champion before.
    pub after: Option<u8>,
}

/// A time of which nothing is known: the process ended after its last written state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// When the last state was written, in milliseconds since 1970.
    pub from_ms: u64,
    /// When counting went on.
    pub to_ms: u64,
}

/// The thresholds that first requests of units are compared with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// Its number, from 1.
    pub number: u32,
    /// When it was opened, in milliseconds since 1970.
    pub opened_ms: u64,
    /// For each arm the threshold of the run and of the time from admission to reply, in nanoseconds; 0 is none.
    pub thresholds: Vec<(u64, u64)>,
}

/// The ledger of a trial.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ledger {
    /// What makes it this trial.
    pub identity: TrialIdentity,
    /// When it began, in milliseconds since 1970.
    pub begun_ms: u64,
    /// When it ended: no snapshot had it any more.
    pub ended_ms: Option<u64>,
    /// Its versions; the champion is the first.
    pub arms: Vec<ArmName>,
    /// Its splits, in the order in which they were first served.
    pub splits: Vec<SplitLedger>,
    /// Minutes, the oldest ones merged.
    pub rows: VecDeque<MinuteRow>,
    /// Rows that fell out.
    pub rows_dropped: u64,
    /// The newest first errors, the oldest first.
    pub events: VecDeque<FirstError>,
    /// First errors that fell out.
    pub events_dropped: u64,
    /// The units that most errors of an arm come from.
    #[serde(default)]
    pub erring: BTreeMap<u8, ErringUnits>,
    /// What was given on answers, by the number of the feedback.
    #[serde(default)]
    pub feedback: Vec<FeedbackLedger>,
    /// What is in the outputs of the answers, if the baseline has bins for them.
    #[serde(default)]
    pub outputs: Option<OutputLedger>,
    /// Restarts in between.
    pub gaps: VecDeque<Gap>,
    /// Gaps that fell out.
    pub gaps_dropped: u64,
    /// The thresholds.
    pub window: Option<Window>,
    /// When this state was written, in milliseconds since 1970.
    pub written_ms: u64,
}

impl Ledger {
    /// A trial that begins.
    pub fn new(identity: TrialIdentity, champion: ArmName, now_ms: u64) -> Ledger {
        Ledger {
            identity,
            begun_ms: now_ms,
            ended_ms: None,
            arms: vec![champion],
            splits: Vec::new(),
            rows: VecDeque::new(),
            rows_dropped: 0,
            events: VecDeque::new(),
            events_dropped: 0,
            erring: BTreeMap::new(),
            feedback: Vec::new(),
            outputs: None,
            gaps: VecDeque::new(),
            gaps_dropped: 0,
            window: None,
            written_ms: now_ms,
        }
    }

    /// The number of a version among the arms, which it joins if it is new. `None` beyond [`MAX_ARMS`].
    pub fn arm(&mut self, name: &ArmName) -> Option<u8> {
        let is_it = |arm: &&mut ArmName| arm.version == name.version && arm.digest == name.digest;
        if let Some(known) = self.arms.iter_mut().find(is_it) {
            known.outputs.clone_from(&name.outputs);
        } else if self.arms.len() < MAX_ARMS {
            self.arms.push(name.clone());
        }
        let known = |arm: &ArmName| arm.version == name.version && arm.digest == name.digest;
        self.arms.iter().position(known).map(|arm| arm as u8)
    }

    /// The side of an arm.
    pub fn side(arm: u8) -> Side {
        if arm == 0 { Side::Champion } else { Side::Challenger }
    }

    /// The number of a split, and its level for the units. All beyond [`MAX_LEVELS`] share one number and have no level.
    pub fn split(&mut self, slots: &BTreeMap<u8, u16>) -> (u8, Option<u8>) {
        let known = self.splits.iter().position(|split| split.slots == *slots);
        if let Some(number) = known {
            return (number as u8, Some(number as u8));
        }
        if self.splits.len() < MAX_LEVELS {
            self.splits.push(SplitLedger { slots: slots.clone(), ..SplitLedger::default() });
            let number = self.splits.len() as u8 - 1;
            return (number, Some(number));
        }
        if self.splits.len() == MAX_LEVELS {
            self.splits.push(SplitLedger::default());
        }
        (MAX_LEVELS as u8, None)
    }

    /// The slots of all challengers at a split.
    pub fn challengers_slots(&self, split: u8) -> u16 {
        let slots = self.splits[usize::from(split)].slots.iter();
        slots.filter(|(arm, _)| Self::side(**arm) == Side::Challenger).map(|(_, slots)| slots).sum()
    }

    /// Adds what was counted of an arm since the last time. `unix_ms` turns a time of the gateway's clock into milliseconds since 1970.
    pub fn add(&mut self, now_ms: u64, place: (u8, u8), delta: &ArmReading, unix_ms: impl Fn(u64) -> u64) {
        let (split, arm) = place;
        let window = self.window.as_ref().map_or(0, |window| window.number);
        let [exceedances, late] =
            [window, window.wrapping_sub(1)].map(|window| delta.exceedances[(window & 1) as usize]);
        let ledger = self.splits[usize::from(split)].arms.entry(arm).or_default();
        ledger.counts.add(&delta.counts);
        delta.nan.iter().for_each(|(output, count)| *ledger.nan.entry(*output).or_insert(0) += count);
        ledger.run.add(&delta.run);
        ledger.reply.add(&delta.reply);
        ledger.exceedances.add(exceedances);
        let counts = RowCounts { exceedances, ..RowCounts::of(delta) };
        self.rows_dropped += rows::add(&mut self.rows, now_ms, (split, window), (arm, counts));
        // Compared a moment before the window was opened that is open now.
        let late = RowCounts { exceedances: late, ..RowCounts::default() };
        self.rows_dropped +=
            rows::add(&mut self.rows, now_ms, (split, window.saturating_sub(1)), (arm, late));
        self.events_dropped += delta.events_dropped;
        self.add_outputs(place, delta.outputs_digest, &delta.outputs);
        if !delta.erring.is_empty() {
            let erring = self.erring.entry(arm).or_default();
            delta.erring.iter().for_each(|unit| erring.add(*unit));
        }
        self.events.extend(delta.events.iter().map(|event| FirstError {
            at_ms: unix_ms(event.at_ns),
            split,
            arm,
            code: event.error.code().as_str().to_owned(),
            after: event.after,
        }));
    }

    /// Brings the first errors that all arms have added into their order, and drops the oldest beyond the bound.
    pub fn settle_events(&mut self) {
        self.events.make_contiguous().sort_by_key(|event| event.at_ms);
        while self.events.len() > MAX_EVENTS {
            self.events.pop_front();
            self.events_dropped += 1;
        }
    }

    /// Opens the next window with these thresholds; its number.
    pub fn open_window(&mut self, now_ms: u64, thresholds: Vec<(u64, u64)>) -> u32 {
        let number = self.window.as_ref().map_or(0, |window| window.number).wrapping_add(1).max(1);
        self.window = Some(Window { number, opened_ms: now_ms, thresholds });
        let arms = self.splits.iter_mut().flat_map(|split| split.arms.values_mut());
        arms.for_each(|arm| arm.exceedances = Exceedances::default());
        number
    }

    /// Goes on after a restart: what happened since the state was written is not known. Requests that were in progress are lost.
    pub fn resume(&mut self, now_ms: u64) {
        self.ended_ms = None;
        self.gaps.push_back(Gap { from_ms: self.written_ms, to_ms: now_ms.max(self.written_ms) });
        while self.gaps.len() > MAX_GAPS {
            self.gaps.pop_front();
            self.gaps_dropped += 1;
        }
        for arm in self.splits.iter_mut().flat_map(|split| split.arms.values_mut()) {
            let in_flight = arm.counts.in_flight();
            arm.counts.add_one(TrialCount::Lost, in_flight);
        }
    }

    /// What was counted of each arm over all splits.
    pub fn totals(&self) -> Vec<ArmLedger> {
        let mut totals = vec![ArmLedger::default(); self.arms.len()];
        for (arm, ledger) in self.splits.iter().flat_map(|split| &split.arms) {
            if let Some(total) = totals.get_mut(usize::from(*arm)) {
                total.add(ledger);
            }
        }
        totals
    }

    /// Whether the numbers of a ledger that was stored refer to what is in it.
    pub fn is_sound(&self) -> bool {
        let (arms, splits) = (self.arms.len(), self.splits.len());
        let is_arm = |arm: &u8| usize::from(*arm) < arms;
        let is_split = |split: u8| usize::from(split) < splits;
        !self.arms.is_empty()
            && arms <= MAX_ARMS
            && splits <= MAX_LEVELS + 1
            && self.splits.iter().all(|split| split.slots.keys().chain(split.arms.keys()).all(is_arm))
            && self.rows.iter().all(|row| is_split(row.split) && row.arms.keys().all(is_arm))
            && self.rows.iter().flat_map(|row| row.arms.values()).all(|counts| {
                counts.errors_after.keys().chain(counts.refusals_after.keys()).all(|split| is_split(*split))
            })
            && self.events.iter().all(|event| is_split(event.split) && is_arm(&event.arm))
            && self.feedback.len() <= MAX_FEEDBACKS
            && self.feedback.iter().all(|feedback| feedback.is_sound(arms, splits))
            && self.outputs.as_ref().is_none_or(|outputs| outputs.is_sound(arms))
            && self.events.iter().all(|event| Code::ALL.iter().any(|code| code.as_str() == event.code))
    }
}

#[cfg(test)]
mod tests;
