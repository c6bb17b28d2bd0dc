//! Answers as the HTTP layer takes them: bytes in a buffer that goes back to its thread, and the tap that waits for them.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};

use crate::conn::Conn;
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
    pub fn take(&self) -> ReplyBuf {
        ReplyBuf { bytes: self.0.borrow_mut().pop().unwrap_or_default(), sent: 0 }
    }

    fn give(&self, mut bytes: Vec<u8>) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT && bytes.capacity() <= KEEP_AT_MOST {
            bytes.clear();
            kept.push(bytes);
        }
    }
}

/// Bytes to be sent; the buffer goes back to the thread it is dropped on.
pub struct ReplyBuf {
    /// The bytes, all of them.
    pub bytes: Vec<u8>,
    sent: usize,
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
    }
}

impl Drop for ReplyBuf {
    fn drop(&mut self) {
        io::try_with(|io| io.replies.give(std::mem::take(&mut self.bytes)));
    }
}

/// The body of an answer. When the HTTP layer is done with it, its tap is told to wait for the flush.
pub struct ReplyBody {
    bytes: Option<ReplyBuf>,
    tap: Option<Tap>,
    conn: Rc<Conn>,
}

impl ReplyBody {
    /// A body of these bytes.
    pub fn new(bytes: ReplyBuf, tap: Option<Tap>, conn: Rc<Conn>) -> Self {
        Self { bytes: Some(bytes).filter(Buf::has_remaining), tap, conn }
    }
}

impl Body for ReplyBody {
    type Data = ReplyBuf;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBuf>, Infallible>>> {
        Poll::Ready(self.bytes.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
    }
}

impl Drop for ReplyBody {
    fn drop(&mut self) {
        self.conn.answer(self.tap.take());
    }
}
