//! A socket as the HTTP layer sees it. It gives back bytes that were read ahead, limits silence, and notices a flush.
//!
//! A connection has one timer. It is armed when there is something to wait for, and looks at the deadline only when it fires, so that it
//! costs a request nothing.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use headgate_engine::Instant;
use headgate_http2::PREFACE;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Sleep;

use crate::config::Config;
use crate::metrics::close_reason::CloseReason;
use crate::thread::io as thread;
use crate::transport::connection_state::{ConnectionState, UnmovedSince, WaitState};

/// The length of an HTTP/2 frame's head, the offset of its type, and the type of SETTINGS.
const FRAME_HEAD: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;
/// The most bytes that are read ahead to tell HTTP/1.1 from HTTP/2.
const READ_AHEAD: usize = 4096;
/// How long the peer may take to close its side of a connection that was closed on ours.
const LINGER: Duration = Duration::from_secs(1);

/// Which HTTP a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpokenHttp {
    /// HTTP/1.0 or 1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// What follows a silence that is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SilenceAction {
    /// No new request is taken, and what is in progress goes on.
    Retire,
    /// The connection is over.
    End,
}

/// The socket and what watches it.
pub struct WatchedSocket {
    stream: TokioIo<tokio::net::TcpStream>,
    ahead: Bytes,
    conn: Rc<ConnectionState>,
    spoken: SpokenHttp,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// Whether the connection takes no more requests.
    retired: bool,
    /// Whether the timer has been set since the gateway waits for its connections to end.
    closing: bool,
    /// Whether our side is closed; what the peer sends is read and dropped.
    shut: bool,
    idle: Duration,
    head: Duration,
    drain_idle: Duration,
}

impl WatchedSocket {
    /// Takes a socket over and reads until it is clear which HTTP it speaks; `None` when the peer left or was too slow.
    pub async fn open(
        socket: TcpStream,
        conn: Rc<ConnectionState>,
        config: &Config,
    ) -> Option<WatchedSocket> {
        let stream = tokio::net::TcpStream::from_std(socket).ok()?;
        let first = tokio::time::timeout(config.idle(), stream.readable()).await;
        first.inspect_err(|_| count_closed(CloseReason::Idle)).ok()?.ok()?;
        let begun = Instant::now();
        let reading = tokio::time::timeout(config.head_timeout(), read_ahead(&stream)).await;
        let (ahead, spoken) = reading.inspect_err(|_| count_closed(CloseReason::HeadTimeout)).ok()??;
        // On HTTP/2 bytes between requests are not a request's head, so only the idle time-out applies.
        match spoken {
            SpokenHttp::Http1 => conn.first_byte(begun),
            SpokenHttp::Http2 => conn.set_idle(begun),
        }
        let wire = WatchedSocket {
            stream: TokioIo::new(stream),
            ahead,
            conn,
            spoken,
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            retired: false,
            closing: false,
            shut: false,
            idle: config.idle(),
            head: config.head_timeout(),
            drain_idle: config.drain_idle(),
        };
        Some(wire)
    }

    /// Which HTTP the connection speaks.
    pub fn spoken(&self) -> SpokenHttp {
        self.spoken
    }

    /// When the present silence is too long, and whether that ends the connection or only keeps new requests from it;
    /// `None` while nothing waits for the peer.
    fn deadline(&self) -> Option<(Instant, SilenceAction)> {
        let reading = match self.conn.waiting() {
            WaitState::Idle(since) => Some((since, self.idle)),
            WaitState::Head(since) => Some((since, self.head)),
            WaitState::Busy => None,
        };
        let reading = reading.map(|(since, limit)| match self.conn.closing_since() {
            None => since + limit,
            // The next request may be on its way, and the peer has not been told that it is the last one.
            Some(closing) => (since + limit).min(since.max(closing) + self.drain_idle),
        });
        let writing = self.conn.unmoved_since().into_iter().flat_map(|UnmovedSince { longest, newest }| {
            // While other replies move, the connection lives: one that is not read is no reason to lose those that are.
            let longest = match self.retired {
                false => (longest + self.idle, SilenceAction::Retire),
                true => (longest + 2 * self.idle, SilenceAction::End),
            };
            [longest, (newest + self.idle, SilenceAction::End)]
        });
        let reading = reading.into_iter().map(|at| (at, SilenceAction::End));
        reading.chain(writing).min_by_key(|(at, _)| *at)
    }

    /// Arms the timer, or looks at the deadline when it has fired; true when the silence has lasted too long.
    fn has_timed_out(&mut self, cx: &mut Context<'_>) -> bool {
        // Without budget (tokio's, for one turn) the peer is not what the connection waits for, and a timer would register no waker.
        if !tokio::task::coop::has_budget_remaining() {
            return false;
        }
        let closing = self.conn.closing_since().is_some();
        if self.armed && self.closing == closing && !self.timer.is_elapsed() {
            return false;
        }
        self.closing = closing;
        let now = Instant::now();
        let mut deadline = self.deadline();
        if let Some((at, SilenceAction::Retire)) = deadline
            && at <= now
        {
            self.conn.retire();
            self.retired = true;
            deadline = self.deadline();
        }
        let deadline = deadline.map(|(at, _)| at);
        if deadline.is_some_and(|deadline| deadline <= now) {
            self.count_close();
            return true;
        }
        // Never later than the shortest limit from now, so that a wait that begins meanwhile is noticed in time.
        let soon = self.head.min(self.idle);
        let soon = now + if closing { soon.min(self.drain_idle) } else { soon };
        self.timer.as_mut().reset(deadline.map_or(soon, |deadline| deadline.min(soon)).into());
        self.armed = self.timer.as_mut().poll(cx).is_pending();
        false
    }

    /// Counts a close for a silence that was too long. A close that ends a drain is not counted: the client is not at fault.
    fn count_close(&self) {
        match self.conn.waiting() {
            _ if self.conn.unmoved_since().is_some() => count_closed(CloseReason::Unread),
            _ if self.conn.closing_since().is_some() => {}
            WaitState::Head(_) => count_closed(CloseReason::HeadTimeout),
            WaitState::Idle(_) => count_closed(CloseReason::Idle),
            WaitState::Busy => {}
        }
    }

    /// Appends what was put back, or else what the socket has, to `unread`, whose capacity grows by `room` bytes if needed; 0 is the end.
    ///
    /// # Errors
    /// Those of the socket; `TimedOut` when the peer is silent for too long in the middle of a request.
    pub fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        unread: &mut BytesMut,
        room: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.ahead.is_empty() {
            let ahead = std::mem::take(&mut self.ahead);
            unread.extend_from_slice(&ahead);
            return self.after_read(cx, Poll::Ready(Ok(ahead.len())), 0);
        }
        unread.reserve(room);
        let read = pin!(self.stream.inner_mut().read_buf(unread)).poll(cx);
        self.after_read(cx, read, 0)
    }

    /// Waits until there may be something to read, or the end, without room for it.
    ///
    /// # Errors
    /// As [`WatchedSocket::poll_more`].
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match self.stream.inner().poll_read_ready(cx) {
            Poll::Pending => self.after_read(cx, Poll::Pending, ()),
            // No first byte of a request is noted before it is read: a read that fills its buffer, and one that tells HTTP/1.1 from HTTP/2,
            // leave the socket marked as readable.
            ready => ready,
        }
    }

    /// Gives back what was read but belongs to the next reader.
    pub fn put_back(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// Whether the peer has sent more than was read.
    pub fn has_more(&self) -> bool {
        let mut next = [MaybeUninit::uninit()];
        // The socket itself is asked: the runtime may not have heard of its newest bytes yet.
        !self.ahead.is_empty()
            || SockRef::from(self.stream.inner()).peek(&mut next).is_ok_and(|length| length > 0)
    }

    /// Reads and drops what the peer sends until it closes its side, or time is up.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut dropped = [0u8; READ_AHEAD];
        while self.timer.as_mut().poll(cx).is_pending() {
            let mut dropped = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(self.stream.inner_mut()).poll_read(cx, &mut dropped)) {
                Ok(()) if !dropped.filled().is_empty() => {}
                _ => break,
            }
        }
        Poll::Ready(())
    }

    /// Tells the peer that nothing more comes.
    pub async fn shut_down(&mut self) {
        // The connection is over, also if that fails.
        let _ = poll_fn(|cx| Write::poll_shutdown(Pin::new(&mut *self), cx)).await;
    }

    fn read_some(&mut self, cx: &mut Context<'_>, mut buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if self.ahead.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buf);
        }
        let take = self.ahead.len().min(buf.remaining());
        buf.put_slice(&self.ahead[..take]);
        self.ahead.advance(take);
        Poll::Ready(Ok(()))
    }

    /// Follows a read: one that cannot go on is watched, and the first bytes of a request are noted. `end` is the value that a reader
    /// takes for the end of the stream.
    fn after_read<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        end: T,
    ) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending if self.has_timed_out(cx) => match self.conn.waiting() {
                // The end of the stream lets the HTTP layer close an idle connection in its own way.
                WaitState::Idle(_) => Poll::Ready(Ok(end)),
                _ => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            },
            Poll::Ready(Ok(read)) => {
                if let (SpokenHttp::Http1, WaitState::Idle(_)) = (self.spoken, self.conn.waiting()) {
                    self.conn.first_byte(Instant::now());
                }
                Poll::Ready(Ok(read))
            }
            other => other,
        }
    }

    /// A write that cannot go on is watched like a read.
    fn after_write<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match outcome {
            Poll::Pending => {
                self.conn.note_blocked();
                match self.has_timed_out(cx) {
                    true => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                    false => Poll::Pending,
                }
            }
            ready => {
                self.conn.note_written();
                ready
            }
        }
    }
}

/// Counts a connection that is closed before its client does so.
fn count_closed(reason: CloseReason) {
    thread::with(|io| io.shared.metrics.connections_closed.add(reason));
}

async fn read_ahead(stream: &tokio::net::TcpStream) -> Option<(Bytes, SpokenHttp)> {
    let mut ahead = vec![0u8; READ_AHEAD];
    let mut length = 0;
    loop {
        stream.readable().await.ok()?;
        match stream.try_read(&mut ahead[length..]) {
            Ok(0) => return None,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return None,
        }
        let known = length.min(PREFACE.len());
        let spoken = if ahead[..known] != PREFACE[..known] {
            SpokenHttp::Http1
        } else if length < PREFACE.len() + FRAME_HEAD {
            continue;
        } else if ahead[PREFACE.len() + FRAME_TYPE] == SETTINGS {
            SpokenHttp::Http2
        } else {
            // RFC 9113, 3.4: the preface is followed by SETTINGS. The HTTP layer would wait for it without end.
            return None;
        };
        ahead.truncate(length);
        return Some((ahead.into(), spoken));
    }
}

impl Read for WatchedSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let outcome = self.read_some(cx, buf);
        // Without budget the socket was not read.
        self.conn.note_read(outcome.is_pending() && tokio::task::coop::has_budget_remaining());
        self.after_read(cx, outcome, ())
    }
}

impl Write for WatchedSocket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.after_write(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.after_write(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.conn.note_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shut {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            self.shut = true;
            self.timer.as_mut().reset((Instant::now() + LINGER).into());
        }
        // A socket that is closed with unread bytes resets the connection, and the peer may lose the reply before it.
        self.poll_linger(cx).map(Ok)
    }
}
