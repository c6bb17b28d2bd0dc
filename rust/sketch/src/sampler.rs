//! Which rows are sketched when sketching all of them would cost too much: chosen by hash, so that inputs and outputs of a
//! request, and all processes, choose the same rows.
//!
//! `Rate` is the share, `Pick` decides one row, `Controller` moves the rate so that sketching stays within its share of
//! request CPU. Time is given by the caller. Next: `plan`.

/// SplitMix64's output function (Steele, Lea and Flood 2014): every bit of the result depends on every bit of `x`.
#[inline]
pub const fn splitmix64(x: u64) -> u64 {
    let z = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A share of rows: 1, 1/2, 1/4, ... 1/1024. A row kept at one rate is kept at every higher one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Rate(u8);

impl Rate {
    /// Every row.
    pub const ALL: Rate = Rate(0);
    /// One row in 1024.
    pub const LOWEST: Rate = Rate(10);

    /// The share `2^-halvings`; more than ten halvings are ten.
    pub fn halved(halvings: u8) -> Self {
        Self(halvings.min(Self::LOWEST.0))
    }

    /// How often the share was halved: 0 to 10. Fits an `AtomicU8` that threads share.
    pub fn halvings(self) -> u8 {
        self.0
    }

    /// The share itself.
    pub fn share(self) -> f64 {
        1.0 / f64::from(1u32 << self.0)
    }

    #[inline]
    fn keeps(self, mixed: u64) -> bool {
        mixed <= u64::MAX >> self.0
    }
}

/// Which rows of one request are observed.
#[derive(Clone, Copy, Debug)]
pub struct Pick {
    hash: u64,
    rate: Rate,
}

impl Pick {
    /// Every row.
    pub const ALL: Pick = Pick { hash: 0, rate: Rate::ALL };

    /// The rows of the request with this hash (of its id, or any number drawn for it) that a rate keeps.
    pub fn new(request_hash: u64, rate: Rate) -> Self {
        Self { hash: request_hash, rate }
    }

    /// Whether row number `row` is kept.
    #[inline]
    pub fn keeps(&self, row: usize) -> bool {
        self.rate == Rate::ALL || self.rate.keeps(self.mixed(row))
    }

    /// How many of the first `rows` rows are kept.
    pub fn kept(&self, rows: usize) -> u64 {
        if self.rate == Rate::ALL {
            rows as u64
        } else {
            (0..rows).filter(|&row| self.keeps(row)).count() as u64
        }
    }

    /// A number that depends on the request and the row, for choices within the row.
    #[inline]
    pub(crate) fn mixed(&self, row: usize) -> u64 {
        splitmix64(self.hash ^ splitmix64(row as u64))
    }
}

/// Keeps the time spent on sketches within a share of the time spent on requests.
///
/// A reading covers at least `MIN_PERIOD_NS` of request time, so that one odd request moves nothing. Above the budget the
/// rate falls at once, far enough to fit; it rises by one step only after three readings in a row below 40 % of the budget
/// (a step doubles the cost, so that the raised rate still fits).
#[derive(Clone, Debug)]
pub struct Controller {
    budget: f64,
    rate: Rate,
    sketch_ns: u64,
    request_ns: u64,
    calm: u8,
}

impl Controller {
    /// Request CPU time that a reading covers at least, in nanoseconds.
    pub const MIN_PERIOD_NS: u64 = 20_000_000;
    const CALM_READINGS: u8 = 3;
    const CALM_SHARE: f64 = 0.4;

    /// A controller that starts with every row. `budget` is the share of request CPU allowed, such as 0.01.
    pub fn new(budget: f64) -> Self {
        Self { budget: budget.max(1e-6), rate: Rate::ALL, sketch_ns: 0, request_ns: 0, calm: 0 }
    }

    /// The rate in force.
    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Takes in CPU time spent since the last call, both in nanoseconds, and gives the rate from now on.
    pub fn observe(&mut self, sketch_ns: u64, request_ns: u64) -> Rate {
        self.sketch_ns = self.sketch_ns.saturating_add(sketch_ns);
        self.request_ns = self.request_ns.saturating_add(request_ns);
        if self.request_ns < Self::MIN_PERIOD_NS {
            return self.rate;
        }
        let load = self.sketch_ns as f64 / self.request_ns as f64 / self.budget;
        (self.sketch_ns, self.request_ns) = (0, 0);
        if load > 1.0 {
            self.calm = 0;
            self.rate = Rate::halved(self.rate.0.saturating_add(load.log2().ceil().max(1.0) as u8));
        } else if load < Self::CALM_SHARE && self.rate != Rate::ALL {
            self.calm += 1;
            if self.calm == Self::CALM_READINGS {
                self.calm = 0;
                self.rate = Rate(self.rate.0 - 1);
            }
        } else {
            self.calm = 0;
        }
        self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_kept_is_the_rate_and_rates_nest() {
        for halvings in [0, 1, 4, 10] {
            let kept: u64 = (0..2000).map(|hash| Pick::new(hash, Rate::halved(halvings)).kept(100)).sum();
            let wanted = 200_000.0 / f64::from(1u32 << halvings);
            assert!((kept as f64 - wanted).abs() < 5.0 * wanted.sqrt() + 1.0, "{halvings}: {kept}");
        }
        for row in 0..1000 {
            if Pick::new(7, Rate::halved(3)).keeps(row) {
                assert!(Pick::new(7, Rate::halved(2)).keeps(row));
            }
        }
    }

    #[test]
    fn splitmix_gives_its_published_numbers() {
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert_eq!(splitmix64(0x9e37_79b9_7f4a_7c15), 0x6e78_9e6a_a1b9_65f4);
    }

    #[test]
    fn the_controller_falls_at_once_and_rises_slowly() {
        const PERIOD: u64 = Controller::MIN_PERIOD_NS;
        let mut controller = Controller::new(0.01);
        assert_eq!(controller.observe(PERIOD / 200, PERIOD), Rate::ALL);
        assert_eq!(controller.observe(PERIOD, PERIOD / 2), Rate::ALL, "too short to judge");
        // 1.5 periods so far would be judged with this call; the load is 12 x the budget's.
        let fallen = Controller::new(0.01).observe(PERIOD * 12 / 100, PERIOD);
        assert_eq!(fallen, Rate::halved(4));
        let mut controller = Controller::new(0.01);
        controller.observe(PERIOD * 12 / 100, PERIOD);
        for reading in 0..2 {
            assert_eq!(controller.observe(PERIOD / 1000, PERIOD), Rate::halved(4), "{reading}");
        }
        assert_eq!(controller.observe(PERIOD / 1000, PERIOD), Rate::halved(3));
        for _ in 0..100 {
            assert_eq!(
                controller.observe(PERIOD / 150, PERIOD),
                Rate::halved(3),
                "between the marks nothing moves"
            );
        }
    }

    #[test]
    fn a_controller_never_leaves_its_range() {
        let mut controller = Controller::new(0.01);
        assert_eq!(controller.observe(u64::MAX, Controller::MIN_PERIOD_NS), Rate::LOWEST);
        for _ in 0..100 {
            controller.observe(0, Controller::MIN_PERIOD_NS);
        }
        assert_eq!(controller.rate(), Rate::ALL);
    }
}
