//! One version in virtual time: its queue, its batches and its instances, moved on by events.
//!
//! Next: `queue/run_queue`, `batching/row_slots`, `batching/wait_policy`, which decide here as they do for requests.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use super::arrivals::{Choice, Random};
use super::question::{BatchSimulation, CostLine, SimulatedSetting};
use super::times::{SimulatedTimes, Tally};
use crate::batching::{ArrivalGaps, CostCurve, Expectation, RowSlots, padded_rows, wait_until};
use crate::queue::{Queued, RunQueue, RunTimes};
use crate::time::Instant;
use crate::time::nanos;

/// The class of all requests.
const CLASS: u8 = 0;
/// How long a request without a timeout may take: longer than any simulation lasts.
const NO_TIMEOUT: Duration = Duration::from_secs(1 << 40);

/// A batch without memory: whose rows are in it.
struct SimulatedBatch {
    slots: RowSlots<()>,
    created_at: Instant,
}

impl Queued for SimulatedBatch {
    fn queued_at(&self) -> Instant {
        self.slots.waiting_rows().map_or(self.created_at, |waiting| waiting.oldest_queued_at)
    }

    fn useful_until(&self) -> Option<Instant> {
        self.slots.waiting_rows().map(|waiting| waiting.latest_deadline)
    }

    fn class(&self) -> u8 {
        CLASS
    }
}

/// What an instance does.
enum Instance {
    Idle,
    /// Its batch waits for more rows.
    Waits(Arc<SimulatedBatch>),
    Runs {
        /// When its requests came.
        queued_at: Vec<Instant>,
        times: RunTimes,
    },
}

/// An instance goes on at `at_ns`. The event is void if the instance has gone on before, in a later turn.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Event {
    at_ns: u64,
    turn: u64,
    instance: usize,
}

/// A version under load.
pub(super) struct Server {
    setting: SimulatedSetting,
    cost: CostLine,
    run_ns: Option<Choice<u64>>,
    queue: RunQueue<Arc<SimulatedBatch>>,
    /// The batch that takes rows.
    open: Option<Arc<SimulatedBatch>>,
    instances: Vec<(Instance, u64)>,
    events: BinaryHeap<Reverse<Event>>,
    turns: u64,
    curve: CostCurve,
    gaps: ArrivalGaps,
    waiting: usize,
    epoch: Instant,
    now_ns: u64,
    measured_from_ns: Option<u64>,
    tally: Tally,
}

impl Server {
    /// An idle version. What runs cost is known to it, as after a warm-up.
    pub(super) fn new(question: &BatchSimulation, random: Random) -> Server {
        let (setting, cost) = (question.setting.clone(), question.curve);
        let mut curve = CostCurve::default();
        for rows in [1, setting.max_batch] {
            curve.record(rows, cost.base_ns + cost.row_ns * rows as f64);
        }
        Server {
            cost,
            run_ns: question.run_ns.as_ref().map(|times| Choice::new(times, random)),
            queue: RunQueue::new(setting.instances),
            open: None,
            instances: (0..setting.instances).map(|_| (Instance::Idle, 0)).collect(),
            events: BinaryHeap::new(),
            turns: 0,
            curve,
            gaps: ArrivalGaps::default(),
            waiting: 0,
            // Any moment will do: times are compared with each other only.
            epoch: Instant::now(),
            now_ns: 0,
            measured_from_ns: None,
            tally: Tally::default(),
            setting,
        }
    }

    /// Requests that come from `now_ns` on are measured.
    pub(super) fn measure_from(&mut self, now_ns: u64) {
        self.advance_to(now_ns);
        self.measured_from_ns = Some(now_ns);
    }

    /// A request with `rows` rows comes at `at_ns`, which is not before the one before it.
    pub(super) fn arrive(&mut self, at_ns: u64, rows: usize) {
        self.advance_to(at_ns);
        let now = self.now();
        self.gaps.record(rows, at_ns);
        if self.waiting >= self.setting.max_queue {
            return self.reject(now);
        }
        let deadline = now + self.setting.timeout_ns.map_or(NO_TIMEOUT, Duration::from_nanos);
        let open = self.open.clone().filter(|_| rows <= self.setting.max_batch);
        if let Some(batch) = open
            && let Some((slot, _)) = batch.slots.reserve(rows, 0, now, deadline)
        {
            self.waiting += 1;
            batch.slots.mark_written(slot);
            return self.rows_have_come(&batch);
        }
        if !self.queue.admits_at(CLASS, now) {
            return self.reject(now);
        }
        let slots = RowSlots::new(self.setting.max_batch.max(rows));
        let batch = Arc::new(SimulatedBatch { slots, created_at: now });
        if let Some((slot, _)) = batch.slots.reserve(rows, 0, now, deadline) {
            self.waiting += 1;
            batch.slots.mark_written(slot);
        }
        if rows <= self.setting.max_batch {
            self.open = Some(batch.clone());
        }
        if self.queue.push(batch) {
            let idle = self.instances.iter().position(|(instance, _)| matches!(instance, Instance::Idle));
            let idle = idle.expect("an instance is idle while the queue has a token left");
            self.take_turns(idle, None);
        }
    }

    /// Runs what is queued to its end.
    pub(super) fn finish(mut self) -> SimulatedTimes {
        let last_arrival_ns = self.now_ns;
        self.advance_to(u64::MAX);
        let elapsed_ns = self.now_ns.max(last_arrival_ns) - self.measured_from_ns.unwrap_or(0);
        self.tally.finish(elapsed_ns, self.setting.instances)
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.now_ns)
    }

    fn since_epoch_ns(&self, at: Instant) -> u64 {
        nanos(at.saturating_duration_since(self.epoch))
    }

    fn is_measured(&self, came_at: Instant) -> bool {
        self.measured_from_ns.is_some_and(|from_ns| self.since_epoch_ns(came_at) >= from_ns)
    }

    fn reject(&mut self, came_at: Instant) {
        self.tally.rejected += u64::from(self.is_measured(came_at));
    }

    /// Handles the events up to `until_ns`.
    fn advance_to(&mut self, until_ns: u64) {
        while let Some(Reverse(event)) = self.events.peek()
            && event.at_ns <= until_ns
        {
            let Some(Reverse(Event { at_ns, turn, instance })) = self.events.pop() else { break };
            if self.instances[instance].1 != turn {
                continue;
            }
            self.now_ns = at_ns;
            match std::mem::replace(&mut self.instances[instance].0, Instance::Idle) {
                Instance::Idle => {}
                Instance::Waits(batch) => self.take_turns(instance, Some(batch)),
                Instance::Runs { queued_at, times } => self.end_run(instance, &queued_at, times),
            }
        }
        if until_ns != u64::MAX {
            self.now_ns = until_ns;
        }
    }

    /// An instance goes on with its batch, or takes the next ones, until it waits, runs or finds none.
    fn take_turns(&mut self, instance: usize, mut own: Option<Arc<SimulatedBatch>>) {
        while let Some(batch) = own.take().or_else(|| self.queue.take_next(self.now())) {
            if let Some(until) = self.waits_until(&batch) {
                let at_ns = self.since_epoch_ns(until);
                return self.schedule(instance, at_ns, Instance::Waits(batch));
            }
            if let Some(idle_times) = self.begin_run(instance, &batch)
                && self.queue.finish(CLASS, idle_times)
            {
                continue;
            }
            return;
        }
    }

    /// Rows have come into a batch. If it waits for them, it decides anew.
    fn rows_have_come(&mut self, batch: &Arc<SimulatedBatch>) {
        let is_it = |(instance, _): &(Instance, u64)| matches!(instance, Instance::Waits(waits) if Arc::ptr_eq(waits, batch));
        if let Some(instance) = self.instances.iter().position(is_it) {
            self.instances[instance].0 = Instance::Idle;
            self.take_turns(instance, Some(batch.clone()));
        }
    }

    fn waits_until(&self, batch: &SimulatedBatch) -> Option<Instant> {
        let (now, max_delay) = (self.now(), Duration::from_nanos(self.setting.max_delay_ns));
        let expected = || Some(Expectation { cost: self.curve.cost()?, gap_ns: self.gaps.mean_ns()? });
        let until = wait_until(batch.slots.waiting_rows()?, max_delay, now, expected)?;
        (until > now).then_some(until)
    }

    fn schedule(&mut self, instance: usize, at_ns: u64, state: Instance) {
        self.turns += 1;
        self.instances[instance] = (state, self.turns);
        self.events.push(Reverse(Event { at_ns, turn: self.turns, instance }));
    }

    /// Begins the run of a batch. If its requests have expired, there is none, and the times of the batch are returned.
    fn begin_run(&mut self, instance: usize, batch: &SimulatedBatch) -> Option<RunTimes> {
        let now = self.now();
        let requests = batch.slots.close();
        self.waiting -= requests.len();
        let (ready, expired): (Vec<_>, Vec<_>) =
            requests.into_iter().partition(|request| request.deadline > now);
        expired.iter().for_each(|request| self.reject(request.queued_at));
        let rows: usize = ready.iter().map(|request| request.rows).sum();
        let queued_at: Vec<Instant> = ready.iter().map(|request| request.queued_at).collect();
        let wait_ns = queued_at.iter().map(|&queued_at| nanos(now - queued_at)).max().unwrap_or(0);
        if queued_at.is_empty() {
            return Some(RunTimes { wait_ns, run_ns: 0 });
        }
        let padded = padded_rows(&self.setting.buckets, rows);
        let line_ns = (self.cost.base_ns + self.cost.row_ns * padded as f64).round() as u64;
        let run_ns = self.run_ns.as_mut().map_or(line_ns, Choice::draw).max(1);
        self.curve.record(padded, run_ns as f64);
        if self.measured_from_ns.is_some() {
            self.tally.runs += 1;
            self.tally.rows += rows as u64;
            self.tally.busy_ns += run_ns;
        }
        let times = RunTimes { wait_ns, run_ns };
        self.schedule(instance, self.now_ns + run_ns, Instance::Runs { queued_at, times });
        None
    }

    fn end_run(&mut self, instance: usize, queued_at: &[Instant], times: RunTimes) {
        for &queued_at in queued_at {
            if self.is_measured(queued_at) {
                self.tally.responses_ns.push(nanos(self.now() - queued_at));
            }
        }
        if self.queue.finish(CLASS, times) {
            self.take_turns(instance, None);
        }
    }
}
