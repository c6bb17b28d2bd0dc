//! Loads the versions of the new state of an endpoint.

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::Signature;
use headgate_engine::{Engine, LoadUrgency, LoadedModel, Model, Source};

/// A version that could not be loaded.
#[derive(Debug)]
pub struct LoadFailure {
    /// Its name; empty if the fault is one of the whole endpoint.
    pub version: String,
    /// Why it could not be loaded.
    pub error: Error,
}

/// The models of the versions of a spec.
pub struct LoadedVersions {
    /// All models, in the order of the spec.
    pub models: Vec<Arc<Model>>,
    /// Keeps the models in memory that get traffic or copies of it, or are pinned, until the spec is served.
    _warm: Vec<LoadedModel>,
}

/// Loads all versions of a spec. Blocks.
///
/// # Errors
/// The first version that cannot be loaded.
pub fn load(engine: &Engine, spec: &EndpointSpec) -> std::result::Result<LoadedVersions, LoadFailure> {
    let mut models: Vec<Option<Arc<Model>>> = vec![None; spec.versions.len()];
    let failed = |version: &VersionSpec, error| LoadFailure {
        version: version.name.clone(),
        error: as_load_failure(error),
    };
    for (slot, version) in models.iter_mut().zip(&spec.versions) {
        if let Some(path) = &version.artifact {
            let source = Source::Artifact(std::path::Path::new(path));
            let model = engine.load(&version.digest, &source, &version.run, need_of(spec, version));
            *slot = Some(model.map_err(|error| failed(version, error))?);
        }
    }
    // Not before all are loaded: the load of the last may have evicted the first.
    let mut warm = Vec::new();
    for (model, version) in models.iter().zip(&spec.versions) {
        let Some(model) = model.as_ref().filter(|_| stays_in_memory(spec, version)) else { continue };
        match engine.reload(model, need_of(spec, version)) {
            Ok(loaded) => warm.push(loaded),
            // Callers are answered without the shadow, which says that it is out of memory.
            Err(_) if !spec.fresh && !gets_traffic(spec, version) => {}
            Err(error) => return Err(failed(version, error)),
        }
    }
    let reference =
        reference_signature(spec, |index| models[index].as_ref().map(|model| model.signature())).cloned();
    for (slot, version) in models.iter_mut().zip(&spec.versions).filter(|(slot, _)| slot.is_none()) {
        let model = load_constant(engine, version, reference.as_ref());
        *slot = Some(model.map_err(|error| failed(version, error))?);
    }
    Ok(LoadedVersions { models: models.into_iter().flatten().collect(), _warm: warm })
}

/// Whether a spec can be served at once: every version was loaded, and is in memory if it must be.
pub fn is_loaded(engine: &Engine, spec: &EndpointSpec) -> bool {
    spec.versions.iter().filter(|version| version.artifact.is_some()).all(|version| {
        let model = engine.find_loaded(&version.digest, &version.run);
        model.is_some_and(|model| !stays_in_memory(spec, version) || model.hold().is_some())
    })
}

/// Whether a version must be in memory when the spec is served: it gets traffic, it is pinned, or it is a shadow, for which it is not
/// fetched later. An urgent change waits for no shadow.
fn stays_in_memory(spec: &EndpointSpec, version: &VersionSpec) -> bool {
    let is_shadow = || spec.shadows.iter().any(|shadow| shadow.to == version.name);
    gets_traffic(spec, version) || (!spec.urgent && is_shadow())
}

/// Whether a version answers callers without being named, or is pinned.
fn gets_traffic(spec: &EndpointSpec, version: &VersionSpec) -> bool {
    spec.champion == version.name || spec.table.has_slots(&version.name) || version.pinned
}

/// How urgently a version needs memory. A champion or a pinned version that was served before must be served again, whatever else is in
/// memory: after a start, and after a change of traffic.
fn need_of(spec: &EndpointSpec, version: &VersionSpec) -> LoadUrgency {
    let kept = !spec.fresh && (spec.champion == version.name || version.pinned);
    if spec.urgent || kept { LoadUrgency::Urgent } else { LoadUrgency::Ordinary }
}

/// The error of a load with a code of the control plane.
fn as_load_failure(error: Error) -> Error {
    match error.code {
        Code::Overloaded => Error { code: Code::ModelLoadFailed, ..error },
        _ => error,
    }
}

/// The signature of constants: that of the champion, or of the first model if the champion is a constant itself. `signature` returns the
/// signature of a version by its index, if it is a model.
pub fn reference_signature<'s>(
    spec: &EndpointSpec,
    signature: impl Fn(usize) -> Option<&'s Signature>,
) -> Option<&'s Signature> {
    let champion = spec.versions.iter().position(|version| version.name == spec.champion);
    champion.and_then(&signature).or_else(|| (0..spec.versions.len()).find_map(signature))
}

/// The error of a constant in an endpoint without a model.
pub fn no_signature_error() -> Error {
    Error::new(
        Code::ModelLoadFailed,
        "a constant needs the signature of a model, and this endpoint has no version with a model",
    )
}

fn load_constant(
    engine: &Engine,
    version: &VersionSpec,
    reference: Option<&Signature>,
) -> Result<Arc<Model>> {
    let (Some(values), Some(signature)) = (&version.constant, reference) else {
        return Err(no_signature_error());
    };
    // The signature is part of the name, because a constant with another signature is another model.
    let described = serde_json::to_string(signature).unwrap_or_default();
    engine.load(
        &format!("{}|{described}", version.digest),
        &Source::Constant(values, signature),
        &version.run,
        LoadUrgency::Ordinary,
    )
}
