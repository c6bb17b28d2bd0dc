//! Offloads the long work of a request to another thread, because every other request of the IO thread would wait for it.
//!
//! Each IO thread has two such threads (`scheduling`), which take the work in the order in which it arrives. The memory for large requests
//! bounds the work that waits. A reservation goes with the work, and is released when the work ends, even if its request has left.
//! Not here: which work is long (`large_input`, `large`, `coding`).

use std::sync::Arc;

use headgate_core::error::{Code, Error, Result};
use headgate_engine::Instant;
use tokio::task::JoinHandle;

use crate::budget::{ByteBudget, ByteReservation};
use crate::thread::io;
use crate::thread::request_memory::RequestMemory;

/// The memory for large requests that offloaded work has reserved.
pub struct OffloadMemory {
    budget: Arc<ByteBudget>,
    reservation: Option<ByteReservation>,
}

impl OffloadMemory {
    /// Reserves `bytes` for a response, until the reservation is dropped.
    ///
    /// # Errors
    /// `overloaded`; `payload_too_large`.
    pub fn reserve_response(&self, bytes: usize) -> Result<ByteReservation> {
        self.budget.reserve_response(self.reservation.as_ref(), bytes)
    }

    /// Keeps a reservation until the request ends.
    pub fn merge(&mut self, reserved: ByteReservation) {
        match &mut self.reservation {
            Some(reservation) => reservation.merge(reserved),
            reservation => *reservation = Some(reserved),
        }
    }

    /// Reserves `bytes` more until the request ends.
    ///
    /// # Errors
    /// `overloaded`.
    pub fn add_bytes(&mut self, bytes: usize) -> Result<()> {
        let more = self.budget.reserve(bytes)?;
        self.merge(more);
        Ok(())
    }
}

/// Runs `work` on another thread and waits for it until `until`. Work whose request has left is not begun.
///
/// The large part of `counted` goes with the work, and comes back with its result.
///
/// # Errors
/// The errors of the work; `deadline_exceeded`; `internal` after a panic.
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
        "the deadline passed while the request was decoded or its response written",
    )
}

/// Aborts the work when it is dropped.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        // This has no effect on work that has begun.
        self.0.abort();
    }
}
