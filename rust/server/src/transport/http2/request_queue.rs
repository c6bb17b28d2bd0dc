//! The requests of a connection that were read and not begun.

use std::collections::VecDeque;

use headgate_core::error::Code;

use super::exchange::Exchange;
use crate::thread::io;

/// How many more requests come before those that were taken back are looked for.
const LOOK_EVERY: usize = 64;

/// Requests in the order in which they came. Those that their client takes back are counted, and never begun.
pub(super) struct RequestQueue {
    requests: VecDeque<Exchange>,
    /// How many make it worth to look for those that were taken back.
    look_at: usize,
}

impl RequestQueue {
    /// An empty one.
    pub(super) fn new() -> RequestQueue {
        RequestQueue { requests: VecDeque::new(), look_at: LOOK_EVERY }
    }

    /// Adds a request. A connection bounds those that its client waits for, and few others stay.
    pub(super) fn push(&mut self, exchange: Exchange) {
        if self.requests.len() >= self.look_at {
            self.requests.retain(is_waited_for);
            self.look_at = self.requests.len() + LOOK_EVERY;
        }
        self.requests.push_back(exchange);
    }

    /// The next request that its client waits for.
    pub(super) fn pop(&mut self) -> Option<Exchange> {
        std::iter::from_fn(|| self.requests.pop_front()).find(is_waited_for)
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}

/// Whether a client waits for a request. One that it took back is counted here, for the last time that it is looked at.
fn is_waited_for(exchange: &Exchange) -> bool {
    let is_taken_back = exchange.is_taken_back();
    if is_taken_back {
        io::with(|io| io.shared.metrics.thread(io.thread).count_refusal(Code::Cancelled));
    }
    !is_taken_back
}
