//! Content codings: gzip and deflate, decoded within bounds, and gzip for answers that are asked for so.
//!
//! Large bodies are worked on in steps, and other requests of the IO thread have their turn between them.

use std::io::{self, BufRead, Read, Write};

use bytes::Bytes;
use flate2::bufread::{GzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use headgate_core::error::{Code, Error, Result};

use crate::body::{self, Align, Source};
use crate::counted::Counted;
use crate::headers::Headers;

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
/// As [`Source::read`] and [`decode`]; `unsupported_media_type` for another coding.
pub async fn read_body(
    body: &mut Source,
    limit: usize,
    headers: Headers<'_>,
    align: Align,
) -> Result<(Bytes, Counted)> {
    let coding = match headers.get("content-encoding") {
        None => None,
        Some(_) => of_body(headers)?,
    };
    let (body, mut counted) = body.read(limit, headers, align).await?;
    match coding {
        None => Ok((body, counted)),
        Some(coding) => Ok((decode(&body, coding, limit, &mut counted).await?.into(), counted)),
    }
}

/// The one coding of a body: header lines make one list, in which identity says nothing.
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

/// Decodes a body into at most `limit` bytes, which are counted as they come.
///
/// # Errors
/// `payload_too_large` beyond `limit`, `invalid_argument` for bytes that are not of this coding; `overloaded` when large
/// requests hold all the memory they may.
pub async fn decode(body: &[u8], coding: Coding, limit: usize, counted: &mut Counted) -> Result<Vec<u8>> {
    let decoded = unpack(body, coding, limit, |bytes| counted.add(bytes)).await?;
    // Of a small one no step was counted.
    counted.add(if decoded.len() < STEP { decoded.len() } else { 0 })?;
    Ok(decoded)
}

async fn unpack(
    body: &[u8],
    coding: Coding,
    limit: usize,
    count: impl FnMut(usize) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut decoded = Decoded { bytes: Vec::new(), limit, counted: STEP, count };
    let steps = Steps { rest: body, left: STEP };
    match coding {
        Coding::Gzip => gunzip(steps, &mut decoded).await?,
        Coding::Deflate => {
            let mut stream = ZlibDecoder::new(steps);
            decoded.fill(&mut stream, "deflate", ZlibDecoder::get_mut).await?;
            if !stream.into_inner().rest.is_empty() {
                return Err(malformed("deflate", "bytes follow its end"));
            }
        }
    }
    Ok(decoded.bytes)
}

/// What a member costs beside its bytes, as bytes of a step.
const MEMBER: usize = 1 << 10;
/// Members that may have any number of bytes; of more, each has so many on average.
const FREE_MEMBERS: usize = 1 << 10;
/// See [`FREE_MEMBERS`].
const LEAST: usize = 64;

/// Decodes one member after the other; zeros behind the last one are padding, as for gzip itself.
async fn gunzip<F: FnMut(usize) -> Result<()>>(mut steps: Steps<'_>, decoded: &mut Decoded<F>) -> Result<()> {
    let mut members = 0;
    loop {
        let mut member = GzDecoder::new(steps);
        decoded.fill(&mut member, "gzip", GzDecoder::get_mut).await?;
        steps = member.into_inner();
        if steps.end().await? {
            return Ok(());
        }
        members += 1;
        if members > FREE_MEMBERS + decoded.bytes.len() / LEAST {
            let why = format!("more than {FREE_MEMBERS} members must have {LEAST} bytes each on average");
            return Err(malformed("gzip", &why));
        }
        steps.spend(MEMBER);
        steps.turn().await;
    }
}

/// A body as a decoder takes it: a step of it, and then `WouldBlock` until others have had their turn.
struct Steps<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Steps<'_> {
    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Lets others have their turn where a step is over.
    async fn turn(&mut self) {
        if self.left == 0 {
            tokio::task::yield_now().await;
            self.left = STEP;
        }
    }

    /// Whether the body ends here, or with nothing but zeros.
    ///
    /// # Errors
    /// `invalid_argument` for zeros that something follows.
    async fn end(&mut self) -> Result<bool> {
        let mut zeros = false;
        while !self.rest.is_empty() {
            self.turn().await;
            let piece = &self.rest[..self.left.min(self.rest.len())];
            match piece.iter().any(|&byte| byte != 0) {
                true if zeros || piece[0] == 0 => return Err(malformed("gzip", "zeros are within it")),
                true => return Ok(false),
                false => zeros = true,
            }
            let length = piece.len();
            self.consume(length);
        }
        Ok(true)
    }
}

impl BufRead for Steps<'_> {
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

impl Read for Steps<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

/// What was decoded so far, within its limit.
struct Decoded<F> {
    bytes: Vec<u8>,
    limit: usize,
    /// Bytes that there may be: the first step is not counted, as small bodies are not.
    counted: usize,
    /// Takes the bytes of a step before they are decoded.
    count: F,
}

impl<F: FnMut(usize) -> Result<()>> Decoded<F> {
    /// Reads a decoder to its end.
    async fn fill<'a, D: Read>(
        &mut self,
        from: &mut D,
        name: &str,
        steps: fn(&mut D) -> &mut Steps<'a>,
    ) -> Result<()> {
        loop {
            let step = STEP.min(self.limit.saturating_add(1) - self.bytes.len());
            if !self.step(from, step, name)? {
                return Ok(());
            }
            // A step is over: of what is read, or of what came out.
            steps(from).left = 0;
            steps(from).turn().await;
        }
    }

    /// Reads at most `step` bytes; false at the decoder's end.
    fn step(&mut self, from: &mut impl Read, step: usize, name: &str) -> Result<bool> {
        let before = self.bytes.len();
        if before + step > self.counted {
            (self.count)(STEP)?;
            self.counted += STEP;
        }
        let outcome = from.take(step as u64).read_to_end(&mut self.bytes);
        if self.bytes.len() > self.limit {
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("the decompressed body is larger than {}", body::limit_words(self.limit)),
            ));
        }
        match outcome {
            Ok(_) => Ok(self.bytes.len() - before == step),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(malformed(name, &error.to_string())),
        }
    }
}

fn malformed(coding: &str, why: &str) -> Error {
    Error::invalid(format!("the body is not {coding}, as its content coding says: {why}"))
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
    fn zeros_behind_the_last_member_are_padding() {
        let packed = now(gzip(b"some words")).unwrap();
        for zeros in [1, 511, 3 * STEP] {
            let padded = [packed.clone(), vec![0; zeros]].concat();
            assert_eq!(decoded(&padded, Coding::Gzip, 100).unwrap(), b"some words");
            let error = decoded(&[padded, vec![1]].concat(), Coding::Gzip, 100).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument);
        }
    }

    #[test]
    fn a_member_that_ends_with_a_step_is_followed_like_any_other() {
        // A stored member has its bytes, 5 for each block of at most 65 535, and 18 around them.
        let stored = |bytes: usize| {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::none());
            encoder.write_all(&vec![b' '; bytes]).unwrap();
            encoder.finish().unwrap()
        };
        let second = now(gzip(b"second")).unwrap();
        for bytes in STEP - 64..STEP + 8 {
            let first = stored(bytes);
            let both = [first.clone(), second.clone()].concat();
            assert!(decoded(&both, Coding::Gzip, usize::MAX).unwrap().ends_with(b" second"), "{bytes}");
            for behind in [&b"GARBAGE"[..], b"\0\0G", &[&[0; 3 * STEP][..], b"G"].concat()] {
                let body = [&first[..], behind].concat();
                let error = decoded(&body, Coding::Gzip, usize::MAX).unwrap_err();
                assert_eq!(error.code, Code::InvalidArgument, "{bytes}");
            }
        }
    }

    #[test]
    fn more_members_than_bytes_to_show_for_them_are_refused() {
        let empty = now(gzip(b"")).unwrap();
        let several = [now(gzip(b"words")).unwrap(), empty.repeat(100)].concat();
        assert_eq!(decoded(&several, Coding::Gzip, 100).unwrap(), b"words");
        let error = decoded(&empty.repeat(100_000), Coding::Gzip, 100).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        // Lines that were flushed one by one, and blocks as bgzip makes them, however many.
        let lines = now(gzip(&[7; 80])).unwrap().repeat(20_000);
        assert_eq!(decoded(&lines, Coding::Gzip, usize::MAX).unwrap().len(), 20_000 * 80);
        let blocks = now(gzip(&[7; 4096])).unwrap().repeat(3_000);
        assert_eq!(decoded(&blocks, Coding::Gzip, usize::MAX).unwrap().len(), 3_000 * 4096);
    }

    #[test]
    fn others_have_their_turn_while_much_is_read_that_decodes_to_nothing() {
        // Blocks of deflate that are stored and empty.
        let nothing = [vec![0x78, 0x01], [0, 0, 0, 0xff, 0xff].repeat(STEP)].concat();
        let mut work = std::pin::pin!(unpack(&nothing, Coding::Deflate, 100, |_| Ok(())));
        let mut turns = 0;
        let done = now(std::future::poll_fn(|cx| {
            turns += 1;
            work.as_mut().poll(cx)
        }));
        assert_eq!(done.unwrap_err().code, Code::InvalidArgument, "it has no end");
        assert!(turns >= 5, "{turns}");
    }

    #[test]
    fn what_is_not_of_the_coding_or_cut_off_is_refused() {
        let packed = now(gzip(b"some words")).unwrap();
        for broken in [&b"plain"[..], b"", &packed[..packed.len() - 3]] {
            let error = decoded(broken, Coding::Gzip, 100).unwrap_err();
            assert_eq!(error.code, Code::InvalidArgument, "{error}");
        }
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(b"abc").unwrap();
        let followed = [zlib.finish().unwrap(), vec![0]].concat();
        assert_eq!(decoded(&followed, Coding::Deflate, 3).unwrap_err().code, Code::InvalidArgument);
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
