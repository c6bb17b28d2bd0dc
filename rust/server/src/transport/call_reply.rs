//! The reply to a call over HTTP/2: messages, and how the call ended.
//!
//! Not here: how it becomes frames (`http2/exchange`).

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::Stream;
use headgate_engine::Instant;
use http::HeaderMap;
use http_body::Body;

use crate::headers::{self, PreparedFields};
use crate::reply_fields::ReplyFields;
use crate::transport::connection_state::{ConnectionState, OpenRequest, UnsentReply};
use crate::transport::delivery::Delivery;
use crate::transport::reply_body::ReplyBytes;

/// The reply to a call, whose status is always the same.
pub struct CallReply {
    /// What the messages are.
    pub content: &'static str,
    /// The header fields, without those of the delivery.
    pub fields: ReplyFields,
    /// The messages, and how the call ended.
    pub body: CallBody,
}

/// What a call is answered with.
pub enum CallBody {
    /// A message, if there is one, and how the call ended.
    Message(Option<ReplyBytes>, CallEnd),
    /// Messages that come one after the other.
    Stream(CallStream),
}

/// The fields behind the messages of a call, which say how it ended.
pub enum Trailers {
    /// Ready-made, as a block of HTTP/2.
    Block(&'static [u8]),
    /// A map.
    Map(HeaderMap),
}

impl Trailers {
    /// Appends the fields to a block of HTTP/2.
    pub fn write_block(&self, block: &mut Vec<u8>) {
        match self {
            Trailers::Block(ready) => block.extend_from_slice(ready),
            Trailers::Map(fields) => headers::write_block(block, fields),
        }
    }
}

/// How a call ended.
pub struct CallEnd {
    trailers: Trailers,
    /// What is notified of a reply without a message.
    delivery: Option<Box<dyn Delivery>>,
    _unsent: UnsentReply,
    open: OpenRequest,
}

impl CallEnd {
    /// Appends the fields to a block of HTTP/2. Their delivery, if there is one, is notified at their flush.
    pub fn write_block(self, block: &mut Vec<u8>) {
        if let Some(delivery) = self.delivery {
            self.open.complete(delivery);
        }
        self.trailers.write_block(block);
    }
}

impl CallBody {
    /// A message, or none, and trailers, which end the request `open`.
    pub fn message(
        bytes: Option<Vec<u8>>,
        trailers: Trailers,
        mut delivery: Option<Box<dyn Delivery>>,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Self {
        let made_at = delivery.as_ref().and_then(|delivery| delivery.made_at());
        let now = made_at.unwrap_or_else(Instant::now);
        let bytes =
            bytes.map(|bytes| ReplyBytes::new(bytes, delivery.take(), conn.sending(now), open.new_handle()));
        Self::Message(bytes, CallEnd { trailers, delivery, _unsent: conn.sending(now), open })
    }

    /// Messages as they come; their end is the end of the request `open`.
    pub fn stream(answers: MessageStream, conn: &Rc<ConnectionState>, open: OpenRequest) -> Self {
        Self::Stream(CallStream { source: MessageSource::Messages(answers), conn: conn.clone(), open })
    }

    /// The body that a service sends, which ends the request `open`; cut off by `end`.
    pub fn service(
        body: tonic::body::Body,
        end: Option<CutOff>,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Self {
        Self::Stream(CallStream { source: MessageSource::Service(body, end), conn: conn.clone(), open })
    }

    /// Whether there is nothing behind the head, which has said how the call ended.
    pub fn is_over(&self) -> bool {
        matches!(self, CallBody::Stream(CallStream { source: MessageSource::Service(body, _), .. }) if body.is_end_stream())
    }

    /// Header fields of the reply that are ready-made.
    pub fn prepared_fields(&self) -> Option<&PreparedFields> {
        match self {
            CallBody::Message(Some(bytes), _) => bytes.delivery()?.prepared_fields(),
            CallBody::Message(None, end) => end.delivery.as_ref()?.prepared_fields(),
            CallBody::Stream(_) => None,
        }
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
pub type MessageStream = Pin<Box<dyn Stream<Item = std::result::Result<StreamMessage, Trailers>>>>;

/// When a call is cut off, and the trailers that say so.
pub type CutOff = Pin<Box<dyn Future<Output = Trailers>>>;

/// Messages that come one after the other.
pub struct CallStream {
    source: MessageSource,
    conn: Rc<ConnectionState>,
    open: OpenRequest,
}

/// Where the messages of a call come from.
enum MessageSource {
    /// From our own stream.
    Messages(MessageStream),
    /// From one of tonic's services, until its caller stops waiting.
    Service(tonic::body::Body, Option<CutOff>),
}

/// What comes next in a call.
pub enum CallPart {
    /// Bytes of a message.
    Bytes(ReplyBytes),
    /// Its end, with trailers.
    End(Trailers),
    /// Its end, without trailers: the head has said how.
    Over,
    /// A failure of the service.
    Failed,
}

impl CallStream {
    /// The next part of the reply. Nothing follows an end, and what was in progress is dropped with the stream.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<CallPart> {
        match &mut self.source {
            MessageSource::Messages(stream) => Poll::Ready(match ready!(stream.as_mut().poll_next(cx)) {
                Some(Ok(message)) => CallPart::Bytes(self.buffer(message)),
                Some(Err(trailers)) => CallPart::End(trailers),
                None => CallPart::Over,
            }),
            MessageSource::Service(body, late) => {
                if let Some(Poll::Ready(trailers)) = late.as_mut().map(|late| late.as_mut().poll(cx)) {
                    return Poll::Ready(CallPart::End(trailers));
                }
                let frame = match ready!(Pin::new(body).poll_frame(cx)) {
                    Some(Ok(frame)) => frame,
                    Some(Err(_)) => return Poll::Ready(CallPart::Failed),
                    None => return Poll::Ready(CallPart::Over),
                };
                Poll::Ready(match frame.into_data().map_err(|frame| frame.into_trailers()) {
                    Ok(data) => CallPart::Bytes(self.buffer_of(data)),
                    Err(Ok(trailers)) => CallPart::End(Trailers::Map(trailers)),
                    Err(Err(_)) => CallPart::Over,
                })
            }
        }
    }

    fn buffer_of(&self, data: Bytes) -> ReplyBytes {
        self.buffer(StreamMessage { bytes: data.into(), start: 0, delivery: None })
    }

    fn buffer(&self, message: StreamMessage) -> ReplyBytes {
        let StreamMessage { bytes, start, delivery } = message;
        let unsent = self.conn.sending(Instant::now());
        ReplyBytes::new(bytes, delivery, unsent, self.open.new_handle()).skip(start)
    }
}
