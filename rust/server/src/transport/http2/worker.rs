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
    /// The requests of the connection that wait for their replies in tasks of their own.
    waiting: Rc<Cell<usize>>,
}

/// Where a worker takes its requests from.
#[derive(Default)]
struct Slot {
    next: Cell<Option<Exchange>>,
    /// How far the present request has come.
    progress: Cell<Progress>,
    /// Its place among those that wait, from when it is left to a task until there is a reply.
    place: Cell<Option<WaitingPlace>>,
    /// Whether no other request will come.
    is_last: Cell<bool>,
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Progress {
    /// It has no reply.
    #[default]
    Begun,
    /// Its reply was made, and is being sent.
    Replied,
    /// All of its reply was given to its stream.
    Over,
}

/// A place among the requests that wait.
struct WaitingPlace(Rc<Cell<usize>>);

impl WaitingPlace {
    fn among(waiting: &Rc<Cell<usize>>) -> WaitingPlace {
        waiting.set(waiting.get() + 1);
        WaitingPlace(waiting.clone())
    }
}

impl Drop for WaitingPlace {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Worker {
    /// A worker for the requests of a connection.
    pub(super) fn new<S: Service>(conn: &Rc<ConnectionState>) -> Worker {
        Worker::beside::<S>(conn, Rc::default())
    }

    /// A worker beside requests that wait.
    fn beside<S: Service>(conn: &Rc<ConnectionState>, waiting: Rc<Cell<usize>>) -> Worker {
        let slot = Rc::<Slot>::default();
        let (from, conn) = (slot.clone(), conn.clone());
        let work = Box::pin(async move {
            let io = io::current();
            loop {
                let next = poll_fn(|_| from.next.take().map_or(Poll::Pending, Poll::Ready)).await;
                let note_reply = || {
                    from.progress.set(Progress::Replied);
                    drop(from.place.take());
                };
                exchange::answer::<S>(&io, &conn, next, note_reply).await;
                from.progress.set(Progress::Over);
                if from.is_last.get() {
                    return;
                }
            }
        });
        Worker { slot, work, waiting }
    }

    /// Answers a request as far as it does not wait. A task does the rest. While others wait for their replies in tasks, it has its turn
    /// behind them: what they wait for may have come in the same read.
    pub(super) fn answer<S: Service>(
        &mut self,
        conn: &Rc<ConnectionState>,
        exchange: Exchange,
        cx: &mut Context<'_>,
    ) {
        self.slot.next.set(Some(exchange));
        self.slot.progress.set(Progress::Begun);
        let mut is_sound = true;
        if self.waiting.get() == 0 {
            let work = self.work.as_mut();
            // As in a task of its own, a defect that is met outside the phases ends this request alone: its stream is reset.
            is_sound = catch_unwind(AssertUnwindSafe(|| work.poll(cx))).is_ok();
            if is_sound && self.slot.progress.get() == Progress::Over {
                return;
            }
        }
        let waiting = self.waiting.clone();
        let Worker { slot, work, .. } = std::mem::replace(self, Worker::beside::<S>(conn, waiting));
        if is_sound {
            if slot.progress.get() == Progress::Begun {
                slot.place.set(Some(WaitingPlace::among(&self.waiting)));
            }
            slot.is_last.set(true);
            // Its next poll registers the task with everything that the request waits for.
            tokio::task::spawn_local(work);
        }
    }
}
