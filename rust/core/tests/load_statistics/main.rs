//! Seeded simulations of the statistics of loads: coverage of intervals, false verdicts, false alarms.
//!
//! The short ones run with the other tests. `make bench-capacity` runs the long ones, whose tables are in
//! `docs/design/bench-statistics.md`.

mod processes;
mod study;

use std::time::Instant;

use headgate_core::stats::codes::BatchCounts;
use headgate_core::stats::quantile::{interval, needed_growth};
use headgate_core::stats::verdict::{Objective, judge};
use processes::Process;
use study::{Comparison, Rule, Trial, Verdicts, comparisons, coverage, unsteady, verdicts};

const P99: f64 = 0.99;

/// A limit that is a share above (or below) the p99 of a process, whose p99 is known from `n` requests.
fn limit_beside_p99(process: Process, share: f64, n: usize) -> u16 {
    let at = process.quantile(P99, n);
    (f64::from(at) + 1_000.0 * (1.0 + share).ln()).round() as u16
}

#[test]
fn intervals_of_a_queue_hold_its_quantile_and_independent_ones_do_not() {
    let process = Process::Mm1(0.8);
    let corrected = coverage(process, 100_000, P99, 40, Rule::Corrected);
    assert!(corrected.of_all() >= 0.9 && corrected.half_width < 0.25, "{corrected:?}");
    let independent = coverage(process, 100_000, P99, 40, Rule::Independent);
    assert!(independent.of_all() < 0.5, "{independent:?}");
}

#[test]
fn intervals_of_bursts_and_batches_hold_their_quantiles() {
    let bursts = coverage(Process::Bursts, 50_000, 0.5, 30, Rule::Corrected);
    assert!(bursts.of_all() >= 0.9 && bursts.inflation > 100.0, "{bursts:?}");
    let batches = coverage(Process::Batches, 20_000, P99, 60, Rule::Corrected);
    assert!(batches.of_all() >= 0.9, "{batches:?}");
    let independent = coverage(Process::Batches, 20_000, P99, 60, Rule::Independent);
    assert!(independent.of_all() < 0.75, "{independent:?}");
}

#[test]
fn too_few_requests_have_no_upper_end_and_say_how_many_it_takes() {
    let process = Process::Mm1(0.8);
    let found = coverage(process, 20_000, P99, 40, Rule::Corrected);
    assert!(found.bounded < 20 && found.of_all() < 0.5, "{found:?}");
    let counts = (0..10)
        .map(|seed| BatchCounts::of(&process.responses(20_000, seed)))
        .find(|counts| interval(counts, P99, 0.05).is_some_and(|found| found.high.is_none()))
        .expect("most have no upper end");
    let growth = needed_growth(&counts, P99, 0.05, 0.1, |code| (f64::from(code) / 1_000.0).exp());
    assert!(growth.is_some_and(|growth| (2.0..100.0).contains(&growth)), "{growth:?}");
}

#[test]
fn a_rate_at_the_boundary_passes_rarely_and_without_correction_mostly() {
    let process = Process::Mm1(0.8);
    let limit = limit_beside_p99(process, 0.0, 0);
    let of = |rule| verdicts(Trial { process, limit, alpha: 0.05, most: 50_000, rule }, 60);
    let corrected = of(Rule::Corrected);
    assert!(corrected.passed <= 8 && corrected.failed <= 4, "{corrected:?}");
    let fixed = of(Rule::FixedBatches);
    assert!(fixed.passed >= 30, "batches of 200 are shorter than the queue remembers: {fixed:?}");
    let independent = of(Rule::Independent);
    assert!(independent.passed >= 40, "{independent:?}");
}

#[test]
fn twice_the_allowed_slow_requests_never_pass_in_bursts() {
    let process = Process::Bursts;
    let limit = process.quantile(0.98, 2_000_000);
    let of = |rule| verdicts(Trial { process, limit, alpha: 0.05, most: 20_000, rule }, 40);
    assert_eq!(of(Rule::Corrected).passed, 0);
    let fixed = of(Rule::FixedBatches);
    assert!(fixed.pass_share() > 0.6, "{fixed:?}");
}

#[test]
fn verdicts_a_tenth_beside_the_boundary_are_right() {
    let process = Process::Mm1(0.5);
    let of = |share| {
        let limit = limit_beside_p99(process, share, 0);
        verdicts(Trial { process, limit, alpha: 0.05, most: 60_000, rule: Rule::Corrected }, 40)
    };
    let (above, below) = (of(0.1), of(-0.1));
    assert!(above.failed == 0 && above.passed >= 10, "{above:?}");
    assert!(below.passed == 0 && below.failed >= 20, "{below:?}");
}

#[test]
fn equal_things_are_rarely_called_slower_and_slower_ones_are_found() {
    let equal = Comparison { process: Process::Mm1(0.5), n: 2_000, p: 0.5, slower: 0.0, margin: 0.02 };
    let (alarms, _) = comparisons(equal, 60);
    assert!(alarms <= 0.05, "{alarms}");
    let (found, _) = comparisons(Comparison { slower: 0.3, ..equal }, 20);
    assert!(found >= 0.9, "{found}");
}

// The long ones print tables. Each takes minutes in a release build.

const PROCESSES: [Process; 5] =
    [Process::Mm1(0.5), Process::Mm1(0.8), Process::Mm1(0.9), Process::Bursts, Process::Batches];
/// Requests that a quantile without a formula is taken from.
const TRUTH: usize = 20_000_000;

/// A share as a cell of a table; "-" if it is of nothing.
fn percent(share: f64) -> String {
    if share.is_nan() { "-".into() } else { format!("{:.1} %", 100.0 * share) }
}

#[test]
#[ignore = "takes minutes: make bench-capacity"]
fn table_of_coverage() {
    println!(
        "\n|process|requests|quantile|with an upper end|they hold|all hold|V|half width|as independent|"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for process in PROCESSES {
        for n in [20_000, 100_000] {
            for p in [0.5, 0.9, P99] {
                let found = coverage(process, n, p, 1_000, Rule::Corrected);
                let independent = coverage(process, n, p, 200, Rule::Independent).of_all();
                let [bounded, of_bounded, of_all, half_width, independent] = [
                    f64::from(found.bounded) / f64::from(found.runs),
                    found.of_bounded(),
                    found.of_all(),
                    found.half_width,
                    independent,
                ]
                .map(percent);
                println!(
                    "|{}|{n}|{p}|{bounded}|{of_bounded}|{of_all}|{:.0}|{half_width}|{independent}|",
                    process.name(),
                    found.inflation,
                );
                let is_the_accepted_one =
                    matches!(process, Process::Mm1(load) if load == 0.8) && n == 100_000;
                assert!(!is_the_accepted_one || (found.of_all() >= 0.9 && found.of_bounded() >= 0.9));
            }
        }
    }
}

#[test]
#[ignore = "takes minutes: make bench-capacity"]
fn table_of_verdicts() {
    println!(
        "\n|process|limit|alpha|pass|fail|requests until then|batches of 200: pass, fail|independent: pass, fail|"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for process in PROCESSES {
        let at = limit_beside_p99(process, 0.0, TRUTH);
        let beside = |share: f64| (f64::from(at) + 1_000.0 * (1.0 + share).ln()).round() as u16;
        let limits = [
            ("p98 (twice as many are slower)", process.quantile(0.98, TRUTH)),
            ("p99 - 10 %", beside(-0.1)),
            ("p99 - 5 %", beside(-0.05)),
            ("p99", at),
            ("p99 + 5 %", beside(0.05)),
            ("p99 + 10 %", beside(0.1)),
        ];
        for (name, limit) in limits {
            for alpha in [0.05, 0.006] {
                let of = |rule, runs| verdicts(Trial { process, limit, alpha, most: 200_000, rule }, runs);
                let shares = |of: Verdicts| [of.pass_share(), of.fail_share()].map(percent);
                let found = of(Rule::Corrected, 300);
                // What other rules do is shown for one alpha.
                let others = match alpha {
                    0.05 => {
                        [Rule::FixedBatches, Rule::Independent].map(|rule| shares(of(rule, 100)).join(", "))
                    }
                    _ => [String::new(), String::new()],
                };
                println!(
                    "|{}|{name}|{alpha}|{}|{:.0}|{}|",
                    process.name(),
                    shares(found).join("|"),
                    found.requests,
                    others.join("|"),
                );
            }
        }
    }
}

#[test]
#[ignore = "takes minutes: make bench-capacity"]
fn table_of_comparisons_and_trends() {
    println!("\n|process|window|quantile|slower by|margin|found slower|found not slower|");
    println!("|---|---|---|---|---|---|---|");
    for (p, n) in [(0.5, 20_000), (P99, 20_000), (P99, 100_000)] {
        for (slower, margin) in [(0.0, 0.0), (0.0, 0.02), (0.05, 0.0), (0.05, 0.02)] {
            let process = Process::Mm1(0.5);
            let (found, not) = comparisons(Comparison { process, n, p, slower, margin }, 200);
            let [slower, margin, found, not] = [slower, margin, found, not].map(percent);
            println!("|{}|{n}|{p}|{slower}|{margin}|{found}|{not}|", process.name());
        }
    }
    println!("\n|process|requests|called unsteady|\n|---|---|---|");
    for process in PROCESSES {
        for n in [20_000, 100_000] {
            println!("|{}|{n}|{}|", process.name(), percent(unsteady(process, n, 500)));
        }
    }
}

#[test]
#[ignore = "takes minutes: make bench-capacity"]
fn table_of_costs() {
    println!("\n|requests|counting|five intervals|a verdict|\n|---|---|---|---|");
    for n in [100_000, 1_000_000, 10_000_000] {
        let codes = Process::Mm1(0.8).responses(n, 3);
        let begun = Instant::now();
        let counts = BatchCounts::of(&codes);
        let counted = Instant::now();
        let widths = [0.5, 0.9, 0.95, P99, 0.999].map(|p| interval(&counts, p, 0.05));
        let estimated = Instant::now();
        let objective = Objective { quantile: P99, limit: 22_000, alpha: 0.006 };
        let judged = judge(&counts, objective);
        assert!(widths.iter().all(Option::is_some) && judged.requests == n as u64);
        let [count, widths, verdict] = [counted - begun, estimated - counted, estimated.elapsed()]
            .map(|time| format!("{:.2} ms", time.as_secs_f64() * 1e3));
        println!("|{n}|{count}|{widths}|{verdict}|");
    }
}
