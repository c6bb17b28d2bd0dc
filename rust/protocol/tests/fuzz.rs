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

/// Elements and separators as short lists of whole numbers have them, and some that no list may have.
const SHORT: [&str; 24] = [
    "0", "7", "10", "99", "-3", "100", "1.5", "00", "07", "1e1", "", "-0", "8 ", "0", "42", "1]", "0.0",
    "13.7", "0.1", "01.5", "1.", ".5", "12.34", "99.9",
];
const COMMAS: [&str; 8] = [",", ", ", ",", ", ", ",  ", " ,", "\n,\t", ",,"];

#[test]
fn a_run_of_short_numbers_is_read_as_the_standard_parser_reads_it() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<Vec<(u8, u8)>>().for_each(|picks| {
        let mut data = "[".to_owned();
        for (index, (element, comma)) in picks.iter().enumerate() {
            data += if index > 0 { COMMAS[usize::from(*comma) % COMMAS.len()] } else { "" };
            data += SHORT[usize::from(*element) % SHORT.len()];
        }
        data += "]";
        let count = picks.len();
        let shape = Shape::new(&[count as i64]).unwrap();
        let want = serde_json::from_str::<Vec<f64>>(&data).ok().filter(|want| want.len() == count);
        let mut doubles = vec![0f64; count];
        let read = decode_into(data.as_bytes(), &shape, TypedSliceMut::Fp64(&mut doubles), "X").is_ok();
        assert_eq!(read.then_some(doubles), want, "{data}");
        let single = |want: Vec<f64>| -> Vec<f32> { want.iter().map(|&value| value as f32).collect() };
        let mut singles = vec![0f32; count];
        let read = decode_into(data.as_bytes(), &shape, TypedSliceMut::Fp32(&mut singles), "X").is_ok();
        assert_eq!(read.then_some(singles), want.map(single), "{data}");
        let want = serde_json::from_str::<Vec<i8>>(&data).ok().filter(|want| want.len() == count);
        let mut bytes = vec![0i8; count];
        let read = decode_into(data.as_bytes(), &shape, TypedSliceMut::Int8(&mut bytes), "X").is_ok();
        // serde_json reads -0 as a float.
        if !data.contains("-0") {
            assert_eq!(read.then_some(bytes), want, "{data}");
        }
    });
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
    let head = ResponseHead { id: Some("\u{0}\"\\"), model_name: "m", model_version: "1", template: None };
    bolero::check!().with_iterations(iterations(5_000)).with_type::<Vec<u8>>().for_each(|bytes| {
        let bytes = &bytes[..bytes.len() / 4 * 4];
        let shape = Shape::new(&[bytes.len() as i64 / 4]).unwrap();
        let data = TensorData::Raw(bytes);
        let output = OutputTensor {
            name: "Y",
            datatype: DataType::Fp32,
            shape: shape.view(),
            data,
            binary: false,
            non_finite: NonFinite::Error,
            template: None,
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
