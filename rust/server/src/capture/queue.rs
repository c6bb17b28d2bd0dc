//! The queue to the writer: bounded by count and by bytes. What does not fit is dropped and counted.
//!
//! IO threads push without a lock and wake nobody: the writer looks for requests every few milliseconds while a version is captured.
//!
//! Next: `writer`.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;
use headgate_capture::counters::{CaptureCounters, DropReason};
use headgate_capture::row::RowFacts;
use headgate_capture::store::CaptureTarget;
use headgate_engine::Instant;

use crate::copied_run::CopiedRun;

/// The most requests that wait to be written.
const MAX_REQUESTS: usize = 1024;
/// The most bytes that they keep in memory.
const MAX_BYTES: usize = 64 << 20;
/// How long requests wait for a writer that takes none, because its disk hangs: they hold memory, and some the sessions of their models.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// Where the requests of one version go.
pub struct CaptureDestination {
    /// Their files.
    pub target: CaptureTarget,
    /// The counters of the endpoint.
    pub counters: Arc<CaptureCounters>,
}

/// A request on its way into a file.
pub struct CapturedRequest {
    /// Where it goes.
    pub destination: Arc<CaptureDestination>,
    /// What is known of it.
    pub facts: RowFacts,
    /// Its tensors; none if they were lost.
    pub run: Option<Arc<CopiedRun>>,
}

/// A request in the queue, with its share of the bytes, which are counted until it is dropped.
pub struct QueuedRequest {
    /// The request.
    pub request: CapturedRequest,
    _share: QueuedBytes,
}

/// The share of a request in the bytes of the queue.
struct QueuedBytes {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl Drop for QueuedBytes {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

/// The queue.
pub struct CaptureQueue {
    items: ArrayQueue<QueuedRequest>,
    bytes: Arc<AtomicUsize>,
    /// The requests that the writer took so far.
    taken: AtomicU64,
    /// What `taken` was at the last change that a check saw, and when that check was.
    progress: Mutex<Option<(u64, Instant)>>,
    /// The writer, once it runs.
    writer: OnceLock<Thread>,
}

impl Default for CaptureQueue {
    fn default() -> CaptureQueue {
        CaptureQueue {
            items: ArrayQueue::new(MAX_REQUESTS),
            bytes: Arc::default(),
            taken: AtomicU64::new(0),
            progress: Mutex::default(),
            writer: OnceLock::new(),
        }
    }
}

impl CaptureQueue {
    /// Hands a request over. Never waits.
    pub fn offer(&self, request: CapturedRequest) {
        let bytes = request.run.as_ref().map_or(0, |run| run.bytes);
        let share = match self.reserve(bytes) {
            Ok(share) => share,
            Err(reason) => return request.destination.counters.drop_rows(reason, 1),
        };
        if let Err(refused) = self.items.push(QueuedRequest { request, _share: share }) {
            refused.request.destination.counters.drop_rows(DropReason::QueueFull, 1);
        }
    }

    /// Takes a share of the bytes, if there is room for it.
    fn reserve(&self, bytes: usize) -> Result<QueuedBytes, DropReason> {
        if bytes > MAX_BYTES {
            return Err(DropReason::TooLarge);
        }
        // Taken before it is looked at, so that requests of several threads never exceed the bound together.
        let before = self.bytes.fetch_add(bytes, Relaxed);
        let share = QueuedBytes { all: self.bytes.clone(), bytes };
        if before + bytes > MAX_BYTES { Err(DropReason::QueueFull) } else { Ok(share) }
    }

    /// Takes the oldest request. Only the writer does.
    pub fn take(&self) -> Option<QueuedRequest> {
        let taken = self.items.pop()?;
        self.taken.fetch_add(1, Relaxed);
        Some(taken)
    }

    /// Counts what waits as dropped.
    pub fn drop_rest(&self, reason: DropReason) {
        while let Some(QueuedRequest { request, .. }) = self.items.pop() {
            request.destination.counters.drop_rows(reason, 1);
        }
    }

    /// Drops what waits if the writer has taken nothing for too long. Another thread than the writer asks.
    pub fn check(&self, now: Instant) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = self.taken.load(Relaxed);
        let since = progress.filter(|(before, _)| *before == taken && !self.items.is_empty());
        let Some((_, since)) = since else {
            *progress = Some((taken, now));
            return;
        };
        if now.saturating_duration_since(since) >= MAX_WAIT {
            *progress = Some((taken, now));
            self.drop_rest(DropReason::Late);
        }
    }

    /// Makes the current thread the one that [`CaptureQueue::wake`] wakes.
    pub fn set_writer(&self) {
        // The first writer is the only one.
        let _ = self.writer.set(std::thread::current());
    }

    /// Wakes the writer. No IO thread does.
    pub fn wake(&self) {
        if let Some(writer) = self.writer.get() {
            writer.unpark();
        }
    }

    /// Requests that wait.
    pub fn length(&self) -> usize {
        self.items.len()
    }

    /// The bytes that they, and the one that is written, keep in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use headgate_capture::layout::{FileLayout, VersionIdentity};
    use headgate_capture::store::Retention;
    use headgate_core::tensor::Signature;

    use super::*;

    fn destination() -> Arc<CaptureDestination> {
        let version = VersionIdentity { endpoint: "e".into(), version: "v".into(), digest: "d".into() };
        let layout = FileLayout::new(version, &Signature::default(), &BTreeMap::new(), &[]);
        let retention = Retention { keep_ms: 1, max_bytes: 1 };
        let target = CaptureTarget { layout: Arc::new(layout), retention };
        Arc::new(CaptureDestination { target, counters: Arc::default() })
    }

    fn request(destination: &Arc<CaptureDestination>) -> CapturedRequest {
        let facts = RowFacts {
            time_us: 0,
            request: 0,
            revision: 0,
            unit: None,
            reason: "drawn",
            rule: None,
            code: "backend_failed",
            run_ns: None,
            total_ns: 0,
        };
        CapturedRequest { destination: destination.clone(), facts, run: None }
    }

    #[test]
    fn the_newest_are_dropped_and_counted() {
        let (queue, destination) = (CaptureQueue::default(), destination());
        (0..MAX_REQUESTS + 7).for_each(|_| queue.offer(request(&destination)));
        assert_eq!(queue.length(), MAX_REQUESTS);
        assert_eq!(destination.counters.dropped(DropReason::QueueFull), 7);
        assert!(queue.take().is_some());
        queue.offer(request(&destination));
        assert_eq!(destination.counters.dropped(DropReason::QueueFull), 7);
        queue.drop_rest(DropReason::Stopped);
        assert_eq!(destination.counters.dropped(DropReason::Stopped), MAX_REQUESTS as u64);
        assert!(queue.length() == 0 && queue.take().is_none());
    }

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let queue = CaptureQueue::default();
        assert!(matches!(queue.reserve(MAX_BYTES + 1), Err(DropReason::TooLarge)));
        let most = queue.reserve(MAX_BYTES - 1).unwrap_or_else(|_| unreachable!("there is room"));
        assert!(queue.reserve(1).is_ok());
        assert!(matches!(queue.reserve(2), Err(DropReason::QueueFull)));
        assert_eq!(queue.bytes(), MAX_BYTES - 1);
        drop(most);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn the_bytes_of_a_request_are_counted_until_it_is_written() {
        let (queue, destination) = (CaptureQueue::default(), destination());
        let _share = queue.reserve(7).unwrap_or_else(|_| unreachable!("there is room"));
        let queued = QueuedRequest { request: request(&destination), _share };
        assert!(queue.items.push(queued).is_ok());
        let taken = queue.take().unwrap();
        assert_eq!((queue.length(), queue.bytes()), (0, 7));
        drop(taken);
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn requests_do_not_wait_for_a_writer_that_takes_none() {
        let (queue, destination) = (CaptureQueue::default(), destination());
        let late = || destination.counters.dropped(DropReason::Late);
        let begun = Instant::now();
        let check = |seconds| queue.check(begun + Duration::from_secs(seconds));
        check(0);
        // Nothing waited until now.
        check(100);
        (0..3).for_each(|_| queue.offer(request(&destination)));
        check(129);
        assert!(late() == 0 && queue.take().is_some());
        // The writer took one in between.
        check(130);
        check(159);
        assert_eq!((late(), queue.length()), (0, 2));
        check(160);
        assert_eq!((late(), queue.length(), Arc::strong_count(&destination)), (2, 0, 1));
        // The next ones wait as long.
        queue.offer(request(&destination));
        check(189);
        assert_eq!(late(), 2);
        check(190);
        assert_eq!(late(), 3);
    }
}
