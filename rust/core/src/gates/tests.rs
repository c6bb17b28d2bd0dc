use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::durations::Durations;
use super::evidence::{CHALLENGER, Evidence};
use super::exposure::{Correction, Exposure};
use super::interference::interference;
use super::judge::decide;
use super::question::{Measure, Question};
use super::timeline::Timeline;
use super::verdict::Verdict;
use super::{error_rate, latency};
use crate::fine_histogram::{FineCounts, FineHistogram};
use crate::stats::event_ratio::{Events, ln_evidence};
use crate::stats::testing::close;
use crate::trial::arm::ArmReading;
use crate::trial::counts::{Exceedances, TrialCount};
use crate::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use crate::trial::report::{Detail, RunningTrial};

fn name(version: &str) -> ArmName {
    ArmName { version: version.into(), digest: format!("sha256:{version}"), outputs: vec!["y".into()] }
}

mod answers;
mod properties;

/// A trial whose challenger has so many slots at its splits.
fn trial(slots: &[u16]) -> Ledger {
    let identity = TrialIdentity {
        attempt: "e/r7".into(),
        champion: "v7".into(),
        digest: "sha256:v7".into(),
        sticky: Some("x-user".into()),
    };
    let mut ledger = Ledger::new(identity, name("v7"), 0);
    ledger.arm(&name("v8"));
    for &slots in slots {
        ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)]));
    }
    ledger
}

/// What happened to an arm in a minute.
#[derive(Clone, Debug, Default)]
struct Minute {
    ran: u64,
    shed: u64,
    first_errors: u64,
    errors_after: Vec<(u8, u64)>,
    first_refusals: u64,
    first_requests: u64,
    compared: u64,
    slower: u64,
    run: FineCounts,
}

impl Minute {
    fn reading(&self, window: u32) -> ArmReading {
        let after: u64 = self.errors_after.iter().map(|(_, count)| count).sum();
        let refused = self.shed.max(self.first_refusals);
        let mut reading = ArmReading::default();
        for (count, value) in [
            (TrialCount::Begun, self.ran + refused),
            (TrialCount::Ran, self.ran),
            (TrialCount::Shed, refused),
            (TrialCount::BackendFailed, self.first_errors + after),
            (TrialCount::FirstErrors, self.first_errors),
            (TrialCount::FirstErrorsAfter, after),
            (TrialCount::FirstRefusals, self.first_refusals),
            (TrialCount::FirstRequests, self.first_requests),
            (TrialCount::Units, self.first_requests),
        ] {
            reading.counts.add_one(count, value);
        }
        reading.errors_after = self.errors_after.iter().copied().collect();
        reading.exceedances[(window & 1) as usize] =
            Exceedances { compared: self.compared, slower_run: self.slower, slower_reply: self.slower };
        reading.run = self.run.clone();
        reading.reply = self.run.clone();
        reading
    }
}

/// Adds a minute of champion and challenger.
fn add(ledger: &mut Ledger, minute: u64, split: u8, arms: [Minute; 2]) {
    let window = ledger.window.as_ref().map_or(0, |window| window.number);
    for (arm, counted) in arms.iter().enumerate() {
        ledger.add(minute * MINUTE_MS, (split, arm as u8), &counted.reading(window), |ns| ns);
    }
}

fn errors(ran: u64, first_errors: u64) -> Minute {
    Minute { ran, first_errors, first_requests: ran, ..Minute::default() }
}

fn evidence(ledger: &Ledger) -> Evidence {
    Evidence::from_ledger(ledger, &RunningTrial::default(), "v8").unwrap()
}

fn question(gate: Value) -> Question {
    let json = json!({"challenger": "v8", "gates": [gate], "false_rollbacks": 0.01});
    Question::from_json(&json.to_string()).unwrap()
}

fn error_gate() -> Question {
    question(json!({"gate": "error_rate", "above": 1.5}))
}

fn told(ledger: &Ledger) -> String {
    ledger.report(&RunningTrial::default(), Detail::Whole).to_string()
}

fn pooled_e(timeline: &Timeline) -> f64 {
    ln_evidence(&timeline.pooled(), 1.0).exp()
}

/// The e-value, from the e-value of a single block.
fn of_one_block(e: f64) -> f64 {
    e / 2.0 + 0.5
}

// Expected values here and below: computed in Python from the formulas, to the digits written.
#[test]
fn an_arm_that_sheds_is_exposed_less() {
    for (slots, ran, expected) in [(5_000, [700, 1_000], 0.588_235), (500, [600, 980], 0.079_160)] {
        let mut ledger = trial(&[slots]);
        add(&mut ledger, 0, 0, ran.map(|ran| Minute { ran, shed: 1_000 - ran, ..Minute::default() }));
        let evidence = evidence(&ledger);
        let weight = evidence.weight(0).unwrap();
        close(Exposure::new(&evidence, Correction::Ran).at(0, weight).unwrap(), expected, 1e-5);
        close(Exposure::new(&evidence, Correction::None).at(0, weight).unwrap(), weight, 1e-12);
    }
}

#[test]
fn the_share_that_ran_is_taken_of_200_requests_of_the_same_split_or_not_at_all() {
    let mut ledger = trial(&[5_000, 2_500]);
    let minute = |ran, shed| Minute { ran, shed, ..Minute::default() };
    for (at, split, champion) in
        [(0, 0, (50, 50)), (1, 0, (50, 49)), (2, 1, (0, 100)), (3, 0, (0, 1)), (4, 0, (150, 50))]
    {
        add(&mut ledger, at, split, [minute(champion.0, champion.1), minute(300, 0)]);
    }
    let evidence = evidence(&ledger);
    let exposure = Exposure::new(&evidence, Correction::Ran);
    // 100 and 199 requests are too few, then there are 200 of three minutes and 200 of one.
    for (row, ran) in [(0, 1.0), (1, 1.0), (2, 1.0), (3, 0.5), (4, 0.75)] {
        close(exposure.at(row, 0.5).unwrap(), 1.0 / (1.0 + ran), 1e-12);
    }
}

#[test]
fn errors_of_units_that_erred_before_count_by_the_weight_gained_since() {
    let mut ledger = trial(&[100, 500, 2_500]);
    let after = |split: u8, count: u64, first: u64| Minute {
        errors_after: vec![(split, count)],
        ..errors(100, first)
    };
    add(&mut ledger, 0, 0, [errors(100, 3), errors(100, 1)]);
    add(&mut ledger, 1, 1, [errors(100, 6), after(0, 2, 0)]);
    add(&mut ledger, 2, 2, [after(1, 4, 0), errors(100, 3)]);
    let timeline = error_rate::timeline(&evidence(&ledger), &[]);
    close(pooled_e(&timeline), 15.572_266, 1e-6);
    assert_eq!(timeline.tallies.map(|tally| tally.bad), [13, 6]);
}

#[test]
fn a_step_and_ten_minutes_with_traffic_begin_a_block() {
    let mut ledger = trial(&[100, 500, 2_500]);
    let steps = [(0, 20, 1), (1, 18, 3), (2, 10, 8)];
    let begun: Vec<u64> = (0..3).map(|step| step * 5 * MINUTE_MS + 1_000).collect();
    for ((split, champion, challenger), expected) in steps.into_iter().zip([1.330_860, 2.616_505, 7.853_822])
    {
        add(&mut ledger, u64::from(split) * 5, split, [errors(100, champion), errors(100, challenger)]);
        let question = Question { blocks_ms: begun.clone(), ..error_gate() };
        let decision = decide(&evidence(&ledger), question.gates[0], &question);
        close(decision.test.ln_e_value.exp(), expected, 1e-6);
    }
    // Minutes without traffic do not count.
    for minute in [11, 12, 13, 14, 15, 16, 17, 18, 40, 41, 42] {
        add(&mut ledger, minute, 2, [errors(1, 0), errors(1, 0)]);
    }
    let blocks = error_rate::timeline(&evidence(&ledger), &begun).blocks;
    let since: Vec<u64> = blocks.iter().map(|block| block.since_ms / MINUTE_MS).collect();
    assert_eq!(since, [0, 5, 10, 41]);
}

#[test]
fn exceedances_match_their_vectors() {
    for (challenger, expected) in [(30, 614.354_120), (14, 0.264_772)] {
        let mut ledger = trial(&[500]);
        ledger.open_window(0, vec![(1_000, 1_000), (1_200, 1_200)]);
        let slower = |compared, slower| Minute { ran: compared, compared, slower, ..Minute::default() };
        add(&mut ledger, 0, 0, [slower(4_800, 240), slower(253, challenger)]);
        close(pooled_e(&latency::timeline(&evidence(&ledger), Measure::Run, &[])), expected, 1e-5);
    }
}

#[test]
fn a_request_that_hangs_is_slower_from_admission_to_reply() {
    let mut ledger = trial(&[5_000]);
    ledger.open_window(0, vec![(1_000, 1_000), (1_200, 1_200)]);
    let compared = |compared, slower| Minute { ran: compared, compared, slower, ..Minute::default() };
    add(&mut ledger, 0, 0, [compared(500, 25), compared(10, 0)]);
    let running = RunningTrial { running_slower: BTreeMap::from([(1, (100, 0))]), ..RunningTrial::default() };
    let evidence = Evidence::from_ledger(&ledger, &running, "v8").unwrap();
    let bad = |measure| latency::timeline(&evidence, measure, &[]).tallies[CHALLENGER].bad;
    assert_eq!((bad(Measure::Run), bad(Measure::Reply)), (0, 100));
    let of = |measure: &str| question(json!({"gate": "latency.p95", "above": 1.2, "measure": measure}));
    let (run, reply) = (of("run"), of("reply"));
    assert_eq!(decide(&evidence, run.gates[0], &run).verdict, Verdict::Pass);
    assert_eq!(decide(&evidence, reply.gates[0], &reply).verdict, Verdict::Fail);
}

fn durations(ns: impl Iterator<Item = u64>) -> FineCounts {
    let (histogram, mut counts) = (FineHistogram::default(), FineCounts::default());
    ns.for_each(|ns| histogram.record(ns));
    histogram.add_to(&mut counts);
    counts
}

#[test]
fn refusals_are_a_gate_of_their_own() {
    let question = question(json!({"gate": "availability", "above": 1.5}));
    for (challenger, verdict) in [(5, Verdict::Pass), (120, Verdict::Fail)] {
        let mut ledger = trial(&[5_000]);
        let minute = |first_refusals| Minute { ran: 500, first_refusals, ..Minute::default() };
        add(&mut ledger, 0, 0, [minute(5), minute(challenger)]);
        assert_eq!(decide(&evidence(&ledger), question.gates[0], &question).verdict, verdict);
        assert_eq!(decide(&evidence(&ledger), error_gate().gates[0], &error_gate()).verdict, Verdict::Pass);
    }
}

#[test]
fn a_few_keys_with_most_errors_are_told() {
    let of = |units: &[u32], champion: u64| {
        let mut ledger = trial(&[5_000]);
        let mut reading = errors(1_000, 0).reading(0);
        reading.counts.add_one(TrialCount::BackendFailed, units.len() as u64);
        reading.erring = units.to_vec();
        ledger.add(0, (0, 1), &reading, |ns| ns);
        let mut reading = errors(1_000, 0).reading(0);
        reading.counts.add_one(TrialCount::BackendFailed, champion);
        ledger.add(0, (0, 0), &reading, |ns| ns);
        super::few_keys::few_keys(&evidence(&ledger))
    };
    let few: Vec<u32> = (0..100).map(|error| if error < 70 { error % 3 } else { 10 + error }).collect();
    let many: Vec<u32> = (0..100).collect();
    let found = of(&few, 0);
    assert_eq!(
        (found.is_found, found.error_share, found.of_three),
        (true, [Some(0.0), Some(0.1)], Some(0.7))
    );
    assert!(!of(&many, 0).is_found);
    assert!(!of(&few, 60).is_found, "the champion has as many");
    assert!(!of(&few[..40], 0).is_found, "4 % are not many");
}

#[test]
fn a_better_or_slightly_worse_challenger_passes_and_ignored_errors_do_not_fail() {
    let judged = |gate: Value, champion: u64, challenger: u64| {
        let mut ledger = trial(&[5_000]);
        add(&mut ledger, 0, 0, [errors(100_000, champion), errors(100_000, challenger)]);
        let question = question(gate);
        let decision = decide(&evidence(&ledger), question.gates[0], &question);
        (decision.verdict, decision.reason.unwrap_or_default())
    };
    let gate = || json!({"gate": "error_rate", "above": 1.5});
    assert_eq!(judged(gate(), 500, 100).0, Verdict::Pass);
    assert_eq!(judged(gate(), 500, 1_000).0, Verdict::Fail);
    let (verdict, reason) = judged(gate(), 1_000, 1_400);
    assert!(verdict == Verdict::Pass && reason.contains("by less than the limit"), "{reason}");
    let (verdict, reason) =
        judged(json!({"gate": "error_rate", "above": 1.5, "ignore_below": 0.02}), 500, 1_000);
    assert!(verdict == Verdict::Pass && reason.contains("ignore_below"), "{reason}");
}

#[test]
fn an_event_of_an_unknown_share_is_no_event() {
    // The challenger had no slots at the second split: its late errors there are compared with nothing.
    let mut ledger = trial(&[5_000]);
    ledger.split(&BTreeMap::from([(0, 10_000)]));
    add(&mut ledger, 0, 0, [errors(100, 2), errors(100, 3)]);
    add(&mut ledger, 1, 1, [errors(100, 40), errors(2, 2)]);
    let timeline = error_rate::timeline(&evidence(&ledger), &[]);
    assert_eq!(timeline.pooled(), [Events { exposure: 0.5, champion: 2, challenger: 3 }]);
}

#[test]
fn the_champion_is_told_before_and_in_the_present_split() {
    let mut ledger = trial(&[100, 2_500]);
    let minute =
        |runs: u64, ns: u64| Minute { ran: runs, run: durations((0..runs).map(|_| ns)), ..Minute::default() };
    add(&mut ledger, 0, 0, [minute(90, 1_000), minute(10, 3_000)]);
    add(&mut ledger, 1, 0, [minute(90, 1_000), minute(10, 3_000)]);
    add(&mut ledger, 2, 1, [minute(30, 2_000), minute(20, 3_000)]);
    let durations = Durations::from_ledger(&ledger, "v8").unwrap();
    let found = interference(&evidence(&ledger), &durations);
    assert_eq!((found.before.per_minute, found.now.per_minute), (Some(100.0), Some(50.0)));
    let p95 = [found.before.run_p95_ns, found.now.run_p95_ns].map(|ns| ns.unwrap() as f64);
    close(p95[0], 1_000.0, 0.02);
    close(p95[1], 2_000.0, 0.02);
    close(found.mean_run_ns[0].unwrap(), (180.0 * 1_000.0 + 30.0 * 2_000.0) / 210.0, 1e-9);
    close(found.mean_run_ns[1].unwrap(), 3_000.0, 1e-9);
}
