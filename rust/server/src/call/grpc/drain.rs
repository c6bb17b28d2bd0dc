//! The ends of calls that go on when the gateway stops: how long they wait for their client.
//!
//! Not here: connections (`connection_state`, `watched_socket`).

use std::sync::atomic::Ordering::Relaxed;

use headgate_engine::Instant;

use crate::thread::io::{self, Io};

/// Resolves when connections are told to close.
pub async fn closing() {
    let mut changes = io::with(|io| io.shared.changes.subscribe());
    while !io::with(|io| io.shared.closing.load(Relaxed)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// How long a call waits for a client that goes on: for some time after connections are told to close, whatever comes meanwhile.
#[derive(Default)]
pub struct DrainTimeout {
    end: Option<Instant>,
    /// Whether a message came since connections were told to close.
    goes_on: bool,
}

impl DrainTimeout {
    /// Whether it is over.
    pub fn has_expired(&mut self, io: &Io) -> bool {
        if !io.shared.closing.load(Relaxed) {
            return false;
        }
        let now = Instant::now();
        *self.end.get_or_insert_with(|| now + io.shared.config.drain_idle()) <= now
    }

    /// Notes that a message came.
    pub fn note_message(&mut self) {
        self.goes_on |= self.end.is_some();
    }

    /// Whether a message came since connections were told to close.
    pub fn has_had_message(&self) -> bool {
        self.goes_on
    }

    /// Resolves when it is over.
    pub async fn expired(&mut self) {
        closing().await;
        if !io::with(|io| self.has_expired(io))
            && let Some(end) = self.end
        {
            tokio::time::sleep_until(end.into()).await;
        }
    }
}

/// Resolves shortly before what is in flight is cut off.
pub async fn cut_off() {
    closing().await;
    tokio::time::sleep_until(io::with(Io::last_start_at).unwrap_or_else(Instant::now).into()).await;
}
