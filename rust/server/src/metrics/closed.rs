//! Why the gateway closed connections of the data ports before their clients did.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde_json::{Value, json};

/// The reason for a close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No request came.
    Idle,
    /// A request's head was not complete in time.
    HeadTimeout,
    /// A request's body was not complete in time.
    BodyTimeout,
    /// A request's body was larger than a body may be, so that the next request could not be found behind it.
    BodyTooLarge,
    /// The client took nothing of its answers.
    Unread,
    /// A new connection needed room.
    Crowded,
}

impl Reason {
    const ALL: [Reason; 6] = [
        Reason::Idle,
        Reason::HeadTimeout,
        Reason::BodyTimeout,
        Reason::BodyTooLarge,
        Reason::Unread,
        Reason::Crowded,
    ];

    /// As the control plane's ports call it.
    const fn name(self) -> &'static str {
        match self {
            Reason::Idle => "idle",
            Reason::HeadTimeout => "head_timeout",
            Reason::BodyTimeout => "body_timeout",
            Reason::BodyTooLarge => "body_too_large",
            Reason::Unread => "unread",
            Reason::Crowded => "crowded",
        }
    }
}

/// How many connections were closed, by reason.
#[derive(Default)]
pub struct Closed([AtomicU64; Reason::ALL.len()]);

impl Closed {
    /// One more.
    pub fn add(&self, reason: Reason) {
        self.0[reason as usize].fetch_add(1, Relaxed);
    }

    /// How many for that reason.
    pub fn get(&self, reason: Reason) -> u64 {
        self.0[reason as usize].load(Relaxed)
    }

    /// The samples of the metric.
    pub fn samples(&self) -> impl Iterator<Item = Value> {
        Reason::ALL.into_iter().map(|reason| json!([{"reason": reason.name()}, self.get(reason)]))
    }
}
