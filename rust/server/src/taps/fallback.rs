//! A request whose version did not answer goes on with another one (`traffic.fallback`): the failure stays the first one's, and
//! the answer says so.
//!
//! Never on a client's mistake, never for a caller who named the version, and within the request's deadline.

use std::time::Instant;

use headgate_core::error::Code;
use headgate_engine::Waiter;
use http::HeaderValue;

use super::Tap;

/// The version that is asked next.
pub struct Next {
    version: u8,
    /// How many of the fallbacks have had their chance then.
    tried: usize,
    code: Code,
    cause: &'static str,
}

/// What a fallback helps against, in the words of the answer's header.
fn cause(code: Code) -> Option<&'static str> {
    match code {
        Code::DeadlineExceeded => Some("timeout"),
        Code::BackendFailed | Code::Internal => Some("error"),
        Code::Overloaded => Some("overloaded"),
        Code::ModelNotReady => Some("not_ready"),
        _ => None,
    }
}

impl Tap {
    /// Who is asked now that the version has failed with `code`; `None` when nobody is.
    pub fn next(&self, code: Code) -> Option<Next> {
        let fallback = self.endpoint.fallback.as_ref().filter(|_| !self.direct)?;
        let cause = cause(code)?;
        if Instant::now() >= self.until {
            return None;
        }
        let candidates = fallback.to.iter().enumerate().skip(self.tried);
        let mut others =
            candidates.filter(|(_, version)| **version != self.version && **version != self.first);
        others.next().map(|(at, &version)| Next { version, tried: at + 1, code, cause })
    }

    /// Books the failure, and goes on with another version.
    #[must_use]
    pub fn hand_on(mut self, next: Next) -> Tap {
        let waiter = Waiter { deadline: self.until, ..self.waiter };
        let mut tap = Tap::begin(self.endpoint.clone(), next.version, waiter, self.received);
        tap.until = self.until;
        tap.ours = self.whole_ours;
        tap.whole_ours = self.whole_ours;
        (tap.first, tap.tried) = (self.first, next.tried);
        tap.request_hash = self.request_hash;
        tap.held = std::mem::take(&mut self.held);
        tap.log = self.log.take();
        tap.instead = self.instead.take().or_else(|| {
            HeaderValue::from_str(&format!("{}; cause={}", self.version().name, next.cause)).ok()
        });
        self.passed_on = true;
        self.answered(Some(next.code));
        tap
    }
}
