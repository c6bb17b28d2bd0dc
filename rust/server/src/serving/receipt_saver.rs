//! When it is written which receipts were used: every few ticks, by a thread of its own, so that a disk that hangs holds up nothing else.
//!
//! Not here: what is written (the room `feedback`), the ticks (`background`).

use std::thread::JoinHandle;

/// The ticks from one write to the next.
const TICKS: u64 = 5;

/// The thread that writes, from tick to tick.
#[derive(Default)]
pub struct ReceiptSaver {
    /// The ticks since the last write began.
    ticks: u64,
    saving: Option<JoinHandle<()>>,
}

impl ReceiptSaver {
    /// One more tick. Begins `write` on a thread, if it is time and the thread before it is over; else a later tick does.
    pub fn tick(&mut self, write: impl FnOnce() + Send + 'static) {
        self.ticks += 1;
        let is_saving = self.saving.as_ref().is_some_and(|thread| !thread.is_finished());
        if self.ticks < TICKS || is_saving {
            return;
        }
        let thread = std::thread::Builder::new().name("headgate-receipts".to_owned());
        self.saving = thread.spawn(write).ok();
        // Without a thread the next tick tries again.
        if self.saving.is_some() {
            self.ticks = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// A write that says that it has begun, and waits until it may go on.
    fn held(begun: &Sender<()>, go: Receiver<()>) -> impl FnOnce() + Send + 'static {
        let begun = begun.clone();
        move || {
            begun.send(()).unwrap();
            go.recv().unwrap();
        }
    }

    fn wait_until_over(saver: &ReceiptSaver) {
        while saver.saving.as_ref().is_some_and(|thread| !thread.is_finished()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn every_fifth_tick_writes() {
        let (begun, writes) = channel();
        let mut saver = ReceiptSaver::default();
        for tick in 1..=15u64 {
            let begun = begun.clone();
            saver.tick(move || begun.send(tick).unwrap());
            wait_until_over(&saver);
        }
        drop(begun);
        assert_eq!(writes.iter().collect::<Vec<_>>(), [5, 10, 15]);
    }

    #[test]
    fn a_write_that_hangs_holds_up_no_tick_and_no_other_one_begins() {
        let writer = |saver: &ReceiptSaver| saver.saving.as_ref().map(|thread| thread.thread().id());
        let (begun, has_begun) = channel();
        let (go, may_go) = channel();
        let mut saver = ReceiptSaver::default();
        (1..TICKS).for_each(|_| saver.tick(|| ()));
        assert_eq!(writer(&saver), None);
        saver.tick(held(&begun, may_go));
        has_begun.recv().unwrap();
        let hanging = writer(&saver);
        // These return although the disk hangs.
        for _ in 0..3 * TICKS {
            saver.tick(|| ());
            assert_eq!(writer(&saver), hanging);
        }
        go.send(()).unwrap();
        wait_until_over(&saver);
        // What is overdue begins with the next tick.
        saver.tick(|| ());
        assert_ne!(writer(&saver), hanging);
        saver.saving.take().unwrap().join().unwrap();
    }

    #[test]
    fn a_write_that_panics_is_not_the_last_one() {
        let mut saver = ReceiptSaver::default();
        (0..TICKS).for_each(|_| saver.tick(|| panic!("a defect, on purpose")));
        assert!(saver.saving.take().unwrap().join().is_err());
        let (begun, has_begun) = channel();
        for _ in 0..TICKS {
            let begun = begun.clone();
            saver.tick(move || begun.send(()).unwrap());
        }
        drop(begun);
        has_begun.recv().unwrap();
    }
}
