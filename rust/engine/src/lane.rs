//! The queue of one version before the pool: what waits there, and how much of it may run at a time.
//!
//! ```text
//! push --fewer run than may--> a token goes to the pool --> a thread takes the next piece of work
//!                                                           more waits: the token goes to the end of the pool's queue
//! ```
//! One token for each run in progress or about to be, so that versions take turns and none holds more threads than it may.
//!
//! Not here: the threads (`pool`). Next: `pool`.

use std::collections::VecDeque;
use std::time::Instant;

use crate::pool::nanos;
use crate::pressure::Pressure;
use crate::sync::{Mutex, lock};

/// What waits in a lane.
pub(crate) trait Waits {
    /// When it came and until when it is of use; `None` when nobody wants it any more.
    fn span(&self) -> Option<(Instant, Instant)>;
}

/// One version's queue.
pub(crate) struct Lane<T> {
    state: Mutex<State<T>>,
    /// Tokens at most.
    instances: usize,
}

struct State<T> {
    queue: VecDeque<T>,
    tokens: usize,
    running: usize,
    pressure: Pressure,
}

impl<T: Waits> Lane<T> {
    /// An empty queue of which `instances` pieces may run at the same time.
    pub(crate) fn new(instances: usize) -> Self {
        let pressure = Pressure::new(instances);
        let state = State { queue: VecDeque::new(), tokens: 0, running: 0, pressure };
        Self { state: Mutex::new(state), instances }
    }

    /// Whether more work is welcome: always, unless the queue stands and its limit is reached.
    pub(crate) fn admits(&self) -> bool {
        lock(&self.state).admits()
    }

    /// Whether the queue stands, so that work is shed.
    pub(crate) fn is_shedding(&self) -> bool {
        lock(&self.state).pressure.is_shedding()
    }

    /// Adds work. True when the caller gives the pool a token for it.
    #[must_use]
    pub(crate) fn push(&self, work: T) -> bool {
        let mut state = lock(&self.state);
        state.queue.push_back(work);
        let more = state.tokens < self.instances;
        state.tokens += usize::from(more);
        more
    }

    /// The next piece for the holder of a token, to be finished by [`Lane::finish`]; `None` takes the token back.
    ///
    /// What is of no use any more comes first: it costs nothing. Then the oldest, or the newest while the queue stands.
    pub(crate) fn next(&self, now: Instant) -> Option<T> {
        let mut state = lock(&self.state);
        let Some(span) = state.queue.front().map(Waits::span) else {
            state.tokens -= 1;
            return None;
        };
        state.running += 1;
        let Some((queued, deadline)) = span.filter(|(_, deadline)| *deadline > now) else {
            return state.queue.pop_front();
        };
        let (wait, had) = (now.saturating_duration_since(queued), deadline.saturating_duration_since(queued));
        state.pressure.waited(nanos(wait), nanos(had), now);
        let next =
            if state.pressure.is_shedding() { state.queue.pop_back() } else { state.queue.pop_front() };
        if state.queue.is_empty() {
            state.pressure.emptied();
        }
        next
    }

    /// A piece of work is over: it waited and ran for so long, in nanoseconds; 0 where it did not run. Whether the holder of
    /// the token keeps it because more waits; else it is taken back.
    #[must_use]
    pub(crate) fn finish(&self, wait_ns: u64, run_ns: u64) -> bool {
        let mut state = lock(&self.state);
        state.running -= 1;
        if run_ns > 0 {
            state.pressure.ran(wait_ns, run_ns);
        }
        let more = !state.queue.is_empty();
        state.tokens -= usize::from(!more);
        more
    }
}

impl<T> State<T> {
    fn admits(&self) -> bool {
        self.pressure.admits(self.queue.len() + self.running)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::time::Duration;

    /// A request of a simulation: when it came and until when it is of use, in simulated time.
    struct Request(Instant, Instant);

    impl Waits for Request {
        fn span(&self) -> Option<(Instant, Instant)> {
            Some((self.0, self.1))
        }
    }

    /// One thread, runs of 10 ms, requests with a time-out of 200 ms that come `times` as fast as they can be run, for
    /// `seconds`: how many were answered in time, and the longest time to an answer.
    fn simulated(
        (lane, token): (&Lane<Request>, &mut bool),
        start: Instant,
        times: f64,
        seconds: u64,
    ) -> (usize, Duration) {
        let (run, timeout) = (Duration::from_millis(10), Duration::from_millis(200));
        let gap = run.div_f64(times);
        let end = start + Duration::from_secs(seconds);
        let (mut next_arrival, mut now) = (start, start);
        let (mut good, mut slowest) = (0, Duration::ZERO);
        while now < end {
            while next_arrival <= now {
                if lane.admits() {
                    *token |= lane.push(Request(next_arrival, next_arrival + timeout));
                }
                next_arrival += gap;
            }
            let work = if *token { lane.next(now) } else { None };
            let Some(Request(came, deadline)) = work else {
                (now, *token) = (next_arrival, false);
                continue;
            };
            let late = deadline <= now;
            let wait = now - came;
            if !late {
                now += run;
                if now <= deadline {
                    good += 1;
                    slowest = slowest.max(now - came);
                }
            }
            *token = lane.finish(nanos(wait), if late { 0 } else { nanos(run) });
        }
        (good, slowest)
    }

    #[test]
    fn overload_costs_no_goodput_and_ends_with_the_burst() {
        let start = Instant::now();
        for times in [0.5, 0.9, 1.5, 3.0, 10.0] {
            let (lane, mut token) = (Lane::new(1), false);
            let (good, slowest) = simulated((&lane, &mut token), start, times, 10);
            // 100 a second are what one thread can do.
            let possible = 1_000.0 * f64::min(times, 1.0);
            assert!(good as f64 >= 0.95 * possible, "{times}: {good}");
            assert!(slowest <= Duration::from_millis(200), "{times}: {slowest:?}");
            assert_eq!(lane.is_shedding(), times > 1.0);
            // A second after the burst everything is as it was.
            let calm = start + Duration::from_secs(10);
            simulated((&lane, &mut token), calm, 0.5, 1);
            let (good, slowest) = simulated((&lane, &mut token), calm + Duration::from_secs(1), 0.5, 1);
            assert!(good >= 49 && slowest <= Duration::from_millis(20), "{times}: {good}, {slowest:?}");
            assert!(!lane.is_shedding());
        }
    }
}

#[cfg(all(test, loom))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    struct Work(usize);

    impl Waits for Work {
        fn span(&self) -> Option<(Instant, Instant)> {
            None
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
                        if !lane.finish(0, 0) {
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
