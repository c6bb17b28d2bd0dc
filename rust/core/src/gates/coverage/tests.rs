use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::feedback::declared::{FeedbackKind, FeedbackSpec, Good, Range};
use crate::trial::arm::ArmReading;
use crate::trial::counts::TrialCount;
use crate::trial::feedback::GivenFeedback;
use crate::trial::ledger::{ArmName, Ledger, MINUTE_MS, TrialIdentity};
use crate::trial::report::RunningTrial;
use crate::trial::units::UnitTable;

const SPEC: FeedbackSpec = FeedbackSpec {
    kind: FeedbackKind::Label,
    range: Range::LABEL,
    good: Good::High,
    within_ms: 2 * HOUR_MS,
    coverage: Some(8_000),
};

/// A trial with one split.
fn trial() -> Ledger {
    let name = |version: &str| ArmName { version: version.into(), digest: version.into(), outputs: vec![] };
    let identity = TrialIdentity {
        attempt: "e/1".into(),
        champion: "v7".into(),
        digest: "v7".into(),
        sticky: Some("header.x".into()),
    };
    let mut ledger = Ledger::new(identity, name("v7"), 0);
    ledger.arm(&name("v8"));
    ledger.split(&BTreeMap::from([(0, 5_000), (1, 5_000)]));
    ledger
}

/// Runs of both versions in an hour; so many of them failed.
fn run(ledger: &mut Ledger, hour: u64, ran: u64, failed: u64) {
    for arm in [0, 1] {
        let mut reading = ArmReading::default();
        for (count, number) in
            [(TrialCount::Begun, ran), (TrialCount::Ran, ran), (TrialCount::BackendFailed, failed)]
        {
            reading.counts.add_one(count, number);
        }
        ledger.add(hour * 60 * MINUTE_MS, (0, arm), &reading, |ns| ns);
    }
}

/// Feedback of as many units on answers of an hour.
fn give(ledger: &mut Ledger, hour: u32, arm: u8, units: std::ops::Range<u32>, table: &UnitTable) {
    for unit in units {
        let given = GivenFeedback { arm, split: 0, unit: Some(unit), issued_s: hour * 3_600, value: 1.0 };
        ledger.add_feedback("sale", &SPEC, given, Some(table));
    }
}

fn coverage(ledger: &Ledger, now_hour: u64) -> Coverage {
    let running = RunningTrial { now_ms: now_hour * HOUR_MS, ..RunningTrial::default() };
    let evidence = Evidence::from_ledger(ledger, &running, "v8").unwrap();
    of(&evidence, &evidence.feedback[0])
}

fn lack(found: &Coverage) -> Option<String> {
    found.lack("sale", &["v7".to_owned(), "v8".to_owned()])
}

#[test]
fn every_receipt_of_a_good_answer_counts() {
    let (mut ledger, table) = (trial(), UnitTable::default());
    run(&mut ledger, 1, 100, 20);
    give(&mut ledger, 1, 0, 0..50, &table);
    // The same units again, on other answers.
    give(&mut ledger, 1, 0, 0..20, &table);
    give(&mut ledger, 1, 1, 100..140, &table);
    let found = coverage(&ledger, 2);
    assert_eq!(found.all, [Covered { answers: 80.0, given: 70 }, Covered { answers: 80.0, given: 40 }]);
    assert_eq!(found.settled, [Covered::default(); 2]);
    assert_eq!((found.share(0), found.share(1), found.least()), (Some(0.875), Some(0.5), Some(0.8)));
    let wanted = "50.0 % of the answers of v8 have feedback sale, and its coverage asks for 80 %";
    assert_eq!(lack(&found).as_deref(), Some(wanted));
    give(&mut ledger, 1, 1, 140..164, &table);
    assert_eq!(lack(&coverage(&ledger, 2)), None);
}

#[test]
fn what_may_still_come_is_not_missing() {
    let (mut ledger, table) = (trial(), UnitTable::default());
    run(&mut ledger, 1, 100, 0);
    run(&mut ledger, 4, 100, 0);
    for arm in [0, 1] {
        let first = u32::from(arm) * 1_000;
        give(&mut ledger, 1, arm, first..first + 90, &table);
    }
    // Answers of the hour 4 are younger than two hours until the hour 7 begins.
    let found = coverage(&ledger, 6);
    assert_eq!((found.all[0].share(), found.settled[0].share()), (Some(0.45), Some(0.9)));
    assert_eq!((found.share(0), lack(&found)), (Some(0.9), None));
    let later = coverage(&ledger, 7);
    assert_eq!(later.settled[1], Covered { answers: 200.0, given: 90 });
    let words = lack(&later).unwrap();
    assert!(words.starts_with("45.0 % of the answers of v8 that are older than within have"), "{words}");
}

#[test]
fn without_a_declared_share_none_is_missing() {
    let (mut ledger, table) = (trial(), UnitTable::default());
    run(&mut ledger, 1, 100, 0);
    give(&mut ledger, 1, 0, 0..1, &table);
    assert!(lack(&coverage(&ledger, 9)).is_some());
    ledger.feedback[0].coverage = None;
    assert_eq!((lack(&coverage(&ledger, 9)), coverage(&ledger, 9).least()), (None, None));
}

#[test]
fn hours_are_left_out_of_which_one_half_is_not_known_any_more() {
    let (mut ledger, table) = (trial(), UnitTable::default());
    for hour in 1..=3 {
        run(&mut ledger, hour, 100, 0);
        give(&mut ledger, hour as u32, 0, 0..90, &table);
    }
    let running = RunningTrial { now_ms: 4 * HOUR_MS, ..RunningTrial::default() };
    let whole = Evidence::from_ledger(&ledger, &running, "v8").unwrap();
    assert_eq!(of(&whole, &whole.feedback[0]).all[0].answers, 300.0);
    let mut without_rows = whole.clone();
    without_rows.rows_dropped = 1;
    without_rows.rows.retain(|row| row.minute > 60);
    assert_eq!(of(&without_rows, &without_rows.feedback[0]).all[0], Covered { answers: 200.0, given: 180 });
    let mut without_strata = whole.clone();
    without_strata.feedback[0].dropped = 90;
    without_strata.feedback[0].strata.remove(0);
    let found = of(&without_strata, &without_strata.feedback[0]);
    assert_eq!(found.all[0], Covered { answers: 100.0, given: 90 });
    // A merged row counts in part for the hours that it lies in.
    let mut merged = whole;
    merged.rows[1].minute = 170;
    merged.rows[1].minutes = 20;
    assert_eq!(covered(&merged, &merged.feedback[0], (0, 3))[0].answers, 150.0);
}

proptest! {
    /// A share is one, more feedback never lowers it, and something is said exactly if a version has less than is asked for.
    #[test]
    fn a_share_is_a_share(
        hours in proptest::collection::vec((0u64..40, 0u32..50, 0u32..50), 1..6), now in 0u64..12, asked in 1u16..=10_000,
    ) {
        let (mut ledger, table) = (trial(), UnitTable::default());
        for (hour, &(ran, of_champion, of_challenger)) in hours.iter().enumerate() {
            run(&mut ledger, hour as u64, ran, 0);
            give(&mut ledger, hour as u32, 0, 0..of_champion, &table);
            give(&mut ledger, hour as u32, 1, 500..500 + of_challenger, &table);
        }
        prop_assume!(!ledger.feedback.is_empty());
        ledger.feedback[0].coverage = Some(asked);
        let found = coverage(&ledger, now);
        let shares = [0, 1].map(|arm| found.share(arm));
        prop_assert!(shares.iter().flatten().all(|share| (0.0..=1.0).contains(share)));
        let least = found.least().unwrap();
        prop_assert_eq!(lack(&found).is_some(), shares.iter().flatten().any(|share| *share < least));
        give(&mut ledger, 0, 1, 900..910, &table);
        let more = coverage(&ledger, now);
        prop_assert!(more.share(1) >= found.share(1));
    }
}
