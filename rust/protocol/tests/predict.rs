//! Requests and responses of `:predict` in both forms.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use common::iterations;
use headgate_core::error::{Code, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef, Signature, TensorSpec};
use headgate_protocol::envelope::InputForm;
use headgate_protocol::{
    EnvelopeScratch, InputTensor, OutputTensor, StringTable, TensorData, TypedSliceMut, binary, predict,
};

fn spec(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        datatype,
        shape: shape.into(),
        symbols: vec![],
        any_rank: false,
        labels: Vec::new(),
    }
}

/// A signature with these inputs.
fn taking(specs: &[TensorSpec]) -> Signature {
    Signature { inputs: specs.to_vec(), ..Signature::default() }
}

/// Shapes of the inputs, and the floats of those that have some.
fn read(body: &str, specs: &[TensorSpec]) -> Result<Vec<(Vec<i64>, Vec<f32>)>> {
    let envelope = predict::parse(body.as_bytes(), &mut EnvelopeScratch::default())?;
    let mut buffer = Vec::new();
    let inputs = predict::inputs(&envelope, &taking(specs), &mut buffer)?;
    let values = inputs.iter().map(|input| {
        let mut out = vec![0f32; if input.datatype == DataType::Fp32 { input.shape.count() } else { 0 }];
        if input.datatype == DataType::Fp32 {
            input.decode_into(TypedSliceMut::Fp32(&mut out))?;
        }
        Ok((input.shape.dims().to_vec(), out))
    });
    values.collect()
}

#[test]
fn rows_and_columns_become_the_same_inputs() {
    let one = [spec("X", DataType::Fp32, &[-1, 2])];
    let wanted = vec![(vec![2, 2], vec![1.0, 2.0, 3.0, 4.0])];
    for body in [
        r#"{"instances": [[1, 2], [3, 4]]}"#,
        r#"{"signature_name": "serving_default", "instances": [{"X": [1, 2]}, {"X": [3, 4]}]}"#,
        r#"{"inputs": [[1, 2], [3, 4]]}"#,
        r#"{"inputs": {"X": [[1, 2], [3, 4]]}}"#,
    ] {
        assert_eq!(read(body, &one).unwrap(), wanted, "{body}");
    }
    let two = [spec("a", DataType::Fp32, &[-1]), spec("b", DataType::Fp32, &[-1, 1])];
    let wanted = vec![(vec![2], vec![1.0, 2.0]), (vec![2, 1], vec![5.0, 6.0])];
    for body in [
        r#"{"instances": [{"a": 1, "b": 5}, {"b": [6], "a": 2}]}"#,
        r#"{"instances": [{"a": 1, "b": [5]}, {"b": [6], "a": 2}]}"#,
        r#"{"inputs": {"b": [[5], [6]], "a": [1, 2]}}"#,
        r#"{"inputs": {"b": [5, 6], "a": [1, 2]}}"#,
    ] {
        match read(body, &two) {
            Ok(found) => assert_eq!(found, wanted, "{body}"),
            // A column that is a list in one row and a number in another has no shape.
            Err(error) => {
                assert!(body.contains("\"b\": 5}") && error.code == Code::InvalidArgument, "{body}: {error}")
            }
        }
    }
    assert_eq!(
        read(r#"{"instances": []}"#, &[spec("X", DataType::Fp32, &[-1])]).unwrap(),
        [(vec![0], vec![])]
    );
}

#[test]
fn what_does_not_fit_is_refused_with_words() {
    let one = [spec("X", DataType::Fp32, &[-1, 2])];
    let two = [spec("a", DataType::Fp32, &[-1]), spec("b", DataType::Fp32, &[-1])];
    for (body, specs, fragment) in [
        ("[]", &one[..], "the request must be an object, not a list"),
        ("{}", &one, "neither \"instances\""),
        (r#"{"instances": 1}"#, &one, "\"instances\" must be a list"),
        (r#"{"instances": [], "inputs": []}"#, &one, "once"),
        (r#"{"instances": [[1,2]]} x"#, &one, "at byte"),
        (r#"{"instances": [[1,2],[3]]}"#, &one, "input \"X\""),
        (r#"{"instances": [[1,2],3]}"#, &one, "input \"X\""),
        (r#"{"instances": [{"X": [1,2]}, 3]}"#, &one, "instances[1] must be an object"),
        (r#"{"instances": [{"Y": [1,2]}]}"#, &one, "instances[0] has \"Y\", which is not an input"),
        (r#"{"instances": [{"a": 1}]}"#, &two, "instances[0] lacks \"b\""),
        (r#"{"instances": [{"a": 1, "a": 2, "b": 1}]}"#, &two, "has \"a\" twice"),
        (r#"{"instances": [1, 2]}"#, &two, "the model has 2 inputs"),
        (r#"{"inputs": [1, 2]}"#, &two, "\"inputs\" must be an object"),
        (r#"{"inputs": {"a": 1, "b": [1]}}"#, &two, "input \"a\": it must be a list"),
        (r#"{"inputs": {"a": [1], "b": [1], "c": [1]}}"#, &two, "\"inputs\" has \"c\""),
    ] {
        let error = read(body, specs).expect_err(body);
        assert_eq!(error.code, Code::InvalidArgument, "{body}: {error}");
        assert!(error.message.contains(fragment), "{body}: {error}");
    }
}

#[test]
fn optional_inputs_come_in_columns_by_name() {
    let optional_inputs = vec![spec("k", DataType::Fp32, &[2]), spec("l", DataType::Fp32, &[])];
    let signature = Signature { optional_inputs, ..taking(&[spec("X", DataType::Fp32, &[-1])]) };
    let read = |body: &str| {
        let envelope = predict::parse(body.as_bytes(), &mut EnvelopeScratch::default())?;
        let mut buffer = Vec::new();
        let inputs = predict::inputs(&envelope, &signature, &mut buffer)?;
        let shown = |input: &InputTensor<'_>| (input.name.to_string(), input.shape.dims().to_vec());
        Ok::<_, headgate_core::error::Error>(inputs.iter().map(shown).collect::<Vec<_>>())
    };
    let x = ("X".to_owned(), vec![3]);
    for body in [r#"{"inputs": [1, 2, 3]}"#, r#"{"instances": [1, 2, 3]}"#, r#"{"inputs": {"X": [1, 2, 3]}}"#]
    {
        assert_eq!(read(body).unwrap(), std::slice::from_ref(&x), "{body}");
    }
    let given = read(r#"{"inputs": {"l": 7, "X": [1, 2, 3], "k": [1, 2]}}"#).unwrap();
    assert_eq!(given, [x, ("k".to_owned(), vec![2]), ("l".to_owned(), vec![])]);
    for (body, says) in [
        (r#"{"instances": [{"X": 1}, {"X": 1, "k": [1, 2]}]}"#, "instances[1] has \"k\", an optional input"),
        (r#"{"inputs": {"k": [1, 2]}}"#, "lacks \"X\"; the model takes \"X\", optional \"k\", \"l\""),
        (r#"{"inputs": {"X": [1], "z": 1}}"#, "\"z\", which is not an input"),
        (r#"{"inputs": {"X": [1], "k": [1, 2], "k": [1, 2]}}"#, "\"k\" twice"),
    ] {
        let error = read(body).unwrap_err();
        assert!(error.message.contains(says), "{body}: {error}");
    }
}

#[test]
fn bytes_come_as_text_or_base64() {
    let specs = [spec("S", DataType::Bytes, &[-1])];
    for body in
        [r#"{"instances": ["a", {"b64": "/w=="}]}"#, r#"{"instances": [{"b64": "YQ=="}, {"b64": "/w=="}]}"#]
    {
        let envelope = predict::parse(body.as_bytes(), &mut EnvelopeScratch::default()).unwrap();
        let mut buffer = Vec::new();
        let inputs = predict::inputs(&envelope, &taking(&specs), &mut buffer).unwrap();
        let mut table = StringTable::default();
        inputs[0].decode_strings(&mut table).unwrap();
        assert_eq!(table.view().iter().collect::<Vec<_>>(), [&b"a"[..], b"\xff"], "{body}");
    }
}

fn answer(form: InputForm<'_>, outputs: &[OutputTensor<'_>]) -> Result<String> {
    let mut out = Vec::new();
    predict::write(&mut out, form, 2, outputs).map(|()| String::from_utf8(out).unwrap())
}

fn output<'a>(name: &'a str, dims: &'a [i64], data: TensorData<'a>) -> OutputTensor<'a> {
    OutputTensor {
        name,
        datatype: DataType::Fp32,
        shape: ShapeRef::new(dims).unwrap(),
        data,
        binary: false,
        non_finite: NonFinite::Error,
        template: None,
    }
}

#[test]
fn answers_are_nested_as_their_shapes_are() {
    let (rows, columns) = (InputForm::Rows(b""), InputForm::Columns(b""));
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0];
    let cube = output("y", &[2, 2, 2], TensorData::Fp32(&values));
    let flat = output("z", &[2], TensorData::Fp32(&values[..2]));
    let scalar = output("s", &[], TensorData::Fp32(&values[..1]));
    let nested = "[[[1.0,2.0],[3.0,4.0]],[[5.0,6.0],[7.0,8.0]]]";
    assert_eq!(answer(rows, &[cube]).unwrap(), format!("{{\"predictions\":{nested}}}"));
    assert_eq!(answer(columns, &[cube]).unwrap(), format!("{{\"outputs\":{nested}}}"));
    assert_eq!(
        answer(rows, &[cube, flat]).unwrap(),
        r#"{"predictions":[{"y":[[1.0,2.0],[3.0,4.0]],"z":1.0},{"y":[[5.0,6.0],[7.0,8.0]],"z":2.0}]}"#
    );
    assert_eq!(answer(columns, &[flat, scalar]).unwrap(), r#"{"outputs":{"z":[1.0,2.0],"s":1.0}}"#);
    assert_eq!(answer(rows, &[scalar]).unwrap_err().code, Code::Unsupported);
    assert_eq!(
        answer(rows, &[cube, output("w", &[1], TensorData::Fp32(&values[..1]))]).unwrap_err().code,
        Code::Unsupported
    );
    // One value for all rows is not a value for each row.
    assert_eq!(
        answer(rows, &[output("m", &[1], TensorData::Fp32(&values[..1]))]).unwrap_err().code,
        Code::Unsupported
    );
    let empty = output("e", &[2, 0], TensorData::Fp32(&[]));
    assert_eq!(answer(rows, &[empty]).unwrap(), r#"{"predictions":[[],[]]}"#);
    assert_eq!(answer(columns, &[output("e", &[0, 2], TensorData::Fp32(&[]))]).unwrap(), r#"{"outputs":[]}"#);
}

#[test]
fn a_request_without_json_takes_its_shape_from_its_size() {
    let shape = |bytes: usize, datatype, dims: &[i64]| {
        binary::raw_shape(&vec![0; bytes], &[spec("X", datatype, dims)]).map(|shape| shape.dims().to_vec())
    };
    assert_eq!(shape(512, DataType::Fp32, &[-1, 64]).unwrap(), [2, 64]);
    assert_eq!(shape(12, DataType::Int16, &[2, 3]).unwrap(), [2, 3]);
    assert_eq!(shape(8, DataType::Fp32, &[-1, -1]).unwrap(), [1, 2]);
    assert_eq!(shape(9, DataType::Bytes, &[-1]).unwrap(), [1]);
    assert_eq!(shape(9, DataType::Bytes, &[-1, -1]).unwrap(), [1, 1]);
    assert!(shape(510, DataType::Fp32, &[-1, 64]).unwrap_err().message.contains("rows of 256 bytes"));
    assert!(
        shape(20, DataType::Fp32, &[2, 3]).unwrap_err().message.contains("is 24 bytes, and the body is 20")
    );
    assert!(shape(9, DataType::Bytes, &[2]).unwrap_err().message.contains("more than one element"));
    assert!(shape(8, DataType::Fp32, &[2, -1, -1]).unwrap_err().message.contains("leaves too much open"));
    let two = [spec("a", DataType::Fp32, &[1]), spec("b", DataType::Fp32, &[1])];
    assert!(binary::raw_shape(&[0; 8], &two).unwrap_err().message.contains("this one has 2"));
}

#[test]
fn any_body_is_taken_or_refused() {
    let specs = [spec("a", DataType::Fp32, &[-1]), spec("b", DataType::Bytes, &[-1])];
    let alphabet = br#"{}[],:"instancesinputsab64 0.1e-"#;
    bolero::check!().with_iterations(iterations(20_000)).with_type::<Vec<u8>>().for_each(|picks| {
        let body: Vec<u8> = picks.iter().map(|&pick| alphabet[usize::from(pick) % alphabet.len()]).collect();
        for body in [&body, picks] {
            let wrapped = [b"{\"instances\":", &body[..], b"}"].concat();
            for body in [&body[..], &wrapped] {
                let Ok(envelope) = predict::parse(body, &mut EnvelopeScratch::default()) else { continue };
                for specs in [&specs[..], &specs[..1], &specs[1..]] {
                    let mut buffer = Vec::new();
                    for input in predict::inputs(&envelope, &taking(specs), &mut buffer).unwrap_or_default() {
                        let _ = input.decode_strings(&mut StringTable::default());
                    }
                }
            }
        }
    });
}
