//! Loads that hang: they end at their limit, with the next state or with a removal, and delay no other load.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{LONG, ask, at_last, config, connect, eventually, gateway_with, metric, other_end, pipe};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};
use tempfile::TempDir;

fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}

/// An artifact whose warm-up never ends.
fn endless() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    std::fs::copy(model("count.onnx"), &path).unwrap();
    let request = json!({"inputs": [
        {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
        {"name": "times", "shape": [1], "datatype": "INT64", "data": [i64::MAX]},
    ]});
    std::fs::write(folder.path().join("warmup.json"), request.to_string()).unwrap();
    (folder, path)
}

fn apply(gateway: &Gateway, name: &str, revision: u64, path: &Path) -> u64 {
    apply_as(gateway, name, revision, path, false)
}

fn apply_as(gateway: &Gateway, name: &str, revision: u64, path: &Path, urgent: bool) -> u64 {
    let digest = format!("sha256:{}", path.display());
    let spec = json!({
        "name": name, "revision": revision, "champion": "v1", "timeout_ms": 60_000, "fresh": true, "urgent": urgent,
        "versions": [{"name": "v1", "digest": digest, "artifact": path}],
    });
    gateway.apply(common::spec(&spec)).unwrap()
}

/// Applies a state that was served before a restart.
fn restore(gateway: &Gateway, name: &str, path: &Path) -> u64 {
    let spec = json!({
        "name": name, "revision": 1, "champion": "v1", "timeout_ms": 60_000, "fresh": false,
        "versions": [{"name": "v1", "digest": format!("sha256:{}", path.display()), "artifact": path}],
    });
    gateway.apply(common::spec(&spec)).unwrap()
}

/// The outcome of each ticket.
fn outcomes(gateway: &Gateway, tickets: &[u64]) -> Vec<Value> {
    let mut events = Vec::new();
    let of =
        |events: &[Value], ticket| events.iter().find(|event: &&Value| event["ticket"] == ticket).cloned();
    at_last("the outcomes", || {
        events.extend(gateway.events());
        tickets.iter().all(|&ticket| of(&events, ticket).is_some())
    });
    tickets.iter().map(|&ticket| of(&events, ticket).unwrap()).collect()
}

fn is_applied(gateway: &Gateway, ticket: u64) {
    let outcomes = outcomes(gateway, &[ticket]);
    assert_eq!(outcomes[0]["event"], "applied", "{outcomes:?}");
}

/// Loads a model under a load limit that a slow machine may need for other work.
fn loads_at_last(gateway: &Gateway, name: &str, path: &Path) {
    let mut revision = 0;
    at_last(name, || {
        revision += 1;
        let ticket = apply(gateway, name, revision, path);
        outcomes(gateway, &[ticket])[0]["event"] == "applied"
    });
}

/// Stops a gateway, which cancels its loads. Threads that load have the lowest priority, and get little of a busy machine to end.
fn stops(gateway: &Gateway) {
    let begun = Instant::now();
    assert!(gateway.stop(Duration::ZERO, LONG), "something was left after {:?}", begun.elapsed());
}

fn count(gateway: &Gateway, name: &str) -> u64 {
    metric(gateway, name, &json!({"kind": "apply"}))
}

#[test]
fn a_load_that_takes_too_long_is_cancelled_and_says_so() {
    let (gateway, _) = gateway_with(&json!({"load_timeout_ms": 3_000}));
    let (_folder, path) = endless();
    let hangs = [apply(&gateway, "one", 1, &path), apply(&gateway, "two", 1, &path)];
    for event in outcomes(&gateway, &hangs) {
        assert_eq!((&event["event"], &event["code"]), (&json!("failed"), &json!("model_load_failed")));
        assert!(event["message"].as_str().unwrap().contains("--load-timeout"), "{event}");
    }
    assert_eq!(count(&gateway, "headgate_loads_cancelled_total"), 2);
    // A load whose thread gets no processor time is abandoned, and ends later.
    at_last("the ends of the loads", || count(&gateway, "headgate_loads_stuck") == 0);
    // The loader threads are as many as before.
    loads_at_last(&gateway, "good", &model("count.onnx"));
    loads_at_last(&gateway, "later", &model("gather.onnx"));
}

#[test]
fn loads_end_and_keep_no_other_waiting_before_the_start_too() {
    let gateway = Gateway::new(config(&json!({"load_timeout_ms": 5000}))).unwrap();
    let (_folder, path) = endless();
    let tickets = ["a", "b", "c"].map(|name| apply(&gateway, name, 1, &path));
    let good = apply(&gateway, "good", 1, &model("count.onnx"));
    let outcomes = outcomes(&gateway, &[tickets.as_slice(), &[good]].concat());
    loads_at_last(&gateway, "good", &model("count.onnx"));
    let hangs = &outcomes[..tickets.len()];
    assert!(hangs.iter().all(|event| event["event"] == "failed"), "{hangs:?}");
    gateway.start().unwrap();
    stops(&gateway);
}

#[test]
fn the_next_state_and_a_removal_end_a_load() {
    let (gateway, _) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    let hangs = apply(&gateway, "model", 1, &path);
    let next = apply(&gateway, "model", 2, &model("count.onnx"));
    let outcomes_of = |tickets: &[u64]| -> Vec<Value> {
        outcomes(&gateway, tickets).into_iter().map(|event| event["event"].clone()).collect()
    };
    assert_eq!(outcomes_of(&[hangs, next]), ["superseded", "applied"]);
    let hangs: Vec<u64> = ["a", "b", "c"].into_iter().map(|name| apply(&gateway, name, 1, &path)).collect();
    ["a", "b", "c"].into_iter().for_each(|name| {
        gateway.remove(name);
    });
    assert_eq!(outcomes_of(&hangs), ["superseded"; 3]);
    stops(&gateway);
}

#[test]
fn loads_that_hang_keep_no_other_waiting() {
    let (gateway, _) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    for name in ["a", "b", "c"] {
        apply(&gateway, name, 1, &path);
    }
    let good = apply(&gateway, "good", 1, &model("count.onnx"));
    is_applied(&gateway, good);
    stops(&gateway);
}

#[test]
fn however_many_loads_hang_none_that_is_well_waits_for_them() {
    let (gateway, _) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    for at in 0..20 {
        apply(&gateway, &format!("hangs-{at}"), 1, &path);
    }
    let good = apply(&gateway, "good", 1, &model("count.onnx"));
    let mut events = Vec::new();
    // Twenty loads take time of the processor as well.
    at_last("the good endpoint", || {
        events.extend(gateway.events());
        events.iter().any(|event| event["ticket"] == good)
    });
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["event"], "applied");
    assert!(count(&gateway, "headgate_load_threads") > 20);
    assert_eq!(count(&gateway, "headgate_loads_waiting"), 0);
    stops(&gateway);
}

#[test]
fn an_urgent_load_that_hangs_keeps_no_other_urgent_one_waiting() {
    let (gateway, _) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    apply_as(&gateway, "hangs", 1, &path, true);
    let good = apply_as(&gateway, "good", 1, &model("count.onnx"), true);
    is_applied(&gateway, good);
    stops(&gateway);
}

#[test]
fn a_model_that_never_ends_on_made_up_inputs_is_served_unwarmed() {
    let (gateway, address) = gateway_with(&json!({}));
    let sound = apply(&gateway, "sound", 1, &model("above_five.onnx"));
    is_applied(&gateway, sound);
    let note = gateway.status()["endpoints"]["sound"]["versions"]["v1"]["note"].clone();
    assert!(note.as_str().unwrap().contains("takes too long"), "{note}");
    assert_eq!(ask(&mut connect(address), "sound", 7.0), 7.0);
}

#[test]
fn an_endpoint_from_before_a_start_is_not_ready_while_its_load_hangs() {
    let (gateway, address) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    restore(&gateway, "hangs", &path);
    let good = restore(&gateway, "good", &model("count.onnx"));
    is_applied(&gateway, good);
    let (status, why) = refused(address, "hangs");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("it is being loaded"), "{why}");
    assert_eq!(refused(address, "another").0, 404);
    gateway.remove("hangs");
    assert_eq!(refused(address, "hangs").0, 404);
}

#[test]
fn an_endpoint_from_before_a_start_that_cannot_be_loaded_reports_why() {
    let (gateway, address) = gateway_with(&json!({"load_timeout_ms": 300}));
    let (_folder, path) = endless();
    let hangs = restore(&gateway, "hangs", &path);
    let outcome = outcomes(&gateway, &[hangs]).remove(0);
    assert_eq!(outcome["event"], "failed", "{outcome}");
    let (status, why) = refused(address, "hangs");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("--load-timeout"), "{why}");
}

#[test]
fn an_endpoint_from_before_a_start_reports_the_outcome_of_its_newest_state() {
    let (gateway, address) = gateway_with(&json!({}));
    let (folder, path) = endless();
    let events = |tickets: &[u64]| -> Vec<Value> {
        outcomes(&gateway, tickets).into_iter().map(|event| event["event"].clone()).collect()
    };
    restore(&gateway, "fails", &path);
    let next = apply(&gateway, "fails", 2, &folder.path().join("nowhere.onnx"));
    assert_eq!(events(&[next]), ["failed"]);
    let (status, why) = refused(address, "fails");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("nowhere.onnx"), "{why}");
    let before = restore(&gateway, "cancelled", &path);
    gateway.cancel("cancelled");
    assert_eq!(events(&[before]), ["superseded"]);
    let (status, why) = refused(address, "cancelled");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("its load was cancelled"), "{why}");
    // A new endpoint was never served.
    let new = apply(&gateway, "new", 1, &folder.path().join("nowhere.onnx"));
    assert_eq!((events(&[new]), refused(address, "new").0), (vec![json!("failed")], 404));
    for name in ["fails", "cancelled"] {
        loads_at_last(&gateway, name, &model("count.onnx"));
    }
}

#[test]
fn an_endpoint_from_before_a_start_whose_load_is_abandoned_reports_why() {
    let (gateway, address) = gateway_with(&json!({"load_timeout_ms": 100}));
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(&folder);
    let hangs = restore(&gateway, "hangs", &path);
    assert_eq!(outcomes(&gateway, &[hangs])[0]["event"], "failed");
    assert_eq!(count(&gateway, "headgate_loads_abandoned_total"), 1);
    let (status, why) = refused(address, "hangs");
    assert_eq!(status, 503, "{why}");
    assert!(why.contains("--load-timeout"), "{why}");
    drop(other_end(&path));
    eventually("its end", || count(&gateway, "headgate_loads_stuck") == 0);
}

/// The error of a request.
fn refused(address: SocketAddr, name: &str) -> (u16, String) {
    let mut stream = connect(address);
    stream.write_all(common::request(name, 1.0).as_bytes()).unwrap();
    let (status, body) = common::answer(&mut stream);
    (status, body["error"].as_str().unwrap().to_owned())
}

#[test]
fn a_gateway_stops_while_a_load_hangs() {
    let (gateway, _) = gateway_with(&json!({}));
    let (_folder, path) = endless();
    apply(&gateway, "model", 1, &path);
    stops(&gateway);
}

#[test]
fn a_load_that_cannot_be_cancelled_is_abandoned_and_its_thread_replaced() {
    let (gateway, _) = gateway_with(&json!({"load_timeout_ms": 3_000}));
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(&folder);
    let hangs = [apply(&gateway, "one", 1, &path), apply(&gateway, "two", 1, &path)];
    assert!(outcomes(&gateway, &hangs).iter().all(|event| event["event"] == "failed"));
    assert_eq!(count(&gateway, "headgate_loads_abandoned_total"), 2);
    assert_eq!(count(&gateway, "headgate_loads_stuck"), 2);
    loads_at_last(&gateway, "good", &model("count.onnx"));
    // Their results are dropped in the end: the file has become readable, and holds no model.
    drop(other_end(&path));
    eventually("the end of both", || count(&gateway, "headgate_loads_stuck") == 0);
    assert!(gateway.events().iter().all(|event| event["endpoint"] == "good"));
}

#[test]
fn an_abandoned_load_over_the_protocol_does_not_block_the_next_one() {
    let changes = json!({"load_timeout_ms": 100, "allow_repository_control": true});
    let (gateway, address) = gateway_with(&changes);
    let folder = tempfile::tempdir().unwrap();
    let path = pipe(&folder);
    let kept = gateway
        .engine()
        .adopt("sha256:model", Box::new(common::free()), &headgate_core::spec::RunSpec::default())
        .unwrap();
    let spec = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 1000,
        "versions": [{"name": "v1", "digest": "sha256:model", "artifact": path}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    drop(kept);
    let mut control = connect(address);
    let mut asks = |what: &str| {
        let head = "HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n";
        control.write_all(format!("POST /v2/repository/models/model/{what} {head}").as_bytes()).unwrap();
        common::answer(&mut control)
    };
    assert_eq!(asks("unload").0, 200);
    eventually("the model's end", || {
        gateway.engine().find_loaded("sha256:model", &headgate_core::spec::RunSpec::default()).is_none()
    });
    let (status, why) = asks("load");
    assert!(status == 500 && why["error"].as_str().unwrap().contains("--load-timeout"), "{status} {why}");
    assert_eq!(count(&gateway, "headgate_loads_stuck"), 1);
    // The next one is a load of its own, which takes as long. It is not superseded.
    let (status, why) = asks("load");
    assert!(status == 500 && why["error"].as_str().unwrap().contains("--load-timeout"), "{status} {why}");
    drop(other_end(&path));
    eventually("the end of both", || count(&gateway, "headgate_loads_stuck") == 0);
}
