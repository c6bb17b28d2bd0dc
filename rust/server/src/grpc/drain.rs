//! The ends of calls that go on when the gateway stops: how long they wait for their client, and what they say.
//!
//! Not here: connections (`conn`, `wire`).

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error};

use crate::io;

/// Resolves when connections are told to close.
pub async fn closing() {
    let mut changes = io::with(|io| io.shared.changes.subscribe());
    while !io::with(|io| io.shared.closing.load(Relaxed)) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A caller's patience with a client that may have sent something, which ends some time after connections are told to close.
pub struct Patience(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Patience {
    /// The patience of a call that begins.
    pub fn begin() -> Patience {
        Patience(Some(Box::pin(closing())))
    }

    /// Resolves when connections have been told to close, and nothing came since, or since this wait began.
    pub async fn over(&mut self) {
        if let Some(closing) = &mut self.0 {
            closing.await;
            self.0 = None;
        }
        tokio::time::sleep(io::with(|io| io.shared.config.drain_idle())).await;
    }
}

/// How long before it would be cut off a call that goes on is ended.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// When a call that goes on must end, once that is known.
pub fn last_words() -> Option<Instant> {
    io::with(|io| io.shared.cut_off.get()?.checked_sub(LAST_WORDS))
}

/// Resolves shortly before what is in flight is cut off.
pub async fn cut_off() {
    closing().await;
    tokio::time::sleep_until(last_words().unwrap_or_else(Instant::now).into()).await;
}

/// The refusal of what goes on for as long as the gateway waits when it stops.
pub fn stopping() -> Error {
    Error::new(Code::Draining, "the gateway is stopping; send what was not answered to another one")
}
