//! An answer's bytes: status line, header fields, framing, body.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Buf;
use hyper::rt::Write as _;

use crate::transport::exchange::Reply;
use crate::transport::reply::ReplyBuf;
use crate::transport::wire::Wire;

/// Writes the head of an answer that is sent now in place of what `out` has.
pub fn write_head(reply: &Reply, now: Instant, out: &mut Vec<u8>) {
    let status = reply.status;
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    for (name, value) in &reply.fields {
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
    }
    out.extend_from_slice(b"\r\ncontent-length: ");
    out.extend_from_slice(itoa::Buffer::new().format(reply.body.len()).as_bytes());
    out.extend_from_slice(b"\r\ndate: ");
    with_date(now, |date| out.extend_from_slice(date));
    out.extend_from_slice(b"\r\n\r\n");
}

/// The longest body that is copied behind its head, in bytes: one piece costs the kernel less than two.
const SHORT: usize = 4 << 10;

/// Sends a head and a body, and sees to it that they are out.
///
/// # Errors
/// Those of the socket.
pub async fn send(wire: &mut Wire, head: &mut Vec<u8>, mut body: ReplyBuf) -> io::Result<()> {
    let short = body.remaining() <= SHORT;
    if short {
        head.extend_from_slice(body.chunk());
    }
    let mut head = &head[..];
    poll_fn(|cx| {
        loop {
            let behind = if short { &[] } else { body.chunk() };
            let wire = Pin::new(&mut *wire);
            let written = ready!(match (head, behind) {
                ([], []) => return Poll::Ready(Ok(())),
                (head, []) => wire.poll_write(cx, head),
                (head, behind) => wire.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(behind)]),
            })?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(ErrorKind::WriteZero)));
            }
            let of_head = written.min(head.len());
            head = &head[of_head..];
            if !short || !head.is_empty() {
                // Even by nothing: the answer has moved.
                body.advance(written - of_head);
            }
        }
    })
    .await?;
    // All of it was taken: what waits for that now waits for the flush.
    body.advance(body.remaining());
    drop(body);
    poll_fn(|cx| Pin::new(&mut *wire).poll_flush(cx)).await
}

/// The date as HTTP writes it, and until when it is that.
struct Date {
    until: Option<Instant>,
    text: [u8; 29],
}

thread_local! {
    static DATE: RefCell<Date> = const { RefCell::new(Date { until: None, text: [0; 29] }) };
}

/// Lends the present date. The system's clock is asked once a second.
fn with_date(now: Instant, use_it: impl FnOnce(&[u8])) {
    DATE.with_borrow_mut(|date| {
        if date.until.is_none_or(|until| now >= until) {
            let present = SystemTime::now();
            let into_second = present.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            date.until = Some(now + Duration::from_secs(1) - Duration::from_nanos(into_second.into()));
            // It has 29 bytes by its definition (RFC 9110, 5.6.7).
            let _ = write!(&mut date.text[..], "{}", httpdate::HttpDate::from(present));
        }
        use_it(&date.text);
    });
}
