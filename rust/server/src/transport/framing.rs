//! What HTTP/1.1 demands of a request's head and hyper does not check. A proxy that reads such a head otherwise than we do could find
//! another request in the same bytes. So it is refused, and the connection closes.

use headgate_core::error::{Code, Error, Result};
use http::Version;

use crate::headers::Headers;

/// Checks the head of a request on HTTP/1.
///
/// # Errors
/// `unsupported` for a transfer coding besides `chunked`; `invalid_argument` for a host that is missing, given twice or no
/// host (RFC 9112, 3.2).
pub fn check(version: Version, headers: Headers<'_>) -> Result<()> {
    transfer_coding(headers)?;
    if version == Version::HTTP_11 {
        host(headers)?;
    }
    Ok(())
}

fn transfer_coding(headers: Headers<'_>) -> Result<()> {
    let Some(first) = headers.get("transfer-encoding") else { return Ok(()) };
    match headers.values("transfer-encoding").nth(1) {
        None if first.eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(Error::new(
            Code::Unsupported,
            format!(
                "Transfer-Encoding \"{}\" is not supported; chunked alone is, and Content-Encoding for gzip",
                first.escape_ascii()
            ),
        )),
    }
}

fn host(headers: Headers<'_>) -> Result<()> {
    let mut hosts = headers.values("host");
    match (hosts.next(), hosts.next()) {
        (Some(value), None) if is_host(value) => Ok(()),
        (Some(_), None) => Err(Error::invalid("Host is not a host and a port")),
        (Some(_), Some(_)) => Err(Error::invalid("Host is given twice")),
        (None, _) => Err(Error::invalid("HTTP/1.1 needs a Host header")),
    }
}

/// Whether a value is a host with or without a port; an empty one is.
pub fn is_host(value: &[u8]) -> bool {
    value.iter().all(is_of_host)
}

/// The bytes of host and port (RFC 3986, 3.2.2), percent-encoding and IPv6 brackets included.
fn is_of_host(byte: &u8) -> bool {
    OF_HOST[usize::from(*byte)]
}

/// Whether a byte may be part of a host, as a table: every request has one.
static OF_HOST: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0u8;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric();
        byte += 1;
    }
    let others = b"-._~%!$&'()*+,;=:[]";
    let mut at = 0;
    while at < others.len() {
        table[others[at] as usize] = true;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(headers: &[(&str, &str)]) -> Result<()> {
        let request = headers
            .iter()
            .fold(http::Request::builder(), |request, (name, value)| request.header(*name, *value));
        check(Version::HTTP_11, Headers::Map(request.body(()).unwrap().headers()))
    }

    #[test]
    fn one_host_and_at_most_chunked() {
        for host in ["gateway", "gateway:8000", "[::1]:8000", "127.0.0.1", ""] {
            checked(&[("host", host)]).unwrap();
        }
        checked(&[("host", "a"), ("transfer-encoding", "Chunked")]).unwrap();
        for headers in [
            &[][..],
            &[("host", "a"), ("host", "a")],
            &[("host", "a b")],
            &[("host", "a/v2")],
            &[("host", "user@a")],
            &[("host", "a"), ("transfer-encoding", "gzip, chunked")],
            &[("host", "a"), ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
        ] {
            assert!(checked(headers).is_err(), "{headers:?}");
        }
    }
}
