//! The loop of an IO thread: a single-threaded runtime, the thread's connections, and the messages of other threads.
//!
//! The loop passes each message to the room that it is for. Next: `transport::connections`.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use headgate_core::error::Result;
use headgate_engine::Instant;
use tokio::sync::mpsc;

use crate::after::access_log::AccessLog;
use crate::after::thread_state as after;
use crate::call::http::ProtocolService;
use crate::scheduling::{local_runtime, request_short_slices, spawn};
use crate::serving::shared::Shared;
use crate::thread::io::{self, Io, IoMessage, Mailbox};
use crate::transport::connections::Connections;

/// The parts of an IO thread.
pub struct IoThread {
    /// The number of the thread.
    pub number: usize,
    /// The state that it shares with the others.
    pub shared: Arc<Shared>,
    /// The access log, if there is one.
    pub access_log: Option<Arc<AccessLog>>,
    /// The end of its mailbox that other threads send to.
    pub mailbox: Mailbox,
    /// The end of its mailbox that it receives from.
    pub inbox: mpsc::Receiver<IoMessage>,
}

/// Starts IO threads. Each one gives in the end whether every connection ended by itself.
///
/// # Errors
/// `internal` if the system gives no more descriptors or threads; then those that run are told to end.
pub fn start(threads: Vec<IoThread>) -> Result<Vec<JoinHandle<bool>>> {
    let mailboxes: Vec<Mailbox> = threads.iter().map(|thread| thread.mailbox.clone()).collect();
    // A runtime belongs to its thread, so that each thread makes its own and says whether that went well.
    let (made, runtimes) = channel();
    let start_one = |thread: IoThread| {
        let made = made.clone();
        spawn(format!("hg-io-{}", thread.number), move || run(thread, made))
    };
    let started = threads.into_iter().map(start_one).collect::<Result<Vec<_>>>();
    drop(made);
    let are_made = runtimes.iter().collect::<Result<()>>();
    are_made.and(started).inspect_err(|_| {
        for mailbox in &mailboxes {
            mailbox.post(IoMessage::Close);
        }
    })
}

/// Runs an IO thread until it must close and its last connection has ended, or the rest are cut off. True if every connection ended by
/// itself. `made` is told whether there is a runtime.
fn run(thread: IoThread, made: Sender<Result<()>>) -> bool {
    let IoThread { number, shared, access_log, mailbox, inbox } = thread;
    request_short_slices();
    shared.heartbeats[number].bind_to_current_thread();
    let (runtime, result) = match local_runtime() {
        Ok(runtime) => (Some(runtime), Ok(())),
        Err(error) => (None, Err(error)),
    };
    // Fails only if the start has failed already. Then this thread is told to close.
    drop(made.send(result));
    drop(made);
    let Some(runtime) = runtime else { return true };
    io::install(number, shared);
    after::install(access_log);
    let clean = runtime.block_on(serve(inbox, &mailbox));
    // The connections that are left are cut off here, on their own thread.
    drop(runtime);
    clean
}

/// The loop of an IO thread. True if every connection ended by itself.
async fn serve(mut inbox: mpsc::Receiver<IoMessage>, mailbox: &Mailbox) -> bool {
    let connections = Rc::<Connections>::default();
    let handle = |message| io::with(|io| handle(io, message, &connections, mailbox));
    while handle(inbox.recv().await) {}
    connections.close();
    let cut_off = io::with(|io| io.shared.cut_off_at.get().copied()).unwrap_or_else(Instant::now);
    let emptied = async {
        loop {
            tokio::select! {
                () = connections.emptied() => return,
                // Batches that have run still have requests to wake.
                message = inbox.recv() => { handle(message); }
            }
        }
    };
    tokio::time::timeout_at(cut_off.into(), emptied).await.is_ok()
}

/// Handles a message. False for the last one.
fn handle(io: &Io, message: Option<IoMessage>, connections: &Rc<Connections>, mailbox: &Mailbox) -> bool {
    match message {
        Some(IoMessage::Socket(socket)) => {
            connections.serve_socket::<ProtocolService>(io, socket, &mailbox.connections)
        }
        Some(IoMessage::Refresh) => after::retain(&io.refresh()),
        Some(IoMessage::MakeRoom(asker)) => {
            // The acceptor waits no longer if it has asked another thread.
            let _ = asker.send(connections.make_room(io, &mailbox.connections));
        }
        Some(IoMessage::BatchDone(batch)) => batch.wake(io.thread),
        Some(IoMessage::Close) | None => return false,
    }
    true
}
