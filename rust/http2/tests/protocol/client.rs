//! A client that writes and reads single frames.

use std::task::{Context, Waker};

use bytes::{Bytes, BytesMut};
use headgate_http2::{
    Connection, ConnectionError, Found, IncomingRequest, Limits, PREFACE, RequestHead, write_field,
};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const ACK: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

pub(crate) const LIMITS: Limits = Limits {
    streams: 4,
    stream_window: 70_000,
    connection_window: 100_000,
    frame: 1 << 14,
    header_list: 4096,
};

pub(crate) type Request = IncomingRequest<Bytes, RequestHead>;

/// A frame as it stands on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The block of a POST with these fields.
pub(crate) fn post(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0x83, 0x86, 0x84];
    fields.iter().for_each(|(name, value)| write_field(&mut block, name.as_bytes(), value.as_bytes()));
    block
}

pub(crate) fn headers(stream: u32, flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, &post(&[]))
}

pub(crate) fn number(kind: u8, stream: u32, number: u32) -> Vec<u8> {
    frame(kind, 0, stream, &number.to_be_bytes())
}

/// A connection and the bytes on their way to it.
pub(crate) struct Peer {
    pub(crate) connection: Connection<Bytes, RequestHead>,
    unread: BytesMut,
}

impl Peer {
    /// A connection whose preface and settings were exchanged.
    pub(crate) fn new() -> Peer {
        let mut peer = Peer::silent();
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[])].concat()).unwrap();
        peer.written();
        peer
    }

    /// A connection on which nothing was sent.
    pub(crate) fn silent() -> Peer {
        let connection = Connection::new(LIMITS);
        connection.begin_turn(&Context::from_waker(Waker::noop()));
        Peer { connection, unread: BytesMut::new() }
    }

    /// Sends bytes; the requests that they complete.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> Result<Vec<Request>, ConnectionError> {
        self.unread.extend_from_slice(bytes);
        let mut requests = Vec::new();
        while let Found::Request(request) = self.connection.read(&mut self.unread)? {
            requests.push(request);
        }
        Ok(requests)
    }

    /// Sends bytes that complete one request.
    pub(crate) fn request(&mut self, bytes: &[u8]) -> Request {
        let mut requests = self.send(bytes).unwrap();
        assert_eq!(requests.len(), 1);
        requests.remove(0)
    }

    /// The bytes that the connection has for the client, taken at most `most` at a time.
    pub(crate) fn bytes(&mut self, most: usize) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(count) = self.connection.next_bytes(|slices| {
            let mut left = most;
            for slice in slices {
                let count = slice.len().min(left);
                all.extend_from_slice(&slice[..count]);
                left -= count;
            }
            most - left
        }) {
            self.connection.note_written(count);
        }
        all
    }

    /// The frames that the connection has for the client.
    pub(crate) fn written(&mut self) -> Vec<Frame> {
        frames(&self.bytes(usize::MAX))
    }
}

/// Whole frames.
pub(crate) fn frames(mut bytes: &[u8]) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some((&[a, b, c, kind, flags, d, e, f, g], rest)) = bytes.split_first_chunk::<9>() {
        let (payload, rest) = rest.split_at(u32::from_be_bytes([0, a, b, c]) as usize);
        let stream = u32::from_be_bytes([d, e, f, g]);
        frames.push(Frame { kind, flags, stream, payload: payload.to_vec() });
        bytes = rest;
    }
    assert!(bytes.is_empty(), "a frame is cut off");
    frames
}

/// The code of a frame that ends a stream.
pub(crate) fn reset_code(frames: &[Frame]) -> Option<u8> {
    frames.iter().find(|frame| frame.kind == RST_STREAM).map(|frame| frame.payload[3])
}
