use super::*;
use crate::trial::event_ring::RawEvent;
use crate::trial::outcome::TrialError;
use crate::trial::report::{Detail, RunningTrial};
use proptest::prelude::*;

fn name(version: &str) -> ArmName {
    ArmName { version: version.into(), digest: format!("sha256:{version}"), outputs: vec!["y".into()] }
}

fn ledger() -> Ledger {
    let identity = TrialIdentity {
        attempt: "e/1/1".into(),
        champion: "v1".into(),
        digest: "sha256:v1".into(),
        sticky: None,
    };
    let mut ledger = Ledger::new(identity, name("v1"), 1_000);
    assert_eq!(ledger.arm(&name("v2")), Some(1));
    ledger.split(&BTreeMap::from([(0, 9_900), (1, 100)]));
    ledger
}

fn ran(count: u64) -> ArmReading {
    let mut delta = ArmReading::default();
    delta.counts.add_one(TrialCount::Begun, count);
    delta.counts.add_one(TrialCount::Ran, count);
    delta
}

#[test]
fn versions_and_splits_keep_their_numbers() {
    let mut ledger = ledger();
    assert_eq!((ledger.arm(&name("v1")), ledger.arm(&name("v2"))), (Some(0), Some(1)));
    // Other bytes under the same name are another version.
    assert_eq!(ledger.arm(&ArmName { digest: "sha256:other".into(), ..name("v2") }), Some(2));
    assert_eq!(ledger.split(&BTreeMap::from([(0, 9_900), (1, 100)])), (0, Some(0)));
    assert_eq!(ledger.split(&BTreeMap::from([(0, 5_000), (1, 5_000)])), (1, Some(1)));
    assert_eq!((ledger.challengers_slots(0), ledger.challengers_slots(1)), (100, 5_000));
    for slots in 0..100 {
        let (number, level) = ledger.split(&BTreeMap::from([(0, 9_000 - slots), (1, 1_000 + slots)]));
        assert_eq!(level.is_none(), usize::from(number) == MAX_LEVELS);
    }
    assert_eq!(ledger.splits.len(), MAX_LEVELS + 1);
    for version in 0..100 {
        ledger.arm(&name(&format!("w{version}")));
    }
    assert_eq!(ledger.arms.len(), MAX_ARMS);
}

#[test]
fn the_oldest_minutes_are_merged_and_the_newest_stay() {
    let mut ledger = ledger();
    let minutes = 3 * MAX_ROWS as u64;
    for minute in 0..minutes {
        ledger.add(minute * MINUTE_MS, (0, 0), &ran(1), |ns| ns);
    }
    assert_eq!((ledger.rows.len(), ledger.rows_dropped), (MAX_ROWS, 0));
    let (oldest, newest) = (&ledger.rows[0], &ledger.rows[MAX_ROWS - 1]);
    assert_eq!((oldest.minute, oldest.minutes, oldest.arms[&0].ran), (0, 10, 10));
    assert_eq!((newest.minute, newest.minutes), (minutes - 1, 1));
    assert!(ledger.rows.iter().rev().take(100).all(|row| row.minutes == 1));
    assert_eq!(ledger.rows.iter().map(|row| row.arms[&0].ran).sum::<u64>(), minutes);
}

#[test]
fn rows_of_other_windows_are_not_merged_but_dropped_and_counted() {
    let mut ledger = ledger();
    for minute in 0..MAX_ROWS as u64 + 5 {
        ledger.open_window(minute * MINUTE_MS, Vec::new());
        ledger.add(minute * MINUTE_MS, (0, 0), &ran(1), |ns| ns);
    }
    assert_eq!((ledger.rows.len(), ledger.rows_dropped, ledger.rows[0].minute), (MAX_ROWS, 5, 5));
    assert_eq!(ledger.totals()[0].counts.get(TrialCount::Ran), MAX_ROWS as u64 + 5);
}

#[test]
fn the_oldest_first_errors_fall_out_and_are_counted() {
    let mut ledger = ledger();
    let mut delta = ran(0);
    let event = |at_ns| RawEvent { at_ns, error: TrialError::Internal, after: None };
    delta.events = (0..MAX_EVENTS as u64 + 2).rev().map(event).collect();
    ledger.add(0, (0, 1), &delta, |ns| ns + 7);
    ledger.settle_events();
    assert_eq!((ledger.events.len(), ledger.events_dropped, ledger.events[0].at_ms), (MAX_EVENTS, 2, 9));
}

#[test]
fn a_clock_that_is_set_back_adds_to_the_newest_minute() {
    let mut ledger = ledger();
    ledger.add(10 * MINUTE_MS, (0, 0), &ran(1), |ns| ns);
    ledger.add(3 * MINUTE_MS, (0, 1), &ran(2), |ns| ns);
    assert_eq!((ledger.rows.len(), ledger.rows[0].minute, ledger.rows[0].arms[&1].ran), (1, 10, 2));
}

#[test]
fn a_window_begins_from_zero_and_its_rows_are_its_own() {
    let mut ledger = ledger();
    let exceeding = |bit: usize| {
        let mut delta = ran(1);
        delta.exceedances[bit] = Exceedances { compared: 1, slower_run: 1, slower_reply: 0 };
        delta
    };
    assert_eq!(ledger.open_window(0, vec![(1, 2), (3, 4)]), 1);
    ledger.add(0, (0, 1), &exceeding(1), |ns| ns);
    assert_eq!(ledger.open_window(0, vec![(1, 2), (3, 4)]), 2);
    assert_eq!(ledger.totals()[1].exceedances, Exceedances::default());
    // Compared in the first window, and read in the second.
    ledger.add(0, (0, 1), &exceeding(1), |ns| ns);
    ledger.add(0, (0, 1), &exceeding(0), |ns| ns);
    assert_eq!(ledger.totals()[1].exceedances.compared, 1);
    let rows: Vec<_> =
        ledger.rows.iter().map(|row| (row.window, row.arms[&1].exceedances.compared)).collect();
    assert_eq!(rows, [(1, 2), (2, 1)]);
}

#[test]
fn a_restart_is_a_gap_and_what_was_in_progress_is_lost() {
    let mut ledger = ledger();
    let mut delta = ran(3);
    delta.counts.add_one(TrialCount::Begun, 2);
    ledger.add(0, (0, 1), &delta, |ns| ns);
    ledger.written_ms = 5_000;
    let mut back: Ledger = serde_json::from_slice(&serde_json::to_vec(&ledger).unwrap()).unwrap();
    assert!(back.is_sound());
    back.resume(9_000);
    assert_eq!(back.gaps, [Gap { from_ms: 5_000, to_ms: 9_000 }]);
    let counts = &back.totals()[1].counts;
    assert_eq!((counts.routed(), counts.get(TrialCount::Lost), counts.in_flight()), (5, 2, 0));
    for number in 0..200 {
        back.resume(10_000 + number);
    }
    assert_eq!((back.gaps.len(), back.gaps_dropped), (MAX_GAPS, 201 - MAX_GAPS as u64));
}

#[test]
fn a_stored_ledger_whose_numbers_refer_to_nothing_is_not_sound() {
    let change = |change: fn(&mut Ledger)| {
        let mut ledger = ledger();
        ledger.add(0, (0, 1), &ran(1), |ns| ns);
        change(&mut ledger);
        ledger.is_sound()
    };
    assert!(change(|_| {}));
    assert!(!change(|ledger| ledger.rows[0].split = 9));
    assert!(!change(|ledger| ledger.arms.truncate(1)));
    assert!(!change(|ledger| ledger.splits.clear()));
}

#[test]
fn a_report_names_versions_and_outputs() {
    let mut ledger = ledger();
    let mut delta = ran(2);
    delta.nan.insert(0, 2);
    delta.events = vec![RawEvent { at_ns: 5, error: TrialError::BackendFailed, after: Some(0) }];
    ledger.add(MINUTE_MS, (0, 1), &delta, |ns| ns);
    let running = RunningTrial { split: Some(0), ..RunningTrial::default() };
    let report = ledger.report(&running, Detail::Whole);
    let challenger = &report["arms"][1];
    assert_eq!((&challenger["version"], &challenger["slots"]), (&"v2".into(), &100.into()));
    assert_eq!(challenger["nan_by_output"]["y"], 2);
    assert_eq!((&challenger["routed"], &challenger["ran"]), (&2.into(), &2.into()));
    assert_eq!(report["minutes"][0]["arms"]["v2"]["ran"], 2);
    let event = &report["first_errors"][0];
    assert_eq!((&event["version"], &event["code"]), (&"v2".into(), &"backend_failed".into()));
    assert!(ledger.report(&running, Detail::Summary).get("minutes").is_none());
}

proptest! {
    /// Whatever order minutes and arms come in, rows add up to the totals, also those that were merged.
    #[test]
    fn rows_add_up_to_the_totals(
        deltas in proptest::collection::vec((0u64..20, 0u8..2, 0u8..2, 0u64..5), 0..100),
        before in 0u64..1_000,
    ) {
        let mut ledger = ledger();
        ledger.split(&BTreeMap::from([(0, 5_000), (1, 5_000)]));
        (0..before).for_each(|minute| ledger.add(minute * MINUTE_MS, (0, 0), &ran(1), |ns| ns));
        for (minute, split, arm, count) in deltas {
            let minute = before + minute;
            ledger.add(minute * MINUTE_MS, (split, arm), &ran(count), |ns| ns);
        }
        for arm in 0..2u8 {
            let rows = ledger.rows.iter().filter_map(|row| row.arms.get(&arm)).map(|counts| counts.ran).sum::<u64>();
            prop_assert_eq!(rows, ledger.totals()[usize::from(arm)].counts.get(TrialCount::Ran));
        }
        let minutes: Vec<_> = ledger.rows.iter().map(|row| row.minute).collect();
        prop_assert!(minutes.is_sorted());
    }
}
