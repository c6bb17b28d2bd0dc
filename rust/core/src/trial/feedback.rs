//! The feedback that was given on answers of a trial: sums by arm, split and hour of the answer, because answers are compared that were
//! given at the same time and under the same weights.
//!
//! Not here: which feedback counts (`feedback_count`), receipts (the server), the gate ([`crate::gates::feedback`]).

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::feedback::declared::{FeedbackSpec, Good, Range};
use crate::feedback::moments::Moments;

/// The most strata of a feedback: a month of one split.
pub const MAX_STRATA: usize = 720;
const HOUR_S: u32 = 3_600;

/// The feedback on answers of one split in one hour.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedbackStratum {
    /// The hour of the answers, since 1970.
    pub hour: u32,
    /// The number of the split that was served then.
    pub split: u8,
    /// What was given, by arm.
    pub arms: BTreeMap<u8, Moments>,
    /// How often it was given by arm without counting, because its unit had given it on another answer under the same weights.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub repeated: BTreeMap<u8, u64>,
}

/// What was given of one feedback.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeedbackLedger {
    /// Its name.
    pub name: String,
    /// The range of its values.
    pub range: Range,
    /// Which direction is good.
    pub good: Good,
    /// The share of answers that must have it before a gate decides, in ten-thousandths, as it was declared last.
    #[serde(default)]
    pub coverage: Option<u16>,
    /// How long after the answer it is taken, in milliseconds, as it was declared last.
    #[serde(default)]
    pub within_ms: u64,
    /// What counts, the oldest hours first.
    pub strata: VecDeque<FeedbackStratum>,
    /// What does not count by arm, because its unit has given it on another answer under the same weights.
    pub repeated: BTreeMap<u8, u64>,
    /// Values in strata that fell out.
    pub dropped: u64,
}

/// Feedback on an answer of a trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GivenFeedback {
    /// The arm that gave the answer.
    pub arm: u8,
    /// The split that was served then.
    pub split: u8,
    /// The unit of its sticky key.
    pub unit: Option<u32>,
    /// When the answer was given, in seconds since 1970.
    pub issued_s: u32,
    /// The number that was given.
    pub value: f64,
}

impl FeedbackLedger {
    /// Without a value.
    pub fn new(name: &str, spec: &FeedbackSpec) -> FeedbackLedger {
        FeedbackLedger {
            name: name.to_owned(),
            range: spec.range,
            good: spec.good,
            coverage: spec.coverage,
            within_ms: spec.within_ms,
            strata: VecDeque::new(),
            repeated: BTreeMap::new(),
            dropped: 0,
        }
    }

    pub(super) fn add(&mut self, given: GivenFeedback) {
        self.stratum(given).arms.entry(given.arm).or_default().add_one(given.value);
        self.drop_oldest();
    }

    /// Counts what is no evidence, because its unit has given it before.
    pub(super) fn add_repeated(&mut self, given: GivenFeedback) {
        *self.repeated.entry(given.arm).or_insert(0) += 1;
        *self.stratum(given).repeated.entry(given.arm).or_insert(0) += 1;
        self.drop_oldest();
    }

    /// The stratum of an answer.
    fn stratum(&mut self, given: GivenFeedback) -> &mut FeedbackStratum {
        let (hour, split) = (given.issued_s / HOUR_S, given.split);
        let place = self.strata.partition_point(|stratum| (stratum.hour, stratum.split) < (hour, split));
        let is_there =
            self.strata.get(place).is_some_and(|stratum| (stratum.hour, stratum.split) == (hour, split));
        if !is_there {
            let (arms, repeated) = (BTreeMap::new(), BTreeMap::new());
            self.strata.insert(place, FeedbackStratum { hour, split, arms, repeated });
        }
        &mut self.strata[place]
    }

    fn drop_oldest(&mut self) {
        while self.strata.len() > MAX_STRATA {
            let oldest = self.strata.pop_front();
            self.dropped +=
                oldest.iter().flat_map(|stratum| stratum.arms.values()).map(|arm| arm.n).sum::<u64>();
        }
    }

    /// The sums of an arm over all strata.
    pub fn total(&self, arm: u8) -> Moments {
        let mut total = Moments::default();
        self.strata.iter().filter_map(|stratum| stratum.arms.get(&arm)).for_each(|sums| total.add(*sums));
        total
    }

    /// Whether a stored state may be this one, of a ledger with so many arms and splits.
    pub fn is_sound(&self, arms: usize, splits: usize) -> bool {
        let is_arm = |arm: &u8| usize::from(*arm) < arms;
        let order = |stratum: &FeedbackStratum| (stratum.hour, stratum.split);
        self.range.is_sound()
            && self.strata.len() <= MAX_STRATA
            && self.strata.iter().zip(self.strata.iter().skip(1)).all(|(a, b)| order(a) < order(b))
            && self.strata.iter().all(|stratum| usize::from(stratum.split) < splits)
            && self.repeated.keys().all(is_arm)
            && self.strata.iter().flat_map(|stratum| stratum.repeated.keys()).all(is_arm)
            && self
                .strata
                .iter()
                .flat_map(|stratum| &stratum.arms)
                .all(|(arm, sums)| is_arm(arm) && sums.is_sound())
    }
}
