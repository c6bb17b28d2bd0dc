//! The description of tensors: element type, shape and signature. The data is elsewhere.
//!
//! Next: `spec`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

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

/// The most dimensions a tensor may have.
pub const MAX_RANK: usize = 16;

/// The most inputs, and the most outputs, that a request may list.
pub const MAX_TENSORS: usize = 1024;

/// The largest product of the nonzero dimensions of a shape without elements.
pub const MAX_EMPTY: usize = 1 << 20;

/// A concrete shape, kept inline: row-major, no negative dimension, element count within `usize`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [i64; MAX_RANK],
    rank: u8,
}

impl Shape {
    /// The shape of a scalar: no dimensions, one element.
    pub const SCALAR: Shape = Shape { dims: [0; MAX_RANK], rank: 0 };

    /// A shape from its dimensions.
    ///
    /// # Errors
    /// `invalid_argument` for a negative dimension, more than [`MAX_RANK`] dimensions, a count that overflows, or a shape
    /// without elements whose other dimensions exceed [`MAX_EMPTY`].
    pub fn new(dims: &[i64]) -> Result<Shape> {
        check_dims(dims)?;
        let mut shape = Shape { dims: [0; MAX_RANK], rank: dims.len() as u8 };
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// The shape, borrowed.
    pub fn view(&self) -> ShapeRef<'_> {
        ShapeRef::of_checked(self.dims())
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[i64] {
        &self.dims[..self.rank as usize]
    }

    /// The number of elements; 1 for a scalar.
    pub fn count(&self) -> usize {
        self.dims().iter().map(|&dim| dim as usize).product()
    }

    /// The number of rows: the first dimension, or 1 for a scalar.
    pub fn rows(&self) -> usize {
        self.dims().first().map_or(1, |&dim| dim as usize)
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.dims().fmt(f)
    }
}

/// Checks the dimensions of a shape.
fn check_dims(dims: &[i64]) -> Result<()> {
    if dims.len() > MAX_RANK {
        return Err(Error::invalid(format!("a shape has at most {MAX_RANK} dimensions, not {}", dims.len())));
    }
    let mut count: usize = 1;
    let mut nonzero: usize = 1;
    for &dim in dims {
        let dim = usize::try_from(dim)
            .map_err(|_| Error::invalid(format!("shape {dims:?} has the negative dimension {dim}")))?;
        count = count
            .checked_mul(dim)
            .filter(|&count| count <= isize::MAX as usize / 16)
            .ok_or_else(|| Error::invalid(format!("shape {dims:?} has too many elements")))?;
        nonzero = nonzero.saturating_mul(dim.max(1));
    }
    // Nothing else bounds the dimensions of a shape without elements, and outputs take their sizes from them.
    if count == 0 && nonzero > MAX_EMPTY {
        return Err(Error::invalid(format!(
            "shape {dims:?} has no elements; its other dimensions may multiply to at most {MAX_EMPTY}"
        )));
    }
    Ok(())
}

/// A shape that is borrowed. The first dimension is apart from the others, so that some rows of a tensor have a shape without a copy.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ShapeRef<'a> {
    /// The first dimension; `None` for a scalar.
    first: Option<i64>,
    /// The dimensions of a row.
    inner: &'a [i64],
}

impl<'a> ShapeRef<'a> {
    /// The shape of a scalar.
    pub const SCALAR: ShapeRef<'static> = ShapeRef { first: None, inner: &[] };

    /// A shape from its dimensions.
    ///
    /// # Errors
    /// As [`Shape::new`].
    pub fn new(dims: &'a [i64]) -> Result<ShapeRef<'a>> {
        check_dims(dims)?;
        Ok(ShapeRef::of_checked(dims))
    }

    #[inline]
    fn of_checked(dims: &'a [i64]) -> ShapeRef<'a> {
        match dims {
            [first, inner @ ..] => ShapeRef { first: Some(*first), inner },
            [] => ShapeRef::SCALAR,
        }
    }

    /// The dimensions, outermost first.
    pub fn dims(self) -> impl Iterator<Item = i64> + use<'a> {
        self.first.into_iter().chain(self.inner.iter().copied())
    }

    /// The number of dimensions.
    #[inline]
    pub fn rank(self) -> usize {
        usize::from(self.first.is_some()) + self.inner.len()
    }

    /// The number of elements; 1 for a scalar.
    #[inline]
    pub fn count(self) -> usize {
        self.rows() * self.inner.iter().map(|&dim| dim as usize).product::<usize>()
    }

    /// The number of rows: the first dimension, or 1 for a scalar.
    #[inline]
    pub fn rows(self) -> usize {
        self.first.map_or(1, |rows| rows as usize)
    }

    /// The dimensions of a row: all but the first. None for a scalar.
    #[inline]
    pub fn inner(self) -> &'a [i64] {
        self.inner
    }

    /// The shape of a row; a scalar for a scalar.
    pub fn row(self) -> ShapeRef<'a> {
        ShapeRef::of_checked(self.inner)
    }

    /// The shape of so many of the rows; `None` for a scalar, and if there are fewer.
    pub fn with_rows(self, rows: usize) -> Option<ShapeRef<'a>> {
        let first = i64::try_from(rows).ok()?;
        self.first.filter(|&all| first <= all).map(|_| ShapeRef { first: Some(first), ..self })
    }

    /// A copy.
    pub fn to_shape(self) -> Shape {
        let mut shape = Shape { dims: [0; MAX_RANK], rank: self.rank() as u8 };
        shape.dims.iter_mut().zip(self.dims()).for_each(|(slot, dim)| *slot = dim);
        shape
    }
}

impl fmt::Debug for ShapeRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.dims()).finish()
    }
}

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
    fn shapes_refuse_what_cannot_be_counted() {
        assert_eq!(Shape::new(&[2, 3]).unwrap().count(), 6);
        assert_eq!(Shape::new(&[]).unwrap().count(), 1);
        assert_eq!(Shape::new(&[4, 0]).unwrap().count(), 0);
        assert!(Shape::new(&[-1]).is_err());
        assert!(Shape::new(&[1 << 40, 0]).is_err());
        assert!(Shape::new(&[i64::MAX, 2]).is_err());
        assert!(Shape::new(&[1; MAX_RANK + 1]).is_err());
    }

    #[test]
    fn a_borrowed_shape_is_the_shape_and_its_rows_are_shapes() {
        for dims in [&[][..], &[3], &[2, 3], &[4, 0], &[0, 7], &[2, 1, 5]] {
            let shape = Shape::new(dims).unwrap();
            let borrowed = shape.view();
            assert_eq!(borrowed, ShapeRef::new(dims).unwrap());
            assert_eq!((borrowed.count(), borrowed.rows()), (shape.count(), shape.rows()));
            assert_eq!((borrowed.rank(), borrowed.to_shape()), (dims.len(), shape));
            assert_eq!(borrowed.dims().collect::<Vec<_>>(), dims);
            assert_eq!(format!("{borrowed:?}"), format!("{shape:?}"));
            assert_eq!(borrowed.row().dims().collect::<Vec<_>>(), dims.get(1..).unwrap_or_default());
            let some = borrowed.with_rows(1).map(ShapeRef::to_shape);
            let wanted = dims.split_first().filter(|(rows, _)| **rows >= 1);
            assert_eq!(some, wanted.map(|(_, inner)| Shape::new(&[&[1][..], inner].concat()).unwrap()));
            assert_eq!(borrowed.with_rows(shape.rows() + 1), None);
        }
        assert!(ShapeRef::new(&[-1]).is_err() && ShapeRef::new(&[1; MAX_RANK + 1]).is_err());
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
