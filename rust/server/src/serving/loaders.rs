//! Threads that load, and the orders that wait for them: as many as they were made for, and more while loads are slow or do not end.
//!
//! Nothing that loads soon waits behind what does not: while every thread is in a slow load and orders wait, there are twice as many
//! threads. A few come for loads that are slow, because many large models at a time take memory; the others come for loads that hang.
//!
//! Not here: the loads (`loads`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use headgate_core::error::{Code, Error, Result};
use headgate_engine::join_until;

use crate::serving::loads::MOST_ABANDONED;
use crate::threads::spawn_behind;

/// Threads beyond those that there are mostly, while loads are slow, and while they hang.
const EXTRA: usize = 6;
const MOST_EXTRA: usize = 62;
/// A load that takes longer than this is slow, and one that takes longer than that is taken to hang.
const SLOW: Duration = Duration::from_secs(2);
const HANGS: Duration = Duration::from_secs(5);
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
    name: &'static str,
}

impl<T: Send + 'static> Loaders<T> {
    /// Starts `base` threads, called by that name.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(
        base: usize,
        name: &'static str,
        work: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> Result<Loaders<T>> {
        let (sender, orders) = bounded(WAITING);
        let mut loaders = Loaders { sender, orders, threads: Vec::new(), base, work: Arc::new(work), name };
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

    /// Adds threads while orders wait and every thread is in a load that takes long; `since` says how many loads have been in progress
    /// for so long.
    pub fn grow(&mut self, since: impl Fn(Duration) -> usize) {
        self.threads.retain(|thread| !thread.is_finished());
        let present = self.threads.len();
        let (least, most) = if present < self.base + EXTRA { (SLOW, EXTRA) } else { (HANGS, MOST_EXTRA) };
        if self.orders.is_empty() || since(least) < present {
            return;
        }
        let room = (self.base + most).saturating_sub(present);
        for _ in 0..self.orders.len().min(present.max(1)).min(room) {
            // The system gives no more threads: the next look tries again.
            let _ = self.add(true);
        }
    }

    /// How many threads there are, and how many orders wait for one.
    pub fn counts(&self) -> [u64; 2] {
        let present = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        [present as u64, self.orders.len() as u64]
    }

    /// Adds a thread; an extra one ends when nothing waits.
    fn add(&mut self, extra: bool) -> Result<()> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (orders, work) = (self.orders.clone(), self.work.clone());
        let (name, index) = (self.name, MADE.fetch_add(1, Relaxed));
        self.threads.push(spawn_behind(format!("{name}-{index}"), move || {
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
