//! Large requests: their work is offloaded, while the only IO thread answers others. A driver that stands in for a device reports when the
//! memory of a tensor is allocated, and waits. So the order is forced, never timed.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use crate::common;
use crate::common::{PATIENCE, Probe, answer, ask, connect, eventually, free, gateway_with, metric};
use crate::standin::StandIn;
use flate2::Compression;
use flate2::write::GzEncoder;
use headgate_core::error::Result;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::{Shape, Signature};
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use headgate_engine::runtime::device::Driver;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// The numbers of a large request: in JSON and in binary data more bytes than an IO thread reads by itself.
const NUMBERS: usize = 2 << 20;

/// A probe whose buffers a driver allocates.
struct OnDriver(Probe, Arc<dyn Driver>);

impl Executable for OnDriver {
    fn signature(&self) -> &Signature {
        self.0.signature()
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        self.0.run(binding)
    }

    fn driver(&self) -> Option<&Arc<dyn Driver>> {
        Some(&self.1)
    }
}

/// Gives as many zeros as its input says.
struct Zeros(Signature);

impl Executable for Zeros {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let count = binding.input(0).view()?.elements::<f32>().unwrap()[0];
        let output = binding.output_mut(0);
        output.reshape(&Shape::new(&[count as i64])?)?;
        output.elements_mut::<f32>().unwrap().fill(0.0);
        Ok(())
    }
}

/// One IO thread, a small endpoint, and a large one whose decoding waits until the sender is dropped.
struct Setup {
    gateway: Arc<Gateway>,
    address: SocketAddr,
    entered: Receiver<()>,
    leave: Option<Sender<()>>,
}

fn setup() -> Setup {
    let (gateway, address) = gateway_with(&json!({}));
    let driver = StandIn::new();
    let model = OnDriver(free(), driver.clone());
    // The registry knows the driver as long as this is kept.
    let _model = gateway.engine().adopt("sha256:large", Box::new(model), &RunSpec::default()).unwrap();
    common::serve_adopted(&gateway, "large", "sha256:large");
    common::serve(&gateway, "small", free(), true);
    let (entered, leave) = driver.hold_host();
    Setup { gateway, address, entered, leave: Some(leave) }
}

impl Setup {
    /// Lets all decoding go on.
    fn let_go(&mut self) {
        self.leave = None;
    }

    /// The memory of large requests.
    fn held(&self) -> u64 {
        metric(&self.gateway, "headgate_large_request_bytes", &json!({}))
    }

    fn send(&self, path: &str, headers: &str, body: &[u8]) -> TcpStream {
        send(self.address, path, headers, body)
    }

    fn send_listed(&self, headers: &str) -> TcpStream {
        self.send("v2/models/large/infer", headers, listed().as_bytes())
    }

    fn small_is_answered(&self) {
        assert_eq!(ask(&mut connect(self.address), "small", 21.0), 42.0);
    }
}

fn send(address: SocketAddr, path: &str, headers: &str, body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let length = body.len();
    let head = format!("POST /{path} HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n{headers}\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    stream
}

fn numbers() -> Vec<u8> {
    let mut list = vec![b'['];
    list.extend(b"1,".repeat(NUMBERS - 1));
    list.extend(b"1]");
    list
}

fn listed() -> String {
    let data = String::from_utf8(numbers()).unwrap();
    // The response is short in binary data.
    format!(
        r#"{{"parameters":{{"binary_data_output":true}},"inputs":[{{"name":"x","shape":[{NUMBERS}],"datatype":"FP32","data":{data}}}]}}"#
    )
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}

/// The status of the answer.
fn status(stream: &mut TcpStream) -> u16 {
    common::status_and_body(stream).0
}

#[test]
fn a_large_request_is_decoded_beside_the_io_thread_whatever_its_form() {
    let raw: Vec<u8> = 1f32.to_le_bytes().repeat(NUMBERS);
    let json = format!(
        r#"{{"inputs":[{{"name":"x","shape":[{NUMBERS}],"datatype":"FP32","parameters":{{"binary_data_size":{}}}}}],"outputs":[]}}"#,
        raw.len()
    );
    let binary = [json.as_bytes(), &raw].concat();
    let json_length = format!("inference-header-content-length: {}\r\n", json.len());
    let rows = format!(r#"{{"instances":{}}}"#, String::from_utf8(numbers()).unwrap());
    for (form, path, headers, body) in [
        ("listed", "v2/models/large/infer", "", listed().into_bytes()),
        ("gzip", "v2/models/large/infer", "content-encoding: gzip\r\n", gzip(listed().as_bytes())),
        ("rows", "v1/models/large:predict", "", rows.into_bytes()),
        ("binary", "v2/models/large/infer", &json_length, binary),
    ] {
        let mut setup = setup();
        let mut large = setup.send(path, headers, &body);
        setup.entered.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{form}: nobody decodes"));
        setup.small_is_answered();
        assert!(setup.held() > 0, "{form}");
        setup.let_go();
        assert_eq!(status(&mut large), 200, "{form}");
        drop(large);
        let gateway = setup.gateway;
        eventually("its memory", || metric(&gateway, "headgate_large_request_bytes", &json!({})) == 0);
    }
}

#[test]
fn the_deadline_and_a_hang_up_end_the_wait_and_the_memory_stays_with_the_work() {
    let mut setup = setup();
    // Both threads are in work that has begun and cannot end.
    let leaving = setup.send_listed("");
    let mut staying = setup.send_listed("");
    for _ in 0..2 {
        setup.entered.recv_timeout(PATIENCE).unwrap();
    }
    let mut late = setup.send_listed("x-headgate-timeout: 100ms\r\n");
    let (code, body) = answer(&mut late);
    assert_eq!((code, &body["code"]), (504, &json!("deadline_exceeded")), "{body}");
    let held = setup.held();
    drop(leaving);
    let cancelled = json!({"endpoint": "large", "version": "v1", "code": "cancelled"});
    eventually("the hang-up", || metric(&setup.gateway, "headgate_requests_total", &cancelled) == 1);
    assert_eq!(setup.held(), held, "whoever leaves does not free what is still used");
    assert!(held >= 2 * 2 * listed().len() as u64, "{held}");
    setup.let_go();
    assert_eq!(status(&mut staying), 200);
    let gateway = setup.gateway;
    eventually("the memory", || metric(&gateway, "headgate_large_request_bytes", &json!({})) == 0);
}

#[test]
fn reading_and_unpacking_large_requests_waits_for_a_thread_beside_and_nothing_else_does() {
    let mut setup = setup();
    let body = listed().replace("]}]}", "],}]}");
    // Both threads are busy.
    let mut decoding = [setup.send_listed(""), setup.send_listed("")];
    for _ in 0..2 {
        setup.entered.recv_timeout(PATIENCE).unwrap();
    }
    let before = setup.held();
    let mut malformed = setup.send("v2/models/large/infer", "", body.as_bytes());
    let whole = before + 2 * body.len() as u64;
    eventually("the body", || setup.held() >= whole);
    let packed = gzip(body.as_bytes());
    let mut coded = setup.send("v2/models/large/infer", "content-encoding: gzip\r\n", &packed);
    for _ in 0..3 {
        setup.small_is_answered();
    }
    let refused =
        |code: &str| metric(&setup.gateway, "headgate_requests_refused_total", &json!({"code": code}));
    assert_eq!(refused("invalid_argument"), 0, "nobody has read it");
    setup.let_go();
    for stream in [&mut malformed, &mut coded] {
        let (code, body): (u16, Value) = answer(stream);
        assert_eq!((code, &body["code"]), (400, &json!("invalid_argument")), "{body}");
    }
    for stream in &mut decoding {
        assert_eq!(status(stream), 200);
    }
}

#[test]
fn an_answer_for_which_there_is_no_room_is_not_written() {
    let (gateway, address) =
        gateway_with(&json!({"large_request_bytes": 8 << 20, "max_body_bytes": 1 << 20}));
    let zeros = Zeros(common::signature());
    let _model = gateway.engine().adopt("sha256:zeros", Box::new(zeros), &RunSpec::default()).unwrap();
    common::serve_adopted(&gateway, "zeros", "sha256:zeros");
    // The request was read, so others may follow on its connection.
    let mut stream = connect(address);
    let mut ask = |count: f32| {
        stream.write_all(common::request("zeros", count).as_bytes()).unwrap();
        answer(&mut stream)
    };
    for _ in 0..3 {
        let (status, body) = ask(1e6);
        assert_eq!((status, &body["code"]), (413, &json!("payload_too_large")), "{body}");
        assert!(body["error"].as_str().unwrap().contains("its response need"), "{body}");
        let (status, body) = ask(1e5);
        assert_eq!((status, body["outputs"][0]["data"].as_array().map(Vec::len)), (200, Some(100_000)));
    }
    let closed = json!({"reason": "body_too_large"});
    assert_eq!(metric(&gateway, "headgate_connections_closed_total", &closed), 0);
    eventually("the memory", || metric(&gateway, "headgate_large_request_bytes", &json!({})) == 0);
}

#[test]
fn an_answer_that_is_not_compressed_in_time_is_late_and_not_empty() {
    let mut setup = setup();
    let zeros = Zeros(common::signature());
    let _model = setup.gateway.engine().adopt("sha256:zeros", Box::new(zeros), &RunSpec::default()).unwrap();
    common::serve_adopted(&setup.gateway, "zeros", "sha256:zeros");
    // Both threads are busy.
    let mut decoding = [setup.send_listed(""), setup.send_listed("")];
    for _ in 0..2 {
        setup.entered.recv_timeout(PATIENCE).unwrap();
    }
    // The longest response that the IO thread writes by itself. Its compression is offloaded.
    let ask = |more: &str| {
        let mut stream = connect(setup.address);
        let text = common::request("zeros", 65_536.0);
        let head = format!("host: t\r\naccept-encoding: gzip\r\n{more}");
        stream.write_all(text.replacen("host: t\r\n", &head, 1).as_bytes()).unwrap();
        stream
    };
    let (code, body) = answer(&mut ask("x-headgate-timeout: 200ms\r\n"));
    assert_eq!((code, &body["code"]), (504, &json!("deadline_exceeded")), "{body}");
    let mut waiting = ask("");
    setup.small_is_answered();
    setup.let_go();
    let (code, packed) = common::status_and_body(&mut waiting);
    assert_eq!((code, &packed[..2]), (200, &[0x1f, 0x8b][..]));
    for stream in &mut decoding {
        assert_eq!(status(stream), 200);
    }
}

#[test]
fn a_panic_while_a_large_request_is_decoded_is_no_failure_of_its_version() {
    let (gateway, address) = gateway_with(&json!({}));
    let driver = StandIn::new();
    driver.panic_on_host();
    let model = OnDriver(free(), driver);
    let _model = gateway.engine().adopt("sha256:large", Box::new(model), &RunSpec::default()).unwrap();
    let breaker = json!({"consecutive": 1, "success_rate": 5000, "window": 10000, "min_requests": 100});
    let spec = json!({
        "name": "large", "revision": 1, "champion": "v1", "timeout_ms": 60000, "limits": {"breaker": breaker},
        "versions": [{"name": "v1", "digest": "sha256:large", "artifact": "adopted"}],
    });
    gateway.apply(common::spec(&spec)).unwrap();
    for _ in 0..3 {
        let (code, body) = answer(&mut send(address, "v2/models/large/infer", "", listed().as_bytes()));
        assert_eq!((code, &body["code"]), (500, &json!("internal")), "{body}");
    }
    let version = json!({"endpoint": "large", "version": "v1"});
    assert_eq!(metric(&gateway, "headgate_breaker_open", &version), 0);
}

#[test]
fn a_refusal_beside_the_io_thread_says_what_it_says_on_it() {
    let mut setup = setup();
    setup.let_go();
    let wrong = listed().replacen("[1,", "[true,", 1);
    let mut stream = setup.send("v2/models/large/infer", "", wrong.as_bytes());
    let (code, body) = answer(&mut stream);
    assert_eq!(code, 400);
    assert!(body["error"].as_str().unwrap().contains("\"x\""), "{body}");
    let packed = gzip(&vec![b' '; 65 << 20]);
    let mut stream = setup.send("v2/models/large/infer", "content-encoding: gzip\r\n", &packed);
    let (code, body) = answer(&mut stream);
    assert_eq!(code, 413);
    assert!(body["error"].as_str().unwrap().contains("--max-body"), "{body}");
}
