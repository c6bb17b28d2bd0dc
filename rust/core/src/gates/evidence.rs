//! What a trial says of two of its arms, the champion (0) and the challenger (1).
//!
//! It is read from a trial's report, or taken from its ledger. What contradicts itself or was written by another version is no
//! evidence: the reason is told, and nothing is guessed.
//!
//! Next: `exposure`.

use serde::Deserialize;

mod told;

use crate::feedback::declared::{Good, Range};
use crate::feedback::moments::Moments;
use crate::stats::difference_sequence::DifferenceSums;
use crate::trial::counts::{ArmCounts, TrialCount};
use crate::trial::erring::{ErringShare, ErringUnits};
use crate::trial::feedback::FeedbackLedger;
use crate::trial::ledger::{Ledger, RowCounts};
use crate::trial::output_ledger::OutputLedger;
use crate::trial::report::RunningTrial;

/// The place of the champion in pairs.
pub const CHAMPION: usize = 0;
/// The place of the challenger in pairs.
pub const CHALLENGER: usize = 1;

/// Why evidence cannot be judged.
pub type Damage = String;

/// What is the unit of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnitKind {
    /// The sticky key.
    Key,
    /// The request: there is no key.
    Request,
}

/// The totals of an arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "the names are those of the counters")]
pub struct ArmTotals {
    pub ran: u64,
    pub shed: u64,
    pub not_ready: u64,
    pub fell_back: u64,
    pub cancelled: u64,
    pub lost: u64,
    pub routed: u64,
    pub in_flight: u64,
    pub units: u64,
    pub errors: u64,
    pub unplaced_errors: u64,
    #[serde(skip)]
    pub running_slower_reply: u64,
    pub erring_units: ErringShare,
}

impl ArmTotals {
    fn of(counts: &ArmCounts) -> ArmTotals {
        ArmTotals {
            ran: counts.get(TrialCount::Ran),
            shed: counts.get(TrialCount::Shed),
            not_ready: counts.get(TrialCount::NotReady),
            fell_back: counts.get(TrialCount::FellBack),
            cancelled: counts.get(TrialCount::Cancelled),
            lost: counts.get(TrialCount::Lost),
            routed: counts.routed(),
            in_flight: counts.in_flight(),
            units: counts.get(TrialCount::Units),
            errors: counts.errors(),
            unplaced_errors: counts.get(TrialCount::UnplacedErrors),
            running_slower_reply: 0,
            erring_units: ErringShare::default(),
        }
    }

    /// Requests that have ended.
    pub fn ended(&self) -> u64 {
        let parts = [self.ran, self.shed, self.not_ready, self.fell_back, self.cancelled, self.lost];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// A split of the slots, as far as it concerns the two arms.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// The slots of champion and challenger; `None` for the split that stands for all that have no number.
    pub slots: Option<[u32; 2]>,
}

/// One or more minutes of one split and one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Minutes since 1970.
    pub minute: u64,
    /// How many minutes it stands for.
    pub minutes: u16,
    /// The number of the split.
    pub split: usize,
    /// The number of the window; 0 for none.
    pub window: u32,
    /// What was counted of champion and challenger.
    pub arms: [RowCounts; 2],
}

/// What was given of a feedback on answers of one hour and split, of champion and challenger.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Stratum {
    /// The hour of the answers, since 1970.
    pub hour: u32,
    /// The number of the split.
    pub split: usize,
    /// The sums of what counts.
    pub arms: [Moments; 2],
    /// Values of units that had given it before.
    pub repeated: [u64; 2],
}

/// What was given of a feedback on answers of champion and challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct FeedbackEvidence {
    /// Its name.
    pub name: String,
    /// The range of its values.
    pub range: Range,
    /// Which direction is good.
    pub good: Good,
    /// The share of answers that must have it, in ten-thousandths.
    pub coverage: Option<u16>,
    /// How long after the answer it is taken, in milliseconds.
    pub within_ms: u64,
    /// By hour and split, the oldest hours first.
    pub strata: Vec<Stratum>,
    /// Values in strata that fell out.
    pub dropped: u64,
    /// Values of units that had given it before.
    pub repeated: [u64; 2],
}

/// What is in a feature of the outputs of champion and challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct OutputEvidence {
    /// The output's name.
    pub output: String,
    /// The name of the element.
    pub column: String,
    /// The values of champion and challenger.
    pub values: [u64; 2],
    /// What their distributions are compared by.
    pub sums: DifferenceSums,
}

/// What a trial says of champion and challenger.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The salt of its slots.
    pub attempt: String,
    /// The names of champion and challenger.
    pub names: [String; 2],
    /// The unit.
    pub unit: UnitKind,
    /// Totals of champion and challenger.
    pub totals: [ArmTotals; 2],
    /// All splits.
    pub splits: Vec<Split>,
    /// The rows, the oldest first.
    pub rows: Vec<Row>,
    /// Rows that were dropped.
    pub rows_dropped: u64,
    /// What was given on answers.
    pub feedback: Vec<FeedbackEvidence>,
    /// What is in the outputs.
    pub outputs: Vec<OutputEvidence>,
    /// Features of the outputs that are not counted, because there are too many.
    pub outputs_left_out: usize,
    /// The thresholds of the present window for run and reply, of champion and challenger.
    pub window: Option<[(u64, u64); 2]>,
    /// The time of the evidence, in milliseconds since 1970.
    pub as_of_ms: u64,
}

impl Evidence {
    /// The evidence of a ledger.
    ///
    /// # Errors
    /// Why it cannot be judged.
    pub fn from_ledger(
        ledger: &Ledger,
        running: &RunningTrial,
        challenger: &str,
    ) -> Result<Evidence, Damage> {
        let names: Vec<&str> = ledger.arms.iter().map(|arm| arm.version.as_str()).collect();
        let place = place_of(&names, challenger)?;
        let numbers = [0, place as u8];
        let total = |arm: u8| {
            let mut total = ArmCounts::default();
            ledger
                .splits
                .iter()
                .filter_map(|split| split.arms.get(&arm))
                .for_each(|arm| total.add(&arm.counts));
            total
        };
        let rows = ledger.rows.iter().map(|row| Row {
            minute: row.minute,
            minutes: row.minutes,
            split: usize::from(row.split),
            window: row.window,
            arms: numbers.map(|arm| row.arms.get(&arm).cloned().unwrap_or_default()),
        });
        let splits = ledger.splits.iter().map(|split| Split {
            slots: slots_of(split.slots.is_empty(), numbers.map(|arm| split.slots.get(&arm).copied())),
        });
        let window = ledger.window.as_ref();
        let evidence = Evidence {
            attempt: ledger.identity.attempt.clone(),
            names: [names[0].to_owned(), challenger.to_owned()],
            unit: if ledger.identity.sticky.is_some() { UnitKind::Key } else { UnitKind::Request },
            totals: numbers.map(|arm| ArmTotals {
                running_slower_reply: running.running_slower.get(&arm).map_or(0, |(slower, _)| *slower),
                erring_units: ledger.erring.get(&arm).map(ErringUnits::share).unwrap_or_default(),
                ..ArmTotals::of(&total(arm))
            }),
            splits: splits.collect(),
            rows: rows.collect(),
            rows_dropped: ledger.rows_dropped,
            feedback: ledger
                .feedback
                .iter()
                .map(|feedback| FeedbackEvidence::of(feedback, numbers))
                .collect(),
            outputs: ledger.outputs.iter().flat_map(|of| OutputEvidence::of(of, numbers)).collect(),
            outputs_left_out: ledger.outputs.as_ref().map_or(0, |outputs| outputs.left_out),
            window: window.map(|window| {
                numbers.map(|arm| window.thresholds.get(usize::from(arm)).copied().unwrap_or_default())
            }),
            as_of_ms: running.now_ms,
        };
        evidence.checked()
    }

    /// Refuses what contradicts itself.
    fn checked(self) -> Result<Evidence, Damage> {
        if let Some(row) = self.rows.iter().find(|row| row.split >= self.splits.len()) {
            return Err(format!("the evidence names split {}, and has {}", row.split, self.splits.len()));
        }
        let is_split = |split: &u8| usize::from(*split) < self.splits.len();
        let mut counts = self.rows.iter().flat_map(|row| &row.arms);
        if !counts.all(|counts| counts.errors_after.keys().chain(counts.refusals_after.keys()).all(is_split))
        {
            return Err("the evidence names a split that it does not have".to_owned());
        }
        if let Some(row) = self.rows.iter().find(|row| row.minutes == 0) {
            return Err(format!("the evidence has a row of no minute at {}", row.minute));
        }
        if !self.rows.is_sorted_by_key(|row| row.minute) {
            return Err("the minutes of the evidence are not in order".to_owned());
        }
        for (arm, name) in self.names.iter().enumerate() {
            let (total, of_rows) = (&self.totals[arm], self.rows.iter().map(|row| &row.arms[arm]));
            if (total.ended().saturating_add(total.in_flight)).abs_diff(total.routed) > UNSETTLED {
                return Err(format!(
                    "the counters of {name} contradict each other: what ended is not what was routed"
                ));
            }
            if of_rows.clone().any(|row| !is_consistent(row)) {
                return Err(format!(
                    "a minute of {name} contradicts itself: it has more of a part than of the whole"
                ));
            }
            if self.rows_dropped == 0
                && of_rows.fold(0u64, |sum, row| sum.saturating_add(row.ran)) != total.ran
            {
                return Err(format!("the minutes of {name} do not add up to its total"));
            }
        }
        if self
            .feedback
            .iter()
            .flat_map(|feedback| &feedback.strata)
            .any(|stratum| stratum.split >= self.splits.len())
        {
            return Err("the feedback of the evidence names a split that it does not have".to_owned());
        }
        let is_broken = |feedback: &&FeedbackEvidence| {
            let sums = feedback.strata.iter().flat_map(|stratum| &stratum.arms);
            !feedback.range.is_sound() || !sums.clone().all(Moments::is_sound)
        };
        if let Some(broken) = self.feedback.iter().find(is_broken) {
            return Err(format!("the sums of the feedback {} contradict themselves", broken.name));
        }
        if let Some(broken) = self.outputs.iter().find(|of| !of.sums.is_sound(of.sums.sums.len())) {
            return Err(format!("the sums of the output {} contradict themselves", broken.column));
        }
        let is_beyond = |row: &&Row| self.splits[row.split].slots.is_none();
        if self.rows.iter().find(is_beyond).is_some() || self.totals.iter().any(|arm| arm.unplaced_errors > 0)
        {
            return Err("the trial has had too many divisions of the slots, so that errors are missing; start another attempt".to_owned());
        }
        Ok(self)
    }

    /// The challenger's part of the slots of both arms at a split; `None` if one of them has none.
    pub fn weight(&self, split: usize) -> Option<f64> {
        let [champion, challenger] = self.splits[split].slots?;
        (champion > 0 && challenger > 0).then(|| f64::from(challenger) / f64::from(champion + challenger))
    }

    /// The weight to count an event of a unit with that had one on the champion at the split `earlier`; `None` if the unit could not
    /// have reached the challenger since.
    pub fn weight_after(&self, split: usize, earlier: usize) -> Option<f64> {
        let [champion, now] = self.splits[split].slots?;
        let [_, then] = self.splits[earlier].slots?;
        (now > then && champion > 0).then(|| f64::from(now - then) / f64::from(now - then + champion))
    }
}

impl FeedbackEvidence {
    fn of(ledger: &FeedbackLedger, arms: [u8; 2]) -> FeedbackEvidence {
        let strata = ledger.strata.iter().map(|stratum| {
            let sums = arms.map(|arm| stratum.arms.get(&arm).copied().unwrap_or_default());
            let repeated = arms.map(|arm| stratum.repeated.get(&arm).copied().unwrap_or(0));
            Stratum { hour: stratum.hour, split: usize::from(stratum.split), arms: sums, repeated }
        });
        FeedbackEvidence {
            name: ledger.name.clone(),
            range: ledger.range,
            good: ledger.good,
            coverage: ledger.coverage,
            within_ms: ledger.within_ms,
            strata: strata.collect(),
            dropped: ledger.dropped,
            repeated: arms.map(|arm| ledger.repeated.get(&arm).copied().unwrap_or(0)),
        }
    }
}

impl OutputEvidence {
    fn of(ledger: &OutputLedger, [champion, challenger]: [u8; 2]) -> Vec<OutputEvidence> {
        let features = ledger.features.iter().map(|feature| OutputEvidence {
            output: feature.output.clone(),
            column: feature.column.clone(),
            values: [champion, challenger].map(|arm| feature.values(arm)),
            sums: sums_of(feature.sums.get(&challenger).cloned(), feature.bins()),
        });
        features.collect()
    }
}

/// Before the first values of both there are no sums.
fn sums_of(sums: Option<DifferenceSums>, bins: usize) -> DifferenceSums {
    sums.unwrap_or_else(|| DifferenceSums::new(bins))
}

/// Counters of requests that end while they are read may be apart by so many.
const UNSETTLED: u64 = 64;

/// Whether no part is more than its whole.
fn is_consistent(row: &RowCounts) -> bool {
    let slower = row.exceedances.slower_run.max(row.exceedances.slower_reply);
    let first_errors =
        row.errors_after.values().fold(row.first_errors, |sum, &count| sum.saturating_add(count));
    let refusals =
        row.refusals_after.values().fold(row.first_refusals, |sum, &count| sum.saturating_add(count));
    [
        (row.ran, row.ended),
        (row.errors, row.ran),
        (first_errors, row.errors),
        (refusals, row.refused),
        (row.refused, row.ended),
        (slower, row.exceedances.compared),
    ]
    .into_iter()
    .all(|(part, whole)| part <= whole.saturating_add(UNSETTLED))
}

fn slots_of(is_beyond: bool, slots: [Option<u16>; 2]) -> Option<[u32; 2]> {
    (!is_beyond).then(|| slots.map(|slots| u32::from(slots.unwrap_or(0))))
}

/// The place of the challenger among the arms.
pub(super) fn place_of(names: &[&str], challenger: &str) -> Result<usize, Damage> {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(format!(
            "the trial has had two artifacts of the name {}; start another attempt",
            twice[0]
        ));
    }
    match names.iter().position(|name| *name == challenger) {
        Some(0) => Err(format!("{challenger} is the champion of the trial, not a challenger")),
        Some(place) => Ok(place),
        None => Err(format!("the trial has no version {challenger}; it has {}", names.join(", "))),
    }
}
