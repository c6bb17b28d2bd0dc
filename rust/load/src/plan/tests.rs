use serde_json::{Value, json};

use super::*;

/// A plan that is right, with one value replaced: `at` is a JSON pointer.
fn changed(at: &str, value: Value) -> String {
    let mut plan = json!({
        "seed": 42, "threads": 1, "timeout_ns": 5_000_000_000u64, "max_in_flight": 100, "max_records": 1000,
        "load": {"open": {"arrivals": {"kind": "poisson"}, "stages": [
            {"from": 100.0, "to": 100.0, "for_ns": 1_000_000_000}, {"from": 100.0, "to": 200.0, "for_ns": 1_000_000_000},
        ]}},
        "targets": [{"address": "127.0.0.1:8000", "authority": "127.0.0.1:8000", "protocol": "http"}],
        "requests": [{"target": 0, "group": "digits", "weight": 1.0, "path": "/", "body": 0}],
    });
    match plan.pointer_mut(at) {
        Some(old) => *old = value,
        None => plan[at.trim_start_matches('/')] = value,
    }
    plan.to_string()
}

fn refusal(at: &str, value: Value) -> String {
    Plan::parse(&changed(at, value), &[b"{}"]).unwrap_err().message.to_string()
}

#[test]
fn a_fault_is_refused_with_its_place_and_what_would_be_right() {
    let trace = |fields: Value| {
        let mut arrivals = json!({"kind": "trace"});
        arrivals.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"open": {"arrivals": arrivals}})
    };
    for (at, value, wanted) in [
        ("/load/open/stages/1/from", json!(-3), "load.open.stages[1].from: must be above 0, got -3"),
        ("/load/open/stages/1/to", json!(0), "load.open.stages[1].to: must be above 0, got 0"),
        ("/load/open/stages/0/for_ns", json!(0), "load.open.stages[0].for_ns: must be above 0, got 0"),
        (
            "/load/open/stages/0/for_ns",
            json!("1s"),
            "load.open.stages[0].for_ns: invalid type: string \"1s\"",
        ),
        ("/load/open/stages", json!([]), "load.open.stages: must have a stage, got []"),
        (
            "/load/open/stages/0/for_ns",
            json!(1u64 << 42),
            "load.open.stages[0].for_ns: a run lasts at most 4294 s",
        ),
        ("/load/open/arrivals", json!({"kind": "gamma", "cv": 0}), "load.open.arrivals.cv: must be between"),
        ("/load/open/arrivals", json!({"kind": "burst"}), "load.open.arrivals.kind: unknown variant `burst`"),
        ("/load", trace(json!({"due_ns": []})), "load.open.arrivals.due_ns: must have a due time"),
        (
            "/load",
            trace(json!({"due_ns": [1, 2], "requests": [0]})),
            "load.open.arrivals.requests: must have one",
        ),
        (
            "/load",
            trace(json!({"due_ns": [1], "requests": [1]})),
            "load.open.arrivals.requests[0]: must be below",
        ),
        (
            "/load",
            json!({"closed": {"clients": 0, "for_ns": 1}}),
            "load.closed.clients: must be between 1 and 100",
        ),
        ("/load", json!({"closed": {"clients": 1, "for_ns": 0}}), "load.closed.for_ns: must be above 0"),
        ("/targets/0/address", json!("https://a:1"), "targets[0].address: https is not built yet"),
        ("/targets/0/address", json!("localhost:1"), "targets[0].address: must be an IP address and a port"),
        ("/targets/0/authority", json!("a\r\nb"), "targets[0].authority: must be a host and a port"),
        ("/requests/0/body", json!(1), "requests[0].body: must be below the number of bodies, 1, got 1"),
        ("/requests/0/target", json!(1), "requests[0].target: must be below the number of targets, 1, got 1"),
        ("/requests/0/path", json!("v2"), "requests[0].path: must begin with /"),
        ("/requests/0/weight", json!(-1), "requests[0].weight: must be 0 or above, got -1"),
        ("/requests/0/weight", json!(0), "requests[..].weight: their sum: must be above 0, got 0"),
        ("/requests", json!([]), "requests: must have a request"),
        ("/part", json!([2, 1]), "part: must be this host and the number of hosts, as [1, 3], got [2, 1]"),
        ("/check_share", json!(1.5), "check_share: must be between 0 and 1, got 1.5"),
        ("/threads", json!(0), "threads: must be between 1 and 256, got 0"),
        ("/cpus", json!([]), "cpus: must name a CPU, or be null"),
        ("/seed", json!(-1), "seed: invalid value"),
        ("/sed", json!(1), "sed: unknown field `sed`"),
    ] {
        let message = refusal(at, value);
        assert!(message.starts_with(wanted), "{at}: {message}");
    }
}

#[test]
fn header_fields_that_break_the_request_are_refused() {
    for (name, value) in [("a b", "1"), ("x", "1\r\ny: 2"), ("Content-Length", "3"), ("", "1")] {
        let mut plan: Value = serde_json::from_str(&changed("/seed", json!(1))).unwrap();
        plan["requests"][0]["headers"] = json!([["accept", "*/*"], [name, value]]);
        let message = Plan::parse(&plan.to_string(), &[b"{}"]).unwrap_err().message;
        assert!(message.starts_with("requests[0].headers[1]: must"), "{message}");
    }
}

#[test]
fn what_is_absent_has_its_default() {
    let plan = Plan::parse(&changed("/seed", json!(1)), &[b"{}"]).unwrap();
    assert_eq!((plan.part, plan.wait, plan.check_share), ([1, 1], Wait::Auto, 0.0));
    assert_eq!(plan.groups(), (vec!["digits".to_owned()], vec![0]));
}
