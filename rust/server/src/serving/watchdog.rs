//! The watchdog finds runs that stall an IO thread, and cancels them. Such a run computes or waits for long.
//!
//! A thread that is ready to run but gets no core is no stall: under a CPU quota, or beside other work, that happens to the shortest run.
//! So the watchdog compares the CPU time of the thread in two samples of the same run.
//! The engine's `placement` decides where the model runs from then on. The request of a cancelled run goes to the pool.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use headgate_engine::STALL_NS;
use headgate_engine::runtime::cancel::ThreadHandle;
use headgate_engine::{Model, STUCK_AFTER};

use crate::scheduling::ThreadProbe;

/// A run computes if its thread used at least one part in so many of the time.
const COMPUTING: u64 = 4;
/// A stall is cancelled when the run has lasted this long, in nanoseconds.
const CANCEL_NS: u64 = 3 * STALL_NS;

/// The run that an IO thread has inline now. It has cache lines of its own, because it is written twice for each run.
#[derive(Default)]
#[repr(align(128))]
pub struct Heartbeat {
    /// When the run began, on the clock of `Shared::now_ns`; 0 while there is none.
    since_ns: AtomicU64,
    /// The address of the model, which identifies it.
    model: AtomicUsize,
    /// The thread, once it has started.
    thread: OnceLock<WatchedThread>,
    /// Whether the run is stuck: it was cancelled and does not end.
    stuck: AtomicBool,
}

/// The handles of a thread that the watchdog uses.
struct WatchedThread {
    probe: ThreadProbe,
    worker: ThreadHandle,
}

impl Heartbeat {
    /// Makes this the heartbeat of the current thread.
    pub fn bind_to_current_thread(&self) {
        // Set once, because every IO thread has a heartbeat of its own.
        let _ =
            self.thread.set(WatchedThread { probe: ThreadProbe::current(), worker: ThreadHandle::here() });
    }

    /// Begins a run, which ends when the guard is dropped.
    pub fn begin(&self, model: &Arc<Model>, now_ns: u64) -> HeartbeatGuard<'_> {
        self.model.store(Arc::as_ptr(model) as usize, Relaxed);
        self.since_ns.store(now_ns.max(1), Relaxed);
        HeartbeatGuard(self)
    }

    /// Whether the run of the thread is stuck.
    pub fn is_stuck(&self) -> bool {
        self.stuck.load(Relaxed)
    }
}

/// Ends a run of a [`Heartbeat`] when it is dropped.
pub struct HeartbeatGuard<'a>(&'a Heartbeat);

impl Drop for HeartbeatGuard<'_> {
    fn drop(&mut self) {
        self.0.since_ns.store(0, Relaxed);
    }
}

/// A sample of the run of a thread.
#[derive(Clone, Copy, Debug, Default)]
struct RunSample {
    /// When the run began; 0 without one.
    since_ns: u64,
    at_ns: u64,
    /// The CPU time of the thread.
    cpu_ns: u64,
}

impl RunSample {
    /// Whether the run of this sample and of an earlier one stalls its thread.
    fn stalls(&self, earlier: &RunSample, sleeps: impl FnOnce() -> bool) -> bool {
        let same = self.since_ns != 0 && self.since_ns == earlier.since_ns;
        let computed = self.cpu_ns.saturating_sub(earlier.cpu_ns);
        let passed = self.at_ns.saturating_sub(earlier.at_ns);
        same && self.at_ns.saturating_sub(self.since_ns) >= STALL_NS
            && (computed >= STALL_NS || computed.saturating_mul(COMPUTING) >= passed || sleeps())
    }
}

/// The run of a thread that the watchdog observes.
#[derive(Clone, Copy, Debug, Default)]
struct ObservedRun {
    /// The first sample of the run.
    first: RunSample,
    /// When the run was cancelled.
    cancelled_ns: Option<u64>,
}

/// A run that stalls its thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The thread.
    pub thread: usize,
    /// The model, by its address.
    pub model: usize,
    /// Whether this check cancelled the run.
    pub cancelled: bool,
}

/// Checks the runs of the IO threads.
#[derive(Default)]
pub struct Watchdog {
    observed: Vec<ObservedRun>,
}

impl Watchdog {
    /// Takes a sample of every thread at `now_ns`, cancels stalls that have lasted for long, and returns all stalls.
    pub fn check(&mut self, heartbeats: &[Heartbeat], now_ns: u64) -> Vec<Stall> {
        self.observed.resize(heartbeats.len(), ObservedRun::default());
        let all = heartbeats.iter().zip(&mut self.observed).enumerate();
        all.filter_map(|(thread, (heartbeat, observed))| check_thread(heartbeat, observed, now_ns, thread))
            .collect()
    }
}

fn check_thread(
    heartbeat: &Heartbeat,
    observed: &mut ObservedRun,
    now_ns: u64,
    thread: usize,
) -> Option<Stall> {
    let WatchedThread { probe, worker } = heartbeat.thread.get()?;
    let since_ns = heartbeat.since_ns.load(Relaxed);
    let model = heartbeat.model.load(Relaxed);
    if observed.first.since_ns != since_ns {
        heartbeat.stuck.store(false, Relaxed);
    }
    let cpu_ns = if since_ns == 0 { 0 } else { probe.cpu_ns() };
    let sample = RunSample { since_ns, at_ns: now_ns, cpu_ns };
    let stalls = sample.stalls(&observed.first, || probe.sleeps());
    if observed.first.since_ns != since_ns {
        *observed = ObservedRun { first: sample, cancelled_ns: None };
    }
    // The token of the run that is observed, if that run has not ended meanwhile.
    let token = worker.current();
    // If it has ended, the address of the model may be that of the next run.
    if !stalls || heartbeat.since_ns.load(Relaxed) != since_ns {
        return None;
    }
    let mut cancelled = false;
    match observed.cancelled_ns {
        None if now_ns.saturating_sub(since_ns) >= CANCEL_NS => {
            cancelled = token.is_some_and(|token| token.cancel());
            observed.cancelled_ns = Some(now_ns);
        }
        Some(at) if now_ns.saturating_sub(at) >= STUCK_AFTER.as_nanos() as u64 => {
            heartbeat.stuck.store(true, Relaxed)
        }
        _ => {}
    }
    Some(Stall { thread, model, cancelled })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const MS: u64 = 1_000_000;

    fn stalls(since: [u64; 2], computed_ms: u64, sleeps: bool) -> bool {
        let before = RunSample { since_ns: since[0] * MS, at_ns: 20 * MS, cpu_ns: 7 * MS };
        let now = RunSample { since_ns: since[1] * MS, at_ns: 30 * MS, cpu_ns: (7 + computed_ms) * MS };
        now.stalls(&before, || sleeps)
    }

    #[test]
    fn a_run_that_computes_or_sleeps_for_long_stalls() {
        assert!(stalls([15, 15], 10, false));
        assert!(stalls([15, 15], 3, false));
        assert!(stalls([15, 15], 0, true));
    }

    #[test]
    fn a_thread_without_a_core_or_with_another_run_does_not_stall() {
        assert!(!stalls([15, 15], 0, false));
        assert!(!stalls([15, 15], 2, false));
        assert!(!stalls([15, 25], 10, true));
        assert!(!stalls([0, 25], 10, true));
        assert!(!stalls([15, 0], 10, true));
        assert!(!stalls([0, 0], 10, true));
    }

    #[test]
    fn a_run_with_little_of_a_core_stalls_in_the_end() {
        let before = RunSample { since_ns: 15 * MS, at_ns: 20 * MS, cpu_ns: 0 };
        let after = |passed: u64, cpu: u64| RunSample {
            since_ns: 15 * MS,
            at_ns: (20 + passed) * MS,
            cpu_ns: cpu * MS,
        };
        assert!(!after(90, 9).stalls(&before, || false));
        assert!(after(100, 10).stalls(&before, || false));
    }

    #[test]
    fn a_run_is_short_before_it_is_long() {
        let before = RunSample { since_ns: 15 * MS, at_ns: 16 * MS, cpu_ns: 0 };
        let now = RunSample { since_ns: 15 * MS, at_ns: 24 * MS, cpu_ns: 8 * MS };
        assert!(!now.stalls(&before, || true));
    }

    #[test]
    fn a_thread_that_waits_in_a_run_is_found_by_its_state() {
        let heartbeats = Arc::new([Heartbeat::default()]);
        let (begun, begins) = channel();
        let (end, ends) = channel::<()>();
        let theirs = heartbeats.clone();
        let thread = std::thread::spawn(move || {
            theirs[0].bind_to_current_thread();
            theirs[0].model.store(5, Relaxed);
            theirs[0].since_ns.store(1, Relaxed);
            begun.send(()).unwrap();
            ends.recv().unwrap();
        });
        begins.recv().unwrap();
        let mut watchdog = Watchdog::default();
        while !heartbeats[0].thread.get().unwrap().probe.sleeps() {
            std::thread::yield_now();
        }
        assert!(watchdog.check(&*heartbeats, STALL_NS).is_empty());
        let stall = Stall { thread: 0, model: 5, cancelled: false };
        assert_eq!(watchdog.check(&*heartbeats, 3 * STALL_NS), [stall]);
        // The run was cancelled and does not end, because the thread never looks for a cancellation.
        assert_eq!(watchdog.check(&*heartbeats, 4 * STALL_NS), [stall]);
        let later = 4 * STALL_NS + STUCK_AFTER.as_nanos() as u64;
        assert_eq!((watchdog.check(&*heartbeats, later - 1), heartbeats[0].is_stuck()), (vec![stall], false));
        assert_eq!((watchdog.check(&*heartbeats, later), heartbeats[0].is_stuck()), (vec![stall], true));
        end.send(()).unwrap();
        thread.join().unwrap();
        // The CPU time of a thread that has ended is not known.
        assert!(watchdog.check(&*heartbeats, later + STALL_NS).is_empty());
    }
}
