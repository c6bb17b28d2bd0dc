//! One connection: which HTTP it speaks, how long it may be silent, and when its answers are out.
//!
//! Not here: bytes and timers (`wire`), requests (`http`). The hot path goes on in `http` and `infer`.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::net::TcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;

use crate::http::handle;
use crate::io;
use crate::taps::Tap;
use crate::wire::{Spoken, Wire};

/// What a connection is waiting for; decides which time-out applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// For a request's first byte, since then.
    Idle(Instant),
    /// For the rest of a request's head, since its first byte.
    Head(Instant),
    /// For ourselves, or for a body, which has its own time-out.
    Busy,
}

/// A connection's state, shared by its wire, its requests and its answers, all on one thread.
pub struct Conn {
    /// What it waits for.
    pub waiting: Cell<Waiting>,
    /// When the newest byte came, or the last answer was out: where the next request's time begins.
    pub received: Cell<Instant>,
    /// Answers written to the HTTP layer, on their way to the socket.
    answered: RefCell<VecDeque<Tap>>,
    open: Cell<u32>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Default for Conn {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            waiting: Cell::new(Waiting::Idle(now)),
            received: Cell::new(now),
            answered: RefCell::default(),
            open: Cell::new(0),
            closing: Cell::new(false),
            waker: RefCell::default(),
        }
    }
}

impl Conn {
    /// A request's head is complete.
    pub fn begin(&self) {
        self.open.set(self.open.get() + 1);
        self.waiting.set(Waiting::Busy);
    }

    /// The HTTP layer has taken an answer, or dropped it; its tap runs when the bytes are with the socket.
    pub fn answer(&self, tap: Option<Tap>) {
        self.open.set(self.open.get().saturating_sub(1));
        self.answered.borrow_mut().extend(tap);
    }

    /// Every byte that the HTTP layer wrote is with the socket.
    pub fn flushed(&self) {
        if self.waiting.get() != Waiting::Busy {
            return;
        }
        let now = Instant::now();
        loop {
            // The borrow ends before the tap runs.
            let tap = self.answered.borrow_mut().pop_front();
            match tap {
                Some(tap) => tap.delivered(now),
                None => break,
            }
        }
        if self.open.get() == 0 {
            self.waiting.set(Waiting::Idle(now));
            self.received.set(now);
        }
    }

    /// Waits until the connection is asked to close.
    async fn closed(&self) {
        std::future::poll_fn(|cx| {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
            if self.closing.get() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Asks the connection to finish what is in flight and close.
    pub fn close(&self) {
        self.closing.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

/// Serves one socket to its end. Errors of the peer end the connection and are nobody else's business.
pub async fn serve(socket: TcpStream, conn: &Rc<Conn>) {
    let config = io::with(|io| io.shared.clone());
    let config = &config.config;
    let opened = tokio::select! {
        opened = Wire::open(socket, conn.clone(), config) => opened,
        () = conn.closed() => None,
    };
    let Some((wire, spoken)) = opened else { return };
    let requests = conn.clone();
    let service = service_fn(move |request| handle(requests.clone(), request));
    match spoken {
        Spoken::Http1 => {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(64 << 10).half_close(false).timer(hyper_util::rt::TokioTimer::new());
            // Time-outs are the wire's: hyper's head time-out would count idle time.
            builder.header_read_timeout(None);
            let serving = Serving { http: Box::pin(builder.serve_connection(wire, service)), conn };
            drop(serving.await);
        }
        Spoken::Http2 => {
            let mut builder = http2::Builder::new(LocalExecutor);
            builder
                .initial_stream_window_size(1 << 20)
                .initial_connection_window_size(4 << 20)
                .max_frame_size(1 << 20)
                .max_concurrent_streams(256)
                .max_header_list_size(64 << 10)
                .timer(hyper_util::rt::TokioTimer::new());
            let serving = Serving { http: Box::pin(builder.serve_connection(wire, service)), conn };
            drop(serving.await);
        }
    }
}

/// What both of hyper's connections can do.
trait Graceful: Future {
    fn graceful(self: Pin<&mut Self>);
}

impl<S> Graceful for http1::Connection<Wire, S>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::reply::ReplyBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<S> Graceful for http2::Connection<Wire, S, LocalExecutor>
where
    S: hyper::service::HttpService<hyper::body::Incoming, ResBody = crate::reply::ReplyBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    S::Future: 'static,
{
    fn graceful(self: Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

/// A connection that can be told to close, at the price of one look at a flag.
struct Serving<'a, C> {
    http: Pin<Box<C>>,
    conn: &'a Conn,
}

impl<C: Graceful> Future for Serving<'_, C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let conn = self.conn;
        if conn.closing.replace(false) {
            self.http.as_mut().graceful();
        } else if conn.waker.borrow().is_none() {
            *conn.waker.borrow_mut() = Some(cx.waker().clone());
        }
        self.http.as_mut().poll(cx)
    }
}

/// Runs HTTP/2's tasks on the IO thread that has the connection.
#[derive(Clone, Copy)]
pub struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        drop(tokio::task::spawn_local(task));
    }
}
