//! Asks the same over and over on a number of connections, and never sleeps.
//!
//! A client that waits in the kernel has to be woken, and on the loopback interface that is done in the server's time: several
//! microseconds for each answer that finds its client asleep, which is none of a server that is faster than the client and many of
//! one that is slower. Here no server wakes anybody, so that what a request costs is the server's own.
//!
//! `awake-client ADDRESS PATH BODY_FILE CONNECTIONS SECONDS [HEADER: VALUE]...`; prints one line of JSON, as `post.lua` does.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use bare::{NOTHING, Ready, Sockets};

/// Longer than any head.
const ROOM: usize = 1 << 14;

/// A connection with one request on its way.
struct Asking {
    stream: TcpStream,
    since: Instant,
    answer: Vec<u8>,
}

impl Asking {
    fn ask(&mut self, request: &[u8]) {
        self.answer.clear();
        self.since = Instant::now();
        self.stream.write_all(request).expect("a server that reads");
    }

    /// Reads what there is; whether the answer is whole.
    fn read(&mut self, room: &mut [u8]) -> bool {
        let read = self.stream.read(room).expect("a server that writes");
        assert!(read > 0, "the server closed a connection");
        self.answer.extend_from_slice(&room[..read]);
        whole(&self.answer).is_some_and(|whole| self.answer.len() >= whole)
    }
}

/// The length of an answer whose head is there.
fn whole(answer: &[u8]) -> Option<usize> {
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..head]).expect("a head in ASCII");
    let length = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    Some(head.len() + 4 + length.expect("an answer with a length").expect("a number"))
}

/// A latency that so many of 1 000 stay below, in microseconds.
fn quantile(sorted: &[f32], thousandths: usize) -> f32 {
    sorted[(sorted.len() * thousandths / 1000).min(sorted.len() - 1)]
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, body, connections, seconds, headers @ ..] = &arguments[..] else {
        panic!("awake-client ADDRESS PATH BODY_FILE CONNECTIONS SECONDS [HEADER: VALUE]...");
    };
    let body = std::fs::read(body).expect("the body");
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n", body.len())
            .into_bytes();
    request.extend_from_slice(&body);
    let lasts = Duration::from_secs(seconds.parse().expect("a number of seconds"));

    let (ready, mut asking) = (Ready::new(), Sockets::default());
    let begun = Instant::now();
    for _ in 0..connections.parse().expect("a number of connections") {
        let stream = TcpStream::connect(address).expect("a server");
        stream.set_nodelay(true).expect("a socket");
        let socket = stream.as_raw_fd();
        ready.watch(socket);
        let mut one = Asking { stream, since: begun, answer: Vec::with_capacity(ROOM) };
        one.ask(&request);
        asking.add(socket, one);
    }
    let (mut latencies, mut failed) = (Vec::with_capacity(1 << 22), 0_u64);
    let (mut events, mut room) = ([NOTHING; 256], [0; ROOM]);
    while begun.elapsed() < lasts {
        for event in ready.now(&mut events) {
            let one: &mut Asking = asking.place(event).as_mut().expect("a connection that was made");
            if !one.read(&mut room) {
                continue;
            }
            latencies.push(one.since.elapsed().as_secs_f32() * 1e6);
            failed += u64::from(!one.answer.starts_with(b"HTTP/1.1 200 "));
            one.ask(&request);
        }
    }
    let took = begun.elapsed().as_micros();
    assert!(!latencies.is_empty(), "not one answer in {lasts:?}");
    latencies.sort_unstable_by(f32::total_cmp);
    println!(
        r#"{{"requests": {}, "microseconds": {took}, "p50_us": {:.1}, "p99_us": {:.1}, "failed": {failed}}}"#,
        latencies.len(),
        quantile(&latencies, 500),
        quantile(&latencies, 990),
    );
}
