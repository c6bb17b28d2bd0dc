//! Connections of HTTP/1.1 whose requests are plain, until one is not.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use common::{answer, ask, connect, free, gated, gateway, gateway_with, request, serve, whole_answer};
use serde_json::{Value, json};

/// The first number of an answer.
fn number(answer: &Value) -> f64 {
    answer["outputs"][0]["data"][0].as_f64().unwrap_or_else(|| panic!("{answer}"))
}

/// The same request in chunks.
fn chunked(name: &str, value: f32) -> String {
    let plain = request(name, value);
    let (_, body) = plain.split_once("\r\n\r\n").unwrap();
    let (first, second) = body.split_at(7);
    format!(
        "POST /v2/models/{name}/infer HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n\
         7\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        second.len()
    )
}

fn ends(stream: &mut TcpStream) -> bool {
    stream.read(&mut [0]).unwrap() == 0
}

#[test]
fn requests_in_one_write_are_answered_in_order_whoever_reads_them() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    for odd in 0..6u8 {
        let mut stream = connect(address);
        let requests: Vec<String> = (0..6)
            .map(|at| match at {
                4 => request("slow", 4.0),
                at if at == odd => chunked("tiny", f32::from(at)),
                at => request("tiny", f32::from(at)),
            })
            .collect();
        stream.write_all(requests.concat().as_bytes()).unwrap();
        held.leave.send(()).unwrap();
        for at in 0..6u8 {
            assert_eq!(number(&answer(&mut stream).1), 2.0 * f64::from(at), "{odd}");
        }
    }
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    stream.set_nodelay(true).unwrap();
    for value in [1.0, 2.0] {
        for byte in request("tiny", value).as_bytes() {
            stream.write_all(&[*byte]).unwrap();
        }
        assert_eq!(number(&answer(&mut stream).1), 2.0 * f64::from(value));
    }
}

#[test]
fn a_body_of_many_kilobytes_is_followed_by_others() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    // Around the limit of a plain body, and around what one read takes.
    for length in [4_000usize, 8_000, 9_000, 60_000, 65_500, 65_600, 200_000, 100] {
        let data = vec![1u8; (length - 100).div_ceil(2).max(1)];
        let body =
            json!({"inputs": [{"name": "x", "shape": [data.len()], "datatype": "FP32", "data": data}]})
                .to_string();
        let head = format!(
            "POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let (status, answer) = answer(&mut stream);
        assert_eq!(status, 200, "{length}: {answer}");
        assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), data.len());
    }
}

#[test]
fn a_body_that_does_not_come_is_refused_and_the_connection_closed() {
    let (gateway, address) = gateway_with(&json!({"body_timeout_ms": 50}));
    serve(&gateway, "tiny", free(), true);
    for (name, status) in [("tiny", 408), ("unknown", 404)] {
        let mut stream = connect(address);
        assert_eq!(ask(&mut stream, "tiny", 1.0), 2.0);
        let whole = request(name, 1.0);
        stream.write_all(&whole.as_bytes()[..whole.len() - 1]).unwrap();
        let (refused, head, body) = whole_answer(&mut stream);
        assert_eq!(refused, status, "{body}");
        assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
        // What comes too late is read, and is nobody's request.
        stream.write_all(request("tiny", 1.0).as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert!(ends(&mut stream));
    }
}

#[test]
fn a_client_that_stops_within_a_body_is_told_so() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    let whole = request("tiny", 1.0);
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let (status, _, body) = whole_answer(&mut stream);
    assert_eq!((status, &body["code"]), (400, &json!("cancelled")), "{body}");
    assert!(ends(&mut stream));
}

#[test]
fn an_answer_to_head_has_no_body() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    stream.write_all(b"HEAD /v2 HTTP/1.1\r\nhost: t\r\n\r\nGET /v2 HTTP/1.1\r\nhost: t\r\n\r\n").unwrap();
    let mut both = Vec::new();
    while !both.ends_with(b"}") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        both.push(byte[0]);
    }
    let both = String::from_utf8(both).unwrap();
    let (head, second) = both.split_once("\r\n\r\n").unwrap();
    let (second_head, body) = second.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("content-length: {}", body.len())), "{both}");
    assert!(second_head.starts_with("HTTP/1.1 200 OK\r\n"), "{both}");
}

#[test]
fn the_last_request_is_answered_and_ends_the_connection() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    let last = request("tiny", 4.0).replacen("host: t\r\n", "host: t\r\nconnection: Close\r\n", 1);
    stream.write_all(format!("{}{last}{}", request("tiny", 3.0), request("tiny", 5.0)).as_bytes()).unwrap();
    assert_eq!(number(&answer(&mut stream).1), 6.0);
    let (status, head, body) = whole_answer(&mut stream);
    assert_eq!((status, number(&body)), (200, 8.0));
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    assert!(ends(&mut stream));
}
