//! What the protocol says about endpoints: metadata, configuration, statistics, the repository's index. Cold: built for each call.
//!
//! The structures are gRPC's; REST says the same as JSON (`rest`).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_core::histogram::Counts;
use headgate_core::snapshot::Version;
use headgate_core::tensor::{DataType, Signature, TensorSpec};
use headgate_engine::BatchSizeStats;
use headgate_engine::Batcher;
use headgate_protocol::pb::inference as pb;
use pb::infer_parameter::ParameterChoice;
use pb::model_instance_group::Kind;
use pb::model_version_policy::{All, PolicyChoice};
use pb::repository_index_response::ModelIndex;

use crate::request::inference::Target;
use crate::serving::shared::LiveEndpoint;
use crate::serving::version::VersionState;
use crate::thread::io::Io;

/// The platform that runs artifacts.
pub const PLATFORM: &str = "onnxruntime_onnx";

/// A version that a question is about.
pub struct FoundVersion {
    /// Its endpoint.
    pub endpoint: Arc<LiveEndpoint>,
    /// Its place in the endpoint.
    index: u8,
}

impl FoundVersion {
    /// What the version takes and gives.
    pub fn signature(&self) -> &Signature {
        self.endpoint.versions[usize::from(self.index)].payload.model.signature()
    }
}

/// The endpoint and the version that a question is about: the named one, else the champion.
///
/// # Errors
/// `model_not_found`, `version_not_found`, or `model_not_ready` for an endpoint that is not in memory.
pub fn find(io: &Io, target: &Target<'_>) -> Result<FoundVersion> {
    let endpoint = io.endpoint(target.endpoint)?;
    let version = match target.version {
        Some(version) => headgate_core::route::choose_named_version(&endpoint, version)?.version,
        None => endpoint.champion,
    };
    Ok(FoundVersion { endpoint, index: version })
}

/// The names of the versions that metadata lists.
pub fn versions<'e>(endpoint: &'e LiveEndpoint, target: &Target<'e>) -> Vec<&'e str> {
    match target.version {
        Some(version) => vec![version],
        None => endpoint.versions.iter().map(|version| &*version.name).collect(),
    }
}

/// What model metadata says of a tensor that every request gives.
pub fn tensor_metadata(spec: &TensorSpec) -> pb::model_metadata_response::TensorMetadata {
    pb::model_metadata_response::TensorMetadata {
        name: spec.name.clone(),
        datatype: spec.datatype.as_str().to_owned(),
        shape: spec.shape.clone(),
        parameters: HashMap::new(),
    }
}

/// What model metadata says of an input that a request may leave out.
pub fn optional_metadata(spec: &TensorSpec) -> pb::model_metadata_response::TensorMetadata {
    let yes = pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    let parameters = HashMap::from([("optional".to_owned(), yes)]);
    pb::model_metadata_response::TensorMetadata { parameters, ..tensor_metadata(spec) }
}

/// The configuration of the named version, or the champion's.
///
/// # Errors
/// As [`find`].
pub fn config(io: &Io, target: &Target<'_>) -> Result<pb::ModelConfig> {
    let found = find(io, target)?;
    let (endpoint, signature) = (&found.endpoint, found.signature());
    let input = |spec: &TensorSpec| pb::ModelInput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: spec.shape.clone(),
        optional: false,
    };
    let optional = |spec: &TensorSpec| pb::ModelInput { optional: true, ..input(spec) };
    let output = |spec: &TensorSpec| pb::ModelOutput {
        name: spec.name.clone(),
        data_type: data_type(spec.datatype).into(),
        dims: spec.shape.clone(),
        label_filename: String::new(),
    };
    let instances = pb::ModelInstanceGroup {
        name: endpoint.name.to_string(),
        count: 1,
        gpus: Vec::new(),
        kind: Kind::Cpu.into(),
    };
    Ok(pb::ModelConfig {
        name: endpoint.name.to_string(),
        platform: PLATFORM.to_owned(),
        backend: "onnxruntime".to_owned(),
        version_policy: Some(pb::ModelVersionPolicy { policy_choice: Some(PolicyChoice::All(All {})) }),
        // The first dimension is one of the tensor's own: nothing is added in front of it.
        max_batch_size: 0,
        input: signature
            .inputs
            .iter()
            .map(input)
            .chain(signature.optional_inputs.iter().map(optional))
            .collect(),
        output: signature.outputs.iter().map(output).collect(),
        instance_group: vec![instances],
        default_model_filename: "model.onnx".to_owned(),
    })
}

/// The statistics of the named version, of all versions of the named endpoint, or, with an empty name, of everything.
///
/// # Errors
/// `model_not_found`, `version_not_found`.
pub fn statistics(io: &Io, target: &Target<'_>) -> Result<Vec<pb::ModelStatistics>> {
    if target.endpoint.is_empty() {
        let endpoints = io.endpoints();
        let versions = endpoints.iter().flat_map(|endpoint| {
            endpoint.versions.iter().map(|version| version_statistics(io, endpoint, version))
        });
        return Ok(versions.collect());
    }
    let endpoint = io.endpoint(target.endpoint)?;
    let chosen = match target.version {
        Some(name) => {
            let index = headgate_core::route::choose_named_version(&endpoint, name)?.version as usize;
            &endpoint.versions[index..=index]
        }
        None => &endpoint.versions[..],
    };
    Ok(chosen.iter().map(|version| version_statistics(io, &endpoint, version)).collect())
}

fn version_statistics(
    io: &Io,
    endpoint: &LiveEndpoint,
    version: &Version<VersionState>,
) -> pb::ModelStatistics {
    let metrics = &version.payload.metrics;
    let outcome = metrics.request_totals();
    let duration = |count, ns| Some(pb::StatisticDuration { count, ns });
    let phase = |counts: &Counts| duration(counts.total(), counts.sum_ns);
    let run = metrics.counts(|shard| &shard.run);
    let queue = metrics.counts(|shard| &shard.queue);
    pb::ModelStatistics {
        name: endpoint.name.to_string(),
        version: version.name.to_string(),
        last_inference: outcome.last_ns.map_or(0, |ns| io.shared.unix_ms_at(ns)),
        inference_count: outcome.rows,
        execution_count: metrics.runs(),
        inference_stats: Some(pb::InferStatistics {
            success: duration(outcome.succeeded, outcome.success_ns),
            fail: duration(outcome.failed, outcome.failure_ns),
            // Every request that was run counts, those that did not wait with 0.
            queue: duration(run.total(), queue.sum_ns),
            compute_input: phase(&metrics.counts(|shard| &shard.decode)),
            compute_infer: phase(&run),
            compute_output: phase(&metrics.counts(|shard| &shard.reply)),
            cache_hit: duration(0, 0),
            cache_miss: duration(0, 0),
        }),
        batch_stats: version.payload.model.batcher().map(batch_statistics).unwrap_or_default(),
    }
}

/// Runs by their number of rows. Decoding inputs and writing outputs is counted for each request and not for a batch.
fn batch_statistics(batcher: &Batcher) -> Vec<pb::InferBatchStatistics> {
    let nothing = pb::StatisticDuration { count: 0, ns: 0 };
    let sizes = batcher.size_stats().into_iter();
    sizes
        .map(|(rows, BatchSizeStats { count, run_ns })| pb::InferBatchStatistics {
            batch_size: rows as u64,
            compute_input: Some(nothing),
            compute_infer: Some(pb::StatisticDuration { count, ns: run_ns }),
            compute_output: Some(nothing),
        })
        .collect()
}

/// Every version of every endpoint with its state.
///
/// # Errors
/// `not_found` for a repository other than the only one, which has no name.
pub fn index(io: &Io, repository: &str, ready_only: bool) -> Result<Vec<ModelIndex>> {
    check_repository(repository)?;
    let endpoints = io.endpoints();
    let mut models = Vec::new();
    for endpoint in &endpoints {
        models.extend(endpoint.versions.iter().map(|version| ModelIndex {
            name: endpoint.name.to_string(),
            version: version.name.to_string(),
            state: "READY".to_owned(),
            reason: String::new(),
        }));
    }
    if ready_only {
        return Ok(models);
    }
    for endpoint in &endpoints {
        models
            .extend(endpoint.omitted.iter().map(|(version, why)| unavailable(&endpoint.name, version, why)));
    }
    models.extend(io.unloaded().iter().map(|(name, version)| unavailable(name, version, "unloaded")));
    models.extend(io.unavailable().iter().map(|(name, why)| unavailable(name, "", why)));
    let served: HashSet<String> = endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect();
    let listed: HashSet<(String, String)> =
        models.iter().map(|model| (model.name.clone(), model.version.clone())).collect();
    for (name, versions) in io.refusals().iter() {
        // A refusal of a version that is served was for other bytes, and one of an endpoint that is served for another document.
        let is_known = |version: &str| {
            listed.contains(&(name.to_string(), version.to_owned()))
                || (version.is_empty() && served.contains(&**name))
        };
        let new = versions.iter().filter(|(version, _)| !is_known(version));
        models.extend(new.map(|(version, why)| unavailable(name, version, why)));
    }
    Ok(models)
}

fn unavailable(name: &str, version: &str, reason: &str) -> ModelIndex {
    ModelIndex {
        name: name.to_owned(),
        version: version.to_owned(),
        state: "UNAVAILABLE".to_owned(),
        reason: reason.to_owned(),
    }
}

/// Refuses a repository by name: there is one, and it has none.
///
/// # Errors
/// `not_found`.
pub fn check_repository(name: &str) -> Result<()> {
    if name.is_empty() {
        return Ok(());
    }
    Err(Error::new(Code::NotFound, format!("there is no repository {name:?}; the only one has no name")))
}

fn data_type(datatype: DataType) -> pb::DataType {
    match datatype {
        DataType::Bool => pb::DataType::TypeBool,
        DataType::Uint8 => pb::DataType::TypeUint8,
        DataType::Uint16 => pb::DataType::TypeUint16,
        DataType::Uint32 => pb::DataType::TypeUint32,
        DataType::Uint64 => pb::DataType::TypeUint64,
        DataType::Int8 => pb::DataType::TypeInt8,
        DataType::Int16 => pb::DataType::TypeInt16,
        DataType::Int32 => pb::DataType::TypeInt32,
        DataType::Int64 => pb::DataType::TypeInt64,
        DataType::Fp16 => pb::DataType::TypeFp16,
        DataType::Bf16 => pb::DataType::TypeBf16,
        DataType::Fp32 => pb::DataType::TypeFp32,
        DataType::Fp64 => pb::DataType::TypeFp64,
        DataType::Bytes => pb::DataType::TypeString,
    }
}
