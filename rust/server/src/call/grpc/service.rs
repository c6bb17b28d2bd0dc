//! The calls around inference: liveness, metadata, configuration, statistics, the repository, and refusals of what is not supported.
//!
//! Next: `model_info`, which makes the responses.

use headgate_core::error::{Code, Error};
use headgate_protocol::metadata::EXTENSIONS;
use headgate_protocol::pb::inference::{self as pb, log_settings_response, trace_setting_response};
use tonic::{Request, Response, Status};

use super::generated::inference::grpc_inference_service_server::GrpcInferenceService;
use super::status::as_status;
use crate::call::model_info;
use crate::call::origin;
use crate::call::repository;
use crate::call::settings;
use crate::headers::Headers;
use crate::request::inference::Target;
use crate::thread::io::{self, Io};

/// The service; its state is the IO thread's.
pub struct Inference;

type ServiceResult<T> = Result<Response<T>, Status>;

/// Answers with the state of the IO thread.
fn respond<T>(tell: impl FnOnce(&Io) -> headgate_core::error::Result<T>) -> ServiceResult<T> {
    io::with(tell).map(Response::new).map_err(|error| as_status(&error))
}

fn target<'a>(name: &'a str, version: &'a str) -> Target<'a> {
    Target { endpoint: name, version: Some(version).filter(|version| !version.is_empty()) }
}

/// As [`origin::refuse_cross_origin`], by the call's metadata.
fn refuse_cross_origin<T>(request: &Request<T>) -> Result<(), Status> {
    let headers = request.metadata().clone().into_headers();
    origin::refuse_cross_origin(Headers::Map(&headers)).map_err(|error| as_status(&error))
}

fn no_shared_memory<T>() -> ServiceResult<T> {
    let error =
        Error::new(Code::Unsupported, "shared memory is not supported; send the elements with the request");
    Err(as_status(&error))
}

#[tonic::async_trait]
impl GrpcInferenceService for Inference {
    async fn server_live(&self, _: Request<pb::ServerLiveRequest>) -> ServiceResult<pb::ServerLiveResponse> {
        respond(|_| Ok(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> ServiceResult<pb::ServerReadyResponse> {
        respond(|io| Ok(pb::ServerReadyResponse { ready: io.shared.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> ServiceResult<pb::ModelReadyResponse> {
        let request = request.into_inner();
        // A model that does not exist is not ready: clients ask before they begin.
        respond(|io| {
            Ok(pb::ModelReadyResponse {
                ready: model_info::find(io, &target(&request.name, &request.version)).is_ok(),
            })
        })
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> ServiceResult<pb::ServerMetadataResponse> {
        respond(|io| {
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
    ) -> ServiceResult<pb::ModelMetadataResponse> {
        let request = request.into_inner();
        respond(|io| {
            let target = target(&request.name, &request.version);
            let found = model_info::find(io, &target)?;
            let (endpoint, signature) = (&found.endpoint, found.signature());
            let required = signature.inputs.iter().map(model_info::tensor_metadata);
            let versions = model_info::versions(endpoint, &target).into_iter().map(str::to_owned).collect();
            Ok(pb::ModelMetadataResponse {
                name: endpoint.name.to_string(),
                versions,
                platform: model_info::PLATFORM.to_owned(),
                inputs: required
                    .chain(signature.optional_inputs.iter().map(model_info::optional_metadata))
                    .collect(),
                outputs: signature.outputs.iter().map(model_info::tensor_metadata).collect(),
            })
        })
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> ServiceResult<pb::ModelConfigResponse> {
        let request = request.into_inner();
        respond(|io| {
            let config = model_info::config(io, &target(&request.name, &request.version))?;
            Ok(pb::ModelConfigResponse { config: Some(config) })
        })
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> ServiceResult<pb::ModelStatisticsResponse> {
        let request = request.into_inner();
        respond(|io| {
            let model_stats = model_info::statistics(io, &target(&request.name, &request.version))?;
            Ok(pb::ModelStatisticsResponse { model_stats })
        })
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> ServiceResult<pb::RepositoryIndexResponse> {
        let request = request.into_inner();
        respond(|io| {
            let models = model_info::index(io, &request.repository_name, request.ready)?;
            Ok(pb::RepositoryIndexResponse { models })
        })
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> ServiceResult<pb::RepositoryModelLoadResponse> {
        refuse_cross_origin(&request)?;
        let request = request.into_inner();
        let parameters = request.parameters.keys().map(String::as_str);
        let loaded = repository::load(&request.repository_name, &request.model_name, parameters).await;
        loaded.map(|()| Response::new(pb::RepositoryModelLoadResponse {})).map_err(|error| as_status(&error))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> ServiceResult<pb::RepositoryModelUnloadResponse> {
        refuse_cross_origin(&request)?;
        let request = request.into_inner();
        let parameters = request.parameters.keys().map(String::as_str);
        respond(|io| {
            repository::unload(io, &request.repository_name, &request.model_name, parameters)?;
            Ok(pb::RepositoryModelUnloadResponse {})
        })
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> ServiceResult<pb::SystemSharedMemoryStatusResponse> {
        respond(|_| Ok(pb::SystemSharedMemoryStatusResponse::default()))
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> ServiceResult<pb::SystemSharedMemoryRegisterResponse> {
        no_shared_memory()
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> ServiceResult<pb::SystemSharedMemoryUnregisterResponse> {
        respond(|_| Ok(pb::SystemSharedMemoryUnregisterResponse {}))
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> ServiceResult<pb::CudaSharedMemoryStatusResponse> {
        respond(|_| Ok(pb::CudaSharedMemoryStatusResponse::default()))
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> ServiceResult<pb::CudaSharedMemoryRegisterResponse> {
        no_shared_memory()
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> ServiceResult<pb::CudaSharedMemoryUnregisterResponse> {
        respond(|_| Ok(pb::CudaSharedMemoryUnregisterResponse {}))
    }

    async fn trace_setting(
        &self,
        request: Request<pb::TraceSettingRequest>,
    ) -> ServiceResult<pb::TraceSettingResponse> {
        let request = request.into_inner();
        respond(|io| {
            if !request.model_name.is_empty() {
                model_info::find(io, &target(&request.model_name, ""))?;
            }
            settings::refuse_changes(io, request.settings.keys())?;
            let value = |value: &str| trace_setting_response::SettingValue { value: vec![value.to_owned()] };
            let settings = settings::TRACE.iter().map(|(name, of)| ((*name).to_owned(), value(of)));
            Ok(pb::TraceSettingResponse { settings: settings.collect() })
        })
    }

    async fn log_settings(
        &self,
        request: Request<pb::LogSettingsRequest>,
    ) -> ServiceResult<pb::LogSettingsResponse> {
        use log_settings_response::SettingValue;
        use log_settings_response::setting_value::ParameterChoice;
        let request = request.into_inner();
        respond(|io| {
            settings::refuse_changes(io, request.settings.keys())?;
            let choice = |setting: settings::LogValue| match setting {
                settings::LogValue::Flag(flag) => ParameterChoice::BoolParam(flag),
                settings::LogValue::Number(number) => ParameterChoice::Uint32Param(number),
                settings::LogValue::Text(text) => ParameterChoice::StringParam(text.to_owned()),
            };
            let settings = settings::LOG.iter().map(|&(name, setting)| {
                (name.to_owned(), SettingValue { parameter_choice: Some(choice(setting)) })
            });
            Ok(pb::LogSettingsResponse { settings: settings.collect() })
        })
    }
}
