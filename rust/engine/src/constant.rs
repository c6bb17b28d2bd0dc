//! A version that always answers the same: every output value repeated for each row of the request.

use std::collections::BTreeMap;

use headgate_core::error::{Code, Error, Result};
use headgate_core::tensor::{DataType, MAX_RANK, Shape, Signature, TensorSpec};
use headgate_runtime::tensor::Data;
use headgate_runtime::{Binding, Tensor};
use serde_json::Value;

use crate::model::Executable;

/// Constant outputs under another version's signature.
pub struct Constant {
    signature: Signature,
    outputs: Vec<Row>,
}

/// One row of one output.
struct Row {
    dims: Vec<i64>,
    cell: Cell,
}

/// Elements in memory order.
#[derive(Clone, Debug)]
pub(crate) enum Cell {
    Numbers(Vec<u8>),
    Strings(Vec<Vec<u8>>),
}

impl Constant {
    /// Builds the constant from the values by output name, under `signature` (the champion's).
    ///
    /// # Errors
    /// `model_load_failed`: an output without a value, a value for no output, a value of the wrong type or length.
    pub fn new(values: &BTreeMap<String, Value>, signature: &Signature) -> Result<Constant> {
        if let Some(name) =
            values.keys().find(|name| signature.outputs.iter().all(|spec| spec.name != **name))
        {
            let known: Vec<_> = signature.outputs.iter().map(|spec| spec.name.as_str()).collect();
            return Err(fault(format!("there is no output {name:?}; the outputs are {}", known.join(", "))));
        }
        let outputs = signature
            .outputs
            .iter()
            .map(|spec| {
                let value = values
                    .get(&spec.name)
                    .ok_or_else(|| fault(format!("output {:?} has no value", spec.name)))?;
                Row::new(spec, value)
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

impl Cell {
    /// No elements of that type yet.
    pub(crate) fn empty(datatype: DataType) -> Cell {
        if datatype == DataType::Bytes { Cell::Strings(Vec::new()) } else { Cell::Numbers(Vec::new()) }
    }

    /// A copy of a tensor's elements.
    pub(crate) fn copied(data: &Data<'_>) -> Cell {
        match data {
            Data::Bytes(bytes) => Cell::Numbers(bytes.to_vec()),
            Data::Strings { bytes, offsets } => {
                let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
                let strings = offsets.iter().zip(ends).map(|(&start, end)| bytes[start..end].to_vec());
                Cell::Strings(strings.collect())
            }
        }
    }

    /// Appends a value as an element of that type; false if it does not fit.
    pub(crate) fn push(&mut self, datatype: DataType, value: &Value) -> bool {
        match self {
            Cell::Numbers(bytes) => encode(datatype, value, bytes).is_some(),
            Cell::Strings(strings) => {
                value.as_str().map(|text| strings.push(text.as_bytes().to_vec())).is_some()
            }
        }
    }

    /// Appends a number, which may be NaN or infinite; false if elements are no fractions.
    pub(crate) fn push_fraction(&mut self, datatype: DataType, value: f64) -> bool {
        let Cell::Numbers(bytes) = self else { return false };
        fraction(datatype, value, bytes).is_some()
    }

    /// The values as elements of that type.
    ///
    /// # Errors
    /// The first value that does not fit it.
    fn of(datatype: DataType, values: Vec<&Value>) -> std::result::Result<Cell, &Value> {
        let mut cell = Cell::empty(datatype);
        match values.into_iter().find(|value| !cell.push(datatype, value)) {
            Some(wrong) => Err(wrong),
            None => Ok(cell),
        }
    }
}

impl Row {
    fn new(spec: &TensorSpec, value: &Value) -> Result<Row> {
        // A free dimension inside a row has nothing that could tell its size: one element.
        let dims: Vec<i64> = spec.shape.iter().skip(1).map(|&dim| if dim < 0 { 1 } else { dim }).collect();
        let count = Shape::new(&dims)?.count();
        let values: Vec<&Value> = match value {
            Value::Array(values) if values.len() == count => values.iter().collect(),
            Value::Array(values) => {
                return Err(fault(format!(
                    "output {:?} has {count} values a row, not {}",
                    spec.name,
                    values.len()
                )));
            }
            scalar => vec![scalar; count],
        };
        let wrong =
            |value: &Value| fault(format!("output {:?} is {}, not {value}", spec.name, spec.datatype));
        let cell = Cell::of(spec.datatype, values).map_err(wrong)?;
        Ok(Row { dims, cell })
    }

    fn fill(&self, tensor: &mut Tensor, rows: usize) -> Result<()> {
        let mut dims = [0i64; MAX_RANK];
        dims[0] = rows as i64;
        dims[1..=self.dims.len()].copy_from_slice(&self.dims);
        tensor.reshape(&Shape::new(&dims[..=self.dims.len()])?)?;
        match &self.cell {
            Cell::Numbers(row) => {
                let all = tensor.bytes_mut().ok_or_else(|| fault("a number among strings"))?;
                if !row.is_empty() {
                    all.chunks_exact_mut(row.len()).for_each(|chunk| chunk.copy_from_slice(row));
                }
            }
            Cell::Strings(row) => {
                for index in 0..rows * row.len() {
                    tensor.set_string(index, &row[index % row.len()])?;
                }
            }
        }
        Ok(())
    }
}

/// Appends one value in memory order; `None` when it does not fit the type.
fn encode(datatype: DataType, value: &Value, out: &mut Vec<u8>) -> Option<()> {
    macro_rules! integer {
        ($type:ty) => {
            match (value.as_i64(), value.as_u64()) {
                (Some(number), _) => out.extend_from_slice(&<$type>::try_from(number).ok()?.to_ne_bytes()),
                (None, Some(number)) => out.extend_from_slice(&<$type>::try_from(number).ok()?.to_ne_bytes()),
                _ => return None,
            }
        };
    }
    match datatype {
        DataType::Bool => out.push(u8::from(value.as_bool()?)),
        DataType::Uint8 => integer!(u8),
        DataType::Uint16 => integer!(u16),
        DataType::Uint32 => integer!(u32),
        DataType::Uint64 => integer!(u64),
        DataType::Int8 => integer!(i8),
        DataType::Int16 => integer!(i16),
        DataType::Int32 => integer!(i32),
        DataType::Int64 => integer!(i64),
        DataType::Fp32 | DataType::Fp64 | DataType::Fp16 | DataType::Bf16 => {
            return fraction(datatype, value.as_f64()?, out);
        }
        DataType::Bytes => return None,
    }
    Some(())
}

/// Appends a number in memory order; `None` if the type holds no fractions.
fn fraction(datatype: DataType, value: f64, out: &mut Vec<u8>) -> Option<()> {
    match datatype {
        DataType::Fp32 => out.extend_from_slice(&(value as f32).to_ne_bytes()),
        DataType::Fp64 => out.extend_from_slice(&value.to_ne_bytes()),
        DataType::Fp16 => out.extend_from_slice(&half::f16::from_f64(value).to_ne_bytes()),
        DataType::Bf16 => out.extend_from_slice(&half::bf16::from_f64(value).to_ne_bytes()),
        _ => return None,
    }
    Some(())
}

fn fault(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(Code::ModelLoadFailed, message)
}
