//! A server of HTTP/1.1 that answers as a test says, and plans for it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses a part, and a test may panic"
)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_load::LoadRun;
use serde_json::{Value, json};

pub(crate) const MS: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000 * MS;

/// What the server does with a request.
pub(crate) enum Answer {
    Bytes(Vec<u8>),
    /// Answers, and closes without having said so.
    BytesAndClose(Vec<u8>),
    Close,
    /// Keeps the connection and never answers.
    Hang,
}

/// A request as it came.
pub(crate) struct Received {
    pub(crate) number: usize,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

type Behaviour = dyn Fn(Received) -> Answer + Send + Sync;

/// Listens until it is dropped; a thread for each connection.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(behaviour: impl Fn(Received) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (address, behaviour) = (listener.local_addr().unwrap(), Arc::new(behaviour) as Arc<Behaviour>);
        let (stop, numbers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (connections, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (told, count, kept) = (Arc::clone(&stop), Arc::clone(&connections), Arc::clone(&open));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if told.load(Ordering::Acquire) {
                    return;
                }
                count.fetch_add(1, Ordering::Relaxed);
                kept.lock().unwrap().push(stream.try_clone().unwrap());
                let (behaviour, numbers) = (Arc::clone(&behaviour), Arc::clone(&numbers));
                std::thread::spawn(move || serve(stream, &*behaviour, &numbers));
            }
        });
        Server { address, connections, stop, open, thread: Some(thread) }
    }

    /// Closes the port and every connection.
    pub(crate) fn kill(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

fn serve(mut stream: TcpStream, behaviour: &Behaviour, numbers: &AtomicUsize) {
    let mut bytes = Vec::new();
    while let Some((head, body)) = read_request(&mut stream, &mut bytes) {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let (answer, closes) = match behaviour(Received { number, head, body }) {
            Answer::Bytes(answer) => (answer, false),
            Answer::BytesAndClose(answer) => (answer, true),
            Answer::Close => return drop(stream.shutdown(std::net::Shutdown::Both)),
            Answer::Hang => continue,
        };
        if stream.write_all(&answer).is_err() || closes {
            return drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

/// The next request; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut buffer = [0; 1 << 16];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4) {
            let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
            let length = head.split("content-length: ").nth(1).unwrap().split("\r\n").next().unwrap();
            let end_of_body = end + length.parse::<usize>().unwrap();
            if bytes.len() >= end_of_body {
                let body = bytes[end..end_of_body].to_vec();
                bytes.drain(..end_of_body);
                return Some((head, body));
            }
        }
        match stream.read(&mut buffer) {
            Ok(read @ 1..) => bytes.extend_from_slice(&buffer[..read]),
            _ => return None,
        }
    }
}

/// An answer with its length.
pub(crate) fn answer(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn open(rate: f64, for_ns: u64) -> Value {
    let stage = json!({"from": rate, "to": rate, "for_ns": for_ns});
    json!({"open": {"arrivals": {"kind": "constant"}, "stages": [stage]}})
}

pub(crate) fn closed(clients: usize, requests: u64) -> Value {
    json!({"closed": {"clients": clients, "for_ns": 60 * SECOND, "requests": requests}})
}

/// A plan for a server, with `changes` in the place of its fields.
pub(crate) fn plan(address: SocketAddr, load: &Value, changes: Value) -> Value {
    let address = address.to_string();
    let mut plan = json!({
        "seed": 42, "threads": 1, "wait": "sleep", "timeout_ns": 20 * SECOND, "max_in_flight": 1000, "max_records": 100_000,
        "load": load,
        "targets": [{"address": address, "authority": address, "protocol": "http"}],
        "requests": [{
            "target": 0, "group": "all", "weight": 1.0, "path": "/v2/models/m/infer", "headers": [["x-a", "b"]], "body": 0,
        }],
    });
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    plan.as_object_mut().unwrap().extend(changes);
    plan
}

pub(crate) fn started(plan: &Value) -> LoadRun {
    let run = LoadRun::new(&plan.to_string(), vec![b"{}".to_vec()]).unwrap();
    run.start().unwrap();
    run
}

pub(crate) fn finished(run: &LoadRun) -> Value {
    assert!(run.wait(Duration::from_secs(60)), "{}", run.look("{}").unwrap()["counts"]);
    let result = run.result(r#"{"from_ns": 0}"#).unwrap();
    let counts = &result["counts"];
    let sum = ["good", "shed", "failed", "timed_out", "unsent"].map(|name| counts[name].as_u64().unwrap());
    assert_eq!(counts["due"], sum.iter().sum::<u64>(), "{counts}");
    assert_eq!(counts["in_flight"], 0);
    result
}

/// Sends a plan and returns its result, after it has checked that every request has one outcome.
pub(crate) fn sent(plan: &Value) -> Value {
    finished(&started(plan))
}
