//! Tracks loads in progress: their time limit, their cancellation, and loads that do not end.
//!
//! A load is cancelled if it takes longer than the limit, or if its result is not wanted any more. The runtime looks for that between two
//! steps, so most loads end soon. A load that does not is abandoned: its failure is reported, another thread replaces its thread, and its
//! result is dropped in the end.
//!
//! Not here: what is loaded (`publisher`, `fetcher`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use headgate_core::error::{Code, Error};
use headgate_engine::Instant;
use headgate_engine::runtime::cancel::{CancelScope, CancelToken};
use serde_json::{Value, json};

use crate::metrics::rendering::family;

/// How long a cancelled load has to end before it is abandoned.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Why a load was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// The load took longer than the limit.
    TimedOut,
    /// The result is not wanted any more.
    Unwanted,
}

/// The loads in progress of one kind of thread; `T` is the item that is loaded.
pub struct LoadTracker<T> {
    limit: Duration,
    state: Mutex<TrackedLoads<T>>,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
}

struct TrackedLoads<T> {
    next: u64,
    loads: HashMap<u64, TrackedLoad<T>>,
    /// Whether no result is wanted any more.
    closed: bool,
}

struct TrackedLoad<T> {
    item: T,
    token: CancelToken,
    begun: Instant,
    cancelled: Option<(CancelReason, Instant)>,
    abandoned: bool,
}

/// A load on the current thread, until this is dropped.
pub struct LoadGuard<'a, T> {
    loads: &'a LoadTracker<T>,
    id: u64,
    _scope: CancelScope,
}

impl<T: Clone> LoadTracker<T> {
    /// A tracker of loads that may take `limit`.
    pub fn new(limit: Duration) -> LoadTracker<T> {
        let state = Mutex::new(TrackedLoads { next: 0, loads: HashMap::new(), closed: false });
        LoadTracker { limit, state, cancelled: AtomicU64::new(0), abandoned: AtomicU64::new(0) }
    }

    /// Begins a load on the current thread; one that is cancelled already, if they are closed.
    pub fn begin(&self, item: T) -> LoadGuard<'_, T> {
        let scope = CancelScope::begin();
        let mut state = self.state();
        state.next += 1;
        let (id, begun) = (state.next, Instant::now());
        let mut load = TrackedLoad { item, token: scope.token(), begun, cancelled: None, abandoned: false };
        if state.closed {
            self.cancel_one(&mut load, CancelReason::Unwanted, begun);
        }
        state.loads.insert(id, load);
        LoadGuard { loads: self, id, _scope: scope }
    }

    /// Cancels all loads, and those that begin from now on: a thread may have taken an item and not begun with it.
    pub fn close(&self) {
        self.state().closed = true;
        self.cancel(|_| true);
    }

    /// Cancels the loads whose items are `unwanted`.
    pub fn cancel(&self, unwanted: impl Fn(&T) -> bool) {
        let now = Instant::now();
        for load in self.state().loads.values_mut().filter(|load| unwanted(&load.item)) {
            self.cancel_one(load, CancelReason::Unwanted, now);
        }
    }

    /// Cancels the loads that take too long at `now`, and returns the items of those that are abandoned from now on.
    pub fn check(&self, now: Instant) -> Vec<T> {
        let mut abandoned = Vec::new();
        for load in self.state().loads.values_mut() {
            if now >= load.begun + self.limit {
                self.cancel_one(load, CancelReason::TimedOut, now);
            }
            if !load.abandoned && load.cancelled.is_some_and(|(_, at)| now >= at + CANCEL_GRACE) {
                load.abandoned = true;
                self.abandoned.fetch_add(1, Relaxed);
                abandoned.push(load.item.clone());
            }
        }
        abandoned
    }

    fn cancel_one(&self, load: &mut TrackedLoad<T>, reason: CancelReason, now: Instant) {
        if load.cancelled.is_none() {
            load.cancelled = Some((reason, now));
            self.cancelled.fetch_add(1, Relaxed);
            load.token.cancel();
        }
    }

    /// The threads in abandoned loads whose items `belongs` selects.
    pub fn stuck_threads(&self, belongs: impl Fn(&T) -> bool) -> usize {
        self.state().loads.values().filter(|load| load.abandoned && belongs(&load.item)).count()
    }

    /// The loads that have run for at least `least` at `now` and whose items `belongs` selects, without abandoned ones.
    pub fn running_for(&self, now: Instant, least: Duration, belongs: impl Fn(&T) -> bool) -> usize {
        let slow =
            |load: &&TrackedLoad<T>| !load.abandoned && now >= load.begun + least && belongs(&load.item);
        self.state().loads.values().filter(slow).count()
    }

    /// The error of a load that took too long.
    pub fn timeout_error(&self) -> Error {
        let words = format!("loading took longer than {:?} (--load-timeout) and was cancelled", self.limit);
        Error::new(Code::ModelLoadFailed, words)
    }

    /// The counts of these loads, with those of the threads that they run on.
    pub fn counts(&self, threads: LoaderPoolCounts) -> LoadCounts {
        LoadCounts {
            cancelled: self.cancelled.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            stuck: self.stuck_threads(|_| true) as u64,
            threads,
        }
    }

    fn state(&self) -> MutexGuard<'_, TrackedLoads<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> LoadGuard<'_, T> {
    /// Why the load was cancelled; `None` if it was not.
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        Some(self.loads.state().loads.get(&self.id)?.cancelled?.0)
    }

    /// Ends the load. True if it was abandoned, and its thread replaced.
    pub fn finish(self) -> bool {
        self.loads.state().loads.get(&self.id).is_some_and(|load| load.abandoned)
    }
}

impl<T> Drop for LoadGuard<'_, T> {
    fn drop(&mut self) {
        self.loads.state.lock().unwrap_or_else(PoisonError::into_inner).loads.remove(&self.id);
    }
}

/// The counts of loads and of their threads.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadCounts {
    /// Loads that were cancelled.
    pub cancelled: u64,
    /// Loads that were abandoned.
    pub abandoned: u64,
    /// Threads in abandoned loads now.
    pub stuck: u64,
    /// The counts of the threads.
    pub threads: LoaderPoolCounts,
}

/// The counts of threads that load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderPoolCounts {
    /// The number of threads.
    pub threads: u64,
    /// The number of items that wait for one.
    pub waiting: u64,
}

/// The metrics of loads, by the kind of thread.
#[rustfmt::skip]
pub fn families(kinds: &[(&str, LoadCounts)]) -> [Value; 5] {
    let each = |name: &str, help: &str, kind: &str, read: fn(&LoadCounts) -> u64| {
        family(name, help, kind, kinds.iter().map(|(label, counts)| json!([{"kind": label}, read(counts)])))
    };
    [
        each("headgate_loads_cancelled_total", "Loads that were cancelled, because they took longer than --load-timeout or their result was not wanted any more.", "counter", |counts| counts.cancelled),
        each("headgate_loads_abandoned_total", "Cancelled loads that did not end within ten seconds; their threads were replaced.", "counter", |counts| counts.abandoned),
        each("headgate_loads_stuck", "Threads in abandoned loads now.", "gauge", |counts| counts.stuck),
        each("headgate_load_threads", "Threads that load models; there are more while loads are slow or hang.", "gauge", |counts| counts.threads.threads),
        each("headgate_loads_waiting", "Loads that wait for a thread.", "gauge", |counts| counts.threads.waiting),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(loads: &LoadTracker<&str>) -> [u64; 3] {
        let LoadCounts { cancelled, abandoned, stuck, .. } = loads.counts(LoaderPoolCounts::default());
        [cancelled, abandoned, stuck]
    }

    #[test]
    fn a_load_ends_at_its_limit_and_is_abandoned_when_it_does_not() {
        let loads = LoadTracker::new(Duration::from_secs(60));
        let load = loads.begin("model");
        let start = Instant::now();
        assert!(loads.check(start).is_empty() && load.cancel_reason().is_none());
        let over = start + Duration::from_secs(60);
        assert!(loads.check(over).is_empty());
        assert_eq!(load.cancel_reason(), Some(CancelReason::TimedOut));
        assert_eq!(loads.check(over + CANCEL_GRACE), ["model"]);
        assert!(loads.check(over + 2 * CANCEL_GRACE).is_empty(), "once");
        assert_eq!(counts(&loads), [1, 1, 1]);
        assert!(load.finish());
        assert_eq!(counts(&loads), [1, 1, 0]);
    }

    #[test]
    fn loads_that_begin_behind_the_close_are_cancelled_too() {
        let loads = LoadTracker::new(Duration::from_secs(60));
        let early = loads.begin("early");
        loads.close();
        let late = loads.begin("late");
        assert_eq!([early, late].map(|load| load.cancel_reason()), [Some(CancelReason::Unwanted); 2]);
        assert_eq!(counts(&loads), [2, 0, 0]);
    }

    #[test]
    fn an_unwanted_load_is_cancelled_and_no_other() {
        let loads = LoadTracker::new(Duration::from_secs(60));
        let load = loads.begin("wanted");
        loads.cancel(|item| *item == "another");
        assert_eq!(load.cancel_reason(), None);
        loads.cancel(|item| *item == "wanted");
        assert_eq!(load.cancel_reason(), Some(CancelReason::Unwanted));
        assert!(!load.finish());
        assert_eq!(counts(&loads), [1, 0, 0]);
    }
}
