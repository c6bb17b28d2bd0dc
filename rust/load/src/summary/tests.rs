use headgate_core::stats::codes::BatchCounts;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::records::Records;
use crate::records::{Outcome, Record, SLOWER_THAN_ANY, code_of, highest_ns};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn good(due_ns: u64, response_ns: u64) -> Record {
    let code = code_of(response_ns);
    Record { due_us: (due_ns / 1_000) as u32, response: code, service: code, outcome: Outcome::Good, kind: 0 }
}

fn bad(due_ns: u64, outcome: Outcome) -> Record {
    let slower = SLOWER_THAN_ANY;
    Record { due_us: (due_ns / 1_000) as u32, response: slower, service: slower, outcome, kind: 0 }
}

fn records(all: impl IntoIterator<Item = Record>) -> Records {
    let mut found = Records::default();
    all.into_iter().for_each(|record| found.push(record));
    found
}

fn asked(records: &Records, question: &Value) -> Value {
    let groups = ["a".to_owned(), "b".to_owned()];
    let question = Question::parse(&question.to_string()).unwrap();
    summarise(Measured { records, groups: &groups, timeout_ns: 5 * SECOND }, &question)
}

fn close_ns(found: &Value, wanted_ns: u64) {
    let found = found.as_u64().unwrap();
    assert!(found >= wanted_ns && found as f64 <= wanted_ns as f64 * 1.001, "{found} for {wanted_ns}");
}

/// 100 requests a second for ten seconds, of 1 ms each, one after another; the server stalls from 5 s to 6 s.
fn stalled() -> Records {
    let mut free_ns = 0;
    records((0..1_000).map(|at| {
        let due_ns = at * 10 * MS;
        let sent_ns = due_ns.max(free_ns);
        let start_ns = if (5 * SECOND..6 * SECOND).contains(&sent_ns) { 6 * SECOND } else { sent_ns };
        free_ns = start_ns + MS;
        let (response, service) = (code_of(free_ns - due_ns), code_of(free_ns - sent_ns));
        Record { service, response, ..good(due_ns, 0) }
    }))
}

#[test]
fn a_stall_shows_from_the_due_time_and_hardly_from_sending() {
    let (records, quantiles) = (stalled(), [0.5, 0.9, 0.95, 0.99, 0.999]);
    let found = asked(&records, &json!({"quantiles": quantiles, "from_ns": 0}));
    for (at, wanted) in [1, 101, 551, 911, 992].into_iter().enumerate() {
        close_ns(&found["response"]["quantiles"][at]["value_ns"], wanted * MS);
        close_ns(&found["service"]["quantiles"][at]["value_ns"], MS);
    }
    close_ns(&found["response"]["max_ns"], 1_001 * MS);
    assert_eq!(BatchCounts::of(&records.response).slower_than(code_of(MS)), 112);
    let inflation = found["response"]["quantiles"][3]["inflation"].as_f64().unwrap();
    assert!(inflation > 20.0, "requests of one stall are not independent: {inflation}");
    assert_eq!(found["response"]["quantiles"][3]["high_ns"], Value::Null);
}

#[test]
fn a_quantile_among_requests_without_an_answer_is_at_least_the_timeout() {
    let outcomes = [Outcome::Shed, Outcome::Failed, Outcome::TimedOut, Outcome::Unsent];
    let records = records((0..1_000).map(|at| match at {
        _ if at % 10 == 0 => bad(at * MS, outcomes[at as usize / 10 % 4]),
        _ => good(at * MS, 3 * MS),
    }));
    let found = asked(&records, &json!({"quantiles": [0.5, 0.95], "from_ns": 0}));
    let [middle, high] = [0, 1].map(|at| &found["response"]["quantiles"][at]);
    close_ns(&middle["value_ns"], 3 * MS);
    assert_eq!((&middle["censored"], &high["censored"]), (&json!(false), &json!(true)));
    assert_eq!(
        (&high["value_ns"], &high["low_ns"], &high["high_ns"]),
        (&json!(5 * SECOND), &json!(5 * SECOND), &Value::Null)
    );
    assert_eq!(
        found["service"]["quantiles"][1],
        json!({"quantile": 0.95, "value_ns": 5 * SECOND, "censored": true})
    );
    close_ns(&found["response"]["max_ns"], 3 * MS);
    let counts = json!({"due": 1_000, "sent": 975, "good": 900, "shed": 25, "failed": 25, "timed_out": 25, "unsent": 25, "in_flight": 0});
    assert_eq!(found["groups"][0]["counts"], counts);
    assert_eq!(found["groups"][1]["counts"]["due"], 0);
    assert_eq!(found["groups"][1]["quantiles"][0]["value_ns"], Value::Null);
}

#[test]
fn objectives_of_latency_and_of_errors_are_judged() {
    let records = records((0..20_000).map(|at| match at {
        _ if at % 100 == 0 => bad(at * MS, Outcome::Failed),
        _ => good(at * MS, 3 * MS),
    }));
    let objectives = json!([
        {"quantile": 0.9, "limit_ns": 4 * MS, "alpha": 0.01},
        {"quantile": 0.9, "limit_ns": 2 * MS, "alpha": 0.01},
        {"quantile": 0.999, "limit_ns": u64::MAX, "alpha": 0.01},
        {"quantile": 0.99, "limit_ns": 3 * MS, "alpha": 0.01},
    ]);
    let found = asked(&records, &json!({"from_ns": 0, "objectives": objectives}));
    let verdicts: Vec<_> = (0..4).map(|at| found["objectives"][at]["verdict"].as_str().unwrap()).collect();
    assert_eq!(verdicts, ["pass", "fail", "fail", "undecided"]);
    let errors = &found["objectives"][2];
    assert_eq!(
        (&errors["slower"], &errors["requests"], &errors["needed"]),
        (&json!(200), &json!(20_000), &json!(100.0))
    );
    // The errors come one by one; what is left is the penalty for having estimated that from 20 batches.
    assert!((1.1..1.5).contains(&errors["inflation"].as_f64().unwrap()), "{errors}");
}

/// A tenth of a percent of noise, so that no value is like the one before.
fn noise(at: u64) -> u64 {
    (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % 3_000
}

#[test]
fn the_warm_up_ends_where_times_settle() {
    let warming = |at: u64| if at < 300 { 3 * MS + (300 - at) * MS / 10 } else { 3 * MS };
    let slow_start = records((0..2_000).map(|at| good(at * 10 * MS, warming(at) + noise(at))));
    let found = asked(&slow_start, &json!({}));
    let from_ns = found["warmup"]["from_ns"].as_u64().unwrap();
    assert!((2_500 * MS..=3_500 * MS).contains(&from_ns), "{from_ns}");
    assert_eq!(found["warmup"]["settled"], true);
    assert_eq!(found["warmup"]["requests"], from_ns / (10 * MS));
    assert!(found["response"]["quantiles"][4]["value_ns"].as_u64().unwrap() < 3_010_000);
    let level = records((0..2_000).map(|at| good(at * 10 * MS, 3 * MS + noise(at))));
    assert_eq!(asked(&level, &json!({}))["warmup"]["from_ns"], 2 * SECOND);
    let slowing = records((0..2_000).map(|at| good(at * 10 * MS, 3 * MS + at * 10_000)));
    assert_eq!(asked(&slowing, &json!({}))["warmup"]["settled"], false);
    let short = records((0..100).map(|at| good(at * 10 * MS, 3 * MS)));
    let found = asked(&short, &json!({}));
    assert_eq!(found["warmup"], json!({"from_ns": 2 * SECOND, "settled": false, "requests": 100}));
    assert_eq!(found["response"]["quantiles"][0]["value_ns"], Value::Null);
}

#[test]
fn what_piles_up_is_an_overload_and_what_does_not_is_steady() {
    let level = records((0..4_000).map(|at| good(at * MS, 3 * MS + noise(at))));
    let found = &asked(&level, &json!({"from_ns": 0}))["steadiness"];
    assert_eq!((&found["steady"], &found["overload"]), (&json!(true), &json!(false)));
    assert!(found["little_gap"].as_f64().unwrap() < 0.002, "{found}");
    // One request in a millisecond, and 1.1 ms for each.
    let growing = records((0..4_000).map(|at| good(at * MS, MS + at * MS / 10)));
    let found = &asked(&growing, &json!({"from_ns": 0}))["steadiness"];
    assert_eq!((&found["steady"], &found["overload"]), (&json!(false), &json!(true)));
    assert!(found["latency_z"].as_f64().unwrap() > 5.0 && found["in_flight_z"].as_f64().unwrap() > 5.0);
    assert!(found["little_gap"].as_f64().unwrap() > 0.05);
    // Requests that time out are in flight until then.
    let hung = records((0..4_000).map(|at| bad(at * MS, Outcome::TimedOut)));
    assert_eq!(asked(&hung, &json!({"from_ns": 0}))["steadiness"]["overload"], true);
    let few = asked(&records((0..9).map(|at| good(at * MS, MS))), &json!({"from_ns": 0}));
    assert_eq!((&few["steadiness"]["steady"], &few["need_ns"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_time_still_needed_is_told() {
    let spread = |at: u64| MS + (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44) * 10;
    let some = records((0..3_000).map(|at| good(at * MS, spread(at))));
    let need =
        |precision: f64| asked(&some, &json!({"from_ns": 0, "precision": precision}))["need_ns"].clone();
    assert_eq!(need(0.5), 0);
    assert!(need(0.002).as_u64().unwrap() > 3 * SECOND);
}

#[test]
fn seconds_are_told_apart() {
    let mut all: Vec<Record> = (0..100).map(|at| good(at * 20 * MS, 40 * MS)).collect();
    all.push(bad(2_500 * MS, Outcome::Unsent));
    all.push(bad(2_600 * MS, Outcome::TimedOut));
    let all = records(all);
    let found = slices(Measured { records: &all, groups: &[], timeout_ns: 300 * MS });
    assert_eq!(found.as_array().unwrap().len(), 3);
    let first = json!({
        "from_ns": 0, "due": 50, "sent": 50, "good": 50, "shed": 0, "failed": 0, "timed_out": 0, "unsent": 0,
        "p50_ns": highest_ns(code_of(40 * MS)), "p99_ns": highest_ns(code_of(40 * MS)), "in_flight": 2,
    });
    assert_eq!(found[0], first);
    let last = &found[2];
    assert_eq!(
        (&last["sent"], &last["unsent"], &last["timed_out"], &last["p50_ns"]),
        (&json!(1), &json!(1), &json!(1), &json!(300 * MS))
    );
    assert_eq!(slices(Measured { records: &Records::default(), groups: &[], timeout_ns: 1 }), json!([]));
}

#[test]
fn a_wrong_question_is_refused_with_its_place() {
    for (question, wrong) in [
        (json!({"quantiles": [0.5, 1.0]}), "quantiles[1]: 1 is not between 0 and 1"),
        (json!({"alpha": 0}), "alpha: 0 is not between 0 and 1"),
        (json!({"objectives": [{"quantile": 2, "limit_ns": 1, "alpha": 0.1}]}), "objectives[0].quantile: 2"),
        (json!({"objectives": [{"quantile": 0.5, "limit_ns": -1, "alpha": 0.1}]}), "objectives[0].limit_ns"),
        (json!({"precision": 0}), "precision: 0 is not above 0"),
        (json!({"quantile": []}), "unknown field `quantile`"),
        (json!({"quantiles": vec![0.5; 101]}), "quantiles: 101 of them, at most 100"),
    ] {
        let error = Question::parse(&question.to_string()).unwrap_err();
        assert!(error.message.contains(wrong), "{}", error.message);
    }
}

fn any_record() -> impl Strategy<Value = Record> {
    let outcome = prop_oneof![
        8 => Just(Outcome::Good), 1 => Just(Outcome::Failed), 1 => Just(Outcome::TimedOut), 1 => Just(Outcome::Unsent),
    ];
    (0..9_000_000_u32, MS..40 * MS, outcome, 0..2_u8).prop_map(|(due_us, ns, outcome, kind)| {
        let record = if outcome == Outcome::Good { good(0, ns) } else { bad(0, outcome) };
        Record { due_us, kind, ..record }
    })
}

proptest! {
    #[test]
    fn the_summary_of_merged_records_is_that_of_the_whole(
        mut all in prop::collection::vec((any_record(), 0..3_usize), 0..300),
    ) {
        // Records that are due together stay in the order of their parts, as `merged` has them.
        all.sort_by_key(|(record, part)| (record.due_us, *part));
        let part = |wanted: usize| records(all.iter().filter(|(_, part)| *part == wanted).map(|(record, _)| *record));
        let parts = [part(0), part(1), part(2)];
        let whole = records(all.iter().map(|(record, _)| *record));
        prop_assert_eq!(&merged(&parts), &whole);
        for question in [json!({}), json!({"from_ns": 0})] {
            prop_assert_eq!(asked(&merged(&parts), &question), asked(&whole, &question));
        }
    }
}
