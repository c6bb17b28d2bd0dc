//! HTTP/2 by hand: just enough frames to open streams, reset them and read what comes.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::TcpStream;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const INITIAL_WINDOW_SIZE: [u8; 2] = [0, 4];
const WIDEST: u32 = (1 << 31) - 1;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
pub const NO_ERROR: u32 = 0;
pub const CANCEL: u32 = 8;

fn framed(kind: u8, flags: u8, id: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&id.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

fn frame(stream: &mut TcpStream, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    stream.write_all(&framed(kind, flags, id, payload)).unwrap();
}

pub fn open(stream: &mut TcpStream) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    frame(stream, SETTINGS, 0, 0, &[]);
}

/// As [`open`], with windows that take anything.
pub fn open_wide(stream: &mut TcpStream) {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    frame(stream, SETTINGS, 0, 0, &[&INITIAL_WINDOW_SIZE[..], &WIDEST.to_be_bytes()].concat());
    frame(stream, WINDOW_UPDATE, 0, 0, &(WIDEST - 65_535).to_be_bytes());
}

/// The head of a POST: `:method POST`, `:scheme http`, `:path`, `:authority` and more fields, as literals without Huffman coding
/// (RFC 7541).
pub fn post_head(id: u32, path: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut head = vec![0x83, 0x86, 0x04, path.len() as u8];
    head.extend_from_slice(path.as_bytes());
    head.extend_from_slice(&[0x01, 1, b't']);
    for (name, value) in fields {
        head.extend(
            [&[0, name.len() as u8], name.as_bytes(), &[value.len() as u8], value.as_bytes()].concat(),
        );
    }
    framed(HEADERS, END_HEADERS, id, &head)
}

pub fn post(stream: &mut TcpStream, id: u32, path: &str, body: &[u8]) {
    stream.write_all(&[post_head(id, path, &[]), data(id, body)].concat()).unwrap();
}

/// The end of a body.
pub fn data(id: u32, body: &[u8]) -> Vec<u8> {
    framed(DATA, END_STREAM, id, body)
}

/// A part of a body that is not its end.
pub fn part(id: u32, body: &[u8]) -> Vec<u8> {
    framed(DATA, 0, id, body)
}

/// Reads frames until all of these streams have ended. The connection goes on.
pub fn until_ended(stream: &mut TcpStream, mut ids: HashSet<u32>) {
    while !ids.is_empty() {
        let mut head = [0u8; 9];
        stream.read_exact(&mut head).expect("every stream ends");
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0u8; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).unwrap();
        assert_ne!(kind, GOAWAY, "the connection ends: {payload:?}");
        assert_ne!(kind, RST_STREAM, "a stream is reset");
        if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
            ids.remove(&u32::from_be_bytes(id));
        }
    }
}

pub fn reset(stream: &mut TcpStream, id: u32, code: u32) {
    frame(stream, RST_STREAM, 0, id, &code.to_be_bytes());
}

pub fn cancel(stream: &mut TcpStream, id: u32) {
    reset(stream, id, CANCEL);
}

/// Reads frames until GOAWAY, which is the last one read; a PING behind it is answered, as a drain waits for that.
pub fn until_go_away(stream: &mut TcpStream) {
    loop {
        let mut head = [0u8; 9];
        stream.read_exact(&mut head).expect("GOAWAY comes");
        let mut payload = vec![0u8; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload).unwrap();
        if head[3] == GOAWAY {
            break;
        }
    }
    let mut head = [0u8; 9];
    stream.read_exact(&mut head).unwrap();
    let mut payload = vec![0u8; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
    stream.read_exact(&mut payload).unwrap();
    assert_eq!(head[3], PING);
    frame(stream, PING, ACK, 0, &payload);
}

/// Reads frames until the peer closes; the payloads of the DATA frames of a stream.
pub fn data_until_closed(stream: &mut TcpStream, id: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let mut data = Vec::new();
    let mut rest = bytes.as_slice();
    while let [a, b, c, kind, _, i, j, k, l, tail @ ..] = rest {
        let length = u32::from_be_bytes([0, *a, *b, *c]) as usize;
        let (payload, next) = tail.split_at(length.min(tail.len()));
        if *kind == DATA && u32::from_be_bytes([*i, *j, *k, *l]) == id {
            data.extend_from_slice(payload);
        }
        rest = next;
    }
    data
}
