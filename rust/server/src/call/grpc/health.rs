//! gRPC's health checking: the gateway under the empty name and the service's, an endpoint under its own.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use headgate_core::error::{Code, Error};
use headgate_core::id::MAX_NAME;
use headgate_protocol::pb::health::health_check_response::ServingStatus;
use headgate_protocol::pb::health::{HealthCheckRequest, HealthCheckResponse};
use tonic::codegen::tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::generated::health::health_server::Health as HealthService;
use super::status::as_status;
use crate::thread::io::{self, Io};

/// The service; its state is the IO thread's.
pub struct Health;

fn status(io: &Io, service: &str) -> ServingStatus {
    let served = match service {
        "" | "inference.GRPCInferenceService" => Some(io.shared.is_ready()),
        endpoint => io.endpoint(endpoint).ok().map(|_| true),
    };
    match served {
        None => ServingStatus::ServiceUnknown,
        Some(true) => ServingStatus::Serving,
        Some(false) => ServingStatus::NotServing,
    }
}

/// Kept in place of a name that no endpoint can have, for as long as a watch goes on.
const IMPOSSIBLE_NAME: &str = "/";

#[tonic::async_trait]
impl HealthService for Health {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match io::with(|io| status(io, &service)) {
            ServingStatus::ServiceUnknown => {
                let words = format!("nothing is served under the name {service:?}");
                Err(as_status(&Error::new(Code::NotFound, words)))
            }
            status => Ok(Response::new(HealthCheckResponse { status: status.into() })),
        }
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let service: Arc<str> = if name.len() > MAX_NAME { IMPOSSIBLE_NAME.into() } else { name.into() };
        let changes = io::with(|io| io.shared.changes.subscribe());
        // The first status is sent at once, then each that differs from the one before.
        let statuses = futures_util::stream::unfold((changes, None), move |(mut changes, last)| {
            let service = service.clone();
            async move {
                loop {
                    changes.borrow_and_update();
                    if io::with(|io| io.shared.closing.load(Relaxed)) {
                        return None;
                    }
                    let now = io::with(|io| status(io, &service));
                    if last != Some(now) {
                        return Some((Ok(HealthCheckResponse { status: now.into() }), (changes, Some(now))));
                    }
                    changes.changed().await.ok()?;
                }
            }
        });
        Ok(Response::new(Box::pin(statuses)))
    }
}
