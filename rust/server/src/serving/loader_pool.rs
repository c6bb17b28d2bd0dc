//! A pool of threads that load, with the queue of items that wait for them. It grows while loads are slow or hang.
//!
//! A fast load must not wait behind slow ones. So the pool doubles while every thread is in a slow load and items wait. A few threads are
//! added for slow loads, because many large models at a time take memory; the others are added for loads that hang.
//! A thread in an abandoned load does not count. Each check computes anew how many threads are needed from how many are free, so nothing
//! must be corrected when such a load ends after all.
//!
//! Not here: the loads (`load_tracker`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use headgate_engine::join_until;

use crate::scheduling::spawn_low_priority;
use crate::serving::load_tracker::{LoadTracker, LoaderPoolCounts};

/// The most threads beyond the base, while loads are slow, and while loads hang.
const EXTRA_THREADS: usize = 6;
const MAX_EXTRA_THREADS: usize = 62;
/// The most threads of a pool, with those in abandoned loads.
const MAX_THREADS: usize = 128;
/// A load is slow after the first time, and counts as hanging after the second.
const SLOW_AFTER: Duration = Duration::from_secs(2);
const HUNG_AFTER: Duration = Duration::from_secs(5);
/// The most items that wait.
const MAX_QUEUED: usize = 4096;

/// Loads an item. True if the load was abandoned meanwhile: the thread was replaced, and must end.
type LoadFn<T> = dyn Fn(&T) -> bool + Send + Sync;

/// A queue of items and its threads.
pub struct LoaderPool<T> {
    sender: Sender<T>,
    queue: Receiver<T>,
    threads: Vec<JoinHandle<()>>,
    /// The threads that there are at least, without those in abandoned loads.
    base: usize,
    /// Whether every thread is in an abandoned load, and no more can be added.
    exhausted: bool,
    load: Arc<LoadFn<T>>,
    name: &'static str,
}

impl<T: Clone + Send + 'static> LoaderPool<T> {
    /// Starts `base` threads, whose names begin with `name`.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub fn start(
        base: usize,
        name: &'static str,
        load: impl Fn(&T) -> bool + Send + Sync + 'static,
    ) -> Result<LoaderPool<T>> {
        let (sender, queue) = bounded(MAX_QUEUED);
        let mut loaders = LoaderPool {
            sender,
            queue,
            threads: Vec::new(),
            base,
            exhausted: false,
            load: Arc::new(load),
            name,
        };
        (0..base).try_for_each(|_| loaders.add_thread(false))?;
        Ok(loaders)
    }

    /// Adds an item to the queue.
    ///
    /// # Errors
    /// `overloaded` if too many items wait, or if every thread is in a load that does not end.
    pub fn push(&self, item: T) -> Result<()> {
        if self.exhausted {
            return Err(Error::new(
                Code::Overloaded,
                "every thread that loads models is held by a load that was cancelled and does not end; see to the storage that holds \
                 the models, or restart the gateway",
            ));
        }
        self.sender.try_send(item).map_err(|error| match error {
            TrySendError::Full(_) => {
                Error::new(Code::Overloaded, "too many endpoints wait to be loaded; try again")
            }
            TrySendError::Disconnected(_) => Error::new(Code::Internal, "loaders without their queue"),
        })
    }

    /// Adds threads at `now`: up to the base, without those in abandoned loads, and beyond it while items wait and every thread is in a
    /// slow load. `belongs` selects the loads of this pool.
    pub fn adjust_threads(&mut self, loads: &LoadTracker<T>, now: Instant, belongs: impl Fn(&T) -> bool) {
        self.threads.retain(|thread| !thread.is_finished());
        // Counted after the threads. So a load that ends meanwhile leaves a thread too few until the next check, but never one too many.
        let mut free = self.threads.len().saturating_sub(loads.stuck_threads(&belongs));
        while free < self.base && self.threads.len() < MAX_THREADS && self.add_thread(false).is_ok() {
            free += 1;
        }
        self.exhausted = free == 0;
        let (least, most) = if free < self.base + EXTRA_THREADS {
            (SLOW_AFTER, EXTRA_THREADS)
        } else {
            (HUNG_AFTER, MAX_EXTRA_THREADS)
        };
        if self.queue.is_empty() || loads.running_for(now, least, belongs) < free {
            return;
        }
        let room =
            (self.base + most).saturating_sub(free).min(MAX_THREADS.saturating_sub(self.threads.len()));
        for _ in 0..self.queue.len().min(free.max(1)).min(room) {
            // If the system gives no more threads, the next check tries again.
            let _ = self.add_thread(true);
        }
    }

    /// The threads that there are, and the items that wait for one.
    pub fn counts(&self) -> LoaderPoolCounts {
        let threads = self.threads.iter().filter(|thread| !thread.is_finished()).count();
        LoaderPoolCounts { threads: threads as u64, waiting: self.queue.len() as u64 }
    }

    /// Adds a thread. An extra one ends when nothing waits.
    fn add_thread(&mut self, extra: bool) -> Result<()> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let (queue, load) = (self.queue.clone(), self.load.clone());
        let (name, index) = (self.name, MADE.fetch_add(1, Relaxed));
        self.threads.push(spawn_low_priority(format!("{name}-{index}"), move || {
            let next = || if extra { queue.try_recv().ok() } else { queue.recv().ok() };
            while let Some(item) = next() {
                if load(&item) {
                    return;
                }
            }
        })?);
        Ok(())
    }

    /// Ends the threads once the queue is empty, and joins them. True if all ended by `deadline`.
    pub fn stop(self, deadline: Instant) -> bool {
        drop(self.sender);
        self.threads.into_iter().map(|thread| join_until(thread, deadline).is_some()).fold(true, |a, b| a & b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two pools, one for even items and one for odd ones. No load ends before the gate opens.
    struct LoaderFixture {
        loads: Arc<LoadTracker<usize>>,
        queues: [LoaderPool<usize>; 2],
        done: Arc<AtomicUsize>,
        gate: Option<Sender<()>>,
    }

    impl LoaderFixture {
        fn new(bases: [usize; 2]) -> LoaderFixture {
            let (loads, done) =
                (Arc::new(LoadTracker::new(Duration::from_secs(60))), Arc::<AtomicUsize>::default());
            let (gate, opened) = bounded::<()>(0);
            let queues = bases.map(|base| {
                let (loads, done, opened) = (loads.clone(), done.clone(), opened.clone());
                let work = move |order: &usize| {
                    let load = loads.begin(*order);
                    let _ = opened.recv();
                    done.fetch_add(1, Relaxed);
                    load.finish()
                };
                LoaderPool::start(base, "hg-test", work).expect("threads")
            });
            LoaderFixture { loads, queues, done, gate: Some(gate) }
        }

        fn adjust_threads(&mut self, now: Instant) {
            for (odd, queue) in self.queues.iter_mut().enumerate() {
                queue.adjust_threads(&self.loads, now, |order| order % 2 == odd);
            }
        }

        fn counts(&self, queue: usize) -> [u64; 2] {
            let LoaderPoolCounts { threads, waiting } = self.queues[queue].counts();
            [threads, waiting]
        }

        /// Waits until every thread of a pool has begun a load, or nothing waits.
        fn settle(&self, odd: usize) {
            let belongs = |order: &usize| order % 2 == odd;
            let begun = || {
                self.loads.running_for(Instant::now(), Duration::ZERO, belongs)
                    + self.loads.stuck_threads(belongs)
            };
            at_last(|| {
                self.queues[odd].counts().threads == begun() as u64 || self.queues[odd].queue.is_empty()
            });
        }

        /// Abandons every load that has begun, and adjusts the threads.
        fn abandon(&mut self) {
            let late = Instant::now() + Duration::from_secs(3600);
            self.loads.check(late);
            self.loads.check(late + Duration::from_secs(60));
            self.adjust_threads(late);
        }
    }

    fn at_last(mut holds: impl FnMut() -> bool) {
        let start = Instant::now();
        while !holds() {
            assert!(start.elapsed() < Duration::from_secs(120), "it never came");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn however_many_loads_are_abandoned_threads_are_bounded_and_come_back() {
        let mut fixture = LoaderFixture::new([2, 1]);
        let orders = 2 * MAX_THREADS;
        (0..orders).for_each(|order| fixture.queues[0].push(2 * order).expect("room"));
        while fixture.loads.stuck_threads(|_| true) < MAX_THREADS {
            fixture.settle(0);
            fixture.abandon();
            assert!(fixture.queues[0].threads.len() <= MAX_THREADS);
            let free = fixture.queues[0].threads.len() - fixture.loads.stuck_threads(|_| true);
            assert!(free >= 2.min(MAX_THREADS - fixture.loads.stuck_threads(|_| true)), "{free}");
        }
        let refused = fixture.queues[0].push(0).expect_err("nobody is there for it");
        assert_eq!(refused.code, Code::Overloaded);
        // The loads end after all, and the items that waited are loaded.
        drop(fixture.gate.take());
        at_last(|| {
            fixture.adjust_threads(Instant::now());
            fixture.done.load(Relaxed) == orders && fixture.counts(0) == [2, 0]
        });
        fixture.queues[0].push(0).expect("threads are there for it");
        at_last(|| fixture.done.load(Relaxed) == orders + 1);
    }

    #[test]
    fn abandoned_loads_of_one_queue_take_no_thread_from_another() {
        let mut fixture = LoaderFixture::new([2, 1]);
        (0..2 * MAX_THREADS).for_each(|order| fixture.queues[0].push(2 * order).expect("room"));
        fixture.queues[1].push(1).expect("room");
        at_last(|| fixture.loads.running_for(Instant::now(), Duration::ZERO, |order| *order == 1) == 1);
        while fixture.loads.stuck_threads(|order| order % 2 == 0) < MAX_THREADS {
            (0..2).for_each(|queue| fixture.settle(queue));
            fixture.abandon();
        }
        assert_eq!((fixture.loads.stuck_threads(|order| *order == 1), fixture.counts(1)), (1, [2, 0]));
        fixture.queues[1].push(3).expect("a thread is there for it");
        at_last(|| fixture.loads.running_for(Instant::now(), Duration::ZERO, |order| *order == 3) == 1);
        drop(fixture.gate.take());
    }

    #[test]
    fn an_abandoned_extra_thread_has_no_lasting_replacement() {
        let mut fixture = LoaderFixture::new([1, 1]);
        (0..6).for_each(|order| fixture.queues[0].push(2 * order).expect("room"));
        let late = Instant::now() + Duration::from_secs(30);
        while !fixture.queues[0].queue.is_empty() {
            fixture.settle(0);
            fixture.adjust_threads(late);
        }
        at_last(|| fixture.loads.running_for(late, Duration::ZERO, |_| true) == 6);
        fixture.abandon();
        assert_eq!(fixture.counts(0), [7, 0], "one that is free beside six that are held");
        drop(fixture.gate.take());
        at_last(|| fixture.counts(0) == [1, 0]);
    }
}
