//! The test of a gate: whether the challenger has more events than its part of the exposure, over blocks.
//!
//! The e-value is that of [`SequentialTest`]. A gate fails when the blocks whose own estimate is above the limit have won enough: then
//! more errors of the challenger can only add to them.
//!
//! Next: `error_rate`.

use super::question::{Margin, RatioLimit};
use super::timeline::{Block, Timeline, pooled};
use crate::stats::event_ratio::{Events, SequentialTest, ln_evidence, ln_sum, ratio_estimate};

/// What the test says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TestResult {
    /// ln of the e-value.
    pub ln_e_value: f64,
    /// Whether harm is shown.
    pub is_harm: bool,
    /// When the block began that has won the most, in milliseconds since 1970.
    pub since_ms: Option<u64>,
}

/// Tests the events of a timeline against a limit; harm is shown at an e-value of `threshold`.
pub fn test(timeline: &Timeline, limit: RatioLimit, threshold: f64) -> TestResult {
    let margin = match limit.margin {
        Margin::Worse => 1.0,
        Margin::Strict => limit.above,
    };
    let mut test = SequentialTest::new(margin);
    for block in &timeline.blocks {
        test.skip_blocks(block.skipped);
        test.begin_block();
        block.events.iter().for_each(|events| test.count(*events));
    }
    let ln_e_value = test.ln_e_value();
    let mut result = TestResult { ln_e_value, is_harm: false, since_ms: None };
    // Without harm shown, the block that has won the most is of no interest.
    if ln_e_value < threshold.ln() {
        return result;
    }
    let won = wins(timeline, margin);
    result.since_ms = won.iter().max_by(|a, b| a.ln_won.total_cmp(&b.ln_won)).map(|win| win.since_ms);
    let above = won.iter().filter(|win| win.ratio >= limit.above);
    let ln_won = above.fold(f64::NEG_INFINITY, |sum, win| ln_sum(sum, win.ln_won));
    result.is_harm = ln_won >= threshold.ln();
    result
}

/// What the wager that a block brought into play has become.
struct Win {
    since_ms: u64,
    ln_won: f64,
    /// The estimate of the ratio since the block began.
    ratio: f64,
}

fn wins(timeline: &Timeline, margin: f64) -> Vec<Win> {
    let mut since: Vec<Events> = Vec::new();
    let mut wins: Vec<Win> = Vec::new();
    let mut number: f64 = timeline.blocks.iter().map(|block| f64::from(block.skipped) + 1.0).sum();
    for Block { since_ms, skipped, events } in timeline.blocks.iter().rev() {
        since = pooled(since.iter().chain(events));
        let ln_part = -(number * (number + 1.0)).ln();
        wins.push(Win {
            since_ms: *since_ms,
            ln_won: ln_part + ln_evidence(&since, margin),
            ratio: ratio_estimate(&since),
        });
        number -= f64::from(*skipped) + 1.0;
    }
    wins
}
