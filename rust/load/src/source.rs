//! What is due next: the entries of a schedule, or the clients of a closed loop that have an answer.

use std::collections::VecDeque;

use crate::desk::{Begin, Ended};
use crate::plan::{Closed, Plan};
use crate::schedule::random::{Purpose, sampled};
use crate::schedule::{Due, Entries, Mix};

/// How long a client of a closed loop waits after a request without an answer: a server that is gone would be asked a million times.
const PAUSE_NS: u64 = 10_000_000;

/// The requests of a thread.
pub(crate) struct Source {
    kind: Kind,
    draw: Draw,
    stopped: bool,
}

enum Kind {
    Open { entries: Box<Entries>, next: Option<Due> },
    Closed(Clients),
}

/// The clients of a thread.
struct Clients {
    idle: usize,
    /// When clients that pause go on.
    paused_until_ns: VecDeque<u64>,
    until_ns: u64,
    left: u64,
    /// The place of the next request among those of all threads.
    next_index: u64,
    threads: u64,
}

/// Chooses requests, and samples of them.
#[derive(Clone)]
pub(crate) struct Draw {
    mix: Mix,
    timing: (u64, f64),
    check: (u64, f64),
}

impl Draw {
    pub(crate) fn new(plan: &Plan) -> Draw {
        Draw {
            mix: Mix::new(&plan.requests, plan.seed),
            timing: (Purpose::Timing.seed(plan.seed), plan.timing_share),
            check: (Purpose::Check.seed(plan.seed), plan.check_share),
        }
    }

    fn begin(&self, index: u64, due_ns: u64, request: Option<u32>) -> Begin {
        Begin {
            request: request.unwrap_or_else(|| self.mix.draw(index)),
            due_ns,
            timed: sampled(self.timing.0, index, self.timing.1),
            checked: sampled(self.check.0, index, self.check.1),
        }
    }
}

impl Source {
    pub(crate) fn open(entries: Entries, draw: Draw) -> Source {
        let mut entries = Box::new(entries);
        let next = entries.next();
        Source { kind: Kind::Open { entries, next }, draw, stopped: false }
    }

    /// The share of thread `thread` of `threads` of a closed loop.
    pub(crate) fn closed(closed: &Closed, thread: usize, threads: usize, draw: Draw) -> Source {
        let share = |all: u64| {
            let (thread, threads) = (thread as u64, threads as u64);
            all / threads + u64::from(thread < all % threads)
        };
        let clients = Clients {
            // A share is at most what it is a share of.
            idle: share(closed.clients as u64) as usize,
            paused_until_ns: VecDeque::new(),
            until_ns: closed.for_ns,
            left: closed.requests.map_or(u64::MAX, share),
            next_index: thread as u64,
            threads: threads as u64,
        };
        Source { kind: Kind::Closed(clients), draw, stopped: false }
    }

    /// Begins nothing more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes note of calls that have ended: the clients of a closed loop go on.
    pub(crate) fn note(&mut self, ended: Ended, now_ns: u64) {
        let Kind::Closed(clients) = &mut self.kind else { return };
        clients.idle += ended.answered;
        clients.paused_until_ns.extend(std::iter::repeat_n(now_ns + PAUSE_NS, ended.broken));
        while clients.paused_until_ns.front().is_some_and(|&until_ns| until_ns <= now_ns) {
            clients.paused_until_ns.pop_front();
            clients.idle += 1;
        }
        if now_ns >= clients.until_ns || clients.left == 0 {
            self.stopped = true;
        }
    }

    /// The next request that is due; each is told once.
    pub(crate) fn take_due(&mut self, now_ns: u64) -> Option<Begin> {
        if self.stopped {
            return None;
        }
        match &mut self.kind {
            Kind::Open { entries, next } => {
                let due = next.take_if(|due| due.due_ns <= now_ns)?;
                *next = entries.next();
                Some(self.draw.begin(due.index, due.due_ns, due.request))
            }
            Kind::Closed(clients) => {
                if clients.idle == 0 || clients.left == 0 || now_ns >= clients.until_ns {
                    return None;
                }
                clients.idle -= 1;
                clients.left -= 1;
                let index = clients.next_index;
                clients.next_index += clients.threads;
                Some(self.draw.begin(index, now_ns, None))
            }
        }
    }

    /// When something may be due, unless a call ends before.
    pub(crate) fn next_ns(&self, now_ns: u64) -> Option<u64> {
        if self.stopped {
            return None;
        }
        match &self.kind {
            Kind::Open { next, .. } => next.map(|due| due.due_ns),
            Kind::Closed(clients) if clients.idle > 0 => Some(now_ns),
            Kind::Closed(clients) => Some(
                clients
                    .paused_until_ns
                    .front()
                    .map_or(clients.until_ns, |&at_ns| at_ns.min(clients.until_ns)),
            ),
        }
    }

    /// Whether nothing will be due any more.
    pub(crate) fn is_done(&self) -> bool {
        self.stopped || matches!(&self.kind, Kind::Open { next: None, .. })
    }
}
