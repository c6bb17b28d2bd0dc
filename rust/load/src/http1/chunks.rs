//! The chunked coding of a body, one byte or one piece of data at a time (RFC 9112, 7.1).

/// Where in the coding the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunks {
    /// In the size of a chunk; `digits` have been read.
    Size { value: u64, digits: u8 },
    /// Behind the size, before the end of its line.
    Extension { value: u64 },
    /// In the data, of which this much is left.
    Data(u64),
    /// In the end of the line behind the data.
    AfterData,
    /// In a line of the trailer that has this many bytes so far.
    Trailer { line: u32, total: u32 },
    /// Behind the last byte.
    Done,
}

/// The longest trailer and chunk extension.
const LONGEST_TRAILER: u32 = 64 << 10;

impl Default for Chunks {
    fn default() -> Chunks {
        Chunks::Size { value: 0, digits: 0 }
    }
}

impl Chunks {
    /// Reads from the front of `bytes`: the bytes used up, and how many of these are data, which then are the last ones.
    pub(crate) fn step(&mut self, bytes: &[u8]) -> Result<(usize, usize), &'static str> {
        let Some(&byte) = bytes.first() else { return Ok((0, 0)) };
        *self = match *self {
            Chunks::Data(left) => {
                let taken = left.min(bytes.len() as u64);
                *self = if taken == left { Chunks::AfterData } else { Chunks::Data(left - taken) };
                return Ok((taken as usize, taken as usize));
            }
            Chunks::Size { value, digits } => size(byte, value, digits)?,
            Chunks::Extension { value } => match byte {
                b'\n' if value == 0 => Chunks::Trailer { line: 0, total: 0 },
                b'\n' => Chunks::Data(value),
                _ => Chunks::Extension { value },
            },
            Chunks::AfterData => match byte {
                b'\r' => Chunks::AfterData,
                b'\n' => Chunks::default(),
                _ => return Err("a chunk is longer than its size"),
            },
            Chunks::Trailer { total: LONGEST_TRAILER, .. } => return Err("the trailer is too long"),
            Chunks::Trailer { line: 0, .. } if byte == b'\n' => Chunks::Done,
            Chunks::Trailer { total, .. } if byte == b'\n' => Chunks::Trailer { line: 0, total: total + 1 },
            Chunks::Trailer { line, total } if byte == b'\r' => Chunks::Trailer { line, total: total + 1 },
            Chunks::Trailer { line, total } => Chunks::Trailer { line: line + 1, total: total + 1 },
            Chunks::Done => return Ok((0, 0)),
        };
        Ok((1, 0))
    }
}

fn size(byte: u8, value: u64, digits: u8) -> Result<Chunks, &'static str> {
    if let Some(digit) = (byte as char).to_digit(16) {
        return match digits {
            // 15 digits are below 2^60.
            0..15 => Ok(Chunks::Size { value: value * 16 + u64::from(digit), digits: digits + 1 }),
            _ => Err("the size of a chunk is too large"),
        };
    }
    match byte {
        b'\n' if digits > 0 && value == 0 => Ok(Chunks::Trailer { line: 0, total: 0 }),
        b'\n' if digits > 0 => Ok(Chunks::Data(value)),
        b'\r' | b';' | b' ' | b'\t' if digits > 0 => Ok(Chunks::Extension { value }),
        _ => Err("the size of a chunk is no hexadecimal number"),
    }
}
