//! A safe layer over ONNX Runtime's C API, opened with dlopen from the installed wheel's folder.
//!
//! Not here: which session runs when, and on which thread (`headgate-engine`). Every `unsafe` of the data plane's inference is
//! in this crate.
//!
//! Read in this order: [`library`], [`session`], [`binding`], [`tensor`], [`view`], [`string_tensor`], [`buffer`], [`element`], [`device`],
//! [`trap`], [`cancel`].

mod api;
pub mod binding;
pub mod buffer;
pub mod cancel;
pub mod device;
pub mod element;
pub mod heap;
pub mod library;
mod optional;
mod output_check;
pub mod session;
mod shape_rule;
mod signature;
pub mod string_tensor;
pub mod tensor;
pub mod trap;
mod value;
pub mod view;
mod zipmap;

pub use binding::Binding;
pub use element::Element;
pub use library::Library;
pub use session::{Session, SessionOptions};
pub use string_tensor::StringTensor;
pub use tensor::Tensor;
pub use view::{Elements, TensorView};
