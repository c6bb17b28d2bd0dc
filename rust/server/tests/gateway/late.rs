//! The attribution of runs that do not end in time: a request may ask for an endless loop, and a version may hang.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{
    LONG, answer, at_last, connect, eventually, gateway, gateway_with, metric, request, signature,
};
use headgate_core::error::Result;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::Signature;
use headgate_engine::runtime::{Binding, cancel};
use headgate_engine::{Executable, Model};
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// Serves an endpoint `name` with a breaker that opens after two failures in a row.
fn apply(gateway: &Gateway, name: &str, timeout_ms: u64, version: &Value) {
    let mut first = json!({"name": "v1", "digest": format!("sha256:{name}"), "artifact": "adopted"});
    first.as_object_mut().unwrap().extend(version.as_object().unwrap().clone());
    let spec = json!({
        "name": name, "revision": 1, "champion": "v1", "timeout_ms": timeout_ms, "versions": [first],
        "limits": {
            "breaker": {"consecutive": 2, "success_rate": 0, "window": 600_000, "min_requests": 1_000_000},
        },
    });
    gateway.apply(common::spec(&spec)).unwrap();
    let mut events = Vec::new();
    eventually("the endpoint", || {
        events.extend(gateway.events());
        !events.is_empty()
    });
    assert_eq!(events[0]["event"], "applied", "{events:?}");
}

fn of(name: &str) -> Value {
    json!({"endpoint": name, "version": "v1"})
}

fn trips(gateway: &Gateway, name: &str) -> u64 {
    metric(gateway, "headgate_breaker_trips_total", &of(name))
}

fn send(address: SocketAddr, request: &str) -> TcpStream {
    let mut stream = connect(address);
    stream.set_read_timeout(Some(LONG)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn ask(address: SocketAddr, request: &str) -> (u16, Value) {
    answer(&mut send(address, request))
}

/// A request to `name` with these inputs.
fn post(name: &str, inputs: &Value) -> String {
    let body = json!({"inputs": inputs}).to_string();
    let length = body.len();
    format!("POST /v2/models/{name}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn count(name: &str, times: i64) -> String {
    post(
        name,
        &json!([
            {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
            {"name": "times", "shape": [1], "datatype": "INT64", "data": [times]},
        ]),
    )
}

fn rows(name: &str, turns: f64) -> String {
    post(name, &json!([{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [turns]}]))
}

#[test]
fn a_request_without_an_end_opens_no_breaker_however_a_version_is_run() {
    let (gateway, address) = gateway_with(&json!({}));
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models");
    for (name, model, run) in [
        ("inline", "count.onnx", json!({"placement": "inline"})),
        ("pool", "count.onnx", json!({"placement": "pool"})),
        ("batch", "patient_rows.onnx", json!({"placement": "pool", "max_batch": 4})),
    ] {
        // As long as a probe may take. On a busy machine a shorter limit would make the version too slow.
        apply(&gateway, name, 10_000, &json!({"artifact": models.join(model), "run": run}));
    }
    let endless = |name: &str| if name == "batch" { rows(name, 1e18) } else { count(name, i64::MAX) };
    let names = ["inline", "pool", "batch"];
    let held: Vec<_> = names.into_iter().cycle().take(12).map(|name| send(address, &endless(name))).collect();
    for mut stream in held {
        let (status, body) = answer(&mut stream);
        assert_eq!((status, &body["code"]), (504, &json!("deadline_exceeded")), "{body}");
    }
    for name in names {
        at_last("a probe", || metric(&gateway, "headgate_probes_total", &of(name)) > 0);
        let good = if name == "batch" { rows(name, 2.0) } else { count(name, 3) };
        // Runs that are still being cancelled may leave the probe no time.
        at_last("a good answer", || match ask(address, &good) {
            (200, _) => true,
            (504, _) => false,
            (status, body) => panic!("{name}: {status} {body}"),
        });
        assert_eq!(trips(&gateway, name), 0, "{name}");
    }
}

/// Doubles its input, in at least a given time.
struct Slow {
    signature: Signature,
    /// The least time of a run, in milliseconds. The run checks for its cancellation meanwhile.
    least_ms: Arc<AtomicU64>,
}

impl Executable for Slow {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(self.least_ms.load(SeqCst)) {
            cancel::check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        common::free().run(binding)
    }
}

/// Must be kept until it is served.
fn slow(gateway: &Gateway, inline: bool) -> (Arc<Model>, Arc<AtomicU64>) {
    let least_ms = Arc::<AtomicU64>::default();
    let executable = Slow { signature: signature(), least_ms: least_ms.clone() };
    let model = gateway.engine().adopt("sha256:slow", Box::new(executable), &RunSpec::default()).unwrap();
    if inline {
        model.placement_policy.pin_inline();
    }
    (model, least_ms)
}

#[test]
fn a_version_that_hangs_is_left_alone_and_comes_back() {
    let (gateway, address) = gateway();
    let (_model, least_ms) = slow(&gateway, true);
    apply(&gateway, "slow", 200, &json!({}));
    let ask = || ask(address, &request("slow", 1.0));
    at_last("a good answer", || ask().0 == 200);
    least_ms.store(u64::MAX, SeqCst);
    at_last("the breaker", || {
        let (status, body) = ask();
        assert!(matches!(status, 503 | 504), "{body}");
        trips(&gateway, "slow") > 0
    });
    assert!(metric(&gateway, "headgate_probes_failed_total", &of("slow")) > 0);
    least_ms.store(0, SeqCst);
    at_last("its return", || ask().0 == 200);
}

#[test]
fn a_version_that_is_slow_whatever_it_is_asked_is_left_alone() {
    let (gateway, address) = gateway();
    let (_model, least_ms) = slow(&gateway, false);
    apply(&gateway, "slow", 200, &json!({}));
    least_ms.store(400, SeqCst);
    at_last("the breaker", || {
        let (status, body) = ask(address, &request("slow", 1.0));
        assert!(matches!(status, 503 | 504), "{body}");
        trips(&gateway, "slow") > 0
    });
    assert_eq!(metric(&gateway, "headgate_probes_failed_total", &of("slow")), 0, "it works, too slowly");
}
