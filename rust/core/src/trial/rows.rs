//! The minutes of a trial: what ended in each, by split and window. The oldest are merged when there are too many.
//!
//! A row of one minute becomes one of up to ten, and later of up to a hundred, so that months of a quiet endpoint stay. A row that can
//! be merged with no other is dropped and counted.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::arm::ArmReading;
use super::counts::{Exceedances, TrialCount};

/// The most rows of a trial.
pub const MAX_ROWS: usize = 720;
/// The newest rows, which are never merged.
const NEVER_MERGED: usize = 120;
/// The most minutes of a merged row: the first of these with which two rows can be merged.
const MERGED_MINUTES: [u16; 2] = [10, 100];
/// Milliseconds of a minute.
pub const MINUTE_MS: u64 = 60_000;

fn one() -> u16 {
    1
}

/// What was counted of an arm in one minute.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Requests that ended and are evidence.
    pub ended: u64,
    /// Of these, requests that ran.
    pub ran: u64,
    /// Runs with an error.
    pub errors: u64,
    /// Errors that are the first of their unit.
    pub first_errors: u64,
    /// Errors of units that erred on the champion before, when the challengers had fewer slots.
    pub first_errors_after: u64,
    /// Requests that were refused: shed, not ready, or fell back.
    #[serde(default)]
    pub refused: u64,
    /// Refusals that are the first of their unit.
    #[serde(default)]
    pub first_refusals: u64,
    /// Errors of units that erred on the champion before, by the split of that error.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub errors_after: BTreeMap<u8, u64>,
    /// Refusals of units that the champion refused before, by the split of that refusal.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refusals_after: BTreeMap<u8, u64>,
    /// Units that were seen for the first time in the trial.
    pub first_requests: u64,
    /// The first requests of units in a window.
    #[serde(flatten)]
    pub exceedances: Exceedances,
}

impl RowCounts {
    pub(super) fn of(delta: &ArmReading) -> RowCounts {
        let counts = &delta.counts;
        RowCounts {
            ended: counts.ended(),
            ran: counts.get(TrialCount::Ran),
            errors: counts.errors(),
            first_errors: counts.get(TrialCount::FirstErrors),
            first_errors_after: counts.get(TrialCount::FirstErrorsAfter),
            refused: counts.refused(),
            first_refusals: counts.get(TrialCount::FirstRefusals),
            errors_after: delta.errors_after.clone(),
            refusals_after: delta.refusals_after.clone(),
            first_requests: counts.get(TrialCount::FirstRequests),
            exceedances: Exceedances::default(),
        }
    }

    pub(super) fn add(&mut self, other: RowCounts) {
        self.ended += other.ended;
        self.ran += other.ran;
        self.errors += other.errors;
        self.first_errors += other.first_errors;
        self.first_errors_after += other.first_errors_after;
        self.refused += other.refused;
        self.first_refusals += other.first_refusals;
        add_splits(&mut self.errors_after, other.errors_after);
        add_splits(&mut self.refusals_after, other.refusals_after);
        self.first_requests += other.first_requests;
        self.exceedances.add(other.exceedances);
    }
}

fn add_splits(sums: &mut BTreeMap<u8, u64>, counts: BTreeMap<u8, u64>) {
    counts.into_iter().for_each(|(split, count)| *sums.entry(split).or_insert(0) += count);
}

/// One minute of one split, under the thresholds of one window; several minutes once it is old.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MinuteRow {
    /// Minutes since 1970; the first one if they are several.
    pub minute: u64,
    /// How many minutes it stands for.
    #[serde(default = "one")]
    pub minutes: u16,
    /// The number of the split.
    pub split: u8,
    /// The number of the window; 0 for none.
    pub window: u32,
    /// What was counted of each arm.
    pub arms: BTreeMap<u8, RowCounts>,
}

/// Adds counts to the row of that minute, split and window; the number of rows that were dropped for it.
pub(super) fn add(
    rows: &mut VecDeque<MinuteRow>,
    now_ms: u64,
    (split, window): (u8, u32),
    (arm, counts): (u8, RowCounts),
) -> u64 {
    if counts == RowCounts::default() {
        return 0;
    }
    // A clock that is set back adds to the newest minute.
    let newest = rows.back().map_or(0, |row| row.minute);
    let minute = (now_ms / MINUTE_MS).max(newest);
    let mut same_minute = rows.iter_mut().rev().take_while(|row| row.minute == minute);
    if let Some(row) = same_minute.find(|row| row.split == split && row.window == window) {
        row.arms.entry(arm).or_default().add(counts);
        return 0;
    }
    rows.push_back(MinuteRow { minute, minutes: 1, split, window, arms: BTreeMap::from([(arm, counts)]) });
    let mut dropped = 0;
    while rows.len() > MAX_ROWS {
        if !MERGED_MINUTES.into_iter().any(|most| merge_oldest(rows, most)) {
            rows.pop_front();
            dropped += 1;
        }
    }
    dropped
}

/// Merges the oldest two neighbours of one split and window that are at most so many minutes together. False if there are none.
fn merge_oldest(rows: &mut VecDeque<MinuteRow>, most: u16) -> bool {
    let is_pair = |index: &usize| {
        let (row, next) = (&rows[*index], &rows[*index + 1]);
        (row.split, row.window) == (next.split, next.window) && row.minutes + next.minutes <= most
    };
    let Some(index) = (0..rows.len() - NEVER_MERGED).find(is_pair) else { return false };
    let Some(next) = rows.remove(index + 1) else { return false };
    let row = &mut rows[index];
    row.minutes += next.minutes;
    for (arm, counts) in next.arms {
        row.arms.entry(arm).or_default().add(counts);
    }
    true
}
