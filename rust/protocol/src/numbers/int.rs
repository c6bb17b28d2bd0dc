//! Reading one integer, exact over the whole range of its type.
//!
//! Next: `powers`.

use super::digits::{POWERS_OF_TEN, leading_digits, load};
use crate::json_fault::{FaultKind, JsonFault, ParseResult};

/// An integer type by its limits.
pub(super) trait ScanInteger {
    /// The largest value.
    const MAX: u64;
    /// The magnitude of the least value.
    const MIN: u64;
    /// The value of a sign and a magnitude within those limits.
    fn make(negative: bool, magnitude: u64) -> Self;
}

macro_rules! unsigned {
    ($($t:ty)*) => {$(
        impl ScanInteger for $t {
            const MAX: u64 = <$t>::MAX as u64;
            const MIN: u64 = 0;
            #[inline(always)]
            fn make(_: bool, magnitude: u64) -> $t {
                magnitude as $t
            }
        }
    )*};
}

macro_rules! signed {
    ($($t:ty)*) => {$(
        impl ScanInteger for $t {
            const MAX: u64 = <$t>::MAX as u64;
            const MIN: u64 = <$t>::MIN.unsigned_abs() as u64;
            #[inline(always)]
            fn make(negative: bool, magnitude: u64) -> $t {
                let sign = -i64::from(negative);
                ((magnitude as i64) ^ sign).wrapping_sub(sign) as $t
            }
        }
    )*};
}

unsigned!(u8 u16 u32 u64);
signed!(i8 i16 i32 i64);

/// Reads the integer at `pos`; returns it and the offset behind it.
///
/// The caller refuses a fraction or an exponent behind it.
#[inline(always)]
pub(super) fn scan<T: ScanInteger>(data: &[u8], pos: usize) -> ParseResult<(T, usize)> {
    let negative = data.get(pos) == Some(&b'-');
    let first = pos + usize::from(negative);
    let word = load(data, first);
    let (count, value) = leading_digits(word);
    let (magnitude, end) = match count {
        0 => return Err(JsonFault::new(data, pos, FaultKind::Element)),
        8 => scan_long(data, first, value)?,
        _ => (value, first + count),
    };
    // The condition has no short cut. Whether there are several digits varies at random, and would be mispredicted; that
    // the number is wrong is rare.
    if (count > 1) & (word as u8 == b'0') {
        return Err(JsonFault::new(data, pos, FaultKind::LeadingZero));
    }
    if magnitude > if negative { T::MIN } else { T::MAX } {
        return Err(JsonFault::new(data, pos, FaultKind::Range));
    }
    Ok((T::make(negative, magnitude), end))
}

/// Reads on behind the first eight digits. A magnitude beyond a `u64` is out of every range.
fn scan_long(data: &[u8], first: usize, value: u64) -> ParseResult<(u64, usize)> {
    let mut magnitude = Some(value);
    let mut end = first + 8;
    loop {
        let (count, value) = leading_digits(load(data, end));
        magnitude = magnitude
            .and_then(|high| high.checked_mul(POWERS_OF_TEN[count]))
            .and_then(|high| high.checked_add(value));
        end += count;
        if count < 8 {
            let magnitude = magnitude.ok_or_else(|| JsonFault::new(data, first, FaultKind::Range))?;
            return Ok((magnitude, end));
        }
    }
}
