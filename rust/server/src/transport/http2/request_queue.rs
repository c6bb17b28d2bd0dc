//! The requests of a connection that were read and not begun.

use std::collections::VecDeque;
use std::task::Context;

use super::exchange::Exchange;

/// Requests in the order in which they came. Those that their client takes back leave it without being begun.
pub(super) struct RequestQueue {
    requests: VecDeque<Exchange>,
    most: usize,
}

impl RequestQueue {
    /// Of at most `most` requests, twice as many as a client may wait for: h2 bounds these, but not those that it took back.
    pub(super) fn new(most: usize) -> RequestQueue {
        RequestQueue { requests: VecDeque::new(), most }
    }

    /// Adds a request.
    pub(super) fn push(&mut self, exchange: Exchange, cx: &mut Context<'_>) {
        if self.requests.len() >= self.most {
            self.requests.retain_mut(|kept| !kept.is_taken_back(cx));
        }
        self.requests.push_back(exchange);
    }

    /// The next request that its client waits for.
    pub(super) fn pop(&mut self, cx: &mut Context<'_>) -> Option<Exchange> {
        while let Some(mut next) = self.requests.pop_front() {
            if !next.is_taken_back(cx) {
                return Some(next);
            }
        }
        None
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }
}
