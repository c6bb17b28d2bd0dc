//! Checks the names of tensors, classes and columns in a document against the models.

use headgate_core::comparison::Comparison;
use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::EndpointSpec;
use headgate_core::tensor::{DataType, Signature, TensorSpec};

/// Checks a spec against the signatures of its versions.
///
/// # Errors
/// `policy_invalid` if the names of classes or columns do not fit their tensor, if a shadow compares what is no output or is no number,
/// or if something must be left out that is in no tensor.
pub(super) fn check(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    labels(spec, signatures)?;
    columns(spec, signatures)?;
    compared(spec, signatures)?;
    redacted(spec, signatures)
}

/// `policy_invalid` for the part of the document at `path`.
pub(super) fn invalid(path: &str, reason: impl std::fmt::Display) -> Error {
    Error::new(Code::PolicyInvalid, format!("{path}: {reason}"))
}

fn labels(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let outputs: Vec<&TensorSpec> = signatures.iter().flat_map(|signature| &signature.outputs).collect();
    for (tensor, names) in &spec.labels {
        let path = format!("labels.{tensor}");
        let found = tensors_named(&outputs, tensor)
            .map_err(|known| invalid(&path, format!("is no output of any version; there are {known}")))?;
        for output in found {
            if let Some(classes) = classes(output).filter(|&classes| classes != names.len()) {
                let count = names.len();
                return Err(invalid(
                    &path,
                    format!("has {count} names, and the output has {classes} classes"),
                ));
            }
        }
    }
    Ok(())
}

fn compared(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let outputs: Vec<&TensorSpec> = signatures.iter().flat_map(|signature| &signature.outputs).collect();
    for shadow in &spec.shadows {
        for (name, comparison) in &shadow.compare {
            let path = format!("traffic.shadow[{}].compare.{name}", shadow.to);
            let found = tensors_named(&outputs, name)
                .map_err(|known| invalid(&path, format!("is no output of any version; there are {known}")))?;
            let is_text = found.iter().any(|output| output.datatype == DataType::Bytes);
            if is_text && *comparison != Comparison::Exact {
                return Err(invalid(&path, "compares numbers, and the output holds strings; write exact"));
            }
        }
    }
    Ok(())
}

/// A name that is in no tensor would leave nothing out, and nobody would see it.
fn redacted(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let tensors = tensors(signatures);
    let shadows =
        spec.shadows.iter().map(|shadow| (format!("traffic.shadow[{}]", shadow.to), &shadow.redact));
    let capture = spec.capture.iter().map(|capture| ("capture".to_owned(), &capture.redact));
    for (path, names) in shadows.chain(capture) {
        for name in names {
            let is_column = spec.columns.iter().any(|(tensor, columns)| {
                let column = name.strip_prefix(tensor.as_str()).and_then(|rest| rest.strip_prefix('.'));
                column.is_some_and(|column| columns.iter().any(|known| known == column))
            });
            if !is_column {
                tensors_named(&tensors, name).map_err(|known| {
                    let reason = format!(
                        "{name:?} is no tensor of any version and no declared column; there are {known}"
                    );
                    invalid(&format!("{path}.redact"), reason)
                })?;
            }
        }
    }
    Ok(())
}

fn tensors<'a>(signatures: &[&'a Signature]) -> Vec<&'a TensorSpec> {
    signatures.iter().flat_map(|signature| signature.all_inputs().chain(&signature.outputs)).collect()
}

fn columns(spec: &EndpointSpec, signatures: &[&Signature]) -> Result<()> {
    let tensors = tensors(signatures);
    for (tensor, names) in &spec.columns {
        let path = format!("columns.{tensor}");
        let found = tensors_named(&tensors, tensor)
            .map_err(|known| invalid(&path, format!("is no tensor of any version; there are {known}")))?;
        for tensor in found {
            let count = names.len();
            match row_elements(tensor) {
                Some(elements) if elements == count => {}
                Some(elements) => {
                    return Err(invalid(
                        &path,
                        format!("has {count} names, and a row has {elements} elements"),
                    ));
                }
                None => {
                    let reason = "has names, but the model leaves open how many elements a row has";
                    return Err(invalid(&path, reason));
                }
            }
        }
    }
    Ok(())
}

/// The tensors with this name.
///
/// # Errors
/// The known names, if there is no such tensor.
fn tensors_named<'a>(
    tensors: &[&'a TensorSpec],
    name: &str,
) -> std::result::Result<Vec<&'a TensorSpec>, String> {
    let found: Vec<_> = tensors.iter().filter(|tensor| tensor.name == name).copied().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let mut known: Vec<&str> = tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    known.sort_unstable();
    known.dedup();
    Err(known.join(", "))
}

/// The number of classes of an output, which is the number of elements of a row; `None` if the shape leaves it open. A shape with one
/// dimension is one row.
fn classes(output: &TensorSpec) -> Option<usize> {
    if output.shape.len() > 1 || output.any_rank { row_elements(output) } else { product(&output.shape) }
}

/// The number of elements of a row; `None` if the model leaves it open.
fn row_elements(tensor: &TensorSpec) -> Option<usize> {
    if tensor.any_rank { None } else { product(tensor.shape.get(1..).unwrap_or_default()) }
}

fn product(sizes: &[i64]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |product, &size| product.checked_mul(usize::try_from(size).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, datatype: DataType, shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: name.into(),
            datatype,
            shape: shape.into(),
            symbols: Vec::new(),
            any_rank: false,
            labels: Vec::new(),
        }
    }

    /// A model with the input `x` of two columns, and the outputs `y` (numbers) and `s` (strings).
    fn checked(shadow: &str, capture: &str) -> Result<()> {
        let json = format!(
            r#"{{"name": "e", "revision": 1,
                "spec": {{"versions": {{"v1": {{"digest": "1"}}, "v2": {{"digest": "2"}}}},
                    "traffic": {{"champion": "v1", "shadow": [{{"to": "v2", "share": 1, {shadow}}}]}},
                    "columns": {{"x": ["amount", "iban"]}}, "limits": {{"timeout": 1}},
                    "capture": {{"share": 1, "keep": 1, "max_size": 1, {capture}}}}},
                "traffic": {{"champion": "v1", "last_good": "v1"}},
                "load": {{"versions": ["v1", "v2"], "artifacts": {{"v1": "1", "v2": "2"}}}}}}"#
        );
        let signature = Signature {
            inputs: vec![tensor("x", DataType::Fp32, &[-1, 2])],
            outputs: vec![tensor("y", DataType::Fp32, &[-1, 3]), tensor("s", DataType::Bytes, &[-1])],
            ..Signature::default()
        };
        check(&EndpointSpec::from_json(json.as_bytes())?, &[&signature, &signature])
    }

    #[test]
    fn compared_outputs_exist_and_are_numbers_unless_compared_exactly() {
        let none = r#""redact": []"#;
        assert!(checked(r#""compare": {"y": {"label": true}, "s": {"exact": true}}"#, none).is_ok());
        let error = checked(r#""compare": {"z": {"label": true}}"#, none).unwrap_err();
        assert_eq!(error.code, Code::PolicyInvalid);
        let wanted = "traffic.shadow[v2].compare.z: is no output of any version; there are s, y";
        assert_eq!(error.message, wanted);
        let error = checked(r#""compare": {"s": {"top": 2}}"#, none).unwrap_err();
        assert!(error.message.contains("holds strings; write exact"), "{error}");
    }

    #[test]
    fn what_is_left_out_is_a_tensor_or_a_declared_column() {
        for redact in [r#"["x"]"#, r#"["x.iban", "y"]"#, r#"["s"]"#] {
            let redact = format!(r#""redact": {redact}"#);
            assert!(checked(&redact, &redact).is_ok(), "{redact}");
        }
        let (fine, wrong) = (r#""redact": ["x"]"#, r#""redact": ["x.ibann"]"#);
        let error = checked(wrong, fine).unwrap_err();
        let wanted =
            "traffic.shadow[v2].redact: \"x.ibann\" is no tensor of any version and no declared column";
        assert!(error.message.starts_with(wanted), "{error}");
        let error = checked(fine, wrong).unwrap_err();
        assert!(error.message.starts_with("capture.redact: "), "{error}");
    }

    #[test]
    fn classes_are_the_values_of_a_row() {
        for (shape, wanted) in [
            (&[-1, 1000, 1, 1][..], Some(1000)),
            (&[-1, 4, 10], Some(40)),
            (&[10], Some(10)),
            (&[-1, 2, -1], None),
            (&[-1], None),
        ] {
            assert_eq!(classes(&tensor("y", DataType::Fp32, shape)), wanted, "{shape:?}");
        }
    }
}
