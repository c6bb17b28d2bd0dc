//! Helpers of the tests with the real library.
#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test says what went wrong by panicking"
)]

use std::path::{Path, PathBuf};

use headgate_runtime::Library;

pub fn library() -> &'static Library {
    let path = std::env::var("HEADGATE_ORT_LIBRARY")
        .expect("HEADGATE_ORT_LIBRARY names the ONNX Runtime library; `make test` sets it");
    Library::open(Path::new(&path)).unwrap()
}

pub fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models").join(name)
}
