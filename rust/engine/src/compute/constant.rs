//! A version with constant outputs: each value is repeated for each row of the request.

use std::collections::BTreeMap;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{MAX_RANK, Shape, Signature, TensorSpec};
use headgate_runtime::{Binding, Tensor};
use serde_json::Value;

use super::elements::ElementBuffer;
use super::executable::Executable;

/// Constant outputs under the signature of another version.
pub struct Constant {
    signature: Signature,
    outputs: Vec<ConstantRow>,
}

/// One row of one output.
struct ConstantRow {
    dims: Vec<i64>,
    /// The shape of an output of one row, which most requests ask for.
    one_row: Shape,
    elements: ElementBuffer,
}

impl Constant {
    /// Builds the outputs from values by name, under `signature` (the champion's).
    ///
    /// # Errors
    /// `model_load_failed` if an output has no value, a value has no output, or a value has the wrong type or length.
    pub fn new(values: &BTreeMap<String, Value>, signature: &Signature) -> Result<Constant> {
        if let Some(name) =
            values.keys().find(|name| signature.outputs.iter().all(|spec| spec.name != **name))
        {
            let known: Vec<_> = signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(invalid(format!(
                "there is no output {name:?}; the outputs are {}",
                known.join(", ")
            )));
        }
        let outputs = signature
            .outputs
            .iter()
            .map(|spec| {
                let value = values
                    .get(&spec.name)
                    .ok_or_else(|| invalid(format!("output {:?} has no value", spec.name)))?;
                ConstantRow::new(spec, value)
            })
            .collect::<Result<_>>()?;
        Ok(Constant { signature: signature.clone(), outputs })
    }
}

impl Executable for Constant {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        let rows = if binding.inputs() == 0 { 1 } else { binding.input(0).shape().rows() };
        for (index, row) in self.outputs.iter().enumerate() {
            row.fill(binding.output_mut(index), rows)?;
        }
        Ok(())
    }
}

impl ConstantRow {
    fn new(spec: &TensorSpec, value: &Value) -> Result<ConstantRow> {
        // The size of an open dimension inside a row is unknown: one element.
        let dims: Vec<i64> = spec.shape.iter().skip(1).map(|&dim| if dim < 0 { 1 } else { dim }).collect();
        let count = Shape::new(&dims)?.count();
        let values: Vec<&Value> = match value {
            Value::Array(values) if values.len() == count => values.iter().collect(),
            Value::Array(values) => {
                return Err(invalid(format!(
                    "output {:?} has {count} values a row, not {}",
                    spec.name,
                    values.len()
                )));
            }
            scalar => vec![scalar; count],
        };
        let wrong =
            |value: &Value| invalid(format!("output {:?} is {}, not {value}", spec.name, spec.datatype));
        let elements = ElementBuffer::from_values(spec.datatype, values).map_err(wrong)?;
        let one_row = shape_of_rows(1, &dims)?;
        Ok(ConstantRow { dims, one_row, elements })
    }

    fn fill(&self, tensor: &mut Tensor, rows: usize) -> Result<()> {
        match rows {
            1 => tensor.reshape(&self.one_row)?,
            _ => tensor.reshape(&shape_of_rows(rows, &self.dims)?)?,
        }
        match &self.elements {
            ElementBuffer::Numbers(row) => {
                let all = tensor.bytes_mut().ok_or_else(|| invalid("a number among strings"))?;
                if all.len() == row.len() {
                    all.copy_from_slice(row);
                } else if !row.is_empty() {
                    all.chunks_exact_mut(row.len()).for_each(|chunk| chunk.copy_from_slice(row));
                }
            }
            ElementBuffer::Strings(row) => {
                for index in 0..rows * row.len() {
                    tensor.set_string(index, &row[index % row.len()])?;
                }
            }
        }
        Ok(())
    }
}

/// The shape of so many rows with these dimensions.
fn shape_of_rows(rows: usize, row: &[i64]) -> Result<Shape> {
    let mut dims = [0; MAX_RANK];
    let rank = 1 + row.len();
    let Some(inner) = dims.get_mut(1..rank) else {
        return Err(invalid(format!("a row has {} dimensions; a shape has at most {MAX_RANK}", row.len())));
    };
    inner.copy_from_slice(row);
    dims[0] = rows as i64;
    Shape::new(&dims[..rank])
}

fn invalid(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::ModelLoadFailed, message)
}
