//! The cost of sketching one value on this machine, measured once at the start.
//!
//! The sketching budget of an IO thread counts values times this cost. So no request reads a clock, and an interrupt while a thread
//! sketches does not make it look slow.

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_engine::Instant;
use headgate_sketch::budget::SketchBudget;
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::sampler::RowSample;
use headgate_sketch::shard::ShardCollector;
use headgate_sketch::typed_slice::{ElementType, TypedSlice};
use headgate_sketch::{Column, Direction, fit};

/// Columns and rows of the measurement. Their counters do not fit into the first cache.
const COLUMNS: usize = 32;
const ROWS: usize = 32;
/// Passes of the measurement. The fastest one counts, because nothing else on the machine disturbed it.
const PASSES: usize = 16;
/// The plausible results, in nanoseconds.
const PLAUSIBLE_NS: std::ops::RangeInclusive<f64> = 1.0..=200.0;
/// A real value costs more by this factor, because real rows are rarely as close in time as those of the measurement.
const CACHE_MISS_FACTOR: f64 = 2.0;

/// The cost of one value in nanoseconds; 20 if it cannot be measured.
pub fn value_ns() -> f64 {
    measure().unwrap_or(20.0).clamp(*PLAUSIBLE_NS.start(), *PLAUSIBLE_NS.end())
}

fn measure() -> Option<f64> {
    let values: Vec<f32> = (0..COLUMNS * ROWS).map(|i| (i as f32 * 0.618).fract() * 8.0 - 4.0).collect();
    let reference: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
    let column = |index: usize| Column {
        tensor: "x".to_owned(),
        column: index.to_string(),
        index: index as u32,
        direction: Direction::Input,
        integer: false,
    };
    let columns: Vec<Column> = (0..COLUMNS).map(column).collect();
    let baseline = fit(&columns, &[reference.as_slice(); COLUMNS]).ok()?;
    let info = TensorInfo {
        name: "x".to_owned(),
        direction: Direction::Input,
        datatype: ElementType::Fp32,
        row_elements: Some(COLUMNS),
    };
    let plan = FeaturePlan::compile(&[info], &BTreeMap::new(), Some(Arc::new(baseline))).ok()?;
    let mut writer = ShardCollector::new(plan, SketchBudget::new(64 << 20)).opener().open()?;
    let mut pass = || {
        let begun = Instant::now();
        writer.record(|recorder| recorder.tensor(0, TypedSlice::F32(&values), ROWS, &RowSample::ALL));
        begun.elapsed().as_nanos() as f64
    };
    let best = (0..PASSES).map(|_| pass()).fold(f64::INFINITY, f64::min);
    Some(CACHE_MISS_FACTOR * best / values.len() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_costs_something_believable() {
        assert!(PLAUSIBLE_NS.contains(&value_ns()));
        assert!(measure().is_some_and(|ns| ns > 0.0));
    }
}
