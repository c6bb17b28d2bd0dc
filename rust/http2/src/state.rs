//! What a connection and the parts of its streams share: the streams, the windows and the output.
//!
//! How frames change it: `receive`. How replies do: `send`.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::Buf;

use crate::frame::{self, FrameHead, kind};
use crate::output::Output;
use crate::reason::{Reason, StreamError};
use crate::settings::{Limits, PeerSettings};
use crate::stream::{Sending, Stream, Streams};
use crate::window::{FIRST_WINDOW, ReceiveWindow, SendWindow};

/// The streams that were ended by us and are remembered: what the client sent of them before it knew is no fault of its.
const MOST_REMEMBERED: usize = 512;
/// The ranges of numbers that are remembered of those that the client has left out.
const MOST_SKIPPED: usize = 16;

/// How a connection ends in peace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaving {
    /// It does not.
    No,
    /// The client knows that it is to open no stream, but streams that it opened before may be on their way.
    Announced,
    /// No other stream is taken.
    Final,
}

pub(crate) struct State<B> {
    pub(crate) limits: Limits,
    pub(crate) peer: PeerSettings,
    pub(crate) streams: Streams<B>,
    /// The streams of them that are open.
    pub(crate) open: u32,
    /// The highest number of a stream of the client.
    pub(crate) last: u32,
    /// Streams that we ended, the newest one last.
    ended: VecDeque<u32>,
    pub(crate) receive_window: ReceiveWindow,
    pub(crate) send_window: SendWindow,
    pub(crate) output: Output<B>,
    /// Whether no block of fields has been written.
    pub(crate) is_first_block: bool,
    /// The places of streams whose turn to write comes, one after the other.
    pub(crate) ready: VecDeque<usize>,
    pub(crate) leaving: Leaving,
    /// The frames one behind the other that brought nothing.
    pub(crate) idle_frames: u32,
    /// The requests that ended before they were begun, less those that were begun since.
    pub(crate) unbegun: u32,
    /// Numbers of streams that the client has left out, as ranges of the first and the last; the newest ones.
    skipped: VecDeque<(u32, u32)>,
    /// Whether the client has still to acknowledge our settings.
    pub(crate) owes_ack: bool,
    /// Whether the peer has answered the question whether it is there.
    pub(crate) has_pong: bool,
    /// The task of the connection.
    pub(crate) waker: Option<Waker>,
    /// Whether the task has its turn, or was woken for it.
    pub(crate) has_turn: bool,
}

impl<B: Buf> State<B> {
    pub(crate) fn new(limits: Limits) -> State<B> {
        let mut output = Output::new();
        limits.write(output.end());
        State {
            limits,
            peer: PeerSettings::new(),
            streams: Streams::new(),
            open: 0,
            last: 0,
            ended: VecDeque::new(),
            receive_window: ReceiveWindow::new(limits.connection_window),
            send_window: SendWindow::new(FIRST_WINDOW),
            output,
            is_first_block: true,
            ready: VecDeque::new(),
            leaving: Leaving::No,
            idle_frames: 0,
            unbegun: 0,
            skipped: VecDeque::new(),
            owes_ack: true,
            has_pong: false,
            waker: None,
            has_turn: false,
        }
    }

    /// The client begins a stream with this number, which is higher than all before it.
    pub(crate) fn note_number(&mut self, id: u32) {
        let next = if self.last == 0 { 1 } else { self.last + 2 };
        if id > next {
            if self.skipped.len() == MOST_SKIPPED {
                self.skipped.pop_front();
            }
            self.skipped.push_back((next, id - 2));
        }
        self.last = id;
    }

    /// Whether the client has left this number out, so that no stream has ever had it.
    pub(crate) fn was_skipped(&self, id: u32) -> bool {
        self.skipped.iter().any(|&(first, last)| (first..=last).contains(&id))
    }

    /// The request at this place is begun, unless it was before.
    pub(crate) fn begin(&mut self, place: usize) {
        if !std::mem::replace(&mut self.streams.at(place).is_begun, true) {
            self.unbegun = self.unbegun.saturating_sub(1);
        }
    }

    /// Adds the stream of a request, of which two parts are held.
    pub(crate) fn add(&mut self, id: u32, is_received: bool, declared: Option<u64>) -> usize {
        self.open += 1;
        self.streams.add(Stream {
            id,
            handles: 2,
            is_counted: true,
            is_begun: false,
            error: None,
            is_received,
            is_read: true,
            received: VecDeque::new(),
            receive_window: ReceiveWindow::new(self.limits.stream_window),
            declared,
            body_waker: None,
            sending: Sending::Nothing,
            queue: VecDeque::new(),
            is_ready: false,
            is_writing: false,
            send_window: SendWindow::new(self.peer.window),
            reply_waker: None,
        })
    }

    /// There is something for the connection's task to do, which is woken unless it is in its turn.
    pub(crate) fn wake(&mut self) {
        if !self.has_turn
            && let Some(waker) = &self.waker
        {
            self.has_turn = true;
            waker.wake_by_ref();
        }
    }

    /// Ends a stream that is not over, and tells the client why.
    pub(crate) fn reset(&mut self, place: usize, reason: Reason) {
        let stream = self.streams.at(place);
        if stream.error.is_some() {
            return;
        }
        let id = stream.id;
        self.reset_number(id, reason);
        self.end(place, StreamError::Ended(reason));
    }

    /// Tells the client that the stream with this number is over.
    pub(crate) fn reset_number(&mut self, id: u32, reason: Reason) {
        frame::write_number(self.output.end(), kind::RST_STREAM, id, reason.0);
        self.idle_frames += 1;
        if self.ended.len() == MOST_REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(id);
        self.wake();
    }

    /// Whether the stream with this number was ended by us.
    pub(crate) fn was_reset(&self, id: u32) -> bool {
        self.ended.contains(&id)
    }

    /// Notes why a stream is over. What was received is not read, and what waits is not sent.
    pub(crate) fn end(&mut self, place: usize, error: StreamError) {
        let stream = self.streams.at(place);
        self.unbegun += u32::from(stream.error.is_none() && !stream.is_begun);
        stream.error.get_or_insert(error);
        stream.queue.clear();
        let unread: usize = stream.received.drain(..).map(|data| data.len()).sum();
        stream.wake();
        self.give_back(unread);
        self.settle(place);
    }

    /// Gives the window of the connection back what was received and is gone.
    pub(crate) fn give_back(&mut self, length: usize) {
        if let Some(increment) = self.receive_window.give_back(length) {
            frame::write_number(self.output.end(), kind::WINDOW_UPDATE, 0, increment);
            self.wake();
        }
    }

    /// Ends a stream of which no part is held, and forgets one that is over.
    pub(crate) fn settle(&mut self, place: usize) {
        let stream = self.streams.at(place);
        if stream.is_over() && std::mem::take(&mut stream.is_counted) {
            self.open -= 1;
        }
        if stream.handles > 0 {
            return;
        }
        if stream.is_over() {
            if stream.is_ready {
                self.ready.retain(|&other| other != place);
            }
            // Bytes that are being written belong to a frame that must be completed, but not to the stream any more.
            self.streams.remove(place);
            if self.leaving == Leaving::Final && self.streams.len() == 0 {
                self.wake();
            }
        } else if stream.sending != Sending::All {
            self.reset(place, Reason::CANCEL);
        } else if stream.is_idle() {
            // The reply is complete, and the rest of the request is of no use (RFC 9113, 8.1).
            self.reset(place, Reason::NO_ERROR);
        }
    }

    /// Somebody holds one part less of a stream.
    pub(crate) fn release(&mut self, place: usize) {
        self.streams.at(place).handles -= 1;
        self.settle(place);
    }

    /// Ends all streams, because the connection is over.
    pub(crate) fn end_all(&mut self, error: StreamError) {
        for place in self.streams.places() {
            if self.streams.is_at(place) {
                self.end(place, error);
            }
        }
    }

    /// Tells the client which streams are answered at most.
    pub(crate) fn write_goaway(&mut self, last: u32, reason: Reason) {
        let out = self.output.end();
        FrameHead::new(kind::GOAWAY, 0, 0, 8).write(out);
        out.extend_from_slice(&last.to_be_bytes());
        out.extend_from_slice(&reason.0.to_be_bytes());
        self.wake();
    }

    /// Asks the client something that it answers with the same bytes.
    pub(crate) fn write_ping(&mut self, flags: u8, payload: [u8; 8]) {
        let out = self.output.end();
        FrameHead::new(kind::PING, flags, 0, 8).write(out);
        out.extend_from_slice(&payload);
        self.wake();
    }
}
