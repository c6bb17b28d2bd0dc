//! What a client cannot make a connection keep or do.

use std::task::{Context, Poll, Waker};

use headgate_http2::Reason;

use crate::client::*;

#[test]
fn streams_beyond_the_limit_are_refused() {
    let mut peer = Peer::new();
    let mut held: Vec<_> = (0..4).map(|number| peer.request(&headers(2 * number + 1, 0))).collect();
    assert!(peer.send(&headers(9, 0)).unwrap().is_empty());
    assert_eq!(reset_code(&peer.written()), Some(7), "REFUSED_STREAM");
    held.remove(0);
    peer.written();
    assert_eq!(peer.send(&headers(11, 0)).unwrap().len(), 1);
}

#[test]
fn streams_that_are_taken_back_while_they_are_worked_on_are_bounded() {
    let mut peer = Peer::new();
    let mut held = Vec::new();
    for stream in (1..200).step_by(2) {
        for mut request in peer.send(&headers(stream, 0)).unwrap() {
            // It is begun.
            assert!(request.reply.poll_end(&mut Context::from_waker(Waker::noop())).is_pending());
            held.push(request);
        }
        peer.send(&number(RST_STREAM, stream, 8)).unwrap();
    }
    assert_eq!(held.len(), 8);
    held.clear();
    assert_eq!(peer.send(&headers(999, 0)).unwrap().len(), 1);
}

#[test]
fn requests_that_end_before_they_are_begun_are_not_taken_for_ever() {
    let ended = |stream: u32, how: fn(u32) -> Vec<u8>| [headers(stream, 0), how(stream)].concat();
    let ways: [fn(u32) -> Vec<u8>; 2] =
        [|stream| number(RST_STREAM, stream, 8), |stream| number(WINDOW_UPDATE, stream, (1 << 31) - 1)];
    for how in ways {
        let mut peer = Peer::new();
        let mut sent = (0..11_000).map(|number| peer.send(&ended(2 * number + 1, how)));
        assert_eq!(sent.find_map(Result::err).unwrap().reason, Reason::ENHANCE_YOUR_CALM);
    }
    // A client may take back many, if as many are begun, or if they are few for the time.
    let mut peer = Peer::new();
    for number in 0..20_000 {
        let stream = 4 * number + 1;
        peer.send(&ended(stream, ways[0])).unwrap();
        if number < 10_000 {
            let mut begun = peer.request(&headers(stream + 2, END_STREAM));
            begun.reply.send_head(true, |_| {}).unwrap();
        } else {
            peer.connection.note_time();
        }
        peer.bytes(usize::MAX);
    }
}

#[test]
fn data_beyond_a_window_is_refused() {
    let mut peer = Peer::new();
    let _held = peer.request(&headers(1, 0));
    let piece = vec![0; 1 << 14];
    for _ in 0..4 {
        peer.send(&frame(DATA, 0, 1, &piece)).unwrap();
    }
    peer.send(&frame(DATA, 0, 1, &piece)).unwrap();
    assert_eq!(reset_code(&peer.written()), Some(3), "the window of the stream");
    // What was received of it is gone, and the connection has its window again, but for less than a half.
    let _others: Vec<_> = [3, 5].map(|stream| peer.request(&headers(stream, 0))).into();
    let mut sent = (0..12).map(|number| peer.send(&frame(DATA, 0, 3 + 2 * (number % 2), &piece)));
    let error = sent.find_map(Result::err).unwrap();
    assert_eq!(error.reason, Reason::FLOW_CONTROL_ERROR, "the window of the connection");
}

#[test]
fn data_in_small_pieces_is_put_together() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, 0));
    let lengths = [1, 2, 300, 10_000, 3, 9_000, 16_000, 4];
    let pieces: Vec<Vec<u8>> = lengths.iter().map(|&length| vec![length as u8; length]).collect();
    for piece in &pieces {
        peer.send(&frame(DATA, 0, 1, piece)).unwrap();
    }
    let (mut whole, mut count) = (Vec::new(), 0);
    while let Poll::Ready(Some(Ok(data))) = request.body.poll_data(&mut Context::from_waker(Waker::noop())) {
        whole.extend_from_slice(&data);
        count += 1;
    }
    assert_eq!(whole, pieces.concat());
    assert_eq!(count, 4, "what is long stands alone until something short comes behind it");
}

/// The windows of a stream and of its connection while data comes.
fn windows_after(peer: &mut Peer, mut see: impl FnMut(&mut Peer) -> bool) -> (i64, i64) {
    let (mut stream, mut connection) = (70_000i64, 100_000i64);
    while see(peer) {
        (stream, connection) = (stream - 10_000, connection - 10_000);
        for frame in peer.written().iter().filter(|frame| frame.kind == WINDOW_UPDATE) {
            let by = i64::from(u32::from_be_bytes(frame.payload[..].try_into().unwrap()));
            *(if frame.stream == 0 { &mut connection } else { &mut stream }) += by;
        }
        assert!(stream >= 0 && connection >= 10_000);
    }
    (stream, connection)
}

#[test]
fn a_client_may_go_on_when_its_data_was_read() {
    let mut peer = Peer::new();
    let mut request = peer.request(&headers(1, 0));
    let mut left = 100;
    windows_after(&mut peer, |peer| {
        peer.send(&frame(DATA, 0, 1, &[0; 10_000])).unwrap();
        let read = request.body.poll_data(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(read, Poll::Ready(Some(Ok(data))) if data.len() == 10_000));
        left -= 1;
        left > 0
    });
}

#[test]
fn data_that_nobody_reads_takes_the_window_of_its_stream_alone() {
    let mut peer = Peer::new();
    let Request { body, reply: _reply, .. } = peer.request(&headers(1, 0));
    drop(body);
    let mut left = 7;
    let (stream, _) = windows_after(&mut peer, |peer| {
        left -= 1;
        left >= 0 && peer.send(&frame(DATA, 0, 1, &[0; 10_000])).is_ok()
    });
    assert_eq!(stream, 0);
}

#[test]
fn fields_beyond_the_limit_are_refused_with_a_reply() {
    let mut peer = Peer::new();
    let value = "v".repeat(5_000);
    let block = post(&[("x", &value)]);
    assert!(peer.send(&frame(HEADERS, END_HEADERS, 1, &block)).unwrap().is_empty());
    let frames = peer.written();
    assert_eq!((frames[0].kind, frames[0].flags), (HEADERS, END_HEADERS | END_STREAM));
    assert!(frames[0].payload.ends_with(b"431"));
    assert_eq!(peer.send(&headers(3, END_STREAM)).unwrap().len(), 1);
}

#[test]
fn a_block_that_is_far_too_long_is_refused() {
    let block = post(&[("x", &"v".repeat(9_000))]);
    let error = Peer::new().send(&frame(HEADERS, END_HEADERS, 1, &block)).err().unwrap();
    assert_eq!(error.reason, Reason::ENHANCE_YOUR_CALM);
}

#[test]
fn a_block_without_an_end_is_refused() {
    for part in [&[][..], &[0; 1000]] {
        let mut peer = Peer::new();
        let begin = frame(HEADERS, 0, 1, &post(&[]));
        let parts = (0..1_000).map(|_| frame(CONTINUATION, 0, 1, part));
        let sent: Result<Vec<_>, _> =
            std::iter::once(begin).chain(parts).map(|bytes| peer.send(&bytes)).collect();
        assert_eq!(sent.err().unwrap().reason, Reason::ENHANCE_YOUR_CALM);
    }
}

#[test]
fn frames_that_bring_nothing_are_not_taken_for_ever() {
    for idle in
        [frame(PING, ACK, 0, &[0; 8]), frame(DATA, 0, 1, &[]), frame(99, 0, 0, &[]), frame(2, 0, 1, &[0; 5])]
    {
        let mut peer = Peer::new();
        let _held = peer.request(&headers(1, 0));
        let sent: Result<Vec<_>, _> = (0..20_000).map(|_| peer.send(&idle)).collect();
        assert_eq!(sent.err().unwrap().reason, Reason::ENHANCE_YOUR_CALM, "{idle:?}");
    }
    // A client that asks now and then whether we are there is welcome for as long as it likes.
    let mut peer = Peer::new();
    for _ in 0..20_000 {
        peer.send(&frame(PING, 0, 0, &[0; 8])).unwrap();
        peer.connection.note_time();
        assert_eq!(peer.written().len(), 1);
    }
}
