//! `ModelStreamInfer`: requests and responses in one call, some of them in progress at a time, answered in their order.
//!
//! Next: `request::infer`.

use std::cell::Cell;
use std::rc::Rc;

use bytes::Bytes;
use futures_util::StreamExt;
use headgate_core::error::{Code, Result};
use headgate_engine::Instant;
use headgate_protocol::envelope::Envelope;
use headgate_protocol::protobuf;

use super::drain::{DrainTimeout, cut_off};
use super::message::{self, StreamParameters};
use super::message_reader::{Message, MessageReader};
use super::status::{self, CODE, call_deadline_error, count_and_refuse, error_trailers, ok_trailers};
use super::timeout::deadline;
use crate::after::access_log::Protocol;
use crate::after::record::RecordHandle;
use crate::headers::Headers;
use crate::request::infer::{self, InferWire, stopping_error};
use crate::request::inference::{InferCall, InferResponse, Target};
use crate::request::large_request;
use crate::request_context::{ASKS_FOR_TIMES, RequestContext, UNTIMED, server_timing};
use crate::thread::io::{self, Io};
use crate::thread::request_memory::RequestMemory;
use crate::transport::call_reply::{CallBody, CallReply, MessageStream, StreamMessage, Trailers};
use crate::transport::connection_state::{ConnectionState, OpenRequest};
use crate::transport::http2::head::Http2Head;
use crate::transport::streamed_body::StreamedBody;

/// Requests of one stream in progress at a time; while so many are, no more are read from it.
const WINDOW: usize = 16;

/// Where a client reads that a request failed.
#[derive(Clone, Copy)]
enum FailureReport {
    /// In the `error_message` of a response; the stream goes on.
    InMessage,
    /// As the status that ends the call.
    InStatus,
}

/// Answers one call.
pub fn handle(
    io: &Io,
    conn: &Rc<ConnectionState>,
    head: Rc<Http2Head>,
    body: StreamedBody,
    open: OpenRequest,
) -> CallReply {
    let headers = head.headers();
    let context = RequestContext::read(headers, || io.draw());
    let mut reply = match deadline(headers, Instant::now()) {
        Ok(deadline) => {
            let wants_status = headers.get("triton_grpc_error") == Some(b"true");
            let failures = if wants_status { FailureReport::InStatus } else { FailureReport::InMessage };
            let call =
                Rc::new(StreamCall { head: head.clone(), deadline, context: context.clone(), failures });
            let requests = MessageReader::new(io, body, conn.connection_memory().clone());
            status::reply(io, CallBody::stream(answers(call, requests), conn, open))
        }
        Err(error) => count_and_refuse(io, &error, conn, open),
    };
    context.add_to(&mut reply.fields, UNTIMED);
    reply
}

/// Answers the requests of a stream, until it ends or the gateway stops, or something is wrong with the stream itself.
fn answers(call: Rc<StreamCall>, requests: MessageReader) -> MessageStream {
    let (reader, deadline) = (call.clone(), call.deadline);
    // Whether the client's next requests are left to another gateway.
    let left = Rc::new(Cell::new(false));
    let leaving = left.clone();
    let from = Some((requests, DrainTimeout::default()));
    let requests = futures_util::stream::unfold(from, move |from| {
        let (call, left) = (reader.clone(), leaving.clone());
        async move { next(from?, call.head.headers(), &left).await }
    });
    let answers = requests.map(move |message| {
        let call = call.clone();
        async move { call.answer(message).await }
    });
    let in_time = answers.buffered(WINDOW).take_until(Box::pin(until(deadline)));
    let end = futures_util::stream::once(async move {
        Err(match deadline {
            Some(deadline) if deadline <= Instant::now() => error_trailers(&call_deadline_error()),
            _ if left.get() || io::with(Io::last_start_at).is_some_and(|at| at <= Instant::now()) => {
                error_trailers(&stopping_error())
            }
            _ => ok_trailers(),
        })
    });
    Box::pin(in_time.take_until(Box::pin(cut_off())).chain(end))
}

/// What the messages of a stream are read from, until it ends.
type MessageSource = (MessageReader, DrainTimeout);

/// The next message, and what those after it are read from; `None` at the end, with `left` set if more may come.
async fn next(
    (mut requests, mut timeout): MessageSource,
    headers: Headers<'_>,
    left: &Cell<bool>,
) -> Option<(Result<Message>, Option<MessageSource>)> {
    let begun = match io::with(|io| timeout.has_expired(io)) {
        true => None,
        // A message that has begun is read to its end.
        false => tokio::select! {
            biased;
            begun = requests.has_next() => Some(begun),
            () = timeout.expired() => None,
        },
    };
    let next = match begun {
        Some(Ok(true)) => {
            timeout.note_message();
            requests.next(headers).await
        }
        Some(Ok(false)) => return None,
        Some(Err(error)) => Err(error),
        None => {
            left.set(timeout.has_had_message());
            return None;
        }
    };
    let rest = next.is_ok().then_some((requests, timeout));
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
struct StreamCall {
    head: Rc<Http2Head>,
    deadline: Option<Instant>,
    context: RequestContext,
    failures: FailureReport,
}

impl StreamCall {
    /// Answers a message, or ends the call with the failure to read it.
    async fn answer(&self, message: Result<Message>) -> std::result::Result<StreamMessage, Trailers> {
        let was_read = message.is_ok();
        let call = InferCall {
            headers: self.head.headers(),
            received: Instant::now(),
            deadline: self.deadline,
            wire_format: message::STREAMED,
            protocol: Protocol::GrpcStream,
            context: &self.context,
        };
        let mut wire = StreamInfer { message };
        let (error, record) = match infer::infer(&io::current(), &call, &mut wire).await {
            Ok(InferResponse { result, mut body, record, .. }) => {
                let times = protobuf::is_flagged(wire.body(), ASKS_FOR_TIMES)
                    .then(|| server_timing(record.timing.times()));
                let receipt = result.is_ok().then(|| io::with(|io| record.receipt(io))).flatten();
                let parameters = StreamParameters {
                    times: times.as_deref(),
                    receipt: receipt.as_ref().and_then(|receipt| receipt.to_str().ok()),
                };
                match result.and_then(|_| message::end_in_stream(&mut body, parameters)) {
                    Ok(start) => {
                        return Ok(StreamMessage {
                            bytes: body,
                            start,
                            delivery: Some(record.into_delivery()),
                        });
                    }
                    Err(error) => (error, Some(record)),
                }
            }
            Err(error) => (error, None),
        };
        // To a client that no longer waits the end of the call says so once.
        let over = error.code == Code::DeadlineExceeded
            && self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        match self.failures {
            FailureReport::InMessage if over => Err(error_trailers(&call_deadline_error())),
            FailureReport::InMessage if was_read => {
                let mut bytes = io::with(|io| io.replies.take());
                message::begin(&mut bytes);
                let (id, code) = (protobuf::request_id(wire.body()), (CODE.as_str(), error.code.as_str()));
                protobuf::write_stream_error(&mut bytes, &error.message, id, code);
                // A sentence and an id are never 4 GiB.
                message::end(&mut bytes).map_err(|error| error_trailers(&error))?;
                Ok(StreamMessage { bytes, start: 0, delivery: record.map(RecordHandle::into_delivery) })
            }
            FailureReport::InMessage | FailureReport::InStatus => {
                if let Some(record) = record {
                    record.delivered(Instant::now());
                }
                Err(error_trailers(&error))
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
        memory: &mut RequestMemory,
    ) -> Result<Envelope<'b>> {
        large_request::parse_message(self.body(), until, memory).await
    }
}
