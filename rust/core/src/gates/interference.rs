//! Whether the challenger slows the champion, with which it shares threads: then both are slow, and no comparison of the two shows it.

use super::durations::{Durations, Times};
use super::evidence::{CHALLENGER, CHAMPION, Evidence};

/// The share of threads that will be busy when the challenger's weight grows by `weight_gain`.
///
/// `busy` is the present share, `per_second` the requests of the endpoint, `runs_s` the mean run of champion and challenger in seconds.
pub fn predicted_busy_share(
    busy: f64,
    per_second: f64,
    weight_gain: f64,
    runs_s: [f64; 2],
    threads: u32,
) -> f64 {
    busy + per_second * weight_gain * (runs_s[CHALLENGER] - runs_s[CHAMPION]) / f64::from(threads)
}

/// The champion in one split.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ChampionTimes {
    /// The 95th percentile of its run, in nanoseconds.
    pub run_p95_ns: Option<u64>,
    /// The 95th percentile from admission to reply, in nanoseconds.
    pub reply_p95_ns: Option<u64>,
    /// The requests of both arms in a minute with traffic.
    pub per_minute: Option<f64>,
}

/// The champion before the present split and in it, and the mean runs of both arms over the trial.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Interference {
    /// In the split before.
    pub before: ChampionTimes,
    /// In the split of the newest row.
    pub now: ChampionTimes,
    /// The mean run of champion and challenger in nanoseconds; `None` without runs.
    pub mean_run_ns: [Option<f64>; 2],
}

/// What a trial tells of interference.
pub fn interference(evidence: &Evidence, durations: &Durations) -> Interference {
    let mut order: Vec<usize> = Vec::new();
    for row in &evidence.rows {
        if order.last() != Some(&row.split) && !order.contains(&row.split) {
            order.push(row.split);
        }
    }
    let now = evidence.rows.last().map(|row| row.split);
    let before = order.iter().rev().copied().find(|split| Some(*split) != now);
    let of = |split: Option<usize>| {
        split.map_or(ChampionTimes::default(), |split| champion_times(evidence, durations, split))
    };
    let mean = |arm: usize| {
        let times = durations.splits.iter().map(|split| split[arm]);
        let (sum, runs) = times.fold((0.0, 0), |(sum, runs), times| {
            (sum + times.mean_run_ns * times.runs as f64, runs + times.runs)
        });
        (runs > 0).then(|| sum / runs as f64)
    };
    Interference { before: of(before), now: of(now), mean_run_ns: [mean(CHAMPION), mean(CHALLENGER)] }
}

fn champion_times(evidence: &Evidence, durations: &Durations, split: usize) -> ChampionTimes {
    let times = durations.splits.get(split).map_or(Times::default(), |arms| arms[CHAMPION]);
    let rows = evidence.rows.iter().filter(|row| row.split == split);
    let (requests, minutes) = rows.fold((0, 0), |(requests, minutes), row| {
        (requests + row.arms[CHAMPION].ended + row.arms[CHALLENGER].ended, minutes + u64::from(row.minutes))
    });
    ChampionTimes {
        run_p95_ns: times.run_p95_ns,
        reply_p95_ns: times.reply_p95_ns,
        per_minute: (minutes > 0).then(|| requests as f64 / minutes as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;

    #[test]
    fn a_heavier_challenger_makes_more_threads_busy() {
        // 100 requests a second, of which a quarter run 6 ms instead of 2 ms, on 4 threads.
        close(predicted_busy_share(0.5, 100.0, 0.25, [0.002, 0.006], 4), 0.525, 1e-12);
        close(predicted_busy_share(0.5, 100.0, 0.25, [0.006, 0.002], 4), 0.475, 1e-12);
    }
}
