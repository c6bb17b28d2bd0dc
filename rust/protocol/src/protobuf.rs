//! The protobuf form of inference, read and written without an object for it: a request becomes the same [`Envelope`] as a
//! JSON one, its tensors stay slices of the received bytes, and an answer is written field by field.
//!
//! Messages other than these two are rare and small; they have generated types in [`crate::pb`].
//! Next: `protobuf/wire`.
//!
//! [`Envelope`]: crate::envelope::Envelope

pub(crate) mod contents;
mod request;
mod response;
mod wire;

pub use request::{InferRequest, ModelName, first_large_tensor, model_name, parse, request_id};
pub use response::{write, write_stream_error, write_stream_prefix};
