//! A run second by second.

use serde_json::{Value, json};

use super::distribution::Distribution;
use super::in_flight::{Parts, in_flight};
use super::measured::Measured;
use crate::records::{Outcome, SLOWER_THAN_ANY, highest_ns};

/// The length of a slice, in nanoseconds.
const SLICE_NS: u64 = 1_000_000_000;

/// The seconds of a run by due time, from its start on: what was due in each, what became of it, p50 and p99 of response
/// times, and the mean number of requests in flight, to the nearest whole one. A quantile among requests without a good
/// answer is the timeout; it is null if nothing was due.
#[must_use]
pub fn slices(measured: Measured<'_>) -> Value {
    let records = measured.records;
    let last_ns = records.due_us.last().map_or(0, |&due_us| u64::from(due_us) * 1_000);
    let count = if records.is_empty() { 0 } else { (last_ns / SLICE_NS) as usize + 1 };
    let in_flight = in_flight(&measured, Parts { from_ns: 0, each_ns: SLICE_NS, count }).means;
    let mut responses = Distribution::new();
    let mut at = 0;
    let mut slices = Vec::with_capacity(count);
    for (slice, in_flight) in in_flight.into_iter().enumerate() {
        let (from_ns, begin) = (slice as u64 * SLICE_NS, at);
        let mut counts = [0_u64; 5];
        responses.clear();
        while at < records.len() && u64::from(records.due_us[at]) * 1_000 < from_ns + SLICE_NS {
            counts[records.outcome[at] as usize] += 1;
            responses.add(records.response[at]);
            at += 1;
        }
        let [good, shed, failed, timed_out, unsent] = counts;
        let due = (at - begin) as u64;
        let quantile_ns = |p| {
            responses.quantile(p).map(|code| match code {
                SLOWER_THAN_ANY => measured.timeout_ns,
                code => highest_ns(code),
            })
        };
        slices.push(json!({
            "from_ns": from_ns, "due": due, "sent": due - unsent, "good": good, "shed": shed, "failed": failed,
            "timed_out": timed_out, "unsent": unsent, "p50_ns": quantile_ns(0.5), "p99_ns": quantile_ns(0.99),
            "in_flight": in_flight.round() as u64,
        }));
    }
    Value::Array(slices)
}

// The counts above are indexed by outcome.
const _: () =
    assert!(Outcome::Good as usize == 0 && Outcome::Shed as usize == 1 && Outcome::Failed as usize == 2);
const _: () = assert!(Outcome::TimedOut as usize == 3 && Outcome::Unsent as usize == 4);
