//! Pairs by the values of the headers and parameters that the document declares (`slices`).

use std::collections::BTreeMap;

/// The most different values of a field that are counted apart.
pub const MAX_VALUES: usize = 32;

/// The values of one request, one for each declared field; `None` if the request does not have it.
pub type SliceValues = Box<[Option<Box<str>>]>;

/// The counts of all declared fields.
#[derive(Debug, Default)]
pub struct SliceTally {
    /// The fields, in the document's order.
    pub fields: Vec<FieldTally>,
}

/// The counts of one field.
#[derive(Debug, Default)]
pub struct FieldTally {
    /// By value.
    pub values: BTreeMap<Option<Box<str>>, SliceCounts>,
    /// Of further values.
    pub other: SliceCounts,
}

/// The pairs of one value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SliceCounts {
    /// Pairs.
    pub pairs: u64,
    /// Pairs that differ.
    pub differing: u64,
}

impl SliceTally {
    /// No counts yet.
    pub fn new(fields: usize) -> SliceTally {
        SliceTally { fields: (0..fields).map(|_| FieldTally::default()).collect() }
    }

    /// Counts a pair.
    pub fn add(&mut self, values: &SliceValues, differs: bool) {
        for (field, value) in self.fields.iter_mut().zip(values) {
            field.counts_of(value).add(differs);
        }
    }
}

impl FieldTally {
    fn counts_of(&mut self, value: &Option<Box<str>>) -> &mut SliceCounts {
        let is_known = self.values.contains_key(value);
        if !is_known && self.values.len() >= MAX_VALUES {
            return &mut self.other;
        }
        self.values.entry(value.clone()).or_default()
    }
}

impl SliceCounts {
    fn add(&mut self, differs: bool) {
        self.pairs += 1;
        self.differing += u64::from(differs);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_beyond_the_bound_are_counted_together() {
        let mut tally = SliceTally::new(2);
        for user in 0..100 {
            let values: SliceValues = Box::new([Some(format!("user-{user}").into()), None]);
            tally.add(&values, user % 2 == 0);
        }
        let [users, regions] = &tally.fields[..] else { panic!("two fields") };
        assert_eq!((users.values.len(), users.other), (MAX_VALUES, SliceCounts { pairs: 68, differing: 34 }));
        assert_eq!(regions.values, BTreeMap::from([(None, SliceCounts { pairs: 100, differing: 50 })]));
    }
}
