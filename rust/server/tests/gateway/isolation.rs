//! The isolation of requests: the effect of held runs and of clients that leave on others. Channels force the order, never time.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::common;
use crate::common::http2;
use crate::common::{
    LONG, PATIENCE, answer, ask, ask_until_begun, connect, eventually, free, gated, gateway, gateway_with,
    metric, request, send, serve, whole_answer,
};
use headgate_core::histogram::{Counts, Histogram};
use headgate_core::spec::RunSpec;
use serde_json::{Value, json};

#[test]
fn a_held_run_does_not_hold_others_on_its_io_thread() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    serve(&gateway, "tiny", free(), true);
    let mut waiting = connect(address);
    waiting.write_all(request("slow", 21.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    let mut other = connect(address);
    for value in 0..100u8 {
        assert_eq!(ask(&mut other, "tiny", f32::from(value)), 2.0 * f64::from(value));
    }
    let labels = json!({"endpoint": "slow", "version": "v1"});
    assert_eq!(metric(&gateway, "headgate_requests_in_flight", &labels), 1);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut waiting).1["outputs"][0]["data"][0], 42.0);
    assert!(gateway.stop(Duration::ZERO, PATIENCE));
}

#[test]
fn a_pipelined_answer_leaves_before_the_next_run_begins() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "first", free(), true);
    serve(&gateway, "second", slow, true);
    let mut stream = connect(address);
    stream.write_all(format!("{}{}", request("first", 1.0), request("second", 2.0)).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    // The only IO thread is held in the second run, and the first response has arrived.
    assert_eq!(answer(&mut stream).1["outputs"][0]["data"][0], 2.0);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut stream).1["outputs"][0]["data"][0], 4.0);
}

#[test]
fn a_client_that_leaves_counts_as_cancelled_and_its_queued_run_is_dropped() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut leaving = connect(address);
    leaving.write_all(request("slow", 1.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    drop(leaving);
    let labels = json!({"endpoint": "slow", "version": "v1", "code": "cancelled"});
    eventually("the cancellation", || metric(&gateway, "headgate_requests_total", &labels) == 1);
    held.leave.send(()).unwrap();
    let version = json!({"endpoint": "slow", "version": "v1"});
    assert_eq!(metric(&gateway, "headgate_requests_in_flight", &version), 0);
    // The run had begun, so it counts.
    eventually("the run's end", || metric(&gateway, "headgate_runs_total", &version) == 1);
    let mut next = connect(address);
    next.write_all(request("slow", 3.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut next).1["outputs"][0]["data"][0], 6.0);
}

#[test]
fn a_drain_finishes_requests_in_flight_and_takes_no_others() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut waiting = connect(address);
    waiting.write_all(request("slow", 5.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    let mut idle = connect(address);
    eventually("both connections", || metric(&gateway, "headgate_connections", &json!({})) == 2);
    let stopping = gateway.clone();
    let stop = std::thread::spawn(move || stopping.stop(Duration::ZERO, PATIENCE));
    // The idle connection is closed by the drain; then the listener is gone.
    assert_eq!(idle.read(&mut [0u8; 1]).unwrap(), 0);
    assert!(TcpStream::connect(address).is_err());
    held.leave.send(()).unwrap();
    let (_, head, body) = whole_answer(&mut waiting);
    assert_eq!(body["outputs"][0]["data"][0], 10.0);
    assert!(head.contains("connection: close"), "{head}");
    assert!(stop.join().unwrap(), "nothing had to be cut off");
    assert!(gateway.stop(Duration::ZERO, Duration::ZERO), "a second stop says the same");
}

#[test]
fn a_run_that_never_ends_is_cut_off_when_the_grace_is_over() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut waiting = connect(address);
    waiting.write_all(request("slow", 5.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    let stopping = gateway.clone();
    let stop = std::thread::spawn(move || stopping.stop(Duration::ZERO, Duration::ZERO));
    assert_eq!(waiting.read(&mut [0u8; 1]).unwrap_or(0), 0, "the connection is cut");
    held.leave.send(()).unwrap();
    assert!(!stop.join().unwrap());
}

#[test]
fn a_swap_leaves_requests_in_flight_on_their_version() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "model", slow, false);
    let mut waiting = connect(address);
    waiting.write_all(request("model", 4.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    let model = gateway.engine().adopt("sha256:new", Box::new(free()), &RunSpec::default()).unwrap();
    let spec = json!({
        "name": "model", "revision": 2, "champion": "v2", "timeout_ms": 60000,
        "versions": [{"name": "v2", "digest": "sha256:new", "artifact": "adopted"}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    drop(model);
    let mut other = connect(address);
    other.write_all(request("model", 1.0).as_bytes()).unwrap();
    assert_eq!(answer(&mut other).1["model_version"], "v2");
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut waiting).1["model_version"], "v1");
}

#[test]
fn a_newer_urgent_state_supersedes_a_load_that_waits() {
    let (gateway, _) = gateway();
    serve(&gateway, "model", free(), true);
    // A file that does not exist is "loading" until its loader thread opens it. The urgent update needs no load at all.
    let digest = "sha256:model";
    let state = |revision: u64, urgent: bool, artifact: &str, digest: &str| {
        let spec = json!({
            "name": "model", "revision": revision, "champion": "v1", "timeout_ms": 1000, "urgent": urgent,
            "versions": [{"name": "v1", "digest": digest, "artifact": artifact}],
        });
        gateway.apply(common::spec(&spec)).unwrap()
    };
    let slow = state(2, false, "nowhere.onnx", "sha256:missing");
    let urgent = state(3, true, "adopted", digest);
    let mut events = Vec::new();
    eventually("both outcomes", || {
        events.extend(gateway.events());
        events.len() == 2
    });
    let outcome =
        |ticket: u64| events.iter().find(|event| event["ticket"] == ticket).unwrap()["event"].clone();
    assert_eq!(outcome(urgent), "applied");
    // The load may have failed before the urgent update. The older update is never served after it.
    assert!(["superseded", "failed"].contains(&outcome(slow).as_str().unwrap()));
    assert_eq!(gateway.status()["endpoints"]["model"]["revision"], 3);
}

#[test]
fn a_request_whose_own_time_is_over_is_refused_before_its_run() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let tensor = json!({"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]});
    let body = json!({"parameters": {"timeout": 1}, "inputs": [tensor]}).to_string();
    let mut stream = connect(address);
    let head =
        format!("POST /v2/models/slow/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let (status, body) = answer(&mut stream);
    assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")));
    assert!(held.entered.try_recv().is_err(), "nothing ran");
}

#[test]
fn a_request_with_less_time_than_a_run_takes_is_refused_at_once() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let model = gateway.engine().find_loaded("sha256:slow", &RunSpec::default()).unwrap();
    let (runs, mut counts) = (Histogram::default(), Counts::default());
    (0..100).for_each(|_| runs.record(10_000_000_000));
    runs.add_to(&mut counts);
    // Learned at a time far ahead, so that no request is let through to correct the figure.
    model.learn(&counts, u64::MAX / 4);
    let within = |timeout: &str| {
        let mut stream = connect(address);
        let asked =
            request("slow", 1.0).replacen("host: t", &format!("host: t\r\nx-headgate-timeout: {timeout}"), 1);
        stream.write_all(asked.as_bytes()).unwrap();
        stream
    };
    let (status, body) = answer(&mut within("5s"));
    assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")));
    assert!(body["error"].as_str().unwrap().contains("a run takes about"), "{body}");
    assert!(held.entered.try_recv().is_err(), "nothing ran");
    let labels = json!({"endpoint": "slow", "version": "v1"});
    assert_eq!(metric(&gateway, "headgate_requests_hopeless_total", &labels), 1);
    let mut patient = within("60s");
    held.entered.recv_timeout(PATIENCE).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut patient).0, 200);
    assert_eq!(answer(&mut within("20 ms")).1["code"], "invalid_argument");
}

#[test]
fn a_version_that_fills_its_queue_leaves_room_to_others() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    let run: RunSpec = serde_json::from_value(json!({"instances": 1})).unwrap();
    let _slow = gateway.engine().adopt("sha256:slow", Box::new(slow), &run).unwrap();
    let spec = json!({
        "name": "slow", "revision": 1, "champion": "v1", "timeout_ms": 60000,
        "versions": [{"name": "v1", "digest": "sha256:slow", "artifact": "adopted", "run": {"instances": 1}}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    serve(&gateway, "other", free(), false);
    // Two pool threads: 512 may wait, 256 of them for one version.
    let mut waiting = vec![send(address, "slow")];
    held.entered.recv_timeout(PATIENCE).unwrap();
    waiting.extend((0..256).map(|_| send(address, "slow")));
    eventually("the queue", || metric(&gateway, "headgate_pool_waiting", &json!({})) == 256);
    let (status, body) = answer(&mut send(address, "slow"));
    assert_eq!((status, &body["code"]), (503, &json!("overloaded")));
    assert!(body["error"].as_str().unwrap().contains("queue for pool threads is full"), "{body}");
    let mut others: Vec<TcpStream> = (0..20).map(|_| send(address, "other")).collect();
    assert!(others.iter_mut().all(|stream| answer(stream).0 == 200));
    waiting.iter().for_each(|_| held.leave.send(()).unwrap());
    assert!(waiting.iter_mut().all(|stream| answer(stream).0 == 200));
}

#[test]
fn a_run_that_outlasts_the_time_out_is_answered_without_it() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    let model = gateway.engine().adopt("sha256:slow", Box::new(slow), &RunSpec::default()).unwrap();
    let spec = json!({
        "name": "slow", "revision": 1, "champion": "v1", "timeout_ms": 1000,
        "versions": [{"name": "v1", "digest": "sha256:slow", "artifact": "adopted"}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    drop(model);
    let asked = ask_until_begun(&held.entered, || {
        let (status, body) = answer(&mut send(address, "slow"));
        assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")));
    });
    (0..asked).for_each(|_| held.leave.send(()).unwrap());
}

#[test]
fn large_requests_beyond_the_budget_are_shed_and_small_ones_go_on() {
    let (gateway, address) = gateway_with(&json!({"large_request_bytes": 100_000}));
    serve(&gateway, "tiny", free(), true);
    let mut body = json!({"inputs": []}).to_string();
    body.push_str(&" ".repeat(70_000));
    let head =
        format!("POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = connect(address);
    stream.write_all((head + &body).as_bytes()).unwrap();
    let (status, body) = answer(&mut stream);
    assert_eq!((status, &body["code"]), (503, &json!("overloaded")));
    assert_eq!(ask(&mut stream, "tiny", 4.0), 8.0);
}

#[test]
fn bodies_that_do_not_come_take_no_memory_from_those_that_do() {
    let (gateway, address) = gateway_with(&json!({"large_request_bytes": 1_000_000}));
    serve(&gateway, "tiny", free(), true);
    let head = |length: usize| {
        format!("POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n")
    };
    let claim = |length: usize| {
        let mut stream = connect(address);
        stream.write_all(head(length).as_bytes()).unwrap();
        stream
    };
    let silent: Vec<TcpStream> = (0..16).map(|_| claim(400_000)).collect();
    eventually("their heads", || gateway.status()["connections"] == 16);
    let mut body =
        json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [2]}]}).to_string();
    body.push_str(&" ".repeat(300_000));
    let mut stream = connect(address);
    stream.write_all((head(body.len()) + &body).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    // A body that never has room is refused before it is read.
    assert_eq!(answer(&mut claim(600_000)).0, 503);
    drop(silent);
}

#[test]
fn an_urgent_state_on_its_way_is_not_overtaken_by_an_ordinary_one() {
    let (gateway, _) = gateway();
    serve(&gateway, "model", free(), true);
    let state = |revision: u64, urgent: bool, artifact: &str, digest: &str| {
        let spec = json!({
            "name": "model", "revision": revision, "champion": "v1", "timeout_ms": 1000, "urgent": urgent,
            "versions": [{"name": "v1", "digest": digest, "artifact": artifact}],
        });
        gateway.apply(common::spec(&spec)).unwrap()
    };
    // The named pipe holds the loader until the test opens its other end.
    let folder = tempfile::tempdir().unwrap();
    let pipe = common::pipe(&folder);
    let urgent = state(2, true, pipe.to_str().unwrap(), "sha256:cold");
    let ordinary = state(3, false, "adopted", "sha256:model");
    let told = gateway.events();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!((&told[0]["ticket"], &told[0]["event"]), (&json!(ordinary), &json!("superseded")));
    // The file has become readable, and holds no model.
    drop(common::other_end(&pipe));
    let mut told = Vec::new();
    eventually("the urgent state's outcome", || {
        told.extend(gateway.events());
        !told.is_empty()
    });
    assert_eq!((&told[0]["ticket"], &told[0]["event"]), (&json!(urgent), &json!("failed")));
    let again = state(4, false, "adopted", "sha256:model");
    assert_eq!(gateway.events()[0]["ticket"], json!(again));
    assert_eq!(gateway.status()["endpoints"]["model"]["revision"], 4);
}

/// Posts to the repository and reads the status and the body of the response.
fn repository(stream: &mut TcpStream, path: &str) -> (u16, Value) {
    let head = format!("POST /v2/repository/models/{path} HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    answer(stream)
}

#[test]
fn an_unload_undoes_a_load_that_is_on_its_way() {
    let (gateway, address) = gateway_with(&json!({"allow_repository_control": true}));
    let model =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/identity_fp32.onnx");
    // The named pipe holds the loader until the test opens its other end.
    let folder = tempfile::tempdir().unwrap();
    let pipe = common::pipe(&folder);
    let kept = gateway.engine().adopt("sha256:model", Box::new(free()), &RunSpec::default()).unwrap();
    let spec = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 1000,
        "versions": [{"name": "v1", "digest": "sha256:model", "artifact": pipe}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    drop(kept);
    let mut control = connect(address);
    assert_eq!(repository(&mut control, "model/unload").0, 200);
    eventually("the model's end", || {
        gateway.engine().find_loaded("sha256:model", &RunSpec::default()).is_none()
    });
    let mut waiting = connect(address);
    let load = "POST /v2/repository/models/model/load HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n";
    waiting.write_all(load.as_bytes()).unwrap();
    // Opens when the loader has opened its end.
    let mut writer = common::other_end(&pipe);
    assert_eq!(repository(&mut control, "model/unload").0, 200);
    writer.write_all(&std::fs::read(model).unwrap()).unwrap();
    drop(writer);
    let (status, body) = answer(&mut waiting);
    assert_eq!((status, &body["code"]), (503, &json!("model_not_ready")));
    control.write_all(request("model", 1.0).as_bytes()).unwrap();
    assert_eq!(answer(&mut control).1["code"], "model_not_ready");
}

#[test]
fn a_load_that_an_urgent_state_overtakes_ends_with_that_state() {
    let (gateway, address) = gateway_with(&json!({"allow_repository_control": true}));
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/identity_fp32.onnx");
    let kept = gateway.engine().adopt("sha256:model", Box::new(free()), &RunSpec::default()).unwrap();
    let state = |revision: u64, urgent: bool, artifact: &std::path::Path, digest: &str| {
        let spec = json!({
            "name": "model", "revision": revision, "champion": "v1", "timeout_ms": 1000, "urgent": urgent,
            "versions": [{"name": "v1", "digest": digest, "artifact": artifact}],
        });
        gateway.apply(common::spec(&spec)).unwrap()
    };
    state(1, false, &path, "sha256:model");
    let mut control = connect(address);
    assert_eq!(repository(&mut control, "model/unload").0, 200);
    // The named pipe holds the urgent state until the test opens its other end.
    let folder = tempfile::tempdir().unwrap();
    let pipe = common::pipe(&folder);
    state(2, true, &pipe, "sha256:urgent");
    let mut writer = common::other_end(&pipe);
    let mut waiting = connect(address);
    let load = "POST /v2/repository/models/model/load HTTP/1.1\r\nhost: t\r\ncontent-length: 0\r\n\r\n";
    waiting.write_all(load.as_bytes()).unwrap();
    // A second load behind it has ended when the first was most likely begun.
    serve(&gateway, "other", free(), true);
    assert_eq!(repository(&mut control, "other/unload").0, 200);
    assert_eq!(repository(&mut control, "other/load").0, 200);
    writer.write_all(&std::fs::read(&path).unwrap()).unwrap();
    drop((writer, kept));
    assert_eq!(answer(&mut waiting).0, 200);
    assert_eq!(gateway.status()["endpoints"]["model"]["revision"], 2);
}

#[test]
fn names_that_do_not_fit_a_tensor_are_refused() {
    let (gateway, _) = gateway();
    let mut wide = free();
    wide.signature.outputs[0].shape = vec![-1, 3];
    let _model = gateway.engine().adopt("sha256:wide", Box::new(wide), &RunSpec::default()).unwrap();
    let outcome = |key: &str, names: &Value, fresh: bool| {
        let spec = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 1000, "fresh": fresh, key: names,
            "versions": [{"name": "v1", "digest": "sha256:wide", "artifact": "adopted"}],
        });
        gateway.apply(common::spec(&spec)).unwrap();
        gateway.events().pop().unwrap()
    };
    assert_eq!(outcome("labels", &json!({"y": ["a", "b", "c"]}), true)["event"], "applied");
    assert_eq!(outcome("columns", &json!({"y": ["a", "b", "c"]}), true)["event"], "applied");
    for (key, names, says) in [
        ("labels", json!({"y": ["a", "b"]}), "labels.y: has 2 names, and the output has 3 classes"),
        ("labels", json!({"Y": ["a", "b", "c"]}), "labels.Y: is no output of any version; there are y"),
        ("columns", json!({"Y": ["a"]}), "columns.Y: is no tensor of any version; there are x, y"),
        ("columns", json!({"y": ["a"]}), "columns.y: has 1 names, and a row has 3 elements"),
    ] {
        let failed = outcome(key, &names, true);
        assert_eq!((&failed["event"], &failed["code"]), (&json!("failed"), &json!("policy_invalid")));
        assert_eq!(failed["message"], says);
    }
}

#[test]
fn a_reset_stream_leaves_nothing_open_and_the_connection_goes_on_until_it_is_idle() {
    let (gateway, address) = gateway_with(&json!({"idle_ms": 3000}));
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    serve(&gateway, "tiny", free(), true);
    let body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}]}).to_string();
    let mut stream = connect(address);
    http2::open(&mut stream);
    http2::post(&mut stream, 1, "/v2/models/slow/infer", body.as_bytes());
    held.entered.recv_timeout(PATIENCE).unwrap();
    http2::cancel(&mut stream, 1);
    let labels = json!({"endpoint": "slow", "version": "v1", "code": "cancelled"});
    eventually("the cancellation", || metric(&gateway, "headgate_requests_total", &labels) == 1);
    http2::post(&mut stream, 3, "/v2/models/tiny/infer", body.as_bytes());
    // If the cancelled request were still open, the connection would never be idle and never be closed.
    let answer: Value = serde_json::from_slice(&http2::data_until_closed(&mut stream, 3)).unwrap();
    assert_eq!(answer["outputs"][0]["data"][0], 6.0);
    held.leave.send(()).unwrap();
    eventually("the end of the connection", || gateway.status()["connections"] == 0);
}

const ELEMENTS: usize = 6_000_000;

/// The head and the JSON of a request whose response is larger than the buffers of the sockets.
fn head_of_large() -> String {
    let tensor = json!({
        "name": "x", "shape": [ELEMENTS], "datatype": "FP32", "parameters": {"binary_data_size": 4 * ELEMENTS},
    });
    let json = json!({"inputs": [tensor]}).to_string();
    format!(
        "POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\
         inference-header-content-length: {}\r\n\r\n{json}",
        json.len() + 4 * ELEMENTS,
        json.len()
    )
}

#[test]
fn a_response_that_is_not_taken_counts_as_undelivered() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), false);
    let head = head_of_large();
    let mut stream = connect(address);
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&vec![0u8; 4 * ELEMENTS]).unwrap();
    // The response has begun and is far larger than the buffers of the sockets. Then the client leaves.
    stream.read_exact(&mut [0u8; 16]).unwrap();
    let labels = json!({"endpoint": "tiny", "version": "v1"});
    assert_eq!(metric(&gateway, "headgate_requests_undelivered_total", &labels), 0);
    drop(stream);
    eventually("the booking", || metric(&gateway, "headgate_requests_undelivered_total", &labels) == 1);
    assert_eq!(metric(&gateway, "headgate_requests_in_flight", &labels), 0);
    let mut next = connect(address);
    assert_eq!(ask(&mut next, "tiny", 1.0), 2.0);
}

#[test]
fn requests_go_on_through_the_drain_delay_while_readiness_is_false() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, "tiny", 1.0), 2.0);
    let stopping = gateway.clone();
    // Nobody waits for its end: the delay is longer than any machine takes for what follows.
    std::thread::spawn(move || stopping.stop(LONG, PATIENCE));
    eventually("the drain", || gateway.status()["draining"] == true);
    stream.write_all(b"GET /v2/health/ready HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream), (503, json!({"ready": false})));
    assert_eq!(stream.read(&mut [0u8; 1]).unwrap(), 0, "each connection is closed behind its answer");
    assert_eq!(ask(&mut connect(address), "tiny", 5.0), 10.0);
}

#[test]
fn a_gateway_stops_behind_its_drain_delay() {
    let (gateway, _) = gateway();
    let (begun, delay) = (Instant::now(), Duration::from_millis(100));
    assert!(gateway.stop(delay, PATIENCE));
    assert!(begun.elapsed() >= delay);
}

#[test]
fn an_http2_connection_is_told_to_go_away_and_finishes_its_stream() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let body = json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}]}).to_string();
    let mut stream = connect(address);
    http2::open(&mut stream);
    http2::post(&mut stream, 1, "/v2/models/slow/infer", body.as_bytes());
    held.entered.recv_timeout(PATIENCE).unwrap();
    let stopping = gateway.clone();
    let stop = std::thread::spawn(move || stopping.stop(Duration::ZERO, PATIENCE));
    http2::until_go_away(&mut stream);
    held.leave.send(()).unwrap();
    let answer: Value = serde_json::from_slice(&http2::data_until_closed(&mut stream, 1)).unwrap();
    assert_eq!(answer["outputs"][0]["data"][0], 6.0);
    assert!(stop.join().unwrap());
}

#[test]
fn a_late_request_does_not_bring_back_the_sketches_of_a_version_that_is_gone() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut stream = send(address, "slow");
    held.entered.recv_timeout(PATIENCE).unwrap();
    gateway.remove("slow");
    eventually("the removal", || gateway.status()["endpoints"].as_object().unwrap().is_empty());
    let mut other = connect(address);
    // The only IO thread knows of it once it has answered another request.
    other.write_all(b"GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    assert_eq!(answer(&mut other).0, 200);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut stream).0, 200);
    other.write_all(b"GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    assert_eq!(answer(&mut other).0, 200);
    eventually("the end of its sketches", || metric(&gateway, "headgate_sketch_bytes", &json!({})) == 0);
}

#[test]
fn a_response_that_is_not_read_is_given_up_and_counted() {
    let (gateway, address) = gateway_with(&json!({"idle_ms": 3000}));
    serve(&gateway, "tiny", free(), false);
    let mut stream = connect(address);
    stream.write_all(head_of_large().as_bytes()).unwrap();
    stream.write_all(&vec![0u8; 4 * ELEMENTS]).unwrap();
    eventually("the end", || metric(&gateway, "headgate_connections_unread_total", &json!({})) == 1);
    eventually("its memory", || metric(&gateway, "headgate_large_request_bytes", &json!({})) == 0);
}
