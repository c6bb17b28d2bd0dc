//! The responses of `:predict` and of `GET /v1/models/{endpoint}`.

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::ShapeRef;

use crate::envelope::InputForm;
use crate::json_string::write_json;
use crate::response::{ListStyle, OutputTensor, StringStyle, elements, write_key};

/// Appends the response to a request of that form with `count` rows.
///
/// # Errors
/// `unsupported` in row form for outputs that do not have a row for each row of the request; else as
/// [`crate::response::write`].
pub fn write(
    out: &mut Vec<u8>,
    form: InputForm<'_>,
    count: usize,
    outputs: &[OutputTensor<'_>],
) -> Result<()> {
    let start = out.len();
    let result = match form {
        InputForm::Columns(_) => write_columns(out, outputs),
        _ => write_rows(out, count, outputs),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn write_rows(out: &mut Vec<u8>, count: usize, outputs: &[OutputTensor<'_>]) -> Result<()> {
    if let Some(mismatched) =
        outputs.iter().find(|output| output.shape.rank() == 0 || output.shape.rows() != count)
    {
        return Err(Error::new(
            Code::Unsupported,
            format!(
                "output {:?} has shape {:?}, which is no row for each instance; ask in column form (\"inputs\")",
                mismatched.name, mismatched.shape
            ),
        ));
    }
    out.extend_from_slice(b"{\"predictions\":[");
    match outputs {
        [output] => write_list(out, output, output.shape)?,
        _ => {
            for row in 0..count {
                if row > 0 {
                    out.push(b',');
                }
                write_object(out, outputs, |out, output| {
                    write_value(out, &output.row(row), output.shape.row())
                })?;
            }
        }
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

fn write_columns(out: &mut Vec<u8>, outputs: &[OutputTensor<'_>]) -> Result<()> {
    out.extend_from_slice(b"{\"outputs\":");
    match outputs {
        [output] => write_value(out, output, output.shape)?,
        _ => write_object(out, outputs, |out, output| write_value(out, output, output.shape))?,
    }
    out.push(b'}');
    Ok(())
}

/// Appends an object with a value for each output.
fn write_object(
    out: &mut Vec<u8>,
    outputs: &[OutputTensor<'_>],
    mut write: impl FnMut(&mut Vec<u8>, &OutputTensor<'_>) -> Result<()>,
) -> Result<()> {
    out.push(b'{');
    for (index, output) in outputs.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        match output.template {
            Some(template) => template.write_key(out),
            None => write_key(out, output.name),
        }
        write(out, output)?;
    }
    out.push(b'}');
    Ok(())
}

/// Appends a tensor: nested lists, or the element itself if the tensor has no dimension.
fn write_value(out: &mut Vec<u8>, output: &OutputTensor<'_>, nesting: ShapeRef<'_>) -> Result<()> {
    if nesting.rank() == 0 {
        return write_list(out, output, nesting);
    }
    out.push(b'[');
    write_list(out, output, nesting)?;
    out.push(b']');
    Ok(())
}

fn write_list(out: &mut Vec<u8>, output: &OutputTensor<'_>, nesting: ShapeRef<'_>) -> Result<()> {
    let style = ListStyle { non_finite: output.non_finite, strings: StringStyle::Objects, nesting };
    elements::write_json_list(out, output, style)
}

/// Appends the response of `GET /v1/models/{endpoint}`: TensorFlow Serving's list of versions, and KServe's `ready`.
pub fn write_status(out: &mut Vec<u8>, name: &str, versions: &[&str]) {
    out.extend_from_slice(b"{\"name\":");
    write_json(name, out);
    out.extend_from_slice(b",\"ready\":true,\"model_version_status\":[");
    for (index, version) in versions.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"version\":");
        write_json(version, out);
        out.extend_from_slice(
            b",\"state\":\"AVAILABLE\",\"status\":{\"error_code\":\"OK\",\"error_message\":\"\"}}",
        );
    }
    out.extend_from_slice(b"]}");
}
