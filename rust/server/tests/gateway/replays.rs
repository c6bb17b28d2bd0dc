//! Captures and replays of a running gateway, over real sockets: what is captured of requests that fail, and what replays count.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test says what went wrong by panicking")]

use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::common;
use crate::common::computed::adopt;
use crate::common::{answer, at_last, connect, gateway_with, request};
use headgate_capture::reader::{CaptureReader, RecordedElements, RecordedRow};
use headgate_core::error::{Code, Error, Result};
use headgate_engine::runtime::cancel;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

fn apply(gateway: &Gateway, changes: &Value) {
    let versions = ["v1", "v2", "v3"]
        .map(|name| json!({"name": name, "digest": format!("sha256:{name}"), "artifact": "adopted"}));
    let mut state = json!({
        "name": "model", "revision": 3, "champion": "v1", "timeout_ms": 60_000, "versions": versions,
        "capture": {"share": 10_000, "keep": 86_400_000_u64, "max_size": 1 << 30, "redact": []},
    });
    state.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    gateway.apply(common::spec(&state)).unwrap();
    let applied = gateway.events();
    assert_eq!(applied.last().unwrap()["event"], "applied", "{applied:?}");
}

/// A gateway that captures, and whose versions compute these.
fn serving(
    folder: &tempfile::TempDir,
    champion: impl Fn(f32) -> Result<f32> + Send + Sync + 'static,
    other: impl Fn(f32) -> Result<f32> + Send + Sync + 'static,
) -> (Arc<Gateway>, SocketAddr) {
    let (gateway, address) = gateway_with(&json!({"capture_folder": folder.path()}));
    adopt(&gateway, "v1", champion);
    adopt(&gateway, "v2", other);
    adopt(&gateway, "v3", |_| Ok(f32::NAN));
    apply(&gateway, &json!({}));
    (gateway, address)
}

/// Sends a request for each value, and waits until all that `are_captured` are in a file.
fn send_all(gateway: &Gateway, address: SocketAddr, values: &[f32], are_captured: u64) -> Vec<u16> {
    let mut stream = connect(address);
    let mut ask = |value: &f32| {
        stream.write_all(request("model", *value).as_bytes()).unwrap();
        answer(&mut stream).0
    };
    let statuses = values.iter().map(&mut ask).collect();
    at_last("the rows", || captured(gateway)["rows"] == are_captured);
    statuses
}

fn captured(gateway: &Gateway) -> Value {
    gateway.status()["endpoints"]["model"]["capture"].clone()
}

fn rows(folder: &tempfile::TempDir) -> Vec<RecordedRow> {
    let files = std::fs::read_dir(folder.path().join("model")).unwrap().map(|entry| entry.unwrap().path());
    let mut rows = Vec::new();
    for path in files.filter(|path| path.to_string_lossy().contains(".arrows")) {
        let mut reader = CaptureReader::open(&path).unwrap();
        while let Some(batch) = reader.next_batch().unwrap() {
            rows.extend(batch);
        }
    }
    rows.sort_by_key(|row| row.time_us);
    rows
}

fn floats(row: &RecordedRow, tensor: usize) -> Option<Vec<f32>> {
    let tensor = row.tensors[tensor].as_ref()?;
    let RecordedElements::Fixed(bytes) = &tensor.elements else { unreachable!("{tensor:?}") };
    Some(bytes.chunks(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect())
}

/// The report of a replay that has ended.
fn replayed(gateway: &Gateway, request: &Value) -> Value {
    let begun = gateway.start_replay("model", request.to_string().as_bytes()).unwrap();
    ended(gateway, &begun["id"])
}

fn ended(gateway: &Gateway, id: &Value) -> Value {
    let mut found = Value::Null;
    at_last("the replay", || {
        let reports = gateway.replays("model");
        let report = reports["replays"].as_array().unwrap().iter().find(|report| report["id"] == *id);
        found = report.unwrap().clone();
        found["state"] != "running"
    });
    found
}

fn double(value: f32) -> Result<f32> {
    Ok(2.0 * value)
}

fn fails() -> Error {
    Error::new(Code::BackendFailed, "a value that the model does not take")
}

#[test]
fn the_inputs_of_a_run_that_failed_are_captured_though_another_version_answers() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, address) = serving(&folder, |_| Err(fails()), double);
    apply(&gateway, &json!({"revision": 4, "fallback": {"to": ["v2"]}}));
    assert_eq!(send_all(&gateway, address, &[1.0, 2.0], 2), [200, 200]);
    let rows = rows(&folder);
    assert_eq!(rows.iter().map(|row| &*row.code).collect::<Vec<_>>(), ["backend_failed"; 2]);
    assert_eq!(rows.iter().map(|row| floats(row, 0)).collect::<Vec<_>>(), [Some(vec![1.0]), Some(vec![2.0])]);
    assert_eq!(rows.iter().map(|row| floats(row, 1)).collect::<Vec<_>>(), [None, None]);
}

#[test]
fn requests_that_a_version_fails_on_are_captured_and_replayed_apart() {
    let folder = tempfile::tempdir().unwrap();
    // It fails on the input of probes as well, which is 0: so the version is at fault and not the request.
    let fail = |value| if value <= 0.0 { Err(fails()) } else { double(value) };
    let (gateway, address) = serving(&folder, fail, double);
    let statuses = send_all(&gateway, address, &[-1.0, -2.0, 1.0, 2.0], 4);
    assert_eq!(statuses, [500, 500, 200, 200]);
    let rows = rows(&folder);
    assert_eq!(
        rows.iter().map(|row| &*row.code).collect::<Vec<_>>(),
        ["backend_failed", "backend_failed", "ok", "ok"]
    );
    assert_eq!(rows.iter().map(|row| floats(row, 0).unwrap()[0]).collect::<Vec<_>>(), [-1.0, -2.0, 1.0, 2.0]);
    let answers: Vec<_> = rows.iter().map(|row| floats(row, 1).map(|values| values[0])).collect();
    assert_eq!(answers, [None, None, Some(2.0), Some(4.0)]);
    let report = replayed(&gateway, &json!({"version": "v2"}));
    assert_eq!((&report["state"], &report["pairs"]), (&json!("done"), &json!(2)));
    let failed = &report["champion_failed"];
    assert_eq!((&failed["by_code"], &failed["shadow_answered"]), (&json!({"backend_failed": 2}), &json!(2)));
    let nan = replayed(&gateway, &json!({"version": "v3"}));
    assert_eq!((&nan["compared"]["differing"], &nan["nan"]["shadow"]), (&json!(2), &json!(2)));
}

#[test]
fn outputs_that_no_response_can_carry_are_answers() {
    let folder = tempfile::tempdir().unwrap();
    let nan = |value: f32| if value < 0.0 { Ok(f32::NAN) } else { double(value) };
    let (gateway, address) = serving(&folder, nan, double);
    let statuses = send_all(&gateway, address, &[-1.0, 1.0], 2);
    assert_eq!(statuses, [400, 200]);
    let rows = rows(&folder);
    assert!(&*rows[0].code != "ok" && floats(&rows[0], 1).unwrap()[0].is_nan());
    let report = replayed(&gateway, &json!({"version": "v2"}));
    assert_eq!((&report["pairs"], &report["compared"]["differing"]), (&json!(2), &json!(1)));
    assert_eq!((&report["champion_failed"]["by_code"], &report["nan"]["champion"]), (&json!({}), &json!(1)));
}

#[test]
fn what_a_version_differs_from_itself_is_the_noise_floor() {
    let folder = tempfile::tempdir().unwrap();
    let calls = AtomicU64::new(0);
    // It answers something else after the ten requests.
    let changes = move |value| Ok(if calls.fetch_add(1, Relaxed) < 10 { value } else { value + 100.0 });
    let (gateway, address) = serving(&folder, changes, Ok);
    send_all(&gateway, address, &[1.0; 10], 10);
    let report =
        replayed(&gateway, &json!({"version": "v2", "compare": {"y": {"within": {"absolute": 0.5}}}}));
    assert_eq!((&report["pairs"], &report["compared"]["differing"]), (&json!(10), &json!(0)));
    let floor = &report["noise_floor"];
    assert_eq!(
        (&floor["pairs"], &floor["differing"], &floor["share"]),
        (&json!(10), &json!(10), &json!(1.0))
    );
}

#[test]
fn the_version_that_answered_is_asked_again_only_where_both_answered() {
    let folder = tempfile::tempdir().unwrap();
    let calls = Arc::new(AtomicU64::new(0));
    let counted = calls.clone();
    let counts = move |value| {
        counted.fetch_add(1, Relaxed);
        double(value)
    };
    let fails = |value| if value > 0.0 { Err(fails()) } else { double(value) };
    let (gateway, address) = serving(&folder, counts, fails);
    send_all(&gateway, address, &[1.0, -1.0, 2.0], 3);
    let before = calls.load(Relaxed);
    let report = replayed(&gateway, &json!({"version": "v2"}));
    assert_eq!((&report["errors"], &report["pairs"]), (&json!({"backend_failed": 2}), &json!(1)));
    assert_eq!((calls.load(Relaxed) - before, &report["noise_floor"]["pairs"]), (1, &json!(1)));
}

#[test]
fn a_replay_ends_when_a_version_that_it_runs_leaves_the_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let is_released = Arc::new(AtomicBool::new(false));
    let released = is_released.clone();
    let waits = move |value: f32| {
        while value < 0.0 && !released.load(Relaxed) {
            std::thread::sleep(Duration::from_millis(1));
        }
        double(value)
    };
    let (gateway, address) = serving(&folder, double, waits);
    send_all(&gateway, address, &[-1.0, 2.0], 2);
    let without = |version: &str, revision: u64| {
        let left = ["v1", "v2", "v3"].into_iter().filter(|&name| name != version);
        let versions: Vec<_> = left
            .map(|name| json!({"name": name, "digest": format!("sha256:{name}"), "artifact": "adopted"}))
            .collect();
        apply(&gateway, &json!({"revision": revision, "versions": versions}));
    };
    let begun = gateway.start_replay("model", br#"{"version": "v2"}"#).unwrap();
    without("v3", 4);
    assert_ne!(gateway.replays("model")["replays"][0]["state"], "cancelled");
    without("v2", 5);
    is_released.store(true, Relaxed);
    let report = ended(&gateway, &begun["id"]);
    assert_eq!(report["state"], "cancelled");
    let reason = report["error"].as_str().unwrap();
    assert!(reason.contains("\"v2\"") && reason.contains("no longer"), "{reason}");
}

#[test]
fn a_gateway_without_cpu_time_for_shadows_replays_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, address) = gateway_with(&json!({"capture_folder": folder.path(), "shadow_cpu": 0.0}));
    adopt(&gateway, "v1", double);
    adopt(&gateway, "v2", double);
    adopt(&gateway, "v3", double);
    apply(&gateway, &json!({}));
    send_all(&gateway, address, &[1.0], 1);
    let refused = gateway.start_replay("model", br#"{"version": "v2"}"#).unwrap_err();
    assert!(refused.code == Code::PolicyInvalid && refused.message.contains("--shadow-cpu"), "{refused}");
}

#[test]
fn a_run_ends_at_its_deadline_and_a_replay_when_it_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let hangs = |value: f32| {
        if value < 0.0 {
            loop {
                cancel::check()?;
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        double(value)
    };
    let (gateway, address) = serving(&folder, double, hangs);
    send_all(&gateway, address, &[1.0, -1.0, 2.0], 3);
    // The thread of a replay may get no processor time for as long as a run may take.
    at_last("a replay whose two other runs are in time", || {
        let report = replayed(&gateway, &json!({"version": "v2", "timeout": 300}));
        let late = report["timeouts"].as_u64().unwrap();
        assert!(late >= 1 && report["errors"] == json!({"deadline_exceeded": late}), "{report}");
        (&report["pairs"], late) == (&json!(2), 1)
    });
    let begun = gateway.start_replay("model", br#"{"version": "v2"}"#).unwrap();
    let id = begun["id"].as_u64().unwrap();
    let cancelled = gateway.cancel_replay("model", id).unwrap();
    assert_eq!(cancelled["id"], id);
    assert_eq!(gateway.cancel_replay("model", 99).unwrap_err().code, Code::NotFound);
    // The run in progress is cancelled when the gateway stops, at the latest.
    gateway.stop(Duration::ZERO, Duration::ZERO);
    let found = ended(&gateway, &json!(id));
    assert_eq!(found["state"], "cancelled");
    let refused = gateway.start_replay("model", br#"{"version": "v2"}"#).unwrap_err();
    assert!(matches!(refused.code, Code::Draining | Code::ModelNotFound), "{refused}");
}

#[test]
fn new_bounds_of_a_capture_apply_without_a_request() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, address) = serving(&folder, double, double);
    send_all(&gateway, address, &[1.0], 1);
    let capture = json!({"share": 10_000, "keep": 86_400_000_u64, "max_size": 1, "redact": []});
    apply(&gateway, &json!({"revision": 4, "capture": capture}));
    at_last("the deletion", || captured(&gateway)["disk_files"] == 0);
    assert!(rows(&folder).is_empty());
}

#[test]
fn capture_that_is_off_writes_nothing_and_what_was_captured_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (gateway, address) = serving(&folder, double, double);
    send_all(&gateway, address, &[1.0], 1);
    apply(&gateway, &json!({"capture_off": true, "revision": 4}));
    send_all(&gateway, address, &[2.0], 1);
    let shown = captured(&gateway);
    assert_eq!((&shown["share"], &shown["rows"], &shown["disk_files"]), (&Value::Null, &json!(1), &json!(1)));
    assert_eq!(replayed(&gateway, &json!({"version": "v2"}))["pairs"], 1);
    gateway.stop(Duration::ZERO, Duration::from_secs(10));
    assert_eq!(rows(&folder).len(), 1);
}
