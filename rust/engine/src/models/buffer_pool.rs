//! The buffers that an IO thread keeps for the next requests to a model.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use headgate_runtime::Binding;

/// The most buffers that are kept, and the most bytes that they hold together.
const MAX_BUFFERS: usize = 32;
const MAX_BYTES: usize = 16 << 20;

/// The free buffers of one thread and one model. Any thread may give them back.
pub(crate) struct BufferPool {
    bindings: ArrayQueue<Box<Binding>>,
    bytes: AtomicUsize,
}

impl BufferPool {
    /// An empty pool.
    pub(crate) fn new() -> BufferPool {
        BufferPool { bindings: ArrayQueue::new(MAX_BUFFERS), bytes: AtomicUsize::new(0) }
    }

    /// The buffers of an earlier request, if there are any.
    pub(crate) fn take(&self) -> Option<Box<Binding>> {
        let binding = self.bindings.pop()?;
        self.bytes.fetch_sub(binding.capacity(), Relaxed);
        Some(binding)
    }

    /// Keeps buffers for a later request. If enough are kept, these are freed.
    pub(crate) fn give(&self, binding: Box<Binding>) {
        let bytes = binding.capacity();
        if self.bytes.fetch_add(bytes, Relaxed) + bytes > MAX_BYTES || self.bindings.push(binding).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
