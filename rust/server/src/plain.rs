//! HTTP/1.1 without its corners: requests that are plain, one after the other, read and written without hyper.
//!
//! A request is plain when its head has one reading, which says how short its body is ([`head`]). Nearly all are. Whatever else
//! comes is hyper's, and so is the connection from there on, with the bytes as they came: odd framing has one reader.
//!
//! ```text
//! read head -> read body -> http::respond -> write, flush -> next
//! ```
//! The hot path goes on in `http` and `infer`.

pub mod answer;
pub mod head;

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use headgate_core::error::Result;
use http::header::{CONNECTION, HeaderMap, HeaderValue};
use http::{Method, Version};

use crate::body::{self, Source};
use crate::conn::Conn;
use crate::http::{Head, respond};
use crate::io;
use crate::reply::ReplyBuf;
use crate::wire::Wire;
use head::Plain;

/// The longest body of a plain request, in bytes: what is not counted among the large ones.
const MOST: usize = (64 << 10) - 1;
/// Room that a read has, and the bytes that are kept between two requests or read ahead of an answer.
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
        line.exchange(plain).await?;
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
    /// The head of the present answer.
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
        if !self.unread.is_empty() {
            // Its first byte was there when the last answer was out.
            self.conn.first_byte(self.conn.received());
        }
        poll_fn(|cx| {
            loop {
                if let Some(end) = head::end(&self.unread) {
                    return Poll::Ready(Came::Head(self.unread.split_to(end).freeze()));
                }
                match self.unread.is_empty() {
                    true if self.conn.is_closing(cx) => return Poll::Ready(Came::Nothing),
                    false if !head::may_go_on(&self.unread) => return Poll::Ready(Came::Odd),
                    _ => {}
                }
                match ready!(self.wire.poll_more(cx, &mut self.unread, ROOM)) {
                    Ok(0) if !self.unread.is_empty() => return Poll::Ready(Came::Odd),
                    Ok(0) | Err(_) => return Poll::Ready(Came::Nothing),
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Reads a request's body, answers it, and writes the answer; `None` when the connection is over.
    async fn exchange(&mut self, plain: Plain<'_>) -> Option<()> {
        let (received, open) = (self.conn.received(), self.conn.begin());
        let body = self.body(plain.length).await;
        let broken = body.is_err();
        let headers = std::mem::take(&mut self.headers);
        let head =
            Head { method: &plain.method, path: plain.path, version: Version::HTTP_11, headers: &headers };
        let mut reply = self.unless_left(pin!(respond(head, Source::Here(body), received, &open))).await?;
        self.headers = headers;
        let ends = reply.ends || plain.closes || broken || self.conn.is_told_to_close();
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
        match ends {
            false => Some(()),
            true => {
                if broken {
                    self.linger().await;
                }
                self.wire.shut_down().await;
                None
            }
        }
    }

    /// Reads the body, of which some or all may be there.
    ///
    /// # Errors
    /// `request_timeout`, or `cancelled` when the client left in the middle.
    async fn body(&mut self, length: usize) -> Result<Bytes> {
        if self.unread.len() < length {
            self.conn.await_body(Instant::now());
            let whole = poll_fn(|cx| self.poll_upto(cx, length)).await;
            self.conn.have_body();
            whole?;
        }
        Ok(self.unread.split_to(length).freeze())
    }

    /// Reads until `length` bytes are there.
    fn poll_upto(&mut self, cx: &mut std::task::Context<'_>, length: usize) -> Poll<Result<()>> {
        while self.unread.len() < length {
            let missing = length - self.unread.len();
            match ready!(self.wire.poll_more(cx, &mut self.unread, missing)) {
                Ok(read) if read > 0 => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    let timeout = io::with(|io| io.shared.config.body_timeout());
                    return Poll::Ready(Err(body::too_slow(timeout)));
                }
                _ => return Poll::Ready(Err(body::incomplete())),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Waits for an answer, and for the client to leave: then there is nobody to answer, and `work` is dropped.
    async fn unless_left<T>(&mut self, mut work: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        poll_fn(|cx| {
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(done));
            }
            // Who sends more requests than may be read ahead is not noticed when he leaves.
            while self.unread.len() < ROOM {
                match ready!(self.wire.poll_more(cx, &mut self.unread, ROOM)) {
                    Ok(read) if read > 0 => {}
                    _ => return Poll::Ready(None),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Reads what is left of a refused request, within bounds: a client that is still sending when its connection closes loses
    /// the answer.
    async fn linger(&mut self) {
        let mut left = body::DISCARD_BYTES;
        let reading = poll_fn(|cx| {
            while left > 0 {
                self.unread.clear();
                match ready!(self.wire.poll_more(cx, &mut self.unread, ROOM)) {
                    Ok(read) if read > 0 => left = left.saturating_sub(read),
                    _ => break,
                }
            }
            Poll::Ready(())
        });
        // Time over is as good as all read.
        let _ = tokio::time::timeout(body::DISCARD_TIME, reading).await;
    }

    /// Lets go of a request, so that its memory takes the next one; what a long body took is not kept.
    fn recycle(&mut self) {
        self.headers.clear();
        self.unread.reserve(ROOM);
        if self.unread.capacity() > 2 * ROOM {
            let unread = std::mem::replace(&mut self.unread, BytesMut::with_capacity(ROOM));
            self.unread.extend_from_slice(&unread);
        }
    }

    /// The wire, from which `head` and what was read behind it are read again.
    fn hand_over(mut self, head: &[u8]) -> Wire {
        self.wire.put_back([head, &self.unread].concat().into());
        self.wire
    }
}
