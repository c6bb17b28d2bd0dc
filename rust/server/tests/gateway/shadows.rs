//! Shadows of a running gateway, over real sockets: what is counted of them, and that nothing of them reaches a caller.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::computed::{ADOPTED, Computed, adopt, adopt_as};
use crate::common::{answer, at_last, connect, gateway_with, request, signature};
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::RunSpec;
use headgate_core::tensor::Shape;
use headgate_engine::runtime::cancel;
use headgate_engine::{BufferLease, RunResult};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// A share of the CPU that is used up for years by the first run.
const ONE_RUN: f64 = 1e-9;

fn double(value: f32) -> Result<f32> {
    Ok(2.0 * value)
}

fn fails() -> Error {
    Error::new(Code::BackendFailed, "a value that the model does not take")
}

/// The state of the endpoint `model` with these versions, the first of which is the champion.
fn state(versions: &[&str], changes: &Value) -> Value {
    let listed: Vec<_> = versions
        .iter()
        .map(|name| json!({"name": name, "digest": format!("sha256:{name}"), "artifact": "adopted"}))
        .collect();
    let mut state = json!({
        "name": "model", "revision": 1, "champion": versions[0], "timeout_ms": 60_000, "versions": listed,
    });
    state.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    state
}

fn apply(gateway: &Gateway, state: &Value) {
    gateway.apply(common::spec(state)).unwrap();
    let applied = gateway.events();
    assert_eq!(applied.last().unwrap()["event"], "applied", "{applied:?}");
}

fn shadow(changes: &Value) -> Value {
    let mut shadow = json!({"to": "v2", "share": 10_000, "compare": {"y": {"within": {"absolute": 0.5}}}});
    shadow.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    json!({"shadow": [shadow]})
}

/// Sends a request for each value on one connection; the status and the body of each response.
fn send_all(address: SocketAddr, values: impl IntoIterator<Item = f32>) -> Vec<(u16, Value)> {
    let mut stream = connect(address);
    values.into_iter().map(|value| ask(&mut stream, &request("model", value))).collect()
}

fn ask(stream: &mut TcpStream, request: &str) -> (u16, Value) {
    stream.write_all(request.as_bytes()).unwrap();
    answer(stream)
}

/// A request with more header fields.
fn with_header(value: f32, header: &str) -> String {
    request("model", value).replace("host: t\r\n", &format!("host: t\r\n{header}\r\n"))
}

fn report(gateway: &Gateway) -> Value {
    gateway.shadows("model").unwrap()["shadows"][0].clone()
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

fn sum(counts: &Value) -> u64 {
    counts.as_object().unwrap().values().map(number).sum()
}

/// The report once every copy that was drawn is counted, and there are `drawn` of them.
fn settled(gateway: &Gateway, drawn: u64) -> Value {
    let mut found = Value::Null;
    at_last("the copies", || {
        found = report(gateway);
        let counted = number(&found["pairs"])
            + sum(&found["dropped"])
            + sum(&found["errors"])
            + number(&found["champion_failed"]["requests"]);
        counted == drawn && found["drawn"] == drawn && found["in_progress"] == 0
    });
    found
}

fn series(gateway: &Gateway, name: &str, labels: &Value) -> u64 {
    common::metric(gateway, name, labels)
}

#[test]
fn the_counts_are_those_of_both_versions_over_the_same_requests() {
    let (gateway, address) = gateway_with(&json!({}));
    adopt(&gateway, "v1", double);
    // Differs from 50 on, fails on every tenth value, and has NaN for 7.
    adopt(&gateway, "v2", |value| match value as u32 {
        7 => Ok(f32::NAN),
        value if value % 10 == 0 => Err(fails()),
        value if value >= 50 => Ok(0.0),
        value => Ok(2.0 * value as f32 + 0.25),
    });
    apply(
        &gateway,
        &state(&["v1", "v2"], &shadow(&json!({"keep_examples": 3, "slices": ["header.x-region"]}))),
    );
    let mut stream = connect(address);
    for value in 0..100 {
        let region = if value < 60 { "eu" } else { "us" };
        let (status, body) = ask(&mut stream, &with_header(value as f32, &format!("x-region: {region}")));
        assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(2.0 * f64::from(value))));
    }
    let found = settled(&gateway, 100);
    // 45 values of 50 and more that do not fail, and 7.
    assert_eq!((&found["pairs"], &found["errors"]), (&json!(90), &json!({"backend_failed": 10})));
    let expected = json!({"pairs": 90, "differing": 46, "rows": 90, "differing_rows": 46});
    assert_eq!(found["compared"], expected);
    assert_eq!(found["nan"], json!({"champion": 0, "shadow": 1, "both": 0}));
    assert_eq!((sum(&found["dropped"]), &found["state"]), (0, &json!("running")));
    assert_eq!(found["disagreement"]["bounds"], json!([46.0 / 90.0, 46.0 / 90.0]));
    assert_eq!(found["disagreement"]["undecided"], false);
    // Fewer than 500 pairs: the champion is run again on each of them.
    assert_eq!((&found["noise_floor"]["pairs"], &found["noise_floor"]["differing"]), (&json!(90), &json!(0)));
    let values = found["slices"][0]["values"].as_array().unwrap();
    let counts = |value: &str| {
        let found = values.iter().find(|one| one["value"] == value).unwrap();
        (number(&found["pairs"]), number(&found["differing"]))
    };
    assert_eq!((counts("eu"), counts("us")), ((54, 10), (36, 36)));
    let kept = found["examples"]["kept"].as_array().unwrap();
    assert_eq!(kept.len(), 3);
    for example in kept {
        let (asked, answered) = (&example["champion"]["y"]["data"][0], &example["shadow"]["y"]["data"][0]);
        assert_eq!((answered, &example["differs"]), (&json!(0.0), &json!(["y"])));
        assert_eq!(asked.as_f64().unwrap(), 2.0 * example["inputs"]["x"]["data"][0].as_f64().unwrap());
    }
    let labels = json!({"endpoint": "model", "version": "v2"});
    assert_eq!(series(&gateway, "headgate_shadow_pairs_total", &labels), 90);
    assert_eq!(series(&gateway, "headgate_shadow_differing_total", &labels), 46);
}

/// The metrics that count something, without those of shadows, those that measure time or memory, and those of probes, whose number
/// depends on how long a run takes.
fn counters(gateway: &Gateway) -> Vec<Value> {
    let families = gateway.metrics();
    let is_count = |family: &&Value| {
        let name = family["name"].as_str().unwrap();
        let others = ["_seconds", "_bytes", "headgate_shadow_", "headgate_probes"];
        family["type"] == "counter" && !others.iter().any(|part| name.contains(part))
    };
    families.as_array().unwrap().iter().filter(is_count).cloned().collect()
}

#[test]
fn answers_counters_limits_and_breakers_are_the_same_with_and_without_shadows() {
    let attempt = |shadows: &Value| {
        let (gateway, address) = gateway_with(&json!({"sketches": false}));
        adopt(&gateway, "v1", |value| if value <= 0.0 { Err(fails()) } else { Ok(2.0 * value) });
        // A shadow that fails most of the time, and whose breaker would open if its runs counted.
        adopt(&gateway, "v2", |value| if value > 3.0 { Err(fails()) } else { Ok(value) });
        let limits = json!({
            "rate": {"per_second": 0.000_01, "burst": 65},
            "breaker": {"consecutive": 4, "success_rate": 0, "window": 10_000, "min_requests": 1_000},
        });
        let mut changes = json!({"limits": limits});
        changes.as_object_mut().unwrap().extend(shadows.as_object().unwrap().clone());
        apply(&gateway, &state(&["v1", "v2"], &changes));
        let mut answers = send_all(address, (1..=60).map(|value| value as f32));
        // Four failures, which open the breaker, a request that it refuses, and ten that come too often.
        answers.extend(send_all(address, [-1.0; 4]));
        answers.extend(send_all(address, [1.0; 11]));
        // The refusal of the breaker says for how long it stays open.
        for (_, body) in answers.iter_mut().filter(|(status, _)| *status == 503) {
            body["error"] = Value::Null;
        }
        let of = json!({"endpoint": "model", "version": "v1"});
        at_last("the last request is booked", || series(&gateway, "headgate_requests_in_flight", &of) == 0);
        if shadows.get("shadow").is_some() {
            let reached = |(status, _): &&(u16, Value)| [200, 500].contains(status);
            settled(&gateway, answers.iter().filter(reached).count() as u64);
        }
        (answers, counters(&gateway), gateway.totals()["versions"][0]["codes"].clone())
    };
    // On a busy machine the request that the breaker should refuse may come after the breaker's time, and probe.
    let run = |shadows: &Value| {
        let mut found = None;
        at_last("a request that the breaker refuses", || {
            let made = attempt(shadows);
            let is_refused = made.0.iter().any(|(status, _)| *status == 503);
            found = is_refused.then_some(made);
            is_refused
        });
        found.unwrap()
    };
    let (without, with) = (run(&json!({})), run(&shadow(&json!({}))));
    for (number, (without, with)) in without.0.iter().zip(&with.0).enumerate() {
        assert_eq!(without, with, "request {number}");
    }
    assert_eq!(without.1, with.1);
    assert_eq!(without.2, with.2);
    let statuses: Vec<u16> = without.0.iter().map(|(status, _)| *status).collect();
    let count = |status| statuses.iter().filter(|&&one| one == status).count();
    assert_eq!([200, 500, 503, 429].map(count), [60, 4, 1, 10], "{statuses:?}");
}

#[test]
fn requests_that_a_rule_or_the_caller_sent_somewhere_are_not_copied() {
    let (gateway, address) = gateway_with(&json!({}));
    for version in ["v1", "v2"] {
        adopt(&gateway, version, double);
    }
    let rules = json!([{"when": {"header.x-tester": {"one_of": ["yes"]}}, "to": "v1"}]);
    let mut changes = shadow(&json!({}));
    changes["rules"] = rules;
    apply(&gateway, &state(&["v1", "v2"], &changes));
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, &with_header(1.0, "x-tester: yes")).0, 200);
    let direct = request("model", 1.0).replace("/v2/models/model/", "/v2/models/model/versions/v1/");
    assert_eq!(ask(&mut stream, &direct).0, 200);
    assert_eq!(ask(&mut stream, &request("model", 1.0)).0, 200);
    settled(&gateway, 1);
}

#[test]
fn a_run_that_does_not_end_is_cancelled_at_its_deadline_and_the_stop_does_not_wait_for_it() {
    let (gateway, address) = gateway_with(&json!({}));
    adopt(&gateway, "v1", double);
    // Runs for as long as it is let.
    adopt(&gateway, "v2", |value| {
        loop {
            if value <= 0.0 {
                return double(value);
            }
            cancel::check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    apply(&gateway, &state(&["v1", "v2"], &shadow(&json!({"timeout": 300}))));
    let mut sent = 0;
    at_last("a copy that is not late before it runs", || {
        sent += 1;
        send_all(address, [1.0]);
        let found = settled(&gateway, sent);
        assert_eq!(number(&found["dropped"]["late"]) + number(&found["timeouts"]), sent, "{found}");
        found["errors"] == json!({"deadline_exceeded": 1}) && found["timeouts"] == 1
    });
    // Neither the version's own counters nor its errors know of it.
    let of = json!({"endpoint": "model", "version": "v2"});
    assert_eq!(series(&gateway, "headgate_runs_cancelled_total", &of), 0);
    assert_eq!(series(&gateway, "headgate_shadow_runs_cancelled_total", &of), 1);
    apply(&gateway, &state(&["v1", "v2"], &shadow(&json!({"timeout": 3_600_000}))));
    send_all(address, [1.0, 2.0, 3.0]);
    // A copy is queued after its request was answered.
    at_last("a run and two that wait", || {
        let found = report(&gateway);
        found["in_progress"] == 1 && found["queue"]["length"] == 2
    });
    let begun = Instant::now();
    assert!(gateway.stop(Duration::ZERO, Duration::from_secs(60)));
    assert!(begun.elapsed() < Duration::from_secs(30), "the stop waits for a shadow");
    let labels = json!({"endpoint": "model", "version": "v2", "reason": "shutdown"});
    assert_eq!(series(&gateway, "headgate_shadow_dropped_total", &labels), 3);
}

#[test]
fn requests_that_the_champion_fails_on_are_counted_apart() {
    for (placement, batch) in [("inline", 1), ("pool", 1), ("pool", 8)] {
        let (gateway, address) = gateway_with(&json!({}));
        let run = json!({"placement": placement, "max_batch": batch});
        let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
        // It fails on the input of probes as well, which is 0: so the version is at fault and not the request.
        adopt_as(&gateway, "v1", &spec, |value| if value <= 0.0 { Err(fails()) } else { Ok(2.0 * value) });
        // Fails on some of what the champion fails on.
        adopt(&gateway, "v2", |value| if value < -4.0 { Err(fails()) } else { Ok(2.0 * value) });
        let mut state = state(&["v1", "v2"], &shadow(&json!({})));
        state["versions"][0]["run"] = run;
        apply(&gateway, &state);
        let answers = send_all(address, (-9..=10).map(|value| value as f32));
        assert_eq!(answers.iter().filter(|(status, _)| *status == 500).count(), 10);
        let found = settled(&gateway, 20);
        assert_eq!((&found["pairs"], &found["errors"]), (&json!(10), &json!({})), "{placement} {batch}");
        let expected = json!({
            "requests": 10, "by_code": {"backend_failed": 10}, "shadow_answered": 5, "shadow_failed": 5, "inputs_lost": 0,
        });
        assert_eq!(found["champion_failed"], expected, "{placement} {batch}");
    }
}

#[test]
fn what_a_fallback_answers_reaches_the_shadow_as_a_failure_of_the_champion() {
    for (placement, batch) in [("inline", 1), ("pool", 1), ("pool", 8)] {
        let (gateway, address) = gateway_with(&json!({}));
        let run = json!({"placement": placement, "max_batch": batch});
        let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
        // It fails on the input of probes as well, which is 0: so the version is at fault and not the request.
        adopt_as(&gateway, "v1", &spec, |value| if value <= 0.0 { Err(fails()) } else { Ok(2.0 * value) });
        // Fails on what does not come from the request.
        adopt(&gateway, "v2", |value| if value > -1.0 { Err(fails()) } else { Ok(2.0 * value) });
        adopt(&gateway, "v3", double);
        let mut changes = shadow(&json!({}));
        changes["fallback"] = json!({"to": ["v3"]});
        let mut state = state(&["v1", "v2", "v3"], &changes);
        state["versions"][0]["run"] = run;
        apply(&gateway, &state);
        let answers = send_all(address, (1..=5).map(|value| -value as f32));
        let expected = |value: i32| (200, json!(-2.0 * f64::from(value)));
        let found = answers.iter().map(|(status, body)| (*status, body["outputs"][0]["data"][0].clone()));
        assert!(found.eq((1..=5).map(expected)), "{answers:?}");
        let found = settled(&gateway, 5);
        let expected = json!({
            "requests": 5, "by_code": {"backend_failed": 5}, "shadow_answered": 5, "shadow_failed": 0, "inputs_lost": 0,
        });
        assert_eq!(found["champion_failed"], expected, "{placement} {batch}");
    }
}

#[test]
fn rows_of_a_batch_are_compared_with_their_own_answers_and_keep_no_slab() {
    let (gateway, address) = gateway_with(&json!({"io_threads": 2}));
    let run = json!({"placement": "pool", "max_batch": 16});
    adopt_as(&gateway, "v1", &serde_json::from_value(run.clone()).unwrap(), double);
    adopt(&gateway, "v2", |value| Ok(if value < 500.0 { 2.0 * value } else { 0.0 }));
    let mut state = state(&["v1", "v2"], &shadow(&json!({})));
    state["versions"][0]["run"] = run;
    apply(&gateway, &state);
    let clients: Vec<_> = (0..8)
        .map(|client| {
            std::thread::spawn(move || send_all(address, (0..125).map(|n| (client * 125 + n) as f32)))
        })
        .collect();
    for (client, thread) in clients.into_iter().enumerate() {
        for (n, (status, body)) in thread.join().unwrap().into_iter().enumerate() {
            let value = 2.0 * (client * 125 + n) as f64;
            assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(value)));
        }
    }
    let found = settled(&gateway, 1_000);
    let dropped = sum(&found["dropped"]);
    assert_eq!(number(&found["pairs"]) + dropped, 1_000);
    if dropped == 0 {
        assert_eq!(found["compared"]["differing"], 500);
    }
    let of = json!({"endpoint": "model", "version": "v2"});
    assert_eq!(series(&gateway, "headgate_shadow_queue_bytes", &of), 0);
    assert_eq!(series(&gateway, "headgate_shadow_memory_bytes", &json!({})), 0);
}

#[test]
fn buffers_of_a_copy_return_to_their_thread_and_hold_no_session() {
    let (gateway, _) = gateway_with(&json!({}));
    adopt(&gateway, "pooled", double);
    let model = ADOPTED.lock().unwrap().last().unwrap().clone();
    let lease = || BufferLease::acquire(model.hold_unmarked().unwrap(), 0);
    let session = model.resident().hold().unwrap();
    let unheld = Arc::strong_count(&session);
    let detached = |dims: &[i64]| {
        let mut lease = lease();
        assert_eq!(Arc::strong_count(&session), unheld + 1);
        lease.binding_mut().input_mut(0).reshape(&Shape::new(dims).unwrap()).unwrap();
        let mut run = RunResult::Single(lease);
        run.detach(0).unwrap();
        assert_eq!(Arc::strong_count(&session), unheld);
        run
    };
    let capacity = || lease().binding().capacity();
    let copies: Vec<_> = [8, 1_000].map(|rows| detached(&[rows])).into();
    assert_eq!(capacity(), 0, "new buffers");
    // What the line above returned is found before what other threads return.
    let other = lease();
    std::thread::spawn(move || drop(copies)).join().unwrap();
    let returned = [lease(), lease()];
    assert!(returned.iter().all(|lease| lease.binding().capacity() > 0), "those of the copies");
    let more = lease();
    assert_eq!(more.binding().capacity(), 0, "each is returned once");
    drop((other, returned, more));
    detached(&[8]).recycle();
    assert!(capacity() > 0);
}

#[test]
fn buffers_of_copies_return_within_the_bytes_of_their_pool() {
    let (gateway, _) = gateway_with(&json!({}));
    adopt(&gateway, "bounded", double);
    let model = ADOPTED.lock().unwrap().last().unwrap().clone();
    let lease = || BufferLease::acquire(model.hold_unmarked().unwrap(), 0);
    // Each has 5 MiB, and 16 MiB are kept.
    let copies: Vec<_> = (0..4)
        .map(|_| {
            let mut lease = lease();
            lease.binding_mut().input_mut(0).reshape(&Shape::new(&[5 << 18]).unwrap()).unwrap();
            let mut run = RunResult::Single(lease);
            run.detach(0).unwrap();
            run
        })
        .collect();
    std::thread::spawn(move || drop(copies)).join().unwrap();
    let leases = [lease(), lease(), lease(), lease()];
    assert_eq!(leases.map(|lease| lease.binding().capacity()), [5 << 20, 5 << 20, 5 << 20, 0]);
}

#[test]
fn slabs_that_copies_keep_do_not_count_among_those_of_the_champion() {
    // Room for far more bytes of copies than the batches of a version may hold.
    let settings = json!({"shadow_memory_bytes": 4_u64 << 30, "shadow_cpu": 1.0});
    let (gateway, address) = gateway_with(&settings);
    let run = json!({"placement": "pool", "max_batch": 32});
    let mut wide = signature();
    wide.inputs[0].shape = vec![-1, 150_000];
    wide.outputs[0].shape = vec![-1, 150_000];
    let held = Arc::new(Mutex::new(()));
    let (holds, gate) = (held.lock().unwrap(), held.clone());
    let waits = move |value| {
        drop(gate.lock().unwrap());
        double(value)
    };
    let champion = Computed { signature: wide.clone(), compute: double };
    let shadowing = Computed { signature: wide, compute: waits };
    let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
    let engine = gateway.engine();
    let models = [
        engine.adopt("sha256:v1", Box::new(champion), &spec).unwrap(),
        engine.adopt("sha256:v2", Box::new(shadowing), &RunSpec::default()).unwrap(),
    ];
    ADOPTED.lock().unwrap().extend(models);
    let mut state = state(&["v1", "v2"], &shadow(&json!({})));
    state["versions"][0]["run"] = run;
    apply(&gateway, &state);
    let values = format!("[{}1]", "1,".repeat(149_999));
    let body = format!(
        r#"{{"inputs": [{{"name": "x", "shape": [1, 150000], "datatype": "FP32", "data": {values}}}]}}"#
    );
    let head =
        format!("POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = connect(address);
    // A slab has room for 32 rows of 600 kB. Sixteen of them are more than the 256 MiB that batches may hold.
    for copies in 1..=16 {
        assert_eq!(ask(&mut stream, &format!("{head}{body}")).0, 200, "{copies}");
        at_last("the copy", || report(&gateway)["drawn"] == copies);
    }
    let found = report(&gateway);
    assert!(number(&found["queue"]["bytes"]) > 256 << 20, "{found}");
    drop(holds);
    settled(&gateway, 16);
}

#[test]
fn counts_outlive_a_revision_and_a_switch_but_not_another_comparison() {
    let (gateway, address) = gateway_with(&json!({}));
    for version in ["v1", "v2", "v3"] {
        adopt(&gateway, version, double);
    }
    let versions = ["v1", "v2", "v3"];
    apply(&gateway, &state(&versions, &shadow(&json!({}))));
    send_all(address, [1.0; 10]);
    settled(&gateway, 10);
    let mut next = state(&versions, &shadow(&json!({"share": 5_000})));
    next["revision"] = json!(2);
    apply(&gateway, &next);
    assert_eq!((&report(&gateway)["pairs"], &report(&gateway)["share"]), (&json!(10), &json!(0.5)));
    next["shadows_off"] = json!(["v2"]);
    apply(&gateway, &next);
    let off = report(&gateway);
    assert_eq!((&off["state"], &off["reason"]), (&json!("off"), &json!("it is switched off")));
    send_all(address, [1.0; 10]);
    assert_eq!((&report(&gateway)["pairs"], &report(&gateway)["drawn"]), (&json!(10), &json!(10)));
    next["shadows_off"] = json!([]);
    next["shadow"][0]["share"] = json!(10_000);
    apply(&gateway, &next);
    send_all(address, [1.0; 5]);
    settled(&gateway, 15);
    next["shadow"][0]["compare"] = json!({"y": {"exact": true}});
    apply(&gateway, &next);
    assert_eq!((&report(&gateway)["pairs"], &report(&gateway)["drawn"]), (&json!(0), &json!(0)));
    next["champion"] = json!("v3");
    apply(&gateway, &next);
    send_all(address, [1.0; 5]);
    settled(&gateway, 5);
    next["champion"] = json!("v2");
    apply(&gateway, &next);
    assert_eq!((&report(&gateway)["state"], &report(&gateway)["pairs"]), (&json!("champion"), &json!(5)));
    next["shadow"] = json!([]);
    apply(&gateway, &next);
    assert_eq!(gateway.shadows("model").unwrap()["shadows"], json!([]));
}

#[test]
fn copies_that_find_no_room_are_dropped_counted_and_hold_up_nothing() {
    let (gateway, address) = gateway_with(&json!({"shadow_cpu": ONE_RUN, "pool_threads": 1}));
    adopt(&gateway, "v1", double);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    adopt(&gateway, "v2", move |value| {
        counted.fetch_add(1, Relaxed);
        double(value)
    });
    apply(&gateway, &state(&["v1", "v2"], &shadow(&json!({}))));
    // The first run uses up the CPU time, so that the queue fills.
    send_all(address, [1.0]);
    settled(&gateway, 1);
    let answers = send_all(address, (0..1_100).map(|value| value as f32));
    assert!(answers.iter().all(|(status, _)| *status == 200));
    at_last("the last request is booked", || report(&gateway)["drawn"] == 1_101);
    let found = report(&gateway);
    let dropped = number(&found["dropped"]["cpu_budget"]) + number(&found["dropped"]["queue_full"]);
    assert_eq!((&found["drawn"], &found["queue"]["length"], dropped), (&json!(1_101), &json!(1_024), 76));
    assert_eq!(
        (&found["pairs"], &found["disagreement"]["undecided"], runs.load(Relaxed)),
        (&json!(1), &json!(true), 1)
    );
    // What waits is dropped, and its memory is free.
    gateway.stop(Duration::ZERO, Duration::from_secs(10));
    assert_eq!(series(&gateway, "headgate_shadow_memory_bytes", &json!({})), 0);
}

#[test]
fn copies_that_wait_for_cpu_time_are_dropped_at_their_deadline() {
    let (gateway, address) = gateway_with(&json!({"shadow_cpu": ONE_RUN}));
    adopt(&gateway, "v1", double);
    adopt(&gateway, "v2", double);
    apply(&gateway, &state(&["v1", "v2"], &shadow(&json!({"timeout": 300}))));
    let mut sent = 0;
    let mut found = Value::Null;
    // On a busy machine the threads come too late for all of some rounds.
    at_last("a copy that waits for CPU time", || {
        sent += 20;
        send_all(address, (0..20).map(|value| value as f32));
        found = settled(&gateway, sent);
        number(&found["dropped"]["cpu_budget"]) > 0
    });
    // At most one for each of the two threads ran, and no thread gets CPU time for another one.
    assert!(sum(&found["dropped"]) + 2 >= sent, "{found}");
    assert_eq!((&found["queue"]["length"], &found["queue"]["bytes"]), (&json!(0), &json!(0)));
}

#[test]
fn second_runs_of_the_champion_are_charged_with_its_own_threads() {
    let (gateway, address) = gateway_with(&json!({"shadow_cpu": 1.0}));
    let took = Arc::new(AtomicU64::new(0));
    let run = json!({"threads": 64});
    let counted = took.clone();
    let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
    adopt_as(&gateway, "v1", &spec, move |value| {
        if std::thread::current().name().is_some_and(|name| name.starts_with("hg-shadow")) {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(2) {}
            counted.fetch_add(begun.elapsed().as_nanos() as u64, Relaxed);
        }
        double(value)
    });
    adopt(&gateway, "v2", double);
    let mut state = state(&["v1", "v2"], &shadow(&json!({})));
    state["versions"][0]["run"] = run;
    apply(&gateway, &state);
    send_all(address, [1.0]);
    settled(&gateway, 1);
    let charged = report(&gateway)["cpu_seconds"].as_f64().unwrap();
    let floor = took.load(Relaxed) as f64 / 1e9;
    assert!(floor > 0.0 && charged >= 64.0 * floor, "{charged} s for {floor} s");
}

#[test]
fn without_cpu_time_no_copy_is_queued() {
    let (gateway, address) = gateway_with(&json!({"shadow_cpu": 0.0}));
    adopt(&gateway, "v1", double);
    adopt(&gateway, "v2", double);
    apply(&gateway, &state(&["v1", "v2"], &shadow(&json!({}))));
    send_all(address, [1.0, 2.0, 3.0]);
    let found = settled(&gateway, 3);
    assert_eq!((&found["dropped"]["cpu_budget"], &found["queue"]["length"]), (&json!(3), &json!(0)));
}

#[test]
fn a_request_that_the_champion_was_too_late_for_reaches_the_shadow_when_that_run_has_ended() {
    let (gateway, address) = gateway_with(&json!({}));
    let (late, held) = common::gated();
    let run = json!({"placement": "pool"});
    let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
    ADOPTED.lock().unwrap().push(gateway.engine().adopt("sha256:v1", Box::new(late), &spec).unwrap());
    adopt(&gateway, "v2", double);
    let mut state = state(&["v1", "v2"], &shadow(&json!({})));
    state["versions"][0]["run"] = run;
    apply(&gateway, &state);
    let mut stream = connect(address);
    // A request whose run does not begin in time is shed, and not copied.
    common::ask_until_begun(&held.entered, || {
        let (status, _) = ask(&mut stream, &with_header(3.0, "x-headgate-timeout: 1000ms"));
        assert_eq!(status, 504);
    });
    assert_eq!(report(&gateway)["drawn"], 0, "its inputs are still in use");
    held.leave.send(()).unwrap();
    let found = settled(&gateway, 1);
    let expected = json!({
        "requests": 1, "by_code": {"deadline_exceeded": 1}, "shadow_answered": 1, "shadow_failed": 0, "inputs_lost": 0,
    });
    assert_eq!((&found["champion_failed"], &found["pairs"]), (&expected, &json!(0)));
}

#[test]
fn requests_that_the_champion_sheds_are_not_copied() {
    for batch in [1, 8] {
        let (gateway, address) = gateway_with(&json!({"pool_threads": 1}));
        let (slow, held) = common::gated();
        let run = json!({"placement": "pool", "max_batch": batch});
        let spec: RunSpec = serde_json::from_value(run.clone()).unwrap();
        ADOPTED.lock().unwrap().push(gateway.engine().adopt("sha256:v1", Box::new(slow), &spec).unwrap());
        adopt(&gateway, "v2", double);
        let mut state = state(&["v1", "v2"], &shadow(&json!({})));
        state["versions"][0]["run"] = run;
        apply(&gateway, &state);
        // It keeps the only thread, and is not copied itself.
        let direct = request("model", 1.0).replace("/v2/models/model/", "/v2/models/model/versions/v1/");
        let mut first = connect(address);
        first.write_all(direct.as_bytes()).unwrap();
        held.entered.recv_timeout(common::PATIENCE).unwrap();
        let mut stream = connect(address);
        for timeout in ["100ms", "0ms"] {
            let late = with_header(3.0, &format!("x-headgate-timeout: {timeout}"));
            assert_eq!(ask(&mut stream, &late).0, 504, "{timeout}");
        }
        // The direct request, the last one, and its second run by the champion.
        [(), (), ()].into_iter().for_each(|()| held.leave.send(()).unwrap());
        assert_eq!(answer(&mut first).0, 200);
        assert_eq!(ask(&mut stream, &request("model", 2.0)).0, 200);
        // Only the last one is drawn, which is when it has been booked.
        let found = settled(&gateway, 1);
        assert_eq!((&found["champion_failed"]["requests"], &found["pairs"]), (&json!(0), &json!(1)));
    }
}

#[test]
fn a_copy_that_waits_holds_none_of_the_memory_for_requests() {
    for placement in ["inline", "pool"] {
        let (gateway, address) = gateway_with(&json!({"shadow_cpu": ONE_RUN}));
        let run = json!({"placement": placement});
        adopt_as(&gateway, "v1", &serde_json::from_value(run.clone()).unwrap(), double);
        adopt(&gateway, "v2", double);
        let mut state = state(&["v1", "v2"], &shadow(&json!({})));
        state["versions"][0]["run"] = run;
        apply(&gateway, &state);
        // The first run uses up the CPU time, so that the next copy waits.
        send_all(address, [1.0]);
        settled(&gateway, 1);
        let values = vec![1.5; 50_000];
        let body =
            json!({"inputs": [{"name": "x", "shape": [values.len()], "datatype": "FP32", "data": values}]});
        let body = body.to_string();
        let head = format!(
            "POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        assert_eq!(ask(&mut connect(address), &(head + &body)).0, 200);
        at_last("the copy", || report(&gateway)["queue"]["length"] == 1);
        let held = number(&report(&gateway)["queue"]["bytes"]);
        assert!((400_000..2_000_000).contains(&held), "inputs and outputs have 400 kB: {held}");
        for memory in ["headgate_large_request_bytes", "headgate_small_request_bytes"] {
            at_last("the memory of the request", || series(&gateway, memory, &json!({})) == 0);
        }
    }
}

#[test]
fn several_shadows_get_the_same_request_and_bad_ones_hold_up_no_other() {
    // One run of each shadow at a time, and two threads: both are held at once.
    let (gateway, address) = gateway_with(&json!({"shadow_cpu": 0.01}));
    adopt(&gateway, "v1", double);
    for version in ["v2", "v3"] {
        adopt(&gateway, version, |_| {
            loop {
                cancel::check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        });
    }
    adopt(&gateway, "v4", |value| Ok(2.0 * value + 1.0));
    let mut changes = shadow(&json!({"timeout": 3_600_000}));
    let shadows = changes["shadow"].as_array_mut().unwrap();
    shadows.push(json!({"to": "v3", "share": 10_000, "timeout": 3_600_000}));
    shadows.push(json!({"to": "v4", "share": 10_000}));
    apply(&gateway, &state(&["v1", "v2", "v3", "v4"], &changes));
    send_all(address, (1..=20).map(|value| value as f32));
    let mut last = Value::Null;
    at_last("the other shadow", || {
        last = gateway.shadows("model").unwrap()["shadows"][2].clone();
        last["pairs"] == 20
    });
    assert_eq!((&last["to"], &last["compared"]["differing"]), (&json!("v4"), &json!(20)));
    assert_eq!(last["outputs"]["y"]["compare"], json!({"within": {"relative": 0.001}}));
}
