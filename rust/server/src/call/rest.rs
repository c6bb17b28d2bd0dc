//! The protocol's extensions over REST: what `model_info` and `settings` know, as JSON. Cold: these calls are rare.
//!
//! Not here: inference (`rest_infer`) and the small bodies that health checks read all day (`headgate_protocol::metadata`).

use headgate_core::error::{Code, Error, Result};
use headgate_protocol::envelope::refuse_byte_order_mark;
use headgate_protocol::pb::inference as pb;
use headgate_protocol::predict;
use http::Method;
use serde_json::{Map, Value, json};

use crate::call::feedback;
use crate::call::model_info;
use crate::call::origin::refuse_cross_origin;
use crate::call::path::{ExtensionCall, SharedMemoryCall};
use crate::call::repository;
use crate::call::settings;
use crate::headers::Headers;
use crate::request::inference::Target;
use crate::thread::io::{self, Io};
use crate::transport::body;
use crate::transport::body::{BodySource, ReadBody};
use crate::transport::coding;

/// The methods that a call takes.
pub fn methods(call: &ExtensionCall<'_>) -> &'static [Method] {
    const READ: &[Method] = &[Method::GET, Method::HEAD];
    const WRITE: &[Method] = &[Method::POST];
    const BOTH: &[Method] = &[Method::GET, Method::HEAD, Method::POST];
    match call {
        ExtensionCall::Models
        | ExtensionCall::ModelStatus(_)
        | ExtensionCall::Config(_)
        | ExtensionCall::Statistics(_)
        | ExtensionCall::SharedMemory(SharedMemoryCall::Status) => READ,
        ExtensionCall::Index(_)
        | ExtensionCall::Feedback(_)
        | ExtensionCall::Load(..)
        | ExtensionCall::Unload(..)
        | ExtensionCall::SharedMemory(SharedMemoryCall::Register | SharedMemoryCall::Unregister) => WRITE,
        ExtensionCall::Trace(_) | ExtensionCall::Logging => BOTH,
    }
}

/// Appends the response to `out`.
///
/// # Errors
/// Those of the call; `invalid_argument` for a body that is not the JSON of the call.
pub async fn answer(
    call: &ExtensionCall<'_>,
    headers: Headers<'_>,
    body: &mut BodySource,
    out: &mut Vec<u8>,
) -> Result<()> {
    let value = match *call {
        ExtensionCall::Index(repository) => {
            let ready = flag(&object(headers, body).await?, "ready")?;
            io::with(|io| index(io, repository, ready))?
        }
        ExtensionCall::Load(repository, name) => {
            refuse_cross_origin(headers)?;
            let parameters = parameters(object(headers, body).await?)?;
            repository::load(repository, name, parameters.keys().map(String::as_str)).await?;
            json!({"name": name, "load": true})
        }
        ExtensionCall::Unload(repository, name) => {
            refuse_cross_origin(headers)?;
            let parameters = parameters(object(headers, body).await?)?;
            let names = parameters.keys().map(String::as_str);
            io::with(|io| repository::unload(io, repository, name, names))?;
            json!({"name": name, "unload": true})
        }
        ExtensionCall::Feedback(name) => feedback::answer(name, headers, body).await?,
        ExtensionCall::Trace(target) => {
            let changes = object(headers, body).await?;
            io::with(|io| {
                target.map(|target| model_info::find(io, &target)).transpose()?;
                settings::refuse_changes(io, changes.keys())
            })?;
            trace_settings()
        }
        ExtensionCall::Logging => {
            let changes = object(headers, body).await?;
            io::with(|io| settings::refuse_changes(io, changes.keys()))?;
            log_settings()
        }
        ref call => return io::with(|io| describe(io, call, headers, out)),
    };
    out.extend_from_slice(value.to_string().as_bytes());
    Ok(())
}

/// Answers a call whose body is not read.
fn describe(io: &Io, call: &ExtensionCall<'_>, headers: Headers<'_>, out: &mut Vec<u8>) -> Result<()> {
    let value = match *call {
        ExtensionCall::ModelStatus(target) => {
            let endpoint = model_info::find(io, &target)?.endpoint;
            predict::write_status(out, &endpoint.name, &model_info::versions(&endpoint, &target));
            return Ok(());
        }
        ExtensionCall::Config(target) => config_json(&model_info::config(io, &target)?),
        ExtensionCall::Statistics(target) => statistics(io, target)?,
        ExtensionCall::SharedMemory(SharedMemoryCall::Status) => json!([]),
        // No region is registered, so that there is none to forget.
        ExtensionCall::SharedMemory(SharedMemoryCall::Unregister) => {
            coding::of_body(headers)?;
            json!({})
        }
        ExtensionCall::SharedMemory(SharedMemoryCall::Register) => {
            coding::of_body(headers)?;
            let words = "shared memory is not supported; send the elements with the request";
            return Err(Error::new(Code::Unsupported, words));
        }
        _ => models(io),
    };
    out.extend_from_slice(value.to_string().as_bytes());
    Ok(())
}

/// The object in a body; an empty one for an empty body.
async fn object(headers: Headers<'_>, body: &mut BodySource) -> Result<Map<String, Value>> {
    let ReadBody { bytes, memory: _memory } =
        coding::read_body(body, io::with(body::small_limit), headers, |_, _| None, None).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    refuse_byte_order_mark(&bytes)?;
    let fields: Option<Map<String, Value>> = serde_json::from_slice(&bytes)
        .map_err(|error| Error::invalid(format!("the body must be a JSON object: {error}")))?;
    Ok(without_nulls(fields.unwrap_or_default()))
}

/// The fields without those that are null: null means absent.
fn without_nulls(mut fields: Map<String, Value>) -> Map<String, Value> {
    fields.retain(|_, value| !value.is_null());
    fields
}

fn parameters(mut fields: Map<String, Value>) -> Result<Map<String, Value>> {
    match fields.remove("parameters") {
        None => Ok(Map::new()),
        Some(Value::Object(parameters)) => Ok(without_nulls(parameters)),
        Some(_) => Err(Error::invalid("\"parameters\" must be an object")),
    }
}

fn flag(fields: &Map<String, Value>, key: &str) -> Result<bool> {
    match fields.get(key) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Error::invalid(format!("{key:?} must be true or false"))),
    }
}

fn models(io: &Io) -> Value {
    let names: Vec<String> = io.endpoints().iter().map(|endpoint| endpoint.name.to_string()).collect();
    json!({"models": names})
}

fn index(io: &Io, repository: &str, ready_only: bool) -> Result<Value> {
    let entry = |model: pb::repository_index_response::ModelIndex| {
        let mut entry = json!({"name": model.name, "version": model.version, "state": model.state});
        if !model.reason.is_empty() {
            entry["reason"] = json!(model.reason);
        }
        entry
    };
    Ok(model_info::index(io, repository, ready_only)?.into_iter().map(entry).collect())
}

fn statistics(io: &Io, target: Option<Target<'_>>) -> Result<Value> {
    let everything = Target { endpoint: "", version: None };
    let models = model_info::statistics(io, &target.unwrap_or(everything))?;
    let models: Vec<Value> = models.into_iter().map(model_statistics).collect();
    Ok(json!({"model_stats": models}))
}

fn model_statistics(model: pb::ModelStatistics) -> Value {
    let stats = model.inference_stats.unwrap_or_default();
    let batches = model.batch_stats;
    let duration = |of: Option<pb::StatisticDuration>| {
        let of = of.unwrap_or_default();
        json!({"count": of.count, "ns": of.ns})
    };
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": model.last_inference,
        "inference_count": model.inference_count,
        "execution_count": model.execution_count,
        "inference_stats": {
            "success": duration(stats.success),
            "fail": duration(stats.fail),
            "queue": duration(stats.queue),
            "compute_input": duration(stats.compute_input),
            "compute_infer": duration(stats.compute_infer),
            "compute_output": duration(stats.compute_output),
            "cache_hit": duration(stats.cache_hit),
            "cache_miss": duration(stats.cache_miss),
        },
        "response_stats": {},
        "batch_stats": batches.into_iter().map(|batch| json!({
            "batch_size": batch.batch_size,
            "compute_input": duration(batch.compute_input),
            "compute_infer": duration(batch.compute_infer),
            "compute_output": duration(batch.compute_output),
        })).collect::<Vec<_>>(),
        "memory_usage": [],
    })
}

/// The configuration with the names that protobuf's JSON gives it.
fn config_json(config: &pb::ModelConfig) -> Value {
    let data_type = |of: i32| pb::DataType::try_from(of).unwrap_or_default().as_str_name();
    let input = |input: &pb::ModelInput| {
        let mut shown =
            json!({"name": input.name, "data_type": data_type(input.data_type), "dims": input.dims});
        if input.optional {
            shown["optional"] = true.into();
        }
        shown
    };
    let inputs: Vec<Value> = config.input.iter().map(input).collect();
    let outputs: Vec<Value> = config
        .output
        .iter()
        .map(|output| json!({"name": output.name, "data_type": data_type(output.data_type), "dims": output.dims}))
        .collect();
    let instances: Vec<Value> = config
        .instance_group
        .iter()
        .map(|group| {
            let kind = pb::model_instance_group::Kind::try_from(group.kind).unwrap_or_default().as_str_name();
            json!({"name": group.name, "kind": kind, "count": group.count, "gpus": group.gpus})
        })
        .collect();
    json!({
        "name": config.name,
        "platform": config.platform,
        "backend": config.backend,
        "version_policy": {"all": {}},
        "max_batch_size": config.max_batch_size,
        "input": inputs,
        "output": outputs,
        "instance_group": instances,
        "default_model_filename": config.default_model_filename,
    })
}

/// Every value is a string, the level a list of them: Triton's clients expect that.
fn trace_settings() -> Value {
    let setting = |&(name, of): &(&str, &str)| {
        let value = if name == "trace_level" { json!([of]) } else { json!(of) };
        (name.to_owned(), value)
    };
    Value::Object(settings::TRACE.iter().map(setting).collect())
}

fn log_settings() -> Value {
    let setting = |&(name, of): &(&str, settings::LogValue)| {
        let value = match of {
            settings::LogValue::Flag(flag) => json!(flag),
            settings::LogValue::Number(number) => json!(number),
            settings::LogValue::Text(text) => json!(text),
        };
        (name.to_owned(), value)
    };
    Value::Object(settings::LOG.iter().map(setting).collect())
}
