//! Pool threads: runs that are too long for an IO thread, and batches.
//!
//! Each version has a queue of its own (`lane`), and versions take turns. Jobs whose requester has left, or whose deadline
//! has passed, are dropped before they cost a run. What does not fit is refused at once.
//!
//! Not here: one run (`job`), how many threads there are (`staff`), the threads of models on a device (`crew`).
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use headgate_core::error::{Code, Error, Result};

use crate::batch::{Batch, Seat};
use crate::job::{Job, Pending, Waiter};
use crate::lane::{Lane, Waits};
use crate::lease::Lease;
use crate::model::Model;
use crate::probe::{self, Asked, Probe};
use crate::runner::{On, Runner};
use crate::staff::{Staff, ThreadCounts};

/// Threads beyond those that a single version may hold: what others have of the pool, whatever one of them does.
const SPARE: usize = 1;
/// How long a thread that is one too many waits for work before it ends.
const IDLE: Duration = Duration::from_secs(1);
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
    staff: Staff,
}

impl Pool {
    /// A queue for `threads` threads, without the threads.
    pub fn new(threads: usize, doorbell: Box<dyn Doorbell>) -> Pool {
        let (tokens, taken) = unbounded();
        let most_waiting = threads.max(1) * QUEUE_PER_THREAD;
        let desk = Desk { waiting: AtomicUsize::new(0), crews: AtomicUsize::new(0), doorbell };
        let (stopping, desk, staff) = (false.into(), Arc::new(desk), Staff::new(threads.max(1) + SPARE));
        Pool { inner: Arc::new(Inner { tokens, taken, most_waiting, stopping, desk, staff }) }
    }

    /// What models with threads of their own need.
    pub fn desk(&self) -> &Arc<Desk> {
        &self.inner.desk
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(&self) -> Result<()> {
        (0..self.inner.staff.base()).try_for_each(|_| self.add_thread())
    }

    fn add_thread(&self) -> Result<()> {
        let inner = self.inner.clone();
        self.inner.staff.add(move |runner| inner.work(runner))
    }

    /// Looks at the threads at `now`: cancels runs that are of no use any more, and adds a thread where one does not come back from
    /// its run, or where all have been in a run for a while and work waits.
    pub fn watch(&self, now: Instant) {
        let waits = !self.inner.taken.is_empty();
        for _ in 0..self.inner.staff.look(now, waits) {
            // The system gives no more threads: the next look tries again.
            let _ = self.add_thread();
        }
    }

    /// How many threads there are, and how many of them are held by runs that do not end.
    pub fn threads(&self) -> ThreadCounts {
        self.inner.staff.counts()
    }

    /// Hands a run over.
    ///
    /// # Errors
    /// `overloaded` when too many wait, or the version sheds; the lease goes home.
    pub fn submit(&self, lease: Lease, waiter: Waiter) -> Result<Pending> {
        let class = waiter.class;
        if lease.model().lane().waiting(class) >= self.room(class) {
            return Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"));
        }
        lease.model().admit(class)?;
        let model = lease.model().clone();
        let (job, pending) = Job::new(lease, waiter);
        self.inner.push(&model, Work::Run(job));
        Ok(pending)
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

    /// Finishes what is queued and joins the threads; true when all were gone by `deadline`. A run that is still in progress then is
    /// cancelled, and one that does not end is left to itself. Stop the submitters first.
    pub fn stop(&self, deadline: Instant) -> bool {
        self.inner.stopping.store(true, Relaxed);
        let joined = self.inner.staff.stop(deadline, || self.inner.send(Token::Stop));
        // Crews end with their models.
        joined & wait_until(deadline, || self.inner.desk.crews.load(Relaxed) == 0)
    }
}

/// What a thread returned, or `None` when it outlives `deadline` and is let go of, or panicked.
pub fn join_until<T>(thread: JoinHandle<T>, deadline: Instant) -> Option<T> {
    wait_until(deadline, || thread.is_finished()).then(|| thread.join().ok()).flatten()
}

/// Waits for what tells nobody; false when it is not so by `deadline`.
pub(crate) fn wait_until(deadline: Instant, mut holds: impl FnMut() -> bool) -> bool {
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
    fn work(&self, runner: &Runner) {
        while let Some(Token::Lane(lane)) = self.next() {
            self.turn(lane, runner);
            self.staff.come_back(runner);
        }
        if !self.stopping.load(Relaxed) {
            return;
        }
        // Whatever got behind the word to stop is finished as well; another thread's word is passed on.
        while let Ok(token) = self.taken.try_recv() {
            match token {
                Token::Lane(lane) => self.turn(lane, runner),
                Token::Stop => {
                    self.send(Token::Stop);
                    break;
                }
            }
        }
    }

    /// What a thread does next; `None` ends it: there is one more than need be, and nothing to do for it.
    fn next(&self) -> Option<Token> {
        while self.staff.has_extra() {
            match self.taken.recv_timeout(IDLE) {
                Err(RecvTimeoutError::Timeout) if self.staff.leave() => return None,
                Err(RecvTimeoutError::Timeout) => {}
                token => return token.ok(),
            }
        }
        self.taken.recv().ok()
    }

    /// One piece of a version's work; the rest of it after other versions had their turn.
    fn turn(&self, lane: Arc<Lane<Work>>, runner: &Runner) {
        loop {
            let Some(work) = lane.next(Instant::now()) else { return };
            self.desk.waiting.fetch_sub(1, Relaxed);
            let class = work.class();
            let (wait_ns, run_ns) = match work {
                Work::Run(job) => job.run(runner),
                Work::Batch(batch) => batch.run(runner, &*self.desk.doorbell),
                Work::Probe(probe) => probe.run(On::Thread(runner)),
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
            Work::Run(job) => job.came(),
            Work::Batch(batch) => batch.came(),
            Work::Probe(probe) => probe.queued,
        }
    }

    fn until(&self) -> Option<Instant> {
        match self {
            Work::Run(job) => job.until(),
            Work::Batch(batch) => batch.until(),
            Work::Probe(probe) => Some(probe.queued + probe::PATIENCE),
        }
    }

    fn class(&self) -> u8 {
        match self {
            Work::Run(job) => job.class(),
            Work::Batch(batch) => batch.class(),
            Work::Probe(_) => 0,
        }
    }
}

/// The refusal of a request that waited too long.
pub(crate) fn late() -> Error {
    Error::new(Code::DeadlineExceeded, "the deadline passed while the request waited for a thread")
}

pub(crate) fn nanos(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
