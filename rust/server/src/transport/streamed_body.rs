//! The body of a request that comes in pieces: hyper's on HTTP/1.1, our own on HTTP/2.
//!
//! Not here: reading it whole, with limits (`body`).

use std::fmt;
use std::io::ErrorKind;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use headgate_http2::{RequestBody, StreamError};
use http_body::Body as _;
use hyper::body::Incoming;

use crate::transport::reply_body::ReplyBytes;

/// A body that comes in pieces.
pub struct StreamedBody {
    source: Source,
    /// What was read and put back, in its order; empty where nothing is.
    ahead: [Bytes; 2],
}

enum Source {
    Http1(Incoming),
    Http2 {
        stream: RequestBody<ReplyBytes>,
        /// The bytes that the head declares.
        declared: u64,
        /// Whether all data was read.
        is_read: bool,
    },
}

impl From<Incoming> for StreamedBody {
    fn from(body: Incoming) -> StreamedBody {
        StreamedBody { source: Source::Http1(body), ahead: Default::default() }
    }
}

impl StreamedBody {
    /// The body of a request on HTTP/2, whose head declares this length, if it does.
    pub fn of_http2(stream: RequestBody<ReplyBytes>, declared: Option<u64>) -> StreamedBody {
        let source = Source::Http2 { stream, declared: declared.unwrap_or_default(), is_read: false };
        StreamedBody { source, ahead: Default::default() }
    }

    /// The bytes that the head declares; 0 if it does not.
    pub fn declared_length(&self) -> u64 {
        match &self.source {
            Source::Http1(body) => body.size_hint().lower(),
            Source::Http2 { declared, .. } => *declared,
        }
    }

    /// The next piece, which may be empty; `None` at the end. Trailers are dropped.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, ReadError>>> {
        if let Some(ahead) = self.ahead.iter_mut().find(|ahead| !ahead.is_empty()) {
            return Poll::Ready(Some(Ok(std::mem::take(ahead))));
        }
        match &mut self.source {
            Source::Http1(body) => loop {
                match ready!(Pin::new(&mut *body).poll_frame(cx)) {
                    None => return Poll::Ready(None),
                    Some(Err(error)) => return Poll::Ready(Some(Err(ReadError::Http1(error)))),
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            return Poll::Ready(Some(Ok(data)));
                        }
                    }
                }
            },
            Source::Http2 { stream, is_read, .. } => poll_stream(stream, is_read, cx),
        }
    }

    /// Whether nothing is left to read.
    pub fn is_end(&self) -> bool {
        self.ahead.iter().all(Bytes::is_empty)
            && match &self.source {
                Source::Http1(body) => body.is_end_stream(),
                Source::Http2 { stream, is_read, .. } => *is_read || stream.is_end(),
            }
    }

    /// The whole body, if it is one piece that is here. Otherwise nothing is taken.
    pub fn take_if_whole(&mut self) -> Option<Bytes> {
        // What waits here is polled again by who reads the body.
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Some(Ok(first))) = self.poll_data(cx) else { return None };
        let second = match self.poll_data(cx) {
            Poll::Ready(None) => return Some(first),
            Poll::Ready(Some(Ok(second))) => second,
            // An error is there again when the body is read on.
            Poll::Ready(Some(Err(_))) | Poll::Pending => Bytes::new(),
        };
        self.ahead = [first, second];
        None
    }

    /// Puts a whole body back.
    pub fn put_back(&mut self, whole: Bytes) {
        self.ahead = [whole, Bytes::new()];
    }
}

/// The next data of a stream.
fn poll_stream(
    stream: &mut RequestBody<ReplyBytes>,
    is_read: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, ReadError>>> {
    if *is_read {
        return Poll::Ready(None);
    }
    let data = ready!(stream.poll_data(cx));
    *is_read = data.is_none();
    Poll::Ready(data.map(|data| data.map_err(ReadError::Http2)))
}

/// Why a body cannot be read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// Of a body on HTTP/1.1.
    Http1(hyper::Error),
    /// Of a body on HTTP/2.
    Http2(StreamError),
}

impl ReadError {
    /// Whether the peer went away, or took its request back.
    pub fn is_disconnect(&self) -> bool {
        match self {
            ReadError::Http1(error) => is_disconnect(error),
            ReadError::Http2(error) => error.is_of_the_client(),
        }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReadError::Http1(error) => error.fmt(f),
            ReadError::Http2(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ReadError::Http1(error) => error.source(),
            ReadError::Http2(error) => error.source(),
        }
    }
}

/// Whether the peer went away: hyper wraps the error of the socket.
fn is_disconnect(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if io.is_some_and(is_of_a_gone_peer) {
            return true;
        }
        cause = error.source();
    }
    false
}

fn is_of_a_gone_peer(kind: ErrorKind) -> bool {
    use ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}
