//! A stream: what was received of its request, and what is left to send of its reply.

use std::collections::VecDeque;
use std::task::Waker;

use bytes::{Bytes, BytesMut};

use crate::reason::StreamError;
use crate::window::{ReceiveWindow, SendWindow};

/// The places of streams that a connection without streams keeps.
const KEPT_PLACES: usize = 8;
/// A piece of a body below this length is copied if others wait before it, in bytes.
const SMALL_PIECE: usize = 8 << 10;
/// The length from which on nothing is put behind a piece, in bytes.
const MOST_TOGETHER: usize = 64 << 10;

/// How far a reply has been given by who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sending {
    /// Nothing.
    Nothing,
    /// Its head.
    Head,
    /// All of it.
    All,
}

/// A part of a reply that waits to be written.
pub(crate) enum Outgoing<B> {
    /// Bytes of the body, and whether they are the last ones and nothing follows.
    Data(B, bool),
    /// The fields behind the body, as a block.
    Trailers(Vec<u8>),
    /// The end, with nothing.
    End,
}

/// A stream, from the head of its request until both sides are over and nobody holds a part of it.
pub(crate) struct Stream<B> {
    pub(crate) id: u32,
    /// How many parts of it are held: the body of the request, the reply.
    pub(crate) handles: u8,
    /// Whether it is among the streams that are open, which are bounded.
    pub(crate) is_counted: bool,
    /// Whether somebody has begun to answer it.
    pub(crate) is_begun: bool,
    /// Why it ended before its end.
    pub(crate) error: Option<StreamError>,

    /// Whether all of the request was received.
    pub(crate) is_received: bool,
    /// Whether somebody reads the body.
    pub(crate) is_read: bool,
    /// What was received and not read.
    pub(crate) received: VecDeque<Bytes>,
    pub(crate) receive_window: ReceiveWindow,
    /// What is left of the length that the request declares.
    pub(crate) declared: Option<u64>,
    /// Who waits for the body.
    pub(crate) body_waker: Option<Waker>,

    pub(crate) sending: Sending,
    /// What waits to be written.
    pub(crate) queue: VecDeque<Outgoing<B>>,
    /// Whether the stream waits for its turn to write.
    pub(crate) is_ready: bool,
    /// Whether bytes of it are being written.
    pub(crate) is_writing: bool,
    pub(crate) send_window: SendWindow,
    /// Who waits for the window, or for the request to be taken back.
    pub(crate) reply_waker: Option<Waker>,
}

impl<B> Stream<B> {
    /// Whether nothing more is received or sent.
    pub(crate) fn is_over(&self) -> bool {
        self.error.is_some() || (self.is_received && self.is_sent())
    }

    /// Whether all of the reply is written, or about to be.
    pub(crate) fn is_sent(&self) -> bool {
        self.sending == Sending::All && self.is_idle()
    }

    /// Whether no part of the reply waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.queue.is_empty() && !self.is_writing
    }

    /// Keeps what was received. Small pieces behind others are put together, because each would keep all of the buffer that it came in.
    pub(crate) fn add_received(&mut self, data: Bytes) {
        let Some(last) = self.received.pop_back() else { return self.received.push_back(data) };
        if data.len() >= SMALL_PIECE || last.len() >= MOST_TOGETHER {
            self.received.extend([last, data]);
            return;
        }
        let mut together = last.try_into_mut().unwrap_or_else(|last| BytesMut::from(&last[..]));
        together.extend_from_slice(&data);
        self.received.push_back(together.freeze());
    }

    /// Wakes everybody who waits for the stream.
    pub(crate) fn wake(&mut self) {
        let wakers = [self.body_waker.take(), self.reply_waker.take()];
        wakers.into_iter().flatten().for_each(Waker::wake);
    }
}

/// The streams of a connection. A place is used again when its stream is gone.
pub(crate) struct Streams<B> {
    places: Vec<Option<Stream<B>>>,
    free: Vec<usize>,
    /// The numbers of the streams with their places, in the order in which they came: the newest is asked for most.
    numbers: Vec<(u32, usize)>,
}

impl<B> Streams<B> {
    pub(crate) fn new() -> Streams<B> {
        Streams { places: Vec::new(), free: Vec::new(), numbers: Vec::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Where the stream with this number is.
    pub(crate) fn find(&self, id: u32) -> Option<usize> {
        self.numbers.iter().rev().find_map(|&(number, place)| (number == id).then_some(place))
    }

    pub(crate) fn add(&mut self, stream: Stream<B>) -> usize {
        let id = stream.id;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(stream);
                place
            }
            None => {
                self.places.push(Some(stream));
                self.places.len() - 1
            }
        };
        self.numbers.push((id, place));
        place
    }

    pub(crate) fn remove(&mut self, place: usize) {
        if let Some(stream) = self.places[place].take() {
            self.numbers.retain(|&(number, _)| number != stream.id);
            self.free.push(place);
            if self.numbers.is_empty() && self.places.len() > KEPT_PLACES {
                *self = Streams::new();
            }
        }
    }

    /// The stream at a place; there is one as long as a part of it is held.
    pub(crate) fn at(&mut self, place: usize) -> &mut Stream<B> {
        self.places[place].as_mut().expect("a stream stays while a part of it is held or waits")
    }

    pub(crate) fn is_at(&self, place: usize) -> bool {
        self.places.get(place).is_some_and(Option::is_some)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = usize> + use<B> {
        0..self.places.len()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream<B>> {
        self.places.iter_mut().flatten()
    }
}
