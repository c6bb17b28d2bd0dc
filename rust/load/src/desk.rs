//! The requests that a thread has in flight: begun, sent, settled or timed out, and what is written down of each.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::checks::{Checked, Checks};
use crate::ledger::{Ending, Ledger};
use crate::poller::Clock;
use crate::prepared::Prepared;
use crate::records::{Outcome, SLOWER_THAN_ANY, code_of};
use crate::reply::Reply;
use crate::thread_state::{ThreadState, add};

/// The place of a call that waits for a connection.
pub(crate) const NOWHERE: u32 = u32::MAX;

/// A request in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    pub(crate) request: u32,
    /// The connection that it is on, for the transport.
    pub(crate) place: u32,
    /// Whether it asks for the server's phases.
    pub(crate) timed: bool,
    /// Whether its answer is compared.
    pub(crate) checked: bool,
    /// Whether it was sent again after an idle connection turned out to be closed.
    pub(crate) retried: bool,
    row: u32,
    generation: u32,
    due_ns: u64,
    sent_ns: u64,
}

/// A request that is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begin {
    pub(crate) request: u32,
    pub(crate) due_ns: u64,
    pub(crate) timed: bool,
    pub(crate) checked: bool,
}

/// What came of beginning a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    /// It is in flight as this call.
    Call(u32),
    /// It is written down as unsent.
    Unsent,
    /// There is no room to write it down.
    Full,
}

/// What a desk needs of its run.
pub(crate) struct DeskParts {
    pub(crate) clock: Clock,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) state: Arc<ThreadState>,
    pub(crate) prepared: Arc<[Prepared]>,
    pub(crate) timeout_ns: u64,
    pub(crate) max_in_flight: usize,
    pub(crate) checks: Checks,
}

/// The requests in flight of one thread.
pub(crate) struct Desk {
    parts: DeskParts,
    calls: Vec<Call>,
    free: Vec<u32>,
    deadlines: VecDeque<Deadline>,
    in_flight: usize,
    /// Calls that ended with an answer, and those that ended without one, since they were last asked for.
    pub(crate) ended: Ended,
}

#[derive(Clone, Copy)]
struct Deadline {
    at_ns: u64,
    call: u32,
    generation: u32,
}

/// Calls that have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) answered: usize,
    pub(crate) broken: usize,
}

impl Desk {
    pub(crate) fn new(parts: DeskParts) -> Desk {
        Desk {
            parts,
            calls: Vec::new(),
            free: Vec::new(),
            deadlines: VecDeque::new(),
            in_flight: 0,
            ended: Ended::default(),
        }
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.parts.clock.now_ns()
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    pub(crate) fn call(&self, call: u32) -> &Call {
        &self.calls[call as usize]
    }

    pub(crate) fn call_mut(&mut self, call: u32) -> &mut Call {
        &mut self.calls[call as usize]
    }

    /// The request of a call.
    pub(crate) fn prepared(&self, call: u32) -> &Prepared {
        &self.parts.prepared[self.call(call).request as usize]
    }

    /// All requests, for a transport that borrows one while it writes down another.
    pub(crate) fn all_prepared(&self) -> &Arc<[Prepared]> {
        &self.parts.prepared
    }

    /// Writes down that a request is due, and how late that is noticed.
    pub(crate) fn begin(&mut self, begin: Begin, now_ns: u64) -> Begun {
        let DeskParts { ledger, state, prepared, timeout_ns, max_in_flight, .. } = &self.parts;
        let kind = prepared[begin.request as usize].kind;
        // A plan is refused if it has a due time that does not fit.
        let due_us = u32::try_from(begin.due_ns / 1000).unwrap_or(u32::MAX);
        let Some(row) = ledger.begin(due_us, kind) else { return Begun::Full };
        if self.in_flight >= *max_in_flight {
            let nothing =
                Ending { outcome: Outcome::Unsent, response: SLOWER_THAN_ANY, service: SLOWER_THAN_ANY };
            ledger.end(row, nothing);
            state.count(Outcome::Unsent);
            return Begun::Unsent;
        }
        state.lateness.record(now_ns.saturating_sub(begin.due_ns));
        add(&state.sent, 1);
        let Begin { request, due_ns, timed, checked } = begin;
        let deadline_ns = now_ns + timeout_ns;
        let call = self.free.pop().unwrap_or(self.calls.len() as u32);
        let generation = self.calls.get(call as usize).map_or(0, |call| call.generation);
        let new = Call {
            request,
            place: NOWHERE,
            timed,
            checked,
            retried: false,
            row,
            generation,
            due_ns,
            sent_ns: now_ns,
        };
        match self.calls.get_mut(call as usize) {
            Some(old) => *old = new,
            None => self.calls.push(new),
        }
        self.deadlines.push_back(Deadline { at_ns: deadline_ns, call, generation });
        self.in_flight += 1;
        Begun::Call(call)
    }

    /// Writes down that a call which had to wait for a connection is sent now.
    pub(crate) fn sent_later(&mut self, call: u32) {
        let now_ns = self.now_ns();
        self.calls[call as usize].sent_ns = now_ns;
    }

    /// The next call whose time is over.
    pub(crate) fn next_timed_out(&mut self, now_ns: u64) -> Option<u32> {
        self.forget_settled();
        let deadline = self.deadlines.front().filter(|deadline| deadline.at_ns <= now_ns)?;
        Some(deadline.call)
    }

    /// When the next call times out, unless it is answered before.
    pub(crate) fn next_deadline_ns(&mut self) -> Option<u64> {
        self.forget_settled();
        self.deadlines.front().map(|deadline| deadline.at_ns)
    }

    /// Calls time out in the order in which they began, so that only the front has to be looked at.
    fn forget_settled(&mut self) {
        while let Some(front) = self.deadlines.front()
            && self.calls[front.call as usize].generation != front.generation
        {
            self.deadlines.pop_front();
        }
    }

    /// Settles a call that was answered.
    pub(crate) fn answered(&mut self, call: u32, reply: &Reply<'_>) {
        let now_ns = self.now_ns();
        let outcome = reply.status.outcome();
        let Call { row, request, checked, .. } = *self.call(call);
        let service_ns = self.settle(call, outcome, now_ns);
        let DeskParts { state, checks, .. } = &mut self.parts;
        if let Some(phases) = reply.phases {
            state.phases.record(phases, service_ns);
        }
        match outcome {
            Outcome::Good if checked && checks.check(row, request, reply) == Checked::Same => {
                add(&state.compared, 1);
            }
            Outcome::Good => {}
            _ => state.count_error(&reply.what(), reply.example()),
        }
        self.ended.answered += 1;
    }

    /// Settles a call whose connection broke.
    pub(crate) fn broken(&mut self, call: u32, what: &str) {
        self.unanswered(call, Outcome::Failed, what);
    }

    /// Settles a call whose time is over.
    pub(crate) fn timed_out(&mut self, call: u32) {
        self.unanswered(call, Outcome::TimedOut, "no answer within the timeout");
    }

    /// Settles a call that got no answer of its own.
    pub(crate) fn unanswered(&mut self, call: u32, outcome: Outcome, what: &str) {
        let now_ns = self.now_ns();
        self.settle(call, outcome, now_ns);
        self.parts.state.count_error(what, b"");
        self.ended.broken += 1;
    }

    /// Writes down how a call ended; its service time.
    fn settle(&mut self, call: u32, outcome: Outcome, now_ns: u64) -> u64 {
        let entry = &mut self.calls[call as usize];
        let service_ns = now_ns.saturating_sub(entry.sent_ns);
        let answered = matches!(outcome, Outcome::Good | Outcome::Shed);
        let ending = Ending {
            outcome,
            response: match outcome {
                Outcome::Good => code_of(now_ns.saturating_sub(entry.due_ns)),
                _ => SLOWER_THAN_ANY,
            },
            service: if answered { code_of(service_ns) } else { SLOWER_THAN_ANY },
        };
        self.parts.ledger.end(entry.row, ending);
        self.parts.state.count(outcome);
        entry.generation = entry.generation.wrapping_add(1);
        self.free.push(call);
        self.in_flight -= 1;
        service_ns
    }

    /// Compares the answers that were not the same byte for byte, and lets those that differ fail.
    pub(crate) fn compare_the_rest(&mut self) {
        let DeskParts { state, ledger, checks, .. } = &mut self.parts;
        let failed = Ending { outcome: Outcome::Failed, response: SLOWER_THAN_ANY, service: SLOWER_THAN_ANY };
        for compared in checks.compare_the_rest() {
            add(&state.compared, 1);
            let Some(example) = compared.difference else { continue };
            add(&state.differing, 1);
            state.count_as_failed();
            state.count_error("another answer than the first to the same request", example.as_bytes());
            ledger.end(compared.row, failed);
            let mut first = state.differing_example.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            first.get_or_insert(example);
        }
    }

    /// The counters of the thread.
    pub(crate) fn state(&self) -> &Arc<ThreadState> {
        &self.parts.state
    }
}
