//! The thread for periodic work: placement, sketch merges, the counters of trials, freeing retired endpoints, loads that take too long.
//!
//! Not here: runs that stall a thread (`serving::run_monitor`).

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use headgate_core::error::Result;
use headgate_core::histogram::Counts;
use headgate_engine::Instant;
use headgate_engine::MIN_RUNS;
use headgate_engine::{Engine, Model};

use crate::metrics::VersionMetrics;
use crate::scheduling::spawn_low_priority;
use crate::serving::feedback;
use crate::serving::publisher::Publisher;
use crate::serving::receipt_saver::ReceiptSaver;
use crate::serving::shared::Shared;
use crate::serving::sketch_registry::SketchRegistry;

/// Memory is given back when the process has grown by this many bytes.
const GROWTH: u64 = 64 << 20;
/// The unit of `/proc/self/statm`, in bytes. On a system with another page size only the bound above is another.
const PAGE: u64 = 4096;

/// The period of the work.
const TICK: Duration = Duration::from_secs(1);

/// The thread, before, while and after it runs.
pub struct BackgroundThread {
    stop: Arc<(Mutex<bool>, Condvar)>,
    state: Mutex<BackgroundState>,
}

enum BackgroundState {
    Idle(Box<BackgroundTasks>),
    Running(JoinHandle<()>),
    Stopped,
}

impl BackgroundThread {
    /// The thread is not started yet.
    pub fn new(
        shared: Arc<Shared>,
        engine: Arc<Engine>,
        sketches: Arc<SketchRegistry>,
        publisher: Arc<Publisher>,
    ) -> BackgroundThread {
        let tasks = BackgroundTasks {
            shared,
            engine,
            sketches,
            publisher,
            run_counts: HashMap::new(),
            released: 0,
            resident: 0,
            saver: ReceiptSaver::default(),
        };
        BackgroundThread { stop: Arc::default(), state: Mutex::new(BackgroundState::Idle(Box::new(tasks))) }
    }

    /// Starts the thread, unless it runs or has been stopped.
    ///
    /// # Errors
    /// `internal` if the system gives no more threads. It cannot be started again then.
    pub fn start(&self) -> Result<()> {
        let mut state = self.state();
        if !matches!(*state, BackgroundState::Idle(_)) {
            return Ok(());
        }
        let BackgroundState::Idle(mut tasks) = std::mem::replace(&mut *state, BackgroundState::Stopped)
        else {
            return Ok(());
        };
        let signal = self.stop.clone();
        let thread = spawn_low_priority("hg-background".to_owned(), move || {
            while !wait_for_stop(&signal) {
                // A panic is printed and ends this tick. The next one comes.
                drop(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| tasks.tick())));
            }
        })?;
        *state = BackgroundState::Running(thread);
        Ok(())
    }

    /// Ends and joins the thread.
    pub fn stop(&self) {
        let state = std::mem::replace(&mut *self.state(), BackgroundState::Stopped);
        let BackgroundState::Running(thread) = state else { return };
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        // A panic of the thread was printed. Nothing depends on the thread any more.
        drop(thread.join());
    }

    fn state(&self) -> MutexGuard<'_, BackgroundState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wait_for_stop(signal: &(Mutex<bool>, Condvar)) -> bool {
    let stop = signal.0.lock().unwrap_or_else(PoisonError::into_inner);
    let (stop, _) =
        signal.1.wait_timeout_while(stop, TICK, |stop| !*stop).unwrap_or_else(PoisonError::into_inner);
    *stop
}

/// The state of the thread from tick to tick.
struct BackgroundTasks {
    shared: Arc<Shared>,
    engine: Arc<Engine>,
    sketches: Arc<SketchRegistry>,
    publisher: Arc<Publisher>,
    /// The runs of each model at its last placement, by the address of the model.
    run_counts: HashMap<usize, Counts>,
    /// The number of freed sessions when memory was last given back.
    released: u64,
    /// The least memory of the process since then, in bytes.
    resident: u64,
    /// Has it written which receipts were used.
    saver: ReceiptSaver,
}

impl BackgroundTasks {
    fn tick(&mut self) {
        self.update_placements();
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.sketches.collect(unix);
        self.shared.trial_registry.collect(self.shared.trial_clock());
        self.save_receipts();
        self.publisher.free_retired();
        self.publisher.check_loads(Instant::now());
        self.shared.fetcher.check_loads(Instant::now());
        self.engine.free_unused();
        self.give_memory_back();
    }

    fn save_receipts(&mut self) {
        if self.shared.feedback.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        self.saver.tick(move || {
            feedback::remove_undeclared(&shared);
            let _unsaved = shared.feedback.save_all();
        });
    }

    /// Gives freed memory back to the system after sessions were freed, and when the process has grown. The latter happens because large
    /// responses are freed by other threads than those that allocated them, and glibc keeps that memory.
    fn give_memory_back(&mut self) {
        let (released, resident) = (self.engine.memory().released(), resident_bytes());
        if released != self.released || resident > self.resident.saturating_add(GROWTH) {
            trim();
            self.resident = resident_bytes();
        }
        self.resident = self.resident.min(resident);
        self.released = released;
    }

    /// Decides the placement of each model from its runs since the last decision, once there are enough of them.
    fn update_placements(&mut self) {
        let now = self.shared.now_ns();
        let mut models: HashMap<usize, (Arc<Model>, Counts)> = HashMap::new();
        self.each_version(|model, metrics| {
            model.placement_policy.recover(now);
            let key = Arc::as_ptr(model) as usize;
            let (_, counts) = models.entry(key).or_insert_with(|| (model.clone(), Counts::default()));
            counts.add(&metrics.counts(|shard| &shard.run));
        });
        self.run_counts.retain(|key, _| models.contains_key(key));
        for (key, (model, counts)) in models {
            let earlier = self.run_counts.entry(key).or_default();
            if counts.total() < earlier.total() {
                // An endpoint that shared the model was removed, and its runs with it.
                *earlier = counts;
                continue;
            }
            let fresh = counts.since(earlier);
            if fresh.total() >= MIN_RUNS {
                model.learn(&fresh, now);
                *earlier = counts;
            }
        }
    }

    fn each_version(&self, mut visit: impl FnMut(&Arc<Model>, &VersionMetrics)) {
        let snapshot = self.shared.snapshot.load_full();
        for endpoint in snapshot.endpoints.values() {
            for version in &endpoint.versions {
                visit(&version.payload.model, &version.payload.metrics);
            }
        }
    }
}

/// The resident memory of the process, in bytes; 0 if the system does not say.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm");
    let pages = pages.ok().and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
    pages.unwrap_or(0) * PAGE
}

/// Gives freed memory back to the system, which glibc does not do by itself.
#[allow(unsafe_code, reason = "malloc_trim has no safe wrapper")]
fn trim() {
    // SAFETY: may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
