//! How often intervals and verdicts are right, over many runs of a process.

use headgate_core::stats::codes::{BATCHES, BatchCounts};
use headgate_core::stats::paired::sign_flip;
use headgate_core::stats::quantile::{NEXT_LOOK, Ranks, interval, ranks};
use headgate_core::stats::steadiness::{UNSTEADY_Z, mann_kendall};
use headgate_core::stats::verdict::{Evidence, FIRST_LOOK, Objective, Verdict, evidence, judge};

use crate::processes::Process;

/// How to make an interval or a verdict.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// As `core::stats` does.
    Corrected,
    /// As if requests were independent.
    Independent,
    /// Batches of 200, however many requests there are.
    FixedBatches,
}

/// How often an interval held its quantile.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Coverage {
    pub(crate) runs: u32,
    /// Runs whose interval has an upper end.
    pub(crate) bounded: u32,
    /// Those of them that hold the quantile.
    pub(crate) covering: u32,
    /// The mean inflation.
    pub(crate) inflation: f64,
    /// The mean half width of bounded intervals, as a share of the quantile.
    pub(crate) half_width: f64,
}

impl Coverage {
    /// The share of bounded intervals that hold the quantile.
    pub(crate) fn of_bounded(&self) -> f64 {
        f64::from(self.covering) / f64::from(self.bounded)
    }

    /// The share of all runs whose interval holds the quantile; one without an upper end does not.
    pub(crate) fn of_all(&self) -> f64 {
        f64::from(self.covering) / f64::from(self.runs)
    }
}

/// The interval of the quantile `p` in `runs` runs of `n` requests, 95 %.
pub(crate) fn coverage(process: Process, n: usize, p: f64, runs: u32, rule: Rule) -> Coverage {
    let truth = process.quantile(p, 20 * n.max(100_000));
    let mut found = Coverage { runs, ..Coverage::default() };
    for run in 0..runs {
        let counts = BatchCounts::of(&process.responses(n, 1_000 + u64::from(run)));
        let (low, high) = match rule {
            Rule::Corrected => {
                let found_interval = interval(&counts, p, 0.05).expect("there are requests");
                found.inflation += found_interval.inflation.unwrap_or(1.0) / f64::from(runs);
                (found_interval.low, found_interval.high)
            }
            _ => {
                let Ranks { low, high } = ranks(n as u64, p, 0.05);
                (low.map(|rank| counts.at_rank(rank)), high.map(|rank| counts.at_rank(rank)))
            }
        };
        if let Some(high) = high {
            let low = low.unwrap_or(0);
            found.bounded += 1;
            found.covering += u32::from((low..=high).contains(&truth));
            let ln_width = f64::from(high - low) / 1_000.0;
            found.half_width += (ln_width / 2.0).sinh();
        }
    }
    found.half_width /= f64::from(found.bounded);
    found
}

/// What verdicts came out of many runs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Verdicts {
    pub(crate) runs: u32,
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    /// The mean number of requests until the verdict, over decided runs.
    pub(crate) requests: f64,
}

impl Verdicts {
    pub(crate) fn pass_share(&self) -> f64 {
        f64::from(self.passed) / f64::from(self.runs)
    }

    pub(crate) fn fail_share(&self) -> f64 {
        f64::from(self.failed) / f64::from(self.runs)
    }
}

/// An objective of the p99 that is looked at again and again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Trial {
    pub(crate) process: Process,
    /// The limit, as a code.
    pub(crate) limit: u16,
    pub(crate) alpha: f64,
    /// The last look.
    pub(crate) most: usize,
    pub(crate) rule: Rule,
}

/// The verdicts of `runs` runs of a trial.
pub(crate) fn verdicts(trial: Trial, runs: u32) -> Verdicts {
    let mut found = Verdicts { runs, ..Verdicts::default() };
    for run in 0..runs {
        let codes = trial.process.responses(trial.most, 70_000 + u64::from(run));
        let (verdict, requests) = first_verdict(trial, &codes);
        found.passed += u32::from(verdict == Verdict::Pass);
        found.failed += u32::from(verdict == Verdict::Fail);
        if verdict != Verdict::Undecided {
            found.requests += requests as f64;
        }
    }
    found.requests /= f64::from(found.passed + found.failed);
    found
}

fn first_verdict(trial: Trial, codes: &[u16]) -> (Verdict, usize) {
    let mut look = FIRST_LOOK as usize;
    while look <= codes.len() {
        let verdict = verdict_of(trial, &codes[..look]);
        if verdict != Verdict::Undecided {
            return (verdict, look);
        }
        look = (look as f64 * NEXT_LOOK) as usize;
    }
    (Verdict::Undecided, codes.len())
}

fn verdict_of(trial: Trial, codes: &[u16]) -> Verdict {
    const P99: f64 = 0.99;
    let Trial { limit, alpha, rule, .. } = trial;
    if rule == Rule::Corrected {
        return judge(&BatchCounts::of(codes), Objective { quantile: P99, limit, alpha }).verdict;
    }
    let slower = codes.iter().filter(|&&code| code > limit).count() as f64;
    let scale = if rule == Rule::Independent { 1.0 } else { inflation_of_fixed(codes, limit) };
    let Evidence { pass, fail } = evidence(slower / scale, (codes.len() as f64 - slower) / scale, 1.0 - P99);
    match (pass >= 1.0 / alpha, fail >= 1.0 / alpha) {
        (true, _) => Verdict::Pass,
        (_, true) => Verdict::Fail,
        _ => Verdict::Undecided,
    }
}

/// The inflation at the limit from batches of 200.
fn inflation_of_fixed(codes: &[u16], limit: u16) -> f64 {
    const SIZE: usize = 200;
    let share_of =
        |codes: &[u16]| codes.iter().filter(|&&code| code > limit).count() as f64 / codes.len() as f64;
    let share = share_of(codes);
    if share == 0.0 {
        return 1.0;
    }
    let shares: Vec<f64> = codes.chunks_exact(SIZE).map(share_of).collect();
    let squares: f64 = shares.iter().map(|of_batch| (of_batch - share).powi(2)).sum();
    (SIZE as f64 * squares / (shares.len() - 1) as f64 / (share * (1.0 - share))).max(1.0)
}

/// Two things that are measured in turns, `n` requests a window, until one of them is known to be slower.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Comparison {
    pub(crate) process: Process,
    pub(crate) n: usize,
    /// The quantile that is compared.
    pub(crate) p: f64,
    /// How much slower the second is, as a share.
    pub(crate) slower: f64,
    /// How much slower it may be.
    pub(crate) margin: f64,
}

/// The pairs of windows of a comparison.
const PAIRS: std::ops::RangeInclusive<usize> = 6..=12;

/// The share of `runs` comparisons that find the second slower, and the share that finds it is not.
pub(crate) fn comparisons(of: Comparison, runs: u32) -> (f64, f64) {
    let (mut slower, mut not_slower) = (0, 0);
    for run in 0..runs {
        match verdict_of_pairs(of, 5_000_000 + 100 * u64::from(run)) {
            Verdict::Fail => slower += 1,
            Verdict::Pass => not_slower += 1,
            Verdict::Undecided => {}
        }
    }
    (f64::from(slower) / f64::from(runs), f64::from(not_slower) / f64::from(runs))
}

fn verdict_of_pairs(of: Comparison, seed: u64) -> Verdict {
    let Comparison { process, n, p, slower, margin } = of;
    let measured = |seed| {
        let mut codes = process.responses(n, seed);
        f64::from(*codes.select_nth_unstable((p * n as f64) as usize).1) / 1_000.0
    };
    let (mut differences, limit) = (Vec::new(), (1.0 + margin).ln());
    for pair in 0..*PAIRS.end() as u64 {
        differences.push(measured(seed + 2 * pair) + (1.0 + slower).ln() - measured(seed + 2 * pair + 1));
        if !PAIRS.contains(&differences.len()) {
            continue;
        }
        let found = sign_flip(&differences, 0.05).expect("there are no more pairs than are tested");
        if found.interval.low > limit {
            return Verdict::Fail;
        }
        if found.interval.high < limit {
            return Verdict::Pass;
        }
    }
    Verdict::Undecided
}

/// The share of `runs` runs of a stationary process in which the medians of the batches show a trend.
pub(crate) fn unsteady(process: Process, n: usize, runs: u32) -> f64 {
    let shows_trend = |run: &u32| {
        let counts = BatchCounts::of(&process.responses(n, 9_000 + u64::from(*run)));
        let medians = (0..BATCHES).filter_map(|batch| counts.batch_quantile(batch, 0.5));
        mann_kendall(&medians.map(f64::from).collect::<Vec<_>>()).z.abs() > UNSTEADY_Z
    };
    (0..runs).filter(shows_trend).count() as f64 / f64::from(runs)
}
