//! A position in a trace, as the header field `traceparent` has it (W3C Trace Context, version 00).
//!
//! A trace is text on its way in and on its way out, so that its ids are checked and copied, eight digits at a time, and no number is made
//! of them.

use std::ops::Range;

use http::{HeaderName, HeaderValue};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The bytes of the field: `00-<32 hex>-<16 hex>-<2 hex>`.
const LENGTH: usize = 55;
/// Where the id of the trace, the span and the flags stand.
const ID: Range<usize> = 3..35;
const SPAN: Range<usize> = 36..52;
const FLAGS: Range<usize> = 53..55;

/// A byte of 1 in each lane of a word, and its highest bit.
const ONES: u64 = u64::MAX / 0xff;
const HIGH_BITS: u64 = 0x80 * ONES;

/// A position in a trace, with a span of the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The field for the next hop, with the span of the gateway as the parent.
    next: [u8; LENGTH],
    /// The span of the caller.
    parent: [u8; 16],
}

impl Trace {
    /// Continues the trace of a caller with a new span. `None` for a value that is not `00-<32 hex>-<16 hex>-<2 hex>` in lower case with ids
    /// that are not 0: the standard says to ignore it.
    pub(super) fn parse(value: &[u8], span: impl FnOnce() -> u64) -> Option<Trace> {
        let mut next: [u8; LENGTH] = value.try_into().ok()?;
        let has_dashes = next[ID.end] == b'-' && next[SPAN.end] == b'-';
        if !next.starts_with(b"00-") || !has_dashes || !next[FLAGS].iter().all(is_hex_digit) {
            return None;
        }
        if !is_id(&next[ID]) || !is_id(&next[SPAN]) {
            return None;
        }
        let parent = next[SPAN].try_into().ok()?;
        next[SPAN].copy_from_slice(&hex(span()));
        Some(Trace { next, parent })
    }

    /// The id of the trace.
    pub fn id(&self) -> &str {
        text(&self.next[ID])
    }

    /// The span of the gateway.
    pub fn span(&self) -> &str {
        text(&self.next[SPAN])
    }

    /// The span of the caller.
    pub fn parent(&self) -> &str {
        text(&self.parent)
    }

    /// The header field for the next hop.
    pub(super) fn field(&self) -> (HeaderName, HeaderValue) {
        let value = HeaderValue::from_bytes(&self.next).unwrap_or_else(|_| HeaderValue::from_static(""));
        (TRACEPARENT.clone(), value)
    }

    /// Appends the field to a head, behind the end of the line before it.
    pub fn write_line(&self, head: &mut Vec<u8>) {
        head.extend_from_slice(b"\r\ntraceparent: ");
        head.extend_from_slice(&self.next);
    }

    /// Appends the field to a block of HTTP/2.
    pub fn write_field(&self, block: &mut Vec<u8>) {
        headgate_http2::write_field(block, b"traceparent", &self.next);
    }
}

/// Digits that were checked.
fn text(digits: &[u8]) -> &str {
    str::from_utf8(digits).unwrap_or_default()
}

fn is_hex_digit(byte: &u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// Whether these digits, a multiple of eight, are hexadecimal in lower case and not all 0.
fn is_id(digits: &[u8]) -> bool {
    let words = digits.as_chunks::<8>().0.iter().map(|chunk| u64::from_le_bytes(*chunk));
    let (mut are_hex, mut are_zeros) = (true, true);
    for word in words {
        are_hex &= are_hex_digits(word);
        are_zeros &= word == u64::from(b'0') * ONES;
    }
    are_hex && !are_zeros
}

/// Whether each byte of a word is a hexadecimal digit in lower case.
fn are_hex_digits(word: u64) -> bool {
    // A lane below 0x80 stays below 0x100 with what is added, so that no lane changes another.
    let lanes = word & !HIGH_BITS;
    let not_below = |first: u8| lanes + u64::from(0x80 - first) * ONES;
    let digits = not_below(b'0') & !not_below(b'9' + 1);
    let letters = not_below(b'a') & !not_below(b'f' + 1);
    (digits | letters) & !word & HIGH_BITS == HIGH_BITS
}

/// A number in hexadecimal, with all its digits.
fn hex(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    let (high, low) = digits.split_at_mut(8);
    high.copy_from_slice(&hex_of_half((number >> 32) as u32));
    low.copy_from_slice(&hex_of_half(number as u32));
    digits
}

/// The digits of half a number: its parts of four bits are spread over the lanes of a word.
fn hex_of_half(half: u32) -> [u8; 8] {
    let mut lanes = u64::from(half);
    lanes = (lanes | (lanes << 16)) & 0x0000_ffff_0000_ffff;
    lanes = (lanes | (lanes << 8)) & 0x00ff_00ff_00ff_00ff;
    lanes = (lanes | (lanes << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_9 = ((lanes + u64::from(0x80u8 - 10) * ONES) & HIGH_BITS) >> 7;
    let letters = above_9 * u64::from(b'a' - b'0' - 10);
    (lanes + u64::from(b'0') * ONES + letters).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// The ids and the flags by the grammar, with the standard library.
    fn by_grammar(value: &[u8]) -> Option<(u128, u64, u8)> {
        let text = str::from_utf8(value).ok()?;
        let [version, id, parent, flags] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
        let hex =
            |text: &str, digits: usize| text.len() == digits && text.bytes().all(|byte| is_hex_digit(&byte));
        if version != "00" || !hex(id, 32) || !hex(parent, 16) || !hex(flags, 2) {
            return None;
        }
        let id = u128::from_str_radix(id, 16).ok().filter(|&id| id != 0)?;
        let parent = u64::from_str_radix(parent, 16).ok().filter(|&parent| parent != 0)?;
        Some((id, parent, u8::from_str_radix(flags, 16).ok()?))
    }

    fn assert_is_read_by_grammar(value: &[u8], span: u64) {
        let trace = Trace::parse(value, || span);
        let Some((id, parent, flags)) = by_grammar(value) else {
            return assert_eq!(trace, None, "{}", value.escape_ascii());
        };
        let trace = trace.unwrap_or_else(|| panic!("{} is a trace", value.escape_ascii()));
        let next = format!("00-{id:032x}-{span:016x}-{flags:02x}");
        let (name, value) = trace.field();
        assert_eq!((name.as_str(), value.as_bytes()), ("traceparent", next.as_bytes()));
        let (mut line, mut same_line) = (Vec::new(), Vec::new());
        trace.write_line(&mut line);
        crate::headers::write_line(&mut same_line, &name, &value);
        assert_eq!(line, same_line);
        assert_eq!(
            (trace.id(), trace.span(), trace.parent()),
            (&*format!("{id:032x}"), &*format!("{span:016x}"), &*format!("{parent:016x}"))
        );
    }

    #[test]
    fn a_traceparent_is_continued_or_ignored() {
        assert_is_read_by_grammar(GOOD.as_bytes(), 7);
        assert!(Trace::parse(GOOD.as_bytes(), || 7).is_some());
        for (from, to) in [
            ("00-0af", "01-0af"),
            ("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            ("b7ad6b7169203331", "0000000000000000"),
            ("-01", "-01-"),
            ("0af7", "0AF7"),
            ("-b7", "_b7"),
        ] {
            let changed = GOOD.replace(from, to);
            assert_eq!(Trace::parse(changed.as_bytes(), || 7), None, "{changed}");
            assert_is_read_by_grammar(changed.as_bytes(), 7);
        }
    }

    #[test]
    fn every_byte_at_every_place_is_read_as_by_the_grammar() {
        for at in 0..GOOD.len() {
            for byte in 0..=u8::MAX {
                let mut changed = GOOD.as_bytes().to_vec();
                changed[at] = byte;
                assert_is_read_by_grammar(&changed, u64::from(byte) << at);
            }
        }
    }

    #[test]
    fn any_value_is_read_as_by_the_grammar() {
        bolero::check!().with_type::<(Vec<u8>, u8, u128, u64, u8, u64)>().for_each(
            |(bytes, at, id, parent, flags, span)| {
                let good = format!("00-{id:032x}-{parent:016x}-{flags:02x}");
                assert_is_read_by_grammar(good.as_bytes(), *span);
                let mut changed = good.into_bytes();
                let at = usize::from(*at) % changed.len();
                changed.splice(at..at + 1, bytes.iter().copied());
                for value in [bytes, &changed] {
                    assert_is_read_by_grammar(value, *span);
                }
            },
        );
    }
}
