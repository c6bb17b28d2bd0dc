//! Sends messages to IO threads for code that does not know them: the pool, and the publisher.

use std::sync::Arc;

use headgate_engine::Batch;

use crate::serving::publisher::SnapshotRefresher;
use crate::thread::io::{IoMessage, Mailbox};

/// Has every IO thread look at the snapshot.
pub fn snapshot_refresher(threads: Vec<Mailbox>) -> SnapshotRefresher {
    Box::new(move || {
        for thread in &threads {
            // A full mailbox means a busy thread, which looks at the snapshot anyway.
            thread.post(IoMessage::Refresh);
        }
    })
}

/// Tells IO threads that a batch has run.
pub struct MailboxWaker(pub Vec<Mailbox>);

impl headgate_engine::BatchWaker for MailboxWaker {
    fn wake_thread(&self, thread: usize, batch: Arc<Batch>) -> bool {
        self.0.get(thread).is_some_and(|mailbox| mailbox.post(IoMessage::BatchDone(batch)))
    }
}
