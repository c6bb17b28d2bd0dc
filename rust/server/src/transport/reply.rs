//! A reply: status, header fields, body and what waits for it; and its bytes on a connection of our own loop.
//!
//! Not here: how hyper takes it (`reply_body`), how it becomes frames of HTTP/2 (`http2/exchange`).

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headgate_engine::Instant;
use http::header::{CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode};
use hyper::rt::Write as _;

use crate::headers::PreparedFields;
use crate::reply_fields::ReplyFields;
use crate::thread::io::Io;
use crate::transport::connection_state::{OpenRequest, UnsentReply};
use crate::transport::delivery::Delivery;
use crate::transport::watched_socket::WatchedSocket;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// JSON.
    Json,
    /// JSON with binary data behind it.
    Binary,
}

impl ContentType {
    /// The value of the header field.
    pub fn text(self) -> &'static str {
        match self {
            ContentType::Json => "application/json",
            ContentType::Binary => "application/octet-stream",
        }
    }

    /// The header field, for hyper.
    pub fn field(self) -> (HeaderName, HeaderValue) {
        (CONTENT_TYPE, HeaderValue::from_static(self.text()))
    }

    /// The header field as [`crate::headers::write_line`] writes it.
    fn line(self) -> &'static [u8] {
        match self {
            ContentType::Json => b"\r\ncontent-type: application/json",
            ContentType::Binary => b"\r\ncontent-type: application/octet-stream",
        }
    }
}

/// A reply before it becomes bytes on a connection. It writes itself for our own loop ([`Reply::send`]) and for hyper
/// ([`Reply::into_response`]).
pub struct Reply<D = Box<dyn Delivery>> {
    /// The status.
    pub status: StatusCode,
    /// What the body is.
    pub content: ContentType,
    /// The header fields.
    pub fields: ReplyFields,
    /// The body.
    pub body: Vec<u8>,
    /// What is notified when it is out.
    pub delivery: Option<D>,
    /// Whether no other request can be trusted to follow on a connection of HTTP/1.
    pub closes: bool,
}

impl<D> Reply<D> {
    /// The same reply with its delivery in another form.
    pub fn map_delivery<E>(self, map: impl FnOnce(D) -> E) -> Reply<E> {
        let Reply { status, content, fields, body, delivery, closes } = self;
        Reply { status, content, fields, body, delivery: delivery.map(map), closes }
    }

    /// Says that the reply is the last one of its connection.
    pub fn close(&mut self) {
        self.closes = true;
        self.fields.push(CONNECTION, HeaderValue::from_static("close"));
    }
}

impl Reply {
    /// Sends the reply from our own loop, and notifies its delivery. That ends the request `open`. `head` is memory for its head. If
    /// `is_bare`, the body is left out, but the head says its length.
    ///
    /// # Errors
    /// Those of the socket. Then the delivery is dropped.
    pub async fn send(
        self,
        io: &Io,
        is_bare: bool,
        wire: &mut WatchedSocket,
        head: &mut Vec<u8>,
        open: OpenRequest,
    ) -> io::Result<()> {
        self.write_head(head);
        let Reply { fields, body, delivery, .. } = self;
        io.fields.give(fields.into_memory());
        let mut behind = if is_bare { &[][..] } else { &body[..] };
        if behind.len() <= SHORT_BODY {
            head.extend_from_slice(std::mem::take(&mut behind));
        }
        let sent = write_all(wire, head, behind, &open).await;
        io.replies.give(body);
        sent?;
        // A socket has no buffer of ours to be flushed.
        let now = Instant::now();
        if let Some(delivery) = delivery {
            delivery.delivered(io, now);
        }
        open.end(now);
        Ok(())
    }

    /// Writes the head of a reply that is sent now in place of what `out` has.
    fn write_head(&self, out: &mut Vec<u8>) {
        out.clear();
        write_status(self.status, out);
        out.extend_from_slice(self.content.line());
        let mut made_at = None;
        if let Some(delivery) = &self.delivery {
            made_at = delivery.made_at();
            out.extend_from_slice(delivery.prepared_fields().map_or(&[][..], PreparedFields::lines));
        }
        self.fields.write_lines(out);
        out.extend_from_slice(b"\r\ncontent-length: ");
        out.extend_from_slice(itoa::Buffer::new().format(self.body.len()).as_bytes());
        with_date_and_end(made_at.unwrap_or_else(Instant::now), |lines| out.extend_from_slice(lines));
    }
}

/// Writes the first line of a head.
fn write_status(status: StatusCode, out: &mut Vec<u8>) {
    if status == StatusCode::OK {
        return out.extend_from_slice(b"HTTP/1.1 200 OK");
    }
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
}

/// The longest body that is copied behind its head, in bytes: one piece costs the kernel less than two.
const SHORT_BODY: usize = 4 << 10;

/// Writes a head and what is behind it, which belong to the request `open`.
///
/// # Errors
/// Those of the socket.
async fn write_all(
    wire: &mut WatchedSocket,
    mut head: &[u8],
    mut behind: &[u8],
    open: &OpenRequest,
) -> io::Result<()> {
    // A reply that the socket takes at once has no place among those that wait for the peer.
    let mut unsent: Option<UnsentReply> = None;
    poll_fn(|cx| {
        while !head.is_empty() || !behind.is_empty() {
            let socket = Pin::new(&mut *wire);
            let polled = match behind {
                [] => socket.poll_write(cx, head),
                behind => socket.poll_write_vectored(cx, &[IoSlice::new(head), IoSlice::new(behind)]),
            };
            let Poll::Ready(written) = polled else {
                // From now on it is watched whether the bytes move.
                unsent.get_or_insert_with(|| open.sending(Instant::now()));
                return Poll::Pending;
            };
            let written = written?;
            if written == 0 {
                return Poll::Ready(Err(io::Error::from(ErrorKind::WriteZero)));
            }
            let of_head = written.min(head.len());
            (head, behind) = (&head[of_head..], &behind[written - of_head..]);
            if let Some(unsent) = &unsent {
                unsent.note_progress();
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}

/// The last lines of a head, with the date as HTTP writes it, and until when it is right.
struct DateAndEnd {
    until: Option<Instant>,
    lines: [u8; 41],
}

thread_local! {
    static DATE: RefCell<DateAndEnd> = const { RefCell::new(DateAndEnd { until: None, lines: [0; 41] }) };
}

/// Lends the date of a head that is made at `now`, or was a moment ago, as HTTP writes it.
pub fn with_date(now: Instant, use_it: impl FnOnce(&[u8])) {
    with_date_and_end(now, |lines| use_it(&lines[b"\r\ndate: ".len()..lines.len() - b"\r\n\r\n".len()]));
}

/// Lends the last lines of a head that is made at `now`, or was a moment ago. The system's clock is read once a second.
fn with_date_and_end(now: Instant, use_them: impl FnOnce(&[u8])) {
    DATE.with_borrow_mut(|date| {
        if date.until.is_none_or(|until| now >= until) {
            let present = SystemTime::now();
            let into_second = present.duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
            date.until = Some(now + Duration::from_secs(1) - Duration::from_nanos(into_second.into()));
            // A date has 29 bytes by its definition (RFC 9110, 5.6.7), so that all of it has room.
            let _ = write!(&mut date.lines[..], "\r\ndate: {}\r\n\r\n", httpdate::HttpDate::from(present));
        }
        use_them(&date.lines);
    });
}
