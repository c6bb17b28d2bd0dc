//! The tables: false rollbacks by scenario, and the challenger's requests until harm is caught.

#![allow(clippy::print_stdout, reason = "the tables are what is asked for")]

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use headgate_core::gates::power::requests_to_catch;
use headgate_core::gates::question::{Gate, Question};
use headgate_core::stats::beta::binomial_at_most;

use crate::question;
use crate::scenario::{Ending, KeyModel, Rhythm, Scenario, run};

/// How many rollouts of each kind: 2000 unless `ROLLOUTS` says another number.
pub(crate) fn rollouts() -> u64 {
    std::env::var("ROLLOUTS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(2_000)
}

/// Which gates count: those for which the arms are equal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Judged {
    All,
    /// All but `availability`: one arm sheds.
    NotAvailability,
}

/// The gates of the built-in plan, and availability.
pub(crate) fn all_gates() -> Question {
    question(
        r#"{"gate": "error_rate", "above": 1.5},
           {"gate": "latency.p95", "above": 1.2, "measure": "run"},
           {"gate": "latency.p95", "above": 1.2, "measure": "reply"},
           {"gate": "availability", "above": 1.5}"#,
    )
}

/// Challengers that are no worse.
pub(crate) fn nulls() -> Vec<(Scenario, Judged)> {
    let null = Scenario::null;
    let all = |scenario| (scenario, Judged::All);
    let zipf = |name, power| Scenario { keys: KeyModel::Zipf(power), ..null(name) };
    let heavy = |name, part| Scenario { keys: KeyModel::OneHeavy(part), ..null(name) };
    let shed = |name, shed| Scenario { shed, keys: KeyModel::Zipf(1.1), ..null(name) };
    vec![
        all(Scenario { keys: KeyModel::None, slow: 0.0, ..null("no keys") }),
        all(zipf("keys alike", 0.0)),
        all(zipf("zipf 1.1", 1.1)),
        all(zipf("zipf 1.5", 1.5)),
        all(heavy("one key has 50 %", 0.5)),
        all(heavy("one key has 70 %", 0.7)),
        all(Scenario { poison: 0.02, ..zipf("2 % of keys always fail, zipf 1.1", 1.1) }),
        all(Scenario { poison: 0.02, ..null("2 % of keys always fail, alike") }),
        all(Scenario { slow: 0.2, ..zipf("20 % of keys are slow, zipf 1.1", 1.1) }),
        (shed("champion sheds 30 %", [0.3, 0.0]), Judged::NotAvailability),
        (shed("challenger sheds 30 %", [0.0, 0.3]), Judged::NotAvailability),
        all(shed("both shed 30 %", [0.3, 0.3])),
        (
            Scenario { poison: 0.02, ..shed("challenger sheds 30 %, keys fail", [0.0, 0.3]) },
            Judged::NotAvailability,
        ),
        all(Scenario {
            per_minute: 50.0 / 60.0,
            error: 0.01,
            steps: vec![(500, 1_000), (2_500, 1_000), (5_000, 1_000)],
            look: 60,
            ..null("50 requests an hour, 2 days")
        }),
        all(Scenario {
            steps: vec![(100, 10), (500, 10), (2_500, 10), (500, 10), (5_000, 10), (2_500, 10), (9_000, 10)],
            ..zipf("weights up and down, zipf 1.1", 1.1)
        }),
        all(Scenario { rhythm: Rhythm::Bursts, ..zipf("bursts, zipf 1.1", 1.1) }),
        all(Scenario { rhythm: Rhythm::Daily { minutes: 40.0 }, ..zipf("daily rhythm, zipf 1.1", 1.1) }),
        all(Scenario { error: 0.0, slow: 0.0, ..null("no errors") }),
        all(Scenario { error: 0.2, ..null("20 % errors") }),
    ]
}

/// The gates that count.
fn gates(question: &Question, judged: Judged) -> Vec<Gate> {
    let counts = |gate: &&Gate| judged == Judged::All || !matches!(gate, Gate::Availability { .. });
    question.gates.iter().filter(counts).copied().collect()
}

/// Runs with seeds from 0, side by side; their endings by seed.
fn endings(runs: u64, one: impl Fn(u64) -> Ending + Sync) -> Vec<Ending> {
    let (next, found) = (AtomicU64::new(0), Mutex::new(vec![Ending::default(); runs as usize]));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= runs {
                        return;
                    }
                    let ending = one(seed);
                    found.lock().unwrap_or_else(PoisonError::into_inner)[seed as usize] = ending;
                }
            });
        }
    });
    found.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// The rollouts of equal versions that are rolled back.
pub(crate) fn false_rollbacks(scenario: &Scenario, judged: Judged, runs: u64) -> u64 {
    let question = all_gates();
    let gates = gates(&question, judged);
    let endings = endings(runs, |seed| run(scenario, &question, &gates, seed));
    endings.iter().filter(|ending| ending.failed_after.is_some()).count() as u64
}

/// The number that so many runs stay at or below with probability 99.9 % if each has that probability.
pub(crate) fn binomial_bound(runs: u64, probability: f64) -> u64 {
    (0..runs).find(|count| binomial_at_most(*count, runs, probability) >= 0.999).unwrap_or(runs)
}

/// The median of the challenger's requests until harm was caught; infinity if fewer than half were caught.
fn median(scenario: &Scenario, question: &Question, gates: &[Gate], runs: u64) -> (f64, f64) {
    let endings = endings(runs, |seed| run(scenario, question, gates, seed));
    let mut after: Vec<f64> = endings
        .iter()
        .map(|ending| ending.failed_after.map_or(f64::INFINITY, |after| after as f64))
        .collect();
    after.sort_unstable_by(f64::total_cmp);
    let caught = after.iter().filter(|after| after.is_finite()).count();
    (after[after.len() / 2], caught as f64 / runs as f64)
}

/// Prints false rollbacks; what breaks the promise.
pub(crate) fn print_nulls() -> Vec<String> {
    let runs = rollouts();
    let bound = binomial_bound(runs, 0.01);
    println!("\nFalse rollbacks of {runs}, promised 1 %; at most {bound} with probability 99.9 %.\n");
    println!("| equal versions | rolled back | share |\n|---|---:|---:|");
    let mut broken = Vec::new();
    for (scenario, judged) in nulls() {
        let found = false_rollbacks(&scenario, judged, runs);
        println!("| {} | {found} | {:.2} % |", scenario.name, found as f64 / runs as f64 * 100.0);
        if found > bound {
            broken.push(format!("{}: {found} of {runs} rolled back", scenario.name));
        }
    }
    broken
}

/// Medians of simulations of the same rule without minutes: of 2, 5 and 10 times the rate at 5, 25 and 50 %.
const MEDIANS: [(u16, [f64; 3]); 3] = [
    (500, [8_900.0, 1_010.0, 260.0]),
    (2_500, [11_800.0, 1_300.0, 440.0]),
    (5_000, [17_400.0, 1_970.0, 760.0]),
];

/// Prints medians; those that are too far from their references.
pub(crate) fn print_medians() -> Vec<String> {
    let mut broken = Vec::new();
    let question =
        question(r#"{"gate": "error_rate", "above": 1.5}, {"gate": "availability", "above": 1.5}"#);
    println!("\nChallenger's requests until it is caught, median of 200; threshold 200, base 0.2 %.\n");
    println!("| weight | ratio | simulated | told to a plan | reference |\n|---:|---:|---:|---:|---:|");
    for (slots, references) in MEDIANS {
        for (ratio, reference) in [2.0, 5.0, 10.0].into_iter().zip(references) {
            let harm = Scenario::harm("harm", slots, ratio, reference / 50.0);
            let scenario = Scenario { keys: KeyModel::None, ..harm };
            let (median, _) = median(&scenario, &question, &question.gates[..1], 200);
            let weight = f64::from(slots) / 10_000.0;
            let told = requests_to_catch(weight, 0.002, ratio, 200.0, 0.5).unwrap_or(0);
            println!("| {:.0} % | {ratio} | {median:.0} | {told} | {reference:.0} |", weight * 100.0);
            if !(0.7..=1.3).contains(&(median / reference)) {
                broken.push(format!("{ratio} at {weight}: {median} in place of {reference}"));
            }
        }
    }
    broken
}

pub(crate) fn print_catches() {
    let question = all_gates();
    let ramp = vec![(500, 60), (2_500, 60), (5_000, 60)];
    let base = Scenario { steps: ramp, per_minute: 300.0, keys: KeyModel::Zipf(1.1), ..Scenario::null("") };
    println!(
        "\nRollouts at 5, 25 and 50 % for an hour each, 300 requests a minute, all gates: rolled back, and after how many requests of the challenger.\n"
    );
    println!("| challenger | rolled back | median requests |\n|---|---:|---:|");
    let good_hours = vec![(5_000, 720), (5_000, 600)];
    for scenario in [
        Scenario { name: "1.3 times the errors", challenger_error: 1.3, ..base.clone() },
        Scenario { name: "2 times the errors", challenger_error: 2.0, ..base.clone() },
        Scenario { name: "5 times the errors", challenger_error: 5.0, ..base.clone() },
        Scenario { name: "every run fails", challenger_error: 1_000.0, ..base.clone() },
        Scenario { name: "1.1 times as slow", challenger_time: 1.1, ..base.clone() },
        Scenario { name: "1.2 times as slow", challenger_time: 1.2, ..base.clone() },
        Scenario { name: "1.5 times as slow", challenger_time: 1.5, ..base.clone() },
        Scenario { name: "2 times as slow", challenger_time: 2.0, ..base.clone() },
        Scenario { name: "sheds 2 %", shed: [0.0, 0.02], ..base.clone() },
        Scenario {
            name: "5 times the errors after 12 good hours at 50 %",
            challenger_error: 5.0,
            worse_from: 720,
            steps: good_hours,
            look: 5,
            ..base
        },
    ] {
        let (median, caught) = median(&scenario, &question, &question.gates, 100);
        println!("| {} | {:.0} % | {median:.0} |", scenario.name, caught * 100.0);
    }
}
