//! The part of the protobuf wire format that rewriting a model needs: the raw fields of a message, and fields of bytes.

/// A field of a message.
#[derive(Clone, Copy)]
pub(super) struct WireField<'a> {
    /// Its number.
    pub(super) number: u32,
    /// The whole field, its tag included.
    pub(super) raw: &'a [u8],
    /// The content of a length-delimited field: text, bytes, a message, packed numbers.
    pub(super) bytes: Option<&'a [u8]>,
    /// The value of a varint field.
    pub(super) varint: u64,
}

/// The fields of a message in their order. A malformed field is `None`, and the last.
pub(super) fn fields(message: &[u8]) -> impl Iterator<Item = Option<WireField<'_>>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let field = field(rest);
        rest = field.map_or(&[][..], |field| &rest[field.raw.len()..]);
        Some(field)
    })
}

/// The fields of a message. `None` if it is malformed.
pub(super) fn read_fields(message: &[u8]) -> Option<Vec<WireField<'_>>> {
    fields(message).collect()
}

/// The text of a field. If there are several, the last one counts.
pub(super) fn text(message: &[u8], number: u32) -> Option<&str> {
    let found = fields(message).flatten().filter(|field| field.number == number).last();
    str::from_utf8(found?.bytes?).ok()
}

/// Packed numbers.
pub(super) fn varints(packed: &[u8]) -> impl Iterator<Item = u64> {
    let mut rest = packed;
    std::iter::from_fn(move || varint(&mut rest))
}

/// Appends a field of bytes.
pub(super) fn push_bytes(out: &mut Vec<u8>, number: u32, content: &[u8]) {
    push_varint(out, u64::from(number) << 3 | 2);
    push_varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn push_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn field(message: &[u8]) -> Option<WireField<'_>> {
    let mut rest = message;
    let tag = varint(&mut rest)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let (mut bytes, mut number_value) = (None, 0);
    match tag & 7 {
        0 => number_value = varint(&mut rest)?,
        1 => rest = rest.get(8..)?,
        2 => {
            let length = usize::try_from(varint(&mut rest)?).ok()?;
            let (content, behind) = rest.split_at_checked(length)?;
            (bytes, rest) = (Some(content), behind);
        }
        5 => rest = rest.get(4..)?,
        _ => return None,
    }
    let raw = &message[..message.len() - rest.len()];
    Some(WireField { number, raw, bytes, varint: number_value })
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for (index, &byte) in rest.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            *rest = &rest[index + 1..];
            return Some(value);
        }
    }
    None
}
