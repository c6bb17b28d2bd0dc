//! Plain HTTP/1.1: requests one after the other, read and answered without hyper.
//!
//! A request is plain if its head has one reading, which says how short its body is ([`head`]), and all of it comes at once. Nearly
//! all are. Anything else is handed over to hyper, with the bytes as they came, and so is the rest of the connection: odd framing,
//! slow clients and long bodies have one reader.
//!
//! ```text
//! read head -> read body -> Service::respond -> write, flush -> next
//! ```
//! The hot path goes on in `call::http`, then `request::infer`.

pub mod head;
mod known_heads;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Method, Version};

use crate::headers::Headers;
use crate::metrics::hand_over_reason::HandOverReason;
use crate::thread::io::{self, Io};
use crate::transport::body::BodySource;
use crate::transport::buffers::{self, ConnectionBuffers, READ_ROOM};
use crate::transport::connection_state::ConnectionState;
use crate::transport::service::{RequestHead, Service};
use crate::transport::watched_socket::WatchedSocket;
use head::PlainRequest;

/// The longest body of a plain request, in bytes: one that is not counted as large.
const MAX_BODY: usize = (64 << 10) - 1;
/// How long after its head the body of a plain request may come: many clients write one after the other. A request that is refused
/// whatever its body is waits no longer than this.
const BODY_GRACE: Duration = Duration::from_millis(5);

/// Serves a connection for as long as its requests are plain; the socket for hyper, if the connection is not over.
pub async fn serve<S: Service>(wire: WatchedSocket, conn: &Rc<ConnectionState>) -> Option<WatchedSocket> {
    let io = io::current();
    let most = io.shared.config.max_body_bytes.min(MAX_BODY);
    let mut connection = Http1Connection { io: &io, wire, conn, buffers: None };
    loop {
        let (plain, end) = match connection.head(most).await {
            HeadRead::Plain(plain, end) => (plain, end),
            HeadRead::NotPlain(why) => return Some(connection.hand_over(why)),
            HeadRead::Closed => return None,
        };
        let Some(request) = connection.whole(end + plain.length).await else {
            return Some(connection.hand_over(HandOverReason::Body));
        };
        connection.exchange::<S>(plain, &request, end).await?;
    }
}

/// One connection.
struct Http1Connection<'a> {
    io: &'a Io,
    wire: WatchedSocket,
    conn: &'a Rc<ConnectionState>,
    /// `None` while the connection waits for the first byte of a request.
    buffers: Option<Box<ConnectionBuffers>>,
}

/// What was read in the place of a request's head.
enum HeadRead {
    /// A plain head, which ends there, behind its empty line.
    Plain(PlainRequest, usize),
    /// A head or bytes that are not plain.
    NotPlain(HandOverReason),
    /// The end: the connection is over.
    Closed,
}

impl Http1Connection<'_> {
    /// Reads to the end of a head, whose request has a body of at most `most` bytes.
    async fn head(&mut self, most: usize) -> HeadRead {
        self.skip_empty_lines();
        if !self.unread().is_empty() {
            // Its first byte was there when the last reply was out.
            self.conn.first_byte(self.conn.received());
        }
        let (mut searched, mut looked) = (0, false);
        poll_fn(|cx| {
            loop {
                if let Some(ConnectionBuffers { unread, fields, .. }) = self.buffers.as_deref_mut()
                    && let Some((end, plain)) = known_heads::read(unread, searched, fields, most)
                {
                    return Poll::Ready(match plain {
                        Some(plain) => HeadRead::Plain(plain, end),
                        None => HeadRead::NotPlain(HandOverReason::Request),
                    });
                }
                self.conn.register_waker(cx);
                let unread = self.unread();
                if !head::may_go_on(unread, searched) {
                    return Poll::Ready(HeadRead::NotPlain(HandOverReason::Head));
                }
                searched = unread.len();
                if searched == 0 && !std::mem::replace(&mut looked, true) {
                    // Behind a reply there is mostly nothing to read yet. To find that out takes no buffers.
                    self.give_buffers();
                    if ready!(self.wire.poll_readable(cx)).is_err() {
                        return Poll::Ready(HeadRead::Closed);
                    }
                }
                match ready!(self.poll_first(cx)) {
                    Ok(0) if searched > 0 => return Poll::Ready(HeadRead::NotPlain(HandOverReason::Head)),
                    Ok(0) | Err(_) => return Poll::Ready(HeadRead::Closed),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Reads more of a head, or its first bytes. A connection that waits for those holds no buffers.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        let buffers = self.buffers.get_or_insert_with(buffers::take);
        let read = self.wire.poll_more(cx, &mut buffers.unread, READ_ROOM);
        if read.is_pending() && buffers.unread.is_empty() {
            self.give_buffers();
        }
        read
    }

    fn give_buffers(&mut self) {
        if let Some(buffers) = self.buffers.take() {
            buffers::give(buffers);
        }
    }

    /// What was read and belongs to no request yet.
    fn unread(&self) -> &[u8] {
        self.buffers.as_ref().map_or(&[], |buffers| &buffers.unread)
    }

    /// Skips empty lines in front of a request: some clients end a body with one (RFC 9112, 2.2).
    fn skip_empty_lines(&mut self) {
        let lines = self.unread().iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        if let Some(buffers) = self.buffers.as_mut().filter(|_| lines > 0) {
            buffers.unread.advance(lines);
        }
    }

    /// A request of `length` bytes, if all of it is there within [`BODY_GRACE`] behind its head.
    async fn whole(&mut self, length: usize) -> Option<Bytes> {
        let unread = &mut self.buffers.get_or_insert_with(buffers::take).unread;
        if unread.len() < length {
            let whole = poll_fn(|cx| {
                while unread.len() < length {
                    let missing = length - unread.len();
                    match ready!(self.wire.poll_more(cx, unread, missing)) {
                        Ok(read) if read > 0 => {}
                        _ => return Poll::Ready(None),
                    }
                }
                Poll::Ready(Some(()))
            });
            tokio::time::timeout(BODY_GRACE, whole).await.ok()??;
        }
        Some(unread.split_to(length).freeze())
    }

    /// Answers a request whose head ends at `end`, and sends the reply; `None` if the connection is over.
    async fn exchange<S: Service>(&mut self, plain: PlainRequest, request: &Bytes, end: usize) -> Option<()> {
        let (io, received, open) = (self.io, self.conn.received(), self.conn.begin());
        let mut fields = std::mem::take(&mut self.buffers.get_or_insert_with(buffers::take).fields);
        let mut reply = {
            let path = plain.path.of_head(request);
            let headers = Headers::of_list(request, &fields);
            let (method, version) = (&plain.method, Version::HTTP_11);
            let head = RequestHead { method, path, is_plain: true, version, headers };
            let body = BodySource::Buffered(request.slice(end..));
            self.unless_client_left(pin!(S::respond(io, head, body, received, &open))).await?
        };
        fields.clear();
        if plain.closes || (io.is_draining() && self.is_last()) {
            reply.closes = true;
        }
        let closes = reply.closes;
        if closes {
            reply.close();
        }
        let is_bare = plain.method == Method::HEAD;
        let buffers = self.buffers.get_or_insert_with(buffers::take);
        buffers.fields = fields;
        reply.send(io, is_bare, &mut self.wire, &mut buffers.written, open).await.ok()?;
        if closes {
            self.wire.shut_down().await;
        }
        (!closes).then_some(())
    }

    /// Whether the client has sent nothing behind the present request.
    fn is_last(&mut self) -> bool {
        self.skip_empty_lines();
        self.unread().is_empty() && !self.wire.has_more()
    }

    /// Waits for `work`, and drops it if the client leaves. A client that has sent its next request already is not watched: the end of
    /// its stream may only say that it sends no more.
    async fn unless_client_left<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.unread().is_empty() {
                // The request holds the buffer: room for more would be a second one, so it is made when there is something to read.
                if ready!(self.wire.poll_readable(cx)).is_err() {
                    return Poll::Ready(None);
                }
                let unread = &mut self.buffers.get_or_insert_with(buffers::take).unread;
                match ready!(self.wire.poll_more(cx, unread, READ_ROOM)) {
                    Ok(read) if read > 0 => {}
                    _ => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The socket for hyper, from which what was read is read again.
    fn hand_over(mut self, why: HandOverReason) -> WatchedSocket {
        self.io.shared.metrics.handed_over.add(why);
        let unread = self.buffers.take().map_or_else(Bytes::new, |buffers| buffers.unread.freeze());
        self.wire.put_back(unread);
        self.wire
    }
}
