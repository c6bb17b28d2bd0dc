use std::collections::{HashMap, HashSet};

use super::*;
use crate::error::Code;
use crate::trial::counts::{Exceedances, OUTCOMES};
use crate::trial::outcome::PassedOn;
use proptest::prelude::*;

/// A way in which a request ends.
fn any_end() -> impl Strategy<Value = RequestEnd> {
    let stage = prop_oneof![Just(RunStage::NotBegun), Just(RunStage::Begun), Just(RunStage::Succeeded)];
    let passed_on = prop_oneof![
        Just(None),
        Just(Some(PassedOn::Answered)),
        Just(Some(PassedOn::Unanswered)),
        Just(Some(PassedOn::Mistaken))
    ];
    let code = proptest::option::weighted(0.6, proptest::sample::select(Code::ALL));
    (code, stage, passed_on, any::<bool>(), any::<bool>()).prop_map(
        |(code, stage, passed_on, is_cut_off, is_non_finite)| RequestEnd {
            stage: if code.is_none() { RunStage::Succeeded } else { stage },
            code,
            passed_on: passed_on.filter(|_| code.is_some()),
            is_cut_off,
            is_non_finite,
        },
    )
}

/// A request of a test: on which side, thread and unit, and how it ends.
#[derive(Clone, Debug)]
struct Request {
    challenger: bool,
    thread: usize,
    unit: Option<u32>,
    end: RequestEnd,
    nan: u64,
    took_ns: u64,
}

fn any_request() -> impl Strategy<Value = Request> {
    let unit = prop_oneof![Just(None), (0u32..6).prop_map(Some)];
    (any::<bool>(), 0usize..3, unit, any_end(), 0u64..4, 1u64..5_000).prop_map(
        |(challenger, thread, unit, end, nan, took_ns)| Request {
            challenger,
            thread,
            unit,
            end,
            nan,
            took_ns,
        },
    )
}

fn arms(units: bool) -> [TrialArm; 2] {
    let shared = Arc::new(TrialShared::new(units.then(UnitTable::default)));
    shared.challengers_slots[0].store(100, Relaxed);
    let arm = |arm, side| TrialArm::new(shared.clone(), arm, side, Some(0), 3);
    [arm(0, Side::Champion), arm(1, Side::Challenger)]
}

fn ended(request: &Request, now_ns: u64) -> TrialEnd {
    TrialEnd {
        end: request.end,
        now_ns,
        run_ns: (request.end.stage == RunStage::Succeeded).then_some(request.took_ns / 2),
        is_settled: true,
        is_replied: true,
        outputs: Some(NonFiniteOutputs { nan: request.nan, ..NonFiniteOutputs::default() }),
        bins: OutputBins::default(),
    }
}

/// What a plain count of the requests says.
#[derive(Default)]
struct Plain {
    outcomes: HashMap<(bool, &'static str), u64>,
    seen: HashMap<u32, HashSet<bool>>,
    erred: HashSet<u32>,
    refused: HashSet<u32>,
    /// By side: first requests, units, first errors, answers with a NaN, first refusals.
    firsts: [[u64; 5]; 2],
}

impl Plain {
    fn count(&mut self, request: &Request, has_units: bool) {
        let outcome = TrialOutcome::of(&request.end);
        let name = match outcome {
            TrialOutcome::Ran(_) => "ran",
            TrialOutcome::Shed => "shed",
            TrialOutcome::NotReady => "not_ready",
            TrialOutcome::FellBack => "fell_back",
            TrialOutcome::Cancelled => "cancelled",
            TrialOutcome::Lost => "lost",
            TrialOutcome::ClientMistake => "client_mistakes",
        };
        *self.outcomes.entry((request.challenger, name)).or_insert(0) += 1;
        if outcome == TrialOutcome::ClientMistake {
            return;
        }
        let firsts = &mut self.firsts[usize::from(request.challenger)];
        let unit = request.unit.filter(|_| has_units);
        if let TrialOutcome::Ran(error) = outcome {
            if error.is_some() && unit.is_none_or(|unit| self.erred.insert(unit)) {
                firsts[2] += 1;
            }
            firsts[3] += u64::from(request.nan != 0 && request.end.stage == RunStage::Succeeded);
        }
        if matches!(outcome, TrialOutcome::Shed | TrialOutcome::NotReady | TrialOutcome::FellBack)
            && unit.is_none_or(|unit| self.refused.insert(unit))
        {
            firsts[4] += 1;
        }
        let Some(unit) = unit else {
            firsts[0] += 1;
            firsts[1] += 1;
            return;
        };
        let sides = self.seen.entry(unit).or_default();
        firsts[0] += u64::from(sides.is_empty());
        firsts[1] += u64::from(sides.insert(request.challenger));
    }
}

proptest! {
    /// The identity, and all counters against a plain count, over every way in which requests end, side by side and on several threads.
    #[test]
    fn the_counters_are_those_of_a_plain_count(
        requests in proptest::collection::vec(any_request(), 0..60), has_units in any::<bool>(),
    ) {
        let arms = arms(has_units);
        let mut plain = Plain::default();
        let begun: Vec<_> = requests
            .iter()
            .map(|request| arms[usize::from(request.challenger)].begin(request.thread, request.unit, 1_000))
            .collect();
        for arm in &arms {
            let counts = arm.read().counts;
            prop_assert_eq!(counts.in_flight(), counts.routed());
        }
        for (request, begun) in requests.iter().zip(begun) {
            arms[usize::from(request.challenger)].end(request.thread, begun, &ended(request, 1_000 + request.took_ns));
            plain.count(request, has_units);
        }
        for (challenger, arm) in [(false, &arms[0]), (true, &arms[1])] {
            let reading = arm.read();
            let counts = &reading.counts;
            prop_assert_eq!(counts.in_flight(), 0);
            prop_assert_eq!(counts.routed(), OUTCOMES.iter().map(|&outcome| counts.get(outcome)).sum::<u64>());
            for outcome in OUTCOMES.iter().chain(&[TrialCount::ClientMistakes]) {
                let expected = plain.outcomes.get(&(challenger, outcome.as_str())).copied().unwrap_or(0);
                prop_assert_eq!(counts.get(*outcome), expected, "{:?}", outcome);
            }
            let firsts = [TrialCount::FirstRequests, TrialCount::Units, TrialCount::FirstErrors, TrialCount::NanAnswers, TrialCount::FirstRefusals];
            prop_assert_eq!(firsts.map(|count| counts.get(count)), plain.firsts[usize::from(challenger)]);
            prop_assert_eq!(reading.events.len() as u64, counts.get(TrialCount::FirstErrors));
            prop_assert!(counts.errors() >= counts.get(TrialCount::FirstErrors));
            prop_assert!(counts.errors() <= counts.get(TrialCount::Ran));
        }
    }

    /// Only the first request of a unit is compared, and each of an endpoint without a key; a failure counts as slower.
    #[test]
    fn exceedances_are_those_of_first_requests(
        requests in proptest::collection::vec(any_request(), 0..60), has_units in any::<bool>(),
    ) {
        let arms = arms(has_units);
        arms[0].shared.open_window(1, &[(1_000, 2_000), (1_000, 2_000)]);
        let mut compared: HashSet<u32> = HashSet::new();
        let mut expected = [Exceedances::default(); 2];
        for request in &requests {
            let arm = &arms[usize::from(request.challenger)];
            let begun = arm.begin(request.thread, request.unit, 10);
            arm.end(request.thread, begun, &ended(request, 10 + request.took_ns));
            let failed = match TrialOutcome::of(&request.end) {
                TrialOutcome::Ran(error) => error.is_some(),
                TrialOutcome::Cancelled if request.took_ns > 2_000 => false,
                _ => continue,
            };
            let unit = request.unit.filter(|_| has_units);
            if unit.is_some_and(|unit| !compared.insert(unit)) {
                continue;
            }
            let ran = request.end.stage == RunStage::Succeeded && request.end.code != Some(Code::Cancelled);
            let sum = &mut expected[usize::from(request.challenger)];
            sum.add(Exceedances {
                compared: 1,
                slower_run: u64::from(failed || (ran && request.took_ns / 2 > 1_000)),
                slower_reply: u64::from(failed || request.took_ns > 2_000),
            });
        }
        for (arm, expected) in arms.iter().zip(expected) {
            prop_assert_eq!(arm.read().exceedances[1], expected);
            prop_assert_eq!(arm.read().exceedances[0], Exceedances::default());
        }
    }
}

fn success(took_ns: u64) -> Request {
    let end = RequestEnd {
        code: None,
        stage: RunStage::Succeeded,
        passed_on: None,
        is_cut_off: false,
        is_non_finite: false,
    };
    Request { challenger: false, thread: 0, unit: Some(7), end, nan: 0, took_ns }
}

#[test]
fn a_request_in_progress_is_slower_once_it_is_over_the_threshold() {
    let [champion, _] = arms(true);
    champion.shared.open_window(1, &[(0, 500)]);
    let request = champion.begin(0, Some(7), 100);
    assert_eq!(champion.running_slower(600), (0, 0));
    assert_eq!(champion.running_slower(601), (1, 0));
    champion.end(0, request, &ended(&success(700), 800));
    assert_eq!(champion.running_slower(10_000), (0, 0));
    let slower = Exceedances { compared: 1, slower_run: 0, slower_reply: 1 };
    assert_eq!(champion.read().exceedances[1], slower);
}

#[test]
fn what_began_in_another_window_is_not_compared_and_the_next_window_takes_the_unit_again() {
    let [champion, _] = arms(true);
    champion.shared.open_window(1, &[(0, 500)]);
    let old = champion.begin(0, Some(7), 0);
    champion.shared.close_window();
    champion.shared.open_window(2, &[(0, 500)]);
    let new = champion.begin(0, Some(7), 0);
    champion.end(0, old, &ended(&success(700), 700));
    champion.end(0, new, &ended(&success(700), 700));
    let reading = champion.read();
    assert_eq!((reading.exceedances[0].compared, reading.exceedances[1].compared), (1, 0));
}

#[test]
fn times_of_an_unsettled_version_count_for_nothing() {
    let [champion, _] = arms(true);
    champion.shared.open_window(1, &[(1, 1)]);
    let request = champion.begin(0, Some(7), 0);
    champion.end(0, request, &TrialEnd { is_settled: false, ..ended(&success(700), 700) });
    let reading = champion.read();
    assert_eq!((reading.run.total(), reading.exceedances[1].compared), (0, 0));
    assert_eq!((reading.counts.get(TrialCount::Unsettled), reading.counts.get(TrialCount::Ran)), (1, 1));
    // The unit's next request is compared in its place.
    let request = champion.begin(0, Some(7), 0);
    champion.end(0, request, &ended(&success(700), 700));
    assert_eq!(champion.read().exceedances[1].compared, 1);
}

#[test]
fn an_answer_that_its_client_did_not_take_has_no_time_to_the_reply() {
    let [champion, _] = arms(true);
    let exceedances = |thresholds: (u64, u64), took_ns: u64| {
        champion.shared.close_window();
        champion.shared.open_window(2, &[thresholds]);
        let before = champion.read();
        let request = champion.begin(0, Some(7), 0);
        champion.end(0, request, &TrialEnd { is_replied: false, ..ended(&success(took_ns), took_ns) });
        let reading = champion.read().since(&before);
        assert_eq!((reading.run.total(), reading.reply.total()), (1, 0));
        let Exceedances { compared, slower_run, slower_reply } = reading.exceedances[0];
        (compared, slower_run, slower_reply)
    };
    assert_eq!(exceedances((100, 1_000), 700), (0, 0, 0));
    assert_eq!(exceedances((100, 500), 700), (1, 1, 1));
    assert_eq!(exceedances((100, 0), 700), (1, 1, 0));
}

#[test]
fn beyond_the_splits_an_error_counts_and_has_no_place() {
    let shared = Arc::new(TrialShared::new(None));
    let arm = TrialArm::new(shared, 1, Side::Challenger, None, 1);
    let request = arm.begin(0, None, 0);
    let end = RequestEnd { code: Some(Code::Internal), stage: RunStage::Begun, ..success(1).end };
    arm.end(0, request, &ended(&Request { end, ..success(1) }, 1));
    let reading = arm.read();
    assert_eq!((reading.counts.get(TrialCount::UnplacedErrors), reading.events.len()), (1, 0));
}

#[test]
fn what_is_no_evidence_is_counted_apart() {
    let [champion, _] = arms(true);
    for why in [NotCompared::ByRule, NotCompared::Direct, NotCompared::Direct, NotCompared::Fallback] {
        champion.count_apart(2, why);
    }
    let counts = champion.read().counts;
    let apart = [TrialCount::ByRule, TrialCount::Direct, TrialCount::Fallback].map(|count| counts.get(count));
    assert_eq!((apart, counts.routed()), ([1, 2, 1], 0));
}

#[test]
fn an_error_after_one_on_the_champion_is_counted_by_the_split_of_that() {
    let shared = Arc::new(TrialShared::new(Some(UnitTable::default())));
    for (level, slots) in [(0, 100), (1, 2_500)] {
        shared.challengers_slots[level].store(slots, Relaxed);
    }
    let arm = |number, side, level| TrialArm::new(shared.clone(), number, side, Some(level), 1);
    let (before, champion, challenger) =
        (arm(0, Side::Champion, 0), arm(0, Side::Champion, 1), arm(1, Side::Challenger, 1));
    let request = |arm: &TrialArm, unit: u32, code: Code, stage: RunStage| {
        let end = RequestEnd { code: Some(code), stage, ..success(5).end };
        let begun = arm.begin(0, Some(unit), 1);
        arm.end(0, begun, &TrialEnd { end, ..ended(&success(5), 6) });
    };
    for unit in 0..3 {
        request(&before, unit, Code::BackendFailed, RunStage::Begun);
        request(&before, unit, Code::Overloaded, RunStage::NotBegun);
    }
    request(&challenger, 0, Code::BackendFailed, RunStage::Begun);
    request(&challenger, 1, Code::Overloaded, RunStage::NotBegun);
    let first = challenger.read();
    request(&champion, 2, Code::Internal, RunStage::Begun);
    request(&challenger, 7, Code::Internal, RunStage::Begun);
    assert_eq!((&first.errors_after, &first.refusals_after), (&[(0, 1)].into(), &[(0, 1)].into()));
    assert_eq!(champion.read().errors_after, [(0, 1)].into());
    assert_eq!(before.read().errors_after, [].into());
    let second = challenger.read().since(&first);
    assert_eq!((second.errors_after, second.counts.get(TrialCount::FirstErrors)), ([].into(), 1));
}
