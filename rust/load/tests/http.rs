//! The generator against servers that answer well, badly, late and not at all.

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{Answer, MS, SECOND, Server, answer, closed, open, plan, sent, started};
use serde_json::json;

#[test]
fn every_form_of_a_good_answer_is_one() {
    let large = "y".repeat(300_000);
    let server = Server::start(move |received| match received.number % 6 {
        0 => Answer::Bytes(answer(200, "{}")),
        1 => Answer::Bytes(answer(200, &large)),
        2 => Answer::Bytes(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
        ),
        3 => Answer::Bytes([b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), answer(200, "{}")].concat()),
        4 => Answer::BytesAndClose(b"HTTP/1.1 200 OK\r\n\r\nuntil the end".to_vec()),
        _ => Answer::BytesAndClose(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
    });
    let result = sent(&plan(server.address, &closed(4, 120), json!({})));
    assert_eq!(result["counts"]["good"], 120, "{}", result["errors"]);
    assert_eq!(result["errors"], json!([]));
    assert_eq!(result["hdr_v2"]["response"].as_str().map(|text| text.starts_with("HISTFAAA")), Some(true));
}

#[test]
fn a_request_is_sent_as_it_was_planned() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let server = Server::start(move |received| {
        told.lock().unwrap().push((received.head, received.body));
        Answer::Bytes(answer(200, "{}"))
    });
    let address = server.address;
    sent(&plan(address, &closed(1, 2), json!({"timing_share": 1.0})));
    let wanted = format!(
        "POST /v2/models/m/infer HTTP/1.1\r\nhost: {address}\r\ncontent-length: 2\r\nx-a: b\r\nx-headgate-timing: 1\r\n\r\n"
    );
    assert_eq!(*seen.lock().unwrap(), vec![(wanted, b"{}".to_vec()); 2]);
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn what_goes_wrong_is_counted_by_kind_with_an_example() {
    let server = Server::start(|received| match received.number % 5 {
        0 => Answer::Bytes(answer(200, "{}")),
        1 => Answer::Bytes(answer(503, r#"{"error":"full","code":"overloaded"}"#)),
        2 => Answer::Bytes(answer(500, "<html>")),
        3 => Answer::Bytes(b"220 smtp.example ESMTP\r\n".to_vec()),
        _ => Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n".to_vec()),
    });
    let result = sent(&plan(server.address, &closed(1, 50), json!({})));
    let counts = &result["counts"];
    assert_eq!((&counts["good"], &counts["shed"], &counts["failed"]), (&json!(10), &json!(10), &json!(30)));
    let errors: Vec<_> = result["errors"].as_array().unwrap().iter().collect();
    for (what, example) in [
        ("503 overloaded", r#"{"error":"full","code":"overloaded"}"#),
        ("500 Internal Server Error", "<html>"),
        ("the answer is not HTTP/1.1", ""),
        ("content-length is no number", ""),
    ] {
        let wanted = json!({"what": what, "count": 10, "example": example});
        assert!(errors.contains(&&wanted), "{what}: {errors:?}");
    }
    // Each answer that was none cost its connection.
    assert!(server.connections.load(Ordering::Relaxed) >= 20);
}

#[test]
fn a_server_that_closes_idle_connections_loses_no_request() {
    let server = Server::start(|_| Answer::BytesAndClose(answer(200, "{}")));
    let result = sent(&plan(server.address, &open(200.0, SECOND / 2), json!({})));
    assert_eq!(result["counts"]["good"], 100, "{}", result["errors"]);
}

#[test]
fn a_server_that_closes_every_connection_gets_each_request_once() {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&requests);
    let server = Server::start(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Answer::Close
    });
    let result = sent(&plan(server.address, &open(100.0, SECOND / 5), json!({})));
    assert_eq!((&result["counts"]["failed"], requests.load(Ordering::Relaxed)), (&json!(20), 20));
    assert_eq!(result["response"]["quantiles"][0]["censored"], true);
}

#[test]
fn a_server_that_never_answers_times_out() {
    let server = Server::start(|_| Answer::Hang);
    for load in [open(100.0, SECOND / 5), closed(2, 20)] {
        let result = sent(&plan(server.address, &load, json!({"timeout_ns": 30 * MS})));
        assert_eq!(result["counts"]["timed_out"], 20, "{}", result["counts"]);
        assert_eq!(result["errors"][0]["what"], "no answer within the timeout");
        assert_eq!(result["response"]["quantiles"][0]["value_ns"], 30 * MS);
    }
}

#[test]
fn a_port_that_nothing_listens_on_refuses_every_request() {
    let address = Server::start(|_| Answer::Close).address;
    for protocol in ["http", "grpc", "grpc_stream"] {
        let target = json!({"address": address, "authority": "a", "protocol": protocol});
        let result = sent(&plan(address, &open(100.0, SECOND / 5), json!({"targets": [target]})));
        assert_eq!(result["counts"]["failed"], 20);
        assert_eq!(result["errors"][0]["what"], "connection refused", "{protocol}");
    }
}

#[test]
fn a_server_that_does_not_speak_http2_fails_every_call() {
    let server = Server::start(|_| Answer::Hang);
    let garbage = Server::start(|_| Answer::Close);
    for protocol in ["grpc", "grpc_stream"] {
        for address in [server.address, garbage.address] {
            let target = json!({"address": address, "authority": "a", "protocol": protocol});
            let changes = json!({"targets": [target], "timeout_ns": 50 * MS});
            let result = sent(&plan(address, &closed(2, 10), changes));
            assert_eq!(result["counts"]["good"], 0);
            assert_eq!(result["counts"]["due"], 10);
        }
    }
}

#[test]
fn a_server_that_is_killed_in_the_middle_leaves_every_request_with_an_outcome() {
    let (told, at_half) = std::sync::mpsc::channel();
    let mut server = Server::start(move |received| {
        if received.number == 100 {
            told.send(()).unwrap();
        }
        Answer::Bytes(answer(200, "{}"))
    });
    let run = started(&plan(server.address, &open(1000.0, 3 * SECOND), json!({"threads": 2})));
    at_half.recv().unwrap();
    server.kill();
    let result = common::finished(&run);
    let counts = &result["counts"];
    assert_eq!(counts["due"], 3000);
    assert!(counts["good"].as_u64().unwrap() >= 100 && counts["failed"].as_u64().unwrap() >= 100, "{counts}");
}

#[test]
fn requests_beyond_the_most_in_flight_are_not_sent() {
    let server = Server::start(|_| Answer::Hang);
    let changes = json!({"max_in_flight": 3, "timeout_ns": 3 * SECOND, "threads": 2});
    let result = sent(&plan(server.address, &open(100.0, SECOND / 5), changes));
    let counts = &result["counts"];
    assert_eq!(
        (&counts["timed_out"], &counts["unsent"], &counts["sent"]),
        (&json!(3), &json!(17), &json!(3))
    );
    assert_eq!(result["client"]["limited"], true);
    assert!(
        result["client"]["reasons"].to_string().contains("15.00 % of the 20 requests"),
        "{}",
        result["client"]
    );
}

#[test]
fn connections_are_bounded_if_they_are_told_to_be() {
    let server = Server::start(|_| Answer::Bytes(answer(200, "{}")));
    let target = json!({"address": server.address, "authority": "a", "protocol": "http", "connections": 2});
    let result = sent(&plan(server.address, &open(2000.0, SECOND / 5), json!({"targets": [target]})));
    assert_eq!(result["counts"]["good"], 400);
    assert!(server.connections.load(Ordering::Relaxed) <= 2);
}

#[test]
fn a_closed_loop_has_one_request_of_each_client_in_flight() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, peak) = (Arc::clone(&now), Arc::clone(&most));
    let server = Server::start(move |_| {
        let busy = counter.fetch_add(1, Ordering::SeqCst) + 1;
        peak.fetch_max(busy, Ordering::SeqCst);
        // Lets others come in between; the count says whether too many do.
        std::thread::yield_now();
        counter.fetch_sub(1, Ordering::SeqCst);
        Answer::Bytes(answer(200, "{}"))
    });
    let result = sent(&plan(server.address, &closed(5, 503), json!({"threads": 2})));
    assert_eq!(result["counts"]["good"], 503);
    assert!((1..=5).contains(&most.load(Ordering::SeqCst)));
    assert_eq!(server.connections.load(Ordering::Relaxed), 5);
    assert_eq!(result["lateness"]["p99_ns"], json!(null));
}

#[test]
fn an_answer_with_other_values_than_the_first_fails() {
    let server = Server::start(|received| {
        let value = if received.number == 50 { 2 } else { 1 };
        let body =
            format!(r#"{{"id":"{}","outputs":[{{"name":"y","data":[{value}]}}]}}"#, received.number % 3);
        Answer::Bytes(answer(200, &body))
    });
    let result = sent(&plan(server.address, &closed(1, 100), json!({"check_share": 1.0})));
    let replies = &result["replies"];
    assert_eq!((&replies["compared"], &replies["differing"]), (&json!(99), &json!(1)));
    assert!(replies["example"].as_str().unwrap().contains("[2]"));
    assert_eq!((&result["counts"]["good"], &result["counts"]["failed"]), (&json!(99), &json!(1)));
}

#[test]
fn a_sample_of_requests_asks_for_the_phases_of_the_server() {
    let server = Server::start(|received| {
        let timing = "server-timing: decode;dur=0.1, queue;dur=0.2, run;dur=0.4, total;dur=1\r\n";
        let timing = if received.head.contains("x-headgate-timing: 1") { timing } else { "" };
        Answer::Bytes(format!("HTTP/1.1 200 OK\r\n{timing}content-length: 2\r\n\r\n{{}}").into_bytes())
    });
    let result = sent(&plan(server.address, &closed(1, 1000), json!({"timing_share": 0.1})));
    let phases = &result["phases"];
    assert!((60..150).contains(&phases["sampled"].as_u64().unwrap()), "{phases}");
    for (phase, ns) in
        [("decode", 100_000), ("queue", 200_000), ("run", 400_000), ("reply", 300_000), ("total", MS)]
    {
        assert_eq!(phases[phase]["mean_ns"], ns, "{phase}");
    }
    assert!(phases["outside"]["mean_ns"].is_u64());
}

#[test]
fn a_trace_names_its_requests_and_groups_are_counted_apart() {
    let server = Server::start(|_| Answer::Bytes(answer(200, "{}")));
    let request = |group: &str| json!({"target": 0, "group": group, "weight": 1.0, "path": "/", "body": 0});
    let load = json!({"open": {"arrivals": {"kind": "trace", "due_ns": [5, 9, 7, 1_000_005], "requests": [1, 1, 0, 1]}}});
    let changes = json!({"requests": [request("a"), request("b")]});
    let result = sent(&plan(server.address, &load, changes));
    let groups = result["groups"].as_array().unwrap();
    let of = |at: usize| (groups[at]["group"].clone(), groups[at]["counts"]["good"].clone());
    assert_eq!([of(0), of(1)], [(json!("a"), json!(1)), (json!("b"), json!(3))]);
}

#[test]
fn hosts_share_a_schedule() {
    let server = Server::start(|_| Answer::Bytes(answer(200, "{}")));
    let due = |part: [u64; 2]| {
        let load = open(101.0, SECOND / 5);
        let result = sent(&plan(server.address, &load, json!({"part": part, "threads": 2})));
        result["counts"]["good"].as_u64().unwrap()
    };
    assert_eq!([due([1, 1]), due([1, 2]), due([2, 2])], [21, 11, 10]);
}

#[test]
fn a_run_that_is_stopped_awaits_what_is_in_flight_and_sends_nothing_more() {
    let server = Server::start(|_| Answer::Bytes(answer(200, "{}")));
    let run = started(&plan(server.address, &open(500.0, 60 * SECOND), json!({"threads": 2})));
    while run.look("{}").unwrap()["counts"]["good"].as_u64().unwrap() < 20 {
        std::thread::yield_now();
    }
    run.stop();
    let result = common::finished(&run);
    assert_eq!((&result["interrupted"], &result["finished"]), (&json!("stopped"), &json!(true)));
    assert!(result["counts"]["due"].as_u64().unwrap() < 30_000);
}

#[test]
fn a_closed_loop_ends_when_its_records_are_full() {
    let server = Server::start(|_| Answer::Bytes(answer(200, "{}")));
    let result = sent(&plan(server.address, &closed(2, 1000), json!({"max_records": 100})));
    assert_eq!(result["counts"]["good"], 100);
    assert!(result["interrupted"].as_str().unwrap().starts_with("max_records"));
}
