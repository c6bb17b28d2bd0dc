//! Receiving: what the frames of the client change, those with header fields aside (`connection`).

use bytes::{Buf, Bytes};

use crate::frame::{FrameHead, flag, kind, without_padding};
use crate::reason::{ConnectionError, Reason, StreamError};
use crate::settings::write_ack;
use crate::state::{Leaving, State};

/// What is asked when a connection is to end, so that every stream that the client opened before it knew has come with the answer.
pub(crate) const LEAVING_PING: [u8; 8] = *b"leaving.";
/// What is asked to see whether a client is still there.
pub(crate) const ALIVE_PING: [u8; 8] = *b"alive?..";
/// The stream number behind all others.
pub(crate) const NO_LAST: u32 = (1 << 31) - 1;

impl<B: Buf> State<B> {
    /// Takes a frame that has neither data nor fields.
    pub(crate) fn receive(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        match head.kind {
            kind::WINDOW_UPDATE => self.receive_window_update(head, payload),
            kind::PING => self.receive_ping(head, payload),
            kind::SETTINGS => self.receive_settings(head, payload),
            kind::RST_STREAM => self.receive_reset(head, payload),
            kind::PRIORITY => self.receive_priority(head, payload),
            kind::GOAWAY if head.stream != 0 => {
                Err(ConnectionError::protocol("GOAWAY is for the connection"))
            }
            kind::GOAWAY if payload.len() < 8 => Err(ConnectionError::size("GOAWAY is cut off")),
            kind::PUSH_PROMISE => Err(ConnectionError::protocol("a client does not push")),
            // A client that leaves says so by the end of its connection, too. Unknown types are ignored (RFC 9113, 4.1).
            _ => Ok(()),
        }
    }

    /// The streams that a frame may be about: those that were begun. When the connection leaves, the client may have begun some that are
    /// not taken any more.
    fn check_begun(&self, head: FrameHead) -> Result<(), ConnectionError> {
        let is_too_late = self.leaving == Leaving::Final && head.stream > self.last;
        if head.stream.is_multiple_of(2) || (head.stream > self.last && !is_too_late) {
            return Err(ConnectionError::protocol("a frame is for a stream that was not begun"));
        }
        Ok(())
    }

    fn receive_window_update(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        let increment = number(payload, "WINDOW_UPDATE has 4 bytes")? & NO_LAST;
        if head.stream == 0 {
            if increment == 0 {
                return Err(ConnectionError::protocol("WINDOW_UPDATE adds nothing"));
            }
            let had_room = self.send_window.room() > 0;
            if !self.send_window.change(increment.into()) {
                let what = "the window of the connection is too large";
                return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, what));
            }
            // Nobody waits for a window that is open.
            if !had_room {
                self.wake_writers();
            }
            return Ok(());
        }
        self.check_begun(head)?;
        let Some(place) = self.streams.find(head.stream) else { return Ok(()) };
        if increment == 0 {
            self.reset(place, Reason::PROTOCOL_ERROR);
        } else if !self.streams.at(place).send_window.change(increment.into()) {
            self.reset(place, Reason::FLOW_CONTROL_ERROR);
        } else {
            self.widened(place);
        }
        Ok(())
    }

    /// The window of a stream is wider than it was.
    fn widened(&mut self, place: usize) {
        if let Some(waker) = self.streams.at(place).reply_waker.take() {
            waker.wake();
        }
        self.make_ready(place);
    }

    /// Wakes those that wait for the window of the connection, or for room in the output.
    pub(crate) fn wake_writers(&mut self) {
        self.streams
            .iter_mut()
            .filter_map(|stream| stream.reply_waker.take())
            .for_each(std::task::Waker::wake);
    }

    fn receive_ping(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        if head.stream != 0 {
            return Err(ConnectionError::protocol("PING is for the connection"));
        }
        let Ok(payload) = <[u8; 8]>::try_from(payload) else {
            return Err(ConnectionError::size("PING has 8 bytes"));
        };
        if !head.has(flag::ACK) {
            self.write_ping(flag::ACK, payload);
        } else if payload == ALIVE_PING {
            self.has_pong = true;
        } else if payload == LEAVING_PING && self.leaving == Leaving::Announced {
            self.leaving = Leaving::Final;
            self.write_goaway(self.last, Reason::NO_ERROR);
        }
        Ok(())
    }

    fn receive_settings(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        if head.stream != 0 {
            return Err(ConnectionError::protocol("SETTINGS are for the connection"));
        }
        if head.has(flag::ACK) {
            if !payload.is_empty() {
                return Err(ConnectionError::size("an acknowledgement has nothing in it"));
            }
            let was_owed = std::mem::take(&mut self.owes_ack);
            return was_owed.then_some(()).ok_or(ConnectionError::protocol("SETTINGS were not sent"));
        }
        let before = self.peer.window;
        self.peer.read(payload)?;
        let change = i64::from(self.peer.window) - i64::from(before);
        for place in self.streams.places().filter(|_| change != 0) {
            if !self.streams.is_at(place) {
                continue;
            }
            if !self.streams.at(place).send_window.change(change) {
                let what = "SETTINGS_INITIAL_WINDOW_SIZE makes the window of a stream too large";
                return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, what));
            }
            if change > 0 {
                self.widened(place);
            }
        }
        write_ack(self.output.end());
        Ok(())
    }

    fn receive_reset(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        let reason = Reason(number(payload, "RST_STREAM has 4 bytes")?);
        self.check_begun(head)?;
        if let Some(place) = self.streams.find(head.stream) {
            self.end(place, StreamError::TakenBack(reason));
        }
        Ok(())
    }

    /// Priorities are ignored; a frame must be one all the same.
    fn receive_priority(&mut self, head: FrameHead, payload: &[u8]) -> Result<(), ConnectionError> {
        if head.stream == 0 {
            return Err(ConnectionError::protocol("PRIORITY is for a stream"));
        }
        let reason = match payload.first_chunk::<4>().filter(|_| payload.len() == 5) {
            None => Reason::FRAME_SIZE_ERROR,
            Some(on) if u32::from_be_bytes(*on) & NO_LAST == head.stream => Reason::PROTOCOL_ERROR,
            Some(_) => return Ok(()),
        };
        match self.streams.find(head.stream) {
            Some(place) => self.reset(place, reason),
            // No stream that was not begun can be ended.
            None if head.stream > self.last => {
                return Err(ConnectionError::new(reason, "PRIORITY is no such frame"));
            }
            None => {}
        }
        Ok(())
    }

    /// Takes a DATA frame.
    pub(crate) fn receive_data(
        &mut self,
        head: FrameHead,
        mut payload: Bytes,
    ) -> Result<(), ConnectionError> {
        let length = payload.len();
        if !self.receive_window.take(length) {
            let what = "more data than the window of the connection takes";
            return Err(ConnectionError::new(Reason::FLOW_CONTROL_ERROR, what));
        }
        self.check_begun(head)?;
        if head.has(flag::PADDED) {
            let data = without_padding(head, &payload)
                .ok_or(ConnectionError::protocol("DATA has more padding than payload"))?;
            payload = payload.slice_ref(data);
        }
        let ends = head.has(flag::END_STREAM);
        match self.streams.find(head.stream) {
            Some(place) if self.streams.at(place).error.is_none() => {
                self.add_data(place, payload, length, ends);
            }
            Some(place) => {
                self.give_back(length);
                self.refuse_behind_end(place);
            }
            None => {
                self.give_back(length);
                if head.stream <= self.last && !self.was_reset(head.stream) {
                    self.reset_number(head.stream, Reason::STREAM_CLOSED);
                }
            }
        }
        Ok(())
    }

    /// Takes a frame for a stream that ended before its end. A client that took its request back must not go on with it. One that does not
    /// know yet that we ended the stream may.
    fn refuse_behind_end(&mut self, place: usize) {
        let stream = self.streams.at(place);
        if matches!(stream.error, Some(StreamError::TakenBack(_))) {
            let id = stream.id;
            self.reset_number(id, Reason::STREAM_CLOSED);
        }
    }

    /// Adds data, which took `length` bytes of the windows, to a stream that is not over.
    fn add_data(&mut self, place: usize, data: Bytes, length: usize, ends: bool) {
        let stream = self.streams.at(place);
        if stream.is_received {
            self.give_back(length);
            return self.reset(place, Reason::STREAM_CLOSED);
        }
        if !stream.receive_window.take(length) {
            self.give_back(length);
            return self.reset(place, Reason::FLOW_CONTROL_ERROR);
        }
        if let Some(declared) = &mut stream.declared {
            let left = declared.checked_sub(data.len() as u64);
            *declared = left.unwrap_or_default();
            if left.is_none() || (ends && left != Some(0)) {
                self.give_back(length);
                return self.reset(place, Reason::PROTOCOL_ERROR);
            }
        }
        stream.is_received = ends;
        if let Some(waker) = stream.body_waker.take() {
            waker.wake();
        }
        if stream.is_read {
            let padding = length - data.len();
            if !data.is_empty() {
                stream.add_received(data);
                self.idle_frames = 0;
            }
            self.used(place, padding);
        } else {
            // Nobody reads it: the client may send as much as its window takes, and no more.
            self.give_back(length);
        }
        self.settle(place);
    }

    /// Gives the windows of a stream and of its connection back what was read.
    pub(crate) fn used(&mut self, place: usize, length: usize) {
        if length == 0 {
            return;
        }
        self.give_back(length);
        let stream = self.streams.at(place);
        if !stream.is_received
            && stream.error.is_none()
            && let Some(increment) = stream.receive_window.give_back(length)
        {
            let id = stream.id;
            crate::frame::write_number(self.output.end(), kind::WINDOW_UPDATE, id, increment);
            self.wake();
        }
    }

    /// Takes the fields behind a body, which end the request.
    pub(crate) fn receive_trailers(&mut self, place: usize, is_well_formed: bool) {
        let stream = self.streams.at(place);
        if stream.error.is_some() {
            return self.refuse_behind_end(place);
        }
        if stream.is_received {
            return self.reset(place, Reason::STREAM_CLOSED);
        }
        if !is_well_formed || stream.declared.is_some_and(|declared| declared > 0) {
            return self.reset(place, Reason::PROTOCOL_ERROR);
        }
        stream.is_received = true;
        if let Some(waker) = stream.body_waker.take() {
            waker.wake();
        }
        self.settle(place);
    }

    /// Refuses a request whose fields are too many, with a reply that says so.
    pub(crate) fn refuse_fields(&mut self, id: u32, ends: bool) {
        const TOO_LARGE: u16 = 431;
        self.write_block(id, true, |out| crate::hpack::write_status(out, TOO_LARGE));
        if !ends {
            self.reset_number(id, Reason::NO_ERROR);
        }
    }
}

/// The number that a payload consists of.
fn number(payload: &[u8], what: &'static str) -> Result<u32, ConnectionError> {
    <[u8; 4]>::try_from(payload).map(u32::from_be_bytes).map_err(|_| ConnectionError::size(what))
}
