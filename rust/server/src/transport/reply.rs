//! Answers as the HTTP layer takes them: bytes in a buffer that goes back to its thread, and what waits for them.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Buf;
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::thread::io;
use crate::transport::conn::{Conn, Open, Unsent};
use crate::transport::delivery::Delivery;

/// A message of a stream on its way out.
pub struct Piece {
    /// Its bytes, prefix included.
    pub bytes: Vec<u8>,
    /// Where they begin.
    pub start: usize,
    /// What is told when they are out.
    pub delivery: Option<Box<dyn Delivery>>,
}

/// The answers of a stream, and the trailers that end it.
pub type Answers = Pin<Box<dyn Stream<Item = std::result::Result<Piece, HeaderMap>>>>;

/// An answer's bytes on their way to the socket. Dropped when the last one is written, or when nobody takes them any more.
pub struct ReplyBuf {
    bytes: Vec<u8>,
    sent: usize,
    delivery: Option<Box<dyn Delivery>>,
    unsent: Unsent,
    _open: Open,
}

impl ReplyBuf {
    /// These bytes, which end the request `open` when they are written.
    pub fn new(
        bytes: Vec<u8>,
        delivery: Option<Box<dyn Delivery>>,
        conn: &Rc<Conn>,
        (open, now): (Open, Instant),
    ) -> Self {
        Self { bytes, sent: 0, delivery, unsent: conn.sending(now), _open: open }
    }
}

impl Buf for ReplyBuf {
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
            self.unsent.moved();
        }
    }
}

impl Drop for ReplyBuf {
    fn drop(&mut self) {
        // What is not handed on here books its answer as undelivered.
        if let Some(delivery) = self.delivery.take().filter(|_| !self.has_remaining()) {
            self.unsent.complete(delivery);
        }
        io::try_with(|io| io.replies.give(std::mem::take(&mut self.bytes)));
    }
}

/// The body of an answer.
pub enum ReplyBody {
    /// In one piece.
    Whole(Option<ReplyBuf>),
    /// A gRPC message, if there is one, and how the call ended.
    Message(Option<ReplyBuf>, Option<Trailers>),
    /// gRPC messages one after the other; `None` once the call has ended.
    Stream(Option<Answers>, Writing),
    /// What one of tonic's services answers, until its caller stops waiting.
    Service(tonic::body::Body, Option<End>, Writing),
}

/// When a call is cut off, and the trailers that say so.
pub type End = Pin<Box<dyn Future<Output = HeaderMap>>>;

/// Whose pieces are written.
pub struct Writing {
    conn: Rc<Conn>,
    open: Open,
}

impl Writing {
    fn piece(&self, bytes: Vec<u8>, start: usize, delivery: Option<Box<dyn Delivery>>) -> ReplyBuf {
        ReplyBuf {
            bytes,
            sent: start,
            delivery,
            unsent: self.conn.sending(Instant::now()),
            _open: self.open.also(),
        }
    }
}

/// How a gRPC call ended.
pub struct Trailers {
    fields: HeaderMap,
    /// What waits for an answer without a message, and the request that the trailers end.
    delivery: Option<Box<dyn Delivery>>,
    unsent: Unsent,
    _open: Open,
}

impl ReplyBody {
    /// A body of these bytes, which ends the request `open` when it is written.
    pub fn new(bytes: Vec<u8>, delivery: Option<Box<dyn Delivery>>, conn: &Rc<Conn>, open: Open) -> Self {
        Self::Whole(Some(ReplyBuf::new(bytes, delivery, conn, (open, Instant::now()))))
    }

    /// A gRPC message, or none, and trailers, which end the request `open`.
    pub fn message(
        bytes: Option<Vec<u8>>,
        fields: HeaderMap,
        mut delivery: Option<Box<dyn Delivery>>,
        conn: &Rc<Conn>,
        open: Open,
    ) -> Self {
        let bytes =
            bytes.map(|bytes| ReplyBuf::new(bytes, delivery.take(), conn, (open.also(), Instant::now())));
        Self::Message(
            bytes,
            Some(Trailers { fields, delivery, unsent: conn.sending(Instant::now()), _open: open }),
        )
    }

    /// gRPC messages as they come; their end is the end of the request `open`.
    pub fn stream(answers: Answers, conn: &Rc<Conn>, open: Open) -> Self {
        Self::Stream(Some(answers), Writing { conn: conn.clone(), open })
    }

    /// The body of a service's answer, which ends the request `open`; cut off by `end`.
    pub fn service(body: tonic::body::Body, end: Option<End>, conn: &Rc<Conn>, open: Open) -> Self {
        Self::Service(body, end, Writing { conn: conn.clone(), open })
    }
}

impl Trailers {
    /// The fields; what waits for them, if it is still here, waits for their flush.
    fn take(mut self) -> HeaderMap {
        if let Some(delivery) = self.delivery.take() {
            self.unsent.complete(delivery);
        }
        std::mem::take(&mut self.fields)
    }
}

impl Body for ReplyBody {
    type Data = ReplyBuf;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBuf>, tonic::Status>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Message(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(bytes))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers.take()))),
            }),
            Self::Stream(answers, writing) => {
                let Some(stream) = answers else { return Poll::Ready(None) };
                stream.as_mut().poll_next(cx).map(|answer| match answer? {
                    Ok(Piece { bytes, start, delivery }) => {
                        Some(Ok(Frame::data(writing.piece(bytes, start, delivery))))
                    }
                    Err(trailers) => {
                        // Whatever is still in progress goes with the stream.
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
                    frame.map(|frame| {
                        frame.map(|frame| frame.map_data(|bytes| writing.piece(bytes.into(), 0, None)))
                    })
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
