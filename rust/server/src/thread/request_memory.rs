//! The memory that a request in progress is counted with, and when that is released.
//!
//! Not here: the budgets (`budget`).

use std::any::Any;
use std::rc::Rc;

use headgate_core::error::Result;

use crate::budget::{ByteReservation, ConnectionMemory, SMALL_REQUEST};
use crate::thread::io::{self, Io};

/// The memory that a request is counted with. It is released when this is dropped.
#[derive(Default)]
pub struct RequestMemory {
    small: usize,
    large: Option<ByteReservation>,
    /// The small memory of its connection, if the connection may have other requests.
    connection: Option<Rc<ConnectionMemory>>,
    /// Whether the request has its connection to itself. The number of connections bounds the memory of such requests while they are small.
    exclusive: bool,
}

impl RequestMemory {
    /// Counts `bytes` without a connection.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn with_bytes(io: &Io, bytes: usize) -> Result<RequestMemory> {
        let mut counted = RequestMemory::default();
        counted.add_bytes(io, bytes)?;
        Ok(counted)
    }

    /// Counts a body that has been read, and the tensors decoded from it, for a request that has its connection to itself.
    pub fn exclusive(io: &Io, length: usize) -> RequestMemory {
        let mut counted = RequestMemory { small: 0, large: None, connection: None, exclusive: true };
        // Such a body is small, and a small request with a connection of its own is never refused.
        let _ = counted.add_body(io, length);
        counted
    }

    /// Counts a body of `length` bytes, and the tensors decoded from it.
    ///
    /// # Errors
    /// `overloaded`; `payload_too_large` for a size that never has room.
    pub fn add_body(&mut self, io: &Io, length: usize) -> Result<()> {
        if length < SMALL_REQUEST {
            self.add_small(io, 2 * length)
        } else {
            self.add_large(io, length.saturating_mul(2))
        }
    }

    /// Counts `bytes` without tensors.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn add_bytes(&mut self, io: &Io, bytes: usize) -> Result<()> {
        if bytes < SMALL_REQUEST { self.add_small(io, bytes) } else { self.add_large(io, bytes) }
    }

    fn add_small(&mut self, io: &Io, bytes: usize) -> Result<()> {
        match &self.connection {
            Some(connection) => io.shared.small_requests.take_for_connection(io.thread, bytes, connection),
            None => io.shared.small_requests.take(io.thread, bytes, !self.exclusive),
        }?;
        self.small += bytes;
        Ok(())
    }

    fn add_large(&mut self, io: &Io, bytes: usize) -> Result<()> {
        let more = io.shared.large_requests.reserve(bytes)?;
        self.merge_large(Some(more));
        Ok(())
    }

    /// Takes out the large part, in a box for an owner that only keeps it. Mostly there is none, and then nothing is allocated.
    pub fn take_large_boxed(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.large.take().map(|reserved| -> Box<dyn Any + Send + Sync> { Box::new(reserved) })
    }

    /// Takes out the large part, which [`return_large`](Self::return_large) may put back.
    pub fn lend_large(&mut self) -> Option<ByteReservation> {
        self.large.take()
    }

    /// Puts back the large part.
    pub fn return_large(&mut self, lent: Option<ByteReservation>) {
        self.merge_large(lent);
    }

    /// Whether there is no large part.
    pub fn is_small(&self) -> bool {
        self.large.is_none()
    }

    fn merge_large(&mut self, more: Option<ByteReservation>) {
        match (&mut self.large, more) {
            (Some(own), Some(more)) => own.merge(more),
            (own @ None, more) => *own = more,
            (Some(_), None) => {}
        }
    }

    /// Releases the small part.
    pub fn release_small(&mut self, io: &Io) {
        let small = std::mem::take(&mut self.small);
        if let Some(connection) = &self.connection {
            connection.release(small);
        }
        io.shared.small_requests.give(io.thread, small);
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        if self.small > 0 {
            // Requests end on IO threads. On another thread the gateway has stopped, and nothing must be released.
            io::try_with(|io| self.release_small(io));
        }
    }
}

/// Counts a body while it arrives. A client takes room from others with bytes that it has sent, not with a length that it announced.
#[derive(Default)]
pub struct BodyMemory {
    counted: RequestMemory,
    bytes: usize,
}

impl BodyMemory {
    /// Counts a body of a connection that may have other requests.
    pub fn of_connection(connection: &Rc<ConnectionMemory>) -> BodyMemory {
        let counted =
            RequestMemory { small: 0, large: None, connection: Some(connection.clone()), exclusive: false };
        BodyMemory { counted, bytes: 0 }
    }

    /// The bytes that are counted at a time.
    pub const STEP: usize = SMALL_REQUEST;

    /// The bytes that a body of `length` bytes is counted with.
    pub fn rounded_length(length: usize) -> usize {
        if length < Self::STEP { length } else { length.next_multiple_of(Self::STEP) }
    }

    /// Counts the body up to `length` bytes.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn count_to(&mut self, io: &Io, length: usize) -> Result<()> {
        if length <= self.bytes {
            return Ok(());
        }
        let bytes = Self::rounded_length(length);
        if bytes < Self::STEP {
            self.counted.add_small(io, 2 * (bytes - self.bytes))?;
        } else {
            let before = if self.bytes < Self::STEP { 0 } else { self.bytes };
            self.counted.add_large(io, 2 * (bytes - before))?;
            self.counted.release_small(io);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// The memory of the body.
    pub fn finish(self) -> RequestMemory {
        self.counted
    }
}
