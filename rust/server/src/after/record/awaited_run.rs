//! A run on a pool thread that a request waits for, and that is booked on its version also if the request stops waiting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use headgate_core::error::{Code, Result};
use headgate_engine::Instant;
use headgate_engine::{PendingRun, RunOutcome, RunResult};

use super::routed_version::RoutedVersion;
use crate::after::capturing::CapturedEnd;
use crate::after::copies::{self, DrawnCopies, FinishedRun};
use crate::copied_run::Answer;

/// A run that a request waits for. Dropped before its end, because the request is late or its client left, it is booked when it
/// ends.
pub struct AwaitedRun {
    /// `None` once it is over.
    run: Option<PendingRun>,
    routed: RoutedVersion,
    /// The copies that were drawn of a request that is too late.
    copies: Option<DrawnCopies>,
}

impl AwaitedRun {
    /// A run for a request that was routed there.
    pub fn new(run: PendingRun, routed: RoutedVersion) -> AwaitedRun {
        AwaitedRun { run: Some(run), routed, copies: None }
    }

    /// The request is too late. The copies that were drawn of it get its inputs when the run has ended.
    pub fn hand_over_later(&mut self, copies: Option<DrawnCopies>) {
        self.copies = copies;
    }

    /// Whether the run has begun.
    pub fn has_begun(&self) -> bool {
        self.run.as_ref().is_none_or(PendingRun::has_begun)
    }
}

impl Future for AwaitedRun {
    type Output = Result<RunOutcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(run) = &mut self.run else { return Poll::Pending };
        let outcome = ready!(Pin::new(run).poll(cx));
        self.run = None;
        Poll::Ready(outcome)
    }
}

impl Drop for AwaitedRun {
    fn drop(&mut self) {
        let Some(outcome) = self.run.take().and_then(PendingRun::cancel) else { return };
        let (routed, copies) = (self.routed.clone(), self.copies.take());
        tokio::task::spawn_local(async move {
            let Ok(outcome) = outcome.await else { return };
            // It left the queue after its deadline, and was not run.
            if outcome.run_ns == 0 {
                return;
            }
            let shard = routed.shard();
            shard.run.record(outcome.run_ns);
            shard.runs.add(1);
            if let Some(drawn) = copies {
                let (run, answer) =
                    (RunResult::Single(outcome.lease), Answer::Failed(Code::DeadlineExceeded));
                let end = CapturedEnd { code: Some(Code::DeadlineExceeded), run_ns: Some(outcome.run_ns) };
                let finished = FinishedRun { run: Some(run), answer, end };
                copies::hand_over(&routed.endpoint, drawn, finished, Instant::now());
            }
        });
    }
}
