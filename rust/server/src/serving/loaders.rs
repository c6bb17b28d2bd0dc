//! Threads that load, and the orders that wait for them: as many as they were made for, and more while loads are slow or do not end.
//!
//! Not here: the loads (`loads`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use headgate_core::error::{Code, Error, Result};
use headgate_engine::join_until;

use crate::serving::loads::MOST_ABANDONED;
use crate::threads::spawn_behind;

/// Threads beyond those that there are mostly, while loads are slow.
const EXTRA: usize = 6;
/// Orders that may wait.
const WAITING: usize = 4096;

/// Does what an order asks for; whether it was abandoned meanwhile, so that the thread has been replaced.
type Work<T> = dyn Fn(&T) -> bool + Send + Sync;

/// One queue of orders and its threads.
pub struct Loaders<T> {
    sender: Sender<T>,
    orders: Receiver<T>,
    threads: Vec<JoinHandle<()>>,
    /// The threads that there are mostly, less those that abandoned loads hold and that were not replaced.
    base: usize,
    work: Arc<Work<T>>,
}

impl<T: Send + 'static> Loaders<T> {
    /// Starts `base` threads.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(base: usize, work: impl Fn(&T) -> bool + Send + Sync + 'static) -> Result<Loaders<T>> {
        let (sender, orders) = bounded(WAITING);
        let mut loaders = Loaders { sender, orders, threads: Vec::new(), base, work: Arc::new(work) };
        (0..base).try_for_each(|_| loaders.add(false))?;
        Ok(loaders)
    }

    /// Hands an order over.
    ///
    /// # Errors
    /// `overloaded` when too many wait, or every thread is held by a load that does not end.
    pub fn push(&self, order: T) -> Result<()> {
        if self.base == 0 {
            return Err(Error::new(
                Code::Overloaded,
                "every thread that loads models is held by a load that was cancelled and does not end; restart the gateway",
            ));
        }
        self.sender.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => {
                Error::new(Code::Overloaded, "too many endpoints wait to be loaded; try again")
            }
            TrySendError::Disconnected(_) => Error::new(Code::Internal, "loaders without their queue"),
        })
    }

    /// Has another thread take the place of one that an abandoned load holds, unless as many as `stuck` are held so by now.
    pub fn replace(&mut self, stuck: usize) {
        if stuck > MOST_ABANDONED || self.add(false).is_err() {
            self.base -= 1;
        }
    }

    /// Adds a thread while orders wait and `slow` loads, as many as there are threads, have been in progress for long.
    pub fn grow(&mut self, slow: usize) {
        self.threads.retain(|thread| !thread.is_finished());
        let all_slow = slow >= self.threads.len();
        if !self.orders.is_empty() && all_slow && self.threads.len() < self.base + EXTRA {
            // The system gives no more threads: the next look tries again.
            let _ = self.add(true);
        }
    }

    /// Adds a thread; an extra one ends when nothing waits.
    fn add(&mut self, extra: bool) -> Result<()> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (orders, work) = (self.orders.clone(), self.work.clone());
        let index = MADE.fetch_add(1, Relaxed);
        self.threads.push(spawn_behind(format!("hg-load-{index}"), move || {
            let next = || if extra { orders.try_recv().ok() } else { orders.recv().ok() };
            while let Some(order) = next() {
                if work(&order) {
                    return;
                }
            }
        })?);
        Ok(())
    }

    /// Drops the queue when the threads have emptied it, and joins them; true when all were gone by `deadline`.
    pub fn stop(self, deadline: Instant) -> bool {
        drop(self.sender);
        self.threads.into_iter().map(|thread| join_until(thread, deadline).is_some()).fold(true, |a, b| a & b)
    }
}
