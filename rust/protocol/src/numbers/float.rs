//! One floating-point number: its significand and its exponent of ten are read in one pass, then converted by the cheapest
//! method that rounds correctly.
//!
//! The methods, in this order: one multiplication or division by an exact power of ten (Clinger, "How to Read Floating Point
//! Numbers Accurately", 1990); a 128-bit product (Eisel and Lemire, 2021), for exponents for which it always rounds
//! correctly; `str::parse`.
//! Next: back to `numbers`.

use super::digits::{DigitWindow, POWERS_OF_TEN, leading_digits, load, load_wide};
use super::powers::{MAX_EXPONENT, MIN_EXPONENT, POWERS_OF_FIVE};
use crate::json_fault::{FaultKind, JsonFault, ParseResult};

/// Powers of ten that a double holds exactly.
static EXACT_POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18,
    1e19, 1e20, 1e21, 1e22,
];

/// A decimal number: (-1)^negative * significand * 10^exponent.
struct Decimal {
    negative: bool,
    significand: u64,
    exponent: i32,
    /// Whether `significand` holds every digit.
    is_exact: bool,
    end: usize,
}

/// Reads the double at `pos`; returns it and the offset behind it.
#[inline(always)]
pub(super) fn scan_f64(data: &[u8], pos: usize) -> ParseResult<(f64, usize)> {
    if let Some((value, end)) = scan_small(data, pos) {
        return Ok((f64::from(value), end));
    }
    let decimal = scan(data, pos)?;
    if let Some(value) = decimal.nearest() {
        return Ok((value, decimal.end));
    }
    let value: f64 = parse_with_std(data, pos, decimal.end)?;
    if value.is_finite() {
        Ok((value, decimal.end))
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Range))
    }
}

/// Reads the single at `pos`; returns it and the offset behind it.
#[inline(always)]
pub(super) fn scan_f32(data: &[u8], pos: usize) -> ParseResult<(f32, usize)> {
    if let Some((value, end)) = scan_small(data, pos) {
        return Ok((f32::from(value), end));
    }
    let decimal = scan(data, pos)?;
    if let Some(value) = decimal.nearest().and_then(round_to_single) {
        return Ok((value, decimal.end));
    }
    let value: f32 = parse_with_std(data, pos, decimal.end)?;
    if value.is_finite() {
        Ok((value, decimal.end))
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Range))
    }
}

/// Reads the half-precision number at `pos`: the nearest to the nearest double, as `numpy.float16(float(text))` does.
#[inline(always)]
pub(super) fn scan_f16(data: &[u8], pos: usize) -> ParseResult<(u16, usize)> {
    let (value, end) = scan_f64(data, pos)?;
    let half = half::f16::from_f32(to_odd(value));
    if half.is_finite() {
        Ok((half.to_bits(), end))
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Range))
    }
}

/// Reads the bfloat16 number at `pos`, in the same way.
#[inline(always)]
pub(super) fn scan_bf16(data: &[u8], pos: usize) -> ParseResult<(u16, usize)> {
    let (value, end) = scan_f64(data, pos)?;
    let brain = half::bf16::from_f32(to_odd(value));
    if brain.is_finite() {
        Ok((brain.to_bits(), end))
    } else {
        Err(JsonFault::new(data, pos, FaultKind::Range))
    }
}

/// Rounds to the single below in magnitude, and sets its last bit if a remainder was cut off. Rounding the result to a
/// shorter type equals rounding the double once (Boldo and Melquiond, "When double rounding is odd", 2005).
#[inline(always)]
fn to_odd(value: f64) -> f32 {
    let nearest = value as f32;
    let above = f64::from(nearest).abs() > value.abs();
    let below = nearest.to_bits() - u32::from(above);
    let exact = f64::from(f32::from_bits(below)) == value;
    f32::from_bits(below | u32::from(!exact))
}

/// Reads a whole number of one or two digits in front of a comma or bracket, such as a count, a flag or a pixel. [`scan`]
/// reads all other numbers.
#[inline(always)]
fn scan_small(data: &[u8], pos: usize) -> Option<(u8, usize)> {
    match *data.get(pos..)? {
        [ones @ b'0'..=b'9', b',' | b']', ..] => Some((ones - b'0', pos + 1)),
        // A zero in front of another digit is no number.
        [tens @ b'1'..=b'9', ones @ b'0'..=b'9', b',' | b']', ..] => {
            Some((10 * (tens - b'0') + ones - b'0', pos + 2))
        }
        _ => None,
    }
}

/// Rounds a double that is the nearest to some decimal. `None` if rounding twice may differ from rounding once.
///
/// It differs only if the double lies exactly between two singles. For normal singles its low 29 bits are then 0x1000_0000.
#[inline(always)]
fn round_to_single(value: f64) -> Option<f32> {
    let magnitude = value.abs();
    let between = value.to_bits() & 0x1fff_ffff == 0x1000_0000;
    let normal = magnitude >= f64::from(f32::MIN_POSITIVE) && magnitude <= f64::from(f32::MAX);
    ((normal & !between) | (magnitude == 0.0)).then_some(value as f32)
}

#[cold]
fn parse_with_std<T: std::str::FromStr>(data: &[u8], pos: usize, end: usize) -> ParseResult<T> {
    let text = data.get(pos..end).and_then(|bytes| std::str::from_utf8(bytes).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| JsonFault::new(data, pos, FaultKind::Element))
}

/// Reads `-? digits (. digits)? (e sign? digits)?`, JSON's grammar.
#[inline(always)]
fn scan(data: &[u8], pos: usize) -> ParseResult<Decimal> {
    let negative = data.get(pos) == Some(&b'-');
    let first = pos + usize::from(negative);
    let window = DigitWindow::new(load_wide(data, first));
    let integer_digits = window.first_stop();
    if integer_digits == 0 {
        return Err(JsonFault::new(data, pos, FaultKind::Element));
    }
    // The condition has no short cut. Whether there are several digits varies at random, and would be mispredicted; that
    // the number is wrong is rare.
    if (integer_digits > 1) & window.starts_with_zero() {
        return Err(JsonFault::new(data, pos, FaultKind::LeadingZero));
    }
    let Digits { significand, mut exponent, is_exact, mut end } = if integer_digits >= 15 {
        scan_long_integer_part(data, first)?
    } else if data.get(first + integer_digits) == Some(&b'.') {
        let stop = window.second_stop();
        let count = stop - 1;
        if count == integer_digits {
            return Err(JsonFault::new(data, first + stop, FaultKind::Expected("a digit")));
        }
        let significand = window.value_around_stop(count);
        let exponent = integer_digits as i32 - count as i32;
        let digits = Digits { significand, exponent, is_exact: true, end: first + stop };
        if stop == 16 { more_fraction(data, first, digits) } else { digits }
    } else {
        Digits {
            significand: window.value(integer_digits),
            exponent: 0,
            is_exact: true,
            end: first + integer_digits,
        }
    };
    if let Some(b'e' | b'E') = data.get(end) {
        let (shift, behind) = scan_exponent(data, end + 1)?;
        exponent = exponent.saturating_add(shift);
        end = behind;
    }
    Ok(Decimal { negative, significand, exponent, is_exact, end })
}

/// The digits of a number.
struct Digits {
    /// Their value without the point. It has wrapped unless `is_exact`.
    significand: u64,
    /// The exponent of ten: minus the number of digits behind the point.
    exponent: i32,
    /// Whether `significand` holds every digit.
    is_exact: bool,
    /// The offset behind the last of them.
    end: usize,
}

/// Reads on behind a window that ended within the fraction, as in the shortest forms of doubles.
#[inline(always)]
fn more_fraction(data: &[u8], first: usize, digits: Digits) -> Digits {
    let (significand, end) = more_digits(data, digits.end, digits.significand);
    let added = i32::try_from(end - digits.end).unwrap_or(i32::MAX);
    // Nineteen digits always fit. More may fit if they begin with zeros.
    let count = end - first - 1 - usize::from(data[first] == b'0');
    let is_exact = count <= 19 || count_significant(&data[first..end]) <= 19;
    Digits { significand, exponent: digits.exponent.saturating_sub(added), is_exact, end }
}

/// Appends the digits at `pos` to `value`, which may wrap. Returns the value and the offset behind the digits.
#[inline(always)]
fn more_digits(data: &[u8], mut pos: usize, mut value: u64) -> (u64, usize) {
    loop {
        let (count, word) = leading_digits(load(data, pos));
        value = value.wrapping_mul(POWERS_OF_TEN[count]).wrapping_add(word);
        pos += count;
        if count < 8 {
            return (value, pos);
        }
    }
}

/// Reads a number with so many digits in front of the point that the window holds none behind it.
#[cold]
fn scan_long_integer_part(data: &[u8], first: usize) -> ParseResult<Digits> {
    let (significand, end) = more_digits(data, first, 0);
    if data.get(end) != Some(&b'.') {
        return Ok(Digits { significand, exponent: 0, is_exact: end - first <= 19, end });
    }
    let digits = Digits { significand, exponent: 0, is_exact: true, end: end + 1 };
    let digits = more_fraction(data, first, digits);
    if digits.end == end + 1 {
        return Err(JsonFault::new(data, digits.end, FaultKind::Expected("a digit")));
    }
    Ok(digits)
}

/// The number of digits without the zeros in front.
#[cold]
fn count_significant(text: &[u8]) -> usize {
    text.iter().filter(|&&byte| byte != b'.').skip_while(|&&byte| byte == b'0').count()
}

/// Reads the exponent whose sign or first digit is at `pos`. It saturates far outside every range.
#[cold]
fn scan_exponent(data: &[u8], pos: usize) -> ParseResult<(i32, usize)> {
    let (negative, first) = match data.get(pos) {
        Some(b'-') => (true, pos + 1),
        Some(b'+') => (false, pos + 1),
        _ => (false, pos),
    };
    let mut end = first;
    let mut value = 0i32;
    while let Some(&byte @ b'0'..=b'9') = data.get(end) {
        value = value.saturating_mul(10).saturating_add(i32::from(byte - b'0'));
        end += 1;
    }
    if end == first {
        return Err(JsonFault::new(data, end, FaultKind::Expected("a digit")));
    }
    Ok((if negative { -value } else { value }, end))
}

// === impl Decimal ===

impl Decimal {
    /// The nearest double, ties to even. `None` if only `str::parse` rounds it correctly.
    #[inline(always)]
    fn nearest(&self) -> Option<f64> {
        let Decimal { negative, significand, exponent, is_exact, .. } = *self;
        if !is_exact {
            return None;
        }
        let value = if significand < 1 << 53 && exponent.unsigned_abs() <= 22 {
            // Both operands are exact, so that the result is rounded once.
            let ten = EXACT_POWERS_OF_TEN[exponent.unsigned_abs() as usize];
            if exponent < 0 { significand as f64 / ten } else { significand as f64 * ten }
        } else {
            product(significand, exponent)?
        };
        Some(f64::from_bits(value.to_bits() | u64::from(negative) << 63))
    }
}

/// The nearest double to `significand * 10^exponent` by a 128-bit product. `None` outside the table.
///
/// This is algorithm 1 of Lemire (2021). Within the table no result is subnormal or infinite, and every product is
/// conclusive.
#[inline]
fn product(significand: u64, exponent: i32) -> Option<f64> {
    if significand == 0 {
        return Some(0.0);
    }
    if !(MIN_EXPONENT..=MAX_EXPONENT).contains(&exponent) {
        return None;
    }
    let (five_high, five_low) = POWERS_OF_FIVE[(exponent - MIN_EXPONENT) as usize];
    let shift = significand.leading_zeros();
    let word = significand << shift;
    let (mut high, mut low) = full_product(word, five_high);
    if high & 0x1ff == 0x1ff {
        // The bits below the result are all ones: the other half of the power may carry into it.
        let (more, _) = full_product(word, five_low);
        let (sum, carry) = low.overflowing_add(more);
        low = sum;
        high += u64::from(carry);
    }
    let upper = (high >> 63) as i32;
    let cut = upper + 9;
    let mut mantissa = high >> cut;
    // floor(log2(10^q)) is (217706 q) >> 16 for every q here.
    let mut biased = ((217_706 * exponent) >> 16) + 63 + upper - shift as i32 + 1023;
    if low <= 1 && (-4..=23).contains(&exponent) && mantissa & 3 == 1 && mantissa << cut == high {
        // Exactly halfway: it is rounded to even, which is down here.
        mantissa &= !1;
    }
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if mantissa >> 53 != 0 {
        mantissa = 1 << 52;
        biased += 1;
    }
    Some(f64::from_bits(mantissa & !(1 << 52) | (biased as u64) << 52))
}

/// The high and the low half of a product.
#[inline(always)]
fn full_product(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    ((product >> 64) as u64, product as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_agrees_with_the_standard_parser() {
        for text in [
            "0",
            "-0",
            "0.1",
            "-0.1",
            "1e22",
            "1e23",
            "9007199254740993",
            "9007199254740992e-1",
            "1.7976931348623157e308",
            "2.2250738585072014e-308",
            "5e-324",
            "1e-400",
            "0e999",
            "123456789012345678901234567890",
            "8.5899345930e9",
            "1.00000017881393432617187499",
            "1.00000017881393432617187500",
            "1.00000017881393432617187501",
            "7.0064923e-46",
            "1.4e-45",
            "1.1754942e-38",
            "3.4028235e38",
            "18446744073709551615e-19",
            "0.00000000000000000001234567890123",
            "4503599627370496.5",
            "4503599627370497.5",
            "9007199254740993e1",
            "16777217.0",
            "16777219",
        ] {
            let (double, end) = scan_f64(text.as_bytes(), 0).unwrap();
            assert_eq!(end, text.len(), "{text}");
            assert_eq!(double.to_bits(), text.parse::<f64>().unwrap().to_bits(), "{text}");
            let want: f32 = text.parse().unwrap();
            match scan_f32(text.as_bytes(), 0) {
                Ok((single, _)) => assert_eq!(single.to_bits(), want.to_bits(), "{text}"),
                Err(fault) => assert!(fault.kind == FaultKind::Range && want.is_infinite(), "{text}"),
            }
        }
    }

    type Read16 = fn(&[u8], usize) -> ParseResult<(u16, usize)>;

    /// Reads numbers around the middle between each two neighbours of a 16-bit type; the middle itself is rounded to even.
    fn rounds_once(scan: Read16, value: fn(u16) -> f64, infinity: u16) {
        let read = |value: f64| scan(format!("{value}").as_bytes(), 0).map_or(infinity, |(bits, _)| bits);
        for bits in 0..infinity {
            let above =
                if bits + 1 == infinity { 2.0 * value(bits) - value(bits - 1) } else { value(bits + 1) };
            let middle = (value(bits) + above) / 2.0;
            assert_eq!(read(middle), bits + (bits & 1), "{middle}");
            assert_eq!((read(middle.next_down()), read(middle.next_up())), (bits, bits + 1), "{middle}");
            assert_eq!(read(-value(bits)), bits | 0x8000);
        }
    }

    #[test]
    fn halves_are_rounded_once() {
        rounds_once(scan_f16, |bits| half::f16::from_bits(bits).to_f64(), half::f16::INFINITY.to_bits());
        rounds_once(scan_bf16, |bits| half::bf16::from_bits(bits).to_f64(), half::bf16::INFINITY.to_bits());
    }

    #[test]
    fn what_overflows_is_refused() {
        for text in ["1e309", "-1e309", "1e999999999999", "2e308"] {
            assert_eq!(scan_f64(text.as_bytes(), 0).unwrap_err().kind, FaultKind::Range, "{text}");
        }
        assert_eq!(scan_f32(b"3.4028236e38", 0).unwrap_err().kind, FaultKind::Range);
        assert_eq!(scan_f32(b"1e39", 0).unwrap_err().kind, FaultKind::Range);
    }
}
