//! Content codings: gzip and deflate, decoded within bounds, and gzip for clients that ask for it.
//!
//! Work of more than a step is done on another thread.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;

use crate::headers::Headers;
use crate::thread::io as thread;
use crate::thread::offload;
use crate::thread::request_memory::RequestMemory;
use crate::transport::body::{self, BodySource, FindAligned, ReadBody};

/// A coding that is more than identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952.
    Gzip,
    /// RFC 1950, as HTTP has it: deflate within zlib's frame.
    Deflate,
}

/// Bytes that are read and decoded, or encoded, on the IO thread: that takes some hundred microseconds.
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

/// Reads a request's body, decoded as its `Content-Encoding` says. At `until` the request is of no use any more.
///
/// # Errors
/// As [`BodySource::read`] and [`decode`]; `unsupported_media_type` for another coding.
pub async fn read_body(
    body: &mut BodySource,
    limit: usize,
    headers: Headers<'_>,
    align: FindAligned,
    until: Option<Instant>,
) -> Result<ReadBody> {
    let coding = match headers.get("content-encoding") {
        None => None,
        Some(_) => of_body(headers)?,
    };
    let mut read = body.read(limit, headers, align).await?;
    if let Some(coding) = coding {
        let bounds = DecodeBounds { limit, until };
        let decoded = Box::pin(decode(&read.bytes, coding, bounds, &mut read.memory)).await?;
        read.bytes = decoded.into();
    }
    Ok(read)
}

/// The one coding of a body. All header lines make one list, and identity in it does not count.
///
/// # Errors
/// `unsupported_media_type` for another coding, and for several.
pub fn of_body(headers: Headers<'_>) -> Result<Option<Coding>> {
    let names = headers.values("content-encoding").flat_map(|line| line.split(|&byte| byte == b','));
    let mut found = None;
    for name in names.map(<[u8]>::trim_ascii) {
        match (Coding::parse(name), found) {
            (Some(None), _) => {}
            (Some(coding), None) => found = coding,
            (Some(_), Some(_)) => {
                return Err(unsupported("several codings are not supported, one after the other"));
            }
            (None, _) => return Err(unsupported(&format!("\"{}\" is not supported", name.escape_ascii()))),
        }
    }
    Ok(found)
}

fn unsupported(why: &str) -> Error {
    Error::new(Code::UnsupportedMediaType, format!("Content-Encoding: {why}; send gzip, deflate or identity"))
}

/// What decoding a body may take.
#[derive(Clone, Copy, Debug)]
pub struct DecodeBounds {
    /// The most bytes that come of it.
    pub limit: usize,
    /// When the request is of no use any more.
    pub until: Option<Instant>,
}

/// Decodes a body into at most `limit` bytes, which are counted as they come; on another thread if it takes more than a step.
///
/// # Errors
/// `payload_too_large` beyond `limit`, `invalid_argument` for bytes that are not of this coding; `overloaded` when large
/// requests hold all the memory they may; `deadline_exceeded`.
pub async fn decode(
    body: &Bytes,
    coding: Coding,
    bounds: DecodeBounds,
    memory: &mut RequestMemory,
) -> Result<Vec<u8>> {
    let DecodeBounds { limit, until } = bounds;
    // A small one is counted when it is known how long it is.
    match unpack(body, coding, limit.min(STEP), STEP, |_| Ok(())) {
        Err(DecodeStop::AtLimit | DecodeStop::Unfinished) => {}
        Err(DecodeStop::Refused(error)) => return Err(error),
        Ok(decoded) => {
            thread::with(|io| memory.add_body(io, decoded.len()))?;
            return Ok(decoded);
        }
    }
    let body = body.clone();
    let decoded = offload::run(until, memory, move |memory| {
        // As much again for the tensors that are decoded from it.
        let count = |bytes: usize| memory.add_bytes(bytes.saturating_mul(2));
        Ok(unpack(&body, coding, limit, usize::MAX, count))
    });
    // Put into words here: they name a setting that only this thread knows.
    decoded.await?.map_err(|stop| stop.into_error(limit))
}

/// Why decoding stopped before its end.
#[derive(Debug)]
enum DecodeStop {
    /// There is more than what is allowed.
    AtLimit,
    /// It takes more work than what is allowed.
    Unfinished,
    /// The body is wrong, or there is no memory for it.
    Refused(Error),
}

impl DecodeStop {
    /// The error for a client that may send `limit` bytes.
    fn into_error(self, limit: usize) -> Error {
        match self {
            DecodeStop::Refused(error) => error,
            DecodeStop::AtLimit | DecodeStop::Unfinished => Error::new(
                Code::PayloadTooLarge,
                format!("the decompressed body is larger than {}", body::limit_words(limit)),
            ),
        }
    }
}

impl From<Error> for DecodeStop {
    fn from(error: Error) -> DecodeStop {
        DecodeStop::Refused(error)
    }
}

/// Decodes at most `limit` bytes with at most `work`, which is counted in bytes that are read or decoded.
fn unpack(
    body: &[u8],
    coding: Coding,
    limit: usize,
    work: usize,
    count: impl FnMut(usize) -> Result<()>,
) -> std::result::Result<Vec<u8>, DecodeStop> {
    let mut decoded = BoundedOutput { bytes: Vec::new(), limit, counted: 0, count };
    let steps = StepReader { rest: body, left: work };
    match coding {
        Coding::Gzip => gunzip(steps, &mut decoded)?,
        Coding::Deflate => {
            let mut stream = ZlibDecoder::new(steps);
            decoded.fill(&mut stream, "deflate")?;
            if !stream.into_inner().rest.is_empty() {
                return Err(malformed("deflate", "bytes follow its end").into());
            }
        }
    }
    Ok(decoded.bytes)
}

/// What a member costs beside its bytes, as bytes of a step.
const MEMBER_COST: usize = 1 << 10;
/// So many members may have any size. If there are more, each must have [`MIN_MEMBER_BYTES`] on average.
const FREE_MEMBERS: usize = 1 << 10;
/// See [`FREE_MEMBERS`].
const MIN_MEMBER_BYTES: usize = 64;

/// Decodes one member after the other; zeros behind the last one are padding, as for gzip itself.
fn gunzip<F: FnMut(usize) -> Result<()>>(
    mut steps: StepReader<'_>,
    decoded: &mut BoundedOutput<F>,
) -> std::result::Result<(), DecodeStop> {
    let mut members = 0;
    loop {
        let mut member = GzDecoder::new(steps);
        decoded.fill(&mut member, "gzip")?;
        steps = member.into_inner();
        if steps.end()? {
            return Ok(());
        }
        members += 1;
        if members > FREE_MEMBERS + decoded.bytes.len() / MIN_MEMBER_BYTES {
            let why = format!(
                "more than {FREE_MEMBERS} members must have {MIN_MEMBER_BYTES} bytes each on average"
            );
            return Err(malformed("gzip", &why).into());
        }
        steps.spend(MEMBER_COST);
    }
}

/// A body as a decoder reads it: a limited part of it, and then `WouldBlock`.
struct StepReader<'a> {
    rest: &'a [u8],
    left: usize,
}

impl StepReader<'_> {
    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Whether the body ends here, or with nothing but zeros.
    ///
    /// # Errors
    /// `invalid_argument` for zeros that something follows.
    fn end(&self) -> Result<bool> {
        match self.rest {
            [] => Ok(true),
            [0, rest @ ..] if rest.iter().all(|&byte| byte == 0) => Ok(true),
            [0, ..] => Err(malformed("gzip", "zeros are within it")),
            _ => Ok(false),
        }
    }
}

impl BufRead for StepReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.left == 0 && !self.rest.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.rest[..self.left.min(self.rest.len())])
    }

    fn consume(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
        self.spend(bytes);
    }
}

impl Read for StepReader<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

/// What was decoded so far, within its limit.
struct BoundedOutput<F> {
    bytes: Vec<u8>,
    limit: usize,
    /// Bytes that were counted so far.
    counted: usize,
    /// Counts the bytes of a step before they are decoded.
    count: F,
}

impl<F: FnMut(usize) -> Result<()>> BoundedOutput<F> {
    /// Reads a decoder to its end.
    fn fill(&mut self, from: &mut impl Read, name: &str) -> std::result::Result<(), DecodeStop> {
        loop {
            let before = self.bytes.len();
            // One byte beyond the limit shows that there is more.
            let step = STEP.min(self.limit.saturating_add(1) - before);
            if before + step > self.counted {
                (self.count)(STEP)?;
                self.counted += STEP;
            }
            let outcome = from.take(step as u64).read_to_end(&mut self.bytes);
            if self.bytes.len() > self.limit {
                return Err(DecodeStop::AtLimit);
            }
            match outcome {
                Ok(_) if self.bytes.len() - before < step => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(DecodeStop::Unfinished);
                }
                Err(error) => return Err(malformed(name, &error.to_string()).into()),
            }
        }
    }
}

fn malformed(coding: &str, why: &str) -> Error {
    Error::invalid(format!("the body is not {coding}, as its content coding says: {why}"))
}

/// Encodes a response with gzip at its fastest level; on another thread and until `until` if it is more than a few steps. The response
/// comes back with what was made of it, if there was room for that.
///
/// # Errors
/// `deadline_exceeded`; `internal` after a panic.
pub async fn gzip(
    body: Vec<u8>,
    until: Option<Instant>,
    memory: &mut RequestMemory,
) -> Result<(Vec<u8>, Option<Vec<u8>>)> {
    if body.len() <= ENCODED_INLINE {
        let packed = encode(&body).ok();
        return Ok((body, packed));
    }
    let encoded = offload::run(until, memory, move |memory| {
        // Memory for both while both exist; then the smaller one is sent.
        let room = memory.reserve_response(body.len());
        let packed = room.ok().and_then(|_room| encode(&body).ok());
        Ok((body, packed))
    });
    encoded.await
}

/// Bytes that are encoded on the IO thread: that takes about a millisecond.
const ENCODED_INLINE: usize = 4 * STEP;

fn encode(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 3), flate2::Compression::fast());
    encoder.write_all(body)?;
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
mod tests;
