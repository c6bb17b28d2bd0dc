//! Weighted rows: counts at several rates add up without bias, and tests on them give as few false alarms as chosen.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_sketch::budget::SketchBudget;
use headgate_sketch::distance::{Tolerance, Verdict, decide};
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::report::{FeatureReport, features};
use headgate_sketch::sampler::{RowSample, SamplingRate, splitmix64};
use headgate_sketch::shard::{ShardCollector, ShardWriter, TensorRows};
use headgate_sketch::typed_slice::{ElementType, TypedSlice};
use headgate_sketch::window::SlidingWindow;
use headgate_sketch::{Column, Direction, fit};

const NOW: u64 = 1_767_600_000;

fn uniform(seed: u64) -> f64 {
    (splitmix64(seed) >> 11) as f64 / (1u64 << 53) as f64
}

/// A kind of value, by its datatype and what it draws from a uniform number.
#[derive(Clone, Copy)]
struct Kind {
    datatype: ElementType,
    direction: Direction,
    draw: fn(f64) -> f64,
}

/// Continuous outputs of both signs, many categories as integers, a flag, skewed amounts, ids of 64 bits.
const KINDS: [Kind; 5] = [
    Kind {
        datatype: ElementType::Fp32,
        direction: Direction::Output,
        draw: |u| ((u + 1e-9) / (1.0 - u + 1e-9)).ln(),
    },
    Kind { datatype: ElementType::Int32, direction: Direction::Input, draw: |u| (u * u * 200.0).floor() },
    Kind {
        datatype: ElementType::Uint8,
        direction: Direction::Input,
        draw: |u| f64::from(u8::from(u > 0.9)),
    },
    Kind { datatype: ElementType::Fp64, direction: Direction::Output, draw: |u| -(1.0 - u).ln() * -3e5 },
    Kind { datatype: ElementType::Int64, direction: Direction::Input, draw: |u| (u * 1e18).floor() + 7e18 },
];

struct Threads {
    kind: Kind,
    collector: ShardCollector,
    window: SlidingWindow,
    writers: Vec<ShardWriter>,
}

impl Threads {
    fn new(kind: Kind, threads: usize, seed: u64) -> Self {
        let column = Column {
            tensor: "t".into(),
            column: "t".into(),
            index: 0,
            direction: kind.direction,
            integer: !matches!(kind.datatype, ElementType::Fp32 | ElementType::Fp64),
        };
        let reference: Vec<f64> = (0..10_000).map(|i| (kind.draw)(uniform(seed ^ i))).collect();
        let baseline = Arc::new(fit(&[column], &[&reference]).unwrap());
        let info = TensorInfo {
            name: "t".into(),
            direction: kind.direction,
            datatype: kind.datatype,
            row_elements: Some(1),
        };
        let plan = FeaturePlan::compile(&[info], &BTreeMap::new(), Some(baseline)).unwrap();
        let budget = SketchBudget::new(64 << 20);
        let collector = ShardCollector::new(Arc::clone(&plan), Arc::clone(&budget));
        let writers = (0..threads).map(|_| collector.opener().open().unwrap()).collect();
        Self { kind, window: SlidingWindow::new(plan, NOW, &budget), collector, writers }
    }

    /// Requests of `rows` rows each on one thread, at one rate.
    fn send(
        &mut self,
        thread: usize,
        rate: SamplingRate,
        (requests, rows): (u64, usize),
        draw: impl Fn(u64) -> f64,
    ) {
        for request in 0..requests {
            let values: Vec<f64> = (0..rows as u64).map(|row| draw(request * rows as u64 + row)).collect();
            let seed = (thread as u64) << 40 | request;
            let sample = RowSample::of_request(splitmix64(draw(request).to_bits() ^ seed), rate, rows);
            let datatype = self.kind.datatype;
            self.writers[thread].record(|r| {
                r.offer(rows, &sample);
                let mut tensor = |view: TypedSlice<'_>| drop_taken(r.tensor(0, view, rows, &sample));
                match datatype {
                    ElementType::Fp32 => {
                        tensor(TypedSlice::F32(&values.iter().map(|&v| v as f32).collect::<Vec<_>>()))
                    }
                    ElementType::Int32 => {
                        tensor(TypedSlice::I32(&values.iter().map(|&v| v as i32).collect::<Vec<_>>()))
                    }
                    ElementType::Uint8 => {
                        tensor(TypedSlice::U8(&values.iter().map(|&v| v as u8).collect::<Vec<_>>()))
                    }
                    ElementType::Int64 => {
                        tensor(TypedSlice::I64(&values.iter().map(|&v| v as i64).collect::<Vec<_>>()))
                    }
                    _ => tensor(TypedSlice::F64(&values)),
                }
            });
        }
    }

    fn report(&mut self, tolerance: &Tolerance) -> FeatureReport {
        for _ in 0..2 {
            self.collector.collect(self.window.open(NOW));
        }
        features("1", &self.window.sum(60, NOW).0, tolerance).remove(0)
    }
}

fn drop_taken(_: headgate_sketch::shard::SketchedRows) {}

#[test]
fn threads_with_different_rates_weigh_what_they_saw() {
    // A hot thread with values about 10 and a quiet one with values about 0: nine rows in ten are hot.
    let mut threads = Threads::new(KINDS[0], 2, 1);
    threads.send(0, SamplingRate::halved(5), (90_000, 1), |i| 10.0 + uniform(i));
    threads.send(1, SamplingRate::ALL, (10_000, 1), uniform);
    let report = threads.report(&Tolerance::default());
    assert_eq!(report.offered, 100_000);
    assert!((11_800..13_800).contains(&report.observed), "{} were sketched", report.observed);
    let (n, mean) = (report.live.n as f64, report.live.mean.unwrap());
    assert!((n / 1e5 - 1.0).abs() < 0.06, "weights count all rows: {n}");
    assert!((mean - 9.5).abs() < 0.15, "{mean}; without weights it would be 2.7");
    assert!(report.effective < 4_000.0 && report.effective > 2_500.0, "{}", report.effective);
    assert!(report.live.quantiles["0.25"] > 9.0);
}

#[test]
fn false_alarms_are_as_rare_as_asked_for_with_any_weights() {
    let tolerance = Tolerance { psi: 0.0, alpha: 0.05, min_rows: 100 };
    let (mut alarms, mut naive, mut looks) = (0, 0, 0);
    for (number, kind) in KINDS.into_iter().enumerate() {
        for look in 0..60u64 {
            let seed = splitmix64(((number as u64) << 32) | look);
            let mut threads = Threads::new(kind, 3, seed);
            // Single rows at one in 16, requests of 100 rows at one in 4, a quiet thread with all rows.
            let draw =
                |salt: u64| move |i: u64| (kind.draw)(uniform(seed.wrapping_add(salt << 50) ^ (i << 20)));
            threads.send(0, SamplingRate::halved(4), (16_000, 1), draw(1));
            threads.send(1, SamplingRate::halved(2), (20, 100), draw(2));
            threads.send(2, SamplingRate::ALL, (300, 1), draw(3));
            let report = threads.report(&tolerance);
            assert_ne!(report.verdict, Verdict::Undecided);
            assert!(report.effective < report.observed as f64 + 1e-6);
            alarms += u32::from(report.verdict == Verdict::Fail);
            // The same counts, as if each were a row.
            let chi2 = report.distances.unwrap().chi2.unwrap();
            let inflation = report.live.n as f64 / report.effective;
            naive += u32::from(chi2.stat * inflation > 3.0 * f64::from(chi2.dof));
            looks += 1;
        }
    }
    // 15 of 300 expected; 0.1 % of all such simulations fall outside 4..=30.
    assert!((4..=30).contains(&alarms), "{alarms} of {looks}");
    assert!(
        naive > looks / 2,
        "taken for whole rows, weighted counts alarm all the time: {naive} of {looks}"
    );
}

#[test]
fn real_changes_are_found_through_weights() {
    for kind in KINDS {
        let mut threads = Threads::new(kind, 2, 5);
        let shifted = move |i: u64| (kind.draw)(0.7 + 0.3 * uniform(i));
        threads.send(0, SamplingRate::halved(6), (60_000, 1), shifted);
        threads.send(1, SamplingRate::ALL, (200, 1), shifted);
        let report = threads.report(&Tolerance::default());
        assert_eq!(report.verdict, Verdict::Fail, "effective rows: {}", report.effective);
        assert!(report.observed < 1_500 && report.effective > 600.0);
    }
}

#[test]
fn a_large_answer_is_capped_and_counts_all_of_its_rows() {
    let rows = 3_000_000;
    let values: Vec<f32> = (0..rows as u64).map(|i| uniform(i) as f32 - 0.5).collect();
    let mut threads = Threads::new(KINDS[0], 1, 9);
    let taken = threads.writers[0].record(|r| {
        r.offer(1, &RowSample::ALL);
        r.tensor_capped(0, TensorRows { view: TypedSlice::F32(&values), rows }, 65_536, &RowSample::ALL)
    });
    assert!(taken.rows <= 65_536 && taken.values == taken.rows, "{taken:?}");
    let report = threads.report(&Tolerance::default());
    assert_eq!(report.observed, taken.rows);
    assert!((report.live.n as f64 / rows as f64 - 1.0).abs() < 1e-3 && report.effective == taken.rows as f64);
    assert!((report.live.quantiles["0.5"]).abs() < 0.01);
}

#[test]
fn fewer_effective_rows_than_needed_decide_nothing() {
    let c = [1000u64, 1000];
    let d = [0.0, 99.9];
    assert_eq!(decide(&c, &d, 0..2, &Tolerance::default()).verdict, Verdict::Undecided);
    assert_eq!(decide(&c, &[0.0, 100.0 - 1e-9], 0..2, &Tolerance::default()).verdict, Verdict::Fail);
}
