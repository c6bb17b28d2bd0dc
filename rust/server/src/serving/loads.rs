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
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a load was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// It took longer than the limit.
    TooLong,
    /// Nobody wants what it loads.
    Unwanted,
}

/// The loads in progress of one kind of thread; `T` is what is loaded.
pub struct Loads<T> {
    limit: Duration,
    state: Mutex<State<T>>,
    cancelled: AtomicU64,
    abandoned: AtomicU64,
}

struct State<T> {
    next: u64,
    loads: HashMap<u64, Entry<T>>,
}

struct Entry<T> {
    what: T,
    token: Token,
    begun: Instant,
    cancelled: Option<(Why, Instant)>,
    abandoned: bool,
}

/// A load of the calling thread, until this is dropped.
pub struct Load<'a, T> {
    loads: &'a Loads<T>,
    id: u64,
    _scope: Scope,
}

impl<T: Clone> Loads<T> {
    /// Loads that may take `limit`.
    pub fn new(limit: Duration) -> Loads<T> {
        let state = Mutex::new(State { next: 0, loads: HashMap::new() });
        Loads { limit, state, cancelled: AtomicU64::new(0), abandoned: AtomicU64::new(0) }
    }

    /// Begins one on the calling thread.
    pub fn begin(&self, what: T) -> Load<'_, T> {
        let scope = Scope::begin();
        let mut state = self.state();
        state.next += 1;
        let (id, begun) = (state.next, Instant::now());
        state
            .loads
            .insert(id, Entry { what, token: scope.token(), begun, cancelled: None, abandoned: false });
        Load { loads: self, id, _scope: scope }
    }

    /// Cancels the loads of what nobody wants.
    pub fn cancel(&self, unwanted: impl Fn(&T) -> bool) {
        let now = Instant::now();
        for load in self.state().loads.values_mut().filter(|load| unwanted(&load.what)) {
            self.end(load, Why::Unwanted, now);
        }
    }

    /// Cancels what takes too long at `now`; those loads that are abandoned from now on.
    pub fn look(&self, now: Instant) -> Vec<T> {
        let mut abandoned = Vec::new();
        for load in self.state().loads.values_mut() {
            if now >= load.begun + self.limit {
                self.end(load, Why::TooLong, now);
            }
            if !load.abandoned && load.cancelled.is_some_and(|(_, at)| now >= at + PATIENCE) {
                load.abandoned = true;
                self.abandoned.fetch_add(1, Relaxed);
                abandoned.push(load.what.clone());
            }
        }
        abandoned
    }

    fn end(&self, load: &mut Entry<T>, why: Why, now: Instant) {
        if load.cancelled.is_none() {
            load.cancelled = Some((why, now));
            self.cancelled.fetch_add(1, Relaxed);
            load.token.cancel();
        }
    }

    /// Threads that abandoned loads `of` a queue hold.
    pub fn stuck(&self, of: impl Fn(&T) -> bool) -> usize {
        self.state().loads.values().filter(|load| load.abandoned && of(&load.what)).count()
    }

    /// How many loads `of` a queue have been in progress for `least` at `now`, without those that were abandoned.
    pub fn since(&self, now: Instant, least: Duration, of: impl Fn(&T) -> bool) -> usize {
        let slow = |load: &&Entry<T>| !load.abandoned && now >= load.begun + least && of(&load.what);
        self.state().loads.values().filter(slow).count()
    }

    /// What a load fails with that took too long.
    pub fn too_long(&self) -> Error {
        let words = format!("loading took longer than {:?} (--load-timeout) and was cancelled", self.limit);
        Error::new(Code::ModelLoadFailed, words)
    }

    /// What is counted of these loads and of the threads that they run on.
    pub fn counts(&self, threads: LoaderCounts) -> LoadCounts {
        LoadCounts {
            cancelled: self.cancelled.load(Relaxed),
            abandoned: self.abandoned.load(Relaxed),
            stuck: self.stuck(|_| true) as u64,
            threads,
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Clone> Load<'_, T> {
    /// Why it was cancelled; `None` for one that was not.
    pub fn cancelled(&self) -> Option<Why> {
        Some(self.loads.state().loads.get(&self.id)?.cancelled?.0)
    }

    /// Ends it; whether it was abandoned, so that its thread has been replaced.
    pub fn finish(self) -> bool {
        self.loads.state().loads.get(&self.id).is_some_and(|load| load.abandoned)
    }
}

impl<T> Drop for Load<'_, T> {
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
    pub threads: LoaderCounts,
}

/// What is counted of threads that load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoaderCounts {
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

    fn counts(loads: &Loads<&str>) -> [u64; 3] {
        let LoadCounts { cancelled, abandoned, stuck, .. } = loads.counts(LoaderCounts::default());
        [cancelled, abandoned, stuck]
    }

    #[test]
    fn a_load_ends_at_its_limit_and_is_abandoned_when_it_does_not() {
        let loads = Loads::new(Duration::from_secs(60));
        let load = loads.begin("model");
        let start = Instant::now();
        assert!(loads.look(start).is_empty() && load.cancelled().is_none());
        let over = start + Duration::from_secs(60);
        assert!(loads.look(over).is_empty());
        assert_eq!(load.cancelled(), Some(Why::TooLong));
        assert_eq!(loads.look(over + PATIENCE), ["model"]);
        assert!(loads.look(over + 2 * PATIENCE).is_empty(), "once");
        assert_eq!(counts(&loads), [1, 1, 1]);
        assert!(load.finish());
        assert_eq!(counts(&loads), [1, 1, 0]);
    }

    #[test]
    fn what_nobody_wants_is_cancelled_and_nothing_else() {
        let loads = Loads::new(Duration::from_secs(60));
        let load = loads.begin("wanted");
        loads.cancel(|what| *what == "another");
        assert_eq!(load.cancelled(), None);
        loads.cancel(|what| *what == "wanted");
        assert_eq!(load.cancelled(), Some(Why::Unwanted));
        assert!(!load.finish());
        assert_eq!(counts(&loads), [1, 0, 0]);
    }
}
