//! `ModelStreamInfer`: requests and answers in one call, some of them in progress at a time, answered in their order.
//!
//! Next: `infer`.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use futures_util::StreamExt;
use headgate_core::error::Result;
use headgate_protocol::protobuf;
use http::HeaderMap;
use tonic::codegen::tokio_stream::Stream;
use tonic::{Status, Streaming};

use super::codec::{InferRequest, StreamResponse};
use super::{as_status, deadline};
use crate::access_log::Protocol;
use crate::context::Context;
use crate::infer::{self, Answer, Ask, Dialect};
use crate::io;
use crate::panic::catching;
use crate::path::Target;

/// Requests of one stream in progress at a time; while so many are, no more are read from it.
const WINDOW: usize = 16;

/// The answers of one call.
pub type Answers = Pin<Box<dyn Stream<Item = std::result::Result<StreamResponse, Status>> + Send>>;

/// How a failed request is told.
#[derive(Clone, Copy)]
enum Failures {
    /// In the answer's `error_message`; the stream goes on.
    Said,
    /// As the status that ends the call.
    Final,
}

/// Answers the requests of a stream, until it ends or the gateway stops.
///
/// # Errors
/// `invalid_argument` for a `grpc-timeout` that is none.
pub fn answers(headers: HeaderMap, requests: Streaming<InferRequest>) -> Result<Answers> {
    let wants_status = headers.get("triton_grpc_error").is_some_and(|value| value == "true");
    let failures = if wants_status { Failures::Final } else { Failures::Said };
    let (deadline, context) = (deadline(&headers, Instant::now())?, Context::read(&headers));
    let call = Arc::new(Call { headers, deadline, context, failures });
    let answers = requests.take_until(Box::pin(closing())).map(move |request| {
        let call = call.clone();
        async move { call.answer(request?).await }
    });
    Ok(Box::pin(answers.buffered(WINDOW)))
}

/// Resolves when connections are told to close.
pub async fn closing() {
    let mut changes = io::with(|io| io.shared.changes.subscribe());
    while !io::with(|io| io.shared.closing.load(Relaxed)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// What the requests of one call share.
struct Call {
    headers: HeaderMap,
    deadline: Option<Instant>,
    context: Context,
    failures: Failures,
}

impl Call {
    async fn answer(&self, request: InferRequest) -> std::result::Result<StreamResponse, Status> {
        let (error, tap) = match catching(self.infer(&request, Instant::now())).await {
            Ok(Answer { result: Ok(_), body, tap }) => {
                return Ok(StreamResponse { error: None, response: body, tap: Some(tap) });
            }
            Ok(Answer { result: Err(error), tap, .. }) => (error, Some(tap)),
            Err(error) => {
                io::with(|io| io.shared.metrics.thread(io.thread).refused(error.code));
                (error, None)
            }
        };
        match self.failures {
            Failures::Final => {
                if let Some(tap) = tap {
                    tap.delivered(Instant::now());
                }
                Err(as_status(&error))
            }
            Failures::Said => {
                let mut response = Vec::new();
                protobuf::write_id(&mut response, protobuf::id(&request.0));
                Ok(StreamResponse { error: Some(error.message.into_owned()), response, tap })
            }
        }
    }

    async fn infer(&self, request: &InferRequest, received: Instant) -> Result<Answer> {
        io::with(infer::admit)?;
        let _reserved = io::with(|io| io.shared.large.reserve(request.0.len()))?;
        let request = io::with(|io| protobuf::parse(&request.0, &mut io.scratch.borrow_mut().envelope))?;
        let target = Target { endpoint: request.model_name, version: request.model_version };
        let Call { headers, deadline, context, .. } = self;
        let (deadline, dialect, protocol) = (*deadline, Dialect::Stream, Protocol::GrpcStream);
        let ask = Ask { target, headers, received, deadline, dialect, protocol, context };
        infer::find_and_infer(ask, request.envelope).await
    }
}
