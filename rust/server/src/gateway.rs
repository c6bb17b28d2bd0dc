//! The data plane as a whole: created idle, started once, stopped once.

mod families;
mod replays;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::snapshot::Refusals;
use headgate_core::spec::EndpointSpec;
use headgate_engine::Instant;
use headgate_engine::{Devices, Engine, ModelMemory, ModelThreads, WorkerPool, join_until};
use serde_json::{Map, Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::after::access_log::AccessLog;
use crate::after::exposition::{self, ExpositionFormat};
use crate::capture::writer::CaptureWriter;
use crate::config::Config;
use crate::event_queue::EventQueue;
use crate::io_thread::{self, IoThread};
use crate::metrics::rendering::totals;
use crate::scheduling::{runtime, spawn};
use crate::serving::background::BackgroundThread;
use crate::serving::dry_run::{DryRun, dry_run};
use crate::serving::publisher::Publisher;
use crate::serving::residency::ModelRepository;
use crate::serving::run_monitor::{self, RunMonitorThread};
use crate::serving::shared::Shared;
use crate::serving::sketch_registry::SketchRegistry;
use crate::serving::status::{self, endpoint_status};
use crate::thread::io::{IoMessage, Mailbox};
use crate::thread::mailboxes::{self, MailboxWaker};
use crate::transport::accept;

/// The time that threads have to end after the grace is over.
const JOIN_GRACE: Duration = Duration::from_millis(500);

/// The data plane.
pub struct Gateway {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    sketches: Arc<SketchRegistry>,
    events: Arc<EventQueue>,
    access_log: Option<Arc<AccessLog>>,
    capture_writer: CaptureWriter,
    publisher: Arc<Publisher>,
    background: BackgroundThread,
    mailboxes: Vec<Mailbox>,
    lifecycle: Mutex<Lifecycle>,
}

/// The lifecycle of a gateway, with what exists in each state.
enum Lifecycle {
    Idle { inboxes: Vec<mpsc::Receiver<IoMessage>> },
    Running(RunningThreads),
    Stopped { clean: bool },
}

/// The bound addresses.
#[derive(Clone, Copy, Debug)]
pub struct BoundAddresses {
    /// The data port.
    pub http: SocketAddr,
    /// The second data port.
    pub grpc: Option<SocketAddr>,
}

/// Sockets that another process bound before the start, and keeps when this process ends.
#[derive(Default)]
pub struct BoundSockets {
    /// The socket of the data port.
    pub http: Option<OwnedFd>,
    /// The socket of the second data port.
    pub grpc: Option<OwnedFd>,
}

struct RunningThreads {
    bound: BoundAddresses,
    stop_accepting: oneshot::Sender<()>,
    acceptor: JoinHandle<()>,
    io_threads: Vec<JoinHandle<bool>>,
    run_monitor: RunMonitorThread,
}

impl Gateway {
    /// A gateway that takes updates of endpoints but has no socket yet. It has no thread until it must load an endpoint.
    ///
    /// # Errors
    /// `internal` if the system gives no descriptor.
    pub fn new(config: Config) -> Result<Gateway> {
        let devices = Devices::new(config.device_libraries.clone());
        Gateway::with_devices(config, devices)
    }

    /// As [`Gateway::new`], with these devices.
    ///
    /// # Errors
    /// As [`Gateway::new`].
    pub fn with_devices(config: Config, devices: Devices) -> Result<Gateway> {
        let threads = config.io_threads;
        let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..threads).map(|_| Mailbox::new()).unzip();
        let pool = WorkerPool::new(config.pool_threads);
        let engine = Arc::new(Engine::new(
            config.library.clone(),
            model_threads(&config, &pool, &mailboxes),
            ModelMemory::new(config.memory_budget_bytes, config.load_wait()),
            devices,
        ));
        let sketches = Arc::new(SketchRegistry::new(&config));
        let events = Arc::new(EventQueue::new()?);
        let access_log =
            config.access_log.as_deref().map(|path| AccessLog::open(path, config.access_log_share));
        let access_log = access_log.transpose()?.map(Arc::new);
        let capture_writer = CaptureWriter::new(&config);
        let shared = Arc::new(Shared::new(config, &engine, pool, capture_writer.registry.clone()));
        let publisher = Arc::new(Publisher::new(
            shared.clone(),
            engine.clone(),
            sketches.clone(),
            events.clone(),
            mailboxes::snapshot_refresher(mailboxes.clone()),
        ));
        // Set once, because the state was created above.
        let repository: Weak<dyn ModelRepository> =
            Arc::downgrade(&(publisher.clone() as Arc<dyn ModelRepository>));
        let _ = shared.repository.set(repository);
        let background =
            BackgroundThread::new(shared.clone(), engine.clone(), sketches.clone(), publisher.clone());
        Ok(Gateway {
            shared,
            engine,
            sketches,
            events,
            access_log,
            capture_writer,
            publisher,
            background,
            mailboxes,
            lifecycle: Mutex::new(Lifecycle::Idle { inboxes }),
        })
    }

    /// Binds the data ports, starts the threads, and returns the bound addresses. Endpoints may be applied before.
    ///
    /// # Errors
    /// `invalid_argument` for an address that cannot be used; `conflict` after the stop.
    pub fn start(&self) -> Result<BoundAddresses> {
        self.start_on(BoundSockets::default())
    }

    /// As [`Gateway::start`], with the given sockets in place of new ones.
    ///
    /// # Errors
    /// As [`Gateway::start`].
    pub fn start_on(&self, sockets: BoundSockets) -> Result<BoundAddresses> {
        let mut lifecycle = self.lifecycle();
        match &*lifecycle {
            Lifecycle::Running(running) => return Ok(running.bound),
            Lifecycle::Stopped { .. } => {
                return Err(Error::new(Code::Conflict, "the gateway has been stopped"));
            }
            Lifecycle::Idle { .. } => {}
        }
        let config = &self.shared.config;
        let (listener, http) = accept::bind("http", &config.http, sockets.http)?;
        let second =
            config.grpc.as_deref().map(|address| accept::bind("grpc", address, sockets.grpc)).transpose()?;
        let (second, grpc) = second.unzip();
        let listeners = std::iter::once(listener).chain(second).collect();
        let bound = BoundAddresses { http, grpc };
        let Lifecycle::Idle { inboxes } =
            std::mem::replace(&mut *lifecycle, Lifecycle::Stopped { clean: true })
        else {
            return Err(Error::new(Code::Internal, "the gateway changed while it was locked"));
        };
        *lifecycle = Lifecycle::Running(self.start_threads(listeners, bound, inboxes)?);
        Ok(bound)
    }

    fn start_threads(
        &self,
        listeners: Vec<TcpListener>,
        bound: BoundAddresses,
        inboxes: Vec<mpsc::Receiver<IoMessage>>,
    ) -> Result<RunningThreads> {
        // First what needs descriptors. After that only a thread can be refused by the system.
        let accept_runtime = runtime()?;
        let threads = inboxes.into_iter().enumerate().map(|(number, inbox)| IoThread {
            number,
            shared: self.shared.clone(),
            access_log: self.access_log.clone(),
            mailbox: self.mailboxes[number].clone(),
            inbox,
        });
        let io_threads = io_thread::start(threads.collect())?;
        self.shared.pool.start()?;
        if let Some(log) = &self.access_log {
            log.start()?;
        }
        self.capture_writer.start()?;
        let (stop_accepting, stop) = oneshot::channel();
        let (shared, mailboxes) = (self.shared.clone(), self.mailboxes.clone());
        let acceptor = spawn("hg-accept".to_owned(), move || {
            accept::run(&accept_runtime, listeners, &shared, &mailboxes, stop)
        })?;
        self.background.start()?;
        let run_monitor = run_monitor::start(self.shared.clone())?;
        Ok(RunningThreads { bound, stop_accepting, acceptor, io_threads, run_monitor })
    }

    /// Takes in the new state of an endpoint; see [`Publisher::apply`].
    ///
    /// # Errors
    /// `policy_invalid`; `draining` after the stop.
    pub fn apply(&self, spec: EndpointSpec) -> Result<u64> {
        // The background thread cancels loads that hang. It runs before the start as well, because the start may wait for loads.
        self.background.start()?;
        self.publisher.apply(spec)
    }

    /// Removes an endpoint; see [`Publisher::remove`].
    pub fn remove(&self, name: &str) -> u64 {
        self.publisher.remove(name)
    }

    /// Records why an endpoint is not served; see [`Publisher::mark_unavailable`].
    pub fn mark_unavailable(&self, name: &str, reason: &str) {
        self.publisher.mark_unavailable(name, reason);
    }

    /// Replaces the list of what was never served; see [`Publisher::set_refusals`].
    pub fn set_refusals(&self, refused: Refusals) {
        self.publisher.set_refusals(refused);
    }

    /// Finds why a state would be refused, without serving it. Blocks.
    pub fn dry_run(&self, spec: &EndpointSpec) -> DryRun {
        dry_run(&self.engine, spec)
    }

    /// Cancels the loads of an endpoint; see [`Publisher::cancel`].
    pub fn cancel(&self, name: &str) {
        self.publisher.cancel(name);
    }

    /// Withdraws an update that is not served yet; see [`Publisher::withdraw`].
    pub fn withdraw(&self, ticket: u64) -> bool {
        self.publisher.withdraw(ticket)
    }

    /// The engine, which loads models and knows those in memory.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The descriptor that is readable while there are [`Gateway::events`].
    pub fn event_fd(&self) -> RawFd {
        self.events.fd()
    }

    /// Takes the events since the last call.
    pub fn events(&self) -> Vec<Value> {
        self.events.drain()
    }

    /// Sets whether start-up is over, for `/v2/health/ready`.
    pub fn set_ready(&self, ready: bool) {
        self.shared.ready.store(ready, Relaxed);
        self.shared.notify_changed();
    }

    /// Opens the path of the access log anew. Does nothing without an access log.
    ///
    /// # Errors
    /// `invalid_argument` if the path cannot be opened. The access log goes on in the file that was open.
    pub fn reopen_access_log(&self) -> Result<()> {
        self.access_log.as_ref().map_or(Ok(()), |log| log.reopen())
    }

    /// Every metric family as text.
    pub fn exposition(&self, form: ExpositionFormat) -> Vec<u8> {
        exposition::text(&self.families(), form)
    }

    /// Every metric family.
    pub fn metrics(&self) -> Value {
        Value::Array(self.families())
    }

    /// The totals of each version; see [`totals`].
    pub fn totals(&self) -> Value {
        totals(&self.shared.metrics, Instant::now())
    }

    /// The drift report of an endpoint.
    ///
    /// # Errors
    /// `model_not_found`; `unsupported` if sketches are off.
    pub fn drift(&self, endpoint: &str, window_seconds: u64) -> Result<Value> {
        let live = self.shared.snapshot.load().endpoint(endpoint)?.clone();
        let ids: Vec<u64> =
            live.versions.iter().filter_map(|version| Some(version.payload.sketch.as_ref()?.id)).collect();
        self.sketches.report(endpoint, &ids, window_seconds)
    }

    /// The report on the shadows of an endpoint.
    ///
    /// # Errors
    /// `model_not_found`.
    pub fn shadows(&self, endpoint: &str) -> Result<Value> {
        status::shadow_report(&self.shared, endpoint)
    }

    /// Why the gateway is not ready, in words, as far as threads are the cause.
    pub fn not_ready_reasons(&self) -> Vec<String> {
        run_monitor::not_ready_reasons(&self.shared)
    }

    /// The status of the gateway and of all endpoints.
    pub fn status(&self) -> Value {
        self.status_of(|_| true)
    }

    /// The status, with the `wanted` endpoints alone, because a thousand of them take milliseconds.
    pub fn status_of(&self, wanted: impl Fn(&str) -> bool) -> Value {
        let (snapshot, captures) = (self.shared.snapshot.load_full(), &self.shared.captures);
        let live = snapshot.endpoints.iter().filter(|(name, _)| wanted(name));
        let live = live.map(|(name, endpoint)| (name.to_string(), endpoint_status(endpoint, captures)));
        let unloaded = snapshot.unloaded.iter().filter(|(name, _)| wanted(name)).map(|(name, spec)| {
            let facts = json!({
                "revision": spec.revision, "champion": spec.champion, "versions": {}, "unloaded": true,
            });
            (name.to_string(), facts)
        });
        let endpoints: Map<String, Value> = live.chain(unloaded).collect();
        json!({
            "generation": snapshot.generation,
            "ready": self.shared.is_ready(),
            "draining": self.shared.draining.load(Relaxed),
            "connections": self.shared.metrics.connections(),
            "endpoints": endpoints,
        })
    }

    /// Drains the gateway and joins every thread. True if nothing had to be cut off. Idempotent.
    ///
    /// Readiness turns false at once, and requests go on for `delay`. Then no connection is accepted, and an idle one ends with its next
    /// request, or if none arrives for a while. Requests in flight have `grace` to finish. Runs that are in progress after that are
    /// cancelled. A thread whose run does not end even then is not joined.
    pub fn stop(&self, delay: Duration, grace: Duration) -> bool {
        self.shared.draining.store(true, Relaxed);
        self.shared.trial_registry.stop();
        self.shared.notify_changed();
        // First, so that the requests that are left have the cores.
        self.shared.shadows.stop();
        self.shared.replays.stop();
        let mut lifecycle = self.lifecycle();
        let clean = match std::mem::replace(&mut *lifecycle, Lifecycle::Stopped { clean: true }) {
            Lifecycle::Running(running) => {
                std::thread::sleep(delay);
                self.stop_threads(running, Instant::now() + grace)
            }
            Lifecycle::Idle { .. } => {
                self.background.stop();
                self.publisher.stop(Instant::now() + grace);
                true
            }
            Lifecycle::Stopped { clean } => clean,
        };
        *lifecycle = Lifecycle::Stopped { clean };
        clean
    }

    fn stop_threads(&self, running: RunningThreads, deadline: Instant) -> bool {
        let RunningThreads { stop_accepting, acceptor, io_threads, run_monitor, .. } = running;
        // If the acceptor has ended already, nothing receives this.
        let _ = stop_accepting.send(());
        // On a busy machine its thread may get no processor time for longer than [`JOIN_GRACE`].
        let mut clean = join_until(acceptor, deadline.max(Instant::now() + JOIN_GRACE)).is_some();
        // Set once, because a gateway is stopped once.
        let _ = self.shared.cut_off_at.set(deadline);
        self.shared.closing.store(true, Relaxed);
        self.shared.notify_changed();
        let deadline = deadline + JOIN_GRACE;
        self.mailboxes.iter().for_each(|mailbox| mailbox.close(deadline));
        for thread in io_threads {
            clean &= join_until(thread, deadline) == Some(true);
        }
        self.background.stop();
        if let Some(log) = &self.access_log {
            clean &= log.stop(deadline);
        }
        clean &= self.capture_writer.stop(deadline);
        clean &= self.shared.feedback.save_all() == 0;
        clean &= self.shared.fetcher.stop(deadline);
        clean &= self.publisher.stop(deadline);
        clean &= self.shared.pool.stop(deadline);
        run_monitor.stop();
        clean
    }

    fn lifecycle(&self) -> std::sync::MutexGuard<'_, Lifecycle> {
        self.lifecycle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The threads that may run models.
fn model_threads(config: &Config, pool: &WorkerPool, mailboxes: &[Mailbox]) -> ModelThreads {
    ModelThreads {
        io_threads: config.io_threads,
        pool_threads: config.pool_threads,
        counters: pool.counters().clone(),
        batch_waker: Arc::new(MailboxWaker(mailboxes.to_vec())),
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.stop(Duration::ZERO, Duration::ZERO);
    }
}

mod trials;

#[cfg(test)]
mod tests;
