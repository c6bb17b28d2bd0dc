//! Rust types of tensor elements, and the runtime's numbers of the protocol's types.

use headgate_core::tensor::DataType;

mod sealed {
    pub trait Sealed {}
}

/// A type whose values are stored in a tensor's buffer.
///
/// # Safety
/// Implementors are plain numbers: every bit pattern is a value, and the size is `DATATYPE.size()`.
pub unsafe trait Element: sealed::Sealed + Copy + 'static {
    /// Whether a tensor of `datatype` holds elements of this type.
    fn fits(datatype: DataType) -> bool;
}

/// Bytes as elements of a type. `None` if they are not aligned for it, or end within an element.
pub fn cast_mut<T: Element>(bytes: &mut [u8]) -> Option<&mut [T]> {
    if bytes.is_empty() {
        return Some(&mut []);
    }
    let start = bytes.as_mut_ptr().cast::<T>();
    if !start.is_aligned() || !bytes.len().is_multiple_of(size_of::<T>()) {
        return None;
    }
    // SAFETY: aligned, long enough, borrowed alone, and every bit pattern is a value of T.
    Some(unsafe { std::slice::from_raw_parts_mut(start, bytes.len() / size_of::<T>()) })
}

macro_rules! elements {
    ($($rust:ty => $($datatype:ident)|+;)+) => {$(
        impl sealed::Sealed for $rust {}
        // SAFETY: a primitive number of the protocol type's size.
        unsafe impl Element for $rust {
            fn fits(datatype: DataType) -> bool {
                matches!(datatype, $(DataType::$datatype)|+)
            }
        }
    )+};
}

elements! {
    u8 => Uint8 | Bool;
    u16 => Uint16 | Fp16 | Bf16;
    u32 => Uint32;
    u64 => Uint64;
    i8 => Int8;
    i16 => Int16;
    i32 => Int32;
    i64 => Int64;
    f32 => Fp32;
    f64 => Fp64;
}

/// ONNX's number of each protocol type (`TensorProto.DataType`).
const NUMBERS: [(DataType, i32); 14] = [
    (DataType::Fp32, 1),
    (DataType::Uint8, 2),
    (DataType::Int8, 3),
    (DataType::Uint16, 4),
    (DataType::Int16, 5),
    (DataType::Int32, 6),
    (DataType::Int64, 7),
    (DataType::Bytes, 8),
    (DataType::Bool, 9),
    (DataType::Fp16, 10),
    (DataType::Fp64, 11),
    (DataType::Uint32, 12),
    (DataType::Uint64, 13),
    (DataType::Bf16, 16),
];

/// The protocol type of an ONNX number; `None` for complex, 8-bit float and 4-bit types.
pub(crate) fn from_onnx(number: i32) -> Option<DataType> {
    NUMBERS.iter().find(|(_, onnx)| *onnx == number).map(|(datatype, _)| *datatype)
}

/// The runtime's enumerator of a protocol type.
pub(crate) fn to_onnx(datatype: DataType) -> ort_sys::ONNXTensorElementDataType {
    use ort_sys::ONNXTensorElementDataType as T;
    match datatype {
        DataType::Bool => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BOOL,
        DataType::Uint8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8,
        DataType::Uint16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT16,
        DataType::Uint32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT32,
        DataType::Uint64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT64,
        DataType::Int8 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT8,
        DataType::Int16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT16,
        DataType::Int32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32,
        DataType::Int64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64,
        DataType::Fp16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16,
        DataType::Bf16 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_BFLOAT16,
        DataType::Fp32 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
        DataType::Fp64 => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE,
        DataType::Bytes => T::ONNX_TENSOR_ELEMENT_DATA_TYPE_STRING,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_enumerators_agree() {
        for datatype in DataType::ALL {
            assert_eq!(from_onnx(to_onnx(datatype) as i32), Some(datatype));
        }
        assert_eq!(from_onnx(14), None);
    }
}
