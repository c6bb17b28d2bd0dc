//! The event queue to Python: a bounded queue, and a file descriptor that is readable while the queue has events.
//!
//! Rust never calls Python. The event loop of Python watches the descriptor and drains the queue on its own thread.
#![allow(unsafe_code, reason = "eventfd has no safe wrapper in the standard library")]

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::{Mutex, PoisonError};

use headgate_core::error::{Code, Error, Result};
use serde_json::{Value, json};

/// The most events in the queue. If the control plane does not drain it, the oldest are dropped.
const CAPACITY: usize = 4096;

/// The queue of events for the control plane.
pub struct EventQueue {
    queue: Mutex<QueuedEvents>,
    signal: File,
}

#[derive(Default)]
struct QueuedEvents {
    events: VecDeque<Value>,
    lost: u64,
}

impl EventQueue {
    /// An empty queue.
    ///
    /// # Errors
    /// `internal` if the system gives no descriptor.
    pub fn new() -> Result<EventQueue> {
        // SAFETY: takes no pointers; a negative result is an error and not turned into a File.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            let error = std::io::Error::last_os_error();
            return Err(Error::new(Code::Internal, format!("no event descriptor: {error}")));
        }
        // SAFETY: a new descriptor without another owner.
        let signal = unsafe { File::from_raw_fd(fd) };
        Ok(EventQueue { queue: Mutex::default(), signal })
    }

    /// The descriptor to watch. It belongs to the queue.
    pub fn fd(&self) -> RawFd {
        self.signal.as_raw_fd()
    }

    /// Adds an event and makes the descriptor readable.
    pub fn push(&self, event: Value) {
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.events.len() == CAPACITY {
                queue.events.pop_front();
                queue.lost += 1;
            }
            queue.events.push_back(event);
        }
        // Fails only if the counter is full. Then the descriptor is readable already.
        drop((&self.signal).write(&1u64.to_ne_bytes()));
    }

    /// Takes all events, the oldest first. A first event `lost` says how many were dropped.
    pub fn drain(&self) -> Vec<Value> {
        let mut counter = [0u8; 8];
        // Fails only if nothing was pushed. Then the queue is empty, or another drain has just emptied it.
        drop((&self.signal).read(&mut counter));
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = std::mem::take(&mut queue.lost);
        let first = (lost > 0).then(|| json!({"event": "lost", "count": lost}));
        first.into_iter().chain(queue.events.drain(..)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(events: &EventQueue) -> bool {
        let mut poll = libc::pollfd { fd: events.fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry, no waiting.
        unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
    }

    #[test]
    fn the_descriptor_is_readable_while_there_are_events() {
        let events = EventQueue::new().unwrap();
        assert!(!readable(&events));
        events.push(json!({"n": 1}));
        events.push(json!({"n": 2}));
        assert!(readable(&events));
        assert_eq!(events.drain(), vec![json!({"n": 1}), json!({"n": 2})]);
        assert!(!readable(&events));
        assert!(events.drain().is_empty());
    }

    #[test]
    fn a_full_queue_drops_the_oldest_and_reports_it() {
        let events = EventQueue::new().unwrap();
        for n in 0..CAPACITY + 3 {
            events.push(json!({"n": n}));
        }
        let drained = events.drain();
        assert_eq!(drained[0], json!({"event": "lost", "count": 3}));
        assert_eq!(drained[1], json!({"n": 3}));
        assert_eq!(drained.len(), CAPACITY + 1);
    }
}
