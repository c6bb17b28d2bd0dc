//! A reading of the monotonic clock in one word.

#![allow(unsafe_code, reason = "the clock is read by a function of libc")]

use std::ops::{Add, AddAssign, Sub};
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A time of the system's monotonic clock, in nanoseconds, to use as [`std::time::Instant`] is.
///
/// That one keeps seconds and nanoseconds apart, so that a difference takes a call and five times the instructions. A request takes
/// half a dozen of them. Both are of the same clock and become one another.
///
/// The last time is 584 years after the clock's zero. A sum beyond it is the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(u64);

impl Instant {
    /// Reads the clock.
    #[must_use]
    #[inline]
    pub fn now() -> Instant {
        let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the pointer is that of a value of ours. The clock is one that every Linux has, so that the call does not fail.
        unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
        Instant(now.tv_sec as u64 * NANOS_PER_SECOND + now.tv_nsec as u64)
    }

    /// Nanoseconds since an earlier time; 0 if that is not earlier.
    #[must_use]
    #[inline]
    pub fn nanos_since(self, earlier: Instant) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The time since an earlier one; zero if that is not earlier.
    #[must_use]
    pub fn saturating_duration_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    /// The time since an earlier one; `None` if that is later.
    #[must_use]
    pub fn checked_duration_since(self, earlier: Instant) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_nanos)
    }

    /// The time that has passed since then.
    #[must_use]
    pub fn elapsed(self) -> Duration {
        Instant::now().saturating_duration_since(self)
    }

    /// That much later; `None` if there is no such time.
    #[must_use]
    pub fn checked_add(self, duration: Duration) -> Option<Instant> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_add(nanos).map(Instant)
    }

    /// That much earlier; `None` if there is no such time.
    #[must_use]
    pub fn checked_sub(self, duration: Duration) -> Option<Instant> {
        let nanos = u64::try_from(duration.as_nanos()).ok()?;
        self.0.checked_sub(nanos).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    #[inline]
    fn add(self, duration: Duration) -> Instant {
        let nanos = duration.as_secs().saturating_mul(NANOS_PER_SECOND);
        Instant(self.0.saturating_add(nanos).saturating_add(u64::from(duration.subsec_nanos())))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// That much earlier, at most the clock's zero.
    fn sub(self, duration: Duration) -> Instant {
        self.checked_sub(duration).unwrap_or(Instant(0))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.saturating_duration_since(earlier)
    }
}

impl From<Instant> for std::time::Instant {
    /// At most 30 years from now: a timer must be able to add to it. Never earlier, and later by what passes between two readings of
    /// the clock, so that no timer ends too soon.
    fn from(at: Instant) -> std::time::Instant {
        const FAR: u64 = 30 * 365 * 24 * 3600 * NANOS_PER_SECOND;
        let (now, standard) = (Instant::now(), std::time::Instant::now());
        match at.0.checked_sub(now.0) {
            Some(ahead) => standard + Duration::from_nanos(ahead.min(FAR)),
            None => {
                let past = Duration::from_nanos(now.nanos_since(at));
                standard.checked_sub(past).unwrap_or(standard)
            }
        }
    }
}

impl From<Instant> for tokio::time::Instant {
    fn from(at: Instant) -> tokio::time::Instant {
        std::time::Instant::from(at).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_types_read_the_same_clock() {
        const HOUR: Duration = Duration::from_secs(3600);
        let before = std::time::Instant::now();
        let here = Instant::now();
        assert!(std::time::Instant::from(here) >= before);
        let ahead = std::time::Instant::from(here + HOUR);
        assert!(ahead >= before + HOUR, "a timer would end too soon");
        assert!(ahead < std::time::Instant::now() + HOUR + HOUR);
    }

    #[test]
    fn differences_and_sums_do_not_wrap() {
        let (early, late) = (Instant(5), Instant(7_000_000_009));
        assert_eq!(late - early, Duration::new(7, 4));
        assert_eq!(early - late, Duration::ZERO);
        assert_eq!(early.nanos_since(late), 0);
        assert_eq!(early + Duration::new(7, 4), late);
        assert_eq!(late - Duration::new(7, 4), early);
        assert_eq!(early - Duration::from_secs(1), Instant(0));
        assert_eq!(early + Duration::MAX, Instant(u64::MAX));
        assert_eq!(early.checked_add(Duration::MAX), None);
        assert_eq!(late.checked_add(Duration::from_nanos(1)), Some(Instant(7_000_000_010)));
        assert_eq!(early.checked_sub(Duration::from_nanos(6)), None);
    }

    #[test]
    fn a_timer_can_be_set_for_the_last_time() {
        let _ = std::time::Instant::from(Instant(u64::MAX)) + Duration::from_secs(3600);
        let _ = std::time::Instant::from(Instant(0));
    }
}
