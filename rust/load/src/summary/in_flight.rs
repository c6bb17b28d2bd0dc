//! How many requests were in flight, from when they were sent and how long they took.

use super::distribution::middle_ns;
use super::measured::Measured;
use crate::records::{Outcome, SLOWER_THAN_ANY};

/// Parts of a run of the same length, one after another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts {
    /// When the first begins, in nanoseconds from the start of the run.
    pub(super) from_ns: u64,
    /// How long each is, in nanoseconds; above 0.
    pub(super) each_ns: u64,
    /// How many there are.
    pub(super) count: usize,
}

/// What was in flight in the parts.
pub(super) struct InFlight {
    /// The mean number of requests in flight in each part.
    pub(super) means: Vec<f64>,
    /// The integral over all parts, in requests times nanoseconds.
    pub(super) integral: f64,
    /// The summed times of the requests that were sent within the parts, in nanoseconds.
    pub(super) durations: f64,
}

/// Requests in flight in each part: sent and not answered, nor given up.
pub(super) fn in_flight(measured: &Measured<'_>, parts: Parts) -> InFlight {
    let Parts { from_ns, each_ns, count } = parts;
    let until_ns = from_ns + each_ns * count as u64;
    let mut sums = vec![0_u64; count];
    let mut durations = 0_u64;
    for at in 0..measured.records.len() {
        let Some((sent_ns, over_ns)) = in_flight_from_to(measured, at) else { continue };
        if (from_ns..until_ns).contains(&sent_ns) {
            durations += over_ns - sent_ns;
        }
        let (mut begin, end) = (sent_ns.max(from_ns), over_ns.min(until_ns));
        while begin < end {
            let part = ((begin - from_ns) / each_ns) as usize;
            let next = end.min(from_ns + each_ns * (part as u64 + 1));
            sums[part] += next - begin;
            begin = next;
        }
    }
    InFlight {
        means: sums.iter().map(|&sum| sum as f64 / each_ns as f64).collect(),
        integral: sums.iter().sum::<u64>() as f64,
        durations: durations as f64,
    }
}

/// When a request was sent and when it was over, in nanoseconds from the start; `None` if it was not in flight, or for an
/// unknown time.
fn in_flight_from_to(measured: &Measured<'_>, at: usize) -> Option<(u64, u64)> {
    let records = measured.records;
    let (due_ns, service) = (u64::from(records.due_us[at]) * 1_000, records.service[at]);
    let taken_ns = match records.outcome[at] {
        Outcome::Unsent => return None,
        _ if service != SLOWER_THAN_ANY => middle_ns(service),
        Outcome::TimedOut => measured.timeout_ns,
        Outcome::Good | Outcome::Shed | Outcome::Failed => return None,
    };
    let late_ns = match records.response[at] {
        SLOWER_THAN_ANY => 0,
        response => middle_ns(response).saturating_sub(taken_ns),
    };
    Some((due_ns + late_ns, due_ns + late_ns + taken_ns))
}
