//! A request's body, read whole, with a limit in bytes and a limit in time.
//!
//! Not here: what it is counted as (`request_memory`).

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use headgate_core::error::{Code, Error, Result};

use crate::budget::ConnectionMemory;
use crate::headers::Headers;
use crate::metrics::close_reason::CloseReason;
use crate::thread::io::{self, Io};
use crate::thread::request_memory::{BodyMemory, RequestMemory};
use crate::transport::connection_state::{OpenRequest, PendingBody};
use crate::transport::streamed_body::{ReadError, StreamedBody};

/// A body that was read whole.
pub struct ReadBody {
    /// Its bytes.
    pub bytes: Bytes,
    /// Its share of the memory for requests in progress.
    pub memory: RequestMemory,
}

impl ReadBody {
    /// Takes a body that was read with the head.
    fn buffered(io: &Io, body: &mut Bytes) -> ReadBody {
        ReadBody { memory: RequestMemory::exclusive(io, body.len()), bytes: std::mem::take(body) }
    }
}

/// What a body may take.
struct BodyLimits {
    bytes: usize,
    timeout: Duration,
}

/// The body of a request over HTTP, read or not.
pub enum BodySource {
    /// It is read on demand.
    Streamed(StreamedBody, BodyProgress),
    /// It was read with the head.
    Buffered(Bytes),
}

/// How far reading a body has come.
pub enum BodyProgress {
    /// It is still to be read; the connection is known to wait for it.
    Waiting(PendingBody),
    /// It was read, or refused with a reply that others may follow.
    Done,
    /// It could not be read, so that the next request cannot be found behind it.
    Lost(CloseReason),
}

impl BodyProgress {
    fn after<T>(read: &Result<T>) -> BodyProgress {
        match read.as_ref().map_err(|error| error.code) {
            Err(Code::PayloadTooLarge) => BodyProgress::Lost(CloseReason::BodyTooLarge),
            Err(Code::RequestTimeout) => BodyProgress::Lost(CloseReason::BodyTimeout),
            _ => BodyProgress::Done,
        }
    }
}

impl BodySource {
    /// Reads the body, as [`read_aligned`] does if it was not read with the head.
    ///
    /// # Errors
    /// As [`read_aligned`].
    pub async fn read(&mut self, limit: usize, headers: Headers<'_>, align: FindAligned) -> Result<ReadBody> {
        match self {
            BodySource::Streamed(body, progress) => {
                let connection_memory = match progress {
                    BodyProgress::Waiting(receiving) => receiving.connection_memory(),
                    _ => Rc::default(),
                };
                let read =
                    read_aligned(body, &connection_memory, limit, Alignment { headers, find: align }).await;
                *progress = BodyProgress::after(&read);
                read
            }
            BodySource::Buffered(body) => Ok(io::with(|io| ReadBody::buffered(io, body))),
        }
    }

    /// Takes the body if it was read with the head.
    pub fn take_buffered(&mut self, io: &Io) -> Option<ReadBody> {
        match self {
            BodySource::Streamed(..) => None,
            BodySource::Buffered(body) => Some(ReadBody::buffered(io, body)),
        }
    }

    /// Why no other request can be found behind the body on a connection of HTTP/1.
    pub fn lost(&self) -> Option<CloseReason> {
        match self {
            BodySource::Streamed(_, BodyProgress::Lost(reason)) => Some(*reason),
            _ => None,
        }
    }

    /// Reads and drops a body that no call has read, as [`discard`] does.
    pub fn discard(self, open: &OpenRequest) {
        if let BodySource::Streamed(body, _) = self {
            discard(body, open);
        }
    }
}

/// Reads a body within the configured time and counts it, a small one for its connection.
///
/// # Errors
/// As [`read`]; `overloaded` when large requests hold all the memory they may.
pub async fn read_counted(
    body: &mut StreamedBody,
    connection_memory: &Rc<ConnectionMemory>,
    limit: usize,
) -> Result<ReadBody> {
    read_aligned(body, connection_memory, limit, Alignment { headers: Headers::NONE, find: |_, _| None })
        .await
}

/// As [`read_counted`], with the tensor that `alignment` finds at an address at which any element type may be read in place.
///
/// # Errors
/// As [`read_counted`].
pub async fn read_aligned(
    body: &mut StreamedBody,
    connection_memory: &Rc<ConnectionMemory>,
    limit: usize,
    alignment: Alignment<'_>,
) -> Result<ReadBody> {
    let timeout = io::with(|io| io.shared.config.body_timeout());
    read(body, BodyMemory::of_connection(connection_memory), BodyLimits { bytes: limit, timeout }, alignment)
        .await
}

/// Refuses a body whose length is known before it comes, if there is no room for it now. Only bytes that have come take room
/// ([`BodyMemory`]).
///
/// # Errors
/// `overloaded`.
pub fn check_room(io: &Io, length: usize) -> Result<()> {
    RequestMemory::default().add_body(io, BodyMemory::rounded_length(length))
}

/// The capacity for a body that is declared to have `declared` bytes, and of which `received` are there. A body that does not come costs
/// little memory, and one that does is copied few times.
pub fn buffer_capacity(received: usize, declared: usize) -> usize {
    if declared < received {
        // It is not known how much follows: twice as much each time, so that no byte is moved often.
        return 2 * received.max(BodyMemory::STEP);
    }
    declared.min(8 * received.max(BodyMemory::STEP)).max(received)
}

/// Reads a body. The timer is made only when the body is not there at once.
///
/// # Errors
/// `payload_too_large`, `request_timeout`, `cancelled` when the client left in the middle, `overloaded`, or
/// `invalid_argument` for a body that is framed wrongly.
async fn read(
    body: &mut StreamedBody,
    body_memory: BodyMemory,
    limits: BodyLimits,
    alignment: Alignment<'_>,
) -> Result<ReadBody> {
    let BodyLimits { bytes: limit, timeout } = limits;
    let declared = body.declared_length();
    if declared > limit as u64 {
        return Err(too_large(limit));
    }
    let declared = declared as usize;
    io::with(|io| check_room(io, declared))?;
    let (first, rest) = (Bytes::new(), Vec::new());
    let mut reader =
        BodyReader { first, rest, offset: None, lead: 0, declared, limit, alignment, body_memory };
    let mut poll = |cx: &mut Context<'_>| io::with(|io| reader.poll(io, body, cx));
    let at_once = poll_fn(|cx| Poll::Ready(poll(cx))).await;
    if let Poll::Ready(done) = at_once {
        return done.map(|()| reader.finish());
    }
    let mut late = pin!(tokio::time::sleep(timeout));
    poll_fn(|cx| match poll(cx) {
        Poll::Pending => late.as_mut().poll(cx).map(|()| Err(too_slow(timeout))),
        done => done,
    })
    .await
    .map(|()| reader.finish())
}

/// An alignment that suits any element type and any vector unit, in bytes.
const ALIGNMENT: usize = 64;
/// The most bytes of a refused body that are read.
const DISCARD_BYTES: usize = 4 << 20;
/// How long a refused body is read, at most.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Reads what is left of a body whose request is already refused, within bounds and beside the reply: a client that is still sending
/// when its connection closes loses the reply.
///
/// `open` keeps the connection busy meanwhile, so that these bytes are not read as the next request.
pub fn discard(mut body: StreamedBody, open: &OpenRequest) {
    if body.is_end() {
        return;
    }
    let open = open.new_handle();
    tokio::task::spawn_local(tokio::time::timeout(DISCARD_TIME, async move {
        let _open = open;
        let mut left = DISCARD_BYTES;
        while let Some(Ok(data)) = poll_fn(|cx| body.poll_data(cx)).await {
            if data.len() > left {
                return;
            }
            left -= data.len();
        }
    }));
}

/// Reads a body. It nearly always comes in one piece, which then is not copied. Several are gathered in a buffer of this thread.
struct BodyReader<'a> {
    first: Bytes,
    rest: Vec<u8>,
    body_memory: BodyMemory,
    /// Where a large tensor begins, and the bytes in front of `rest`'s content that align it.
    offset: Option<usize>,
    lead: usize,
    declared: usize,
    limit: usize,
    alignment: Alignment<'a>,
}

/// How the place of a large tensor in a body is found, so that any element type may be read in place.
#[derive(Clone, Copy)]
pub struct Alignment<'a> {
    /// The headers of the request.
    pub headers: Headers<'a>,
    /// Finds the place.
    pub find: FindAligned,
}

/// Says at which offset of a body, given its first piece, a large tensor begins.
pub type FindAligned = fn(&[u8], Headers<'_>) -> Option<usize>;

impl BodyReader<'_> {
    fn poll(&mut self, io: &Io, body: &mut StreamedBody, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            match body.poll_data(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(read_error(&error))),
                Poll::Ready(Some(Ok(data))) => self.add(io, data)?,
            }
        }
    }

    fn length(&self) -> usize {
        self.first.len() + self.rest.len() - self.lead
    }

    fn add(&mut self, io: &Io, data: Bytes) -> Result<()> {
        if self.length() + data.len() > self.limit {
            return Err(too_large(self.limit));
        }
        self.body_memory.count_to(io, self.length() + data.len())?;
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = data;
            return Ok(());
        }
        if self.rest.is_empty() {
            let first = std::mem::take(&mut self.first);
            self.offset = (self.alignment.find)(&first, self.alignment.headers);
            self.move_to(io, &first, first.len() + data.len());
        } else if self.rest.capacity() - self.rest.len() < data.len() {
            let (rest, lead) = (std::mem::take(&mut self.rest), self.lead);
            self.move_to(io, &rest[lead..], rest.len() - lead + data.len());
            io.bodies.give(rest);
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    /// Goes on in a buffer with room for `received` bytes and some of those to come. Bytes in front align what is at `offset` of the
    /// body for any element.
    fn move_to(&mut self, io: &Io, begun: &[u8], received: usize) {
        self.rest = io.bodies.take();
        self.rest.reserve(buffer_capacity(received, self.declared) + ALIGNMENT);
        self.lead = 0;
        if let Some(offset) = self.offset {
            let address = (self.rest.as_ptr() as usize).wrapping_add(offset);
            self.lead = address.wrapping_neg() % ALIGNMENT;
            self.rest.resize(self.lead, 0);
        }
        self.rest.extend_from_slice(begun);
    }

    fn finish(self) -> ReadBody {
        let memory = self.body_memory.finish();
        if self.rest.is_empty() {
            return ReadBody { bytes: self.first, memory };
        }
        let lead = self.lead;
        let bytes = Bytes::from_owner(PooledBytes(self.rest)).slice(lead..);
        ReadBody { bytes, memory }
    }
}

/// A gathered body; its buffer goes back to the free list of the thread that drops the last part of it.
struct PooledBytes(Vec<u8>);

impl AsRef<[u8]> for PooledBytes {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for PooledBytes {
    fn drop(&mut self) {
        io::try_with(|io| io.bodies.give(std::mem::take(&mut self.0)));
    }
}

fn too_large(limit: usize) -> Error {
    Error::new(Code::PayloadTooLarge, format!("the body is larger than {}", limit_words(limit)))
}

/// The most bytes of a request that carries no tensors.
const SMALL_BODY: usize = 1 << 20;

/// The limit of requests that carry no tensors, in bytes.
pub fn small_limit(io: &Io) -> usize {
    io.shared.config.max_body_bytes.min(SMALL_BODY)
}

/// A limit in bytes, and where it comes from.
pub fn limit_words(limit: usize) -> String {
    let configured = io::try_with(|io| io.shared.config.max_body_bytes).is_none_or(|most| limit >= most);
    let whose = if configured { "the limit (--max-body)" } else { "the limit of requests without tensors" };
    format!("{limit} bytes, {whose}")
}

fn too_slow(timeout: Duration) -> Error {
    Error::new(Code::RequestTimeout, format!("the body did not arrive within {} s", timeout.as_secs_f64()))
}

/// The error of a body that cannot be read. A peer that leaves in the middle differs from one that frames its body wrongly.
pub fn read_error(error: &ReadError) -> Error {
    if error.is_disconnect() {
        return Error::new(Code::Cancelled, "the client left before its body was complete");
    }
    Error::invalid(format!("the body is not well-formed HTTP: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_in_small_pieces_is_moved_few_times_and_claims_little() {
        let (piece, whole) = (8 << 10, 64 << 20);
        for declared in [0, whole] {
            let (mut capacity, mut moves, mut moved) = (0, 0, 0);
            for received in (piece..=whole).step_by(piece) {
                if received > capacity {
                    capacity = buffer_capacity(received, declared);
                    (moves, moved) = (moves + 1, moved + received - piece);
                    assert!((received..=8 * received.max(BodyMemory::STEP)).contains(&capacity));
                }
            }
            assert!(moves <= 12 && moved <= 2 * whole, "{declared}: {moves} moves of {moved} bytes");
        }
        assert_eq!(buffer_capacity(100, 100), 100);
    }
}
