//! Inspects libraries and models without serving them.

use std::path::Path;

use headgate_core::error::{Code, Error, Result};
use headgate_engine::runtime::library::API_LEVEL;
use headgate_engine::runtime::{Library, Session, SessionOptions};
use serde_json::{Value, json};

/// The path, version, providers and API level of an ONNX Runtime library.
///
/// # Errors
/// `model_load_failed` if it cannot be opened.
pub fn library(path: &str) -> Result<Value> {
    let library = Library::open(Path::new(path))?;
    Ok(json!({
        "path": path,
        "version": library.version(),
        "providers": library.providers()?,
        "api_level": API_LEVEL,
    }))
}

/// The signature of a model file.
///
/// # Errors
/// `model_load_failed` if the library or the model cannot be loaded.
pub fn model(library: &str, model: &str) -> Result<Value> {
    let library = Library::open(Path::new(library))?;
    let session = Session::load(library, Path::new(model), SessionOptions::default())?;
    serde_json::to_value(session.signature())
        .map_err(|error| Error::new(Code::Internal, format!("a signature without JSON: {error}")))
}
