//! What computes, in memory or not: a session that can be made again from its file may give its memory up between requests.
//!
//! ```text
//! cold -> loading -> warm -> draining (given up, and a run holds it still) -> cold
//! ```
//! Whoever runs it holds it, so that nothing is freed under a run. Not here: who gives up and when (`memory`).
//! Next: `memory`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use headgate_core::error::{Error, Result};
use headgate_core::tensor::Signature;
use headgate_runtime::cancel;
use headgate_runtime::device::Driver;

use crate::compute::Executable;

/// How long a load that failed is not tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often whoever waits for somebody else's load looks whether that is over.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// How something that computes is made.
pub(crate) struct ExecutableSource {
    /// The model file.
    pub(crate) path: PathBuf,
    /// Makes it from the file; blocks.
    pub(crate) make: Box<dyn Fn() -> Result<Arc<dyn Executable>> + Send + Sync>,
}

/// Where something that computes is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Residency {
    /// Not in memory; the next request brings it there.
    Cold,
    /// On its way into memory.
    Loading,
    /// Ready to run.
    Warm,
    /// Given up, and in memory until the last run has ended.
    Draining,
}

impl Residency {
    /// All of them.
    pub const ALL: [Residency; 4] =
        [Residency::Cold, Residency::Loading, Residency::Warm, Residency::Draining];

    /// The word for people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Residency::Cold => "cold",
            Residency::Loading => "loading",
            Residency::Warm => "warm",
            Residency::Draining => "draining",
        }
    }
}

/// Something that computes and may be out of memory.
pub struct ResidentExecutable {
    signature: Signature,
    source: Option<ExecutableSource>,
    slot: ArcSwapOption<LoadedSlot>,
    /// Held by whoever loads; what was there last, as long as somebody runs it.
    pub(crate) history: Mutex<LoadHistory>,
    loading: AtomicBool,
    instances: usize,
    driver: Option<Arc<dyn Driver>>,
    /// What it takes in memory, in bytes.
    bytes: AtomicU64,
    pins: AtomicUsize,
    /// Set by every use, taken back whenever the time of the last use is noted.
    used: AtomicBool,
}

/// What is in memory; sized, as a pointer that is swapped has to be.
struct LoadedSlot(Arc<dyn Executable>);

/// What a resident was before.
#[derive(Default)]
pub(crate) struct LoadHistory {
    last: Option<Weak<dyn Executable>>,
    failed: Option<(Instant, Error)>,
}

impl LoadHistory {
    /// What is in memory still, because a run holds it.
    pub(crate) fn draining(&self) -> Option<Arc<dyn Executable>> {
        self.last.as_ref().and_then(Weak::upgrade)
    }

    /// Why the last load failed, while it is too early for another one.
    pub(crate) fn recent_failure(&self, now: Instant) -> Option<Error> {
        let (at, error) = self.failed.as_ref()?;
        let left = (*at + RETRY_AFTER).checked_duration_since(now)?;
        Some(error.clone().after(left))
    }

    /// A load failed.
    pub(crate) fn record_failure(&mut self, now: Instant, error: &Error) {
        self.failed = Some((now, error.clone()));
    }
}

impl ResidentExecutable {
    /// What stays in memory for as long as anybody knows it.
    pub fn fixed(executable: Arc<dyn Executable>) -> ResidentExecutable {
        ResidentExecutable::new(executable, None, 0)
    }

    /// What was made by a source and takes `bytes`.
    pub(crate) fn new(
        executable: Arc<dyn Executable>,
        source: Option<ExecutableSource>,
        bytes: u64,
    ) -> ResidentExecutable {
        ResidentExecutable {
            signature: executable.signature().clone(),
            instances: executable.instances(),
            driver: executable.driver().cloned(),
            source,
            slot: ArcSwapOption::from_pointee(LoadedSlot(executable)),
            history: Mutex::default(),
            loading: false.into(),
            bytes: bytes.into(),
            pins: AtomicUsize::new(0),
            used: true.into(),
        }
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// How many of it compute at the same time on threads of their own.
    pub(crate) fn instances(&self) -> usize {
        self.instances
    }

    /// Whose memory its buffers are best made of.
    pub(crate) fn driver(&self) -> Option<&Arc<dyn Driver>> {
        self.driver.as_ref()
    }

    /// The model file, where there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.path.as_path())
    }

    pub(crate) fn source(&self) -> Option<&ExecutableSource> {
        self.source.as_ref()
    }

    /// What computes; it stays in memory for as long as it is held. `None` while it is out of memory.
    pub fn hold(&self) -> Option<Arc<dyn Executable>> {
        // Read first: the line stays shared between threads while it is used all the time.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.slot.load().as_ref().map(|present| present.0.clone())
    }

    /// Where it is.
    pub fn state(&self) -> Residency {
        if self.slot.load().is_some() {
            Residency::Warm
        } else if self.loading.load(Relaxed) {
            Residency::Loading
        } else if self.try_lock_history().is_some_and(|history| history.draining().is_some()) {
            Residency::Draining
        } else {
            Residency::Cold
        }
    }

    /// What it takes in memory when it is there, in bytes; 0 where nobody knows.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether it is in memory.
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.state(), Residency::Warm | Residency::Draining)
    }

    /// Whether it was used since this was last asked.
    pub(crate) fn take_recent_use(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    /// Whether it may be given up: it can be made again, nobody has asked for it to stay, and nothing runs it.
    pub(crate) fn is_evictable(&self) -> bool {
        let unheld = || self.slot.load().as_ref().is_some_and(|present| Arc::strong_count(&present.0) == 1);
        self.source.is_some() && self.pins.load(Relaxed) == 0 && unheld()
    }

    /// Says that it is on its way into memory for as long as the guard lives.
    pub(crate) fn mark_loading(&self) -> LoadingGuard<'_> {
        self.loading.store(true, Relaxed);
        LoadingGuard(&self.loading)
    }

    /// Puts it into memory.
    pub(crate) fn set_loaded(&self, executable: Arc<dyn Executable>, bytes: u64, history: &mut LoadHistory) {
        *history = LoadHistory::default();
        self.bytes.store(bytes, Relaxed);
        self.slot.store(Some(Arc::new(LoadedSlot(executable))));
    }

    /// Gives its memory up, when what is returned is dropped and the last run has ended. `None` when somebody is about to fill
    /// it, or it is empty.
    pub(crate) fn evict(&self) -> Option<Arc<dyn Executable>> {
        let mut history = self.try_lock_history()?;
        let executable = self.slot.swap(None)?.0.clone();
        history.last = Some(Arc::downgrade(&executable));
        Some(executable)
    }

    /// What it was before, once nobody else loads it.
    ///
    /// # Errors
    /// `cancelled` when the caller's own load is cancelled before.
    pub(crate) fn lock_history(&self) -> Result<MutexGuard<'_, LoadHistory>> {
        loop {
            if let Some(history) = self.try_lock_history() {
                return Ok(history);
            }
            cancel::check()?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// What it was before, unless somebody is loading it. A load that panicked leaves nothing half done.
    fn try_lock_history(&self) -> Option<MutexGuard<'_, LoadHistory>> {
        match self.history.try_lock() {
            Ok(history) => Some(history),
            Err(TryLockError::Poisoned(history)) => Some(history.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Keeps it in memory for as long as the pin lives, from when it is next there.
    pub fn pin(self: &Arc<Self>) -> MemoryPin {
        self.pins.fetch_add(1, Relaxed);
        MemoryPin(self.clone())
    }
}

/// See [`ResidentExecutable::mark_loading`].
pub(crate) struct LoadingGuard<'a>(&'a AtomicBool);

impl Drop for LoadingGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Keeps something in memory.
pub struct MemoryPin(Arc<ResidentExecutable>);

impl Drop for MemoryPin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Relaxed);
    }
}
