//! The calls around inference: liveness, metadata, configuration, statistics, the repository, and what there is not.
//!
//! Next: `facts`, which knows the answers.

use headgate_core::error::{Code, Error};
use headgate_protocol::metadata::EXTENSIONS;
use headgate_protocol::pb::inference::{self as pb, log_settings_response, trace_setting_response};
use tonic::{Request, Response, Status};

use super::generated::inference::grpc_inference_service_server::GrpcInferenceService;
use super::status::as_status;
use crate::call::facts;
use crate::call::origin;
use crate::call::repository;
use crate::call::settings;
use crate::headers::Headers;
use crate::request::inference::Target;
use crate::thread::io::{self, Io};

/// The service; its state is the IO thread's.
pub struct Inference;

type Answer<T> = Result<Response<T>, Status>;

/// Answers from what the IO thread knows.
fn told<T>(tell: impl FnOnce(&Io) -> headgate_core::error::Result<T>) -> Answer<T> {
    io::with(tell).map(Response::new).map_err(|error| as_status(&error))
}

fn target<'a>(name: &'a str, version: &'a str) -> Target<'a> {
    Target { endpoint: name, version: Some(version).filter(|version| !version.is_empty()) }
}

/// As [`origin::refuse_pages`], by the call's metadata.
fn refuse_pages<T>(request: &Request<T>) -> Result<(), Status> {
    let headers = request.metadata().clone().into_headers();
    origin::refuse_pages(Headers::Map(&headers)).map_err(|error| as_status(&error))
}

fn no_shared_memory<T>() -> Answer<T> {
    let error =
        Error::new(Code::Unsupported, "shared memory is not supported; send the elements with the request");
    Err(as_status(&error))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> Answer<pb::ServerLiveResponse> {
        told(|_| Ok(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(&self, _: Request<pb::ServerReadyRequest>) -> Answer<pb::ServerReadyResponse> {
        told(|io| Ok(pb::ServerReadyResponse { ready: io.shared.is_ready() }))
    }

    async fn model_ready(&self, request: Request<pb::ModelReadyRequest>) -> Answer<pb::ModelReadyResponse> {
        let asked = request.into_inner();
        // A model that is not there is not ready: clients ask before they begin.
        told(|io| {
            Ok(pb::ModelReadyResponse {
                ready: facts::find(io, &target(&asked.name, &asked.version)).is_ok(),
            })
        })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Answer<pb::ServerMetadataResponse> {
        told(|io| {
            Ok(pb::ServerMetadataResponse {
                name: "headgate".to_owned(),
                version: io.shared.config.version.clone(),
                extensions: EXTENSIONS.iter().map(|&name| name.to_owned()).collect(),
            })
        })
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Answer<pb::ModelMetadataResponse> {
        let asked = request.into_inner();
        told(|io| {
            let target = target(&asked.name, &asked.version);
            let found = facts::find(io, &target)?;
            let (endpoint, signature) = (&found.endpoint, found.signature());
            let required = signature.inputs.iter().map(facts::tensor_metadata);
            let versions = facts::versions(endpoint, &target).into_iter().map(str::to_owned).collect();
            Ok(pb::ModelMetadataResponse {
                name: endpoint.name.to_string(),
                versions,
                platform: facts::PLATFORM.to_owned(),
                inputs: required
                    .chain(signature.optional_inputs.iter().map(facts::optional_metadata))
                    .collect(),
                outputs: signature.outputs.iter().map(facts::tensor_metadata).collect(),
            })
        })
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Answer<pb::ModelConfigResponse> {
        let asked = request.into_inner();
        told(|io| {
            let config = facts::config(io, &target(&asked.name, &asked.version))?;
            Ok(pb::ModelConfigResponse { config: Some(config) })
        })
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Answer<pb::ModelStatisticsResponse> {
        let asked = request.into_inner();
        told(|io| {
            let model_stats = facts::statistics(io, &target(&asked.name, &asked.version))?;
            Ok(pb::ModelStatisticsResponse { model_stats })
        })
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Answer<pb::RepositoryIndexResponse> {
        let asked = request.into_inner();
        told(|io| {
            let models = facts::index(io, &asked.repository_name, asked.ready)?;
            Ok(pb::RepositoryIndexResponse { models })
        })
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Answer<pb::RepositoryModelLoadResponse> {
        refuse_pages(&request)?;
        let asked = request.into_inner();
        let parameters = asked.parameters.keys().map(String::as_str);
        let loaded = repository::load(&asked.repository_name, &asked.model_name, parameters).await;
        loaded.map(|()| Response::new(pb::RepositoryModelLoadResponse {})).map_err(|error| as_status(&error))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Answer<pb::RepositoryModelUnloadResponse> {
        refuse_pages(&request)?;
        let asked = request.into_inner();
        let parameters = asked.parameters.keys().map(String::as_str);
        told(|io| {
            repository::unload(io, &asked.repository_name, &asked.model_name, parameters)?;
            Ok(pb::RepositoryModelUnloadResponse {})
        })
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Answer<pb::SystemSharedMemoryStatusResponse> {
        told(|_| Ok(pb::SystemSharedMemoryStatusResponse::default()))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryRegisterResponse> {
        no_shared_memory()
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::SystemSharedMemoryUnregisterResponse> {
        told(|_| Ok(pb::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Answer<pb::CudaSharedMemoryStatusResponse> {
        told(|_| Ok(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryRegisterResponse> {
        no_shared_memory()
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Answer<pb::CudaSharedMemoryUnregisterResponse> {
        told(|_| Ok(pb::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<pb::TraceSettingRequest>,
    ) -> Answer<pb::TraceSettingResponse> {
        let asked = request.into_inner();
        told(|io| {
            if !asked.model_name.is_empty() {
                facts::find(io, &target(&asked.model_name, ""))?;
            }
            settings::refuse_changes(io, asked.settings.keys())?;
            let value = |value: &str| trace_setting_response::SettingValue { value: vec![value.to_owned()] };
            let settings = settings::TRACE.iter().map(|(name, of)| ((*name).to_owned(), value(of)));
            Ok(pb::TraceSettingResponse { settings: settings.collect() })
        })
    }

    async fn log_settings(
        &self,
        request: Request<pb::LogSettingsRequest>,
    ) -> Answer<pb::LogSettingsResponse> {
        use log_settings_response::SettingValue;
        use log_settings_response::setting_value::ParameterChoice;
        let asked = request.into_inner();
        told(|io| {
            settings::refuse_changes(io, asked.settings.keys())?;
            let choice = |setting: settings::Log| match setting {
                settings::Log::Flag(flag) => ParameterChoice::BoolParam(flag),
                settings::Log::Number(number) => ParameterChoice::Uint32Param(number),
                settings::Log::Text(text) => ParameterChoice::StringParam(text.to_owned()),
            };
            let settings = settings::LOG.iter().map(|&(name, setting)| {
                (name.to_owned(), SettingValue { parameter_choice: Some(choice(setting)) })
            });
            Ok(pb::LogSettingsResponse { settings: settings.collect() })
        })
    }
}
