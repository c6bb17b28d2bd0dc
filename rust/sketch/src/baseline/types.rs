//! A baseline and its features, in memory and in a file.
//!
//! Next: `fit`.

use serde::{Deserialize, Serialize};

use crate::moments::Moments;

/// The side of a model that a tensor is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// A tensor of a request.
    Input,
    /// A tensor of a response.
    Output,
}

/// A column of reference values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// The tensor's name in the model.
    pub tensor: String,
    /// The feature's name: from the document's `columns`, or `X[3]`, or a statistic such as `X.mean`.
    pub column: String,
    /// The flat element index within a row of the tensor, or the index of the statistic.
    pub index: u32,
    /// Input or output.
    pub direction: Direction,
    /// Whether the values are whole numbers. Each distinct value gets a bin if there are at most 256.
    #[serde(default)]
    pub integer: bool,
}

/// One feature of a baseline. Slots are as in [`crate::edges`]: `counts` and `sums` have one more entry than `edges`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FeatureBaseline {
    /// The tensor's name in the model.
    pub tensor: String,
    /// The feature's name.
    pub column: String,
    /// The flat element index within a row.
    pub index: u32,
    /// Input or output.
    pub direction: Direction,
    /// Whether the values are whole numbers.
    pub integer: bool,
    /// Strictly ascending and finite. Empty if the reference has no finite value.
    pub edges: Vec<f64>,
    /// Reference rows per slot.
    pub counts: Vec<u64>,
    /// The sum of the reference values per slot.
    pub sums: Vec<f64>,
    /// Moments of the finite reference values; `n` is the sum of `counts`.
    pub moments: Moments,
    /// Reference rows without a value (NaN in the columns given).
    pub missing: u64,
    /// Reference rows that were +infinity.
    pub positive_infinity: u64,
    /// Reference rows that were -infinity.
    pub negative_infinity: u64,
}

impl FeatureBaseline {
    /// All reference rows, those without a finite value included.
    pub fn rows(&self) -> u64 {
        self.moments.n + self.missing + self.positive_infinity + self.negative_infinity
    }
}

/// A reference distribution of many features, ordered by direction, tensor, index and column.
#[derive(Clone, Debug, PartialEq)]
pub struct Baseline {
    pub(super) features: Vec<FeatureBaseline>,
}

impl Baseline {
    /// The features, in canonical order.
    pub fn features(&self) -> &[FeatureBaseline] {
        &self.features
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        let heap = |feature: &FeatureBaseline| {
            let slots = feature.edges.len() + feature.counts.len() + feature.sums.len();
            feature.tensor.len() + feature.column.len() + slots * size_of::<f64>()
        };
        self.features.iter().map(|feature| size_of::<FeatureBaseline>() + heap(feature)).sum()
    }

    /// The features of one tensor, ascending by index, and the position of the first of them.
    pub fn of_tensor(&self, direction: Direction, tensor: &str) -> (usize, &[FeatureBaseline]) {
        let key = (direction, tensor);
        let first = self.features.partition_point(|f| (f.direction, f.tensor.as_str()) < key);
        let last = self.features.partition_point(|f| (f.direction, f.tensor.as_str()) <= key);
        (first, &self.features[first..last])
    }
}
