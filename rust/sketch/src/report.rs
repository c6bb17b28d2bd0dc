//! The drift report of an endpoint as JSON: every feature's live figures, its distances from the reference, and its verdict.
//!
//! The comparison takes the counts of all slots: below, the bins, above, and one slot each for "no value" (missing and NaN), for
//! +infinity and for -infinity. Slots that are empty on both sides are left out. KS and Wasserstein take finite values only.
//!
//! Counts are weighted, so that they are about all rows. Figures that depend on the number of sketched rows (smoothing, tests) take
//! counts of effective rows. A figure that is NaN or infinite is `null`. This is the last file.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::baseline::{Direction, FeatureBaseline};
use crate::distance::{self, BinnedSample, Bounds, TestResult, Tolerance, Unit, Verdict};
use crate::live::{LiveFeature, LiveTensor};
use crate::window::{TimeSpan, WindowSum};

/// The quantiles of every feature.
pub const QUANTILES: [&str; 7] = ["0.01", "0.05", "0.25", "0.5", "0.75", "0.95", "0.99"];

/// A report over one or more versions.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The endpoint's name.
    pub endpoint: String,
    /// The time covered.
    pub window: ReportWindow,
    /// The baseline's id, `sha256:...`.
    pub baseline: Option<String>,
    /// One entry per version and feature.
    pub features: Vec<FeatureReport>,
}

/// The time that a report covers, Unix seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReportWindow {
    /// The requested length.
    pub seconds: u64,
    /// The start of the oldest sub-window in it.
    pub from: u64,
    /// Its end.
    pub to: u64,
}

/// One feature of one version.
#[derive(Clone, Debug, Serialize)]
pub struct FeatureReport {
    /// The version's name.
    pub version: String,
    /// Input or output.
    pub direction: Direction,
    /// The tensor's name.
    pub tensor: String,
    /// The feature's name.
    pub column: String,
    /// All rows, sampled or not.
    pub offered: u64,
    /// Rows of this tensor that were sketched. Their weights make the counts about all rows.
    pub observed: u64,
    /// The number of effective rows, which tests take.
    pub effective: f64,
    /// The reference, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reference: Option<ReferenceFigures>,
    /// The live values.
    pub live: LiveFigures,
    /// The comparison, if there is a reference and both sides have values.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub distances: Option<Distances>,
    /// Pass, fail, or undecided.
    pub verdict: Verdict,
}

/// Figures of the reference.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReferenceFigures {
    /// Finite values.
    pub n: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation, denominator n.
    pub std: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Rows without a value.
    pub missing: u64,
}

/// Figures of the live values.
#[derive(Clone, Debug, Serialize)]
pub struct LiveFigures {
    /// Finite values.
    pub n: u64,
    /// Their mean.
    pub mean: Option<f64>,
    /// Their standard deviation, denominator n.
    pub std: Option<f64>,
    /// The smallest.
    pub min: Option<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// Rows without the tensor.
    pub missing: u64,
    /// Values that are not a number.
    pub nan: u64,
    /// +infinity.
    pub positive_infinity: u64,
    /// -infinity.
    pub negative_infinity: u64,
    /// Tensors of another type or size.
    pub wrong_type: u64,
    /// Values below the reference's smallest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub below: Option<u64>,
    /// Values above the reference's largest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above: Option<u64>,
    /// Quantiles by probability. Their error is at most one bin and at most twice `quantile_error`; without a baseline it is at most
    /// `quantile_error`.
    pub quantiles: BTreeMap<&'static str, f64>,
    /// The relative error of the buckets of the quantiles: 0.011, or more if the values have so many buckets that some were joined.
    pub quantile_error: f64,
}

/// The comparison with the reference.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Distances {
    /// Population stability index with Jeffreys smoothing, nats.
    pub psi: f64,
    /// Jensen-Shannon distance from the natural logarithm.
    pub js_distance_nats: f64,
    /// Jensen-Shannon distance from the logarithm to base 2.
    pub js_distance_bits: f64,
    /// Chi-square of the two-sample table. Absent if only one slot is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chi2: Option<ReportTest>,
    /// Bounds of the Kolmogorov-Smirnov distance. Absent without finite values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ks: Option<ReportBounds>,
    /// Bounds of the first Wasserstein distance, in the unit of the values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wasserstein: Option<ReportBounds>,
    /// The evidence of the verdict. Absent if undecided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub test: Option<TestEvidence>,
}

/// A statistic, its p-value and its degrees of freedom.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReportTest {
    /// The statistic.
    pub stat: f64,
    /// The p-value.
    pub p: f64,
    /// Degrees of freedom.
    pub dof: u32,
}

/// Two bounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ReportBounds {
    /// At least this.
    pub lower: f64,
    /// At most this.
    pub upper: f64,
}

/// The evidence of a verdict, as of [`crate::distance::decide`].
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TestEvidence {
    /// The tolerated PSI.
    pub tolerated_psi: f64,
    /// The probability of a false alarm.
    pub alpha: f64,
    /// The statistic.
    pub stat: f64,
    /// The largest statistic that passes.
    pub critical: f64,
    /// Its p-value at the tolerance.
    pub p: f64,
    /// Degrees of freedom.
    pub dof: u32,
}

impl Report {
    /// A report without features yet.
    pub fn new(endpoint: &str, seconds: u64, span: TimeSpan, baseline: Option<String>) -> Self {
        let window = ReportWindow { seconds, from: span.from, to: span.to };
        Self { endpoint: endpoint.to_owned(), window, baseline, features: Vec::new() }
    }

    /// Adds all features of a version. The window grows to contain `span`.
    pub fn add(&mut self, version: &str, live: &WindowSum, span: TimeSpan, tolerance: &Tolerance) {
        self.window.from = self.window.from.min(span.from);
        self.window.to = self.window.to.max(span.to);
        self.features.extend(features(version, live, tolerance));
    }

    /// The report as JSON bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and numbers always serialize")
    }
}

/// All features of a version, in the plan's order. They are summed one at a time.
pub fn features(version: &str, live: &WindowSum, tolerance: &Tolerance) -> Vec<FeatureReport> {
    let (plan, tensors) = (live.plan(), live.tensors());
    let offered = live.offered();
    let report = |(at, feature): (usize, &crate::plan::Feature)| {
        let live_feature = live.feature(at);
        let reference = plan.reference(feature);
        let tensor = tensors[feature.tensor];
        let (distances, verdict) = reference.map_or((None, Verdict::Undecided), |reference| {
            compare(reference, &live_feature, tensor, tolerance)
        });
        FeatureReport {
            version: version.to_owned(),
            direction: plan.tensor(feature).direction,
            tensor: plan.tensor(feature).name.clone(),
            column: feature.column.clone(),
            offered,
            observed: tensor.rows,
            effective: tensor.effective(),
            reference: reference.map(reference_figures),
            live: live_figures(&live_feature, tensor, reference),
            distances,
            verdict,
        }
    };
    plan.features().iter().enumerate().map(report).collect()
}

/// Compares one feature with its reference.
fn compare(
    reference: &FeatureBaseline,
    live: &LiveFeature,
    tensor: LiveTensor,
    tolerance: &Tolerance,
) -> (Option<Distances>, Verdict) {
    let Some(histogram) = &live.aligned else { return (None, Verdict::Undecided) };
    let mut c = reference.counts.clone();
    c.extend([reference.missing, reference.positive_infinity, reference.negative_infinity]);
    let mut d = histogram.counts.clone();
    let non_finite = live.non_finite;
    d.extend([tensor.missing + non_finite.nan, non_finite.positive_infinity, non_finite.negative_infinity]);
    if c.iter().all(|&count| count == 0) || d.iter().all(|&count| count == 0) {
        return (None, Verdict::Undecided);
    }
    let share = tensor.effective_share();
    let effective: Vec<f64> = d.iter().map(|&count| count as f64 * share).collect();
    // "Below" and "above" stay groups of their own: the reference has no values there, so that every live value matters.
    let decision = distance::decide(&c, &effective, 1..reference.edges.len().max(1), tolerance);
    let test = (decision.verdict != Verdict::Undecided).then_some(TestEvidence {
        tolerated_psi: tolerance.psi,
        alpha: tolerance.alpha,
        stat: decision.stat,
        critical: decision.critical,
        p: decision.p,
        dof: decision.dof,
    });
    let used = |at: &usize| c[*at] + d[*at] > 0;
    let used: Vec<usize> = (0..c.len()).filter(used).collect();
    let effective: Vec<f64> = used.iter().map(|&at| effective[at]).collect();
    let [c, d] = [&c, &d].map(|counts| used.iter().map(|&at| counts[at]).collect::<Vec<u64>>());
    let sides = [
        BinnedSample { counts: &reference.counts, sums: &reference.sums },
        BinnedSample { counts: &histogram.counts, sums: &histogram.sums },
    ];
    let distances = Distances {
        psi: distance::psi(&c, &effective),
        js_distance_nats: distance::jensen_shannon_distance(&c, &d, Unit::Nats),
        js_distance_bits: distance::jensen_shannon_distance(&c, &d, Unit::Bits),
        chi2: distance::chi_square(&c, &effective).map(ReportTest::from),
        ks: distance::ks(&reference.edges, sides[0], sides[1]).map(ReportBounds::from),
        wasserstein: distance::wasserstein(&reference.edges, sides[0], sides[1]).map(ReportBounds::from),
        test,
    };
    (Some(distances), decision.verdict)
}

fn reference_figures(reference: &FeatureBaseline) -> ReferenceFigures {
    let moments = &reference.moments;
    let some = |value: f64| (moments.n > 0).then_some(value);
    ReferenceFigures {
        n: moments.n,
        mean: some(moments.mean),
        std: moments.std(),
        min: some(moments.min),
        max: some(moments.max),
        missing: reference.missing,
    }
}

fn live_figures(live: &LiveFeature, tensor: LiveTensor, reference: Option<&FeatureBaseline>) -> LiveFigures {
    let moments = &live.moments;
    let some = |value: f64| (moments.n > 0).then_some(value);
    let edges = reference.map_or(&[][..], |reference| &reference.edges);
    let quantiles =
        QUANTILES.iter().filter_map(|&name| Some((name, live.quantile(edges, name.parse().ok()?)?)));
    let outside = live.aligned.as_ref().filter(|_| !edges.is_empty());
    let outside = outside.map(|histogram| (histogram.counts[0], histogram.counts[edges.len()]));
    LiveFigures {
        n: moments.n,
        mean: some(moments.mean),
        std: moments.std(),
        min: some(moments.min),
        max: some(moments.max),
        missing: tensor.missing,
        nan: live.non_finite.nan,
        positive_infinity: live.non_finite.positive_infinity,
        negative_infinity: live.non_finite.negative_infinity,
        wrong_type: tensor.wrong_type,
        below: outside.map(|(below, _)| below),
        above: outside.map(|(_, above)| above),
        quantiles: quantiles.collect(),
        quantile_error: live.exponential.error(),
    }
}

impl From<TestResult> for ReportTest {
    fn from(test: TestResult) -> Self {
        Self { stat: test.stat, p: test.p, dof: test.dof }
    }
}

impl From<Bounds> for ReportBounds {
    fn from(bounds: Bounds) -> Self {
        Self { lower: bounds.lower, upper: bounds.upper }
    }
}
