//! The memory that models may take, and who gives it up when another one needs it.
//!
//! Least recently used first, and nobody whose memory is not needed: a large model that makes all the room spares the small ones
//! before it. Never what is pinned or held by a request. What a session takes is measured once it is made, as what the heap
//! grew by, where no other load grew it at the same time; until then it is estimated from its file.
//!
//! Not here: what is in memory (`resident`). Next: `load`.

use std::path::Path;
use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Error, Result};
use headgate_runtime::heap;

use super::resident::{ExecutableSource, LoadHistory, ResidentExecutable};
use crate::compute::Executable;

/// What a session takes for each byte of its file, before any was measured.
const FIRST_FACTOR: f64 = 1.5;
/// The weight of a new measurement, the smallest file that is one (what a small session takes has little to do with its file),
/// and what may be learned.
const FACTOR_WEIGHT: f64 = 0.2;
const MIN_MEASURED_FILE: u64 = 1 << 20;
const FACTOR_RANGE: (f64, f64) = (1.0, 3.0);
/// What a measurement may say for each byte of the file at most, and beside that: more is somebody else's memory.
const MAX_MEASURED: (u64, u64) = (8, 1 << 20);
/// Files beside a model that are looked at.
const MAX_FILES: usize = 256;
/// How often a load that waits for room looks again.
const POLL_INTERVAL: Duration = Duration::from_millis(2);
/// When to ask again where there was no room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How much room is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadUrgency {
    /// As much as there is without harm to others, waited for.
    Ordinary,
    /// As much as there is now.
    Now,
    /// Whatever it takes: what gets an endpoint out of trouble is not refused for want of memory.
    Urgent,
}

/// Loads so far and what became of them.
#[derive(Debug, Default)]
pub struct MemoryCounters {
    /// Sessions that were made.
    pub loads: AtomicU64,
    /// Sessions that gave their memory up for others.
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
    /// Loads in progress, and loads begun: one beside which no other was is measured.
    loading: AtomicUsize,
    begun: AtomicUsize,
    /// Bytes of the heap that are in use, where anybody knows.
    heap: fn() -> Option<u64>,
    /// What happened.
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

/// Room that a load in progress was given.
struct MemoryReservation<'a> {
    memory: &'a ModelMemory,
    bytes: u64,
}

impl Drop for MemoryReservation<'_> {
    fn drop(&mut self) {
        self.memory.state().reserved -= self.bytes;
    }
}

/// A load in progress, which knows whether another was beside it.
struct ExclusiveLoad<'a> {
    memory: &'a ModelMemory,
    /// Which load it is; `None` when another was in progress as it began.
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
    /// Memory for models, of so many bytes, or unbounded; who finds no room waits `max_wait` for some.
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

    /// Sessions that were made and are in memory no more.
    pub fn released(&self) -> u64 {
        let made = self.counters.loads.load(Relaxed);
        made.saturating_sub(self.state().residents().count() as u64)
    }

    /// Makes something for the first time. Blocks.
    ///
    /// # Errors
    /// As the source; `overloaded` when there is no room.
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
        // It may have taken more than was expected.
        drop(self.reserve(0, LoadUrgency::Urgent));
        Ok((resident, executable))
    }

    /// Brings something back into memory and returns it; `try_out` runs it before anybody else sees it. Blocks; whoever comes
    /// meanwhile waits for the same load.
    ///
    /// # Errors
    /// As the source and `try_out`, and the same for a while after a failure; `overloaded` when there is no room.
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
                Ok(reservation) => return self.refill(resident, &mut history, (reservation, try_out)),
                // Not under the lock: who is urgent is not to wait behind who waits.
                Err(_) if urgency == LoadUrgency::Ordinary && Instant::now() < until => drop(history),
                Err(error) => {
                    self.count_refusal(urgency);
                    return Err(error);
                }
            }
            std::thread::sleep(POLL_INTERVAL);
        }
    }

    /// Makes it again into room that was reserved.
    fn refill(
        &self,
        resident: &ResidentExecutable,
        history: &mut LoadHistory,
        (reservation, try_out): (MemoryReservation<'_>, impl FnOnce(&Arc<dyn Executable>) -> Result<()>),
    ) -> Result<Arc<dyn Executable>> {
        let source =
            resident.source().ok_or_else(|| Error::new(Code::Internal, "nothing to load it from"))?;
        // What was measured before is kept where this load shares the heap with another one.
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
        drop(reservation);
        Ok(executable)
    }

    /// Notes who was used since the last time.
    pub fn note_use(&self) {
        self.state().note_use(Instant::now());
    }

    /// A load found no room; one that comes again at once is not counted each time.
    fn count_refusal(&self, urgency: LoadUrgency) {
        self.counters.refusals.fetch_add(u64::from(urgency == LoadUrgency::Ordinary), Relaxed);
    }

    /// Makes room for `bytes`, which are reserved to the caller; waits a while for runs to end where that would make it.
    fn reserve(&self, bytes: u64, urgency: LoadUrgency) -> Result<MemoryReservation<'_>> {
        let until = Instant::now() + self.max_wait;
        loop {
            match self.try_reserve(bytes, urgency) {
                // A run that ends tells nobody.
                Err(_) if urgency == LoadUrgency::Ordinary && Instant::now() < until => {
                    std::thread::sleep(POLL_INTERVAL)
                }
                outcome => return outcome.inspect_err(|_| self.count_refusal(urgency)),
            }
        }
    }

    /// Whether a model's file could be opened beside all that is in memory now.
    ///
    /// # Errors
    /// `overloaded`.
    pub(crate) fn check_room(&self, path: &Path) -> Result<()> {
        let (bytes, used) = (file_bytes(path), self.used());
        match self.budget {
            Some(budget) if used + bytes > budget => Err(no_room_error(bytes, budget, used)),
            _ => Ok(()),
        }
    }

    fn try_reserve(&self, bytes: u64, urgency: LoadUrgency) -> Result<MemoryReservation<'_>> {
        // Sessions are released when the lock is: a large one takes milliseconds.
        let mut evicted = Vec::new();
        let mut state = self.state();
        if let Some(budget) = self.budget {
            state.note_use(Instant::now());
            let used = state.used();
            let over = (used + bytes).saturating_sub(budget);
            let evictions = state.evictions(over);
            let idle: u64 = evictions.iter().map(|eviction| eviction.bytes()).sum();
            if idle < over && urgency != LoadUrgency::Urgent {
                return Err(no_room_error(bytes, budget, used - idle));
            }
            let mut freed = 0;
            for eviction in evictions {
                let executable = eviction.evict();
                // Whoever came between the choice and the deed keeps what it holds.
                let free = executable.as_ref().is_some_and(|executable| Arc::strong_count(executable) == 1);
                freed += if free { eviction.bytes() } else { 0 };
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

    /// Makes it and says what it takes, in bytes: measured, or `expected`.
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

    /// What is in memory.
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

    /// Who gives up for `bytes`, the longest unused first, and nobody who need not; all there are when that is not enough.
    fn evictions(&mut self, bytes: u64) -> Vec<Arc<ResidentExecutable>> {
        if bytes == 0 {
            return Vec::new();
        }
        self.known.sort_by_key(|known| known.used);
        let idle = self.known.iter().filter_map(|known| known.resident.upgrade());
        let mut freed = 0;
        let mut evictions = Vec::new();
        for resident in idle.filter(|resident| resident.is_evictable()) {
            if freed >= bytes {
                break;
            }
            freed += resident.bytes();
            evictions.push(resident);
        }
        // The last one may make the room of others before it.
        evictions.retain(|resident| {
            let spare = freed - bytes.min(freed) >= resident.bytes();
            freed -= if spare { resident.bytes() } else { 0 };
            !spare
        });
        evictions
    }
}

/// The size of a model file and of what lies beside it, which may be its external data, in bytes.
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
