//! What is booked on a version when its request no longer waits for it: runs that went on, and what a probe finds out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{self, Poll, ready};
use std::time::Duration;

use headgate_core::breaker::{BreakerPermit, HealthSignal};
use headgate_core::error::Result;
use headgate_engine::{Outcome, Pending};

use super::Account;
use crate::serving::shared::LiveEndpoint;
use crate::thread::io;

impl Account {
    /// The outcome of a run on a pool thread. Whoever stops waiting, late or left, leaves a run that is booked when it ends.
    pub fn awaits(&self, run: Pending) -> Awaited {
        let (endpoint, version, thread) = (self.endpoint.clone(), self.version, self.waiter.thread);
        Awaited { run: Some(run), endpoint, version, thread }
    }

    /// What tells the breaker later what this says about the version, where that takes time to find out.
    pub fn report_later(&mut self) -> Option<Report> {
        let pass = self.pass.take()?;
        let (endpoint, version, thread) = (self.endpoint.clone(), self.version, self.waiter.thread);
        Some(Report { pass: Some(pass), endpoint, version, thread })
    }

    /// Whatever the answer is, it says nothing about the version.
    pub fn excuse(&mut self) {
        drop(self.report_later());
    }

    /// The time that the document gives the version, if a run was going on when it was over.
    pub fn overran_within(&self) -> Option<Duration> {
        let own = (!self.direct && self.version == self.first).then_some(self.endpoint.fallback.after);
        let timeout = self.endpoint.timeout;
        (self.ours && self.overran).then(|| own.flatten().map_or(timeout, |after| after.min(timeout)))
    }
}

/// A run that is waited for.
pub struct Awaited {
    /// `None` once it is over.
    run: Option<Pending>,
    endpoint: Arc<LiveEndpoint>,
    version: u8,
    thread: usize,
}

impl Awaited {
    /// Whether the run has begun.
    pub fn has_begun(&self) -> bool {
        self.run.as_ref().is_none_or(Pending::has_begun)
    }
}

impl Future for Awaited {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Self::Output> {
        let Some(run) = &mut self.run else { return Poll::Pending };
        let outcome = ready!(Pin::new(run).poll(cx));
        self.run = None;
        Poll::Ready(outcome)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let Some(outcome) = self.run.take().and_then(Pending::cancel) else { return };
        let (endpoint, version, thread) = (self.endpoint.clone(), self.version, self.thread);
        tokio::task::spawn_local(async move {
            let ran = outcome.await.ok().map(|outcome| outcome.run_ns).filter(|&ns| ns > 0);
            if let Some(run_ns) = ran {
                let shard = endpoint.versions[version as usize].payload.metrics.shard(thread);
                shard.run.record(run_ns);
                shard.runs.add(1);
            }
        });
    }
}

/// What is still to be told to a version's breaker; nothing is, where it is dropped before.
pub struct Report {
    pass: Option<BreakerPermit>,
    endpoint: Arc<LiveEndpoint>,
    version: u8,
    thread: usize,
}

impl Report {
    /// Tells it.
    pub fn tell(mut self, verdict: HealthSignal) {
        self.say(verdict);
    }

    fn say(&mut self, verdict: HealthSignal) {
        let version = &self.endpoint.versions[self.version as usize];
        let (Some(breaker), Some(pass)) = (&version.payload.breaker, self.pass.take()) else { return };
        io::try_with(|io| breaker.report(pass, verdict, self.thread, io.shared.now_ns()));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.say(HealthSignal::Neutral);
    }
}
