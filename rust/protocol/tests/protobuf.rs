//! Compares the protobuf reader and writer with prost: each reads what the other writes, and both read all bytes alike.

#![allow(clippy::unwrap_used, reason = "a test may fail")]

mod common;

use std::collections::HashMap;

use common::iterations;
use headgate_core::error::Code;
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef};
use headgate_protocol::envelope::{ElementSource, Envelope, ParameterValue};
use headgate_protocol::pb::inference::infer_parameter::ParameterChoice;
use headgate_protocol::pb::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use headgate_protocol::pb::inference::{
    InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse,
};
use headgate_protocol::{
    EnvelopeScratch, OutputTensor, ResponseHead, StringTable, TensorData, TypedSliceMut, protobuf,
};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message;

fn parameter() -> impl Strategy<Value = InferParameter> {
    prop_oneof![
        any::<bool>().prop_map(ParameterChoice::BoolParam),
        any::<i64>().prop_map(ParameterChoice::Int64Param),
        ".{0,8}".prop_map(ParameterChoice::StringParam),
        any::<f64>().prop_map(ParameterChoice::DoubleParam),
        any::<u64>().prop_map(ParameterChoice::Uint64Param),
    ]
    .prop_map(|choice| InferParameter { parameter_choice: Some(choice) })
}

fn parameters() -> impl Strategy<Value = HashMap<String, InferParameter>> {
    proptest::collection::hash_map("[a-d]{1,3}", parameter(), 0..4)
}

fn input() -> impl Strategy<Value = InferInputTensor> {
    (parameters(), vec(0i64..4, 0..4), any::<bool>(), vec(any::<f32>(), 0..64)).prop_map(
        |(parameters, shape, fits, mut values)| {
            let count = shape.iter().product::<i64>() as usize;
            if fits {
                values.resize(count, 0.5);
            }
            let contents = InferTensorContents { fp32_contents: values, ..Default::default() };
            InferInputTensor {
                name: String::new(),
                datatype: "FP32".into(),
                shape,
                parameters,
                contents: Some(contents),
            }
        },
    )
}

prop_compose! {
    fn request()(
        names in (".{0,9}", ".{0,9}", ".{0,9}"),
        parameters in parameters(),
        mut inputs in vec(input(), 0..4),
        outputs in vec(parameters(), 0..3),
        raw in any::<bool>(),
    ) -> ModelInferRequest {
        let mut raw_input_contents = Vec::new();
        for (index, input) in inputs.iter_mut().enumerate() {
            input.name = format!("input {index}");
            if raw {
                let values = input.contents.take().unwrap().fp32_contents;
                raw_input_contents.push(values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into());
            }
        }
        let output = |(index, parameters)| InferRequestedOutputTensor { name: format!("output {index}"), parameters };
        ModelInferRequest {
            model_name: names.0,
            model_version: names.1,
            id: names.2,
            parameters,
            inputs,
            outputs: outputs.into_iter().enumerate().map(output).collect(),
            raw_input_contents,
        }
    }
}

/// The decoded values of an FP32 input.
fn floats(input: &headgate_protocol::InputTensor<'_>) -> headgate_core::error::Result<Vec<f32>> {
    let mut out = vec![f32::NAN; input.shape.count()];
    input.decode_into(TypedSliceMut::Fp32(&mut out)).map(|()| out)
}

/// Asserts that an envelope equals the message that prost read.
fn same(read: &protobuf::InferRequest<'_>, wanted: &ModelInferRequest) {
    assert_eq!(read.model_name, wanted.model_name);
    assert_eq!(read.model_version.unwrap_or_default(), wanted.model_version);
    let Envelope { id, parameters, inputs, outputs, .. } = &read.envelope;
    assert_eq!(id.as_deref().unwrap_or_default(), wanted.id);
    for (key, value) in &parameters.custom {
        let choice = wanted.parameters[&**key].parameter_choice.clone().unwrap();
        let same = match (value, choice) {
            (ParameterValue::Bool(a), ParameterChoice::BoolParam(b)) => *a == b,
            (ParameterValue::Integer(a), ParameterChoice::Int64Param(b)) => *a == b,
            (ParameterValue::Integer(a), ParameterChoice::Uint64Param(b)) => *a as u64 == b,
            (ParameterValue::Number(a), ParameterChoice::Uint64Param(b)) => *a == b as f64,
            (ParameterValue::Number(a), ParameterChoice::DoubleParam(b)) => a.to_bits() == b.to_bits(),
            (ParameterValue::Text(a), ParameterChoice::StringParam(b)) => *a == b,
            _ => false,
        };
        assert!(same, "{key}");
    }
    assert_eq!(inputs.len(), wanted.inputs.len());
    for (index, (input, wanted_input)) in inputs.iter().zip(&wanted.inputs).enumerate() {
        assert_eq!(input.name, wanted_input.name);
        assert_eq!(input.datatype.as_str(), wanted_input.datatype);
        assert_eq!(input.shape.dims(), wanted_input.shape);
        let contents = wanted_input.contents.clone().unwrap_or_default();
        match input.source {
            ElementSource::Binary(raw) => assert_eq!(raw, &wanted.raw_input_contents[index][..]),
            ElementSource::JsonList(_) | ElementSource::JsonScalar(_) => unreachable!("no JSON in protobuf"),
            ElementSource::ProtobufContents(_) if input.datatype == DataType::Fp32 => match floats(input) {
                Ok(values) => {
                    let bits =
                        |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                    assert_eq!(bits(&values), bits(&contents.fp32_contents));
                }
                Err(error) => assert_eq!(error.code, Code::InvalidArgument),
            },
            ElementSource::ProtobufContents(_) => {}
        }
    }
    let names: Vec<_> = outputs.iter().map(|output| &*output.name).collect();
    assert_eq!(names, wanted.outputs.iter().map(|output| &output.name).collect::<Vec<_>>());
}

/// Whether decoding refuses typed contents, which parsing does not read.
fn refuses_contents(read: &protobuf::InferRequest<'_>) -> bool {
    read.envelope.inputs.iter().any(|input| match (input.source, input.datatype) {
        (ElementSource::ProtobufContents(_), DataType::Fp32) => floats(input).is_err(),
        (ElementSource::ProtobufContents(_), _) => true,
        _ => false,
    })
}

/// Whether a well-formed request must be accepted.
fn is_good(request: &ModelInferRequest) -> bool {
    request.inputs.iter().enumerate().all(|(index, input)| {
        let count = input.shape.iter().product::<i64>() as usize;
        match request.raw_input_contents.get(index) {
            Some(raw) => raw.len() == 4 * count,
            // Wrong lengths are found when the elements are decoded, unless they cannot fit at all.
            None => input.contents.as_ref().unwrap().encoded_len() >= count,
        }
    })
}

proptest! {
    #[test]
    fn what_prost_writes_is_read_as_prost_reads_it(request in request()) {
        let bytes = request.encode_to_vec();
        match protobuf::parse(&bytes, &mut EnvelopeScratch::default()) {
            Ok(read) => {
                prop_assert!(is_good(&request));
                same(&read, &request);
            }
            Err(error) => prop_assert!(!is_good(&request), "{}", error),
        }
        prop_assert_eq!(protobuf::request_id(&bytes), &request.id);
    }

    #[test]
    fn flags_are_found_as_prost_finds_them(request in request(), name in "[ab]{0,2}", value in any::<bool>(), raw in 0..3usize) {
        let mut request = request;
        let flag = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(value)) };
        request.parameters.insert(name.clone(), flag);
        request.raw_input_contents.resize(raw, vec![0x22; 3000].into());
        let bytes = request.encode_to_vec();
        prop_assert_eq!(protobuf::is_flagged(&bytes, &name), value);
        prop_assert!(!protobuf::is_flagged(&bytes, "another"));
    }

    #[test]
    fn a_text_parameter_is_read_by_prost(name in ".{0,150}", text in ".{1,300}") {
        let mut out = ModelInferResponse { id: "i".into(), ..Default::default() }.encode_to_vec();
        protobuf::write_text_parameter(&mut out, &name, &text);
        let read = ModelInferResponse::decode(&out[..]).unwrap();
        let wanted = InferParameter { parameter_choice: Some(ParameterChoice::StringParam(text)) };
        prop_assert_eq!((&*read.id, read.parameters.get(&name)), ("i", Some(&wanted)));
    }

    #[test]
    fn changed_bytes_are_read_as_prost_reads_them(
        request in request(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = request.encode_to_vec();
        prop_assume!(!bytes.is_empty());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if cut.index(4) == 0 {
            bytes.truncate(cut.index(bytes.len()));
        }
        if let Ok(read) = protobuf::parse(&bytes, &mut EnvelopeScratch::default()) {
            match ModelInferRequest::decode(&bytes[..]) {
                Ok(wanted) => same(&read, &wanted),
                Err(error) => prop_assert!(refuses_contents(&read), "prost refuses what was taken: {}", error),
            }
        }
    }

    #[test]
    fn what_is_written_prost_reads(
        names in (".{0,20}", ".{0,300}", ".{0,9}"),
        tensors in vec((".{1,200}", vec(0i64..5, 0..4)), 0..4),
        marks_final in any::<bool>(),
    ) {
        let data: Vec<Vec<f32>> = tensors
            .iter()
            .map(|(_, shape)| (0..shape.iter().product::<i64>()).map(|i| i as f32 * 0.5).collect())
            .collect();
        let outputs: Vec<_> = tensors
            .iter()
            .zip(&data)
            .map(|((name, shape), data)| OutputTensor {
                name,
                datatype: DataType::Fp32,
                shape: ShapeRef::new(shape).unwrap(),
                data: TensorData::Fp32(data),
                binary: true,
                non_finite: NonFinite::Error,
                template: None,
            })
            .collect();
        let head =
            ResponseHead { id: Some(&names.0), model_name: &names.1, model_version: &names.2, template: None };
        let mut out = b"before".to_vec();
        protobuf::write(&mut out, &head, &outputs, marks_final).unwrap();
        let read = ModelInferResponse::decode(&out[6..]).unwrap();
        prop_assert_eq!((&read.id, &read.model_name, &read.model_version), (&names.0, &names.1, &names.2));
        let marked = read.parameters.get("triton_final_response").cloned();
        let wanted = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
        prop_assert_eq!(marked, marks_final.then_some(wanted));
        prop_assert_eq!(read.raw_output_contents.len(), tensors.len());
        for (((name, shape), data), (tensor, raw)) in
            tensors.iter().zip(&data).zip(read.outputs.iter().zip(&read.raw_output_contents))
        {
            prop_assert_eq!((&tensor.name, &tensor.shape), (name, shape));
            prop_assert_eq!(&raw[..], &data.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>()[..]);
        }
    }
}

#[test]
fn any_message_is_taken_or_refused() {
    bolero::check!().with_iterations(iterations(20_000)).with_type::<Vec<u8>>().for_each(|message| {
        if let Ok(read) = protobuf::parse(message, &mut EnvelopeScratch::default()) {
            match ModelInferRequest::decode(&message[..]) {
                Ok(wanted) => same(&read, &wanted),
                Err(error) => assert!(refuses_contents(&read), "prost refuses what was taken: {error}"),
            }
        }
    });
}

/// An input of one datatype with these contents.
fn one(datatype: &str, shape: &[i64], contents: InferTensorContents) -> Vec<u8> {
    let input = InferInputTensor {
        name: "X".into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        contents: Some(contents),
        ..Default::default()
    };
    ModelInferRequest { inputs: vec![input], ..Default::default() }.encode_to_vec()
}

macro_rules! decoded {
    ($variant:ident, $of:ty, $message:expr) => {{
        let message = $message;
        let mut scratch = EnvelopeScratch::default();
        let request = protobuf::parse(&message, &mut scratch).unwrap();
        let input = &request.envelope.inputs[0];
        let mut out = vec![<$of>::default(); input.shape.count()];
        input
            .decode_into(TypedSliceMut::$variant(&mut out))
            .map(|()| out)
            .map_err(|error| error.message.into_owned())
    }};
}

#[test]
fn elements_are_exact_or_refused() {
    let ints = |values: &[i32]| InferTensorContents { int_contents: values.to_vec(), ..Default::default() };
    let uints = |values: &[u32]| InferTensorContents { uint_contents: values.to_vec(), ..Default::default() };
    assert_eq!(decoded!(Int8, i8, one("INT8", &[3], ints(&[-128, 0, 127]))).unwrap(), [-128, 0, 127]);
    assert_eq!(decoded!(Int16, i16, one("INT16", &[2], ints(&[-32768, 5]))).unwrap(), [-32768, 5]);
    assert_eq!(decoded!(Int32, i32, one("INT32", &[2], ints(&[i32::MIN, 1]))).unwrap(), [i32::MIN, 1]);
    assert_eq!(decoded!(Uint8, u8, one("UINT8", &[2], uints(&[0, 255]))).unwrap(), [0, 255]);
    assert_eq!(decoded!(Uint16, u16, one("UINT16", &[1], uints(&[65535]))).unwrap(), [65535]);
    assert_eq!(decoded!(Uint32, u32, one("UINT32", &[1], uints(&[u32::MAX]))).unwrap(), [u32::MAX]);
    let longs = InferTensorContents { int64_contents: vec![i64::MIN, (1 << 53) + 1], ..Default::default() };
    assert_eq!(decoded!(Int64, i64, one("INT64", &[2], longs)).unwrap(), [i64::MIN, (1 << 53) + 1]);
    let longs = InferTensorContents { uint64_contents: vec![u64::MAX], ..Default::default() };
    assert_eq!(decoded!(Uint64, u64, one("UINT64", &[1], longs)).unwrap(), [u64::MAX]);
    let flags = InferTensorContents { bool_contents: vec![true, false], ..Default::default() };
    assert_eq!(decoded!(Bool, u8, one("BOOL", &[2], flags)).unwrap(), [1, 0]);
    let doubles = InferTensorContents { fp64_contents: vec![-0.1], ..Default::default() };
    assert_eq!(decoded!(Fp64, f64, one("FP64", &[1], doubles)).unwrap(), [-0.1]);

    let refused = decoded!(Int8, i8, one("INT8", &[2], ints(&[1, 128]))).unwrap_err();
    assert!(refused.contains("128 is out of range for INT8"), "{refused}");
    let refused = decoded!(Uint8, u8, one("UINT8", &[1], uints(&[256]))).unwrap_err();
    assert!(refused.contains("256 is out of range for UINT8"), "{refused}");
    let refused = decoded!(Int32, i32, one("INT32", &[2], ints(&[1, 2, 3]))).unwrap_err();
    assert!(refused.contains("more elements"), "{refused}");
    let refused = decoded!(Int32, i32, one("INT32", &[2], ints(&[1]))).unwrap_err();
    assert!(refused.contains("fewer elements"), "{refused}");
    let refused = decoded!(Int32, i32, one("INT32", &[1], uints(&[1]))).unwrap_err();
    assert!(refused.contains("belong in int_contents, not in uint_contents"), "{refused}");
}

#[test]
fn strings_may_be_any_bytes() {
    let contents =
        InferTensorContents { bytes_contents: vec![b"a".to_vec(), vec![], vec![0xff]], ..Default::default() };
    let message = one("BYTES", &[3], contents);
    let mut scratch = EnvelopeScratch::default();
    let request = protobuf::parse(&message, &mut scratch).unwrap();
    let mut table = StringTable::default();
    request.envelope.inputs[0].decode_strings(&mut table).unwrap();
    assert_eq!(table.view().iter().collect::<Vec<_>>(), [&b"a"[..], b"", b"\xff"]);
}

#[test]
fn raw_contents_come_one_for_each_input_and_alone() {
    let mut request =
        ModelInferRequest::decode(&one("INT32", &[1], InferTensorContents::default())[..]).unwrap();
    let refused = |request: &ModelInferRequest| {
        protobuf::parse(&request.encode_to_vec(), &mut EnvelopeScratch::default())
            .unwrap_err()
            .message
            .into_owned()
    };
    request.raw_input_contents = vec![vec![1, 0, 0, 0].into()];
    assert!(protobuf::parse(&request.encode_to_vec(), &mut EnvelopeScratch::default()).is_ok());
    request.raw_input_contents.push(vec![].into());
    assert!(refused(&request).contains("1 inputs and 2 raw_input_contents"));
    request.raw_input_contents = vec![vec![1, 0, 0].into()];
    assert!(
        refused(&request)
            .contains("the size of its raw_input_contents is 3, but INT32 of shape [1] has 4 bytes")
    );
    request.raw_input_contents = vec![vec![1, 0, 0, 0].into()];
    request.inputs[0].contents.as_mut().unwrap().int_contents.push(1);
    assert!(refused(&request).contains("send all inputs one way"));
    request.raw_input_contents.clear();
    request.inputs[0].datatype = "FP16".into();
    assert!(refused(&request).contains("FP16 has no typed contents"));
}

#[test]
fn names_are_looked_for_in_a_bounded_number_of_fields() {
    // Field 15, a varint of 0: a field that no version of the protocol has.
    let unknown = [0x78, 0x00];
    let name = b"\x0a\x05model";
    let with = |count: usize| [&unknown.repeat(count)[..], name].concat();
    assert_eq!(protobuf::model_name(&with(8_000)).unwrap().name, "model");
    let error = protobuf::model_name(&with(1 << 20)).unwrap_err();
    assert!(error.message.contains("at most 8192 fields"), "{error}");
    assert_eq!(protobuf::request_id(&unknown.repeat(1 << 20)), "");
}
