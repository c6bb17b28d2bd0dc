//! How large a batch gets and until when it waits for more rows: pure, so that a simulation decides as a worker does.
//!
//! Not here: what a run costs and when rows come (`cost_curve`), waiting itself (`row_slots`).

use std::time::Duration;

use crate::time::Instant;

use super::cost_curve::{RunCost, worth_waiting_ns};
use super::row_slots::WaitingRows;

/// What a batch may expect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expectation {
    /// What a run costs.
    pub(crate) cost: RunCost,
    /// The mean time between two rows, in nanoseconds.
    pub(crate) gap_ns: f64,
}

/// Until when a batch waits for more rows; `None` if it does not. `expected` is asked only if it may wait at all.
pub(crate) fn wait_until(
    waiting: WaitingRows,
    max_delay: Duration,
    now: Instant,
    expected: impl FnOnce() -> Option<Expectation>,
) -> Option<Instant> {
    if max_delay.is_zero() || waiting.full {
        return None;
    }
    let Expectation { cost, gap_ns } = expected()?;
    let worth = Duration::from_nanos(worth_waiting_ns(cost, gap_ns, waiting.rows)?);
    let run = Duration::from_nanos(cost.expected_ns(waiting.rows + 1) as u64);
    let newest = now.checked_add(worth)?;
    Some(newest.min(waiting.oldest_queued_at + max_delay).min(waiting.earliest_deadline.checked_sub(run)?))
}

/// The number of rows that a batch of `rows` rows is run with: the first of the ascending `buckets` that holds them.
pub(crate) fn padded_rows(buckets: &[usize], rows: usize) -> usize {
    buckets.iter().copied().find(|&bucket| bucket >= rows).unwrap_or(rows)
}
