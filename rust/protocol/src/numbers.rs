//! Numbers and booleans: decoded from a JSON `data` list into a typed slice, in one pass.
//!
//! Not here: one number (`float`, `int`, both on `digits`), the nesting of lists (`element_list`), BYTES elements
//! (`strings`).
//! Next: `float`.

mod digits;
mod float;
mod int;
pub(crate) mod powers;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::Shape;

use crate::element_list::{ElementSink, too_many, walk};
use crate::fault_context::FaultContext;
use crate::json_cursor::skip_space;
use crate::json_fault::{FaultKind, JsonFault, ParseResult};
use crate::typed_slice::TypedSliceMut;

/// Decodes a JSON `data` list, flat or nested along `shape`, into `out`.
///
/// `data` is the list with its brackets, and `out` has `shape.count()` elements. Integers are exact over their whole range.
/// Floats are rounded to nearest, ties to even, as `str::parse` does. Booleans become 0 and 1.
///
/// # Errors
/// `invalid_argument` that names `input_name`, the element and what would be right; `internal` if `out` has another length
/// than `shape`. The content of `out` is then unspecified.
pub fn decode_into(data: &[u8], shape: &Shape, out: TypedSliceMut<'_>, input_name: &str) -> Result<()> {
    decode_non_finite(data, shape, out, input_name, NonFinite::Error)
}

/// As [`decode_into`], but floats may be the words that `non_finite` has for NaN and the infinities.
///
/// # Errors
/// As [`decode_into`].
pub fn decode_non_finite(
    data: &[u8],
    shape: &Shape,
    mut out: TypedSliceMut<'_>,
    input_name: &str,
    non_finite: NonFinite,
) -> Result<()> {
    let datatype = out.datatype();
    if out.len() != shape.count() {
        return Err(Error::new(
            Code::Internal,
            format!("input \"{input_name}\": shape {shape:?} was given a buffer of {} elements", out.len()),
        ));
    }
    let result = match &mut out {
        TypedSliceMut::Bool(out) => fill(data, shape, out, scan_boolean),
        TypedSliceMut::Uint8(out) => fill_short(data, shape, out, int::scan::<u8>, |number| number.whole()),
        TypedSliceMut::Uint16(out) => {
            fill_short(data, shape, out, int::scan::<u16>, |number| number.whole().map(u16::from))
        }
        TypedSliceMut::Uint32(out) => {
            fill_short(data, shape, out, int::scan::<u32>, |number| number.whole().map(u32::from))
        }
        TypedSliceMut::Uint64(out) => {
            fill_short(data, shape, out, int::scan::<u64>, |number| number.whole().map(u64::from))
        }
        TypedSliceMut::Int8(out) => {
            fill_short(data, shape, out, int::scan::<i8>, |number| number.whole().map(|value| value as i8))
        }
        TypedSliceMut::Int16(out) => {
            fill_short(data, shape, out, int::scan::<i16>, |number| number.whole().map(i16::from))
        }
        TypedSliceMut::Int32(out) => {
            fill_short(data, shape, out, int::scan::<i32>, |number| number.whole().map(i32::from))
        }
        TypedSliceMut::Int64(out) => {
            fill_short(data, shape, out, int::scan::<i64>, |number| number.whole().map(i64::from))
        }
        TypedSliceMut::Fp32(out) => {
            fill_short(data, shape, out, float::scan_f32, |number| Some(number.to_f32()))
        }
        TypedSliceMut::Fp64(out) => {
            fill_short(data, shape, out, float::scan_f64, |number| Some(number.to_f64()))
        }
        TypedSliceMut::Fp16(out) => fill(data, shape, out, float::scan_f16),
        TypedSliceMut::Bf16(out) => fill(data, shape, out, float::scan_bf16),
    };
    let result = result.or_else(|fault| match fault.kind {
        // Words are rare, so the list is read a second time for them: a list without words costs nothing more.
        FaultKind::Element if non_finite != NonFinite::Error => {
            fill_with_words(data, shape, out, non_finite, fault)
        }
        _ => Err(fault),
    });
    result.map_err(|fault| FaultContext { data, shape, datatype, name: input_name }.error(fault))
}

/// Reads a list of floats with words for NaN and the infinities. `fault` is the fault of reading it as numbers.
#[cold]
fn fill_with_words(
    data: &[u8],
    shape: &Shape,
    out: TypedSliceMut<'_>,
    non_finite: NonFinite,
    fault: JsonFault,
) -> ParseResult<()> {
    let word = |data: &[u8], pos: usize| {
        word(data.get(pos..)?, non_finite).map(|(value, length)| (value, pos + length))
    };
    macro_rules! fill_or {
        ($out:ident, $scan:path, $from:expr) => {
            fill(data, shape, $out, |data, pos| match word(data, pos) {
                Some((value, end)) => Ok(($from(value), end)),
                None => $scan(data, pos),
            })
        };
    }
    match out {
        TypedSliceMut::Fp32(out) => fill_or!(out, float::scan_f32, |value| value as f32),
        TypedSliceMut::Fp64(out) => fill_or!(out, float::scan_f64, f64::from),
        TypedSliceMut::Fp16(out) => {
            fill_or!(out, float::scan_f16, |value| half::f16::from_f64(value).to_bits())
        }
        TypedSliceMut::Bf16(out) => {
            fill_or!(out, float::scan_bf16, |value| half::bf16::from_f64(value).to_bits())
        }
        _ => Err(fault),
    }
}

/// The value of the word at the beginning of `text`, and the length of the word.
fn word(text: &[u8], non_finite: NonFinite) -> Option<(f64, usize)> {
    let words: &[(&[u8], f64)] = match non_finite {
        NonFinite::Error => &[],
        NonFinite::Null => &[(b"null", f64::NAN)],
        NonFinite::String => {
            &[(b"\"NaN\"", f64::NAN), (b"\"Infinity\"", f64::INFINITY), (b"\"-Infinity\"", f64::NEG_INFINITY)]
        }
    };
    words.iter().find(|(word, _)| text.starts_with(word)).map(|(word, value)| (*value, word.len()))
}

/// Writes elements into a slice, in order.
struct SliceSink<'o, T, F, C> {
    out: &'o mut [T],
    scan: F,
    convert: C,
}

impl<T, F, C> ElementSink for SliceSink<'_, T, F, C>
where
    F: Fn(&[u8], usize) -> ParseResult<(T, usize)> + Copy,
    C: Fn(ShortNumber) -> Option<T> + Copy,
{
    #[inline]
    fn read_row(&mut self, data: &[u8], pos: usize, n: usize) -> ParseResult<usize> {
        let out = std::mem::take(&mut self.out);
        let Some((row, rest)) = out.split_at_mut_checked(n) else {
            return Err(JsonFault::new(data, pos, FaultKind::BufferTooSmall));
        };
        self.out = rest;
        fill_row(data, pos, row, self.scan, self.convert)
    }
}

/// Reads elements that `scan` reads one by one.
fn fill<T>(
    data: &[u8],
    shape: &Shape,
    out: &mut [T],
    scan: impl Fn(&[u8], usize) -> ParseResult<(T, usize)> + Copy,
) -> ParseResult<()> {
    walk(data, shape, &mut SliceSink { out, scan, convert: |_| None })
}

/// As [`fill`], for elements that may be short numbers, which `convert` takes.
fn fill_short<T>(
    data: &[u8],
    shape: &Shape,
    out: &mut [T],
    scan: impl Fn(&[u8], usize) -> ParseResult<(T, usize)> + Copy,
    convert: impl Fn(ShortNumber) -> Option<T> + Copy,
) -> ParseResult<()> {
    walk(data, shape, &mut SliceSink { out, scan, convert })
}

/// The hot loop, which reads elements, separators and the closing bracket.
#[inline]
fn fill_row<T>(
    data: &[u8],
    pos: usize,
    row: &mut [T],
    scan: impl Fn(&[u8], usize) -> ParseResult<(T, usize)> + Copy,
    convert: impl Fn(ShortNumber) -> Option<T> + Copy,
) -> ParseResult<usize> {
    let mut pos = skip_space(data, pos);
    if let Some(b']') = data.get(pos) {
        return if row.is_empty() { Ok(pos + 1) } else { Err(JsonFault::new(data, pos, FaultKind::TooFew)) };
    }
    let mut rest = row;
    let mut may_run = true;
    loop {
        if may_run {
            let (count, end) = short_run(data, pos, rest, convert);
            (rest, pos) = (&mut std::mem::take(&mut rest)[count..], end);
        }
        let Some((slot, behind)) = std::mem::take(&mut rest).split_first_mut() else {
            return Err(too_many(data, pos));
        };
        rest = behind;
        let (value, end) = scan(data, pos)?;
        *slot = value;
        // Tried again behind a short number only: among long ones the test would cost each of them.
        may_run = end - pos <= 4;
        pos = end;
        if data.get(pos) != Some(&b',') {
            pos = skip_space(data, pos);
            match data.get(pos) {
                Some(b',') => {}
                Some(b']') if rest.is_empty() => return Ok(pos + 1),
                Some(b']') => return Err(JsonFault::new(data, pos, FaultKind::TooFew)),
                _ => return Err(JsonFault::new(data, pos, FaultKind::Separator)),
            }
        }
        pos += 1;
        if let Some(b' ' | b'\n' | b'\t' | b'\r') = data.get(pos) {
            pos = skip_space(data, pos + 1);
        }
    }
}

/// A number of few digits.
#[derive(Clone, Copy)]
enum ShortNumber {
    /// Below 100.
    Whole(u8),
    /// So many tenths, below 1000; written with a point.
    Tenths(u16),
}

impl ShortNumber {
    /// The number, if it is written as a whole one.
    #[inline(always)]
    fn whole(self) -> Option<u8> {
        match self {
            ShortNumber::Whole(value) => Some(value),
            ShortNumber::Tenths(_) => None,
        }
    }

    /// The nearest single: both operands are exact, so that the division rounds once.
    #[inline(always)]
    fn to_f32(self) -> f32 {
        match self {
            ShortNumber::Whole(value) => value.into(),
            ShortNumber::Tenths(tenths) => f32::from(tenths) / 10.0,
        }
    }

    /// The nearest double, in the same way.
    #[inline(always)]
    fn to_f64(self) -> f64 {
        match self {
            ShortNumber::Whole(value) => value.into(),
            ShortNumber::Tenths(tenths) => f64::from(tenths) / 10.0,
        }
    }
}

/// A number of one or two digits, a point and a digit, and what follows its comma.
#[inline(always)]
fn tenths(text: &[u8]) -> Option<(ShortNumber, &[u8])> {
    let digit = |byte: u8| Some(u16::from(byte.wrapping_sub(b'0'))).filter(|&digit| digit <= 9);
    match *text {
        [ones, b'.', tenths, b',', ref behind @ ..] => {
            Some((ShortNumber::Tenths(10 * digit(ones)? + digit(tenths)?), behind))
        }
        [tens @ b'1'..=b'9', ones, b'.', tenths, b',', ref behind @ ..] => {
            Some((ShortNumber::Tenths(100 * digit(tens)? + 10 * digit(ones)? + digit(tenths)?), behind))
        }
        _ => None,
    }
}

/// Reads short numbers as long as a comma is behind each: one or two digits, such as counts, flags or pixels, or the same with one digit
/// behind a point, as Python writes whole doubles. Returns how many, and the offset of what follows. The last element of a row is never
/// among them, so that its end is checked by the caller.
#[inline(always)]
fn short_run<T>(
    data: &[u8],
    pos: usize,
    row: &mut [T],
    convert: impl Fn(ShortNumber) -> Option<T> + Copy,
) -> (usize, usize) {
    let Some((_, slots)) = row.split_last_mut() else { return (0, pos) };
    let all = slots.len();
    let mut rest = data.get(pos..).unwrap_or_default();
    let mut slots = slots.iter_mut();
    loop {
        rest = whole_run(rest, &mut slots, convert);
        let Some((number, behind)) = tenths(rest) else { break };
        let Some(value) = convert(number) else { break };
        let Some(slot) = slots.next() else { break };
        *slot = value;
        rest = if let [b' ', behind @ ..] = behind { behind } else { behind };
    }
    let (count, pos) = (all - slots.len(), data.len() - rest.len());
    // One space was skipped behind each comma; here may be more.
    (count, if count > 0 { skip_space(data, pos) } else { pos })
}

/// Reads whole numbers of one or two digits as long as a comma is behind each and a slot is left; what follows them.
#[inline(always)]
fn whole_run<'a, T>(
    mut rest: &'a [u8],
    slots: &mut std::slice::IterMut<'_, T>,
    convert: impl Fn(ShortNumber) -> Option<T>,
) -> &'a [u8] {
    while let Some(bytes) = rest.first_chunk::<4>() {
        let Some((value, length)) = short_whole(u32::from_le_bytes(*bytes)) else { break };
        let Some(value) = convert(ShortNumber::Whole(value as u8)) else { break };
        let Some(slot) = slots.next() else { break };
        *slot = value;
        rest = &rest[length..];
    }
    rest
}

/// The number of one or two digits at the beginning of a word, and its length with its comma and one space behind that. Digits, comma and
/// space are compared at once: what is left of them are the values of the digits.
#[inline(always)]
fn short_whole(word: u32) -> Option<(u32, usize)> {
    let beside = |text: [u8; 4], mask: u32| (word ^ u32::from_le_bytes(text)) & mask;
    // A zero in front of another digit is no number.
    let pair = |digits: u32| {
        let (tens, ones) = (digits & 0xff, digits >> 8);
        ((1..=9).contains(&tens) && ones <= 9).then_some(10 * tens + ones)
    };
    let one = beside(*b"0, \0", 0x00ff_ffff);
    if one <= 9 {
        return Some((one, 3));
    }
    let one = beside(*b"0,\0\0", 0xffff);
    if one <= 9 {
        return Some((one, 2));
    }
    let spaced = pair(beside(*b"00, ", u32::MAX)).map(|value| (value, 4));
    spaced.or_else(|| Some((pair(beside(*b"00,\0", 0x00ff_ffff))?, 3)))
}

/// `true` or `false` as 1 or 0.
fn scan_boolean(data: &[u8], pos: usize) -> ParseResult<(u8, usize)> {
    let rest = &data[pos.min(data.len())..];
    if rest.starts_with(b"true") {
        Ok((1, pos + 4))
    } else if rest.starts_with(b"false") {
        Ok((0, pos + 5))
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Element))
    }
}
