//! Reads the metadata of a message: tables of flatbuffers, whose bytes may be anything.
//!
//! Next: `stream`.

use crate::ipc::slot;

/// A table. What does not lie within the bytes is not there.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    array(bytes, at).map(|four| u32::from_le_bytes(four) as usize)
}

impl<'a> Table<'a> {
    /// The table that a buffer is about.
    pub(crate) fn root(bytes: &'a [u8]) -> Option<Table<'a>> {
        Some(Table { bytes, at: u32_at(bytes, 0)? })
    }

    /// Where a field is.
    fn field(&self, field: u16) -> Option<usize> {
        let back = i32::from_le_bytes(array(self.bytes, self.at)?);
        let directory = usize::try_from(i64::try_from(self.at).ok()? - i64::from(back)).ok()?;
        let u16_at = |at| array(self.bytes, at).map(u16::from_le_bytes);
        let length = u16_at(directory)?;
        let wanted = slot(field);
        let offset = (wanted < length).then(|| u16_at(directory + usize::from(wanted))).flatten()?;
        (offset > 0).then(|| self.at + usize::from(offset))
    }

    /// What a field that is an offset points to.
    fn target(&self, field: u16) -> Option<usize> {
        let at = self.field(field)?;
        at.checked_add(u32_at(self.bytes, at)?)
    }

    /// A field of one byte.
    pub(crate) fn byte(&self, field: u16) -> Option<u8> {
        self.bytes.get(self.field(field)?).copied()
    }

    /// A field of 64 bits.
    pub(crate) fn long(&self, field: u16) -> Option<i64> {
        array(self.bytes, self.field(field)?).map(i64::from_le_bytes)
    }

    /// A field that is a table.
    pub(crate) fn table(&self, field: u16) -> Option<Table<'a>> {
        Some(Table { bytes: self.bytes, at: self.target(field)? })
    }

    /// A field that is a text.
    pub(crate) fn text(&self, field: u16) -> Option<&'a str> {
        let at = self.target(field)?;
        let begin = at.checked_add(4)?;
        let text = self.bytes.get(begin..begin.checked_add(u32_at(self.bytes, at)?)?)?;
        std::str::from_utf8(text).ok()
    }

    /// A field that is a list of tables.
    pub(crate) fn tables(&self, field: u16) -> Option<Vec<Table<'a>>> {
        let at = self.target(field)?;
        let count = u32_at(self.bytes, at)?;
        let begin = at.checked_add(4)?;
        // Checked before anything is reserved.
        self.bytes.get(begin..begin.checked_add(count.checked_mul(4)?)?)?;
        (0..count)
            .map(|index| {
                let at = begin + 4 * index;
                Some(Table { bytes: self.bytes, at: at.checked_add(u32_at(self.bytes, at)?)? })
            })
            .collect()
    }

    /// A field that is a list of structs of two 64-bit numbers.
    pub(crate) fn structs(&self, field: u16) -> Option<Vec<(usize, usize)>> {
        let at = self.target(field)?;
        let count = u32_at(self.bytes, at)?;
        let begin = at.checked_add(4)?;
        let bytes = self.bytes.get(begin..begin.checked_add(count.checked_mul(16)?)?)?;
        bytes
            .chunks_exact(16)
            .map(|pair| {
                let number = |at| usize::try_from(i64::from_le_bytes(array(pair, at)?)).ok();
                Some((number(0)?, number(8)?))
            })
            .collect()
    }
}
