//! A dry run finds why a new state would be refused, as far as that shows without running a model.
//!
//! It opens each model that is not loaded, one after the other, without optimising it. Then it checks the signatures as a load does
//! (`compatibility`). Not here: warm-up, batches and room in memory, which only a load tries (`engine::load`).

use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::check;
use headgate_core::spec::{EndpointSpec, VersionSpec};
use headgate_core::tensor::Signature;
use headgate_engine::Constant;
use headgate_engine::Engine;
use serde_json::{Value, json};

use crate::serving::compatibility;
use crate::serving::load_versions::{self, LoadFailure};

/// The result of a dry run.
#[derive(Debug, Default)]
pub struct DryRun {
    /// Why the state would be refused.
    pub refused: Option<LoadFailure>,
    /// Versions that were not opened, because the memory budget has no room for them now.
    pub unopened: Vec<String>,
}

impl DryRun {
    /// As JSON: `{"refused": {"version", "code", "message"} | null, "unopened": [...]}`.
    pub fn to_json(&self) -> Value {
        let refused = self.refused.as_ref().map(|failure| {
            let version = Some(&failure.version).filter(|version| !version.is_empty());
            json!({"version": version, "code": failure.error.code.as_str(), "message": failure.error.message})
        });
        json!({"refused": refused, "unopened": self.unopened})
    }
}

/// Does a dry run of a state. Blocks.
pub fn dry_run(engine: &Engine, spec: &EndpointSpec) -> DryRun {
    let mut unopened = Vec::new();
    let refused = check_state(engine, spec, &mut unopened).err();
    DryRun { refused, unopened }
}

fn check_state(
    engine: &Engine,
    spec: &EndpointSpec,
    unopened: &mut Vec<String>,
) -> std::result::Result<(), LoadFailure> {
    check(spec).map_err(|error| LoadFailure { version: String::new(), error })?;
    let failure = |version: &VersionSpec, error| LoadFailure { version: version.name.clone(), error };
    let mut signatures: Vec<Option<Signature>> = Vec::with_capacity(spec.versions.len());
    for version in &spec.versions {
        let found = match &version.artifact {
            Some(path) => signature(engine, version, path).map_err(|error| failure(version, error))?,
            None => None,
        };
        if version.artifact.is_some() && found.is_none() {
            unopened.push(version.name.clone());
        }
        signatures.push(found);
    }
    let reference = load_versions::reference_signature(spec, |index| signatures[index].as_ref()).cloned();
    if reference.is_none() && !unopened.is_empty() {
        return Ok(());
    }
    for (version, slot) in spec.versions.iter().zip(&mut signatures) {
        if let Some(values) = &version.constant {
            let constant = reference.as_ref().ok_or_else(load_versions::no_signature_error);
            let constant =
                constant.and_then(|signature| Constant::new(values, signature).map(|_| signature.clone()));
            *slot = Some(constant.map_err(|error| failure(version, error))?);
        }
    }
    let known: Vec<&Signature> = signatures.iter().flatten().collect();
    // Without the signatures of all versions an index would not say which version it is of.
    if spec.fresh && known.len() == spec.versions.len() { compatibility::check(spec, &known) } else { Ok(()) }
}

/// The signature of a model, from memory or from its file; `None` if there is no room to open it.
fn signature(engine: &Engine, version: &VersionSpec, path: &str) -> Result<Option<Signature>> {
    if let Some(model) = engine.find_loaded(&version.digest, &version.run) {
        return Ok(Some(model.signature().clone()));
    }
    match engine.inspect(std::path::Path::new(path), &version.run) {
        Err(Error { code: Code::Overloaded, .. }) => Ok(None),
        outcome => outcome.map(Some),
    }
}
