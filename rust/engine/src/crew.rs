//! The threads of a model that computes on a device: one for each instance, and two runs of it in the air, so that the inputs
//! of the next are on their way while one computes.
//!
//! ```text
//! take the next --> begin it --> finish the one before --> take the next ...      nothing waits: finish, then wait for work
//! ```
//! A batch that still has room is not begun ahead: it grows for as long as the run before it takes.
//!
//! Next: `pool`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};
use headgate_runtime::device::Flight;

use crate::batch::{Batch, Closed};
use crate::job::Job;
use crate::lane::{Lane, Waits};
use crate::pool::{Desk, Work, nanos};
use crate::runner::On;

/// Runs of an instance that one crew has in the air at most.
pub(crate) const IN_THE_AIR: usize = 2;

/// The way to a model's threads, which end when this is dropped.
pub(crate) struct Crew {
    /// The lane once for each piece of work that may be taken from it.
    tokens: Sender<Arc<Lane<Work>>>,
}

impl Crew {
    /// Starts a thread for each instance.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub(crate) fn new(instances: usize, desk: &Arc<Desk>) -> Result<Crew> {
        let (tokens, taken) = unbounded();
        for instance in 0..instances {
            let (taken, desk) = (taken.clone(), desk.clone());
            let counted = Counted::new(desk.clone());
            std::thread::Builder::new()
                .name(format!("hg-device-{instance}"))
                .spawn(move || {
                    let _counted = counted;
                    Thread { instance, desk, landed: Instant::now() }.work(&taken);
                })
                .map_err(|error| Error::new(Code::Internal, format!("no thread for a device: {error}")))?;
        }
        Ok(Crew { tokens })
    }

    /// Has a thread take a piece of work from the lane.
    pub(crate) fn call(&self, lane: Arc<Lane<Work>>) {
        // The threads hold receivers for as long as this lives.
        drop(self.tokens.send(lane));
    }
}

/// A thread that lives, however it ends.
struct Counted(Arc<Desk>);

impl Counted {
    fn new(desk: Arc<Desk>) -> Counted {
        desk.crews.fetch_add(1, Relaxed);
        Counted(desk)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.crews.fetch_sub(1, Relaxed);
    }
}

/// One instance's thread.
struct Thread {
    instance: usize,
    desk: Arc<Desk>,
    /// When the run before ended: the next one computes from then on, whenever it was begun.
    landed: Instant,
}

/// Work that was begun.
struct Begun {
    lane: Arc<Lane<Work>>,
    class: u8,
    at: Instant,
    what: What,
}

enum What {
    /// Nobody wanted it any more.
    Nothing,
    Run(Box<Job>, Result<Flight>),
    Batch(Arc<Batch>, Closed<'static>),
}

impl Thread {
    fn work(mut self, taken: &Receiver<Arc<Lane<Work>>>) {
        let mut kept: Vec<Arc<Lane<Work>>> = Vec::new();
        let mut flying: Option<Begun> = None;
        loop {
            let token = match (kept.pop(), &flying) {
                (None, None) => match taken.recv() {
                    Ok(lane) => Some(lane),
                    Err(_) => return,
                },
                (None, Some(_)) => taken.try_recv().ok(),
                (token, _) => token,
            };
            if let Some(lane) = &token
                && flying.is_some()
                && !lane.next_is(Work::goes_ahead)
            {
                kept.extend(self.finish(flying.take()));
            }
            let begun = token.and_then(|lane| self.begin(lane, flying.is_none()));
            let landed = if begun.is_some() { std::mem::replace(&mut flying, begun) } else { flying.take() };
            kept.extend(self.finish(landed));
        }
    }

    /// Takes the next piece of work and begins it. A batch waits for rows only while nothing computes.
    fn begin(&self, lane: Arc<Lane<Work>>, idle: bool) -> Option<Begun> {
        let work = lane.next(Instant::now())?;
        self.desk.waiting.fetch_sub(1, Relaxed);
        let class = work.class();
        let what = match work {
            Work::Run(job) => match job.begin(self.instance) {
                Some((job, flight)) => What::Run(Box::new(job), flight),
                None => What::Nothing,
            },
            Work::Batch(batch) => {
                let closed = batch.begin(On::Instance(self.instance), idle);
                What::Batch(batch, closed)
            }
            Work::Probe(probe) => {
                // Nothing is in the air: a probe does not go ahead.
                probe.run(On::Instance(self.instance));
                What::Nothing
            }
        };
        Some(Begun { lane, class, at: Instant::now(), what })
    }

    /// Ends what was begun; the lane, when more waits in it.
    fn finish(&mut self, begun: Option<Begun>) -> Option<Arc<Lane<Work>>> {
        let Begun { lane, class, at, what } = begun?;
        let since = at.max(self.landed);
        let run_ns = || nanos(since.elapsed()).max(1);
        let (wait_ns, run_ns) = match what {
            What::Nothing => (0, 0),
            What::Run(job, flight) => job.land((flight, self.instance), at, run_ns),
            What::Batch(batch, closed) => batch.finish(closed, Some(since), &*self.desk.doorbell),
        };
        self.landed = Instant::now();
        lane.finish(class, wait_ns, run_ns).then_some(lane)
    }
}
