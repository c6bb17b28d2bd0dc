//! How long runs and replies of champion and challenger took: what thresholds are taken from, and what is told of interference.
//!
//! Next: `thresholds`.

use super::evidence::{Damage, place_of};
use crate::fine_histogram::FineCounts;
use crate::trial::ledger::{ArmLedger, Ledger};

/// Run times and times to the reply of an arm in one split.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Times {
    /// How many runs.
    pub runs: u64,
    /// The mean run in nanoseconds; 0 without any.
    pub mean_run_ns: f64,
    /// The 95th percentile of the run in nanoseconds, if there is one.
    pub run_p95_ns: Option<u64>,
    /// The 95th percentile of the time to the reply in nanoseconds, if there is one.
    pub reply_p95_ns: Option<u64>,
}

/// The durations of a trial.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Durations {
    /// In each split, those of champion and challenger.
    pub splits: Vec<[Times; 2]>,
    /// Those of the champion over the whole trial, for run and reply.
    pub champion: [FineCounts; 2],
}

impl Durations {
    /// The durations of a ledger.
    ///
    /// # Errors
    /// If the ledger does not have the challenger.
    pub fn from_ledger(ledger: &Ledger, challenger: &str) -> Result<Durations, Damage> {
        let names: Vec<&str> = ledger.arms.iter().map(|arm| arm.version.as_str()).collect();
        let numbers = [0, place_of(&names, challenger)? as u8];
        let mut champion = [FineCounts::default(), FineCounts::default()];
        for arm in ledger.splits.iter().filter_map(|split| split.arms.get(&0)) {
            champion[0].add(&arm.run);
            champion[1].add(&arm.reply);
        }
        let splits = ledger.splits.iter();
        let times =
            splits.map(|split| numbers.map(|arm| split.arms.get(&arm).map_or(Times::default(), Times::of)));
        Ok(Durations { splits: times.collect(), champion })
    }
}

impl Times {
    fn of(arm: &ArmLedger) -> Times {
        let runs = arm.run.total();
        Times {
            runs,
            mean_run_ns: if runs == 0 { 0.0 } else { arm.run.sum_ns as f64 / runs as f64 },
            run_p95_ns: arm.run.quantile_ns(0.95),
            reply_p95_ns: arm.reply.quantile_ns(0.95),
        }
    }
}
