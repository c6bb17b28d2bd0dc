//! Replies as hyper and h2 take them: a body of frames, their bytes, and what is notified of each of them.
//!
//! Not here: how our own loop of HTTP/1.1 sends a reply (`reply`), how h2 is given one (`http2/exchange`).

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use futures_util::Stream;
use headgate_engine::Instant;
use http::header::{CONTENT_LENGTH, HeaderValue};
use http::{HeaderMap, Response};
use http_body::{Body, Frame, SizeHint};

use crate::thread::io::{self, Io};
use crate::transport::connection_state::{ConnectionState, OpenRequest, UnsentReply};
use crate::transport::delivery::Delivery;
use crate::transport::reply::Reply;

impl Reply {
    /// The reply as hyper and h2 take it, which ends the request `open` when it is written. If `is_bare`, the body is left out here:
    /// h2 sends what it is given, and hyper leaves out the body of a reply to HEAD itself.
    pub fn into_response(
        self,
        io: &Io,
        is_bare: bool,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Response<ReplyBody> {
        let Reply { status, content, mut fields, body, delivery, .. } = self;
        let mut head = Response::new(());
        *head.status_mut() = status;
        if let Some(prepared) = delivery.as_ref().and_then(|delivery| delivery.prepared_fields()) {
            head.headers_mut().extend(prepared.pairs());
        }
        head.headers_mut().extend([content.field()]);
        fields.move_to(head.headers_mut());
        io.fields.give(fields.into_memory());
        if is_bare {
            head.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            io.replies.give(body);
            return head.map(|()| ReplyBody::Whole(None));
        }
        let body = ReplyBytes::new(body, delivery, conn.sending(Instant::now()), open);
        head.map(|()| ReplyBody::Whole(Some(body)))
    }
}

/// The bytes of a DATA frame; none in a frame that only ends its stream.
pub struct FrameBytes(pub Option<ReplyBytes>);

impl Buf for FrameBytes {
    fn remaining(&self) -> usize {
        self.0.as_ref().map_or(0, Buf::remaining)
    }

    fn chunk(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], Buf::chunk)
    }

    fn advance(&mut self, count: usize) {
        if let Some(bytes) = &mut self.0 {
            bytes.advance(count);
        }
    }
}

/// The bytes of a reply on their way to the socket. Dropped when the last one is written, or when the peer takes no more of them.
pub struct ReplyBytes {
    bytes: Vec<u8>,
    sent: usize,
    delivery: Option<Box<dyn Delivery>>,
    /// Its place among the replies that wait for the peer.
    unsent: UnsentReply,
    open: OpenRequest,
}

impl ReplyBytes {
    /// These bytes, which end the request `open` when they are written.
    fn new(
        bytes: Vec<u8>,
        delivery: Option<Box<dyn Delivery>>,
        unsent: UnsentReply,
        open: OpenRequest,
    ) -> Self {
        Self { bytes, sent: 0, delivery, unsent, open }
    }

    /// The same without its first `start` bytes.
    fn skip(mut self, start: usize) -> Self {
        self.sent = start;
        self
    }
}

impl Buf for ReplyBytes {
    fn remaining(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    fn advance(&mut self, count: usize) {
        assert!(count <= self.remaining(), "advanced beyond the end of an answer");
        self.sent += count;
        if self.has_remaining() {
            self.unsent.note_progress();
        }
    }
}

impl Drop for ReplyBytes {
    fn drop(&mut self) {
        // A delivery that is dropped here books its response as undelivered.
        if let Some(delivery) = self.delivery.take().filter(|_| !self.has_remaining()) {
            self.open.complete(delivery);
        }
        io::try_with(|io| io.replies.give(std::mem::take(&mut self.bytes)));
    }
}

/// A message of a stream on its way out.
pub struct StreamMessage {
    /// Its bytes, prefix included.
    pub bytes: Vec<u8>,
    /// Where they begin.
    pub start: usize,
    /// What is notified when they are out.
    pub delivery: Option<Box<dyn Delivery>>,
}

/// The replies of a stream, and the trailers that end it.
pub type MessageStream = Pin<Box<dyn Stream<Item = std::result::Result<StreamMessage, HeaderMap>>>>;

/// The body of a reply.
pub enum ReplyBody {
    /// In one piece.
    Whole(Option<ReplyBytes>),
    /// A gRPC message, if there is one, and how the call ended.
    Message(Option<ReplyBytes>, Option<Trailers>),
    /// gRPC messages one after the other; `None` once the call has ended.
    Stream(Option<MessageStream>, StreamWriter),
    /// The body that one of tonic's services sends, until its caller stops waiting.
    Service(tonic::body::Body, Option<CutOff>, StreamWriter),
}

/// When a call is cut off, and the trailers that say so.
pub type CutOff = Pin<Box<dyn Future<Output = HeaderMap>>>;

/// The request whose messages are written.
pub struct StreamWriter {
    conn: Rc<ConnectionState>,
    open: OpenRequest,
}

impl StreamWriter {
    fn buffer(&self, message: StreamMessage) -> ReplyBytes {
        let StreamMessage { bytes, start, delivery } = message;
        let unsent = self.conn.sending(Instant::now());
        ReplyBytes::new(bytes, delivery, unsent, self.open.new_handle()).skip(start)
    }
}

/// How a gRPC call ended.
pub struct Trailers {
    fields: HeaderMap,
    /// What is notified of a reply without a message.
    delivery: Option<Box<dyn Delivery>>,
    _unsent: UnsentReply,
    open: OpenRequest,
}

impl ReplyBody {
    /// A gRPC message, or none, and trailers, which end the request `open`.
    pub fn message(
        bytes: Option<Vec<u8>>,
        fields: HeaderMap,
        mut delivery: Option<Box<dyn Delivery>>,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Self {
        let made_at = delivery.as_ref().and_then(|delivery| delivery.made_at());
        let now = made_at.unwrap_or_else(Instant::now);
        let bytes =
            bytes.map(|bytes| ReplyBytes::new(bytes, delivery.take(), conn.sending(now), open.new_handle()));
        let trailers = Trailers { fields, delivery, _unsent: conn.sending(now), open };
        Self::Message(bytes, Some(trailers))
    }

    /// gRPC messages as they come; their end is the end of the request `open`.
    pub fn stream(answers: MessageStream, conn: &Rc<ConnectionState>, open: OpenRequest) -> Self {
        Self::Stream(Some(answers), StreamWriter { conn: conn.clone(), open })
    }

    /// The body that a service sends, which ends the request `open`; cut off by `end`.
    pub fn service(
        body: tonic::body::Body,
        end: Option<CutOff>,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Self {
        Self::Service(body, end, StreamWriter { conn: conn.clone(), open })
    }
}

impl Trailers {
    /// The fields. Their delivery, if there is one, is notified at their flush.
    pub fn take(mut self) -> HeaderMap {
        if let Some(delivery) = self.delivery.take() {
            self.open.complete(delivery);
        }
        std::mem::take(&mut self.fields)
    }
}

impl Body for ReplyBody {
    type Data = ReplyBytes;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBytes>, tonic::Status>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Message(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers.take()))),
            }),
            Self::Stream(answers, writing) => {
                let Some(stream) = answers else { return Poll::Ready(None) };
                stream.as_mut().poll_next(cx).map(|answer| match answer? {
                    Ok(message) => Some(Ok(Frame::data(writing.buffer(message)))),
                    Err(trailers) => {
                        // Requests in progress are dropped with the stream.
                        *answers = None;
                        Some(Ok(Frame::trailers(trailers)))
                    }
                })
            }
            Self::Service(body, late, writing) => {
                if let Some(Poll::Ready(trailers)) = late.as_mut().map(|late| late.as_mut().poll(cx)) {
                    (*body, *late) = (tonic::body::Body::empty(), None);
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Pin::new(body).poll_frame(cx).map(|frame| {
                    let buffer = |bytes: Bytes| {
                        writing.buffer(StreamMessage { bytes: bytes.into(), start: 0, delivery: None })
                    };
                    frame.map(|frame| frame.map(|frame| frame.map_data(buffer)))
                })
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Message(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Stream(answers, _) => answers.is_none(),
            Self::Service(body, ..) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
            }
            Self::Message(..) | Self::Stream(..) => SizeHint::default(),
            Self::Service(body, ..) => body.size_hint(),
        }
    }
}
