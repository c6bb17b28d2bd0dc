//! The bytes of a reply on their way to the socket, and what is notified of them; the body that hyper sends.
//!
//! Not here: how our own loop of HTTP/1.1 sends a reply (`reply`), how one becomes frames of HTTP/2 (`http2/exchange`).

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Buf;
use headgate_engine::Instant;
use http::Response;
use http_body::{Body, Frame, SizeHint};

use crate::thread::io::{self, Io};
use crate::transport::connection_state::{ConnectionState, OpenRequest, UnsentReply};
use crate::transport::delivery::Delivery;
use crate::transport::reply::Reply;

impl Reply {
    /// The reply as hyper takes it, which ends the request `open` when it is written. hyper leaves out the body of a reply to HEAD itself.
    pub fn into_response(
        self,
        io: &Io,
        conn: &Rc<ConnectionState>,
        open: OpenRequest,
    ) -> Response<WholeBody> {
        let Reply { status, content, mut fields, body, delivery, .. } = self;
        let mut head = Response::new(());
        *head.status_mut() = status;
        if let Some(prepared) = delivery.as_ref().and_then(|delivery| delivery.prepared_fields()) {
            head.headers_mut().extend(prepared.pairs());
        }
        head.headers_mut().extend([content.field()]);
        fields.move_to(head.headers_mut());
        io.fields.give(fields.into_memory());
        let body = ReplyBytes::new(body, delivery, conn.sending(Instant::now()), open);
        head.map(|()| WholeBody(Some(body)))
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
    pub fn new(
        bytes: Vec<u8>,
        delivery: Option<Box<dyn Delivery>>,
        unsent: UnsentReply,
        open: OpenRequest,
    ) -> Self {
        Self { bytes, sent: 0, delivery, unsent, open }
    }

    /// The same without its first `start` bytes.
    pub fn skip(mut self, start: usize) -> Self {
        self.sent = start;
        self
    }

    /// What is notified when they are out.
    pub fn delivery(&self) -> Option<&dyn Delivery> {
        self.delivery.as_deref()
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

/// The body of a reply in one piece.
pub struct WholeBody(Option<ReplyBytes>);

impl Body for WholeBody {
    type Data = ReplyBytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<ReplyBytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.remaining() as u64))
    }
}
