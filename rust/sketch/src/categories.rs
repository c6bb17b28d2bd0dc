//! Counts of known categories and of everything else. Known means: in the reference.
//!
//! Not here: which strings are kept of the unknown ones: none are. Next: `distance`.

use std::collections::BTreeMap;

/// Counts per known category, and one for values that the reference did not have.
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

    /// The counts in the order in which the categories were given, the new ones last.
    pub fn counts(&self) -> Vec<u64> {
        self.counts.iter().copied().chain([self.new]).collect()
    }

    /// Adds what another one with the same known categories saw.
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
