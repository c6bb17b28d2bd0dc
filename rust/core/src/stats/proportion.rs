//! Shares of counted events and their differences, with intervals that hold for small counts.
//!
//! Every interval here is for a sample whose size was fixed before anybody looked. An interval that is watched while it
//! grows misses more often than it says; [`super::event_ratio`] is for that.

use super::{beta, normal};

/// `events` of `total`, with `events <= total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// How many had the property.
    pub events: u64,
    /// How many were looked at.
    pub total: u64,
}

/// A closed range of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// The lower end.
    pub low: f64,
    /// The upper end, infinity where the data set none.
    pub high: f64,
}

impl Share {
    /// The share as a number in [0, 1]; NaN if nothing was looked at.
    #[must_use]
    pub fn estimate(self) -> f64 {
        self.events as f64 / self.total as f64
    }

    /// The score interval of Wilson (1927) at `confidence`, such as 0.95; [0, 1] if nothing was looked at.
    #[must_use]
    pub fn wilson(self, confidence: f64) -> Interval {
        self.wilson_of(normal::quantile(1.0 - (1.0 - confidence) / 2.0))
    }

    /// The end of the one-sided interval of Wilson: the share is below it with `confidence`.
    #[must_use]
    pub fn wilson_upper(self, confidence: f64) -> f64 {
        self.wilson_of(normal::quantile(confidence)).high
    }

    fn wilson_of(self, z: f64) -> Interval {
        if self.total == 0 {
            return Interval { low: 0.0, high: 1.0 };
        }
        let (n, p) = (self.total as f64, self.estimate());
        let shrink = 1.0 + z * z / n;
        let centre = (p + z * z / (2.0 * n)) / shrink;
        let half = z / shrink * (p * (1.0 - p) / n + z * z / (4.0 * n * n)).sqrt();
        // The ends are exactly 0 and 1 there, and the formula leaves the rounding of its last step.
        let low = if self.events == 0 { 0.0 } else { centre - half };
        let high = if self.events == self.total { 1.0 } else { centre + half };
        Interval { low, high }
    }

    /// The exact interval of Clopper and Pearson (1934) at `confidence`.
    #[must_use]
    pub fn clopper_pearson(self, confidence: f64) -> Interval {
        let tail = (1.0 - confidence) / 2.0;
        let (k, rest) = (self.events as f64, (self.total - self.events) as f64);
        let low = if self.events == 0 { 0.0 } else { beta::quantile(tail, k, rest + 1.0) };
        let high = if self.events == self.total { 1.0 } else { beta::quantile(1.0 - tail, k + 1.0, rest) };
        Interval { low, high }
    }
}

/// The interval of `left - right` at `confidence`: the hybrid score interval of Newcombe (1998, method 10).
#[must_use]
pub fn difference(left: Share, right: Share, confidence: f64) -> Interval {
    let (l, r) = (left.wilson(confidence), right.wilson(confidence));
    let (p, q) = (left.estimate(), right.estimate());
    let estimate = p - q;
    Interval { low: estimate - (p - l.low).hypot(r.high - q), high: estimate + (l.high - p).hypot(q - r.low) }
}

/// How much more often `challenger` has the event than `champion`, as a ratio of rates: exact, by the binomial
/// distribution of the challenger's part of all events (Przyborowski and Wilenski 1940).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateRatio {
    /// The ratio as counted; NaN without a champion's event and without a challenger's.
    pub estimate: f64,
    /// The exact interval at the confidence asked for.
    pub interval: Interval,
    /// P(so many or more of the challenger's | the rates are equal).
    pub p_greater: f64,
}

/// The ratio of the rate of `challenger` to that of `champion` at `confidence`.
#[must_use]
pub fn rate_ratio(challenger: Share, champion: Share, confidence: f64) -> RateRatio {
    let exposure = challenger.total as f64 / champion.total as f64;
    let part = Share { events: challenger.events, total: challenger.events + champion.events };
    let ends = part.clopper_pearson(confidence);
    let of = |share: f64| if share >= 1.0 { f64::INFINITY } else { share / (1.0 - share) / exposure };
    RateRatio {
        estimate: challenger.estimate() / champion.estimate(),
        interval: Interval { low: of(ends.low), high: of(ends.high) },
        p_greater: beta::binomial_at_least(part.events, part.total, exposure / (1.0 + exposure)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::close;
    use proptest::prelude::*;

    fn share(events: u64, total: u64) -> Share {
        Share { events, total }
    }

    fn ends(found: Interval, low: f64, high: f64) {
        close(found.low, low, 2e-4);
        close(found.high, high, 2e-4);
    }

    // Expected values: scipy 1.17.
    #[test]
    fn wilson_intervals_match_their_vectors() {
        ends(share(12, 1_000).wilson(0.95), 0.006_877_6, 0.020_857_3);
        ends(share(0, 500).wilson(0.95), 0.0, 0.007_624_3);
        ends(share(3, 1_000).wilson(0.95), 0.001_020_8, 0.008_783_0);
        ends(share(131, 2_000).wilson(0.95), 0.055_468_5, 0.077_197_4);
        ends(share(150, 5_000).wilson(0.95), 0.025_620_5, 0.035_101_1);
        close(share(3, 1_000).wilson_upper(0.95), 0.007_482_5, 1e-5);
    }

    #[test]
    fn differences_match_their_vectors() {
        ends(difference(share(22, 5_000), share(90, 45_000), 0.95), 0.000_839, 0.004_684);
        ends(difference(share(150, 5_000), share(12, 5_000), 0.95), 0.022_869, 0.032_803);
        ends(difference(share(150, 5_000), share(0, 500), 0.95), 0.021_207, 0.035_101);
    }

    #[test]
    fn the_ratio_of_rates_matches_its_vector() {
        let found = rate_ratio(share(22, 5_000), share(90, 45_000), 0.95);
        close(found.p_greater, 0.001_552_6, 1e-4);
        // The vector's odds are of 1 to 9 and not of 5 to 45 requests, which is the same.
        ends(found.interval, 1.313_84, 3.537_48);
        close(found.estimate, 2.2, 1e-12);
    }

    #[test]
    fn nothing_looked_at_excludes_nothing() {
        assert_eq!(share(0, 0).wilson(0.95), Interval { low: 0.0, high: 1.0 });
        assert!(share(0, 0).estimate().is_nan());
        assert_eq!(share(7, 7).wilson(0.95).high, 1.0);
        assert_eq!(rate_ratio(share(5, 100), share(0, 100), 0.95).interval.high, f64::INFINITY);
    }

    proptest! {
        #[test]
        fn an_interval_holds_its_estimate_and_grows_with_the_confidence(
            events in 0_u64..1_000, more in 0_u64..100_000, low in 0.5..0.9,
        ) {
            let share = share(events, events + more + 1);
            for (narrow, wide) in [
                (share.wilson(low), share.wilson(low + 0.09)),
                (share.clopper_pearson(low), share.clopper_pearson(low + 0.09)),
            ] {
                prop_assert!(narrow.low <= share.estimate() && share.estimate() <= narrow.high);
                prop_assert!(wide.low <= narrow.low && narrow.high <= wide.high);
                prop_assert!((0.0..=1.0).contains(&wide.low) && (0.0..=1.0).contains(&wide.high));
            }
        }
    }
}
