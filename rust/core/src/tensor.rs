//! The description of tensors: element type, shape and signature. The data is elsewhere.
//!
//! Next: `spec`.

mod shape;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use shape::{MAX_EMPTY, MAX_RANK, Shape, ShapeRef};

/// The element types of the Open Inference Protocol, under their names on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum DataType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8 bit.
    Uint8,
    /// Unsigned 16 bit.
    Uint16,
    /// Unsigned 32 bit.
    Uint32,
    /// Unsigned 64 bit.
    Uint64,
    /// Signed 8 bit.
    Int8,
    /// Signed 16 bit.
    Int16,
    /// Signed 32 bit.
    Int32,
    /// Signed 64 bit.
    Int64,
    /// IEEE 754 half precision.
    Fp16,
    /// bfloat16.
    Bf16,
    /// IEEE 754 single precision.
    Fp32,
    /// IEEE 754 double precision.
    Fp64,
    /// Byte strings of any length.
    Bytes,
}

impl DataType {
    /// All types, in the order of the protocol's table.
    pub const ALL: [DataType; 14] = [
        DataType::Bool,
        DataType::Uint8,
        DataType::Uint16,
        DataType::Uint32,
        DataType::Uint64,
        DataType::Int8,
        DataType::Int16,
        DataType::Int32,
        DataType::Int64,
        DataType::Fp16,
        DataType::Bf16,
        DataType::Fp32,
        DataType::Fp64,
        DataType::Bytes,
    ];

    /// The name on the wire, such as `FP32`.
    pub const fn as_str(self) -> &'static str {
        match self {
            DataType::Bool => "BOOL",
            DataType::Uint8 => "UINT8",
            DataType::Uint16 => "UINT16",
            DataType::Uint32 => "UINT32",
            DataType::Uint64 => "UINT64",
            DataType::Int8 => "INT8",
            DataType::Int16 => "INT16",
            DataType::Int32 => "INT32",
            DataType::Int64 => "INT64",
            DataType::Fp16 => "FP16",
            DataType::Bf16 => "BF16",
            DataType::Fp32 => "FP32",
            DataType::Fp64 => "FP64",
            DataType::Bytes => "BYTES",
        }
    }

    /// The type with this name; names are case-sensitive.
    pub fn parse(name: &str) -> Option<DataType> {
        DataType::ALL.into_iter().find(|datatype| datatype.as_str() == name)
    }

    /// Bytes per element, or `None` for `BYTES`, whose elements differ in length.
    pub const fn size(self) -> Option<usize> {
        match self {
            DataType::Bool | DataType::Uint8 | DataType::Int8 => Some(1),
            DataType::Uint16 | DataType::Int16 | DataType::Fp16 | DataType::Bf16 => Some(2),
            DataType::Uint32 | DataType::Int32 | DataType::Fp32 => Some(4),
            DataType::Uint64 | DataType::Int64 | DataType::Fp64 => Some(8),
            DataType::Bytes => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The most inputs, and the most outputs, that a request may list.
pub const MAX_TENSORS: usize = 1024;

/// One input or output of a model as its file declares it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The tensor's name in the model.
    pub name: String,
    /// Its element type.
    pub datatype: DataType,
    /// Its dimensions; `-1` takes any size, as the batch dimension does.
    pub shape: Vec<i64>,
    /// The names of the dimensions that are `-1`; equal names mean equal sizes. As long as `shape`; a dimension without a name is empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub symbols: Vec<String>,
    /// Whether the number of dimensions is open; `shape` is then `[-1]`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub any_rank: bool,
    /// The names of the classes, if the model itself has some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
}

impl TensorSpec {
    /// Whether this tensor takes a concrete shape.
    pub fn accepts(&self, shape: &Shape) -> bool {
        let follows = self.shape.len() == shape.dims().len()
            && self.shape.iter().zip(shape.dims()).all(|(&want, &have)| want < 0 || want == have);
        follows || self.any_rank
    }
}

/// The inputs and outputs of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// The inputs that every request must have, in the model's order.
    pub inputs: Vec<TensorSpec>,
    /// The outputs, in the model's order.
    pub outputs: Vec<TensorSpec>,
    /// The inputs that a request may leave out, because the model has a default for each. A value of a request holds for all its rows, so
    /// its first dimension is not the batch.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub optional_inputs: Vec<TensorSpec>,
}

impl Signature {
    /// All inputs, the required ones first.
    pub fn all_inputs(&self) -> impl Iterator<Item = &TensorSpec> {
        self.inputs.iter().chain(&self.optional_inputs)
    }

    /// The names of the inputs, for a message.
    pub fn input_names(&self) -> String {
        /// The most optional inputs that are named: a model may have as many as weights.
        const SHOWN: usize = 8;
        let names = |specs: &[TensorSpec]| -> String {
            specs.iter().map(|spec| format!("{:?}", spec.name)).collect::<Vec<_>>().join(", ")
        };
        let (required, optional) = (names(&self.inputs), &self.optional_inputs);
        if optional.is_empty() {
            return if required.is_empty() { "nothing".to_owned() } else { required };
        }
        let (shown, more) = optional.split_at(optional.len().min(SHOWN));
        let more = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let optional = format!("optional {}{more}", names(shown));
        if required.is_empty() { optional } else { format!("{required}, {optional}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datatypes_are_found_by_their_exact_name() {
        for datatype in DataType::ALL {
            assert_eq!(DataType::parse(datatype.as_str()), Some(datatype));
            assert_eq!(serde_json::to_string(&datatype).unwrap(), format!("\"{datatype}\""));
        }
        assert_eq!(DataType::parse("fp32"), None);
        assert_eq!(DataType::parse("STRING"), None);
    }

    #[test]
    fn a_signature_accepts_by_rank_and_fixed_dimensions() {
        let spec = TensorSpec {
            name: "X".into(),
            datatype: DataType::Fp32,
            shape: vec![-1, 64],
            symbols: vec![],
            any_rank: false,
            labels: vec![],
        };
        assert!(spec.accepts(&Shape::new(&[5, 64]).unwrap()));
        assert!(!spec.accepts(&Shape::new(&[5, 63]).unwrap()));
        assert!(!spec.accepts(&Shape::new(&[64]).unwrap()));
        let any = TensorSpec { shape: vec![-1], any_rank: true, ..spec };
        for dims in [&[][..], &[3], &[5, 63], &[1, 2, 3]] {
            assert!(any.accepts(&Shape::new(dims).unwrap()), "{dims:?}");
        }
    }
}
