//! The Open Inference Protocol on the wire: JSON and binary tensors in, JSON and binary tensors out.
//!
//! The crate turns bytes into structures and back. It has no socket, no clock and no thread.
//!
//! A request is read in two steps, so that the version is known before tensor data is read. [`envelope`] reads all but the
//! data, with [`binary`] for the parts of the body. [`numbers`], [`strings`] or [`binary`] then decode the data. [`response`]
//! writes the response, and [`metadata`] writes the small bodies of other paths.
//!
//! ```
//! use headgate_core::tensor::{DataType, TensorSpec};
//! use headgate_protocol::{Envelope, OutputTensor, EnvelopeScratch, ResponseHead, TensorData, TypedSliceMut, binary, response};
//!
//! let request = br#"{"id":"7","inputs":[{"name":"X","shape":[2],"datatype":"FP32","data":[1.5,2]}]}"#;
//! let header: Option<&[u8]> = None; // the value of `binary::LENGTH_HEADER`
//! let mut scratch = EnvelopeScratch::default(); // one per thread
//! let mut envelope = Envelope::parse(binary::split(request, header)?, &mut scratch)?;
//! // ... route, find the version and its signature ...
//! let y = TensorSpec { name: "Y".into(), datatype: DataType::Fp32, shape: vec![-1], symbols: vec![], any_rank: false, labels: Vec::new() };
//! let mut chosen = Vec::new();
//! envelope.select_outputs(&[y.clone()], &mut chosen)?;
//! let input = &envelope.inputs[0];
//! let mut values = vec![0f32; input.shape.count()]; // a leased buffer
//! input.decode_into(TypedSliceMut::Fp32(&mut values))?;
//! // ... run ...
//! let head = ResponseHead { id: envelope.id.as_deref(), model_name: "double", model_version: "1", template: None };
//! let output = |selection: &headgate_protocol::SelectedOutput| OutputTensor {
//!     name: &y.name,
//!     datatype: y.datatype,
//!     shape: input.shape.view(),
//!     data: TensorData::Fp32(&values),
//!     binary: selection.binary,
//!     non_finite: headgate_core::spec::NonFinite::Error,
//!     template: None,
//! };
//! let outputs: Vec<_> = chosen.iter().map(output).collect();
//! let mut body = Vec::new();
//! let parts = response::write(&mut body, &head, &outputs)?;
//! assert!(body.starts_with(br#"{"id":"7","model_name":"double","model_version":"1","outputs":[{"name":"Y","#));
//! assert!(body.ends_with(br#""datatype":"FP32","shape":[2],"data":[1.5,2.0]}]}"#));
//! assert!(!parts.has_binary());
//! scratch.recycle(&mut envelope);
//! # Ok::<(), headgate_core::error::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod binary;
pub mod classification;
mod element_list;
pub mod envelope;
mod fault_context;
mod json_cursor;
mod json_fault;
mod json_string;
pub mod metadata;
pub mod numbers;
pub mod pb;
pub mod predict;
pub mod protobuf;
pub mod response;
pub mod strings;
mod typed_slice;

pub use envelope::{ElementSource, Envelope, EnvelopeScratch, InputTensor, RequestedOutput, SelectedOutput};
pub use response::{OutputTensor, ResponseHead, ResponseLengths, ResponseTemplate, TensorData};
pub use strings::{StringTable, StringTableView};
pub use typed_slice::TypedSliceMut;
