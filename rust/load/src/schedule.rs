//! When each request is due, and which request it is.
//!
//! Due times are integers of nanoseconds from one anchor, computed anew by every thread and host from the same seed: none is kept, none
//! depends on the number of threads, and none moves when a request is sent late. Request `i` of a schedule belongs to thread `i mod T`
//! of `T`; of several hosts, host `k` of `n` has every `n`-th request. Read next: `stages`, `random`.

pub(crate) mod random;
mod stages;

use std::sync::Arc;

use crate::plan::{Arrivals, Open, RequestPlan};
use random::Purpose;
use stages::Stages;

/// The requests of an open loop.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    kind: Kind,
    stages: Stages,
    seed: u64,
    host: Part,
}

/// Which share of a schedule somebody has: every `of`-th entry from `first` on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub(crate) first: u64,
    pub(crate) of: u64,
}

impl Part {
    /// The share of one of `of` threads within this share.
    pub(crate) fn of_thread(self, thread: u64, of: u64) -> Part {
        Part { first: self.first + self.of * thread, of: self.of * of }
    }
}

#[derive(Clone, Debug)]
enum Kind {
    Constant,
    Poisson,
    Gamma { cv: f64 },
    Trace(Arc<Trace>),
}

/// Due times that were recorded, in order, from the first on.
#[derive(Debug)]
struct Trace {
    due_ns: Vec<u64>,
    requests: Option<Vec<u32>>,
}

impl Trace {
    fn new(due_ns: &[u64], requests: Option<&[u32]>) -> Trace {
        let mut order: Vec<usize> = (0..due_ns.len()).collect();
        order.sort_by_key(|&at| due_ns[at]);
        let first_ns = order.first().map_or(0, |&at| due_ns[at]);
        Trace {
            due_ns: order.iter().map(|&at| due_ns[at] - first_ns).collect(),
            requests: requests.map(|requests| order.iter().map(|&at| requests[at]).collect()),
        }
    }
}

/// One entry of a schedule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Due {
    /// Its place in the whole schedule, those of other threads and hosts included.
    pub(crate) index: u64,
    /// Nanoseconds from the anchor.
    pub(crate) due_ns: u64,
    /// The request of a trace that names its requests.
    pub(crate) request: Option<u32>,
}

impl Schedule {
    pub(crate) fn new(open: &Open, seed: u64, host: Part) -> Schedule {
        let kind = match &open.arrivals {
            Arrivals::Constant {} => Kind::Constant,
            Arrivals::Poisson {} => Kind::Poisson,
            Arrivals::Gamma { cv } => Kind::Gamma { cv: *cv },
            Arrivals::Trace { due_ns, requests } => {
                Kind::Trace(Arc::new(Trace::new(due_ns, requests.as_deref())))
            }
        };
        Schedule { kind, stages: Stages::new(&open.stages), seed: Purpose::Arrival.seed(seed), host }
    }

    /// When the last request is due at the latest.
    pub(crate) fn length_ns(&self) -> u64 {
        match &self.kind {
            Kind::Trace(trace) => trace.due_ns.last().map_or(0, |last| last + 1),
            _ => self.stages.length_ns(),
        }
    }

    /// The number of requests to expect of this host, to a few standard deviations.
    pub(crate) fn expected(&self) -> f64 {
        let all = match &self.kind {
            Kind::Trace(trace) => trace.due_ns.len() as f64,
            _ => self.stages.expected(),
        };
        all / self.host.of as f64
    }

    /// The requests of one of `threads` threads.
    pub(crate) fn of_thread(&self, thread: usize, threads: usize) -> Entries {
        self.entries(self.host.of_thread(thread as u64, threads as u64))
    }

    /// All requests of this host.
    pub(crate) fn of_host(&self) -> Entries {
        self.entries(self.host)
    }

    fn entries(&self, part: Part) -> Entries {
        Entries { schedule: self.clone(), part, next: 0, number: 0.0, stage: 0 }
    }
}

/// The entries of a share of a schedule, in order.
pub(crate) struct Entries {
    schedule: Schedule,
    part: Part,
    /// The place in the whole schedule.
    next: u64,
    /// The time of the process with rate 1.
    number: f64,
    stage: usize,
}

impl Entries {
    /// The due time of the next entry of the whole schedule.
    fn step(&mut self) -> Option<u64> {
        let Schedule { kind, stages, seed, .. } = &self.schedule;
        let index = self.next;
        self.next += 1;
        match kind {
            Kind::Constant => return stages.constant(index, &mut self.stage),
            Kind::Trace(trace) => return trace.due_ns.get(usize::try_from(index).ok()?).copied(),
            Kind::Poisson => self.number += random::exponential(*seed, index),
            Kind::Gamma { cv } => self.number += random::gamma(*seed, index, *cv),
        }
        stages.when(self.number, &mut self.stage)
    }
}

impl Iterator for Entries {
    type Item = Due;

    fn next(&mut self) -> Option<Due> {
        loop {
            let index = self.next;
            let due_ns = self.step()?;
            if index % self.part.of == self.part.first {
                let request = match &self.schedule.kind {
                    // A place of a trace fits the vector that it was read from.
                    Kind::Trace(trace) => trace.requests.as_ref().map(|requests| requests[index as usize]),
                    _ => None,
                };
                return Some(Due { index, due_ns, request });
            }
        }
    }
}

/// Draws the requests of a mix by their weights.
#[derive(Clone, Debug)]
pub(crate) struct Mix {
    seed: u64,
    /// The sum of the weights up to and with each request.
    up_to: Vec<f64>,
}

impl Mix {
    pub(crate) fn new(requests: &[RequestPlan], seed: u64) -> Mix {
        let mut total = 0.0;
        let up_to = requests.iter().map(|request| {
            total += request.weight;
            total
        });
        Mix { seed: Purpose::Mix.seed(seed), up_to: up_to.collect() }
    }

    /// The request of entry `index`.
    pub(crate) fn draw(&self, index: u64) -> u32 {
        let total = self.up_to.last().copied().unwrap_or(0.0);
        let at = random::share(random::word(self.seed, index)) * total;
        // The plan has at most 2^32 requests. Rounding may put the last share on the total itself.
        self.up_to.partition_point(|&up_to| up_to <= at).min(self.up_to.len() - 1) as u32
    }
}

#[cfg(test)]
mod tests;
