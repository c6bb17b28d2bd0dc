//! The order in which a request is refused: one list of phases, over HTTP/1.1, HTTP/2, a gRPC call and a gRPC stream.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what went wrong by panicking")]

use std::io::{Read, Write};

use bytes::Bytes;
use h2::client::SendRequest;
use headgate_core::spec::{EndpointSpec, RunSpec};
use headgate_core::tensor::{DataType, Signature, TensorSpec};
use headgate_engine::runtime::Binding;
use headgate_engine::{BufferLease, Executable, RunResult};
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

use super::*;
use crate::copied_run::{Answer, CopiedRun};
use crate::shadow::drops::DropReason;
use crate::shadow::live_shadow::LiveShadow;

/// How long an answer may take before the test is called stuck.
const STUCK: Duration = Duration::from_secs(20);

/// Answers with its input.
struct Echo(Signature);

impl Executable for Echo {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let shape = *binding.input(0).shape();
        binding.output_mut(0).reshape(&shape)
    }
}

#[test]
fn a_shadow_that_is_applied_after_the_stop_takes_no_copies() {
    let (gateway, _) = gateway();
    let spec = |revision: u64| {
        let version = json!({"digest": "sha256:echo"});
        let spec = json!({
            "name": "shadowed",
            "revision": revision,
            "spec": {
                "versions": {"v1": version, "v2": version},
                "traffic": {"champion": "v1", "shadow": [{"to": "v2", "share": 10_000}]},
                "limits": {"timeout": 60_000},
            },
            "traffic": {"champion": "v1", "last_good": "v1"},
            "load": {"versions": ["v1", "v2"], "artifacts": {"v1": "adopted", "v2": "adopted"}},
        });
        EndpointSpec::from_json(spec.to_string().as_bytes()).unwrap()
    };
    let live = || {
        let endpoint = gateway.shared.snapshot.load().endpoint("shadowed").unwrap().clone();
        let payload = endpoint.versions.iter().find_map(|version| version.payload.shadow.clone());
        payload.unwrap()
    };
    let offer = |shadow: &LiveShadow| {
        let run = RunResult::Single(BufferLease::acquire(shadow.plan.model.hold_unmarked().unwrap(), 0));
        let (answer, at) = (Answer::Outputs, Instant::now());
        shadow.offer(&Arc::new(CopiedRun { run, answer, bytes: 1, at, request_id: None }), Box::default());
        (shadow.state.queue.len(), shadow.state.drops.get(DropReason::Shutdown))
    };
    gateway.apply(spec(1)).unwrap();
    gateway.shared.shadows.stop();
    assert_eq!(offer(&live()), (0, 1));
    gateway.apply(spec(2)).unwrap();
    assert_eq!(offer(&live()), (0, 2));
}

/// A gateway with the endpoint `model`, and `limited`, which takes one request and no other for hours.
fn gateway() -> (Gateway, SocketAddr) {
    let library = std::env::var("HEADGATE_ORT_LIBRARY").expect("`make test` names the ONNX Runtime library");
    let config = json!({"http": "127.0.0.1:0", "io_threads": 1, "pool_threads": 1, "library": library});
    let gateway = Gateway::new(Config::from_json(config.to_string().as_bytes()).unwrap()).unwrap();
    let tensor = |name: &str| TensorSpec {
        name: name.to_owned(),
        datatype: DataType::Fp32,
        shape: vec![-1],
        symbols: vec!["n".to_owned()],
        any_rank: false,
        labels: Vec::new(),
    };
    let signature =
        Signature { inputs: vec![tensor("x")], outputs: vec![tensor("y")], ..Signature::default() };
    let model =
        gateway.engine().adopt("sha256:echo", Box::new(Echo(signature)), &RunSpec::default()).unwrap();
    let rate = json!({"per_second": 0.0001, "burst": 1});
    for (name, limits) in
        [("model", json!({"timeout": 60_000})), ("limited", json!({"timeout": 60_000, "rate": rate}))]
    {
        let spec = json!({
            "name": name,
            "revision": 1,
            "spec": {"versions": {"v1": {"digest": "sha256:echo"}}, "traffic": {"champion": "v1"}, "limits": limits},
            "traffic": {"champion": "v1", "last_good": "v1"},
            "load": {"versions": ["v1"], "artifacts": {"v1": "adopted"}},
        });
        gateway.apply(EndpointSpec::from_json(spec.to_string().as_bytes()).unwrap()).unwrap();
    }
    drop(model);
    let address = gateway.start().unwrap().http;
    (gateway, address)
}

/// The ways in which a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Http1,
    Http2,
    Grpc,
    GrpcStream,
}

const WAYS: [Way; 4] = [Way::Http1, Way::Http2, Way::Grpc, Way::GrpcStream];

/// What is wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestFault {
    /// Its endpoint takes no more requests.
    Rate,
    /// Its body has an encoding that is not supported.
    Body,
    /// Its body is not well-formed.
    Envelope,
    /// It names a version that does not exist.
    Version,
    /// Its input is of another type than the model's.
    Input,
}

impl RequestFault {
    /// Whether the code and the message of a refusal are for this fault.
    fn explains(self, refusal: &(String, String)) -> bool {
        let (code, message) = refusal;
        match self {
            RequestFault::Rate => code == "rate_limited",
            RequestFault::Body => code == "unsupported_media_type" || code == "unsupported",
            RequestFault::Envelope => {
                code == "invalid_argument" && !message.starts_with("input \"x\" is FP32")
            }
            RequestFault::Version => code == "version_not_found",
            RequestFault::Input => code == "invalid_argument" && message.starts_with("input \"x\" is FP32"),
        }
    }
}

/// A client with one connection, or two.
struct Client {
    runtime: tokio::runtime::Runtime,
    http1: std::net::TcpStream,
    http2: SendRequest<Bytes>,
}

impl Client {
    fn new(address: SocketAddr) -> Client {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let http2 = runtime.block_on(async {
            let (http2, connection) =
                h2::client::handshake(TcpStream::connect(address).await.unwrap()).await.unwrap();
            tokio::spawn(connection);
            http2
        });
        let http1 = std::net::TcpStream::connect(address).unwrap();
        http1.set_read_timeout(Some(STUCK)).unwrap();
        Client { runtime, http1, http2 }
    }

    /// The code and the message of the refusal of a request with these faults; `ok` for none.
    fn send(&mut self, way: Way, faults: &[RequestFault]) -> (String, String) {
        let has = |fault| faults.contains(&fault);
        let endpoint = if has(RequestFault::Rate) { "limited" } else { "model" };
        let version = has(RequestFault::Version).then_some("v9");
        let datatype = if has(RequestFault::Input) { "INT8" } else { "FP32" };
        if matches!(way, Way::Grpc | Way::GrpcStream) {
            let message = message(endpoint, version, datatype, has(RequestFault::Envelope));
            return self.grpc(way, has(RequestFault::Body), &message);
        }
        let path = format!(
            "/v2/models/{endpoint}{}/infer",
            version.map(|v| format!("/versions/{v}")).unwrap_or_default()
        );
        let body = match has(RequestFault::Envelope) {
            true => "{".to_owned(),
            false => json!({"inputs": [{"name": "x", "shape": [1], "datatype": datatype, "data": [1]}]})
                .to_string(),
        };
        let coding = if has(RequestFault::Body) { "br" } else { "identity" };
        let (status, body) = match way {
            Way::Http1 => self.http1(&path, coding, &body),
            _ => {
                let request = Request::post(format!("http://h{path}")).header("content-encoding", coding);
                let (status, body, _) = self.http2(request.body(()).unwrap(), body.into());
                (status, body)
            }
        };
        let body: Value = serde_json::from_slice(&body).unwrap();
        if status == 200 {
            return ("ok".to_owned(), String::new());
        }
        (body["code"].as_str().unwrap().to_owned(), body["error"].as_str().unwrap().to_owned())
    }

    fn http1(&mut self, path: &str, coding: &str, body: &str) -> (u16, Vec<u8>) {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: h\r\ncontent-encoding: {coding}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.http1.write_all(request.as_bytes()).unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            self.http1.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        let mut body = vec![0; length.parse().unwrap()];
        self.http1.read_exact(&mut body).unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body)
    }

    fn grpc(&mut self, way: Way, is_compressed: bool, message: &[u8]) -> (String, String) {
        let call = if way == Way::Grpc { "ModelInfer" } else { "ModelStreamInfer" };
        let mut body = vec![u8::from(is_compressed)];
        body.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
        body.extend_from_slice(message);
        let request = Request::post(format!("http://h/inference.GRPCInferenceService/{call}"))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", "br")
            .header("triton_grpc_error", "true");
        let (_, _, trailers) = self.http2(request.body(()).unwrap(), body.into());
        let text =
            |name: &str| trailers.get(name).map_or("", |value| value.to_str().unwrap()).replace("%22", "\"");
        match trailers["grpc-status"].to_str().unwrap() {
            "0" => ("ok".to_owned(), String::new()),
            _ => (text("x-headgate-code"), text("grpc-message")),
        }
    }

    fn http2(&self, request: Request<()>, body: Bytes) -> (u16, Vec<u8>, HeaderMap) {
        let exchange = async {
            let mut ready = self.http2.clone().ready().await.unwrap();
            let (response, mut send) = ready.send_request(request, false).unwrap();
            send.send_data(body, true).unwrap();
            let (head, mut body) = response.await.unwrap().into_parts();
            let mut bytes = Vec::new();
            while let Some(data) = body.data().await {
                bytes.extend_from_slice(&data.unwrap());
            }
            let trailers = body.trailers().await.unwrap().unwrap_or(head.headers);
            (head.status.as_u16(), bytes, trailers)
        };
        self.runtime.block_on(async { tokio::time::timeout(STUCK, exchange).await.unwrap() })
    }
}

/// A `ModelInferRequest` with one element.
fn message(endpoint: &str, version: Option<&str>, datatype: &str, is_broken: bool) -> Vec<u8> {
    let field =
        |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let input = [field(1, b"x"), field(2, datatype.as_bytes()), field(3, &[1])].concat();
    let element: &[u8] = if datatype == "FP32" { &[0; 4] } else { &[0] };
    [
        field(5, if is_broken { b"\xff" } else { &input }),
        field(1, endpoint.as_bytes()),
        version.map(|version| field(2, version.as_bytes())).unwrap_or_default(),
        field(7, element),
    ]
    .concat()
}

#[test]
fn every_wire_refuses_in_the_same_order() {
    let (_gateway, address) = gateway();
    let mut client = Client::new(address);
    // Takes the only token.
    assert_eq!(client.send(Way::Http1, &[RequestFault::Rate]).0, "ok");
    use RequestFault::{Body, Envelope, Input, Rate, Version};
    for way in WAYS {
        // A path names the endpoint before there is a body; a message names it itself.
        let order = match way {
            Way::Http1 | Way::Http2 => [Rate, Body, Envelope, Version, Input],
            Way::Grpc | Way::GrpcStream => [Body, Rate, Envelope, Version, Input],
        };
        for first in 0..order.len() {
            let refusal = client.send(way, &order[first..]);
            assert!(order[first].explains(&refusal), "{way:?}: {refusal:?} instead of {:?}", order[first]);
        }
        assert_eq!(client.send(way, &[]).0, "ok", "{way:?}");
    }
}

#[test]
fn a_gateway_that_is_about_to_cut_requests_off_refuses_new_ones_first_and_spends_no_token() {
    let (gateway, address) = gateway();
    let mut client = Client::new(address);
    gateway.shared.cut_off_at.set(Instant::now()).unwrap();
    let faults = [RequestFault::Rate, RequestFault::Body, RequestFault::Envelope, RequestFault::Version];
    for way in WAYS {
        // More requests than there are tokens.
        for _ in 0..3 {
            assert_eq!(client.send(way, &[RequestFault::Rate]).0, "draining", "{way:?}");
        }
        assert_eq!(client.send(way, &faults).0, "draining", "{way:?}");
    }
    let limited = gateway.shared.limit_registry.limiters();
    assert_eq!(limited.iter().map(|(_, limiter)| limiter.refused()).sum::<u64>(), 0);
}
