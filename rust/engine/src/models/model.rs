//! A loaded version: what computes, its queue and batches, and where its runs happen.
//!
//! Buffers are leased (`runs/lease`). Each IO thread has a pool of free buffers in the model, so that a request finds its buffers and
//! allocates none. Unloading a model frees them. A lease may be dropped on any thread: its buffers return to
//! their pool.
//! Next: `loaded_model`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use headgate_core::error::{Code, Error, Result};
use headgate_core::histogram::Counts;
use headgate_core::spec::{Device, PlacementRule, RunSpec};
use headgate_core::tensor::Signature;
use headgate_runtime::{Binding, Library};

use super::buffer_pool::BufferPool;
use super::load_notes::LoadNotes;
use super::placement::{Placement, PlacementEvidence, PlacementPolicy};
use super::probes::ModelProbes;
use super::shortest_run::ShortestRun;
use crate::batching::{BatchWaker, Batcher, OpenBatches};
use crate::memory::ResidentExecutable;
use crate::workers::{DeviceWorkers, MAX_IN_FLIGHT, RunCounters, TaskQueue, WorkerCounters};

/// When a client may retry if the runs of a version do not end.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The threads that may run a model, and what they share.
#[derive(Clone)]
pub struct ModelThreads {
    /// The number of IO threads.
    pub io_threads: usize,
    /// The number of pool threads.
    pub pool_threads: usize,
    /// The counters of all workers.
    pub counters: Arc<WorkerCounters>,
    /// Wakes IO threads whose batched requests have an outcome.
    pub batch_waker: Arc<dyn BatchWaker>,
}

/// A version that can be run.
pub struct Model {
    resident: Arc<ResidentExecutable>,
    device: Device,
    library: &'static Library,
    /// One for each IO thread, and a last one for runs beside requests.
    buffer_pools: Box<[BufferPool]>,
    queue: Arc<TaskQueue>,
    batches: Option<OpenBatches>,
    /// The workers of its device, if it computes on one.
    device_workers: Option<DeviceWorkers>,
    /// Decides where it runs.
    pub placement_policy: PlacementPolicy,
    /// What loading found.
    pub load_notes: LoadNotes,
    /// How long loading and warming took, in nanoseconds.
    pub load_ns: AtomicU64,
    shortest: ShortestRun,
    probes: ModelProbes,
    run_counters: Arc<RunCounters>,
    /// When [`Model::learn`] was called last.
    learned_ns: AtomicU64,
}

impl Model {
    /// A model that is run on these threads, as `run` configures it.
    ///
    /// # Errors
    /// As [`Batcher::new`].
    pub fn new(
        resident: Arc<ResidentExecutable>,
        device: Device,
        run: &RunSpec,
        library: &'static Library,
        threads: &ModelThreads,
    ) -> Result<Self> {
        let buffer_pools = (0..=threads.io_threads.max(1)).map(|_| BufferPool::new()).collect();
        let run_counters = Arc::<RunCounters>::default();
        let batches = if run.max_batch > 1 {
            let batcher = Batcher::new(run, resident.signature())?;
            Some(OpenBatches::new(batcher, run_counters.clone(), threads.batch_waker.clone()))
        } else {
            None
        };
        let instance_count = resident.instances();
        let device_workers = (instance_count > 0)
            .then(|| DeviceWorkers::new(instance_count, &threads.counters))
            .transpose()?;
        let instances = match &device_workers {
            Some(_) => instance_count * MAX_IN_FLIGHT,
            None if run.instances == 0 => threads.pool_threads.max(1),
            None => usize::from(run.instances),
        };
        // At most as many runs happen on IO threads at a time as there are of them.
        let bounded = run.instances > 0 && usize::from(run.instances) < threads.io_threads;
        let placement_policy = match run.placement {
            _ if device_workers.is_some() => {
                PlacementPolicy::fixed_to_pool("it has threads of its own for its device")
            }
            PlacementRule::Auto if bounded => {
                PlacementPolicy::fixed_to_pool("run.instances is less than the IO threads")
            }
            rule => PlacementPolicy::new(rule),
        };
        Ok(Self {
            resident,
            device,
            library,
            buffer_pools,
            queue: Arc::new(TaskQueue::new(instances)),
            batches,
            device_workers,
            placement_policy,
            load_notes: LoadNotes::default(),
            load_ns: AtomicU64::new(0),
            shortest: ShortestRun::default(),
            probes: ModelProbes::default(),
            run_counters,
            learned_ns: AtomicU64::new(0),
        })
    }

    /// Its inputs and outputs.
    pub fn signature(&self) -> &Signature {
        self.resident.signature()
    }

    /// What it computes on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Its executable, in memory or not.
    pub fn resident(&self) -> &Arc<ResidentExecutable> {
        &self.resident
    }

    /// The library of ONNX Runtime, which makes its buffers.
    pub(super) fn library(&self) -> &'static Library {
        self.library
    }

    /// Frees the buffers and slabs that are kept for later requests.
    pub(crate) fn free_buffers(&self) {
        self.buffer_pools.iter().for_each(|pool| while pool.take().is_some() {});
        if let Some(batches) = &self.batches {
            batches.batcher().free_slabs();
        }
    }

    /// The sizes and costs of its batches, if its requests may be run together.
    pub fn batcher(&self) -> Option<&Batcher> {
        self.open_batches().map(OpenBatches::batcher)
    }

    /// Its open batches, if its requests may be run together.
    pub(crate) fn open_batches(&self) -> Option<&OpenBatches> {
        self.batches.as_ref().filter(|batches| !batches.batcher().is_off())
    }

    /// Where the next request runs. Batches are made in the pool only.
    pub fn placement(&self) -> Placement {
        let place = if self.device_workers.is_some() { Placement::Pool } else { self.placement_policy.get() };
        match (place, self.batcher()) {
            (Placement::Pool, Some(_)) => Placement::Batch,
            (place, _) => place,
        }
    }

    /// Whether another request of a class may come in. It may, unless it would run in the pool and the queue is too long. A batched request
    /// is checked when it needs a new batch.
    ///
    /// # Errors
    /// As [`Model::check_queue`].
    pub fn check_admission(&self, class: u8) -> Result<()> {
        if self.placement() == Placement::Pool { self.check_queue(class) } else { Ok(()) }
    }

    /// Whether another task of a class may be queued.
    ///
    /// # Errors
    /// `overloaded` if the version sheds and its limit is reached, or if stuck runs hold all threads that it may have.
    pub(crate) fn check_queue(&self, class: u8) -> Result<()> {
        if self.run_counters.stuck() >= self.queue.instances() {
            let words = "every thread that this version may have is held by a run that was cancelled and does not end";
            return Err(Error::new(Code::Overloaded, words).after(RETRY_AFTER));
        }
        if self.queue.admits(class) {
            return Ok(());
        }
        Err(Error::new(Code::Overloaded, "requests come faster than this version runs; try again later"))
    }

    /// Whether requests are shed because its queue is overloaded.
    pub fn is_shedding(&self) -> bool {
        self.queue.is_shedding()
    }

    /// Its queue.
    pub(crate) fn queue(&self) -> &Arc<TaskQueue> {
        &self.queue
    }

    /// The workers of its device, if it computes on one.
    pub(crate) fn device_workers(&self) -> Option<&DeviceWorkers> {
        self.device_workers.as_ref()
    }

    /// The counters of its runs on pool threads.
    pub fn run_counters(&self) -> &Arc<RunCounters> {
        &self.run_counters
    }

    /// Its probes.
    pub fn probes(&self) -> &ModelProbes {
        &self.probes
    }

    /// The number of IO threads, each of which has a buffer pool.
    pub(crate) fn io_threads(&self) -> usize {
        self.buffer_pools.len() - 1
    }

    /// Buffers for one run: free ones of a pool, or else new ones.
    pub(crate) fn take_binding(&self, thread: usize) -> Box<Binding> {
        self.buffer_pools[thread].take().unwrap_or_else(|| Box::new(self.new_binding()))
    }

    /// Gives buffers back to their pool.
    pub(crate) fn give_binding(&self, binding: Box<Binding>, thread: usize) {
        self.buffer_pools[thread].give(binding);
    }

    /// Prepares for [`Model::give_binding_remote`].
    pub(crate) fn prepare_remote(&self, thread: usize) {
        self.buffer_pools[thread].prepare_remote();
    }

    /// As [`Model::give_binding`], for threads of low priority. A model that is out of memory keeps none.
    pub(crate) fn give_binding_remote(&self, binding: Box<Binding>, thread: usize) {
        if self.resident.is_warm() {
            self.buffer_pools[thread].give_remote(binding);
        }
    }

    /// New buffers for one run.
    pub(crate) fn new_binding(&self) -> Binding {
        Binding::with_driver(self.resident.driver(), self.library, self.signature())
    }

    /// Decides from the newest runs where to run, and learns how long a run takes. `now_ns` is any monotonic clock.
    pub fn learn(&self, runs: &Counts, now_ns: u64) {
        let since = self.learned_ns.swap(now_ns, Relaxed);
        let time_ns = now_ns.saturating_sub(since) * self.io_threads() as u64;
        let busy = if time_ns == 0 { 0.0 } else { runs.sum_ns as f64 / time_ns as f64 };
        let batches = self.batcher().map(Batcher::take_summary);
        self.placement_policy.decide(PlacementEvidence { runs, busy, batches }, now_ns);
        self.shortest.learn(runs, now_ns);
    }

    /// Records how long a run took.
    pub fn record_run(&self, run_ns: u64) {
        self.shortest.record_run(run_ns);
    }

    /// How long a run takes at least, as far as is known, in nanoseconds.
    pub fn shortest_run_ns(&self) -> u64 {
        self.shortest.get_ns()
    }

    /// How long a run takes, if that is more than is `left`: then the request is not worth a run. Now and then one is let through, to
    /// measure. `now_ns` is the clock of [`Model::learn`].
    pub fn takes_longer_than(&self, left: Duration, now_ns: impl FnOnce() -> u64) -> Option<Duration> {
        self.shortest.exceeds(left, now_ns)
    }

    /// How long loading and warming took, in nanoseconds.
    pub fn load_ns(&self) -> u64 {
        self.load_ns.load(Relaxed)
    }
}
