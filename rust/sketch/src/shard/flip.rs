//! The epoch flip: one writer and one collector share two buffers without locks, and no count is lost or doubled.
//!
//! ```text
//! writer     announce: state = busy in e  ->  fence  ->  epoch still e?  no: announce again; yes: write buffer e & 1
//!            leave:    state = idle
//! collector  flip:     epoch = e + 1      ->  fence  ->  state busy in e?  yes: try again next time; no: buffer e & 1 is its own
//! ```
//! One of the two fences comes first: either the collector sees the announcement, or the writer sees the new epoch. So no side
//! waits: a writer that sees a new epoch announces again, and a collector that sees a busy writer tries again later. The epoch does
//! not change again before the buffer of the old epoch was taken. Not here: the content of the buffers.
//! Next: `buffer`.

use crate::sync::{AtomicU64, Ordering, fence};

const IDLE: u64 = 0;

/// The state that says "writing in this epoch"; epochs start at 1, so that it never equals `IDLE`.
const fn busy(epoch: u64) -> u64 {
    epoch
}

/// The shared half of the protocol.
#[derive(Debug)]
pub(crate) struct EpochFlip {
    /// Written by the collector only.
    epoch: AtomicU64,
    /// Written by the writer only.
    state: AtomicU64,
}

/// The collector's half: the epoch whose buffer it waits for.
#[derive(Debug, Default)]
pub(crate) struct CollectorTurn {
    awaited: Option<u64>,
}

impl EpochFlip {
    pub(crate) fn new() -> Self {
        Self { epoch: AtomicU64::new(1), state: AtomicU64::new(IDLE) }
    }

    /// The writer enters. Returns the number of the buffer that it owns until [`EpochFlip::leave`]. There is one writer only.
    pub(crate) fn enter(&self) -> usize {
        let mut epoch = self.epoch.load(Ordering::Relaxed);
        loop {
            self.state.store(busy(epoch), Ordering::Release);
            fence(Ordering::SeqCst);
            // Acquire: the collector has zeroed the buffer before it published this epoch.
            let now = self.epoch.load(Ordering::Acquire);
            if now == epoch {
                return (epoch & 1) as usize;
            }
            epoch = now;
        }
    }

    /// The writer leaves. All its writes happen before.
    pub(crate) fn leave(&self) {
        self.state.store(IDLE, Ordering::Release);
    }

    /// The collector takes a buffer. Returns the number of a buffer that it owns until the next call, or `None` if the writer still
    /// uses it. There is one collector only.
    pub(crate) fn take(&self, turn: &mut CollectorTurn) -> Option<usize> {
        let epoch = turn.awaited.unwrap_or_else(|| {
            let epoch = self.epoch.load(Ordering::Relaxed);
            self.epoch.store(epoch + 1, Ordering::Release);
            fence(Ordering::SeqCst);
            epoch
        });
        turn.awaited = Some(epoch);
        // Acquire: the writer's counts in the old buffer happen before it leaves or announces the next epoch.
        if self.state.load(Ordering::Acquire) == busy(epoch) {
            return None;
        }
        turn.awaited = None;
        Some((epoch & 1) as usize)
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::thread;

    /// Counters as in a real buffer: plain loads and stores, so that any access the protocol does not order loses or
    /// doubles a count in some interleaving that loom tries.
    struct Shared {
        flip: EpochFlip,
        counts: [AtomicU64; 2],
    }

    fn shared() -> Arc<Shared> {
        Arc::new(Shared { flip: EpochFlip::new(), counts: [AtomicU64::new(0), AtomicU64::new(0)] })
    }

    fn bump(shared: &Shared, buffer: usize) {
        let count = shared.counts[buffer].load(Ordering::Relaxed);
        shared.counts[buffer].store(count + 1, Ordering::Relaxed);
    }

    fn drain(shared: &Shared, buffer: usize) -> u64 {
        let count = shared.counts[buffer].load(Ordering::Relaxed);
        shared.counts[buffer].store(0, Ordering::Relaxed);
        count
    }

    fn collect(shared: &Shared, turn: &mut CollectorTurn) -> u64 {
        shared.flip.take(turn).map_or(0, |buffer| drain(shared, buffer))
    }

    fn run(writes: u64, collections: usize) {
        let shared = shared();
        let writer = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                for _ in 0..writes {
                    let buffer = shared.flip.enter();
                    bump(&shared, buffer);
                    shared.flip.leave();
                }
            })
        };
        let mut turn = CollectorTurn::default();
        let mut seen = 0;
        for _ in 0..collections {
            seen += collect(&shared, &mut turn);
        }
        writer.join().unwrap();
        // The writer is gone: two more turns empty both buffers.
        seen += collect(&shared, &mut turn);
        seen += collect(&shared, &mut turn);
        assert_eq!(seen, writes);
    }

    #[test]
    fn no_count_is_lost_or_doubled_in_any_order() {
        loom::model(|| run(2, 2));
    }

    #[test]
    fn three_flips_against_one_write() {
        loom::model(|| run(1, 3));
    }
}
