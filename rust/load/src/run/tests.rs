use serde_json::json;

use super::*;

fn plan(changes: Value) -> String {
    let mut plan = json!({
        "seed": 42, "threads": 2, "timeout_ns": 1_000_000_000u64, "max_in_flight": 100, "max_records": 1000,
        "load": {"open": {"arrivals": {"kind": "poisson"}, "stages": [{"from": 100.0, "to": 100.0, "for_ns": 1_000_000_000}]}},
        "targets": [{"address": "127.0.0.1:9", "authority": "a", "protocol": "http"}],
        "requests": [{"target": 0, "group": "digits", "weight": 1.0, "path": "/", "body": 0}],
    });
    for (name, value) in changes.as_object().unwrap() {
        plan[name] = value.clone();
    }
    plan.to_string()
}

#[test]
fn more_requests_than_can_be_written_down_are_refused_with_what_would_fit() {
    for (rate, count) in [(2000.0, "20"), (1e9, "10000000000")] {
        let stages = json!([{"from": rate, "to": rate, "for_ns": 10_000_000_000u64}]);
        let load = json!({"open": {"arrivals": {"kind": "poisson"}, "stages": stages}});
        let refused = LoadRun::new(&plan(json!({"load": load})), vec![Vec::new()]).map(drop).unwrap_err();
        let message = refused.message;
        assert!(message.starts_with(&format!("load.open: {count}")), "{message}");
        assert!(message.contains("max_records is 1000: at these rates 0."), "{message}");
    }
}

#[test]
fn a_run_is_started_once_and_asked_after_that() {
    let run = LoadRun::new(&plan(json!({})), vec![Vec::new()]).unwrap();
    assert_eq!(run.look("{}").unwrap_err().message, "the run was not started");
    assert!(!run.wait(Duration::ZERO));
    run.start().unwrap();
    assert_eq!(run.start().unwrap_err().code, Code::Conflict);
    assert!(run.look(r#"{"quantiles": [2]}"#).unwrap_err().message.contains("quantiles[0]"));
    // Dropping a run ends its threads without waiting for its schedule.
    drop(run);
}

#[test]
fn threads_poll_only_on_cpus_of_their_own() {
    let wait = |threads: usize, cpus: Value| {
        chosen_wait(&Plan::parse(&plan(json!({"threads": threads, "cpus": cpus})), &[b""]).unwrap())
    };
    assert_eq!(wait(2, json!([0, 1])), Wait::Spin);
    assert_eq!(wait(2, json!([1, 1])), Wait::Sleep);
    assert_eq!(wait(200, Value::Null), Wait::Sleep);
}
