//! Pool threads: runs that are too long for an IO thread, and batches.
//!
//! Each version has a queue of its own (`lane`), and versions take turns. Jobs whose requester has left, or whose deadline
//! has passed, are dropped before they cost a run. What does not fit is refused at once.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};
use tokio::sync::oneshot;

use crate::batch::{Batch, Seat};
use crate::lane::{Lane, Waits};
use crate::model::Lease;

/// Jobs that may wait for a pool thread, for each of them.
const QUEUE_PER_THREAD: usize = 256;

/// What a version's queue holds.
pub(crate) enum Work {
    /// A run that somebody waits for.
    Run(Job),
    /// Requests that are run together.
    Batch(Arc<Batch>),
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

struct Inner {
    /// As many tokens as versions may run at a time, at most one for each piece of work that waits.
    tokens: Sender<Token>,
    taken: Receiver<Token>,
    waiting: AtomicUsize,
    most_waiting: usize,
    stopping: AtomicBool,
    doorbell: Box<dyn Doorbell>,
}

impl Pool {
    /// A queue for `threads` threads, without the threads.
    pub fn new(threads: usize, doorbell: Box<dyn Doorbell>) -> Pool {
        let (tokens, taken) = unbounded();
        let most_waiting = threads.max(1) * QUEUE_PER_THREAD;
        let (waiting, stopping) = (AtomicUsize::new(0), AtomicBool::new(false));
        let inner = Inner { tokens, taken, waiting, most_waiting, stopping, doorbell };
        Pool { inner: Arc::new(inner), threads: Mutex::default() }
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
        // Each class leaves half of what it may fill to those above it.
        if self.inner.waiting.load(Relaxed) >= self.inner.most_waiting >> class {
            return Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"));
        }
        lease.model().admit(class)?;
        let (reply, outcome) = oneshot::channel();
        let lane = lease.model().lane().clone();
        let (queued, stage) = (Instant::now(), Arc::<Stage>::default());
        let job = Job { lease, deadline, class, queued, reply, stage: stage.clone() };
        self.inner.push(&lane, Work::Run(job));
        Ok(Pending { outcome, stage })
    }

    /// A request's rows are in its batch: hands the batch over, unless somebody has. Batches are bounded where they are made.
    pub fn ready(&self, seat: &mut Seat) {
        if let Some(batch) = seat.ready() {
            let lane = batch.model().lane().clone();
            self.inner.push(&lane, Work::Batch(batch));
        }
    }

    /// The number of jobs and batches waiting.
    pub fn waiting(&self) -> usize {
        self.inner.waiting.load(Relaxed)
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
        threads
            .into_iter()
            .map(|thread| join_until(thread, deadline).is_some())
            .fold(true, |all, one| all & one)
    }
}

/// What a thread returned, or `None` when it outlives `deadline` and is let go of, or panicked.
pub fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    const STEP: Duration = Duration::from_millis(1);
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(STEP);
    }
    thread.join().ok()
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}

impl Inner {
    fn push(&self, lane: &Arc<Lane<Work>>, work: Work) {
        self.waiting.fetch_add(1, Relaxed);
        if lane.push(work) {
            self.send(Token::Lane(lane.clone()));
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
            self.waiting.fetch_sub(1, Relaxed);
            let class = work.class();
            let (wait_ns, run_ns) = match work {
                Work::Run(job) => job.run(),
                Work::Batch(batch) => batch.run(&*self.doorbell),
            };
            if !lane.finish(class, wait_ns, run_ns) {
                return;
            }
            if !self.stopping.load(Relaxed) {
                return self.send(Token::Lane(lane));
            }
        }
    }
}

impl Waits for Work {
    fn span(&self) -> Option<(Instant, Instant)> {
        match self {
            Work::Run(job) => (!job.reply.is_closed()).then_some((job.queued, job.deadline)),
            Work::Batch(batch) => batch.span(),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Work::Run(job) => job.class,
            Work::Batch(batch) => batch.class(),
        }
    }
}

impl Job {
    /// Runs it, unless nobody wants it any more; how long it waited and ran, in nanoseconds.
    fn run(self) -> (u64, u64) {
        let Job { mut lease, deadline, queued, reply, stage, .. } = self;
        if reply.is_closed() || !stage.leave(Stage::BEGUN) {
            return (0, 0);
        }
        let start = Instant::now();
        let queue_ns = nanos(start - queued);
        let (result, run_ns) = if start >= deadline {
            (Err(late()), 0)
        } else {
            let result = lease.run();
            (result, nanos(start.elapsed()))
        };
        // A requester that left meanwhile gets nothing; the lease in the outcome goes home either way.
        drop(reply.send(Outcome { lease, result, queue_ns, run_ns }));
        (queue_ns, run_ns)
    }
}

/// The refusal of a request that waited too long.
pub(crate) fn late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for a thread")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
