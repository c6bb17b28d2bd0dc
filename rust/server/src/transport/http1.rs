//! HTTP/1.1 without its corners: requests that are plain, one after the other, read and written without hyper.
//!
//! A request is plain when its head has one reading, which says how short its body is ([`head`]), and all of it comes at once.
//! Nearly all are. Whatever else comes is hyper's, and so is the connection from there on, with the bytes as they came: odd
//! framing, slow clients and long bodies have one reader.
//!
//! ```text
//! read head -> read body -> http::respond -> write, flush -> next
//! ```
//! The hot path goes on in `http` and `infer`.

pub mod buffers;
pub mod head;

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
use crate::transport::body::Source;
use crate::transport::conn::Conn;
use crate::transport::exchange::{Head, Service};
use crate::transport::wire::Wire;
use buffers::{Buffers, ROOM};
use head::Plain;

/// The longest body of a plain request, in bytes: what is not counted among the large ones.
const MOST: usize = (64 << 10) - 1;
/// How long the body of a plain request may come behind its head: many clients write one after the other. What is refused
/// whatever its body is waits no longer than this.
const MOMENT: Duration = Duration::from_millis(5);

/// Serves a connection for as long as its requests are plain; what is left of it for hyper, if it is not over.
pub async fn serve<S: Service>(wire: Wire, conn: &Rc<Conn>) -> Option<Wire> {
    let mut line = Line { wire, conn, held: Buffers::default() };
    let most = io::with(|io| io.shared.config.max_body_bytes).min(MOST);
    loop {
        let head = match line.head().await {
            Came::Head(head) => head,
            Came::Odd => return Some(io::with(|io| line.hand_over(io, HandOverReason::Head, &[]))),
            Came::Nothing => return None,
        };
        let Some(plain) = head::parse(&head, &mut line.held.fields, most) else {
            return Some(io::with(|io| line.hand_over(io, HandOverReason::Request, &head)));
        };
        let Some(body) = line.body(plain.length).await else {
            return Some(io::with(|io| line.hand_over(io, HandOverReason::Body, &head)));
        };
        line.exchange::<S>(plain, &head, body).await?;
        line.held.fields.clear();
    }
}

/// One connection.
struct Line<'a> {
    wire: Wire,
    conn: &'a Rc<Conn>,
    held: Buffers,
}

/// What came where a request was to begin.
enum Came {
    /// A head, its empty line included.
    Head(Bytes),
    /// What is no head, or not a whole one.
    Odd,
    /// Nothing more: the connection is over.
    Nothing,
}

impl Line<'_> {
    /// Reads to the end of a head.
    async fn head(&mut self) -> Came {
        self.skip_empty_lines();
        if !self.held.unread.is_empty() {
            // Its first byte was there when the last answer was out.
            self.conn.first_byte(self.conn.received());
        }
        let mut searched = 0;
        poll_fn(|cx| {
            loop {
                let unread = &mut self.held.unread;
                if let Some(end) = head::end(unread, searched) {
                    return Poll::Ready(Came::Head(unread.split_to(end).freeze()));
                }
                self.conn.watch(cx);
                if !head::may_go_on(unread, searched) {
                    return Poll::Ready(Came::Odd);
                }
                searched = unread.len();
                match ready!(self.poll_first(cx)) {
                    Ok(0) if searched > 0 => return Poll::Ready(Came::Odd),
                    Ok(0) | Err(_) => return Poll::Ready(Came::Nothing),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Reads more of a head, or its first bytes; who waits for those holds no buffers.
    fn poll_first(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.held.unread.capacity() == 0 {
            self.held = buffers::take();
        }
        let read = self.wire.poll_more(cx, &mut self.held.unread, ROOM);
        if read.is_pending() && self.held.unread.is_empty() {
            buffers::give(std::mem::take(&mut self.held));
        }
        read
    }

    /// Empty lines in front of a request are nobody's: some clients end a body with one (RFC 9112, 2.2).
    fn skip_empty_lines(&mut self) {
        let unread = &mut self.held.unread;
        let lines = unread.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        unread.advance(lines);
    }

    /// The body, where all of it is there within a moment.
    async fn body(&mut self, length: usize) -> Option<Bytes> {
        let unread = &mut self.held.unread;
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
            tokio::time::timeout(MOMENT, whole).await.ok()??;
        }
        Some(unread.split_to(length).freeze())
    }

    /// Answers a request and writes the answer; `None` when the connection is over.
    async fn exchange<S: Service>(&mut self, plain: Plain<'_>, head: &Bytes, body: Bytes) -> Option<()> {
        let (received, open) = (self.conn.received(), self.conn.begin());
        let fields = std::mem::take(&mut self.held.fields);
        let mut reply = {
            let (method, path) = (&plain.method, plain.path);
            let headers = Headers::List(head, &fields);
            // A plain path has none ([`head::parse`]).
            let has_escapes = false;
            let head = Head { method, path, has_escapes, version: Version::HTTP_11, headers };
            self.unless_left(pin!(S::respond(head, Source::Here(body), received, &open))).await?
        };
        self.held.fields = fields;
        if plain.closes || (io::with(Io::is_draining) && self.is_last()) {
            reply.ends = true;
        }
        let ends = reply.ends;
        if ends {
            reply.close();
        }
        let is_bare = plain.method == Method::HEAD;
        reply.send(is_bare, &mut self.wire, &mut self.held.written, open).await.ok()?;
        if ends {
            self.wire.shut_down().await;
        }
        (!ends).then_some(())
    }

    /// Whether the client has sent nothing behind the present request.
    fn is_last(&mut self) -> bool {
        self.skip_empty_lines();
        self.held.unread.is_empty() && !self.wire.has_more()
    }

    /// Waits for an answer, and for the client to leave: then there is nobody to answer, and `work` is dropped. Who has sent the
    /// next request already is not watched: he may have sent his last one.
    async fn unless_left<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.held.unread.is_empty() {
                // The request holds the buffer: room for more would be another one.
                if ready!(self.wire.poll_readable(cx)).is_err() {
                    return Poll::Ready(None);
                }
                match ready!(self.wire.poll_more(cx, &mut self.held.unread, ROOM)) {
                    Ok(read) if read > 0 => {}
                    _ => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// The wire, from which `head` and what was read behind it are read again.
    fn hand_over(mut self, io: &Io, why: HandOverReason, head: &[u8]) -> Wire {
        io.shared.metrics.handed_over.add(why);
        self.wire.put_back([head, &self.held.unread].concat().into());
        self.wire
    }
}
