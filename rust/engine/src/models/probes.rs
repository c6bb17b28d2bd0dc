//! Whether a version still works, after one of its runs failed. ONNX Runtime's errors do not say whether the inputs or the model are at
//! fault. A run over an input that the model is known to take does: the one that it was warmed with, or the first small one of a request
//! that it answered.
//!
//! A probe runs that input once more, in the pool, apart from every request. A model has one probe at a time, and few of them: its outcome
//! counts until the next is due, so that many failing requests do not cause many probes.
//!
//! Not here: what an outcome means for a request (the server's `attribution`), the run (`runs/probe_run`).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::time::Instant;
use crate::warmup::WarmupInputs;

/// The shortest time between two probes of a model.
const MIN_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two probes is at least so many times the run: probes take a tenth of a core at most.
const INTERVAL_PER_RUN: u32 = 9;
/// How long a probe may run. A model whose probe takes longer does not work.
pub(crate) const MAX_RUN: Duration = Duration::from_secs(10);
/// An input that took long before may take so many times as long, up to the second bound.
const MAX_SLOWDOWN: u32 = 4;
const MAX_EXTENDED_RUN: Duration = Duration::from_secs(600);
/// The outcome of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// The model runs on the input that it is known to take.
    Works {
        /// How long the run took. Zero for the input of a request, which says nothing about other inputs.
        run: Duration,
    },
    /// It does not.
    Fails,
}

/// The answer to the question whether a model works.
#[derive(Debug)]
pub enum ProbeAnswer {
    /// The outcome of a recent probe.
    Known(ProbeOutcome),
    /// A probe that another caller started is in progress.
    InProgress(oneshot::Receiver<ProbeOutcome>),
    /// A probe was started for this caller, which must run it.
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

/// An input that the model has taken.
#[derive(Debug)]
pub(crate) struct KnownInput {
    pub(crate) input: WarmupInputs,
    /// How long a probe with it may run.
    pub(crate) limit: Duration,
    /// Whether it came from a request.
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
    /// The callers that wait for the probe in progress; `None` if there is none.
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

    /// Sets an input that the model took in a run of that time, unless one is known.
    pub(crate) fn set_known_input(&self, input: WarmupInputs, run: Duration) {
        // A second one is as good as the first.
        let _ = self.known.set(KnownInput::new(input, run, false));
    }

    /// Sets the input of a request that ran for that time, unless one is known.
    pub(crate) fn set_request_input(&self, input: WarmupInputs, run: Duration) {
        let _ = self.known.set(KnownInput::new(input, run, true));
    }

    /// The input that the model is known to take.
    pub(crate) fn known_input(&self) -> Option<&KnownInput> {
        self.known.get()
    }

    /// Whether such an input is known.
    pub(crate) fn are_possible(&self) -> bool {
        self.known.get().is_some()
    }

    /// What is known at `now`. The caller must run the probe if the answer is [`ProbeAnswer::Started`].
    pub(crate) fn ask(&self, now: Instant) -> ProbeAnswer {
        let mut state = self.state();
        if state.due.is_some_and(|due| now < due) {
            return ProbeAnswer::Known(state.last);
        }
        let (sender, receiver) = oneshot::channel();
        match &mut state.waiting {
            Some(waiting) => {
                if waiting.len() == waiting.capacity() {
                    // Callers that have left must not pile up behind a long probe.
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

    /// Counts a probe that ran from `begun` to `now`, and sends its outcome.
    pub(crate) fn finish(&self, outcome: Option<ProbeOutcome>, begun: Instant, now: Instant) {
        self.runs.fetch_add(1, Relaxed);
        self.failed.fetch_add(u64::from(outcome == Some(ProbeOutcome::Fails)), Relaxed);
        self.settle(outcome, begun, now);
    }

    /// Sends the outcome to all that wait. Without an outcome the last one counts on.
    fn settle(&self, outcome: Option<ProbeOutcome>, begun: Instant, now: Instant) {
        let mut state = self.state();
        state.last = outcome.unwrap_or(state.last);
        state.due =
            now.checked_add(MIN_INTERVAL.max(INTERVAL_PER_RUN * now.saturating_duration_since(begun)));
        let (last, waiting) = (state.last, state.waiting.take().unwrap_or_default());
        drop(state);
        for waiter in waiting {
            // The caller may have left.
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

    fn known(answer: ProbeAnswer) -> ProbeOutcome {
        let ProbeAnswer::Known(outcome) = answer else { unreachable!("{answer:?} and no outcome") };
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
