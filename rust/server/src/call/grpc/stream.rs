//! `ModelStreamInfer`: requests and answers in one call, some of them in progress at a time, answered in their order.
//!
//! Next: `infer`.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use headgate_core::error::{Code, Result};
use headgate_protocol::envelope::Envelope;
use headgate_protocol::protobuf;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response};
use hyper::body::Incoming;

use super::drain::{Patience, cut_off};
use super::message;
use super::requests::{Message, Requests};
use super::status::{CONTENT, failed, late, refused, succeeded};
use super::timeout::deadline;
use crate::after::access_log::Protocol;
use crate::after::record::RecordHandle;
use crate::headers::Headers;
use crate::request::infer::{self, InferWire, stopping};
use crate::request::inference::{Answer, InferCall, Target};
use crate::request::large_input;
use crate::request_context::{RequestContext, UNTIMED};
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;
use crate::transport::conn::{Conn, Open};
use crate::transport::reply_body::ReplyBody;
use crate::transport::reply_body::{Answers, Piece};

/// Requests of one stream in progress at a time; while so many are, no more are read from it.
const WINDOW: usize = 16;

/// How a failed request is told.
#[derive(Clone, Copy)]
enum Failures {
    /// In the answer's `error_message`; the stream goes on.
    Said,
    /// As the status that ends the call.
    Final,
}

/// Answers one call.
pub fn handle(conn: &Rc<Conn>, request: Request<Incoming>, open: Open) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let context = RequestContext::read(Headers::Map(&head.headers), || io::with(Io::draw));
    let mut response = match deadline(&head.headers, Instant::now()) {
        Ok(deadline) => {
            let wants_status = head.headers.get("triton_grpc_error").is_some_and(|value| value == "true");
            let failures = if wants_status { Failures::Final } else { Failures::Said };
            let call = Rc::new(Call { headers: head.headers, deadline, context: context.clone(), failures });
            let requests = Requests::new(body, conn.holding().clone());
            Response::new(ReplyBody::stream(answers(call, requests), conn, open))
        }
        Err(error) => io::with(|io| refused(io, &error, conn, open)),
    };
    response.headers_mut().insert(CONTENT_TYPE, CONTENT.clone());
    context.add_to(response.headers_mut(), UNTIMED);
    response
}

/// Answers the requests of a stream, until it ends or the gateway stops, or something is wrong with the stream itself.
fn answers(call: Rc<Call>, requests: Requests) -> Answers {
    let (reader, deadline) = (call.clone(), call.deadline);
    // Whether requests are left to another gateway.
    let left = Rc::new(Cell::new(false));
    let leaving = left.clone();
    let from = Some((requests, Patience::default()));
    let requests = futures_util::stream::unfold(from, move |from| {
        let (call, left) = (reader.clone(), leaving.clone());
        async move { next(from?, &call.headers, &left).await }
    });
    let answers = requests.map(move |message| {
        let call = call.clone();
        async move { call.answer(message).await }
    });
    let in_time = answers.buffered(WINDOW).take_until(Box::pin(until(deadline)));
    let end = futures_util::stream::once(async move {
        Err(match deadline {
            Some(deadline) if deadline <= Instant::now() => failed(&late()),
            _ if left.get() || io::with(Io::last_words).is_some_and(|at| at <= Instant::now()) => {
                failed(&stopping())
            }
            _ => succeeded(),
        })
    });
    Box::pin(in_time.take_until(Box::pin(cut_off())).chain(end))
}

/// What a stream's messages are read from, until it ends.
type Rest = (Requests, Patience);

/// The next message, and what those after it are read from; `None` at the end, with `left` set if more may come.
async fn next(
    (mut requests, mut patience): Rest,
    headers: &HeaderMap,
    left: &Cell<bool>,
) -> Option<(Result<Message>, Option<Rest>)> {
    let begun = match io::with(|io| patience.is_over(io)) {
        true => None,
        // A message that has begun is read to its end.
        false => tokio::select! {
            biased;
            begun = requests.begins() => Some(begun),
            () = patience.over() => None,
        },
    };
    let next = match begun {
        Some(Ok(true)) => {
            patience.came();
            requests.next(headers).await
        }
        Some(Ok(false)) => return None,
        Some(Err(error)) => Err(error),
        None => {
            left.set(patience.was_needed());
            return None;
        }
    };
    let rest = next.is_ok().then_some((requests, patience));
    Some((next, rest))
}

/// Resolves when the client stops waiting.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// What the requests of one call share.
struct Call {
    headers: HeaderMap,
    deadline: Option<Instant>,
    context: RequestContext,
    failures: Failures,
}

impl Call {
    /// Answers a message, or ends the call with the failure to read it.
    async fn answer(&self, message: Result<Message>) -> std::result::Result<Piece, HeaderMap> {
        let was_read = message.is_ok();
        let call = InferCall {
            headers: Headers::Map(&self.headers),
            received: Instant::now(),
            deadline: self.deadline,
            dialect: message::STREAMED,
            protocol: Protocol::GrpcStream,
            context: &self.context,
        };
        let mut wire = StreamInfer { message };
        let (error, record) = match infer::infer(&call, &mut wire).await {
            Ok(Answer { result, mut body, record, .. }) => {
                match result.and_then(|_| message::end_in_stream(&mut body)) {
                    Ok(start) => {
                        return Ok(Piece { bytes: body, start, delivery: Some(record.into_delivery()) });
                    }
                    Err(error) => (error, Some(record)),
                }
            }
            Err(error) => (error, None),
        };
        // A client that no longer waits is told so once, by the end of the call.
        let over = error.code == Code::DeadlineExceeded
            && self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        match self.failures {
            Failures::Said if over => Err(failed(&late())),
            Failures::Said if was_read => {
                let mut bytes = io::with(|io| io.replies.take());
                message::begin(&mut bytes);
                protobuf::write_failure(&mut bytes, &error.message, protobuf::id(wire.body()));
                // A sentence and an id are never 4 GiB.
                message::end(&mut bytes).map_err(|error| failed(&error))?;
                Ok(Piece { bytes, start: 0, delivery: record.map(RecordHandle::into_delivery) })
            }
            Failures::Said | Failures::Final => {
                if let Some(record) = record {
                    record.delivered(Instant::now());
                }
                Err(failed(&error))
            }
        }
    }
}

/// An inference request that is one message of a stream, which was read when the phases begin.
struct StreamInfer {
    message: Result<Message>,
}

static UNREAD: Bytes = Bytes::new();

impl InferWire for StreamInfer {
    const NAMED_BY_PATH: bool = false;

    fn target(&self) -> Result<Target<'_>> {
        message::target(self.body())
    }

    async fn read_body(&mut self, _: Option<Instant>) -> Result<RequestMemory> {
        match &mut self.message {
            Ok(message) => Ok(std::mem::take(&mut message.memory)),
            Err(error) => Err(error.clone()),
        }
    }

    fn body(&self) -> &Bytes {
        self.message.as_ref().map_or(&UNREAD, |message| &message.bytes)
    }

    async fn read_envelope<'b>(
        &'b self,
        until: Option<Instant>,
        counted: &mut RequestMemory,
    ) -> Result<Envelope<'b>> {
        large_input::parse_message(self.body(), until, counted).await
    }
}
