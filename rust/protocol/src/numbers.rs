//! Numbers and booleans: from the extent of a `data` list straight into a typed slice, in one pass.
//!
//! Not here: what a single number is (`float`, `int`, both on `digits`), the nesting of lists (`element_list`), BYTES
//! elements (`strings`).
//! Next: `float`.

mod digits;
mod float;
mod int;
mod powers;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::NonFinite;
use headgate_core::tensor::Shape;

use crate::cursor::skip_space;
use crate::element_list::{Sink, too_long, walk};
use crate::explain::Explain;
use crate::fault::{Fault, Scan, Why};
use crate::typed::TypedMut;

/// Decodes a JSON `data` list, flat or nested along `shape`, into `out`.
///
/// `data` is the list with its brackets; `out` has `shape.count()` elements. Integers are exact over their
/// whole range, floats are rounded to nearest, ties to even, as `str::parse` does. Booleans become 0 and 1.
///
/// # Errors
/// `invalid_argument` that names `input_name`, the element and what would be right; `internal` where `out`
/// has another length than `shape`. The content of `out` is then unspecified.
pub fn decode_into(data: &[u8], shape: &Shape, out: TypedMut<'_>, input_name: &str) -> Result<()> {
    decode_with(data, shape, out, input_name, NonFinite::Error)
}

/// As [`decode_into`], with the words that `non_finite` has for NaN and the infinities among floats.
///
/// # Errors
/// As [`decode_into`].
pub fn decode_with(
    data: &[u8],
    shape: &Shape,
    mut out: TypedMut<'_>,
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
        TypedMut::Bool(out) => fill(data, shape, out, boolean),
        TypedMut::Uint8(out) => fill(data, shape, out, int::scan::<u8>),
        TypedMut::Uint16(out) => fill(data, shape, out, int::scan::<u16>),
        TypedMut::Uint32(out) => fill(data, shape, out, int::scan::<u32>),
        TypedMut::Uint64(out) => fill(data, shape, out, int::scan::<u64>),
        TypedMut::Int8(out) => fill(data, shape, out, int::scan::<i8>),
        TypedMut::Int16(out) => fill(data, shape, out, int::scan::<i16>),
        TypedMut::Int32(out) => fill(data, shape, out, int::scan::<i32>),
        TypedMut::Int64(out) => fill(data, shape, out, int::scan::<i64>),
        TypedMut::Fp32(out) => fill(data, shape, out, float::scan_f32),
        TypedMut::Fp64(out) => fill(data, shape, out, float::scan_f64),
        TypedMut::Fp16(out) => fill(data, shape, out, float::scan_f16),
        TypedMut::Bf16(out) => fill(data, shape, out, float::scan_bf16),
    };
    let result = result.or_else(|fault| match fault.why {
        // Words are rare: the list is read again for them, so that numbers alone pay nothing.
        Why::Element if non_finite != NonFinite::Error => with_words(data, shape, out, non_finite, fault),
        _ => Err(fault),
    });
    result.map_err(|fault| Explain { data, shape, datatype, name: input_name }.error(fault))
}

/// Reads a list of floats in which words stand for NaN and the infinities; `fault` is why it is no list of numbers.
#[cold]
fn with_words(
    data: &[u8],
    shape: &Shape,
    out: TypedMut<'_>,
    non_finite: NonFinite,
    fault: Fault,
) -> Scan<()> {
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
        TypedMut::Fp32(out) => fill_or!(out, float::scan_f32, |value| value as f32),
        TypedMut::Fp64(out) => fill_or!(out, float::scan_f64, f64::from),
        TypedMut::Fp16(out) => fill_or!(out, float::scan_f16, |value| half::f16::from_f64(value).to_bits()),
        TypedMut::Bf16(out) => fill_or!(out, float::scan_bf16, |value| half::bf16::from_f64(value).to_bits()),
        _ => Err(fault),
    }
}

/// What the word at the beginning of `text` stands for, and its length.
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

/// Writes elements one behind the other into a slice.
struct Slots<'o, T, F> {
    out: &'o mut [T],
    scan: F,
}

impl<T, F: Fn(&[u8], usize) -> Scan<(T, usize)> + Copy> Sink for Slots<'_, T, F> {
    #[inline]
    fn row(&mut self, data: &[u8], pos: usize, n: usize) -> Scan<usize> {
        let out = std::mem::take(&mut self.out);
        let Some((row, rest)) = out.split_at_mut_checked(n) else {
            return Err(Fault::new(data, pos, Why::Buffer));
        };
        self.out = rest;
        fill_row(data, pos, row, self.scan)
    }
}

fn fill<T>(
    data: &[u8],
    shape: &Shape,
    out: &mut [T],
    scan: impl Fn(&[u8], usize) -> Scan<(T, usize)> + Copy,
) -> Scan<()> {
    walk(data, shape, &mut Slots { out, scan })
}

/// The hot loop: elements, separators, closing bracket.
#[inline]
fn fill_row<T>(
    data: &[u8],
    pos: usize,
    row: &mut [T],
    scan: impl Fn(&[u8], usize) -> Scan<(T, usize)> + Copy,
) -> Scan<usize> {
    let mut pos = skip_space(data, pos);
    let mut slots = row.iter_mut();
    if let Some(b']') = data.get(pos) {
        return if slots.len() == 0 { Ok(pos + 1) } else { Err(Fault::new(data, pos, Why::Short)) };
    }
    while let Some(slot) = slots.next() {
        let (value, end) = scan(data, pos)?;
        *slot = value;
        pos = end;
        if data.get(pos) != Some(&b',') {
            pos = skip_space(data, pos);
            match data.get(pos) {
                Some(b',') => {}
                Some(b']') if slots.len() == 0 => return Ok(pos + 1),
                Some(b']') => return Err(Fault::new(data, pos, Why::Short)),
                _ => return Err(Fault::new(data, pos, Why::Separator)),
            }
        }
        pos += 1;
        if let Some(b' ' | b'\n' | b'\t' | b'\r') = data.get(pos) {
            pos = skip_space(data, pos + 1);
        }
    }
    Err(too_long(data, pos))
}

/// `true` or `false` as 1 or 0.
fn boolean(data: &[u8], pos: usize) -> Scan<(u8, usize)> {
    let rest = &data[pos.min(data.len())..];
    if rest.starts_with(b"true") {
        Ok((1, pos + 4))
    } else if rest.starts_with(b"false") {
        Ok((0, pos + 5))
    } else {
        Err(Fault::new(data, pos, Why::Element))
    }
}
