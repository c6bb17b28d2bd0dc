//! A response from a template is, byte for byte, the one that is written part by part: on each wire, for each datatype, for outputs that
//! fit their template and for those that do not.

use headgate_core::spec::NonFinite;
use headgate_core::tensor::{DataType, ShapeRef, TensorSpec};
use headgate_protocol::envelope::InputForm;
use headgate_protocol::{
    OutputTensor, ResponseHead, ResponseTemplate, StringTable, TensorData, predict, protobuf, response,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// An output of a version, and what a run gave for it.
#[derive(Clone, Debug)]
struct Case {
    spec: TensorSpec,
    datatype: DataType,
    dims: Vec<i64>,
    /// The elements as bytes, or one string for each.
    bytes: Vec<u8>,
    strings: Vec<Vec<u8>>,
    binary: bool,
    non_finite: NonFinite,
}

fn case() -> impl Strategy<Value = Case> {
    let name = prop_oneof!["[a-z]{1,12}", ".{0,9}"];
    let spec = (name, select(DataType::ALL.to_vec()), vec(-1..4_i64, 0..4), prop::bool::weighted(0.1));
    let given = (select(DataType::ALL.to_vec()), vec(0..4_i64, 0..4), any::<[bool; 3]>(), 0..300_i64);
    let written = (any::<bool>(), select(vec![NonFinite::Null, NonFinite::String, NonFinite::Error]));
    (spec, given, written, vec(any::<u8>(), 8), any::<bool>()).prop_map(
        |((name, declared, shape, any_rank), given, (binary, non_finite), seed, is_text)| {
            let (other_type, other_dims, [same_type, same_inner, is_large], rows) = given;
            let datatype = if same_type { declared } else { other_type };
            let mut dims = other_dims;
            if same_inner && !shape.is_empty() {
                dims = shape.iter().map(|&dim| dim.max(0)).collect();
                dims[0] = if is_large { rows } else { rows % 3 };
            }
            let count = dims.iter().product::<i64>() as usize;
            let random =
                (0..count * datatype.size().unwrap_or(0)).map(|at| seed[at % 8].wrapping_mul(at as u8 | 1));
            let string = |at| if is_text { format!("s{at}").into_bytes() } else { vec![at as u8, 0xff] };
            Case {
                spec: TensorSpec {
                    name,
                    datatype: declared,
                    shape,
                    symbols: vec![],
                    any_rank,
                    labels: vec![],
                },
                bytes: random.collect(),
                strings: (0..count).map(string).collect(),
                datatype,
                dims,
                binary,
                non_finite,
            }
        },
    )
}

/// The bytes and the outcome of each writer.
fn written(
    head: &ResponseHead<'_>,
    outputs: &[OutputTensor<'_>],
    rows: usize,
    marks_final: bool,
) -> Vec<(Vec<u8>, Result<String, String>)> {
    let mut all = Vec::new();
    let mut note = |out: Vec<u8>, result: headgate_core::error::Result<String>| {
        all.push((out, result.map_err(|error| error.to_string())));
    };
    let mut out = b"before".to_vec();
    let lengths = response::write(&mut out, head, outputs).map(|lengths| format!("{lengths:?}"));
    note(out, lengths);
    for form in [InputForm::Rows(b""), InputForm::Columns(b"")] {
        let mut out = b"before".to_vec();
        let done = predict::write(&mut out, form, rows, outputs).map(|()| String::new());
        note(out, done);
    }
    let mut out = b"before".to_vec();
    let done = protobuf::write(&mut out, head, outputs, marks_final).map(|()| String::new());
    note(out, done);
    all
}

proptest! {
    #[test]
    fn a_template_changes_no_byte(
        (cases, chosen) in vec(case(), 0..5).prop_flat_map(|cases| {
            let all: Vec<usize> = (0..cases.len()).collect();
            let count = all.len();
            (Just(cases), subsequence(all, 0..=count))
        }),
        names in (".{0,9}", "[a-z0-9-]{1,200}", ".{0,9}"),
        has_id: bool,
        rows in 0..3_usize,
        marks_final: bool,
    ) {
        let specs: Vec<TensorSpec> = cases.iter().map(|case| case.spec.clone()).collect();
        let template = ResponseTemplate::new(&names.1, &names.2, &specs);
        let tables: Vec<StringTable> = cases.iter().map(|case| {
            let mut table = StringTable::default();
            case.strings.iter().for_each(|string| table.push(string));
            table
        }).collect();
        let tensor = |index: usize, template| {
            let case = &cases[index];
            let data = match case.datatype {
                DataType::Bytes => TensorData::Strings(tables[index].view()),
                _ => TensorData::Raw(&case.bytes),
            };
            OutputTensor {
                name: &case.spec.name,
                datatype: case.datatype,
                shape: ShapeRef::new(&case.dims).unwrap(),
                data,
                binary: case.binary,
                non_finite: case.non_finite,
                template,
            }
        };
        let by_template: Vec<_> = chosen.iter().map(|&index| tensor(index, template.output(index))).collect();
        let by_parts: Vec<_> = chosen.iter().map(|&index| tensor(index, None)).collect();
        let id = has_id.then_some(names.0.as_str());
        let plain = ResponseHead { id, model_name: &names.1, model_version: &names.2, template: None };
        let templated = ResponseHead { template: Some(&template), ..plain };
        prop_assert_eq!(
            written(&templated, &by_template, rows, marks_final),
            written(&plain, &by_parts, rows, marks_final)
        );
    }
}

#[test]
fn an_output_with_open_rows_has_a_template_and_one_with_open_columns_has_none() {
    let spec = |datatype, shape: &[i64], any_rank| TensorSpec {
        name: "y".into(),
        datatype,
        shape: shape.into(),
        symbols: vec![],
        any_rank,
        labels: vec![],
    };
    let specs = [
        spec(DataType::Fp32, &[-1, 10], false),
        spec(DataType::Int64, &[-1], false),
        spec(DataType::Fp32, &[-1, -1], false),
        spec(DataType::Bytes, &[-1], false),
        spec(DataType::Fp32, &[], false),
        spec(DataType::Fp32, &[-1], true),
    ];
    let template = ResponseTemplate::new("m", "1", &specs);
    let has = (0..7).map(|index| template.output(index).is_some());
    assert_eq!(has.collect::<Vec<_>>(), [true, true, false, false, false, false, false]);
}
