//! What the pairs of a shadow, or of a replay, have shown: counts alone, and a few kept examples.
//!
//! Next: `report`.

pub mod direction;
pub mod examples;
pub mod slices;

use std::collections::BTreeMap;

use headgate_core::comparison::Comparison;
use headgate_core::error::Code;
use headgate_core::histogram::Histogram;
use headgate_core::paired_outputs::PairedOutputs;
use headgate_core::stats::agreement::Pairs;

use self::direction::Direction;
use self::examples::Examples;
use self::slices::{SliceTally, SliceValues};
use crate::shadow::comparing::{OutputComparison, PairComparison};
use crate::shadow::pairing::OutputPairing;

/// The fewest pairs on which the champion is run again, if there are as many.
const MIN_FLOOR_PAIRS: u64 = 500;
/// Beyond that, the champion is run again on one of so many pairs.
const FLOOR_EVERY: u64 = 10;

/// The counts.
#[derive(Default)]
pub struct Tally {
    /// Pairs that were compared.
    pub compared: RowCounts,
    /// The same for each output, in the order of the pairing.
    pub outputs: Vec<OutputTally>,
    /// Runs that failed while the champion had answered, by code.
    pub errors: BTreeMap<&'static str, u64>,
    /// Those of them whose deadline had passed.
    pub timeouts: u64,
    /// Requests that the champion had failed on.
    pub champion_failed: ChampionFailures,
    /// Pairs with a NaN among the outputs.
    pub nan: NanCounts,
    /// The champion compared with itself.
    pub floor: FloorTally,
    /// The pairs by the values of declared fields.
    pub slices: SliceTally,
    /// The newest pairs that differ.
    pub examples: Examples,
    /// The times of all runs.
    pub runs: Histogram,
    /// How the outputs are distributed, if the baseline has bins for some.
    pub paired: Option<PairedOutputs>,
    /// Why the last request was incompatible.
    pub last_mismatch: Option<String>,
}

/// Pairs and their rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Pairs.
    pub pairs: u64,
    /// Pairs that differ.
    pub differing: u64,
    /// Rows.
    pub rows: u64,
    /// Rows that differ.
    pub differing_rows: u64,
}

/// The counts of one output.
pub struct OutputTally {
    /// Its name.
    pub name: String,
    /// How it is compared.
    pub comparison: Comparison,
    /// Its pairs and rows.
    pub counts: RowCounts,
    /// Which label became which.
    pub direction: Direction,
}

/// Requests that the champion had failed on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChampionFailures {
    /// All of them, by the champion's code.
    pub by_code: BTreeMap<&'static str, u64>,
    /// Those that the shadow answered.
    pub shadow_answered: u64,
    /// Those that it failed on as well.
    pub shadow_failed: u64,
    /// Those whose inputs were lost with the champion's run.
    pub inputs_lost: u64,
}

/// Pairs with a NaN.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NanCounts {
    /// In the champion's outputs.
    pub champion: u64,
    /// In the shadow's.
    pub shadow: u64,
    /// In both.
    pub both: u64,
}

/// The champion compared with itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloorTally {
    /// Pairs, and those that differ.
    pub pairs: u64,
    /// See `pairs`.
    pub differing: u64,
    /// Pairs for which the champion was out of memory.
    pub skipped: u64,
    /// Pairs for which its second run failed.
    pub errors: u64,
}

impl Tally {
    /// No counts yet, for these outputs and for so many fields whose values are counted apart.
    pub fn new(outputs: &[OutputPairing], fields: usize) -> Tally {
        let outputs = outputs.iter().map(|output| OutputTally {
            name: output.name.clone(),
            comparison: output.comparison,
            counts: RowCounts::default(),
            direction: Direction::default(),
        });
        Tally { outputs: outputs.collect(), slices: SliceTally::new(fields), ..Tally::default() }
    }

    /// Counts a pair that was compared. The shadow's run took so many nanoseconds.
    pub fn add_pair(&mut self, found: &PairComparison, slices: &SliceValues, run_ns: u64) {
        self.runs.record(run_ns);
        self.compared.add(found.differs(), found.rows, found.differing_rows);
        for (tally, output) in self.outputs.iter_mut().zip(&found.outputs) {
            tally.add(output);
        }
        self.nan.champion += u64::from(found.asked_has_nan);
        self.nan.shadow += u64::from(found.other_has_nan);
        self.nan.both += u64::from(found.asked_has_nan && found.other_has_nan);
        self.slices.add(slices, found.differs());
    }

    /// Counts a run that failed while the champion had answered.
    pub fn add_error(&mut self, code: Code, timed_out: bool, run_ns: u64) {
        self.runs.record(run_ns);
        *self.errors.entry(code.as_str()).or_default() += 1;
        self.timeouts += u64::from(timed_out);
    }

    /// Counts a request that the champion had failed on with `code`, and what the shadow made of it.
    pub fn add_champion_failure(&mut self, code: Code, shadow: ShadowAttempt) {
        let failed = &mut self.champion_failed;
        *failed.by_code.entry(code.as_str()).or_default() += 1;
        match shadow {
            ShadowAttempt::Answered { run_ns } => {
                failed.shadow_answered += 1;
                self.runs.record(run_ns);
            }
            ShadowAttempt::Failed { run_ns } => {
                failed.shadow_failed += 1;
                self.runs.record(run_ns);
            }
            ShadowAttempt::InputsLost => failed.inputs_lost += 1,
        }
    }

    /// Whether the champion should be run again on the pair that was counted last.
    pub fn wants_floor(&self) -> bool {
        let FloorTally { pairs, skipped, errors, .. } = self.floor;
        let tried = pairs + skipped + errors;
        tried < MIN_FLOOR_PAIRS || tried * FLOOR_EVERY < self.compared.pairs
    }

    /// The pairs for statistics, with those that were dropped.
    pub fn pairs(&self, dropped: u64) -> Pairs {
        Pairs { compared: self.compared.pairs, differing: self.compared.differing, dropped }
    }
}

/// What the shadow made of a request that the champion had failed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShadowAttempt {
    /// It answered.
    Answered {
        /// How long the run took, in nanoseconds.
        run_ns: u64,
    },
    /// It failed.
    Failed {
        /// How long the run took, in nanoseconds.
        run_ns: u64,
    },
    /// It was not run, because the inputs were lost with the champion's run.
    InputsLost,
}

impl RowCounts {
    fn add(&mut self, differs: bool, rows: u64, differing_rows: u64) {
        self.pairs += 1;
        self.differing += u64::from(differs);
        self.rows += rows;
        self.differing_rows += differing_rows;
    }
}

impl OutputTally {
    fn add(&mut self, found: &OutputComparison) {
        self.counts.add(found.differing_rows > 0, found.rows, found.differing_rows);
        self.direction.add(found);
    }
}

impl ChampionFailures {
    /// How many requests.
    pub fn requests(&self) -> u64 {
        self.by_code.values().sum()
    }
}

impl FloorTally {
    /// Counts a pair of the champion with itself.
    pub fn add(&mut self, differs: bool) {
        self.pairs += 1;
        self.differing += u64::from(differs);
    }

    /// The pairs for statistics.
    pub fn to_pairs(self) -> Pairs {
        Pairs { compared: self.pairs, differing: self.differing, dropped: 0 }
    }
}
