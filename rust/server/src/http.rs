//! From an HTTP request to a phase and back: the only place that knows both hyper and the protocol.
//!
//! The hot path goes on in `infer`.

use std::convert::Infallible;
use std::rc::Rc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_protocol::envelope::Envelope;
use headgate_protocol::metadata::{self, ModelMetadata};
use http::header::{
    ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName,
    RETRY_AFTER, VARY,
};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use crate::access_log::Protocol;
use crate::coding;
use crate::conn::{Conn, Open};
use crate::context::Context;
use crate::infer::{self, Answer, Ask, Dialect};
use crate::panic::catching;
use crate::path::{Call, Extension};
use crate::reply::ReplyBody;
use crate::taps::Tap;
use crate::{body, facts, framing, grpc, io, rest};

static JSON: HeaderValue = HeaderValue::from_static("application/json");
static BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");
static JSON_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// Answers one request.
///
/// # Errors
/// Never: every failure is an answer.
pub async fn handle(
    conn: Rc<Conn>,
    request: Request<Incoming>,
) -> std::result::Result<Response<ReplyBody>, Infallible> {
    let http1 = request.version() < Version::HTTP_2;
    let received = if http1 { conn.received() } else { Instant::now() };
    let open = conn.begin();
    if !http1 && grpc::is_grpc(&request) {
        return Ok(grpc::handle(&conn, request, open).await);
    }
    let context = Context::read(request.headers());
    let bodiless = request.method() == Method::HEAD;
    let mut reply = dispatch(request, received, &context, &open).await;
    context.write(reply.tap.as_ref(), reply.head.headers_mut());
    if http1 && closes(&reply) {
        // The body that was not read is still on the wire; the next request cannot be found behind it.
        reply.head.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let Reply { mut head, body, tap, .. } = reply;
    if bodiless && !http1 {
        // hyper leaves the body of an answer to HEAD out on HTTP/1 only.
        head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        io::with(|io| io.replies.give(body));
        return Ok(head.map(|()| ReplyBody::Whole(None)));
    }
    Ok(head.map(|()| ReplyBody::new(body, tap, &conn, open)))
}

/// An answer before it becomes a body.
struct Reply {
    head: Response<()>,
    body: Vec<u8>,
    tap: Option<Tap>,
    /// Whether no other request can be trusted to follow on this connection.
    ends: bool,
}

fn closes(reply: &Reply) -> bool {
    reply.ends || matches!(reply.head.status(), StatusCode::PAYLOAD_TOO_LARGE | StatusCode::REQUEST_TIMEOUT)
}

async fn dispatch(request: Request<Incoming>, received: Instant, context: &Context, open: &Open) -> Reply {
    let (head, mut body) = request.into_parts();
    let http1 = head.version < Version::HTTP_2;
    let framed = if http1 { framing::check(&head) } else { Ok(()) };
    let reply = match framed {
        Ok(()) if http1 && grpc::is_grpc_content(&head.headers) => {
            refused(&Error::invalid("gRPC needs HTTP/2; send this with prior knowledge of it"))
        }
        Ok(()) => {
            let reply = route(&head, &mut body, received, context).await;
            compressed(reply, &head.headers).await
        }
        Err(error) => Reply { ends: true, ..refused(&error) },
    };
    body::discard(body, open);
    reply
}

async fn route(head: &Parts, body: &mut Incoming, received: Instant, context: &Context) -> Reply {
    let Some(call) = Call::parse(head.uri.path()) else {
        return refused(&Error::new(
            Code::NotFound,
            format!(
                "{} is not a path of the Open Inference Protocol; GET /v2 says what there is",
                head.uri.path()
            ),
        ));
    };
    let reading = head.method == Method::GET || head.method == Method::HEAD;
    match call {
        Call::Infer(target) | Call::Predict(target) if head.method == Method::POST => {
            let protocol = if head.version < Version::HTTP_2 { Protocol::Http1 } else { Protocol::Http2 };
            let (headers, deadline, dialect) = (&head.headers, None, Dialect::Rest);
            let ask = Ask { target, headers, received, deadline, dialect, protocol, context };
            let parse = if matches!(call, Call::Infer(_)) { infer::envelope } else { infer::predict };
            match catching(read_and_infer(ask, body, parse)).await {
                Ok(answer) => answered(answer),
                Err(error) => {
                    ask.refused(&error);
                    refused(&error)
                }
            }
        }
        Call::Infer(_) | Call::Predict(_) => wrong_method("POST"),
        Call::Extension(call) => extension(&call, head, body).await,
        _ if !reading => wrong_method("GET, HEAD"),
        Call::Server => described(|out| {
            io::with(|io| metadata::server(out, "headgate", &io.shared.config.version));
            Ok(StatusCode::OK)
        }),
        Call::Live => described(|out| {
            metadata::live(out, true);
            Ok(StatusCode::OK)
        }),
        Call::Ready => described(|out| {
            let ready = io::with(|io| io.shared.is_ready());
            metadata::ready(out, ready);
            Ok(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE })
        }),
        Call::ModelReady(target) => described(|out| {
            io::with(|io| facts::find(io, &target))?;
            metadata::model_ready(out, target.endpoint, true);
            Ok(StatusCode::OK)
        }),
        Call::Model(target) => described(|out| {
            let (endpoint, version) = io::with(|io| facts::find(io, &target))?;
            let signature = endpoint.versions[version as usize].payload.model.signature();
            let (name, versions) = (&*endpoint.name, &*facts::versions(&endpoint, &target));
            metadata::model(out, &ModelMetadata { name, versions, platform: facts::PLATFORM, signature });
            Ok(StatusCode::OK)
        }),
    }
}

async fn extension(call: &Extension<'_>, head: &Parts, body: &mut Incoming) -> Reply {
    let allowed = rest::methods(call);
    if !allowed.contains(&head.method) {
        return wrong_method(match allowed {
            [Method::POST] => "POST",
            [_, _] => "GET, HEAD",
            _ => "GET, HEAD, POST",
        });
    }
    let mut out = io::with(|io| io.replies.take());
    match catching(rest::answer(call, &head.headers, body, &mut out)).await {
        Ok(()) => Reply { head: self::head(StatusCode::OK, &JSON), body: out, tap: None, ends: false },
        Err(error) => refused(&error),
    }
}

/// The answer in gzip, where that is asked for and the answer is large enough to be worth it.
async fn compressed(mut reply: Reply, asked: &HeaderMap) -> Reply {
    let least = io::with(|io| io.shared.config.gzip_above_bytes);
    let wanted = || asked.get(ACCEPT_ENCODING).is_some_and(|value| coding::asks_for_gzip(value.as_bytes()));
    if reply.body.len() <= least || !wanted() {
        return reply;
    }
    // Memory takes every write; an answer that it did not take goes out as it is.
    if let Ok(packed) = coding::gzip(&reply.body).await {
        let plain = std::mem::replace(&mut reply.body, packed);
        io::with(|io| io.replies.give(plain));
        reply.head.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        reply.head.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    }
    reply
}

/// What reads the envelope of a body.
type Parse = for<'a> fn(&HeaderMap, &'a [u8]) -> Result<Envelope<'a>>;

async fn read_and_infer(ask: Ask<'_>, body: &mut Incoming, parse: Parse) -> Result<Answer> {
    let endpoint = infer::enter(&ask)?;
    io::with(infer::admit)?;
    let limit = io::with(|io| io.shared.config.max_body_bytes);
    let (body, counted) = coding::read_body(body, limit, ask.headers, tensor_offset).await?;
    let envelope = parse(ask.headers, &body)?;
    infer::infer(ask, endpoint, envelope, (&body, counted)).await
}

/// Where the first binary tensor of a body begins: behind the JSON.
fn tensor_offset(_: &[u8], headers: &HeaderMap) -> Option<usize> {
    headers.get(&JSON_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn described(write: impl FnOnce(&mut Vec<u8>) -> Result<StatusCode>) -> Reply {
    let mut body = io::with(|io| io.replies.take());
    match write(&mut body) {
        Ok(status) => Reply { head: head(status, &JSON), body, tap: None, ends: false },
        Err(error) => refused(&error),
    }
}

fn answered(answer: Answer) -> Reply {
    let Answer { result, body, tap } = answer;
    let mut reply = match result {
        Ok(sent) => {
            let mut head = head(StatusCode::OK, if sent.json_length.is_some() { &BINARY } else { &JSON });
            if let Some(length) = sent.json_length {
                head.headers_mut().insert(&JSON_LENGTH, HeaderValue::from(length));
            }
            Reply { head, body, tap: None, ends: false }
        }
        Err(error) => error_reply(&error, body),
    };
    let headers = reply.head.headers_mut();
    for (name, value) in tap.headers() {
        headers.insert(name, value);
    }
    reply.tap = Some(tap);
    reply
}

/// A refusal that no version is to blame for.
fn refused(error: &Error) -> Reply {
    let body = io::with(|io| {
        io.shared.metrics.thread(io.thread).refused(error.code);
        io.replies.take()
    });
    error_reply(error, body)
}

fn error_reply(error: &Error, mut body: Vec<u8>) -> Reply {
    body.clear();
    metadata::error(&mut body, error);
    // A cancelled request has nobody to answer, unless the client only stopped sending: then its request was incomplete.
    let status = error.code.http().and_then(|status| StatusCode::from_u16(status).ok());
    let status = status.unwrap_or(StatusCode::BAD_REQUEST);
    let mut head = head(status, &JSON);
    if error.code.retry()
        && (status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS)
    {
        // In whole seconds, as the header has it, and never too soon.
        let seconds = error.retry_after.map_or(1, |wait| wait.as_millis().div_ceil(1000).max(1) as u64);
        head.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    Reply { head, body, tap: None, ends: false }
}

fn wrong_method(allowed: &'static str) -> Reply {
    let mut reply = refused(&Error::new(Code::Unsupported, format!("this path takes {allowed}")));
    *reply.head.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    reply.head.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    reply
}

fn head(status: StatusCode, content_type: &HeaderValue) -> Response<()> {
    let mut head = Response::new(());
    *head.status_mut() = status;
    head.headers_mut().insert(CONTENT_TYPE, content_type.clone());
    head
}
