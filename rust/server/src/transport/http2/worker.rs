//! Answers the requests of a connection in its turns, and leaves those that wait to a task of their own.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::exchange::{self, Exchange};
use crate::thread::io;
use crate::transport::connection_state::ConnectionState;
use crate::transport::service::Service;

/// A future that answers one request after the other, so that the state of a request needs no memory of its own.
pub(super) struct Worker {
    slot: Rc<Slot>,
    work: Pin<Box<dyn Future<Output = ()>>>,
}

/// Where a worker takes its requests from.
#[derive(Default)]
struct Slot {
    next: Cell<Option<Exchange>>,
    /// Whether a request is being answered.
    is_busy: Cell<bool>,
    /// Whether no other request will come.
    is_last: Cell<bool>,
}

impl Worker {
    /// A worker for the requests of a connection.
    pub(super) fn new<S: Service>(conn: &Rc<ConnectionState>) -> Worker {
        let slot = Rc::<Slot>::default();
        let (from, conn) = (slot.clone(), conn.clone());
        let work = Box::pin(async move {
            let io = io::current();
            while !from.is_last.get() {
                let next = poll_fn(|_| from.next.take().map_or(Poll::Pending, Poll::Ready)).await;
                exchange::answer::<S>(&io, &conn, next).await;
                from.is_busy.set(false);
            }
        });
        Worker { slot, work }
    }

    /// Answers a request as far as it does not wait. A task does the rest.
    pub(super) fn answer<S: Service>(
        &mut self,
        conn: &Rc<ConnectionState>,
        exchange: Exchange,
        cx: &mut Context<'_>,
    ) {
        self.slot.next.set(Some(exchange));
        self.slot.is_busy.set(true);
        let work = self.work.as_mut();
        // As in a task of its own, a defect that is met outside the phases ends this request alone: its stream is reset.
        let polled = catch_unwind(AssertUnwindSafe(|| work.poll(cx)));
        if polled.is_ok() && !self.slot.is_busy.get() {
            return;
        }
        let Worker { slot, work } = std::mem::replace(self, Worker::new::<S>(conn));
        if polled.is_ok() {
            slot.is_last.set(true);
            // Its first poll there registers the task with everything that the request waits for.
            tokio::task::spawn_local(work);
        }
    }
}
