//! Versions on a device, with a driver that stands in for a real one: the threads that run them, the runs in flight, failures.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::collections::HashSet;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::ThreadId;

use crate::common;
use crate::common::{PATIENCE, answer, connect, eventually, free, request, signature};
use crate::standin::StandIn;
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::RunSpec;
use headgate_core::tensor::Signature;
use headgate_engine::runtime::Binding;
use headgate_engine::runtime::device::InFlightRun;
use headgate_engine::{Devices, Executable};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

const MLP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/models/mlp.onnx");

fn on_device() -> (Arc<Gateway>, SocketAddr, Arc<StandIn>) {
    let driver = StandIn::new();
    let devices = Devices::replaced_by(driver.clone());
    let gateway = Gateway::with_devices(common::config(&json!({})), devices).unwrap();
    let (gateway, address) = common::started(gateway);
    (gateway, address, driver)
}

fn apply(gateway: &Gateway, digest: &str, artifact: &str, run: &Value) -> Value {
    let spec = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 20000,
        "versions": [{"name": "v1", "digest": digest, "artifact": artifact, "run": run}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    let mut told = None;
    eventually("the outcome", || {
        told = gateway.events().pop();
        told.is_some()
    });
    told.unwrap()
}

fn shown(gateway: &Gateway) -> Value {
    gateway.status()["endpoints"]["model"]["versions"]["v1"].clone()
}

/// Sends one row to the small network and reads the class.
fn classify(stream: &mut TcpStream, row: [f32; 4]) -> Value {
    let body =
        json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": row}]}).to_string();
    let head =
        format!("POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).unwrap();
    let (status, answer) = answer(stream);
    assert_eq!(status, 200, "{answer}");
    answer["outputs"].clone()
}

#[test]
fn every_bucket_has_run_before_the_first_request() {
    let (gateway, address, driver) = on_device();
    let run = json!({"device": ["cuda:0"], "max_batch": 8, "buckets": [2, 8]});
    assert_eq!(apply(&gateway, "mlp", MLP, &run)["event"], "applied");
    assert!(driver.log().contains(&"allocate"));
    classify(&mut connect(address), [1.0; 4]);
    let log = driver.log();
    assert!(log.contains(&"copy_in") && !log.contains(&"allocate"), "{log:?}");
}

#[test]
fn a_version_on_a_device_answers_what_it_answers_on_the_processor() {
    let rows: Vec<[f32; 4]> = (0..40).map(|at| [at as f32, 1.0, -0.5 * at as f32, 3.0]).collect();
    let answers = |run: &Value| {
        let (gateway, address, driver) = on_device();
        assert_eq!(apply(&gateway, "mlp", MLP, run)["event"], "applied");
        let of: Vec<Value> = std::thread::scope(|scope| {
            let threads: Vec<_> = rows
                .chunks(5)
                .map(|rows| {
                    scope.spawn(move || {
                        let mut stream = connect(address);
                        rows.iter().map(|row| classify(&mut stream, *row)).collect::<Vec<_>>()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let facts = shown(&gateway);
        assert!(gateway.stop(std::time::Duration::ZERO, PATIENCE));
        drop(gateway);
        (of, facts, driver)
    };
    let (wanted, facts, driver) = answers(&json!({}));
    assert_eq!((&facts["device"], driver.held()), (&json!("cpu"), (0, 0, 0, 0)));
    for run in [
        json!({"device": ["cuda:0"]}),
        json!({"device": ["cuda:0"], "instances": 2}),
        json!({"device": ["cuda:0"], "max_batch": 8, "buckets": [1, 4, 8], "max_delay": 500}),
    ] {
        let (got, facts, driver) = answers(&run);
        assert_eq!(got, wanted, "{run}");
        assert_eq!(facts["device"], "cuda:0");
        assert_eq!(facts["placement"], if run["max_batch"].is_null() { "pool" } else { "batched" });
        // Nothing of the device is left when the gateway is dropped.
        assert_eq!(driver.held(), (0, 0, 0, 0));
    }
}

#[test]
fn a_version_on_a_device_that_gets_requests_is_not_replayed() {
    let folder = tempfile::tempdir().unwrap();
    let config = common::config(&json!({"capture_folder": folder.path()}));
    let gateway = Gateway::with_devices(config, Devices::replaced_by(StandIn::new())).unwrap();
    let (gateway, _) = common::started(gateway);
    let version = |name: &str, digest: &str| json!({"name": name, "digest": digest, "artifact": MLP, "run": {"device": ["cuda:0"]}});
    let spec = json!({
        "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 20000,
        "versions": [version("v1", "mlp"), version("v2", "other")],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    let mut applied = None;
    eventually("the outcome", || {
        applied = gateway.events().pop();
        applied.is_some()
    });
    assert_eq!(applied.unwrap()["event"], "applied");
    let refused = |request: Value| gateway.start_replay("model", request.to_string().as_bytes()).unwrap_err();
    let device = refused(json!({"version": "v1"}));
    assert_eq!(device.code, Code::PolicyInvalid);
    assert!(device.message.contains("\"v1\" computes on cuda:0 and gets requests"), "{device}");
    // The other one gets none; it only has nothing to replay.
    let nothing = refused(json!({"version": "v2"}));
    assert!(nothing.message.contains("is captured"), "{nothing}");
}

#[test]
fn requests_without_rows_leave_nothing_in_flight() {
    for buckets in [json!([]), json!([1, 4, 8])] {
        let (gateway, address, _) = on_device();
        apply(&gateway, "mlp", MLP, &json!({"device": ["cuda:0"], "max_batch": 8, "buckets": buckets}));
        let mut stream = connect(address);
        for _ in 0..5 {
            let body = json!({"inputs": [{"name": "x", "shape": [0, 4], "datatype": "FP32", "data": []}]})
                .to_string();
            let head = format!(
                "POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all((head + &body).as_bytes()).unwrap();
            let (status, answer) = answer(&mut stream);
            assert_eq!((status, &answer["outputs"][0]["shape"]), (200, &json!([0])), "{answer}");
        }
        classify(&mut stream, [1.0, 2.0, 3.0, 4.0]);
    }
}

#[test]
fn a_model_that_cannot_run_on_the_device_reports_it_and_needs_the_processor_in_its_list() {
    let (gateway, address, driver) = on_device();
    driver.fail(Some("add_provider"));
    let told = apply(&gateway, "mlp", MLP, &json!({"device": ["cuda:0"]}));
    assert_eq!((&told["event"], &told["message"]), (&json!("failed"), &json!("add_provider failed")));
    assert_eq!(apply(&gateway, "mlp", MLP, &json!({"device": ["cuda:0", "cpu"]}))["event"], "applied");
    let shown = shown(&gateway);
    assert_eq!(
        (&shown["device"], &shown["note"]),
        (&json!("cpu"), &json!("not on cuda:0: add_provider failed"))
    );
    classify(&mut connect(address), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn a_device_that_fails_fails_requests_and_not_the_gateway() {
    let (gateway, address, driver) = on_device();
    apply(&gateway, "mlp", MLP, &json!({"device": ["cuda:0"], "max_batch": 8}));
    for call in ["copy_in", "copy_out", "synchronize"] {
        driver.fail(Some(call));
        let mut stream = connect(address);
        let body =
            json!({"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]});
        let body = body.to_string();
        let head = format!(
            "POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let (status, answer) = answer(&mut stream);
        assert_eq!((status, &answer["error"]), (500, &json!(format!("{call} failed"))));
        driver.fail(None);
        classify(&mut stream, [1.0, 2.0, 3.0, 4.0]);
    }
}

/// Doubles its input on two instances, and reports the begin and end of each run in their order.
struct Watched {
    signature: Signature,
    steps: Mutex<Sender<(&'static str, usize, ThreadId)>>,
    gate: Mutex<Receiver<()>>,
    broken: AtomicUsize,
}

impl Executable for Watched {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        free().run(binding)
    }

    fn instances(&self) -> usize {
        1
    }

    #[allow(unsafe_code, reason = "the trait's promise is the caller's")]
    unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<InFlightRun> {
        self.steps.lock().unwrap().send(("begin", instance, std::thread::current().id())).unwrap();
        self.run(binding).map(|()| InFlightRun::FINISHED)
    }

    fn finish(&self, instance: usize, _: InFlightRun, _: &mut Binding) -> Result<()> {
        self.steps.lock().unwrap().send(("finish", instance, std::thread::current().id())).unwrap();
        self.gate.lock().unwrap().recv_timeout(PATIENCE).expect("the test lets it land");
        match self.broken.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)) {
            Ok(1) => Err(Error::new(Code::BackendFailed, "it fell down")),
            _ => Ok(()),
        }
    }
}

type Steps = Receiver<(&'static str, usize, ThreadId)>;

fn watched(gateway: &Gateway, broken: usize, run: &RunSpec) -> (Steps, Sender<()>) {
    let ((steps_tx, steps), (land, gate)) = (channel(), channel());
    let watched = Watched {
        signature: signature(),
        steps: Mutex::new(steps_tx),
        gate: Mutex::new(gate),
        broken: broken.into(),
    };
    let _model = gateway.engine().adopt("watched", Box::new(watched), run).unwrap();
    assert_eq!(apply(gateway, "watched", "adopted", &serde_json::to_value(run).unwrap())["event"], "applied");
    (steps, land)
}

fn send(address: SocketAddr, value: f32) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(request("model", value).as_bytes()).unwrap();
    stream
}

#[test]
fn the_next_run_is_begun_before_the_one_before_it_is_finished_and_all_on_one_thread() {
    let (gateway, address, _) = on_device();
    let (steps, land) = watched(&gateway, 0, &RunSpec::default());
    let mut threads = HashSet::new();
    let mut step = || {
        let (what, instance, thread) = steps.recv_timeout(PATIENCE).unwrap();
        threads.insert((instance, thread));
        what
    };
    // The first run is alone, so the thread waits for it at once.
    let mut first = send(address, 1.0);
    assert_eq!((step(), step()), ("begin", "finish"));
    let mut others = [2.0, 3.0, 4.0].map(|value| send(address, value));
    eventually("all of them", || common::metric(&gateway, "headgate_pool_waiting", &json!({})) == 3);
    land.send(()).unwrap();
    assert_eq!(answer(&mut first).0, 200);
    let mut order = Vec::new();
    for _ in 0..3 {
        land.send(()).unwrap();
    }
    for _ in 0..6 {
        order.push(step());
    }
    assert_eq!(order, ["begin", "begin", "finish", "begin", "finish", "finish"]);
    for (stream, wanted) in others.iter_mut().zip([4.0, 6.0, 8.0]) {
        let (status, body) = answer(stream);
        assert_eq!((status, body["outputs"][0]["data"][0].as_f64()), (200, Some(wanted)));
    }
    assert_eq!(threads.len(), 1);
}

#[test]
fn a_batch_with_room_grows_while_the_device_computes_and_a_bad_one_is_repeated_row_by_row() {
    let (gateway, address, _) = on_device();
    let run = RunSpec { max_batch: 4, ..RunSpec::default() };
    let (steps, land) = watched(&gateway, 2, &run);
    let mut first = send(address, 1.0);
    let what = || steps.recv_timeout(PATIENCE).unwrap().0;
    assert_eq!((what(), what()), ("begin", "finish"));
    common::serve(&gateway, "other", free(), true);
    let mut others = [2.0, 3.0].map(|value| send(address, value));
    // Both requests are in the batch when the IO thread has answered another client twice: the second of these arrived after its turn with the
    // first.
    let mut stream = connect(address);
    (0..2).for_each(|_| assert!(common::ask(&mut stream, "other", 1.0) > 1.0));
    land.send(()).unwrap();
    assert_eq!(answer(&mut first).0, 200);
    // Both rows run together. That run fails, and each row runs alone.
    for _ in 0..3 {
        land.send(()).unwrap();
    }
    assert_eq!((0..6).map(|_| what()).collect::<Vec<_>>(), ["begin", "finish"].repeat(3));
    for (stream, wanted) in others.iter_mut().zip([4.0, 6.0]) {
        let (status, body) = answer(stream);
        assert_eq!((status, body["outputs"][0]["data"][0].as_f64()), (200, Some(wanted)));
    }
}

#[test]
fn a_device_that_is_not_there_is_named_with_what_would_bring_it() {
    if Path::new("/dev/nvidiactl").exists() {
        return;
    }
    let (gateway, _) = common::gateway();
    let told = apply(&gateway, "mlp", MLP, &json!({"device": ["cuda:0"]}));
    assert_eq!((&told["event"], &told["code"]), (&json!("failed"), &json!("model_load_failed")));
    assert!(told["message"].as_str().unwrap().contains("NVIDIA driver"), "{told}");
}

#[test]
fn a_shadow_on_a_device_is_compared_and_a_champion_on_one_is_not_run_again() {
    for (champion, shadow) in [("cpu", "cuda:0"), ("cuda:0", "cpu")] {
        let (gateway, address, _driver) = on_device();
        let version = |name: &str, device: &str| json!({"name": name, "digest": format!("mlp-{device}"), "artifact": MLP, "run": {"device": [device]}});
        let state = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 600_000,
            "versions": [version("v1", champion), version("v2", shadow)],
            "shadow": [{"to": "v2", "share": 10_000}],
        });
        gateway.apply(common::spec(&state)).unwrap();
        common::at_last("the versions", || gateway.events().iter().any(|event| event["event"] == "applied"));
        let mut stream = connect(address);
        for at in 0..20 {
            classify(&mut stream, [at as f32, 1.0, -0.5 * at as f32, 3.0]);
        }
        let mut found = Value::Null;
        common::at_last("the pairs", || {
            found = gateway.shadows("model").unwrap()["shadows"][0].clone();
            found["pairs"] == 20 && found["in_progress"] == 0
        });
        assert_eq!(found["compared"]["differing"], 0);
        let floor = &found["noise_floor"];
        let pairs = if champion == "cpu" { 20 } else { 0 };
        assert_eq!((&floor["pairs"], floor["reason"].is_null()), (&json!(pairs), champion == "cpu"));
    }
}
