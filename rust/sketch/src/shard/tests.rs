//! Every count arrives once, in the right feature, even while other threads write.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::baseline::{Column, Direction, fit};
use crate::budget::SketchBudget;
use crate::edges;
use crate::live::LiveCounts;
use crate::plan::{FeaturePlan, TensorInfo};
use crate::sampler::{RowSample, SamplingRate};
use crate::typed_slice::{ElementType, TypedSlice};

fn info(name: &str, datatype: ElementType, row_elements: Option<usize>) -> TensorInfo {
    TensorInfo { name: name.into(), direction: Direction::Input, datatype, row_elements }
}

fn reference() -> Vec<f64> {
    (1..2000).map(|i| (f64::from(i) * 0.618_033_988_75).fract() * 4.0 - 1.0).collect()
}

fn with_baseline(tensors: &[TensorInfo], features: &[(&str, &str, u32)]) -> Arc<FeaturePlan> {
    let columns: Vec<Column> = features
        .iter()
        .map(|&(tensor, column, index)| Column {
            tensor: tensor.into(),
            column: column.into(),
            index,
            direction: Direction::Input,
            integer: false,
        })
        .collect();
    let values = reference();
    let values = vec![values.as_slice(); columns.len()];
    let baseline = Arc::new(fit(&columns, &values).unwrap());
    FeaturePlan::compile(tensors, &BTreeMap::new(), Some(baseline)).unwrap()
}

fn start(plan: &Arc<FeaturePlan>) -> (ShardCollector, ShardWriter, LiveCounts) {
    let collector = ShardCollector::new(Arc::clone(plan), SketchBudget::new(64 << 20));
    let writer = collector.opener().open().unwrap();
    (collector, writer, LiveCounts::new(plan))
}

/// Collects twice, so that both buffers are emptied.
fn gather(collector: &mut ShardCollector, live: &mut LiveCounts) {
    assert_eq!(collector.collect(live).busy + collector.collect(live).busy, 0);
}

fn counts(live: &LiveCounts, feature: usize) -> Vec<u64> {
    live.features[feature].aligned.as_ref().unwrap().counts.clone()
}

#[test]
fn values_arrive_in_their_slots_with_sums_and_moments() {
    let plan = with_baseline(&[info("X", ElementType::Fp64, Some(2))], &[("X", "a", 0)]);
    let (mut collector, mut writer, mut live) = start(&plan);
    let data = [0.5, 10.0, f64::NAN, -10.0, -99.0, 0.0, f64::INFINITY, f64::NEG_INFINITY];
    writer.record(|r| {
        r.offer(4, &RowSample::ALL);
        r.tensor(0, TypedSlice::F64(&data), 4, &RowSample::ALL);
    });
    gather(&mut collector, &mut live);
    assert_eq!((live.offered, live.observed), (4, 4));
    let edges = &plan.reference(&plan.features()[0]).unwrap().edges;
    let found = counts(&live, 0);
    assert_eq!((found[0], found[edges::slot(edges, 0.5)], found.iter().sum::<u64>()), (1, 1, 2));
    let a = &live.features[0];
    assert_eq!((a.non_finite.nan, a.non_finite.positive_infinity, a.non_finite.negative_infinity), (1, 1, 0));
    assert_eq!((a.moments.n, a.moments.min, a.moments.max), (2, -99.0, 0.5));
    assert!((a.moments.mean + 49.25).abs() < 1e-12 && (a.moments.std().unwrap() - 49.75).abs() < 1e-9);
    let b = &live.features[1];
    assert_eq!(b.aligned, None, "a feature without a baseline");
    assert_eq!((b.exponential.zero, b.exponential.n(), b.non_finite.negative_infinity), (1, 3, 1));
    let mut wanted = crate::exponential::ExponentialHistogram::default();
    [0.5, -99.0].iter().for_each(|&value| wanted.record(value));
    assert_eq!(a.exponential, wanted, "every feature has it, with a baseline too");
    assert_eq!((b.moments.n, b.moments.min, b.moments.max), (3, -10.0, 10.0));
    assert!(b.moments.mean.abs() < 1e-12 && (b.moments.m2 - 200.0).abs() < 1e-9);
    let before = live.clone();
    gather(&mut collector, &mut live);
    assert_eq!(live, before, "nothing arrives twice");
}

#[test]
fn every_type_is_counted_as_its_value() {
    let columns = [("X", "a", 0)];
    let check = |datatype, view: TypedSlice<'_>, values: &[f64]| {
        let plan = with_baseline(&[info("X", datatype, Some(1))], &columns);
        let (mut collector, mut writer, mut live) = start(&plan);
        writer.record(|r| r.tensor(0, view, values.len(), &RowSample::ALL));
        gather(&mut collector, &mut live);
        let edges = &plan.reference(&plan.features()[0]).unwrap().edges;
        let mut wanted = vec![0; edges.len() + 1];
        values.iter().for_each(|&value| wanted[edges::slot(edges, value)] += 1);
        assert_eq!(counts(&live, 0), wanted, "{datatype:?}");
        assert_eq!(live.features[0].moments.max, values.iter().copied().fold(f64::MIN, f64::max));
        assert_eq!(live.tensors[0].wrong_type, 0);
    };
    check(ElementType::Bool, TypedSlice::U8(&[0, 1, 1]), &[0.0, 1.0, 1.0]);
    check(ElementType::Uint8, TypedSlice::U8(&[0, 255]), &[0.0, 255.0]);
    check(ElementType::Int8, TypedSlice::I8(&[-128, 2]), &[-128.0, 2.0]);
    check(ElementType::Uint16, TypedSlice::U16(&[7, 1]), &[7.0, 1.0]);
    check(ElementType::Int16, TypedSlice::I16(&[-7, 1]), &[-7.0, 1.0]);
    check(ElementType::Uint32, TypedSlice::U32(&[7, u32::MAX]), &[7.0, f64::from(u32::MAX)]);
    check(ElementType::Int32, TypedSlice::I32(&[i32::MIN, 1]), &[f64::from(i32::MIN), 1.0]);
    check(ElementType::Uint64, TypedSlice::U64(&[1 << 53, 1]), &[9_007_199_254_740_992.0, 1.0]);
    check(ElementType::Int64, TypedSlice::I64(&[-3, 1]), &[-3.0, 1.0]);
    check(ElementType::Fp16, TypedSlice::F16(&[0x3c00, 0xc000]), &[1.0, -2.0]);
    check(ElementType::Bf16, TypedSlice::Bf16(&[0x3f80, 0xc000]), &[1.0, -2.0]);
    check(ElementType::Fp32, TypedSlice::F32(&[0.25, -0.5]), &[0.25, -0.5]);
    check(ElementType::Fp64, TypedSlice::F64(&[0.25, -0.5]), &[0.25, -0.5]);
}

#[test]
fn large_rows_become_statistics_and_strings_become_lengths() {
    let tensors = [info("I", ElementType::Uint8, None), info("S", ElementType::Bytes, Some(1))];
    let plan = with_baseline(&tensors, &[("I", "I.max", 2)]);
    let (mut collector, mut writer, mut live) = start(&plan);
    let image = vec![2u8; 10_000];
    writer.record(|r| {
        r.tensor(0, TypedSlice::U8(&image), 2, &RowSample::ALL);
        r.tensor(1, TypedSlice::Strings(&[5, 0]), 2, &RowSample::ALL);
    });
    gather(&mut collector, &mut live);
    let means: Vec<f64> = live.features.iter().map(|feature| feature.moments.mean).collect();
    assert_eq!(means, [2.0, 0.0, 2.0, 2.0, 0.0, 2.5, 0.5]);
    assert!(live.features.iter().all(|feature| feature.moments.n == 2));
}

#[test]
fn misfits_are_counted_and_change_nothing_else() {
    let plan = with_baseline(&[info("X", ElementType::Fp32, Some(2))], &[("X", "a", 0)]);
    let (mut collector, mut writer, mut live) = start(&plan);
    writer.record(|r| {
        r.tensor(0, TypedSlice::F64(&[1.0, 2.0]), 1, &RowSample::ALL);
        r.tensor(0, TypedSlice::F32(&[1.0, 2.0, 3.0]), 1, &RowSample::ALL);
        r.tensor(0, TypedSlice::F32(&[]), 0, &RowSample::ALL);
        r.missing(0, 3);
    });
    gather(&mut collector, &mut live);
    assert_eq!((live.tensors[0].wrong_type, live.tensors[0].missing), (2, 3));
    assert!(live.features.iter().all(|feature| feature.is_empty()));
}

#[test]
fn sampled_rows_are_the_same_for_inputs_and_outputs() {
    let tensors = [info("X", ElementType::Fp32, Some(1)), info("Y", ElementType::Int64, Some(1))];
    let plan = FeaturePlan::compile(&tensors, &BTreeMap::new(), None).unwrap();
    let (mut collector, mut writer, mut live) = start(&plan);
    for hash in 0..100 {
        let sample = RowSample::new(hash, SamplingRate::halved(3));
        let x: Vec<f32> = (0..50).map(|row| row as f32 + 1.0).collect();
        let y: Vec<i64> = (1..=50).collect();
        writer.record(|r| {
            r.offer(50, &sample);
            r.tensor(0, TypedSlice::F32(&x), 50, &sample);
            r.tensor(1, TypedSlice::I64(&y), 50, &sample);
        });
    }
    gather(&mut collector, &mut live);
    assert_eq!(live.offered, 5000);
    assert!((450..800).contains(&live.observed), "{}", live.observed);
    assert_eq!(live.tensors[0].rows, live.observed);
    assert_eq!(live.features[0].moments.n, 8 * live.observed, "each row counts for eight");
    assert_eq!(
        (live.tensors[0].weight, live.tensors[0].effective()),
        (8 * live.observed, live.observed as f64)
    );
    assert!((live.features[0].moments.mean - live.features[1].moments.mean).abs() < 1e-9);
    assert_eq!(live.features[0].exponential, live.features[1].exponential);
}

#[test]
fn a_busy_writer_is_met_again_next_time() {
    let plan =
        FeaturePlan::compile(&[info("X", ElementType::Fp32, Some(1))], &BTreeMap::new(), None).unwrap();
    let (mut collector, mut writer, mut live) = start(&plan);
    writer.record(|r| {
        r.offer(1, &RowSample::ALL);
        assert_eq!(collector.collect(&mut live), CollectionResult { busy: 1, ..CollectionResult::default() });
        assert_eq!(collector.collect(&mut live).busy, 1);
        r.offer(1, &RowSample::ALL);
    });
    assert_eq!(live.offered, 0);
    assert_eq!(collector.collect(&mut live).emptied, 1);
    assert_eq!(live.offered, 2);
}

#[test]
fn a_closed_writer_leaves_everything_and_its_memory() {
    let plan = with_baseline(&[info("X", ElementType::Fp32, Some(2))], &[("X", "a", 0)]);
    // Beside the shard there is room for the first entries of one feature, with a quarter left free.
    let need = plan.shard_bytes() + plan.live_bytes();
    let budget = SketchBudget::new((need + 600).div_ceil(3) * 4);
    let mut collector = ShardCollector::new(Arc::clone(&plan), Arc::clone(&budget));
    let mut writer = collector.opener().open().unwrap();
    writer.record(|r| {
        // Two features, each with a table of its own.
        r.tensor(0, TypedSlice::F32(&[1.0, 1.0, 0.0, 1e30, 1e30, 1e-30]), 3, &RowSample::ALL);
    });
    assert!(writer.bytes() > plan.shard_bytes());
    assert!(collector.opener().open().is_none(), "the budget holds one shard");
    let mut live = LiveCounts::new(&plan);
    drop(writer);
    assert_eq!(collector.collect(&mut live), CollectionResult { emptied: 2, busy: 0, closed: 1 });
    let seen = |feature: usize| (live.features[feature].moments.n, live.features[feature].exponential.n());
    assert_eq!((seen(0), seen(1)), ((3, 3), (3, 0)), "moments know the values that no bucket took");
    assert_eq!(counts(&live, 0).iter().sum::<u64>(), 3, "and so do the slots on the baseline's edges");
    assert_eq!(
        (budget.used(), collector.bytes()),
        (plan.live_bytes(), 0),
        "the sum stays with the collector"
    );
    assert!(collector.opener().open().is_some());
}

#[test]
fn a_panic_while_recording_does_not_hold_the_shard() {
    let plan =
        FeaturePlan::compile(&[info("X", ElementType::Fp32, Some(1))], &BTreeMap::new(), None).unwrap();
    let (mut collector, mut writer, mut live) = start(&plan);
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.record(|r| {
            r.offer(1, &RowSample::ALL);
            panic!("on purpose");
        })
    }));
    assert!(caught.is_err());
    assert_eq!(collector.collect(&mut live).busy, 0);
    assert_eq!(live.offered, 1);
}

#[test]
fn nothing_is_lost_or_doubled_between_threads() {
    const THREADS: u64 = 3;
    const REQUESTS: u64 = 4000;
    let plan = with_baseline(&[info("X", ElementType::Fp32, Some(2))], &[("X", "a", 0)]);
    let mut collector = ShardCollector::new(Arc::clone(&plan), SketchBudget::new(64 << 20));
    let mut live = LiveCounts::new(&plan);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..THREADS)
            .map(|_| {
                let mut writer = collector.opener().open().unwrap();
                scope.spawn(move || {
                    for i in 0..REQUESTS {
                        let x = (i % 40) as f32 / 10.0 - 1.0;
                        writer.record(|r| {
                            r.offer(1, &RowSample::ALL);
                            r.tensor(0, TypedSlice::F32(&[x, x]), 1, &RowSample::ALL);
                        });
                    }
                })
            })
            .collect();
        let gatherer = scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                collector.collect(&mut live);
            }
            collector.collect(&mut live);
            collector.collect(&mut live);
        });
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Release);
        gatherer.join().unwrap();
    });
    assert_eq!((live.offered, live.observed), (THREADS * REQUESTS, THREADS * REQUESTS));
    assert!(live.features.iter().all(|feature| feature.moments.n == THREADS * REQUESTS));
    assert_eq!(counts(&live, 0).iter().sum::<u64>(), THREADS * REQUESTS);
}
