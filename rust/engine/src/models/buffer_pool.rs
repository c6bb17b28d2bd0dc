//! Buffers that an IO thread keeps for a model's next requests.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use headgate_runtime::Binding;

/// How many are kept at most, and what they may hold together, in bytes.
const MOST: usize = 32;
const MOST_BYTES: usize = 16 << 20;

/// The buffers of one thread and one model. Any thread may give them back.
pub(crate) struct Free {
    bindings: ArrayQueue<Box<Binding>>,
    bytes: AtomicUsize,
}

impl Free {
    /// Nothing yet.
    pub(crate) fn new() -> Free {
        Free { bindings: ArrayQueue::new(MOST), bytes: AtomicUsize::new(0) }
    }

    /// Buffers of an earlier request.
    pub(crate) fn take(&self) -> Option<Box<Binding>> {
        let binding = self.bindings.pop()?;
        self.bytes.fetch_sub(binding.capacity(), Relaxed);
        Some(binding)
    }

    /// Keeps buffers; where enough are kept, these go back to the allocator.
    pub(crate) fn give(&self, binding: Box<Binding>) {
        let bytes = binding.capacity();
        if self.bytes.fetch_add(bytes, Relaxed) + bytes > MOST_BYTES || self.bindings.push(binding).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
