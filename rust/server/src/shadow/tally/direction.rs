//! Which label became which, and how often each version gave each label. Both tables are bounded; the rest is counted together.

use std::collections::BTreeMap;

use headgate_core::comparison::RowLabel;

use crate::shadow::comparing::OutputComparison;

/// The most different moves, and the most different labels of a version, that are counted apart.
const MAX_ENTRIES: usize = 64;

/// The labels of one output.
#[derive(Debug, Default)]
pub struct Direction {
    /// Rows that differ, by the champion's label and the shadow's.
    pub moves: BoundedCounts<(RowLabel, RowLabel)>,
    /// Rows by the champion's label.
    pub champion: BoundedCounts<RowLabel>,
    /// Rows by the shadow's label.
    pub shadow: BoundedCounts<RowLabel>,
}

/// Counts for at most so many keys.
#[derive(Debug)]
pub struct BoundedCounts<K> {
    /// The counts by key.
    pub counts: BTreeMap<K, u64>,
    /// What belongs to further keys.
    pub other: u64,
}

impl<K> Default for BoundedCounts<K> {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), other: 0 }
    }
}

impl<K: Ord + Copy> BoundedCounts<K> {
    fn add(&mut self, found: &BTreeMap<K, u64>) {
        for (key, rows) in found {
            let has_room = self.counts.len() < MAX_ENTRIES;
            match self.counts.get_mut(key) {
                Some(count) => *count += rows,
                None if has_room => drop(self.counts.insert(*key, *rows)),
                None => self.other += rows,
            }
        }
    }
}

impl Direction {
    /// Adds the rows of a pair.
    pub fn add(&mut self, found: &OutputComparison) {
        self.moves.add(&found.moves);
        self.champion.add(&found.asked_labels);
        self.shadow.add(&found.other_labels);
    }

    /// The moves each way, if there are exactly two labels: from the lesser to the greater, and back.
    pub fn both_ways(&self) -> Option<(u64, u64)> {
        let mut labels: Vec<_> = self.champion.counts.keys().chain(self.shadow.counts.keys()).collect();
        labels.sort();
        labels.dedup();
        let [one, other] = labels[..] else { return None };
        let moved = |from: &RowLabel, to: &RowLabel| {
            self.moves.counts.get(&(*from, *to)).copied().unwrap_or_default()
        };
        (self.champion.other + self.shadow.other == 0).then(|| (moved(one, other), moved(other, one)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(place: u32) -> RowLabel {
        RowLabel::Class(place)
    }

    #[test]
    fn labels_beyond_the_bound_are_counted_together() {
        let mut direction = Direction::default();
        for place in 0..100 {
            let found = OutputComparison {
                moves: BTreeMap::from([((class(place), class(place + 1)), 2)]),
                asked_labels: BTreeMap::from([(class(place), 3)]),
                other_labels: BTreeMap::from([(class(0), 3)]),
                ..OutputComparison::default()
            };
            direction.add(&found);
        }
        assert_eq!((direction.moves.counts.len(), direction.moves.other), (64, 72));
        assert_eq!((direction.champion.counts.len(), direction.champion.other), (64, 108));
        assert_eq!(direction.shadow.counts, BTreeMap::from([(class(0), 300)]));
        assert_eq!(direction.both_ways(), None);
    }

    #[test]
    fn moves_between_two_labels_have_two_ways() {
        let mut direction = Direction::default();
        direction.add(&OutputComparison {
            moves: BTreeMap::from([((class(0), class(1)), 60), ((class(1), class(0)), 90)]),
            asked_labels: BTreeMap::from([(class(0), 4_460), (class(1), 540)]),
            other_labels: BTreeMap::from([(class(0), 4_490), (class(1), 510)]),
            ..OutputComparison::default()
        });
        assert_eq!(direction.both_ways(), Some((60, 90)));
    }
}
