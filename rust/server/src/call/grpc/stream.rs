//! `ModelStreamInfer`: requests and answers in one call, some of them in progress at a time, answered in their order.
//!
//! Next: `infer`.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use headgate_core::error::{Code, Error, Result};
use headgate_protocol::protobuf;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Request, Response};
use hyper::body::Incoming;

use super::drain::{Patience, cut_off, last_words, stopping};
use super::message;
use super::requests::{Message, Requests};
use super::status::{CONTENT, failed, late, refused, succeeded};
use super::timeout::deadline;
use crate::after::access_log::Protocol;
use crate::after::taps::Tap;
use crate::headers::Headers;
use crate::request::ask::Target;
use crate::request::ask::{self, Answer, Ask};
use crate::request::infer;
use crate::request::large_input;
use crate::request_context::{RequestContext, UNTIMED};
use crate::thread::catch_panic::catch_panic;
use crate::thread::io;
use crate::thread::request_memory::RequestMemory;
use crate::transport::conn::{Conn, Open};
use crate::transport::reply::ReplyBody;
use crate::transport::reply::{Answers, Piece};

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
    let context = RequestContext::read(Headers::Map(&head.headers), || io::with(io::Io::draw));
    let mut response = match deadline(&head.headers, Instant::now()) {
        Ok(deadline) => {
            let wants_status = head.headers.get("triton_grpc_error").is_some_and(|value| value == "true");
            let failures = if wants_status { Failures::Final } else { Failures::Said };
            let call = Rc::new(Call { headers: head.headers, deadline, context: context.clone(), failures });
            let requests = Requests::new(body, conn.holding().clone());
            Response::new(ReplyBody::stream(answers(call, requests), conn, open))
        }
        Err(error) => refused(&error, conn, open),
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
    let answers = requests.map(move |request| {
        let call = call.clone();
        async move {
            match request {
                Ok(message) => call.answer(message).await,
                Err(error) => {
                    io::with(|io| io.shared.metrics.thread(io.thread).count_refusal(error.code));
                    call.write_refusal(Instant::now(), &error);
                    Err(failed(&error))
                }
            }
        }
    });
    let in_time = answers.buffered(WINDOW).take_until(Box::pin(until(deadline)));
    let end = futures_util::stream::once(async move {
        Err(match deadline {
            Some(deadline) if deadline <= Instant::now() => failed(&late()),
            _ if left.get() || last_words().is_some_and(|at| at <= Instant::now()) => failed(&stopping()),
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
    let begun = match patience.is_over() {
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
    async fn answer(&self, (request, counted): Message) -> std::result::Result<Piece, HeaderMap> {
        let (error, tap) = match catch_panic(pin!(self.infer((&request, counted), Instant::now()))).await {
            Ok(Answer { result, mut body, tap }) => {
                match result.and_then(|_| message::end_in_stream(&mut body)) {
                    Ok(start) => {
                        return Ok(Piece { bytes: body, start, delivery: Some(tap.into_delivery()) });
                    }
                    Err(error) => (error, Some(tap)),
                }
            }
            Err(error) => {
                io::with(|io| io.shared.metrics.thread(io.thread).count_refusal(error.code));
                (error, None)
            }
        };
        // A client that no longer waits is told so once, by the end of the call.
        let over = error.code == Code::DeadlineExceeded
            && self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        match self.failures {
            Failures::Said if over => Err(failed(&late())),
            Failures::Final => {
                if let Some(tap) = tap {
                    tap.delivered(Instant::now());
                }
                Err(failed(&error))
            }
            Failures::Said => {
                let mut bytes = io::with(|io| io.replies.take());
                message::begin(&mut bytes);
                protobuf::write_failure(&mut bytes, &error.message, protobuf::id(&request));
                // A sentence and an id are never 4 GiB.
                message::end(&mut bytes).map_err(|error| failed(&error))?;
                Ok(Piece { bytes, start: 0, delivery: tap.map(Tap::into_delivery) })
            }
        }
    }

    /// Writes a request down that did not say which endpoint it is for.
    fn write_refusal(&self, received: Instant, error: &Error) {
        ask::write_refusal("", Protocol::GrpcStream, received, &self.context, error);
    }

    async fn infer(
        &self,
        (message, mut counted): (&Bytes, RequestMemory),
        received: Instant,
    ) -> Result<Answer> {
        let unread = |error: &Error| self.write_refusal(received, error);
        let request = large_input::message(message, self.deadline, &mut counted).await.inspect_err(unread)?;
        let target = Target { endpoint: request.model_name, version: request.model_version };
        let Call { deadline, context, .. } = self;
        let headers = Headers::Map(&self.headers);
        let (deadline, dialect, protocol) = (*deadline, message::STREAMED, Protocol::GrpcStream);
        let ask = Ask { target, headers, received, deadline, dialect, protocol, context };
        infer::find_and_infer(&ask, request.envelope, (message, counted)).await
    }
}
