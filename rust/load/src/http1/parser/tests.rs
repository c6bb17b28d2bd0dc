use proptest::prelude::*;

use super::*;

/// What a parser found in an answer.
#[derive(Debug, PartialEq)]
struct Found {
    status: u16,
    closes: bool,
    body: Vec<u8>,
    left: usize,
}

/// Feeds `bytes` in pieces that end at the `cuts`.
fn parse(bytes: &[u8], cuts: &[usize]) -> Result<Option<Found>, &'static str> {
    let mut parser = Parser::new();
    parser.reset(Keep::Whole);
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([bytes.len()]).collect();
    ends.sort_unstable();
    let mut at = 0;
    for end in ends {
        if let Progress::Done { used } = parser.feed(&bytes[at..end])? {
            let Head { status, closes, .. } = *parser.head();
            return Ok(Some(Found {
                status,
                closes,
                body: parser.kept().to_vec(),
                left: bytes.len() - at - used,
            }));
        }
        at = end;
    }
    Ok(parser.end().then(|| Found {
        status: parser.head().status,
        closes: parser.head().closes,
        body: parser.kept().to_vec(),
        left: 0,
    }))
}

fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let (mut coded, mut at) = (Vec::new(), 0);
    for size in sizes {
        let end = (at + 1 + size % 300).min(body.len());
        if end > at {
            coded.extend(format!("{:X};extension=\"1\"\r\n", end - at).bytes());
            coded.extend_from_slice(&body[at..end]);
            coded.extend(b"\r\n");
        }
        at = end;
    }
    if at < body.len() {
        coded.extend(format!("{:x}\r\n", body.len() - at).bytes());
        coded.extend_from_slice(&body[at..]);
        coded.extend(b"\r\n");
    }
    coded.extend(b"0\r\nexpires: never\r\n\r\n");
    coded
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_answer(
        body in prop::collection::vec(any::<u8>(), 0..2000),
        sizes in prop::collection::vec(0..400usize, 0..6),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        status in 200..204u16, form in 0..3u8, informed: bool, left in 0..5usize,
    ) {
        let mut bytes = Vec::new();
        if informed {
            bytes.extend(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <a>\r\n\r\n");
        }
        bytes.extend(format!("HTTP/1.1 {status} OK\r\nserver: x\r\n").bytes());
        let left = if form == 2 { 0 } else { left };
        match form {
            0 => bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes()),
            1 => bytes.extend(b"transfer-encoding: Chunked\r\n\r\n"),
            _ => bytes.extend(b"connection: close\r\n\r\n"),
        }
        if form == 1 { bytes.extend(chunked(&body, &sizes)) } else { bytes.extend(&body) }
        bytes.extend(vec![b'H'; left]);
        let found = parse(&bytes, &cuts).unwrap().unwrap();
        prop_assert_eq!((found.status, found.closes, &found.body), (status, form == 2, &body));
        // Bytes behind the answer may be in a piece that was never fed.
        prop_assert!(found.left == left);
    }

    #[test]
    fn garbage_gives_an_error_or_asks_for_more_but_never_panics(
        bytes in prop::collection::vec(any::<u8>(), 1..400), cuts in prop::collection::vec(any::<usize>(), 0..4),
    ) {
        let found = parse(&bytes, &cuts);
        prop_assert!(bytes.starts_with(b"HTTP/1.") || b"HTTP/1.".starts_with(&bytes) || found.is_err());
    }

    #[test]
    fn a_changed_byte_of_an_answer_never_panics(at: prop::sample::Index, byte: u8, cuts in prop::collection::vec(any::<usize>(), 0..4)) {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n".to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        prop_assert_eq!(parse(&bytes, &cuts), parse(&bytes, &[]));
    }
}

#[test]
fn what_breaks_the_framing_is_an_error() {
    for (bytes, wanted) in [
        (&b"SSH-2.0-OpenSSH\r\n"[..], "the answer is not HTTP/1.1"),
        (b"HTTP/2.0 200 OK\r\n\r\n", "the answer is not HTTP/1.1"),
        (b"HTTP/1.1 2000 OK\r\n\r\n", "the status line has no status"),
        (b"HTTP/1.1 200\r\nno colon\r\n\r\n", "a header line has no colon"),
        (b"HTTP/1.1 200\r\ncontent-length: -1\r\n\r\n", "content-length is no number"),
        (
            b"HTTP/1.1 200\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
            "there are two different content-lengths",
        ),
        (b"HTTP/1.1 200\r\ntransfer-encoding: gzip\r\n\r\n", "transfer-encoding is not chunked"),
        (b"HTTP/1.1 101 Switching\r\n\r\n", "the server switched protocols"),
        (
            b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\nx",
            "the size of a chunk is no hexadecimal number",
        ),
        (b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab", "a chunk is longer than its size"),
        (
            b"HTTP/1.1 200\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n",
            "the size of a chunk is too large",
        ),
    ] {
        assert_eq!(parse(bytes, &[]), Err(wanted), "{}", bytes.escape_ascii());
    }
    let mut parser = Parser::new();
    parser.feed(b"HTTP/1.1 200\r\n").unwrap();
    let line = [b'a'; 1024];
    assert_eq!((0..100).find_map(|_| parser.feed(&line).err()), Some("the head is too long"));
}

#[test]
fn an_answer_that_stops_too_early_is_not_complete() {
    for bytes in [&b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n1234"[..], b"HTTP/1.1 200 OK\r\n", b""] {
        assert_eq!(parse(bytes, &[]), Ok(None));
    }
}

#[test]
fn only_the_beginning_of_an_error_is_kept_and_nothing_of_a_good_answer() {
    for (status, kept) in [(200, 0), (503, EXAMPLE_BYTES)] {
        let mut parser = Parser::new();
        parser.reset(Keep::Errors);
        let mut bytes = format!("HTTP/1.1 {status} x\r\ncontent-length: 5000\r\n\r\n").into_bytes();
        bytes.extend([b'x'; 5000]);
        assert_eq!(parser.feed(&bytes), Ok(Progress::Done { used: bytes.len() }));
        assert_eq!((parser.kept().len(), parser.kept_whole()), (kept, false));
    }
}
