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

use super::resident::{Past, Recipe, Resident};
use crate::compute::Executable;

/// What a session takes for each byte of its file, before any was measured.
const FIRST_FACTOR: f64 = 1.5;
/// The weight of a new measurement, the smallest file that is one (what a small session takes has little to do with its file),
/// and what may be learned.
const LEARN: f64 = 0.2;
const LEARN_FROM: u64 = 1 << 20;
const FACTORS: (f64, f64) = (1.0, 3.0);
/// What a measurement may say for each byte of the file at most, and beside that: more is somebody else's memory.
const MOST: (u64, u64) = (8, 1 << 20);
/// Files beside a model that are looked at.
const MOST_FILES: usize = 256;
/// How often a load that waits for room looks again.
const STEP: Duration = Duration::from_millis(2);
/// When to ask again where there was no room.
const RETRY: Duration = Duration::from_secs(1);

/// How much room is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// As much as there is without harm to others, waited for.
    Ordinary,
    /// As much as there is now.
    Now,
    /// Whatever it takes: what gets an endpoint out of trouble is not refused for want of memory.
    Urgent,
}

/// Loads so far and what became of them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Sessions that were made.
    pub loads: AtomicU64,
    /// Sessions that gave their memory up for others.
    pub evictions: AtomicU64,
    /// Loads that found no room.
    pub refusals: AtomicU64,
}

/// The memory of all models.
pub struct Memory {
    /// In bytes; `None` without a bound.
    budget: Option<u64>,
    /// How long a load waits for room.
    patience: Duration,
    state: Mutex<State>,
    /// Loads in progress, and loads begun: one beside which no other was is measured.
    loading: AtomicUsize,
    begun: AtomicUsize,
    /// Bytes of the heap that are in use, where anybody knows.
    heap: fn() -> Option<u64>,
    /// What happened.
    pub counters: Counters,
}

struct State {
    known: Vec<Known>,
    /// Bytes that loads in progress will take.
    promised: u64,
    /// Bytes in memory for each byte of a file.
    factor: f64,
}

struct Known {
    resident: Weak<Resident>,
    used: Instant,
}

/// Room that a load in progress was given.
struct Promise<'a> {
    memory: &'a Memory,
    bytes: u64,
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        self.memory.state().promised -= self.bytes;
    }
}

/// A load in progress, which knows whether another was beside it.
struct Alone<'a> {
    memory: &'a Memory,
    /// Which load it is; `None` when another was in progress as it began.
    number: Option<usize>,
}

impl Alone<'_> {
    fn begin(memory: &Memory) -> Alone<'_> {
        let first = memory.loading.fetch_add(1, SeqCst) == 0;
        let number = memory.begun.fetch_add(1, SeqCst) + 1;
        Alone { memory, number: first.then_some(number) }
    }

    fn was_alone(&self) -> bool {
        self.number == Some(self.memory.begun.load(SeqCst))
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        self.memory.loading.fetch_sub(1, SeqCst);
    }
}

impl Memory {
    /// Memory for models, of so many bytes, or unbounded; who finds no room waits `patience` for some.
    pub fn new(budget: Option<u64>, patience: Duration) -> Memory {
        Memory::measured_by(heap::used_bytes, budget, patience)
    }

    fn measured_by(heap: fn() -> Option<u64>, budget: Option<u64>, patience: Duration) -> Memory {
        let state = Mutex::new(State { known: Vec::new(), promised: 0, factor: FIRST_FACTOR });
        Memory {
            budget,
            patience,
            state,
            loading: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            heap,
            counters: Counters::default(),
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
        made.saturating_sub(self.state().present().count() as u64)
    }

    /// Makes something for the first time. Blocks.
    ///
    /// # Errors
    /// As the recipe; `overloaded` when there is no room.
    pub(crate) fn first(&self, recipe: Recipe, need: Need) -> Result<(Arc<Resident>, Arc<dyn Executable>)> {
        let size = file_bytes(&recipe.path);
        let expected = (size as f64 * self.state().factor) as u64;
        let promise = self.room(expected, need)?;
        let (executable, bytes) = self.make(&recipe, size, expected)?;
        let resident = Arc::new(Resident::new(executable.clone(), Some(recipe), bytes));
        let mut state = self.state();
        state.known.retain(|known| known.resident.strong_count() > 0);
        state.known.push(Known { resident: Arc::downgrade(&resident), used: Instant::now() });
        drop(state);
        drop(promise);
        // It may have taken more than was expected.
        drop(self.room(0, Need::Urgent));
        Ok((resident, executable))
    }

    /// Brings something back into memory and returns it; `try_out` runs it before anybody else sees it. Blocks; whoever comes
    /// meanwhile waits for the same load.
    ///
    /// # Errors
    /// As the recipe and `try_out`, and the same for a while after a failure; `overloaded` when there is no room.
    pub(crate) fn bring(
        &self,
        resident: &Arc<Resident>,
        need: Need,
        try_out: impl FnOnce(&Arc<dyn Executable>) -> Result<()>,
    ) -> Result<Arc<dyn Executable>> {
        let until = Instant::now() + self.patience;
        let _loading = resident.begins_loading();
        loop {
            let mut past = resident.past()?;
            if let Some(present) = resident.hold() {
                return Ok(present);
            }
            if let Some(draining) = past.draining() {
                resident.fill(draining.clone(), resident.bytes(), &mut past);
                return Ok(draining);
            }
            if let Some(error) = past.failure(Instant::now()).filter(|_| need != Need::Urgent) {
                return Err(error);
            }
            match self.room_now(resident.bytes(), need) {
                Ok(promise) => return self.refill(resident, &mut past, (promise, try_out)),
                // Not under the lock: who is urgent is not to wait behind who waits.
                Err(_) if need == Need::Ordinary && Instant::now() < until => drop(past),
                Err(error) => {
                    self.refused(need);
                    return Err(error);
                }
            }
            std::thread::sleep(STEP);
        }
    }

    /// Makes it again into room that was promised.
    fn refill(
        &self,
        resident: &Resident,
        past: &mut Past,
        (promise, try_out): (Promise<'_>, impl FnOnce(&Arc<dyn Executable>) -> Result<()>),
    ) -> Result<Arc<dyn Executable>> {
        let recipe =
            resident.recipe().ok_or_else(|| Error::new(Code::Internal, "nothing to load it from"))?;
        // What was measured before is kept where this load shares the heap with another one.
        let made = self.make(recipe, file_bytes(&recipe.path), resident.bytes());
        let made = made.and_then(|(executable, bytes)| try_out(&executable).map(|()| (executable, bytes)));
        // A load that was cancelled says nothing about the next one.
        let failed = |error: &Error| error.code != Code::Cancelled;
        let (executable, bytes) = made.inspect_err(|error| {
            if failed(error) {
                past.fail(Instant::now(), error);
            }
        })?;
        resident.fill(executable.clone(), bytes, past);
        drop(promise);
        Ok(executable)
    }

    /// Notes who was used since the last time.
    pub fn note(&self) {
        self.state().note(Instant::now());
    }

    /// A load found no room; one that comes again at once is not counted each time.
    fn refused(&self, need: Need) {
        self.counters.refusals.fetch_add(u64::from(need == Need::Ordinary), Relaxed);
    }

    /// Makes room for `bytes`, which are promised to the caller; waits a while for runs to end where that would make it.
    fn room(&self, bytes: u64, need: Need) -> Result<Promise<'_>> {
        let until = Instant::now() + self.patience;
        loop {
            match self.room_now(bytes, need) {
                // A run that ends tells nobody.
                Err(_) if need == Need::Ordinary && Instant::now() < until => std::thread::sleep(STEP),
                outcome => return outcome.inspect_err(|_| self.refused(need)),
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
            Some(budget) if used + bytes > budget => Err(no_room(bytes, budget, used)),
            _ => Ok(()),
        }
    }

    fn room_now(&self, bytes: u64, need: Need) -> Result<Promise<'_>> {
        // Sessions are released when the lock is: a large one takes milliseconds.
        let mut emptied = Vec::new();
        let mut state = self.state();
        if let Some(budget) = self.budget {
            state.note(Instant::now());
            let used = state.used();
            let over = (used + bytes).saturating_sub(budget);
            let victims = state.victims(over);
            let idle: u64 = victims.iter().map(|victim| victim.bytes()).sum();
            if idle < over && need != Need::Urgent {
                return Err(no_room(bytes, budget, used - idle));
            }
            let mut freed = 0;
            for victim in victims {
                let executable = victim.empty();
                // Whoever came between the choice and the deed keeps what it holds.
                let free = executable.as_ref().is_some_and(|executable| Arc::strong_count(executable) == 1);
                freed += if free { victim.bytes() } else { 0 };
                emptied.extend(executable);
            }
            self.counters.evictions.fetch_add(emptied.len() as u64, Relaxed);
            if freed < over && need != Need::Urgent {
                return Err(no_room(bytes, budget, used - freed));
            }
        }
        state.promised += bytes;
        drop(state);
        Ok(Promise { memory: self, bytes })
    }

    /// Makes it and says what it takes, in bytes: measured, or `expected`.
    fn make(&self, recipe: &Recipe, size: u64, expected: u64) -> Result<(Arc<dyn Executable>, u64)> {
        let alone = Alone::begin(self);
        let before = (self.heap)();
        let executable = (recipe.make)()?;
        let after = (self.heap)();
        self.counters.loads.fetch_add(1, Relaxed);
        let grown = before.zip(after).map(|(before, after)| after.saturating_sub(before));
        let Some(grown) = grown.filter(|_| alone.was_alone()) else { return Ok((executable, expected)) };
        let bytes = grown.clamp(size, size * MOST.0 + MOST.1);
        if size >= LEARN_FROM {
            let mut state = self.state();
            let factor = (bytes as f64 / size as f64).clamp(FACTORS.0, FACTORS.1);
            state.factor += LEARN * (factor - state.factor);
        }
        Ok((executable, bytes))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.promised + self.present().map(|resident| resident.bytes()).sum::<u64>()
    }

    /// What is in memory.
    fn present(&self) -> impl Iterator<Item = Arc<Resident>> {
        self.known
            .iter()
            .filter_map(|known| known.resident.upgrade())
            .filter(|resident| resident.is_present())
    }

    fn note(&mut self, now: Instant) {
        for known in &mut self.known {
            if known.resident.upgrade().is_some_and(|resident| resident.take_used()) {
                known.used = now;
            }
        }
    }

    /// Who gives up for `bytes`, the longest unused first, and nobody who need not; all there are when that is not enough.
    fn victims(&mut self, bytes: u64) -> Vec<Arc<Resident>> {
        if bytes == 0 {
            return Vec::new();
        }
        self.known.sort_by_key(|known| known.used);
        let idle = self.known.iter().filter_map(|known| known.resident.upgrade());
        let mut freed = 0;
        let mut victims = Vec::new();
        for resident in idle.filter(|resident| resident.is_idle()) {
            if freed >= bytes {
                break;
            }
            freed += resident.bytes();
            victims.push(resident);
        }
        // The last one may make the room of others before it.
        victims.retain(|resident| {
            let spare = freed - bytes.min(freed) >= resident.bytes();
            freed -= if spare { resident.bytes() } else { 0 };
            !spare
        });
        victims
    }
}

/// The size of a model file and of what lies beside it, which may be its external data, in bytes.
fn file_bytes(path: &Path) -> u64 {
    let size =
        |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file).map(|file| file.len());
    let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok()).into_iter().flatten();
    let others = beside.take(MOST_FILES).filter_map(|entry| Some(entry.ok()?.path()));
    let others = others.filter(|other| other.extension().is_none_or(|extension| extension != "onnx"));
    size(path).unwrap_or(0) + others.filter_map(|other| size(&other)).sum::<u64>()
}

fn no_room(bytes: u64, budget: u64, used: u64) -> Error {
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
    .after(RETRY)
}

#[cfg(test)]
mod tests;
