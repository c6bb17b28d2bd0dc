//! A loaded version: what computes, and the buffers it computes on.
//!
//! Buffers are leased (`lease`): each IO thread has its own free list in the model, so a warm request allocates nothing and frees
//! nothing, and unloading a model frees all of them at once. A lease may be dropped anywhere; it finds its way home.
//! Next: `lease`.
#![allow(unsafe_code, reason = "a run in the air reads and writes buffers that somebody else holds")]

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::spec::{Device, PlacementRule, RunSpec};
use headgate_core::tensor::Signature;
use headgate_runtime::device::{Driver, Flight};
use headgate_runtime::{Binding, Library, Session};

use crate::batcher::Batcher;
use crate::crew::{self, Crew};
use crate::free::Free;
use crate::lane::Lane;
use crate::notes::Notes;
use crate::place::{Place, Placement, Seen};
use crate::pool::{Desk, Work};
use crate::probe::Probes;
use crate::resident::Resident;
use crate::runner::Runs;
use crate::shortest::Shortest;
use headgate_core::histogram::Counts;

/// When to ask again for a version whose runs do not end.
const RETRY: Duration = Duration::from_secs(1);

/// Whatever turns inputs into outputs: an ONNX Runtime session, a constant, a test's probe.
pub trait Executable: Send + Sync + 'static {
    /// What it takes and gives.
    fn signature(&self) -> &Signature;

    /// What it declares and does not offer, if anything, in words.
    fn remark(&self) -> Option<&str> {
        None
    }

    /// Computes the outputs of the inputs in `binding`, which has the signature's tensors. May run on many threads at once.
    ///
    /// # Errors
    /// `backend_failed`, whoever is at fault: nobody can tell from one run. `overloaded` for want of memory.
    fn run(&self, binding: &mut Binding) -> Result<()>;

    /// Finds out which outputs may have buffers before a run, by runs over the inputs in `binding`, which it takes.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        let _ = binding;
        Ok(())
    }

    /// How many of it compute at the same time on threads of their own; 0 where it computes on whatever thread asks.
    fn instances(&self) -> usize {
        0
    }

    /// Whose memory its buffers are best made of.
    fn driver(&self) -> Option<&Arc<dyn Driver>> {
        None
    }

    /// Begins to compute on the thread of an instance what [`Executable::finish`] ends.
    ///
    /// # Errors
    /// As [`Executable::run`]; then nothing is in the air.
    ///
    /// # Safety
    /// Nobody touches or drops `binding` before [`Executable::finish`] got the flight.
    unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<Flight> {
        let _ = instance;
        self.run(binding).map(|()| Flight::LANDED)
    }

    /// Held while it is warmed, where others of its kind must not be made or freed meanwhile.
    fn alone(&self) -> Option<MutexGuard<'_, ()>> {
        None
    }

    /// Waits for the end of a run; the outputs are in `binding` then.
    ///
    /// # Errors
    /// As [`Executable::run`].
    fn finish(&self, instance: usize, flight: Flight, binding: &mut Binding) -> Result<()> {
        let _ = (instance, flight, binding);
        Ok(())
    }
}

impl Executable for Session {
    fn signature(&self) -> &Signature {
        Session::signature(self)
    }

    fn remark(&self) -> Option<&str> {
        Session::remark(self)
    }

    fn run(&self, binding: &mut Binding) -> Result<()> {
        binding.run(self)
    }

    fn check_outputs(&self, binding: &mut Binding) -> Result<()> {
        binding.check_outputs(self)
    }
}

/// The threads that may run a model.
#[derive(Clone, Copy, Debug)]
pub struct Threads {
    /// IO threads.
    pub io: usize,
    /// Pool threads.
    pub pool: usize,
}

/// A version that can be run: what computes, and how it is run.
pub struct Model {
    resident: Arc<Resident>,
    device: Device,
    library: &'static Library,
    pub(crate) free: Box<[Free]>,
    lane: Arc<Lane<Work>>,
    batcher: Option<Batcher>,
    /// The threads that run it, where those are its own.
    crew: Option<Crew>,
    /// Where it runs.
    pub placement: Placement,
    /// What loading found.
    pub notes: Notes,
    /// How long loading and warming took, in nanoseconds.
    pub load_ns: AtomicU64,
    shortest: Shortest,
    pub(crate) probes: Probes,
    pub(crate) runs: Runs,
    /// When something was learned last.
    learned_ns: AtomicU64,
}

impl Model {
    /// A model that is run as `run` says, by these threads.
    ///
    /// # Errors
    /// As [`Batcher::new`].
    pub fn new(
        (resident, device): (Arc<Resident>, Device),
        run: &RunSpec,
        library: &'static Library,
        (threads, desk): (Threads, &Arc<Desk>),
    ) -> Result<Self> {
        let Threads { io: threads, pool } = threads;
        let free = (0..threads.max(1)).map(|_| Free::new()).collect();
        let batched = (run.max_batch > 1).then(|| Batcher::new(run, resident.signature()));
        let crew = (resident.instances() > 0).then(|| Crew::new(resident.instances(), desk)).transpose()?;
        let instances = match &crew {
            Some(_) => resident.instances() * crew::IN_THE_AIR,
            None if run.instances == 0 => pool.max(1),
            None => usize::from(run.instances),
        };
        // On IO threads as many run at a time as there are.
        let bounded = run.instances > 0 && usize::from(run.instances) < threads;
        let placement = match run.placement {
            _ if crew.is_some() => Placement::in_pool("it has threads of its own for its device"),
            PlacementRule::Auto if bounded => Placement::in_pool("run.instances is less than the IO threads"),
            rule => Placement::new(rule),
        };
        Ok(Self {
            resident,
            device,
            library,
            free,
            lane: Arc::new(Lane::new(instances)),
            batcher: batched.transpose()?,
            crew,
            placement,
            notes: Notes::default(),
            load_ns: AtomicU64::new(0),
            shortest: Shortest::default(),
            probes: Probes::default(),
            runs: Runs::default(),
            learned_ns: AtomicU64::new(0),
        })
    }

    /// What it takes and gives.
    pub fn signature(&self) -> &Signature {
        self.resident.signature()
    }

    /// What it computes on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// What computes, and whether it is in memory.
    pub fn resident(&self) -> &Arc<Resident> {
        &self.resident
    }

    /// The model with what computes, which stays in memory until this is dropped; `None` while it is out of memory.
    pub fn hold(self: &Arc<Self>) -> Option<Warm> {
        Some(Warm { executable: self.resident.hold()?, model: self.clone() })
    }

    /// Gives kept buffers back to the allocator.
    pub(crate) fn free_buffers(&self) {
        self.free.iter().for_each(|free| while free.take().is_some() {});
        if let Some(batcher) = &self.batcher {
            batcher.free_slabs();
        }
    }

    /// Its batches, if its requests may be run together.
    pub fn batcher(&self) -> Option<&Batcher> {
        self.batcher.as_ref().filter(|batcher| !batcher.is_off())
    }

    /// Where the next request runs: batches are made in the pool only.
    pub fn place(&self) -> Place {
        let place = if self.crew.is_some() { Place::Pool } else { self.placement.get() };
        match (place, self.batcher()) {
            (Place::Pool, Some(_)) => Place::Batch,
            (place, _) => place,
        }
    }

    /// Whether one more request of a class may come: always, unless it would wait for a thread of its own. Batches are judged
    /// where a new one is made.
    ///
    /// # Errors
    /// As [`Model::admit`].
    pub fn welcomes(&self, class: u8) -> Result<()> {
        if self.place() == Place::Pool { self.admit(class) } else { Ok(()) }
    }

    /// Whether one more piece of work of a class may wait for a thread.
    ///
    /// # Errors
    /// `overloaded` while the version's queue stands and holds as much as it may, or its runs do not end.
    pub(crate) fn admit(&self, class: u8) -> Result<()> {
        if self.runs.stuck() >= self.lane.instances() {
            let words = "every thread that this version may have is held by a run that was cancelled and does not end";
            return Err(Error::new(Code::Overloaded, words).after(RETRY));
        }
        if self.lane.admits(class) {
            return Ok(());
        }
        Err(Error::new(Code::Overloaded, "requests come faster than this version runs; try again later"))
    }

    /// Whether requests are shed because the queue before the pool stands.
    pub fn is_shedding(&self) -> bool {
        self.lane.is_shedding()
    }

    /// Its queue before the pool.
    pub(crate) fn lane(&self) -> &Arc<Lane<Work>> {
        &self.lane
    }

    /// The threads that run it, where those are its own.
    pub(crate) fn crew(&self) -> Option<&Crew> {
        self.crew.as_ref()
    }

    /// Buffers for one run.
    pub(crate) fn new_binding(&self) -> Binding {
        Binding::in_memory_of(self.resident.driver(), self.library, self.signature())
    }

    /// Learns from the newest runs: where to run, and how long that takes; `now_ns` is any monotonic clock.
    pub fn learn(&self, runs: &Counts, now_ns: u64) {
        let since = self.learned_ns.swap(now_ns, Relaxed);
        let time_ns = now_ns.saturating_sub(since) * self.free.len() as u64;
        let busy = if time_ns == 0 { 0.0 } else { runs.sum_ns as f64 / time_ns as f64 };
        let batches = self.batcher().map(Batcher::newest);
        self.placement.decide(Seen { runs, busy, batches }, now_ns);
        self.shortest.learn(runs, now_ns);
    }

    /// A run took so long.
    pub fn ran(&self, run_ns: u64) {
        self.shortest.ran(run_ns);
    }

    /// How long a run takes, if that is more than is `left`: then the request is not worth its run. Now and then one is let through
    /// to see; `now_ns` is the clock of [`Model::learn`].
    pub fn takes_longer_than(&self, left: Duration, now_ns: impl FnOnce() -> u64) -> Option<Duration> {
        self.shortest.exceeds(left, now_ns)
    }

    /// How long loading and warming took, in nanoseconds.
    pub fn load_ns(&self) -> u64 {
        self.load_ns.load(Relaxed)
    }
}

/// A model that is in memory for as long as this lives.
#[derive(Clone)]
pub struct Warm {
    model: Arc<Model>,
    executable: Arc<dyn Executable>,
}

impl Warm {
    /// A model with what computes for it.
    pub(crate) fn new(model: Arc<Model>, executable: Arc<dyn Executable>) -> Warm {
        Warm { model, executable }
    }

    /// The model.
    pub fn model(&self) -> &Arc<Model> {
        &self.model
    }

    /// What computes.
    pub(crate) fn executable(&self) -> &dyn Executable {
        &*self.executable
    }

    /// Computes; a panic inside becomes an error.
    ///
    /// # Errors
    /// As [`Executable::run`]; `internal` after a panic.
    pub(crate) fn execute(&self, binding: &mut Binding) -> Result<()> {
        let run = std::panic::AssertUnwindSafe(|| self.executable.run(binding));
        std::panic::catch_unwind(run).unwrap_or_else(|_| {
            Err(Error::new(Code::Internal, "the run panicked; this is a defect of Headgate"))
        })
    }
}

impl Warm {
    /// Computes for the first time, and finds out which outputs may have buffers before a run.
    ///
    /// # Errors
    /// As [`Warm::execute`].
    pub(crate) fn execute_first(&self, binding: &mut Binding) -> Result<()> {
        self.execute(binding)?;
        self.executable.check_outputs(binding)
    }
}

/// What computes on the thread of an instance. A panic costs the buffers and leaves them where they are: something may still
/// write there.
impl Warm {
    /// As [`Executable::begin`].
    ///
    /// # Safety
    /// As [`Executable::begin`].
    pub(crate) unsafe fn begin(&self, instance: usize, binding: &mut Binding) -> Result<Flight> {
        // SAFETY: the caller's promise.
        self.guarded(binding, |executable, binding| unsafe { executable.begin(instance, binding) })
    }

    /// As [`Executable::finish`].
    pub(crate) fn finish(&self, instance: usize, flight: Flight, binding: &mut Binding) -> Result<()> {
        self.guarded(binding, |executable, binding| executable.finish(instance, flight, binding))
    }

    fn guarded<T>(
        &self,
        binding: &mut Binding,
        work: impl FnOnce(&dyn Executable, &mut Binding) -> Result<T>,
    ) -> Result<T> {
        let run = std::panic::AssertUnwindSafe(|| work(&*self.executable, binding));
        std::panic::catch_unwind(run).unwrap_or_else(|_| {
            std::mem::forget(std::mem::replace(binding, self.new_binding()));
            Err(Error::new(Code::Internal, "the run panicked; this is a defect of Headgate"))
        })
    }
}

impl Deref for Warm {
    type Target = Model;

    fn deref(&self) -> &Model {
        &self.model
    }
}
