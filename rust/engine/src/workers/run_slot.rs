//! A pool thread as others see it: what it runs, until when, and whether that still ends when it is cancelled.
//!
//! Whoever waits for a run cancels it when it stops waiting. What the runner adds is for the rest: a run that is of no use
//! to anybody beyond its time is cancelled by whoever looks, and one that goes on a second after that holds its thread for good as far as
//! anybody knows: it is counted, and the pool takes another thread in its place.
//!
//! Not here: the threads (`pool`), how a call into the runtime ends (`headgate_runtime::cancel`). Next: `pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use headgate_runtime::cancel::{CancelScope, CancelToken};

use crate::sync::{Mutex, MutexGuard, lock};

/// How long a run may go on after it was cancelled before it counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(1);

/// The runs of a model on pool threads now, and those that did not go as they should.
#[derive(Debug, Default)]
pub struct Runs {
    in_progress: AtomicUsize,
    cancelled: AtomicU64,
    stuck: AtomicUsize,
}

impl Runs {
    /// Runs that pool threads have begun and not ended.
    pub fn in_progress(&self) -> usize {
        self.in_progress.load(Relaxed)
    }

    /// Runs that were cancelled because nobody waited for them any more, or because they held an IO thread up.
    pub fn cancelled(&self) -> u64 {
        self.cancelled.load(Relaxed)
    }

    /// Runs in progress that were cancelled and do not end.
    pub fn stuck(&self) -> usize {
        self.stuck.load(Relaxed)
    }

    /// A run was cancelled.
    pub fn count_cancelled(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// A run does not end.
    pub fn begin_stuck(&self) {
        self.stuck.fetch_add(1, Relaxed);
    }

    /// It has ended after all.
    pub fn end_stuck(&self) {
        self.stuck.fetch_sub(1, Relaxed);
    }
}

/// One pool thread.
#[derive(Default)]
pub(crate) struct Runner {
    current: Mutex<Option<Current>>,
    /// Whether the pool gave the thread up.
    given_up: AtomicBool,
}

/// What a thread runs.
struct Current {
    token: CancelToken,
    runs: Arc<Runs>,
    begun: Instant,
    until: Instant,
    cancelled: Option<Instant>,
    stuck: bool,
}

/// What was seen of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// It runs nothing, or something that began then.
    Well(Option<Instant>),
    /// Its run does not end: seen now for the first time, or before.
    Stuck { new: bool },
}

impl Runner {
    /// Begins a run on the calling thread that is of use until then.
    pub(crate) fn begin(&self, runs: &Arc<Runs>, until: Instant) -> Running<'_> {
        let scope = CancelScope::begin();
        let (token, runs, begun) = (scope.token(), runs.clone(), Instant::now());
        runs.in_progress.fetch_add(1, Relaxed);
        *self.current() = Some(Current { token, runs, begun, until, cancelled: None, stuck: false });
        Running { runner: self, scope }
    }

    /// Looks at the run at `now`, and cancels it when it is of no use any more.
    pub(crate) fn look(&self, now: Instant) -> Seen {
        let mut current = self.current();
        let Some(run) = &mut *current else { return Seen::Well(None) };
        if now >= run.until {
            run.token.cancel();
        }
        if run.cancelled.is_none() && run.token.is_cancelled() {
            run.cancelled = Some(now);
        }
        if run.cancelled.is_none_or(|at| now < at + STUCK_AFTER) {
            return Seen::Well(Some(run.begun));
        }
        let new = !std::mem::replace(&mut run.stuck, true);
        if new {
            run.runs.begin_stuck();
        }
        Seen::Stuck { new }
    }

    /// Cancels the run, whoever waits for it.
    pub(crate) fn cancel(&self) {
        if let Some(run) = &*self.current() {
            run.token.cancel();
        }
    }

    /// Another thread takes this one's place.
    pub(crate) fn give_up(&self) {
        self.given_up.store(true, Relaxed);
    }

    /// Whether another thread has taken this one's place; no longer once this was asked.
    pub(crate) fn take_given_up(&self) -> bool {
        self.given_up.load(Relaxed) && self.given_up.swap(false, Relaxed)
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        lock(&self.current)
    }
}

/// A run in progress, until this is dropped.
pub(crate) struct Running<'a> {
    runner: &'a Runner,
    scope: CancelScope,
}

impl Running<'_> {
    /// What others cancel it with.
    pub(crate) fn token(&self) -> CancelToken {
        self.scope.token()
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let Some(run) = self.runner.current().take() else { return };
        run.runs.in_progress.fetch_sub(1, Relaxed);
        if self.scope.is_cancelled() {
            run.runs.count_cancelled();
        }
        if run.stuck {
            run.runs.end_stuck();
        }
    }
}

/// Where a piece of work runs.
#[derive(Clone, Copy)]
pub(crate) enum On<'a> {
    /// On the thread of an instance of a device, where nothing is cancelled.
    Instance(usize),
    /// On a pool thread.
    Thread(&'a Runner),
}

impl<'a> On<'a> {
    /// The instance.
    pub(crate) fn instance(self) -> Option<usize> {
        match self {
            On::Instance(instance) => Some(instance),
            On::Thread(_) => None,
        }
    }

    /// Begins a run that is of use until then.
    pub(crate) fn begin(self, runs: &Arc<Runs>, until: Instant) -> Option<Running<'a>> {
        match self {
            On::Instance(_) => None,
            On::Thread(runner) => Some(runner.begin(runs, until)),
        }
    }
}
