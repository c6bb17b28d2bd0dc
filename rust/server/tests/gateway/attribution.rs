//! The attribution of failures: a failure of a client never opens a breaker, and one of a version does. If the champion takes a request
//! that a challenger does not, the champion answers.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use crate::common;
use crate::common::{at_last, connect, eventually, gateway, metric, signature, whole_answer};
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::RunSpec;
use headgate_core::tensor::Signature;
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// A table with a number of rows: `y = 2 x`, and a failed run for an `x` beyond it. As with ONNX Runtime, the code of the failure does not
/// say whether the request or the version is at fault.
struct Table {
    signature: Signature,
    rows: f32,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    broken: AtomicBool,
    /// Whether its outputs are NaN.
    spoilt: AtomicBool,
    /// Whether it runs on made-up inputs, which are zeros.
    probes: AtomicUsize,
}

impl Executable for Table {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let values: Vec<f32> = binding.input(0).view()?.elements::<f32>().unwrap().to_vec();
        let made_up = values.iter().all(|&x| x == 0.0);
        self.state.probes.fetch_add(usize::from(made_up), SeqCst);
        if self.state.broken.load(SeqCst) || values.iter().any(|&x| x >= self.rows) {
            return Err(Error::new(Code::BackendFailed, "Non-zero status code returned"));
        }
        let (shape, spoilt) = (*binding.input(0).shape(), self.state.spoilt.load(SeqCst) && !made_up);
        let output = binding.output_mut(0);
        output.reshape(&shape)?;
        let out = output.elements_mut::<f32>().unwrap();
        out.iter_mut().zip(values).for_each(|(y, x)| *y = if spoilt { f32::NAN } else { 2.0 * x });
        Ok(())
    }
}

fn table(rows: f32) -> (Table, Arc<State>) {
    let state = Arc::<State>::default();
    (Table { signature: signature(), rows, state: state.clone() }, state)
}

/// Opens after two failures in a row.
fn breaker() -> Value {
    json!({"breaker": {"consecutive": 2, "success_rate": 0, "window": 10000, "min_requests": 1000000}})
}

/// Every slot is the challenger's.
fn all_to_v2() -> Value {
    json!({"salt": "s", "given": [["v2", 0, 9999]]})
}

struct Served {
    gateway: Arc<Gateway>,
    stream: TcpStream,
}

/// One answer.
struct Answered {
    status: u16,
    version: Option<String>,
    fallback: Option<String>,
    body: Value,
}

impl Answered {
    fn code(&self) -> (u16, &str) {
        (self.status, self.body["code"].as_str().unwrap_or("ok"))
    }

    fn by(&self) -> (u16, Option<&str>, Option<&str>) {
        (self.status, self.version.as_deref(), self.fallback.as_deref())
    }
}

impl Served {
    /// Serves `model` with the versions v1, v2, ... run as given.
    fn new(versions: Vec<Table>, run: &RunSpec, inline: bool, more: &Value) -> Served {
        let (gateway, address) = gateway();
        let mut kept = Vec::new();
        let listed: Vec<Value> = (1..)
            .zip(versions)
            .map(|(index, table)| {
                let digest = format!("sha256:{index}");
                let model = gateway.engine().adopt(&digest, Box::new(table), run).unwrap();
                if inline {
                    model.placement_policy.pin_inline();
                }
                kept.push(model);
                json!({
                    "name": format!("v{index}"), "digest": digest, "artifact": "adopted", "run": run,
                    "compatible": false,
                })
            })
            .collect();
        let mut spec = json!({
            "name": "model", "revision": 1, "champion": "v1", "timeout_ms": 20000, "versions": listed,
            "limits": breaker(),
        });
        let constant = more.get("constant").cloned();
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        if let Some(constant) = constant {
            spec.as_object_mut().unwrap().remove("constant");
            spec["versions"].as_array_mut().unwrap().push(constant);
        }
        gateway.apply(common::spec(&spec)).unwrap();
        let mut told = Vec::new();
        eventually("the outcome", || {
            told.extend(gateway.events());
            !told.is_empty()
        });
        assert_eq!(told.last().unwrap()["event"], "applied", "{told:?}");
        Served { stream: connect(address), gateway }
    }

    /// As [`Served::new`], in the pool.
    fn pooled(versions: Vec<Table>, more: &Value) -> Served {
        Served::new(versions, &RunSpec::default(), false, more)
    }

    fn ask(&mut self, x: f32) -> Answered {
        self.ask_version("model", x)
    }

    fn ask_version(&mut self, path: &str, x: f32) -> Answered {
        read(&mut self.stream, &common::request(path, x))
    }

    fn is_open(&self, version: &str) -> bool {
        metric(&self.gateway, "headgate_breaker_open", &of(version)) == 1
    }

    fn booked(&self, version: &str, code: &str) -> u64 {
        let labels = json!({"endpoint": "model", "version": version, "code": code});
        metric(&self.gateway, "headgate_requests_total", &labels)
    }
}

fn of(version: &str) -> Value {
    json!({"endpoint": "model", "version": version})
}

fn read(stream: &mut TcpStream, request: &str) -> Answered {
    stream.write_all(request.as_bytes()).unwrap();
    let (status, head, body) = whole_answer(stream);
    let header = |name: &str| {
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::to_owned)
    };
    Answered { status, version: header("x-headgate-version"), fallback: header("x-headgate-fallback"), body }
}

/// The ways in which a version is run.
fn ways() -> [(RunSpec, bool); 3] {
    let batched = RunSpec { max_batch: 4, ..RunSpec::default() };
    [(RunSpec::default(), true), (RunSpec::default(), false), (batched, false)]
}

#[test]
fn bad_requests_are_the_client_s_and_open_no_breaker_however_a_version_is_run() {
    for (run, inline) in ways() {
        let (small, state) = table(10.0);
        let mut served = Served::new(vec![small], &run, inline, &json!({}));
        // 10 : 1.
        for round in 0..20 {
            for bad in 0..10 {
                let answered = served.ask(10.0 + bad as f32);
                assert_eq!(answered.code(), (400, "invalid_argument"), "{}", answered.body);
                assert!(answered.body["error"].as_str().unwrap().contains("does not take these inputs"));
            }
            let good = served.ask(round as f32 % 10.0);
            assert_eq!(good.status, 200, "{}", good.body);
        }
        assert!(!served.is_open("v1"));
        let booked = || (served.booked("v1", "ok"), served.booked("v1", "invalid_argument"));
        eventually("the booking", || booked() == (20, 200));
        let probes = metric(&served.gateway, "headgate_probes_total", &of("v1"));
        assert_eq!(metric(&served.gateway, "headgate_probes_failed_total", &of("v1")), 0);
        assert!((1..50).contains(&probes), "{probes} probes for 200 failures");
        assert!(state.probes.load(SeqCst) as u64 >= probes);
    }
}

#[test]
fn a_bad_row_in_a_batch_fails_alone() {
    let run = RunSpec { max_batch: 8, max_delay_us: 20_000, ..RunSpec::default() };
    let (small, _) = table(10.0);
    let served = Served::new(vec![small], &run, false, &json!({}));
    let address = served.stream.peer_addr().unwrap();
    let together: Vec<_> =
        (0..16).map(|at| (at, send(address, if at % 2 == 0 { 3.0 } else { 30.0 }))).collect();
    for (at, mut stream) in together {
        let (status, _, body) = whole_answer(&mut stream);
        let wanted = if at % 2 == 0 { 200 } else { 400 };
        assert_eq!(status, wanted, "{body}");
    }
    assert!(!served.is_open("v1"));
}

fn send(address: SocketAddr, x: f32) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(common::request("model", x).as_bytes()).unwrap();
    stream
}

#[test]
fn a_version_that_breaks_after_it_was_loaded_is_at_fault_from_its_next_probe_on() {
    for (run, inline) in ways() {
        let (fragile, state) = table(10.0);
        let mut served = Served::new(vec![fragile], &run, inline, &json!({}));
        assert_eq!(served.ask(1.0).status, 200);
        state.broken.store(true, SeqCst);
        for _ in 0..2 {
            assert_eq!(served.ask(1.0).code(), (500, "backend_failed"));
        }
        eventually("an open breaker", || served.is_open("v1"));
        // A request after the breaker's time is a probe, which fails.
        eventually("a refusal", || served.ask(1.0).code() == (503, "model_not_ready"));
        assert!(served.is_open("v1"));
        assert!(metric(&served.gateway, "headgate_probes_failed_total", &of("v1")) >= 1);
        let shown = served.gateway.status()["endpoints"]["model"]["versions"]["v1"]["probes"].clone();
        assert!(shown["failed"].as_u64() >= Some(1), "{shown}");
        state.broken.store(false, SeqCst);
        eventually("the breaker's end", || served.ask(1.0).status == 200);
    }
}

#[test]
fn the_champion_answers_what_a_challenger_cannot_and_all_of_it_once_that_is_left_alone() {
    for (run, inline) in ways() {
        let ((large, _), (small, _)) = (table(100.0), table(10.0));
        let mut served = Served::new(vec![large, small], &run, inline, &json!({"table": all_to_v2()}));
        assert_eq!(served.ask(5.0).by(), (200, Some("v2"), None));
        let trip = |served: &mut Served| {
            for _ in 0..2 {
                let answered = served.ask(50.0);
                assert_eq!(answered.by(), (200, Some("v1"), Some("v2; cause=error")), "{}", answered.body);
                assert_eq!(answered.body["outputs"][0]["data"][0], 100.0);
            }
        };
        trip(&mut served);
        assert!(served.is_open("v2") && !served.is_open("v1"));
        assert_eq!(served.booked("v2", "backend_failed"), 2);
        assert_eq!(metric(&served.gateway, "headgate_requests_passed_on_total", &of("v2")), 2);
        // A caller that names the version gets its failure. A request after the breaker's time succeeds and closes it.
        at_last("two requests within the breaker's time", || {
            if !served.is_open("v2") {
                trip(&mut served);
            }
            served.ask(5.0).by() == (200, Some("v1"), Some("v2; cause=not_ready"))
                && served.ask_version("model/versions/v2", 5.0).code() == (503, "model_not_ready")
        });
        // A request that no version takes is still a failure of the client.
        assert_eq!(served.ask(500.0).code(), (400, "invalid_argument"));
        assert!(!served.is_open("v1"));
    }
}

#[test]
fn a_caller_that_names_a_challenger_gets_its_response() {
    let ((large, _), (small, _)) = (table(100.0), table(10.0));
    let mut served = Served::pooled(vec![large, small], &json!({"table": all_to_v2()}));
    for _ in 0..5 {
        assert_eq!(served.ask_version("model/versions/v2", 50.0).code(), (400, "invalid_argument"));
    }
    assert!(!served.is_open("v2"));
}

#[test]
fn without_a_fallback_even_the_champion_does_not_answer_for_a_challenger() {
    let ((large, _), (small, state)) = (table(100.0), table(10.0));
    let more = json!({"table": all_to_v2(), "fallback": "none"});
    let mut served = Served::pooled(vec![large, small], &more);
    for _ in 0..5 {
        assert_eq!(served.ask(50.0).code(), (400, "invalid_argument"));
    }
    assert!(!served.is_open("v2"));
    state.broken.store(true, SeqCst);
    eventually("its failures", || served.ask(5.0).by() == (503, Some("v2"), None));
    assert!(served.is_open("v2"));
}

#[test]
fn a_request_that_fails_on_both_versions_is_the_client_s_and_opens_no_breaker() {
    let ((large, _), (small, _)) = (table(100.0), table(10.0));
    let mut served = Served::pooled(vec![large, small], &json!({"table": all_to_v2()}));
    for _ in 0..5 {
        assert_eq!(served.ask(500.0).code(), (400, "invalid_argument"));
    }
    assert!(!served.is_open("v1") && !served.is_open("v2"));
    for version in ["v1", "v2"] {
        eventually("the booking", || served.booked(version, "invalid_argument") == 5);
        assert_eq!(served.booked(version, "backend_failed"), 0);
    }
}

#[test]
fn a_broken_challenger_and_a_champion_that_takes_something_else_is_no_client_s_mistake() {
    let ((mut other, _), (small, state)) = (table(100.0), table(10.0));
    other.signature.inputs[0].name = "z".to_owned();
    let mut served = Served::pooled(vec![other, small], &json!({"table": all_to_v2()}));
    // The version works otherwise, so the request is at fault.
    assert_eq!(served.ask(50.0).code(), (400, "invalid_argument"));
    assert!(!served.is_open("v2"));
    state.broken.store(true, SeqCst);
    eventually("its failures", || served.ask(5.0).code() == (500, "backend_failed"));
    eventually("its breaker", || served.ask(5.0).code() == (503, "model_not_ready"));
    assert!(served.is_open("v2") && !served.is_open("v1"));
}

#[test]
fn a_malformed_request_is_the_client_s_also_while_a_challenger_is_left_alone() {
    let ((large, _), (small, state)) = (table(100.0), table(10.0));
    let mut served = Served::pooled(vec![large, small], &json!({"table": all_to_v2()}));
    state.broken.store(true, SeqCst);
    (0..2).for_each(|_| assert_eq!(served.ask(5.0).status, 200));
    assert!(served.is_open("v2"));
    let malformed = common::request("model", 5.0).replace("FP32", "INT8");
    assert_eq!(read(&mut served.stream, &malformed).code(), (400, "invalid_argument"));
}

#[test]
fn nan_in_json_is_the_client_s_and_the_challenger_s_where_the_champion_has_numbers() {
    let ((large, champion), (small, challenger)) = (table(100.0), table(100.0));
    let mut served = Served::pooled(vec![large, small], &json!({"table": all_to_v2()}));
    challenger.spoilt.store(true, SeqCst);
    for _ in 0..2 {
        assert_eq!(served.ask(5.0).by(), (200, Some("v1"), Some("v2; cause=error")));
    }
    assert!(served.is_open("v2"));
    champion.spoilt.store(true, SeqCst);
    for _ in 0..5 {
        let answered = served.ask_version("model/versions/v1", 5.0);
        assert_eq!(answered.code(), (400, "invalid_argument"));
        assert!(answered.body["error"].as_str().unwrap().contains("answers.non_finite"));
        assert_eq!(served.ask(5.0).code(), (400, "invalid_argument"));
    }
    assert!(!served.is_open("v1"));
}

#[test]
fn a_constant_answers_for_a_version_that_is_broken_and_not_for_a_request_that_is_wrong() {
    let (small, state) = table(10.0);
    let constant = json!({"name": "prior", "digest": "sha256:prior", "constant": {"y": 0.5}});
    let more = json!({"constant": constant, "fallback": {"to": ["prior"]}});
    let mut served = Served::pooled(vec![small], &more);
    for _ in 0..5 {
        assert_eq!(served.ask(50.0).code(), (400, "invalid_argument"));
    }
    state.broken.store(true, SeqCst);
    eventually("the constant", || served.ask(5.0).by() == (200, Some("prior"), Some("v1; cause=error")));
    eventually("the breaker", || served.ask(5.0).by() == (200, Some("prior"), Some("v1; cause=not_ready")));
    assert!(served.is_open("v1"));
}

#[test]
fn a_fallback_that_takes_more_than_the_champion_does_not_open_the_champion_s_breaker() {
    let ((small, state), (large, _)) = (table(10.0), table(100.0));
    let mut served = Served::pooled(vec![small, large], &json!({"fallback": {"to": ["v2"]}}));
    for _ in 0..10 {
        assert_eq!(served.ask(50.0).by(), (200, Some("v2"), Some("v1; cause=error")));
    }
    assert_eq!(served.ask(5.0).by(), (200, Some("v1"), None));
    assert!(!served.is_open("v1"));
    state.broken.store(true, SeqCst);
    eventually("the breaker", || {
        assert_eq!(served.ask(5.0).status, 200);
        served.is_open("v1")
    });
}
