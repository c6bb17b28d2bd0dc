//! Pool threads: runs that are too long for an IO thread.
//!
//! A bounded queue; what does not fit is refused at once. Jobs whose requester has left, or whose deadline has passed, are
//! dropped before they cost a run.

use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use headgate_core::error::{Code, Error, Result};
use tokio::sync::oneshot;

use crate::model::Lease;

/// Jobs that may wait for a pool thread, for each of them.
const QUEUE_PER_THREAD: usize = 256;

/// What a pool thread finds in the queue.
enum Job {
    /// A run that somebody waits for.
    Run { lease: Lease, deadline: Instant, queued: Instant, reply: oneshot::Sender<Outcome> },
    /// The end of the thread that takes it.
    Stop,
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

/// The threads and their queue.
pub struct Pool {
    queue: Sender<Job>,
    jobs: Receiver<Job>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Pool {
    /// A queue for `threads` threads, without the threads.
    pub fn new(threads: usize) -> Pool {
        let (queue, jobs) = bounded(threads.max(1) * QUEUE_PER_THREAD);
        Pool { queue, jobs, threads: Mutex::default() }
    }

    /// Starts `threads` threads.
    ///
    /// # Errors
    /// `internal` when the system gives no more threads.
    pub fn start(&self, threads: usize) -> Result<()> {
        let started = (0..threads.max(1)).map(|index| {
            let jobs = self.jobs.clone();
            std::thread::Builder::new()
                .name(format!("hg-pool-{index}"))
                .spawn(move || work(&jobs))
                .map_err(|error| Error::new(Code::Internal, format!("no thread for the pool: {error}")))
        });
        let started = started.collect::<Result<Vec<_>>>()?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).extend(started);
        Ok(())
    }

    /// Hands a run over; the receiver gets the outcome. Dropping the receiver cancels a run that has not begun.
    ///
    /// # Errors
    /// `overloaded` when the queue is full; the lease goes home.
    pub fn submit(&self, lease: Lease, deadline: Instant) -> Result<oneshot::Receiver<Outcome>> {
        let (reply, outcome) = oneshot::channel();
        let job = Job::Run { lease, deadline, queued: Instant::now(), reply };
        match self.queue.try_send(job) {
            Ok(()) => Ok(outcome),
            // The pool holds a receiver itself, so the only reason is a full queue.
            Err(_) => {
                Err(Error::new(Code::Overloaded, "the queue for pool threads is full; try again later"))
            }
        }
    }

    /// The number of jobs waiting.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Finishes what is queued and joins the threads; true when all were gone by `deadline`. A thread that is still in a run
    /// then is left to itself: a run cannot be interrupted. Stop the submitters first.
    pub fn stop(&self, deadline: Instant) -> bool {
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for _ in &threads {
            // A queue that is full until the deadline has threads that do not come back before it.
            let _ = self.queue.send_deadline(Job::Stop, deadline);
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

fn work(jobs: &Receiver<Job>) {
    for job in jobs {
        let Job::Run { mut lease, deadline, queued, reply } = job else { return };
        if reply.is_closed() {
            continue;
        }
        let start = Instant::now();
        let queue_ns = nanos(start - queued);
        let (result, run_ns) = if start >= deadline {
            (
                Err(Error::new(
                    Code::DeadlineExceeded,
                    "the deadline passed while the request waited for a thread",
                )),
                0,
            )
        } else {
            let result = lease.run();
            (result, nanos(start.elapsed()))
        };
        // A requester that left meanwhile gets nothing; the lease in the outcome goes home either way.
        drop(reply.send(Outcome { lease, result, queue_ns, run_ns }));
    }
}

fn nanos(duration: std::time::Duration) -> u64 {
    duration.as_nanos().min(u128::from(u64::MAX)) as u64
}
