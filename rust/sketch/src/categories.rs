//! Counts of the categories in the reference, and of all others together, whose strings are not stored.
//!
//! Next: `distance`.

use std::collections::BTreeMap;

/// A count for each known category, and one for all values that the reference does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryCounts {
    known: BTreeMap<Box<str>, usize>,
    counts: Vec<u64>,
    /// Values outside the known categories.
    pub new: u64,
}

impl CategoryCounts {
    /// Counters for these categories, all 0. Duplicates count as one.
    pub fn new<'a>(known: impl IntoIterator<Item = &'a str>) -> Self {
        let mut map = BTreeMap::new();
        for name in known {
            let next = map.len();
            map.entry(Box::from(name)).or_insert(next);
        }
        Self { counts: vec![0; map.len()], known: map, new: 0 }
    }

    /// Counts `times` occurrences of a value.
    pub fn record(&mut self, value: &str, times: u64) {
        match self.known.get(value) {
            Some(&at) => self.counts[at] += times,
            None => self.new += times,
        }
    }

    /// The counts in the order of the known categories, then the count of all others.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().copied().chain([self.new]).collect()
    }

    /// Adds the counts of the same known categories.
    pub fn merge(&mut self, other: &Self) {
        debug_assert_eq!(self.known, other.known, "categories of different features");
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        self.new += other.new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_are_counted_together() {
        let mut a = CategoryCounts::new(["red", "green", "red"]);
        let mut b = a.clone();
        a.record("green", 2);
        b.record("blue", 1);
        b.record("", 4);
        a.merge(&b);
        assert_eq!(a.counts(), [0, 2, 5]);
    }
}
