//! Which numbers of an answer a trial counts, and into which bins.
//!
//! The bins are those of the endpoint's baseline, never of the values that come: their edges must not depend on what is compared. One
//! row of an answer is counted, so that a batch of alike rows is one observation. Next: `output_ledger`.

use std::sync::Arc;

use xxhash_rust::xxh64::xxh64;

/// The most features of the outputs that a trial counts.
pub const MAX_WATCHED: usize = 16;
/// The most bins of a feature. A baseline with more has neighbours joined, which can only make distances smaller.
pub const MAX_BINS: usize = 128;
/// Bins beside those between edges: below the first edge, both infinities, and NaN.
const OUTER_BINS: usize = 4;

/// A feature of the outputs, and its bins in ascending order: negative infinity, those that the edges make (upper inclusive), positive
/// infinity, NaN.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedFeature {
    /// The output's name in the model.
    pub output: String,
    /// The name of the element in it, as the baseline has it.
    pub column: String,
    /// The element of a row.
    pub index: u32,
    edges: Vec<f64>,
    /// The shares of the reference by bin.
    reference: Vec<f64>,
}

/// What a baseline knows of a feature.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Strictly ascending and finite.
    pub edges: &'a [f64],
    /// Reference rows below, between and above the edges: one more than there are edges.
    pub counts: &'a [u64],
    /// Reference rows of negative infinity, of positive infinity, and without a value.
    pub apart: [u64; 3],
}

impl WatchedFeature {
    /// A feature with the bins of a baseline. `None` if the baseline has no finite value of it.
    pub fn new(output: &str, column: &str, index: u32, reference: Reference<'_>) -> Option<WatchedFeature> {
        let Reference { edges, counts, apart: [below, above, missing] } = reference;
        if edges.is_empty() || counts.len() != edges.len() + 1 {
            return None;
        }
        let step = edges.len().div_ceil(MAX_BINS - OUTER_BINS);
        // The last edge stays, so that what is above the reference has a bin of its own.
        let kept = |index: &usize| (edges.len() - 1 - index).is_multiple_of(step);
        let places: Vec<usize> = (0..edges.len()).filter(kept).collect();
        let mut joined = vec![0u64; places.len() + 1];
        for (bin, count) in counts.iter().enumerate() {
            joined[places.partition_point(|&place| place < bin)] += count;
        }
        let counts: Vec<u64> = [below].into_iter().chain(joined).chain([above, missing]).collect();
        let total = counts.iter().sum::<u64>().max(1) as f64;
        Some(WatchedFeature {
            output: output.to_owned(),
            column: column.to_owned(),
            index,
            edges: places.into_iter().map(|place| edges[place]).collect(),
            reference: counts.into_iter().map(|count| count as f64 / total).collect(),
        })
    }

    /// The number of its bins.
    pub fn bins(&self) -> usize {
        self.edges.len() + OUTER_BINS
    }

    /// The shares of the reference by bin.
    pub fn reference(&self) -> &[f64] {
        &self.reference
    }

    /// The bin of a value.
    pub fn bin_of(&self, value: f64) -> u16 {
        let bin = match value {
            value if value.is_nan() => self.bins() - 1,
            f64::NEG_INFINITY => 0,
            f64::INFINITY => self.bins() - 2,
            value => 1 + self.edges.partition_point(|&edge| edge < value),
        };
        bin as u16
    }
}

/// The features that a trial counts.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedOutputs {
    features: Vec<WatchedFeature>,
    /// The first counter of each feature.
    offsets: Vec<usize>,
    counters: usize,
    /// Features beyond [`MAX_WATCHED`].
    pub left_out: usize,
    /// A hash of the features and their bins.
    pub digest: u64,
}

impl WatchedOutputs {
    /// The first [`MAX_WATCHED`] of these features; `None` without any.
    pub fn new(mut features: Vec<WatchedFeature>) -> Option<WatchedOutputs> {
        let left_out = features.len().saturating_sub(MAX_WATCHED);
        features.truncate(MAX_WATCHED);
        if features.is_empty() {
            return None;
        }
        let mut digest = 0;
        let (mut offsets, mut counters) = (Vec::new(), 0);
        for feature in &features {
            offsets.push(counters);
            counters += feature.bins();
            for part in [feature.output.as_bytes(), feature.column.as_bytes(), &feature.index.to_le_bytes()] {
                digest = xxh64(part, digest);
            }
            let numbers = feature.edges.iter().chain(&feature.reference);
            digest = numbers.fold(digest, |digest, number| xxh64(&number.to_bits().to_le_bytes(), digest));
        }
        Some(WatchedOutputs { features, offsets, counters, left_out, digest })
    }

    /// The features.
    pub fn features(&self) -> &[WatchedFeature] {
        &self.features
    }

    /// The number of all bins of all features.
    pub fn counters(&self) -> usize {
        self.counters
    }

    /// The features with their first counters.
    pub fn with_offsets(&self) -> impl Iterator<Item = (&WatchedFeature, usize)> {
        self.features.iter().zip(self.offsets.iter().copied())
    }

    /// The counters of an answer.
    pub(super) fn counters_of(&self, bins: OutputBins) -> impl Iterator<Item = usize> {
        let numbered = self.offsets.iter().zip(bins.0);
        numbered.filter(|(_, bin)| *bin != OutputBins::NONE).map(|(offset, bin)| offset + usize::from(bin))
    }
}

/// The place of a feature in the outputs of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPlace {
    /// The number of the output.
    pub output: usize,
    /// The element of a row.
    pub element: usize,
    /// The elements of a row.
    pub width: usize,
}

/// The features in the outputs of one version.
#[derive(Clone, Debug, PartialEq)]
pub struct VersionOutputs {
    /// The features.
    pub watched: Arc<WatchedOutputs>,
    /// The place of each feature; `None` if the version does not have it.
    pub places: Vec<Option<OutputPlace>>,
}

/// The bin of each feature in one row of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputBins([u16; MAX_WATCHED]);

impl Default for OutputBins {
    fn default() -> Self {
        OutputBins([OutputBins::NONE; MAX_WATCHED])
    }
}

impl OutputBins {
    const NONE: u16 = u16::MAX;

    /// Sets the bin of a feature by its number.
    pub fn set(&mut self, feature: usize, bin: u16) {
        self.0[feature] = bin;
    }

    /// The bin of a feature by its number, if it has a value.
    pub fn get(self, feature: usize) -> Option<usize> {
        let bin = *self.0.get(feature)?;
        (bin != OutputBins::NONE).then_some(usize::from(bin))
    }

    /// Whether no feature has a value.
    pub fn is_empty(self) -> bool {
        self == OutputBins::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feature(edges: &[f64]) -> WatchedFeature {
        let counts = vec![2; edges.len() + 1];
        WatchedFeature::new("y", "y[0]", 0, Reference { edges, counts: &counts, apart: [0, 1, 1] }).unwrap()
    }

    #[test]
    fn each_number_has_a_bin_and_an_edge_belongs_below() {
        let feature = feature(&[0.0, 0.5, 1.0]);
        let bins = [f64::NEG_INFINITY, -1.0, 0.0, 0.1, 0.5, 1.0, 1.1, f64::INFINITY, f64::NAN]
            .map(|value| feature.bin_of(value));
        assert_eq!(bins, [0, 1, 1, 2, 2, 3, 4, 5, 6]);
        assert_eq!(feature.bins(), 7);
        let reference = [0.0, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1];
        assert!(
            feature.reference().iter().zip(reference).all(|(found, share)| (found - share).abs() < 1e-12)
        );
    }

    #[test]
    fn many_bins_are_joined_and_the_last_edge_stays() {
        let edges: Vec<f64> = (0..500).map(f64::from).collect();
        let joined = feature(&edges);
        assert!(joined.bins() <= MAX_BINS, "{}", joined.bins());
        assert_eq!(joined.bin_of(499.0) + 1, joined.bin_of(499.5));
        assert!((joined.reference().iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // Values in one bin of the baseline stay together.
        assert!(edges.iter().all(|edge| joined.bin_of(*edge) == joined.bin_of(edge - 0.5)));
    }

    #[test]
    fn a_baseline_without_a_value_has_no_bins() {
        let none = Reference { edges: &[], counts: &[0], apart: [0, 0, 9] };
        assert_eq!(WatchedFeature::new("y", "y", 0, none), None);
        assert_eq!(WatchedOutputs::new(vec![]), None);
    }

    #[test]
    fn features_beyond_the_bound_are_left_out_and_other_edges_are_others() {
        let many = WatchedOutputs::new(vec![feature(&[0.0, 1.0]); MAX_WATCHED + 3]).unwrap();
        assert_eq!(
            (many.features().len(), many.left_out, many.counters()),
            (MAX_WATCHED, 3, 6 * MAX_WATCHED)
        );
        let one = |edges: &[f64]| WatchedOutputs::new(vec![feature(edges)]).unwrap().digest;
        assert_eq!(one(&[0.0, 1.0]), one(&[0.0, 1.0]));
        assert_ne!(one(&[0.0, 1.0]), one(&[0.0, 2.0]));
    }

    #[test]
    fn an_answer_counts_once_for_each_feature_that_it_has() {
        let watched = WatchedOutputs::new(vec![feature(&[0.0]), feature(&[0.0, 1.0])]).unwrap();
        let mut bins = OutputBins::default();
        assert!(bins.is_empty());
        bins.set(1, 2);
        assert_eq!(watched.counters_of(bins).collect::<Vec<_>>(), [7]);
        bins.set(0, 4);
        assert_eq!(watched.counters_of(bins).collect::<Vec<_>>(), [4, 7]);
    }
}
