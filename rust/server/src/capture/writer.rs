//! The thread that writes captured requests to files, at low priority. A disk that hangs holds up this thread alone.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_capture::clock::Now;
use headgate_capture::counters::DropReason;
use headgate_capture::store::CaptureStore;
use headgate_core::error::Result;
use headgate_engine::Instant;
use headgate_engine::join_until;

use crate::capture::queue::CapturedRequest;
use crate::capture::registry::{CaptureRegistry, ChangedRetention};
use crate::capture::row::RowTensors;
use crate::config::Config;
use crate::scheduling::spawn_low_priority;

/// How often the thread looks for requests while a version is captured.
const POLL: Duration = Duration::from_millis(5);
/// How often waiting rows and old files are looked at.
const TICK: Duration = Duration::from_secs(1);
/// The same while no row waits and no file is open.
const REST: Duration = Duration::from_secs(10);
/// What the thread has to end, at least.
const LEAST_GRACE: Duration = Duration::from_millis(250);

/// The thread, before, while and after it runs.
pub struct CaptureWriter {
    /// What is captured.
    pub registry: Arc<CaptureRegistry>,
    /// When it must have ended; set when the gateway stops.
    until: Arc<OnceLock<Instant>>,
    is_started: AtomicBool,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl CaptureWriter {
    /// The writer of a gateway, which is not started yet.
    pub fn new(config: &Config) -> CaptureWriter {
        let registry = Arc::new(CaptureRegistry::new(config));
        CaptureWriter {
            registry,
            until: Arc::default(),
            is_started: AtomicBool::new(false),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread, which recovers what a crash left. Does nothing without a folder.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads.
    pub fn start(&self) -> Result<()> {
        let Some(folder) = self.registry.folder().cloned() else { return Ok(()) };
        if self.is_started.swap(true, Relaxed) {
            return Ok(());
        }
        let (registry, until) = (self.registry.clone(), self.until.clone());
        let thread = spawn_low_priority("hg-capture".to_owned(), move || {
            write(&registry, folder, &until);
        })?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Writes what waits, until `deadline`, and ends the thread. True if that is done by then.
    pub fn stop(&self, deadline: Instant) -> bool {
        let Some(thread) = take(&self.thread) else { return true };
        let deadline = deadline.max(Instant::now() + LEAST_GRACE);
        // Set once, because only the first stop has the thread.
        let _ = self.until.set(deadline);
        self.registry.queue.wake();
        join_until(thread, deadline).is_some()
    }
}

fn write(registry: &CaptureRegistry, folder: PathBuf, until: &OnceLock<Instant>) {
    let queue = &registry.queue;
    queue.set_writer();
    let mut store = CaptureStore::open(folder, registry.max_bytes, registry.counters.clone(), Now::read());
    let mut next_tick = Instant::now() + TICK;
    loop {
        // Asked first: what the last version that is captured had handed over is found then.
        let poll = if registry.is_capturing() { POLL } else { REST };
        match queue.take() {
            Some(queued) => add(&mut store, &queued.request),
            None if until.get().is_some() => break,
            None => std::thread::park_timeout(poll.min(wait_until(next_tick))),
        }
        if until.get().is_some_and(|until| *until <= Instant::now()) {
            break;
        }
        for (endpoint, ChangedRetention { retention, revision }) in registry.take_changed() {
            store.set_retention(&endpoint, retention, revision, Now::read());
        }
        if next_tick <= Instant::now() {
            store.tick(Now::read());
            next_tick = Instant::now() + if store.is_at_rest() { REST } else { TICK };
        }
    }
    queue.drop_rest(DropReason::Stopped);
    store.close(Now::read());
}

fn wait_until(at: Instant) -> Duration {
    at.saturating_duration_since(Instant::now())
}

/// Adds a request. A panic is printed and costs this request.
fn add(store: &mut CaptureStore, request: &CapturedRequest) {
    let destination = &request.destination;
    let added = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| match RowTensors::of(request) {
        Ok(tensors) => store.write(&destination.target, &tensors.row(request.facts.clone()), Now::read()),
        Err(_) => destination.counters.drop_rows(DropReason::Unreadable, 1),
    }));
    if added.is_err() {
        destination.counters.drop_rows(DropReason::Unreadable, 1);
    }
}

fn take<T>(slot: &Mutex<Option<T>>) -> Option<T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner).take()
}
