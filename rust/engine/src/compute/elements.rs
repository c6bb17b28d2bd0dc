//! ElementBuffer of a tensor outside the runtime, in memory order.

use headgate_core::tensor::DataType;
use headgate_runtime::Elements;
use serde_json::Value;

/// ElementBuffer in memory order.
#[derive(Clone, Debug)]
pub(crate) enum ElementBuffer {
    Numbers(Vec<u8>),
    Strings(Vec<Vec<u8>>),
}

impl ElementBuffer {
    /// No elements of that type yet.
    pub(crate) fn empty(datatype: DataType) -> ElementBuffer {
        if datatype == DataType::Bytes {
            ElementBuffer::Strings(Vec::new())
        } else {
            ElementBuffer::Numbers(Vec::new())
        }
    }

    /// A copy of the elements of a tensor.
    pub(crate) fn copy_of(data: &Elements<'_>) -> ElementBuffer {
        match data {
            Elements::Bytes(bytes) => ElementBuffer::Numbers(bytes.to_vec()),
            Elements::Strings { bytes, offsets } => {
                let ends = offsets.iter().skip(1).copied().chain([bytes.len()]);
                let strings = offsets.iter().zip(ends).map(|(&start, end)| bytes[start..end].to_vec());
                ElementBuffer::Strings(strings.collect())
            }
        }
    }

    /// Appends a value as an element of that type. False if it does not fit.
    pub(crate) fn push(&mut self, datatype: DataType, value: &Value) -> bool {
        match self {
            ElementBuffer::Numbers(bytes) => encode(datatype, value, bytes).is_some(),
            ElementBuffer::Strings(strings) => {
                value.as_str().map(|text| strings.push(text.as_bytes().to_vec())).is_some()
            }
        }
    }

    /// Appends a number, which may be NaN or infinite. False if the elements are not fractions.
    pub(crate) fn push_fraction(&mut self, datatype: DataType, value: f64) -> bool {
        let ElementBuffer::Numbers(bytes) = self else { return false };
        fraction(datatype, value, bytes).is_some()
    }

    /// Values as elements of that type.
    ///
    /// # Errors
    /// The first value that does not fit the type.
    pub(crate) fn from_values(
        datatype: DataType,
        values: Vec<&Value>,
    ) -> std::result::Result<ElementBuffer, &Value> {
        let mut elements = ElementBuffer::empty(datatype);
        match values.into_iter().find(|value| !elements.push(datatype, value)) {
            Some(wrong) => Err(wrong),
            None => Ok(elements),
        }
    }
}

/// Appends one value in memory order; `None` if it does not fit the type.
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
