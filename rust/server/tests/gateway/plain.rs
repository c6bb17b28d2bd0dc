//! Connections of HTTP/1.1 with plain requests, up to the first request that is not.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use crate::common::{
    PATIENCE, answer, ask, ask_if_open, at_last, connect, eventually, free, gated, gateway, gateway_with,
    metric, request, serve, whole_answer,
};
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
fn requests_in_one_write_are_answered_in_order_by_both_readers() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    for odd in 0..6u8 {
        let mut stream = connect(address);
        let requests = (0..6).map(|at| {
            let name = if at == 4 { "slow" } else { "tiny" };
            if at == odd { chunked(name, f32::from(at)) } else { request(name, f32::from(at)) }
        });
        stream.write_all(requests.collect::<String>().as_bytes()).unwrap();
        held.leave.send(()).unwrap();
        for at in 0..6u8 {
            assert_eq!(number(&answer(&mut stream).1), 2.0 * f64::from(at), "{odd}");
        }
    }
}

#[test]
fn a_head_without_one_host_is_refused_in_words_behind_others_that_are_plain() {
    let (_gateway, address) = gateway();
    let get = |host: &str| format!("GET /v2 HTTP/1.1\r\n{host}\r\n");
    let good = get("host: t\r\n");
    for (host, words) in [
        ("", "needs a Host"),
        ("host: t\r\nhost: t\r\n", "given twice"),
        ("host: t/v2\r\n", "not a host"),
        ("host: u@t\r\n", "not a host"),
    ] {
        let mut stream = connect(address);
        stream.write_all([&*good, &good, &get(host)].concat().as_bytes()).unwrap();
        (0..2).for_each(|_| assert_eq!(answer(&mut stream).0, 200));
        let (status, refusal) = answer(&mut stream);
        assert_eq!(status, 400, "{refusal}");
        assert!(refusal["error"].as_str().unwrap().contains(words), "{refusal}");
        assert!(ends(&mut stream));
    }
}

#[test]
fn requests_before_a_client_stops_sending_are_answered_all_but_the_last() {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, false);
    let mut stream = connect(address);
    stream.write_all([request("slow", 1.0), request("slow", 2.0)].concat().as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    held.entered.recv_timeout(PATIENCE).unwrap();
    held.leave.send(()).unwrap();
    assert_eq!(number(&answer(&mut stream).1), 2.0);
    // A client that has closed its sending side counts as one that has left, unless more bytes of it are there.
    let labels = json!({"endpoint": "slow", "version": "v1", "code": "cancelled"});
    eventually("the cancellation", || metric(&gateway, "headgate_requests_total", &labels) == 1);
    held.leave.send(()).unwrap();
    assert!(ends(&mut stream));
}

/// More requests in one write than one turn of their connection answers.
const MANY: usize = 200;

#[test]
fn silence_after_many_requests_in_one_write_has_limits_too() {
    let (_gateway, address) =
        gateway_with(&json!({"idle_ms": 1500, "head_timeout_ms": 1000, "body_timeout_ms": 1000}));
    let get = "GET /v2 HTTP/1.1\r\nhost: t\r\n\r\n";
    let partial = "POST /v2/models/m/infer HTTP/1.1\r\nhost: t\r\ncontent-length: 9\r\n\r\nx";
    for behind in ["", "GET /v2 HTT", partial] {
        let mut stream = connect(address);
        stream.write_all(format!("{}{behind}", get.repeat(MANY)).as_bytes()).unwrap();
        (0..MANY).for_each(|_| assert_eq!(answer(&mut stream).0, 200));
        if behind == partial {
            assert_eq!(answer(&mut stream).0, 404);
        }
        assert!(ends(&mut stream), "{behind:?}");
    }
}

#[test]
fn a_gateway_that_stops_does_not_wait_long_for_a_request_that_has_not_come() {
    for behind in ["\r\n", "GET /v2 HTT"] {
        let (gateway, address) = gateway_with(&json!({"drain_idle_ms": 50, "head_timeout_ms": 60_000}));
        serve(&gateway, "tiny", free(), true);
        let mut stream = connect(address);
        stream.write_all(format!("{}{behind}", request("tiny", 1.0)).as_bytes()).unwrap();
        assert_eq!(number(&answer(&mut stream).1), 2.0);
        assert!(gateway.stop(Duration::ZERO, PATIENCE), "{behind:?}");
        assert!(ends(&mut stream));
    }
}

#[test]
fn a_connection_is_idle_behind_its_first_request_and_behind_one_that_fills_its_buffer() {
    // A head that has begun would have longer than the test waits. An idle connection does not.
    let (gateway, address) = gateway_with(&json!({"idle_ms": 3000, "head_timeout_ms": 60_000}));
    serve(&gateway, "tiny", free(), true);
    let small = request("tiny", 1.0);
    let (_, body) = small.split_once("\r\n\r\n").unwrap();
    let body = format!("{}{body}", " ".repeat(40_000));
    let head = format!("POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}", body.len());
    let large = format!("{head}\r\n\r\n{body}");
    let streams = [&[&small][..], &[&small, &small, &large]].map(|requests| {
        let mut stream = connect(address);
        for request in requests {
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(number(&answer(&mut stream).1), 2.0);
        }
        (stream, requests.len())
    });
    for (mut stream, requests) in streams {
        assert!(ends(&mut stream), "{requests} requests");
    }
}

#[test]
fn empty_lines_between_requests_are_nothing() {
    // A head that has begun would have longer than the test waits. An idle connection does not.
    let (gateway, address) = gateway_with(&json!({"idle_ms": 3000, "head_timeout_ms": 60_000}));
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    for value in [1.0, 2.0] {
        stream.write_all(format!("{}\r\n", request("tiny", value)).as_bytes()).unwrap();
        assert_eq!(number(&answer(&mut stream).1), 2.0 * f64::from(value));
    }
    assert!(ends(&mut stream));
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
fn a_long_body_is_followed_by_others() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    // Sizes around one read, and around the limit of a plain body, beyond which the connection is handed to hyper.
    for length in [4_000, 8_192, 100, 9_000, 60_000, 100, 65_535, 200, 65_536, 200_000, 300] {
        let data = vec![1u8; (length - 80) / 2];
        let body =
            json!({"inputs": [{"name": "x", "shape": [data.len()], "datatype": "FP32", "data": data}]})
                .to_string();
        let body = format!("{body}{}", " ".repeat(length - body.len()));
        assert_eq!(body.len(), length);
        let head =
            format!("POST /v2/models/tiny/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        let (status, answer) = answer(&mut stream);
        assert_eq!(status, 200, "{length}: {answer}");
        assert_eq!(answer["outputs"][0]["data"].as_array().unwrap().len(), data.len());
    }
}

#[test]
fn a_body_that_does_not_come_is_refused_at_once_or_in_time() {
    // The time-out of the body is longer than the test waits. A request that is refused in any case does not wait for its body.
    let (gateway, address) = gateway_with(&json!({"body_timeout_ms": 60_000}));
    serve(&gateway, "tiny", free(), true);
    let unknown = request("unknown", 1.0);
    let (begun, rest) = unknown.as_bytes().split_at(unknown.len() - 1);
    // The gateway closes the connection of a client that is busy for so long that the rest does not come in time.
    at_last("the rest in time", || {
        let mut stream = connect(address);
        assert_eq!(ask(&mut stream, "tiny", 1.0), 2.0);
        stream.write_all(begun).unwrap();
        assert_eq!(answer(&mut stream).0, 404);
        // The rest of the bytes is no request.
        let answered = stream.write_all(rest).ok().and_then(|()| ask_if_open(&mut stream, "tiny", 2.0));
        assert!(answered.is_none_or(|answered| answered == 4.0), "{answered:?}");
        answered.is_some()
    });

    let (gateway, address) = gateway_with(&json!({"body_timeout_ms": 50}));
    serve(&gateway, "tiny", free(), true);
    let mut stream = connect(address);
    assert_eq!(ask(&mut stream, "tiny", 1.0), 2.0);
    let whole = request("tiny", 1.0);
    stream.write_all(&whole.as_bytes()[..whole.len() - 1]).unwrap();
    let (status, head, body) = whole_answer(&mut stream);
    assert_eq!(status, 408, "{body}");
    assert!(head.contains("\r\nconnection: close\r\n"), "{head}");
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(ends(&mut stream));
}

#[test]
fn a_client_that_stops_within_a_body_gets_an_error() {
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

#[test]
fn a_connection_that_is_handed_to_hyper_is_counted_by_the_reason() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    let count =
        |reason: &str| metric(&gateway, "headgate_connections_handed_over_total", &json!({"reason": reason}));
    let whole = request("tiny", 1.0);
    let (head, body) = whole.split_at(whole.find("\r\n\r\n").unwrap() + 4);
    let long = format!("GET /v2 HTTP/1.1\r\nhost: t\r\nx-long: {}\r\n\r\n", "x".repeat(9_000));
    let mut expected = [("head", 0), ("request", 0), ("body", 0)];
    for (at, first, rest) in [(0, &long[..], ""), (1, &chunked("tiny", 1.0), ""), (2, head, body)] {
        let mut stream = connect(address);
        stream.write_all(whole.as_bytes()).unwrap();
        assert_eq!(answer(&mut stream).0, 200);
        stream.write_all(first.as_bytes()).unwrap();
        expected[at].1 += 1;
        eventually("the hand-over", || count(expected[at].0) == expected[at].1);
        stream.write_all(rest.as_bytes()).unwrap();
        assert_eq!(answer(&mut stream).0, 200);
        assert_eq!(expected.map(|(reason, _)| (reason, count(reason))), expected);
    }
}
