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

pub mod answer;
pub mod head;

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Method, Version};

use crate::body::Source;
use crate::conn::Conn;
use crate::http::{Head, respond};
use crate::io;
use crate::reply::ReplyBuf;
use crate::wire::Wire;
use head::Plain;

/// The longest body of a plain request, in bytes: what is not counted among the large ones.
const MOST: usize = (64 << 10) - 1;
/// How long the body of a plain request may come behind its head: many clients write one after the other. What is refused
/// whatever its body is waits no longer than this.
const MOMENT: Duration = Duration::from_millis(5);
/// The least room that a read has, in bytes; twice as much is kept between two requests.
const ROOM: usize = 8 << 10;

/// Serves a connection for as long as its requests are plain; what is left of it for hyper, if it is not over.
pub async fn serve(wire: Wire, conn: &Rc<Conn>) -> Option<Wire> {
    let (headers, unread) = (HeaderMap::new(), BytesMut::with_capacity(ROOM));
    let mut line = Line { wire, conn, unread, headers, written: Vec::new() };
    let most = io::with(|io| io.shared.config.max_body_bytes).min(MOST);
    loop {
        let head = match line.head().await {
            Came::Head(head) => head,
            Came::Odd => return Some(line.hand_over(&[])),
            Came::Nothing => return None,
        };
        let Some(plain) = head::parse(&head, &mut line.headers, most) else {
            return Some(line.hand_over(&head));
        };
        let Some(body) = line.body(plain.length).await else {
            return Some(line.hand_over(&head));
        };
        line.exchange(plain, body).await?;
        drop(head);
        line.recycle();
    }
}

/// One connection.
struct Line<'a> {
    wire: Wire,
    conn: &'a Rc<Conn>,
    /// What was read and belongs to no request yet.
    unread: BytesMut,
    /// The header fields of the present request.
    headers: HeaderMap,
    /// The head of the present answer, and its body where that is short.
    written: Vec<u8>,
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
        if !self.unread.is_empty() {
            // Its first byte was there when the last answer was out.
            self.conn.first_byte(self.conn.received());
        }
        let mut searched = 0;
        poll_fn(|cx| {
            loop {
                if let Some(end) = head::end(&self.unread, searched) {
                    return Poll::Ready(Came::Head(self.unread.split_to(end).freeze()));
                }
                if self.conn.is_closing(cx) {
                    return Poll::Ready(Came::Nothing);
                }
                if !head::may_go_on(&self.unread, searched) {
                    return Poll::Ready(Came::Odd);
                }
                searched = self.unread.len();
                match ready!(self.wire.poll_more(cx, &mut self.unread, ROOM)) {
                    Ok(0) if !self.unread.is_empty() => return Poll::Ready(Came::Odd),
                    Ok(0) | Err(_) => return Poll::Ready(Came::Nothing),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Empty lines in front of a request are nobody's: some clients end a body with one (RFC 9112, 2.2).
    fn skip_empty_lines(&mut self) {
        let lines = self.unread.iter().take_while(|&&byte| byte == b'\r' || byte == b'\n').count();
        self.unread.advance(lines);
    }

    /// The body, where all of it is there within a moment.
    async fn body(&mut self, length: usize) -> Option<Bytes> {
        if self.unread.len() < length {
            let whole = poll_fn(|cx| {
                while self.unread.len() < length {
                    let missing = length - self.unread.len();
                    match ready!(self.wire.poll_more(cx, &mut self.unread, missing)) {
                        Ok(read) if read > 0 => {}
                        _ => return Poll::Ready(None),
                    }
                }
                Poll::Ready(Some(()))
            });
            tokio::time::timeout(MOMENT, whole).await.ok()??;
        }
        Some(self.unread.split_to(length).freeze())
    }

    /// Answers a request and writes the answer; `None` when the connection is over.
    async fn exchange(&mut self, plain: Plain<'_>, body: Bytes) -> Option<()> {
        let (received, open) = (self.conn.received(), self.conn.begin());
        let headers = std::mem::take(&mut self.headers);
        let mut reply = {
            let (method, path) = (&plain.method, plain.path);
            let head = Head { method, path, version: Version::HTTP_11, headers: &headers };
            self.unless_left(pin!(respond(head, Source::Here(body), received, &open))).await?
        };
        self.headers = headers;
        let ends = reply.ends || plain.closes || self.conn.is_told_to_close();
        if ends {
            reply.fields.push((CONNECTION, HeaderValue::from_static("close")));
        }
        answer::write_head(&reply, &mut self.written);
        io::with(|io| io.fields.give(reply.fields));
        if plain.method == Method::HEAD {
            io::with(|io| io.replies.give(std::mem::take(&mut reply.body)));
        }
        let body = ReplyBuf::new(reply.body, reply.tap, self.conn, open);
        answer::send(&mut self.wire, &mut self.written, body).await.ok()?;
        if ends {
            self.wire.shut_down().await;
        }
        (!ends).then_some(())
    }

    /// Waits for an answer, and for the client to leave: then there is nobody to answer, and `work` is dropped. Who has sent the
    /// next request already is not watched: he may have sent his last one.
    async fn unless_left<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            if self.unread.is_empty() {
                match ready!(self.wire.poll_more(cx, &mut self.unread, ROOM)) {
                    Ok(read) if read > 0 => {}
                    _ => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Lets go of a request, so that its memory takes the next one; what a long body took is not kept.
    fn recycle(&mut self) {
        self.headers.clear();
        if self.unread.is_empty() {
            self.unread.reserve(ROOM);
            if self.unread.capacity() > 2 * ROOM {
                self.unread = BytesMut::with_capacity(ROOM);
            }
        }
    }

    /// The wire, from which `head` and what was read behind it are read again.
    fn hand_over(mut self, head: &[u8]) -> Wire {
        self.wire.put_back([head, &self.unread].concat().into());
        self.wire
    }
}
