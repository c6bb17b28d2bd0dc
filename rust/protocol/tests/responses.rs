//! Responses byte for byte, and the values that a response refuses.

use headgate_core::error::{Code, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef, TensorSpec};
use headgate_protocol::{
    Envelope, EnvelopeScratch, OutputTensor, ResponseHead, ResponseLengths, SelectedOutput, StringTable,
    TensorData, binary, response,
};

const HEAD: ResponseHead<'static> =
    ResponseHead { id: Some("7"), model_name: "m", model_version: "v1", template: None };

fn output<'a>(datatype: DataType, dims: &'a [i64], data: TensorData<'a>, binary: bool) -> OutputTensor<'a> {
    OutputTensor {
        name: "Y",
        datatype,
        shape: ShapeRef::new(dims).expect("a shape"),
        data,
        binary,
        non_finite: NonFinite::Error,
        template: None,
    }
}

fn write(outputs: &[OutputTensor<'_>]) -> Result<(Vec<u8>, ResponseLengths)> {
    let mut out = Vec::new();
    let parts = response::write(&mut out, &HEAD, outputs)?;
    Ok((out, parts))
}

#[test]
fn json_and_binary_outputs_stand_in_one_answer() {
    let (out, parts) = write(&[
        output(DataType::Int16, &[2], TensorData::Int16(&[-1, 258]), true),
        output(DataType::Fp32, &[1, 2], TensorData::Fp32(&[0.1, -3e-9]), false),
        output(DataType::Bool, &[2], TensorData::Uint8(&[1, 0]), false),
        output(DataType::Uint8, &[0], TensorData::Uint8(&[]), true),
    ])
    .unwrap();
    let json = concat!(
        r#"{"id":"7","model_name":"m","model_version":"v1","outputs":["#,
        r#"{"name":"Y","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}},"#,
        r#"{"name":"Y","datatype":"FP32","shape":[1,2],"data":[0.1,-3e-9]},"#,
        r#"{"name":"Y","datatype":"BOOL","shape":[2],"data":[true,false]},"#,
        r#"{"name":"Y","datatype":"UINT8","shape":[0],"parameters":{"binary_data_size":0}}]}"#
    );
    assert_eq!(std::str::from_utf8(&out[..parts.json_len]).unwrap(), json);
    assert_eq!(&out[parts.json_len..], b"\xff\xff\x02\x01");
    assert_eq!(parts, ResponseLengths { json_len: json.len(), total_len: json.len() + 4 });
}

#[test]
fn an_empty_id_is_left_out() {
    for id in [None, Some("")] {
        let mut out = Vec::new();
        response::write(&mut out, &ResponseHead { id, ..HEAD }, &[]).unwrap();
        assert_eq!(out, br#"{"model_name":"m","model_version":"v1","outputs":[]}"#);
    }
}

#[test]
fn what_json_cannot_carry_is_refused_and_binary_carries_it() {
    let cases = [
        (
            DataType::Fp32,
            TensorData::Fp32(&[f32::NAN]),
            Code::InvalidArgument,
            "output \"Y\" has NaN at element 0",
        ),
        (
            DataType::Fp64,
            TensorData::Fp64(&[f64::INFINITY]),
            Code::InvalidArgument,
            "has Infinity at element 0",
        ),
        (
            DataType::Fp64,
            TensorData::Fp64(&[f64::NEG_INFINITY]),
            Code::InvalidArgument,
            "has -Infinity at element 0",
        ),
        (DataType::Fp16, TensorData::Uint16(&[0x7e00]), Code::InvalidArgument, "has NaN at element 0"),
        (DataType::Bf16, TensorData::Raw(&[0x80, 0x7f]), Code::InvalidArgument, "has Infinity at element 0"),
    ];
    for (datatype, data, code, fragment) in cases {
        let error = write(&[output(datatype, &[1], data, false)]).unwrap_err();
        assert_eq!(error.code, code, "{error}");
        assert!(error.message.contains(fragment) && error.message.contains("ask for binary_data"), "{error}");
        assert!(write(&[output(datatype, &[1], data, true)]).is_ok());
    }
}

/// The `data` of a JSON output, and the text in front of it.
fn data(output: OutputTensor<'_>) -> String {
    let (out, _) = write(&[output]).expect("an answer");
    let text = String::from_utf8(out).expect("JSON is text");
    let start = text.find("\"shape\":").expect("an output has a shape");
    text[start..text.len() - 3].to_owned()
}

#[test]
fn an_endpoint_may_have_words_for_what_is_no_number() {
    let values = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1.0];
    let numbers = output(DataType::Fp32, &[4], TensorData::Fp32(&values), false);
    let word = |non_finite| data(OutputTensor { non_finite, ..numbers });
    assert_eq!(word(NonFinite::Null), r#""shape":[4],"data":[null,null,null,1.0]"#);
    assert_eq!(word(NonFinite::String), r#""shape":[4],"data":["NaN","Infinity","-Infinity",1.0]"#);
}

#[test]
fn half_precision_is_written_as_its_exact_value() {
    let halves = TensorData::Uint16(&[0x3c00, 0x2e66, 0x8000]);
    assert_eq!(
        data(output(DataType::Fp16, &[3], halves, false)),
        r#""shape":[3],"data":[1.0,0.099975586,-0.0]"#
    );
    let brains = TensorData::Raw(&[0x80, 0x3f, 0xcd, 0x3d]);
    assert_eq!(data(output(DataType::Bf16, &[2], brains, false)), r#""shape":[2],"data":[1.0,0.100097656]"#);
}

#[test]
fn bytes_that_are_no_text_make_the_tensor_base64() {
    let mut table = StringTable::default();
    table.push(b"\xff");
    table.push(b"text");
    let strings = output(DataType::Bytes, &[2], TensorData::Strings(table.view()), false);
    assert_eq!(data(strings), r#""shape":[2],"parameters":{"encoding":"base64"},"data":["/w==","dGV4dA=="]"#);
}

#[test]
fn data_that_contradicts_its_shape_is_a_defect_and_said() {
    for (datatype, data) in [
        (DataType::Fp32, TensorData::Fp32(&[1.0])),
        (DataType::Fp32, TensorData::Fp64(&[1.0, 2.0])),
        (DataType::Fp32, TensorData::Raw(&[0; 7])),
        (DataType::Bytes, TensorData::Raw(&[0; 8])),
    ] {
        for binary in [true, false] {
            assert_eq!(write(&[output(datatype, &[2], data, binary)]).unwrap_err().code, Code::Internal);
        }
    }
}

#[test]
fn outputs_are_chosen_in_the_models_order_with_their_own_flag_first() {
    let specs: Vec<TensorSpec> = ["A", "B", "C"]
        .map(|name| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: vec![],
            symbols: vec![],
            any_rank: false,
            labels: Vec::new(),
        })
        .into();
    let choose = |rest: &str| {
        let body = format!(r#"{{"inputs":[]{rest}}}"#);
        let mut scratch = EnvelopeScratch::default();
        let envelope = Envelope::parse(binary::split(body.as_bytes(), None).unwrap(), &mut scratch).unwrap();
        let mut chosen = Vec::new();
        envelope.select_outputs(&specs, &mut chosen).unwrap();
        chosen
    };
    let all = |binary| [0, 1, 2].map(|index| SelectedOutput { index, binary, classification: None });
    assert_eq!(choose(""), all(false));
    assert_eq!(choose(r#","outputs":[]"#), all(false));
    assert_eq!(choose(r#","parameters":{"binary_data_output":true}"#), all(true));
    assert_eq!(
        choose(
            r#","parameters":{"binary_data_output":true},"outputs":[{"name":"C","parameters":{"binary_data":false}},{"name":"A"}]"#
        ),
        [
            SelectedOutput { index: 0, binary: true, classification: None },
            SelectedOutput { index: 2, binary: false, classification: None }
        ]
    );
}

#[test]
fn parameters_are_typed_and_keys_come_in_any_order() {
    use headgate_protocol::envelope::ParameterValue::{Bool, Integer, Number, Text};
    let body = concat!(
        r#"{"later":{"a":[1,null,{"b":"\u00e9"}]},"outputs":[],"inputs":[{"data":[[1],[2]],"parameters":{"x":1},"extra":null,"#,
        r#""datatype":"INT8","shape":[2,1],"na\u006de":"X\u00e9"}],"parameters":{"timeout":5,"priority":1,"i":-3,"f":0.5,"#,
        r#""big":18446744073709551615,"s":"t","b":true},"id":"a\"b"}"#
    );
    let mut scratch = EnvelopeScratch::default();
    let envelope = Envelope::parse(binary::split(body.as_bytes(), None).unwrap(), &mut scratch).unwrap();
    assert_eq!(envelope.id.as_deref(), Some("a\"b"));
    assert_eq!((envelope.parameters.timeout_us, envelope.parameters.priority), (Some(5), Some(1)));
    let custom: Vec<_> =
        envelope.parameters.custom.iter().map(|(key, value)| (&**key, value.clone())).collect();
    assert_eq!(
        custom,
        [
            ("i", Integer(-3)),
            ("f", Number(0.5)),
            ("big", Number(18446744073709551615.0)),
            ("s", Text("t".into())),
            ("b", Bool(true))
        ]
    );
    assert_eq!(envelope.inputs[0].name, "Xé");
    assert_eq!(envelope.inputs[0].shape.dims(), [2, 1]);
}
