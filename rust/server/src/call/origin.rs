//! Which callers may change what is in memory: programs, never the pages that a browser shows.
//!
//! A browser sends a POST of any page to any address without asking first, and names the page in `Origin`. Programs send no
//! `Origin`. No page is served here, so that none has a reason to ask for a change: one from the gateway's own address is let
//! pass only under a loopback name or an address, since any other name may have been pointed at the gateway by the page's owner
//! (DNS rebinding).

use std::net::IpAddr;

use headgate_core::error::{Code, Error, Result};

use crate::headers::Headers;

/// Refuses a request that a page of another site made.
///
/// # Errors
/// `permission_denied` that names the origin.
pub fn refuse_cross_origin(headers: Headers<'_>) -> Result<()> {
    let host = headers.get("host").unwrap_or_default();
    let foreign = headers.values("origin").find(|origin| !is_same_origin(origin, host));
    let Some(origin) = foreign else { return Ok(()) };
    let origin = &origin[..origin.len().min(MAX_SHOWN)];
    Err(Error::new(
        Code::PermissionDenied,
        format!(
            "Origin \"{}\" is a page of another site: models are loaded and unloaded by programs, which send no Origin",
            origin.escape_ascii()
        ),
    ))
}

/// How much of an origin a message shows, in bytes.
const MAX_SHOWN: usize = 200;

/// Whether an origin is the address that was called, under a name that no DNS server can give to another machine.
fn is_same_origin(origin: &[u8], host: &[u8]) -> bool {
    let Ok(origin) = str::from_utf8(origin) else { return false };
    let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    authority.is_some_and(|authority| {
        authority.as_bytes().eq_ignore_ascii_case(host) && is_address(host_name(authority))
    })
}

/// An authority without its port and an address's brackets.
fn host_name(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split_once(':').map_or(authority, |(name, _)| name),
    }
}

fn is_address(name: &str) -> bool {
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_the_gateways_own_only_under_an_address() {
        for (origin, host, own) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", true),
            ("http://LocalHost:8000", "localhost:8000", true),
            ("https://[::1]:8000", "[::1]:8000", true),
            ("http://evil.example", "127.0.0.1:8000", false),
            ("http://127.0.0.1:9000", "127.0.0.1:8000", false),
            ("http://evil.example:8000", "evil.example:8000", false),
            ("null", "127.0.0.1:8000", false),
            ("", "", false),
            ("file://", "", false),
            ("http://", "", false),
        ] {
            assert_eq!(is_same_origin(origin.as_bytes(), host.as_bytes()), own, "{origin} at {host}");
        }
    }
}
