//! How much of a stream is complete: a crash may have cut it anywhere.
//!
//! Next: `file`.

use std::io::{self, Read, Seek, SeekFrom};

use crate::ipc::{END, MARKER, RECORD_BATCH, SCHEMA};
use crate::metadata::Table;

/// The most bytes of the metadata of a message.
const MAX_METADATA: u32 = 64 << 20;

/// The complete messages that a stream begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CompletePrefix {
    /// Their bytes, without the end of the stream.
    pub(crate) bytes: u64,
    /// The rows in them.
    pub(crate) rows: u64,
    /// Whether the end of the stream follows.
    pub(crate) is_ended: bool,
}

/// What is known of a message from its head.
pub(crate) struct MessageHead {
    pub(crate) kind: u8,
    /// The rows of a batch.
    pub(crate) rows: u64,
    /// The bytes of what follows the metadata.
    pub(crate) body: u64,
    /// The bytes of the whole message.
    pub(crate) bytes: u64,
    pub(crate) metadata: Vec<u8>,
}

/// Finds the complete messages that a file of `length` bytes begins with. Nothing is complete without the schema.
///
/// # Errors
/// Those of reading; bytes that are no message are not an error.
pub(crate) fn complete_prefix(file: &mut (impl Read + Seek), length: u64) -> io::Result<CompletePrefix> {
    let mut prefix = CompletePrefix::default();
    loop {
        file.seek(SeekFrom::Start(prefix.bytes))?;
        match read_head(file)? {
            HeadRead::Message(head)
                if head.kind == expected(&prefix) && prefix.bytes + head.bytes <= length =>
            {
                prefix.bytes += head.bytes;
                prefix.rows += head.rows;
            }
            HeadRead::End => return Ok(CompletePrefix { is_ended: prefix.bytes > 0, ..prefix }),
            HeadRead::Message(_) | HeadRead::Damaged => return Ok(prefix),
        }
    }
}

const fn expected(prefix: &CompletePrefix) -> u8 {
    if prefix.bytes == 0 { SCHEMA } else { RECORD_BATCH }
}

/// What stands at a place of a stream.
pub(crate) enum HeadRead {
    Message(MessageHead),
    End,
    /// The bytes end, or they are no message.
    Damaged,
}

/// Reads the head of the next message.
///
/// # Errors
/// Those of reading.
pub(crate) fn read_head(file: &mut impl Read) -> io::Result<HeadRead> {
    let mut start = [0; 8];
    if !fill(file, &mut start)? {
        return Ok(HeadRead::Damaged);
    }
    let length = u32::from_le_bytes([start[4], start[5], start[6], start[7]]);
    if start == END {
        return Ok(HeadRead::End);
    }
    if start[..4] != MARKER || length > MAX_METADATA {
        return Ok(HeadRead::Damaged);
    }
    let mut metadata = vec![0; length as usize];
    if !fill(file, &mut metadata)? {
        return Ok(HeadRead::Damaged);
    }
    Ok(head(metadata).map_or(HeadRead::Damaged, HeadRead::Message))
}

fn head(metadata: Vec<u8>) -> Option<MessageHead> {
    let message = Table::root(&metadata)?;
    let kind = message.byte(1)?;
    let rows = if kind == RECORD_BATCH { message.table(2)?.long(0)? } else { 0 };
    let body = u64::try_from(message.long(3)?).ok()?;
    let bytes = body.checked_add(8 + metadata.len() as u64)?;
    Some(MessageHead { kind, rows: u64::try_from(rows).ok()?, body, bytes, metadata })
}

/// False if the bytes end before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
