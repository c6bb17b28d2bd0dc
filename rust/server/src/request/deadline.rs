//! How long a client is willing to wait, by `x-headgate-timeout`, on any wire.
//!
//! Not here: the protocol's own parameter (`envelope`) and `grpc-timeout` (`grpc`); the shortest of all counts (`taps`).

use std::time::{Duration, Instant};

use headgate_core::error::{Error, Result};
use http::HeaderValue;

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
