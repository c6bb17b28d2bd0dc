//! `ModelInfer`: one message in, one out, through the same phases as a REST request.
//!
//! Framed here and not by tonic, so that the answer's bytes are the phases' own buffer and the tap follows its flush.
//! Next: `infer`.

use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use headgate_core::error::{Error, Result};
use headgate_protocol::protobuf;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::request::Parts;
use http::{Request, Response};
use hyper::body::Incoming;

use super::message;
use super::status::{CONTENT, failed, refused, succeeded};
use super::timeout::deadline;
use crate::after::access_log::Protocol;
use crate::budget::ConnectionMemory;
use crate::headers::Headers;
use crate::request::ask::Target;
use crate::request::ask::{self, Answer, Ask};
use crate::request::infer;
use crate::request::large_input;
use crate::request_context::{RequestContext, UNTIMED};
use crate::thread::catch_panic::catch_panic;
use crate::thread::io;
use crate::thread::request_memory::RequestMemory;
use crate::transport::body;
use crate::transport::conn::{Conn, Open, Receiving};
use crate::transport::reply::ReplyBody;

/// Answers one call.
pub async fn handle(conn: &Rc<Conn>, request: Request<Incoming>, open: Open) -> Response<ReplyBody> {
    let received = Instant::now();
    let (head, mut body) = request.into_parts();
    let context = RequestContext::read(Headers::Map(&head.headers), || io::with(io::Io::draw));
    let answer =
        catch_panic(pin!(model_infer(&head, (&mut body, open.receiving()), received, &context))).await;
    body::discard(body, &open);
    match answer {
        Ok(answer) => answered(answer, &context, conn, open),
        Err(error) => {
            let mut response = refused(&error, conn, open);
            context.add_to(response.headers_mut(), UNTIMED);
            response
        }
    }
}

async fn model_infer(
    head: &Parts,
    (body, receiving): (&mut Incoming, Receiving),
    received: Instant,
    context: &RequestContext,
) -> Result<Answer> {
    let unread = |error: &Error| ask::write_refusal("", Protocol::Grpc, received, context, error);
    let read = read(&head.headers, (body, &receiving.holding()), received).await;
    let (message, mut counted, deadline) = read.inspect_err(unread)?;
    drop(receiving);
    let request = large_input::message(&message, deadline, &mut counted).await.inspect_err(unread)?;
    let target = Target { endpoint: request.model_name, version: request.model_version };
    let (headers, dialect, protocol) = (Headers::Map(&head.headers), message::ONE, Protocol::Grpc);
    let ask = Ask { target, headers, received, deadline, dialect, protocol, context };
    infer::find_and_infer(&ask, request.envelope, (&message, counted)).await
}

/// The message, its share of the memory for large requests, and when its client stops waiting.
async fn read(
    headers: &HeaderMap,
    (body, holding): (&mut Incoming, &Rc<ConnectionMemory>),
    received: Instant,
) -> Result<(Bytes, RequestMemory, Option<Instant>)> {
    let deadline = deadline(headers, received)?;
    let limit = io::with(|io| io.shared.config.max_body_bytes);
    let most = limit.saturating_add(message::PREFIX);
    let (body, mut counted) = body::read_aligned(body, holding, most, (Headers::NONE, tensor_offset))
        .await
        .map_err(|error| message::of_message(error, limit))?;
    let message = message::take(headers, body, (limit, deadline), &mut counted).await?;
    Ok((message, counted, deadline))
}

/// Where the first large tensor of a message begins.
fn tensor_offset(piece: &[u8], _: Headers<'_>) -> Option<usize> {
    let message = piece.get(message::PREFIX..)?;
    Some(message::PREFIX + protobuf::first_large_tensor(message)?)
}

fn answered(answer: Answer, context: &RequestContext, conn: &Rc<Conn>, open: Open) -> Response<ReplyBody> {
    let Answer { result, body, tap } = answer;
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(CONTENT_TYPE, CONTENT.clone());
    tap.add_headers(&mut headers);
    context.add_to(&mut headers, Some(|| tap.times()));
    let body = match result {
        Ok(_) => ReplyBody::message(Some(body), succeeded(), Some(tap.into_delivery()), conn, open),
        Err(error) => {
            io::with(|io| io.replies.give(body));
            ReplyBody::message(None, failed(&error), Some(tap.into_delivery()), conn, open)
        }
    };
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}
