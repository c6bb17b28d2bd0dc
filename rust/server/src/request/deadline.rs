//! Until when a request is waited for: the shortest of what its client, its transport and the document say.
//!
//! `x-headgate-timeout` is read here, on any wire. Not here: the protocol's own parameter (`envelope`) and `grpc-timeout` (`grpc`).

use std::time::Duration;

use headgate_core::error::{Error, Result};
use headgate_engine::Instant;
use http::HeaderValue;

/// Until when a request and the version that answers it are waited for, and whose limits those are.
#[derive(Clone, Copy)]
pub struct Deadlines {
    /// When the request is of no use any more, whichever version answers it.
    pub request: Instant,
    /// When the version's time is over: with the request's, or before it if the version has fallbacks.
    pub version: Instant,
    /// Whether the request's limit is the document's.
    request_is_documents: bool,
    /// Whether the version's limit is the document's, so that the version is to blame for missing it.
    version_is_documents: bool,
    /// Whether the run went on beyond the version's limit.
    overran: bool,
}

impl Deadlines {
    /// The deadlines of a request that was `received` then, and whose client waits until `client`. The version has `after` from now on
    /// before others are asked: how long the request was on its way says nothing about the version.
    pub fn new(
        received: Instant,
        timeout: Duration,
        after: Option<Duration>,
        client: Option<Instant>,
    ) -> Deadlines {
        let document = received + timeout;
        let version = after.map_or(document, |after| (Instant::now() + after).min(document));
        let request = client.map_or(document, |client| client.min(document));
        Deadlines {
            request,
            version: version.min(request),
            request_is_documents: client.is_none_or(|client| client >= document),
            version_is_documents: client.is_none_or(|client| client >= version),
            overran: false,
        }
    }

    /// Those of another version, which has all the time that is left.
    pub fn for_fallback(&self) -> Deadlines {
        Deadlines {
            version: self.request,
            version_is_documents: self.request_is_documents,
            overran: false,
            ..*self
        }
    }

    /// The run went on when the deadline passed.
    pub fn overrun(&mut self) {
        self.overran = true;
    }

    /// Whether a run was going on when the time was over that the document gives.
    pub fn has_overrun_document(&self) -> bool {
        self.version_is_documents && self.overran
    }
}

/// When the client stops waiting for a request that was `received` then.
///
/// # Errors
/// `invalid_argument` for a value that is no number with a unit.
pub fn of(timeout: Option<&HeaderValue>, received: Instant) -> Result<Option<Instant>> {
    let Some(value) = timeout else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse).ok_or_else(|| {
        Error::invalid(format!(
            "x-headgate-timeout is {value:?}; it must be a whole number of us, ms or s, such as 150ms"
        ))
    })?;
    Ok(received.checked_add(timeout))
}

/// The earlier one of two times that may not be there.
pub fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

/// One to nine digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|_| digits <= 9)?;
    match unit {
        "us" => Some(Duration::from_micros(number)),
        "ms" => Some(Duration::from_millis(number)),
        "s" => Some(Duration::from_secs(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_a_unit() {
        for (text, wanted) in [
            ("150ms", Duration::from_millis(150)),
            ("0s", Duration::ZERO),
            ("2s", Duration::from_secs(2)),
            ("999999999us", Duration::from_micros(999_999_999)),
        ] {
            assert_eq!(parse(text), Some(wanted), "{text}");
        }
        for text in ["", "ms", "1", "1 ms", "-1ms", "1.5ms", "1m", "1MS", "1234567890ms", "１ms"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
