//! Buffers that an IO thread keeps for a model's next requests.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use headgate_runtime::Binding;

/// How many are kept at most, and what they may hold together, in bytes.
const MAX_BUFFERS: usize = 32;
const MAX_BYTES: usize = 16 << 20;

/// The buffers of one thread and one model. Any thread may give them back.
pub(crate) struct BufferPool {
    bindings: ArrayQueue<Box<Binding>>,
    bytes: AtomicUsize,
}

impl BufferPool {
    /// Nothing yet.
    pub(crate) fn new() -> BufferPool {
        BufferPool { bindings: ArrayQueue::new(MAX_BUFFERS), bytes: AtomicUsize::new(0) }
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
        if self.bytes.fetch_add(bytes, Relaxed) + bytes > MAX_BYTES || self.bindings.push(binding).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
