//! The run of a probe, and the input of a request that a model is probed with.
//!
//! Not here: when a model is probed, and who waits for it (`models/probes`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use headgate_core::error::{Code, Result};
use headgate_runtime::{Elements, TensorView};

use super::lease::Lease;
use super::run_result::Ran;
use crate::compute::Cell;
use crate::models::{Finding, Model, PROBE_LIMIT};
use crate::queue::{RunTimes, Waits};
use crate::time::nanos;
use crate::warmup::Warmup;
use crate::workers::{Begun, On, Runner, Task};

/// The largest input of a request that is kept, in bytes.
const MOST_BYTES: usize = 64 << 10;
/// Until when a probe that waits for a thread is of use: it is wanted whenever it comes to run.
const PATIENCE: Duration = Duration::from_secs(60);

impl Ran {
    /// Has the model probed with these inputs from now on, if no other one is known that it takes. The run succeeded, and took so long.
    pub fn teach(&self, run: Duration) {
        if !self.model().probes().are_possible() {
            self.keep(run);
        }
    }

    /// Once for each model, so that it costs the other requests nothing.
    #[cold]
    fn keep(&self, run: Duration) {
        if let Some(input) = self.inputs(MOST_BYTES) {
            self.model().probes().keep_requests(input, run);
        }
    }

    /// The inputs, unless they are more than `most` bytes, or some of them are optional: then the others alone may not do.
    fn inputs(&self, most: usize) -> Option<Warmup> {
        if matches!(self, Ran::Alone(lease) if lease.binding().has_optional_inputs()) {
            return None;
        }
        let mut left = most;
        let mut inputs = Vec::new();
        for index in 0..self.model().signature().inputs.len() {
            // A view of strings copies them all.
            if self.input_strings(index).is_some_and(|strings| strings.is_longer_than(left)) {
                return None;
            }
            let TensorView { shape, data, .. } = self.input(index).ok()?;
            let bytes = match &data {
                Elements::Bytes(bytes) => bytes.len(),
                Elements::Strings { bytes, offsets } => bytes.len() + size_of_val(&offsets[..]),
            };
            left = left.checked_sub(bytes)?;
            inputs.push((shape, Cell::copied(&data)));
        }
        Some(Warmup::taken(inputs))
    }
}

/// A probe on its way to a thread.
pub(super) struct Probe {
    model: Arc<Model>,
    queued: Instant,
}

impl Probe {
    pub(super) fn new(model: Arc<Model>) -> Probe {
        Probe { model, queued: Instant::now() }
    }

    fn run_on(&self, on: On<'_>) -> RunTimes {
        let (probes, begun) = (self.model.probes(), Instant::now());
        let known = probes.known();
        let (limit, is_requests) =
            known.map_or((PROBE_LIMIT, false), |known| (known.limit, known.is_requests));
        let running = on.begin(self.model.runs(), begun + limit);
        let result = self.execute(on.instance());
        drop(running);
        let finding = result.and_then(|result| match result {
            Ok(()) if is_requests => Some(Finding::Works { run: Duration::ZERO }),
            Ok(()) => Some(Finding::Works { run: begun.elapsed() }),
            // Want of memory says nothing about the model.
            Err(error) if error.code == Code::Overloaded => None,
            Err(_) => Some(Finding::Fails),
        });
        let now = Instant::now();
        probes.finish(finding, begun, now);
        RunTimes { wait_ns: nanos(begun - self.queued), run_ns: nanos(now - begun).max(1) }
    }

    /// `None` for a model that has left memory meanwhile.
    fn execute(&self, instance: Option<usize>) -> Option<Result<()>> {
        let (known, warm) = (self.model.probes().known()?, self.model.hold()?);
        let mut lease = Lease::take(warm, 0);
        let (signature, binding) = lease.parts();
        let filled = known.input.fill(binding, signature, 0);
        Some(filled.and_then(|()| lease.run_on(instance)))
    }
}

impl Waits for Probe {
    fn came(&self) -> Instant {
        self.queued
    }

    fn until(&self) -> Option<Instant> {
        Some(self.queued + PATIENCE)
    }

    fn class(&self) -> u8 {
        0
    }
}

impl Task for Probe {
    fn goes_ahead(&self) -> bool {
        false
    }

    fn run(self: Arc<Self>, runner: &Runner) -> RunTimes {
        self.run_on(On::Thread(runner))
    }

    fn begin(self: Arc<Self>, instance: usize, _idle: bool) -> bool {
        // Nothing is in the air: a probe does not go ahead.
        self.run_on(On::Instance(instance));
        false
    }

    fn finish(self: Arc<Self>, _instance: usize, _begun: Begun) -> RunTimes {
        RunTimes::default()
    }
}
