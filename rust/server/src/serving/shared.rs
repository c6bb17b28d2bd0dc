//! The state that all threads of the data plane share, and the snapshot that they serve.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use headgate_core::snapshot::{Endpoint, Snapshot};
use headgate_core::spec::EndpointSpec;
use headgate_engine::Instant;
use headgate_engine::{Engine, WorkerPool};
use tokio::sync::watch;

use crate::budget::{ByteBudget, SmallBudget};
use crate::capture::registry::CaptureRegistry;
use crate::config::Config;
use crate::feedback::registry::FeedbackRegistry;
use crate::metrics::Metrics;
use crate::replay::registry::ReplayRegistry;
use crate::serving::fetcher::Fetcher;
use crate::serving::limit_registry::LimitRegistry;
use crate::serving::residency::ModelRepository;
use crate::serving::trial::TrialClock;
use crate::serving::trial_registry::TrialRegistry;
use crate::serving::version::VersionState;
use crate::serving::watchdog::Heartbeat;
use crate::shadow::live_shadow::LiveShadow;
use crate::shadow::registry::ShadowRegistry;

/// Holds the snapshot that is served, which is replaced as a whole.
pub type SnapshotCell = Arc<ArcSwap<Snapshot<VersionState>>>;

/// An endpoint of the snapshot.
pub type LiveEndpoint = Endpoint<VersionState>;

/// The state that all threads of the data plane share.
pub struct Shared {
    /// The configuration, which does not change after the start.
    pub config: Config,
    /// The snapshot that is served.
    pub snapshot: SnapshotCell,
    /// The series of all metrics.
    pub metrics: Metrics,
    /// The rate limiters and breakers.
    pub limit_registry: LimitRegistry,
    /// What is captured.
    pub captures: Arc<CaptureRegistry>,
    /// The shadows.
    pub shadows: ShadowRegistry,
    /// The replays.
    pub replays: ReplayRegistry,
    /// The trials of endpoints that share their traffic among versions.
    pub trial_registry: TrialRegistry,
    /// The receipts of endpoints that take feedback.
    pub feedback: FeedbackRegistry,
    /// The threads for long runs.
    pub pool: WorkerPool,
    /// Loads models that are out of memory, for requests.
    pub fetcher: Arc<Fetcher>,
    /// Memory for large requests in progress.
    pub large_requests: Arc<ByteBudget>,
    /// Memory for small requests in progress.
    pub small_requests: SmallBudget,
    /// Whether the control plane says that start-up is over.
    pub ready: AtomicBool,
    /// Whether no connection is accepted, because the listening sockets cannot be used.
    pub accept_failed: AtomicBool,
    /// Whether the gateway is about to stop.
    pub draining: AtomicBool,
    /// Whether connections were asked to close.
    pub closing: AtomicBool,
    /// When requests in flight are cut off; set when connections are asked to close.
    pub cut_off_at: OnceLock<Instant>,
    /// The heartbeat of each IO thread, for the watchdog.
    pub heartbeats: Box<[Heartbeat]>,
    /// The zero of the clock of [`Shared::now_ns`].
    pub epoch: Instant,
    /// The same time in milliseconds since 1970.
    pub epoch_unix_ms: u64,
    /// Notified when readiness or the snapshot changes.
    pub changes: watch::Sender<()>,
    /// Loads and unloads endpoints; set once.
    pub repository: OnceLock<Weak<dyn ModelRepository>>,
}

impl Shared {
    /// The state before the start: the snapshot is empty, and the gateway is not ready.
    pub fn new(
        config: Config,
        engine: &Arc<Engine>,
        pool: WorkerPool,
        captures: Arc<CaptureRegistry>,
    ) -> Shared {
        let threads = config.io_threads;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
        Shared {
            snapshot: Arc::new(ArcSwap::from_pointee(Snapshot::default())),
            metrics: Metrics::new(threads),
            limit_registry: LimitRegistry::default(),
            captures,
            replays: ReplayRegistry::default(),
            shadows: ShadowRegistry::new(config.shadow_cores(), config.shadow_memory_bytes),
            trial_registry: TrialRegistry::new(threads),
            feedback: FeedbackRegistry::new(config.feedback_folder.clone()),
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

    /// Nanoseconds since the gateway was created.
    pub fn now_ns(&self) -> u64 {
        self.ns_at(Instant::now())
    }

    /// Nanoseconds from the creation of the gateway to `at`.
    pub fn ns_at(&self, at: Instant) -> u64 {
        at.nanos_since(self.epoch)
    }

    /// A time of the clock of [`Shared::now_ns`] in milliseconds since 1970.
    pub fn unix_ms_at(&self, ns: u64) -> u64 {
        self.epoch_unix_ms + ns / 1_000_000
    }

    /// The present time, for trials.
    pub fn trial_clock(&self) -> TrialClock {
        TrialClock { now_ns: self.now_ns(), epoch_unix_ms: self.epoch_unix_ms }
    }

    /// Serves another snapshot.
    pub fn store(&self, next: Snapshot<VersionState>) {
        self.snapshot.store(Arc::new(next));
        self.notify_changed();
    }

    /// As [`Shared::store`] after a change of one endpoint, and ends its replays that may not go on.
    pub fn store_endpoint(&self, name: &str, next: Snapshot<VersionState>) {
        self.store(next);
        self.cancel_outdated_replays(name);
    }

    /// Has shadows and the capture follow a spec that is served now.
    pub fn install_copies(&self, spec: &EndpointSpec, shadows: &[Arc<LiveShadow>]) {
        self.captures.publish(spec);
        self.shadows.install(spec, shadows);
    }

    /// Ends the replays of an endpoint that may not go on with what is served of it now.
    pub fn cancel_outdated_replays(&self, endpoint: &str) {
        let snapshot = self.snapshot.load();
        self.replays.cancel_outdated(endpoint, snapshot.endpoints.get(endpoint).map(|served| &**served));
    }

    /// Wakes the tasks that wait for a change of readiness or of the snapshot.
    pub fn notify_changed(&self) {
        self.changes.send_replace(());
    }

    /// Whether the gateway is ready for requests: it has started, it is not draining, and no thread that accepts or runs is blocked.
    pub fn is_ready(&self) -> bool {
        // Endpoints are not asked: one that cannot answer must not take the traffic from the others.
        let is_blocked =
            self.heartbeats.iter().any(Heartbeat::is_stuck) || self.pool.thread_counts().exhausted;
        self.ready.load(Relaxed)
            && !self.draining.load(Relaxed)
            && !is_blocked
            && !self.accept_failed.load(Relaxed)
    }
}
