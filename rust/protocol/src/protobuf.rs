//! The protobuf form of inference, without generated types: a request becomes the same [`Envelope`] as a JSON one, its tensors
//! are slices of the received bytes, and a response is written field by field.
//!
//! All other messages are rare and small. They have generated types in [`crate::pb`].
//! Next: `protobuf/wire`.
//!
//! [`Envelope`]: crate::envelope::Envelope

pub(crate) mod contents;
pub(crate) mod fields;
mod request;
mod response;
mod scan;
mod wire;

pub use request::{InferRequest, parse};
pub use response::{write, write_stream_error, write_stream_prefix, write_text_parameter};
pub use scan::{ModelName, NameRanges, first_large_tensor, is_flagged, model_name, request_id};
