//! A request's share of the memory for requests in progress: what it is counted as, and when that is given back.
//!
//! Not here: the memory that there is (`budget`).

use std::any::Any;
use std::rc::Rc;

use headgate_core::error::Result;

use crate::budget::{ByteReservation, ConnectionMemory, SMALL_REQUEST};
use crate::thread::io;

/// A request's share of the memory for requests in progress, given back when it is over.
#[derive(Default)]
pub struct RequestMemory {
    small: usize,
    large: Option<ByteReservation>,
    /// What its connection holds of the part of small requests, where it may have others.
    connection: Option<Rc<ConnectionMemory>>,
    /// Whether it has its connection to itself: connections bound what such requests hold while they are small.
    exclusive: bool,
}

impl RequestMemory {
    /// Counts `bytes` for nobody's connection.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn with_bytes(bytes: usize) -> Result<RequestMemory> {
        let mut counted = RequestMemory::default();
        counted.add_bytes(bytes)?;
        Ok(counted)
    }

    /// Counts a body that is here, and the tensors made of it, for a request that has its connection to itself.
    pub fn exclusive(length: usize) -> RequestMemory {
        let mut counted = RequestMemory { small: 0, large: None, connection: None, exclusive: true };
        // Such a body is small, and one that is alone is never refused.
        let _ = counted.add_body(length);
        counted
    }

    /// Counts a body of `length` bytes and the tensors made of it.
    ///
    /// # Errors
    /// `overloaded`; `payload_too_large` for what can never have room.
    pub fn add_body(&mut self, length: usize) -> Result<()> {
        if length < SMALL_REQUEST {
            self.add_small(2 * length)
        } else {
            self.add_large(length.saturating_mul(2))
        }
    }

    /// Counts `bytes`, and nothing made of them.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn add_bytes(&mut self, bytes: usize) -> Result<()> {
        if bytes < SMALL_REQUEST { self.add_small(bytes) } else { self.add_large(bytes) }
    }

    fn add_small(&mut self, bytes: usize) -> Result<()> {
        io::with(|io| match &self.connection {
            Some(connection) => io.shared.small_requests.take_for_connection(io.thread, bytes, connection),
            None => io.shared.small_requests.take(io.thread, bytes, !self.exclusive),
        })?;
        self.small += bytes;
        Ok(())
    }

    fn add_large(&mut self, bytes: usize) -> Result<()> {
        let more = io::with(|io| io.shared.large_requests.reserve(bytes))?;
        self.merge_large(Some(more));
        Ok(())
    }

    /// Takes what another one counts over.
    pub fn merge(&mut self, mut other: RequestMemory) {
        self.small += std::mem::take(&mut other.small);
        self.exclusive |= other.exclusive;
        // What was taken before was nothing: a request has its body first.
        self.connection = self.connection.take().or_else(|| other.connection.take());
        self.merge_large(other.large.take());
    }

    /// Hands what is counted and large over, in a box for somebody who only keeps it; nothing, which is usual, needs no box.
    pub fn take_large_boxed(&mut self) -> Option<Box<dyn Any + Send + Sync>> {
        self.large.take().map(|reserved| -> Box<dyn Any + Send + Sync> { Box::new(reserved) })
    }

    /// Lends what is counted and large to somebody who may give it back.
    pub fn lend_large(&mut self) -> Option<ByteReservation> {
        self.large.take()
    }

    /// Takes back what was lent.
    pub fn return_large(&mut self, lent: Option<ByteReservation>) {
        self.merge_large(lent);
    }

    /// Whether nothing large is counted.
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

    fn release_small(&mut self) {
        let small = std::mem::take(&mut self.small);
        if small > 0 {
            if let Some(connection) = &self.connection {
                connection.release(small);
            }
            // Requests end on IO threads; without one the gateway is gone.
            io::try_with(|io| io.shared.small_requests.give(io.thread, small));
        }
    }
}

impl Drop for RequestMemory {
    fn drop(&mut self) {
        self.release_small();
    }
}

/// Counts a body as it comes: its sender takes room from others with bytes, not with claims.
#[derive(Default)]
pub struct BodyMemory {
    counted: RequestMemory,
    bytes: usize,
}

impl BodyMemory {
    /// Counts a body of a connection that may have others.
    pub fn of_connection(connection: &Rc<ConnectionMemory>) -> BodyMemory {
        let counted =
            RequestMemory { small: 0, large: None, connection: Some(connection.clone()), exclusive: false };
        BodyMemory { counted, bytes: 0 }
    }

    /// Bytes that are counted at a time.
    pub const STEP: usize = SMALL_REQUEST;

    /// What a body of `length` bytes is counted as.
    pub fn rounded_length(length: usize) -> usize {
        if length < Self::STEP { length } else { length.next_multiple_of(Self::STEP) }
    }

    /// Sees to it that `length` bytes of a body are counted.
    ///
    /// # Errors
    /// As [`RequestMemory::add_body`].
    pub fn count_to(&mut self, length: usize) -> Result<()> {
        if length <= self.bytes {
            return Ok(());
        }
        let bytes = Self::rounded_length(length);
        if bytes < Self::STEP {
            self.counted.add_small(2 * (bytes - self.bytes))?;
        } else {
            let before = if self.bytes < Self::STEP { 0 } else { self.bytes };
            self.counted.add_large(2 * (bytes - before))?;
            self.counted.release_small();
        }
        self.bytes = bytes;
        Ok(())
    }

    /// What was counted.
    pub fn finish(self) -> RequestMemory {
        self.counted
    }
}
