//! One request on HTTP/2 and its reply.
//!
//! Next: `service`, which makes the reply.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use headgate_engine::Instant;
use headgate_http2::{CommonName, IncomingRequest, Reason, StreamError, write_common_field, write_status};
use http::Method;

use super::head::Http2Head;
use crate::headers::PreparedFields;
use crate::thread::io::Io;
use crate::transport::body::{BodyProgress, BodySource};
use crate::transport::call_reply::{CallBody, CallPart, CallReply, CallStream};
use crate::transport::connection_state::{ConnectionState, OpenRequest};
use crate::transport::reply::{Reply, with_date};
use crate::transport::reply_body::ReplyBytes;
use crate::transport::service::{RequestHead, Service};
use crate::transport::streamed_body::StreamedBody;

/// The reply's side of a stream.
type ReplyStream = headgate_http2::Reply<ReplyBytes>;

/// A request and where its reply goes.
pub(super) struct Exchange {
    /// The request.
    pub(super) request: IncomingRequest<ReplyBytes, Http2Head>,
    /// When it was read.
    pub(super) received: Instant,
}

impl Exchange {
    /// Whether the client does not wait for the reply any more.
    pub(super) fn is_taken_back(&self) -> bool {
        self.request.reply.error().is_some()
    }
}

/// A reply before it becomes frames.
enum Answer {
    /// To a request like those on HTTP/1.
    Plain(PlainAnswer),
    /// To a call.
    Call(CallReply),
}

/// A reply like those on HTTP/1.
struct PlainAnswer {
    reply: Reply,
    /// Whether its body is left out.
    is_bare: bool,
    /// The request that it ends.
    open: OpenRequest,
}

/// Answers a request, unless its client leaves or takes it back before. A reply that cannot be sent to its end is dropped with what waits
/// for its delivery. `note_reply` is called when nothing is waited for but the way to the client.
pub(super) async fn answer<S: Service>(
    io: &Io,
    conn: &Rc<ConnectionState>,
    exchange: Exchange,
    note_reply: impl FnOnce(),
) {
    let Exchange { request: IncomingRequest { head, content_length, body, mut reply }, received } = exchange;
    let mut made_at = received;
    let answer = {
        let body = StreamedBody::of_http2(body, content_length);
        let mut work = pin!(respond::<S>(io, conn, head, body, received));
        let mut waits = false;
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(answer) => {
                if waits {
                    made_at = Instant::now();
                }
                Poll::Ready(Some(answer))
            }
            Poll::Pending => {
                waits = true;
                reply.poll_end(cx).map(|_| None)
            }
        })
        .await
    };
    note_reply();
    let Some(answer) = answer else { return };
    let sent = match send(io, conn, answer, made_at, &mut reply) {
        Ok(None) => Ok(()),
        // In a box: what is rare must not make every request's future larger.
        Ok(Some(stream)) => Box::pin(send_on(stream, &mut reply)).await,
        Err(error) => Err(error),
    };
    if sent.is_err() {
        // Does nothing to a stream that is over.
        reply.reset(Reason::INTERNAL_ERROR);
    }
}

async fn respond<S: Service>(
    io: &Io,
    conn: &Rc<ConnectionState>,
    head: Rc<Http2Head>,
    body: StreamedBody,
    received: Instant,
) -> Answer {
    let open = conn.begin();
    if S::is_call(head.headers()) {
        return Answer::Call(S::call(io, conn, head, body, received, open).await);
    }
    let is_bare = head.method == Method::HEAD;
    let head = RequestHead {
        method: &head.method,
        path: head.target.path(),
        is_plain: false,
        version: http::Version::HTTP_2,
        headers: head.headers(),
    };
    let body = BodySource::Streamed(body, BodyProgress::Waiting(open.receiving()));
    let reply = S::respond(io, head, body, received, &open).await;
    Answer::Plain(PlainAnswer { reply, is_bare, open })
}

/// Sends a reply; the rest of one whose body goes on.
fn send(
    io: &Io,
    conn: &Rc<ConnectionState>,
    answer: Answer,
    made_at: Instant,
    to: &mut ReplyStream,
) -> Result<Option<CallStream>, StreamError> {
    match answer {
        Answer::Plain(answer) => send_plain(io, conn, answer, made_at, to).map(|()| None),
        Answer::Call(reply) => send_call(io, reply, made_at, to),
    }
}

fn send_plain(
    io: &Io,
    conn: &Rc<ConnectionState>,
    answer: PlainAnswer,
    made_at: Instant,
    to: &mut ReplyStream,
) -> Result<(), StreamError> {
    let PlainAnswer { reply, is_bare, open } = answer;
    let Reply { status, content, fields, body, delivery, .. } = reply;
    let ends = is_bare || (body.is_empty() && delivery.is_none());
    let sent = to.send_head(ends, |out| {
        write_status(out, status.as_u16());
        write_common_field(out, CommonName::ContentType, content.text().as_bytes());
        let prepared = delivery.as_ref().and_then(|delivery| delivery.prepared_fields());
        out.extend_from_slice(prepared.map_or(&[][..], PreparedFields::block));
        fields.write_block(out);
        let mut digits = itoa::Buffer::new();
        write_common_field(out, CommonName::ContentLength, digits.format(body.len()).as_bytes());
        with_date(made_at, |date| write_common_field(out, CommonName::Date, date));
    });
    io.fields.give(fields.into_memory());
    if ends || sent.is_err() {
        io.replies.give(body);
        return sent;
    }
    to.send_data(ReplyBytes::new(body, delivery, conn.sending(made_at), open), true)
}

fn send_call(
    io: &Io,
    reply: CallReply,
    made_at: Instant,
    to: &mut ReplyStream,
) -> Result<Option<CallStream>, StreamError> {
    let CallReply { content, fields, body } = reply;
    let is_over = body.is_over();
    let sent = to.send_head(is_over, |out| {
        write_status(out, 200);
        write_common_field(out, CommonName::ContentType, content.as_bytes());
        out.extend_from_slice(body.prepared_fields().map_or(&[][..], PreparedFields::block));
        fields.write_block(out);
        with_date(made_at, |date| write_common_field(out, CommonName::Date, date));
    });
    io.fields.give(fields.into_memory());
    sent?;
    match body {
        _ if is_over => Ok(None),
        // Both are bytes that are there, and are kept until the client's window takes them.
        CallBody::Message(bytes, end) => {
            if let Some(bytes) = bytes {
                to.send_data(bytes, false)?;
            }
            to.send_trailers(|out| end.write_block(out)).map(|()| None)
        }
        CallBody::Stream(stream) => Ok(Some(stream)),
    }
}

/// The parts of a reply after which other work of the thread has its turn.
const MOST_PARTS_AT_ONCE: usize = 32;

/// Sends the messages of a call as they come and the client's window allows, until they end or the client takes its request back.
async fn send_on(mut stream: CallStream, to: &mut ReplyStream) -> Result<(), StreamError> {
    let mut parts = 0;
    loop {
        parts += 1;
        if parts % MOST_PARTS_AT_ONCE == 0 {
            tokio::task::yield_now().await;
        }
        let next = poll_fn(|cx| match to.poll_end(cx) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => stream.poll_next(cx).map(Ok),
        });
        match next.await? {
            CallPart::Bytes(bytes) => {
                poll_fn(|cx| to.poll_room(cx)).await?;
                to.send_data(bytes, false)?;
            }
            CallPart::End(trailers) => return to.send_trailers(|out| trailers.write_block(out)),
            CallPart::Over => return to.finish(),
            CallPart::Failed => return Err(StreamError::Ended(Reason::INTERNAL_ERROR)),
        }
    }
}
