//! Pool threads: runs that are too long for an IO thread, and batches.
//!
//! Each version has a queue of its own (`lane`), and versions take turns. Jobs whose requester has left, or whose deadline
//! has passed, are dropped before they cost a run. What does not fit is refused at once.
//!
//! Not here: the threads of models on a device (`crew`).
#![allow(unsafe_code, reason = "a run in the air reads and writes buffers that somebody else holds")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};
use headgate_runtime::device::Flight;
use tokio::sync::oneshot;

use crate::batch::{Batch, Seat};
use crate::lane::{Lane, Waits};
use crate::model::{Lease, Model};
use crate::probe::{self, Asked, Probe};

/// Jobs that may wait for a pool thread, for each of them.
const QUEUE_PER_THREAD: usize = 256;
/// Jobs that a version may have waiting whatever others have.
const FEW: usize = 4;

/// What a version's queue holds.
pub(crate) enum Work {
    /// A run that somebody waits for.
    Run(Job),
    /// Requests that are run together.
    Batch(Arc<Batch>),
    /// What tells whether the version still works.
    Probe(Probe),
}

/// Who waits for a run.
#[derive(Clone, Copy, Debug)]
pub struct Waiter {
    /// The IO thread.
    pub thread: usize,
    /// When it is of no use any more.
    pub deadline: Instant,
    /// Its class; 0 is run first.
    pub class: u8,
}

/// One request's run.
pub(crate) struct Job {
    lease: Lease,
    deadline: Instant,
    class: u8,
    queued: Instant,
    reply: oneshot::Sender<Outcome>,
    stage: Arc<Stage>,
}

/// How far a run is: either it begins or it is cancelled, never both.
#[derive(Default)]
struct Stage(AtomicU8);

impl Stage {
    const QUEUED: u8 = 0;
    const BEGUN: u8 = 1;
    const CANCELLED: u8 = 2;

    /// Takes it out of the queue; false when somebody has.
    fn leave(&self, to: u8) -> bool {
        self.0.compare_exchange(Self::QUEUED, to, Relaxed, Relaxed).is_ok()
    }
}

/// A run on its way; resolves to its outcome. Dropping it cancels a run that has not begun.
pub struct Pending {
    outcome: oneshot::Receiver<Outcome>,
    stage: Arc<Stage>,
}

impl Pending {
    /// Whether the run has begun.
    pub fn has_begun(&self) -> bool {
        self.stage.0.load(Relaxed) == Stage::BEGUN
    }

    /// Cancels the run, or gives what resolves when it ends, if it has begun.
    pub fn cancel(self) -> Option<oneshot::Receiver<Outcome>> {
        (!self.stage.leave(Stage::CANCELLED)).then_some(self.outcome)
    }
}

impl Future for Pending {
    type Output = Result<Outcome>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let lost = |_| Error::new(Code::Internal, "a pool thread gave no outcome");
        Pin::new(&mut self.outcome).poll(cx).map_err(lost)
    }
}

/// What became of a job: the buffers come back whatever happened.
pub struct Outcome {
    /// The buffers, outputs filled when `result` is fine.
    pub lease: Lease,
    /// Whether the run succeeded.
    pub result: Result<()>,
    /// How long the job waited for a thread, in nanoseconds.
    pub queue_ns: u64,
    /// How long the run took, in nanoseconds; 0 when there was none.
    pub run_ns: u64,
}

/// Tells IO threads that somebody's outcome is there: once for a batch and not for each request in it.
pub trait Doorbell: Send + Sync {
    /// Has IO thread `thread` call [`Batch::wake`]; false when it cannot be told.
    fn ring(&self, thread: usize, batch: Arc<Batch>) -> bool;
}

/// The right to run the next piece of a version's work.
enum Token {
    Lane(Arc<Lane<Work>>),
    /// The end of the thread that takes it.
    Stop,
}

/// The threads and their queue.
pub struct Pool {
    inner: Arc<Inner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What all threads that run models need.
pub struct Desk {
    /// Jobs and batches that wait.
    pub(crate) waiting: AtomicUsize,
    /// Threads of crews that live.
    pub(crate) crews: AtomicUsize,
    pub(crate) doorbell: Box<dyn Doorbell>,
}

struct Inner {
    /// As many tokens as versions may run at a time, at most one for each piece of work that waits.
    tokens: Sender<Token>,
    taken: Receiver<Token>,
    most_waiting: usize,
    stopping: AtomicBool,
    desk: Arc<Desk>,
}

impl Pool {
    /// A queue for `threads` threads, without the threads.
    pub fn new(threads: usize, doorbell: Box<dyn Doorbell>) -> Pool {
        let (tokens, taken) = unbounded();
        let most_waiting = threads.max(1) * QUEUE_PER_THREAD;
        let desk = Desk { waiting: AtomicUsize::new(0), crews: AtomicUsize::new(0), doorbell };
        let inner = Inner { tokens, taken, most_waiting, stopping: false.into(), desk: Arc::new(desk) };
        Pool { inner: Arc::new(inner), threads: Mutex::default() }
    }

    /// What models with threads of their own need.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.inner.desk
    }

    /// Starts `threads` threads.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(&self, threads: usize) -> Result<()> {
        let started = (0..threads.max(1)).map(|index| {
            let inner = self.inner.clone();
            std::thread::Builder::new()
                .name(format!("hg-pool-{index}"))
                .spawn(move || inner.work())
                .map_err(|error| Error::new(Code::Internal, format!("no thread for the pool: {error}")))
        });
        let started = started.collect::<Result<Vec<_>>>()?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).extend(started);
        Ok(())
    }

    /// Hands a run over.
    ///
    /// # Errors
    /// `overloaded` when too many wait, or the version sheds; the lease goes home.
    pub fn submit(&self, lease: Lease, waiter: Waiter) -> Result<Pending> {
        let Waiter { deadline, class, .. } = waiter;
        if lease.model().lane().waiting(class) >= self.room(class) {
            return Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"));
        }
        lease.model().admit(class)?;
        let (reply, outcome) = oneshot::channel();
        let model = lease.model().clone();
        let (queued, stage) = (Instant::now(), Arc::<Stage>::default());
        let job = Job { lease, deadline, class, queued, reply, stage: stage.clone() };
        self.inner.push(&model, Work::Run(job));
        Ok(Pending { outcome, stage })
    }

    /// How many jobs of a class and those above it a version may have waiting: as many as others leave free, so that one that takes
    /// all it can leaves half to whoever comes, and two a third (Choudhury and Hahne, 1998). Each class leaves half of that to those
    /// above it.
    fn room(&self, class: u8) -> usize {
        let free = self.inner.most_waiting.saturating_sub(self.inner.desk.waiting.load(Relaxed));
        (free >> class).max(FEW)
    }

    /// A request's rows are in its batch: hands the batch over, unless somebody has. Batches are bounded where they are made.
    pub fn ready(&self, seat: &mut Seat) {
        if let Some(batch) = seat.ready() {
            let model = batch.model().clone();
            self.inner.push(&model, Work::Batch(batch));
        }
    }

    /// Whether a model works, as far as that is known, else a probe is on its way. `None` for a model of which no input is known
    /// that it takes.
    ///
    /// A probe is never refused: there is one for each model at most.
    pub fn probe(&self, model: &Arc<Model>) -> Option<Asked> {
        if !model.probes().are_possible() {
            return None;
        }
        let asked = model.probes().ask(Instant::now());
        if matches!(asked, Asked::Begun(_)) {
            self.inner.push(model, Work::Probe(Probe::new(model.clone())));
        }
        Some(asked)
    }

    /// The number of jobs and batches waiting.
    pub fn waiting(&self) -> usize {
        self.inner.desk.waiting.load(Relaxed)
    }

    /// Finishes what is queued and joins the threads; true when all were gone by `deadline`. A thread that is still in a run
    /// then is left to itself: a run cannot be interrupted. Stop the submitters first.
    pub fn stop(&self, deadline: Instant) -> bool {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.stopping.store(true, Relaxed);
        for _ in &threads {
            // The channel has a receiver in `inner`.
            drop(self.inner.tokens.send(Token::Stop));
        }
        let joined = threads
            .into_iter()
            .map(|thread| join_until(thread, deadline).is_some())
            .fold(true, |all, one| all & one);
        // Crews end with their models.
        joined & wait_until(deadline, || self.inner.desk.crews.load(Relaxed) == 0)
    }
}

/// What a thread returned, or `None` when it outlives `deadline` and is let go of, or panicked.
pub fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    wait_until(deadline, || thread.is_finished()).then(|| thread.join().ok()).flatten()
}

/// Waits for what tells nobody; false when it is not so by `deadline`.
fn wait_until(deadline: Instant, mut holds: impl FnMut() -> bool) -> bool {
    const STEP: Duration = Duration::from_millis(1);
    while !holds() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(STEP);
    }
    true
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

impl Inner {
    fn push(&self, model: &Model, work: Work) {
        self.desk.waiting.fetch_add(1, Relaxed);
        let lane = model.lane();
        match model.crew() {
            _ if !lane.push(work) => {}
            Some(crew) => crew.call(lane.clone()),
            None => self.send(Token::Lane(lane.clone())),
        }
    }

    fn send(&self, token: Token) {
        // The channel has no bound, and a receiver in `self`.
        drop(self.tokens.send(token));
    }

    /// A pool thread's life.
    fn work(&self) {
        while let Ok(Token::Lane(lane)) = self.taken.recv() {
            self.turn(lane);
        }
        // Whatever got behind the word to stop is finished as well; another thread's word is passed on.
        while let Ok(token) = self.taken.try_recv() {
            match token {
                Token::Lane(lane) => self.turn(lane),
                Token::Stop => {
                    self.send(Token::Stop);
                    break;
                }
            }
        }
    }

    /// One piece of a version's work; the rest of it after other versions had their turn.
    fn turn(&self, lane: Arc<Lane<Work>>) {
        loop {
            let Some(work) = lane.next(Instant::now()) else { return };
            self.desk.waiting.fetch_sub(1, Relaxed);
            let class = work.class();
            let (wait_ns, run_ns) = match work {
                Work::Run(job) => job.run(),
                Work::Batch(batch) => batch.run(&*self.desk.doorbell),
                Work::Probe(probe) => probe.run(None),
            };
            if !lane.finish(class, wait_ns, run_ns) {
                return;
            }
            if run_ns == 0 {
                // What was of no use is not the version's turn: else what expired in one class would keep those above it waiting.
                continue;
            }
            if !self.stopping.load(Relaxed) {
                return self.send(Token::Lane(lane));
            }
        }
    }
}

impl Work {
    /// Whether it is begun while a run before it computes: a batch that has room grows instead.
    pub(crate) fn goes_ahead(&self) -> bool {
        match self {
            Work::Run(_) => true,
            Work::Batch(batch) => batch.is_full(),
            Work::Probe(_) => false,
        }
    }
}

impl Waits for Work {
    fn came(&self) -> Instant {
        match self {
            Work::Run(job) => job.queued,
            Work::Batch(batch) => batch.came(),
            Work::Probe(probe) => probe.queued,
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Work::Run(job) => (!job.reply.is_closed()).then_some(job.deadline),
            Work::Batch(batch) => batch.until(),
            Work::Probe(probe) => Some(probe.queued + probe::PATIENCE),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Work::Run(job) => job.class,
            Work::Batch(batch) => batch.class(),
            Work::Probe(_) => 0,
        }
    }
}

impl Job {
    /// Runs it, unless nobody wants it any more; how long it waited and ran, in nanoseconds.
    fn run(self) -> (u64, u64) {
        let Some(mut job) = self.start() else { return (0, 0) };
        let begun = Instant::now();
        let result = job.lease.run();
        job.over(result, begun, nanos(begun.elapsed()))
    }

    /// The job, unless nobody wants it any more.
    fn start(self) -> Option<Job> {
        if self.reply.is_closed() || !self.stage.leave(Stage::BEGUN) {
            return None;
        }
        let now = Instant::now();
        if now >= self.deadline {
            self.over(Err(late()), now, 0);
            return None;
        }
        Some(self)
    }

    /// Tells the outcome of a run that began then; how long the job waited and ran, in nanoseconds.
    fn over(self, result: Result<()>, begun: Instant, run_ns: u64) -> (u64, u64) {
        let queue_ns = nanos(begun - self.queued);
        // A requester that left meanwhile gets nothing; the lease in the outcome goes home either way.
        drop(self.reply.send(Outcome { lease: self.lease, result, queue_ns, run_ns }));
        (queue_ns, run_ns)
    }

    /// Begins it on the thread of an instance; `None` when nobody wants it any more.
    pub(crate) fn begin(self, instance: usize) -> Option<(Job, Result<Flight>)> {
        let mut job = self.start()?;
        // SAFETY: the job keeps the lease to itself until `land`.
        let flight = unsafe { job.lease.begin(instance) };
        Some((job, flight))
    }

    /// Ends what [`Job::begin`] began at `begun`; how long the job waited and ran, in nanoseconds.
    pub(crate) fn land(
        mut self,
        (flight, instance): (Result<Flight>, usize),
        begun: Instant,
        run_ns: impl FnOnce() -> u64,
    ) -> (u64, u64) {
        let result = flight.and_then(|flight| self.lease.finish(instance, flight));
        self.over(result, begun, run_ns())
    }
}

/// The refusal of a request that waited too long.
pub(crate) fn late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for a thread")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
