//! The loop of a thread that sends: everything that is due at once, then what the sockets tell, then what is out of time.
//!
//! A thread looks at the clock before every event that it handles, so that many answers at once keep no request from its due time.
//! A thread that is behind sends in bursts and reads what has come in between: answers that nobody reads would look slow.
//! Nothing that is due is skipped, and no due time moves. Read next: `source` (what is due), `desk` (what is in flight).

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::client_limits::ThreadTimes;
use crate::desk::{Begun, Desk};
use crate::grpc::pool::GrpcPool;
use crate::http1::pool::HttpPool;
use crate::plan::{Protocol, Wait};
use crate::poller::{Clock, Happened, Poller, Until, without_slack};
use crate::prepared::Target;
use crate::source::Source;
use crate::switches::Switches;

/// Requests that are sent before the sockets are looked at.
const BURST: usize = 64;
/// How often a thread that sends without a pause looks after what is out of time.
const CHECK_NS: u64 = 1_000_000;

/// What a thread needs to work.
pub(crate) struct Worker {
    pub(crate) desk: Desk,
    pub(crate) source: Source,
    pub(crate) pools: Vec<Pool>,
    pub(crate) poller: Poller,
    pub(crate) clock: Clock,
    pub(crate) switches: Arc<Switches>,
    pub(crate) wait: Wait,
    /// The CPU that the thread runs on.
    pub(crate) cpu: Option<usize>,
}

/// The connections to one target.
pub(crate) enum Pool {
    Http(HttpPool),
    Grpc(GrpcPool),
}

impl Pool {
    /// The connections to target number `index`, at most `most`.
    pub(crate) fn new(target: &Target, index: usize, most: usize) -> Pool {
        let token_base = (index as u64) << 32;
        match target.protocol {
            Protocol::Http => Pool::Http(HttpPool::new(target.address, token_base, most)),
            Protocol::Grpc | Protocol::GrpcStream => {
                Pool::Grpc(GrpcPool::new(target.address, token_base, most, target.protocol))
            }
        }
    }

    fn send(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        match self {
            Pool::Http(pool) => pool.send(call, desk, poller),
            Pool::Grpc(pool) => pool.send(call, desk, poller),
        }
    }

    fn cancel(&mut self, call: u32, desk: &mut Desk, poller: &Poller) {
        match self {
            Pool::Http(pool) => pool.cancel(call, desk, poller),
            Pool::Grpc(pool) => pool.cancel(call, desk, poller),
        }
    }

    fn on_event(&mut self, event: Happened, desk: &mut Desk, poller: &Poller) {
        // The lower half of a token is the connection.
        let slot = event.token as u32;
        match self {
            Pool::Http(pool) => pool.on_event(slot, event, desk, poller),
            Pool::Grpc(pool) => pool.on_event(slot, desk, poller),
        }
    }
}

impl Worker {
    /// Runs until everything that was due is settled, or the run is told to end.
    pub(crate) fn run(mut self) {
        let state = Arc::clone(self.desk.state());
        if let Err(error) = self.prepare().and_then(|()| self.work()) {
            state.interrupt(format!("a thread that sends stopped: {error}"));
        }
        state.done_sending.store(true, Release);
        if !self.switches.end_now.load(Acquire) {
            self.desk.compare_the_rest();
        }
        let id = lock(&state.times).id;
        if let Some(times) = ThreadTimes::read(id) {
            *lock(&state.times) = times;
        }
        state.ended.store(true, Release);
    }

    fn prepare(&self) -> io::Result<()> {
        *lock(&self.desk.state().times) = ThreadTimes::of_this();
        if let Some(cpu) = self.cpu {
            let mut set = rustix::thread::CpuSet::new();
            set.set(cpu);
            rustix::thread::sched_setaffinity(None, &set).map_err(|error| {
                io::Error::new(io::Error::from(error).kind(), format!("CPU {cpu} cannot be used: {error}"))
            })?;
        }
        without_slack()
    }

    fn work(&mut self) -> io::Result<()> {
        let mut happened: Vec<Happened> = Vec::with_capacity(256);
        let mut checked_ns = 0;
        loop {
            if self.switches.end_now.load(Relaxed) {
                return Ok(());
            }
            if self.switches.stop.load(Relaxed) {
                self.source.stop();
            }
            let mut now_ns = self.send_due();
            if self.source.is_done() && self.note_done() {
                return Ok(());
            }
            let until = self.until(now_ns);
            self.poller.wait(until, &mut happened)?;
            for event in happened.drain(..) {
                let target = (event.token >> 32) as usize;
                self.pools[target].on_event(event, &mut self.desk, &self.poller);
                now_ns = self.send_due();
            }
            if now_ns >= checked_ns + CHECK_NS || until != Until::Now {
                checked_ns = now_ns;
                self.give_up_late();
            }
        }
    }

    /// Tells others that nothing more is begun; whether nothing is in flight either.
    fn note_done(&self) -> bool {
        self.desk.state().done_sending.store(true, Release);
        self.desk.in_flight() == 0
    }

    /// Sends what is due, one burst at most; the time after that.
    fn send_due(&mut self) -> u64 {
        for _ in 0..BURST {
            let now_ns = self.clock.now_ns();
            self.source.note(std::mem::take(&mut self.desk.ended), now_ns);
            if !self.clock.has_begun() {
                return now_ns;
            }
            let Some(begin) = self.source.take_due(now_ns) else { return now_ns };
            match self.desk.begin(begin, now_ns) {
                Begun::Call(call) => {
                    let target = self.desk.prepared(call).target as usize;
                    self.pools[target].send(call, &mut self.desk, &self.poller);
                }
                Begun::Unsent => {}
                Begun::Full => {
                    self.desk
                        .state()
                        .interrupt("max_records requests were sent, and no more can be written down");
                    self.source.stop();
                }
            }
        }
        self.clock.now_ns()
    }

    fn give_up_late(&mut self) {
        let now_ns = self.clock.now_ns();
        while let Some(call) = self.desk.next_timed_out(now_ns) {
            let target = self.desk.prepared(call).target as usize;
            self.pools[target].cancel(call, &mut self.desk, &self.poller);
        }
    }

    /// How long there is nothing to do unless a socket tells something.
    fn until(&mut self, now_ns: u64) -> Until {
        let next_ns = [self.source.next_ns(now_ns), self.desk.next_deadline_ns()].into_iter().flatten().min();
        match next_ns {
            // Only what is to be sent is worth a CPU: a drain can sleep.
            _ if self.wait == Wait::Spin && !self.source.is_done() => Until::Now,
            Some(next_ns) => Until::Time(next_ns),
            None => Until::Event,
        }
    }
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
