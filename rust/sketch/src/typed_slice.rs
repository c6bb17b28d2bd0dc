//! Typed slices of tensor data, and the float type in which each element type is counted.
//!
//! Types that `f32` holds exactly are counted in `f32`, the others in `f64` (64-bit integers beyond 2^53 are rounded to the
//! nearest). Not here: shapes and wire formats. Next: `sampler`.

/// An element type, by its name in the Open Inference Protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the protocol's own")]
pub enum ElementType {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Bf16,
    Fp32,
    Fp64,
    Bytes,
}

impl ElementType {
    /// The type of that name, such as `FP32`; names are case-sensitive.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "BOOL" => Self::Bool,
            "UINT8" => Self::Uint8,
            "UINT16" => Self::Uint16,
            "UINT32" => Self::Uint32,
            "UINT64" => Self::Uint64,
            "INT8" => Self::Int8,
            "INT16" => Self::Int16,
            "INT32" => Self::Int32,
            "INT64" => Self::Int64,
            "FP16" => Self::Fp16,
            "BF16" => Self::Bf16,
            "FP32" => Self::Fp32,
            "FP64" => Self::Fp64,
            "BYTES" => Self::Bytes,
            _ => return None,
        })
    }

    /// Whether `f32` holds every value of this type exactly.
    pub fn is_single(self) -> bool {
        !matches!(self, Self::Uint32 | Self::Uint64 | Self::Int32 | Self::Int64 | Self::Fp64 | Self::Bytes)
    }
}

/// The value of an IEEE 754 half-precision number.
#[inline]
pub fn fp16_to_single(bits: u16) -> f32 {
    let bits = u32::from(bits);
    let (sign, exponent, mantissa) = ((bits & 0x8000) << 16, (bits >> 10) & 0x1f, bits & 0x3ff);
    match exponent {
        // Subnormals are multiples of 2^-24.
        0 => f32::from_bits(sign | (mantissa as f32 * 5.960_464_5e-8).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (mantissa << 13)),
        _ => f32::from_bits(sign | ((exponent + 112) << 23) | (mantissa << 13)),
    }
}

/// The value of a bfloat16 number.
#[inline]
pub fn bf16_to_single(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The lengths of the elements of a string tensor. They are read one at a time, because only a few of many are needed.
pub trait StringLengths: std::fmt::Debug {
    /// The number of elements.
    fn count(&self) -> usize;
    /// The number of bytes of an element.
    fn length(&self, element: usize) -> usize;
}

/// An array of lengths.
impl<const N: usize> StringLengths for [usize; N] {
    fn count(&self) -> usize {
        N
    }

    fn length(&self, element: usize) -> usize {
        self[element]
    }
}

/// The elements of one tensor of a request or a response, row-major: rows times elements per row.
#[derive(Clone, Copy, Debug)]
pub enum TypedSlice<'a> {
    /// BOOL, 0 or 1, and UINT8.
    U8(&'a [u8]),
    /// UINT16.
    U16(&'a [u16]),
    /// UINT32.
    U32(&'a [u32]),
    /// UINT64.
    U64(&'a [u64]),
    /// INT8.
    I8(&'a [i8]),
    /// INT16.
    I16(&'a [i16]),
    /// INT32.
    I32(&'a [i32]),
    /// INT64.
    I64(&'a [i64]),
    /// The bits of FP16.
    F16(&'a [u16]),
    /// The bits of BF16.
    Bf16(&'a [u16]),
    /// FP32.
    F32(&'a [f32]),
    /// FP64.
    F64(&'a [f64]),
    /// BYTES.
    Strings(&'a dyn StringLengths),
}

impl TypedSlice<'_> {
    /// The number of elements.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(v) => v.len(),
            Self::U16(v) | Self::F16(v) | Self::Bf16(v) => v.len(),
            Self::U32(v) => v.len(),
            Self::Strings(v) => v.count(),
            Self::U64(v) => v.len(),
            Self::I8(v) => v.len(),
            Self::I16(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::I64(v) => v.len(),
            Self::F32(v) => v.len(),
            Self::F64(v) => v.len(),
        }
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An element as a number; a string as its length. `None` beyond the end.
    pub fn value(&self, at: usize) -> Option<f64> {
        match self {
            Self::U8(v) => v.get(at).map(|&value| f64::from(value)),
            Self::U16(v) => v.get(at).map(|&value| f64::from(value)),
            Self::F16(v) => v.get(at).map(|&bits| f64::from(fp16_to_single(bits))),
            Self::Bf16(v) => v.get(at).map(|&bits| f64::from(bf16_to_single(bits))),
            Self::U32(v) => v.get(at).map(|&value| f64::from(value)),
            Self::U64(v) => v.get(at).map(|&value| value as f64),
            Self::I8(v) => v.get(at).map(|&value| f64::from(value)),
            Self::I16(v) => v.get(at).map(|&value| f64::from(value)),
            Self::I32(v) => v.get(at).map(|&value| f64::from(value)),
            Self::I64(v) => v.get(at).map(|&value| value as f64),
            Self::F32(v) => v.get(at).map(|&value| f64::from(value)),
            Self::F64(v) => v.get(at).copied(),
            Self::Strings(v) => (at < v.count()).then(|| v.length(at) as f64),
        }
    }

    /// Whether elements of that type have this variant.
    pub fn is_of(&self, datatype: ElementType) -> bool {
        matches!(
            (self, datatype),
            (Self::U8(_), ElementType::Bool | ElementType::Uint8)
                | (Self::U16(_), ElementType::Uint16)
                | (Self::U32(_), ElementType::Uint32)
                | (Self::U64(_), ElementType::Uint64)
                | (Self::I8(_), ElementType::Int8)
                | (Self::I16(_), ElementType::Int16)
                | (Self::I32(_), ElementType::Int32)
                | (Self::I64(_), ElementType::Int64)
                | (Self::F16(_), ElementType::Fp16)
                | (Self::Bf16(_), ElementType::Bf16)
                | (Self::F32(_), ElementType::Fp32)
                | (Self::F64(_), ElementType::Fp64)
                | (Self::Strings(..), ElementType::Bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_is_decoded_exactly() {
        for (bits, value) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x83ff, -6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x7c00, f32::INFINITY),
            (0x2e66, 0.099_975_586),
        ] {
            assert_eq!(fp16_to_single(bits), value, "{bits:04x}");
        }
        assert!(fp16_to_single(0x7e00).is_nan());
        assert_eq!(bf16_to_single(0x3f80), 1.0);
    }

    #[test]
    fn an_element_is_a_number_whatever_its_type() {
        let all = [
            TypedSlice::U8(&[0, 7]),
            TypedSlice::U16(&[0, 7]),
            TypedSlice::F16(&[0, 0x4700]),
            TypedSlice::Bf16(&[0, 0x40e0]),
            TypedSlice::U32(&[0, 7]),
            TypedSlice::U64(&[0, 7]),
            TypedSlice::I8(&[0, 7]),
            TypedSlice::I16(&[0, 7]),
            TypedSlice::I32(&[0, 7]),
            TypedSlice::I64(&[0, 7]),
            TypedSlice::F32(&[0.0, 7.0]),
            TypedSlice::F64(&[0.0, 7.0]),
            TypedSlice::Strings(&[0, 7]),
        ];
        for elements in all {
            assert_eq!((elements.value(1), elements.value(2)), (Some(7.0), None), "{elements:?}");
        }
    }

    #[test]
    fn views_know_their_type() {
        assert!(
            TypedSlice::U8(&[1]).is_of(ElementType::Bool) && !TypedSlice::U8(&[1]).is_of(ElementType::Int8)
        );
        assert_eq!(ElementType::parse("BF16"), Some(ElementType::Bf16));
        assert_eq!(ElementType::parse("fp32"), None);
        assert!(TypedSlice::F64(&[]).is_empty());
    }
}
