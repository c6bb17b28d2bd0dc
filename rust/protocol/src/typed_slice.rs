//! Slices of typed elements, into which tensors are decoded.
//!
//! Not here: how they are filled (`numbers` from JSON, `binary` from blobs). Next: `numbers`.

use headgate_core::tensor::DataType;

macro_rules! typed {
    ($($(#[doc = $doc:literal])+ $variant:ident($element:ty);)+) => {
        /// A slice of elements of one datatype. BYTES are decoded into a [`StringTable`](crate::strings::StringTable).
        #[derive(Debug)]
        pub enum TypedSliceMut<'a> { $($(#[doc = $doc])+ $variant(&'a mut [$element]),)+ }

        impl TypedSliceMut<'_> {
            /// The datatype of the elements.
            pub fn datatype(&self) -> DataType {
                match self { $(TypedSliceMut::$variant(_) => DataType::$variant,)+ }
            }

            /// The number of elements.
            pub fn len(&self) -> usize {
                match self { $(TypedSliceMut::$variant(out) => out.len(),)+ }
            }

            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

typed! {
    /// BOOL, each element 0 or 1.
    Bool(u8);
    /// UINT8.
    Uint8(u8);
    /// UINT16.
    Uint16(u16);
    /// UINT32.
    Uint32(u32);
    /// UINT64.
    Uint64(u64);
    /// INT8.
    Int8(i8);
    /// INT16.
    Int16(i16);
    /// INT32.
    Int32(i32);
    /// INT64.
    Int64(i64);
    /// FP16, the bits of each element.
    Fp16(u16);
    /// BF16, the bits of each element.
    Bf16(u16);
    /// FP32.
    Fp32(f32);
    /// FP64.
    Fp64(f64);
}
