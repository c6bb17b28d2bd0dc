//! Decides the share of rows that is sketched: a time budget for each thread, and a floor for each version.
//!
//! The budget is a share of the time that passes, used or not. An idle gateway sketches every row, and a busy one spends at most
//! this share of each thread. The cost of sketching is the number of values times a cost that was measured once. So a request needs
//! no clock and no system call, and an interrupted thread does not count as a slow one.
//!
//! The budget alone would starve a version with few rows beside one with many. So each version has a floor: the first rows of each
//! minute are all sketched, then half of twice as many, and so on, regardless of the budget. Both depend on numbers of rows and
//! never on values, so that weighted counts have no bias. The caller passes the time. Next: `plan`.

use crate::sampler::SamplingRate;

/// Keeps the time spent on sketches within a share of the time that passes.
///
/// Above the budget the rate falls at once, far enough to fit. It rises by one step for each three periods below 40 % of the budget:
/// a step doubles the cost, so that the higher rate fits too.
#[derive(Clone, Debug)]
pub struct RateController {
    budget: f64,
    rate: SamplingRate,
    spent_ns: f64,
    passed_ns: u64,
    low_load_periods: u64,
}

impl RateController {
    /// The least time between two changes, in nanoseconds: so long that one large request has little effect.
    pub const PERIOD_NS: u64 = 100_000_000;
    const LOW_LOAD_PERIODS: u64 = 3;
    const LOW_LOAD_SHARE: f64 = 0.4;
    /// The halvings of the lowest rate. A lower rate would give too few rows within an hour.
    const LOWEST: u8 = 10;

    /// A controller that starts with every row. `budget` is the share of time allowed, such as 0.01.
    pub fn new(budget: f64) -> Self {
        Self {
            budget: budget.max(1e-6),
            rate: SamplingRate::ALL,
            spent_ns: 0.0,
            passed_ns: 0,
            low_load_periods: 0,
        }
    }

    /// The present rate.
    pub fn rate(&self) -> SamplingRate {
        self.rate
    }

    /// Takes the cost of sketching and the time since the last call. Returns the rate from now on.
    pub fn observe(&mut self, spent_ns: f64, passed_ns: u64) -> SamplingRate {
        self.spent_ns += spent_ns;
        self.passed_ns = self.passed_ns.saturating_add(passed_ns);
        let periods = self.passed_ns / Self::PERIOD_NS;
        if periods == 0 {
            return self.rate;
        }
        let load = self.spent_ns / self.passed_ns as f64 / self.budget;
        (self.spent_ns, self.passed_ns) = (0.0, 0);
        let halvings = self.rate.halvings();
        if load > 1.0 {
            self.low_load_periods = 0;
            let steps = load.log2().ceil().clamp(1.0, f64::from(Self::LOWEST)) as u8;
            self.rate = SamplingRate::halved((halvings + steps).min(Self::LOWEST));
        } else if load < Self::LOW_LOAD_SHARE {
            self.low_load_periods += periods;
            let steps = (self.low_load_periods / Self::LOW_LOAD_PERIODS).min(u64::from(halvings)) as u8;
            self.low_load_periods %= Self::LOW_LOAD_PERIODS;
            self.rate = SamplingRate::halved(halvings - steps);
        } else {
            self.low_load_periods = 0;
        }
        self.rate
    }
}

/// The share of rows that one version has in one thread and minute regardless of the budget.
#[derive(Clone, Debug)]
pub struct RateFloor {
    rows: u64,
    minute: u64,
    rows_of_minute: u64,
}

impl RateFloor {
    /// Rows of a minute that are all sketched.
    pub const ROWS: u64 = 256;
    /// The most values of these rows. Versions with very many columns have fewer rows.
    const VALUES: u64 = 1 << 19;
    /// The fewest of these rows.
    const FEWEST: u64 = 16;

    /// A floor for rows of this many values.
    pub fn new(row_values: usize) -> Self {
        let rows = (Self::VALUES / (row_values as u64).max(1)).clamp(Self::FEWEST, Self::ROWS);
        Self { rows, minute: 0, rows_of_minute: 0 }
    }

    /// The least rate for the next `rows` rows of this minute.
    pub fn rate(&mut self, minute: u64, rows: u64) -> SamplingRate {
        if minute != self.minute {
            (self.minute, self.rows_of_minute) = (minute, 0);
        }
        let times = self.rows_of_minute / self.rows;
        self.rows_of_minute += rows;
        SamplingRate::halved((u64::BITS - times.leading_zeros()) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampler::RowSample;

    const PERIOD: u64 = RateController::PERIOD_NS;

    #[test]
    fn the_controller_falls_at_once_and_rises_slowly() {
        let mut controller = RateController::new(0.01);
        assert_eq!(controller.observe(PERIOD as f64 / 200.0, PERIOD), SamplingRate::ALL);
        assert_eq!(controller.observe(PERIOD as f64, PERIOD / 2), SamplingRate::ALL, "too short to judge");
        let mut controller = RateController::new(0.01);
        assert_eq!(controller.observe(PERIOD as f64 * 0.12, PERIOD), SamplingRate::halved(4));
        for reading in 0..2 {
            assert_eq!(
                controller.observe(PERIOD as f64 / 1000.0, PERIOD),
                SamplingRate::halved(4),
                "{reading}"
            );
        }
        assert_eq!(controller.observe(PERIOD as f64 / 1000.0, PERIOD), SamplingRate::halved(3));
        for _ in 0..100 {
            let rate = controller.observe(PERIOD as f64 / 150.0, PERIOD);
            assert_eq!(rate, SamplingRate::halved(3), "between the marks nothing moves");
        }
        assert_eq!(
            controller.observe(0.0, 20 * PERIOD),
            SamplingRate::ALL,
            "an idle time counts as all of its periods"
        );
        assert_eq!(controller.observe(1e30, PERIOD), SamplingRate::halved(10));
    }

    /// The rows of a version that gets `each` rows every `gap_ns`, all and sampled ones, beside a load that costs `other` of the thread.
    fn sketched(seconds: u64, each: u64, gap_ns: u64, columns: usize, other: f64) -> (u64, u64) {
        const VALUE_NS: f64 = 8.0;
        let (mut controller, mut floor) = (RateController::new(0.01), RateFloor::new(columns));
        let (mut offered, mut sampled, mut now) = (0, 0, 0);
        while now < seconds * 1_000_000_000 {
            now += gap_ns;
            let rate = controller.rate().min(floor.rate(now / 60_000_000_000, each));
            let of_request = RowSample::new(now, rate).count(each as usize);
            offered += each;
            sampled += of_request;
            let share = controller.rate().share();
            let spent = of_request as f64 * columns as f64 * VALUE_NS + other * share * gap_ns as f64;
            controller.observe(spent, gap_ns);
        }
        (offered, sampled)
    }

    #[test]
    fn few_requests_are_all_sketched() {
        // 30 columns at 20 requests a second for two minutes.
        assert_eq!(sketched(120, 1, 50_000_000, 30, 0.0), (2400, 2400));
    }

    #[test]
    fn a_version_with_few_rows_keeps_its_floor_beside_a_heavy_one() {
        // The thread would spend all its time on sketches of others: the budget's rate falls to 1/128.
        let (offered, sampled) = sketched(600, 1, 500_000_000, 64, 1.0);
        assert_eq!(offered, sampled, "two rows a second are below the floor");
        let (offered, sampled) = sketched(600, 1, 10_000_000, 64, 1.0);
        assert!(
            offered == 60_000 && sampled >= 10 * RateFloor::ROWS && sampled < offered / 5,
            "{sampled} of {offered}"
        );
    }

    #[test]
    fn a_busy_thread_stays_within_its_budget() {
        let seconds = 60;
        // 20 000 rows a second of 64 columns would cost 1 % and more of the thread.
        let (offered, sampled) = sketched(seconds, 1, 20_000, 64, 0.0);
        let spent = sampled as f64 * 64.0 * 8.0 / (seconds as f64 * 1e9);
        assert!(spent < 0.013 && sampled > offered / 20, "{spent} {sampled} of {offered}");
    }

    #[test]
    fn wide_versions_have_a_smaller_floor() {
        assert_eq!(RateFloor::new(64).rows, 256);
        assert_eq!(RateFloor::new(1 << 16).rows, 16);
        let mut floor = RateFloor::new(1);
        let rates: Vec<u8> = [256, 1, 255, 512, 1024].map(|rows| floor.rate(0, rows).halvings()).into();
        assert_eq!(rates, [0, 1, 1, 2, 3]);
        assert_eq!(floor.rate(1, 1), SamplingRate::ALL, "a new minute begins anew");
    }
}
