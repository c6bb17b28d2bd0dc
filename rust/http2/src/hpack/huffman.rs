//! The Huffman code of HPACK (RFC 7541, appendix B).

/// How many bits each symbol takes; the last one ends a string and must not be written. Shorter codes come first, and of codes with the
/// same length those of smaller symbols, so that the lengths say all.
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28,
    28, 28, 28, 28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6,
    6, 6, 7, 8, 15, 6, 12, 10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7,
    8, 13, 19, 13, 14, 6, 15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7,
    15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24,
    23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23,
    23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23, 26, 26, 20, 19, 22, 23, 22, 25, 26,
    26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27, 20, 24, 20,
    21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27,
    27, 27, 26, 30,
];

/// The symbol behind all others.
const END: u16 = 256;
const LONGEST: usize = 30;
/// The bits that are looked up at once.
const FAST_BITS: u32 = 8;

/// What is known of the codes of one length.
#[derive(Clone, Copy)]
struct Length {
    /// The first code.
    first: u32,
    count: u32,
    /// Where the symbol of the first code stands among the sorted ones.
    start: u32,
}

struct Code {
    lengths: [Length; LONGEST + 1],
    /// The symbols by their codes.
    symbols: [u16; 257],
    /// The symbol and the length of the code that begins with these bits, if it is that short; 0 otherwise.
    fast: [(u8, u8); 1 << FAST_BITS],
}

static CODE: Code = code();

const fn code() -> Code {
    let mut code = Code {
        lengths: [Length { first: 0, count: 0, start: 0 }; LONGEST + 1],
        symbols: [0; 257],
        fast: [(0, 0); 1 << FAST_BITS],
    };
    let (mut length, mut next, mut sorted) = (1, 0u32, 0);
    while length <= LONGEST {
        next <<= 1;
        code.lengths[length] = Length { first: next, count: 0, start: sorted as u32 };
        let mut symbol = 0;
        while symbol < LENGTHS.len() {
            if LENGTHS[symbol] as usize == length {
                code.symbols[sorted] = symbol as u16;
                if length <= FAST_BITS as usize {
                    let free = FAST_BITS as usize - length;
                    let mut rest = 0;
                    while rest < 1 << free {
                        code.fast[(next as usize) << free | rest] = (symbol as u8, length as u8);
                        rest += 1;
                    }
                }
                code.lengths[length].count += 1;
                next += 1;
                sorted += 1;
            }
            symbol += 1;
        }
        length += 1;
    }
    code
}

/// Appends the text of an encoded string to `out`; false if it is none.
pub(super) fn decode(encoded: &[u8], out: &mut Vec<u8>) -> bool {
    // The bits that are next, from the highest one on.
    let (mut bits, mut known) = (0u64, 0u32);
    let mut rest = encoded.iter();
    loop {
        while known <= 56 {
            let Some(&byte) = rest.next() else { break };
            bits |= u64::from(byte) << (56 - known);
            known += 8;
        }
        let Some((symbol, length)) = next_symbol(bits, known) else {
            // What is left is the beginning of the last symbol, shorter than a byte.
            return known < 8 && bits == !(u64::MAX >> known);
        };
        if symbol == END {
            return false;
        }
        out.push(symbol as u8);
        bits <<= length;
        known -= length;
    }
}

/// The symbol that the next bits begin with, and its length; `None` if they are too few.
fn next_symbol(bits: u64, known: u32) -> Option<(u16, u32)> {
    let (symbol, length) = CODE.fast[(bits >> (64 - FAST_BITS)) as usize];
    if length > 0 {
        let length = u32::from(length);
        return (length <= known).then_some((u16::from(symbol), length));
    }
    (FAST_BITS + 1..=known.min(LONGEST as u32)).find_map(|length| {
        let of = CODE.lengths[length as usize];
        let place = ((bits >> (64 - length)) as u32).checked_sub(of.first)?;
        (place < of.count).then(|| (CODE.symbols[(of.start + place) as usize], length))
    })
}

#[cfg(test)]
pub(super) fn encode(text: &[u8]) -> Vec<u8> {
    let mut bits = Vec::new();
    for &byte in text {
        let length = usize::from(LENGTHS[usize::from(byte)]);
        let of = CODE.lengths[length];
        let same = CODE.symbols.iter().skip(of.start as usize);
        let place = same.take_while(|&&symbol| symbol != u16::from(byte)).count() as u32;
        bits.extend((0..length).rev().map(|bit| (of.first + place) >> bit & 1 == 1));
    }
    bits.resize(bits.len().next_multiple_of(8), true);
    bits.chunks(8).map(|byte| byte.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        decode(encoded, &mut out).then_some(out)
    }

    #[test]
    fn the_examples_of_the_standard_are_read() {
        // RFC 7541, C.4 and C.6.
        for (encoded, text) in [
            (
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff][..],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (&[0x64, 0x02], "302"),
            (
                &[
                    0x9d, 0x29, 0xad, 0x17, 0x18, 0x63, 0xc7, 0x8f, 0x0b, 0x97, 0xc8, 0xe9, 0xae, 0x82, 0xae,
                    0x43, 0xd3,
                ],
                "https://www.example.com",
            ),
        ] {
            assert_eq!(decoded(encoded).as_deref(), Some(text.as_bytes()));
        }
    }

    #[test]
    fn every_byte_is_read_as_it_was_written() {
        let all: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        for length in [0, 1, 2, 3, 7, 256, 512] {
            assert_eq!(decoded(&encode(&all[..length])).as_deref(), Some(&all[..length]));
        }
    }

    #[test]
    fn padding_is_the_beginning_of_the_last_symbol() {
        assert_eq!(decoded(&[]), Some(vec![]));
        assert_eq!(decoded(&[0xff]), None, "a byte of padding");
        assert_eq!(decoded(&[0x64, 0x02, 0xff]), None);
        assert_eq!(decoded(&[0xff, 0xff, 0xff, 0xff]), None, "the last symbol itself");
        // 'a' is 00011.
        assert_eq!(decoded(&[0b0001_1111]), Some(b"a".to_vec()));
        assert_eq!(decoded(&[0b0001_1110]), None);
    }
}
