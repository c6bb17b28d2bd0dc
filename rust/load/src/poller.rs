//! How a thread waits: for its sockets, for a point in time, and to be woken by others.
//!
//! A point in time is a timer of the kernel (`timerfd`) with an absolute time: the timeout of `epoll_wait` counts milliseconds, and is
//! late by the slack of the thread besides (50 us unless it is changed).

use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, clock_gettime, timerfd_create,
    timerfd_settime,
};

/// Sleeping ends this long before the point in time; the rest is spent polling, because a thread that was woken runs tens of
/// microseconds later.
const EARLY_NS: u64 = 30_000;
/// The token of the timer and of the wake-up: they only end the wait.
const INTERNAL: u64 = u64::MAX;
const EVENTS: usize = 256;

/// Nanoseconds since an anchor, which all threads of a run share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    anchor_ns: u64,
}

fn monotonic_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from the start of the machine.
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

impl Clock {
    /// A clock that reads 0 now.
    pub(crate) fn starting_now() -> Clock {
        Clock { anchor_ns: monotonic_ns() }
    }

    /// A clock that reads 0 after a time; it reads 0 until then.
    pub(crate) fn starting_in(ns: u64) -> Clock {
        Clock { anchor_ns: monotonic_ns() + ns }
    }

    pub(crate) fn now_ns(self) -> u64 {
        monotonic_ns().saturating_sub(self.anchor_ns)
    }

    /// Whether the clock has begun to count.
    pub(crate) fn has_begun(self) -> bool {
        monotonic_ns() >= self.anchor_ns
    }
}

/// How long a wait may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Not at all: only what has happened is told.
    Now,
    /// Until shortly before a reading of the clock.
    Time(u64),
    /// Until something happens.
    Event,
}

/// What happened to a descriptor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Happened {
    pub(crate) token: u64,
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// The peer sends nothing more, or the connection is broken.
    pub(crate) closed: bool,
}

/// Wakes a thread from its wait.
#[derive(Clone)]
pub(crate) struct Waker {
    event: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Waker> {
        Ok(Waker { event: Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?) })
    }

    pub(crate) fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake.
        let _ = rustix::io::write(&*self.event, &1u64.to_ne_bytes());
    }
}

/// The descriptors that a thread waits for.
pub(crate) struct Poller {
    epoll: OwnedFd,
    timer: OwnedFd,
    /// Kept open while it is watched.
    _waker: Waker,
    clock: Clock,
    armed_ns: u64,
}

impl Poller {
    pub(crate) fn new(clock: Clock, waker: Waker) -> io::Result<Poller> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let internal = epoll::EventData::new_u64(INTERNAL);
        // By edges, so that nobody has to read the counters.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, internal, edge)?;
        epoll::add(&epoll, &*waker.event, internal, edge)?;
        Ok(Poller { epoll, timer, _waker: waker, clock, armed_ns: 0 })
    }

    /// Watches a socket until it is closed. What happens is told once: whoever is told must go on until the socket would block.
    pub(crate) fn watch(&self, socket: impl AsFd, token: u64) -> io::Result<()> {
        let flags =
            epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
        Ok(epoll::add(&self.epoll, socket, epoll::EventData::new_u64(token), flags)?)
    }

    /// Waits, and puts what happened into `happened`.
    pub(crate) fn wait(&mut self, until: Until, happened: &mut Vec<Happened>) -> io::Result<()> {
        let timeout = match until {
            Until::Event => None,
            Until::Time(ns) if self.arm(ns)? => None,
            Until::Now | Until::Time(_) => Some(Timespec { tv_sec: 0, tv_nsec: 0 }),
        };
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let events = match epoll::wait(&self.epoll, &mut events, timeout.as_ref()) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let known = events.iter().map(|event| (event.flags, event.data.u64()));
        happened.extend(known.filter(|&(_, token)| token != INTERNAL).map(|(flags, token)| Happened {
            token,
            readable: flags.contains(epoll::EventFlags::IN),
            writable: flags.contains(epoll::EventFlags::OUT),
            closed:
                flags.intersects(epoll::EventFlags::RDHUP | epoll::EventFlags::HUP | epoll::EventFlags::ERR),
        }));
        Ok(())
    }

    /// Sets the timer to shortly before a reading of the clock; false if that is over.
    fn arm(&mut self, ns: u64) -> io::Result<bool> {
        let at_ns = (self.clock.anchor_ns + ns).saturating_sub(EARLY_NS);
        if at_ns <= monotonic_ns() {
            return Ok(false);
        }
        if self.armed_ns != at_ns {
            let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
            let at =
                Timespec { tv_sec: (at_ns / 1_000_000_000) as i64, tv_nsec: (at_ns % 1_000_000_000) as i64 };
            let timer = Itimerspec { it_interval: zero, it_value: at };
            timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer)?;
            self.armed_ns = at_ns;
        }
        Ok(true)
    }
}

/// Has the kernel wake this thread as close to its timers as it can.
pub(crate) fn without_slack() -> io::Result<()> {
    Ok(rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_before_its_time_and_never_before_that_without_an_event() {
        let clock = Clock::starting_now();
        let mut poller = Poller::new(clock, Waker::new().unwrap()).unwrap();
        let mut happened = Vec::new();
        for at_ns in [5_000_000, 5_000_001, 1_000_000, 7_000_000] {
            poller.wait(Until::Time(at_ns), &mut happened).unwrap();
            assert!(clock.now_ns() >= at_ns - EARLY_NS);
        }
        assert!(happened.is_empty());
    }

    #[test]
    fn another_thread_ends_the_wait() {
        let waker = Waker::new().unwrap();
        let mut poller = Poller::new(Clock::starting_now(), waker.clone()).unwrap();
        let other = std::thread::spawn(move || waker.wake());
        poller.wait(Until::Event, &mut Vec::new()).unwrap();
        other.join().unwrap();
    }
}
