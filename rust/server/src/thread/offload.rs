//! Work of a request that takes long, done on a thread beside its IO thread: there every other request would wait for it.
//!
//! Each IO thread has two such threads (`threads`), and the work waits for one in the order in which it came. What waits is
//! bounded by the memory for large requests, which goes with the work: it is given back when the work is over, also where
//! nobody waits for that any more. Not here: which work takes long (`large_input`, `large`, `coding`).

use std::sync::Arc;
use std::time::Instant;

use headgate_core::error::{Code, Error, Result};
use tokio::task::JoinHandle;

use crate::budget::{ByteBudget, ByteReservation};
use crate::thread::io;
use crate::thread::request_memory::RequestMemory;

/// The share of the memory for large requests that belongs to the work.
pub struct OffloadMemory {
    budget: Arc<ByteBudget>,
    reservation: Option<ByteReservation>,
}

impl OffloadMemory {
    /// Counts `bytes` of an answer for as long as the result lives.
    ///
    /// # Errors
    /// `overloaded`; `payload_too_large`.
    pub fn reserve_response(&self, bytes: usize) -> Result<ByteReservation> {
        self.budget.reserve_response(self.reservation.as_ref(), bytes)
    }

    /// Counts what was reserved until the request is over.
    pub fn merge(&mut self, reserved: ByteReservation) {
        match &mut self.reservation {
            Some(reservation) => reservation.merge(reserved),
            reservation => *reservation = Some(reserved),
        }
    }

    /// Counts `bytes` more until the request is over.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn add_bytes(&mut self, bytes: usize) -> Result<()> {
        let more = self.budget.reserve(bytes)?;
        self.merge(more);
        Ok(())
    }
}

/// Does the work elsewhere and waits for it, not beyond `until`. Work that nobody waits for any more is not begun.
///
/// What `counted` holds of the memory for large requests goes with the work and comes back with its result.
///
/// # Errors
/// Those of the work; `deadline_exceeded`; `internal` after a panic.
pub async fn run<T: Send + 'static>(
    until: Option<Instant>,
    counted: &mut RequestMemory,
    work: impl FnOnce(&mut OffloadMemory) -> Result<T> + Send + 'static,
) -> Result<T> {
    let mut share = OffloadMemory {
        budget: io::with(|io| io.shared.large_requests.clone()),
        reservation: counted.lend_large(),
    };
    let mut work = AbortOnDrop(tokio::task::spawn_blocking(move || {
        let result = work(&mut share);
        (share.reservation, result)
    }));
    let ended = match until {
        Some(until) => {
            tokio::time::timeout_at(until.into(), &mut work.0).await.map_err(|_| deadline_error())?
        }
        None => (&mut work.0).await,
    };
    let (reservation, result) = ended.map_err(|_| {
        Error::new(Code::Internal, "a large request hit a defect of Headgate; others are not affected")
    })?;
    counted.return_large(reservation);
    result
}

fn deadline_error() -> Error {
    Error::new(
        Code::DeadlineExceeded,
        "the deadline passed while the request was decoded or its answer written",
    )
}

/// Work that somebody waits for, until this is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        // Has no effect on work that has begun.
        self.0.abort();
    }
}
