//! Tests with the real library. `HEADGATE_ORT_LIBRARY` names it; `make test` sets it.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]

mod common;

use std::path::Path;

use bytes::Bytes;
use common::{library, model};
use headgate_core::error::Code;
use headgate_core::tensor::{DataType, Shape};
use headgate_runtime::{Binding, Elements, Library, Session, SessionOptions};

fn load(name: &str) -> Session {
    Session::load(library(), &model(name), SessionOptions::default()).unwrap()
}

fn refused(name: &str) -> String {
    let error = Session::load(library(), &model(name), SessionOptions::default()).err().expect("is refused");
    assert_eq!(error.code, Code::ModelLoadFailed);
    error.message.into_owned()
}

#[test]
fn the_library_says_what_it_is() {
    assert!(library().version().starts_with("1."));
    assert!(library().providers().unwrap().contains(&"CPUExecutionProvider".to_owned()));
    assert!(std::env::var_os("ORT_DISABLE_TELEMETRY").is_some_and(|value| value == "1"));
}

#[test]
fn a_signature_is_read_with_its_symbols() {
    let session = load("mlp.onnx");
    let signature = session.signature();
    assert_eq!(signature.inputs[0].name, "x");
    assert_eq!(signature.inputs[0].shape, vec![-1, 4]);
    assert_eq!(signature.inputs[0].symbols, vec!["rows", ""]);
    assert_eq!(signature.outputs[0].datatype, DataType::Int64);
}

#[test]
fn a_run_is_the_same_again_and_with_other_batch_sizes() {
    let session = load("mlp.onnx");
    let mut binding = Binding::new(library(), session.signature());
    let mut first = Vec::new();
    for rows in [1usize, 3, 3, 1] {
        let shape = Shape::new(&[rows as i64, 4]).unwrap();
        binding.input_mut(0).reshape(&shape).unwrap();
        binding.input_mut(0).elements_mut::<f32>().unwrap().fill(0.5);
        binding.run(&session).unwrap();
        let view = binding.output(1).unwrap();
        assert_eq!(view.shape.to_shape().dims(), &[rows as i64, 3]);
        let values = view.elements::<f32>().unwrap();
        assert!((values[..3].iter().sum::<f32>() - 1.0).abs() < 1e-5);
        if first.is_empty() {
            first = values[..3].to_vec();
        }
        assert_eq!(values[..3], first[..]);
        assert_eq!(binding.output(0).unwrap().elements::<i64>().unwrap().len(), rows);
    }
}

#[test]
fn every_datatype_goes_through_unchanged() {
    for datatype in DataType::ALL.into_iter().filter(|datatype| *datatype != DataType::Bytes) {
        let session = load(&format!("identity_{}.onnx", datatype.as_str().to_lowercase()));
        let mut binding = Binding::new(library(), session.signature());
        binding.input_mut(0).reshape(&Shape::new(&[3]).unwrap()).unwrap();
        let bytes = binding.input_mut(0).bytes_mut().unwrap();
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = if datatype == DataType::Bool { (index % 2) as u8 } else { index as u8 + 1 };
        }
        let sent = bytes.to_vec();
        binding.run(&session).unwrap();
        let view = binding.output(0).unwrap();
        assert_eq!(view.datatype, datatype);
        match view.data {
            Elements::Bytes(back) => assert_eq!(back, sent, "{datatype}"),
            Elements::Strings { .. } => panic!("{datatype} came back as strings"),
        }
    }
}

#[test]
fn strings_keep_every_byte() {
    let session = load("identity_bytes.onnx");
    let mut binding = Binding::new(library(), session.signature());
    let sent: [&[u8]; 3] = [b"plain", b"", b"\x00\xff nul and no utf-8"];
    binding.input_mut(0).reshape(&Shape::new(&[3]).unwrap()).unwrap();
    for (index, bytes) in sent.iter().enumerate() {
        binding.input_mut(0).set_string(index, bytes).unwrap();
    }
    assert!(binding.input_mut(0).set_string(3, b"outside").is_err());
    binding.run(&session).unwrap();
    let Elements::Strings { bytes, offsets } = binding.output(0).unwrap().data else {
        panic!("strings stay strings")
    };
    assert_eq!(offsets, vec![0, 5, 5]);
    assert_eq!(bytes, sent.concat());
}

#[test]
fn empty_tensors_run() {
    let session = load("identity_fp32.onnx");
    let mut binding = Binding::new(library(), session.signature());
    binding.input_mut(0).reshape(&Shape::new(&[0]).unwrap()).unwrap();
    binding.run(&session).unwrap();
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), &[] as &[f32]);
}

#[test]
fn a_model_that_lies_about_its_output_still_answers() {
    let session = load("shape_liar.onnx");
    let mut binding = Binding::new(library(), session.signature());
    for _ in 0..2 {
        let shape = Shape::new(&[3]).unwrap();
        binding.input_mut(0).reshape(&shape).unwrap();
        binding.input_mut(0).elements_mut::<f32>().unwrap().copy_from_slice(&[1.0, 2.0, 3.0]);
        binding.input_mut(1).reshape(&shape).unwrap();
        binding.input_mut(1).elements_mut::<u8>().unwrap().copy_from_slice(&[1, 0, 1]);
        binding.run(&session).unwrap();
        assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), &[1.0, 3.0]);
    }
}

#[test]
fn a_bad_index_is_the_callers_mistake_and_the_next_run_works() {
    let session = load("gather.onnx");
    let mut binding = Binding::new(library(), session.signature());
    binding.input_mut(0).reshape(&Shape::new(&[1]).unwrap()).unwrap();
    binding.input_mut(0).elements_mut::<i64>().unwrap()[0] = 99;
    assert_eq!(binding.run(&session).unwrap_err().code, Code::BackendFailed);
    binding.input_mut(0).elements_mut::<i64>().unwrap()[0] = 3;
    binding.run(&session).unwrap();
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), &[3.0]);
}

#[test]
fn one_session_serves_many_threads() {
    let session = load("mlp.onnx");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let session = &session;
            scope.spawn(move || {
                let mut binding = Binding::new(library(), session.signature());
                binding.input_mut(0).reshape(&Shape::new(&[1, 4]).unwrap()).unwrap();
                let mut expected = None;
                for _ in 0..500 {
                    binding.input_mut(0).elements_mut::<f32>().unwrap().fill(thread as f32);
                    binding.run(session).unwrap();
                    let got = binding.output(1).unwrap().elements::<f32>().unwrap().to_vec();
                    assert_eq!(*expected.get_or_insert_with(|| got.clone()), got);
                }
            });
        }
    });
}

#[test]
fn what_cannot_be_served_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("model.onnx");
    std::fs::write(&text, b"this is a text file").unwrap();
    let error = Session::load(library(), &text, SessionOptions::default()).err().unwrap();
    assert!(error.message.contains("is not an ONNX model"), "{error}");
    assert!(refused("unknown_operator.onnx").contains("operator that this ONNX Runtime does not have"));
    assert!(refused("nowhere.onnx").contains("cannot be read"));
}

#[test]
fn a_model_that_ends_in_zipmap_gives_what_goes_into_it() {
    let session = load("zipmap.onnx");
    let output = &session.signature().outputs[0];
    assert_eq!(
        (&*output.name, output.datatype, &*output.labels),
        ("z", DataType::Fp32, &["0".into(), "1".into()][..])
    );
    let mut binding = Binding::new(library(), session.signature());
    binding.input_mut(0).reshape(&Shape::new(&[2, 2]).unwrap()).unwrap();
    binding.input_mut(0).elements_mut::<f32>().unwrap().copy_from_slice(&[0.1, 0.9, 0.7, 0.3]);
    binding.run(&session).unwrap();
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), [0.1, 0.9, 0.7, 0.3]);
}

#[test]
fn a_wrong_library_is_explained() {
    let missing = Library::open(Path::new("nowhere/libonnxruntime.so")).err().unwrap();
    assert!(missing.message.contains("pip install"), "{missing}");
    let libc = std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().nth(5).map(str::to_owned))
        .find(|path| path.contains("/libc.so"))
        .expect("every process maps the C library");
    let error = Library::open(Path::new(&libc)).err().unwrap();
    assert!(error.message.contains("not an ONNX Runtime library"), "{error}");
}

#[test]
fn adopted_bytes_are_read_in_place_and_let_go_of() {
    let session = load("identity_fp32.onnx");
    let mut binding = Binding::new(library(), session.signature());
    let shape = Shape::new(&[1024]).unwrap();
    let values: Vec<f32> = (0..1024).map(|i| i as f32 * 0.5).collect();
    let elements: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    // The offset of the elements in a block decides whether they are aligned.
    let mut block = vec![0u8; 8 + elements.len()];
    let start = (block.as_ptr() as usize).wrapping_neg() % 4;
    block[start..start + elements.len()].copy_from_slice(&elements);
    let block = Bytes::from(block);
    let aligned = block.slice(start..start + elements.len());
    let odd = block.slice(start + 1..start + 1 + elements.len());
    assert!(binding.input(0).can_adopt(&aligned) && !binding.input(0).can_adopt(&odd));
    let block_bytes = block.len();
    drop((block, odd));

    binding.input_mut(0).adopt(&shape, aligned.clone(), block_bytes).unwrap();
    assert!(binding.input_mut(0).elements_mut::<f32>().is_none(), "nobody writes into bytes of others");
    assert!(binding.input_mut(0).bytes_mut().is_none());
    binding.run(&session).unwrap();
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), values);
    assert!(!aligned.is_unique(), "the tensor holds them");
    binding.forget();
    assert!(aligned.is_unique(), "and lets go of them");

    assert!(binding.input_mut(0).adopt(&shape, aligned.slice(4..), block_bytes).is_err(), "too few");
    binding.input_mut(0).reshape(&shape).unwrap();
    binding.input_mut(0).elements_mut::<f32>().unwrap().fill(2.0);
    binding.run(&session).unwrap();
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), [2.0; 1024]);
}

#[test]
fn adopted_bytes_count_with_the_body_that_they_keep_and_small_ones_are_copied_out_of_it() {
    let session = load("identity_fp32.onnx");
    let shape = Shape::new(&[1024]).unwrap();
    let body = Bytes::from(vec![1u8; 1 << 20]);
    let start = (body.as_ptr() as usize).wrapping_neg() % 4;
    let tensor = body.slice(start..start + 4096);
    let mut binding = Binding::new(library(), session.signature());
    let own = binding.held_bytes();
    binding.input_mut(0).adopt(&shape, tensor.clone(), body.len()).unwrap();
    assert!(binding.held_bytes() >= own + body.len());
    binding.copy_small_adopted(4095).unwrap();
    assert!(binding.held_bytes() >= own + body.len(), "more than may be copied");
    binding.copy_small_adopted(4096).unwrap();
    assert!((own + 4096..own + 64 * 1024).contains(&binding.held_bytes()), "{}", binding.held_bytes());
    drop(tensor);
    assert!(body.is_unique(), "the body can be freed");
    binding.run(&session).unwrap();
    let ones = f32::from_ne_bytes([1; 4]);
    assert_eq!(binding.output(0).unwrap().elements::<f32>().unwrap(), [ones; 1024]);
    // Most of a body is not worth a copy.
    binding.input_mut(0).adopt(&shape, body.slice(start..start + 4096), 4200).unwrap();
    binding.copy_small_adopted(1 << 20).unwrap();
    assert!(!body.is_unique());
}
