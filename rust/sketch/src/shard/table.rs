//! The exponential buckets of one feature in a shard: a hash table of sign, index and count with a single writer.
//!
//! A table begins with 64 entries, and grows twice if the memory budget allows it. If it is full or may not grow, the scale is halved
//! until the values fit. At the coarsest scale they always fit. So no value is refused once the first entries are allocated: the
//! values of a client decide how fine the buckets are, but not how much memory they take.
//! Next: `buffer`.

use std::sync::OnceLock;

use super::counter::take;
use crate::budget::BudgetShare;
use crate::exponential::{ExponentialHistogram, HALVINGS, MAX_BUCKETS, SCALE, word};
use crate::sync::{AtomicU64, Ordering};

/// Entries by level.
const CAPACITIES: [usize; 3] = [64, 512, 2048];
/// The most buckets by level; [`crate::exponential::FEWEST`] fit the first.
const MAX_BUCKETS_OF_LEVEL: [u64; 3] = [48, 384, MAX_BUCKETS as u64];
/// The shift by level that leaves the number of a group of eight entries.
const GROUP_SHIFT: [u32; 3] = [64 - 3, 64 - 6, 64 - 8];

/// Level, halvings of the scale and number of buckets. It is one word, which is read once for each value.
#[derive(Clone, Copy)]
struct TableState {
    level: u8,
    halvings: u8,
    buckets: u64,
}

impl TableState {
    fn of(word: u64) -> Self {
        Self { level: word as u8, halvings: (word >> 8) as u8, buckets: word >> 16 }
    }

    fn word(self) -> u64 {
        u64::from(self.level) | (u64::from(self.halvings) << 8) | (self.buckets << 16)
    }
}

#[derive(Debug)]
pub(crate) struct BucketTable {
    levels: [OnceLock<Box<[AtomicU64]>>; 3],
    state: AtomicU64,
    /// The multiplier of the hash. It is random, or a client could send values that all have the same hash.
    multiplier: u64,
}

impl BucketTable {
    /// A table without entries. `random` is any number that clients do not know.
    pub(crate) fn new(random: u64) -> Self {
        Self {
            levels: std::array::from_fn(|_| OnceLock::new()),
            state: AtomicU64::new(0),
            multiplier: random | 1,
        }
    }

    /// Counts `by` values of a bucket at [`SCALE`]. Returns false if the budget has no room for the first entries.
    #[inline]
    pub(crate) fn count(&self, index: i32, negative: bool, by: u64, share: &BudgetShare) -> bool {
        let state = TableState::of(self.state.load(Ordering::Relaxed));
        if let Some(entries) = self.levels[usize::from(state.level)].get() {
            let key = word::key(index >> state.halvings, negative);
            let (entry, found) = self.find(entries, state.level, key);
            if found != 0 {
                entry.store(found + by, Ordering::Relaxed);
                return true;
            }
        }
        self.insert(index, negative, by, share)
    }

    /// Counts in a bucket that the table does not have yet.
    #[cold]
    fn insert(&self, index: i32, negative: bool, by: u64, share: &BudgetShare) -> bool {
        if self.levels[0].get().is_none() && !self.make(0, share) {
            return false;
        }
        let mut state = TableState::of(self.state.load(Ordering::Relaxed));
        while state.buckets >= MAX_BUCKETS_OF_LEVEL[usize::from(state.level)]
            && self.make_room(&mut state, share)
        {}
        let key = word::key(index >> state.halvings, negative);
        let (entry, found) = self.find(self.entries(state), state.level, key);
        entry.store(word::of(key, word::count(found) + by), Ordering::Relaxed);
        state.buckets += u64::from(found == 0);
        self.state.store(state.word(), Ordering::Relaxed);
        true
    }

    /// The entry of a key and its word, which is 0 if the entry is free. There is always one, because a table is never full.
    ///
    /// Eight neighbouring keys have eight neighbouring entries, which are one cache line: the values of a feature are close together.
    /// The search steps over used entries by an odd number, so that it reaches every entry.
    #[inline]
    fn find<'a>(&self, entries: &'a [AtomicU64], level: u8, key: u16) -> (&'a AtomicU64, u64) {
        let mask = entries.len() - 1;
        let group = u64::from(key >> 3).wrapping_mul(self.multiplier) >> GROUP_SHIFT[usize::from(level)];
        let mut at = (group as usize) << 3 | usize::from(key & 7);
        loop {
            let entry = &entries[at & mask];
            let word = entry.load(Ordering::Relaxed);
            if word == 0 || word::key_of(word) == key {
                return (entry, word);
            }
            at += 9;
        }
    }

    fn entries(&self, state: TableState) -> &[AtomicU64] {
        self.levels[usize::from(state.level)].get().expect("a level is entered when it was made")
    }

    fn make(&self, level: usize, share: &BudgetShare) -> bool {
        let made =
            self.levels[level].get().is_some() || share.grow_optional(CAPACITIES[level] * size_of::<u64>());
        if made {
            self.levels[level].get_or_init(|| (0..CAPACITIES[level]).map(|_| AtomicU64::new(0)).collect());
        }
        made
    }

    /// Goes to the next level, or to the next coarser scale. Returns false if there is neither.
    fn make_room(&self, state: &mut TableState, share: &BudgetShare) -> bool {
        let next = usize::from(state.level) + 1;
        let grows = next < CAPACITIES.len() && self.make(next, share);
        if !grows && state.halvings == HALVINGS {
            return false;
        }
        let words: Vec<u64> = self.entries(*state).iter().map(take).filter(|&word| word != 0).collect();
        let steps = u32::from(!grows);
        state.level += u8::from(grows);
        state.halvings += u8::from(!grows);
        state.buckets = 0;
        let entries = self.entries(*state);
        for word in words {
            let moved = word::coarser(word, steps);
            let (entry, found) = self.find(entries, state.level, word::key_of(moved));
            let count = word::count(found) + word::count(moved);
            entry.store(word::of(word::key_of(moved), count), Ordering::Relaxed);
            state.buckets += u64::from(found == 0);
        }
        true
    }

    /// Moves all counts to `into`. The next counts begin at a scale that is one step finer, so that unusual values do not make all later
    /// counts coarse.
    pub(crate) fn drain(&self, into: &mut ExponentialHistogram) {
        let mut state = TableState::of(self.state.load(Ordering::Relaxed));
        if state.buckets == 0 {
            return;
        }
        let mut words: Vec<u64> = self.entries(state).iter().map(take).filter(|&word| word != 0).collect();
        words.sort_unstable();
        into.add(SCALE - state.halvings as i8, &words);
        state.buckets = 0;
        state.halvings = state.halvings.saturating_sub(1);
        self.state.store(state.word(), Ordering::Relaxed);
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use crate::budget::SketchBudget;
    use crate::exponential::{MAX_INDEX, MIN_INDEX, MIN_SCALE};

    const RANDOM: u64 = 0x9e37_79b9_7f4a_7c15;

    /// All indexes of both signs, twice, in a scattered order.
    fn everything() -> impl Iterator<Item = (i32, bool)> {
        let all = i64::from(MAX_INDEX - MIN_INDEX + 1);
        (0..4 * all).map(move |i| (MIN_INDEX + (i * 7919 % all) as i32, i / all % 2 == 1))
    }

    fn filled(limit: usize) -> (ExponentialHistogram, usize) {
        let budget = SketchBudget::new(limit);
        let share = BudgetShare::new(budget.clone());
        let table = BucketTable::new(RANDOM);
        for (index, negative) in everything() {
            assert!(table.count(index, negative, 3, &share));
        }
        let mut histogram = ExponentialHistogram::default();
        table.drain(&mut histogram);
        (histogram, budget.used())
    }

    #[test]
    fn a_table_takes_every_value_in_the_memory_that_it_may_have() {
        let values = everything().count() as u64;
        for limit in [1 << 20, 4 * CAPACITIES[1] * 8, 1024] {
            let (histogram, used) = filled(limit);
            assert_eq!(histogram.n(), 3 * values);
            assert!(used <= limit && histogram.scale() >= MIN_SCALE, "{used} of {limit}");
        }
        assert_eq!(filled(1 << 20).1, 8 * CAPACITIES.iter().sum::<usize>());
        let share = BudgetShare::new(SketchBudget::new(10));
        assert!(!BucketTable::new(RANDOM).count(0, false, 1, &share));
    }

    #[test]
    fn buckets_that_share_their_place_in_a_group_all_find_one() {
        let share = BudgetShare::new(SketchBudget::new(1 << 20));
        let (table, mut found) = (BucketTable::new(RANDOM), ExponentialHistogram::default());
        for i in 0..1000 {
            assert!(table.count(MIN_INDEX + 1 + 8 * i, false, 1, &share));
        }
        table.drain(&mut found);
        assert_eq!((found.n(), found.scale(), found.positive().count()), (1000, SCALE, 1000));
    }

    #[test]
    fn a_table_counts_what_a_histogram_counts() {
        let share = BudgetShare::new(SketchBudget::new(1 << 20));
        let (table, mut wanted, mut found) =
            (BucketTable::new(RANDOM), ExponentialHistogram::default(), ExponentialHistogram::default());
        for round in 0..3 {
            for i in 0..900 {
                let value = ((f64::from(i) * 0.618).fract() * 20.0 - 10.0).exp2()
                    * if i % 3 == 0 { -1.0 } else { 1.0 };
                let index = crate::exponential::index(value.abs()).unwrap();
                assert!(table.count(index, value < 0.0, 1, &share));
                wanted.record(value);
            }
            table.drain(&mut found);
            assert_eq!(found, wanted, "{round}");
        }
    }
}
