//! The buffers that an IO thread keeps for the next requests to a model.
//!
//! Next: `remote_free_list`.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossbeam_queue::ArrayQueue;
use headgate_runtime::Binding;

use super::remote_free_list::RemoteFreeList;

/// The most buffers that requests give back, and the most bytes that all buffers of a pool hold together.
const MAX_BUFFERS: usize = 32;
const MAX_BYTES: usize = 16 << 20;

/// The buffers that other threads give back: 256 of them. A thread of shadows looks for copies every few milliseconds and gives back those
/// of all requests meanwhile.
type RemoteBuffers = RemoteFreeList<Binding, 4>;

/// The free buffers of one thread and one model. Any thread may give them back.
pub(crate) struct BufferPool {
    /// Each with the bytes that it holds, which do not change in the pool.
    bindings: ArrayQueue<(Box<Binding>, usize)>,
    /// Those that threads of low priority gave back.
    remote: OnceLock<RemoteBuffers>,
    bytes: AtomicUsize,
}

impl BufferPool {
    /// An empty pool.
    pub(crate) fn new() -> BufferPool {
        BufferPool {
            bindings: ArrayQueue::new(MAX_BUFFERS),
            remote: OnceLock::new(),
            bytes: AtomicUsize::new(0),
        }
    }

    /// The buffers of an earlier request, if there are any.
    pub(crate) fn take(&self) -> Option<Box<Binding>> {
        let (binding, bytes) = self.bindings.pop().or_else(|| self.take_remote())?;
        self.bytes.fetch_sub(bytes, Relaxed);
        Some(binding)
    }

    #[cold]
    fn take_remote(&self) -> Option<(Box<Binding>, usize)> {
        let binding = self.remote.get()?.take()?;
        let bytes = binding.capacity();
        Some((binding, bytes))
    }

    /// Keeps buffers for a later request. If enough are kept, these are freed.
    pub(crate) fn give(&self, binding: Box<Binding>) {
        self.keep(binding, |binding, bytes| self.bindings.push((binding, bytes)));
    }

    /// Makes room for buffers that threads of low priority give back.
    pub(crate) fn prepare_remote(&self) {
        self.remote.get_or_init(RemoteFreeList::new);
    }

    /// As [`BufferPool::give`], for threads of low priority: if one is interrupted meanwhile, no other thread waits for it. Without
    /// [`BufferPool::prepare_remote`] the buffers are freed.
    pub(crate) fn give_remote(&self, binding: Box<Binding>) {
        if let Some(remote) = self.remote.get() {
            self.keep(binding, |binding, _| remote.give(binding));
        }
    }

    fn keep<E>(&self, binding: Box<Binding>, give: impl FnOnce(Box<Binding>, usize) -> Result<(), E>) {
        let bytes = binding.capacity();
        // Freed here, on the thread that gives, if there is no room.
        if self.bytes.fetch_add(bytes, Relaxed) + bytes > MAX_BYTES || give(binding, bytes).is_err() {
            self.bytes.fetch_sub(bytes, Relaxed);
        }
    }
}
