//! A connection's state: what it waits for, which requests are open, when its replies are out.
//!
//! Not here: bytes and timers (`watched_socket`), serving it (`serve`).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use headgate_engine::Instant;

use crate::budget::ConnectionMemory;
use crate::thread::io;
use crate::transport::delivery::Delivery;

/// What a connection is waiting for. It decides which time-out applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitState {
    /// For a request's first byte, since then.
    Idle(Instant),
    /// For the rest of a request's head, since its first byte.
    Head(Instant),
    /// For the gateway, or for a body, which has its own time-out.
    Busy,
}

/// A connection's state, shared by its socket, its requests and its replies, all on one thread.
///
/// ```text
/// Idle --first byte (HTTP/1)--> Head --head complete--> Busy --last request over, its reply flushed--> Idle
/// ```
pub struct ConnectionState {
    waiting: Cell<WaitState>,
    received: Cell<Instant>,
    /// What is notified of replies whose bytes are all written, until those are flushed.
    answered: RefCell<VecDeque<Box<dyn Delivery>>>,
    /// Requests in progress, refused bodies that are still read included.
    open: Cell<u32>,
    /// Those of them whose body is still to come.
    receiving: Cell<u32>,
    /// Whether a request's head has ever been complete.
    has_had_request: Cell<bool>,
    /// When each reply that waits for the peer last made progress. The places of replies that are out are used again.
    unsent: RefCell<Vec<Option<Instant>>>,
    /// Since when the socket takes nothing.
    blocked: Cell<Option<Instant>>,
    /// Since when the gateway waits for its connections to end.
    closing: Cell<Option<Instant>>,
    /// Whether the HTTP layer must be told to take no new request.
    retiring: Cell<bool>,
    /// Whether hyper's last read found nothing, so that no request is behind the present one.
    read_dry: Cell<bool>,
    /// Whether the peer of a connection of HTTP/2 has sent something since that was last asked.
    heard: Cell<bool>,
    waker: RefCell<Option<Waker>>,
    /// What its requests hold of the memory for small requests.
    connection_memory: Rc<ConnectionMemory>,
}

impl Default for ConnectionState {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            waiting: Cell::new(WaitState::Idle(now)),
            received: Cell::new(now),
            answered: RefCell::default(),
            open: Cell::new(0),
            receiving: Cell::new(0),
            has_had_request: Cell::default(),
            unsent: RefCell::default(),
            blocked: Cell::default(),
            closing: Cell::default(),
            retiring: Cell::default(),
            read_dry: Cell::default(),
            heard: Cell::default(),
            waker: RefCell::default(),
            connection_memory: Rc::default(),
        }
    }
}

/// Since when the replies of a connection have not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnmovedSince {
    /// The reply that has not moved for longest.
    pub longest: Instant,
    /// The reply that moved last.
    pub newest: Instant,
}

/// A request in progress; the connection is busy while there is one.
pub struct OpenRequest(Rc<ConnectionState>);

/// A request whose body is still to come.
pub struct PendingBody(Rc<ConnectionState>);

/// A reply on its way to the socket, and its place among those.
pub struct UnsentReply(Rc<ConnectionState>, usize);

impl ConnectionState {
    /// A request's head is complete.
    pub fn begin(self: &Rc<Self>) -> OpenRequest {
        self.open.set(self.open.get() + 1);
        self.waiting.set(WaitState::Busy);
        self.has_had_request.set(true);
        OpenRequest(self.clone())
    }

    /// What its requests hold of the memory for small requests.
    pub fn connection_memory(&self) -> &Rc<ConnectionMemory> {
        &self.connection_memory
    }

    /// Whether a request's head has ever been complete.
    pub fn has_had_request(&self) -> bool {
        self.has_had_request.get()
    }

    /// Whether the bodies of all requests in progress are still to come.
    pub fn only_receives_bodies(&self) -> bool {
        self.open.get() > 0 && self.receiving.get() == self.open.get()
    }

    /// A reply is about to be sent.
    pub fn sending(self: &Rc<Self>, now: Instant) -> UnsentReply {
        let mut unsent = self.unsent.borrow_mut();
        let place = unsent.iter().position(Option::is_none).unwrap_or_else(|| {
            unsent.push(None);
            unsent.len() - 1
        });
        unsent[place] = Some(now);
        UnsentReply(self.clone(), place)
    }

    /// When the newest request's first byte came: on HTTP/1 the time at which its clock begins.
    pub fn received(&self) -> Instant {
        self.received.get()
    }

    /// A request's first byte is here.
    pub fn first_byte(&self, now: Instant) {
        self.waiting.set(WaitState::Head(now));
        self.received.set(now);
    }

    /// The connection waits for its next request since `now`.
    pub fn set_idle(&self, now: Instant) {
        self.waiting.set(WaitState::Idle(now));
        self.received.set(now);
    }

    /// What the connection waits for.
    pub fn waiting(&self) -> WaitState {
        self.waiting.get()
    }

    /// Since when replies have not moved; `None` while there is no reply.
    pub fn unmoved_since(&self) -> Option<UnmovedSince> {
        let unsent = self.unsent.borrow();
        // Small replies on HTTP/2 are copied to the output of the connection, and are not among the unsent ones then.
        let moved = || unsent.iter().flatten().copied().chain(self.blocked.get());
        Some(UnmovedSince { longest: moved().min()?, newest: moved().max()? })
    }

    /// The socket took some bytes.
    pub fn note_written(&self) {
        self.blocked.set(None);
    }

    /// The socket takes nothing.
    pub fn note_blocked(&self) {
        if self.blocked.get().is_none() {
            self.blocked.set(Some(Instant::now()));
        }
    }

    /// Every byte that the HTTP layer wrote is with the socket: the deliveries of complete replies are notified.
    pub fn note_flushed(&self) {
        if self.waiting.get() != WaitState::Busy {
            return;
        }
        // HTTP/2 flushes in each turn, mostly without a reply.
        if self.open.get() > 0 && self.answered.borrow().is_empty() {
            return;
        }
        let now = Instant::now();
        loop {
            // The borrow ends before the notification.
            let delivery = self.answered.borrow_mut().pop_front();
            match delivery {
                // Without its thread's state nothing is booked any more.
                Some(delivery) => drop(io::try_with(|io| delivery.delivered(io, now))),
                None => break,
            }
        }
        if self.open.get() == 0 {
            self.set_idle(now);
        }
    }

    /// The peer has sent something.
    pub fn note_heard(&self) {
        self.heard.set(true);
    }

    /// Whether the peer has sent something since this was last asked.
    pub fn take_heard(&self) -> bool {
        self.heard.take()
    }

    /// Waits until the gateway waits for its connections to end.
    pub async fn wait_closing(&self) {
        poll_fn(|cx| {
            self.register_waker(cx);
            if self.closing.get().is_some() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Since when the gateway waits for the connection to end.
    pub fn closing_since(&self) -> Option<Instant> {
        self.closing.get()
    }

    /// Registers the connection's task, which is woken when it must look at its state again.
    pub fn register_waker(&self, cx: &Context<'_>) {
        // One task serves a connection from its beginning to its end.
        if self.waker.borrow().is_none() {
            *self.waker.borrow_mut() = Some(cx.waker().clone());
        }
    }

    /// Asks the connection to end: a request that is on its way is answered, and then no other one is taken.
    pub fn close(&self, now: Instant) {
        self.closing.set(Some(now));
        self.retire();
    }

    /// Asks the connection to take no new request, if HTTP can say so without losing one, as HTTP/2 can.
    pub fn retire(&self) {
        self.retiring.set(true);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// Takes the note that the HTTP layer must be told to take no new request.
    pub fn take_retiring(&self) -> bool {
        self.retiring.take()
    }

    /// Notes whether hyper has read everything that was there.
    pub fn note_read(&self, dry: bool) {
        self.read_dry.set(dry);
    }

    /// Whether no request was behind the present one when hyper read last. hyper reads while a request is in progress, and only
    /// when its own buffer is empty.
    pub fn is_read_dry(&self) -> bool {
        self.read_dry.get()
    }
}

impl OpenRequest {
    /// Another handle of the same request: it is in progress until all of them are dropped.
    pub fn new_handle(&self) -> OpenRequest {
        self.0.begin()
    }

    /// Its reply is about to be sent.
    pub fn sending(&self, now: Instant) -> UnsentReply {
        self.0.sending(now)
    }

    /// All of its reply was taken: `delivery` is notified at the flush.
    pub fn complete(&self, delivery: Box<dyn Delivery>) {
        self.0.answered.borrow_mut().push_back(delivery);
    }

    /// Ends it. All of its reply was written at `now`.
    pub fn end(self, now: Instant) {
        if self.0.open.get() == 1 {
            self.0.set_idle(now);
        }
    }

    /// Its body is still to come, until what is returned is dropped.
    pub fn receiving(&self) -> PendingBody {
        self.0.receiving.set(self.0.receiving.get() + 1);
        PendingBody(self.0.clone())
    }
}

impl PendingBody {
    /// What its connection holds of the memory for small requests.
    pub fn connection_memory(&self) -> Rc<ConnectionMemory> {
        self.0.connection_memory.clone()
    }
}

impl Drop for PendingBody {
    fn drop(&mut self) {
        self.0.receiving.set(self.0.receiving.get() - 1);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let conn = &self.0;
        conn.open.set(conn.open.get() - 1);
        // With a reply on its way the flush that delivers it ends the busy time. Without one there may be no flush to come.
        if conn.open.get() == 0 && conn.waiting.get() == WaitState::Busy && conn.answered.borrow().is_empty()
        {
            conn.set_idle(Instant::now());
        }
    }
}

impl UnsentReply {
    /// Some of the reply was taken.
    pub fn note_progress(&self) {
        self.0.unsent.borrow_mut()[self.1] = Some(Instant::now());
    }
}

impl Drop for UnsentReply {
    fn drop(&mut self) {
        let mut unsent = self.0.unsent.borrow_mut();
        unsent[self.1] = None;
        while unsent.last().is_some_and(Option::is_none) {
            unsent.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_busy_until_its_last_request_is_over() {
        let conn = Rc::new(ConnectionState::default());
        conn.first_byte(Instant::now());
        assert!(matches!(conn.waiting(), WaitState::Head(_)));
        let request = conn.begin();
        let refused_body = request.new_handle();
        assert_eq!(conn.waiting(), WaitState::Busy);
        drop(request);
        conn.note_flushed();
        assert_eq!(conn.waiting(), WaitState::Busy);
        drop(refused_body);
        assert!(matches!(conn.waiting(), WaitState::Idle(_)));
    }

    #[test]
    fn a_request_that_is_dropped_before_its_answer_leaves_nothing_open() {
        let conn = Rc::new(ConnectionState::default());
        for _ in 0..3 {
            drop(conn.begin());
        }
        assert!(matches!(conn.waiting(), WaitState::Idle(_)));
    }

    #[test]
    fn answers_that_do_not_move_are_noticed_beside_others_that_do() {
        let conn = Rc::new(ConnectionState::default());
        assert_eq!(conn.unmoved_since(), None);
        let (first, stuck) = (conn.sending(Instant::now()), conn.sending(Instant::now()));
        let since = conn.unsent.borrow()[1].unwrap();
        drop(first);
        assert_eq!(conn.unmoved_since(), Some(UnmovedSince { longest: since, newest: since }));
        let other = conn.sending(Instant::now());
        other.note_progress();
        let UnmovedSince { longest, newest } = conn.unmoved_since().unwrap();
        assert_eq!(longest, since);
        assert!(newest > since);
        drop(stuck);
        assert_eq!(conn.unmoved_since(), Some(UnmovedSince { longest: newest, newest }));
        drop(other);
        assert_eq!(conn.unmoved_since(), None);
    }
}
