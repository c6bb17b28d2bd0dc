//! When the warm-up of a run ends: MSER-5 on the mean logarithms of response times within 100 ms.

use headgate_core::stats::steadiness::{MSER_BATCH, means_of_five, mser};

use super::distribution::middle_ns;
use super::measured::Measured;
use crate::records::{CODES, Records};

/// The shortest warm-up, in nanoseconds.
const LEAST_NS: u64 = 2_000_000_000;
/// The time that is averaged first, in microseconds.
const BIN_US: u64 = 100_000;

/// From when on requests count.
pub(super) struct WarmUp {
    /// In nanoseconds from the start.
    pub(super) from_ns: u64,
    /// Whether the warm-up ended within the first half of the run.
    pub(super) settled: bool,
}

/// The warm-up of a run.
pub(super) fn warm_up(measured: &Measured<'_>) -> WarmUp {
    let means = means_of_five(&bin_means(measured.records, measured.timeout_ns));
    let found = mser(&means);
    let step_ns = BIN_US * 1_000 * MSER_BATCH as u64;
    let from_ns = found.map_or(0, |found| found.dropped as u64 * step_ns).max(LEAST_NS);
    let settled = found.is_some_and(|found| found.settled) && from_ns <= means.len() as u64 * step_ns / 2;
    WarmUp { from_ns, settled }
}

/// The mean logarithm of the response times of each bin. A bin without requests has that of the bin before.
fn bin_means(records: &Records, timeout_ns: u64) -> Vec<f64> {
    let ln: Vec<f64> = (0..CODES).map(|code| (middle_ns(code as u16).max(1) as f64).ln()).collect();
    let given_up = (timeout_ns.max(1) as f64).ln();
    let mut means: Vec<f64> = Vec::new();
    let (mut at, mut bin) = (0, 0_u64);
    while at < records.len() {
        let end = (bin + 1) * BIN_US;
        let (mut sum, mut count) = (0.0, 0.0);
        while at < records.len() && u64::from(records.due_us[at]) < end {
            sum += ln.get(usize::from(records.response[at])).copied().unwrap_or(given_up);
            count += 1.0;
            at += 1;
        }
        match means.last() {
            _ if count > 0.0 => means.push(sum / count),
            Some(&before) => means.push(before),
            // Before the first request there is nothing to average.
            None => {}
        }
        bin += 1;
    }
    means
}
