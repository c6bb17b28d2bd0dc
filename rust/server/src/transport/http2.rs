//! HTTP/2: h2 reads and writes the frames of a connection, and its requests are answered in the turns of the connection's task.
//!
//! ```text
//! read frames -> requests -> worker: exchange -> replies to h2 -> write frames, flush -> end of the turn
//! ```
//! Most requests wait for nothing: they are answered in the turn that read them, one after the other, by a future that is used again.
//! What waits goes on as a task of its own. The protocol, its flow control and its bounds are h2's.
//!
//! Next: `http2/worker`, then `http2/exchange`.

mod exchange;
mod keep_alive;
mod request_queue;
mod turn_waker;
mod worker;

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use h2::Reason;
use h2::server::{Builder, Connection};
use headgate_engine::Instant;

use crate::config::Config;
use crate::transport::connection_state::ConnectionState;
use crate::transport::reply_body::FrameBytes;
use crate::transport::service::Service;
use crate::transport::watched_socket::WatchedSocket;
use exchange::Exchange;
use keep_alive::KeepAlive;
use request_queue::RequestQueue;
use turn_waker::TurnWaker;
use worker::Worker;

/// The streams that a connection may have open at once.
const MAX_STREAMS: usize = 256;
/// The most requests that are answered in one turn, so that other connections of the thread get theirs.
const MOST_IN_A_TURN: usize = 32;

/// Serves a connection to its end. Errors of the peer end it.
pub async fn serve<S: Service>(socket: WatchedSocket, conn: &Rc<ConnectionState>, config: &Config) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .max_frame_size(1 << 20)
        .max_concurrent_streams(MAX_STREAMS as u32)
        // A client may take back all that it may have open before a busy thread reads them.
        .max_pending_accept_reset_streams(MAX_STREAMS)
        .max_header_list_size(64 << 10);
    let mut handshake = pin!(builder.handshake(socket));
    let opened = poll_fn(|cx| {
        conn.register_waker(cx);
        handshake.as_mut().poll(cx)
    });
    let Ok(mut frames) = opened.await else { return };
    let keep_alive = KeepAlive::new(frames.ping_pong(), config);
    let mut connection = Http2Connection {
        frames,
        conn,
        keep_alive,
        requests: RequestQueue::new(2 * MAX_STREAMS),
        worker: Worker::new::<S>(conn),
        gathers: false,
    };
    let mut turns: Option<(Arc<TurnWaker>, Waker)> = None;
    poll_fn(|cx| {
        // One task serves a connection from its beginning to its end.
        let (turn, waker) = turns.get_or_insert_with(|| {
            let turn = TurnWaker::new(cx.waker().clone());
            (turn.clone(), turn.into())
        });
        let done = connection.take_turn::<S>(turn, &mut Context::from_waker(waker));
        turn.rest();
        done
    })
    .await;
}

/// A connection and the requests that it is about to answer.
struct Http2Connection<'a> {
    frames: Connection<WatchedSocket, FrameBytes>,
    conn: &'a Rc<ConnectionState>,
    keep_alive: KeepAlive,
    requests: RequestQueue,
    worker: Worker,
    /// Whether all requests that are here are read before the first one is answered. Then their replies are written at once, for one
    /// more look at the socket; so it is done where the last turn read several.
    gathers: bool,
}

impl Http2Connection<'_> {
    /// Reads and answers what is here; ready when the connection is over.
    fn take_turn<S: Service>(&mut self, turn: &TurnWaker, cx: &mut Context<'_>) -> Poll<()> {
        let (mut read, mut answered, mut read_at) = (0, 0, None);
        loop {
            turn.look();
            self.conn.register_waker(cx);
            if self.conn.take_retiring() {
                self.frames.graceful_shutdown();
            }
            if self.keep_alive.finds_gone(self.conn, cx) {
                self.frames.abrupt_shutdown(Reason::NO_ERROR);
            }
            match self.frames.poll_accept(cx) {
                Poll::Ready(Some(Ok((request, reply)))) => {
                    read += 1;
                    let received = *read_at.get_or_insert_with(Instant::now);
                    let exchange = Exchange { request, reply, received };
                    if read == 1 && !self.gathers && self.requests.is_empty() {
                        self.worker.answer::<S>(self.conn, exchange, cx);
                        (answered, read_at) = (1, None);
                    } else {
                        self.requests.push(exchange, cx);
                    }
                    continue;
                }
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending if self.requests.is_empty() => {
                    self.gathers = read > 1;
                    return Poll::Pending;
                }
                Poll::Pending => {}
            }
            while answered < MOST_IN_A_TURN
                && let Some(exchange) = self.requests.pop(cx)
            {
                self.worker.answer::<S>(self.conn, exchange, cx);
                answered += 1;
            }
            if answered >= MOST_IN_A_TURN {
                // The next turn comes behind the runtime's look at its sockets, whatever the answers have woken: some of the rest may be
                // taken back.
                turn.look();
                return pin!(tokio::task::yield_now()).poll(cx);
            }
            read_at = None;
        }
    }
}
