//! Asks a peer that is silent whether it is still there: without that, one that disappears leaves its streams open for ever.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use headgate_engine::Instant;
use headgate_http2::Connection;
use tokio::time::Sleep;

use super::head::Http2Head;
use crate::config::Config;
use crate::transport::connection_state::ConnectionState;
use crate::transport::reply_body::ReplyBytes;

/// How often the peer is looked for in the time that it may be silent. A question is late by one of these parts at most. With the time of
/// each read it would be exact, but then every read would read the clock.
const LOOKS: u32 = 4;

/// The question whether a peer is still there.
pub(super) struct KeepAlive {
    state: AskState,
    timer: Pin<Box<Sleep>>,
    armed: bool,
    /// How long the peer may be silent, by parts.
    part: Duration,
    /// How long the peer may take to answer.
    patience: Duration,
}

/// What is known of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AskState {
    /// It has been silent for so many parts.
    Silent(u32),
    /// It was asked, and has not answered.
    Asked,
}

impl KeepAlive {
    /// For a connection that begins.
    pub(super) fn new(config: &Config) -> KeepAlive {
        KeepAlive {
            state: AskState::Silent(0),
            timer: Box::pin(tokio::time::sleep(Duration::ZERO)),
            armed: false,
            part: config.idle() / LOOKS,
            patience: config.head_timeout(),
        }
    }

    /// Whether the peer is gone. Asks it when it has been silent for long.
    pub(super) fn finds_gone(
        &mut self,
        frames: &mut Connection<ReplyBytes, Http2Head>,
        conn: &ConnectionState,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.state == AskState::Asked && frames.is_alive() {
            self.state = AskState::Silent(0);
            self.armed = false;
        }
        // A timer that is polled without budget (tokio's, for one turn) wakes nobody.
        if (self.armed && !self.timer.is_elapsed()) || !tokio::task::coop::has_budget_remaining() {
            return false;
        }
        if self.armed {
            frames.note_time();
            self.state = match self.state {
                AskState::Silent(_) if conn.take_heard() => AskState::Silent(0),
                AskState::Silent(parts) if parts + 1 < LOOKS => AskState::Silent(parts + 1),
                AskState::Silent(_) => {
                    frames.ask_alive();
                    AskState::Asked
                }
                AskState::Asked => return true,
            };
        }
        let wait = if self.state == AskState::Asked { self.patience } else { self.part };
        self.timer.as_mut().reset((Instant::now() + wait).into());
        self.armed = self.timer.as_mut().poll(cx) == Poll::Pending;
        false
    }
}
