//! What a thread writes down of each request while a run lasts, and how others read it meanwhile.
//!
//! The memory of an open loop is there before the first request: a thread that sends never waits for pages. A closed loop takes it in
//! segments. Readers see a request once it is settled, and [`collect`] puts the requests of all threads in the order of their due times.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicUsize, Ordering};

use crate::memory;
use crate::records::{Outcome, Record, Records, SLOWER_THAN_ANY};

/// Rows of a segment.
const SEGMENT_ROWS: usize = 1 << 14;
/// Segments that are given up before their memory goes back to the system: 20 MB.
const TRIM_SEGMENTS: usize = 128;
/// The outcome of a request that is in flight.
const PENDING: u8 = u8::MAX;

struct Segment {
    due_us: Box<[AtomicU32]>,
    response: Box<[AtomicU16]>,
    service: Box<[AtomicU16]>,
    outcome: Box<[AtomicU8]>,
    kind: Box<[AtomicU8]>,
}

impl Segment {
    /// Writes every entry, so that the pages are there.
    fn new(rows: usize) -> Segment {
        let column = || (0..rows).map(|_| AtomicU16::new(SLOWER_THAN_ANY)).collect();
        Segment {
            due_us: (0..rows).map(|_| AtomicU32::new(0)).collect(),
            response: column(),
            service: column(),
            outcome: (0..rows).map(|_| AtomicU8::new(PENDING)).collect(),
            kind: (0..rows).map(|_| AtomicU8::new(0)).collect(),
        }
    }
}

/// The rows of one thread, in the order of their due times.
pub(crate) struct Ledger {
    segments: Vec<OnceLock<Segment>>,
    rows: usize,
    begun: AtomicUsize,
    /// Below this row everything is settled; a reader moves it.
    settled: AtomicUsize,
}

/// What became of a request, as a thread writes it down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    pub(crate) outcome: Outcome,
    pub(crate) response: u16,
    pub(crate) service: u16,
}

/// Whether the memory of a ledger is there from the beginning.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Now,
    WhenNeeded,
}

impl Ledger {
    /// A ledger with room for `rows`.
    pub(crate) fn new(rows: usize, memory: Memory) -> Ledger {
        let segments: Vec<OnceLock<Segment>> =
            (0..rows.div_ceil(SEGMENT_ROWS)).map(|_| OnceLock::new()).collect();
        let ledger = Ledger { segments, rows, begun: AtomicUsize::new(0), settled: AtomicUsize::new(0) };
        if memory == Memory::Now {
            for at in 0..ledger.segments.len() {
                ledger.segment(at);
            }
        }
        ledger
    }

    fn segment(&self, at: usize) -> &Segment {
        let rows = (self.rows - at * SEGMENT_ROWS).min(SEGMENT_ROWS);
        self.segments[at].get_or_init(|| Segment::new(rows))
    }

    /// The row of a request that is due; `None` if the ledger is full. Only one thread may call this.
    pub(crate) fn begin(&self, due_us: u32, kind: u8) -> Option<u32> {
        let row = self.begun.load(Ordering::Relaxed);
        if row >= self.rows {
            return None;
        }
        let (segment, at) = (self.segment(row / SEGMENT_ROWS), row % SEGMENT_ROWS);
        segment.due_us[at].store(due_us, Ordering::Relaxed);
        segment.kind[at].store(kind, Ordering::Relaxed);
        self.begun.store(row + 1, Ordering::Release);
        // A plan allows at most 2^31 records.
        Some(row as u32)
    }

    /// Settles a row. A second call replaces the first: a comparison of answers may come later.
    pub(crate) fn end(&self, row: u32, ending: Ending) {
        let (segment, at) = (self.segment(row as usize / SEGMENT_ROWS), row as usize % SEGMENT_ROWS);
        segment.response[at].store(ending.response, Ordering::Relaxed);
        segment.service[at].store(ending.service, Ordering::Relaxed);
        segment.outcome[at].store(ending.outcome as u8, Ordering::Release);
    }

    /// The number of requests that were due.
    pub(crate) fn begun(&self) -> usize {
        self.begun.load(Ordering::Acquire)
    }

    fn due_us(&self, row: usize) -> u32 {
        self.segment(row / SEGMENT_ROWS).due_us[row % SEGMENT_ROWS].load(Ordering::Relaxed)
    }

    /// A settled row; `None` for one that is in flight.
    fn record(&self, row: usize) -> Option<Record> {
        let (segment, at) = (self.segment(row / SEGMENT_ROWS), row % SEGMENT_ROWS);
        let outcome = outcome_of(segment.outcome[at].load(Ordering::Acquire))?;
        Some(Record {
            due_us: segment.due_us[at].load(Ordering::Relaxed),
            response: segment.response[at].load(Ordering::Relaxed),
            service: segment.service[at].load(Ordering::Relaxed),
            outcome,
            kind: segment.kind[at].load(Ordering::Relaxed),
        })
    }

    /// The first row that is not settled, or the number of rows.
    fn first_pending(&self) -> usize {
        let begun = self.begun();
        let from = self.settled.load(Ordering::Relaxed);
        let first = (from..begun).find(|&row| self.record(row).is_none()).unwrap_or(begun);
        self.settled.fetch_max(first, Ordering::Relaxed);
        first
    }

    /// The number of the first `rows` rows that are due before a time.
    fn rows_before(&self, due_us: u32, rows: usize) -> usize {
        let (mut low, mut high) = (0, rows);
        while low < high {
            let middle = usize::midpoint(low, high);
            if self.due_us(middle) < due_us { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Gives the memory of a segment back; its rows are gone.
    fn forget(&mut self, segment: usize) {
        self.segments[segment].take();
    }
}

fn outcome_of(number: u8) -> Option<Outcome> {
    [Outcome::Good, Outcome::Shed, Outcome::Failed, Outcome::TimedOut, Outcome::Unsent]
        .into_iter()
        .find(|outcome| *outcome as u8 == number)
}

/// The requests of all threads up to the first that is not settled, in the order of their due times; of more than `most` the newest.
///
/// Fast answers are not counted before slow ones that were due earlier: that would make a server look faster than it is. `running`
/// says of each thread whether it may still begin requests.
pub(crate) fn collect(ledgers: &[(&Ledger, bool)], most: usize) -> Records {
    let mut ends: Vec<usize> = ledgers.iter().map(|(ledger, _)| ledger.first_pending()).collect();
    let horizon_us = ledgers.iter().zip(&ends).filter_map(|(&(ledger, running), &end)| {
        if end < ledger.begun() {
            Some(ledger.due_us(end))
        } else if running {
            Some(end.checked_sub(1).map_or(0, |last| ledger.due_us(last)))
        } else {
            None
        }
    });
    if let Some(horizon_us) = horizon_us.min() {
        for ((ledger, _), end) in ledgers.iter().zip(&mut ends) {
            *end = ledger.rows_before(horizon_us, *end);
        }
    }
    let skipped = ends.iter().sum::<usize>().saturating_sub(most);
    let mut records = Records::with_capacity(ends.iter().sum::<usize>() - skipped);
    let mut next = vec![0; ends.len()];
    let mut seen = 0;
    while let Some((thread, row)) = earliest(&next, &ends, |thread, row| ledgers[thread].0.due_us(row)) {
        next[thread] += 1;
        seen += 1;
        if seen > skipped
            && let Some(record) = ledgers[thread].0.record(row)
        {
            records.push(record);
        }
    }
    records
}

/// All requests of threads that have ended. The memory of each segment is given back as soon as it is read, so that there is never twice
/// as much of it.
pub(crate) fn into_records(mut ledgers: Vec<Ledger>) -> Records {
    let ends: Vec<usize> = ledgers.iter().map(Ledger::begun).collect();
    let mut records = Records::with_capacity(ends.iter().sum());
    let (mut next, mut forgotten) = (vec![0; ends.len()], 0usize);
    while let Some((thread, row)) = earliest(&next, &ends, |thread, row| ledgers[thread].due_us(row)) {
        next[thread] += 1;
        if let Some(record) = ledgers[thread].record(row) {
            records.push(record);
        }
        if next[thread].is_multiple_of(SEGMENT_ROWS) {
            ledgers[thread].forget(row / SEGMENT_ROWS);
            forgotten += 1;
            if forgotten.is_multiple_of(TRIM_SEGMENTS) {
                memory::trim();
            }
        }
    }
    drop(ledgers);
    memory::trim();
    records
}

/// The thread and row with the earliest due time among the next rows of all threads.
fn earliest(next: &[usize], ends: &[usize], due_us: impl Fn(usize, usize) -> u32) -> Option<(usize, usize)> {
    let left = next.iter().zip(ends).enumerate().filter(|(_, (next, end))| next < end);
    left.map(|(thread, (&row, _))| (due_us(thread, row), thread, row))
        .min()
        .map(|(_, thread, row)| (thread, row))
}

#[cfg(test)]
mod tests;
