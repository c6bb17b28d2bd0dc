//! Whether a version still works, asked after one of its runs failed: ONNX Runtime's errors do not say whether the inputs or the
//! model are at fault, but an input that the model is known to take does. It is the one that the model was warmed with, or the first
//! small one that it answered.
//!
//! A probe runs that input once more, in the pool, apart from every request. One at a time for each model, and seldom: what
//! the last one found counts until the next is due, so that a flood of failing requests is no flood of probes.
//!
//! Not here: what a finding means for a request (the server's `attribution`). Next: `pool`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::warmup::Warmup;

/// The shortest time between two probes of a model.
const REST: Duration = Duration::from_secs(1);
/// A model rests so many times as long as its probe ran: probes take a tenth of a core at most.
const REST_PER_RUN: u32 = 9;
/// How long a probe may run: an input that takes longer says that the model does not work.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// An input that is known to take long may take so many times as long, and so long at most.
const SLOWER: u32 = 4;
const LONGEST: Duration = Duration::from_secs(600);
/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The model takes the input that it is known to take.
    Works {
        /// The time of the run; zero for a request's input, which says nothing of how long others may take.
        run: Duration,
    },
    /// It does not.
    Fails,
}

/// The answer to the question whether a model works.
#[derive(Debug)]
pub enum Asked {
    /// A probe said so a moment ago.
    Known(Finding),
    /// A probe that somebody else asked for is on its way.
    Awaited(oneshot::Receiver<Finding>),
    /// A probe is on its way because this caller asked.
    Begun(oneshot::Receiver<Finding>),
}

/// The probes of one model.
#[derive(Debug)]
pub struct Probes {
    /// An input that the model is known to take.
    known: OnceLock<Known>,
    state: Mutex<State>,
    runs: AtomicU64,
    failed: AtomicU64,
}

/// An input that a model took.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) input: Warmup,
    /// How long a probe with it may run.
    pub(crate) limit: Duration,
    /// Whether a request gave it.
    pub(crate) is_requests: bool,
}

impl Known {
    fn new(input: Warmup, run: Duration, is_requests: bool) -> Known {
        Known { input, limit: (SLOWER * run).clamp(LIMIT, LONGEST), is_requests }
    }
}

#[derive(Debug)]
struct State {
    last: Finding,
    /// When the last finding no longer counts.
    due: Option<Instant>,
    /// Who waits for the probe on its way; `None` while there is none.
    waiting: Option<Vec<oneshot::Sender<Finding>>>,
}

impl Default for Probes {
    fn default() -> Self {
        // A model with a known input has run it.
        let state = State { last: Finding::Works { run: Duration::ZERO }, due: None, waiting: None };
        let (runs, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { known: OnceLock::new(), state: Mutex::new(state), runs, failed }
    }
}

impl Probes {
    /// How many probes ran, and how many of them failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.runs.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Keeps an input that the model took, and that ran so long; the first one stays.
    pub(crate) fn keep(&self, input: Warmup, run: Duration) {
        // A second one is as good as the first.
        let _ = self.known.set(Known::new(input, run, false));
    }

    /// Keeps the input of a request that ran so long; the first one stays.
    pub(crate) fn keep_requests(&self, input: Warmup, run: Duration) {
        let _ = self.known.set(Known::new(input, run, true));
    }

    /// The input that the model is known to take.
    pub(crate) fn known(&self) -> Option<&Known> {
        self.known.get()
    }

    /// Whether an input is known that the model takes.
    pub(crate) fn are_possible(&self) -> bool {
        self.known.get().is_some()
    }

    /// What is known at `now`. The caller of [`Asked::Begun`] has the probe run.
    pub(crate) fn ask(&self, now: Instant) -> Asked {
        let mut state = self.state();
        if state.due.is_some_and(|due| now < due) {
            return Asked::Known(state.last);
        }
        let (sender, receiver) = oneshot::channel();
        match &mut state.waiting {
            Some(waiting) => {
                if waiting.len() == waiting.capacity() {
                    // Whoever has left does not pile up behind a probe that takes long.
                    waiting.retain(|waiter| !waiter.is_closed());
                    waiting.reserve(waiting.len());
                }
                waiting.push(sender);
                Asked::Awaited(receiver)
            }
            None => {
                state.waiting = Some(vec![sender]);
                Asked::Begun(receiver)
            }
        }
    }

    /// Counts the probe that began then and is over at `now`, and tells its finding.
    pub(crate) fn finish(&self, finding: Option<Finding>, begun: Instant, now: Instant) {
        self.runs.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(finding == Some(Finding::Fails)), Relaxed);
        self.settle(finding, begun, now);
    }

    /// The probe that began then is over at `now`; without a finding the last one goes on.
    fn settle(&self, finding: Option<Finding>, begun: Instant, now: Instant) {
        let mut state = self.state();
        state.last = finding.unwrap_or(state.last);
        state.due = now.checked_add(REST.max(REST_PER_RUN * now.saturating_duration_since(begun)));
        let (last, waiting) = (state.last, state.waiting.take().unwrap_or_default());
        drop(state);
        for waiter in waiting {
            // It may have left.
            let _ = waiter.send(last);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn known(asked: Asked) -> Finding {
        let Asked::Known(finding) = asked else { unreachable!("{asked:?} and no finding") };
        finding
    }

    #[test]
    fn one_probe_tells_everybody_who_asks_while_it_runs_and_for_a_while_after() {
        let (probes, start) = (Probes::default(), Instant::now());
        let Asked::Begun(mut first) = probes.ask(start) else { unreachable!("nothing is known yet") };
        let Asked::Awaited(mut second) = probes.ask(start) else { unreachable!("one is on its way") };
        probes.settle(Some(Finding::Fails), start, start);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(Finding::Fails), Ok(Finding::Fails)));
        assert_eq!(known(probes.ask(start + REST / 2)), Finding::Fails);
        assert!(matches!(probes.ask(start + REST), Asked::Begun(_)));
    }

    #[test]
    fn a_long_probe_is_seldom_and_one_without_a_finding_changes_nothing() {
        let (probes, start) = (Probes::default(), Instant::now());
        assert!(matches!(probes.ask(start), Asked::Begun(_)));
        let over = start + Duration::from_secs(2);
        probes.settle(None, start, over);
        assert_eq!(known(probes.ask(over + Duration::from_secs(17))), Finding::Works { run: Duration::ZERO });
        assert!(matches!(probes.ask(over + Duration::from_secs(18)), Asked::Begun(_)));
    }

    #[test]
    fn whoever_has_left_does_not_pile_up_behind_a_probe() {
        let (probes, start) = (Probes::default(), Instant::now());
        let stays: Vec<_> = (0..10_000).map(|_| probes.ask(start)).step_by(1_000).collect();
        let waiting = probes.state().waiting.as_ref().unwrap().len();
        assert!((stays.len()..100).contains(&waiting), "{waiting}");
    }
}
