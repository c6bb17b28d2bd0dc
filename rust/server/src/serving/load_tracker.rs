//! Loads in progress: until when each may take, who ends one, and which threads do not come back from theirs.
//!
//! A load is cancelled when it takes longer than the limit, or when nobody wants what it loads any more. The runtime looks between
//! two steps, so that most loads end soon. One that does not is abandoned: whoever asked is told, another thread takes its
//! thread's place, and what it brings in the end is thrown away.
//!
//! Not here: what is loaded (`publish`, `fetch`).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error};
use headgate_engine::runtime::cancel::{Scope, Token};
use serde_json::{Value, json};

use crate::metrics::rendering::family;

/// How long a cancelled load gets to end.
const CANCEL_GRACE: Duration = Duration::from_secs(10);

/// Why a load was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// It took longer than the limit.
    TimedOut,
    /// Nobody wants what it loads.
    Unwanted,
}

/// The loads in progress of one kind of thread; `T` is what is loaded.
pub struct LoadTracker<T> {
    limit: Duration,
    state: Mutex<TrackedLoads<T>>,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
}

struct TrackedLoads<T> {
    next: u64,
    loads: HashMap<u64, TrackedLoad<T>>,
}

struct TrackedLoad<T> {
    item: T,
    token: Token,
    begun: Instant,
    cancelled: Option<(CancelReason, Instant)>,
    abandoned: bool,
}

/// A load of the calling thread, until this is dropped.
pub struct LoadGuard<'a, T> {
    loads: &'a LoadTracker<T>,
    id: u64,
    _scope: Scope,
}

impl<T: Clone> LoadTracker<T> {
    /// Loads that may take `limit`.
    pub fn new(limit: Duration) -> LoadTracker<T> {
        let state = Mutex::new(TrackedLoads { next: 0, loads: HashMap::new() });
        LoadTracker { limit, state, cancelled: AtomicU64::new(0), abandoned: AtomicU64::new(0) }
    }

    /// Begins one on the calling thread.
    pub fn begin(&self, item: T) -> LoadGuard<'_, T> {
        let scope = Scope::begin();
        let mut state = self.state();
        state.next += 1;
        let (id, begun) = (state.next, Instant::now());
        state
            .loads
            .insert(id, TrackedLoad { item, token: scope.token(), begun, cancelled: None, abandoned: false });
        LoadGuard { loads: self, id, _scope: scope }
    }

    /// Cancels the loads of what nobody wants.
    pub fn cancel(&self, unwanted: impl Fn(&T) -> bool) {
        let now = Instant::now();
        for load in self.state().loads.values_mut().filter(|load| unwanted(&load.item)) {
            self.cancel_one(load, CancelReason::Unwanted, now);
        }
    }

    /// Cancels what takes too long at `now`; those loads that are abandoned from now on.
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

    /// Threads that abandoned loads `of` a queue hold.
    pub fn stuck_threads(&self, belongs: impl Fn(&T) -> bool) -> usize {
        self.state().loads.values().filter(|load| load.abandoned && belongs(&load.item)).count()
    }

    /// How many loads `of` a queue have been in progress for `least` at `now`, without those that were abandoned.
    pub fn running_for(&self, now: Instant, least: Duration, belongs: impl Fn(&T) -> bool) -> usize {
        let slow =
            |load: &&TrackedLoad<T>| !load.abandoned && now >= load.begun + least && belongs(&load.item);
        self.state().loads.values().filter(slow).count()
    }

    /// What a load fails with that took too long.
    pub fn timeout_error(&self) -> Error {
        let words = format!("loading took longer than {:?} (--load-timeout) and was cancelled", self.limit);
        Error::new(Code::ModelLoadFailed, words)
    }

    /// What is counted of these loads and of the threads that they run on.
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
    /// Why it was cancelled; `None` for one that was not.
    pub fn cancel_reason(&self) -> Option<CancelReason> {
        Some(self.loads.state().loads.get(&self.id)?.cancelled?.0)
    }

    /// Ends it; whether it was abandoned, so that its thread has been replaced.
    pub fn finish(self) -> bool {
        self.loads.state().loads.get(&self.id).is_some_and(|load| load.abandoned)
    }
}

impl<T> Drop for LoadGuard<'_, T> {
    fn drop(&mut self) {
        self.loads.state.lock().unwrap_or_else(PoisonError::into_inner).loads.remove(&self.id);
    }
}

/// What is counted of loads and of the threads of their kind.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadCounts {
    /// Loads that were cancelled.
    pub cancelled: u64,
    /// Those of them that were abandoned.
    pub abandoned: u64,
    /// Threads that abandoned loads hold now.
    pub stuck: u64,
    /// The threads.
    pub threads: LoaderPoolCounts,
}

/// What is counted of threads that load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderPoolCounts {
    /// Threads that there are.
    pub threads: u64,
    /// Loads that wait for one.
    pub waiting: u64,
}

/// What is counted of loads, by the kind of thread.
#[rustfmt::skip]
pub fn families(kinds: &[(&str, LoadCounts)]) -> [Value; 5] {
    let each = |name: &str, help: &str, kind: &str, read: fn(&LoadCounts) -> u64| {
        family(name, help, kind, kinds.iter().map(|(label, counts)| json!([{"kind": label}, read(counts)])))
    };
    [
        each("headgate_loads_cancelled_total", "Loads that were cancelled: they took longer than --load-timeout, or nobody wanted what they loaded.", "counter", |counts| counts.cancelled),
        each("headgate_loads_abandoned_total", "Those that did not end within ten seconds; their threads were replaced.", "counter", |counts| counts.abandoned),
        each("headgate_loads_stuck", "Threads that abandoned loads hold now.", "gauge", |counts| counts.stuck),
        each("headgate_load_threads", "Threads that load models; more of them while loads hang.", "gauge", |counts| counts.threads.threads),
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
    fn what_nobody_wants_is_cancelled_and_nothing_else() {
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
