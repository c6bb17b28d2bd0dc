//! Nanoseconds per value of the update path: row-major rows of 64 features through a real shard, and the parts of it.
//!
//! Time per iteration divided by the elements gives ns per value; criterion prints elements per second, and a table of
//! ns per value follows at the end. Run: `cargo bench -p headgate-sketch`.

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use headgate_sketch::budget::SketchBudget;
use headgate_sketch::edges::{self, Spacing};
use headgate_sketch::exponential::ExponentialHistogram;
use headgate_sketch::lookup::{Lane, SlotLookup};
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::sampler::{RowSample, splitmix64};
use headgate_sketch::shard::{ShardCollector, ShardWriter};
use headgate_sketch::typed_slice::{ElementType, TypedSlice};
use headgate_sketch::{Column, Direction, fit};

const FEATURES: usize = 64;
const ROWS: usize = 256;

fn uniform(i: u64) -> f64 {
    ((splitmix64(i) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Four kinds of feature in turn: logistic, log-logistic, uniform far from 0, whole numbers with a heavy 0.
fn value(feature: usize, i: u64) -> f64 {
    let u = uniform(i.wrapping_mul(64).wrapping_add(feature as u64));
    match feature % 4 {
        0 => (u / (1.0 - u)).ln(),
        1 => (u / (1.0 - u)).ln().exp(),
        2 => 1000.0 + u,
        _ => (u * 24.0 - 7.0).max(0.0).floor(),
    }
}

fn column(index: usize) -> Column {
    Column {
        tensor: "X".into(),
        column: format!("X[{index}]"),
        index: index as u32,
        direction: Direction::Input,
        integer: false,
    }
}

enum Reference {
    With,
    Without,
}

fn writer(datatype: ElementType, reference: &Reference) -> (ShardCollector, ShardWriter) {
    let baseline = matches!(reference, Reference::With).then(|| {
        let columns: Vec<Column> = (0..FEATURES).map(column).collect();
        let values: Vec<Vec<f64>> =
            (0..FEATURES).map(|f| (0..4000).map(|i| value(f, 1_000_000 + i)).collect()).collect();
        Arc::new(fit(&columns, &values.iter().map(Vec::as_slice).collect::<Vec<_>>()).expect("columns fit"))
    });
    let info =
        TensorInfo { name: "X".into(), direction: Direction::Input, datatype, row_elements: Some(FEATURES) };
    let plan = FeaturePlan::compile(&[info], &BTreeMap::new(), baseline).expect("one tensor is a plan");
    let collector = ShardCollector::new(plan, SketchBudget::new(1 << 30));
    let writer = collector.opener().open().expect("the budget holds one shard");
    (collector, writer)
}

/// The best of many short passes over the rows, in ns per value. Other work on the machine disturbs the others.
fn nanoseconds(values: usize, mut pass: impl FnMut()) -> f64 {
    let mut best = Duration::MAX;
    for _ in 0..2000 {
        let start = Instant::now();
        pass();
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64 / values as f64
}

fn slots<L: Lane>(data: &[L], lookups: &[SlotLookup<L>]) -> usize {
    let rows = data.chunks_exact(FEATURES);
    rows.map(|row| row.iter().zip(lookups).map(|(&v, lookup)| lookup.slot(v)).sum::<usize>()).sum()
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args().sample_size(20);
    let double: Vec<f64> = (0..ROWS * FEATURES).map(|i| value(i % FEATURES, (i / FEATURES) as u64)).collect();
    let single: Vec<f32> = double.iter().map(|&v| v as f32).collect();
    let mut table: Vec<(String, f64)> = Vec::new();
    let mut group = criterion.benchmark_group("update");
    group.throughput(Throughput::Elements((ROWS * FEATURES) as u64));
    let mut bench = |name: &str, pass: &mut dyn FnMut()| {
        group.bench_function(name, |b| b.iter(&mut *pass));
        table.push((name.to_owned(), nanoseconds(ROWS * FEATURES, pass)));
    };

    for (kind, reference) in [("aligned", Reference::With), ("exponential", Reference::Without)] {
        let (_single, mut narrow) = writer(ElementType::Fp32, &reference);
        let (_double, mut wide) = writer(ElementType::Fp64, &reference);
        bench(&format!("{kind}_f32_batch"), &mut || {
            narrow.record(|r| r.tensor(0, TypedSlice::F32(black_box(&single)), ROWS, &RowSample::ALL));
        });
        bench(&format!("{kind}_f64_batch"), &mut || {
            wide.record(|r| r.tensor(0, TypedSlice::F64(black_box(&double)), ROWS, &RowSample::ALL));
        });
        bench(&format!("{kind}_f32_row_per_request"), &mut || {
            for row in black_box(&single).chunks_exact(FEATURES) {
                narrow.record(|r| r.tensor(0, TypedSlice::F32(row), 1, &RowSample::ALL));
            }
        });
    }
    let fitted: Vec<Vec<f64>> = (0..FEATURES)
        .map(|f| {
            let mut values: Vec<f64> = (0..4000).map(|i| value(f, 1_000_000 + i)).collect();
            values.sort_unstable_by(f64::total_cmp);
            edges::choose(&values, Spacing::Continuous)
        })
        .collect();
    let narrow: Vec<SlotLookup<f32>> = fitted.iter().map(|edges| SlotLookup::new(edges)).collect();
    let wide: Vec<SlotLookup<f64>> = fitted.iter().map(|edges| SlotLookup::new(edges)).collect();
    bench("lookup_only_f32", &mut || {
        black_box(slots(black_box(&single), &narrow));
    });
    bench("lookup_only_f64", &mut || {
        black_box(slots(black_box(&double), &wide));
    });
    bench("binary_search_f64", &mut || {
        let rows = black_box(&double).chunks_exact(FEATURES);
        let slot = |row: &[f64]| row.iter().zip(&fitted).map(|(&v, e)| edges::slot(e, v)).sum::<usize>();
        black_box(rows.map(slot).sum::<usize>());
    });
    let mut histogram = ExponentialHistogram::default();
    bench("plain_exponential_f64", &mut || {
        black_box(&double).iter().for_each(|&v| histogram.record(v));
    });
    group.finish();
    for (name, ns) in table {
        eprintln!("{name:32} {ns:6.2} ns/value");
    }
}
