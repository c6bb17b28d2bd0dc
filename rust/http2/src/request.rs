//! A request and the two parts of its stream, which are held on their own: the body and the reply.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};

use crate::reason::{Reason, StreamError};
use crate::send::ENOUGH;
use crate::state::State;

/// A request whose head was read.
pub struct IncomingRequest<B: Buf, H> {
    /// Its head, which requests with the same fields share.
    pub head: Rc<H>,
    /// The length that it declares for its body.
    pub content_length: Option<u64>,
    /// Its body.
    pub body: RequestBody<B>,
    /// Where its reply goes.
    pub reply: Reply<B>,
}

/// A part of a stream that is held.
struct Part<B: Buf> {
    state: Rc<RefCell<State<B>>>,
    place: usize,
}

impl<B: Buf> Drop for Part<B> {
    fn drop(&mut self) {
        self.state.borrow_mut().release(self.place);
    }
}

/// The body of a request, as it comes. What comes after it is dropped is not kept.
pub struct RequestBody<B: Buf>(Part<B>);

impl<B: Buf> RequestBody<B> {
    pub(crate) fn new(state: Rc<RefCell<State<B>>>, place: usize) -> RequestBody<B> {
        RequestBody(Part { state, place })
    }

    /// The next bytes; `None` at the end. The client may send as many again at once.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, StreamError>>> {
        let state = &mut *self.0.state.borrow_mut();
        state.begin(self.0.place);
        let stream = state.streams.at(self.0.place);
        if let Some(data) = stream.received.pop_front() {
            state.used(self.0.place, data.len());
            return Poll::Ready(Some(Ok(data)));
        }
        // What was received of a stream that ended before its end is gone.
        if let Some(error) = stream.error {
            return Poll::Ready(Some(Err(error)));
        }
        if stream.is_received {
            return Poll::Ready(None);
        }
        keep_waker(&mut stream.body_waker, cx);
        Poll::Pending
    }

    /// Whether nothing is left to read.
    pub fn is_end(&self) -> bool {
        let state = &mut *self.0.state.borrow_mut();
        let stream = state.streams.at(self.0.place);
        stream.is_received && stream.received.is_empty()
    }
}

impl<B: Buf> Drop for RequestBody<B> {
    fn drop(&mut self) {
        let state = &mut *self.0.state.borrow_mut();
        let stream = state.streams.at(self.0.place);
        stream.is_read = false;
        stream.body_waker = None;
        let unread = stream.received.drain(..).map(|data| data.len()).sum();
        state.give_back(unread);
    }
}

/// Where the reply of a request goes. One that is dropped before all of a reply was given to it ends the stream.
pub struct Reply<B: Buf>(Part<B>);

impl<B: Buf> Reply<B> {
    pub(crate) fn new(state: Rc<RefCell<State<B>>>, place: usize) -> Reply<B> {
        Reply(Part { state, place })
    }

    /// Sends the head of the reply, whose fields `write` appends as [`write_status`](crate::write_status) and
    /// [`write_field`](crate::write_field) do. `ends` if it is all of the reply. Called once, before anything else is sent.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_head(&mut self, ends: bool, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        self.0.state.borrow_mut().send_head(self.0.place, ends, write)
    }

    /// Sends bytes of the body, which wait until the client's windows take them. `ends` if they are the last ones, and no trailers follow.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_data(&mut self, data: B, ends: bool) -> Result<(), StreamError> {
        self.0.state.borrow_mut().send_data(self.0.place, data, ends)
    }

    /// Sends the fields behind the body, which `write` appends as [`write_field`](crate::write_field) does.
    ///
    /// # Errors
    /// The stream is over.
    pub fn send_trailers(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), StreamError> {
        self.0.state.borrow_mut().send_trailers(self.0.place, write)
    }

    /// Ends the reply without anything behind its body.
    ///
    /// # Errors
    /// The stream is over.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        self.0.state.borrow_mut().finish(self.0.place)
    }

    /// Waits until all that was given is written, and the client's windows take some of what is next. It does not take any of it as long
    /// as its socket takes nothing.
    ///
    /// # Errors
    /// The stream is over.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        let state = &mut *self.0.state.borrow_mut();
        let has_room = state.send_window.room() > 0 && state.output.len() < ENOUGH;
        let stream = state.streams.at(self.0.place);
        if let Some(error) = stream.error {
            return Poll::Ready(Err(error));
        }
        if has_room && stream.is_idle() && stream.send_window.room() > 0 {
            return Poll::Ready(Ok(()));
        }
        keep_waker(&mut stream.reply_waker, cx);
        Poll::Pending
    }

    /// Waits until the stream is over before its end.
    pub fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<StreamError> {
        let state = &mut *self.0.state.borrow_mut();
        state.begin(self.0.place);
        let stream = state.streams.at(self.0.place);
        if let Some(error) = stream.error {
            return Poll::Ready(error);
        }
        keep_waker(&mut stream.reply_waker, cx);
        Poll::Pending
    }

    /// Why the stream is over, if it ended before its end.
    pub fn error(&self) -> Option<StreamError> {
        self.0.state.borrow_mut().streams.at(self.0.place).error
    }

    /// Ends the stream, unless it is over.
    pub fn reset(&mut self, reason: Reason) {
        let state = &mut *self.0.state.borrow_mut();
        if !state.streams.at(self.0.place).is_over() {
            state.reset(self.0.place, reason);
        }
    }
}

/// Keeps the waker of a task, which is mostly the one that is there.
fn keep_waker(kept: &mut Option<std::task::Waker>, cx: &Context<'_>) {
    match kept {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *kept = Some(cx.waker().clone()),
    }
}
