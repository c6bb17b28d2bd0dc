//! The features of one version: compiled once from its signature, the column names and the baseline.
//!
//! A tensor with at most 4 096 elements per row has a feature for each element. A larger tensor, or one whose rows differ in size,
//! has five features: statistics of each row. BYTES have two features per element: the length, and whether it is empty.
//! Not here: counters (`shard`), the bytes of shards and sums (`shard/buffer`, `live`). Next: `shard`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::baseline::{Baseline, Direction, FeatureBaseline};
use crate::error::{Error, Result};
use crate::lookup::{Lane, SlotLookup};
use crate::typed_slice::ElementType;

/// The most elements per row that get a feature each.
pub const MAX_ELEMENTS: usize = 4096;
/// Features that are reserved for tensors without a feature per element.
const POOLED_FEATURES: usize = 2048;
/// The statistics of a row that is too large for a feature per element, in the order of their index.
pub const STATISTICS: [&str; 5] = ["mean", "std", "min", "max", "nan"];
/// The most features of one plan.
pub const MAX_FEATURES: usize = 1 << 16;

/// A tensor of a version.
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// Its name in the model.
    pub name: String,
    /// Input or output.
    pub direction: Direction,
    /// Its element type.
    pub datatype: ElementType,
    /// Elements per row: the product of all dimensions but the first. `None` if one of these is not fixed.
    pub row_elements: Option<usize>,
}

/// One feature. Each has a sketch.
#[derive(Clone, Debug)]
pub struct Feature {
    /// The position of its tensor in the list given to [`FeaturePlan::compile`].
    pub tensor: usize,
    /// Its name: from the columns, else `X[3]`, `X.mean`, `X[0].length`.
    pub column: String,
    /// The flat element index within a row, or the index of the statistic.
    pub index: u32,
    /// The position of its reference in the baseline.
    pub reference: Option<usize>,
}

/// The features that the rows of a tensor have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFeatures {
    /// One feature per element.
    Elements(usize),
    /// Five features: statistics of the row, whose elements may be sampled.
    Statistics,
    /// Two features per element: byte length and emptiness.
    Lengths(usize),
}

/// The position of the counters of one feature.
#[derive(Debug)]
pub(crate) struct FeatureLayout<L> {
    /// The number of the feature and of its exponential buckets.
    pub(crate) feature: usize,
    /// Finds the slot on the baseline's edges. `None` without a baseline.
    pub(crate) aligned: Option<SlotLookup<L>>,
    /// The first cell. The cells of the header come before those of the slots.
    pub(crate) cell: usize,
    /// The number of its cells.
    pub(crate) cells: usize,
    /// The centre of the sum of squares: the reference's mean. With NaN it is the first value.
    pub(crate) centre: f64,
}

#[derive(Debug)]
pub(crate) enum FeatureLayouts {
    Single(Vec<FeatureLayout<f32>>),
    Double(Vec<FeatureLayout<f64>>),
}

#[derive(Debug)]
pub(crate) struct TensorPlan {
    pub(crate) info: TensorInfo,
    pub(crate) rows: RowFeatures,
    pub(crate) layouts: FeatureLayouts,
}

impl TensorPlan {
    /// Values that sketching one row of `width` elements reads or counts.
    pub(crate) fn row_values(&self, width: usize) -> usize {
        match self.rows {
            RowFeatures::Elements(_) => width,
            RowFeatures::Statistics => width.min(MAX_ELEMENTS) + STATISTICS.len(),
            RowFeatures::Lengths(_) => 2 * width,
        }
    }
}

/// The features of one version and the positions of their counters. Immutable, and shared by all shards.
#[derive(Debug)]
pub struct FeaturePlan {
    pub(crate) tensors: Vec<TensorPlan>,
    pub(crate) features: Vec<Feature>,
    pub(crate) cells: usize,
    baseline: Option<Arc<Baseline>>,
}

/// Cells of a feature before its slots. `shard::buffer` defines their meaning.
pub(crate) const HEADER_CELLS: usize = 5;

impl FeaturePlan {
    /// Compiles a plan. `columns` gives names to the elements of a tensor, in order.
    ///
    /// # Errors
    /// [`Error::Plan`] if a tensor occurs twice in one direction, if names do not fit its elements, or with more than
    /// [`MAX_FEATURES`] features.
    pub fn compile(
        tensors: &[TensorInfo],
        columns: &BTreeMap<String, Vec<String>>,
        baseline: Option<Arc<Baseline>>,
    ) -> Result<Arc<FeaturePlan>> {
        let mut plan = FeaturePlan { tensors: Vec::new(), features: Vec::new(), cells: 0, baseline };
        for info in tensors {
            if plan.tensors.iter().any(|t| t.info.name == info.name && t.info.direction == info.direction) {
                return Err(Error::Plan(format!("tensor {:?} occurs twice", info.name)));
            }
            plan.add(info, columns.get(&info.name).map(Vec::as_slice))?;
        }
        Ok(Arc::new(plan))
    }

    /// All features, in the order of the tensors.
    pub fn features(&self) -> &[Feature] {
        &self.features
    }

    /// The baseline it was compiled with.
    pub fn baseline(&self) -> Option<&Arc<Baseline>> {
        self.baseline.as_ref()
    }

    /// The reference of a feature.
    pub fn reference(&self, feature: &Feature) -> Option<&FeatureBaseline> {
        Some(&self.baseline.as_ref()?.features()[feature.reference?])
    }

    /// The tensor of a feature.
    pub fn tensor(&self, feature: &Feature) -> &TensorInfo {
        &self.tensors[feature.tensor].info
    }

    /// About how many values sketching one row takes. Rows of open size count as large ones.
    pub fn row_values(&self) -> usize {
        let width = |tensor: &TensorPlan| tensor.info.row_elements.unwrap_or(MAX_ELEMENTS);
        self.tensors.iter().map(|tensor| tensor.row_values(width(tensor))).sum()
    }

    /// Bytes of the plan itself.
    pub fn bytes(&self) -> usize {
        fn of<L: Lane>(layouts: &[FeatureLayout<L>]) -> usize {
            let lookups = layouts.iter().filter_map(|layout| layout.aligned.as_ref());
            size_of_val(layouts) + lookups.map(SlotLookup::bytes).sum::<usize>()
        }
        let layouts = self.tensors.iter().map(|tensor| match &tensor.layouts {
            FeatureLayouts::Single(layouts) => of(layouts),
            FeatureLayouts::Double(layouts) => of(layouts),
        });
        let names = self.features.iter().map(|feature| feature.column.len());
        size_of::<Self>()
            + self.tensors.len() * size_of::<TensorPlan>()
            + self.features.len() * size_of::<Feature>()
            + names.chain(layouts).sum::<usize>()
    }

    fn add(&mut self, info: &TensorInfo, names: Option<&[String]>) -> Result<()> {
        let (mut rows, mut columns) = features_of(info, names)?;
        if self.features.len() + columns.len() > MAX_FEATURES - POOLED_FEATURES {
            // A version with too many features is served nevertheless: this tensor gets statistics of its rows.
            (rows, columns) = pooled(info);
        }
        if self.features.len() + columns.len() > MAX_FEATURES {
            return Err(Error::Plan(format!("there are more than {MAX_FEATURES} features")));
        }
        let tensor = self.tensors.len();
        let first = self.features.len();
        let baseline = self.baseline.clone();
        for (index, column) in columns.into_iter().enumerate() {
            let reference = baseline.as_deref().and_then(|b| find(b, info, rows, index as u32, &column));
            self.features.push(Feature { tensor, column, index: index as u32, reference });
        }
        let references: Vec<_> = self.features[first..].iter().map(|feature| feature.reference).collect();
        let references: Vec<Option<&FeatureBaseline>> =
            references.into_iter().map(|at| Some(&baseline.as_deref()?.features()[at?])).collect();
        let single = info.datatype.is_single() && matches!(rows, RowFeatures::Elements(_));
        let layouts = if single {
            FeatureLayouts::Single(self.layouts(first, &references))
        } else {
            FeatureLayouts::Double(self.layouts(first, &references))
        };
        self.tensors.push(TensorPlan { info: info.clone(), rows, layouts });
        Ok(())
    }

    fn layouts<L: Lane>(
        &mut self,
        first: usize,
        references: &[Option<&FeatureBaseline>],
    ) -> Vec<FeatureLayout<L>> {
        references.iter().zip(first..).map(|(reference, feature)| self.layout(feature, *reference)).collect()
    }

    fn layout<L: Lane>(&mut self, feature: usize, reference: Option<&FeatureBaseline>) -> FeatureLayout<L> {
        let aligned = reference.map(|reference| SlotLookup::new(&reference.edges));
        let slots = reference.map_or(0, |reference| reference.counts.len());
        let cell = self.cells;
        self.cells += HEADER_CELLS + slots;
        let centre = reference.map_or(f64::NAN, |reference| reference.moments.mean);
        FeatureLayout { feature, aligned, cell, cells: HEADER_CELLS + slots, centre }
    }
}

/// The reference of a feature: by index for elements, by name for statistics, whose index has another meaning.
fn find(
    baseline: &Baseline,
    info: &TensorInfo,
    rows: RowFeatures,
    index: u32,
    column: &str,
) -> Option<usize> {
    let (first, features) = baseline.of_tensor(info.direction, &info.name);
    let at = match rows {
        RowFeatures::Elements(_) => {
            let at = features.partition_point(|feature| feature.index < index);
            features.get(at).filter(|feature| feature.index == index).map(|_| at)
        }
        RowFeatures::Statistics | RowFeatures::Lengths(_) => {
            features.iter().position(|feature| feature.column == column)
        }
    };
    at.map(|at| first + at)
}

/// The features of a tensor without a feature per element.
fn pooled(info: &TensorInfo) -> (RowFeatures, Vec<String>) {
    let named = |name: &&str| format!("{}.{name}", info.name);
    if info.datatype == ElementType::Bytes {
        return (RowFeatures::Lengths(1), ["length", "empty"].iter().map(named).collect());
    }
    (RowFeatures::Statistics, STATISTICS.iter().map(named).collect())
}

fn features_of(info: &TensorInfo, names: Option<&[String]>) -> Result<(RowFeatures, Vec<String>)> {
    let Some(elements) = info.row_elements.filter(|&elements| elements <= MAX_ELEMENTS) else {
        return Ok(pooled(info));
    };
    if let Some(names) = names.filter(|names| names.len() != elements) {
        return Err(Error::Plan(format!(
            "tensor {:?} has {elements} elements per row but {} column names; give one for each",
            info.name,
            names.len()
        )));
    }
    let name = |i: usize| names.map_or_else(|| format!("{}[{i}]", info.name), |names| names[i].clone());
    if info.datatype == ElementType::Bytes {
        let pair = |i: usize| [format!("{}.length", name(i)), format!("{}.empty", name(i))];
        return Ok((RowFeatures::Lengths(elements), (0..elements).flat_map(pair).collect()));
    }
    Ok((RowFeatures::Elements(elements), (0..elements).map(name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::baseline::{Column, fit};

    fn info(name: &str, datatype: ElementType, row_elements: Option<usize>) -> TensorInfo {
        TensorInfo { name: name.into(), direction: Direction::Input, datatype, row_elements }
    }

    fn names(plan: &FeaturePlan) -> Vec<&str> {
        plan.features().iter().map(|feature| feature.column.as_str()).collect()
    }

    #[test]
    fn features_follow_size_and_type() {
        let tensors = [
            info("X", ElementType::Fp32, Some(2)),
            info("Y", ElementType::Int64, Some(1)),
            info("I", ElementType::Uint8, Some(5000)),
            info("S", ElementType::Bytes, Some(1)),
        ];
        let columns = BTreeMap::from([("X".to_owned(), vec!["a".to_owned(), "b".to_owned()])]);
        let plan = FeaturePlan::compile(&tensors, &columns, None).unwrap();
        let wanted =
            ["a", "b", "Y[0]", "I.mean", "I.std", "I.min", "I.max", "I.nan", "S[0].length", "S[0].empty"];
        assert_eq!(names(&plan), wanted);
        assert!(plan.shard_bytes() > 0);
    }

    #[test]
    fn what_is_too_wide_is_kept_as_a_whole() {
        let wide = |datatype, count| -> Vec<_> {
            (0..count).map(|at| info(&format!("T{at}"), datatype, Some(MAX_ELEMENTS))).collect()
        };
        let numbers = MAX_FEATURES / MAX_ELEMENTS + 1;
        let plan = FeaturePlan::compile(&wide(ElementType::Fp32, numbers), &BTreeMap::new(), None).unwrap();
        assert_eq!(names(&plan)[..2], ["T0[0]", "T0[1]"]);
        assert_eq!(*names(&plan).last().unwrap(), "T16.nan");
        let plan = FeaturePlan::compile(&wide(ElementType::Bytes, numbers), &BTreeMap::new(), None).unwrap();
        assert_eq!(*names(&plan).last().unwrap(), "T16.empty");
    }

    #[test]
    fn references_are_found_by_place_and_statistics_by_name() {
        let column = |tensor: &str, name: &str, index| Column {
            tensor: tensor.into(),
            column: name.into(),
            index,
            direction: Direction::Input,
            integer: false,
        };
        let columns = [column("X", "renamed", 1), column("I", "I[0]", 0), column("I", "I.max", 3)];
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let baseline = fit(&columns, &[&values, &values, &values]).unwrap();
        let tensors = [info("X", ElementType::Fp32, Some(2)), info("I", ElementType::Fp32, None)];
        let plan = FeaturePlan::compile(&tensors, &BTreeMap::new(), Some(Arc::new(baseline))).unwrap();
        let found: Vec<bool> = plan.features().iter().map(|feature| feature.reference.is_some()).collect();
        assert_eq!(found, [false, true, false, false, false, true, false]);
    }

    #[test]
    fn contradictions_are_refused_with_words() {
        let twice = [info("X", ElementType::Fp32, Some(2)), info("X", ElementType::Fp32, Some(2))];
        let error = FeaturePlan::compile(&twice, &BTreeMap::new(), None).unwrap_err();
        assert!(error.to_string().contains("twice"));
        let columns = BTreeMap::from([("X".to_owned(), vec!["a".to_owned()])]);
        let error = FeaturePlan::compile(&twice[..1], &columns, None).unwrap_err();
        assert!(error.to_string().contains("2 elements per row but 1 column names"), "{error}");
    }
}
