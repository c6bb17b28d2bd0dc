//! The memory budget of the models, and which of them leave memory when another one needs room.
//!
//! The least recently used leave first. None leaves without need: if a large model makes all the room, the small ones before it stay. A
//! model that is pinned or held by a request never leaves. The size of a session is measured when it is made, as the growth of the heap if
//! no other load was in progress. Until then it is estimated from its file.
//!
//! Not here: what is in memory (`resident`). Next: `load/engine`.

use std::path::Path;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::heap;

use super::resident::{ExecutableSource, LoadHistory, ResidentExecutable};
use crate::compute::Executable;
use crate::time::Instant;

/// The estimated size of a session for each byte of its file, before any was measured.
const FIRST_FACTOR: f64 = 1.5;
/// The weight of a new measurement, the smallest file that is measured, and the range of what is learned. The size of a small session
/// has little to do with its file.
const FACTOR_WEIGHT: f64 = 0.2;
const MIN_MEASURED_FILE: u64 = 1 << 20;
const FACTOR_RANGE: (f64, f64) = (1.0, 3.0);
/// The most that a measurement may give for each byte of the file, and beside that. More belongs to something else.
const MAX_MEASURED: (u64, u64) = (8, 1 << 20);
/// The most files beside a model that are counted.
const MAX_FILES: usize = 256;
/// How often a load that waits for room tries again.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// When a client may retry if there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How a load gets its room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadUrgency {
    /// From models that are idle. The load waits for some.
    Ordinary,
    /// From models that are idle now. The load does not wait.
    Now,
    /// Always. A change that gets an endpoint out of trouble is not refused for lack of memory.
    Urgent,
}

/// Counters of loads.
#[derive(Debug, Default)]
pub struct MemoryCounters {
    /// Sessions that were made.
    pub loads: AtomicU64,
    /// Sessions that were evicted.
    pub evictions: AtomicU64,
    /// Loads that found no room.
    pub refusals: AtomicU64,
}

/// The memory of all models.
pub struct ModelMemory {
    /// In bytes; `None` without a bound.
    budget: Option<u64>,
    /// How long a load waits for room.
    max_wait: Duration,
    state: Mutex<MemoryState>,
    /// Loads in progress, and loads begun. A load is measured if no other was in progress.
    loading: AtomicUsize,
    begun: AtomicUsize,
    /// The bytes of the heap in use, if the system tells.
    heap: fn() -> Option<u64>,
    /// What happened so far.
    pub counters: MemoryCounters,
}

struct MemoryState {
    known: Vec<KnownResident>,
    /// Bytes that loads in progress will take.
    reserved: u64,
    /// Bytes in memory for each byte of a file.
    factor: f64,
}

struct KnownResident {
    resident: Weak<ResidentExecutable>,
    used: Instant,
}

/// Room that is reserved for a load in progress.
struct MemoryReservation<'a> {
    memory: &'a ModelMemory,
    bytes: u64,
}

impl Drop for MemoryReservation<'_> {
    fn drop(&mut self) {
        self.memory.state().reserved -= self.bytes;
    }
}

/// Finds out whether a load is the only one in progress.
struct ExclusiveLoad<'a> {
    memory: &'a ModelMemory,
    /// The number of the load; `None` if another was in progress when it began.
    number: Option<usize>,
}

impl ExclusiveLoad<'_> {
    fn begin(memory: &ModelMemory) -> ExclusiveLoad<'_> {
        let first = memory.loading.fetch_add(1, SeqCst) == 0;
        let number = memory.begun.fetch_add(1, SeqCst) + 1;
        ExclusiveLoad { memory, number: first.then_some(number) }
    }

    fn was_exclusive(&self) -> bool {
        self.number == Some(self.memory.begun.load(SeqCst))
    }
}

impl Drop for ExclusiveLoad<'_> {
    fn drop(&mut self) {
        self.memory.loading.fetch_sub(1, SeqCst);
    }
}

impl ModelMemory {
    /// Memory of `budget` bytes, or without a bound. A load without room waits for up to `max_wait`.
    pub fn new(budget: Option<u64>, max_wait: Duration) -> ModelMemory {
        ModelMemory::with_heap_probe(heap::used_bytes, budget, max_wait)
    }

    fn with_heap_probe(heap: fn() -> Option<u64>, budget: Option<u64>, max_wait: Duration) -> ModelMemory {
        let state = Mutex::new(MemoryState { known: Vec::new(), reserved: 0, factor: FIRST_FACTOR });
        ModelMemory {
            budget,
            max_wait,
            state,
            loading: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            heap,
            counters: MemoryCounters::default(),
        }
    }

    /// The bound, in bytes.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Bytes that models take now.
    pub fn used(&self) -> u64 {
        self.state().used()
    }

    /// Sessions that were made and are out of memory.
    pub fn released(&self) -> u64 {
        let made = self.counters.loads.load(Relaxed);
        made.saturating_sub(self.state().residents().count() as u64)
    }

    /// Makes an executable for the first time. Blocks.
    ///
    /// # Errors
    /// As the source. `overloaded` if there is no room.
    pub(crate) fn load_first(
        &self,
        source: ExecutableSource,
        urgency: LoadUrgency,
    ) -> Result<(Arc<ResidentExecutable>, Arc<dyn Executable>)> {
        let size = file_bytes(&source.path);
        let expected = (size as f64 * self.state().factor) as u64;
        let reservation = self.reserve(expected, urgency)?;
        let (executable, bytes) = self.load_measured(&source, size, expected)?;
        let resident = Arc::new(ResidentExecutable::new(executable.clone(), Some(source), bytes));
        let mut state = self.state();
        state.known.retain(|known| known.resident.strong_count() > 0);
        state.known.push(KnownResident { resident: Arc::downgrade(&resident), used: Instant::now() });
        drop(state);
        drop(reservation);
        // The session may be larger than was estimated.
        drop(self.reserve(0, LoadUrgency::Urgent));
        Ok((resident, executable))
    }

    /// Brings an executable back into memory; `try_out` runs it before others can hold it. Blocks. Callers that come meanwhile wait for the
    /// same load.
    ///
    /// # Errors
    /// As the source and `try_out`, and the same error for a while after a failure. `overloaded` if there is no room.
    pub(crate) fn reload(
        &self,
        resident: &Arc<ResidentExecutable>,
        urgency: LoadUrgency,
        try_out: impl FnOnce(&Arc<dyn Executable>) -> Result<()>,
    ) -> Result<Arc<dyn Executable>> {
        let until = Instant::now() + self.max_wait;
        let _loading = resident.mark_loading();
        loop {
            let mut history = resident.lock_history()?;
            if let Some(present) = resident.hold() {
                return Ok(present);
            }
            if let Some(draining) = history.draining() {
                resident.set_loaded(draining.clone(), resident.bytes(), &mut history);
                return Ok(draining);
            }
            if let Some(error) =
                history.recent_failure(Instant::now()).filter(|_| urgency != LoadUrgency::Urgent)
            {
                return Err(error);
            }
            match self.try_reserve(resident.bytes(), urgency) {
                Ok(_reservation) => return self.load_again(resident, &mut history, try_out),
                // Not under the lock: an urgent load must not wait behind one that waits.
                Err(_) if urgency == LoadUrgency::Ordinary && Instant::now() < until => drop(history),
                Err(error) => {
                    self.count_refusal(urgency);
                    return Err(error);
                }
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Makes an executable again. The caller has reserved room for it.
    fn load_again(
        &self,
        resident: &ResidentExecutable,
        history: &mut LoadHistory,
        try_out: impl FnOnce(&Arc<dyn Executable>) -> Result<()>,
    ) -> Result<Arc<dyn Executable>> {
        let _making = resident.mark_making();
        let source =
            resident.source().ok_or_else(|| Error::new(Code::Internal, "nothing to load it from"))?;
        // If this load shared the heap with another one, the earlier measurement stays.
        let made = self.load_measured(source, file_bytes(&source.path), resident.bytes());
        let made = made.and_then(|(executable, bytes)| try_out(&executable).map(|()| (executable, bytes)));
        // A load that was cancelled says nothing about the next one.
        let failed = |error: &Error| error.code != Code::Cancelled;
        let (executable, bytes) = made.inspect_err(|error| {
            if failed(error) {
                history.record_failure(Instant::now(), error);
            }
        })?;
        resident.set_loaded(executable.clone(), bytes, history);
        Ok(executable)
    }

    /// Notes which executables were used since the last call.
    pub fn note_use(&self) {
        self.state().note_use(Instant::now());
    }

    /// Counts a load that found no room. One that is tried again at once is counted once.
    fn count_refusal(&self, urgency: LoadUrgency) {
        self.counters.refusals.fetch_add(u64::from(urgency == LoadUrgency::Ordinary), Relaxed);
    }

    /// Reserves `bytes` for the caller. If no room can be made, it may wait for runs to end.
    fn reserve(&self, bytes: u64, urgency: LoadUrgency) -> Result<MemoryReservation<'_>> {
        let until = Instant::now() + self.max_wait;
        loop {
            match self.try_reserve(bytes, urgency) {
                // The end of a run notifies nothing, so this polls.
                Err(_) if urgency == LoadUrgency::Ordinary && Instant::now() < until => {
                    std::thread::sleep(POLL_INTERVAL)
                }
                outcome => return outcome.inspect_err(|_| self.count_refusal(urgency)),
            }
        }
    }

    /// Checks that a model file could be opened beside all that is in memory.
    ///
    /// # Errors
    /// `overloaded` if it could not.
    pub(crate) fn check_room(&self, path: &Path) -> Result<()> {
        let (bytes, used) = (file_bytes(path), self.used());
        match self.budget {
            Some(budget) if used + bytes > budget => Err(no_room_error(bytes, budget, used)),
            _ => Ok(()),
        }
    }

    fn try_reserve(&self, bytes: u64, urgency: LoadUrgency) -> Result<MemoryReservation<'_>> {
        // Sessions are freed after the lock: to free a large one takes milliseconds.
        let mut evicted = Vec::new();
        let mut state = self.state();
        if let Some(budget) = self.budget {
            state.note_use(Instant::now());
            let used = state.used();
            let over = (used + bytes).saturating_sub(budget);
            let candidates = state.eviction_candidates(over);
            let idle: u64 = candidates.iter().map(|candidate| candidate.bytes()).sum();
            if idle < over && urgency != LoadUrgency::Urgent {
                return Err(no_room_error(bytes, budget, used - idle));
            }
            let mut freed = 0;
            for candidate in candidates {
                let executable = candidate.evict();
                // A run may have taken hold of it after it was chosen.
                let free = executable.as_ref().is_some_and(|executable| Arc::strong_count(executable) == 1);
                freed += if free { candidate.bytes() } else { 0 };
                evicted.extend(executable);
            }
            self.counters.evictions.fetch_add(evicted.len() as u64, Relaxed);
            if freed < over && urgency != LoadUrgency::Urgent {
                return Err(no_room_error(bytes, budget, used - freed));
            }
        }
        state.reserved += bytes;
        drop(state);
        Ok(MemoryReservation { memory: self, bytes })
    }

    /// Makes an executable, and returns its size in bytes: measured, or `expected`.
    fn load_measured(
        &self,
        source: &ExecutableSource,
        size: u64,
        expected: u64,
    ) -> Result<(Arc<dyn Executable>, u64)> {
        let exclusive = ExclusiveLoad::begin(self);
        let before = (self.heap)();
        let executable = (source.make)()?;
        let after = (self.heap)();
        self.counters.loads.fetch_add(1, Relaxed);
        let grown = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let Some(grown) = grown.filter(|_| exclusive.was_exclusive()) else {
            return Ok((executable, expected));
        };
        let bytes = grown.clamp(size, size * MAX_MEASURED.0 + MAX_MEASURED.1);
        if size >= MIN_MEASURED_FILE {
            let mut state = self.state();
            let factor = (bytes as f64 / size as f64).clamp(FACTOR_RANGE.0, FACTOR_RANGE.1);
            state.factor += FACTOR_WEIGHT * (factor - state.factor);
        }
        Ok((executable, bytes))
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryState {
    fn used(&self) -> u64 {
        self.reserved + self.residents().map(|resident| resident.bytes()).sum::<u64>()
    }

    /// The executables in memory.
    fn residents(&self) -> impl Iterator<Item = Arc<ResidentExecutable>> {
        self.known
            .iter()
            .filter_map(|known| known.resident.upgrade())
            .filter(|resident| resident.is_present())
    }

    fn note_use(&mut self, now: Instant) {
        for known in &mut self.known {
            if known.resident.upgrade().is_some_and(|resident| resident.take_recent_use()) {
                known.used = now;
            }
        }
    }

    /// The executables to evict for `bytes`, the longest unused first, and none without need. All idle ones if that is not enough.
    fn eviction_candidates(&mut self, bytes: u64) -> Vec<Arc<ResidentExecutable>> {
        if bytes == 0 {
            return Vec::new();
        }
        self.known.sort_by_key(|known| known.used);
        let idle = self.known.iter().filter_map(|known| known.resident.upgrade());
        let mut freed = 0;
        let mut candidates = Vec::new();
        for resident in idle.filter(|resident| resident.is_evictable()) {
            if freed >= bytes {
                break;
            }
            freed += resident.bytes();
            candidates.push(resident);
        }
        // The last one may make the room of those before it.
        candidates.retain(|resident| {
            let spare = freed - bytes.min(freed) >= resident.bytes();
            freed -= if spare { resident.bytes() } else { 0 };
            !spare
        });
        candidates
    }
}

/// The size of a model file and of the files beside it, which may be its external data, in bytes.
fn file_bytes(path: &Path) -> u64 {
    let size =
        |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let others = beside.take(MAX_FILES).filter_map(|entry| Some(entry.ok()?.path()));
    let others = others.filter(|other| other.extension().is_none_or(|extension| extension != "onnx"));
    size(path).unwrap_or(0) + others.filter_map(|other| size(&other)).sum::<u64>()
}

fn no_room_error(bytes: u64, budget: u64, used: u64) -> Error {
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    Error::new(
        Code::Overloaded,
        format!(
            "there is no room for a model of about {:.1} MiB: --memory-budget is {:.1} MiB, and {:.1} MiB are taken by \
             models that are pinned or running",
            mib(bytes),
            mib(budget),
            mib(used)
        ),
    )
    .after(RETRY_AFTER)
}

#[cfg(test)]
mod tests;
