//! Clients of HTTP/2 that take requests back or read nothing.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests say by their names what they show")]

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use crate::common::{
    Held, PATIENCE, answer, ask, at_last, connect, eventually, free, gated, gateway, gateway_with, http2,
    metric, send, serve,
};
use headgate_server::gateway::Gateway;
use serde_json::json;

fn body() -> String {
    json!({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [3]}]}).to_string()
}

fn refused(gateway: &Gateway, code: &str) -> u64 {
    let families = gateway.metrics();
    let found = families
        .as_array()
        .unwrap()
        .iter()
        .find(|family| family["name"] == "headgate_requests_refused_total");
    let samples = found.unwrap()["samples"].as_array().unwrap();
    samples.iter().find(|sample| sample[0]["code"] == code).map_or(0, |sample| sample[1].as_u64().unwrap())
}

fn post(stream: &mut TcpStream, id: u32) {
    http2::post(stream, id, "/v2/models/slow/infer", body().as_bytes());
}

/// A gateway whose only IO thread is in a run while `send_all` writes to a new connection, so that it reads all of that at once. The first
/// request on the connection has begun then, and is held.
fn read_at_once(send_all: impl FnOnce(&mut TcpStream)) -> (Arc<Gateway>, TcpStream, Held) {
    let (gateway, address) = gateway();
    let (slow, held) = gated();
    serve(&gateway, "slow", slow, true);
    let mut other = send(address, "slow");
    held.entered.recv_timeout(PATIENCE).unwrap();
    let mut stream = connect(address);
    http2::open(&mut stream);
    send_all(&mut stream);
    held.leave.send(()).unwrap();
    assert_eq!(answer(&mut other).0, 200);
    held.entered.recv_timeout(PATIENCE).unwrap();
    (gateway, stream, held)
}

#[test]
fn requests_that_are_taken_back_before_they_are_begun_are_not_run_and_end_nothing() {
    const SENT: u32 = 128;
    const LEFT: u32 = 68;
    let ids = |range: std::ops::Range<u32>| range.map(|number| 1 + 2 * number);
    let (_gateway, mut stream, held) = read_at_once(|stream| ids(0..SENT).for_each(|id| post(stream, id)));
    ids(LEFT..SENT).for_each(|id| http2::cancel(&mut stream, id));
    (0..SENT).for_each(|_| held.leave.send(()).unwrap());
    http2::until_ended(&mut stream, ids(0..LEFT).collect());
    post(&mut stream, 2 * SENT + 1);
    http2::until_ended(&mut stream, [2 * SENT + 1].into());
    assert_eq!(held.entered.try_iter().count() as u32, LEFT, "the first was seen before, and one came last");
}

#[test]
fn a_request_waits_from_when_it_was_read() {
    let time = Duration::from_millis(20);
    let (_gateway, mut stream, held) = read_at_once(|stream| {
        [1, 3].into_iter().for_each(|id| post(stream, id));
        let head = http2::post_head(5, "/v2/models/slow/infer", &[("x-headgate-timeout", "20ms")]);
        stream.write_all(&[head, http2::data(5, body().as_bytes())].concat()).unwrap();
    });
    held.leave.send(()).unwrap();
    // The first one was answered, the others were read, and the second one runs until the time of the third is over.
    held.entered.recv_timeout(PATIENCE).unwrap();
    std::thread::sleep(time + Duration::from_millis(10));
    held.leave.send(()).unwrap();
    http2::until_ended(&mut stream, [1, 3, 5].into());
    assert_eq!(held.entered.try_iter().count(), 0, "the time of the third one was over behind the others");
}

#[test]
fn a_client_that_reads_no_small_reply_is_given_up() {
    let (gateway, address) = gateway_with(&json!({"idle_ms": 1000}));
    serve(&gateway, "tiny", free(), true);
    let mut deaf = connect(address);
    http2::open_wide(&mut deaf);
    socket2::SockRef::from(&deaf).set_recv_buffer_size(4096).unwrap();
    let given_up = || metric(&gateway, "headgate_connections_unread_total", &json!({})) == 1;
    let booked = || {
        metric(
            &gateway,
            "headgate_requests_total",
            &json!({"endpoint": "tiny", "version": "v1", "code": "ok"}),
        )
    };
    let mut sent = 0;
    // So few at a time that what the socket does not take fits the output of the connection.
    at_last("the end of a connection that takes nothing", || {
        if booked() == sent {
            let more = (sent..sent + 50).flat_map(|number| {
                let id = 1 + 2 * number as u32;
                let head = http2::post_head(id, "/v2/models/tiny/infer", &[]);
                [head, http2::data(id, body().as_bytes())].concat()
            });
            deaf.write_all(&more.collect::<Vec<u8>>()).unwrap();
            sent += 50;
        }
        given_up()
    });
    assert!((ask(&mut connect(address), "tiny", 2.0) - 4.0).abs() < 1e-9);
}

#[test]
fn an_upload_that_is_taken_back_is_no_mistake() {
    let (gateway, address) = gateway();
    serve(&gateway, "tiny", free(), true);
    for (number, code) in [http2::CANCEL, http2::NO_ERROR].into_iter().enumerate() {
        let mut stream = connect(address);
        http2::open(&mut stream);
        let head = http2::post_head(1, "/v2/models/tiny/infer", &[]);
        stream.write_all(&[head, http2::part(1, &body().as_bytes()[..20])].concat()).unwrap();
        http2::reset(&mut stream, 1, code);
        http2::post(&mut stream, 3, "/v2/models/tiny/infer", body().as_bytes());
        http2::until_ended(&mut stream, [3].into());
        eventually("a request that was taken back", || refused(&gateway, "cancelled") == number as u64 + 1);
        assert_eq!(refused(&gateway, "invalid_argument"), 0);
    }
}
