//! Requests that run in one batch, over real sockets: their responses, requests that leave, the effect of a failure on the others.
//! Channels force the order, never time.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common;
use crate::common::{LONG, PATIENCE, answer, connect, eventually, gateway, metric, request, signature};
use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{Shape, Signature};
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use headgate_server::gateway::Gateway;
use serde_json::{Value, json};

/// A negative value fails its whole run, as in a model that refuses one row.
const BAD: f32 = -1.0;

/// The inputs of probes.
const PROBE: [f32; 1] = [0.0];

/// Doubles its input. Each run sends its rows to the test and waits until the test lets it go on.
struct Told {
    signature: Signature,
    rows: Mutex<Sender<Vec<f32>>>,
    leave: Mutex<Receiver<()>>,
}

impl Executable for Told {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let values: Vec<f32> = binding.input(0).view()?.elements::<f32>().unwrap().to_vec();
        if values != PROBE {
            self.rows.lock().unwrap().send(values.clone()).unwrap();
            self.leave.lock().unwrap().recv_timeout(LONG).expect("the test lets the run go on");
        }
        if values.contains(&BAD) {
            return Err(Error::new(Code::BackendFailed, "a row that the model does not take"));
        }
        let shape: Shape = *binding.input(0).shape();
        let output = binding.output_mut(0);
        output.reshape(&shape)?;
        let out = output.elements_mut::<f32>().unwrap();
        out.iter_mut().zip(values).for_each(|(out, value)| *out = 2.0 * value);
        Ok(())
    }
}

/// The test's side of a model.
struct Model {
    rows: Receiver<Vec<f32>>,
    leave: Sender<()>,
}

impl Model {
    /// The rows of the next run, which goes on.
    fn next(&self) -> Vec<f32> {
        let rows = self.begun();
        self.leave.send(()).unwrap();
        rows
    }

    /// The rows of the next run, which stays held.
    fn begun(&self) -> Vec<f32> {
        self.rows.recv_timeout(PATIENCE).expect("a run begins")
    }
}

/// Serves `batched`, one run at a time.
fn serve(gateway: &Gateway, run: Value) -> Model {
    let (rows_tx, rows) = channel();
    let (leave, leave_rx) = channel();
    let told = Told { signature: signature(), rows: Mutex::new(rows_tx), leave: Mutex::new(leave_rx) };
    let mut run = run;
    run["instances"] = json!(1);
    let spec = json!({
        "name": "batched", "revision": 1, "champion": "v1", "timeout_ms": 60_000,
        "versions": [{"name": "v1", "digest": "sha256:batched", "artifact": "adopted", "run": run}],
    });
    let spec = common::spec(&spec);
    let kept = gateway.engine().adopt("sha256:batched", Box::new(told), &spec.versions[0].run).unwrap();
    gateway.apply(spec).unwrap();
    let applied = gateway.events();
    assert_eq!(applied.last().unwrap()["event"], "applied", "{applied:?}");
    drop(kept);
    Model { rows, leave }
}

/// A connection on which a request with one row was sent, once `with_it` requests are in flight with it.
fn waiting(gateway: &Gateway, address: SocketAddr, value: f32, with_it: u64) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(request("batched", value).as_bytes()).unwrap();
    eventually("the request's arrival", || in_flight(gateway) == with_it);
    turn(address);
    stream
}

/// Has the only IO thread answer another request, so that its earlier work is done.
fn turn(address: SocketAddr) {
    let mut stream = connect(address);
    stream.write_all(b"GET /v2/health/live HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    assert_eq!(answer(&mut stream).0, 200);
}

fn in_flight(gateway: &Gateway) -> u64 {
    metric(gateway, "headgate_requests_in_flight", &json!({"endpoint": "batched", "version": "v1"}))
}

fn value(stream: &mut TcpStream) -> f64 {
    let (status, body) = answer(stream);
    assert_eq!(status, 200, "{body}");
    body["outputs"][0]["data"][0].as_f64().unwrap()
}

/// A gateway whose only run is held, so that requests gather behind it.
fn held(run: Value) -> (Arc<Gateway>, SocketAddr, Model, TcpStream) {
    let (gateway, address) = gateway();
    let model = serve(&gateway, run);
    let first = waiting(&gateway, address, 100.0, 1);
    assert_eq!(model.begun(), [100.0]);
    (gateway, address, model, first)
}

#[test]
fn waiting_requests_run_together_and_each_gets_its_own_rows() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 4}));
    let mut streams: Vec<_> =
        (0..6u8).map(|at| waiting(&gateway, address, f32::from(at), 2 + u64::from(at))).collect();
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [0.0, 1.0, 2.0, 3.0], "never more than max_batch");
    assert_eq!(model.next(), [4.0, 5.0]);
    for (at, stream) in streams.iter_mut().enumerate() {
        assert_eq!(value(stream), 2.0 * at as f64);
    }
    let of = |name: &str| metric(&gateway, name, &json!({"endpoint": "batched", "version": "v1"}));
    // The counters change once the responses are out.
    eventually("the books", || (of("headgate_runs_total"), of("headgate_rows_total")) == (3, 7));
    let shown = gateway.status()["endpoints"]["batched"]["versions"]["v1"].clone();
    assert_eq!(shown["placement"], "batched");
    assert_eq!((&shown["batches"]["count"], &shown["batches"]["rows"]), (&json!(3), &json!(7)));
    assert!(gateway.stop(Duration::ZERO, PATIENCE));
}

#[test]
fn requests_that_leave_or_expire_do_not_run() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 8}));
    let gone = waiting(&gateway, address, 1.0, 2);
    let mut stays = waiting(&gateway, address, 2.0, 3);
    let mut late = connect(address);
    let tensor = json!({"name": "x", "shape": [1], "datatype": "FP32", "data": [3.0]});
    let body = json!({"parameters": {"timeout": 30_000}, "inputs": [tensor]}).to_string();
    let head = format!(
        "POST /v2/models/batched/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    late.write_all((head + &body).as_bytes()).unwrap();
    assert_eq!(answer(&mut late).1["code"], "deadline_exceeded");
    drop(gone);
    eventually("the client's leave", || in_flight(&gateway) == 2);
    let mut last = waiting(&gateway, address, 4.0, 3);
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [2.0, 4.0], "the rows of those who stayed, close together");
    assert_eq!((value(&mut stays), value(&mut last)), (4.0, 8.0));
}

#[test]
fn one_bad_row_fails_alone() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 8}));
    let mut streams: Vec<_> = [(1.0, 2), (BAD, 3), (3.0, 4)]
        .map(|(value, with_it)| waiting(&gateway, address, value, with_it))
        .into();
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [1.0, BAD, 3.0]);
    // Each request runs once more by itself.
    assert_eq!([model.next(), model.next(), model.next()], [[1.0], [BAD], [3.0]]);
    assert_eq!(value(&mut streams[0]), 2.0);
    let (status, body) = answer(&mut streams[1]);
    assert_eq!((status, &body["code"]), (400, &json!("invalid_argument")));
    assert_eq!(value(&mut streams[2]), 6.0);
    // A request that is alone in its batch does not run twice.
    let mut alone = waiting(&gateway, address, BAD, 1);
    assert_eq!(model.next(), [BAD]);
    assert_eq!(answer(&mut alone).0, 400);
    let mut next = waiting(&gateway, address, 5.0, 1);
    assert_eq!(model.next(), [5.0]);
    assert_eq!(value(&mut next), 10.0);
}

#[test]
fn batches_are_filled_up_to_a_bucket() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 8, "buckets": [1, 4, 8]}));
    let mut streams: Vec<_> =
        [(1.0, 2), (2.0, 3)].map(|(value, with_it)| waiting(&gateway, address, value, with_it)).into();
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [1.0, 2.0, 1.0, 1.0], "with the first row, which the model takes for certain");
    assert_eq!((value(&mut streams[0]), value(&mut streams[1])), (2.0, 4.0));
}

#[test]
fn a_request_of_several_rows_is_one_piece_and_one_of_too_many_runs_alone() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 4}));
    let post = |values: &[f32], with_it: u64| {
        let tensor = json!({"name": "x", "shape": [values.len()], "datatype": "FP32", "data": values});
        let body = json!({"inputs": [tensor]}).to_string();
        let head = format!(
            "POST /v2/models/batched/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut stream = connect(address);
        stream.write_all((head + &body).as_bytes()).unwrap();
        eventually("the request's arrival", || in_flight(&gateway) == with_it);
        turn(address);
        stream
    };
    let (mut two, mut three) = (post(&[1.0, 2.0], 2), post(&[3.0, 4.0, 5.0], 3));
    let mut five = post(&[6.0; 5], 4);
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [1.0, 2.0]);
    assert_eq!(model.next(), [3.0, 4.0, 5.0]);
    assert_eq!(model.next(), [6.0; 5], "more than max_batch");
    assert_eq!(answer(&mut five).1["outputs"][0]["data"], json!(vec![12.0; 5]));
    assert_eq!(answer(&mut two).1["outputs"][0]["data"], json!([2.0, 4.0]));
    assert_eq!(answer(&mut three).1["outputs"][0]["data"], json!([6.0, 8.0, 10.0]));
}

#[test]
fn a_batch_without_waiting_requests_does_not_run_and_releases_its_memory() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 4}));
    for at in 0..40u8 {
        drop(waiting(&gateway, address, f32::from(at), 2));
        eventually("the client's leave", || in_flight(&gateway) == 1);
    }
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    let mut last = waiting(&gateway, address, 7.0, 1);
    assert_eq!(model.next(), [7.0]);
    assert_eq!(value(&mut last), 14.0);
    assert!(gateway.stop(Duration::ZERO, PATIENCE));
    assert!(
        gateway
            .engine()
            .find_loaded(
                "sha256:batched",
                &serde_json::from_value(json!({"max_batch": 4, "instances": 1})).unwrap()
            )
            .is_none(),
        "nothing holds the model"
    );
}

#[test]
fn requests_of_a_batch_are_answered_when_it_ends_after_connections_were_told_to_close() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 4}));
    let mut second = waiting(&gateway, address, 1.0, 2);
    let stopping = gateway.clone();
    let stop = std::thread::spawn(move || stopping.stop(Duration::ZERO, PATIENCE));
    // The clients have left, and the only IO thread knows it.
    eventually("the end of the listener", || TcpStream::connect(address).is_err());
    eventually("the end of idle connections", || gateway.status()["connections"] == 2);
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    assert_eq!(model.next(), [1.0]);
    assert_eq!(value(&mut second), 2.0);
    assert!(stop.join().unwrap());
}

#[test]
fn requests_without_rows_count_as_one_each_and_are_part_of_no_batch() {
    let (gateway, address, model, mut first) = held(json!({"max_batch": 4}));
    let body = json!({"inputs": [{"name": "x", "shape": [0], "datatype": "FP32", "data": []}]}).to_string();
    let request = format!(
        "POST /v2/models/batched/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut empty: Vec<_> = (0..3)
        .map(|_| {
            let mut stream = connect(address);
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    eventually("their arrival", || in_flight(&gateway) == 4);
    model.leave.send(()).unwrap();
    assert_eq!(value(&mut first), 200.0);
    for _ in &empty {
        assert_eq!(model.next(), [0.0; 0], "a run of its own");
    }
    for stream in &mut empty {
        let (status, body) = answer(stream);
        assert_eq!((status, &body["outputs"][0]["shape"]), (200, &json!([0])));
    }
}
