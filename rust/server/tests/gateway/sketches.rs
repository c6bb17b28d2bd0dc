//! Sketching of traffic: all rows while that costs little, else a sample.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

use std::io::Write;
use std::net::TcpStream;

use crate::common::{answer, ask, connect, free, gateway, metric, serve, serve_adopted, signature};
use headgate_core::error::Result;
use headgate_core::spec::RunSpec;
use headgate_core::tensor::{DataType, Signature};
use headgate_engine::Executable;
use headgate_engine::runtime::Binding;
use serde_json::{Value, json};

const LABELS: [(&str, &str); 2] = [("endpoint", "model"), ("version", "v1")];

fn labels() -> Value {
    Value::Object(LABELS.iter().map(|&(name, value)| (name.to_owned(), json!(value))).collect())
}

fn post(stream: &mut TcpStream, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let head =
        format!("POST /v2/models/model/infer HTTP/1.1\r\nhost: t\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body.as_bytes()).unwrap();
    answer(stream)
}

#[test]
fn the_few_rows_of_a_quiet_version_are_all_sketched() {
    let (gateway, address) = gateway();
    serve(&gateway, "model", free(), true);
    let mut stream = connect(address);
    for i in 0..201 {
        ask(&mut stream, "model", i as f32 - 100.0);
    }
    // The sketching of the last request may run after its response was read.
    let report = gateway.drift("model", 3600).unwrap();
    for feature in report["features"].as_array().unwrap() {
        let number = |path: &str| feature.pointer(path).and_then(Value::as_f64).unwrap();
        assert!(number("/offered") >= 200.0, "{feature}");
        assert_eq!(number("/observed"), number("/offered"));
        assert_eq!(number("/effective"), number("/offered"));
        assert_eq!(number("/live/n"), number("/offered"));
    }
}

#[test]
fn a_large_answer_takes_no_more_than_a_capped_number_of_values() {
    const ROWS: usize = 400_000;
    let (gateway, address) = gateway();
    serve(&gateway, "model", free(), false);
    let mut stream = connect(address);
    let data: Vec<f64> = (0..ROWS).map(|row| (row % 1000) as f64 - 500.0).collect();
    let body = json!({"inputs": [{"name": "x", "shape": [ROWS], "datatype": "FP32", "data": data}]});
    assert_eq!(post(&mut stream, &body).0, 200);
    // This request is handled after the sketching of the first on the same thread.
    ask(&mut stream, "model", 2.0);
    assert!(metric(&gateway, "headgate_tap_rows_seen_total", &labels()) >= ROWS as u64);
    let sampled = metric(&gateway, "headgate_tap_rows_sampled_total", &labels());
    assert!((10_000..=1 << 16).contains(&sampled), "{sampled} rows were sketched");
    let report = gateway.drift("model", 3600).unwrap();
    for feature in report["features"].as_array().unwrap() {
        let n = feature["live"]["n"].as_f64().unwrap();
        assert!((n / ROWS as f64 - 1.0).abs() < 0.01, "the rows sketched stand for all: {n}");
        assert!(feature["observed"].as_u64().unwrap() <= 1 << 16);
        assert!(feature["effective"].as_f64().unwrap() <= feature["observed"].as_f64().unwrap());
        assert!(feature["live"]["mean"].as_f64().unwrap().abs() < 10.0);
    }
}

/// Takes strings and ignores them.
struct Deaf(Signature);

impl Executable for Deaf {
    fn signature(&self) -> &Signature {
        &self.0
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let shape = *binding.input(0).shape();
        binding.output_mut(0).reshape(&shape)
    }
}

#[test]
fn strings_are_counted_by_their_lengths_and_capped_as_well() {
    const ROWS: usize = 200_000;
    let mut signature = signature();
    signature.inputs[0].datatype = DataType::Bytes;
    let (gateway, address) = gateway();
    let _kept = gateway.engine().adopt("deaf", Box::new(Deaf(signature)), &RunSpec::default()).unwrap();
    serve_adopted(&gateway, "model", "deaf");
    let mut stream = connect(address);
    for rows in [ROWS, 1] {
        let data: Vec<&str> = (0..rows).map(|row| ["", "four"][row % 2]).collect();
        let body = json!({"inputs": [{"name": "x", "shape": [rows], "datatype": "BYTES", "data": data}]});
        assert_eq!(post(&mut stream, &body).0, 200);
    }
    let report = gateway.drift("model", 3600).unwrap();
    let feature = |column: &str| {
        let features = report["features"].as_array().unwrap();
        features
            .iter()
            .find(|feature| feature["column"] == column)
            .unwrap_or_else(|| panic!("{report}"))
            .clone()
    };
    let (length, empty) = (feature("x[0].length"), feature("x[0].empty"));
    assert!((length["live"]["mean"].as_f64().unwrap() - 2.0).abs() < 0.1, "{length}");
    assert!((empty["live"]["mean"].as_f64().unwrap() - 0.5).abs() < 0.03, "{empty}");
    assert!(length["observed"].as_u64().unwrap() <= 1 << 15, "two values for each row: {length}");
    assert_eq!(length["live"]["max"], 4.0);
}
