//! Helpers of the tests of a running gateway: models that can be held, sockets, responses.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    reason = "each program of tests uses a part, and panics to say what went wrong"
)]

pub mod computed;
pub mod http2;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use headgate_core::error::Result;
use headgate_core::spec::{EndpointSpec, RunSpec};
use headgate_core::tensor::{DataType, Shape, Signature, TensorSpec};
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use headgate_server::config::Config;
use headgate_server::gateway::Gateway;
use serde_json::{Map, Value, json};

/// How long a wait for something certain may take before the test is called stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The same beside loads and runs that take the processor.
pub const LONG: Duration = Duration::from_secs(200);

/// Doubles its input. With a gate, each run waits until the test lets it go on.
pub struct Probe {
    pub signature: Signature,
    pub gate: Option<Gate>,
}

pub struct Gate {
    entered: Mutex<Sender<()>>,
    leave: Mutex<Receiver<()>>,
}

impl Executable for Probe {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        if let Some(gate) = &self.gate {
            gate.entered.lock().unwrap().send(()).unwrap();
            gate.leave.lock().unwrap().recv_timeout(LONG).expect("the test lets the run go on");
        }
        let values: Vec<f32> = binding.input(0).view()?.elements::<f32>().unwrap().to_vec();
        let shape: Shape = *binding.input(0).shape();
        let output = binding.output_mut(0);
        output.reshape(&shape)?;
        let out = output.elements_mut::<f32>().unwrap();
        out.iter_mut().zip(values).for_each(|(out, value)| *out = 2.0 * value);
        Ok(())
    }
}

pub fn signature() -> Signature {
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: vec![-1],
        symbols: vec!["n".to_owned()],
        any_rank: false,
        labels: Vec::new(),
    };
    Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")], ..Signature::default() }
}

/// The test's side of a gate.
pub struct Held {
    pub entered: Receiver<()>,
    pub leave: Sender<()>,
}

pub fn gated() -> (Probe, Held) {
    let (entered_tx, entered) = channel();
    let (leave, leave_rx) = channel();
    let gate = Gate { entered: Mutex::new(entered_tx), leave: Mutex::new(leave_rx) };
    (Probe { signature: signature(), gate: Some(gate) }, Held { entered, leave })
}

pub fn free() -> Probe {
    Probe { signature: signature(), gate: None }
}

pub fn gateway() -> (Arc<Gateway>, SocketAddr) {
    gateway_with(&json!({}))
}

pub fn gateway_with(changes: &Value) -> (Arc<Gateway>, SocketAddr) {
    started(Gateway::new(config(changes)).unwrap())
}

/// Starts a gateway and returns its address.
pub fn started(gateway: Gateway) -> (Arc<Gateway>, SocketAddr) {
    gateway.set_ready(true);
    let address = gateway.start().unwrap().http;
    (Arc::new(gateway), address)
}

pub fn config(changes: &Value) -> Config {
    let library = std::env::var("HEADGATE_ORT_LIBRARY")
        .expect("HEADGATE_ORT_LIBRARY names the ONNX Runtime library; `make test` sets it");
    let mut config = json!({"http": "127.0.0.1:0", "io_threads": 1, "pool_threads": 2, "library": library});
    config.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    Config::from_json(config.to_string().as_bytes()).unwrap()
}

pub fn serve(gateway: &Gateway, name: &str, probe: Probe, inline: bool) {
    let digest = format!("sha256:{name}");
    let model = gateway.engine().adopt(&digest, Box::new(probe), &RunSpec::default()).unwrap();
    if inline {
        model.placement_policy.pin_inline();
    }
    serve_adopted(gateway, name, &digest);
}

/// The state of an endpoint in a short form: the versions are a list with all their fields, and the fields of document, live traffic and load
/// are side by side.
pub fn spec(short: &Value) -> EndpointSpec {
    let mut spec = EndpointSpec::from_json(written(short).to_string().as_bytes()).unwrap();
    for version in &mut spec.versions {
        let listed = short["versions"].as_array().unwrap().iter().find(|one| one["name"] == *version.name);
        version.pinned = listed.unwrap()["pinned"] == true;
    }
    spec
}

/// The same state in the form of the control plane.
pub fn written(short: &Value) -> Value {
    let part = |from: &Value, keys: &[&str]| -> Map<String, Value> {
        let written = keys.iter().filter_map(|key| Some(((*key).to_owned(), from.get(key)?.clone())));
        written.collect()
    };
    let listed = short["versions"].as_array().unwrap();
    let name = |version: &Value| version["name"].as_str().unwrap().to_owned();
    let artifact = |version: &Value| Some((name(version), version.get("artifact")?.clone()));
    let mut limits = part(&short["limits"], &["rate", "breaker", "priority"]);
    limits.insert("timeout".to_owned(), short["timeout_ms"].clone());
    let mut spec = part(short, &["columns", "labels", "capture", "feedback"]);
    if short.get("baseline").is_some() {
        spec.insert("drift".to_owned(), json!({"baseline": "sha256:11"}));
    }
    let versions: Map<_, _> = listed
        .iter()
        .map(|version| (name(version), part(version, &["digest", "constant", "run", "compatible"]).into()))
        .collect();
    spec.insert("versions".to_owned(), versions.into());
    spec.insert(
        "traffic".to_owned(),
        part(short, &["champion", "fallback", "sticky", "rules", "shadow"]).into(),
    );
    spec.insert("limits".to_owned(), limits.into());
    let mut traffic = part(short, &["champion", "table", "shadows_off", "capture_off"]);
    traffic.insert("last_good".to_owned(), short["champion"].clone());
    let mut load = part(short, &["urgent", "fresh", "baseline"]);
    load.insert("versions".to_owned(), listed.iter().map(name).collect());
    load.insert("artifacts".to_owned(), listed.iter().filter_map(artifact).collect::<Map<_, _>>().into());
    json!({
        "name": short["name"], "revision": short["revision"], "spec": spec, "traffic": traffic, "load": load,
    })
}

/// Serves a model that was adopted under this digest.
pub fn serve_adopted(gateway: &Gateway, name: &str, digest: &str) {
    let adopted = json!({
        "name": name, "revision": 1, "champion": "v1", "timeout_ms": 60000,
        "versions": [{"name": "v1", "digest": digest, "artifact": "adopted"}],
    });
    gateway.apply(spec(&adopted)).unwrap();
    let applied = gateway.events();
    assert_eq!(applied.last().unwrap()["event"], "applied", "{applied:?}");
}

pub fn request(name: &str, value: f32) -> String {
    let body =
        json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [value]}]}).to_string();
    format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Sends a request to an endpoint over a connection of its own.
pub fn send(address: SocketAddr, name: &str) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(request(name, 2.0).as_bytes()).unwrap();
    stream
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads one response: status and JSON body.
pub fn answer(stream: &mut TcpStream) -> (u16, Value) {
    let (status, _, body) = whole_answer(stream);
    (status, body)
}

/// Reads one response: status, head and JSON body.
pub fn whole_answer(stream: &mut TcpStream) -> (u16, String, Value) {
    let (status, head, body) = read_answer(stream);
    (status, head, serde_json::from_slice(&body).unwrap())
}

/// Reads one response of any kind: status and body.
pub fn status_and_body(stream: &mut TcpStream) -> (u16, Vec<u8>) {
    let (status, _, body) = read_answer(stream);
    (status, body)
}

fn read_answer(stream: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut head = Vec::new();
    let mut byte = [0u8];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("an answer comes");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse::<usize>().unwrap());
    let mut body = vec![0u8; length];
    stream.read_exact(&mut body).unwrap();
    (status, head, body)
}

pub fn ask(stream: &mut TcpStream, name: &str, value: f32) -> f64 {
    stream.write_all(request(name, value).as_bytes()).unwrap();
    let (status, body) = answer(stream);
    assert_eq!(status, 200, "{body}");
    body["outputs"][0]["data"][0].as_f64().unwrap()
}

/// Asks with a short deadline until a run has begun within it; the number of requests. On a busy machine, the deadline of a request may pass
/// before its run begins, and such a request is answered without a run.
pub fn ask_until_begun(entered: &Receiver<()>, mut ask: impl FnMut()) -> u64 {
    let mut asked = 0;
    at_last("a run that begins before its deadline", || {
        ask();
        asked += 1;
        entered.try_recv().is_ok()
    });
    asked
}

/// As [`ask`], but `None` if the gateway has closed the connection.
pub fn ask_if_open(stream: &mut TcpStream, name: &str, value: f32) -> Option<f64> {
    stream.write_all(request(name, value).as_bytes()).ok()?;
    let is_open = stream.peek(&mut [0]).is_ok_and(|length| length > 0);
    is_open.then(|| {
        let (status, body) = answer(stream);
        assert_eq!(status, 200, "{body}");
        body["outputs"][0]["data"][0].as_f64().unwrap()
    })
}

pub fn eventually(what: &str, holds: impl FnMut() -> bool) {
    within(PATIENCE, what, holds);
}

/// As [`eventually`], beside work that takes the processor.
pub fn at_last(what: &str, holds: impl FnMut() -> bool) {
    within(LONG, what, holds);
}

/// An artifact whose reader waits for a writer: see [`other_end`].
pub fn pipe(folder: &tempfile::TempDir) -> PathBuf {
    let path = folder.path().join("model.onnx");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    path
}

/// The write end of a pipe that a loader thread has begun to read. It never waits in the kernel, so a loader that does not come fails the
/// test and does not hang it.
pub fn other_end(pipe: &Path) -> File {
    let mut end = None;
    at_last("the loader", || {
        end = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(pipe).ok();
        end.is_some()
    });
    end.unwrap()
}

fn within(limit: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < limit, "{what} never came");
        // What is asked for takes processor time from what it waits for, so that what takes long is asked for less often.
        std::thread::sleep((start.elapsed() / 20).clamp(Duration::from_millis(1), Duration::from_millis(20)));
    }
}

pub fn metric(gateway: &Gateway, name: &str, labels: &Value) -> u64 {
    let families = gateway.metrics();
    let family = families.as_array().unwrap().iter().find(|family| family["name"] == name).unwrap().clone();
    family["samples"]
        .as_array()
        .unwrap()
        .iter()
        .find(|sample| sample[0] == *labels)
        .map_or(0, |sample| sample[1].as_u64().unwrap())
}
