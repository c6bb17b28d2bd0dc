//! Limits: versions that fail, callers that exceed their rate, classes. Which version answers, which requests are refused, what is counted.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::common;
use crate::common::{
    PATIENCE, answer, ask_until_begun, connect, eventually, free, gated, gateway, gateway_with, metric,
    request, signature, whole_answer,
};
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, RunSpec};
use headgate_core::tensor::Signature;
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// Doubles its input, or fails while it is broken.
struct Fragile {
    signature: Signature,
    health: Arc<Health>,
}

#[derive(Default)]
struct Health {
    broken: AtomicBool,
    runs: AtomicUsize,
}

impl Executable for Fragile {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        // A probe, which says whether it works, runs made-up inputs: zeros.
        let asked = binding.input(0).view()?.elements::<f32>().is_some_and(|x| x.iter().any(|&x| x != 0.0));
        self.health.runs.fetch_add(usize::from(asked), SeqCst);
        if self.health.broken.load(SeqCst) {
            return Err(Error::new(Code::BackendFailed, "it is broken"));
        }
        free().run(binding)
    }
}

fn fragile(broken: bool) -> (Fragile, Arc<Health>) {
    let health = Arc::new(Health { broken: broken.into(), ..Health::default() });
    (Fragile { signature: signature(), health: health.clone() }, health)
}

/// Serves `model` with the versions v1, v2, ... and other fields of its state.
fn serve(gateway: &Gateway, versions: Vec<Box<dyn Executable>>, more: &Value) {
    let mut listed = Vec::new();
    let mut kept = Vec::new();
    for (index, executable) in versions.into_iter().enumerate() {
        let (name, digest) = (format!("v{}", index + 1), format!("sha256:{index}"));
        kept.push(gateway.engine().adopt(&digest, executable, &RunSpec::default()).unwrap());
        listed.push(json!({"name": name, "digest": digest, "artifact": "adopted"}));
    }
    apply(gateway, 1, &json!(listed), more);
}

fn apply(gateway: &Gateway, revision: u64, versions: &Value, more: &Value) {
    let mut spec = json!({
        "name": "model", "revision": revision, "champion": "v1", "timeout_ms": 20000, "versions": versions,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    gateway.apply(common::spec(&spec)).unwrap();
    let told = gateway.events();
    assert_eq!(told.last().unwrap()["event"], "applied", "{told:?}");
}

/// Sends a request with an additional header.
fn send(address: SocketAddr, header: &str) -> TcpStream {
    let mut stream = connect(address);
    let text = request("model", 2.0).replacen("host: t", &format!("host: t\r\n{header}"), 1);
    stream.write_all(text.as_bytes()).unwrap();
    stream
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

fn of(version: &str) -> Value {
    json!({"endpoint": "model", "version": version})
}

fn answers(gateway: &Gateway, version: &str, code: &str) -> u64 {
    let labels = json!({"endpoint": "model", "version": version, "code": code});
    metric(gateway, "headgate_requests_total", &labels)
}

#[test]
fn another_version_answers_for_one_that_fails() {
    let (gateway, address) = gateway();
    let (broken, health) = fragile(true);
    let (broken_too, _) = fragile(true);
    let fallback = json!({"fallback": {"to": ["v1", "v2", "v3"]}});
    serve(&gateway, vec![Box::new(broken), Box::new(broken_too), Box::new(free())], &fallback);
    let (status, head, body) = whole_answer(&mut send(address, "x: y"));
    assert_eq!(
        (status, &body["outputs"][0]["data"][0], &body["model_version"]),
        (200, &json!(4.0), &json!("v3"))
    );
    assert_eq!(header(&head, "x-headgate-version"), Some("v3"));
    assert_eq!(header(&head, "x-headgate-fallback"), Some("v1; cause=error"));
    eventually("the booking", || answers(&gateway, "v3", "ok") == 1);
    for version in ["v1", "v2"] {
        assert_eq!(answers(&gateway, version, "backend_failed"), 1);
        assert_eq!(metric(&gateway, "headgate_requests_passed_on_total", &of(version)), 1);
        assert_eq!(metric(&gateway, "headgate_requests_undelivered_total", &of(version)), 0);
        assert_eq!(metric(&gateway, "headgate_requests_in_flight", &of(version)), 0);
    }
    assert_eq!(metric(&gateway, "headgate_requests_fallback_total", &of("v3")), 1);
    health.broken.store(false, SeqCst);
    let (status, head, _) = whole_answer(&mut send(address, "x: y"));
    assert_eq!((status, header(&head, "x-headgate-fallback")), (200, None));
}

#[test]
fn no_fallback_answers_for_a_wrong_request_or_a_named_version() {
    let (gateway, address) = gateway();
    let (broken, health) = fragile(true);
    serve(&gateway, vec![Box::new(broken), Box::new(free())], &json!({"fallback": {"to": ["v2"]}}));
    let mut stream = connect(address);
    stream.write_all(request("model", 1.0).replace("FP32", "INT8").as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).1["code"], "invalid_argument");
    assert_eq!(health.runs.load(SeqCst), 0);
    stream.write_all(request("model/versions/v1", 1.0).as_bytes()).unwrap();
    assert_eq!(answer(&mut stream), (500, json!({"error": "it is broken", "code": "backend_failed"})));
    assert_eq!(metric(&gateway, "headgate_requests_passed_on_total", &of("v1")), 0);
}

#[test]
fn a_request_that_only_its_own_version_takes_is_no_client_s_mistake() {
    let (gateway, address) = gateway();
    let (broken, _) = fragile(true);
    let (mut other, _) = fragile(false);
    other.signature.inputs[0].name = "z".to_owned();
    serve(&gateway, vec![Box::new(broken), Box::new(other)], &json!({"fallback": {"to": ["v2"]}}));
    let (status, head, body) = whole_answer(&mut send(address, "x: y"));
    assert_eq!((status, body), (500, json!({"error": "it is broken", "code": "backend_failed"})));
    assert_eq!(header(&head, "x-headgate-fallback"), Some("v1; cause=error"));
    eventually("the booking", || answers(&gateway, "v2", "backend_failed") == 1);
}

/// Fails unless the run has a single row.
struct OneRow(Signature);

impl Executable for OneRow {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        match binding.rows() {
            1 => free().run(binding),
            _ => Err(Error::new(Code::BackendFailed, "it has sizes written into it")),
        }
    }
}

#[test]
fn sizes_that_no_version_takes_are_the_client_s_and_others_are_another_version_s_to_answer() {
    let rows =
        json!({"inputs": [{"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}]}).to_string();
    let ask = |address: SocketAddr| {
        let mut stream = connect(address);
        let head = format!(
            "POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            rows.len()
        );
        stream.write_all((head + &rows).as_bytes()).unwrap();
        whole_answer(&mut stream)
    };
    let fallback = json!({"fallback": {"to": ["v2"]}});
    let (gateway, address) = gateway();
    serve(&gateway, vec![Box::new(OneRow(signature())), Box::new(free())], &fallback);
    let (status, head, _) = ask(address);
    assert_eq!((status, header(&head, "x-headgate-fallback")), (200, Some("v1; cause=error")));
    let (gateway, address) = common::gateway();
    serve(&gateway, vec![Box::new(OneRow(signature())), Box::new(OneRow(signature()))], &fallback);
    let (status, _, body) = ask(address);
    assert_eq!((status, &body["code"]), (400, &json!("invalid_argument")));
    eventually("the booking", || answers(&gateway, "v2", "invalid_argument") == 1);
    assert_eq!(answers(&gateway, "v1", "invalid_argument"), 1);
}

#[test]
fn the_time_of_a_version_begins_when_its_request_is_there() {
    let (gateway, address) = gateway();
    let after = Duration::from_millis(3000);
    let fallback = json!({"fallback": {"to": ["v2"], "after": after.as_millis() as u64}});
    serve(&gateway, vec![Box::new(free()), Box::new(free())], &fallback);
    let mut stream = connect(address);
    let asked = request("model", 2.0);
    let (begun, rest) = asked.as_bytes().split_at(asked.len() - 2);
    stream.write_all(begun).unwrap();
    let start = Instant::now();
    eventually("more than the version's time", || start.elapsed() > after);
    stream.write_all(rest).unwrap();
    let (status, head, _) = whole_answer(&mut stream);
    assert_eq!((status, header(&head, "x-headgate-version")), (200, Some("v1")));
}

#[test]
fn another_version_answers_for_one_that_takes_too_long() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    let fallback = json!({"fallback": {"to": ["v2"], "after": 1000}});
    serve(&gateway, vec![Box::new(slow), Box::new(free())], &fallback);
    let patient = ask_until_begun(&held.entered, || {
        let (status, head, _) = whole_answer(&mut send(address, "x: y"));
        assert_eq!((status, header(&head, "x-headgate-fallback")), (200, Some("v1; cause=timeout")));
    });
    assert_eq!(answers(&gateway, "v1", "deadline_exceeded"), patient);
    // A client that waits for a shorter time is refused.
    let hasty = ask_until_begun(&held.entered, || {
        let (_, body) = answer(&mut send(address, "x-headgate-timeout: 500ms"));
        assert_eq!(body["code"], "deadline_exceeded");
    });
    (0..patient + hasty).for_each(|_| held.leave.send(()).unwrap());
    eventually("both runs", || metric(&gateway, "headgate_runs_total", &of("v1")) >= 2);
}

#[test]
fn a_version_that_fails_again_and_again_is_left_alone_until_a_probe_succeeds() {
    let (gateway, address) = gateway();
    let (broken, health) = fragile(true);
    let breaker = json!({"consecutive": 3, "success_rate": 5000, "window": 10000, "min_requests": 100});
    serve(&gateway, vec![Box::new(broken)], &json!({"limits": {"breaker": breaker}}));
    let mut stream = connect(address);
    let mut ask = || {
        let runs = health.runs.load(SeqCst);
        stream.write_all(request("model", 2.0).as_bytes()).unwrap();
        let (status, head, body) = whole_answer(&mut stream);
        let is_refused = body["code"] == "model_not_ready";
        if is_refused {
            assert_eq!((status, health.runs.load(SeqCst)), (503, runs));
            let seconds: u64 = header(&head, "retry-after").unwrap().parse().unwrap();
            assert!((1..=60).contains(&seconds), "{head}");
        }
        (status, is_refused, body)
    };
    (0..3).for_each(|_| assert_eq!(ask().2["code"], "backend_failed"));
    let shown = || gateway.status()["endpoints"]["model"]["versions"]["v1"]["breaker"].clone();
    eventually("an open breaker", || metric(&gateway, "headgate_breaker_open", &of("v1")) == 1);
    assert_eq!(shown(), json!({"open": true, "trips": 1, "answered_by": null}));
    // The first request after the breaker's time is a probe, which fails. On a busy machine that may be any of these.
    eventually("a refusal", || ask().1);
    let before = shown();
    // A new revision of the same version does not close the breaker.
    let versions = json!([{"name": "v1", "digest": "sha256:0", "artifact": "adopted"}]);
    let breaker = json!({"consecutive": 3, "success_rate": 5000, "window": 10000, "min_requests": 100});
    apply(&gateway, 2, &versions, &json!({"limits": {"breaker": breaker}}));
    assert_eq!((&shown(), &before["open"]), (&before, &json!(true)));
    eventually("another refusal", || ask().1);
    health.broken.store(false, SeqCst);
    eventually("the probe", || ask().0 == 200);
    assert_eq!(metric(&gateway, "headgate_breaker_open", &of("v1")), 0);
    assert_eq!(ask().0, 200);
}

#[test]
fn requests_refused_by_an_open_breaker_go_to_the_fallback() {
    let (gateway, address) = gateway();
    let (broken, health) = fragile(true);
    let breaker = json!({"consecutive": 1, "success_rate": 5000, "window": 10000, "min_requests": 100});
    let more = json!({"limits": {"breaker": breaker}, "fallback": {"to": ["v2"]}});
    serve(&gateway, vec![Box::new(broken), Box::new(free())], &more);
    let ask = || {
        let (status, head, _) = whole_answer(&mut send(address, "x: y"));
        assert_eq!(status, 200, "{head}");
        header(&head, "x-headgate-fallback").map(str::to_owned)
    };
    assert_eq!(ask().as_deref(), Some("v1; cause=error"));
    // The response of the fallback does not wait for the probe of the version that failed.
    eventually("an open breaker", || metric(&gateway, "headgate_breaker_open", &of("v1")) == 1);
    // A request after the breaker's time reaches the version, and fails there too.
    eventually("a request that the breaker refuses", || {
        let runs = health.runs.load(SeqCst);
        let is_refused = ask().as_deref() == Some("v1; cause=not_ready");
        assert_eq!(health.runs.load(SeqCst), runs + usize::from(!is_refused));
        is_refused
    });
}

#[test]
fn a_caller_that_comes_too_often_waits_and_others_do_not() {
    let (gateway, address) = gateway();
    // No token comes while the test runs.
    let rate = json!({"limits": {"rate": {"by": "header.x-tenant", "per_second": 0.001, "burst": 2}}});
    serve(&gateway, vec![Box::new(free())], &rate);
    let ask = |tenant: &str| whole_answer(&mut send(address, &format!("x-tenant: {tenant}")));
    (0..2).for_each(|_| assert_eq!(ask("a").0, 200));
    let (status, head, body) = ask("a");
    assert_eq!((status, &body["code"]), (429, &json!("rate_limited")));
    let seconds: u64 = header(&head, "retry-after").unwrap().parse().unwrap();
    assert!((900..=1000).contains(&seconds), "{seconds}");
    assert_eq!(ask("b").0, 200);
    // A new revision gives no caller a new burst.
    apply(&gateway, 2, &json!([{"name": "v1", "digest": "sha256:0", "artifact": "adopted"}]), &rate);
    assert_eq!(ask("a").0, 429);
    let endpoint = json!({"endpoint": "model"});
    assert_eq!(metric(&gateway, "headgate_requests_rate_limited_total", &endpoint), 2);
    let other = json!({"limits": {"rate": {"by": "header.x-tenant", "per_second": 0.001, "burst": 3}}});
    apply(&gateway, 3, &json!([{"name": "v1", "digest": "sha256:0", "artifact": "adopted"}]), &other);
    assert_eq!(ask("a").0, 200);
}

#[test]
fn the_first_class_runs_first() {
    let (gateway, address) = gateway_with(&json!({"pool_threads": 1}));
    let (slow, held) = gated();
    let priority = json!({"by": "header.x-class", "classes": ["gold", "batch"], "unnamed": "batch"});
    serve(&gateway, vec![Box::new(slow)], &json!({"limits": {"priority": priority}}));
    let mut running = send(address, "x-class: batch");
    held.entered.recv_timeout(PATIENCE).unwrap();
    let waiting =
        |count: u64| eventually("a queue", || metric(&gateway, "headgate_pool_waiting", &json!({})) == count);
    let mut batch: Vec<TcpStream> = ["batch", "unknown", "GOLD"]
        .iter()
        .zip(1..)
        .map(|(class, count)| {
            let stream = send(address, &format!("x-class: {class}"));
            waiting(count);
            stream
        })
        .collect();
    let mut gold = send(address, "x-class: gold");
    waiting(4);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut running).0, 200);
    held.entered.recv_timeout(PATIENCE).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut gold).0, 200);
    for stream in &mut batch {
        stream.set_nonblocking(true).unwrap();
        assert!(stream.read(&mut [0]).is_err(), "nothing has come yet");
        stream.set_nonblocking(false).unwrap();
    }
    (0..3).for_each(|_| held.leave.send(()).unwrap());
    batch.iter_mut().for_each(|stream| assert_eq!(answer(stream).0, 200));
}

#[test]
fn contradictions_are_refused() {
    let (gateway, _) = gateway();
    for (more, says) in [
        (json!({"fallback": {"to": ["v9"]}}), "v9"),
        (json!({"limits": {"rate": {"per_second": 0.0, "burst": 1}}}), "per_second"),
        (
            json!({"limits": {"priority": {"by": "header.x", "classes": ["a"], "unnamed": "b"}}}),
            "\"b\" is not among",
        ),
    ] {
        let mut spec = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 1000,
            "versions": [{"name": "v1", "digest": "d", "artifact": "a"}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let written = common::written(&spec).to_string();
        let read = EndpointSpec::from_json(written.as_bytes());
        let error = read.and_then(|spec| gateway.apply(spec)).unwrap_err();
        assert_eq!(error.code, Code::PolicyInvalid);
        assert!(error.message.contains(says), "{error}");
    }
}

#[test]
fn expired_requests_of_one_class_delay_no_other_while_versions_take_turns() {
    let (gateway, address) = gateway_with(&json!({"pool_threads": 1}));
    let (model, gold) = gated();
    let priority = json!({"by": "header.x-class", "classes": ["gold", "batch"], "unnamed": "batch"});
    serve(&gateway, vec![Box::new(model)], &json!({"limits": {"priority": priority}}));
    let (other, held) = gated();
    common::serve(&gateway, "other", other, false);
    let to_other = || {
        let mut stream = connect(address);
        stream.write_all(request("other", 1.0).as_bytes()).unwrap();
        stream
    };
    // The pool has a spare thread and grows while runs wait. These requests take all but one of its threads.
    let blockers: Vec<_> = (0..17)
        .map(|index| {
            let (model, held) = gated();
            let name = format!("blocker-{index}");
            common::serve(&gateway, &name, model, false);
            let stream = common::send(address, &name);
            held.entered.recv_timeout(PATIENCE).unwrap();
            (stream, held)
        })
        .collect();
    let mut others = vec![to_other()];
    held.entered.recv_timeout(PATIENCE).unwrap();
    // The last thread is taken, so these requests wait and expire. On a busy machine one may expire before it waits.
    let waiting = || metric(&gateway, "headgate_pool_waiting", &json!({}));
    eventually("five that expired", || {
        assert_eq!(answer(&mut send(address, "x-headgate-timeout: 50ms")).1["code"], "deadline_exceeded");
        waiting() >= 5
    });
    let mut important = send(address, "x-class: gold");
    others.push(to_other());
    eventually("all of them", || waiting() >= 7);
    held.leave.send(()).unwrap();
    gold.entered.recv_timeout(PATIENCE).expect("it comes before the other version's next run");
    assert!(held.entered.try_recv().is_err());
    gold.leave.send(()).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut important).0, 200);
    others.iter_mut().for_each(|stream| assert_eq!(answer(stream).0, 200));
    blockers.iter().for_each(|(_, held)| held.leave.send(()).unwrap());
}
