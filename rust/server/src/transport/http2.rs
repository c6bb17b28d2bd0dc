//! HTTP/2: frames become requests, which are answered in the turns of the connection's task.
//!
//! ```text
//! read frames -> requests -> worker: exchange -> replies -> write frames, flush -> end of the turn
//! ```
//! Most requests wait for nothing: they are answered in the turn that read them, one after the other, by a future that is used again.
//! What waits goes on as a task of its own. The protocol, its flow control and its bounds are those of the crate `http2`, which knows no
//! sockets.
//!
//! Next: `http2/worker`, then `http2/exchange`.

mod exchange;
pub mod head;
mod keep_alive;
mod request_queue;
mod worker;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use headgate_engine::Instant;
use headgate_http2::{Connection, ConnectionError, Found, Limits, Reason};
use hyper::rt::Write;

use crate::config::Config;
use crate::transport::buffers::{self, ConnectionBuffers, READ_ROOM};
use crate::transport::connection_state::ConnectionState;
use crate::transport::reply_body::ReplyBytes;
use crate::transport::service::Service;
use crate::transport::watched_socket::WatchedSocket;
use exchange::Exchange;
use head::Http2Head;
use keep_alive::KeepAlive;
use request_queue::RequestQueue;
use worker::Worker;

/// What a client may take of a connection.
const LIMITS: Limits = Limits {
    streams: 256,
    stream_window: 1 << 20,
    connection_window: 4 << 20,
    frame: 1 << 20,
    header_list: 60 << 10,
};
/// The most requests that are answered in one turn, so that other connections of the thread get theirs.
const MOST_IN_A_TURN: usize = 32;
/// The room of a read behind one that took all that it had room for, in bytes.
const LONG_READ: usize = 64 << 10;
/// The most reads of a turn, for the same reason.
const MOST_READS: usize = 16;
/// The bytes that may wait for a client before no more of it is read: it does not read what it asks for.
const MOST_UNWRITTEN: usize = 64 << 10;

/// Serves a connection to its end. Errors of the peer end it.
pub async fn serve<S: Service>(socket: WatchedSocket, conn: &Rc<ConnectionState>, config: &Config) {
    let mut connection = Http2Connection {
        frames: Connection::new(LIMITS),
        socket,
        buffers: None,
        conn,
        may_have_more: false,
        keep_alive: KeepAlive::new(config),
        requests: RequestQueue::new(),
        worker: Worker::new::<S>(conn),
    };
    let reason = poll_fn(|cx| {
        connection.frames.begin_turn(cx);
        let done = connection.take_turn::<S>(cx);
        connection.frames.end_turn();
        done
    })
    .await;
    connection.end(reason).await;
}

/// A connection and the requests that it is about to answer.
struct Http2Connection<'a> {
    frames: Connection<ReplyBytes, Http2Head>,
    socket: WatchedSocket,
    /// `None` while the connection waits for the first byte of a frame.
    buffers: Option<Box<ConnectionBuffers>>,
    conn: &'a Rc<ConnectionState>,
    /// Whether the last read took all that it had room for.
    may_have_more: bool,
    keep_alive: KeepAlive,
    requests: RequestQueue,
    worker: Worker,
}

/// Why a connection ends: what the client is told, if it is still there.
type End = Option<Reason>;

impl Http2Connection<'_> {
    /// Reads and answers what is here; ready when the connection is over.
    fn take_turn<S: Service>(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let (mut answered, mut reads) = (0, 0);
        loop {
            self.conn.register_waker(cx);
            if self.conn.take_retiring() {
                self.frames.leave();
            }
            if self.keep_alive.finds_gone(&mut self.frames, self.conn, cx) {
                return Poll::Ready(None);
            }
            let missing = match self.read() {
                Ok(missing) => missing,
                Err(error) => return Poll::Ready(Some(error.reason)),
            };
            let mut end = None;
            if self.may_have_more && !self.requests.is_empty() && reads < MOST_READS {
                // What was taken back is not begun, and replies are written together.
                match self.poll_more(missing, cx) {
                    Poll::Ready(Ok(())) => {
                        reads += 1;
                        continue;
                    }
                    Poll::Ready(Err(reason)) => end = Some(reason),
                    Poll::Pending => {}
                }
            }
            while answered < MOST_IN_A_TURN
                && let Some(exchange) = self.requests.pop()
            {
                self.worker.answer::<S>(self.conn, exchange, cx);
                answered += 1;
            }
            // What was answered is written before the next look at the socket.
            if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
                return Poll::Ready(None);
            }
            if let Some(reason) = end {
                return Poll::Ready(reason);
            }
            if answered >= MOST_IN_A_TURN || reads >= MOST_READS {
                // The next turn comes behind the runtime's look at its sockets: some of the rest may be taken back.
                return pin!(tokio::task::yield_now()).poll(cx).map(|()| None);
            }
            if self.frames.is_over() {
                return Poll::Ready(Some(Reason::NO_ERROR));
            }
            if let Err(end) = ready!(self.poll_more(missing, cx)) {
                return Poll::Ready(end);
            }
            reads += 1;
        }
    }

    /// Takes all frames that were read; how many bytes of the next one are missing, as far as is known.
    fn read(&mut self) -> Result<usize, ConnectionError> {
        let Some(ConnectionBuffers { unread, .. }) = self.buffers.as_deref_mut() else { return Ok(0) };
        let mut received = None;
        loop {
            match self.frames.read(unread)? {
                Found::Missing(missing) => return Ok(missing),
                Found::Request(request) => {
                    let received = *received.get_or_insert_with(Instant::now);
                    self.requests.push(Exchange { request, received });
                }
            }
        }
    }

    /// Reads more of a client that takes what it asks for.
    fn poll_more(&mut self, missing: usize, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.frames.unwritten() > MOST_UNWRITTEN {
            return Poll::Pending;
        }
        let buffers = self.buffers.get_or_insert_with(buffers::take);
        let room = if self.may_have_more { LONG_READ } else { READ_ROOM };
        let read = self.socket.poll_more(cx, &mut buffers.unread, missing.max(room));
        self.may_have_more = read.is_ready() && buffers.unread.len() == buffers.unread.capacity();
        if read.is_pending()
            && let Some(buffers) = self.buffers.take_if(|buffers| buffers.unread.is_empty())
        {
            buffers::give(buffers);
        }
        match ready!(read) {
            Ok(0) => Poll::Ready(Err(Some(Reason::NO_ERROR))),
            Ok(_) => {
                self.conn.note_heard();
                Poll::Ready(Ok(()))
            }
            Err(_) => Poll::Ready(Err(None)),
        }
    }

    /// Writes what waits, as far as the socket takes it, and notifies what it has taken.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let socket = Pin::new(&mut self.socket);
            let Some(wrote) = self.frames.next_bytes(|bytes| match bytes {
                [bytes] => socket.poll_write(cx, bytes),
                bytes => socket.poll_write_vectored(cx, bytes),
            }) else {
                return Pin::new(&mut self.socket).poll_flush(cx);
            };
            match ready!(wrote)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.frames.note_written(count),
            }
        }
    }

    /// Ends the connection, and tells a client that may be there why.
    async fn end(mut self, reason: End) {
        self.frames.fail(reason.unwrap_or(Reason::NO_ERROR));
        if reason.is_some() && poll_fn(|cx| self.poll_flush(cx)).await.is_ok() {
            self.socket.shut_down().await;
        }
    }
}
