//! Reads arbitrary bytes with every parser: none panics, and a request that is accepted is valid JSON.
//!
//! The number of iterations is small and fixed, so that this runs with every `cargo test`. `cargo bolero` runs it for any time.

mod common;

use common::{iterations, request};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, Shape};
use headgate_protocol::numbers::decode_into;
use headgate_protocol::{OutputTensor, ResponseHead, TensorData, TypedSliceMut, binary, response};

#[test]
fn any_body_is_taken_or_refused() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<(Vec<u8>, Option<u8>)>().for_each(
        |(body, header)| {
            let header = header.map(|length| length.to_string());
            let _ = request(body, header.as_ref().map(String::as_bytes));
        },
    );
}

/// Pieces of requests, so that the fuzzer gets past the first byte.
const PIECES: [&str; 32] = [
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "\"inputs\"",
    "\"outputs\"",
    "\"name\"",
    "\"X\"",
    "\"data\"",
    "\"shape\"",
    "\"datatype\"",
    "\"FP32\"",
    "\"BYTES\"",
    "\"INT64\"",
    "\"parameters\"",
    "\"binary_data_size\"",
    "1",
    "-2.5e-3",
    "0",
    "true",
    "null",
    " ",
    "\"id\"",
    "\\ud83d",
    "{\"inputs\":[{\"name\":\"X\",\"datatype\":\"FP32\",\"shape\":[2],\"data\":[",
    "]}]}",
    "é",
    "1e400",
];

#[test]
fn any_sequence_of_pieces_is_taken_or_refused() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<Vec<u8>>().for_each(|picks| {
        let body: String = picks.iter().map(|&pick| PIECES[usize::from(pick) % PIECES.len()]).collect();
        if request(body.as_bytes(), None).is_ok() {
            assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{body}");
        }
    });
}

#[test]
fn any_list_of_floats_is_taken_only_if_it_is_json() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<(Vec<u8>, u8)>().for_each(
        |(picks, count)| {
            let alphabet = b"0123456789.,-+eE []n";
            let inner: Vec<u8> =
                picks.iter().map(|&pick| alphabet[usize::from(pick) % alphabet.len()]).collect();
            let data = [b"[", &inner[..], b"]"].concat();
            let count = usize::from(count % 4);
            let mut out = vec![0f32; count];
            let shape = Shape::new(&[count as i64]).unwrap();
            if decode_into(&data, &shape, TypedSliceMut::Fp32(&mut out), "X").is_ok() {
                let want: Vec<f64> = serde_json::from_slice(&data).unwrap();
                assert_eq!(want.len(), count);
            }
        },
    );
}

#[test]
fn any_header_splits_within_the_body() {
    bolero::check!().with_iterations(iterations(5_000)).with_type::<(Vec<u8>, Vec<u8>)>().for_each(
        |(body, header)| {
            if let Ok(parts) = binary::split(body, Some(header)) {
                assert_eq!(parts.json.len() + parts.tail.unwrap().len(), body.len());
            }
        },
    );
}

#[test]
fn any_floats_give_valid_json_or_an_error() {
    let head = ResponseHead { id: Some("\u{0}\"\\"), model_name: "m", model_version: "1" };
    bolero::check!().with_iterations(iterations(5_000)).with_type::<Vec<u8>>().for_each(|bytes| {
        let bytes = &bytes[..bytes.len() / 4 * 4];
        let shape = Shape::new(&[bytes.len() as i64 / 4]).unwrap();
        let data = TensorData::Raw(bytes);
        let output = OutputTensor {
            name: "Y",
            datatype: DataType::Fp32,
            shape,
            data,
            binary: false,
            non_finite: NonFinite::Error,
        };
        let mut out = b"before".to_vec();
        match response::write(&mut out, &head, &[output]) {
            Ok(parts) => {
                assert_eq!(out.len(), 6 + parts.total_len);
                serde_json::from_slice::<serde_json::Value>(&out[6..]).unwrap();
            }
            Err(_) => assert_eq!(out, b"before"),
        }
    });
}
