//! A connection: reads frames and makes requests of them.

use std::cell::RefCell;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Context;

use bytes::{Buf, BytesMut};

use crate::frame::{FrameHead, HEAD, PREFACE, flag, kind};
use crate::head::RequestHead;
use crate::head_reader::{BlockStart, HeadRead, HeadReader};
use crate::reason::{ConnectionError, Reason, StreamError};
use crate::receive::{ALIVE_PING, LEAVING_PING, NO_LAST};
use crate::request::{IncomingRequest, Reply, RequestBody};
use crate::settings::Limits;
use crate::state::{Leaving, State};

/// The frames that bring no request that is taken and no data that is kept, and those by which we end streams, that may come one behind the
/// other until [`Connection::note_time`] is called: a client that only keeps us busy is ended.
const MOST_IDLE_FRAMES: u32 = 10_000;
/// How many more requests than are begun may be taken back before that, in the same time. A client with deadlines does so while we are
/// busy.
const MOST_UNBEGUN: u32 = 10_000;
/// The length from which on the buffer of a frame is not used for those behind it, in bytes: a small piece of data would keep all of it.
const LARGE_FRAME: usize = 32 << 10;

/// What was found in the bytes of a client.
pub enum Found<B: Buf, H> {
    /// A request. Its body may be still to come.
    Request(IncomingRequest<B, H>),
    /// Nothing more. The next frame is complete with so many bytes more, as far as is known.
    Missing(usize),
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It begins.
    Preface,
    /// The client's settings come first.
    Settings,
    /// Frames come.
    Frames,
}

/// The server's side of a connection. `B` are the bytes of replies. `H` is what server code makes of the head of a request.
pub struct Connection<B: Buf, H> {
    state: Rc<RefCell<State<B>>>,
    reader: HeadReader<H>,
    stage: Stage,
}

impl<B: Buf, H: From<RequestHead>> Connection<B, H> {
    /// A connection that begins.
    pub fn new(limits: Limits) -> Connection<B, H> {
        Connection {
            state: Rc::new(RefCell::new(State::new(limits))),
            reader: HeadReader::new(limits.header_list as usize),
            stage: Stage::Preface,
        }
    }

    /// Reads what a client has sent, up to the next request.
    ///
    /// # Errors
    /// What ends the connection.
    pub fn read(&mut self, unread: &mut BytesMut) -> Result<Found<B, H>, ConnectionError> {
        if self.stage == Stage::Preface {
            let known = unread.len().min(PREFACE.len());
            if unread[..known] != PREFACE[..known] {
                return Err(ConnectionError::protocol("the connection does not begin as HTTP/2 does"));
            }
            if known < PREFACE.len() {
                return Ok(Found::Missing(PREFACE.len() - known));
            }
            unread.advance(known);
            self.stage = Stage::Settings;
        }
        loop {
            let Some(head) = unread.first_chunk::<HEAD>() else {
                return Ok(Found::Missing(HEAD - unread.len()));
            };
            let head = FrameHead::read(head);
            self.check(head)?;
            let length = HEAD + head.length;
            if unread.len() < length {
                return Ok(Found::Missing(length - unread.len()));
            }
            if let Some(request) = self.take(head, unread)? {
                return Ok(Found::Request(request));
            }
        }
    }

    /// Whether a frame may come now.
    fn check(&mut self, head: FrameHead) -> Result<(), ConnectionError> {
        if head.length > self.state.borrow().limits.frame as usize {
            return Err(ConnectionError::size("a frame is larger than it may be"));
        }
        if self.stage == Stage::Settings {
            if head.kind != kind::SETTINGS || head.has(flag::ACK) {
                return Err(ConnectionError::protocol("a connection begins with SETTINGS"));
            }
            self.stage = Stage::Frames;
        }
        self.reader.check_next(head)
    }

    /// Takes a frame, which is all there; the request that it completes the head of.
    fn take(
        &mut self,
        head: FrameHead,
        unread: &mut BytesMut,
    ) -> Result<Option<IncomingRequest<B, H>>, ConnectionError> {
        if head.kind == kind::DATA {
            unread.advance(HEAD);
            let payload = unread.split_to(head.length).freeze();
            let state = &mut *self.state.borrow_mut();
            // Data that is kept makes it zero.
            state.idle_frames += 1;
            state.receive_data(head, payload)?;
            check_idle(state)?;
            leave_large_buffer(head, unread);
            return Ok(None);
        }
        let payload = &unread[HEAD..][..head.length];
        let found = match head.kind {
            kind::HEADERS => self.headers(head, payload)?,
            kind::CONTINUATION => match self.reader.go_on(head, payload)? {
                Some((start, block)) => self.block(start, &block)?,
                None => None,
            },
            _ => {
                let state = &mut *self.state.borrow_mut();
                // Windows are opened by many small steps while a long reply is read.
                state.idle_frames += u32::from(head.kind != kind::WINDOW_UPDATE);
                state.receive(head, payload)?;
                None
            }
        };
        check_idle(&self.state.borrow())?;
        unread.advance(HEAD + head.length);
        leave_large_buffer(head, unread);
        Ok(found)
    }

    fn headers(
        &mut self,
        head: FrameHead,
        payload: &[u8],
    ) -> Result<Option<IncomingRequest<B, H>>, ConnectionError> {
        if head.stream.is_multiple_of(2) {
            return Err(ConnectionError::protocol("HEADERS are for a stream of the client"));
        }
        let (start, block) = BlockStart::read(head, payload)?;
        self.reader.check_length(block)?;
        if head.has(flag::END_HEADERS) {
            return self.block(start, block);
        }
        self.reader.begin(start, block)?;
        Ok(None)
    }

    /// Takes a block of fields: the head of a request, or what stands behind its body.
    fn block(
        &mut self,
        start: BlockStart,
        block: &[u8],
    ) -> Result<Option<IncomingRequest<B, H>>, ConnectionError> {
        let BlockStart { stream: id, ends, depends_on_itself } = start;
        let state = &mut *self.state.borrow_mut();
        if id <= state.last {
            // Whatever becomes of the fields, the table must be as the client believes.
            let is_well_formed = self.reader.trailers(block)? && ends;
            return match state.streams.find(id) {
                Some(place) => {
                    state.receive_trailers(place, is_well_formed);
                    Ok(None)
                }
                None if state.was_reset(id) => Ok(None),
                None if state.was_skipped(id) => {
                    Err(ConnectionError::protocol("HEADERS are for a stream that was left out"))
                }
                None => {
                    let what = "HEADERS are for a stream that is over";
                    Err(ConnectionError::new(Reason::STREAM_CLOSED, what))
                }
            };
        }
        let read = self.reader.head(block)?;
        if state.leaving == Leaving::Final {
            // The client was told that it is not answered.
            return Ok(None);
        }
        state.note_number(id);
        // Streams that were taken back, while what was begun for them goes on, are bounded as well.
        let most = state.limits.streams;
        let are_too_many = state.open >= most || state.streams.len() >= 2 * most as usize;
        let refusal = match read {
            _ if depends_on_itself => Reason::PROTOCOL_ERROR,
            HeadRead::Malformed => Reason::PROTOCOL_ERROR,
            HeadRead::TooLarge => {
                state.refuse_fields(id, ends);
                return Ok(None);
            }
            HeadRead::Head { content_length: Some(1..), .. } if ends => Reason::PROTOCOL_ERROR,
            HeadRead::Head { .. } if are_too_many => Reason::REFUSED_STREAM,
            HeadRead::Head { head, content_length } => {
                state.idle_frames = 0;
                let place = state.add(id, ends, content_length);
                let body = RequestBody::new(self.state.clone(), place);
                let reply = Reply::new(self.state.clone(), place);
                return Ok(Some(IncomingRequest { head, body, reply, content_length }));
            }
        };
        state.reset_number(id, refusal);
        Ok(None)
    }

    /// A turn of the connection's task begins. What changes before it ends does not wake the task, which serves a connection from its
    /// beginning to its end.
    pub fn begin_turn(&self, cx: &Context<'_>) {
        let state = &mut *self.state.borrow_mut();
        state.has_turn = true;
        state.waker.get_or_insert_with(|| cx.waker().clone());
    }

    /// The turn ends. Everything that waited has been looked at since the last change.
    pub fn end_turn(&self) {
        self.state.borrow_mut().has_turn = false;
    }

    /// Lends what is to be written next, frames of what waits included; `None` if there is nothing that the client takes.
    pub fn next_bytes<R>(&self, use_them: impl FnOnce(&[IoSlice<'_>]) -> R) -> Option<R> {
        let state = &mut *self.state.borrow_mut();
        state.make_frames();
        if state.output.is_empty() {
            state.output.shrink();
            return None;
        }
        Some(state.output.next(use_them))
    }

    /// Notes that the socket took so many bytes.
    pub fn note_written(&self, count: usize) {
        self.state.borrow_mut().note_written(count);
    }

    /// How many bytes wait for the socket, bodies aside. A client that reads nothing must not be read on.
    pub fn unwritten(&self) -> usize {
        self.state.borrow().output.len()
    }

    /// Asks the client to open no more streams. Those that it has opened, or opens before it knows, are answered.
    pub fn leave(&mut self) {
        let state = &mut *self.state.borrow_mut();
        if state.leaving == Leaving::No {
            state.leaving = Leaving::Announced;
            state.write_goaway(NO_LAST, Reason::NO_ERROR);
            state.write_ping(0, LEAVING_PING);
        }
    }

    /// Tells the client why the connection ends, and ends its streams.
    pub fn fail(&mut self, reason: Reason) {
        let state = &mut *self.state.borrow_mut();
        let is_known = state.leaving == Leaving::Final && reason == Reason::NO_ERROR;
        if !is_known {
            state.write_goaway(state.last, reason);
        }
        state.end_all(match reason {
            Reason::NO_ERROR => StreamError::Disconnected,
            reason => StreamError::Ended(reason),
        });
    }

    /// Whether the client has agreed to leave, and all is answered.
    pub fn is_over(&self) -> bool {
        let state = self.state.borrow();
        state.leaving == Leaving::Final && state.streams.len() == 0
    }

    /// Some seconds have passed: what a client may send in a short time is counted anew.
    pub fn note_time(&mut self) {
        let state = &mut *self.state.borrow_mut();
        (state.idle_frames, state.unbegun) = (0, 0);
    }

    /// Asks the client whether it is there.
    pub fn ask_alive(&self) {
        let state = &mut *self.state.borrow_mut();
        state.has_pong = false;
        state.write_ping(0, ALIVE_PING);
    }

    /// Whether the client has answered since it was asked.
    pub fn is_alive(&self) -> bool {
        self.state.borrow().has_pong
    }
}

fn check_idle<B: Buf>(state: &State<B>) -> Result<(), ConnectionError> {
    if state.idle_frames > MOST_IDLE_FRAMES {
        return Err(ConnectionError::new(Reason::ENHANCE_YOUR_CALM, "too many frames that bring nothing"));
    }
    if state.unbegun > MOST_UNBEGUN {
        let what = "too many requests end before they are begun";
        return Err(ConnectionError::new(Reason::ENHANCE_YOUR_CALM, what));
    }
    Ok(())
}

/// Goes on in another buffer behind a large frame.
fn leave_large_buffer(head: FrameHead, unread: &mut BytesMut) {
    if head.length >= LARGE_FRAME {
        *unread = BytesMut::from(&unread[..]);
    }
}

impl<B: Buf, H> Drop for Connection<B, H> {
    fn drop(&mut self) {
        self.state.borrow_mut().end_all(StreamError::Disconnected);
    }
}
