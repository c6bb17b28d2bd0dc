//! The heads of frames (RFC 9113, 4.1 and 6).

/// What every connection of a client begins with.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The length of a frame's head, in bytes.
pub(crate) const HEAD: usize = 9;
/// The largest payload that every peer takes, in bytes.
pub(crate) const LEAST_MAX_FRAME: usize = 1 << 14;
/// The largest payload that a peer may allow.
pub(crate) const MOST_MAX_FRAME: usize = (1 << 24) - 1;

/// The types of frames.
pub(crate) mod kind {
    pub(crate) const DATA: u8 = 0;
    pub(crate) const HEADERS: u8 = 1;
    pub(crate) const PRIORITY: u8 = 2;
    pub(crate) const RST_STREAM: u8 = 3;
    pub(crate) const SETTINGS: u8 = 4;
    pub(crate) const PUSH_PROMISE: u8 = 5;
    pub(crate) const PING: u8 = 6;
    pub(crate) const GOAWAY: u8 = 7;
    pub(crate) const WINDOW_UPDATE: u8 = 8;
    pub(crate) const CONTINUATION: u8 = 9;
}

/// The flags of frames.
pub(crate) mod flag {
    pub(crate) const END_STREAM: u8 = 1;
    pub(crate) const ACK: u8 = 1;
    pub(crate) const END_HEADERS: u8 = 4;
    pub(crate) const PADDED: u8 = 8;
    pub(crate) const PRIORITY: u8 = 0x20;
}

/// The settings (RFC 9113, 6.5.2).
pub(crate) mod setting {
    pub(crate) const ENABLE_PUSH: u16 = 2;
    pub(crate) const MAX_CONCURRENT_STREAMS: u16 = 3;
    pub(crate) const INITIAL_WINDOW_SIZE: u16 = 4;
    pub(crate) const MAX_FRAME_SIZE: u16 = 5;
    pub(crate) const MAX_HEADER_LIST_SIZE: u16 = 6;
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    /// Of the payload, in bytes.
    pub(crate) length: usize,
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    /// The number of the stream; 0 for the connection.
    pub(crate) stream: u32,
}

impl FrameHead {
    pub(crate) fn new(kind: u8, flags: u8, stream: u32, length: usize) -> FrameHead {
        FrameHead { length, kind, flags, stream }
    }

    pub(crate) fn read(head: &[u8; HEAD]) -> FrameHead {
        let &[a, b, c, kind, flags, stream @ ..] = head;
        // The first bit of the number is to be ignored.
        let stream = u32::from_be_bytes(stream) & !(1 << 31);
        FrameHead { length: u32::from_be_bytes([0, a, b, c]) as usize, kind, flags, stream }
    }

    pub(crate) fn to_bytes(self) -> [u8; HEAD] {
        let [_, a, b, c] = (self.length as u32).to_be_bytes();
        let [d, e, f, g] = self.stream.to_be_bytes();
        [a, b, c, self.kind, self.flags, d, e, f, g]
    }

    pub(crate) fn write(self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    pub(crate) fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// Appends a frame whose payload is one number.
pub(crate) fn write_number(out: &mut Vec<u8>, kind: u8, stream: u32, number: u32) {
    FrameHead::new(kind, 0, stream, 4).write(out);
    out.extend_from_slice(&number.to_be_bytes());
}

/// The payload of a frame that may be padded, without its padding; `None` if there is more padding than payload.
pub(crate) fn without_padding(head: FrameHead, payload: &[u8]) -> Option<&[u8]> {
    if !head.has(flag::PADDED) {
        return Some(payload);
    }
    let (&padding, rest) = payload.split_first()?;
    rest.get(..rest.len().checked_sub(usize::from(padding))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = FrameHead::new(kind::DATA, flag::END_STREAM, 0x7fff_ffff, 0x00ff_fffe);
        assert_eq!(FrameHead::read(&head.to_bytes()), head);
        let mut reserved = head.to_bytes();
        reserved[5] |= 0x80;
        assert_eq!(FrameHead::read(&reserved), head);
    }

    #[test]
    fn padding_is_left_out() {
        let padded = FrameHead::new(kind::DATA, flag::PADDED, 1, 0);
        assert_eq!(without_padding(padded, &[2, 7, 0, 0]), Some(&[7][..]));
        assert_eq!(without_padding(padded, &[0]), Some(&[][..]));
        assert_eq!(without_padding(padded, &[1]), None);
        assert_eq!(without_padding(padded, &[]), None);
        assert_eq!(without_padding(FrameHead { flags: 0, ..padded }, &[1]), Some(&[1][..]));
    }
}
