//! Finds runs that stall an IO thread: those that hold it for long while they compute or wait.
//!
//! A thread that is ready and gets no core holds nobody up by its own fault: under a CPU quota, or beside other work, that
//! happens to the shortest run. So it is the thread's own time that counts, between two looks at the same run.
//! What becomes of a model that stalls is `headgate_engine::place`'s.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use headgate_engine::Model;
use headgate_engine::place::STALL_NS;

use crate::threads::Watched;

/// A run that had at least one in so many nanoseconds of a core was computing.
const COMPUTING: u64 = 4;

/// What an IO thread is running inline right now. Written twice a run: it has cache lines to itself.
#[derive(Default)]
#[repr(align(128))]
pub struct Beat {
    /// When the run began, on `Shared::now_ns`'s clock; 0 while there is none.
    since_ns: AtomicU64,
    /// The model's address, as a name for it.
    model: AtomicUsize,
    /// The thread, once it runs.
    thread: OnceLock<Watched>,
}

impl Beat {
    /// Makes this the calling thread's.
    pub fn belongs_here(&self) {
        // Every IO thread has one of its own.
        let _ = self.thread.set(Watched::here());
    }

    /// Notes a run for as long as the guard lives.
    pub fn begin(&self, model: &Arc<Model>, now_ns: u64) -> BeatGuard<'_> {
        self.model.store(Arc::as_ptr(model) as usize, Relaxed);
        self.since_ns.store(now_ns.max(1), Relaxed);
        BeatGuard(self)
    }
}

/// Ends a [`Beat`].
pub struct BeatGuard<'a>(&'a Beat);

impl Drop for BeatGuard<'_> {
    fn drop(&mut self) {
        self.0.since_ns.store(0, Relaxed);
    }
}

/// What was seen of a thread at one look.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    /// When its run began; 0 without one.
    since_ns: u64,
    at_ns: u64,
    /// The CPU time of the thread.
    cpu_ns: u64,
}

impl Look {
    /// Whether the run that this look and one before saw stalls its thread.
    fn stalls(&self, before: &Look, sleeps: impl FnOnce() -> bool) -> bool {
        let same = self.since_ns != 0 && self.since_ns == before.since_ns;
        let computed = self.cpu_ns.saturating_sub(before.cpu_ns);
        let passed = self.at_ns.saturating_sub(before.at_ns);
        same && self.at_ns.saturating_sub(self.since_ns) >= STALL_NS
            && (computed >= STALL_NS || computed.saturating_mul(COMPUTING) >= passed || sleeps())
    }
}

/// Looks at every IO thread from time to time.
#[derive(Default)]
pub struct Watchdog {
    /// The first look at each one's run.
    first: Vec<Look>,
}

impl Watchdog {
    /// Looks, and names the models whose runs stall, by their addresses.
    pub fn look(&mut self, beats: &[Beat], now_ns: u64) -> Vec<usize> {
        self.first.resize(beats.len(), Look::default());
        let stalled = beats.iter().zip(&mut self.first).filter_map(|(beat, first)| {
            let thread = beat.thread.get()?;
            let since_ns = beat.since_ns.load(Relaxed);
            let model = beat.model.load(Relaxed);
            let cpu_ns = if since_ns == 0 { 0 } else { thread.cpu_ns() };
            let look = Look { since_ns, at_ns: now_ns, cpu_ns };
            let stalls = look.stalls(first, || thread.sleeps());
            if first.since_ns != since_ns {
                *first = look;
            }
            // Else that run has ended meanwhile, and the address may be the next one's.
            (stalls && beat.since_ns.load(Relaxed) == since_ns).then_some(model)
        });
        stalled.collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    const MS: u64 = 1_000_000;

    fn stalls(since: [u64; 2], computed_ms: u64, sleeps: bool) -> bool {
        let before = Look { since_ns: since[0] * MS, at_ns: 20 * MS, cpu_ns: 7 * MS };
        let now = Look { since_ns: since[1] * MS, at_ns: 30 * MS, cpu_ns: (7 + computed_ms) * MS };
        now.stalls(&before, || sleeps)
    }

    #[test]
    fn who_computes_or_sleeps_in_a_run_for_long_stalls() {
        assert!(stalls([15, 15], 10, false));
        assert!(stalls([15, 15], 3, false));
        assert!(stalls([15, 15], 0, true));
    }

    #[test]
    fn who_got_no_core_or_has_begun_another_run_does_not() {
        assert!(!stalls([15, 15], 0, false));
        assert!(!stalls([15, 15], 2, false));
        assert!(!stalls([15, 25], 10, true));
        assert!(!stalls([0, 25], 10, true));
        assert!(!stalls([15, 0], 10, true));
        assert!(!stalls([0, 0], 10, true));
    }

    #[test]
    fn who_computes_for_long_with_little_of_a_core_does_so_in_the_end() {
        let before = Look { since_ns: 15 * MS, at_ns: 20 * MS, cpu_ns: 0 };
        let after =
            |passed: u64, cpu: u64| Look { since_ns: 15 * MS, at_ns: (20 + passed) * MS, cpu_ns: cpu * MS };
        assert!(!after(90, 9).stalls(&before, || false));
        assert!(after(100, 10).stalls(&before, || false));
    }

    #[test]
    fn a_run_is_short_before_it_is_long() {
        let before = Look { since_ns: 15 * MS, at_ns: 16 * MS, cpu_ns: 0 };
        let now = Look { since_ns: 15 * MS, at_ns: 24 * MS, cpu_ns: 8 * MS };
        assert!(!now.stalls(&before, || true));
    }

    #[test]
    fn a_thread_that_waits_in_a_run_is_found_by_its_state() {
        let beats = Arc::new([Beat::default()]);
        let (begun, begins) = channel();
        let (end, ends) = channel::<()>();
        let theirs = beats.clone();
        let thread = std::thread::spawn(move || {
            theirs[0].belongs_here();
            theirs[0].model.store(5, Relaxed);
            theirs[0].since_ns.store(1, Relaxed);
            begun.send(()).unwrap();
            ends.recv().unwrap();
        });
        begins.recv().unwrap();
        let mut watchdog = Watchdog::default();
        while !beats[0].thread.get().unwrap().sleeps() {
            std::thread::yield_now();
        }
        assert!(watchdog.look(&*beats, STALL_NS).is_empty());
        assert_eq!(watchdog.look(&*beats, 3 * STALL_NS), [5]);
        end.send(()).unwrap();
        thread.join().unwrap();
        // Of a thread that is gone nothing is known.
        assert!(watchdog.look(&*beats, 5 * STALL_NS).is_empty());
    }
}
