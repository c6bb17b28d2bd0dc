//! More models than memory: which models are evicted, which are loaded again, and what requests see of it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use crate::common;
use crate::common::{
    LONG, PATIENCE, Probe, answer, ask, ask_until_begun, connect, eventually, free, gated, gateway_with,
    metric, request, send, whole_answer,
};
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::RunSpec;
use headgate_engine::{Executable, LoadUrgency, Model, Source};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
/// The size of each model.
const SIZE: u64 = 4 * MIB;
/// Room for two models, with the error of the heap's figures.
const TWO: u64 = 11 * MIB;
/// Room for one model, with its estimate before the load.
const ONE: u64 = 7 * MIB;

/// Controls the loads of a model: holds them, lets them fail, counts them.
#[derive(Default)]
struct Making {
    count: AtomicUsize,
    broken: AtomicBool,
    gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
}

impl Making {
    /// Holds every load from now on until the test lets it go on.
    fn hold(&self) -> (Receiver<()>, Sender<()>) {
        let ((entered_tx, entered), (leave, leave_rx)) = (channel(), channel());
        *self.gate.lock().unwrap() = Some((entered_tx, leave_rx));
        (entered, leave)
    }

    fn make(&self, probe: Probe) -> Result<Arc<dyn Executable>> {
        self.count.fetch_add(1, SeqCst);
        if let Some((entered, leave)) = &*self.gate.lock().unwrap() {
            entered.send(()).unwrap();
            leave.recv_timeout(LONG).expect("the test lets the load go on");
        }
        if self.broken.load(SeqCst) {
            return Err(Error::new(Code::ModelLoadFailed, "the file is gone"));
        }
        Ok(Arc::new(probe))
    }
}

/// A folder that is removed at the end of the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("headgate-cold-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

fn start(more: &Value) -> (Arc<Gateway>, SocketAddr) {
    // As long as a busy machine may take to load a model.
    let mut config = json!({"memory_budget_bytes": TWO, "load_wait_ms": 30_000});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway_with(&config)
}

/// Puts a model of [`SIZE`] bytes in memory.
fn adopt(
    gateway: &Gateway,
    folder: &Folder,
    digest: &str,
    probe: fn() -> Probe,
) -> (Arc<Model>, Arc<Making>) {
    let path = folder.0.join(format!("{digest}.onnx"));
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let making = Arc::<Making>::default();
    let made = making.clone();
    let make = move || made.make(probe());
    let model = gateway.engine().adopt_reloadable(digest, &path, make, &RunSpec::default()).unwrap();
    (model, making)
}

/// Serves a model under its own name.
fn serve(gateway: &Gateway, folder: &Folder, name: &str) -> Arc<Making> {
    let (_model, making) = adopt(gateway, folder, name, free);
    apply(gateway, name, &json!([{"name": "v1", "digest": name, "artifact": "adopted"}]), &json!({}));
    making
}

fn apply(gateway: &Gateway, name: &str, versions: &Value, more: &Value) {
    let mut spec = json!({
        "name": name, "revision": 1, "champion": "v1", "timeout_ms": 20000, "versions": versions,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.apply(common::spec(&spec)).unwrap();
    let told = applied(gateway);
    assert_eq!(told["event"], "applied", "{told}");
}

/// The outcome of the last apply.
fn applied(gateway: &Gateway) -> Value {
    let mut last = None;
    eventually("the outcome", || {
        last = gateway.events().pop();
        last.is_some()
    });
    last.unwrap()
}

fn state(gateway: &Gateway, name: &str, version: &str) -> String {
    gateway.status()["endpoints"][name]["versions"][version]["memory"]["state"].as_str().unwrap().to_owned()
}

#[test]
fn a_request_brings_its_model_back() {
    let folder = Folder::new("back");
    let (gateway, address) = start(&json!({}));
    for name in ["a", "b", "c"] {
        serve(&gateway, &folder, name);
    }
    let states = || ["a", "b", "c"].map(|name| state(&gateway, name, "v1"));
    assert_eq!(states(), ["cold", "warm", "warm"]);
    let mut stream = connect(address);
    assert!((ask(&mut stream, "a", 2.0) - 4.0).abs() < 1e-9);
    assert_eq!(states(), ["warm", "cold", "warm"]);
    for name in ["b", "c", "a", "b", "c", "a"] {
        assert!((ask(&mut stream, name, 3.0) - 6.0).abs() < 1e-9);
    }
    assert_eq!(metric(&gateway, "headgate_models", &json!({"state": "warm"})), 2);
    assert_eq!(metric(&gateway, "headgate_models", &json!({"state": "cold"})), 1);
    assert!(metric(&gateway, "headgate_cold_requests_total", &json!({})) >= 3);
    assert_eq!(metric(&gateway, "headgate_cold_requests_failed_total", &json!({})), 0);
    assert!(metric(&gateway, "headgate_model_memory_bytes", &json!({})) <= TWO);
}

#[test]
fn all_requests_for_a_model_wait_for_one_load() {
    let folder = Folder::new("flight");
    let (gateway, address) = start(&json!({"io_threads": 2}));
    let making = serve(&gateway, &folder, "a");
    serve(&gateway, &folder, "b");
    serve(&gateway, &folder, "c");
    let (entered, leave) = making.hold();
    let mut streams: Vec<TcpStream> = (0..10).map(|_| send(address, "a")).collect();
    entered.recv_timeout(PATIENCE).unwrap();
    eventually("everybody's waiting", || {
        metric(&gateway, "headgate_cold_requests_waiting", &json!({})) == 10
    });
    assert_eq!(state(&gateway, "a", "v1"), "loading");
    // Other endpoints are served meanwhile.
    assert!((ask(&mut connect(address), "c", 2.0) - 4.0).abs() < 1e-9);
    leave.send(()).unwrap();
    for stream in &mut streams {
        assert_eq!(answer(stream).0, 200);
    }
    assert_eq!(making.count.load(SeqCst), 2);
}

#[test]
fn a_request_that_waited_too_long_gets_retry_after() {
    let folder = Folder::new("patience");
    let (gateway, address) = start(&json!({"load_wait_ms": 50}));
    let making = serve(&gateway, &folder, "a");
    serve(&gateway, &folder, "b");
    serve(&gateway, &folder, "c");
    let (entered, leave) = making.hold();
    // Nothing is loaded for a request that has been refused before a thread begins the load.
    let asked = ask_until_begun(&entered, || {
        let (status, head, body) = whole_answer(&mut send(address, "a"));
        assert_eq!((status, &body["code"]), (503, &json!("model_not_ready")), "{body}");
        assert!(
            head.contains("retry-after: 1") && body["error"].as_str().unwrap().contains("--load-wait"),
            "{body}"
        );
    });
    leave.send(()).unwrap();
    eventually("its return", || state(&gateway, "a", "v1") == "warm");
    assert_eq!(answer(&mut send(address, "a")).0, 200);
    assert_eq!(metric(&gateway, "headgate_cold_requests_failed_total", &json!({})), asked);
}

#[test]
fn a_request_without_room_is_refused_and_a_late_one_loads_nothing() {
    let folder = Folder::new("room");
    let (gateway, address) = start(&json!({"load_wait_ms": 500, "memory_budget_bytes": ONE}));
    let making = serve(&gateway, &folder, "a");
    let (probe, held) = gated();
    let path = folder.0.join("slow.onnx");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let probe: Arc<dyn Executable> = Arc::new(probe);
    let _model = gateway
        .engine()
        .adopt_reloadable("slow", &path, move || Ok(probe.clone()), &RunSpec::default())
        .unwrap();
    apply(&gateway, "slow", &json!([{"name": "v1", "digest": "slow", "artifact": "adopted"}]), &json!({}));
    let mut running = send(address, "slow");
    held.entered.recv_timeout(PATIENCE).unwrap();
    // The thread that tries to load it may get no processor time for as long as the request waits.
    let mut refusal = None;
    eventually("a refusal for want of room", || {
        let (status, head, body) = whole_answer(&mut send(address, "a"));
        assert_eq!(status, 503, "{body}");
        refusal = (body["code"] == "overloaded").then_some((head, body));
        refusal.is_some()
    });
    let (head, body) = refusal.unwrap();
    assert!(body["error"].as_str().unwrap().contains("--memory-budget") && head.contains("retry-after"));
    assert_eq!(metric(&gateway, "headgate_model_loads_refused_total", &json!({})), 1);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut running).0, 200);
    // A request whose deadline has passed causes no load.
    let loads = making.count.load(SeqCst);
    let mut late = connect(address);
    let asked = request("a", 1.0).replacen("host: t", "host: t\r\nx-headgate-timeout: 0us", 1);
    late.write_all(asked.as_bytes()).unwrap();
    assert_eq!(answer(&mut late).1["code"], "deadline_exceeded");
    assert_eq!((making.count.load(SeqCst), state(&gateway, "a", "v1")), (loads, "cold".to_owned()));
}

#[test]
fn a_model_that_cannot_come_back_says_why_and_another_version_answers() {
    let folder = Folder::new("gone");
    let (gateway, address) = start(&json!({}));
    let making = serve(&gateway, &folder, "a");
    serve(&gateway, &folder, "b");
    serve(&gateway, &folder, "c");
    making.broken.store(true, SeqCst);
    let (status, head, body) = whole_answer(&mut send(address, "a"));
    assert_eq!((status, &body["code"]), (503, &json!("model_not_ready")));
    assert!(
        body["error"].as_str().unwrap().contains("the file is gone") && head.contains("retry-after"),
        "{body}"
    );
    making.broken.store(false, SeqCst);
    // With a fallback, the version that is in memory answers.
    let (_first, first) = adopt(&gateway, &folder, "first", free);
    adopt(&gateway, &folder, "second", free);
    let versions = json!([
        {"name": "v1", "digest": "first", "artifact": "adopted"},
        {"name": "v2", "digest": "second", "artifact": "adopted", "pinned": true},
    ]);
    let (_second, _) = adopt(&gateway, &folder, "second", free);
    apply(&gateway, "pair", &versions, &json!({"fallback": {"to": ["v2"]}}));
    ask(&mut connect(address), "b", 1.0);
    ask(&mut connect(address), "c", 1.0);
    assert_eq!(
        (state(&gateway, "pair", "v1"), state(&gateway, "pair", "v2")),
        ("cold".into(), "warm".into())
    );
    first.broken.store(true, SeqCst);
    let (status, head, _) = whole_answer(&mut send(address, "pair"));
    assert_eq!(status, 200);
    assert!(head.contains("x-headgate-fallback: v1; cause=not_ready"), "{head}");
}

#[test]
fn versions_of_one_digest_share_a_session_as_far_as_they_are_made_alike() {
    let (gateway, _) = start(&json!({}));
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/mlp.onnx"));
    let load = |run: Value| {
        let run: RunSpec = serde_json::from_value(run).unwrap();
        gateway.engine().load("sha256:mlp", &Source::Artifact(path), &run, LoadUrgency::Ordinary).unwrap()
    };
    let loads = || metric(&gateway, "headgate_model_loads_total", &json!({}));
    let (first, again) = (load(json!({})), load(json!({})));
    assert!(Arc::ptr_eq(&first, &again));
    let pool = load(json!({"placement": "pool", "max_batch": 4}));
    assert!(!Arc::ptr_eq(&first, &pool) && Arc::ptr_eq(first.resident(), pool.resident()));
    assert_eq!(loads(), 1);
    let plain = load(json!({"graph_optimization": "off"}));
    assert!(!Arc::ptr_eq(first.resident(), plain.resident()));
    assert_eq!(loads(), 2);
    drop((first, again, pool));
    load(json!({}));
    assert_eq!(loads(), 3, "nobody kept it");
}

#[test]
fn a_run_keeps_its_model_in_memory() {
    let folder = Folder::new("runs");
    let (gateway, address) = start(&json!({}));
    let (probe, held) = gated();
    let path = folder.0.join("slow.onnx");
    std::fs::File::create(&path).unwrap().set_len(SIZE).unwrap();
    let probe: Arc<dyn Executable> = Arc::new(probe);
    let make = Mutex::new(Some(probe));
    let make = move || Ok(make.lock().unwrap().take().expect("it is made once"));
    let _model = gateway.engine().adopt_reloadable("slow", &path, make, &RunSpec::default()).unwrap();
    apply(&gateway, "slow", &json!([{"name": "v1", "digest": "slow", "artifact": "adopted"}]), &json!({}));
    let mut stream = send(address, "slow");
    held.entered.recv_timeout(PATIENCE).unwrap();
    for name in ["b", "c", "d"] {
        serve(&gateway, &folder, name);
    }
    assert_eq!(state(&gateway, "slow", "v1"), "warm");
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut stream).0, 200);
}

#[test]
fn a_version_is_in_memory_before_it_gets_traffic() {
    let folder = Folder::new("traffic");
    let (gateway, address) = start(&json!({}));
    let (_v1, _) = adopt(&gateway, &folder, "one", free);
    let (_v2, making) = adopt(&gateway, &folder, "two", free);
    let versions = json!([
        {"name": "v1", "digest": "one", "artifact": "adopted"},
        {"name": "v2", "digest": "two", "artifact": "adopted"},
    ]);
    apply(&gateway, "pair", &versions, &json!({}));
    ask(&mut connect(address), "pair", 1.0);
    serve(&gateway, &folder, "other");
    assert_eq!(state(&gateway, "pair", "v2"), "cold");
    // The file of an adopted model is not at the path of the spec, so only a load of the known model can succeed.
    apply(&gateway, "pair", &versions, &json!({"champion": "v2"}));
    assert_eq!((state(&gateway, "pair", "v2"), making.count.load(SeqCst)), ("warm".to_owned(), 2));
}

#[test]
fn an_endpoint_for_which_there_is_no_room_is_refused_unless_it_is_urgent() {
    let folder = Folder::new("full");
    let (gateway, address) = start(&json!({"load_wait_ms": 1000}));
    for name in ["a", "b"] {
        let (_model, _) = adopt(&gateway, &folder, name, free);
        let versions = json!([{"name": "v1", "digest": name, "artifact": "adopted", "pinned": true}]);
        apply(&gateway, name, &versions, &json!({}));
    }
    let large = folder.0.join("model.onnx");
    let mlp = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/mlp.onnx");
    std::fs::copy(mlp, &large).unwrap();
    // Before the load this looks like external data.
    std::fs::File::create(folder.0.join("weights.bin")).unwrap().set_len(SIZE).unwrap();
    let spec = |urgent: bool| {
        let text = json!({
            "name": "large", "revision": 1, "champion": "v1", "timeout_ms": 20000, "urgent": urgent, "fresh": true,
            "versions": [{"name": "v1", "digest": "large", "artifact": large.to_str().unwrap()}],
        });
        common::spec(&text)
    };
    gateway.apply(spec(false)).unwrap();
    let told = applied(&gateway);
    assert_eq!((&told["event"], &told["code"]), (&json!("failed"), &json!("model_load_failed")), "{told}");
    assert!(told["message"].as_str().unwrap().contains("--memory-budget"), "{told}");
    assert!((ask(&mut connect(address), "a", 2.0) - 4.0).abs() < 1e-9);
    gateway.apply(spec(true)).unwrap();
    assert_eq!(applied(&gateway)["event"], "applied");
}

#[test]
fn pinned_models_are_in_memory_when_published_and_are_loaded_first() {
    let folder = Folder::new("stay");
    let (gateway, _) = start(&json!({}));
    let kept: Vec<_> = ["one", "two", "three"].map(|name| adopt(&gateway, &folder, name, free)).into();
    // The load of the third evicted the first, which is the champion.
    let versions = json!([
        {"name": "v1", "digest": "one", "artifact": "adopted", "pinned": true},
        {"name": "v2", "digest": "two", "artifact": "adopted"},
        {"name": "v3", "digest": "three", "artifact": "adopted", "pinned": true},
    ]);
    assert_eq!(kept[0].1.count.load(SeqCst), 1);
    apply(&gateway, "trio", &versions, &json!({}));
    let states = ["v1", "v2", "v3"].map(|version| state(&gateway, "trio", version));
    assert_eq!(states, ["warm", "cold", "warm"]);
}

#[test]
fn a_shadow_is_loaded_when_it_is_applied_gives_way_to_live_versions_and_is_not_fetched() {
    let folder = Folder::new("shadow");
    let (gateway, address) = start(&json!({}));
    let _kept: Vec<_> = ["one", "two", "three"].map(|name| adopt(&gateway, &folder, name, free)).into();
    let versions = json!([
        {"name": "v1", "digest": "one", "artifact": "adopted"},
        {"name": "v2", "digest": "two", "artifact": "adopted"},
    ]);
    apply(&gateway, "pair", &versions, &json!({"shadow": [{"to": "v2", "share": 10_000}]}));
    assert_eq!(["v1", "v2"].map(|version| state(&gateway, "pair", version)), ["warm", "warm"]);
    let shadow = || gateway.shadows("pair").unwrap()["shadows"][0].clone();
    let mut stream = connect(address);
    ask(&mut stream, "pair", 2.0);
    eventually("a pair", || shadow()["pairs"] == 1);
    // Two live models take all the memory.
    serve(&gateway, &folder, "other");
    eventually("a shadow that gives way", || {
        ask(&mut stream, "pair", 2.0);
        ask(&mut stream, "other", 2.0);
        state(&gateway, "pair", "v2") == "cold"
    });
    ask(&mut stream, "pair", 2.0);
    eventually("a copy that is dropped", || shadow()["dropped"]["not_ready"] != 0);
    assert_eq!((state(&gateway, "pair", "v2").as_str(), &shadow()["state"]), ("cold", &json!("not_loaded")));
}
