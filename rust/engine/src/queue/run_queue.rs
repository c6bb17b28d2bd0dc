//! The queue of one version before the pool: what waits there, and how much of it may run at a time.
//!
//! ```text
//! push --fewer run than may--> a token goes to the pool --> a thread takes the next piece of work
//!                                                           more waits: the token goes to the end of the pool's queue
//! ```
//! One token for each run in progress or about to be, so that versions take turns and none holds more threads than it may.
//! Work is of a class: the first class that has any is run first, and each is shed for itself. What waits in a class hurts
//! nobody above it; a run that has begun is not interrupted.
//!
//! Not here: the threads (`pool`). Next: `pool`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::shedding::Pressure;
use crate::sync::{Mutex, lock};
use crate::time::nanos;

/// What waits in a lane.
pub(crate) trait Waits {
    /// When it came.
    fn came(&self) -> Instant;

    /// Until when it is of use; `None` when nobody wants it any more.
    fn until(&self) -> Option<Instant>;

    /// Its class; 0 is run first.
    fn class(&self) -> u8;
}

impl<T: Waits + ?Sized> Waits for Arc<T> {
    fn came(&self) -> Instant {
        T::came(self)
    }

    fn until(&self) -> Option<Instant> {
        T::until(self)
    }

    fn class(&self) -> u8 {
        T::class(self)
    }
}

/// How long a piece of work waited and ran, in nanoseconds; it ran for 0 if it did not run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunTimes {
    pub(crate) wait_ns: u64,
    pub(crate) run_ns: u64,
}

/// One version's queue.
pub(crate) struct Lane<T> {
    state: Mutex<State<T>>,
    /// Tokens at most.
    instances: usize,
}

struct State<T> {
    /// By class; as many as were ever needed.
    classes: Vec<Class<T>>,
    tokens: usize,
    running: usize,
}

struct Class<T> {
    queue: VecDeque<T>,
    pressure: Pressure,
}

impl<T: Waits> Lane<T> {
    /// An empty queue of which `instances` pieces may run at the same time.
    pub(crate) fn new(instances: usize) -> Self {
        let state = State { classes: Vec::new(), tokens: 0, running: 0 };
        Self { state: Mutex::new(state), instances }
    }

    /// How many pieces may run at the same time.
    pub(crate) fn instances(&self) -> usize {
        self.instances
    }

    /// Whether more work of a class is welcome: always, unless its queue stands and its limit is reached.
    pub(crate) fn admits(&self, class: u8) -> bool {
        let state = lock(&self.state);
        // Mostly nothing is limited, and then nobody needs to know the time.
        !state.is_limited(class) || state.admits(class, Instant::now())
    }

    /// How much work of a class and those above it waits.
    pub(crate) fn waiting(&self, class: u8) -> usize {
        lock(&self.state).waiting(class)
    }

    /// Whether a queue stands, so that work is shed.
    pub(crate) fn is_shedding(&self) -> bool {
        lock(&self.state).classes.iter().any(|class| class.pressure.is_shedding())
    }

    /// Adds work. True when the caller gives the pool a token for it.
    #[must_use]
    pub(crate) fn push(&self, work: T) -> bool {
        let mut state = lock(&self.state);
        let class = usize::from(work.class());
        while state.classes.len() <= class {
            let pressure = Pressure::new(self.instances);
            state.classes.push(Class { queue: VecDeque::new(), pressure });
        }
        state.classes[class].queue.push_back(work);
        let more = state.tokens < self.instances;
        state.tokens += usize::from(more);
        more
    }

    /// The next piece for the holder of a token, to be finished by [`Lane::finish`]; `None` takes the token back.
    ///
    /// What is of no use any more comes first, whatever its class: it costs nothing. Then the oldest, or the newest while the
    /// queue stands.
    pub(crate) fn next(&self, now: Instant) -> Option<T> {
        let mut state = lock(&self.state);
        let gone = state.classes.iter().position(|class| class.begins_with_waste(now));
        let first = || state.classes.iter().position(|class| !class.queue.is_empty());
        let Some(class) = gone.or_else(first) else {
            state.tokens -= 1;
            return None;
        };
        state.running += 1;
        state.classes[class].next(now)
    }

    /// Whether there is work, and what comes next is such.
    pub(crate) fn next_is(&self, such: impl FnOnce(&T) -> bool) -> bool {
        let state = lock(&self.state);
        let mut queues = state.classes.iter().map(|class| &class.queue);
        queues.find_map(VecDeque::front).is_some_and(such)
    }

    /// A piece of work is over. Whether the holder of the token keeps it because more waits; else it is taken back.
    #[must_use]
    pub(crate) fn finish(&self, class: u8, times: RunTimes) -> bool {
        let RunTimes { wait_ns, run_ns } = times;
        let mut state = lock(&self.state);
        state.running -= 1;
        if let Some(class) = state.classes.get_mut(usize::from(class)).filter(|_| run_ns > 0) {
            class.pressure.ran(wait_ns, run_ns);
        }
        let more = state.classes.iter().any(|class| !class.queue.is_empty());
        state.tokens -= usize::from(!more);
        more
    }
}

impl<T> State<T> {
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

impl<T: Waits> Class<T> {
    /// Whether the oldest piece of work is of no use any more.
    fn begins_with_waste(&self, now: Instant) -> bool {
        self.queue.front().is_some_and(|work| work.until().is_none_or(|deadline| deadline <= now))
    }

    fn next(&mut self, now: Instant) -> Option<T> {
        let first = self.queue.front()?;
        let (queued, until) = (first.came(), first.until());
        let wait = now.saturating_duration_since(queued);
        let Some(deadline) = until.filter(|deadline| *deadline > now) else {
            let gone = self.queue.pop_front();
            self.pressure.expired(nanos(wait));
            if self.queue.is_empty() {
                self.pressure.emptied();
            }
            return gone;
        };
        let had = deadline.saturating_duration_since(queued);
        self.pressure.waited(nanos(wait), nanos(had), now);
        let next = if self.pressure.is_shedding() { self.queue.pop_back() } else { self.queue.pop_front() };
        if self.queue.is_empty() {
            self.pressure.emptied();
        }
        next
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A request of a simulation: when it came and until when it is of use, in simulated time.
    struct Request(Instant, Instant, u8);

    impl Waits for Request {
        fn came(&self) -> Instant {
            self.0
        }

        fn until(&self) -> Option<Instant> {
            Some(self.1)
        }

        fn class(&self) -> u8 {
            self.2
        }
    }

    /// What came of the requests of one class.
    #[derive(Clone, Copy, Debug, Default)]
    struct Seen {
        /// Answers in time.
        good: usize,
        refused: usize,
        /// Let in for nothing.
        expired: usize,
        slowest: Duration,
    }

    /// One thread, runs of 10 ms, requests with a time-out of 200 ms. Each class comes `times` as fast as its requests could be
    /// run alone, for `seconds`.
    fn simulated(
        (lane, token): (&Lane<Request>, &mut bool),
        start: Instant,
        times: &[f64],
        seconds: u64,
    ) -> Vec<Seen> {
        let (run, timeout) = (Duration::from_millis(10), Duration::from_millis(200));
        let end = start + Duration::from_secs(seconds);
        let mut arrivals: Vec<Instant> = vec![start; times.len()];
        let (mut now, mut seen) = (start, vec![Seen::default(); times.len()]);
        while now < end {
            for (class, next) in arrivals.iter_mut().enumerate() {
                while *next <= now {
                    if lock(&lane.state).admits(class as u8, *next) {
                        *token |= lane.push(Request(*next, *next + timeout, class as u8));
                    } else {
                        seen[class].refused += 1;
                    }
                    *next += run.div_f64(times[class]);
                }
            }
            let work = if *token { lane.next(now) } else { None };
            let Some(Request(came, deadline, class)) = work else {
                (now, *token) = (arrivals.iter().min().copied().unwrap_or(end), false);
                continue;
            };
            let (wait, late) = (now - came, deadline <= now);
            seen[usize::from(class)].expired += usize::from(late);
            if !late {
                now += run;
                if now <= deadline {
                    let seen = &mut seen[usize::from(class)];
                    seen.good += 1;
                    seen.slowest = seen.slowest.max(now - came);
                }
            }
            let run_ns = if late { 0 } else { nanos(run) };
            *token = lane.finish(class, RunTimes { wait_ns: nanos(wait), run_ns });
        }
        seen
    }

    /// Poisson arrivals at so many times what one thread can do, runs of 2.5 ms, time-outs of 200 ms: the share of good answers.
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
        let (lane, mut token) = (Lane::new(1), false);
        let (mut now, mut next, end) = (start, start + gap(), start + Duration::from_secs(seconds));
        let (mut good, mut all) = (0, 0);
        while now < end {
            while next <= now {
                all += 1;
                if lock(&lane.state).admits(0, next) {
                    token |= lane.push(Request(next, next + timeout, 0));
                }
                next += gap();
            }
            let work = if token { lane.next(now) } else { None };
            let Some(Request(came, deadline, _)) = work else {
                (now, token) = (next, false);
                continue;
            };
            let (wait, late) = (now - came, deadline <= now);
            if !late {
                now += run;
                good += u64::from(now <= deadline);
            }
            let run_ns = if late { 0 } else { nanos(run) };
            token = lane.finish(0, RunTimes { wait_ns: nanos(wait), run_ns });
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
            let (lane, mut token) = (Lane::new(1), false);
            let Seen { good, slowest, expired, .. } = simulated((&lane, &mut token), start, &[times], 10)[0];
            assert!(expired as f64 <= 0.5 * good as f64, "{times}: {expired} of {good}");
            // 100 a second are what one thread can do.
            let possible = 1_000.0 * f64::min(times, 1.0);
            assert!(good as f64 >= 0.95 * possible, "{times}: {good}");
            assert!(slowest <= Duration::from_millis(200), "{times}: {slowest:?}");
            assert_eq!(lane.is_shedding(), times > 1.0);
            // A second after the burst everything is as it was.
            let calm = start + Duration::from_secs(10);
            simulated((&lane, &mut token), calm, &[0.5], 1);
            let later = calm + Duration::from_secs(1);
            let Seen { good, slowest, .. } = simulated((&lane, &mut token), later, &[0.5], 1)[0];
            assert!(good >= 49 && slowest <= Duration::from_millis(20), "{times}: {good}, {slowest:?}");
            assert!(!lane.is_shedding());
        }
    }

    #[test]
    fn what_comes_too_fast_in_one_class_costs_those_above_it_no_more_than_a_run() {
        let start = Instant::now();
        for batch in [0.5, 3.0, 10.0] {
            let (lane, mut token) = (Lane::new(1), false);
            let seen = simulated((&lane, &mut token), start, &[0.5, batch], 10);
            let (gold, batch) = (seen[0], seen[1]);
            assert_eq!((gold.good, gold.refused), (500, 0));
            assert!(gold.slowest <= Duration::from_millis(20), "{gold:?}");
            // What is left over is used.
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

    impl Waits for Work {
        fn came(&self) -> Instant {
            Instant::now()
        }

        fn until(&self) -> Option<Instant> {
            None
        }

        fn class(&self) -> u8 {
            (self.0 % 2) as u8
        }
    }

    /// Whatever the order: no work is left behind without a token, and no more runs at a time than may.
    fn run(instances: usize) {
        loom::model(move || {
            let lane = Arc::new(Lane::new(instances));
            let (done, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
            let threads = [1, 2].map(|work| {
                let (lane, done, running) = (lane.clone(), done.clone(), running.clone());
                thread::spawn(move || {
                    if !lane.push(Work(work)) {
                        return;
                    }
                    // The token, taken by a pool thread.
                    while let Some(Work(work)) = lane.next(Instant::now()) {
                        assert!(running.fetch_add(1, SeqCst) < instances);
                        done.fetch_add(work, SeqCst);
                        running.fetch_sub(1, SeqCst);
                        if !lane.finish((work % 2) as u8, RunTimes::default()) {
                            return;
                        }
                    }
                })
            });
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            assert_eq!(done.load(SeqCst), 3);
            assert!(lane.push(Work(0)), "every token is back");
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
