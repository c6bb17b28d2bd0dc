//! The envelope of an inference request: id, parameters, names, types, shapes, and the bytes of each tensor, which are not
//! decoded. JSON and protobuf requests have the same envelope.
//!
//! Not here: how elements are decoded (`numbers`, `strings`, `binary`).
//! Next: `envelope/types`.

mod decode;
mod detached;
mod parse;
mod reserved;
mod scratch;
mod skeleton;
mod types;
mod values;

pub use detached::DetachedEnvelope;
pub(crate) use detached::range_within;
pub use headgate_core::tensor::MAX_TENSORS;
pub(crate) use reserved::refuse_shared_memory;
pub use scratch::EnvelopeScratch;
pub use types::{
    ElementSource, Envelope, InputForm, InputTensor, MAX_PARAMETERS, ParameterValue, Parameters,
    RequestedOutput, SelectedOutput,
};
pub use values::refuse_byte_order_mark;
