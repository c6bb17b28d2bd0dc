//! The cost of choosing a version: ns per request, by the slot table alone, with rules before it, and with the draws of shadows and the
//! capture after it.
//!
//! The peer of the ratios is the hash of the sticky key alone, which no choice by key can do without.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use headgate_core::route::{choose_version, sticky_key};
use headgate_core::rules::{FieldValue, RequestFields};
use headgate_core::slots::slot_of;
use headgate_core::snapshot::{Endpoint, compile};
use headgate_core::spec::EndpointSpec;

/// A request with ten headers, which are searched one after the other as those on the wire, and one parameter.
struct Request {
    headers: [(&'static str, &'static str); 10],
}

const REQUEST: Request = Request {
    headers: [
        ("host", "headgate.example"),
        ("user-agent", "python-requests/2.32"),
        ("accept", "*/*"),
        ("accept-encoding", "gzip, deflate"),
        ("content-type", "application/json"),
        ("content-length", "712"),
        ("x-request-id", "0b9f6a52-5a7e-4f83-9d0e-8f0d8a4e6a11"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("x-user-id", "user-48213"),
        ("x-country", "DE"),
    ],
};

impl RequestFields for Request {
    fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.as_bytes())
    }

    fn parameter(&self, name: &str) -> Option<FieldValue<'_>> {
        (name == "tier").then_some(FieldValue::Integer(3))
    }
}

fn endpoint(rules: usize, shadows: usize) -> Endpoint<()> {
    let rules: Vec<String> = (0..rules)
        .map(|n| {
            format!(
                r#"{{"when": {{"header.x-country": {{"one_of": ["C{n}", "D{n}"]}}, "parameter.tier": {{"one_of": ["7"]}}}}, "to": "v2"}}"#
            )
        })
        .collect();
    let shadows: Vec<String> = (0..shadows).map(|n| format!(r#"{{"to": "s{n}", "share": 1000}}"#)).collect();
    let capture = if shadows.is_empty() { "null" } else { r#"{"share": 100, "keep": 1, "max_size": 1}"# };
    let versions = ["v1", "v2", "s0", "s1", "s2"];
    let described: Vec<String> = versions
        .iter()
        .map(|name| format!(r#""{name}": {{"digest": "{name}", "constant": {{"y": 1}}}}"#))
        .collect();
    let state = format!(
        r#"{{"name": "digits", "revision": 1, "spec": {{"versions": {{{}}},
            "traffic": {{"champion": "v1", "sticky": "header.x-user-id", "rules": [{}], "shadow": [{}]}},
            "capture": {capture}, "limits": {{"timeout": 1000}}}},
            "traffic": {{"champion": "v1", "last_good": "v1",
                "table": {{"salt": "digits/2/1", "given": [["v2", 0, 499]]}}}},
            "load": {{"versions": ["v1", "v2", "s0", "s1", "s2"]}}}}"#,
        described.join(","),
        rules.join(","),
        shadows.join(","),
    );
    let spec = EndpointSpec::from_json(state.as_bytes()).expect("a valid state");
    compile(&spec, |_| Ok(())).expect("a valid spec")
}

fn choose(c: &mut Criterion) {
    let mut group = c.benchmark_group("choose");
    let salt = "digits/2/1";
    group.bench_function("hash_of_the_key_alone", |b| b.iter(|| slot_of(black_box(salt), b"user-48213")));
    for rules in [0, 1, 4, 16] {
        let endpoint = endpoint(rules, 0);
        group.bench_function(BenchmarkId::new("key_after_rules_that_do_not_match", rules), |b| {
            b.iter(|| choose_version(black_box(&endpoint), black_box(&REQUEST), || 7));
        });
    }
    for shadows in [1, 3] {
        let endpoint = endpoint(0, shadows);
        group.bench_function(BenchmarkId::new("key_and_draws_of_capture_and_shadows", shadows), |b| {
            b.iter(|| {
                let request = black_box(&REQUEST);
                let decision = choose_version(black_box(&endpoint), request, || 7);
                let key = sticky_key(&endpoint, request);
                let draws = endpoint.shadows.iter().map(|shadow| &shadow.sample);
                let draws = draws.chain(endpoint.capture.iter().map(|capture| &capture.sample));
                (decision, draws.filter(|sample| sample.chooses(black_box(0x9e37_79b9), || key)).count())
            });
        });
    }
    group.finish();
}

criterion_group!(benches, choose);
criterion_main!(benches);
