//! Why a stream or a connection is over (RFC 9113, 7).

use std::fmt;

/// A code of RST_STREAM and GOAWAY.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reason(pub u32);

impl Reason {
    /// Nothing is wrong.
    pub const NO_ERROR: Reason = Reason(0);
    /// The peer broke the protocol.
    pub const PROTOCOL_ERROR: Reason = Reason(1);
    /// A defect of ours.
    pub const INTERNAL_ERROR: Reason = Reason(2);
    /// More was sent than the window takes.
    pub const FLOW_CONTROL_ERROR: Reason = Reason(3);
    /// A frame for a stream that is over.
    pub const STREAM_CLOSED: Reason = Reason(5);
    /// A frame has a length that its type does not have.
    pub const FRAME_SIZE_ERROR: Reason = Reason(6);
    /// The stream was not begun.
    pub const REFUSED_STREAM: Reason = Reason(7);
    /// The stream is of no use any more.
    pub const CANCEL: Reason = Reason(8);
    /// Header fields cannot be read.
    pub const COMPRESSION_ERROR: Reason = Reason(9);
    /// The peer is too much to bear.
    pub const ENHANCE_YOUR_CALM: Reason = Reason(11);

    fn name(self) -> Option<&'static str> {
        const NAMES: [&str; 14] = [
            "NO_ERROR",
            "PROTOCOL_ERROR",
            "INTERNAL_ERROR",
            "FLOW_CONTROL_ERROR",
            "SETTINGS_TIMEOUT",
            "STREAM_CLOSED",
            "FRAME_SIZE_ERROR",
            "REFUSED_STREAM",
            "CANCEL",
            "COMPRESSION_ERROR",
            "CONNECT_ERROR",
            "ENHANCE_YOUR_CALM",
            "INADEQUATE_SECURITY",
            "HTTP_1_1_REQUIRED",
        ];
        NAMES.get(self.0 as usize).copied()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {}", self.0),
        }
    }
}

impl fmt::Debug for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What ends a connection: the peer broke the protocol in a way that concerns all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionError {
    /// What the peer is told.
    pub reason: Reason,
    /// What was wrong, in words.
    pub what: &'static str,
}

impl ConnectionError {
    pub(crate) const fn new(reason: Reason, what: &'static str) -> ConnectionError {
        ConnectionError { reason, what }
    }

    pub(crate) const fn protocol(what: &'static str) -> ConnectionError {
        ConnectionError::new(Reason::PROTOCOL_ERROR, what)
    }

    pub(crate) const fn size(what: &'static str) -> ConnectionError {
        ConnectionError::new(Reason::FRAME_SIZE_ERROR, what)
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.what, self.reason)
    }
}

impl std::error::Error for ConnectionError {}

/// Why a stream ended before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamError {
    /// The client took its request back.
    TakenBack(Reason),
    /// The connection is over.
    Disconnected,
    /// We ended it, mostly because the client broke the protocol.
    Ended(Reason),
}

impl StreamError {
    /// Whether the client left, or took its request back.
    pub fn is_of_the_client(self) -> bool {
        !matches!(self, StreamError::Ended(_))
    }
}

impl fmt::Display for StreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StreamError::TakenBack(reason) => write!(f, "the client took the request back ({reason})"),
            StreamError::Disconnected => f.write_str("the connection is over"),
            StreamError::Ended(reason) => write!(f, "the stream was ended ({reason})"),
        }
    }
}

impl std::error::Error for StreamError {}
