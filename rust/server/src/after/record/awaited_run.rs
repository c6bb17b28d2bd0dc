//! A run on a pool thread that a request waits for, and that is booked on its version also if the request stops waiting.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use headgate_core::error::Result;
use headgate_engine::{PendingRun, RunOutcome};

use super::routed_version::RoutedVersion;

/// A run that a request waits for. Dropped before its end, because the request is late or its client left, it is booked when it
/// ends.
pub struct AwaitedRun {
    /// `None` once it is over.
    run: Option<PendingRun>,
    routed: RoutedVersion,
}

impl AwaitedRun {
    /// A run for a request that was routed there.
    pub fn new(run: PendingRun, routed: RoutedVersion) -> AwaitedRun {
        AwaitedRun { run: Some(run), routed }
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
        let routed = self.routed.clone();
        tokio::task::spawn_local(async move {
            let run_ns = outcome.await.ok().map(|outcome| outcome.run_ns).filter(|&ns| ns > 0);
            if let Some(run_ns) = run_ns {
                let shard = routed.shard();
                shard.run.record(run_ns);
                shard.runs.add(1);
            }
        });
    }
}
