//! Writes header fields, without a dynamic table: a reply's fields are copied from where they are kept ready.

/// What the first block of a connection begins with: the table has no room from now on. A peer may make it smaller at any time, and
/// would have to be answered then.
pub(crate) const NO_DYNAMIC_TABLE: u8 = 0x20;

/// The statuses that have an index, with their values.
const STATUSES: [(u16, u8); 7] = [(200, 8), (204, 9), (206, 10), (304, 11), (400, 12), (404, 13), (500, 14)];
const STATUS_INDEX: usize = 8;

/// Appends the status of a reply, of three digits, which stands in front of its fields.
pub fn write_status(out: &mut Vec<u8>, status: u16) {
    match STATUSES.iter().find(|(known, _)| *known == status) {
        Some((_, index)) => out.push(0x80 | index),
        None => {
            write_integer(out, 0, 4, STATUS_INDEX);
            let digits = [status / 100, status / 10, status].map(|digit| b'0' + (digit % 10) as u8);
            write_string(out, &digits);
        }
    }
}

/// Appends a field, whose name is in lower case.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    // Most names of replies have no index, and what is sent often is kept as a block, so that no index is looked for.
    out.push(0);
    write_string(out, name);
    write_string(out, value);
}

/// The names of the fields that every reply has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommonName {
    /// `content-length`.
    ContentLength = 28,
    /// `content-type`.
    ContentType = 31,
    /// `date`.
    Date = 33,
}

/// Appends a field with a name that has an index.
pub fn write_common_field(out: &mut Vec<u8>, name: CommonName, value: &[u8]) {
    write_integer(out, 0, 4, name as usize);
    write_string(out, value);
}

fn write_string(out: &mut Vec<u8>, string: &[u8]) {
    write_integer(out, 0, 7, string.len());
    out.extend_from_slice(string);
}

/// Appends an integer whose first `prefix` bits share a byte with `first` (RFC 7541, 5.1).
fn write_integer(out: &mut Vec<u8>, first: u8, prefix: u32, value: usize) {
    let most = (1usize << prefix) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    let mut rest = value - most;
    while rest >= 0x80 {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use super::super::{Decoder, FieldList};
    use super::*;

    fn read(block: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut list = FieldList::new(1 << 20);
        Decoder::new().decode(block, &mut list).unwrap();
        let text = |range: &std::ops::Range<usize>| list.text[range.clone()].to_vec();
        list.fields.iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn what_is_written_is_read() {
        for status in [200, 204, 206, 304, 400, 404, 500, 100, 429, 599] {
            let mut block = vec![NO_DYNAMIC_TABLE];
            write_status(&mut block, status);
            let fields = [("content-type", "application/grpc"), ("date", ""), ("x-a", "b"), ("accept", "c")];
            fields
                .iter()
                .for_each(|(name, value)| write_field(&mut block, name.as_bytes(), value.as_bytes()));
            let read = read(&block);
            assert_eq!(read[0], (b":status".to_vec(), status.to_string().into_bytes()));
            for ((name, value), (read_name, read_value)) in fields.iter().zip(&read[1..]) {
                assert_eq!((name.as_bytes(), value.as_bytes()), (&read_name[..], &read_value[..]));
            }
        }
    }

    #[test]
    fn common_names_have_their_index() {
        for (name, text) in [
            (CommonName::ContentLength, "content-length"),
            (CommonName::ContentType, "content-type"),
            (CommonName::Date, "date"),
        ] {
            let mut block = Vec::new();
            write_common_field(&mut block, name, b"x");
            assert_eq!(read(&block), [(text.as_bytes().to_vec(), b"x".to_vec())]);
        }
    }

    #[test]
    fn values_of_any_length_are_read() {
        for length in [0, 1, 126, 127, 128, 254, 255, 16_510, 70_000] {
            let (mut block, value) = (Vec::new(), vec![b'v'; length]);
            write_field(&mut block, b"x-long", &value);
            assert_eq!(read(&block), [(b"x-long".to_vec(), value)]);
        }
    }
}
