//! Replies: heads, bodies that wait for windows, trailers, and the ends of streams.

use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use headgate_http2::{PREFACE, Reason, StreamError, write_field, write_status};
use proptest::prelude::*;

use crate::client::*;

fn poll_room(request: &mut Request) -> Poll<Result<(), StreamError>> {
    request.reply.poll_room(&mut Context::from_waker(Waker::noop()))
}

fn send_head(request: &mut Request, ends: bool) {
    request.reply.send_head(ends, |out| write_status(out, 200)).unwrap();
}

/// The data of a stream in these frames.
fn data_of(frames: &[Frame], stream: u32) -> Vec<u8> {
    let of = frames.iter().filter(|frame| frame.kind == DATA && frame.stream == stream);
    of.flat_map(|frame| frame.payload.clone()).collect()
}

#[test]
fn a_reply_is_a_head_data_and_trailers() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    send_head(&mut request, false);
    request.reply.send_data(Bytes::from_static(b"abc"), false).unwrap();
    request.reply.send_trailers(|out| write_field(out, b"grpc-status", b"0")).unwrap();
    drop(request);
    let frames = peer.written();
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.flags)).collect();
    assert_eq!(kinds, [(HEADERS, END_HEADERS), (DATA, 0), (HEADERS, END_HEADERS | END_STREAM)]);
    assert_eq!(frames[0].payload, [0x20, 0x88], "no dynamic table, and the status");
    assert_eq!(frames[1].payload, b"abc");
    assert_eq!(peer.connection.unwritten(), 0);
}

#[test]
fn a_reply_may_end_behind_its_body_with_nothing() {
    for length in [0, 10, 100_000] {
        let mut peer = Peer::new();
        let mut request = peer.request(&headers(1, END_STREAM));
        send_head(&mut request, false);
        request.reply.send_data(Bytes::from(vec![0; length]), false).unwrap();
        request.reply.finish().unwrap();
        drop(request);
        let mut frames = peer.written();
        peer.send(&[number(WINDOW_UPDATE, 0, 100_000), number(WINDOW_UPDATE, 1, 100_000)].concat()).unwrap();
        frames.extend(peer.written());
        assert_eq!(data_of(&frames, 1).len(), length);
        let last = frames.last().unwrap();
        assert_eq!((last.kind, last.flags, last.payload.len()), (DATA, END_STREAM, 0));
    }
}

#[test]
fn a_head_that_is_too_long_for_a_frame_is_spread() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    let value = vec![b'v'; 40_000];
    request.reply.send_head(true, |out| write_field(out, b"x", &value)).unwrap();
    let frames = peer.written();
    let kinds: Vec<_> = frames.iter().map(|frame| (frame.kind, frame.flags, frame.payload.len())).collect();
    assert_eq!(kinds[..2], [(HEADERS, END_STREAM, 1 << 14), (CONTINUATION, 0, 1 << 14)]);
    assert_eq!((kinds[2].0, kinds[2].1, kinds.len()), (CONTINUATION, END_HEADERS, 3));
}

#[test]
fn data_waits_for_the_windows() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    send_head(&mut request, false);
    let body: Vec<u8> = (0..200_000u32).map(|at| at as u8).collect();
    request.reply.send_data(body.clone().into(), false).unwrap();
    request.reply.send_trailers(|out| write_field(out, b"a", b"b")).unwrap();
    let mut frames = peer.written();
    assert_eq!(data_of(&frames, 1).len(), 65_535);
    assert!(poll_room(&mut request).is_pending());
    peer.send(&number(WINDOW_UPDATE, 1, 1_000_000)).unwrap();
    assert_eq!(peer.written(), [], "the window of the connection is used up");
    peer.send(&number(WINDOW_UPDATE, 0, 100_000)).unwrap();
    frames.extend(peer.written());
    assert_eq!(data_of(&frames, 1).len(), 165_535);
    assert_eq!(frames.last().unwrap().kind, DATA);
    peer.send(&number(WINDOW_UPDATE, 0, 100_000)).unwrap();
    frames.extend(peer.written());
    assert_eq!(data_of(&frames, 1), body);
    let last = frames.last().unwrap();
    assert_eq!((last.kind, last.flags), (HEADERS, END_HEADERS | END_STREAM));
    assert!(frames.iter().all(|frame| frame.payload.len() <= 1 << 14), "the client takes no larger frames");
}

#[test]
fn settings_change_the_windows_of_streams_that_are_open() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    send_head(&mut request, false);
    peer.written();
    peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])).unwrap();
    request.reply.send_data(Bytes::from(vec![1; 10]), false).unwrap();
    assert_eq!(data_of(&peer.written(), 1), []);
    assert!(poll_room(&mut request).is_pending());
    peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 4])).unwrap();
    assert_eq!(data_of(&peer.written(), 1).len(), 4);
    peer.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 2])).unwrap();
    peer.send(&number(WINDOW_UPDATE, 1, 2)).unwrap();
    assert_eq!(data_of(&peer.written(), 1).len(), 0, "the window is at zero");
    peer.send(&number(WINDOW_UPDATE, 1, 7)).unwrap();
    assert_eq!(data_of(&peer.written(), 1).len(), 6);
    assert_eq!(poll_room(&mut request), Poll::Ready(Ok(())));
}

#[test]
fn an_end_does_not_wait_for_a_window() {
    for has_trailers in [false, true] {
        let mut peer = Peer::new();
        let mut requests: Vec<_> = [1, 3].map(|stream| peer.request(&headers(stream, END_STREAM))).into();
        for (request, length) in requests.iter_mut().zip([100_000, 30_000]) {
            send_head(request, false);
            request.reply.send_data(Bytes::from(vec![0; length]), false).unwrap();
            match has_trailers {
                true => request.reply.send_trailers(|out| write_field(out, b"a", b"b")).unwrap(),
                false => request.reply.finish().unwrap(),
            }
        }
        // Both take turns until the window of the connection is used up, behind all of the second one.
        let frames = peer.written();
        assert_eq!(data_of(&frames, 3).len(), 30_000);
        assert_eq!(frames.iter().rfind(|frame| frame.stream == 3).unwrap().flags & END_STREAM, END_STREAM);
        assert_eq!(data_of(&frames, 1).len(), 35_535);
    }
}

#[test]
fn a_reply_that_goes_on_waits_for_the_socket() {
    let mut peer = Peer::new();
    let wide = [number(WINDOW_UPDATE, 0, 1 << 30), frame(SETTINGS, 0, 0, &[0, 4, 0x7f, 0xff, 0xff, 0xff])];
    peer.send(&wide.concat()).unwrap();
    let mut request = peer.request(&headers(1, END_STREAM));
    send_head(&mut request, false);
    let mut sent = 0;
    while poll_room(&mut request).is_ready() {
        request.reply.send_data(Bytes::from(vec![0; 1_000]), false).unwrap();
        sent += 1_000;
    }
    assert!((60_000..70_000).contains(&sent), "{sent}");
    peer.written();
    assert_eq!(poll_room(&mut request), Poll::Ready(Ok(())));
}

#[test]
fn a_panic_while_a_head_is_written_leaves_nothing_of_it() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    let send = std::panic::AssertUnwindSafe(|| request.reply.send_head(true, |_| panic!("a defect")));
    assert!(std::panic::catch_unwind(send).is_err());
    request.reply.reset(Reason::INTERNAL_ERROR);
    drop(request);
    assert_eq!(reset_code(&peer.written()), Some(2));
}

#[test]
fn streams_take_turns() {
    let mut peer = Peer::new();
    let mut requests: Vec<_> = [1, 3].map(|stream| peer.request(&headers(stream, END_STREAM))).into();
    for request in &mut requests {
        send_head(request, false);
        request.reply.send_data(Bytes::from(vec![0; 30_000]), true).unwrap();
    }
    let frames = peer.written();
    let order: Vec<u32> =
        frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.stream).collect();
    assert_eq!(order, [1, 3, 1, 3]);
}

#[test]
fn a_reply_whose_request_is_not_read_to_its_end_ends_the_request() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, 0));
    send_head(&mut request, false);
    request.reply.send_data(Bytes::from(vec![0; 30_000]), true).unwrap();
    drop(request);
    let frames = peer.written();
    assert_eq!(data_of(&frames, 1).len(), 30_000);
    assert_eq!(frames.last().unwrap().payload, [0; 4], "NO_ERROR");
    assert_eq!(frames.last().unwrap().kind, RST_STREAM);
}

#[test]
fn a_stream_that_ends_in_the_middle_of_a_frame_completes_it() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, END_STREAM));
    send_head(&mut request, false);
    request.reply.send_data(Bytes::from(vec![1; 30_000]), true).unwrap();
    // All but the last bytes of the first frame.
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let count = peer.connection.next_bytes(|slices| {
            let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let count = all.len().min(8_000);
            bytes.extend_from_slice(&all[..count]);
            count
        });
        peer.connection.note_written(count.unwrap());
    }
    peer.send(&number(RST_STREAM, 1, 8)).unwrap();
    drop(request);
    peer.send(&frame(PING, 0, 0, b"behind..")).unwrap();
    bytes.extend(peer.bytes(usize::MAX));
    let frames = frames(&bytes);
    let kinds: Vec<_> = frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds, [HEADERS, DATA, PING]);
    assert_eq!(frames[1].payload.len(), 1 << 14);
}

#[test]
fn a_connection_leaves_when_its_last_reply_is_out() {
    let mut peer = Peer::new();
    let mut first = peer.request(&headers(1, END_STREAM));
    peer.connection.leave();
    let frames = peer.written();
    assert_eq!(frames.iter().map(|frame| frame.kind).collect::<Vec<_>>(), [GOAWAY, PING]);
    assert_eq!(frames[0].payload, [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    // The client did not know yet.
    let mut second = peer.request(&headers(3, END_STREAM));
    peer.send(&frame(PING, ACK, 0, &frames[1].payload)).unwrap();
    assert_eq!(peer.written()[0].payload, [0, 0, 0, 3, 0, 0, 0, 0]);
    // The client was told, but may have sent more before.
    let late = [
        headers(5, 0),
        frame(DATA, 0, 5, b"abc"),
        number(WINDOW_UPDATE, 5, 1),
        frame(DATA, END_STREAM, 5, b"abc"),
        number(RST_STREAM, 5, 8),
    ];
    assert!(peer.send(&late.concat()).unwrap().is_empty());
    assert_eq!(peer.written(), []);
    for request in [&mut first, &mut second] {
        assert!(!peer.connection.is_over());
        send_head(request, true);
    }
    drop((first, second));
    assert!(peer.connection.is_over());
}

#[test]
fn a_connection_that_fails_ends_its_streams() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, 0));
    peer.connection.fail(Reason::PROTOCOL_ERROR);
    assert_eq!(peer.written()[0].payload, [0, 0, 0, 1, 0, 0, 0, 1]);
    let fault = StreamError::Ended(Reason::PROTOCOL_ERROR);
    assert_eq!(poll_room(&mut request), Poll::Ready(Err(fault)), "the client is at fault, and has not left");
    let mut other = Peer::new();
    let request = other.request(&headers(1, 0));
    drop(other);
    assert_eq!(request.reply.error(), Some(StreamError::Disconnected));
}

proptest! {
    #[test]
    fn all_of_every_reply_arrives_however_windows_open(
        lengths in prop::collection::vec(0..90_000usize, 1..4),
        steps in prop::collection::vec((0..4u32, 1..40_000u32, 1..30_000usize), 1..12),
    ) {
        let mut peer = Peer::silent();
        // Windows of ten bytes.
        peer.send(&[PREFACE, &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 10])].concat()).unwrap();
        peer.written();
        let mut requests = Vec::new();
        for (number, &length) in lengths.iter().enumerate() {
            let mut request = peer.request(&headers(2 * number as u32 + 1, END_STREAM));
            send_head(&mut request, false);
            let body: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            request.reply.send_data(body.into(), number % 2 == 0).unwrap();
            if number % 2 == 1 {
                request.reply.send_trailers(|out| write_field(out, b"a", b"b")).unwrap();
            }
            requests.push(request);
        }
        let mut bytes = Vec::new();
        for (which, by, most) in steps {
            let stream = if which == 0 { 0 } else { 2 * ((which - 1) % lengths.len() as u32) + 1 };
            peer.send(&number(WINDOW_UPDATE, stream, by)).unwrap();
            bytes.extend(peer.bytes(most));
        }
        for stream in (0..lengths.len() as u32).map(|number| 2 * number + 1).chain([0]) {
            peer.send(&number(WINDOW_UPDATE, stream, 1 << 20)).unwrap();
            bytes.extend(peer.bytes(1_000));
        }
        let frames = frames(&bytes);
        for (number, &length) in lengths.iter().enumerate() {
            let stream = 2 * number as u32 + 1;
            let body: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            prop_assert!(data_of(&frames, stream) == body, "stream {stream}");
            let last = frames.iter().rfind(|frame| frame.stream == stream).unwrap();
            prop_assert_eq!(last.flags & END_STREAM, END_STREAM);
        }
    }
}
