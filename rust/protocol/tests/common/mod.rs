//! Reads a whole request in one call, as a server does.

#![allow(dead_code, reason = "not every test file uses all of it")]

use headgate_core::error::Result;
use headgate_core::tensor::{DataType, TensorSpec};
use headgate_protocol::{Envelope, EnvelopeScratch, InputTensor, StringTable, TypedSliceMut, binary};

/// The elements of an input, by type.
#[derive(Debug, PartialEq)]
pub(crate) enum Decoded {
    /// BOOL and UINT8.
    Uint8(Vec<u8>),
    /// UINT16, FP16, BF16.
    Uint16(Vec<u16>),
    /// UINT32.
    Uint32(Vec<u32>),
    /// UINT64.
    Uint64(Vec<u64>),
    /// INT8.
    Int8(Vec<i8>),
    /// INT16.
    Int16(Vec<i16>),
    /// INT32.
    Int32(Vec<i32>),
    /// INT64.
    Int64(Vec<i64>),
    /// FP32.
    Fp32(Vec<f32>),
    /// FP64.
    Fp64(Vec<f64>),
    /// BYTES.
    Bytes(Vec<Vec<u8>>),
}

/// Parses a body, selects outputs of a model with the outputs Y and L, and decodes every input.
pub(crate) fn request(body: &[u8], header: Option<&[u8]>) -> Result<Vec<(String, Vec<i64>, Decoded)>> {
    let mut scratch = EnvelopeScratch::default();
    let envelope = Envelope::parse(binary::split(body, header)?, &mut scratch)?;
    let spec = |name: &str| TensorSpec {
        name: name.into(),
        datatype: DataType::Fp32,
        shape: vec![-1],
        symbols: vec![],
        any_rank: false,
        labels: Vec::new(),
    };
    envelope.select_outputs(&[spec("Y"), spec("L")], &mut Vec::new())?;
    let decoded = envelope
        .inputs
        .iter()
        .map(|input| Ok((input.name.to_string(), input.shape.dims().to_vec(), decode(input)?)));
    decoded.collect()
}

/// Decodes one input.
pub(crate) fn decode(input: &InputTensor<'_>) -> Result<Decoded> {
    let count = input.shape.count();
    macro_rules! typed {
        ($variant:ident, $decoded:ident) => {{
            let mut out = vec![Default::default(); count];
            input.decode_into(TypedSliceMut::$variant(&mut out))?;
            Decoded::$decoded(out)
        }};
    }
    Ok(match input.datatype {
        DataType::Bool => typed!(Bool, Uint8),
        DataType::Uint8 => typed!(Uint8, Uint8),
        DataType::Uint16 => typed!(Uint16, Uint16),
        DataType::Uint32 => typed!(Uint32, Uint32),
        DataType::Uint64 => typed!(Uint64, Uint64),
        DataType::Int8 => typed!(Int8, Int8),
        DataType::Int16 => typed!(Int16, Int16),
        DataType::Int32 => typed!(Int32, Int32),
        DataType::Int64 => typed!(Int64, Int64),
        DataType::Fp16 => typed!(Fp16, Uint16),
        DataType::Bf16 => typed!(Bf16, Uint16),
        DataType::Fp32 => typed!(Fp32, Fp32),
        DataType::Fp64 => typed!(Fp64, Fp64),
        DataType::Bytes => {
            let mut table = StringTable::default();
            input.decode_strings(&mut table)?;
            Decoded::Bytes(table.view().iter().map(<[u8]>::to_vec).collect())
        }
    })
}

/// How many iterations a fuzz target runs: `usual`, times `HEADGATE_FUZZ` if that is set (`make fuzz`).
pub(crate) fn iterations(usual: usize) -> usize {
    let factor = std::env::var("HEADGATE_FUZZ").ok().and_then(|text| text.parse().ok());
    usual * factor.unwrap_or(1)
}
