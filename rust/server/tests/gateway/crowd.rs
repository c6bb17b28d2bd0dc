//! More clients than connections: a new connection is always accepted while another one waits for its client. The choice of that one is in
//! `transport/crowd.rs`.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use crate::common::{
    PATIENCE, answer, ask, ask_if_open, at_last, connect, eventually, free, gated, gateway_with, metric,
    request, serve,
};
use headgate_server::gateway::Gateway;
use serde_json::json;

const MOST: usize = 4;

fn crowded(threads: usize) -> (Arc<Gateway>, SocketAddr) {
    let (gateway, address) = gateway_with(&json!({"max_connections": MOST, "io_threads": threads}));
    serve(&gateway, "tiny", free(), true);
    (gateway, address)
}

fn refused(gateway: &Gateway) -> u64 {
    metric(gateway, "headgate_connections_refused_total", &json!({}))
}

/// Waits until the other side has closed, and drops what it sends before.
fn until_closed(stream: &mut TcpStream) {
    let mut sent = [0u8; 4096];
    while stream.read(&mut sent).is_ok_and(|length| length > 0) {}
}

#[test]
fn the_connection_that_is_idle_longest_makes_room() {
    at_last("room in time", || {
        let (gateway, address) = crowded(1);
        let mut idle: Vec<_> = (0..MOST).map(|_| connect(address)).collect();
        for one in &mut idle {
            assert_eq!(ask(one, "tiny", 1.0), 2.0);
        }
        assert_eq!(ask(&mut idle[0], "tiny", 2.0), 4.0);
        let mut new = connect(address);
        // On a busy machine the IO thread may take so long to make room that the new client is refused.
        let Some(answered) = ask_if_open(&mut new, "tiny", 3.0) else {
            assert_eq!(refused(&gateway), 1);
            return false;
        };
        assert_eq!(answered, 6.0);
        until_closed(&mut idle[1]);
        for place in [0, 2, 3] {
            assert_eq!(ask(&mut idle[place], "tiny", 4.0), 8.0);
        }
        assert_eq!(metric(&gateway, "headgate_connections_crowded_total", &json!({})), 1);
        assert_eq!(refused(&gateway), 0);
        true
    });
}

/// How often a new client tries. On a busy machine the IO thread may take so long to make room that a client is refused.
const TRIES: usize = 50;

#[test]
fn idle_or_slow_clients_keep_no_other_client_out() {
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let body = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 100\r\n\r\n{";
    let chunks = b"POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n5;aaa";
    let sent: [&[u8]; 8] = [
        b"",
        b"G",
        b"GET / HTTP/1.1\r\nx",
        &preface[..9],
        preface,
        body,
        chunks,
        b"GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n",
    ];
    for threads in [1, 2] {
        for bytes in sent {
            let (gateway, address) = crowded(threads);
            let mut crowd = Vec::new();
            for _ in 0..50 {
                let mut one = connect(address);
                // A connection that was closed for a new one may show it here.
                let _ = one.write_all(bytes);
                crowd.push(one);
            }
            let answered = (0..TRIES).find_map(|_| ask_if_open(&mut connect(address), "tiny", 1.0));
            assert_eq!(answered, Some(2.0), "behind {:?}", String::from_utf8_lossy(bytes));
            eventually("the rest", || gateway.status()["connections"].as_u64() <= Some(MOST as u64));
        }
    }
}

#[test]
fn a_request_that_is_worked_on_makes_no_room() {
    let (gateway, address) = gateway_with(&json!({"max_connections": 1}));
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut waiting = connect(address);
    waiting.write_all(request("slow", 5.0).as_bytes()).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    let mut second = connect(address);
    until_closed(&mut second);
    assert_eq!(refused(&gateway), 1);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut waiting).1["outputs"][0]["data"][0], 10.0);
}

#[test]
fn connections_that_are_waited_for_too_long_are_counted_by_reason() {
    let head = "POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\n";
    for (reason, limit, value, sent) in [
        ("idle", "idle_ms", 100, String::new()),
        ("head_timeout", "head_timeout_ms", 100, head.to_owned()),
        ("body_timeout", "body_timeout_ms", 100, format!("{head}content-length: 100\r\n\r\n{{")),
        ("body_too_large", "max_body_bytes", 1000, format!("{head}content-length: 1001\r\n\r\n{{")),
    ] {
        // No other limit is near.
        let (gateway, address) = gateway_with(&json!({limit: value}));
        serve(&gateway, "tiny", free(), true);
        let count = || metric(&gateway, "headgate_connections_closed_total", &json!({"reason": reason}));
        assert_eq!(count(), 0, "{reason}");
        let mut client = connect(address);
        client.write_all(sent.as_bytes()).unwrap();
        until_closed(&mut client);
        assert_eq!(count(), 1, "{reason}");
    }
}
