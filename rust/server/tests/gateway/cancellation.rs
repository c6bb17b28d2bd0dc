//! Runs that no request waits for are cancelled, and a bad run takes nothing that others need. The models are real: a loop with as many
//! turns as the request says, and a node that cannot be cancelled within.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{LONG, PATIENCE, answer, at_last, connect, eventually, gateway_with, metric};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// More turns of a loop than a test waits for.
const ENDLESS: i64 = i64::MAX;

fn apply(gateway: &Gateway, name: &str, model: &str, run: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(model);
    let spec = json!({
        "name": name, "revision": 1, "champion": "v1", "timeout_ms": 600_000, "fresh": true,
        "versions": [{"name": "v1", "digest": format!("sha256:{name}"), "artifact": path, "run": run}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    let mut events = Vec::new();
    eventually("the endpoint", || {
        events.extend(gateway.events());
        !events.is_empty()
    });
    assert_eq!(events[0]["event"], "applied", "{events:?}");
}

fn post(name: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Asks for this many turns with this deadline.
fn count(name: &str, times: i64, timeout: Duration) -> String {
    post(
        name,
        &json!({
            "parameters": {"timeout": timeout.as_micros() as u64},
            "inputs": [
                {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
                {"name": "times", "shape": [1], "datatype": "INT64", "data": [times]},
            ],
        }),
    )
}

/// A square of ones with this size, in binary data.
fn long(name: &str, size: usize, timeout: Duration) -> Vec<u8> {
    let data = 1_f32.to_le_bytes().repeat(size * size);
    let json = json!({
        "parameters": {"timeout": timeout.as_micros() as u64},
        "inputs": [{
            "name": "x", "shape": [1, 1, size, size], "datatype": "FP32", "parameters": {"binary_data_size": data.len()},
        }],
    })
    .to_string();
    let head = format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: t\r\ninference-header-content-length: {}\r\ncontent-length: {}\r\n\r\n",
        json.len(),
        json.len() + data.len()
    );
    [head.into_bytes(), json.into_bytes(), data].concat()
}

fn send(address: SocketAddr, request: &(impl AsRef<[u8]> + ?Sized)) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(request.as_ref()).unwrap();
    stream
}

fn ask(address: SocketAddr, request: &(impl AsRef<[u8]> + ?Sized)) -> (u16, Value) {
    answer(&mut send(address, request))
}

/// Asserts that an endpoint counts to three.
fn counts(address: SocketAddr, name: &str) {
    let (status, body) = ask(address, &count(name, 3, PATIENCE));
    assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(3.5)), "{body}");
}

fn of(name: &str) -> Value {
    json!({"endpoint": name, "version": "v1"})
}

fn in_progress(gateway: &Gateway, name: &str) -> u64 {
    metric(gateway, "headgate_runs_in_progress", &of(name))
}

#[test]
fn an_endless_run_on_an_io_thread_moves_to_the_pool_and_ends_with_its_deadline() {
    let (gateway, address) = gateway_with(&json!({}));
    apply(&gateway, "endless", "count.onnx", &json!({"placement": "inline"}));
    apply(&gateway, "good", "count.onnx", &json!({"placement": "inline"}));
    let wait = Duration::from_secs(3);
    let mut endless: Vec<_> = (0..4).map(|_| send(address, &count("endless", ENDLESS, wait))).collect();
    for _ in 0..20 {
        counts(address, "good");
    }
    for stream in &mut endless {
        let (status, body) = answer(stream);
        assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")), "{body}");
    }
    let cancelled = || metric(&gateway, "headgate_runs_cancelled_total", &of("endless"));
    // One run was on the IO thread. The version is in the pool from then on, and two runs were there.
    eventually("the ends of the runs", || cancelled() >= 3 && in_progress(&gateway, "endless") == 0);
    assert_eq!(metric(&gateway, "headgate_runs_cancelled_total", &of("good")), 0);
    assert_eq!(gateway.status()["endpoints"]["endless"]["versions"]["v1"]["placement"], "pool");
    counts(address, "endless");
    eventually("no stuck run", || metric(&gateway, "headgate_runs_stuck", &of("endless")) == 0);
}

#[test]
fn endless_runs_in_the_pool_leave_a_thread_to_others_and_end_when_their_clients_leave() {
    let (gateway, address) = gateway_with(&json!({}));
    apply(&gateway, "endless", "count.onnx", &json!({"placement": "pool"}));
    apply(&gateway, "good", "count.onnx", &json!({"placement": "pool"}));
    let held: Vec<_> = (0..6).map(|_| send(address, &count("endless", ENDLESS, 10 * PATIENCE))).collect();
    eventually("all of them", || metric(&gateway, "headgate_requests_in_flight", &of("endless")) == 6);
    for _ in 0..20 {
        counts(address, "good");
    }
    drop(held);
    let labels = json!({"endpoint": "endless", "version": "v1", "code": "cancelled"});
    eventually("the cancellations", || metric(&gateway, "headgate_requests_total", &labels) == 6);
    // Until a thread that gets no processor time ends its run, the version may have no thread for another one.
    eventually("the ends of the runs", || in_progress(&gateway, "endless") == 0);
    counts(address, "endless");
    assert!(gateway.stop(Duration::ZERO, PATIENCE), "no run is left");
}

#[test]
fn several_versions_that_misbehave_do_not_hold_the_pool_between_them() {
    let (gateway, address) = gateway_with(&json!({}));
    for name in ["first", "second", "third", "good"] {
        apply(&gateway, name, "count.onnx", &json!({"placement": "pool"}));
    }
    let bad = ["first", "second", "third"];
    let held: Vec<_> = bad
        .into_iter()
        .cycle()
        .take(9)
        .map(|name| send(address, &count(name, ENDLESS, 10 * PATIENCE)))
        .collect();
    let in_flight = |name| metric(&gateway, "headgate_requests_in_flight", &of(name));
    eventually("all of them", || bad.into_iter().map(in_flight).sum::<u64>() == 9);
    for _ in 0..5 {
        counts(address, "good");
    }
    let threads = metric(&gateway, "headgate_run_threads", &json!({"kind": "pool"}));
    assert!(threads > 3, "{threads}: each of them holds two");
    drop(held);
    eventually("the spare threads' end", || {
        metric(&gateway, "headgate_run_threads", &json!({"kind": "pool"})) == 3
    });
}

#[test]
fn a_batch_goes_on_until_the_last_of_its_requests_is_given_up() {
    let (gateway, address) = gateway_with(&json!({"pool_threads": 1, "io_threads": 1}));
    apply(&gateway, "good", "count.onnx", &json!({"placement": "inline"}));
    apply(&gateway, "rows", "patient_rows.onnx", &json!({"max_batch": 8, "placement": "pool"}));
    let rows = |turns: f64, timeout: Duration| {
        post(
            "rows",
            &json!({
                "parameters": {"timeout": timeout.as_micros() as u64},
                "inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [turns]}],
            }),
        )
    };
    // The run holds the only thread that the version may have, so that the next two requests are in one batch.
    let first = send(address, &rows(1e18, 10 * PATIENCE));
    let running = || metric(&gateway, "headgate_runs_in_progress", &of("rows")) == 1;
    eventually("the first run", running);
    let leaves = send(address, &rows(1e18, 10 * PATIENCE));
    let stays = send(address, &rows(1e18, 10 * PATIENCE));
    eventually("all three", || metric(&gateway, "headgate_requests_in_flight", &of("rows")) == 3);
    // The IO thread answers this request after it has put both into the batch.
    counts(address, "good");
    drop(first);
    let cancelled = || metric(&gateway, "headgate_runs_cancelled_total", &of("rows"));
    eventually("the first run's end and the second's begin", || cancelled() == 1 && running());
    drop(leaves);
    eventually("the departure", || metric(&gateway, "headgate_requests_in_flight", &of("rows")) == 1);
    counts(address, "good");
    assert_eq!(cancelled(), 1, "somebody waits still");
    drop(stays);
    eventually("the end of the batch", || cancelled() == 2);
    let (status, body) = ask(address, &rows(2.0, PATIENCE));
    assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(2.0)));
}

#[test]
fn a_run_that_cannot_be_cancelled_is_named_and_its_thread_replaced() {
    let (gateway, address) = gateway_with(&json!({"pool_threads": 1}));
    apply(&gateway, "long", "long_node.onnx", &json!({"placement": "pool"}));
    apply(&gateway, "good", "count.onnx", &json!({"placement": "pool"}));
    let stuck = || metric(&gateway, "headgate_runs_stuck", &of("long"));
    // On a busy machine the deadline may pass before the run begins.
    let mut wait = Duration::ZERO;
    eventually("the stuck run", || {
        if in_progress(&gateway, "long") == 0 {
            wait += Duration::from_millis(500);
            assert_eq!(ask(address, &long("long", 1_000, wait)).0, 504);
        }
        stuck() == 1
    });
    assert_eq!(gateway.status()["endpoints"]["long"]["versions"]["v1"]["runs"]["stuck"], 1);
    // The version may have one thread, and that one is stuck.
    let (status, body) = ask(address, &long("long", 1, PATIENCE));
    assert_eq!((status, &body["code"]), (503, &json!("overloaded")), "{body}");
    counts(address, "good");
    assert_eq!(metric(&gateway, "headgate_run_threads_stuck", &json!({"kind": "pool"})), 1);
    assert!(gateway.status()["ready"].as_bool().unwrap(), "others have what they need");
    at_last("its end", || stuck() == 0);
    let (status, body) = ask(address, &long("long", 1, PATIENCE));
    assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(1.0)), "{body}");
}

fn stuck_io_threads(gateway: &Gateway) -> u64 {
    metric(gateway, "headgate_run_threads_stuck", &json!({"kind": "io"}))
}

/// Holds an IO thread with a run that cannot be cancelled, and returns its client.
///
/// A run that waits for a core before its node begins can still be cancelled, and goes on in the pool. Then the next one is tried.
fn hold_an_io_thread(gateway: &Gateway, address: SocketAddr) -> TcpStream {
    let hold = |name| {
        apply(gateway, name, "long_node.onnx", &json!({"placement": "inline"}));
        let held = send(address, &long(name, 1_000, 10 * PATIENCE));
        let in_pool = || metric(gateway, "headgate_runs_in_progress", &of(name)) == 1;
        eventually("the run", || stuck_io_threads(gateway) == 1 || in_pool());
        (stuck_io_threads(gateway) == 1).then_some(held)
    };
    ["long-1", "long-2", "long-3", "long-4", "long-5"]
        .into_iter()
        .find_map(hold)
        .expect("a run on an IO thread")
}

#[test]
fn an_io_thread_that_does_not_come_back_gets_no_connections_and_turns_readiness() {
    let (gateway, address) = gateway_with(&json!({"io_threads": 2}));
    apply(&gateway, "good", "count.onnx", &json!({"placement": "inline"}));
    let mut held = hold_an_io_thread(&gateway, address);
    assert_eq!(gateway.status()["ready"], false);
    assert!(
        gateway.not_ready_reasons()[0].contains("1 of 2 IO threads"),
        "{:?}",
        gateway.not_ready_reasons()
    );
    let start = Instant::now();
    for _ in 0..4 {
        counts(address, "good");
    }
    assert!(start.elapsed() < PATIENCE);
    held.set_read_timeout(Some(LONG)).unwrap();
    let (status, body) = answer(&mut held);
    assert_eq!((status, &body["outputs"][0]["data"][0]), (200, &json!(1.0)), "{body}");
    eventually("its end", || stuck_io_threads(&gateway) == 0 && gateway.status()["ready"] == true);
}

#[test]
fn runs_in_progress_at_the_end_of_the_grace_are_cancelled() {
    let (gateway, address) = gateway_with(&json!({}));
    apply(&gateway, "endless", "count.onnx", &json!({"placement": "pool"}));
    let _held = send(address, &count("endless", ENDLESS, 10 * PATIENCE));
    eventually("the request", || metric(&gateway, "headgate_requests_in_flight", &of("endless")) == 1);
    let start = Instant::now();
    gateway.stop(Duration::ZERO, Duration::from_millis(100));
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(metric(&gateway, "headgate_run_threads", &json!({"kind": "pool"})), 0, "all threads are gone");
}
