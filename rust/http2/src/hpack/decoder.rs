//! Reads blocks of header fields.

use std::ops::Range;

use super::dynamic_table::{DynamicTable, OVERHEAD};
use super::{huffman, static_table};
use crate::reason::Reason;

/// The room of the table of a connection, in bytes: the standard's, which is told to nobody.
const TABLE_SIZE: usize = 4096;

/// How many times as many fields as are taken are read before that is too much.
const FAR_TOO_MANY: usize = 4;
/// The memory for strings that stays, in bytes.
const KEPT_STRING: usize = 1 << 10;

/// Reads the blocks of a connection, in their order.
pub(crate) struct Decoder {
    table: DynamicTable,
    /// A string that is read, and its name.
    name: Vec<u8>,
    value: Vec<u8>,
}

/// A block that cannot be read. No block behind it can be read either.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HpackError {
    pub(crate) reason: Reason,
    pub(crate) what: &'static str,
}

impl HpackError {
    const fn new(what: &'static str) -> HpackError {
        HpackError { reason: Reason::COMPRESSION_ERROR, what }
    }
}

/// Fields one behind the other, each a name and a value in one text.
#[derive(Debug, Default)]
pub(crate) struct FieldList {
    /// Names and values.
    pub(crate) text: Vec<u8>,
    /// Where they stand in the text.
    pub(crate) fields: Vec<(Range<usize>, Range<usize>)>,
    /// Their size as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
    size: usize,
    most: usize,
}

impl FieldList {
    /// An empty list, which takes `most` bytes.
    pub(crate) fn new(most: usize) -> FieldList {
        FieldList { most, ..FieldList::default() }
    }

    /// Checks that the fields are not far more than are taken: few bytes of a block may stand for many, and each is looked at.
    fn check(&self) -> Result<(), HpackError> {
        if self.size > FAR_TOO_MANY * self.most {
            let what = "there are far more fields than may be";
            return Err(HpackError { reason: Reason::ENHANCE_YOUR_CALM, what });
        }
        Ok(())
    }

    /// Whether there were more fields than are taken. Those that were too many are not in the list.
    pub(crate) fn is_too_large(&self) -> bool {
        self.size > self.most
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        self.size = self.size.saturating_add(name.len() + value.len() + OVERHEAD);
        if self.is_too_large() {
            return;
        }
        let start = self.text.len();
        let end = start + name.len();
        self.text.extend_from_slice(name);
        self.text.extend_from_slice(value);
        self.fields.push((start..end, end..self.text.len()));
    }
}

impl Decoder {
    /// For a connection that begins.
    pub(crate) fn new() -> Decoder {
        Decoder { table: DynamicTable::new(TABLE_SIZE), name: Vec::new(), value: Vec::new() }
    }

    /// Changes with each change of the table, on which the meaning of a block depends.
    pub(crate) fn state(&self) -> u64 {
        self.table.changes()
    }

    /// Reads a block, and appends its fields to `into`.
    ///
    /// # Errors
    /// What the standard calls a decoding error.
    pub(crate) fn decode(&mut self, block: &[u8], into: &mut FieldList) -> Result<(), HpackError> {
        let mut block = Block(block);
        while let Some(&first) = block.0.first() {
            match first {
                0x80.. => {
                    let (name, value) = self.field(block.integer(7)?)?;
                    into.push(name, value);
                }
                0x40..=0x7f => {
                    self.literal(&mut block, 6)?;
                    into.push(&self.name, &self.value);
                    self.table.add(&self.name, &self.value);
                }
                0x20..=0x3f => {
                    if !into.fields.is_empty() || into.is_too_large() {
                        return Err(HpackError::new("the size of the table is changed behind a field"));
                    }
                    let size = block.integer(5)?;
                    if size > TABLE_SIZE {
                        return Err(HpackError::new("the table is made larger than it may be"));
                    }
                    self.table.resize(size);
                }
                _ => {
                    self.literal(&mut block, 4)?;
                    into.push(&self.name, &self.value);
                }
            }
            into.check()?;
        }
        for string in [&mut self.name, &mut self.value] {
            if string.capacity() > KEPT_STRING {
                *string = Vec::new();
            }
        }
        Ok(())
    }

    /// Reads a field that is written out, whose name may be one of the tables.
    fn literal(&mut self, block: &mut Block<'_>, prefix: u32) -> Result<(), HpackError> {
        let index = block.integer(prefix)?;
        let mut name = std::mem::take(&mut self.name);
        name.clear();
        if index == 0 {
            block.string(&mut name)?;
        } else {
            name.extend_from_slice(self.field(index)?.0);
        }
        self.name = name;
        self.value.clear();
        block.string(&mut self.value)
    }

    /// Name and value of an index.
    fn field(&self, index: usize) -> Result<(&[u8], &[u8]), HpackError> {
        let number = index.checked_sub(1).ok_or(HpackError::new("a field has index 0"))?;
        let found = match number.checked_sub(static_table::FIELDS.len()) {
            None => Some(static_table::FIELDS[number]),
            Some(number) => self.table.get(number),
        };
        found.ok_or(HpackError::new("a field has an index that the table does not have"))
    }
}

/// What is left of a block.
struct Block<'a>(&'a [u8]);

impl<'a> Block<'a> {
    /// Reads an integer that begins in the lowest `prefix` bits (RFC 7541, 5.1).
    fn integer(&mut self, prefix: u32) -> Result<usize, HpackError> {
        let most = (1usize << prefix) - 1;
        let mut value = usize::from(self.byte()?) & most;
        if value < most {
            return Ok(value);
        }
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(HpackError::new("an integer is too large"))
    }

    /// Appends a string to `out`.
    fn string(&mut self, out: &mut Vec<u8>) -> Result<(), HpackError> {
        let is_encoded = self.0.first().is_some_and(|first| first & 0x80 != 0);
        let length = self.integer(7)?;
        let (string, rest) = self.0.split_at_checked(length).ok_or(CUT_OFF)?;
        self.0 = rest;
        if !is_encoded {
            out.extend_from_slice(string);
        } else if !huffman::decode(string, out) {
            return Err(HpackError::new("a string is not in the Huffman code"));
        }
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, HpackError> {
        let (&byte, rest) = self.0.split_first().ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(byte)
    }
}

const CUT_OFF: HpackError = HpackError::new("the block is cut off");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, HpackError> {
        let mut list = FieldList::new(1 << 16);
        decoder.decode(block, &mut list)?;
        let text = |range: &Range<usize>| String::from_utf8(list.text[range.clone()].to_vec()).unwrap();
        Ok(list.fields.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn pairs(fields: &[(&str, &str)]) -> Vec<(String, String)> {
        fields.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    #[test]
    fn the_requests_of_the_standard_are_read() {
        // RFC 7541, C.4: three requests of one connection, in the Huffman code.
        let mut decoder = Decoder::new();
        let first = b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff";
        let head =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        assert_eq!(read(&mut decoder, first), Ok(pairs(&head)));
        let second = b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf";
        let with_cache = [&head[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(read(&mut decoder, second), Ok(pairs(&with_cache)));
        let third =
            b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf";
        let last = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        assert_eq!(read(&mut decoder, third), Ok(pairs(&last)));
    }

    #[test]
    fn the_oldest_fields_leave_a_table_that_is_full() {
        // RFC 7541, C.5: responses with a table of 256 bytes.
        let mut decoder = Decoder::new();
        decoder.table.resize(256);
        let first = [
            &b"\x48\x03302\x58\x07private\x61\x1dMon, 21 Oct 2013 20:13:21 GMT"[..],
            b"\x6e\x17https://www.example.com",
        ];
        read(&mut decoder, &first.concat()).unwrap();
        let fields = read(&mut decoder, b"\x48\x03307\xc1\xc0\xbf").unwrap();
        assert_eq!(fields[0], (":status".into(), "307".into()));
        assert_eq!(fields[3], ("location".into(), "https://www.example.com".into()));
        // The status 302 has left.
        assert!(read(&mut decoder, b"\xc2").is_err());
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for block in [
            &b"\x80"[..],
            b"\xbe",
            b"\x40",
            b"\x40\x01",
            b"\x40\x01a",
            b"\x00\x85abc",
            b"\x00\x82\xff\xff\x00",
            b"\x7f\xff\xff\xff\xff\xff\x00",
            b"\x3f\xe2\x1f",
            b"\x82\x20",
        ] {
            assert!(read(&mut Decoder::new(), block).is_err(), "{block:x?}");
        }
        assert_eq!(read(&mut Decoder::new(), b"\x3f\xe1\x1f\x20\x82"), Ok(pairs(&[(":method", "GET")])));
    }

    #[test]
    fn a_list_that_is_too_large_keeps_the_table_right() {
        let (mut decoder, mut list) = (Decoder::new(), FieldList::new(40));
        decoder.decode(b"\x40\x01a\x01b\x40\x01c\x01d", &mut list).unwrap();
        assert!(list.is_too_large());
        assert_eq!(list.fields.len(), 1);
        assert_eq!(read(&mut decoder, b"\xbe\xbf"), Ok(pairs(&[("c", "d"), ("a", "b")])));
    }

    #[test]
    fn few_bytes_that_stand_for_many_fields_are_read_so_far_only() {
        let (mut decoder, name) = (Decoder::new(), [b'n'; 4_000]);
        let mut block = vec![0x40, 0x7f, 0xa1, 0x1e];
        block.extend_from_slice(&name);
        block.push(0);
        // The name of the field that was added, with an empty value.
        block.extend([0x0f, 0x2f, 0].repeat(1_000));
        let mut list = FieldList::new(1 << 14);
        let error = decoder.decode(&block, &mut list).unwrap_err();
        assert_eq!(error.reason, Reason::ENHANCE_YOUR_CALM);
        assert!(list.size <= 5 << 14);
    }

    #[test]
    fn memory_for_long_strings_does_not_stay() {
        let (mut decoder, mut block) = (Decoder::new(), Vec::new());
        super::super::write_field(&mut block, b"a", &[b'v'; 10_000]);
        read(&mut decoder, &block).unwrap();
        assert_eq!((decoder.name.capacity() < 2_000, decoder.value.capacity()), (true, 0));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        bolero::check!().with_type::<Vec<Vec<u8>>>().for_each(|blocks| {
            let mut decoder = Decoder::new();
            for block in blocks {
                let mut list = FieldList::new(1 << 10);
                if decoder.decode(block, &mut list).is_err() {
                    return;
                }
            }
        });
    }
}
