//! How long a client waits, by `grpc-timeout`.

use std::time::Duration;

use headgate_core::error::{Error, Result};
use headgate_engine::Instant;

use crate::headers::Headers;

const TIMEOUT: &str = "grpc-timeout";

/// When the client stops waiting, by `grpc-timeout`.
///
/// # Errors
/// As [`timeout`].
pub fn deadline(headers: Headers<'_>, received: Instant) -> Result<Option<Instant>> {
    Ok(timeout(headers)?.and_then(|timeout| received.checked_add(timeout)))
}

/// How long the client waits, by `grpc-timeout`: at most eight digits and a unit.
///
/// # Errors
/// `invalid_argument` for a value of another form.
pub fn timeout(headers: Headers<'_>) -> Result<Option<Duration>> {
    let Some(value) = headers.get(TIMEOUT) else { return Ok(None) };
    let parts = str::from_utf8(value).ok().and_then(|text| text.split_at_checked(text.len().checked_sub(1)?));
    let digits =
        parts.filter(|(digits, _)| digits.len() <= 8 && digits.bytes().all(|byte| byte.is_ascii_digit()));
    let parsed = digits.and_then(|(digits, unit)| {
        let number: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    });
    let wrong = || {
        Error::invalid(format!(
            "grpc-timeout is \"{}\"; it must be one to eight digits and one of H, M, S, m, u, n",
            value.escape_ascii()
        ))
    };
    parsed.map(Some).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use headgate_core::error::Code;
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn timeouts_have_at_most_eight_digits_and_a_unit() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, HeaderValue::from_str(value).unwrap());
            timeout(Headers::Map(&headers))
        };
        assert_eq!(timeout(Headers::NONE).unwrap(), None);
        for (value, wanted) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("0m", Duration::ZERO),
            ("5u", Duration::from_micros(5)),
            ("99999999n", Duration::from_nanos(99_999_999)),
        ] {
            assert_eq!(read(value).unwrap(), Some(wanted), "{value}");
        }
        for value in ["", "S", "1", "-1S", "1 S", "1.5S", "123456789S", "1s", "1SS"] {
            assert_eq!(read(value).unwrap_err().code, Code::InvalidArgument, "{value}");
        }
    }

    #[test]
    fn any_value_is_read_or_refused() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let Ok(value) = HeaderValue::from_bytes(bytes) else { return };
            let mut headers = HeaderMap::new();
            headers.insert(TIMEOUT, value);
            if let Ok(Some(timeout)) = timeout(Headers::Map(&headers)) {
                assert!(timeout <= Duration::from_secs(3600 * 99_999_999) && bytes.len() <= 9);
            }
        });
    }
}
