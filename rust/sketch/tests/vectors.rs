//! The drift cases with expected values (scipy 1.17, numpy 2.4) of `tests/vectors/drift.json`, on the edges given there and
//! on our own fit.
//!
//! Counts must be exact, PSI, JS, KL, chi-square and the Wasserstein figures equal to 1e-9; the raw Kolmogorov-Smirnov and
//! Wasserstein distances must lie between their bounds. Samples come from `make_drift_samples.py`.
#![cfg(not(feature = "loom"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail a test")]

use std::path::PathBuf;

use headgate_sketch::aligned::AlignedHistogram;
use headgate_sketch::distance::{self, BinnedSample, Bounds, Unit};
use headgate_sketch::edges;
use headgate_sketch::{Column, Direction, fit};
use serde_json::Value;

const RELATIVE: f64 = 1e-9;

struct Case {
    name: String,
    reference: Vec<f64>,
    live: Vec<f64>,
    expected: Value,
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors")
}

fn cases(kind: &str) -> Vec<(String, Value)> {
    let text = std::fs::read_to_string(folder().join("drift.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let all = file["cases"].as_object().unwrap().clone();
    all.into_iter().filter(|(_, case)| case["kind"] == kind).collect()
}

fn sample(name: &str, side: &str) -> Vec<f64> {
    let bytes = std::fs::read(folder().join(format!("drift/{name}.{side}.f64"))).unwrap();
    bytes.chunks_exact(8).map(|chunk| f64::from_le_bytes(chunk.try_into().unwrap())).collect()
}

fn numeric() -> Vec<Case> {
    let load = |(name, case): (String, Value)| Case {
        reference: sample(&name, "ref"),
        live: sample(&name, "cur"),
        expected: case["expected"].clone(),
        name,
    };
    let cases: Vec<Case> = cases("numeric").into_iter().map(load).collect();
    assert_eq!(cases.len(), 14);
    cases
}

/// JSON has no infinity: the file writes it as a string.
fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| if value == "Infinity" { f64::INFINITY } else { panic!("{value}") })
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(number).collect()
}

fn counts(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).collect()
}

#[track_caller]
fn close(what: &str, found: f64, wanted: &Value) {
    let wanted = number(wanted);
    let near = found == wanted || (found - wanted).abs() <= RELATIVE * wanted.abs();
    assert!(near, "{what}: found {found:e}, wanted {wanted:e}");
}

/// As `close`, for a value that is a difference of shares, whose rounding error is absolute.
#[track_caller]
fn near(what: &str, found: f64, wanted: &Value) {
    let wanted = number(wanted);
    assert!(
        (found - wanted).abs() <= RELATIVE * wanted.abs() + 1e-14,
        "{what}: found {found:e}, wanted {wanted:e}"
    );
}

#[track_caller]
fn inside(what: &str, value: f64, bounds: Bounds) {
    let slack = RELATIVE * value.abs() + 1e-13;
    let fits = bounds.lower <= value + slack && value <= bounds.upper + slack;
    assert!(fits, "{what}: {value} is outside {bounds:?}");
}

/// Every figure of a binned block of the file.
fn check_binned(what: &str, c: &[u64], d: &[u64], block: &Value) {
    let what = |figure: &str| format!("{what} {figure}");
    close(&what("psi"), distance::psi(c, d), &block["psi_jeffreys_0.5"]);
    close(&what("psi raw"), distance::psi_raw(c, d), &block["psi_raw"]);
    close(&what("kl"), distance::kl(c, d), &block["kl_cur_ref_nats_raw"]);
    close(&what("kl reversed"), distance::kl(d, c), &block["kl_ref_cur_nats_raw"]);
    close(&what("kl smoothed"), distance::kl_smoothed(c, d), &block["kl_cur_ref_nats_jeffreys"]);
    let js = |unit| distance::jensen_shannon_distance(c, d, unit);
    close(&what("js nats"), js(Unit::Nats), &block["js_distance_nats"]);
    close(&what("js bits"), js(Unit::Bits), &block["js_distance_bits"]);
    let divergence = distance::jensen_shannon_divergence(c, d, Unit::Bits);
    close(&what("js divergence"), divergence, &block["js_divergence_bits"]);
    close(&what("hellinger"), distance::hellinger(c, d), &block["hellinger"]);
    near(&what("total variation"), distance::total_variation(c, d), &block["total_variation"]);
    near(&what("l infinity"), distance::l_infinity(c, d), &block["l_infinity"]);
    for (name, test) in [
        ("chi2_contingency_nocorrection", distance::chi_square(c, d)),
        ("g_test_contingency", distance::g_test(c, d)),
    ] {
        match (block.get(name), test) {
            (Some(wanted), Some(found)) => {
                close(&what(name), found.stat, &wanted["stat"]);
                close(&what(name), found.p, &wanted["p"]);
                assert_eq!(u64::from(found.dof), wanted["dof"].as_u64().unwrap(), "{}", what(name));
            }
            (None, None) => {}
            (wanted, found) => panic!("{}: wanted {wanted:?}, found {found:?}", what(name)),
        }
    }
}

fn samples<'a>(a: &'a AlignedHistogram, b: &'a AlignedHistogram) -> [BinnedSample<'a>; 2] {
    [a, b].map(|h| BinnedSample { counts: &h.counts, sums: &h.sums })
}

#[test]
fn binned_figures_equal_scipys_on_the_edges_given() {
    for case in numeric() {
        for block in ["ref_quantile_bins_10", "ref_quantile_bins_32"] {
            let what = format!("{} {block}", case.name);
            let block = &case.expected[block];
            let edges = numbers(&block["inner_edges"]);
            let c = AlignedHistogram::of(&edges, &case.reference);
            let d = AlignedHistogram::of(&edges, &case.live);
            assert_eq!(c.counts, counts(&block["ref_counts"]), "{what}");
            assert_eq!(d.counts, counts(&block["cur_counts"]), "{what}");
            check_binned(&what, &c.counts, &d.counts, block);
        }
    }
}

#[test]
fn the_raw_ks_distance_lies_in_the_bracket_on_the_edges_given() {
    for case in numeric() {
        for block in ["ref_quantile_bins_10", "ref_quantile_bins_32", "ref_quantile_bins_32_atoms"] {
            let what = format!("{} {block}", case.name);
            let block = &case.expected[block];
            let edges = numbers(&block["inner_edges"]);
            let c = AlignedHistogram::of(&edges, &case.reference);
            let d = AlignedHistogram::of(&edges, &case.live);
            assert_eq!(
                (&c.counts, &d.counts),
                (&counts(&block["ref_counts"]), &counts(&block["cur_counts"]))
            );
            let [reference, live] = samples(&c, &d);
            let bounds = distance::ks(&edges, reference, live).unwrap();
            inside(&what, number(&case.expected["ks"]["stat"]), bounds);
            near(&what, bounds.lower, &block["ks_from_bins_lower"]);
            // Ours may be tighter: sums show that the values of a bin are all equal.
            assert!(bounds.upper <= number(&block["ks_from_bins_upper"]) + 1e-12, "{what}: {bounds:?}");
        }
    }
}

#[test]
fn wasserstein_lies_in_its_bounds_on_the_edges_given() {
    for case in numeric() {
        let Some(block) = case.expected.get("wasserstein1_from_64_bins_count_and_sum") else {
            assert_eq!(case.name, "p07_constant_same");
            continue;
        };
        let edges = numbers(&block["edges"]);
        let c = AlignedHistogram::of(&edges, &case.reference);
        let d = AlignedHistogram::of(&edges, &case.live);
        let [reference, live] = samples(&c, &d);
        let bounds = distance::wasserstein(&edges, reference, live).unwrap();
        inside(&case.name, number(&case.expected["wasserstein1"]), bounds);
        near(&case.name, bounds.lower, &block["lower_bound_and_estimate"]);
        assert!(
            bounds.upper <= number(&block["upper_bound"]) * (1.0 + RELATIVE) + 1e-12,
            "{}: {bounds:?}",
            case.name
        );
    }
}

#[test]
fn raw_distances_lie_in_the_bounds_of_our_own_fit() {
    for case in numeric() {
        for integer in [false, true] {
            if integer && case.reference.iter().any(|value| value.is_finite() && value.fract() != 0.0) {
                continue;
            }
            let column = Column {
                tensor: "X".into(),
                column: "a".into(),
                index: 0,
                direction: Direction::Input,
                integer,
            };
            let baseline = fit(&[column], &[&case.reference]).unwrap();
            let feature = &baseline.features()[0];
            assert_eq!(feature.moments.n, case.expected["n_ref"].as_u64().unwrap());
            assert_eq!(feature.missing, case.expected["nan_ref"].as_u64().unwrap());
            near(&case.name, feature.moments.mean, &case.expected["ref_moments"]["mean"]);
            near(&case.name, feature.moments.variance().unwrap(), &case.expected["ref_moments"]["var_ddof0"]);
            assert_eq!(feature.moments.min, number(&case.expected["ref_moments"]["min"]));
            assert_eq!(feature.moments.max, number(&case.expected["ref_moments"]["max"]));
            let d = AlignedHistogram::of(&feature.edges, &case.live);
            assert_eq!(d.n(), case.expected["n_cur"].as_u64().unwrap());
            let reference = BinnedSample { counts: &feature.counts, sums: &feature.sums };
            let live = BinnedSample { counts: &d.counts, sums: &d.sums };
            let (ks, stat) = (
                distance::ks(&feature.edges, reference, live).unwrap(),
                number(&case.expected["ks"]["stat"]),
            );
            inside(&case.name, stat, ks);
            assert!(ks.upper - ks.lower < 0.06, "{}: {ks:?} says little", case.name);
            let w = distance::wasserstein(&feature.edges, reference, live).unwrap();
            inside(&case.name, number(&case.expected["wasserstein1"]), w);
        }
    }
}

#[test]
fn quantiles_equal_numpys() {
    for case in numeric() {
        for (side, values) in [("ref", &case.reference), ("cur", &case.live)] {
            let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
            sorted.sort_unstable_by(f64::total_cmp);
            let wanted = case.expected[format!("{side}_quantiles_inverted_cdf")].as_object().unwrap();
            for (q, wanted) in wanted {
                assert_eq!(edges::quantile(&sorted, q.parse().unwrap()), number(wanted), "{} {q}", case.name);
            }
        }
    }
}

#[test]
fn categorical_figures_equal_scipys() {
    let cases = cases("categorical");
    assert_eq!(cases.len(), 4);
    for (name, case) in cases {
        let expected = &case["expected"];
        let side = |which: &str| -> Vec<u64> {
            let keys = expected["keys"].as_array().unwrap().iter();
            keys.map(|key| case[which].get(key.as_str().unwrap()).map_or(0, |n| n.as_u64().unwrap()))
                .collect()
        };
        check_binned(&name, &side("ref_counts"), &side("cur_counts"), expected);
    }
}
