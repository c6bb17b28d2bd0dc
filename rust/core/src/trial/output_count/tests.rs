use std::sync::Arc;

use super::*;
use crate::stats::difference_sequence::Distance;
use crate::stats::testing::close;
use crate::trial::arm::{ArmReading, TrialArm, TrialEnd, TrialShared};
use crate::trial::ledger::{ArmName, TrialIdentity};
use crate::trial::outcome::{RequestEnd, RunStage};
use crate::trial::outputs::{OutputBins, OutputPlace, Reference, VersionOutputs, WatchedFeature};
use crate::trial::units::{Side, UnitTable};

fn name(version: &str) -> ArmName {
    ArmName { version: version.into(), digest: version.into(), outputs: vec!["y".into()] }
}

fn watched(edges: &[f64]) -> WatchedOutputs {
    let counts = vec![5; edges.len() + 1];
    let feature = WatchedFeature::new("y", "y", 0, Reference { edges, counts: &counts, apart: [0; 3] });
    WatchedOutputs::new(vec![feature.unwrap()]).unwrap()
}

fn ledger(sticky: Option<&str>, slots: &[u16]) -> Ledger {
    let sticky = sticky.map(str::to_owned);
    let identity =
        TrialIdentity { attempt: "e/1".into(), champion: "v7".into(), digest: "v7".into(), sticky };
    let mut ledger = Ledger::new(identity, name("v7"), 0);
    ledger.arm(&name("v8"));
    for &slots in slots {
        ledger.split(&BTreeMap::from([(0, 10_000 - slots), (1, slots)]));
    }
    ledger.watch(Some(&watched(&[0.0])));
    ledger
}

/// Values of an arm in bins 1 and 2, of units with an earlier answer of the champion.
fn reading(earlier: Option<u8>, low: u64, high: u64) -> ArmReading {
    let mut reading = ArmReading { outputs_digest: watched(&[0.0]).digest, ..ArmReading::default() };
    reading.outputs.insert(earlier, vec![0, low, high, 0, 0]);
    for count in [TrialCount::Begun, TrialCount::Ran] {
        reading.counts.add_one(count, low + high);
    }
    reading
}

fn sums(ledger: &Ledger) -> DifferenceSums {
    ledger.outputs.as_ref().unwrap().features[0].sums[&1].clone()
}

#[test]
fn values_are_compared_at_the_weight_at_which_they_came() {
    let mut ledger = ledger(Some("x-user"), &[1_000, 5_000]);
    ledger.add(0, (0, 0), &reading(None, 45, 45), |ns| ns);
    ledger.add(0, (0, 1), &reading(None, 2, 8), |ns| ns);
    ledger.settle_outputs();
    close(sums(&ledger).information, 0.09 * 100.0, 1e-12);
    // The reference has half of its values in each bin: 0.9 * (8 - 5) - 0.1 * (45 - 45).
    close(sums(&ledger).sums[2], 2.7, 1e-12);
    // Units with an answer of the champion at 10 % had none of these slots: they come to the challenger with 4 000 of 9 000.
    ledger.add(1, (1, 0), &reading(Some(0), 5, 0), |ns| ns);
    ledger.add(1, (1, 1), &reading(Some(0), 4, 0), |ns| ns);
    ledger.settle_outputs();
    let weight = 4.0 / 9.0;
    close(sums(&ledger).information, 9.0 + weight * (1.0 - weight) * 9.0, 1e-12);
    let feature = &ledger.outputs.as_ref().unwrap().features[0];
    assert_eq!((feature.values(0), feature.values(1)), (95, 14));
    // Back at 10 % nobody with such an answer can be the challenger's.
    let before = sums(&ledger);
    ledger.add(2, (0, 0), &reading(Some(1), 5, 0), |ns| ns);
    ledger.settle_outputs();
    assert_eq!(sums(&ledger), before);
}

#[test]
fn what_is_expected_does_not_depend_on_the_values_that_it_is_taken_from() {
    let mut ledger = ledger(Some("x-user"), &[5_000]);
    for arm in [0, 1] {
        ledger.add(0, (0, arm), &reading(None, 0, 100), |ns| ns);
    }
    ledger.settle_outputs();
    // Half was expected, of both alike.
    close(sums(&ledger).squares[2], 200.0 * 0.25 * 0.25, 1e-12);
    for arm in [0, 1] {
        ledger.add(1, (0, arm), &reading(None, 0, 100), |ns| ns);
    }
    ledger.settle_outputs();
    // 250 of 300 now.
    let expected = 250.0 / 300.0;
    close(sums(&ledger).squares[2], 12.5 + 200.0 * 0.25 * (1.0 - expected) * (1.0 - expected), 1e-9);
    close(sums(&ledger).estimate(Distance::Ks), 0.0, 1e-12);
}

#[test]
fn without_keys_a_version_that_answers_less_has_a_smaller_weight() {
    let mut with_errors = reading(None, 150, 150);
    with_errors.counts.add_one(TrialCount::Begun, 300);
    with_errors.counts.add_one(TrialCount::Shed, 300);
    for (sticky, weight) in [(None, 1.0 / 3.0), (Some("x-user"), 0.5)] {
        let mut ledger = ledger(sticky, &[5_000]);
        ledger.add(0, (0, 0), &reading(None, 300, 300), |ns| ns);
        ledger.add(0, (0, 1), &with_errors, |ns| ns);
        ledger.settle_outputs();
        close(sums(&ledger).information, weight * (1.0 - weight) * 900.0, 1e-12);
    }
}

#[test]
fn other_bins_begin_anew_and_late_values_of_the_old_ones_count_for_nothing() {
    let mut ledger = ledger(None, &[5_000]);
    ledger.add(0, (0, 1), &reading(None, 1, 2), |ns| ns);
    ledger.settle_outputs();
    ledger.watch(Some(&watched(&[0.0])));
    assert_eq!(ledger.outputs.as_ref().unwrap().features[0].values(1), 3);
    ledger.watch(Some(&watched(&[0.0, 1.0])));
    ledger.add(0, (0, 1), &reading(None, 1, 2), |ns| ns);
    ledger.settle_outputs();
    assert_eq!(ledger.outputs.as_ref().unwrap().features[0].values(1), 0);
}

#[test]
fn a_stored_ledger_goes_on_and_one_that_contradicts_itself_is_refused() {
    let mut before = ledger(Some("x-user"), &[5_000]);
    before.add(0, (0, 0), &reading(None, 10, 20), |ns| ns);
    before.add(0, (0, 1), &reading(None, 20, 10), |ns| ns);
    before.settle_outputs();
    let stored = serde_json::to_string(&before).unwrap();
    let mut back: Ledger = serde_json::from_str(&stored).unwrap();
    assert!(back.is_sound());
    for ledger in [&mut before, &mut back] {
        ledger.add(1, (0, 1), &reading(None, 7, 7), |ns| ns);
        ledger.settle_outputs();
    }
    assert_eq!(sums(&back), sums(&before));
    let features = &mut back.outputs.as_mut().unwrap().features;
    features[0].counts.insert(7, vec![0; 5]);
    assert!(!back.is_sound());
    let without: Ledger = serde_json::from_str(&stored.replace("\"outputs\":{", "\"other\":{")).unwrap();
    assert!(without.is_sound() && without.outputs.is_none());
}

fn arms(ledger: &mut Ledger) -> (Arc<TrialShared>, [TrialArm; 2]) {
    let shared = Arc::new(TrialShared::new(Some(UnitTable::default())));
    shared.challengers_slots[0].store(5_000, std::sync::atomic::Ordering::Relaxed);
    let place = OutputPlace { output: 0, element: 0, width: 1 };
    let outputs = Arc::new(VersionOutputs { watched: Arc::new(watched(&[0.0])), places: vec![Some(place)] });
    ledger.watch(Some(&outputs.watched));
    let arm = |number, side| {
        TrialArm::new(shared.clone(), number, side, Some(0), 1).with_outputs(Some(outputs.clone()))
    };
    let both = [arm(0, Side::Champion), arm(1, Side::Challenger)];
    (shared, both)
}

/// An answer of a unit whose only feature has this bin, or a run that fails.
fn ends(arm: &TrialArm, unit: u32, bin: Option<u16>) {
    let request = arm.begin(0, Some(unit), 1);
    let mut bins = OutputBins::default();
    if let Some(bin) = bin {
        bins.set(0, bin);
    }
    let code = bin.is_none().then_some(crate::error::Code::BackendFailed);
    let stage = if bin.is_some() { RunStage::Succeeded } else { RunStage::Begun };
    let end = RequestEnd { code, stage, passed_on: None, is_cut_off: false, is_non_finite: false };
    let ended =
        TrialEnd { end, now_ns: 2, run_ns: Some(1), is_settled: true, is_replied: true, outputs: None, bins };
    arm.end(0, request, &ended);
}

#[test]
fn a_unit_counts_once_and_not_before_it_has_an_answer() {
    let mut ledger = ledger(Some("x-user"), &[5_000]);
    let (_shared, [champion, challenger]) = arms(&mut ledger);
    ends(&challenger, 7, None);
    let request = challenger.begin(0, Some(7), 1);
    assert!(challenger.wanted_outputs(&request).is_some());
    ends(&challenger, 7, Some(1));
    assert!(challenger.wanted_outputs(&request).is_none());
    ends(&challenger, 7, Some(2));
    ends(&champion, 8, Some(2));
    ends(&champion, 8, Some(2));
    for (number, arm) in [(0, &champion), (1, &challenger)] {
        ledger.add(0, (0, number), &arm.read().since(&ArmReading::default()), |ns| ns);
    }
    ledger.settle_outputs();
    let feature = &ledger.outputs.as_ref().unwrap().features[0];
    assert_eq!(feature.counts[&0], [0, 0, 1, 0, 0]);
    assert_eq!(feature.counts[&1], [0, 1, 0, 0, 0]);
    // What was read once is not read again.
    let read = champion.read();
    assert!(read.since(&read).outputs.is_empty());
}
