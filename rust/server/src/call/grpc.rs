//! gRPC on the data ports: which call a path names.
//!
//! Inference goes through the same phases as REST and is framed by us: one request (`grpc/unary`) or a stream of them
//! (`grpc/stream`). Everything else is rare: tonic's generated services, called directly from our HTTP/2, without its transport
//! or a router. Next: `grpc/unary`, then `grpc/service`.

pub mod drain;
mod generated;
pub mod health;
pub mod message;
pub mod message_reader;
pub mod service;
pub mod status;
pub mod stream;
pub mod timeout;
pub mod unary;

use std::future::{Future, poll_fn};
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{HeaderValue, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use tokio::sync::mpsc;

use crate::budget::ConnectionMemory;
use crate::headers::Headers;
use crate::thread::io::{self, Io};
use crate::transport::body::{self, ReadBody};
use crate::transport::call_reply::{CallBody, CallReply, CutOff, Trailers};
use crate::transport::coding::DecodeBounds;
use crate::transport::connection_state::{ConnectionState, OpenRequest};
use crate::transport::http2::head::Http2Head;
use crate::transport::streamed_body::{ReadError, StreamedBody};

use drain::DrainTimeout;
use generated::health::health_server::HealthServer;
use generated::inference::grpc_inference_service_server::GrpcInferenceServiceServer;
use status::{CODE, call_deadline_error, count_and_refuse, error_trailers};
use timeout::deadline;

const INFER: &str = "/inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "/inference.GRPCInferenceService/ModelStreamInfer";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const INFERENCE: &str = "/inference.GRPCInferenceService/";
const HEALTH: &str = "/grpc.health.v1.Health/";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/";
const REFLECTION_ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/";

/// The largest question about the services, in bytes: they ask for a name.
const QUESTION: usize = 4 << 10;

/// What the content types of gRPC begin with.
pub const CONTENT_TYPE_START: &[u8] = b"application/grpc";

/// Whether a request is gRPC's: by its content type, as the protocol has it.
pub fn is_grpc(headers: Headers<'_>) -> bool {
    let content = match headers {
        // By the constant, because a name that is given as text is parsed.
        Headers::Map(map) => map.get(CONTENT_TYPE).map(HeaderValue::as_bytes),
        Headers::List(_) => headers.get("content-type"),
    };
    content.and_then(|content| content.strip_prefix(CONTENT_TYPE_START)).is_some_and(|rest| {
        // `application/grpc-web` is another protocol.
        matches!(rest.first(), None | Some(b'+' | b';'))
    })
}

/// Answers one call.
pub async fn handle(
    io: &Io,
    conn: &Rc<ConnectionState>,
    head: Rc<Http2Head>,
    body: StreamedBody,
    received: Instant,
    open: OpenRequest,
) -> CallReply {
    match head.target.path() {
        INFER => return unary::handle(io, conn, &head, body, received, open).await,
        STREAM => return stream::handle(io, conn, head, body, open),
        _ => {}
    }
    let answer = match deadline(head.headers(), received) {
        // In a box: what is not inference must not make every request's future larger.
        Ok(deadline) => Box::pin(handle_other(io, &head, body, deadline, conn, &open)).await,
        Err(error) => Err(error),
    };
    answer.unwrap_or_else(|error| count_and_refuse(io, &error, conn, open))
}

/// Answers a call that is not inference.
async fn handle_other(
    io: &Io,
    head: &Http2Head,
    body: StreamedBody,
    deadline: Option<Instant>,
    conn: &Rc<ConnectionState>,
    open: &OpenRequest,
) -> Result<CallReply> {
    let path = head.target.path();
    if path.starts_with(REFLECTION) || path.starts_with(REFLECTION_ALPHA) {
        return Ok(streaming(io, reflect(path, head, body).await?, deadline, conn, open));
    }
    let ReadBody { bytes, memory: _memory } = read_question(head, body, deadline, conn, open).await?;
    let mut request = request_of(head, Full::new(bytes));
    request.headers_mut().remove(message::ENCODING);
    if path == WATCH {
        let watched = call(HealthServer::new(health::Health), request).await;
        return Ok(streaming(io, watched, deadline, conn, open));
    }
    before_deadline(deadline, unary_response(io, path, request, conn, open)).await
}

/// A request as tonic's services take it.
fn request_of<B>(head: &Http2Head, body: B) -> Request<B> {
    let mut request = Request::new(body);
    *request.method_mut() = head.method.clone();
    *request.version_mut() = Version::HTTP_2;
    *request.uri_mut() = Uri::from(head.target.clone());
    *request.headers_mut() = head.to_map();
    request
}

/// Reads the message of a call with one message. It is read whole and unpacked here, so that it has the limits of every body and our
/// error messages.
async fn read_question(
    head: &Http2Head,
    mut body: StreamedBody,
    deadline: Option<Instant>,
    conn: &Rc<ConnectionState>,
    open: &OpenRequest,
) -> Result<ReadBody> {
    let receiving = open.receiving();
    let read =
        before_deadline(deadline, read_message(head.headers(), &mut body, conn.connection_memory())).await;
    drop(receiving);
    body::discard(body, open);
    read
}

/// Runs a part of a call until its deadline.
async fn before_deadline<T>(deadline: Option<Instant>, part: impl Future<Output = Result<T>>) -> Result<T> {
    match deadline {
        None => part.await,
        Some(deadline) if deadline <= Instant::now() => Err(call_deadline_error()),
        Some(deadline) => {
            tokio::time::timeout_at(deadline.into(), part).await.map_err(|_| call_deadline_error())?
        }
    }
}

/// The message of a call, plain and with a prefix that says so.
async fn read_message(
    headers: Headers<'_>,
    body: &mut StreamedBody,
    connection_memory: &Rc<ConnectionMemory>,
) -> Result<ReadBody> {
    let limit = io::with(body::small_limit);
    let read = body::read_counted(body, connection_memory, limit.saturating_add(message::PREFIX)).await;
    let ReadBody { bytes, mut memory } = read.map_err(|error| message::of_message(error, limit))?;
    let bounds = DecodeBounds { limit, until: None };
    let plain = message::take(headers, bytes, bounds, &mut memory).await?;
    let mut framed = Vec::with_capacity(message::PREFIX + plain.len());
    message::begin(&mut framed);
    framed.extend_from_slice(&plain);
    message::end(&mut framed)?;
    Ok(ReadBody { bytes: framed.into(), memory })
}

/// Answers a call whose response is one message, too.
async fn unary_response(
    io: &Io,
    path: &str,
    request: Request<Full<Bytes>>,
    conn: &Rc<ConnectionState>,
    open: &OpenRequest,
) -> Result<CallReply> {
    let response = if path.starts_with(INFERENCE) {
        let service = GrpcInferenceServiceServer::new(service::Inference)
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX);
        call(service, request).await
    } else if path.starts_with(HEALTH) {
        call(HealthServer::new(health::Health), request).await
    } else {
        return Err(unknown(path));
    };
    let (head, body) = response.into_parts();
    let collected = body.collect().await.map_err(|status| {
        Error::new(Code::Internal, format!("a service did not finish its answer: {}", status.message()))
    })?;
    let trailers = collected.trailers().cloned().unwrap_or_else(|| head.headers.clone());
    translate_status(path, &trailers)?;
    let bytes: Vec<u8> = collected.to_bytes().into();
    let body = CallBody::message(
        (!bytes.is_empty()).then_some(bytes),
        Trailers::Map(trailers),
        None,
        conn,
        open.new_handle(),
    );
    Ok(status::reply(io, body))
}

/// A response that goes on, until its deadline at most.
fn streaming(
    io: &Io,
    response: Response<tonic::body::Body>,
    deadline: Option<Instant>,
    conn: &Rc<ConnectionState>,
    open: &OpenRequest,
) -> CallReply {
    let end = deadline.map(|deadline| -> CutOff {
        Box::pin(async move {
            tokio::time::sleep_until(deadline.into()).await;
            error_trailers(&call_deadline_error())
        })
    });
    let (head, body) = response.into_parts();
    let mut reply = status::reply(io, CallBody::service(body, end, conn, open.new_handle()));
    let own = head.headers.iter().filter(|(name, _)| **name != CONTENT_TYPE);
    reply.fields.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    reply
}

/// Our error for what tonic refuses without asking the service: a call that does not exist, a message that cannot be read.
fn translate_status(path: &str, trailers: &HeaderMap) -> Result<()> {
    if trailers.contains_key(&CODE) {
        return Ok(());
    }
    let Some(status) = tonic::Status::from_header_map(trailers) else { return Ok(()) };
    match status.code() {
        tonic::Code::Unimplemented if status.message().is_empty() => Err(unknown(path)),
        // A failure of the service itself carries our code: this is a message that could not be read.
        tonic::Code::Internal => {
            Err(Error::invalid(format!("the message cannot be read: {}", status.message())))
        }
        _ => Ok(()),
    }
}

fn unknown(path: &str) -> Error {
    Error::new(Code::Unsupported, format!("{path} is not a call of a service that is served here"))
}

/// Answers a reflection call: messages both ways, until the client ends it or the gateway stops.
async fn reflect(path: &str, head: &Http2Head, body: StreamedBody) -> Result<Response<tonic::body::Body>> {
    // The service ends its responses when the questions end.
    let no_more = async { DrainTimeout::default().expired().await };
    let questions = BodyStream::new(sendable(body)).take_until(Box::pin(no_more));
    let request = request_of(head, StreamBody::new(questions));
    let reflection_error = |error| reflection_error(&error);
    Ok(if path.starts_with(REFLECTION) {
        let service = reflection().build_v1().map_err(reflection_error)?;
        call(service.max_decoding_message_size(QUESTION), request).await
    } else {
        let service = reflection().build_v1alpha().map_err(reflection_error)?;
        call(service.max_decoding_message_size(QUESTION), request).await
    })
}

/// The frames of a body which another thread may take, as tonic's services want it. A task of this thread reads them.
fn sendable(mut body: StreamedBody) -> impl Body<Data = Bytes, Error = ReadError> + Send + 'static {
    let (sender, receiver) = mpsc::channel(1);
    tokio::task::spawn_local(async move {
        loop {
            let data = tokio::select! {
                data = poll_fn(|cx| body.poll_data(cx)) => data,
                // The call is over.
                () = sender.closed() => return,
            };
            let Some(data) = data else { return };
            let is_over = data.is_err();
            if sender.send(data.map(Frame::data)).await.is_err() || is_over {
                return;
            }
        }
    });
    let next = |mut receiver: mpsc::Receiver<_>| async move { Some((receiver.recv().await?, receiver)) };
    StreamBody::new(Box::pin(futures_util::stream::unfold(receiver, next)))
}

async fn call<S, B>(mut service: S, request: Request<B>) -> S::Response
where
    S: tonic::codegen::Service<Request<B>, Error = std::convert::Infallible>,
{
    let Ok(response) = service.call(request).await;
    response
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(generated::DESCRIPTORS)
}

fn reflection_error(error: &tonic_reflection::server::Error) -> Error {
    Error::new(Code::Internal, format!("the descriptors of the services cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_grpc_by_its_content_type() {
        let is_grpc = |content: &'static str| {
            let fields = [(CONTENT_TYPE, HeaderValue::from_static(content))];
            is_grpc(Headers::Map(&HeaderMap::from_iter(fields)))
        };
        for content in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
            assert!(is_grpc(content), "{content}");
        }
        for content in ["application/grpc-web", "application/json", "application/grpcx", ""] {
            assert!(!is_grpc(content), "{content}");
        }
    }

    #[test]
    fn any_content_type_is_grpc_s_or_not() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, value);
            is_grpc(Headers::Map(&headers));
        });
    }
}
