//! An executable that may be out of memory: a session that can be made again from its file gives its memory up between requests.
//!
//! ```text
//! cold -> loading -> warm -> draining (evicted, and a run still holds it) -> cold
//! ```
//! A run holds its executable, so that nothing is freed under it. Not here: what is evicted, and when (`budget`).
//! Next: `budget`.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use headgate_core::error::{Error, Result};
use headgate_core::tensor::Signature;
use headgate_runtime::cancel;
use headgate_runtime::device::Driver;

use crate::compute::Executable;
use crate::time::Instant;

/// How long a load is not repeated after it failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often a thread that waits for another load checks whether that is over.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// What an executable is made from.
pub(crate) struct ExecutableSource {
    /// The model file.
    pub(crate) path: PathBuf,
    /// Makes the executable from the file. Blocks.
    pub(crate) make: Box<dyn Fn() -> Result<Arc<dyn Executable>> + Send + Sync>,
}

/// Whether an executable is in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Residency {
    /// Not in memory; the next request brings it there.
    Cold,
    /// On its way into memory.
    Loading,
    /// Ready to run.
    Warm,
    /// Evicted, and in memory until the last run has ended.
    Draining,
}

impl Residency {
    /// All values.
    pub const ALL: [Residency; 4] =
        [Residency::Cold, Residency::Loading, Residency::Warm, Residency::Draining];

    /// The word in metrics and status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Residency::Cold => "cold",
            Residency::Loading => "loading",
            Residency::Warm => "warm",
            Residency::Draining => "draining",
        }
    }
}

/// An executable that may be out of memory.
pub struct ResidentExecutable {
    signature: Signature,
    source: Option<ExecutableSource>,
    slot: ArcSwapOption<LoadedSlot>,
    /// What happened before. A load holds the lock.
    pub(crate) history: Mutex<LoadHistory>,
    loading: AtomicBool,
    /// Its load has found room.
    making: AtomicBool,
    instances: usize,
    driver: Option<Arc<dyn Driver>>,
    /// Its size in memory, in bytes.
    bytes: AtomicU64,
    pins: AtomicUsize,
    /// Set by every use, reset when the time of the last use is noted.
    used: AtomicBool,
}

/// The executable in memory. Sized, because a pointer that is swapped must be.
struct LoadedSlot(Arc<dyn Executable>);

/// The last executable and the last failed load.
#[derive(Default)]
pub(crate) struct LoadHistory {
    last: Option<Weak<dyn Executable>>,
    failed: Option<(Instant, Error)>,
}

impl LoadHistory {
    /// The evicted executable, if a run still holds it.
    pub(crate) fn draining(&self) -> Option<Arc<dyn Executable>> {
        self.last.as_ref().and_then(Weak::upgrade)
    }

    /// The error of the last load, while it is too early for another one.
    pub(crate) fn recent_failure(&self, now: Instant) -> Option<Error> {
        let (at, error) = self.failed.as_ref()?;
        let left = (*at + RETRY_AFTER).checked_duration_since(now)?;
        Some(error.clone().after(left))
    }

    /// Records that a load failed.
    pub(crate) fn record_failure(&mut self, now: Instant, error: &Error) {
        self.failed = Some((now, error.clone()));
    }
}

impl ResidentExecutable {
    /// An executable that is never evicted.
    pub fn fixed(executable: Arc<dyn Executable>) -> ResidentExecutable {
        ResidentExecutable::new(executable, None, 0)
    }

    /// An executable that was made from `source` and takes `bytes`.
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
            making: false.into(),
            bytes: bytes.into(),
            pins: AtomicUsize::new(0),
            used: true.into(),
        }
    }

    /// Its inputs and outputs.
    pub fn signature(&self) -> &Signature {
        &self.signature
    }

    /// How many instances compute at the same time on threads of their own.
    pub(crate) fn instances(&self) -> usize {
        self.instances
    }

    /// The driver of the device whose memory its buffers should be in.
    pub(crate) fn driver(&self) -> Option<&Arc<dyn Driver>> {
        self.driver.as_ref()
    }

    /// The model file, if there is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.path.as_path())
    }

    pub(crate) fn source(&self) -> Option<&ExecutableSource> {
        self.source.as_ref()
    }

    /// Holds the executable in memory; `None` if it is out of memory.
    pub fn hold(&self) -> Option<Arc<dyn Executable>> {
        // Read first: the cache line stays shared between threads, because mostly the bit is set.
        if !self.used.load(Relaxed) {
            self.used.store(true, Relaxed);
        }
        self.slot.load().as_ref().map(|present| present.0.clone())
    }

    /// Holds the executable in memory; `None` if it is out of memory. This does not count as a use, so that it may be evicted as before.
    pub fn hold_unmarked(&self) -> Option<Arc<dyn Executable>> {
        self.slot.load().as_ref().map(|present| present.0.clone())
    }

    /// Whether it is in memory and not evicted. Takes no lock.
    pub(crate) fn is_warm(&self) -> bool {
        self.slot.load().is_some()
    }

    /// Whether it is in memory.
    pub fn state(&self) -> Residency {
        if self.is_warm() {
            Residency::Warm
        } else if self.loading.load(Relaxed) {
            Residency::Loading
        } else if self.try_lock_history().is_some_and(|history| history.draining().is_some()) {
            Residency::Draining
        } else {
            Residency::Cold
        }
    }

    /// Its size in memory when it is there, in bytes; 0 if it is unknown.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    /// Whether its memory is in use.
    pub(crate) fn is_present(&self) -> bool {
        matches!(self.state(), Residency::Warm | Residency::Draining)
    }

    /// Whether it was used since the last call.
    pub(crate) fn take_recent_use(&self) -> bool {
        self.used.swap(false, Relaxed)
    }

    /// Whether it may be evicted: it can be made again, nothing pins it, and no run holds it.
    pub(crate) fn is_evictable(&self) -> bool {
        let unheld = || self.slot.load().as_ref().is_some_and(|present| Arc::strong_count(&present.0) == 1);
        self.source.is_some() && self.pins.load(Relaxed) == 0 && unheld()
    }

    /// Marks it as loading for as long as the guard lives.
    pub(crate) fn mark_loading(&self) -> MarkGuard<'_> {
        self.loading.store(true, Relaxed);
        MarkGuard(&self.loading)
    }

    /// Marks that its load has found room, for as long as the guard lives.
    pub(crate) fn mark_making(&self) -> MarkGuard<'_> {
        self.making.store(true, Relaxed);
        MarkGuard(&self.making)
    }

    /// Whether it is being loaded and does not wait for room.
    pub fn is_being_made(&self) -> bool {
        self.making.load(Relaxed)
    }

    /// Puts an executable into memory.
    pub(crate) fn set_loaded(&self, executable: Arc<dyn Executable>, bytes: u64, history: &mut LoadHistory) {
        *history = LoadHistory::default();
        self.bytes.store(bytes, Relaxed);
        self.slot.store(Some(Arc::new(LoadedSlot(executable))));
    }

    /// Takes the executable out. Its memory is free once the returned value is dropped and the last run has ended. `None` if another thread
    /// loads it, or if it is empty.
    pub(crate) fn evict(&self) -> Option<Arc<dyn Executable>> {
        let mut history = self.try_lock_history()?;
        let executable = self.slot.swap(None)?.0.clone();
        history.last = Some(Arc::downgrade(&executable));
        Some(executable)
    }

    /// Waits until no other thread loads it, and keeps others from loading it.
    ///
    /// # Errors
    /// `cancelled` if the caller's own load is cancelled meanwhile.
    pub(crate) fn lock_history(&self) -> Result<MutexGuard<'_, LoadHistory>> {
        loop {
            if let Some(history) = self.try_lock_history() {
                return Ok(history);
            }
            cancel::check()?;
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// The history, unless another thread loads it. A load that panicked leaves nothing half done.
    fn try_lock_history(&self) -> Option<MutexGuard<'_, LoadHistory>> {
        match self.history.try_lock() {
            Ok(history) => Some(history),
            Err(TryLockError::Poisoned(history)) => Some(history.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Keeps it in memory for as long as the pin lives, from its next load on.
    pub fn pin(self: &Arc<Self>) -> MemoryPin {
        self.pins.fetch_add(1, Relaxed);
        MemoryPin(self.clone())
    }
}

/// Ends a mark of a [`ResidentExecutable`].
pub(crate) struct MarkGuard<'a>(&'a AtomicBool);

impl Drop for MarkGuard<'_> {
    fn drop(&mut self) {
        self.0.store(false, Relaxed);
    }
}

/// Keeps an executable in memory.
pub struct MemoryPin(Arc<ResidentExecutable>);

impl Drop for MemoryPin {
    fn drop(&mut self) {
        self.0.pins.fetch_sub(1, Relaxed);
    }
}
