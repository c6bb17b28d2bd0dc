//! The requests in progress that will be compared with a threshold, so that one that hangs counts as slower before it ends.
//!
//! Next: `arm`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The requests in progress of an arm and thread that are watched.
const WATCHED: usize = 128;
/// How many places are tried for a request.
const TRIES: usize = 8;

/// When the watched requests began, on the gateway's clock; 0 marks a free place. One thread writes.
pub struct PendingRequests {
    begun: [AtomicU64; WATCHED],
    next: AtomicU64,
    unwatched: AtomicU64,
}

impl Default for PendingRequests {
    fn default() -> Self {
        Self {
            begun: std::array::from_fn(|_| AtomicU64::new(0)),
            next: AtomicU64::new(0),
            unwatched: AtomicU64::new(0),
        }
    }
}

impl PendingRequests {
    /// Watches a request that began then. `None` if no free place was found: it counts when it ends.
    pub fn begin(&self, begun_ns: u64) -> Option<u8> {
        let next = self.next.load(Relaxed);
        for attempt in 0..TRIES as u64 {
            let place = ((next + attempt) % WATCHED as u64) as usize;
            if self.begun[place].load(Relaxed) == 0 {
                self.begun[place].store(begun_ns.max(1), Relaxed);
                self.next.store(place as u64 + 1, Relaxed);
                return Some(place as u8);
            }
        }
        self.next.store(next + TRIES as u64, Relaxed);
        self.unwatched.store(self.unwatched.load(Relaxed) + 1, Relaxed);
        None
    }

    /// The request at that place has ended.
    pub fn end(&self, place: u8) {
        self.begun[usize::from(place)].store(0, Relaxed);
    }

    /// The watched requests that began before `ns`.
    pub fn begun_before(&self, ns: u64) -> u64 {
        let before = |begun: &&AtomicU64| (1..ns).contains(&begun.load(Relaxed));
        self.begun.iter().filter(before).count() as u64
    }

    /// Requests that found no free place.
    pub fn unwatched(&self) -> u64 {
        self.unwatched.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_counts_from_its_threshold_until_it_ends() {
        let pending = PendingRequests::default();
        let (first, second) = (pending.begin(100).unwrap(), pending.begin(0).unwrap());
        assert_eq!((pending.begun_before(50), pending.begun_before(101)), (1, 2));
        pending.end(first);
        assert_eq!(pending.begun_before(1_000), 1);
        pending.end(second);
        assert_eq!(pending.begun_before(u64::MAX), 0);
    }

    #[test]
    fn requests_beyond_the_bound_are_counted_and_not_watched() {
        let pending = PendingRequests::default();
        let places: Vec<_> = (0..WATCHED).map(|_| pending.begin(7).unwrap()).collect();
        assert_eq!((pending.begin(7), pending.unwatched()), (None, 1));
        places.into_iter().for_each(|place| pending.end(place));
        assert!(pending.begin(7).is_some());
    }
}
