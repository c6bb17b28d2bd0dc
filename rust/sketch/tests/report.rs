//! The whole path: from training data through shards and a window to the report.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use headgate_sketch::budget::SketchBudget;
use headgate_sketch::distance::Tolerance;
use headgate_sketch::plan::{FeaturePlan, TensorInfo};
use headgate_sketch::report::Report;
use headgate_sketch::sampler::{RowSample, splitmix64};
use headgate_sketch::shard::ShardCollector;
use headgate_sketch::typed_slice::{ElementType, TypedSlice};
use headgate_sketch::window::SlidingWindow;
use headgate_sketch::{Baseline, Column, Direction, fit};
use serde_json::Value;

const NOW: u64 = 1_767_600_000;
const NAMES: [&str; 3] = ["pixel", "amount", "constant"];

/// Three usual columns: whole numbers with a heavy 0, continuous values, and a constant.
fn row(seed: u64) -> [f64; 3] {
    let uniform =
        |salt: u64| (splitmix64(seed.wrapping_mul(3).wrapping_add(salt)) >> 11) as f64 / (1u64 << 53) as f64;
    let pixel = (uniform(1) * 24.0 - 8.0).max(0.0).floor();
    let amount = -(1.0 - uniform(2)).ln() * 100.0;
    [pixel, amount, 0.1]
}

fn baseline(rows: u64) -> Baseline {
    let columns: Vec<Column> = NAMES
        .iter()
        .enumerate()
        .map(|(index, name)| Column {
            tensor: "X".into(),
            column: (*name).into(),
            index: index as u32,
            direction: Direction::Input,
            integer: false,
        })
        .collect();
    let values: Vec<Vec<f64>> = (0..3).map(|i| (0..rows).map(|seed| row(seed)[i]).collect()).collect();
    fit(&columns, &values.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap()
}

fn report(rows: u64, change: impl Fn([f64; 3]) -> [f64; 3]) -> Value {
    let tensors = [
        TensorInfo {
            name: "X".into(),
            direction: Direction::Input,
            datatype: ElementType::Fp32,
            row_elements: Some(3),
        },
        TensorInfo {
            name: "score".into(),
            direction: Direction::Output,
            datatype: ElementType::Fp64,
            row_elements: Some(1),
        },
    ];
    let columns = BTreeMap::from([("X".to_owned(), NAMES.map(str::to_owned).to_vec())]);
    let plan = FeaturePlan::compile(&tensors, &columns, Some(Arc::new(baseline(1400)))).unwrap();
    let budget = SketchBudget::new(16 << 20);
    let mut collector = ShardCollector::new(Arc::clone(&plan), Arc::clone(&budget));
    let mut writer = collector.opener().open().unwrap();
    let mut window = SlidingWindow::new(Arc::clone(&plan), NOW, &budget);
    for request in 0..rows {
        let row = change(row(1_000_000 + request)).map(|value| value as f32);
        writer.record(|r| {
            r.offer(1, &RowSample::ALL);
            r.tensor(0, TypedSlice::F32(&row), 1, &RowSample::ALL);
            r.tensor(1, TypedSlice::F64(&[f64::from(row[1]) / 1000.0]), 1, &RowSample::ALL);
        });
        if request % 500 == 0 {
            collector.collect(window.open(NOW + request / 10));
            window.close_and_shrink(NOW + request / 10, 1 << 20);
        }
    }
    for _ in 0..2 {
        collector.collect(window.open(NOW + rows / 10));
    }
    let (live, span) = window.sum(86_400, NOW + rows / 10 + 1);
    let mut report = Report::new("digits", 86_400, span, Some("sha256:00".into()));
    report.add("v1", &live, span, &Tolerance::default());
    serde_json::from_slice(&report.to_json()).unwrap()
}

fn verdicts(report: &Value) -> Vec<&str> {
    report["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature["verdict"].as_str().unwrap())
        .collect()
}

#[test]
fn unchanged_traffic_passes_and_shows_every_figure() {
    let report = report(3000, |row| row);
    assert_eq!(verdicts(&report), ["pass", "pass", "pass", "undecided"]);
    assert_eq!(report["endpoint"], "digits");
    assert_eq!(report["baseline"], "sha256:00");
    assert_eq!(report["window"]["seconds"], 86_400);
    assert!(report["window"]["to"].as_u64().unwrap() > report["window"]["from"].as_u64().unwrap());
    let amount = &report["features"][1];
    assert_eq!(
        (&amount["version"], &amount["direction"], &amount["tensor"]),
        (&"v1".into(), &"input".into(), &"X".into())
    );
    assert_eq!(
        (&amount["column"], &amount["offered"], &amount["observed"]),
        (&"amount".into(), &3000.into(), &3000.into())
    );
    assert_eq!((&amount["reference"]["n"], &amount["live"]["n"]), (&1400.into(), &3000.into()));
    let number = |path: &str| {
        amount.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} in {amount}"))
    };
    assert!((number("/live/mean") - 100.0).abs() < 10.0 && (number("/live/std") - 100.0).abs() < 10.0);
    assert!((number("/live/quantiles/0.5") - 69.3).abs() < 8.0);
    assert!(number("/psi") < 0.1 && number("/js_distance_nats") < number("/js_distance_bits"));
    assert!(number("/ks/lower") <= number("/ks/upper") && number("/ks/upper") < 0.08);
    assert!(number("/wasserstein/lower") <= number("/wasserstein/upper"));
    assert!(number("/chi2/p") > 1e-4 && number("/chi2/dof") > 30.0);
    assert!(number("/test/stat") <= number("/test/critical"));
    for figure in ["missing", "nan", "below", "above", "min", "max"] {
        assert!(amount["live"][figure].is_number(), "{figure}");
    }
    // Single precision does not move a constant 0.1 out of its bin.
    assert_eq!(report["features"][2]["psi"], 0.0);
}

#[test]
fn a_feature_without_a_reference_has_figures_but_no_distances() {
    let report = report(500, |row| row);
    let score = &report["features"][3];
    assert_eq!((&score["column"], &score["direction"]), (&"score[0]".into(), &"output".into()));
    assert_eq!(score["live"]["n"], 500);
    assert!(score["live"]["quantiles"]["0.99"].is_number());
    for absent in ["psi", "chi2", "ks", "wasserstein", "reference", "test"] {
        assert!(score.get(absent).is_none(), "{absent}");
    }
}

#[test]
fn shifts_spikes_and_missing_values_fail() {
    let report = report(3000, |[pixel, amount, _]| {
        [pixel / 16.0, if amount > 120.0 { f64::NAN } else { amount }, 0.2]
    });
    assert_eq!(verdicts(&report), ["fail", "fail", "fail", "undecided"]);
    assert!(report["features"][1]["live"]["nan"].as_u64().unwrap() > 500);
    assert_eq!(report["features"][2]["live"]["above"], 3000);
}

#[test]
fn little_or_no_data_is_undecided() {
    let few = report(50, |row| row);
    assert_eq!(verdicts(&few), ["undecided"; 4]);
    assert!(few["features"][0]["psi"].is_number());
    let none = report(0, |row| row);
    assert_eq!(verdicts(&none), ["undecided"; 4]);
    assert!(none["features"][0].get("psi").is_none());
    assert_eq!(none["features"][0]["live"]["mean"], Value::Null);
}
