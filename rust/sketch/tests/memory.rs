//! The memory of sketches: extreme values do not make them grow, every row counts, and the limit holds.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_sketch::budget::SketchBudget;
use headgate_sketch::exponential::{ExponentialHistogram, FEWEST, MAX_BUCKETS};
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::sampler::RowSample;
use headgate_sketch::shard::{ShardCollector, ShardWriter};
use headgate_sketch::typed_slice::{ElementType, TypedSlice};
use headgate_sketch::window::SlidingWindow;
use headgate_sketch::{Column, Direction, fit};
use proptest::collection::vec;
use proptest::prelude::*;

const START: u64 = 1_767_571_200;

/// One version with its collector, writers and window.
struct Version {
    plan: Arc<FeaturePlan>,
    collector: ShardCollector,
    window: SlidingWindow,
}

impl Version {
    fn new(
        width: usize,
        datatype: ElementType,
        reference: Option<&[f64]>,
        budget: &Arc<SketchBudget>,
    ) -> Self {
        let baseline = reference.map(|reference| {
            let column = |index| Column {
                tensor: "X".into(),
                column: format!("X[{index}]"),
                index,
                direction: Direction::Output,
                integer: false,
            };
            let columns: Vec<Column> = (0..width as u32).map(column).collect();
            Arc::new(fit(&columns, &vec![reference; width]).unwrap())
        });
        let info = TensorInfo {
            name: "X".into(),
            direction: Direction::Output,
            datatype,
            row_elements: Some(width),
        };
        let plan = FeaturePlan::compile(&[info], &BTreeMap::new(), baseline).unwrap();
        Self {
            collector: ShardCollector::new(Arc::clone(&plan), Arc::clone(budget)),
            window: SlidingWindow::new(Arc::clone(&plan), START, budget),
            plan,
        }
    }

    fn collect(&mut self, now: u64, cap: usize) {
        // Twice, so that both buffers of each shard are emptied.
        for _ in 0..2 {
            self.collector.collect(self.window.open(now));
        }
        self.window.close_and_shrink(now, cap);
    }
}

fn rows(writer: &mut ShardWriter, view: TypedSlice<'_>, rows: usize) {
    writer.record(|r| {
        r.offer(rows, &RowSample::ALL);
        r.tensor(0, view, rows, &RowSample::ALL);
    });
}

/// Bit patterns that reach every bucket of both signs, a few at a time.
fn spread(seed: u32) -> f32 {
    let value = f32::from_bits(seed.wrapping_mul(2_654_435_761));
    if value.is_finite() { value } else { 0.0 }
}

#[test]
fn two_rows_a_minute_with_extreme_values_take_a_few_buckets() {
    const WIDTH: usize = 784;
    let budget = SketchBudget::new(256 << 20);
    let mut version = Version::new(WIDTH, ElementType::Fp32, None, &budget);
    let mut writer = version.collector.opener().open().unwrap();
    let mut after_one = 0;
    for minute in 0..120 {
        for value in [2e-38, 3e38] {
            rows(&mut writer, TypedSlice::F32(&[value; WIDTH]), 1);
        }
        version.collect(START + minute * 60, usize::MAX);
        after_one = if minute == 1 { budget.used() } else { after_one };
    }
    let each = (budget.used() - after_one) / 118;
    assert!(each < 300 * WIDTH, "a minute takes {each} bytes");
    let (sum, _) = version.window.sum(7200, START + 7200);
    for q in [0.25, 0.75] {
        let feature = sum.feature(0);
        let wanted = if q < 0.5 { 2e-38 } else { 3e38 };
        assert!((feature.quantile(&[], q).unwrap() / wanted - 1.0).abs() < 0.02, "both stay apart");
    }
}

#[test]
fn whatever_clients_send_the_limit_holds_no_row_is_lost_and_another_version_counts() {
    const WIDTH: usize = 200;
    let reference: Vec<f64> = (0..4000).map(|i| (f64::from(i) * 0.618).fract() * 8.0 - 4.0).collect();
    for (datatype, reference) in [(ElementType::Fp32, None), (ElementType::Fp64, Some(&reference[..]))] {
        let budget = SketchBudget::new(8 << 20);
        let mut hostile = Version::new(WIDTH, datatype, reference, &budget);
        let mut writer = hostile.collector.opener().open().unwrap();
        for minute in 0..150u32 {
            for request in 0..10u32 {
                let row: Vec<f32> =
                    (0..WIDTH as u32).map(|i| spread((minute * 10 + request) * 1009 + i)).collect();
                let wide: Vec<f64> = row.iter().map(|&value| f64::from(value)).collect();
                let view = if reference.is_some() { TypedSlice::F64(&wide) } else { TypedSlice::F32(&row) };
                rows(&mut writer, view, 1);
            }
            hostile.collect(START + u64::from(minute) * 60, budget.limit() / 2);
            assert!(budget.used() <= budget.limit(), "{} of {}", budget.used(), budget.limit());
        }
        let now = START + 150 * 60;
        let (sum, _) = hostile.window.sum(3 * 3600, now);
        assert_eq!((sum.offered(), sum.observed()), (1500, 1500));
        let feature = sum.feature(3);
        assert_eq!(feature.moments.n, 1500);
        assert_eq!(feature.exponential.n(), 1500, "no value is without a bucket");
        assert!(feature.aligned.is_none_or(|aligned| aligned.n() == 1500));
        drop(sum);
        let mut other = Version::new(30, ElementType::Fp32, None, &budget);
        let mut writer = other.collector.opener().open().expect("a quarter is kept free");
        rows(&mut writer, TypedSlice::F32(&[1.5; 30]), 1);
        other.collect(now, budget.limit() / 2);
        assert_eq!(other.window.sum(60, now).0.live().features[0].moments.n, 1);
        assert!(budget.used() <= budget.limit());
    }
}

#[test]
fn everything_is_counted_and_given_back() {
    let budget = SketchBudget::new(64 << 20);
    let mut version = Version::new(10, ElementType::Fp32, None, &budget);
    assert_eq!(budget.used(), 0, "a version without rows holds nothing that rows made");
    let mut writer = version.collector.opener().open().unwrap();
    let base = budget.used();
    assert!(base >= version.plan.shard_bytes() + version.plan.live_bytes());
    rows(&mut writer, TypedSlice::F32(&(0..10_000u32).map(spread).collect::<Vec<_>>()), 1000);
    let shards = budget.used();
    assert!(shards > base, "tables of buckets");
    version.collect(START, usize::MAX);
    version.collect(START + 60, usize::MAX);
    assert!(budget.used() > shards && version.window.bytes() > 0, "sub-windows");
    let (sum, _) = version.window.sum(3600, START + 60);
    drop((sum, writer, version));
    assert_eq!(budget.used(), 0);
}

#[test]
fn buckets_that_lie_far_apart_become_coarser_too_when_nothing_else_is_left() {
    let budget = SketchBudget::new(64 << 20);
    let mut version = Version::new(4, ElementType::Fp64, None, &budget);
    let mut writer = version.collector.opener().open().unwrap();
    for exponent in -60..60 {
        let value = f64::from(2 * exponent).exp2();
        rows(&mut writer, TypedSlice::F64(&[value, -value, value, 1.0]), 1);
    }
    version.collect(START, usize::MAX);
    assert!(version.window.bytes() > 0, "more buckets than the fixed part holds");
    version.collect(START, 0);
    assert_eq!(version.window.bytes(), 0);
    let feature = version.window.sum(60, START).0.feature(0);
    assert_eq!((feature.moments.n, feature.exponential.n()), (120, 120), "no row is lost");
    assert!(feature.exponential.positive().count() <= FEWEST);
}

/// Values of many magnitudes, for which the scale must be halved.
fn magnitudes() -> impl Strategy<Value = Vec<f64>> {
    vec((-126i32..127, 0u32..32, any::<bool>()), 0..900).prop_map(|values| {
        let value = |(exponent, step, negative)| {
            let magnitude = (f64::from(exponent) + f64::from(step) / 32.0 + 0.01).exp2();
            if negative { -magnitude } else { magnitude }
        };
        values.into_iter().map(value).collect()
    })
}

fn histogram(values: &[f64]) -> ExponentialHistogram {
    let mut histogram = ExponentialHistogram::default();
    values.iter().for_each(|&value| histogram.record(value));
    histogram
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_bounded_histogram_depends_on_the_values_and_not_on_the_order_of_merging(
        a in magnitudes(), b in magnitudes(), c in magnitudes(),
    ) {
        let all = histogram(&[&a[..], &b[..], &c[..]].concat());
        let merged = |order: [&Vec<f64>; 3]| {
            let mut sum = ExponentialHistogram::default();
            order.into_iter().for_each(|values| sum.merge(&histogram(values)));
            sum
        };
        prop_assert_eq!(&merged([&a, &b, &c]), &all);
        prop_assert_eq!(&merged([&c, &a, &b]), &all);
        let mut right = histogram(&b);
        right.merge(&histogram(&c));
        let mut left = histogram(&a);
        left.merge(&right);
        prop_assert_eq!(&left, &all);
        prop_assert_eq!(all.n(), (a.len() + b.len() + c.len()) as u64);
        prop_assert!(all.positive().count() + all.negative().count() <= MAX_BUCKETS);
    }

    #[test]
    fn a_quantile_is_within_the_error_that_the_histogram_states(values in magnitudes(), q in 0.0..1.0f64) {
        prop_assume!(!values.is_empty());
        let found = histogram(&values);
        let mut sorted = values.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        let exact = headgate_sketch::edges::quantile(&sorted, q);
        prop_assert!((found.quantile(q).unwrap() - exact).abs() <= (found.error() + 1e-9) * exact.abs());
    }
}
