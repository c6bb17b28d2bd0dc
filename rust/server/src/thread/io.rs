//! The state of an IO thread, which only that thread touches, and the mailbox by which other threads reach it.
//!
//! A connection holds the state of its thread ([`current`]) and hands it down to what its requests pass. What is not called from there,
//! such as the end of a buffer, reaches for it ([`with`]), which costs a look-up. Next: `io_thread`.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use arc_swap::Cache;
use headgate_core::error::Result;
use headgate_core::snapshot::{Refusals, Snapshot};
use headgate_engine::Batch;
use headgate_engine::Instant;
use tokio::sync::{mpsc, oneshot};

use crate::reply_fields::ReplyField;
use crate::serving::shared::{LiveEndpoint, Shared, SnapshotCell};
use crate::serving::version::VersionState;
use crate::thread::free_list::FreeList;

/// The most messages that wait for an IO thread. Sockets beyond that are closed at once.
const MAILBOX_CAPACITY: usize = 1024;

/// How long before requests are cut off no more are begun, so that their clients can still be told.
const CUT_OFF_MARGIN: Duration = Duration::from_millis(250);

const ON_IO_THREADS: &str = "phases of a request run on IO threads";

/// The state of one IO thread.
pub struct Io {
    /// The number of the thread.
    pub thread: usize,
    /// The state that it shares with other threads.
    pub shared: Arc<Shared>,
    /// Buffers for responses.
    pub replies: FreeList<u8>,
    /// Vectors for the header fields of responses.
    pub fields: FreeList<ReplyField>,
    /// Buffers for bodies that arrive in pieces.
    pub bodies: FreeList<u8>,
    snapshot: RefCell<Cache<SnapshotCell, Arc<Snapshot<VersionState>>>>,
    /// The endpoint that was found last, and the generation of its snapshot: mostly the next request is for it too.
    found: RefCell<Option<(u64, Arc<LiveEndpoint>)>>,
    random: Cell<u64>,
}

thread_local! {
    static IO: OnceCell<Rc<Io>> = const { OnceCell::new() };
}

/// This IO thread's state, for a caller that keeps it.
///
/// # Panics
/// On any other thread.
pub fn current() -> Rc<Io> {
    IO.with(|io| io.get().expect(ON_IO_THREADS).clone())
}

/// Lends this IO thread's state.
///
/// # Panics
/// On any other thread.
pub fn with<R>(use_it: impl FnOnce(&Io) -> R) -> R {
    IO.with(|io| use_it(io.get().expect(ON_IO_THREADS)))
}

/// As [`with`], but does nothing on any other thread: for buffers that may outlive their thread's work.
pub fn try_with<R>(use_it: impl FnOnce(&Io) -> R) -> Option<R> {
    // Access fails only while the thread's locals are being destroyed. Then there is no state to lend.
    IO.try_with(|io| io.get().map(|io| use_it(io))).ok().flatten()
}

/// Makes the current thread an IO thread.
///
/// # Panics
/// If it is one already.
pub fn install(thread: usize, shared: Arc<Shared>) {
    let io = Io {
        thread,
        replies: FreeList::for_replies(),
        fields: FreeList::for_fields(),
        bodies: FreeList::for_bodies(),
        snapshot: RefCell::new(Cache::new(shared.snapshot.clone())),
        found: RefCell::default(),
        random: Cell::new(seed(thread)),
        shared,
    };
    IO.with(|slot| assert!(slot.set(Rc::new(io)).is_ok(), "a fresh thread is no IO thread yet"));
}

fn seed(thread: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_usize(thread);
    hasher.finish()
}

impl Io {
    /// The endpoint with this name in the current snapshot. A request keeps it to its end.
    ///
    /// # Errors
    /// `model_not_found`.
    pub fn endpoint(&self, name: &str) -> Result<Arc<LiveEndpoint>> {
        let mut cache = self.snapshot.borrow_mut();
        let snapshot = cache.load();
        let mut found = self.found.borrow_mut();
        if let Some((generation, endpoint)) = &*found
            && *generation == snapshot.generation
            && *endpoint.name == *name
        {
            return Ok(endpoint.clone());
        }
        let endpoint = snapshot.endpoint(name)?;
        *found = Some((snapshot.generation, endpoint.clone()));
        Ok(endpoint.clone())
    }

    /// The endpoints that were served before and are not now, with the reasons, by name.
    pub fn unavailable(&self) -> Vec<(String, String)> {
        let mut cache = self.snapshot.borrow_mut();
        let unavailable = cache.load().unavailable.iter();
        let mut unavailable: Vec<_> =
            unavailable.map(|(name, reason)| (name.to_string(), reason.to_string())).collect();
        unavailable.sort();
        unavailable
    }

    /// The endpoints and versions that were never served, with the reasons.
    pub fn refusals(&self) -> Arc<Refusals> {
        self.snapshot.borrow_mut().load().refusals.clone()
    }

    /// Every endpoint that is served, by name.
    pub fn endpoints(&self) -> Vec<Arc<LiveEndpoint>> {
        let mut endpoints: Vec<_> = self.snapshot.borrow_mut().load().endpoints.values().cloned().collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }

    /// The endpoint and version of everything that was taken out of memory.
    pub fn unloaded(&self) -> Vec<(String, String)> {
        let mut cache = self.snapshot.borrow_mut();
        let specs = cache.load().unloaded.values();
        let versions = specs
            .flat_map(|spec| spec.versions.iter().map(|version| (spec.name.clone(), version.name.clone())));
        let mut versions: Vec<_> = versions.collect();
        versions.sort();
        versions
    }

    /// Drops the old snapshot, and returns the ids of the sketches of the current one.
    pub fn refresh(&self) -> HashSet<u64> {
        self.found.take();
        sketched(self.snapshot.borrow_mut().load()).collect()
    }

    /// Whether the sketches with this id are those of a version that is served.
    pub fn is_sketched(&self, id: u64) -> bool {
        sketched(self.snapshot.borrow_mut().load()).any(|live| live == id)
    }

    /// Whether the gateway is about to stop: an answer then says that it is its connection's last.
    pub fn is_draining(&self) -> bool {
        self.shared.draining.load(Relaxed)
    }

    /// When no more requests are begun, because those in flight are about to be cut off; `None` while that is not known.
    pub fn last_start_at(&self) -> Option<Instant> {
        self.shared.cut_off_at.get()?.checked_sub(CUT_OFF_MARGIN)
    }

    /// A uniform 64-bit draw (splitmix64, Steele, Lea and Flood 2014).
    pub fn draw(&self) -> u64 {
        let state = self.random.get().wrapping_add(0x9E37_79B9_7F4A_7C15);
        self.random.set(state);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// The ids of the sketches of a snapshot.
fn sketched(snapshot: &Snapshot<VersionState>) -> impl Iterator<Item = u64> {
    let versions = snapshot.endpoints.values().flat_map(|endpoint| &endpoint.versions);
    versions.filter_map(|version| Some(version.payload.sketch.as_ref()?.id))
}

/// A message to an IO thread.
pub enum IoMessage {
    /// A socket to serve.
    Socket(TcpStream),
    /// The snapshot has changed. The thread must drop the old one even if no request comes.
    Refresh,
    /// A batch with requests of this thread has run.
    BatchDone(Arc<Batch>),
    /// Close one or more connections that wait for their client, and answer how many.
    MakeRoom(oneshot::Sender<usize>),
    /// Finish the requests in flight and accept no others.
    Close,
}

/// The handle to a running IO thread.
#[derive(Clone)]
pub struct Mailbox {
    sender: mpsc::Sender<IoMessage>,
    /// Connections given to the thread and not yet closed.
    pub connections: Arc<AtomicUsize>,
}

impl Mailbox {
    /// A mailbox and its receiving end.
    pub fn new() -> (Mailbox, mpsc::Receiver<IoMessage>) {
        let (sender, receiver) = mpsc::channel(MAILBOX_CAPACITY);
        (Mailbox { sender, connections: Arc::default() }, receiver)
    }

    /// Sends a message unless the mailbox is full. True if it was sent.
    pub fn post(&self, message: IoMessage) -> bool {
        self.sender.try_send(message).is_ok()
    }

    /// Whether the thread runs and its mailbox has room.
    pub fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.sender.capacity() > 0
    }

    /// Sends [`IoMessage::Close`], and waits until `deadline` for room in the mailbox.
    pub fn close(&self, deadline: Instant) {
        while !self.post(IoMessage::Close) && !self.sender.is_closed() && Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}
