//! Who sits in a batch: which rows belong to which request, who has written its rows, who has left, what became of each.
//!
//! ```text
//! open --close--> closed (nobody comes in) --last writer done--> members known --settle--> done (outcomes taken one by one)
//! ```
//! A request takes its rows, writes them without any lock, says that it has, and waits. The executor closes the batch,
//! waits for those who still write, runs the rows of those who stayed, and settles. Rows of two seats never overlap, and
//! nobody writes once the members are known: the memory behind them rests on that.
//!
//! Not here: that memory (`batch`). Next: `batch`.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::sync::{Condvar, Mutex, MutexGuard, lock};

/// The seats of one batch; `F` is what becomes of a request.
pub(crate) struct Seats<F> {
    state: Mutex<State<F>>,
    /// Rung when a writer is done and when a row is ready.
    changed: Condvar,
    capacity: usize,
}

struct State<F> {
    closed: bool,
    /// Rows taken.
    rows: usize,
    writing: usize,
    /// Whether the batch was handed to an executor.
    handed: bool,
    seats: Vec<Seat<F>>,
}

struct Seat<F> {
    start: usize,
    rows: usize,
    /// The IO thread that waits.
    home: usize,
    taken: Instant,
    deadline: Instant,
    stage: Stage<F>,
    waker: Option<Waker>,
}

enum Stage<F> {
    Writing,
    Ready,
    Gone,
    Settled(Option<F>),
}

/// A request that is to be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its seat.
    pub(crate) index: usize,
    /// Where its rows were written.
    pub(crate) start: usize,
    /// How many there are.
    pub(crate) rows: usize,
    /// When it came.
    pub(crate) taken: Instant,
    /// When it is of no use any more.
    pub(crate) deadline: Instant,
}

/// What an executor looks at to decide whether to wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waiting {
    /// Rows of requests that are still there.
    pub(crate) rows: usize,
    /// Whether no row more fits.
    pub(crate) full: bool,
    /// When the first of them came.
    pub(crate) oldest: Instant,
    /// The earliest deadline.
    pub(crate) tightest: Instant,
    /// The last one.
    pub(crate) latest: Instant,
}

impl<F> Seats<F> {
    /// Room for `capacity` rows.
    pub(crate) fn new(capacity: usize) -> Self {
        let state = State { closed: false, rows: 0, writing: 0, handed: false, seats: Vec::new() };
        Self { state: Mutex::new(state), changed: Condvar::new(), capacity }
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        lock(&self.state)
    }

    /// Takes rows for a request of IO thread `home`: its seat and its first row. `None` when there is no room or nobody is
    /// let in any more.
    pub(crate) fn take(
        &self,
        rows: usize,
        home: usize,
        now: Instant,
        deadline: Instant,
    ) -> Option<(usize, usize)> {
        let mut state = self.lock();
        let start = state.rows;
        if state.closed || start + rows > self.capacity {
            return None;
        }
        state.rows += rows;
        state.writing += 1;
        state.seats.push(Seat {
            start,
            rows,
            home,
            taken: now,
            deadline,
            stage: Stage::Writing,
            waker: None,
        });
        Some((state.seats.len() - 1, start))
    }

    /// Whether nobody is let in any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// The rows of a seat are written. True for the first, whose caller hands the batch to an executor.
    pub(crate) fn ready(&self, index: usize) -> bool {
        let mut state = self.lock();
        state.seats[index].stage = Stage::Ready;
        state.writing -= 1;
        self.changed.notify_all();
        !std::mem::replace(&mut state.handed, true)
    }

    /// Whoever took a seat does not want it any more. Whether everybody has left.
    pub(crate) fn leave(&self, index: usize) -> bool {
        let mut state = self.lock();
        let stage = std::mem::replace(&mut state.seats[index].stage, Stage::Gone);
        if matches!(stage, Stage::Writing) {
            state.writing -= 1;
            self.changed.notify_all();
        }
        let deserted = !state.seats.iter().any(Seat::is_here);
        // What became of it, if that is known already, is dropped outside the lock.
        drop(state);
        drop(stage);
        deserted
    }

    /// Whether whoever took a seat has left.
    pub(crate) fn has_left(&self, index: usize) -> bool {
        matches!(self.lock().seats[index].stage, Stage::Gone)
    }

    /// Who is there; `None` when everybody has left.
    pub(crate) fn look(&self) -> Option<Waiting> {
        self.lock().waiting(self.capacity)
    }

    /// Waits for more rows for as long as `until` says, given who is there; it is asked again when that changes.
    pub(crate) fn wait(&self, mut until: impl FnMut(Waiting) -> Option<Instant>) {
        let mut state = self.lock();
        loop {
            let Some(waiting) = state.waiting(self.capacity) else { return };
            let now = Instant::now();
            let Some(left) = until(waiting).and_then(|until| until.checked_duration_since(now)) else {
                return;
            };
            if left == Duration::ZERO {
                return;
            }
            state = self.pause(state, left);
        }
    }

    #[cfg(not(feature = "loom"))]
    fn pause<'a>(&'a self, state: MutexGuard<'a, State<F>>, left: Duration) -> MutexGuard<'a, State<F>> {
        let waited = self.changed.wait_timeout(state, left);
        waited.unwrap_or_else(std::sync::PoisonError::into_inner).0
    }

    /// loom has no clock: a wait ends when something changes.
    #[cfg(feature = "loom")]
    fn pause<'a>(&'a self, state: MutexGuard<'a, State<F>>, _: Duration) -> MutexGuard<'a, State<F>> {
        self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Lets nobody in any more, waits for those who are writing, and tells who stayed, in the order of their rows.
    pub(crate) fn close(&self) -> Vec<Member> {
        let mut state = self.lock();
        state.closed = true;
        while state.writing > 0 {
            state = self.changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        let ready = |(index, seat): (usize, &Seat<F>)| {
            let Seat { start, rows, taken, deadline, .. } = *seat;
            matches!(seat.stage, Stage::Ready).then_some(Member { index, start, rows, taken, deadline })
        };
        state.seats.iter().enumerate().filter_map(ready).collect()
    }

    /// Sets what became of some of those who stayed. Who has left meanwhile gets nothing.
    pub(crate) fn settle(&self, fates: impl IntoIterator<Item = (usize, F)>) {
        let mut unwanted = Vec::new();
        let mut state = self.lock();
        for (index, fate) in fates {
            let stage = &mut state.seats[index].stage;
            if matches!(stage, Stage::Gone) {
                unwanted.push(fate);
            } else {
                *stage = Stage::Settled(Some(fate));
            }
        }
        drop(state);
        drop(unwanted);
    }

    /// The IO threads where somebody waits for an outcome that is there, each once.
    pub(crate) fn homes(&self) -> Vec<usize> {
        let state = self.lock();
        let settled = state.seats.iter().filter(|seat| matches!(seat.stage, Stage::Settled(_)));
        let mut homes: Vec<usize> = settled.map(|seat| seat.home).collect();
        homes.sort_unstable();
        homes.dedup();
        homes
    }

    /// Wakes those of an IO thread whose outcome is there.
    pub(crate) fn wake(&self, home: usize) {
        let mut wakers = Vec::new();
        for seat in &mut self.lock().seats {
            if seat.home == home && matches!(seat.stage, Stage::Settled(_)) {
                wakers.extend(seat.waker.take());
            }
        }
        // Outside the lock: who is woken asks for it.
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What became of a seat, once.
    pub(crate) fn poll(&self, index: usize, cx: &mut Context<'_>) -> Poll<F> {
        let mut state = self.lock();
        let seat = &mut state.seats[index];
        if let Stage::Settled(fate) = &mut seat.stage
            && let Some(fate) = fate.take()
        {
            return Poll::Ready(fate);
        }
        seat.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl<F> Seat<F> {
    /// Whether a request waits for its outcome here.
    fn is_here(&self) -> bool {
        matches!(self.stage, Stage::Writing | Stage::Ready)
    }
}

impl<F> State<F> {
    /// `None` when everybody has left.
    fn waiting(&self, capacity: usize) -> Option<Waiting> {
        let here = || self.seats.iter().filter(|seat| seat.is_here());
        Some(Waiting {
            rows: here().map(|seat| seat.rows).sum(),
            full: self.rows == capacity,
            oldest: here().map(|seat| seat.taken).min()?,
            tightest: here().map(|seat| seat.deadline).min()?,
            latest: here().map(|seat| seat.deadline).max()?,
        })
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Take(usize),
        Ready(usize),
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1usize..5).prop_map(Step::Take),
            (0usize..12).prop_map(Step::Ready),
            (0usize..12).prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 0..40)
    }

    fn noop() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    proptest! {
        /// Rows never overlap and never exceed the room; those who stayed are those who were ready and did not leave; each
        /// gets what became of it once, and nobody else anything.
        #[test]
        fn seats_are_what_was_taken(steps in steps()) {
            const ROOM: usize = 16;
            let now = Instant::now();
            let seats = Seats::<usize>::new(ROOM);
            // What each seat should be: rows, and 'w'riting, 'r'eady or 'g'one.
            let mut model: Vec<(usize, usize, char)> = Vec::new();
            let mut handed = 0;
            for step in steps {
                match step {
                    Step::Take(rows) => {
                        let used: usize = model.iter().map(|seat| seat.1).sum();
                        let taken = seats.take(rows, 0, now, now);
                        prop_assert_eq!(taken.is_some(), used + rows <= ROOM);
                        if let Some((index, start)) = taken {
                            prop_assert_eq!((index, start), (model.len(), used));
                            model.push((start, rows, 'w'));
                        }
                    }
                    Step::Ready(index) => {
                        if let Some(seat) = model.get_mut(index).filter(|seat| seat.2 == 'w') {
                            seat.2 = 'r';
                            handed += usize::from(seats.ready(index));
                        }
                    }
                    Step::Leave(index) => {
                        if let Some(seat) = model.get_mut(index).filter(|seat| seat.2 != 'g') {
                            seat.2 = 'g';
                            seats.leave(index);
                        }
                    }
                }
            }
            prop_assert!(handed <= 1);
            for (index, seat) in model.iter_mut().enumerate().filter(|(_, seat)| seat.2 == 'w') {
                seat.2 = 'r';
                seats.ready(index);
            }
            let members = seats.close();
            let stayed: Vec<_> = (0..model.len()).filter(|&index| model[index].2 == 'r').collect();
            prop_assert_eq!(members.iter().map(|member| member.index).collect::<Vec<_>>(), stayed);
            prop_assert!(members.iter().all(|member| (member.start, member.rows) == (model[member.index].0, model[member.index].1)));
            prop_assert_eq!(seats.take(1, 0, now, now), None);
            prop_assert!(members.iter().all(|member| seats.poll(member.index, &mut noop()).is_pending()));
            seats.settle(members.iter().map(|member| (member.index, member.index)));
            prop_assert!(members.iter().all(|member| seats.poll(member.index, &mut noop()) == Poll::Ready(member.index)));
            prop_assert!(members.iter().all(|member| seats.poll(member.index, &mut noop()).is_pending()));
        }
    }

    #[test]
    fn a_wait_ends_when_it_is_full_or_everybody_left() {
        let (seats, now) = (Seats::<()>::new(2), Instant::now());
        seats.wait(|_| panic!("nobody is there to wait with"));
        seats.take(2, 0, now, now + Duration::from_secs(9)).unwrap();
        let mut asked = 0;
        seats.wait(|waiting| {
            asked += 1;
            assert!(waiting.full && waiting.rows == 2 && waiting.tightest == now + Duration::from_secs(9));
            None
        });
        assert_eq!(asked, 1);
    }
}

#[cfg(all(test, feature = "loom"))]
mod models {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use loom::thread;

    /// A request takes a seat, writes, waits until it is told; true when it was part of the batch.
    fn request(seats: &Seats<usize>, leaves: bool) -> Option<bool> {
        let now = Instant::now();
        let (index, _) = seats.take(1, 0, now, now)?;
        let first = seats.ready(index);
        if leaves {
            seats.leave(index);
        }
        Some(first)
    }

    /// Whatever the order: the batch is handed on once, nobody is in it twice, and whoever stayed is settled.
    fn run(leaves: [bool; 2]) {
        loom::model(move || {
            let (seats, handed) = (Arc::new(Seats::<usize>::new(2)), Arc::new(AtomicUsize::new(0)));
            let requests = leaves.map(|leaves| {
                let (seats, handed) = (seats.clone(), handed.clone());
                thread::spawn(move || {
                    let taken = request(&seats, leaves);
                    handed.fetch_add(usize::from(taken == Some(true)), SeqCst);
                    taken.is_some() && !leaves
                })
            });
            let members = seats.close();
            seats.settle(members.iter().map(|member| (member.index, member.index)));
            let stayed: usize = requests.into_iter().map(|one| usize::from(one.join().unwrap())).sum();
            assert!(members.len() >= stayed && members.len() <= 2);
            assert!(handed.load(SeqCst) <= 1);
            for member in members {
                let settled = seats.poll(member.index, &mut Context::from_waker(Waker::noop()));
                assert!(settled.is_pending() || settled == Poll::Ready(member.index));
            }
        });
    }

    #[test]
    fn two_requests_and_an_executor() {
        run([false, false]);
    }

    #[test]
    fn one_of_them_leaves() {
        run([true, false]);
    }

    /// An outcome is never missed: either the waiter sees it, or its waker is there to be woken.
    #[test]
    fn a_waiter_is_woken() {
        loom::model(|| {
            let now = Instant::now();
            let seats = Arc::new(Seats::<usize>::new(1));
            let (index, _) = seats.take(1, 3, now, now).unwrap();
            seats.ready(index);
            let executor = {
                let seats = seats.clone();
                thread::spawn(move || {
                    let members = seats.close();
                    seats.settle(members.iter().map(|member| (member.index, 7)));
                    seats.homes().into_iter().for_each(|home| seats.wake(home));
                })
            };
            assert_eq!(loom::future::block_on(std::future::poll_fn(|cx| seats.poll(index, cx))), 7);
            executor.join().unwrap();
        });
    }
}
