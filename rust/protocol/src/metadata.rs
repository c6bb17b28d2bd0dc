//! The small JSON bodies beside inference: server and model metadata, health, errors.
//!
//! Each function appends to a buffer.

use headgate_core::error::Error;
use headgate_core::tensor::{Signature, TensorSpec};

use crate::json_string::write_json;
use crate::response::write_integer;

/// The protocol's extensions that Headgate supports, as `GET /v2` lists them.
pub const EXTENSIONS: [&str; 6] = [
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
];

/// The content of `GET /v2/models/{endpoint}`.
#[derive(Clone, Copy, Debug)]
pub struct ModelMetadata<'a> {
    /// The endpoint.
    pub name: &'a str,
    /// The versions that can be addressed.
    pub versions: &'a [&'a str],
    /// The platform that runs it, such as `onnxruntime_onnx`.
    pub platform: &'a str,
    /// Inputs and outputs; a dimension of any size is `-1`.
    pub signature: &'a Signature,
}

/// Appends the body of `GET /v2`.
pub fn write_server(out: &mut Vec<u8>, name: &str, version: &str) {
    out.extend_from_slice(b"{\"name\":");
    write_json(name, out);
    out.extend_from_slice(b",\"version\":");
    write_json(version, out);
    out.extend_from_slice(b",\"extensions\":");
    write_strings(out, &EXTENSIONS);
    out.push(b'}');
}

/// Appends the body of `GET /v2/models/{endpoint}`.
pub fn write_model(out: &mut Vec<u8>, metadata: &ModelMetadata<'_>) {
    out.extend_from_slice(b"{\"name\":");
    write_json(metadata.name, out);
    out.extend_from_slice(b",\"versions\":");
    write_strings(out, metadata.versions);
    out.extend_from_slice(b",\"platform\":");
    write_json(metadata.platform, out);
    out.extend_from_slice(b",\"inputs\":");
    write_tensors(
        out,
        metadata
            .signature
            .inputs
            .iter()
            .map(|spec| (spec, false))
            .chain(metadata.signature.optional_inputs.iter().map(|spec| (spec, true))),
    );
    out.extend_from_slice(b",\"outputs\":");
    write_tensors(out, metadata.signature.outputs.iter().map(|spec| (spec, false)));
    out.push(b'}');
}

/// Appends the body of `GET /v2/health/live`.
pub fn write_live(out: &mut Vec<u8>, live: bool) {
    out.extend_from_slice(if live { b"{\"live\":true}" } else { b"{\"live\":false}" });
}

/// Appends the body of `GET /v2/health/ready`.
pub fn write_ready(out: &mut Vec<u8>, ready: bool) {
    out.extend_from_slice(if ready { b"{\"ready\":true}" } else { b"{\"ready\":false}" });
}

/// Appends the body of `GET /v2/models/{endpoint}/ready`.
pub fn write_model_ready(out: &mut Vec<u8>, name: &str, ready: bool) {
    out.extend_from_slice(b"{\"name\":");
    write_json(name, out);
    out.extend_from_slice(if ready { b",\"ready\":true}" } else { b",\"ready\":false}" });
}

/// Appends the body of an error: its message and its code.
pub fn write_error(out: &mut Vec<u8>, error: &Error) {
    out.extend_from_slice(b"{\"error\":");
    write_json(&error.message, out);
    out.extend_from_slice(b",\"code\":\"");
    out.extend_from_slice(error.code.as_str().as_bytes());
    out.extend_from_slice(b"\"}");
}

fn write_strings(out: &mut Vec<u8>, texts: &[&str]) {
    out.push(b'[');
    for (index, text) in texts.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_json(text, out);
    }
    out.push(b']');
}

/// Appends tensors. The flag says that a request may leave the tensor out.
fn write_tensors<'a>(out: &mut Vec<u8>, specs: impl Iterator<Item = (&'a TensorSpec, bool)>) {
    out.push(b'[');
    for (index, (spec, is_optional)) in specs.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write_json(&spec.name, out);
        out.extend_from_slice(b",\"datatype\":\"");
        out.extend_from_slice(spec.datatype.as_str().as_bytes());
        out.extend_from_slice(b"\",\"shape\":[");
        for (axis, &dim) in spec.shape.iter().enumerate() {
            if axis > 0 {
                out.push(b',');
            }
            write_integer(out, dim < 0, dim.unsigned_abs());
        }
        out.extend_from_slice(if is_optional { b"],\"parameters\":{\"optional\":true}}" } else { b"]}" });
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use headgate_core::error::Code;
    use headgate_core::tensor::DataType;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        serde_json::from_slice::<serde_json::Value>(&out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn bodies_are_what_the_protocol_says() {
        assert_eq!(
            written(|out| write_server(out, "headgate", "0.1.0")),
            concat!(
                r#"{"name":"headgate","version":"0.1.0","extensions":["binary_tensor_data","classification","#,
                r#""model_configuration","model_repository","parameters","statistics"]}"#
            )
        );
        let spec = |name: &str, shape: &[i64]| TensorSpec {
            name: name.into(),
            datatype: DataType::Fp32,
            shape: shape.into(),
            symbols: vec![],
            any_rank: false,
            labels: Vec::new(),
        };
        let signature = Signature {
            inputs: vec![spec("X", &[-1, 64])],
            outputs: vec![spec("Y", &[])],
            optional_inputs: vec![spec("k", &[1])],
        };
        let metadata = ModelMetadata {
            name: "digits",
            versions: &["1", "2"],
            platform: "onnxruntime_onnx",
            signature: &signature,
        };
        assert_eq!(
            written(|out| write_model(out, &metadata)),
            concat!(
                r#"{"name":"digits","versions":["1","2"],"platform":"onnxruntime_onnx","#,
                r#""inputs":[{"name":"X","datatype":"FP32","shape":[-1,64]},"#,
                r#"{"name":"k","datatype":"FP32","shape":[1],"parameters":{"optional":true}}],"#,
                r#""outputs":[{"name":"Y","datatype":"FP32","shape":[]}]}"#
            )
        );
        assert_eq!(written(|out| write_live(out, true)), r#"{"live":true}"#);
        assert_eq!(written(|out| write_ready(out, false)), r#"{"ready":false}"#);
        assert_eq!(written(|out| write_model_ready(out, "m", true)), r#"{"name":"m","ready":true}"#);
        let refusal = Error::new(Code::ModelNotFound, "no \"x\"\n\u{1}");
        assert_eq!(
            written(|out| write_error(out, &refusal)),
            r#"{"error":"no \"x\"\n\u0001","code":"model_not_found"}"#
        );
    }
}
