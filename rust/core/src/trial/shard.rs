//! The counters of an arm on one IO thread, and what those of all threads say at one moment.
//!
//! Next: `arm`, which counts on them.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::counts::{ArmCounts, COUNTS, Exceedances, TrialCount};
use super::erring::UnitRing;
use super::event_ring::{EventRing, RawEvent};
use super::non_finite::{NonFiniteOutputs, OUTPUT_BITS};
use super::pending::PendingRequests;
use super::units::MAX_LEVELS;
use crate::fine_histogram::{FineCounts, FineHistogram};

/// The counters of one IO thread.
#[derive(Default)]
pub(super) struct ArmShard {
    pub(super) counts: Counters<COUNTS>,
    /// The exceedances of a window and of the one before, by the lowest bit of its number.
    pub(super) exceedances: [Counters<3>; 2],
    /// Answers with a NaN by output.
    nan: OnceLock<Box<[AtomicU64; OUTPUT_BITS]>>,
    /// Errors and refusals of units that had one on the champion before, by the split of that one.
    after: OnceLock<Box<[[AtomicU64; MAX_LEVELS]; 2]>>,
    pub(super) run: FineHistogram,
    pub(super) reply: FineHistogram,
    pub(super) events: EventRing,
    pub(super) erring: UnitRing,
    pub(super) pending: PendingRequests,
    /// Values of outputs by bin: of units without an earlier answer (0), and of those with one of the champion at a split (and one more).
    outputs: OnceLock<Box<[OnceLock<OutputCounters>; MAX_LEVELS + 1]>>,
}

type OutputCounters = Box<[AtomicU64]>;

/// Counters with one writer.
pub(super) struct Counters<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counters<N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl<const N: usize> Counters<N> {
    pub(super) fn add(&self, index: usize) {
        add(&self.0[index]);
    }

    pub(super) fn get(&self, index: usize) -> u64 {
        self.0[index].load(Relaxed)
    }
}

/// Counts one on the only thread that writes the counter.
fn add(counter: &AtomicU64) {
    counter.store(counter.load(Relaxed) + 1, Relaxed);
}

/// What the threads have counted of an arm at one moment.
#[derive(Clone, Debug, Default)]
pub struct ArmReading {
    /// The counters.
    pub counts: ArmCounts,
    /// The exceedances of windows by the lowest bit of their number.
    pub exceedances: [Exceedances; 2],
    /// Answers with a NaN, by output.
    pub nan: BTreeMap<u8, u64>,
    /// Errors of units that erred on the champion before, by the split of that error.
    pub errors_after: BTreeMap<u8, u64>,
    /// Refusals of units that the champion refused before, by the split of that refusal.
    pub refusals_after: BTreeMap<u8, u64>,
    /// The run times of answers.
    pub run: FineCounts,
    /// The times of answers from admission to reply.
    pub reply: FineCounts,
    /// First errors since the last reading.
    pub events: Vec<RawEvent>,
    /// Units of errors since the last reading.
    pub erring: Vec<u32>,
    /// First errors that no reading took in time.
    pub events_dropped: u64,
    /// The hash of the features whose values are counted.
    pub outputs_digest: u64,
    /// Values of outputs by bin, by the split of the unit's earlier answer, which was the champion's.
    pub outputs: BTreeMap<Option<u8>, Vec<u64>>,
}

impl ArmReading {
    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        let compared = self.exceedances.iter().any(|of| *of != Exceedances::default());
        self.counts.is_zero() && !compared && self.events.is_empty() && self.events_dropped == 0
    }

    /// What was counted since an earlier reading of the same arm.
    pub fn since(&self, earlier: &ArmReading) -> ArmReading {
        let since = |now: &BTreeMap<u8, u64>, then: &BTreeMap<u8, u64>| {
            let then = |key: &u8| then.get(key).copied().unwrap_or(0);
            let grown = now.iter().map(|(key, count)| (*key, count - then(key)));
            grown.filter(|(_, count)| *count > 0).collect()
        };
        ArmReading {
            counts: self.counts.since(&earlier.counts),
            exceedances: std::array::from_fn(|bit| self.exceedances[bit].since(earlier.exceedances[bit])),
            nan: since(&self.nan, &earlier.nan),
            errors_after: since(&self.errors_after, &earlier.errors_after),
            refusals_after: since(&self.refusals_after, &earlier.refusals_after),
            run: self.run.since(&earlier.run),
            reply: self.reply.since(&earlier.reply),
            events: self.events.clone(),
            erring: self.erring.clone(),
            events_dropped: self.events_dropped - earlier.events_dropped,
            outputs_digest: self.outputs_digest,
            outputs: self.outputs_since(earlier),
        }
    }

    fn outputs_since(&self, earlier: &ArmReading) -> BTreeMap<Option<u8>, Vec<u64>> {
        let grown = self.outputs.iter().map(|(place, now)| {
            let then = earlier.outputs.get(place).into_iter().flatten().chain(std::iter::repeat(&0));
            (*place, now.iter().zip(then).map(|(now, then)| now - then).collect::<Vec<u64>>())
        });
        grown.filter(|(_, counts)| counts.iter().any(|&count| count > 0)).collect()
    }
}

impl ArmShard {
    pub(super) fn add_to(&self, reading: &mut ArmReading) {
        for &count in TrialCount::ALL {
            reading.counts.add_one(count, self.counts.get(count as usize));
        }
        for (sum, counters) in reading.exceedances.iter_mut().zip(&self.exceedances) {
            let [compared, slower_run, slower_reply] = std::array::from_fn(|index| counters.get(index));
            sum.add(Exceedances { compared, slower_run, slower_reply });
        }
        for (output, count) in self.nan.get().into_iter().flat_map(|nan| nan.iter()).enumerate() {
            let count = count.load(Relaxed);
            if count > 0 {
                *reading.nan.entry(output as u8).or_insert(0) += count;
            }
        }
        if let Some([errors, refusals]) = self.after.get().map(|after| &**after) {
            add_levels(errors, &mut reading.errors_after);
            add_levels(refusals, &mut reading.refusals_after);
        }
        self.run.add_to(&mut reading.run);
        self.reply.add_to(&mut reading.reply);
        self.events.drain(|event| reading.events.push(event));
        self.erring.drain(|unit| reading.erring.push(unit));
        reading.events_dropped += self.events.dropped();
        for (place, counters) in self.outputs.get().into_iter().flat_map(|outputs| outputs.iter()).enumerate()
        {
            let Some(counters) = counters.get() else { continue };
            let sums = reading
                .outputs
                .entry((place as u8).checked_sub(1))
                .or_insert_with(|| vec![0; counters.len()]);
            sums.iter_mut().zip(counters).for_each(|(sum, counter)| *sum += counter.load(Relaxed));
        }
    }

    /// Counts the values of an answer: those counters, of `all` that there are.
    pub(super) fn count_bins(&self, earlier: Option<u8>, all: usize, counters: impl Iterator<Item = usize>) {
        let outputs = self.outputs.get_or_init(|| Box::new(std::array::from_fn(|_| OnceLock::new())));
        let place = earlier.map_or(0, |earlier| usize::from(earlier) + 1);
        let bins = outputs[place].get_or_init(|| (0..all).map(|_| AtomicU64::new(0)).collect());
        counters.for_each(|counter| add(&bins[counter]));
    }

    /// Counts an error (0) or a refusal (1) of a unit that had one on the champion at an earlier split.
    pub(super) fn count_after(&self, event: usize, earlier: u8) {
        let none = || Box::new([(); 2].map(|()| std::array::from_fn(|_| AtomicU64::new(0))));
        add(&self.after.get_or_init(none)[event][usize::from(earlier)]);
    }
}

fn add_levels(counters: &[AtomicU64; MAX_LEVELS], sums: &mut BTreeMap<u8, u64>) {
    let counts = counters.iter().map(|counter| counter.load(Relaxed)).enumerate();
    for (level, count) in counts.filter(|(_, count)| *count > 0) {
        *sums.entry(level as u8).or_insert(0) += count;
    }
}

/// Counts what is in the outputs of an answer.
pub(super) fn count_outputs(shard: &ArmShard, outputs: Option<NonFiniteOutputs>) {
    let Some(outputs) = outputs else {
        shard.counts.add(TrialCount::UnseenAnswers as usize);
        return;
    };
    shard.counts.add(TrialCount::Answers as usize);
    if outputs.is_partial {
        shard.counts.add(TrialCount::UnseenAnswers as usize);
    }
    if outputs.infinite != 0 {
        shard.counts.add(TrialCount::InfiniteAnswers as usize);
    }
    if outputs.nan != 0 {
        shard.counts.add(TrialCount::NanAnswers as usize);
        let nan = shard.nan.get_or_init(|| Box::new(std::array::from_fn(|_| AtomicU64::new(0))));
        (0..OUTPUT_BITS).filter(|bit| outputs.nan >> bit & 1 == 1).for_each(|bit| add(&nan[bit]));
    }
}
