//! Requests: their frames, and frames that must not come.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use headgate_http2::{PREFACE, Reason, StreamError};
use proptest::prelude::*;

use crate::client::*;

fn poll_data(request: &mut Request) -> Poll<Option<Result<Bytes, StreamError>>> {
    request.body.poll_data(&mut Context::from_waker(Waker::noop()))
}

fn data(request: &mut Request) -> Vec<u8> {
    let mut all = Vec::new();
    while let Poll::Ready(Some(piece)) = poll_data(request) {
        all.extend_from_slice(&piece.unwrap());
    }
    all
}

#[test]
fn a_connection_begins_with_settings_of_both_sides() {
    let mut peer = Peer::silent();
    peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9])].concat()).unwrap();
    let frames = peer.written();
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.flags)).collect();
    assert_eq!(kinds, [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]);
    for begin in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], &PREFACE[..10], &[PREFACE, &frame(PING, 0, 0, &[0; 8])].concat()]
    {
        let sent = Peer::silent().send(begin);
        assert_eq!(sent.is_err(), begin.len() > 10, "{begin:?}");
    }
}

#[test]
fn a_request_has_a_head_a_body_and_trailers() {
    let mut peer = Peer::new();
    let block = post(&[("content-length", "6"), ("a", "b")]);
    let mut request = peer.request(&frame(HEADERS, END_HEADERS, 1, &block));
    assert_eq!((request.head.method.as_str(), request.head.target.path()), ("POST", "/"));
    assert_eq!(request.content_length, Some(6));
    assert_eq!(poll_data(&mut request), Poll::Pending);
    // Padding of two bytes.
    peer.send(&frame(DATA, 8, 1, b"\x02abc\0\0")).unwrap();
    peer.send(&frame(DATA, 0, 1, b"def")).unwrap();
    assert_eq!(data(&mut request), b"abcdef");
    assert!(!request.body.is_end());
    let mut trailers = Vec::new();
    headgate_http2::write_field(&mut trailers, b"x", b"y");
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &trailers)).unwrap();
    assert_eq!(poll_data(&mut request), Poll::Ready(None));
    assert!(request.reply.error().is_none());
}

#[test]
fn what_no_client_may_send_ends_the_connection() {
    let half = frame(HEADERS, 0, 1, &post(&[]));
    for (bytes, code) in [
        (frame(DATA, 0, 0, b"a"), Reason::PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"a"), Reason::PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, &post(&[])), Reason::PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 2, &post(&[])), Reason::PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS | 8, 1, &[200, 0x83]), Reason::PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 1, &[0xff; 6]), Reason::COMPRESSION_ERROR),
        (frame(RST_STREAM, 0, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 1, &[]), Reason::PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, &[0; 5]), Reason::FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, &[]).repeat(2), Reason::PROTOCOL_ERROR),
        ([headers(5, END_STREAM), headers(3, END_STREAM)].concat(), Reason::PROTOCOL_ERROR),
        (frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
        (frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 2]), Reason::PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, &[0, 4, 0x80, 0, 0, 0]), Reason::FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]), Reason::PROTOCOL_ERROR),
        (frame(5, END_HEADERS, 1, &[0; 4]), Reason::PROTOCOL_ERROR),
        (frame(PING, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 0, &[0; 7]), Reason::FRAME_SIZE_ERROR),
        (number(WINDOW_UPDATE, 0, 0), Reason::PROTOCOL_ERROR),
        (number(WINDOW_UPDATE, 1, 1), Reason::PROTOCOL_ERROR),
        (number(WINDOW_UPDATE, 0, (1 << 31) - 1), Reason::FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Reason::FRAME_SIZE_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, &[]), Reason::PROTOCOL_ERROR),
        ([&half[..], &frame(PING, 0, 0, &[0; 8])].concat(), Reason::PROTOCOL_ERROR),
        ([&half[..], &frame(CONTINUATION, END_HEADERS, 3, &[])].concat(), Reason::PROTOCOL_ERROR),
        (frame(2, 0, 0, &[0; 5]), Reason::PROTOCOL_ERROR),
        (frame(2, 0, 1, &[0, 0, 0, 1, 0]), Reason::PROTOCOL_ERROR),
        (frame(2, 0, 1, &[0; 4]), Reason::FRAME_SIZE_ERROR),
        (vec![0, 0x40, 1, 0, 0, 0, 0, 0, 1], Reason::FRAME_SIZE_ERROR),
    ] {
        let error = Peer::new().send(&bytes).err();
        assert_eq!(error.map(|error| error.reason), Some(code), "{bytes:?}");
    }
}

#[test]
fn what_a_stream_must_not_have_ends_the_stream_alone() {
    let upper = frame(HEADERS, END_HEADERS, 1, &post(&[("A", "b")]));
    let with_length = frame(HEADERS, END_HEADERS, 1, &post(&[("content-length", "3")]));
    let open = headers(1, 0);
    for (bytes, code) in [
        (upper, 1),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, &post(&[("content-length", "3")])), 1),
        ([&with_length[..], &frame(DATA, END_STREAM, 1, b"ab")].concat(), 1),
        ([&with_length[..], &frame(DATA, 0, 1, b"abcd")].concat(), 1),
        ([&with_length[..], &frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])].concat(), 1),
        ([&open[..], &frame(HEADERS, END_HEADERS, 1, &[])].concat(), 1),
        ([&open[..], &frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x83])].concat(), 1),
        ([&open[..], &number(WINDOW_UPDATE, 1, 0)].concat(), 1),
        ([&open[..], &number(WINDOW_UPDATE, 1, (1 << 31) - 1)].concat(), 3),
        ([&headers(1, END_STREAM)[..], &frame(DATA, 0, 1, b"a")].concat(), 5),
        ([&headers(1, END_STREAM)[..], &frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])].concat(), 5),
        (frame(HEADERS, END_HEADERS | 0x20, 1, &[&[0, 0, 0, 1, 0][..], &post(&[])].concat()), 1),
        ([&open[..], &frame(2, 0, 1, &[0, 0, 0, 1, 0])].concat(), 1),
        ([&open[..], &frame(2, 0, 1, &[0; 4])].concat(), 6),
    ] {
        let mut peer = Peer::new();
        let _held = peer.send(&bytes).unwrap();
        assert_eq!(reset_code(&peer.written()), Some(code), "{bytes:?}");
        assert_eq!(peer.send(&headers(3, END_STREAM)).unwrap().len(), 1, "the connection goes on");
    }
}

#[test]
fn a_request_that_is_taken_back_is_over() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, 0));
    peer.send(&frame(DATA, 0, 1, b"abc")).unwrap();
    peer.send(&number(RST_STREAM, 1, 8)).unwrap();
    let taken_back = StreamError::TakenBack(Reason::CANCEL);
    assert_eq!(request.reply.error(), Some(taken_back));
    assert_eq!(poll_data(&mut request), Poll::Ready(Some(Err(taken_back))));
    assert_eq!(request.reply.send_head(true, |_| {}), Err(taken_back));
    // A window may be opened on its way. To go on with the request is a mistake.
    peer.send(&number(WINDOW_UPDATE, 1, 5)).unwrap();
    assert_eq!(peer.written(), []);
    for behind in [frame(DATA, 0, 1, b"def"), frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])] {
        peer.send(&behind).unwrap();
        assert_eq!(reset_code(&peer.written()), Some(5));
    }
    drop(request);
    assert_eq!(peer.written(), [], "nothing is said of a stream that is over");
}

#[test]
fn a_stream_that_we_ended_may_have_frames_on_their_way() {
    let mut peer = Peer::new();
    drop(peer.request(&headers(1, 0)));
    assert_eq!(reset_code(&peer.written()), Some(8));
    peer.send(&frame(DATA, 0, 1, b"abc")).unwrap();
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &[])).unwrap();
    assert_eq!(peer.written(), []);
    // Another one that was over on both sides is none.
    let mut request = peer.request(&headers(3, END_STREAM));
    request.reply.send_head(true, |_| {}).unwrap();
    drop(request);
    peer.written();
    let error = peer.send(&headers(3, END_STREAM)).err().unwrap();
    assert_eq!(error.reason, Reason::STREAM_CLOSED);
}

#[test]
fn a_block_may_be_spread_over_frames() {
    let mut peer = Peer::new();
    let block = post(&[("a", "b"), ("c", "d")]);
    let bytes: Vec<u8> = block
        .chunks(2)
        .enumerate()
        .flat_map(|(number, part)| {
            let is_last = 2 * (number + 1) >= block.len();
            let kind = if number == 0 { HEADERS } else { CONTINUATION };
            frame(kind, if is_last { END_HEADERS } else { 0 }, 1, part)
        })
        .collect();
    let request = peer.request(&bytes);
    assert_eq!(request.head.fields.len(), 2);
}

/// A conversation of a client: requests, data and what else may come.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let stream = (0..4u32).prop_map(|number| 2 * number + 1);
    let one = prop_oneof![
        (stream.clone(), any::<bool>()).prop_map(|(stream, ends)| headers(stream, u8::from(ends))),
        (stream.clone(), any::<bool>(), 0..300usize).prop_map(|(stream, ends, length)| frame(
            DATA,
            u8::from(ends),
            stream,
            &vec![7; length]
        )),
        stream.clone().prop_map(|stream| number(RST_STREAM, stream, 8)),
        (0..8u32, 0..3u32).prop_map(|(stream, by)| number(WINDOW_UPDATE, stream, by)),
        Just(frame(PING, 0, 0, b"12345678")),
        Just(frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 9])),
        (any::<u8>(), any::<u8>(), 0..6u32, prop::collection::vec(any::<u8>(), 0..12))
            .prop_map(|(kind, flags, stream, payload)| frame(kind, flags, stream, &payload)),
    ];
    prop::collection::vec(one, 0..24).prop_map(|frames| frames.concat())
}

/// What becomes of bytes that come in pieces of these lengths: what was said of requests, the answer, and the error.
fn outcome(bytes: &[u8], pieces: &[usize]) -> (Vec<String>, Vec<u8>, Option<Reason>) {
    let (mut peer, mut said, mut answer) = (Peer::new(), Vec::new(), Vec::new());
    let (mut rest, mut pieces) = (bytes, pieces.iter().cycle());
    let mut held = Vec::new();
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at((*pieces.next().unwrap()).clamp(1, rest.len()));
        rest = behind;
        match peer.send(piece) {
            Ok(requests) => held.extend(requests),
            Err(error) => return (said, answer, Some(error.reason)),
        }
    }
    for mut request in held {
        let mut read = Vec::new();
        let end = loop {
            match poll_data(&mut request) {
                Poll::Ready(Some(Ok(piece))) => read.extend_from_slice(&piece),
                end => break end,
            }
        };
        said.push(format!("{} {read:?} {end:?}", request.head.target));
    }
    answer.extend(peer.bytes(usize::MAX));
    (said, answer, None)
}

proptest! {
    #[test]
    fn it_does_not_matter_in_which_pieces_bytes_come(
        bytes in conversation(),
        pieces in prop::collection::vec(1..400usize, 1..6),
    ) {
        prop_assert_eq!(outcome(&bytes, &[usize::MAX]), outcome(&bytes, &pieces));
    }
}

#[test]
fn any_bytes_are_taken_or_refused() {
    bolero::check!().with_type::<Vec<u8>>().for_each(|bytes| {
        let mut peer = Peer::new();
        let _held = peer.send(bytes);
        frames(&peer.bytes(7));
    });
}
