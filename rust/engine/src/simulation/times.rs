//! What a simulation found.

use headgate_core::stats::codes::quantile_rank;
use serde::Serialize;

/// The times of the measured requests, from arrival to the end of their run, in nanoseconds.
///
/// A rejected request is slower than any other. A quantile among those is `None`, as is the mean if nothing ran.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SimulatedTimes {
    /// Requests that were measured.
    pub requests: u64,
    /// Those that were refused, or had not begun in time.
    pub rejected: u64,
    /// Half of them are not slower.
    pub p50_ns: Option<u64>,
    /// Nine tenths of them are not slower.
    pub p90_ns: Option<u64>,
    /// 95 % of them are not slower.
    pub p95_ns: Option<u64>,
    /// 99 % of them are not slower.
    pub p99_ns: Option<u64>,
    /// The mean of those that ran.
    pub mean_ns: Option<f64>,
    /// The share of the time that instances ran.
    pub busy_share: f64,
    /// The mean number of rows of a run, without padding; `None` if nothing ran.
    pub mean_batch_rows: Option<f64>,
}

/// What is counted while it is simulated, from the first measured request on.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) responses_ns: Vec<u64>,
    pub(super) rejected: u64,
    pub(super) runs: u64,
    pub(super) rows: u64,
    pub(super) busy_ns: u64,
}

impl Tally {
    /// The result over `elapsed_ns` with `instances`.
    pub(super) fn finish(mut self, elapsed_ns: u64, instances: usize) -> SimulatedTimes {
        self.responses_ns.sort_unstable();
        let responses = &self.responses_ns;
        let requests = responses.len() as u64 + self.rejected;
        let quantile = |p| responses.get(quantile_rank(requests, p) as usize - 1).copied();
        let sum = responses.iter().map(|&ns| ns as f64).sum::<f64>();
        SimulatedTimes {
            requests,
            rejected: self.rejected,
            p50_ns: quantile(0.5),
            p90_ns: quantile(0.9),
            p95_ns: quantile(0.95),
            p99_ns: quantile(0.99),
            mean_ns: (!responses.is_empty()).then(|| sum / responses.len() as f64),
            busy_share: self.busy_ns as f64 / (elapsed_ns.max(1) as f64 * instances as f64),
            mean_batch_rows: (self.runs > 0).then(|| self.rows as f64 / self.runs as f64),
        }
    }
}
