//! Answers as the HTTP layer takes them: bytes in a buffer that goes back to its thread, and the tap that waits for them.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::conn::{Conn, Open, Unsent};
use crate::io;
use crate::taps::Tap;

/// Buffers that a thread keeps at most.
const KEPT: usize = 256;
/// A buffer that grew beyond this is freed instead of kept, in bytes.
const KEEP_AT_MOST: usize = 1 << 20;

/// A thread's stock of empty buffers.
#[derive(Default)]
pub struct ReplyBuffers(RefCell<Vec<Vec<u8>>>);

impl ReplyBuffers {
    /// An empty buffer.
    pub fn take(&self) -> Vec<u8> {
        self.0.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub fn give(&self, mut bytes: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT && bytes.capacity() <= KEEP_AT_MOST {
            bytes.clear();
            kept.push(bytes);
        }
    }
}

/// An answer's bytes on their way to the socket. Dropped when the last one is written, or when nobody takes them any more.
pub struct ReplyBuf {
    bytes: Vec<u8>,
    sent: usize,
    tap: Option<Tap>,
    unsent: Unsent,
    _open: Open,
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
        // A tap that is not handed on here books its answer as undelivered.
        if let Some(tap) = self.tap.take().filter(|_| !self.has_remaining()) {
            self.unsent.complete(tap);
        }
        io::try_with(|io| io.replies.give(std::mem::take(&mut self.bytes)));
    }
}

/// The body of an answer.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
pub enum ReplyBody {
    /// In one piece.
    Whole(Option<ReplyBuf>),
    /// A gRPC message, if there is one, and how the call ended.
    Message(Option<ReplyBuf>, Option<Trailers>),
    /// What one of tonic's services answers, and the request that it ends.
    Service(tonic::body::Body, Open),
}

/// How a gRPC call ended.
pub struct Trailers {
    fields: HeaderMap,
    /// The tap of an answer without a message, and the request that the trailers end.
    tap: Option<Tap>,
    unsent: Unsent,
    _open: Open,
}

impl ReplyBody {
    /// A body of these bytes, which ends the request `open` when it is written.
    pub fn new(bytes: Vec<u8>, tap: Option<Tap>, conn: &Rc<Conn>, open: Open) -> Self {
        Self::Whole(Some(ReplyBuf { bytes, sent: 0, tap, unsent: conn.sending(), _open: open }))
    }

    /// A gRPC message, or none, and trailers, which end the request `open`.
    pub fn message(
        bytes: Option<Vec<u8>>,
        fields: HeaderMap,
        mut tap: Option<Tap>,
        conn: &Rc<Conn>,
        open: Open,
    ) -> Self {
        let bytes = bytes.map(|bytes| ReplyBuf {
            bytes,
            sent: 0,
            tap: tap.take(),
            unsent: conn.sending(),
            _open: open.also(),
        });
        Self::Message(bytes, Some(Trailers { fields, tap, unsent: conn.sending(), _open: open }))
    }

    /// The body of a service's answer, which ends the request `open`.
    pub fn service(body: tonic::body::Body, open: Open) -> Self {
        Self::Service(body, open)
    }
}

impl Trailers {
    /// The fields; the tap, if it is still here, waits for their flush.
    fn take(mut self) -> HeaderMap {
        if let Some(tap) = self.tap.take() {
            self.unsent.complete(tap);
        }
        std::mem::take(&mut self.fields)
    }
}

/// A piece of an answer.
#[expect(clippy::large_enum_variant, reason = "a box would be an allocation for each request")]
pub enum ReplyData {
    /// The phases' own buffer.
    Own(ReplyBuf),
    /// What a service wrote.
    Service(Bytes),
}

impl Buf for ReplyData {
    fn remaining(&self) -> usize {
        match self {
            Self::Own(bytes) => bytes.remaining(),
            Self::Service(bytes) => bytes.remaining(),
        }
    }

    fn chunk(&self) -> &[u8] {
        match self {
            Self::Own(bytes) => bytes.chunk(),
            Self::Service(bytes) => bytes.chunk(),
        }
    }

    fn advance(&mut self, count: usize) {
        match self {
            Self::Own(bytes) => bytes.advance(count),
            Self::Service(bytes) => bytes.advance(count),
        }
    }
}

impl Body for ReplyBody {
    type Data = ReplyData;
    type Error = tonic::Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyData>, tonic::Status>>> {
        match &mut *self {
            Self::Whole(bytes) => {
                Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(ReplyData::Own(bytes)))))
            }
            Self::Message(bytes, trailers) => Poll::Ready(match bytes.take() {
                Some(bytes) => Some(Ok(Frame::data(ReplyData::Own(bytes)))),
                None => trailers.take().map(|trailers| Ok(Frame::trailers(trailers.take()))),
            }),
            Self::Service(body, _) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map(|frame| frame.map_data(ReplyData::Service)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Message(bytes, trailers) => bytes.is_none() && trailers.is_none(),
            Self::Service(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
            }
            Self::Message(..) => SizeHint::default(),
            Self::Service(body, _) => body.size_hint(),
        }
    }
}
