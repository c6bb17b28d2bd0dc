//! What all threads of the data plane share, and the snapshot that they serve.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use headgate_core::snapshot::{Endpoint, Snapshot};
use headgate_engine::{Engine, Pool};
use tokio::sync::watch;

use crate::budget::{ByteBudget, SmallBudget};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::serving::fetcher::Fetcher;
use crate::serving::limit_registry::LimitRegistry;
use crate::serving::residency::ModelRepository;
use crate::serving::version::VersionState;
use crate::serving::watchdog::Heartbeat;

/// The snapshot that is served, replaced as a whole.
pub type SnapshotCell = Arc<ArcSwap<Snapshot<VersionState>>>;

/// An endpoint as requests see it.
pub type LiveEndpoint = Endpoint<VersionState>;

/// What all threads of the data plane share.
pub struct Shared {
    /// Decided once, before the start.
    pub config: Config,
    /// What is served.
    pub snapshot: SnapshotCell,
    /// What is counted.
    pub metrics: Metrics,
    /// Rates and breakers.
    pub limit_registry: LimitRegistry,
    /// Threads for long runs.
    pub pool: Pool,
    /// Who brings models back into memory.
    pub fetcher: Arc<Fetcher>,
    /// Memory for large requests in progress.
    pub large_requests: Arc<ByteBudget>,
    /// Memory for small requests in progress.
    pub small_requests: SmallBudget,
    /// Whether the control plane says that start-up is over.
    pub ready: AtomicBool,
    /// Whether nobody accepts connections: the listening sockets could not be used.
    pub accept_failed: AtomicBool,
    /// Whether the gateway is about to stop.
    pub draining: AtomicBool,
    /// Whether connections have been told to close.
    pub closing: AtomicBool,
    /// When what is still in flight is cut off; set when connections are told to close.
    pub cut_off_at: OnceLock<Instant>,
    /// One for each IO thread, for the watchdog.
    pub heartbeats: Box<[Heartbeat]>,
    /// When the clock of [`Shared::now_ns`] began.
    pub epoch: Instant,
    /// The same moment in milliseconds since 1970.
    pub epoch_unix_ms: u64,
    /// Moved whenever readiness or what is served changes.
    pub changes: watch::Sender<()>,
    /// Who brings endpoints into memory and takes them out; set once.
    pub repository: OnceLock<Weak<dyn ModelRepository>>,
}

impl Shared {
    /// What a gateway begins with: nothing is served, and nobody is let in.
    pub fn new(config: Config, engine: &Arc<Engine>, pool: Pool) -> Shared {
        let threads = config.io_threads;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Shared {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            metrics: Metrics::new(threads),
            limit_registry: LimitRegistry::default(),
            pool,
            fetcher: Fetcher::new(engine.clone(), config.load_wait(), config.load_timeout()),
            large_requests: ByteBudget::new(config.large_request_bytes),
            small_requests: SmallBudget::new(config.small_request_bytes, threads),
            ready: false.into(),
            accept_failed: false.into(),
            draining: false.into(),
            closing: false.into(),
            cut_off_at: OnceLock::new(),
            heartbeats: (0..threads).map(|_| Heartbeat::default()).collect(),
            epoch: Instant::now(),
            epoch_unix_ms: since_1970.map_or(0, |since| since.as_millis() as u64),
            changes: watch::Sender::default(),
            repository: OnceLock::new(),
            config,
        }
    }

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
        self.notify_changed();
    }

    /// Wakes whoever waits for readiness or for another snapshot.
    pub fn notify_changed(&self) {
        self.changes.send_replace(());
    }

    /// Whether requests are welcome: started, not draining, and every thread that accepts or runs can be had.
    pub fn is_ready(&self) -> bool {
        // Endpoints have no part in it: one that cannot answer must not take traffic from the others.
        let is_blocked = self.heartbeats.iter().any(Heartbeat::is_stuck) || self.pool.threads().exhausted;
        self.ready.load(Relaxed)
            && !self.draining.load(Relaxed)
            && !is_blocked
            && !self.accept_failed.load(Relaxed)
    }
}
