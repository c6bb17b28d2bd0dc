//! The run queue of one version: what waits, in which order it runs, and how much of it may run at a time.
//!
//! ```text
//! push --a token is free--> the token goes to the workers --> a worker takes the next item
//!                                                            more waits: the token goes to the end of the workers' channel
//! ```
//! A queue has one token for each run that it may have in progress. So versions take turns, and none holds more threads than it may.
//!
//! An item has a class. The first class that is not empty runs first, and each class is shed for itself. So what waits in a class does
//! not delay the classes above it. A run that has begun is not interrupted.
//!
//! Not here: the threads (`workers`). Next: `shedding`.

use std::collections::VecDeque;
use std::sync::Arc;

use super::shedding::QueuePressure;
use crate::sync::{Mutex, lock};
use crate::time::Instant;
use crate::time::nanos;

/// What can wait in a run queue.
pub(crate) trait Queued {
    /// When it was queued.
    fn queued_at(&self) -> Instant;

    /// Until when its run is of use; `None` once nothing waits for it.
    fn useful_until(&self) -> Option<Instant>;

    /// Its class; class 0 runs first.
    fn class(&self) -> u8;
}

impl<T: Queued + ?Sized> Queued for Arc<T> {
    fn queued_at(&self) -> Instant {
        T::queued_at(self)
    }

    fn useful_until(&self) -> Option<Instant> {
        T::useful_until(self)
    }

    fn class(&self) -> u8 {
        T::class(self)
    }
}

/// How long an item waited and ran, in nanoseconds. `run_ns` is 0 if it did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunTimes {
    pub(crate) wait_ns: u64,
    pub(crate) run_ns: u64,
}

/// The queue of one version.
pub(crate) struct RunQueue<T> {
    state: Mutex<QueueState<T>>,
    /// The number of tokens.
    instances: usize,
}

struct QueueState<T> {
    /// Indexed by class; grows when a class is first used.
    classes: Vec<ClassQueue<T>>,
    tokens: usize,
    running: usize,
}

struct ClassQueue<T> {
    queue: VecDeque<T>,
    pressure: QueuePressure,
}

impl<T: Queued> RunQueue<T> {
    /// An empty queue, of which `instances` items may run at the same time.
    pub(crate) fn new(instances: usize) -> Self {
        let state = QueueState { classes: Vec::new(), tokens: 0, running: 0 };
        Self { state: Mutex::new(state), instances }
    }

    /// How many items may run at the same time.
    pub(crate) fn instances(&self) -> usize {
        self.instances
    }

    /// Whether an item of a class may be added. It may not if the class is overloaded and its limit is reached.
    pub(crate) fn admits(&self, class: u8) -> bool {
        let state = lock(&self.state);
        // The clock is read only if a limit holds: mostly none does.
        !state.is_limited(class) || state.admits(class, Instant::now())
    }

    /// As [`RunQueue::admits`], at a given time.
    pub(crate) fn admits_at(&self, class: u8, now: Instant) -> bool {
        lock(&self.state).admits(class, now)
    }

    /// How many items of a class and of those above it wait.
    pub(crate) fn waiting(&self, class: u8) -> usize {
        lock(&self.state).waiting(class)
    }

    /// Whether a class is overloaded, so that items are shed.
    pub(crate) fn is_shedding(&self) -> bool {
        lock(&self.state).classes.iter().any(|class| class.pressure.is_shedding())
    }

    /// Adds an item. If the result is true, the caller must give the workers a token for it.
    #[must_use]
    pub(crate) fn push(&self, item: T) -> bool {
        let mut state = lock(&self.state);
        let class = usize::from(item.class());
        while state.classes.len() <= class {
            let pressure = QueuePressure::new(self.instances);
            state.classes.push(ClassQueue { queue: VecDeque::new(), pressure });
        }
        state.classes[class].queue.push_back(item);
        let has_token = state.tokens < self.instances;
        state.tokens += usize::from(has_token);
        has_token
    }

    /// Takes the next item for the holder of a token, which must pass it to [`RunQueue::finish`]. `None` takes the token back.
    ///
    /// An item whose run is of no use any more comes first, whatever its class, because it costs nothing. Then comes the oldest of the first
    /// class, or the newest while that class is overloaded.
    pub(crate) fn take_next(&self, now: Instant) -> Option<T> {
        let mut state = lock(&self.state);
        let expired = state.classes.iter().position(|class| class.front_is_expired(now));
        let first = || state.classes.iter().position(|class| !class.queue.is_empty());
        let Some(class) = expired.or_else(first) else {
            state.tokens -= 1;
            return None;
        };
        state.running += 1;
        state.classes[class].take_next(now)
    }

    /// Whether an item waits and the next one satisfies a condition.
    pub(crate) fn front_matches(&self, condition: impl FnOnce(&T) -> bool) -> bool {
        let state = lock(&self.state);
        let mut queues = state.classes.iter().map(|class| &class.queue);
        queues.find_map(VecDeque::front).is_some_and(condition)
    }

    /// Ends the run of an item. The holder keeps the token if the result is true, because more waits; else the token is taken back.
    #[must_use]
    pub(crate) fn finish(&self, class: u8, times: RunTimes) -> bool {
        let RunTimes { wait_ns, run_ns } = times;
        let mut state = lock(&self.state);
        state.running -= 1;
        if let Some(class) = state.classes.get_mut(usize::from(class)).filter(|_| run_ns > 0) {
            class.pressure.record_run(wait_ns, run_ns);
        }
        let more = state.classes.iter().any(|class| !class.queue.is_empty());
        state.tokens -= usize::from(!more);
        more
    }
}

impl<T> QueueState<T> {
    fn is_limited(&self, class: u8) -> bool {
        self.classes.get(usize::from(class)).is_some_and(|class| class.pressure.is_limited())
    }

    fn waiting(&self, class: u8) -> usize {
        self.classes.iter().take(1 + usize::from(class)).map(|class| class.queue.len()).sum()
    }

    fn admits(&self, class: u8, now: Instant) -> bool {
        let ahead = self.waiting(class) + self.running;
        self.classes.get(usize::from(class)).is_none_or(|class| class.pressure.admits(ahead, now))
    }
}

impl<T: Queued> ClassQueue<T> {
    /// Whether the run of the oldest item is of no use any more.
    fn front_is_expired(&self, now: Instant) -> bool {
        self.queue.front().is_some_and(|item| item.useful_until().is_none_or(|deadline| deadline <= now))
    }

    fn take_next(&mut self, now: Instant) -> Option<T> {
        let first = self.queue.front()?;
        let (queued_at, until) = (first.queued_at(), first.useful_until());
        let wait = now.saturating_duration_since(queued_at);
        let Some(deadline) = until.filter(|deadline| *deadline > now) else {
            let expired = self.queue.pop_front();
            self.pressure.record_expired(nanos(wait));
            if self.queue.is_empty() {
                self.pressure.record_empty();
            }
            return expired;
        };
        let had = deadline.saturating_duration_since(queued_at);
        self.pressure.record_wait(nanos(wait), nanos(had), now);
        let next = if self.pressure.is_shedding() { self.queue.pop_back() } else { self.queue.pop_front() };
        if self.queue.is_empty() {
            self.pressure.record_empty();
        }
        next
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A simulated request: when it was queued, until when it is of use, and its class.
    struct SimulatedRequest(Instant, Instant, u8);

    impl Queued for SimulatedRequest {
        fn queued_at(&self) -> Instant {
            self.0
        }

        fn useful_until(&self) -> Option<Instant> {
            Some(self.1)
        }

        fn class(&self) -> u8 {
            self.2
        }
    }

    /// The outcome of the requests of one class.
    #[derive(Clone, Copy, Debug, Default)]
    struct ClassOutcome {
        /// Responses in time.
        good: usize,
        refused: usize,
        /// Admitted, and expired in the queue.
        expired: usize,
        slowest: Duration,
    }

    /// Simulates one thread, runs of 10 ms and requests with a time-out of 200 ms for `seconds`. The requests of each class come `times` as
    /// fast as one thread could run them alone.
    fn simulated(
        queue: &RunQueue<SimulatedRequest>,
        token: &mut bool,
        start: Instant,
        times: &[f64],
        seconds: u64,
    ) -> Vec<ClassOutcome> {
        let (run, timeout) = (Duration::from_millis(10), Duration::from_millis(200));
        let end = start + Duration::from_secs(seconds);
        let mut arrivals: Vec<Instant> = vec![start; times.len()];
        let (mut now, mut outcomes) = (start, vec![ClassOutcome::default(); times.len()]);
        while now < end {
            for (class, next) in arrivals.iter_mut().enumerate() {
                while *next <= now {
                    if lock(&queue.state).admits(class as u8, *next) {
                        *token |= queue.push(SimulatedRequest(*next, *next + timeout, class as u8));
                    } else {
                        outcomes[class].refused += 1;
                    }
                    *next += run.div_f64(times[class]);
                }
            }
            let work = if *token { queue.take_next(now) } else { None };
            let Some(SimulatedRequest(queued_at, deadline, class)) = work else {
                (now, *token) = (arrivals.iter().min().copied().unwrap_or(end), false);
                continue;
            };
            let (wait, late) = (now - queued_at, deadline <= now);
            outcomes[usize::from(class)].expired += usize::from(late);
            if !late {
                now += run;
                if now <= deadline {
                    let outcome = &mut outcomes[usize::from(class)];
                    outcome.good += 1;
                    outcome.slowest = outcome.slowest.max(now - queued_at);
                }
            }
            let run_ns = if late { 0 } else { nanos(run) };
            *token = queue.finish(class, RunTimes { wait_ns: nanos(wait), run_ns });
        }
        outcomes
    }

    /// The share of requests that are answered in time. They come at random (Poisson) at `times` the rate that one thread can run, with runs
    /// of 2.5 ms and time-outs of 200 ms.
    fn answered(times: f64, seconds: u64, seed: u64) -> f64 {
        let (run, timeout) = (Duration::from_micros(2_500), Duration::from_millis(200));
        let (start, mut random) = (Instant::now(), seed);
        let mut gap = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let uniform = (random >> 11) as f64 / (1u64 << 53) as f64;
            run.mul_f64(-(1.0 - uniform).ln() / times)
        };
        let (queue, mut token) = (RunQueue::new(1), false);
        let (mut now, mut next, end) = (start, start + gap(), start + Duration::from_secs(seconds));
        let (mut good, mut all) = (0, 0);
        while now < end {
            while next <= now {
                all += 1;
                if lock(&queue.state).admits(0, next) {
                    token |= queue.push(SimulatedRequest(next, next + timeout, 0));
                }
                next += gap();
            }
            let work = if token { queue.take_next(now) } else { None };
            let Some(SimulatedRequest(queued_at, deadline, _)) = work else {
                (now, token) = (next, false);
                continue;
            };
            let (wait, late) = (now - queued_at, deadline <= now);
            if !late {
                now += run;
                good += u64::from(now <= deadline);
            }
            let run_ns = if late { 0 } else { nanos(run) };
            token = queue.finish(0, RunTimes { wait_ns: nanos(wait), run_ns });
        }
        good as f64 / all as f64
    }

    #[test]
    fn requests_that_come_at_random_are_refused_for_what_is_too_much_only() {
        for (times, share) in [(0.5, 1.0), (0.8, 0.995), (0.9, 0.98), (1.5, 0.64), (10.0, 0.095)] {
            let seeds = (1..=3).map(|seed| 0x9E37_79B9_7F4A_7C15_u64.wrapping_mul(seed));
            let mean = seeds.map(|seed| answered(times, 60, seed)).sum::<f64>() / 3.0;
            assert!(mean >= share, "{times}: {mean}");
        }
    }

    #[test]
    fn overload_costs_no_goodput_and_ends_with_the_burst() {
        let start = Instant::now();
        for times in [0.5, 0.9, 1.5, 3.0, 10.0] {
            let (queue, mut token) = (RunQueue::new(1), false);
            let ClassOutcome { good, slowest, expired, .. } =
                simulated(&queue, &mut token, start, &[times], 10)[0];
            assert!(expired as f64 <= 0.5 * good as f64, "{times}: {expired} of {good}");
            // One thread can run 100 a second.
            let possible = 1_000.0 * f64::min(times, 1.0);
            assert!(good as f64 >= 0.95 * possible, "{times}: {good}");
            assert!(slowest <= Duration::from_millis(200), "{times}: {slowest:?}");
            assert_eq!(queue.is_shedding(), times > 1.0);
            // A second after the burst, the queue behaves as before it.
            let calm = start + Duration::from_secs(10);
            simulated(&queue, &mut token, calm, &[0.5], 1);
            let later = calm + Duration::from_secs(1);
            let ClassOutcome { good, slowest, .. } = simulated(&queue, &mut token, later, &[0.5], 1)[0];
            assert!(good >= 49 && slowest <= Duration::from_millis(20), "{times}: {good}, {slowest:?}");
            assert!(!queue.is_shedding());
        }
    }

    #[test]
    fn what_comes_too_fast_in_one_class_costs_those_above_it_no_more_than_a_run() {
        let start = Instant::now();
        for batch in [0.5, 3.0, 10.0] {
            let (queue, mut token) = (RunQueue::new(1), false);
            let outcomes = simulated(&queue, &mut token, start, &[0.5, batch], 10);
            let (gold, batch) = (outcomes[0], outcomes[1]);
            assert_eq!((gold.good, gold.refused), (500, 0));
            assert!(gold.slowest <= Duration::from_millis(20), "{gold:?}");
            // The lower class gets the capacity that is left.
            assert!(batch.good >= 475, "{batch:?}");
        }
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    struct Work(usize);

    impl Queued for Work {
        fn queued_at(&self) -> Instant {
            Instant::now()
        }

        fn useful_until(&self) -> Option<Instant> {
            None
        }

        fn class(&self) -> u8 {
            (self.0 % 2) as u8
        }
    }

    /// Whatever the order: no item is left without a token, and no more items run at a time than may.
    fn run(instances: usize) {
        loom::model(move || {
            let queue = Arc::new(RunQueue::new(instances));
            let (done, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let threads = [1, 2].map(|work| {
                let (queue, done, running) = (queue.clone(), done.clone(), running.clone());
                thread::spawn(move || {
                    if !queue.push(Work(work)) {
                        return;
                    }
                    // This thread acts as the worker that takes the token.
                    while let Some(Work(work)) = queue.take_next(Instant::now()) {
                        assert!(running.fetch_add(1, SeqCst) < instances);
                        done.fetch_add(work, SeqCst);
                        running.fetch_sub(1, SeqCst);
                        if !queue.finish((work % 2) as u8, RunTimes::default()) {
                            return;
                        }
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(done.load(SeqCst), 3);
            assert!(queue.push(Work(0)), "every token is back");
        });
    }

    #[test]
    fn one_at_a_time() {
        run(1);
    }

    #[test]
    fn two_at_a_time() {
        run(2);
    }
}
