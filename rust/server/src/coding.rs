//! Content codings: gzip and deflate, decoded within bounds, and gzip for answers that are asked for so.
//!
//! Large bodies are worked on in steps, and other requests of the IO thread have their turn between them.

use std::io::{self, Read, Write};

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use headgate_core::error::{Code, Error, Result};
use http::HeaderMap;
use http::header::CONTENT_ENCODING;
use hyper::body::Incoming;

use crate::body::{self, Align, Counted};

/// A coding that is more than identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP has it: deflate within zlib's frame.
    Deflate,
}

/// Bytes between two looks at other requests: a step takes some hundred microseconds.
const STEP: usize = 64 << 10;

impl Coding {
    /// The coding of that name; the inner `None` is identity, the outer one an unknown name.
    pub fn parse(name: &[u8]) -> Option<Option<Coding>> {
        match name.to_ascii_lowercase().as_slice() {
            b"" | b"identity" => Some(None),
            b"gzip" | b"x-gzip" => Some(Some(Coding::Gzip)),
            b"deflate" => Some(Some(Coding::Deflate)),
            _ => None,
        }
    }
}

/// Reads a request's body, decoded as its `Content-Encoding` says.
///
/// # Errors
/// As [`body::read_aligned`] and [`decode`]; `unsupported` for another coding.
pub async fn read_body(
    body: &mut Incoming,
    limit: usize,
    headers: &HeaderMap,
    align: Align,
) -> Result<(Bytes, Counted)> {
    let coding = match headers.get(CONTENT_ENCODING) {
        None => None,
        Some(name) => Coding::parse(name.as_bytes()).ok_or_else(|| {
            Error::new(
                Code::Unsupported,
                format!("Content-Encoding {name:?} is not supported; gzip, deflate and identity are"),
            )
        })?,
    };
    let (body, mut counted) = body::read_aligned(body, limit, headers, align).await?;
    match coding {
        None => Ok((body, counted)),
        Some(coding) => Ok((decode(&body, coding, limit, &mut counted).await?.into(), counted)),
    }
}

/// Decodes a body into at most `limit` bytes, which are counted as they come.
///
/// # Errors
/// `payload_too_large` beyond `limit`, `invalid_argument` for bytes that are not of this coding; `overloaded` when large
/// requests hold all the memory they may.
pub async fn decode(body: &[u8], coding: Coding, limit: usize, counted: &mut Counted) -> Result<Vec<u8>> {
    unpack(body, coding, limit, |bytes| counted.add(bytes)).await
}

async fn unpack(
    body: &[u8],
    coding: Coding,
    limit: usize,
    count: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<u8>> {
    match coding {
        Coding::Gzip => read(MultiGzDecoder::new(body), "gzip", limit, count).await,
        Coding::Deflate => read(ZlibDecoder::new(body), "deflate", limit, count).await,
    }
}

async fn read(
    mut from: impl Read,
    name: &str,
    limit: usize,
    mut count: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    loop {
        let before = out.len();
        if before > 0 {
            count(STEP)?;
        }
        let step = STEP.min(limit.saturating_add(1) - before);
        (&mut from).take(step as u64).read_to_end(&mut out).map_err(|error| {
            Error::invalid(format!("the body is not {name}, as its content coding says: {error}"))
        })?;
        if out.len() > limit {
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("the decompressed body is larger than {limit} bytes, the limit (--max-body)"),
            ));
        }
        if out.len() - before < step {
            return Ok(out);
        }
        tokio::task::yield_now().await;
    }
}

/// Encodes an answer with gzip at its fastest level.
///
/// # Errors
/// Never in practice: memory takes every write.
pub async fn gzip(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), flate2::Compression::fast());
    for step in body.chunks(STEP) {
        encoder.write_all(step)?;
        if body.len() > STEP {
            tokio::task::yield_now().await;
        }
    }
    encoder.finish()
}

/// Whether an `Accept-Encoding` header asks for gzip: named, with a weight above 0. `*` does not ask for anything.
pub fn asks_for_gzip(header: &[u8]) -> bool {
    header.split(|&byte| byte == b',').any(|entry| {
        let mut parts = entry.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let named = parts.next().is_some_and(|name| matches!(Coding::parse(name), Some(Some(Coding::Gzip))));
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        named && weight.is_none_or(|weight| weight.iter().any(|byte| (b'1'..=b'9').contains(byte)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(work)
    }

    fn decoded(body: &[u8], coding: Coding, limit: usize) -> Result<Vec<u8>> {
        now(unpack(body, coding, limit, |_| Ok(())))
    }

    #[test]
    fn what_was_encoded_is_decoded_within_the_limit() {
        let body = vec![7u8; 1 << 20];
        let packed = now(gzip(&body)).unwrap();
        assert!(packed.len() < 20_000);
        assert_eq!(decoded(&packed, Coding::Gzip, 1 << 20).unwrap(), body);
        let error = decoded(&packed, Coding::Gzip, (1 << 20) - 1).unwrap_err();
        assert_eq!(error.code, Code::PayloadTooLarge);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"abc").unwrap();
        assert_eq!(decoded(&zlib.finish().unwrap(), Coding::Deflate, 3).unwrap(), b"abc");
    }

    #[test]
    fn every_step_is_counted_before_it_is_made() {
        let packed = now(gzip(&vec![7u8; 4 * STEP])).unwrap();
        let mut left = 2;
        let count = |bytes| {
            assert_eq!(bytes, STEP);
            left -= 1;
            if left < 0 { Err(Error::new(Code::Overloaded, "enough")) } else { Ok(()) }
        };
        let error = now(unpack(&packed, Coding::Gzip, usize::MAX, count)).unwrap_err();
        assert_eq!((error.code, left), (Code::Overloaded, -1));
    }

    #[test]
    fn gzip_may_have_several_members() {
        let packed = [now(gzip(b"one ")).unwrap(), now(gzip(b"two")).unwrap()].concat();
        assert_eq!(decoded(&packed, Coding::Gzip, 100).unwrap(), b"one two");
    }

    #[test]
    fn what_is_not_of_the_coding_or_cut_off_is_refused() {
        let packed = now(gzip(b"some words")).unwrap();
        for broken in [&b"plain"[..], b"", &packed[..packed.len() - 3]] {
            let error = decoded(broken, Coding::Gzip, 100).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{error}");
        }
    }

    #[test]
    fn gzip_is_used_when_it_is_asked_for() {
        for header in ["gzip", "deflate, gzip;q=0.5", "GZIP;q=1.0", "br , x-gzip"] {
            assert!(asks_for_gzip(header.as_bytes()), "{header}");
        }
        for header in ["", "*", "identity", "gzip;q=0", "gzip;q=0.000", "gzipx", "deflate"] {
            assert!(!asks_for_gzip(header.as_bytes()), "{header}");
        }
    }
}
