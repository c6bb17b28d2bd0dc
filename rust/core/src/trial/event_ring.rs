//! First errors on their way from an IO thread to the ledger: a bounded ring with one writer and one reader.
//!
//! Next: `ledger`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

use super::outcome::TrialError;
use super::units::UnitError;

/// The first errors of an arm and thread that wait for the reader, who comes once a second.
const CAPACITY: usize = 1024;

/// A first error as its thread saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawEvent {
    /// When it was booked, on the gateway's clock.
    pub at_ns: u64,
    /// The error.
    pub error: TrialError,
    /// The split at which the unit erred on the champion before.
    pub after: Option<u8>,
}

impl RawEvent {
    /// The event of an error, unless the unit has erred before.
    pub fn of(at_ns: u64, error: TrialError, unit: UnitError) -> Option<RawEvent> {
        let after = match unit {
            UnitError::Repeated => return None,
            UnitError::First => None,
            UnitError::After(level) => Some(level),
        };
        Some(RawEvent { at_ns, error, after })
    }

    fn pack(self) -> u64 {
        self.error as u64 | self.after.map_or(0, |level| u64::from(level) + 1) << 8
    }

    fn unpack(at_ns: u64, packed: u64) -> RawEvent {
        let error = match packed & 0xff {
            0 => TrialError::BackendFailed,
            1 => TrialError::Internal,
            _ => TrialError::DeadlineExceeded,
        };
        let after = ((packed >> 8) as u8).checked_sub(1);
        RawEvent { at_ns, error, after }
    }
}

/// The ring. Its memory is allocated with the first error.
#[derive(Default)]
pub struct EventRing {
    slots: OnceLock<Box<[(AtomicU64, AtomicU64)]>>,
    /// Events written and read so far.
    written: AtomicU64,
    read: AtomicU64,
    dropped: AtomicU64,
}

impl EventRing {
    /// Writes an event, or counts it as dropped if the ring is full. Only one thread may call this.
    pub fn push(&self, event: RawEvent) {
        let slots = self
            .slots
            .get_or_init(|| (0..CAPACITY).map(|_| (AtomicU64::new(0), AtomicU64::new(0))).collect());
        let written = self.written.load(Relaxed);
        if written - self.read.load(Acquire) >= CAPACITY as u64 {
            self.dropped.store(self.dropped.load(Relaxed) + 1, Relaxed);
            return;
        }
        let (at, packed) = &slots[(written % CAPACITY as u64) as usize];
        at.store(event.at_ns, Relaxed);
        packed.store(event.pack(), Relaxed);
        // The reader sees the slot before it sees the number.
        self.written.store(written + 1, Release);
    }

    /// Takes the events that were written since the last call. Only one thread at a time may call this.
    pub fn drain(&self, mut take: impl FnMut(RawEvent)) {
        let Some(slots) = self.slots.get() else { return };
        let written = self.written.load(Acquire);
        for number in self.read.load(Relaxed)..written {
            let (at, packed) = &slots[(number % CAPACITY as u64) as usize];
            take(RawEvent::unpack(at.load(Relaxed), packed.load(Relaxed)));
        }
        self.read.store(written, Release);
    }

    /// Events that found the ring full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn drained(ring: &EventRing) -> Vec<RawEvent> {
        let mut events = Vec::new();
        ring.drain(|event| events.push(event));
        events
    }

    #[test]
    fn a_full_ring_counts_what_it_drops_and_keeps_the_oldest() {
        let ring = EventRing::default();
        let event = |at_ns| RawEvent { at_ns, error: TrialError::Internal, after: None };
        (0..CAPACITY as u64 + 3).for_each(|at_ns| ring.push(event(at_ns)));
        assert_eq!(ring.dropped(), 3);
        let events = drained(&ring);
        assert_eq!((events.len(), events[0], events[CAPACITY - 1]), (CAPACITY, event(0), event(1023)));
        ring.push(event(5));
        assert_eq!(drained(&ring), [event(5)]);
    }

    proptest! {
        #[test]
        fn events_come_out_as_they_went_in(events in proptest::collection::vec((any::<u64>(), 0u8..3, proptest::option::of(0u8..30)), 0..50)) {
            let ring = EventRing::default();
            let errors = [TrialError::BackendFailed, TrialError::Internal, TrialError::DeadlineExceeded];
            let events: Vec<_> = events
                .into_iter()
                .map(|(at_ns, error, after)| RawEvent { at_ns, error: errors[usize::from(error)], after })
                .collect();
            events.iter().for_each(|&event| ring.push(event));
            prop_assert_eq!(drained(&ring), events);
        }
    }
}
