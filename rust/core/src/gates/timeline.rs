//! The events of a gate in blocks. A block begins with each step, and after every ten minutes with traffic.
//!
//! Next: `event_test`.

use std::collections::BTreeMap;

use super::evidence::{CHALLENGER, CHAMPION, Evidence, Row};
use super::exposure::Exposure;
use crate::stats::event_ratio::Events;
use crate::trial::ledger::{MINUTE_MS, RowCounts};

/// The minutes with traffic of a block.
const BLOCK_MINUTES: u32 = 10;
/// The most blocks that begin in a row: it stands for up to a hundred minutes.
const BLOCKS_OF_A_ROW: u64 = 10;

/// Events that happened while a block was the newest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Block {
    /// When it began, in milliseconds since 1970, by the minute.
    pub since_ms: u64,
    /// The blocks between the one before it and itself, whose minutes were dropped or merged: at most so many.
    pub skipped: u32,
    /// Its events.
    pub events: Vec<Events>,
}

/// Requests of the challenger that could have had an event, and its part of the exposure then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exposed {
    /// The requests.
    pub requests: u64,
    /// The challenger's part.
    pub exposure: f64,
}

/// What a gate counts, by arm.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// What could have been bad.
    pub n: u64,
    /// What was bad.
    pub bad: u64,
}

/// The events of a gate, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    /// The blocks, the oldest first.
    pub blocks: Vec<Block>,
    /// What the challenger was exposed to.
    pub exposed: Vec<Exposed>,
    /// What was counted of champion and challenger.
    pub tallies: [Tally; 2],
}

/// What a gate looks at in a row.
pub struct RowEvents {
    /// Champion and challenger.
    pub counts: [Tally; 2],
    /// Events of units that had one on the champion before, by the split of that, of champion and challenger.
    pub after: [BTreeMap<u8, u64>; 2],
}

impl RowEvents {
    /// The counts of each arm, with nothing that came after an event on the champion.
    pub fn of(row: &Row, tally: impl Fn(&RowCounts) -> Tally) -> RowEvents {
        RowEvents { counts: row.arms.each_ref().map(tally), after: [BTreeMap::new(), BTreeMap::new()] }
    }
}

impl Timeline {
    /// The events that `look` finds in the rows. `steps_ms` is when steps began.
    pub fn new(
        evidence: &Evidence,
        exposure: &Exposure,
        steps_ms: &[u64],
        look: impl Fn(&Row) -> Option<RowEvents>,
    ) -> Timeline {
        let mut timeline = Timeline::default();
        let mut clock = BlockClock::new(evidence, steps_ms);
        for (index, row) in evidence.rows.iter().enumerate() {
            if clock.begins_block(row) {
                let (since_ms, skipped) = (row.minute * MINUTE_MS, std::mem::take(&mut clock.skipped));
                timeline.blocks.push(Block { since_ms, skipped, events: Vec::new() });
            }
            clock.skipped += u32::from(row.minutes.saturating_sub(1)) / BLOCK_MINUTES;
            let Some(found) = look(row) else { continue };
            timeline.add(evidence, exposure, (index, row), &found);
        }
        timeline
    }

    fn add(
        &mut self,
        evidence: &Evidence,
        exposure: &Exposure,
        (index, row): (usize, &Row),
        found: &RowEvents,
    ) {
        let Some(block) = self.blocks.last_mut() else { return };
        let [champion, challenger] = found.counts;
        let at = |weight: Option<f64>| weight.and_then(|weight| exposure.at(index, weight));
        let mut push = |exposure: Option<f64>, champion: u64, challenger: u64| {
            let Some(exposure) = exposure.filter(|_| champion + challenger > 0) else { return [0; 2] };
            block.events.push(Events { exposure, champion, challenger });
            [champion, challenger]
        };
        let exposure_now = at(evidence.weight(row.split));
        let mut bad = push(exposure_now, champion.bad, challenger.bad);
        let mut splits: Vec<u8> = found.after.iter().flat_map(BTreeMap::keys).copied().collect();
        splits.sort_unstable();
        splits.dedup();
        for earlier in splits {
            let of = |arm: usize| found.after[arm].get(&earlier).copied().unwrap_or(0);
            let exposure = at(evidence.weight_after(row.split, usize::from(earlier)));
            let counted = push(exposure, of(CHAMPION), of(CHALLENGER));
            (0..2).for_each(|arm| bad[arm] += counted[arm]);
        }
        if let Some(exposure) = exposure_now {
            self.exposed.push(Exposed { requests: challenger.n, exposure });
            for (sum, (tally, bad)) in self.tallies.iter_mut().zip([champion, challenger].iter().zip(bad)) {
                sum.n += tally.n;
                sum.bad += bad;
            }
        }
    }

    /// Adds events to the newest row that could be compared.
    pub fn add_newest(&mut self, champion: u64, challenger: u64) {
        let Some(exposure) = self.exposed.last().map(|exposed| exposed.exposure) else { return };
        let Some(block) = self.blocks.last_mut() else { return };
        block.events.push(Events { exposure, champion, challenger });
        for (tally, bad) in self.tallies.iter_mut().zip([champion, challenger]) {
            tally.n += bad;
            tally.bad += bad;
        }
    }

    /// All events, those of equal exposure together.
    pub fn pooled(&self) -> Vec<Events> {
        pooled(self.blocks.iter().flat_map(|block| &block.events))
    }
}

/// The events with those of equal exposure together.
pub fn pooled<'a>(events: impl Iterator<Item = &'a Events>) -> Vec<Events> {
    let mut pooled: BTreeMap<u64, Events> = BTreeMap::new();
    for event in events {
        let none = Events { exposure: event.exposure, champion: 0, challenger: 0 };
        let sum = pooled.entry(event.exposure.to_bits()).or_insert(none);
        sum.champion += event.champion;
        sum.challenger += event.challenger;
    }
    pooled.into_values().collect()
}

/// When blocks begin.
struct BlockClock<'a> {
    steps_ms: &'a [u64],
    /// The minutes with traffic of the block so far.
    minutes: u32,
    /// Blocks that may have begun since the newest one, and are not known.
    skipped: u32,
    last: Option<(u64, usize, u32)>,
}

impl<'a> BlockClock<'a> {
    fn new(evidence: &Evidence, steps_ms: &'a [u64]) -> Self {
        let oldest_ms = evidence.rows.first().map_or(0, |row| row.minute * MINUTE_MS);
        let begun = steps_ms.iter().filter(|&&step| step < oldest_ms).count();
        let dropped = match evidence.rows_dropped {
            0 => 0,
            rows => rows.saturating_mul(BLOCKS_OF_A_ROW).saturating_add(begun as u64),
        };
        let skipped = u32::try_from(dropped).unwrap_or(u32::MAX / 2);
        Self { steps_ms: &steps_ms[begun..], minutes: 0, skipped, last: None }
    }

    /// Whether a block begins with this row, the next one of the evidence.
    fn begins_block(&mut self, row: &Row) -> bool {
        let here = (row.minute, row.split, row.window);
        let Some(last) = self.last.replace(here) else {
            self.minutes = u32::from(row.minutes);
            self.skip_steps(row);
            return true;
        };
        if last == here {
            return false;
        }
        // A step that begins within a minute begins with the first row that another split or window has in it.
        let minute_of = |step: &u64| *step / MINUTE_MS;
        let is_due = |step: &u64| {
            minute_of(step) < row.minute
                || (minute_of(step) == row.minute && (last.1, last.2) != (row.split, row.window))
        };
        let is_step = self.steps_ms.first().is_some_and(is_due);
        if is_step {
            self.skip_steps(row);
        }
        let is_new_minute = row.minute != last.0;
        if is_step || (is_new_minute && self.minutes >= BLOCK_MINUTES) {
            self.minutes = u32::from(row.minutes);
            return true;
        }
        if is_new_minute {
            self.minutes += u32::from(row.minutes);
        }
        false
    }

    fn skip_steps(&mut self, row: &Row) {
        let begun = self.steps_ms.iter().take_while(|&&step| step / MINUTE_MS <= row.minute).count();
        self.steps_ms = &self.steps_ms[begun..];
    }
}
