//! Loading and unloading over the protocol: what is in memory, never which version gets traffic.

use std::sync::{Arc, Weak};

use headgate_core::error::{Code, Error, Result};

use crate::call::model_info;
use crate::serving::residency::ModelRepository;
use crate::thread::io::{self, Io};

/// Brings an endpoint into memory and waits until it is served.
///
/// # Errors
/// `permission_denied` unless the operator allowed it; `unsupported` for parameters that would change what is loaded;
/// `model_not_found`; whatever loading fails with.
pub async fn load<'a>(repository: &str, name: &str, parameters: impl Iterator<Item = &'a str>) -> Result<()> {
    let loaded = io::with(|io| {
        check(io, repository, parameters)?;
        repository_of(io)?.load(name)
    })?;
    loaded.wait().await.map_err(|error| match error.code {
        // The control plane's word for it; on the data port it is the backend that fails.
        Code::ModelLoadFailed => Error::new(Code::BackendFailed, error.message),
        _ => error,
    })
}

/// Takes an endpoint out of memory.
///
/// # Errors
/// `permission_denied` unless the operator allowed it; `unsupported` for parameters; `model_not_found`.
pub fn unload<'a>(
    io: &Io,
    repository: &str,
    name: &str,
    parameters: impl Iterator<Item = &'a str>,
) -> Result<()> {
    check(io, repository, parameters)?;
    repository_of(io)?.unload(name)
}

fn check<'a>(io: &Io, repository: &str, parameters: impl Iterator<Item = &'a str>) -> Result<()> {
    if !io.shared.config.allow_repository_control {
        return Err(Error::new(
            Code::PermissionDenied,
            "loading and unloading over the protocol is off; start with --allow-repository-control",
        ));
    }
    model_info::check_repository(repository)?;
    // Models depend on nothing here, so that parameter asks for nothing.
    match parameters.into_iter().find(|&key| key != "unload_dependents") {
        None => Ok(()),
        Some(key) => Err(Error::new(
            Code::Unsupported,
            format!(
                "parameter {key:?} is not supported: what a version is, its document says (headgate apply)"
            ),
        )),
    }
}

fn repository_of(io: &Io) -> Result<Arc<dyn ModelRepository>> {
    let repository = io.shared.repository.get().and_then(Weak::upgrade);
    repository.ok_or_else(|| Error::new(Code::Draining, "the gateway is stopping"))
}
