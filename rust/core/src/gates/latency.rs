//! The gate `latency.pXX`: whether the challenger is slower than a multiple of the champion's quantile more often than the champion is
//! slower than the quantile itself.
//!
//! Both arms are compared in the same minutes, so that a slow time that both share shows nothing. An event is a first request of a
//! unit in a window that took longer than its arm's threshold, that failed, or that is in progress for longer already.

use super::evidence::{CHALLENGER, CHAMPION, Evidence, Row};
use super::exposure::{Correction, Exposure};
use super::question::{LatencyGate, Measure};
use super::timeline::{RowEvents, Tally, Timeline};

/// The exceedances of the trial.
pub fn timeline(evidence: &Evidence, measure: Measure, steps_ms: &[u64]) -> Timeline {
    let exposure = Exposure::new(evidence, Correction::RanOfKeys);
    let look = |row: &Row| {
        let slower = |exceedances: crate::trial::counts::Exceedances| match measure {
            Measure::Run => exceedances.slower_run,
            Measure::Reply => exceedances.slower_reply,
        };
        let tally = |counts: &crate::trial::ledger::RowCounts| Tally {
            n: counts.exceedances.compared,
            bad: slower(counts.exceedances),
        };
        (row.window > 0).then(|| RowEvents::of(row, tally))
    };
    let mut timeline = Timeline::new(evidence, &exposure, steps_ms, look);
    if measure == Measure::Reply {
        let running = |arm: usize| evidence.totals[arm].running_slower_reply;
        timeline.add_newest(running(CHAMPION), running(CHALLENGER));
    }
    timeline
}

/// The threshold of the challenger for one of the champion.
pub fn challengers_threshold(gate: &LatencyGate, champion_ns: u64) -> u64 {
    ((champion_ns as f64 * gate.above).ceil() as u64).max(gate.ignore_below_ns)
}

/// The thresholds of champion and challenger in the present window; `None` without any for the measure.
///
/// # Errors
/// If the thresholds are not those of the gate.
pub fn window_thresholds(evidence: &Evidence, gate: &LatencyGate) -> Result<Option<[u64; 2]>, String> {
    let Some(window) = &evidence.window else { return Ok(None) };
    let thresholds = window.map(|(run_ns, reply_ns)| match gate.measure {
        Measure::Run => run_ns,
        Measure::Reply => reply_ns,
    });
    let [champion, challenger] = thresholds;
    if champion == 0 || challenger == 0 {
        return Ok(None);
    }
    let wanted = challengers_threshold(gate, champion);
    if wanted.abs_diff(challenger) > 1 {
        return Err(format!(
            "the thresholds of the window belong to another gate: {challenger} ns for the challenger in place of {wanted} ns"
        ));
    }
    Ok(Some(thresholds))
}
