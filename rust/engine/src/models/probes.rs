//! Whether a version still works, asked after one of its runs failed: ONNX Runtime's errors do not say whether the inputs or the
//! model are at fault, but an input that the model is known to take does. It is the one that the model was warmed with, or the first
//! small one that it answered.
//!
//! A probe runs that input once more, in the pool, apart from every request. One at a time for each model, and seldom: what
//! the last one found counts until the next is due, so that a flood of failing requests is no flood of probes.
//!
//! Not here: what a outcome means for a request (the server's `attribution`). Next: `pool`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::warmup::WarmupInputs;

/// The shortest time between two probes of a model.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// A model rests so many times as long as its probe ran: probes take a tenth of a core at most.
const INTERVAL_PER_RUN: u32 = 9;
/// How long a probe may run: an input that takes longer says that the model does not work.
pub(crate) const MAX_RUN: Duration = Duration::from_secs(10);
/// An input that is known to take long may take so many times as long, and so long at most.
const MAX_SLOWDOWN: u32 = 4;
const MAX_EXTENDED_RUN: Duration = Duration::from_secs(600);
/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
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
pub enum ProbeAnswer {
    /// A probe said so a moment ago.
    Known(ProbeOutcome),
    /// A probe that somebody else asked for is on its way.
    InProgress(oneshot::Receiver<ProbeOutcome>),
    /// A probe is on its way because this caller asked.
    Started(oneshot::Receiver<ProbeOutcome>),
}

/// The probes of one model.
#[derive(Debug)]
pub struct ModelProbes {
    /// An input that the model is known to take.
    known: OnceLock<KnownInput>,
    state: Mutex<ProbeState>,
    runs: AtomicU64,
    failed: AtomicU64,
}

/// An input that a model took.
#[derive(Debug)]
pub(crate) struct KnownInput {
    pub(crate) input: WarmupInputs,
    /// How long a probe with it may run.
    pub(crate) limit: Duration,
    /// Whether a request gave it.
    pub(crate) from_request: bool,
}

impl KnownInput {
    fn new(input: WarmupInputs, run: Duration, from_request: bool) -> KnownInput {
        KnownInput { input, limit: (MAX_SLOWDOWN * run).clamp(MAX_RUN, MAX_EXTENDED_RUN), from_request }
    }
}

#[derive(Debug)]
struct ProbeState {
    last: ProbeOutcome,
    /// When the last outcome no longer counts.
    due: Option<Instant>,
    /// Who waits for the probe on its way; `None` while there is none.
    waiting: Option<Vec<oneshot::Sender<ProbeOutcome>>>,
}

impl Default for ModelProbes {
    fn default() -> Self {
        // A model with a known input has run it.
        let state =
            ProbeState { last: ProbeOutcome::Works { run: Duration::ZERO }, due: None, waiting: None };
        let (runs, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { known: OnceLock::new(), state: Mutex::new(state), runs, failed }
    }
}

impl ModelProbes {
    /// How many probes ran, and how many of them failed.
    pub fn counts(&self) -> (u64, u64) {
        (self.runs.load(Relaxed), self.failed.load(Relaxed))
    }

    /// Keeps an input that the model took, and that ran so long; the first one stays.
    pub(crate) fn set_known_input(&self, input: WarmupInputs, run: Duration) {
        // A second one is as good as the first.
        let _ = self.known.set(KnownInput::new(input, run, false));
    }

    /// Keeps the input of a request that ran so long; the first one stays.
    pub(crate) fn set_request_input(&self, input: WarmupInputs, run: Duration) {
        let _ = self.known.set(KnownInput::new(input, run, true));
    }

    /// The input that the model is known to take.
    pub(crate) fn known_input(&self) -> Option<&KnownInput> {
        self.known.get()
    }

    /// Whether an input is known that the model takes.
    pub(crate) fn are_possible(&self) -> bool {
        self.known.get().is_some()
    }

    /// What is known at `now`. The caller of [`ProbeAnswer::Started`] has the probe run.
    pub(crate) fn ask(&self, now: Instant) -> ProbeAnswer {
        let mut state = self.state();
        if state.due.is_some_and(|due| now < due) {
            return ProbeAnswer::Known(state.last);
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
                ProbeAnswer::InProgress(receiver)
            }
            None => {
                state.waiting = Some(vec![sender]);
                ProbeAnswer::Started(receiver)
            }
        }
    }

    /// Counts the probe that began then and is over at `now`, and tells its outcome.
    pub(crate) fn finish(&self, outcome: Option<ProbeOutcome>, begun: Instant, now: Instant) {
        self.runs.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(outcome == Some(ProbeOutcome::Fails)), Relaxed);
        self.settle(outcome, begun, now);
    }

    /// The probe that began then is over at `now`; without a outcome the last one goes on.
    fn settle(&self, outcome: Option<ProbeOutcome>, begun: Instant, now: Instant) {
        let mut state = self.state();
        state.last = outcome.unwrap_or(state.last);
        state.due =
            now.checked_add(MIN_INTERVAL.max(INTERVAL_PER_RUN * now.saturating_duration_since(begun)));
        let (last, waiting) = (state.last, state.waiting.take().unwrap_or_default());
        drop(state);
        for waiter in waiting {
            // It may have left.
            let _ = waiter.send(last);
        }
    }

    fn state(&self) -> MutexGuard<'_, ProbeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    fn known(asked: ProbeAnswer) -> ProbeOutcome {
        let ProbeAnswer::Known(outcome) = asked else { unreachable!("{asked:?} and no outcome") };
        outcome
    }

    #[test]
    fn one_probe_tells_everybody_who_asks_while_it_runs_and_for_a_while_after() {
        let (probes, start) = (ModelProbes::default(), Instant::now());
        let ProbeAnswer::Started(mut first) = probes.ask(start) else { unreachable!("nothing is known yet") };
        let ProbeAnswer::InProgress(mut second) = probes.ask(start) else {
            unreachable!("one is on its way")
        };
        probes.settle(Some(ProbeOutcome::Fails), start, start);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(ProbeOutcome::Fails), Ok(ProbeOutcome::Fails)));
        assert_eq!(known(probes.ask(start + MIN_INTERVAL / 2)), ProbeOutcome::Fails);
        assert!(matches!(probes.ask(start + MIN_INTERVAL), ProbeAnswer::Started(_)));
    }

    #[test]
    fn a_long_probe_is_seldom_and_one_without_a_finding_changes_nothing() {
        let (probes, start) = (ModelProbes::default(), Instant::now());
        assert!(matches!(probes.ask(start), ProbeAnswer::Started(_)));
        let over = start + Duration::from_secs(2);
        probes.settle(None, start, over);
        assert_eq!(
            known(probes.ask(over + Duration::from_secs(17))),
            ProbeOutcome::Works { run: Duration::ZERO }
        );
        assert!(matches!(probes.ask(over + Duration::from_secs(18)), ProbeAnswer::Started(_)));
    }

    #[test]
    fn whoever_has_left_does_not_pile_up_behind_a_probe() {
        let (probes, start) = (ModelProbes::default(), Instant::now());
        let stays: Vec<_> = (0..10_000).map(|_| probes.ask(start)).step_by(1_000).collect();
        let waiting = probes.state().waiting.as_ref().unwrap().len();
        assert!((stays.len()..100).contains(&waiting), "{waiting}");
    }
}
