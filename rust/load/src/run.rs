//! A run: made from a plan, started once, looked at while it lasts, stopped or ended.
//!
//! Read next: `worker` (a thread), `report` (what a look tells).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};
use serde_json::Value;

use crate::checks::{Checks, FirstAnswers};
use crate::client_limits::MachineTimes;
use crate::desk::{Desk, DeskParts};
use crate::ledger::{Ledger, Memory, collect, into_records};
use crate::plan::{Arrivals, LONGEST_NS, Load, Plan, Wait};
use crate::poller::{Clock, Poller, Waker};
use crate::prepared::{self, Prepared, Target};
use crate::records::Records;
use crate::report::{Detail, Report, Seen};
use crate::schedule::{Part, Schedule};
use crate::sockets;
use crate::source::{Draw, Source};
use crate::summary::Question;
use crate::switches::{LEAD_NS, Switches};
use crate::thread_state::ThreadState;
use crate::worker::{Pool, Worker};

/// Requests of a look at a run that goes on; of more, the newest count. The whole run is in the result.
const MOST_LOOKED: usize = 2_000_000;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A load that is sent once.
pub struct LoadRun {
    plan: Plan,
    groups: Vec<String>,
    targets: Vec<Target>,
    prepared: Arc<[Prepared]>,
    schedule: Option<Schedule>,
    states: Vec<Arc<ThreadState>>,
    switches: Arc<Switches>,
    wakers: Vec<Waker>,
    progress: Mutex<Progress>,
}

/// How far a run is.
enum Progress {
    /// The rows that each thread may write.
    Made(Vec<usize>),
    Running(Running),
    Finished(Finished),
}

struct Running {
    clock: Clock,
    ledgers: Vec<Arc<Ledger>>,
    threads: Vec<JoinHandle<()>>,
    before: MachineTimes,
}

struct Finished {
    records: Records,
    elapsed_ns: u64,
    before: MachineTimes,
    after: MachineTimes,
}

impl LoadRun {
    /// Checks a plan with the bodies of its requests; sends nothing.
    ///
    /// # Errors
    /// `invalid_argument` with the place of what is wrong in the plan, or with the number of requests that would fit.
    pub fn new(plan: &str, bodies: Vec<Vec<u8>>) -> Result<LoadRun> {
        let mut plan = Plan::parse(plan, &bodies)?;
        let bodies: Vec<Bytes> = bodies.into_iter().map(Bytes::from).collect();
        let (groups, kinds) = plan.groups();
        let targets = prepared::targets(&plan)?;
        let prepared = prepared::requests(&plan, &bodies, &kinds)?;
        let (schedule, rows) = rows_of(&mut plan)?;
        plan.wait = chosen_wait(&plan);
        let system = |error| Error::new(Code::Internal, format!("the run cannot be made: {error}"));
        let wakers =
            (0..plan.threads).map(|_| Waker::new()).collect::<std::io::Result<_>>().map_err(system)?;
        Ok(LoadRun {
            states: (0..plan.threads).map(|_| Arc::default()).collect(),
            plan,
            groups,
            targets,
            prepared,
            schedule,
            switches: Arc::default(),
            wakers,
            progress: Mutex::new(Progress::Made(rows)),
        })
    }

    /// Takes the memory of the records and starts the threads. The first request is due shortly after.
    ///
    /// # Errors
    /// `conflict` if it was started before, `internal` if the system gives no thread.
    pub fn start(&self) -> Result<()> {
        let mut progress = lock(&self.progress);
        let Progress::Made(rows) = &*progress else {
            return Err(Error::new(Code::Conflict, "this run was started before; make another one"));
        };
        sockets::allow_descriptors(self.plan.max_in_flight);
        let memory = if self.schedule.is_some() { Memory::Now } else { Memory::WhenNeeded };
        let ledgers: Vec<Arc<Ledger>> =
            rows.iter().map(|&rows| Arc::new(Ledger::new(rows, memory))).collect();
        let mut running = Running {
            clock: Clock::starting_in(LEAD_NS),
            ledgers,
            threads: Vec::with_capacity(self.plan.threads),
            before: MachineTimes::now(),
        };
        let first_answers = Arc::new(FirstAnswers::new(self.prepared.len()));
        let draw = Draw::new(&self.plan);
        for thread in 0..self.plan.threads {
            let started = self.start_thread(thread, &running, &first_answers, &draw);
            running.threads.push(started.map_err(|error| {
                self.end_now();
                Error::new(Code::Internal, format!("a thread that sends cannot be started: {error}"))
            })?);
        }
        *progress = Progress::Running(running);
        Ok(())
    }

    fn start_thread(
        &self,
        thread: usize,
        running: &Running,
        first_answers: &Arc<FirstAnswers>,
        draw: &Draw,
    ) -> std::io::Result<JoinHandle<()>> {
        let Plan { threads, max_in_flight, timeout_ns, wait, .. } = self.plan;
        let share = |all: usize| all / threads + usize::from(thread < all % threads);
        let clock = running.clock;
        let desk = DeskParts {
            clock,
            ledger: Arc::clone(&running.ledgers[thread]),
            state: Arc::clone(&self.states[thread]),
            prepared: Arc::clone(&self.prepared),
            timeout_ns,
            max_in_flight: share(max_in_flight),
            checks: Checks::new(Arc::clone(first_answers)),
        };
        let source = match (&self.schedule, &self.plan.load) {
            (Some(schedule), _) => Source::open(schedule.of_thread(thread, threads), draw.clone()),
            (None, Load::Closed(closed)) => Source::closed(closed, thread, threads, draw.clone()),
            (None, Load::Open(_)) => unreachable!("an open loop has a schedule"),
        };
        let targets = self.targets.clone();
        let poller = Poller::new(clock, self.wakers[thread].clone())?;
        let cpu = self.plan.cpus.as_ref().map(|cpus| cpus[thread % cpus.len()]);
        let switches = Arc::clone(&self.switches);
        std::thread::Builder::new().name(format!("load-{thread}")).spawn(move || {
            // The pools are made here: they have futures that never leave the thread.
            let most = |target: &Target| target.connections.map_or(usize::MAX, |all| all.div_ceil(threads));
            let pools = targets.iter().enumerate().map(|(at, target)| Pool::new(target, at, most(target)));
            let pools = pools.collect();
            let desk = Desk::new(desk);
            let noted = Arc::clone(&switches);
            Worker { desk, source, pools, poller, clock, switches, wait, cpu }.run();
            noted.note_ended(clock.now_ns());
        })
    }

    /// What is known now, as JSON: counters, quantiles and verdicts of the requests that are settled in the order of their due times.
    ///
    /// # Errors
    /// `invalid_argument` with the place of what is wrong in the question.
    pub fn look(&self, question: &str) -> Result<Value> {
        self.answer(&Question::parse(question)?, Detail::Summary)
    }

    /// As [`LoadRun::look`], with every second and the histograms.
    ///
    /// # Errors
    /// As [`LoadRun::look`]; `conflict` before the run has finished.
    pub fn result(&self, question: &str) -> Result<Value> {
        let question = Question::parse(question)?;
        if !self.wait(Duration::ZERO) {
            return Err(Error::new(Code::Conflict, "the run has not finished; wait for it, or look at it"));
        }
        self.answer(&question, Detail::Whole)
    }

    fn answer(&self, question: &Question, detail: Detail) -> Result<Value> {
        let mut progress = lock(&self.progress);
        self.finish(&mut progress);
        match &*progress {
            Progress::Made(_) => Err(Error::new(Code::Conflict, "the run was not started")),
            Progress::Finished(finished) => {
                let Finished { records, elapsed_ns, before, after } = finished;
                let seen =
                    Seen { records, elapsed_ns: *elapsed_ns, finished: true, before: *before, after: *after };
                Ok(self.report(seen).to_json(question, detail))
            }
            Progress::Running(running) => {
                let ledgers = running.ledgers.iter().zip(&self.states);
                let ledgers: Vec<(&Ledger, bool)> = ledgers
                    .map(|(ledger, state)| (&**ledger, !state.done_sending.load(Ordering::Acquire)))
                    .collect();
                let records = collect(&ledgers, MOST_LOOKED);
                let (elapsed_ns, before) = (running.clock.now_ns(), running.before);
                drop(progress);
                let after = MachineTimes::now();
                let seen = Seen { records: &records, elapsed_ns, finished: false, before, after };
                Ok(self.report(seen).to_json(question, detail))
            }
        }
    }

    fn report<'a>(&'a self, seen: Seen<'a>) -> Report<'a> {
        Report {
            seen,
            states: &self.states,
            groups: &self.groups,
            timeout_ns: self.plan.timeout_ns,
            length_ns: self.schedule.as_ref().map(Schedule::length_ns),
            stopped: self.switches.stop.load(Ordering::Relaxed),
        }
    }

    /// Puts the records together once all threads have ended.
    fn finish(&self, progress: &mut Progress) {
        let Progress::Running(running) = progress else { return };
        let ended = lock(&self.switches.ended);
        if ended.len() < self.plan.threads {
            return;
        }
        let elapsed_ns = ended.iter().copied().max().unwrap_or(0);
        drop(ended);
        for thread in running.threads.drain(..) {
            if thread.join().is_err() {
                self.states[0].interrupt("a thread that sends failed");
            }
        }
        let ledgers = std::mem::take(&mut running.ledgers).into_iter();
        // A thread that has ended holds nothing.
        let records = into_records(ledgers.filter_map(Arc::into_inner).collect());
        let (before, after) = (running.before, MachineTimes::now());
        *progress = Progress::Finished(Finished { records, elapsed_ns, before, after });
    }

    /// Waits until everything is settled, at most for a time; whether it is.
    pub fn wait(&self, timeout: Duration) -> bool {
        if matches!(&*lock(&self.progress), Progress::Made(_)) {
            return false;
        }
        let ended = lock(&self.switches.ended);
        let waited = self
            .switches
            .one_ended
            .wait_timeout_while(ended, timeout, |ended| ended.len() < self.plan.threads);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Sends nothing more. What is in flight is awaited until its timeout.
    pub fn stop(&self) {
        self.switches.stop.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
    }

    fn end_now(&self) {
        self.switches.end_now.store(true, Ordering::Release);
        self.wakers.iter().for_each(Waker::wake);
    }
}

impl Drop for LoadRun {
    fn drop(&mut self) {
        self.end_now();
        if let Progress::Running(running) = &mut *lock(&self.progress) {
            // A thread that failed has said so.
            running.threads.drain(..).for_each(|thread| drop(thread.join()));
        }
    }
}

/// The schedule of an open loop, and how many rows each thread may write.
fn rows_of(plan: &mut Plan) -> Result<(Option<Schedule>, Vec<usize>)> {
    let threads = plan.threads;
    let shares =
        |all: usize| (0..threads).map(move |thread| all / threads + usize::from(thread < all % threads));
    let Load::Open(open) = &mut plan.load else { return Ok((None, shares(plan.max_records).collect())) };
    let [part, of] = plan.part;
    let schedule = Schedule::new(open, plan.seed, Part { first: part - 1, of });
    if let Arrivals::Trace { due_ns, requests } = &mut open.arrivals {
        // The schedule has them in order.
        (*due_ns, *requests) = (Vec::new(), None);
    }
    let expected = schedule.expected();
    // A schedule that is far too long is not counted through.
    let count =
        if expected > 2.0 * plan.max_records as f64 { expected as usize } else { schedule.of_host().count() };
    if count > plan.max_records {
        let fits_s = schedule.length_ns() as f64 / 1e9 * plan.max_records as f64 / count as f64;
        return Err(Error::invalid(format!(
            "load.open: {count} requests are due, and max_records is {}: at these rates {fits_s:.1} s fit; shorten the stages, \
             lower the rates or raise max_records",
            plan.max_records
        )));
    }
    debug_assert!(schedule.length_ns() <= LONGEST_NS + 1);
    Ok((Some(schedule), shares(count).collect()))
}

/// How threads wait: polling needs a CPU of its own for each.
fn chosen_wait(plan: &Plan) -> Wait {
    if plan.wait != Wait::Auto {
        return plan.wait;
    }
    let own = match &plan.cpus {
        Some(cpus) => {
            let mut distinct = cpus.clone();
            distinct.sort_unstable();
            distinct.dedup();
            distinct.len() >= plan.threads
        }
        // Without a place of their own, threads that poll leave half of the CPUs to the server and the rest.
        None => std::thread::available_parallelism().is_ok_and(|cpus| cpus.get() >= 2 * plan.threads + 2),
    };
    if own { Wait::Spin } else { Wait::Sleep }
}

#[cfg(test)]
mod tests;
