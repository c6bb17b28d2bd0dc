//! From an HTTP request to a phase and back: the only place that knows both hyper and the protocol.
//!
//! The hot path goes on in `infer`.

use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use headgate_protocol::binary;
use headgate_protocol::metadata::{self, ModelMetadata};
use http::header::{ACCEPT_ENCODING, ALLOW, CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, VARY};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::after::access_log::Protocol;
use crate::after::taps::Tap;
use crate::call::facts;
use crate::call::grpc;
use crate::call::path;
use crate::call::path::{Call, Extension};
use crate::call::rest;
use crate::call::rest_infer::{BodyForm, RestInfer};
use crate::headers::Headers;
use crate::request::infer;
use crate::request::inference::{Answer, Dialect, InferCall};
use crate::request_context::RequestContext;
use crate::thread::catch_panic::catch_panic;
use crate::thread::io;
use crate::thread::request_memory::RequestMemory;
use crate::transport::body::Source;
use crate::transport::coding;
use crate::transport::conn::{Conn, Open};
use crate::transport::exchange::{Head, Service};
use crate::transport::framing;
use crate::transport::reply;
use crate::transport::reply_body::ReplyBody;

static JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Where the JSON of a body ends, when binary data follows it.
static JSON_LENGTH: HeaderName = HeaderName::from_static(binary::HEADER);
static BINARY: HeaderValue = HeaderValue::from_static("application/octet-stream");

/// A reply that a tap may wait for.
type Reply = reply::Reply<Tap>;

fn whole(status: StatusCode, content: &HeaderValue, body: Vec<u8>) -> Reply {
    let mut fields = io::with(|io| io.fields.take());
    fields.push((CONTENT_TYPE, content.clone()));
    Reply { status, fields, body, delivery: None, ends: false }
}

/// The calls of the Open Inference Protocol.
pub struct Calls;

impl Service for Calls {
    async fn respond(head: Head<'_>, body: Source, received: Instant, open: &Open) -> reply::Reply {
        let context = RequestContext::read(head.headers, || io::with(io::Io::draw));
        let mut reply = dispatch(head, body, received, &context, open).await;
        context.add_to(&mut reply.fields, reply.delivery.as_ref().map(|tap| || tap.times()));
        reply.map_delivery(Tap::into_delivery)
    }

    fn is_call(headers: Headers<'_>) -> bool {
        grpc::is_grpc(headers)
    }

    async fn call(conn: &Rc<Conn>, request: Request<Incoming>, open: Open) -> Response<ReplyBody> {
        grpc::handle(conn, request, open).await
    }
}

async fn dispatch(
    head: Head<'_>,
    mut body: Source,
    received: Instant,
    context: &RequestContext,
    open: &Open,
) -> Reply {
    let http1 = head.is_http1();
    let framed = if http1 { framing::check(head.version, head.headers) } else { Ok(()) };
    let mut reply = match framed {
        Ok(()) if http1 && grpc::is_grpc(head.headers) => {
            refused(&Error::invalid("gRPC needs HTTP/2; send this with prior knowledge of it"))
        }
        Ok(()) => {
            let reply = route(head, &mut body, received, context).await;
            if wants_gzip(&reply, head.headers) { Box::pin(compressed(reply)).await } else { reply }
        }
        Err(error) => Reply { ends: true, ..refused(&error) },
    };
    if let Some(reason) = body.lost() {
        reply.ends = true;
        if http1 {
            io::with(|io| io.shared.metrics.connections_closed.add(reason));
        }
    }
    body.discard(open);
    reply
}

async fn route(head: Head<'_>, body: &mut Source, received: Instant, context: &RequestContext) -> Reply {
    let path = match head.has_escapes.then(|| path::decoded(head.path)).transpose() {
        Ok(path) => path.unwrap_or(Cow::Borrowed(head.path)),
        Err(error) => return refused(&error),
    };
    let Some(call) = Call::parse(&path) else {
        return refused(&Error::new(
            Code::NotFound,
            format!("{} is not a path of the Open Inference Protocol; GET /v2 says what there is", head.path),
        ));
    };
    let reading = matches!(*head.method, Method::GET | Method::HEAD);
    match call {
        Call::Infer(target) | Call::Predict(target) if *head.method == Method::POST => {
            let form = if matches!(call, Call::Predict(_)) { BodyForm::Predict } else { BodyForm::Listed };
            let protocol = if head.is_http1() { Protocol::Http1 } else { Protocol::Http2 };
            let (headers, deadline, dialect) = (head.headers, None, Dialect::Rest);
            let infer_call = InferCall { headers, received, deadline, dialect, protocol, context };
            match infer::infer(&infer_call, &mut RestInfer::new(target, headers, form, body)).await {
                Ok(answer) => answered(answer),
                Err(error) => error_reply(&error, io::with(|io| io.replies.take())),
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

async fn extension(call: &Extension<'_>, head: Head<'_>, body: &mut Source) -> Reply {
    let allowed = rest::methods(call);
    if !allowed.contains(head.method) {
        return wrong_method(match allowed {
            [Method::POST] => "POST",
            [_, _] => "GET, HEAD",
            _ => "GET, HEAD, POST",
        });
    }
    let mut out = io::with(|io| io.replies.take());
    let done = {
        // Seldom asked for: its state is not to be part of every request's.
        let mut answering = Box::pin(rest::answer(call, head.headers, body, &mut out));
        catch_panic(answering.as_mut()).await
    };
    match done {
        Ok(()) => whole(StatusCode::OK, &JSON, out),
        Err(error) => refused(&error),
    }
}

/// Whether gzip is asked for, and the answer is large enough to be worth it.
fn wants_gzip(reply: &Reply, asked: Headers<'_>) -> bool {
    let least = io::with(|io| io.shared.config.gzip_above_bytes);
    let wanted = || asked.get("accept-encoding").is_some_and(coding::asks_for_gzip);
    reply.body.len() > least && wanted()
}

/// The answer in gzip, as it was if there is no room for both, or why there is none: then it is late, or lost with a panic.
async fn compressed(mut reply: Reply) -> Reply {
    let plain = std::mem::take(&mut reply.body);
    let packed = match &mut reply.delivery {
        Some(tap) => {
            let until = tap.until();
            coding::gzip(plain, Some(until), tap.counted()).await
        }
        // Its memory is counted by nobody yet.
        None => match RequestMemory::with_bytes(plain.len()) {
            Ok(mut counted) => coding::gzip(plain, None, &mut counted).await,
            Err(_) => Ok((plain, None)),
        },
    };
    match packed {
        Ok((plain, None)) => reply.body = plain,
        Ok((plain, Some(packed))) => {
            io::with(|io| io.replies.give(plain));
            reply.body = packed;
            reply.fields.push((CONTENT_ENCODING, HeaderValue::from_static("gzip")));
            reply.fields.push((VARY, HeaderValue::from_static("accept-encoding")));
        }
        Err(error) => return unpacked(reply, error),
    }
    reply
}

/// The answer in place of one that could not be compressed.
#[cold]
fn unpacked(reply: Reply, error: Error) -> Reply {
    let Some(mut tap) = reply.delivery else { return refused(&error) };
    tap.answered(Some(error.code));
    answered(Answer { result: Err(error), body: Vec::new(), tap })
}

fn described(write: impl FnOnce(&mut Vec<u8>) -> Result<StatusCode>) -> Reply {
    let mut body = io::with(|io| io.replies.take());
    match write(&mut body) {
        Ok(status) => whole(status, &JSON, body),
        Err(error) => refused(&error),
    }
}

fn answered(answer: Answer) -> Reply {
    let Answer { result, body, tap } = answer;
    let mut reply = match result {
        Ok(sent) => {
            let content = if sent.json_length.is_some() { &BINARY } else { &JSON };
            let mut reply = whole(StatusCode::OK, content, body);
            if let Some(length) = sent.json_length {
                reply.fields.push((JSON_LENGTH.clone(), HeaderValue::from(length)));
            }
            reply
        }
        Err(error) => error_reply(&error, body),
    };
    tap.add_headers(&mut reply.fields);
    reply.delivery = Some(tap);
    reply
}

/// A refusal that no version is to blame for.
fn refused(error: &Error) -> Reply {
    let body = io::with(|io| {
        io.shared.metrics.thread(io.thread).count_refusal(error.code);
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
    let mut reply = whole(status, &JSON, body);
    if error.code == Code::UnsupportedMediaType {
        reply.fields.push((ACCEPT_ENCODING, HeaderValue::from_static("gzip, deflate")));
    }
    if error.code.retry()
        && (status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS)
    {
        // In whole seconds, as the header has it, and never too soon.
        let seconds = error.retry_after.map_or(1, |wait| wait.as_millis().div_ceil(1000).max(1) as u64);
        reply.fields.push((RETRY_AFTER, HeaderValue::from(seconds)));
    }
    reply
}

fn wrong_method(allowed: &'static str) -> Reply {
    let mut reply = refused(&Error::new(Code::Unsupported, format!("this path takes {allowed}")));
    reply.status = StatusCode::METHOD_NOT_ALLOWED;
    reply.fields.push((ALLOW, HeaderValue::from_static(allowed)));
    reply
}
