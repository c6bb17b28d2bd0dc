//! The fields of a protobuf message, as they stand on the wire.
//!
//! Next: `protobuf/request`.

use headgate_core::error::{Error, Result};

/// The wire type of strings, messages and packed lists, which begin with their length.
pub(super) const LENGTH_DELIMITED: u32 = 2;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WireValue<'a> {
    Varint(u64),
    Fixed64([u8; 8]),
    Fixed32([u8; 4]),
    Bytes(&'a [u8]),
}

/// Reads the fields of a message in their order.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldReader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    pub(super) fn new(message: &'a [u8]) -> FieldReader<'a> {
        FieldReader { rest: message }
    }

    /// The number and the value of the next field; `None` at the end. Groups are refused: proto3 has none.
    // Inlined, so that the fields of a small request cost no calls.
    #[inline(always)]
    pub(super) fn next(&mut self) -> Result<Option<(u32, WireValue<'a>)>> {
        match self.next_short() {
            Some((number, bytes)) => Ok(Some((number, WireValue::Bytes(bytes)))),
            None => self.next_of_any_length(),
        }
    }

    /// The next field, if its number is below 16 and it begins with a length below 128, as names, types and most messages do.
    #[inline(always)]
    fn next_short(&mut self) -> Option<(u32, &'a [u8])> {
        let (&[tag, length], behind) = self.rest.split_first_chunk()?;
        let (number, kind) = (u32::from(tag >> 3), u32::from(tag & 7));
        if !(1..16).contains(&number) || kind != LENGTH_DELIMITED || length >= 0x80 {
            return None;
        }
        let (bytes, rest) = behind.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some((number, bytes))
    }

    fn next_of_any_length(&mut self) -> Result<Option<(u32, WireValue<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| (1..1 << 29).contains(number));
        let number = number.ok_or_else(|| malformed("a field number out of range"))?;
        let value = match tag as u32 & 7 {
            0 => WireValue::Varint(self.varint()?),
            1 => WireValue::Fixed64(self.array()?),
            LENGTH_DELIMITED => WireValue::Bytes(self.bytes()?),
            5 => WireValue::Fixed32(self.array()?),
            kind => return Err(malformed(&format!("field {number} of wire type {kind}"))),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    pub(super) fn varint(&mut self) -> Result<u64> {
        if let Some((&first, rest)) = self.rest.split_first()
            && first < 0x80
        {
            self.rest = rest;
            return Ok(first.into());
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64> {
        let mut value = 0u64;
        for (index, &byte) in self.rest.iter().take(10).enumerate() {
            // The tenth byte holds one bit.
            if index == 9 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(malformed("a whole number without an end"))
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (array, rest) =
            self.rest.split_first_chunk().ok_or_else(|| malformed("a number that is cut off"))?;
        self.rest = rest;
        Ok(*array)
    }

    #[inline]
    pub(super) fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()?;
        let parts = usize::try_from(length).ok().and_then(|length| self.rest.split_at_checked(length));
        let Some((bytes, rest)) = parts else {
            return Err(malformed(&format!(
                "a field of {length} bytes where {} bytes are left",
                self.rest.len()
            )));
        };
        self.rest = rest;
        Ok(bytes)
    }
}

impl<'a> WireValue<'a> {
    pub(super) fn bytes(self, location: &str) -> Result<&'a [u8]> {
        match self {
            WireValue::Bytes(bytes) => Ok(bytes),
            _ => Err(malformed(&format!("{location} with another wire type"))),
        }
    }

    pub(super) fn text(self, location: &str) -> Result<&'a str> {
        std::str::from_utf8(self.bytes(location)?)
            .map_err(|_| malformed(&format!("{location} that is not UTF-8")))
    }
}

pub(super) fn malformed(defect: &str) -> Error {
    Error::invalid(format!("the message is not well-formed protobuf: it has {defect}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(message: &[u8]) -> Result<Vec<(u32, WireValue<'_>)>> {
        let mut fields = FieldReader::new(message);
        let mut found = Vec::new();
        while let Some(field) = fields.next()? {
            found.push(field);
        }
        Ok(found)
    }

    #[test]
    fn fields_of_every_wire_type_are_read() {
        let message = b"\x08\x96\x01\x11\x01\0\0\0\0\0\0\0\x1a\x02ab\x25\x01\0\0\0";
        let wanted = [
            (1, WireValue::Varint(150)),
            (2, WireValue::Fixed64([1, 0, 0, 0, 0, 0, 0, 0])),
            (3, WireValue::Bytes(b"ab")),
            (4, WireValue::Fixed32([1, 0, 0, 0])),
        ];
        assert_eq!(fields(message).unwrap(), wanted);
    }

    #[test]
    fn short_fields_are_read_as_any_others() {
        bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
            let (mut short, mut any) = (FieldReader::new(bytes), FieldReader::new(bytes));
            loop {
                let (one, other) = (short.next(), any.next_of_any_length());
                assert_eq!((&one, short.rest), (&other, any.rest));
                if !matches!(one, Ok(Some(_))) {
                    break;
                }
            }
        });
    }

    #[test]
    fn names_are_found_again_where_they_stand() {
        let message = b"\x0a\x03abc\x12\x011\x1a\x02id";
        let names = super::super::scan::model_name(message).unwrap();
        assert_eq!(names.ranges(message).names(message), names);
        let unnamed = super::super::scan::model_name(b"").unwrap();
        assert_eq!(unnamed.ranges(b"").names(b""), unnamed);
    }

    #[test]
    fn what_is_cut_off_or_out_of_range_is_refused() {
        let broken: [&[u8]; 8] = [
            b"\x08",
            b"\x08\x80",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x0a\x05ab",
            b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x11\x01",
            b"\x0b",
            b"\x00\x01",
        ];
        for message in broken {
            let error = fields(message).unwrap_err();
            assert!(error.message.contains("not well-formed protobuf"), "{error}");
        }
        assert_eq!(
            fields(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").unwrap(),
            [(1, WireValue::Varint(u64::MAX))]
        );
    }
}
