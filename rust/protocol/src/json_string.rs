//! One JSON string: its text read and unescaped, and text written as a string.
//!
//! Not here: lists of strings, which are BYTES tensors (`strings`). Next: `json_cursor`.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use memchr::memchr2;

use crate::json_fault::{FaultKind, JsonFault, ParseResult};

/// Reads the string whose content starts at `pos`; returns it and the offset behind its closing quote.
pub(crate) fn read(data: &[u8], pos: usize) -> ParseResult<(Cow<'_, str>, usize)> {
    let (run, end) = plain_run(data, pos)?;
    if data.get(end) == Some(&b'"') {
        return Ok((Cow::Borrowed(run), end + 1));
    }
    let mut owned = Vec::with_capacity(run.len() + 16);
    let end = append(data, pos, &mut owned)?;
    let text = String::from_utf8(owned).map_err(|_| JsonFault::new(data, pos, FaultKind::Utf8))?;
    Ok((Cow::Owned(text), end))
}

/// Appends the string whose content starts at `pos`, unescaped; returns the offset behind its closing quote.
pub(crate) fn append(data: &[u8], mut pos: usize, out: &mut Vec<u8>) -> ParseResult<usize> {
    loop {
        let (run, end) = plain_run(data, pos)?;
        out.extend_from_slice(run.as_bytes());
        if data.get(end) == Some(&b'"') {
            return Ok(end + 1);
        }
        pos = escape(data, end, out)?;
    }
}

/// The characters from `pos` to the next quote or backslash, and the offset of that quote or backslash.
fn plain_run(data: &[u8], pos: usize) -> ParseResult<(&str, usize)> {
    let rest = data.get(pos..).unwrap_or_default();
    let Some(length) = memchr2(b'"', b'\\', rest) else {
        return Err(JsonFault::new(data, data.len(), FaultKind::Expected("the end of a string")));
    };
    let run = &rest[..length];
    if run.iter().fold(false, |any, &byte| any | (byte < 0x20)) {
        let at = run.iter().position(|&byte| byte < 0x20).unwrap_or(0);
        return Err(JsonFault::new(data, pos + at, FaultKind::ControlCharacter));
    }
    match std::str::from_utf8(run) {
        Ok(run) => Ok((run, pos + length)),
        Err(error) => Err(JsonFault::new(data, pos + error.valid_up_to(), FaultKind::Utf8)),
    }
}

/// Appends the character of the escape whose backslash is at `pos`; returns the offset behind the escape.
fn escape(data: &[u8], pos: usize, out: &mut Vec<u8>) -> ParseResult<usize> {
    let plain = match data.get(pos + 1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => byte,
        Some(b'b') => 0x08,
        Some(b'f') => 0x0c,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'u') => return escaped_unit(data, pos, out),
        _ => return Err(JsonFault::new(data, pos + 1, FaultKind::Escape)),
    };
    out.push(plain);
    Ok(pos + 2)
}

/// Appends the character of a `\uXXXX`, or of a surrogate pair.
fn escaped_unit(data: &[u8], pos: usize, out: &mut Vec<u8>) -> ParseResult<usize> {
    let first = hex4(data, pos + 2)?;
    let (code, end) = match first {
        0xd800..=0xdbff => {
            if data.get(pos + 6..pos + 8) != Some(b"\\u") {
                return Err(JsonFault::new(data, pos, FaultKind::Surrogate));
            }
            let second = hex4(data, pos + 8)?;
            if !(0xdc00..=0xdfff).contains(&second) {
                return Err(JsonFault::new(data, pos, FaultKind::Surrogate));
            }
            (0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00), pos + 12)
        }
        _ => (first, pos + 6),
    };
    let character = char::from_u32(code).ok_or_else(|| JsonFault::new(data, pos, FaultKind::Surrogate))?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(end)
}

/// The four hexadecimal digits at `pos`.
fn hex4(data: &[u8], pos: usize) -> ParseResult<u32> {
    let digits = data.get(pos..pos + 4).unwrap_or_default();
    if digits.len() < 4 {
        return Err(JsonFault::new(data, data.len(), FaultKind::Escape));
    }
    digits.iter().try_fold(0, |value, &byte| match char::from(byte).to_digit(16) {
        Some(digit) => Ok(value << 4 | digit),
        None => Err(JsonFault::new(data, pos, FaultKind::Escape)),
    })
}

/// Appends `bytes` as a JSON string in base64, quotes included.
pub(crate) fn write_json_base64(bytes: &[u8], out: &mut Vec<u8>) {
    out.push(b'"');
    out.extend_from_slice(BASE64.encode(bytes).as_bytes());
    out.push(b'"');
}

/// Appends `text` as a JSON string, quotes included.
pub(crate) fn write_json(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    out.reserve(bytes.len() + 2);
    out.push(b'"');
    // Nearly all texts are names without escapes.
    if needs_escape(bytes) {
        write_escaped(bytes, out);
    } else {
        out.extend_from_slice(bytes);
    }
    out.push(b'"');
}

/// Whether a text has a character that JSON does not have as it is. Eight bytes are tested at a time, as lanes of a word; the last words
/// overlap, and lanes that are left over have spaces.
fn needs_escape(bytes: &[u8]) -> bool {
    const SPACES: u64 = 0x2020_2020_2020_2020;
    let (words, _) = bytes.as_chunks::<8>();
    let last = match (bytes, bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (&[], ..) => return false,
        (&[one], ..) => SPACES << 8 | u64::from(one),
        (&[one, two], ..) => SPACES << 16 | u64::from(two) << 8 | u64::from(one),
        (&[one, two, three], ..) => {
            SPACES << 24 | u64::from(three) << 16 | u64::from(two) << 8 | u64::from(one)
        }
        (_, Some(first), Some(last)) if words.is_empty() => {
            u64::from(u32::from_le_bytes(*last)) << 32 | u64::from(u32::from_le_bytes(*first))
        }
        _ => bytes.last_chunk::<8>().map_or(SPACES, |last| u64::from_le_bytes(*last)),
    };
    words.iter().fold(escape_lanes(last), |found, word| found | escape_lanes(u64::from_le_bytes(*word))) != 0
}

/// A word in which a high bit is set if one of these bytes needs an escape. No byte above 127 does.
#[inline(always)]
fn escape_lanes(word: u64) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGH: u64 = 0x80 * ONES;
    // A lane below `bound` borrows from its high bit. A borrow between lanes begins in a lane that is below it, so that it adds none.
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word;
    let is = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & HIGH
}

fn write_escaped(bytes: &[u8], out: &mut Vec<u8>) {
    let mut done = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let short: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..0x20 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[done..at]);
        out.extend_from_slice(short);
        if short.is_empty() {
            const HEX: &[u8; 16] = b"0123456789abcdef";
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        done = at + 1;
    }
    out.extend_from_slice(&bytes[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_escaped_if_one_byte_needs_it() {
        for length in [0, 1, 2, 3, 4, 5, 7, 8, 9, 16, 20] {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut bytes = vec![b'~'; length];
                    bytes[at] = byte;
                    let needs = byte < 0x20 || byte == b'"' || byte == b'\\';
                    assert_eq!(needs_escape(&bytes), needs, "{byte} at {at} of {length}");
                }
            }
        }
    }
}
