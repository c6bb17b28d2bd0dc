//! A request whose version did not answer goes on with another one: the failure stays the first one's, and the answer says so.
//!
//! The champion answers for a challenger that fails or is left alone, unless the document says `traffic.fallback: none`; then
//! come the versions that `traffic.fallback` lists. Never on a client's mistake, unless the champion takes other inputs; never for
//! a caller who named the version, and within the request's deadline.

use std::time::Instant;

use headgate_core::error::Code;
use headgate_core::snapshot::Version;
use headgate_engine::Waiter;
use http::HeaderValue;

use super::Tap;
use crate::serving::version::VersionState;
use crate::thread::io::Io;

/// Why another version is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Its run failed.
    Failed,
    /// Its answer could not be written as it was asked for.
    Unwritable,
    /// It takes other inputs than the champion, and the request does not fit them.
    Incompatible,
    /// It is left alone, or out of memory.
    NotReady,
    /// It took too long.
    Late,
    /// It sheds.
    Overloaded,
}

impl Cause {
    /// In the words of the answer's header.
    fn as_str(self) -> &'static str {
        match self {
            Cause::Failed | Cause::Unwritable => "error",
            Cause::Incompatible => "incompatible",
            Cause::NotReady => "not_ready",
            Cause::Late => "timeout",
            Cause::Overloaded => "overloaded",
        }
    }

    /// Whether the champion answers though nobody wrote that it does. Not for what is late or too much: that would move a
    /// challenger's load to the champion when there is too much of it.
    fn calls_the_champion(self) -> bool {
        !matches!(self, Cause::Late | Cause::Overloaded)
    }

    /// Whether the listed fallbacks are asked as well.
    fn calls_the_listed(self) -> bool {
        !matches!(self, Cause::Unwritable | Cause::Incompatible)
    }
}

/// The version that is asked next.
pub struct Next {
    version: u8,
    /// How many of the fallbacks have had their chance then.
    tried: usize,
    cause: Cause,
}

impl Tap {
    /// Whether its version is the champion.
    pub fn is_champion(&self) -> bool {
        self.version == self.endpoint.champion
    }

    /// The champion, if it is a model.
    pub fn champion(&self) -> Option<&Version<VersionState>> {
        let champion = &self.endpoint.versions[self.endpoint.champion as usize];
        (!champion.payload.is_constant).then_some(champion)
    }

    /// Who is asked after a failure for that cause; `None` when nobody is.
    pub fn next(&self, cause: Cause) -> Option<Next> {
        if self.direct || Instant::now() >= self.until {
            return None;
        }
        let (fallback, champion) = (&self.endpoint.fallback, self.endpoint.champion);
        let asked = |version| {
            version == self.version || version == self.first || (version == champion && self.asked_champion)
        };
        if fallback.champion && cause.calls_the_champion() && !asked(champion) {
            return Some(Next { version: champion, tried: self.tried, cause });
        }
        if !cause.calls_the_listed() {
            return None;
        }
        let mut others = fallback.to.iter().enumerate().skip(self.tried);
        let (at, &version) = others.find(|(_, version)| !asked(**version))?;
        Some(Next { version, tried: at + 1, cause })
    }

    /// Whether the next one is a constant.
    pub fn is_constant(&self, next: &Next) -> bool {
        self.endpoint.versions[next.version as usize].payload.is_constant
    }

    /// The request on its way to another version. What is booked on this one is [`Tap::pass_on`]'s.
    #[must_use]
    pub fn hand_on(&mut self, next: &Next) -> Tap {
        let waiter = Waiter { deadline: self.until, ..self.waiter };
        let mut tap = Tap::begin(self.endpoint.clone(), next.version, waiter, self.received);
        tap.until = self.until;
        tap.ours = self.whole_ours;
        tap.whole_ours = self.whole_ours;
        (tap.first, tap.tried) = (self.first, next.tried);
        tap.asked_champion = self.asked_champion || next.version == self.endpoint.champion;
        tap.request_hash = self.request_hash;
        tap.held = std::mem::take(&mut self.held);
        tap.log = self.log.take();
        // Its tensors are of no use any more.
        self.ran = None;
        tap.instead = self.instead.take().or_else(|| {
            let said = format!("{}; cause={}", self.version().name, next.cause.as_str());
            HeaderValue::from_str(&said).ok()
        });
        tap
    }
    /// Books what this version did; another one was asked in its place.
    pub fn pass_on(mut self, io: &Io, code: Code) {
        self.passed_on = true;
        self.answered(io, Some(code));
    }
}
