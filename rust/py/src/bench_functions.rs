//! The functions of the module that measurements of load use: statistics by name, and batches in virtual time.
//!
//! Arguments and answers are JSON texts. What is unknown or unbounded is null. Next: `headgate_core::stats`, the engine's `simulation`.

use headgate_core::error::{Error, Result};
use headgate_core::stats::quantile::{Ranks, least_values, ranks};
use headgate_core::stats::steadiness::{
    Trend, Truncation, little_gap, mann_kendall, means_of_five, mser, overload,
};
use headgate_core::stats::verdict::{evidence, mlperf_fixed, mlperf_requests};
use headgate_core::stats::{paired, verdict};
use headgate_engine::BatchSimulation;
use pyo3::prelude::*;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::interpreter::detached;

/// The most values of a list; a test for a trend compares each pair of them.
const MOST_VALUES: usize = 10_000;

type Function = fn(&str) -> Result<Value>;

/// The statistics by their names.
const STATISTICS: [(&str, Function); 11] = [
    ("evidence", |arguments| parse(arguments).and_then(of_counts)),
    ("least_requests", |arguments| parse(arguments).and_then(least_requests)),
    ("little_gap", |arguments| parse(arguments).map(gap)),
    ("mann_kendall", |arguments| parse(arguments).and_then(trend)),
    ("mann_whitney", |arguments| parse(arguments).and_then(unpaired)),
    ("mlperf", |arguments| parse(arguments).and_then(early_stopping)),
    ("mser", |arguments| parse(arguments).and_then(|of: Values| warm_up(&of.checked()?))),
    ("mser5", |arguments| parse(arguments).and_then(|of: Values| warm_up(&means_of_five(&of.checked()?)))),
    ("overload", |arguments| parse(arguments).and_then(piles_up)),
    ("quantile_ranks", |arguments| parse(arguments).and_then(quantile_ranks)),
    ("sign_flip", |arguments| parse(arguments).and_then(sign_flip)),
];

/// Adds the functions to the module.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(bench_statistics, module)?)?;
    module.add_function(wrap_pyfunction!(simulate_batches, module)?)
}

#[pyfunction]
fn simulate_batches(py: Python<'_>, question: &str) -> PyResult<String> {
    detached(py, || Ok(json!(BatchSimulation::parse(question)?.run()?).to_string()))
}

#[pyfunction]
fn bench_statistics(py: Python<'_>, function: &str, arguments: &str) -> PyResult<String> {
    detached(py, || {
        let Some((_, of)) = STATISTICS.iter().find(|(name, _)| *name == function) else {
            let names = STATISTICS.map(|(name, _)| name).join(", ");
            return Err(Error::invalid(format!("no statistic is named {function:?}; there are {names}")));
        };
        let answer = of(arguments)
            .map_err(|error| Error::new(error.code, format!("{function}: {}", error.message)))?;
        Ok(answer.to_string())
    })
}

fn parse<T: DeserializeOwned>(arguments: &str) -> Result<T> {
    serde_json::from_str(arguments).map_err(|error| Error::invalid(format!("arguments: {error}")))
}

/// A number that must lie between 0 and 1.
fn share(name: &str, value: f64) -> Result<f64> {
    if value > 0.0 && value < 1.0 {
        return Ok(value);
    }
    Err(Error::invalid(format!("{name}: {value} is not between 0 and 1")))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Values {
    values: Vec<f64>,
}

impl Values {
    fn checked(self) -> Result<Vec<f64>> {
        few("values", &self.values)?;
        Ok(self.values)
    }
}

/// Refuses a list that is too long to be answered at once.
fn few(name: &str, values: &[f64]) -> Result<()> {
    if values.len() <= MOST_VALUES {
        return Ok(());
    }
    Err(Error::invalid(format!("{name}: {} of them, at most {MOST_VALUES} are taken", values.len())))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SignFlipArguments {
    differences: Vec<f64>,
    alpha: f64,
}

fn sign_flip(of: SignFlipArguments) -> Result<Value> {
    let SignFlipArguments { differences, alpha } = of;
    let found = paired::sign_flip(&differences, share("alpha", alpha)?).ok_or_else(|| {
        let (most, got) = (paired::MAX_PAIRS, differences.len());
        Error::invalid(format!("differences: {got} of them, between 1 and {most} are needed"))
    })?;
    let end = |value: f64| value.is_finite().then_some(value);
    let (low, high) = (end(found.interval.low), end(found.interval.high));
    Ok(json!({"mean": found.mean, "p": found.p, "low": low, "high": high}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Samples {
    first: Vec<f64>,
    second: Vec<f64>,
}

fn unpaired(of: Samples) -> Result<Value> {
    few("first", &of.first).and_then(|()| few("second", &of.second))?;
    let found = paired::mann_whitney(&of.first, &of.second)
        .ok_or_else(|| Error::invalid("both samples need a value"))?;
    Ok(json!({"u": found.u, "p": found.p, "exact": found.exact}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MlperfArguments {
    slower: u64,
    quantile: f64,
    confidence: f64,
}

fn early_stopping(of: MlperfArguments) -> Result<Value> {
    let (quantile, confidence) = (share("quantile", of.quantile)?, share("confidence", of.confidence)?);
    if of.slower > u64::from(u32::MAX) {
        return Err(Error::invalid(format!("slower: {} is more than {}", of.slower, u32::MAX)));
    }
    let (fixed, rounded) = mlperf_fixed(quantile, confidence);
    Ok(
        json!({"requests": mlperf_requests(of.slower, quantile, confidence), "fixed": fixed, "fixed_rounded": rounded}),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RankArguments {
    n: u32,
    quantile: f64,
    alpha: f64,
}

fn quantile_ranks(of: RankArguments) -> Result<Value> {
    let Ranks { low, high } =
        ranks(u64::from(of.n), share("quantile", of.quantile)?, share("alpha", of.alpha)?);
    Ok(json!({"low": low, "high": high}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LeastArguments {
    quantile: f64,
    alpha: f64,
}

fn least_requests(of: LeastArguments) -> Result<Value> {
    Ok(json!({"requests": least_values(share("quantile", of.quantile)?, share("alpha", of.alpha)?)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountArguments {
    slower: f64,
    faster: f64,
    quantile: f64,
}

fn of_counts(of: CountArguments) -> Result<Value> {
    for (name, value) in [("slower", of.slower), ("faster", of.faster)] {
        if !(0.0..=1e12).contains(&value) {
            return Err(Error::invalid(format!("{name}: {value} is no count")));
        }
    }
    let verdict::Evidence { pass, fail } =
        evidence(of.slower, of.faster, 1.0 - share("quantile", of.quantile)?);
    Ok(json!({"pass": pass, "fail": fail}))
}

fn warm_up(values: &[f64]) -> Result<Value> {
    let Truncation { dropped, settled } = mser(values)
        .ok_or_else(|| Error::invalid(format!("{} means, at least 4 are needed", values.len())))?;
    Ok(json!({"dropped": dropped, "settled": settled}))
}

fn trend(of: Values) -> Result<Value> {
    let Trend { s, z } = mann_kendall(&of.checked()?);
    Ok(json!({"s": s, "z": z}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InFlight {
    in_flight: Vec<f64>,
}

fn piles_up(of: InFlight) -> Result<Value> {
    few("in_flight", &of.in_flight)?;
    Ok(json!({"overload": overload(&of.in_flight)}))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GapArguments {
    integral: f64,
    durations: f64,
}

fn gap(of: GapArguments) -> Value {
    json!({"gap": little_gap(of.integral, of.durations)})
}
