//! The budgets of memory for requests in progress: bodies, the tensors decoded from them, and responses that wait for their client.
//!
//! Large and small requests have a budget each, so that large ones cannot keep small ones out. A small request touches no counter that
//! threads share: each IO thread takes credit in chunks, and counts within it.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use headgate_core::error::{Code, Error, Result};
use serde_json::{Value, json};

/// A request with fewer bytes is small.
pub const SMALL_REQUEST: usize = 64 << 10;
/// The credit that a thread takes at a time, in bytes.
const CHUNK: usize = 64 << 10;

/// Bytes in use under a limit.
pub struct ByteBudget {
    used: AtomicUsize,
    limit: usize,
}

/// Bytes of a budget, which are released when this is dropped.
pub struct ByteReservation {
    budget: Arc<ByteBudget>,
    bytes: usize,
}

impl ByteBudget {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { used: AtomicUsize::new(0), limit })
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        self.used.load(Relaxed)
    }

    /// Reserves bytes.
    ///
    /// # Errors
    /// `overloaded` if fewer are left.
    pub fn reserve(self: &Arc<Self>, bytes: usize) -> Result<ByteReservation> {
        let fits = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Relaxed, Relaxed, fits).map_err(|used| {
            Error::new(
                Code::Overloaded,
                format!(
                    "large requests in progress hold {used} of {} bytes (--request-memory); try again later",
                    self.limit
                ),
            )
        })?;
        Ok(ByteReservation { budget: self.clone(), bytes })
    }

    /// Reserves bytes for the response of a request that has reserved `held` already.
    ///
    /// # Errors
    /// As [`ByteBudget::reserve`]; `payload_too_large` if both together exceed the whole budget.
    pub fn reserve_response(
        self: &Arc<Self>,
        held: Option<&ByteReservation>,
        bytes: usize,
    ) -> Result<ByteReservation> {
        let whole = held.map_or(0, |held| held.bytes).saturating_add(bytes);
        if whole > self.limit {
            let words = format!("this request and its response need {whole} bytes of memory");
            return Err(Error::new(
                Code::PayloadTooLarge,
                format!("{words}, and large requests have {} in all (--request-memory)", self.limit),
            ));
        }
        self.reserve(bytes)
    }

    /// The size of the budget, in bytes.
    pub fn limit(&self) -> usize {
        self.limit
    }
}

/// The budget of small requests. A method with the number of a thread must be called on that thread.
pub struct SmallBudget {
    /// The credit that threads have taken, used or not.
    taken: AtomicUsize,
    limit: usize,
    /// The unused credit of each thread.
    unused: Box<[ThreadCredit]>,
}

/// The bytes of small requests on one connection.
#[derive(Default)]
pub struct ConnectionMemory(Cell<usize>);

impl ConnectionMemory {
    /// Counts `bytes` that were released.
    pub fn release(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_sub(bytes));
    }
}

/// A connection may hold this many times the free bytes. So a client with many connections takes from itself first: `n` connections that
/// take all they can leave one part in `2 n + 1` free, for connections that hold nothing.
const CONNECTION_SHARE: usize = 2;

/// The unused credit of a thread, on cache lines of its own.
#[derive(Default)]
#[repr(align(128))]
struct ThreadCredit(AtomicUsize);

impl SmallBudget {
    /// A budget of `limit` bytes for a number of threads.
    pub fn new(limit: usize, threads: usize) -> Self {
        let unused = (0..threads).map(|_| ThreadCredit::default()).collect();
        Self { taken: AtomicUsize::new(0), limit, unused }
    }

    /// Takes bytes from the credit of a thread. A request that is not `refusable` may exceed the budget.
    ///
    /// # Errors
    /// `overloaded` if fewer are left.
    pub fn take(&self, thread: usize, bytes: usize, refusable: bool) -> Result<()> {
        let unused = &self.unused[thread].0;
        match unused.load(Relaxed).checked_sub(bytes) {
            Some(rest) => unused.store(rest, Relaxed),
            None => self.take_credit(thread, bytes, refusable)?,
        }
        Ok(())
    }

    /// As [`SmallBudget::take`], for a connection with any number of requests. It must leave bytes for others.
    ///
    /// # Errors
    /// `overloaded` for a connection that would exceed its share; as [`SmallBudget::take`].
    pub fn take_for_connection(
        &self,
        thread: usize,
        bytes: usize,
        connection: &ConnectionMemory,
    ) -> Result<()> {
        let held = connection.0.get();
        let beyond =
            |taken: usize| held > 0 && held + bytes > CONNECTION_SHARE * self.limit.saturating_sub(taken);
        // `used` reads the credit of every thread, so it is asked only near the bound.
        if beyond(self.taken.load(Relaxed)) && beyond(self.used()) {
            let words =
                format!("small requests on this connection hold {held} bytes, too much of what is left");
            return Err(Error::new(
                Code::Overloaded,
                format!("{words} of {} (--request-memory); try again later", self.limit),
            ));
        }
        self.take(thread, bytes, true)?;
        connection.0.set(held + bytes);
        Ok(())
    }

    #[cold]
    fn take_credit(&self, thread: usize, bytes: usize, refusable: bool) -> Result<()> {
        let unused = &self.unused[thread].0;
        let credit = unused.load(Relaxed);
        let fits = |taken: usize, more: usize| taken.checked_add(more).filter(|&sum| sum <= self.limit);
        let with_chunk =
            self.taken.fetch_update(Relaxed, Relaxed, |taken| fits(taken, bytes - credit + CHUNK));
        if with_chunk.is_ok() {
            unused.store(CHUNK, Relaxed);
            return Ok(());
        }
        let exactly = self.taken.fetch_update(Relaxed, Relaxed, |taken| {
            if refusable { fits(taken, bytes - credit) } else { Some(taken + bytes - credit) }
        });
        exactly.map_err(|taken| {
            let words = format!("small requests in progress hold {taken} of {} bytes", self.limit);
            Error::new(Code::Overloaded, format!("{words} (--request-memory); try again later"))
        })?;
        unused.store(0, Relaxed);
        Ok(())
    }

    /// Gives bytes back to the credit of a thread, which keeps at most two chunks.
    pub fn give(&self, thread: usize, bytes: usize) {
        let unused = &self.unused[thread].0;
        let mut credit = unused.load(Relaxed) + bytes;
        if credit > 2 * CHUNK {
            self.taken.fetch_sub(credit - CHUNK, Relaxed);
            credit = CHUNK;
        }
        unused.store(credit, Relaxed);
    }

    /// Bytes in use.
    pub fn used(&self) -> usize {
        let unused = self.unused.iter().map(|credit| credit.0.load(Relaxed)).sum();
        // The two values are not read at the same time, so bytes that move meanwhile may be missing or count twice.
        self.taken.load(Relaxed).saturating_sub(unused)
    }
}

/// The metrics of both budgets.
pub fn families(large: &ByteBudget, small: &SmallBudget) -> Vec<Value> {
    let gauge = |name: &str, help: &str, value: usize| json!({"name": name, "help": help, "type": "gauge", "samples": [[{}, value]]});
    vec![
        gauge(
            "headgate_large_request_bytes",
            "Memory held by large requests in progress (64 KiB and more).",
            large.used(),
        ),
        gauge("headgate_small_request_bytes", "Memory held by small requests in progress.", small.used()),
        gauge(
            "headgate_request_memory_bytes",
            "The most memory that requests in progress may hold (--request-memory).",
            large.limit + small.limit,
        ),
    ]
}

impl ByteReservation {
    /// Takes over another reservation of the same budget.
    pub fn merge(&mut self, mut other: ByteReservation) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Changes the reservation to `bytes`, which are in memory already and may exceed the budget.
    pub fn resize(&mut self, bytes: usize) {
        let used = &self.budget.used;
        match bytes.checked_sub(self.bytes) {
            Some(more) => used.fetch_add(more, Relaxed),
            None => used.fetch_sub(self.bytes - bytes, Relaxed),
        };
        self.bytes = bytes;
    }
}

impl Drop for ByteReservation {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_requests_share_the_budget_and_give_it_back() {
        let budget = ByteBudget::new(4 * SMALL_REQUEST);
        let mut first = budget.reserve(2 * SMALL_REQUEST).unwrap();
        let second = budget.reserve(2 * SMALL_REQUEST).unwrap();
        assert_eq!(budget.used(), 4 * SMALL_REQUEST);
        assert_eq!(budget.reserve(1).err().unwrap().code, Code::Overloaded);
        first.merge(second);
        assert_eq!(budget.used(), 4 * SMALL_REQUEST);
        drop(first);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_response_that_never_has_room_has_another_code_than_one_without_room_now() {
        let budget = ByteBudget::new(4 * SMALL_REQUEST);
        let code = |held, bytes| budget.reserve_response(held, bytes).err().map(|error| error.code);
        let held = budget.reserve(SMALL_REQUEST).unwrap();
        let other = budget.reserve(SMALL_REQUEST).unwrap();
        assert_eq!(code(None, 4 * SMALL_REQUEST), Some(Code::Overloaded));
        assert_eq!(code(None, 4 * SMALL_REQUEST + 1), Some(Code::PayloadTooLarge));
        assert_eq!(code(Some(&held), 3 * SMALL_REQUEST), Some(Code::Overloaded));
        assert_eq!(code(Some(&held), 3 * SMALL_REQUEST + 1), Some(Code::PayloadTooLarge));
        assert_eq!(code(Some(&held), usize::MAX), Some(Code::PayloadTooLarge));
        drop(other);
        assert_eq!(code(Some(&held), 3 * SMALL_REQUEST), None);
    }

    #[test]
    fn a_reservation_can_be_resized() {
        let budget = ByteBudget::new(4 * SMALL_REQUEST);
        let mut room = budget.reserve(3 * SMALL_REQUEST).unwrap();
        for bytes in [SMALL_REQUEST, 5 * SMALL_REQUEST] {
            room.resize(bytes);
            assert_eq!(budget.used(), bytes);
        }
        drop(room);
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn small_requests_count_within_their_threads_credit() {
        let budget = SmallBudget::new(8 * CHUNK, 2);
        for _ in 0..1000 {
            budget.take(0, 100, true).unwrap();
            budget.take(1, CHUNK, true).unwrap();
            assert_eq!(budget.used(), 100 + CHUNK);
            budget.give(0, 100);
            budget.give(1, CHUNK);
            assert_eq!(budget.used(), 0);
        }
        assert!(budget.taken.load(Relaxed) <= 2 * 2 * CHUNK, "threads keep little");
    }

    #[test]
    fn connections_that_take_all_they_can_leave_room_for_others() {
        const EACH: usize = 10 << 10;
        let budget = SmallBudget::new(64 << 20, 1);
        for greedy in [1, 9, 100, 1_000] {
            let connections: Vec<_> = (0..greedy).map(|_| ConnectionMemory::default()).collect();
            let mut took = true;
            while took {
                took = false;
                for connection in &connections {
                    took |= budget.take_for_connection(0, EACH, connection).is_ok();
                }
            }
            let used = budget.used();
            let alone = ConnectionMemory::default();
            budget.take_for_connection(0, EACH, &alone).unwrap_or_else(|error| panic!("{greedy}: {error}"));
            assert!(used > budget.limit / 2, "{greedy}: what nobody else needs may be used");
            for connection in connections.iter().chain([&alone]) {
                let held = connection.0.get();
                connection.release(held);
                budget.give(0, held);
            }
            assert_eq!(budget.used(), 0);
        }
    }

    #[test]
    fn small_requests_are_refused_at_the_limit_unless_they_are_bounded_otherwise() {
        let budget = SmallBudget::new(4 * CHUNK, 1);
        for _ in 0..4 {
            budget.take(0, CHUNK, true).unwrap();
        }
        assert_eq!(budget.take(0, 1, true).unwrap_err().code, Code::Overloaded);
        budget.take(0, 5, false).unwrap();
        assert_eq!(budget.used(), 4 * CHUNK + 5);
        budget.give(0, 4 * CHUNK + 5);
        assert_eq!((budget.used(), budget.taken.load(Relaxed)), (0, CHUNK));
    }
}
