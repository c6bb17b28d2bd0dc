//! Sending: heads and short bodies go to the output at once, and long ones when the windows and the socket take them.

use bytes::Buf;

use crate::frame::{FrameHead, HEAD, flag, kind};
use crate::hpack::NO_DYNAMIC_TABLE;
use crate::output::{Chunk, SHORT};
use crate::reason::StreamError;
use crate::state::State;
use crate::stream::{Outgoing, Sending};

/// The most bytes of a body in one frame, so that other streams get their turn.
const MOST_IN_A_FRAME: usize = 64 << 10;
/// The bytes behind which no more frames are made before the socket has taken them.
pub(crate) const ENOUGH: usize = 64 << 10;

impl<B: Buf> State<B> {
    /// Sends the head of a reply, whose fields `write` appends as a block. `ends` if it is all of the reply.
    pub(crate) fn send_head(
        &mut self,
        place: usize,
        ends: bool,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StreamError> {
        self.begin(place);
        let stream = self.streams.at(place);
        if let Some(error) = stream.error {
            return Err(error);
        }
        let id = stream.id;
        self.write_block(id, ends, write);
        self.streams.at(place).sending = if ends { Sending::All } else { Sending::Head };
        if ends {
            self.settle(place);
        }
        Ok(())
    }

    /// Sends bytes of a body. `ends` if they are the last ones, and no trailers follow.
    pub(crate) fn send_data(&mut self, place: usize, mut data: B, ends: bool) -> Result<(), StreamError> {
        let connection_room = self.send_window.room();
        let stream = self.streams.at(place);
        if let Some(error) = stream.error {
            return Err(error);
        }
        if ends {
            stream.sending = Sending::All;
        }
        let length = data.remaining();
        let room = stream.send_window.room().min(connection_room).min(SHORT);
        if stream.is_idle() && length <= room {
            stream.send_window.take(length);
            self.send_window.take(length);
            let flags = if ends { flag::END_STREAM } else { 0 };
            FrameHead::new(kind::DATA, flags, stream.id, length).write(self.output.end());
            copy(&mut data, length, self.output.end());
            self.wake();
            if ends {
                self.settle(place);
            }
        } else {
            stream.queue.push_back(Outgoing::Data(data, ends));
            self.make_ready(place);
        }
        Ok(())
    }

    /// Sends the fields behind a body, which `write` appends as a block. They end the reply.
    pub(crate) fn send_trailers(
        &mut self,
        place: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Result<(), StreamError> {
        let stream = self.streams.at(place);
        if let Some(error) = stream.error {
            return Err(error);
        }
        if stream.is_idle() {
            let id = stream.id;
            self.write_block(id, true, write);
            self.streams.at(place).sending = Sending::All;
            self.settle(place);
        } else {
            let mut block = Vec::new();
            write(&mut block);
            stream.sending = Sending::All;
            stream.queue.push_back(Outgoing::Trailers(block));
        }
        Ok(())
    }

    /// Ends a reply with an empty frame.
    pub(crate) fn finish(&mut self, place: usize) -> Result<(), StreamError> {
        let stream = self.streams.at(place);
        if let Some(error) = stream.error {
            return Err(error);
        }
        stream.sending = Sending::All;
        stream.queue.push_back(Outgoing::End);
        self.went_on(place);
        Ok(())
    }

    /// Writes a block of fields in as many frames as it takes.
    pub(crate) fn write_block(&mut self, id: u32, ends: bool, write: impl FnOnce(&mut Vec<u8>)) {
        let (is_first, most) = (self.is_first_block, self.peer.frame);
        let out = self.output.end();
        let start = out.len();
        {
            let mut unfinished = Unfinished { kept: start, out };
            unfinished.out.extend_from_slice(&[0; HEAD]);
            if is_first {
                unfinished.out.push(NO_DYNAMIC_TABLE);
            }
            write(unfinished.out);
            unfinished.kept = unfinished.out.len();
        }
        let length = out.len() - start - HEAD;
        let end = if ends { flag::END_STREAM } else { 0 };
        if length <= most {
            let head = FrameHead::new(kind::HEADERS, flag::END_HEADERS | end, id, length);
            out[start..][..HEAD].copy_from_slice(&head.to_bytes());
        } else {
            split_block(out, start, most, FrameHead::new(kind::HEADERS, end, id, most));
        }
        self.is_first_block = false;
        self.wake();
    }

    /// Lets a stream have its turn to write, if it has something that its window takes.
    pub(crate) fn make_ready(&mut self, place: usize) {
        let stream = self.streams.at(place);
        if stream.is_ready || stream.is_writing {
            return;
        }
        // An end is never waited for: it is written with what was before it.
        let may_be_written = matches!(stream.queue.front(), Some(Outgoing::Data(data, _))
            if stream.send_window.room() > 0 || !data.has_remaining());
        if may_be_written {
            stream.is_ready = true;
            self.ready.push_back(place);
            self.wake();
        }
    }

    /// Makes frames of what waits, as far as the windows take it.
    pub(crate) fn make_frames(&mut self) {
        while self.output.len() < ENOUGH && !self.output.has_chunk() {
            let Some(place) = self.ready.pop_front() else { return };
            self.streams.at(place).is_ready = false;
            if !self.make_frame(place) {
                // The window of the connection is used up.
                self.streams.at(place).is_ready = true;
                self.ready.push_front(place);
                return;
            }
        }
    }

    /// Makes a frame of what waits in a stream; false if the connection's window takes nothing.
    fn make_frame(&mut self, place: usize) -> bool {
        let connection_room = self.send_window.room();
        let stream = self.streams.at(place);
        let id = stream.id;
        let (mut data, is_last) = match stream.queue.pop_front() {
            Some(Outgoing::Data(data, is_last)) => (data, is_last),
            end => {
                // An end is written behind what is being written.
                stream.queue.extend(end);
                return true;
            }
        };
        let remaining = data.remaining();
        let most = stream.send_window.room().min(self.peer.frame).min(MOST_IN_A_FRAME);
        let length = remaining.min(most).min(connection_room);
        if length == 0 && remaining > 0 {
            stream.queue.push_front(Outgoing::Data(data, is_last));
            return most == 0;
        }
        stream.send_window.take(length);
        self.send_window.take(length);
        let flags = if is_last && length == remaining { flag::END_STREAM } else { 0 };
        FrameHead::new(kind::DATA, flags, id, length).write(self.output.end());
        if length > SHORT {
            stream.is_writing = true;
            self.output.go_on_with(Chunk { data, left: length, is_last, place, id });
            return true;
        }
        copy(&mut data, length, self.output.end());
        if length < remaining {
            stream.queue.push_front(Outgoing::Data(data, is_last));
        }
        self.went_on(place);
        true
    }

    /// The socket took some bytes.
    pub(crate) fn note_written(&mut self, count: usize) {
        let was_full = self.output.len() >= ENOUGH;
        let chunk = self.output.advance(count);
        if was_full && self.output.len() < ENOUGH {
            self.wake_writers();
        }
        let Some(Chunk { data, is_last, place, id, .. }) = chunk else { return };
        if !self.streams.is_at(place) || self.streams.at(place).id != id {
            return;
        }
        let stream = self.streams.at(place);
        stream.is_writing = false;
        if data.has_remaining() && stream.error.is_none() {
            stream.queue.push_front(Outgoing::Data(data, is_last));
        }
        self.went_on(place);
    }

    /// Some of what waited in a stream is written, or something waits at last. An end takes nothing of the windows, and waits for nobody.
    fn went_on(&mut self, place: usize) {
        let stream = self.streams.at(place);
        let id = stream.id;
        if !stream.is_writing
            && let Some(Outgoing::End | Outgoing::Trailers(_)) = stream.queue.front()
        {
            match stream.queue.pop_front() {
                Some(Outgoing::Trailers(block)) => {
                    self.write_block(id, true, |out| out.extend_from_slice(&block));
                }
                _ => FrameHead::new(kind::DATA, flag::END_STREAM, id, 0).write(self.output.end()),
            }
            self.wake();
        }
        let stream = self.streams.at(place);
        if stream.is_idle()
            && let Some(waker) = stream.reply_waker.take()
        {
            waker.wake();
        }
        self.make_ready(place);
        self.settle(place);
    }
}

/// A frame that is being written. If that panics, nothing of it is left.
struct Unfinished<'a> {
    out: &'a mut Vec<u8>,
    kept: usize,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        self.out.truncate(self.kept);
    }
}

/// Moves bytes behind others.
fn copy<B: Buf>(data: &mut B, mut length: usize, out: &mut Vec<u8>) {
    while length > 0 {
        let chunk = data.chunk();
        let count = chunk.len().min(length);
        out.extend_from_slice(&chunk[..count]);
        data.advance(count);
        length -= count;
    }
}

/// Spreads a block that begins behind the room for a head at `start` over several frames, of which `first` is the head of the first.
#[cold]
fn split_block(out: &mut Vec<u8>, start: usize, most: usize, first: FrameHead) {
    let block = out.split_off(start + HEAD);
    out.truncate(start);
    let mut head = first;
    let mut parts = block.chunks(most).peekable();
    while let Some(part) = parts.next() {
        head.length = part.len();
        if parts.peek().is_none() {
            head.flags |= flag::END_HEADERS;
        }
        head.write(out);
        out.extend_from_slice(part);
        head = FrameHead::new(kind::CONTINUATION, 0, first.stream, 0);
    }
}
