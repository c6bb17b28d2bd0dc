//! How many threads the pool has: as many as it was given, and more for a while where some do not come back from their runs.
//!
//! Not here: what the threads do (`pool`), how a run is cancelled (`runner`). Next: `pool`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};

use super::run_slot::{Runner, Seen};
use crate::sync::{Mutex, MutexGuard, lock};
use crate::time::{join_until, wait_until};

/// Threads beyond the pool's own that there may be at a time.
const EXTRA: usize = 16;
/// How long all threads must have been in their runs, while work waits, before there is one more.
const ALL_BUSY: Duration = Duration::from_millis(100);
/// What threads that were cancelled at the end get to come back.
const LAST: Duration = Duration::from_millis(250);

/// The pool's threads.
pub(crate) struct WorkerSet {
    /// Those of the pool's own.
    base: usize,
    threads: Mutex<Vec<Thread>>,
    /// Threads that nobody has given up.
    present: AtomicUsize,
    made: AtomicUsize,
}

struct Thread {
    runner: Arc<Runner>,
    handle: JoinHandle<()>,
}

/// The threads of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ThreadCounts {
    /// All of them.
    pub all: usize,
    /// Those that a run holds which was cancelled and does not end.
    pub stuck: usize,
    /// Whether no further one is replaced.
    pub exhausted: bool,
}

impl WorkerSet {
    /// `base` threads, none of which is there yet.
    pub(crate) fn new(base: usize) -> WorkerSet {
        WorkerSet { base, threads: Mutex::default(), present: AtomicUsize::new(0), made: AtomicUsize::new(0) }
    }

    /// The threads that there are mostly.
    pub(crate) fn base(&self) -> usize {
        self.base
    }

    /// Adds a thread with that life.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub(crate) fn add(&self, life: impl FnOnce(&Runner) + Send + 'static) -> Result<()> {
        let (runner, index) = (Arc::<Runner>::default(), self.made.fetch_add(1, Relaxed));
        let own = runner.clone();
        let spawned = std::thread::Builder::new().name(format!("hg-pool-{index}")).spawn(move || life(&own));
        let handle = spawned
            .map_err(|error| Error::new(Code::Internal, format!("no thread for the pool: {error}")))?;
        self.present.fetch_add(1, Relaxed);
        self.threads().push(Thread { runner, handle });
        Ok(())
    }

    /// Looks at every thread at `now`; how many are to be added. `waits` says whether work waits for a thread.
    pub(crate) fn look(&self, now: Instant, waits: bool) -> usize {
        let mut threads = self.threads();
        threads.retain(|thread| !thread.handle.is_finished());
        let mut all_busy = !threads.is_empty();
        for Thread { runner, .. } in &*threads {
            match runner.look(now) {
                Seen::Stuck { new: false } => {}
                Seen::Stuck { new: true } => {
                    runner.give_up();
                    self.present.fetch_sub(1, Relaxed);
                }
                Seen::Well(since) => all_busy &= since.is_some_and(|begun| now >= begun + ALL_BUSY),
            }
        }
        let missing = self.base.saturating_sub(self.present.load(Relaxed));
        let wanted = if missing == 0 && waits && all_busy { 1 } else { missing };
        // Before the start there is nobody to look at.
        if threads.is_empty() { 0 } else { wanted.min((self.base + EXTRA).saturating_sub(threads.len())) }
    }

    /// The thread of a run that was given up has come back from it.
    pub(crate) fn come_back(&self, runner: &Runner) {
        if runner.take_given_up() {
            self.present.fetch_add(1, Relaxed);
        }
    }

    /// Whether there are more threads than mostly.
    pub(crate) fn has_extra(&self) -> bool {
        self.present.load(Relaxed) > self.base
    }

    /// Whether the calling thread ends, because there are more than mostly.
    pub(crate) fn leave(&self) -> bool {
        let fewer = |present: usize| (present > self.base).then(|| present - 1);
        self.present.fetch_update(Relaxed, Relaxed, fewer).is_ok()
    }

    /// How many there are.
    pub(crate) fn counts(&self) -> ThreadCounts {
        let all = self.threads().iter().filter(|thread| !thread.handle.is_finished()).count();
        let stuck = all.saturating_sub(self.present.load(Relaxed));
        ThreadCounts { all, stuck, exhausted: stuck >= EXTRA }
    }

    /// Tells each thread to stop by `tell`, and joins those that end by `deadline`; cancels the runs of the others. True when all
    /// ended in time.
    pub(crate) fn stop(&self, deadline: Instant, mut tell: impl FnMut()) -> bool {
        let threads = std::mem::take(&mut *self.threads());
        threads.iter().for_each(|_| tell());
        let mut late = Vec::new();
        for Thread { runner, handle } in threads {
            if !wait_until(deadline, || handle.is_finished()) {
                runner.cancel();
                late.push(handle);
            }
        }
        let clean = late.is_empty();
        let last = Instant::now() + LAST;
        // A thread that is in its run still is let go of.
        late.into_iter().for_each(|handle| {
            let _ = join_until(handle, last);
        });
        clean
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Thread>> {
        lock(&self.threads)
    }
}
