//! An IO thread: one single-threaded runtime, the connections it was given, and what only this thread touches.
//!
//! Phases of a request are `Send`, so they reach their thread's state through [`with`], and never across an await.
//! Next: `conn`.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{HashMap, HashSet};
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use arc_swap::{ArcSwap, Cache};
use headgate_core::error::Result;
use headgate_core::snapshot::{Endpoint, Refused, Snapshot};
use headgate_engine::{Batch, Pool};
use http::{HeaderName, HeaderValue};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::access_log::AccessLog;
use crate::budget::{ByteBudget, SmallBudget};
use crate::config::Config;
use crate::conn::{self, Conn};
use crate::fetch::Fetcher;
use crate::guards::Guards;
use crate::metrics::Metrics;
use crate::plain::buffers::Spare;
use crate::publish::Publisher;
use crate::sketching::Sketcher;
use crate::stock::Stock;
use crate::taps::Account;
use crate::tensors::Scratch;
use crate::thread::closed::Reason;
use crate::thread::crowd;
use crate::version::VersionState;
use crate::watchdog::Beat;

/// Messages that may wait for an IO thread; sockets beyond are closed at once.
const MAILBOX: usize = 1024;

/// The snapshot that is served, replaced as a whole.
pub type Live = Arc<ArcSwap<Snapshot<VersionState>>>;

/// An endpoint as requests see it.
pub type LiveEndpoint = Endpoint<VersionState>;

/// What all threads of the data plane share.
pub struct Shared {
    /// Decided once, before the start.
    pub config: Config,
    /// What is served.
    pub snapshot: Live,
    /// What is counted.
    pub metrics: Metrics,
    /// Rates and breakers.
    pub guards: Guards,
    /// Threads for long runs.
    pub pool: Pool,
    /// Who brings models back into memory.
    pub fetcher: Arc<Fetcher>,
    /// Where sampled requests are written down.
    pub access_log: Option<Arc<AccessLog>>,
    /// Memory for large requests in progress.
    pub large: Arc<ByteBudget>,
    /// Memory for small requests in progress.
    pub small: SmallBudget,
    /// Whether the control plane says that start-up is over.
    pub ready: AtomicBool,
    /// Whether nobody accepts connections: the listening sockets could not be used.
    pub deaf: AtomicBool,
    /// Whether the gateway is about to stop.
    pub draining: AtomicBool,
    /// Whether connections have been told to close.
    pub closing: AtomicBool,
    /// When what is still in flight is cut off; set when connections are told to close.
    pub cut_off: OnceLock<Instant>,
    /// One for each IO thread, for the watchdog.
    pub beats: Box<[Beat]>,
    /// When the clock of [`Shared::now_ns`] began.
    pub epoch: Instant,
    /// The same moment in milliseconds since 1970.
    pub epoch_unix_ms: u64,
    /// Moved whenever readiness or what is served changes.
    pub changes: watch::Sender<()>,
    /// Who brings endpoints into memory and takes them out; set once.
    pub publisher: OnceLock<Weak<Publisher>>,
}

impl Shared {
    /// Nanoseconds since the gateway was made.
    pub fn now_ns(&self) -> u64 {
        self.ns_at(Instant::now())
    }

    /// Nanoseconds from then to `at`.
    pub fn ns_at(&self, at: Instant) -> u64 {
        at.saturating_duration_since(self.epoch).as_nanos() as u64
    }

    /// Milliseconds since 1970 at a time of [`Shared::now_ns`]'s clock.
    pub fn unix_ms_at(&self, ns: u64) -> u64 {
        self.epoch_unix_ms + ns / 1_000_000
    }

    /// Serves another snapshot.
    pub fn store(&self, next: Snapshot<VersionState>) {
        self.snapshot.store(Arc::new(next));
        self.changed();
    }

    /// Wakes whoever waits for readiness or for another snapshot.
    pub fn changed(&self) {
        self.changes.send_replace(());
    }

    /// Whether requests are welcome: started, not draining, and every thread that accepts or runs can be had.
    pub fn is_ready(&self) -> bool {
        // Endpoints have no part in it: one that cannot answer must not take traffic from the others.
        let held = self.beats.iter().any(Beat::is_stuck) || self.pool.threads().exhausted;
        self.ready.load(Relaxed) && !self.draining.load(Relaxed) && !held && !self.deaf.load(Relaxed)
    }
}

/// What one IO thread has to itself.
pub struct Io {
    /// The thread's number.
    pub thread: usize,
    /// What it shares.
    pub shared: Arc<Shared>,
    /// Buffers for answers.
    pub replies: Stock<u8>,
    /// Buffers for connections that have a request.
    pub spare: Spare,
    /// Memory for requests that a version was chosen for.
    pub taps: Stock<Account>,
    /// Lists for the header fields of answers.
    pub fields: Stock<(HeaderName, HeaderValue)>,
    /// Buffers for bodies that come in pieces.
    pub bodies: Stock<u8>,
    /// Memory of past requests for the next one; borrowed within one phase at a time.
    pub scratch: RefCell<Scratch>,
    /// This thread's sketches.
    pub sketcher: RefCell<Sketcher>,
    snapshot: RefCell<Cache<Live, Arc<Snapshot<VersionState>>>>,
    random: Cell<u64>,
}

thread_local! {
    static IO: OnceCell<Io> = const { OnceCell::new() };
}

/// Lends this IO thread's state.
///
/// # Panics
/// On any other thread.
pub fn with<R>(use_it: impl FnOnce(&Io) -> R) -> R {
    IO.with(|io| use_it(io.get().expect("phases of a request run on IO threads")))
}

/// As [`with`], but does nothing on any other thread: for buffers that may outlive their thread's work.
pub fn try_with<R>(use_it: impl FnOnce(&Io) -> R) -> Option<R> {
    // Access fails only while the thread's locals are being destroyed, and then there is nobody to give to.
    IO.try_with(|io| io.get().map(use_it)).ok().flatten()
}

/// Whether the gateway is about to stop: an answer then says that it is its connection's last.
pub fn is_draining() -> bool {
    with(|io| io.shared.draining.load(Relaxed))
}

impl Io {
    /// The endpoint of that name in the live snapshot; the caller keeps it to the request's end.
    ///
    /// # Errors
    /// `model_not_found`.
    pub fn endpoint(&self, name: &str) -> Result<Arc<LiveEndpoint>> {
        self.snapshot.borrow_mut().load().endpoint(name).cloned()
    }

    /// Name of everything that is not served though it was before, and why.
    pub fn absent(&self) -> Vec<(String, String)> {
        let mut cache = self.snapshot.borrow_mut();
        let absent = cache.load().absent.iter();
        let mut absent: Vec<_> = absent.map(|(name, why)| (name.to_string(), why.to_string())).collect();
        absent.sort();
        absent
    }

    /// What was never served, and why.
    pub fn refused(&self) -> Arc<Refused> {
        self.snapshot.borrow_mut().load().refused.clone()
    }

    /// Every endpoint that is served, by name.
    pub fn endpoints(&self) -> Vec<Arc<LiveEndpoint>> {
        let mut endpoints: Vec<_> = self.snapshot.borrow_mut().load().endpoints.values().cloned().collect();
        endpoints.sort_by(|a, b| a.name.cmp(&b.name));
        endpoints
    }

    /// Name and version of everything that was taken out of memory.
    pub fn unloaded(&self) -> Vec<(String, String)> {
        let mut cache = self.snapshot.borrow_mut();
        let specs = cache.load().unloaded.values();
        let versions = specs
            .flat_map(|spec| spec.versions.iter().map(|version| (spec.name.clone(), version.name.clone())));
        let mut versions: Vec<_> = versions.collect();
        versions.sort();
        versions
    }

    /// Lets go of the last snapshot and of what only it needed.
    fn refresh(&self) {
        let live: HashSet<u64> = sketched(self.snapshot.borrow_mut().load()).collect();
        self.sketcher.borrow_mut().retain(|id| live.contains(&id));
    }

    /// Whether the sketches with that number are those of a version that is served.
    pub fn is_sketched(&self, id: u64) -> bool {
        sketched(self.snapshot.borrow_mut().load()).any(|live| live == id)
    }

    /// The access log, for a request that it takes.
    pub fn sampled_log(&self) -> Option<&Arc<AccessLog>> {
        self.shared.access_log.as_ref().filter(|log| log.takes(self.draw()))
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

/// The numbers of the sketches of what is served.
fn sketched(snapshot: &Snapshot<VersionState>) -> impl Iterator<Item = u64> {
    let versions = snapshot.endpoints.values().flat_map(|endpoint| &endpoint.versions);
    versions.filter_map(|version| Some(version.payload.sketch.as_ref()?.id))
}

/// What an IO thread is told.
pub enum Message {
    /// A socket to serve.
    Socket(TcpStream),
    /// The snapshot changed: let go of the old one even when no request comes.
    Refresh,
    /// A batch with requests of this thread was run.
    Ran(Arc<Batch>),
    /// Close a connection or a few that can be spared, and say how many.
    MakeRoom(oneshot::Sender<usize>),
    /// Finish what is in flight and take nothing new.
    Close,
}

/// The handle to a running IO thread.
#[derive(Clone)]
pub struct Mailbox {
    sender: mpsc::Sender<Message>,
    /// Connections given to the thread and not yet closed.
    pub connections: Arc<AtomicUsize>,
}

impl Mailbox {
    /// A mailbox and its receiving end.
    pub fn new() -> (Mailbox, mpsc::Receiver<Message>) {
        let (sender, receiver) = mpsc::channel(MAILBOX);
        (Mailbox { sender, connections: Arc::default() }, receiver)
    }

    /// Gives the thread a message unless its mailbox is full; says whether it did.
    pub fn post(&self, message: Message) -> bool {
        self.sender.try_send(message).is_ok()
    }

    /// Whether the thread lives and its mailbox has room.
    pub fn has_room(&self) -> bool {
        !self.sender.is_closed() && self.sender.capacity() > 0
    }

    /// Tells the thread to close, waiting for room in its mailbox until `deadline`.
    pub fn close(&self, deadline: Instant) {
        while !self.post(Message::Close) && !self.sender.is_closed() && Instant::now() < deadline {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// The connections of this thread.
#[derive(Default)]
struct Connections {
    open: RefCell<HashMap<u64, (Rc<Conn>, AbortHandle)>>,
    /// Told when the last one is gone.
    emptied: Notify,
}

impl Connections {
    /// Asks each to end.
    fn close(&self) {
        let now = Instant::now();
        self.open.borrow().values().for_each(|(conn, _)| conn.close(now));
    }

    /// Closes those that can be spared best; how many.
    fn make_room(&self, count: &AtomicUsize) -> usize {
        let mut open = self.open.borrow_mut();
        let gone = crowd::chosen(open.iter().map(|(id, (conn, _))| (*id, &**conn)), Instant::now());
        for task in gone.iter().filter_map(|id| open.remove(id)) {
            // Counted down here and not at the task's end: the next socket is on its way.
            count.fetch_sub(1, Relaxed);
            with(|io| io.shared.metrics.connections_closed.add(Reason::Crowded));
            task.1.abort();
        }
        gone.len()
    }

    /// Waits until the last one is gone.
    async fn emptied(&self) {
        while !self.open.borrow().is_empty() {
            self.emptied.notified().await;
        }
    }
}

/// Runs an IO thread until it is told to close and its last connection is gone, or those that are left are cut off;
/// true when every connection finished by itself.
///
/// # Panics
/// When the calling thread runs one already.
pub fn run(
    thread: usize,
    runtime: &tokio::runtime::Runtime,
    shared: Arc<Shared>,
    mailbox: &Mailbox,
    inbox: mpsc::Receiver<Message>,
) -> bool {
    let io = Io {
        thread,
        replies: Stock::of_replies(),
        spare: Spare::default(),
        taps: Stock::of_taps(),
        fields: Stock::of_fields(),
        bodies: Stock::of_bodies(),
        scratch: RefCell::default(),
        sketcher: RefCell::default(),
        snapshot: RefCell::new(Cache::new(shared.snapshot.clone())),
        random: Cell::new(seed(thread)),
        shared,
    };
    IO.with(|slot| assert!(slot.set(io).is_ok(), "a fresh thread is no IO thread yet"));
    let local = tokio::task::LocalSet::new();
    let clean = local.block_on(runtime, serve(inbox, mailbox));
    // Whatever is left is cut off here, on its own thread.
    drop(local);
    clean
}

fn seed(thread: usize) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    let mut hasher = std::hash::RandomState::new().build_hasher();
    hasher.write_usize(thread);
    hasher.finish()
}

/// The loop of an IO thread; true when every connection finished by itself.
async fn serve(mut inbox: mpsc::Receiver<Message>, mailbox: &Mailbox) -> bool {
    let connections = Rc::<Connections>::default();
    let mut adopted = 0u64;
    while handle(inbox.recv().await, &mut adopted, &connections, mailbox) {}
    connections.close();
    let cut_off = with(|io| io.shared.cut_off.get().copied()).unwrap_or_else(Instant::now);
    let emptied = async {
        loop {
            tokio::select! {
                () = connections.emptied() => return,
                // Batches that were run still have requests to wake.
                message = inbox.recv() => { handle(message, &mut adopted, &connections, mailbox); }
            }
        }
    };
    tokio::time::timeout_at(cut_off.into(), emptied).await.is_ok()
}

/// Does what a message says; false for the last one.
fn handle(
    message: Option<Message>,
    adopted: &mut u64,
    connections: &Rc<Connections>,
    mailbox: &Mailbox,
) -> bool {
    match message {
        Some(Message::Socket(socket)) => {
            *adopted += 1;
            adopt(*adopted, socket, connections, mailbox);
        }
        Some(Message::Refresh) => with(Io::refresh),
        Some(Message::MakeRoom(asker)) => {
            // Whoever waits no longer has asked another thread.
            let _ = asker.send(connections.make_room(&mailbox.connections));
        }
        Some(Message::Ran(batch)) => batch.wake(with(|io| io.thread)),
        Some(Message::Close) | None => return false,
    }
    true
}

fn adopt(id: u64, socket: TcpStream, connections: &Rc<Connections>, mailbox: &Mailbox) {
    let conn = Rc::new(Conn::default());
    if with(|io| io.shared.closing.load(Relaxed)) {
        conn.close(Instant::now());
    }
    with(|io| io.shared.metrics.thread(io.thread).accepted.add(1));
    // Counted down however the connection ends, by a panic too.
    let registered = Registered { id, connections: connections.clone(), count: mailbox.connections.clone() };
    let served = conn.clone();
    let task = tokio::task::spawn_local(async move {
        let _registered = registered;
        conn::serve(socket, &served).await;
    });
    connections.open.borrow_mut().insert(id, (conn, task.abort_handle()));
}

/// A connection's place in the books, given up when dropped.
struct Registered {
    id: u64,
    connections: Rc<Connections>,
    count: Arc<AtomicUsize>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        // One that made room has been counted down.
        if self.connections.open.borrow_mut().remove(&self.id).is_some() {
            self.count.fetch_sub(1, Relaxed);
        }
        self.connections.emptied.notify_one();
        try_with(|io| io.shared.metrics.thread(io.thread).closed.add(1));
    }
}
