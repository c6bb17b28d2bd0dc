//! Properties of all inputs: merging is associative, subtracting undoes it, every value has exactly one slot, the fast lookup equals
//! the slow ones, the distances are within their bounds, and a baseline survives writing and reading.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use headgate_sketch::aligned::AlignedHistogram;
use headgate_sketch::distance::{self, BinnedSample};
use headgate_sketch::edges::{self, Spacing};
use headgate_sketch::exponential::{self, ExponentialHistogram};
use headgate_sketch::lookup::SlotLookup;
use headgate_sketch::moments::Moments;
use headgate_sketch::{Baseline, Column, Direction, fit};
use proptest::collection::vec;
use proptest::prelude::*;

/// Values of every usual kind: grids, narrow ranges far from 0, heavy tails, spikes, extremes.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => (-20i32..20).prop_map(f64::from),
        4 => -1.0..1.0f64,
        2 => (0.0..1.0f64).prop_map(|u| 1e6 + u),
        2 => (1e-3..1.0f64).prop_map(|u| 1.0 / (u * u)),
        1 => any::<f32>().prop_filter("finite", |v| v.is_finite()).prop_map(f64::from),
        1 => any::<f64>().prop_filter("summable", |v| v.abs() < 1e150),
        1 => Just(0.0), 1 => Just(-0.0),
    ]
}

/// Any bit patterns.
fn anything() -> impl Strategy<Value = f64> {
    prop_oneof![value(), any::<f64>(), Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY)]
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

fn column(integer: bool) -> Column {
    Column { tensor: "X".into(), column: "a".into(), index: 0, direction: Direction::Input, integer }
}

/// Integers small enough for sums to be exact, so that merging can be compared bit by bit.
fn histogram(edges: &[f64], values: &[i32]) -> AlignedHistogram {
    AlignedHistogram::of(edges, &values.iter().map(|&v| f64::from(v)).collect::<Vec<_>>())
}

proptest! {
    #[test]
    fn merging_is_associative_and_subtracting_undoes_it(
        a in vec(-50..50i32, 0..60), b in vec(-50..50i32, 0..60), c in vec(-50..50i32, 0..60),
    ) {
        let edges = [-20.0, -1.0, 0.0, 3.0, 40.0];
        let [x, y, z] = [&a, &b, &c].map(|values| histogram(&edges, values));
        let merged = |one: &AlignedHistogram, two: &AlignedHistogram| {
            let mut sum = one.clone();
            sum.merge(two);
            sum
        };
        let all = merged(&merged(&x, &y), &z);
        prop_assert_eq!(&all, &merged(&x, &merged(&y, &z)));
        prop_assert_eq!(&all, &merged(&z, &merged(&y, &x)));
        let mut back = all.clone();
        back.subtract(&z);
        prop_assert_eq!(back, merged(&x, &y));
    }

    #[test]
    fn exponential_merging_is_associative(a in vec(value(), 0..60), b in vec(value(), 0..60), c in vec(value(), 0..60)) {
        let [x, y, z] = [&a, &b, &c].map(|values| {
            let mut histogram = ExponentialHistogram::default();
            values.iter().for_each(|&value| histogram.record(value));
            histogram
        });
        let merged = |one: &ExponentialHistogram, two: &ExponentialHistogram| {
            let mut sum = one.clone();
            sum.merge(two);
            sum
        };
        prop_assert_eq!(merged(&merged(&x, &y), &z), merged(&x, &merged(&y, &z)));
        prop_assert_eq!(merged(&x, &y).n(), (a.len() + b.len()) as u64);
    }

    #[test]
    fn an_exponential_bucket_holds_its_value(magnitude in 1e-37..1e38f64) {
        let index = exponential::index(magnitude).unwrap();
        // Boundaries are rounded here. Another test checks that values at a boundary are exact.
        prop_assert!(magnitude <= exponential::upper(index, exponential::SCALE) * (1.0 + 1e-14));
        prop_assert!(magnitude >= exponential::upper(index - 1, exponential::SCALE) * (1.0 - 1e-14));
    }

    #[test]
    fn every_value_lands_in_exactly_one_slot(reference in vec(value(), 0..300), probes in vec(anything(), 0..300)) {
        let edges = edges::choose(&sorted(&reference), Spacing::Continuous);
        let histogram = AlignedHistogram::of(&edges, &probes);
        let finite: Vec<f64> = probes.iter().copied().filter(|v| v.is_finite()).collect();
        prop_assert_eq!(histogram.n(), finite.len() as u64);
        for value in finite {
            let slot = edges::slot(&edges, value);
            prop_assert!(slot == 0 || edges[slot - 1] < value);
            prop_assert!(slot == edges.len() || value <= edges[slot]);
        }
    }

    #[test]
    fn the_fast_lookup_equals_search_and_scan(reference in vec(value(), 0..300), probes in vec(anything(), 0..100)) {
        let sorted = sorted(&reference);
        for spacing in [Spacing::Continuous, Spacing::Integer] {
            let edges = edges::choose(&sorted, spacing);
            let double = SlotLookup::<f64>::new(&edges);
            let single = SlotLookup::<f32>::new(&edges);
            let near = edges.iter().flat_map(|&e| [e, e.next_up(), e.next_down()]);
            for probe in near.chain(probes.iter().copied()).chain(sorted.iter().copied()).filter(|v| v.is_finite()) {
                let scan = edges.iter().filter(|&&edge| edge < probe).count();
                prop_assert_eq!(double.slot(probe), scan);
                prop_assert_eq!(edges::slot(&edges, probe), scan);
                // Rounding to f32 keeps the order: the slot is between those of the neighbouring f32 values.
                let narrow = probe as f32;
                if narrow.is_finite() {
                    let (low, high) = (f64::from(narrow.next_down()), f64::from(narrow.next_up()));
                    let slots = edges::slot(&edges, low).saturating_sub(1)..=edges::slot(&edges, high) + 1;
                    prop_assert!(slots.contains(&single.slot(narrow)), "{probe} in {edges:?}");
                }
            }
        }
    }

    #[test]
    fn values_that_single_precision_holds_keep_their_slot(
        reference in vec((-1e6..1e6f32).prop_map(f64::from), 1..300), probes in vec(-2e6..2e6f32, 0..100),
    ) {
        let edges = edges::choose(&sorted(&reference), Spacing::Continuous);
        let lookup = SlotLookup::<f32>::new(&edges);
        for probe in probes.into_iter().chain(reference.iter().map(|&v| v as f32)) {
            prop_assert_eq!(lookup.slot(probe), edges::slot(&edges, f64::from(probe)), "{} in {:?}", probe, edges);
        }
    }

    #[test]
    fn raw_distances_lie_in_their_bounds(
        reference in vec(-20..20i32, 1..80), live in vec(-25..25i32, 1..80), divide in 1..4i32, given in vec(-25..25i32, 1..8),
    ) {
        let scale = |values: &[i32]| sorted(&values.iter().map(|&v| f64::from(v) / f64::from(divide)).collect::<Vec<_>>());
        let (reference, live) = (scale(&reference), scale(&live));
        let mut given: Vec<f64> = given.into_iter().map(f64::from).collect();
        given.sort_unstable_by(f64::total_cmp);
        given.dedup();
        let (ks, w1) = exact(&reference, &live);
        for edges in [edges::choose(&reference, Spacing::Continuous), given] {
            let (c, d) = (AlignedHistogram::of(&edges, &reference), AlignedHistogram::of(&edges, &live));
            let [c, d] = [&c, &d].map(|h| BinnedSample { counts: &h.counts, sums: &h.sums });
            let bounds = distance::ks(&edges, c, d).unwrap();
            prop_assert!(bounds.lower <= ks + 1e-12 && ks <= bounds.upper + 1e-12, "{ks} {bounds:?}");
            let bounds = distance::wasserstein(&edges, c, d).unwrap();
            prop_assert!(bounds.lower <= w1 + 1e-9 && w1 <= bounds.upper + 1e-9, "{w1} {bounds:?}");
        }
    }

    #[test]
    fn merged_moments_equal_those_of_all(a in vec(-1e3..1e3f64, 0..80), b in vec(-1e3..1e3f64, 0..80)) {
        let of = |values: &mut dyn Iterator<Item = &f64>| {
            let mut moments = Moments::default();
            values.for_each(|&value| moments.record(value));
            moments
        };
        let (mut left, right, all) = (of(&mut a.iter()), of(&mut b.iter()), of(&mut a.iter().chain(&b)));
        left.merge(&right);
        prop_assert_eq!((left.n, left.min, left.max), (all.n, all.min, all.max));
        prop_assert!((left.mean - all.mean).abs() < 1e-9 && (left.m2 - all.m2).abs() <= 1e-9 * (1.0 + all.m2));
    }

    #[test]
    fn a_baseline_survives_its_bytes(values in vec(anything().prop_filter("summable", |v| !v.is_finite() || v.abs() < 1e150), 0..200)) {
        let baseline = fit(&[column(false)], &[&values]).unwrap();
        let bytes = baseline.to_json();
        let read = Baseline::from_json(&bytes).unwrap();
        prop_assert_eq!(&read, &baseline);
        prop_assert_eq!(read.to_json(), bytes);
        prop_assert_eq!(baseline.features()[0].rows(), values.len() as u64);
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read(text in "\\PC{0,60}", cut in 0usize..400) {
        let _ = Baseline::from_json(text.as_bytes());
        let good = fit(&[column(true)], &[&[1.0, 2.0, 2.0]]).unwrap().to_json();
        let cut = cut.min(good.len() - 1);
        prop_assert!(Baseline::from_json(&good[..cut]).is_err());
    }
}

/// Kolmogorov-Smirnov and Wasserstein by their definition, over the sorted union of both samples.
fn exact(a: &[f64], b: &[f64]) -> (f64, f64) {
    let mut points: Vec<f64> = a.iter().chain(b).copied().collect();
    points.sort_unstable_by(f64::total_cmp);
    let share = |values: &[f64], x: f64| values.partition_point(|&v| v <= x) as f64 / values.len() as f64;
    let difference = |x: f64| (share(a, x) - share(b, x)).abs();
    let ks = points.iter().map(|&x| difference(x)).fold(0.0, f64::max);
    let w1 = points.windows(2).map(|pair| difference(pair[0]) * (pair[1] - pair[0])).sum();
    (ks, w1)
}
