//! Requests over HTTP: which call a path names, and the reply to it.
//!
//! Not here: how a request is read and a reply written (`transport`). Next: `rest_infer`, then `request::infer`.

use std::borrow::Cow;
use std::future::Future;
use std::rc::Rc;

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use headgate_protocol::binary;
use headgate_protocol::metadata::{self, ModelMetadata};
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, RETRY_AFTER, VARY};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::after::access_log::Protocol;
use crate::after::record::RecordHandle;
use crate::call::grpc;
use crate::call::model_info;
use crate::call::path;
use crate::call::path::{ExtensionCall, ProtocolCall};
use crate::call::rest;
use crate::call::rest_infer::{BodyForm, RestInfer};
use crate::headers::Headers;
use crate::reply_fields::ReplyFields;
use crate::request::infer;
use crate::request::inference::{InferCall, InferResponse, WireFormat};
use crate::request_context::RequestContext;
use crate::thread::catch_panic::catch_panic;
use crate::thread::io::Io;
use crate::thread::request_memory::RequestMemory;
use crate::transport::body::BodySource;
use crate::transport::call_reply::CallReply;
use crate::transport::coding;
use crate::transport::connection_state::{ConnectionState, OpenRequest};
use crate::transport::framing;
use crate::transport::http2::head::Http2Head;
use crate::transport::reply::{self, ContentType};
use crate::transport::service::{RequestHead, Service};
use crate::transport::streamed_body::StreamedBody;

/// The header that says where the JSON of a body ends, if binary data follows it.
static JSON_LENGTH: HeaderName = HeaderName::from_static(binary::LENGTH_HEADER);

/// A reply whose delivery is booked, if a version answered.
type HttpReply = reply::Reply<PendingDelivery>;

/// What is booked when a version's response is delivered.
struct PendingDelivery {
    record: RecordHandle,
    /// When the request is of no use any more.
    deadline: Instant,
}

/// The calls of the Open Inference Protocol.
pub struct ProtocolService;

impl Service for ProtocolService {
    async fn respond(
        io: &Io,
        head: RequestHead<'_>,
        mut body: BodySource,
        received: Instant,
        open: &OpenRequest,
    ) -> reply::Reply {
        let context = RequestContext::read(head.headers, || io.draw());
        let mut reply = match check_framing(&head) {
            Ok(()) => {
                let reply = route(io, head, &mut body, received, &context).await;
                if wants_gzip(io, &reply, head.headers) { Box::pin(compress(io, reply)).await } else { reply }
            }
            Err(FramingError { error, closes }) => HttpReply { closes, ..refusal(io, &error) },
        };
        if let Some(reason) = body.lost() {
            reply.closes = true;
            if head.is_http1() {
                io.shared.metrics.connections_closed.add(reason);
            }
        }
        body.discard(open);
        context.add_to(
            &mut reply.fields,
            reply.delivery.as_ref().map(|delivery| || delivery.record.timing.times()),
        );
        reply.map_delivery(|delivery| delivery.record.into_delivery())
    }

    fn is_call(headers: Headers<'_>) -> bool {
        grpc::is_grpc(headers)
    }

    fn call(
        io: &Io,
        conn: &Rc<ConnectionState>,
        head: Rc<Http2Head>,
        body: StreamedBody,
        received: Instant,
        open: OpenRequest,
    ) -> impl Future<Output = CallReply> {
        // The future itself: one around it would copy the request once more.
        grpc::handle(io, conn, head, body, received, open)
    }
}

/// A request on HTTP/1 whose head does not fit its connection.
struct FramingError {
    error: Error,
    /// Whether no other request can be trusted to follow.
    closes: bool,
}

fn check_framing(head: &RequestHead<'_>) -> std::result::Result<(), FramingError> {
    if !head.is_http1() {
        return Ok(());
    }
    if !head.is_plain {
        framing::check(head.version, head.headers).map_err(|error| FramingError { error, closes: true })?;
    }
    if head.headers.may_have_value(grpc::CONTENT_TYPE_START) && grpc::is_grpc(head.headers) {
        let error = Error::invalid("gRPC needs HTTP/2; send this with prior knowledge of it");
        return Err(FramingError { error, closes: false });
    }
    Ok(())
}

async fn route(
    io: &Io,
    head: RequestHead<'_>,
    body: &mut BodySource,
    received: Instant,
    context: &RequestContext,
) -> HttpReply {
    let has_escapes = !head.is_plain && head.path.contains('%');
    let path = match has_escapes.then(|| path::decoded(head.path)).transpose() {
        Ok(path) => path.unwrap_or(Cow::Borrowed(head.path)),
        Err(error) => return refusal(io, &error),
    };
    let Some(call) = ProtocolCall::parse(&path) else { return no_such_path(io, head.path) };
    match call {
        ProtocolCall::Infer(target) | ProtocolCall::Predict(target) if *head.method == Method::POST => {
            let form =
                if matches!(call, ProtocolCall::Predict(_)) { BodyForm::Predict } else { BodyForm::Listed };
            let protocol = if head.is_http1() { Protocol::Http1 } else { Protocol::Http2 };
            let (headers, deadline, wire_format) = (head.headers, None, WireFormat::Rest);
            let infer_call = InferCall { headers, received, deadline, wire_format, protocol, context };
            let mut wire = RestInfer::new(target, headers, form, body);
            match infer::infer(io, &infer_call, &mut wire).await {
                Ok(answer) => infer_reply(io, answer),
                Err(error) => error_reply(io, &error, io.replies.take()),
            }
        }
        ProtocolCall::Extension(call) => extension(io, &call, head, body).await,
        call => describe(io, call, head.method),
    }
}

/// Answers a call that has no body and waits for nothing.
fn describe(io: &Io, call: ProtocolCall<'_>, method: &Method) -> HttpReply {
    if matches!(call, ProtocolCall::Infer(_) | ProtocolCall::Predict(_)) {
        return wrong_method(io, "POST");
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        return wrong_method(io, "GET, HEAD");
    }
    let mut body = io.replies.take();
    match write_description(io, call, &mut body) {
        Ok(status) => reply_of(io, status, ContentType::Json, body),
        Err(error) => refusal(io, &error),
    }
}

fn write_description(io: &Io, call: ProtocolCall<'_>, out: &mut Vec<u8>) -> Result<StatusCode> {
    match call {
        ProtocolCall::Ready => {
            let ready = io.shared.is_ready();
            metadata::write_ready(out, ready);
            return Ok(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE });
        }
        ProtocolCall::Live => metadata::write_live(out, true),
        ProtocolCall::ModelReady(target) => {
            model_info::find(io, &target)?;
            metadata::write_model_ready(out, target.endpoint, true);
        }
        ProtocolCall::Model(target) => {
            let found = model_info::find(io, &target)?;
            let (endpoint, signature) = (&found.endpoint, found.signature());
            let (name, versions) = (&*endpoint.name, &*model_info::versions(endpoint, &target));
            metadata::write_model(
                out,
                &ModelMetadata { name, versions, platform: model_info::PLATFORM, signature },
            );
        }
        ProtocolCall::Server
        | ProtocolCall::Infer(_)
        | ProtocolCall::Predict(_)
        | ProtocolCall::Extension(_) => {
            metadata::write_server(out, "headgate", &io.shared.config.version);
        }
    }
    Ok(StatusCode::OK)
}

async fn extension(
    io: &Io,
    call: &ExtensionCall<'_>,
    head: RequestHead<'_>,
    body: &mut BodySource,
) -> HttpReply {
    let allowed = rest::methods(call);
    if !allowed.contains(head.method) {
        let allowed = match allowed {
            [Method::POST] => "POST",
            [_, _] => "GET, HEAD",
            _ => "GET, HEAD, POST",
        };
        return wrong_method(io, allowed);
    }
    let mut out = io.replies.take();
    let done = {
        // In a box, because it is rare: its state must not be part of every request's.
        let mut answering = Box::pin(rest::answer(call, head.headers, body, &mut out));
        catch_panic(answering.as_mut()).await
    };
    match done {
        Ok(()) => reply_of(io, StatusCode::OK, ContentType::Json, out),
        Err(error) => refusal(io, &error),
    }
}

/// Whether the client asks for gzip, and the reply is large enough to be worth it.
fn wants_gzip(io: &Io, reply: &HttpReply, headers: Headers<'_>) -> bool {
    headers.get("accept-encoding").is_some_and(|accepted| {
        reply.body.len() > io.shared.config.gzip_above_bytes && coding::asks_for_gzip(accepted)
    })
}

/// Compresses a reply with gzip. It stays as it was if there is no room for both. If compressing took too long or panicked, the
/// reply says so.
async fn compress(io: &Io, mut reply: HttpReply) -> HttpReply {
    let plain = std::mem::take(&mut reply.body);
    let packed = match &mut reply.delivery {
        Some(PendingDelivery { record, deadline }) => {
            coding::gzip(plain, Some(*deadline), &mut record.memory).await
        }
        // Its memory is not counted yet.
        None => match RequestMemory::with_bytes(io, plain.len()) {
            Ok(mut memory) => coding::gzip(plain, None, &mut memory).await,
            Err(_) => Ok((plain, None)),
        },
    };
    match packed {
        Ok((plain, None)) => reply.body = plain,
        Ok((plain, Some(packed))) => {
            io.replies.give(plain);
            reply.body = packed;
            reply.fields.push(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            reply.fields.push(VARY, HeaderValue::from_static("accept-encoding"));
        }
        Err(error) => return compression_failed(io, reply, error),
    }
    reply
}

/// The reply in place of one that could not be compressed.
#[cold]
fn compression_failed(io: &Io, reply: HttpReply, error: Error) -> HttpReply {
    let Some(PendingDelivery { mut record, deadline }) = reply.delivery else { return refusal(io, &error) };
    record.answered(io, Some(error.code));
    infer_reply(io, InferResponse { result: Err(error), body: Vec::new(), record, deadline })
}

fn reply_of(io: &Io, status: StatusCode, content: ContentType, body: Vec<u8>) -> HttpReply {
    let fields = ReplyFields::in_memory_of(io.fields.take());
    HttpReply { status, content, fields, body, delivery: None, closes: false }
}

fn infer_reply(io: &Io, answer: InferResponse) -> HttpReply {
    let InferResponse { result, body, record, deadline } = answer;
    let mut reply = match result {
        Ok(sent) => {
            let is_binary = sent.json_length.is_some();
            let content = if is_binary { ContentType::Binary } else { ContentType::Json };
            let mut reply = reply_of(io, StatusCode::OK, content, body);
            if let Some(length) = sent.json_length {
                reply.fields.push(JSON_LENGTH.clone(), HeaderValue::from(length));
            }
            record.add_receipt(io, &mut reply.fields);
            reply
        }
        Err(error) => error_reply(io, &error, body),
    };
    record.add_fallback_header(&mut reply.fields);
    reply.delivery = Some(PendingDelivery { record, deadline });
    reply
}

/// Counts and answers a request that was refused before a version was chosen.
fn refusal(io: &Io, error: &Error) -> HttpReply {
    io.shared.metrics.thread(io.thread).count_refusal(error.code);
    error_reply(io, error, io.replies.take())
}

fn no_such_path(io: &Io, path: &str) -> HttpReply {
    let words = format!("{path} is not a path of the Open Inference Protocol; GET /v2 says what there is");
    refusal(io, &Error::new(Code::NotFound, words))
}

fn error_reply(io: &Io, error: &Error, mut body: Vec<u8>) -> HttpReply {
    body.clear();
    metadata::write_error(&mut body, error);
    // A code without a status is that of a cancelled request: if its client only stopped sending, the request was incomplete.
    let status = error.code.http().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::BAD_REQUEST);
    let mut reply = reply_of(io, status, ContentType::Json, body);
    if error.code == Code::UnsupportedMediaType {
        reply.fields.push(ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate"));
    }
    if error.code.retry()
        && (status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS)
    {
        // In whole seconds, as the header has it, and never too soon.
        let seconds = error.retry_after.map_or(1, |wait| wait.as_millis().div_ceil(1000).max(1) as u64);
        reply.fields.push(RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply
}

fn wrong_method(io: &Io, allowed: &'static str) -> HttpReply {
    let mut reply = refusal(io, &Error::new(Code::Unsupported, format!("this path takes {allowed}")));
    reply.status = StatusCode::METHOD_NOT_ALLOWED;
    reply.fields.push(ALLOW, HeaderValue::from_static(allowed));
    reply
}
