//! The thread that checks runs every ten milliseconds: those that stall an IO thread, and those in the pool that are not needed any more
//! or do not end.
//!
//! It has ordinary priority: if the cores are busy, the thread that frees them must get one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use headgate_core::error::Result;
use headgate_core::snapshot::Snapshot;
use headgate_engine::Instant;
use headgate_engine::Model;
use headgate_engine::runtime::trap;
use serde_json::{Value, json};

use crate::metrics::rendering::family;
use crate::scheduling::spawn;
use crate::serving::shared::Shared;
use crate::serving::version::VersionState;
use crate::serving::version_families::per_version;
use crate::serving::watchdog::{Stall, Watchdog};

/// The time between two checks.
const INTERVAL: Duration = Duration::from_millis(10);

/// The running thread.
pub struct RunMonitorThread {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

/// Starts the thread.
///
/// # Errors
/// `internal` if the system gives no more threads.
pub fn start(shared: Arc<Shared>) -> Result<RunMonitorThread> {
    let stop = Arc::<AtomicBool>::default();
    let stopped = stop.clone();
    let thread = spawn("hg-watch".to_owned(), move || {
        let mut monitor = RunMonitor { shared, watchdog: Watchdog::default(), stuck: HashMap::new() };
        while !stopped.load(Relaxed) {
            std::thread::park_timeout(INTERVAL);
            monitor.check();
        }
    })?;
    Ok(RunMonitorThread { stop, thread })
}

impl RunMonitorThread {
    /// Ends and joins the thread.
    pub fn stop(self) {
        self.stop.store(true, Relaxed);
        self.thread.thread().unpark();
        // A panic of the thread was printed. Nothing depends on the thread any more.
        drop(self.thread.join());
    }
}

struct RunMonitor {
    shared: Arc<Shared>,
    watchdog: Watchdog,
    /// The models whose runs are stuck on an IO thread, by thread.
    stuck: HashMap<usize, Arc<Model>>,
}

impl RunMonitor {
    fn check(&mut self) {
        let shared = self.shared.clone();
        shared.pool.check_threads(Instant::now());
        // If the system gives no more threads, the next check tries again; the metrics show how many there are.
        let _ = shared.shadows.check_threads(Instant::now());
        shared.replays.check(Instant::now());
        shared.captures.queue.check(Instant::now());
        let now_ns = shared.now_ns();
        let stalls = self.watchdog.check(&shared.heartbeats, now_ns);
        let freed = |thread: &usize, model: &mut Arc<Model>| {
            let stuck = shared.heartbeats[*thread].is_stuck();
            if !stuck {
                model.run_counters().end_stuck();
            }
            stuck
        };
        let before = self.stuck.len();
        self.stuck.retain(freed);
        for stall in stalls {
            if let Some(model) = model_at(&shared, stall.model) {
                self.handle_stall(stall, model, now_ns);
            }
        }
        if self.stuck.len() != before {
            self.shared.notify_changed();
        }
    }

    /// Moves a model that stalls an IO thread to the pool, and counts its run if it was cancelled or is stuck.
    fn handle_stall(&mut self, Stall { thread, cancelled, .. }: Stall, model: Arc<Model>, now_ns: u64) {
        model.placement_policy.demote(now_ns);
        if cancelled {
            model.run_counters().count_cancelled();
        }
        if self.shared.heartbeats[thread].is_stuck() && !self.stuck.contains_key(&thread) {
            model.run_counters().begin_stuck();
            self.stuck.insert(thread, model);
        }
    }
}

/// The model with this address, if it is served.
fn model_at(shared: &Shared, address: usize) -> Option<Arc<Model>> {
    let snapshot = shared.snapshot.load_full();
    let mut versions = snapshot.endpoints.values().flat_map(|endpoint| &endpoint.versions);
    let found = versions.find(|version| Arc::as_ptr(&version.payload.model) as usize == address);
    found.map(|version| version.payload.model.clone())
}

/// The number of IO threads with a stuck run.
pub fn stuck_io_threads(shared: &Shared) -> usize {
    shared.heartbeats.iter().filter(|heartbeat| heartbeat.is_stuck()).count()
}

/// Why the gateway is not ready, in words, as far as threads are the cause.
pub fn not_ready_reasons(shared: &Shared) -> Vec<String> {
    let mut reasons = Vec::new();
    let io = stuck_io_threads(shared);
    if io > 0 {
        reasons.push(format!(
            "{io} of {} IO threads are held by runs that were cancelled and do not end",
            shared.heartbeats.len()
        ));
    }
    let pool = shared.pool.thread_counts();
    if pool.exhausted {
        reasons.push(format!(
            "{} of {} pool threads are held by runs that were cancelled and do not end; no more are replaced",
            pool.stuck, pool.all
        ));
    }
    if shared.accept_failed.load(Relaxed) {
        reasons.push(
            "no connection is accepted on the data ports, because their sockets cannot be used".to_owned(),
        );
    }
    reasons
}

/// The metrics of runs and threads.
#[rustfmt::skip]
pub fn families(shared: &Shared, snapshot: &Snapshot<VersionState>) -> Vec<Value> {
    let pool = shared.pool.thread_counts();
    let threads = |name: &str, help: &str, values: [usize; 2]| {
        let kinds = ["io", "pool"].into_iter().zip(values);
        family(name, help, "gauge", kinds.map(|(kind, value)| json!([{"kind": kind}, value])))
    };
    vec![
        per_version(snapshot, "headgate_runs_in_progress", "Runs in progress on pool threads; those on IO threads and devices are not counted.", "gauge", |model| model.run_counters().in_progress() as u64),
        per_version(snapshot, "headgate_runs_cancelled_total", "Runs that were cancelled, because no request waited for them any more or because they stalled an IO thread.", "counter", |model| model.run_counters().cancelled()),
        per_version(snapshot, "headgate_runs_stuck", "Runs in progress that were cancelled and do not end.", "gauge", |model| model.run_counters().stuck() as u64),
        family("headgate_trapped_divisions_total", "Integer divisions without a result inside models; each such run failed.", "counter", std::iter::once(json!([{}, trap::stepped_over()]))),
        threads("headgate_run_threads", "Threads that run models.", [shared.heartbeats.len(), pool.all]),
        threads("headgate_run_threads_stuck", "Threads that run models and are held by a run that was cancelled and does not end.", [stuck_io_threads(shared), pool.stuck]),
    ]
}
