//! The buffers of a connection from a request's first byte to its reply's last one. The connections of a thread take turns with few of
//! them: an idle connection holds none, and the memory is warm.

use std::cell::RefCell;

use bytes::BytesMut;

use crate::headers::HeaderField;

/// The least room that a read has, in bytes; buffers of twice as much are kept.
pub const READ_ROOM: usize = 8 << 10;
/// Buffers that a thread keeps at most.
const MAX_SPARE: usize = 64;

/// The buffers of one connection.
#[derive(Default)]
pub struct ConnectionBuffers {
    /// Bytes that were read and belong to no request yet.
    pub unread: BytesMut,
    /// The header fields of the present request.
    pub fields: Vec<HeaderField>,
    /// The head of the present reply, and its body if that is short.
    pub written: Vec<u8>,
}

thread_local! {
    /// A thread's spare buffers.
    #[expect(clippy::vec_box, reason = "a connection has the box")]
    static SPARE: RefCell<Vec<Box<ConnectionBuffers>>> = const { RefCell::new(Vec::new()) };
}

/// Buffers with nothing in them.
pub fn take() -> Box<ConnectionBuffers> {
    SPARE.with_borrow_mut(Vec::pop).unwrap_or_default()
}

/// Takes buffers back. Those that grew for a long body are freed.
pub fn give(mut buffers: Box<ConnectionBuffers>) {
    buffers.unread.clear();
    buffers.fields.clear();
    SPARE.with_borrow_mut(|spare| {
        if spare.len() < MAX_SPARE && buffers.unread.capacity() <= 2 * READ_ROOM {
            spare.push(buffers);
        }
    });
}
