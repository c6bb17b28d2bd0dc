//! Whether two answers have the same values. The id of a request and the version that answered may differ.
//!
//! Numbers may differ by rounding: a server that runs several requests together adds in another order.

use headgate_protocol::pb::inference::{ModelInferResponse, ModelStreamInferResponse};
use prost::Message;
use serde_json::Value;

use crate::reply::BodyForm;

/// How far two numbers may be apart, relative to the larger.
const RELATIVE: f64 = 1e-5;
/// How far numbers near 0 may be apart.
const ABSOLUTE: f64 = 1e-6;

/// Whether two answers have the same values. An answer that cannot be read is the same as one with the same bytes only.
pub(super) fn same(one: (&[u8], BodyForm), other: (&[u8], BodyForm)) -> bool {
    if one.0 == other.0 {
        return true;
    }
    match (one.1, other.1) {
        (BodyForm::Json, BodyForm::Json) => same_json(one.0, other.0).unwrap_or(false),
        (BodyForm::Binary { json_bytes }, BodyForm::Binary { json_bytes: of_other }) => {
            same_binary(one.0.split_at_checked(json_bytes), other.0.split_at_checked(of_other))
                .unwrap_or(false)
        }
        (BodyForm::Infer, BodyForm::Infer) => {
            let [one, other] = [one.0, other.0].map(ModelInferResponse::decode);
            matches!((one, other), (Ok(one), Ok(other)) if same_messages(&one, &other))
        }
        (BodyForm::StreamInfer, BodyForm::StreamInfer) => {
            let [one, other] = [one.0, other.0].map(|bytes| ModelStreamInferResponse::decode(bytes).ok());
            let [one, other] = [one, other].map(|message| message.and_then(|message| message.infer_response));
            matches!((one, other), (Some(one), Some(other)) if same_messages(&one, &other))
        }
        _ => false,
    }
}

fn near(one: f64, other: f64) -> bool {
    one == other
        || (one.is_nan() && other.is_nan())
        || (one - other).abs() <= ABSOLUTE + RELATIVE * one.abs().max(other.abs())
}

/// The values of an answer in JSON: its outputs or predictions, or all of it.
fn values_of(bytes: &[u8]) -> Option<Value> {
    let mut value: Value = serde_json::from_slice(bytes).ok()?;
    let outputs =
        ["outputs", "predictions"].into_iter().find_map(|name| value.get_mut(name).map(Value::take));
    Some(outputs.unwrap_or(value))
}

fn same_json(one: &[u8], other: &[u8]) -> Option<bool> {
    Some(same_value(&values_of(one)?, &values_of(other)?))
}

fn same_value(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other
                || matches!((one.as_f64(), other.as_f64()), (Some(one), Some(other)) if near(one, other))
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same_value(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| same_value(value, other)))
        }
        _ => one == other,
    }
}

/// Compares JSON in front, and the tensors behind it in the order of the outputs.
fn same_binary(one: Option<(&[u8], &[u8])>, other: Option<(&[u8], &[u8])>) -> Option<bool> {
    let ((one, mut one_tail), (other, mut other_tail)) = (one?, other?);
    let (one, other) = (values_of(one)?, values_of(other)?);
    if !same_value(&one, &other) {
        return Some(false);
    }
    for output in one.as_array()? {
        let Some(bytes) = output.pointer("/parameters/binary_data_size").and_then(Value::as_u64) else {
            continue;
        };
        let bytes = usize::try_from(bytes).ok()?;
        let (tensor, rest) = one_tail.split_at_checked(bytes)?;
        let (other_tensor, other_rest) = other_tail.split_at_checked(bytes)?;
        if !same_tensor(output.get("datatype")?.as_str()?, tensor, other_tensor) {
            return Some(false);
        }
        (one_tail, other_tail) = (rest, other_rest);
    }
    Some(one_tail == other_tail)
}

/// Compares raw elements; those of other types than floats must be the same bytes.
fn same_tensor(datatype: &str, one: &[u8], other: &[u8]) -> bool {
    let chunks = |bytes: usize| one.chunks(bytes).zip(other.chunks(bytes));
    one == other
        || one.len() == other.len()
            && match datatype {
                "FP32" => chunks(4).all(|(one, other)| {
                    let value = |bytes: &[u8]| bytes.try_into().map(f32::from_le_bytes).map(f64::from);
                    matches!((value(one), value(other)), (Ok(one), Ok(other)) if near(one, other))
                }),
                "FP64" => chunks(8).all(|(one, other)| {
                    let value = |bytes: &[u8]| bytes.try_into().map(f64::from_le_bytes);
                    matches!((value(one), value(other)), (Ok(one), Ok(other)) if near(one, other))
                }),
                _ => false,
            }
}

fn same_messages(one: &ModelInferResponse, other: &ModelInferResponse) -> bool {
    let raw = one.raw_output_contents.iter().zip(&other.raw_output_contents);
    one.outputs == other.outputs
        && one.raw_output_contents.len() == other.raw_output_contents.len()
        && raw.zip(&one.outputs).all(|((one, other), output)| same_tensor(&output.datatype, one, other))
}

#[cfg(test)]
mod tests {
    use headgate_protocol::pb::inference::model_infer_response::InferOutputTensor;

    use super::*;

    fn json(one: &str, other: &str) -> bool {
        same((one.as_bytes(), BodyForm::Json), (other.as_bytes(), BodyForm::Json))
    }

    #[test]
    fn ids_and_rounding_make_no_difference_and_values_do() {
        let answer = |id: &str, value: &str| {
            format!(r#"{{"id":"{id}","outputs":[{{"name":"y","data":[1,{value}]}}]}}"#)
        };
        assert!(json(&answer("a", "0.25"), &answer("b", "0.2500001")));
        assert!(!json(&answer("a", "0.25"), &answer("a", "0.26")));
        assert!(!json(&answer("a", "0.25"), &answer("a", "0.25,3")));
        assert!(!json(&answer("a", "0.25"), "not json"));
        assert!(!json(r#"{"predictions":[1]}"#, r#"{"predictions":[2]}"#));
    }

    #[test]
    fn tensors_behind_json_are_compared_by_their_type() {
        let head =
            r#"{"outputs":[{"name":"y","datatype":"FP32","shape":[1],"parameters":{"binary_data_size":4}}]}"#;
        let answer = |value: f32| [head.as_bytes(), &value.to_le_bytes()].concat();
        let form = BodyForm::Binary { json_bytes: head.len() };
        let pair = |one: f32, other: f32| same((&answer(one), form), (&answer(other), form));
        assert!(pair(1.0, 1.000_001));
        assert!(!pair(1.0, 1.1));
        assert!(!same((&answer(1.0)[..head.len() + 2], form), (&answer(1.0), form)));
    }

    #[test]
    fn messages_are_compared_without_id_and_version() {
        let answer = |id: &str, value: f64| {
            let output = InferOutputTensor { datatype: "FP64".into(), shape: vec![1], ..Default::default() };
            let message = ModelInferResponse {
                id: id.into(),
                outputs: vec![output],
                raw_output_contents: vec![value.to_le_bytes().to_vec().into()],
                ..Default::default()
            };
            message.encode_to_vec()
        };
        let pair = |one: &[u8], other: &[u8]| same((one, BodyForm::Infer), (other, BodyForm::Infer));
        assert!(pair(&answer("a", 2.0), &answer("b", 2.0)));
        assert!(!pair(&answer("a", 2.0), &answer("a", 2.5)));
        assert!(!pair(&answer("a", 2.0), b"\xff"));
    }
}
