//! The run of a probe, and the input of a request that a model is probed with.
//!
//! Not here: when a model is probed, and which callers wait for the outcome (`models/probes`).

use std::sync::Arc;
use std::time::Duration;

use headgate_core::error::{Code, Result};
use headgate_runtime::Elements;
use headgate_runtime::TensorView;

use super::lease::BufferLease;
use super::run_result::RunResult;
use crate::compute::ElementBuffer;
use crate::models::{MAX_PROBE_RUN, Model, ProbeOutcome};
use crate::queue::{Queued, RunTimes};
use crate::time::Instant;
use crate::time::nanos;
use crate::warmup::WarmupInputs;
use crate::workers::{DeviceTimes, Executor, RunSlot, Task};

/// The largest input of a request that is kept, in bytes.
const MAX_BYTES: usize = 64 << 10;
/// How long a queued probe is of use.
const USEFUL_FOR: Duration = Duration::from_secs(60);

impl RunResult {
    /// Offers these inputs for probes, unless an input is known that the model takes. The run must have succeeded, and took `run`.
    pub fn offer_probe_input(&self, run: Duration) {
        if !self.model().probes().are_possible() {
            self.keep_probe_input(run);
        }
    }

    /// Called once for each model, so that other requests pay nothing for it.
    #[cold]
    fn keep_probe_input(&self, run: Duration) {
        if let Some(input) = self.copy_inputs(MAX_BYTES) {
            self.model().probes().set_request_input(input, run);
        }
    }

    /// A copy of the inputs. `None` if they take more than `max_bytes` bytes, or if optional ones are among them: the model may need these.
    fn copy_inputs(&self, max_bytes: usize) -> Option<WarmupInputs> {
        if matches!(self, RunResult::Single(lease) if lease.binding().has_optional_inputs()) {
            return None;
        }
        let mut left = max_bytes;
        let mut inputs = Vec::new();
        for index in 0..self.model().signature().inputs.len() {
            // A view of strings copies all of them.
            if self.input_strings(index).is_some_and(|strings| strings.is_longer_than(left)) {
                return None;
            }
            let TensorView { shape, data, .. } = self.input(index).ok()?;
            let bytes = match &data {
                Elements::Bytes(bytes) => bytes.len(),
                Elements::Strings { bytes, offsets } => bytes.len() + size_of_val(&offsets[..]),
            };
            left = left.checked_sub(bytes)?;
            inputs.push((shape.to_shape(), ElementBuffer::copy_of(&data)));
        }
        Some(WarmupInputs::from_elements(inputs))
    }
}

/// A queued probe.
pub(super) struct ProbeRun {
    model: Arc<Model>,
    queued_at: Instant,
}

impl ProbeRun {
    pub(super) fn new(model: Arc<Model>) -> ProbeRun {
        ProbeRun { model, queued_at: Instant::now() }
    }

    fn run_on(&self, executor: Executor<'_>) -> RunTimes {
        let (probes, begun) = (self.model.probes(), Instant::now());
        let known = probes.known_input();
        let (limit, from_request) =
            known.map_or((MAX_PROBE_RUN, false), |known| (known.limit, known.from_request));
        let guard = executor.begin(self.model.run_counters(), begun + limit);
        let result = self.execute(executor.instance());
        drop(guard);
        let outcome = result.and_then(|result| match result {
            Ok(()) if from_request => Some(ProbeOutcome::Works { run: Duration::ZERO }),
            Ok(()) => Some(ProbeOutcome::Works { run: begun.elapsed() }),
            // Lack of memory says nothing about the model.
            Err(error) if error.code == Code::Overloaded => None,
            Err(_) => Some(ProbeOutcome::Fails),
        });
        let now = Instant::now();
        probes.finish(outcome, begun, now);
        RunTimes { wait_ns: nanos(begun - self.queued_at), run_ns: nanos(now - begun).max(1) }
    }

    /// Runs the known input; `None` if the model has left memory meanwhile.
    fn execute(&self, instance: Option<usize>) -> Option<Result<()>> {
        let (known, loaded) = (self.model.probes().known_input()?, self.model.hold()?);
        let mut lease = BufferLease::acquire(loaded, 0);
        let (signature, binding) = lease.signature_and_binding();
        let filled = known.input.fill(binding, signature, 0);
        Some(filled.and_then(|()| lease.run_on(instance)))
    }
}

impl Queued for ProbeRun {
    fn queued_at(&self) -> Instant {
        self.queued_at
    }

    fn useful_until(&self) -> Option<Instant> {
        Some(self.queued_at + USEFUL_FOR)
    }

    fn class(&self) -> u8 {
        0
    }
}

impl Task for ProbeRun {
    fn may_overlap(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, slot: &RunSlot) -> RunTimes {
        self.run_on(Executor::PoolThread(slot))
    }

    fn begin(self: Arc<Self>, instance: usize, _idle: bool) -> bool {
        // A probe does not overlap, so nothing is in flight, and this runs to the end.
        self.run_on(Executor::Instance(instance));
        false
    }

    fn finish(self: Arc<Self>, _instance: usize, _begun: DeviceTimes) -> RunTimes {
        RunTimes::default()
    }
}
