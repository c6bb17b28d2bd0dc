//! Answers as the HTTP layer takes them: bytes in a buffer that goes back to its thread, and the tap that waits for them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
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

    fn give(&self, mut bytes: Vec<u8>) {
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

/// The body of an answer, in one piece.
pub struct ReplyBody(Option<ReplyBuf>);

impl ReplyBody {
    /// A body of these bytes, which ends the request `open` when it is written.
    pub fn new(bytes: Vec<u8>, tap: Option<Tap>, conn: &Rc<Conn>, open: Open) -> Self {
        Self(Some(ReplyBuf { bytes, sent: 0, tap, unsent: conn.sending(), _open: open }))
    }
}

impl Body for ReplyBody {
    type Data = ReplyBuf;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBuf>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
    }
}
