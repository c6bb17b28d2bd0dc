//! What both sides of a connection say of themselves (RFC 9113, 6.5).

use crate::frame::{FrameHead, LEAST_MAX_FRAME, MOST_MAX_FRAME, flag, kind, setting};
use crate::reason::{ConnectionError, Reason};
use crate::window::{FIRST_WINDOW, MOST};

/// What a connection may take of us.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The streams that the client may have open.
    pub streams: u32,
    /// What the client may send of a stream before some of it was read, in bytes.
    pub stream_window: u32,
    /// The same for all streams of a connection.
    pub connection_window: u32,
    /// The largest payload of a frame, in bytes; from 16 KiB to 16 MiB.
    pub frame: u32,
    /// The largest list of header fields, in bytes; at most 64 KiB. A field counts 32 bytes more than its name and value.
    pub header_list: u32,
}

impl Limits {
    /// Appends the first frames of a connection, which say these limits.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        let settings = [
            (setting::MAX_CONCURRENT_STREAMS, self.streams),
            (setting::INITIAL_WINDOW_SIZE, self.stream_window),
            (setting::MAX_FRAME_SIZE, self.frame),
            (setting::MAX_HEADER_LIST_SIZE, self.header_list),
        ];
        FrameHead::new(kind::SETTINGS, 0, 0, 6 * settings.len()).write(out);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        crate::frame::write_number(out, kind::WINDOW_UPDATE, 0, self.connection_window - FIRST_WINDOW);
    }
}

/// What the client has said.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerSettings {
    /// The window of a new stream.
    pub(crate) window: u32,
    /// The largest payload of a frame.
    pub(crate) frame: usize,
}

impl PeerSettings {
    /// What a client has before it says anything.
    pub(crate) fn new() -> PeerSettings {
        PeerSettings { window: FIRST_WINDOW, frame: LEAST_MAX_FRAME }
    }

    /// Reads a SETTINGS frame that is no acknowledgement.
    ///
    /// # Errors
    /// Values that a setting does not have.
    pub(crate) fn read(&mut self, payload: &[u8]) -> Result<(), ConnectionError> {
        let (settings, rest) = payload.as_chunks::<6>();
        if !rest.is_empty() {
            return Err(ConnectionError::size("SETTINGS are cut off"));
        }
        for &[a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(value);
            match u16::from_be_bytes([a, b]) {
                setting::ENABLE_PUSH if value > 1 => {
                    return Err(ConnectionError::protocol("SETTINGS_ENABLE_PUSH is neither 0 nor 1"));
                }
                setting::INITIAL_WINDOW_SIZE if i64::from(value) > MOST => {
                    let what = "SETTINGS_INITIAL_WINDOW_SIZE is too large";
                    return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, what));
                }
                setting::INITIAL_WINDOW_SIZE => self.window = value,
                setting::MAX_FRAME_SIZE => {
                    let frame = value as usize;
                    if !(LEAST_MAX_FRAME..=MOST_MAX_FRAME).contains(&frame) {
                        return Err(ConnectionError::protocol("SETTINGS_MAX_FRAME_SIZE is out of its range"));
                    }
                    self.frame = frame;
                }
                // Nothing else concerns a server that pushes nothing and uses no dynamic table.
                _ => {}
            }
        }
        Ok(())
    }
}

/// Appends the acknowledgement of SETTINGS.
pub(crate) fn write_ack(out: &mut Vec<u8>) {
    FrameHead::new(kind::SETTINGS, flag::ACK, 0, 0).write(out);
}
