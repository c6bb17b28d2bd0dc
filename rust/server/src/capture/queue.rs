//! The queue to the writer: bounded by count and by bytes. What does not fit is dropped and counted.
//!
//! Next: `writer`.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use headgate_capture::counters::{CaptureCounters, DropReason};
use headgate_capture::row::RowFacts;
use headgate_capture::store::CaptureTarget;

use crate::copied_run::CopiedRun;

/// The most requests that wait to be written.
const MAX_REQUESTS: usize = 1024;
/// The most bytes that they keep in memory.
const MAX_BYTES: usize = 64 << 20;

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

enum Message {
    Request(CapturedRequest, QueuedBytes),
    /// Wakes the writer.
    Wake,
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

/// The end of the queue that requests see.
pub struct CaptureQueue {
    sender: Sender<Message>,
    bytes: Arc<AtomicUsize>,
}

/// The writer's end.
pub struct CaptureReceiver(Receiver<Message>);

/// What the writer got.
pub enum Received {
    /// A request.
    Request(Box<CapturedRequest>),
    /// Nothing in that time, or only a wake.
    Nothing,
    /// Nothing can come any more.
    Closed,
}

impl CaptureQueue {
    /// A queue with its two ends.
    pub fn new() -> (CaptureQueue, CaptureReceiver) {
        let (sender, receiver) = bounded(MAX_REQUESTS);
        (CaptureQueue { sender, bytes: Arc::default() }, CaptureReceiver(receiver))
    }

    /// Hands a request over. Never waits.
    pub fn offer(&self, request: CapturedRequest) {
        let counters = request.destination.counters.clone();
        let bytes = request.run.as_ref().map_or(0, |run| run.bytes);
        let queued = self.reserve(bytes).and_then(|share| {
            self.sender.try_send(Message::Request(request, share)).map_err(|_| DropReason::QueueFull)
        });
        if let Err(reason) = queued {
            counters.drop_rows(reason, 1);
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

    /// Wakes the writer. One that finds the queue full is awake.
    pub fn wake(&self) {
        drop(self.sender.try_send(Message::Wake));
    }

    /// Requests that wait.
    pub fn length(&self) -> usize {
        self.sender.len()
    }

    /// The bytes that they keep in memory.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Relaxed)
    }
}

impl CaptureReceiver {
    /// Waits for a request.
    pub fn receive(&self, wait: Duration) -> Received {
        match self.0.recv_timeout(wait) {
            Ok(Message::Request(request, _share)) => Received::Request(Box::new(request)),
            Ok(Message::Wake) | Err(RecvTimeoutError::Timeout) => Received::Nothing,
            Err(RecvTimeoutError::Disconnected) => Received::Closed,
        }
    }

    /// Counts what waits as dropped.
    pub fn drop_rest(&self) {
        for message in self.0.try_iter() {
            if let Message::Request(request, _) = message {
                request.destination.counters.drop_rows(DropReason::Stopped, 1);
            }
        }
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
        let (queue, receiver) = CaptureQueue::new();
        let destination = destination();
        (0..MAX_REQUESTS + 7).for_each(|_| queue.offer(request(&destination)));
        assert_eq!(queue.length(), MAX_REQUESTS);
        assert_eq!(destination.counters.dropped(DropReason::QueueFull), 7);
        assert!(matches!(receiver.receive(Duration::ZERO), Received::Request(_)));
        queue.offer(request(&destination));
        assert_eq!(destination.counters.dropped(DropReason::QueueFull), 7);
        // A full queue needs no wake.
        queue.wake();
        receiver.drop_rest();
        assert_eq!(destination.counters.dropped(DropReason::Stopped), MAX_REQUESTS as u64);
        assert_eq!(queue.length(), 0);
        drop(queue);
        assert!(matches!(receiver.receive(Duration::ZERO), Received::Closed));
    }

    #[test]
    fn bytes_are_bounded_and_come_back() {
        let (queue, _receiver) = CaptureQueue::new();
        assert!(matches!(queue.reserve(MAX_BYTES + 1), Err(DropReason::TooLarge)));
        let most = queue.reserve(MAX_BYTES - 1).unwrap_or_else(|_| unreachable!("there is room"));
        assert!(queue.reserve(1).is_ok());
        assert!(matches!(queue.reserve(2), Err(DropReason::QueueFull)));
        assert_eq!(queue.bytes(), MAX_BYTES - 1);
        drop(most);
        assert_eq!(queue.bytes(), 0);
    }
}
