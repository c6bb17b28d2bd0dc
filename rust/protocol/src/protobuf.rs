//! The protobuf form of inference, without generated types: a request becomes the same [`Envelope`] as a JSON one, its tensors
//! are slices of the received bytes, and a response is written field by field.
//!
//! All other messages are rare and small. They have generated types in [`crate::pb`].
//! Next: `protobuf/wire`.
//!
//! [`Envelope`]: crate::envelope::Envelope

pub(crate) mod contents;
mod request;
mod response;
mod wire;

pub use request::{InferRequest, ModelName, first_large_tensor, model_name, parse, request_id};
pub use response::{write, write_stream_error, write_stream_prefix};
