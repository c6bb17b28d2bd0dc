//! A request's body, read whole, with a limit in bytes and a limit in time.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use headgate_core::error::{Code, Error, Result};
use http_body::Body;
use hyper::body::Incoming;

use crate::budget::Reserved;
use crate::conn::Open;
use crate::io;

/// A request's share of the memory for large ones, given back when it is over.
#[derive(Default)]
pub struct Counted(Vec<Reserved>);

impl Counted {
    /// Counts `length` bytes more.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn add(&mut self, length: usize) -> Result<()> {
        let large = io::with(|io| io.shared.large.clone());
        self.0.extend(large.reserve(length)?);
        Ok(())
    }
}

/// Reads a body within the configured time and counts it among the large ones.
///
/// # Errors
/// As [`read`]; `overloaded` when large requests hold all the memory they may.
pub async fn read_counted(body: &mut Incoming, limit: usize) -> Result<(Bytes, Counted)> {
    let timeout = io::with(|io| io.shared.config.body_timeout());
    let declared = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut counted = Counted::default();
    counted.add(declared.min(limit))?;
    let body = read(body, limit, timeout).await?;
    // A body that did not say its length is counted when it is known.
    counted.add(body.len().saturating_sub(declared))?;
    Ok((body, counted))
}

/// Reads a body. The timer is made only when the body is not there at once.
///
/// # Errors
/// `payload_too_large`, `request_timeout`, `cancelled` when the client left in the middle, or
/// `invalid_argument` for a body that is framed wrongly.
pub async fn read(body: &mut Incoming, limit: usize, timeout: Duration) -> Result<Bytes> {
    let declared = body.size_hint().lower();
    if declared > limit as u64 {
        return Err(too_large(limit));
    }
    let mut gathered =
        Gathered { first: Bytes::new(), rest: BytesMut::new(), declared: declared as usize, limit };
    let mut body = Pin::new(body);
    let at_once = poll_fn(|cx| Poll::Ready(gathered.poll(body.as_mut(), cx))).await;
    if let Poll::Ready(done) = at_once {
        return done.map(|()| gathered.finish());
    }
    let mut late = pin!(tokio::time::sleep(timeout));
    poll_fn(|cx| match gathered.poll(body.as_mut(), cx) {
        Poll::Pending => late.as_mut().poll(cx).map(|()| Err(too_slow(timeout))),
        done => done,
    })
    .await
    .map(|()| gathered.finish())
}

/// Bytes of a refused body that are read all the same.
const DISCARD_BYTES: usize = 4 << 20;
/// How long a refused body is read, at most.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads what is left of a body whose request is already refused, within bounds and beside the answer: a client that is
/// still sending when its connection closes loses the answer.
///
/// `open` keeps the connection busy meanwhile: these bytes are nobody's next request.
pub fn discard(mut body: Incoming, open: &Open) {
    if body.is_end_stream() {
        return;
    }
    let open = open.also();
    tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIME, async move {
        let _open = open;
        let mut left = DISCARD_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let length = frame.data_ref().map_or(0, Bytes::len);
            if length > left {
                return;
            }
            left -= length;
        }
    }));
}

/// What has come: nearly always one piece, which then is not copied.
struct Gathered {
    first: Bytes,
    rest: BytesMut,
    declared: usize,
    limit: usize,
}

impl Gathered {
    fn poll(&mut self, mut body: Pin<&mut Incoming>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match body.as_mut().poll_frame(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(broken(&error))),
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.add(data)?;
                    }
                }
            }
        }
    }

    fn add(&mut self, data: Bytes) -> Result<()> {
        if self.first.len() + self.rest.len() + data.len() > self.limit {
            return Err(too_large(self.limit));
        }
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = data;
            return Ok(());
        }
        if self.rest.is_empty() {
            self.rest.reserve(self.declared.max(self.first.len() + data.len()));
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() { self.first } else { self.rest.freeze() }
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(
        Code::PayloadTooLarge,
        format!("the body is larger than {limit} bytes, the limit (--max-body)"),
    )
}

fn too_slow(timeout: Duration) -> Error {
    Error::new(Code::RequestTimeout, format!("the body did not arrive within {} s", timeout.as_secs_f64()))
}

/// A peer that leaves in the middle is not the same as one that frames its body wrongly.
fn broken(error: &hyper::Error) -> Error {
    if left(error) {
        return Error::new(Code::Cancelled, "the client left before its body was complete");
    }
    Error::invalid(format!("the body is not well-formed HTTP: {error}"))
}

/// Whether the cause is the peer's going away: hyper wraps what it was told by the socket.
fn left(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    use std::io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return true;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)) {
            return true;
        }
        cause = error.source();
    }
    false
}
