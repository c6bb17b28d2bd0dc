//! The one message of a unary call: five bytes in front of it, compressed if the client says so.
//!
//! Next: `grpc/unary`.

use bytes::{Buf, Bytes};
use headgate_core::error::{Code, Error, Result};
use http::{HeaderMap, HeaderValue};

use crate::coding::{self, Coding};

/// A flag and the length of the message.
pub const PREFIX: usize = 5;

/// Takes the message out of a body.
///
/// # Errors
/// `invalid_argument` for a body that is not one message, `unsupported` for a compression that is not known,
/// `payload_too_large` for more than `limit` bytes when decompressed.
pub async fn take(headers: &HeaderMap, mut body: Bytes, limit: usize) -> Result<Bytes> {
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX>() else {
        return Err(Error::invalid(format!(
            "the body is {} bytes; a call has one message with {PREFIX} bytes in front",
            body.len()
        )));
    };
    let [flag, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    if rest.len() != length {
        return Err(Error::invalid(format!(
            "the message is said to be {length} bytes, and {} follow; a call has exactly one message",
            rest.len()
        )));
    }
    body.advance(PREFIX);
    match flag {
        0 => Ok(body),
        1 => coding::decode(&body, encoding(headers)?, limit).await.map(Bytes::from),
        _ => Err(Error::invalid(format!("the message's flag is {flag}; it must be 0, or 1 when compressed"))),
    }
}

fn encoding(headers: &HeaderMap) -> Result<Coding> {
    let name = headers.get("grpc-encoding").map(HeaderValue::as_bytes);
    match name.and_then(Coding::parse) {
        Some(Some(coding)) => Ok(coding),
        Some(None) => {
            Err(Error::invalid("the message is flagged as compressed, but grpc-encoding is identity"))
        }
        None => Err(Error::new(
            Code::Unsupported,
            format!(
                "grpc-encoding {:?} is not supported; gzip, deflate and identity are",
                name.map(String::from_utf8_lossy).unwrap_or_default()
            ),
        )),
    }
}

/// Leaves room for the prefix of a message that will follow in `out`.
pub fn begin(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0; PREFIX]);
}

/// Completes the prefix once the message is written.
///
/// # Errors
/// `payload_too_large` for a message whose length 32 bits do not hold.
pub fn end(out: &mut [u8]) -> Result<()> {
    let length = u32::try_from(out.len() - PREFIX).map_err(|_| {
        Error::new(Code::PayloadTooLarge, "the answer is larger than 4 GiB, the limit of a gRPC message")
    })?;
    out[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
