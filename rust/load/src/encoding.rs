//! Messages of gRPC from the envelope of a request in JSON and its tensors as bytes.

use std::collections::HashMap;

use headgate_core::error::{Error, Result};
use headgate_protocol::pb::inference::infer_parameter::ParameterChoice;
use headgate_protocol::pb::inference::model_infer_request::InferInputTensor;
use headgate_protocol::pb::inference::{InferParameter, ModelInferRequest};
use prost::Message;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::plan::from_json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope {
    model_name: String,
    #[serde(default)]
    model_version: String,
    #[serde(default)]
    id: String,
    inputs: Vec<Input>,
    #[serde(default)]
    parameters: Map<String, Value>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input {
    name: String,
    datatype: String,
    shape: Vec<i64>,
}

/// The bytes of a `ModelInferRequest`: `envelope` is that of REST without data, `raw_inputs` has the elements of each input as they are
/// sent (little-endian, row-major; BYTES with 4 bytes of length in front of each).
///
/// # Errors
/// `invalid_argument` with the place of what is wrong in the envelope, or if there is not one tensor for each input.
pub fn encode_grpc_infer(envelope: &str, raw_inputs: Vec<Vec<u8>>) -> Result<Vec<u8>> {
    let envelope: Envelope = from_json(envelope)?;
    if envelope.inputs.len() != raw_inputs.len() {
        return Err(Error::invalid(format!(
            "raw_inputs: must have one entry for each of the {} inputs, got {}",
            envelope.inputs.len(),
            raw_inputs.len()
        )));
    }
    let parameters = envelope.parameters.into_iter().map(|(name, value)| {
        let choice = choice_of(&value).ok_or_else(|| {
            Error::invalid(format!("parameters.{name}: must be a boolean, a number or a string, got {value}"))
        })?;
        Ok((name, InferParameter { parameter_choice: Some(choice) }))
    });
    let message = ModelInferRequest {
        model_name: envelope.model_name,
        model_version: envelope.model_version,
        id: envelope.id,
        parameters: parameters.collect::<Result<HashMap<_, _>>>()?,
        inputs: envelope
            .inputs
            .into_iter()
            .map(|Input { name, datatype, shape }| InferInputTensor {
                name,
                datatype,
                shape,
                ..Default::default()
            })
            .collect(),
        outputs: Vec::new(),
        raw_input_contents: raw_inputs.into_iter().map(Into::into).collect(),
    };
    Ok(message.encode_to_vec())
}

fn choice_of(value: &Value) -> Option<ParameterChoice> {
    match value {
        Value::Bool(value) => Some(ParameterChoice::BoolParam(*value)),
        Value::String(value) => Some(ParameterChoice::StringParam(value.clone())),
        Value::Number(value) => {
            let whole = value.as_i64().map(ParameterChoice::Int64Param);
            whole
                .or_else(|| value.as_u64().map(ParameterChoice::Uint64Param))
                .or_else(|| value.as_f64().map(ParameterChoice::DoubleParam))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_envelope_and_its_tensors_are_a_message() {
        let envelope = r#"{"model_name":"digits","model_version":"v2","id":"7","parameters":{"a":true,"b":-1,"c":0.5,"d":"x"},
            "inputs":[{"name":"X","datatype":"FP32","shape":[1,2]}]}"#;
        let bytes = encode_grpc_infer(envelope, vec![vec![1, 2, 3]]).unwrap();
        let read = ModelInferRequest::decode(&*bytes).unwrap();
        assert_eq!((&*read.model_name, &*read.model_version, &*read.id), ("digits", "v2", "7"));
        assert_eq!((&*read.inputs[0].name, &read.inputs[0].shape), ("X", &vec![1, 2]));
        assert_eq!(&*read.raw_input_contents[0], [1, 2, 3]);
        let choice = |name: &str| read.parameters[name].parameter_choice.clone();
        assert_eq!(choice("b"), Some(ParameterChoice::Int64Param(-1)));
        assert_eq!(choice("c"), Some(ParameterChoice::DoubleParam(0.5)));
    }

    #[test]
    fn what_does_not_fit_is_refused_with_its_place() {
        let refusal = |envelope: &str, raw: usize| {
            encode_grpc_infer(envelope, vec![Vec::new(); raw]).unwrap_err().message.to_string()
        };
        let input = r#"{"name":"X","datatype":"FP32","shape":[1]}"#;
        assert_eq!(
            refusal(&format!(r#"{{"model_name":"m","inputs":[{input}]}}"#), 2),
            "raw_inputs: must have one entry for each of the 1 inputs, got 2"
        );
        assert!(
            refusal(r#"{"model_name":"m","inputs":[{"name":1}]}"#, 0)
                .starts_with("inputs[0].name: invalid type")
        );
        let parameter = r#"{"model_name":"m","inputs":[],"parameters":{"a":[1]}}"#;
        assert!(refusal(parameter, 0).starts_with("parameters.a: must be a boolean"));
    }
}
