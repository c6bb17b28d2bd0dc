//! What a run of n rows costs, t(n) = b + a n, fitted to past runs; and when the next row is expected.
//!
//! Rows that are run together share b. So a batch that waits for one more row saves one b, and each of its rows pays with the time until
//! that row comes.

/// The number of points: one for each power of two of rows.
const POINTS: usize = 24;
/// The newest runs of a point that count.
const MAX_WEIGHT: f64 = 32.0;
/// The weight of a new gap between rows in their mean.
const GAP_SHARE: f64 = 0.05;

/// A longer gap is a time without requests, in nanoseconds. It is longer than any wait for a row may be.
const IDLE_NS: u64 = 1_000_000_000;

/// A straight line through (rows, nanoseconds), by least squares over points.
///
/// There is a point for each power of two of rows, made of the newest runs of about that size. Batches are mostly of one size: a line through
/// the newest runs of all sizes would follow their noise, and forget what one row costs.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct CostCurve([CurvePoint; POINTS]);

/// The runs of about one size.
#[derive(Clone, Copy, Debug, Default)]
struct CurvePoint {
    /// How many runs count.
    weight: f64,
    /// Their mean rows and nanoseconds.
    rows: f64,
    ns: f64,
}

/// The cost of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunCost {
    /// Of any run, in nanoseconds.
    pub fixed_ns: f64,
    /// Of each row, in nanoseconds.
    pub row_ns: f64,
}

impl RunCost {
    /// The expected time of a run of `rows` rows, in nanoseconds.
    pub fn expected_ns(&self, rows: usize) -> f64 {
        self.fixed_ns + self.row_ns * rows as f64
    }
}

impl CostCurve {
    /// Records that a run of `rows` rows took `ns` nanoseconds.
    pub(crate) fn record(&mut self, rows: usize, ns: f64) {
        let size = &mut self.0[(rows.max(1).ilog2() as usize).min(POINTS - 1)];
        size.weight = (size.weight + 1.0).min(MAX_WEIGHT);
        size.rows += (rows as f64 - size.rows) / size.weight;
        size.ns += (ns - size.ns) / size.weight;
    }

    /// The fitted line; `None` while all runs had the same number of rows, through which no line is determined.
    pub(crate) fn cost(&self) -> Option<RunCost> {
        let sum = |of: fn(&CurvePoint) -> f64| self.0.iter().map(|size| size.weight * of(size)).sum::<f64>();
        let (weight, rows, ns) = (sum(|_| 1.0), sum(|size| size.rows), sum(|size| size.ns));
        let (rows_rows, rows_ns) = (sum(|size| size.rows * size.rows), sum(|size| size.rows * size.ns));
        let spread = weight * rows_rows - rows * rows;
        if spread <= 1e-9 * weight * rows_rows {
            return None;
        }
        let slope = (weight * rows_ns - rows * ns) / spread;
        // Noise must not make a part of the cost negative. If one part would be, the other explains all of it.
        let row_ns = slope.max(0.0);
        let fixed_ns = (ns - row_ns * rows) / weight;
        if fixed_ns >= 0.0 {
            return Some(RunCost { fixed_ns, row_ns });
        }
        Some(RunCost { fixed_ns: 0.0, row_ns: rows_ns / rows_rows })
    }
}

/// The time between rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ArrivalGaps {
    last_ns: Option<u64>,
    mean_ns: Option<f64>,
}

impl ArrivalGaps {
    /// Records that `rows` rows came at `now_ns`, on any monotonic clock.
    pub(crate) fn record(&mut self, rows: usize, now_ns: u64) {
        let since = self.last_ns.replace(now_ns).map(|last| now_ns.saturating_sub(last));
        // A time without requests says nothing about the gaps between them.
        if let Some(since) = since.filter(|since| *since < IDLE_NS) {
            let gap = since as f64 / rows.max(1) as f64;
            let mean = self.mean_ns.unwrap_or(gap);
            self.mean_ns = Some(mean + GAP_SHARE * (gap - mean));
        }
    }

    /// The mean time between two rows, in nanoseconds.
    pub(crate) fn mean_ns(&self) -> Option<f64> {
        self.mean_ns
    }
}

/// How long it pays that `rows` rows wait for the next one, in nanoseconds. `None` if their waiting costs more than the run that it saves.
/// Otherwise twice the expected time: if the row has not come by then, the expectation was wrong.
pub(crate) fn worth_waiting_ns(cost: RunCost, gap_ns: f64, rows: usize) -> Option<u64> {
    (gap_ns * rows as f64 <= cost.fixed_ns).then_some((2.0 * gap_ns) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_is_found_and_followed() {
        let mut curve = CostCurve::default();
        assert_eq!(curve.cost(), None);
        (0..10).for_each(|_| curve.record(1, 110.0));
        assert_eq!(curve.cost(), None);
        (1..50).for_each(|rows| curve.record(rows, 100.0 + 10.0 * rows as f64));
        let cost = curve.cost().unwrap();
        assert!((cost.fixed_ns - 100.0).abs() < 1e-6 && (cost.row_ns - 10.0).abs() < 1e-6, "{cost:?}");
        assert!((cost.expected_ns(8) - 180.0).abs() < 1e-6);
        (0..30_000).for_each(|rows| curve.record(1 + rows % 50, 5.0 + 20.0 * (1 + rows % 50) as f64));
        let cost = curve.cost().unwrap();
        assert!((cost.fixed_ns - 5.0).abs() < 1e-3 && (cost.row_ns - 20.0).abs() < 1e-3, "{cost:?}");
    }

    #[test]
    fn a_line_stays_known_while_all_batches_are_alike() {
        let mut curve = CostCurve::default();
        for _ in 0..3 {
            curve.record(1, 47_800.0);
            curve.record(3, 49_400.0);
        }
        let mut random = 88_172_645_463_325_252_u64;
        for at in 0..5_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            // Up to a fifth more or less.
            let noise = 0.8 + 0.4 * (random >> 11) as f64 / (1u64 << 53) as f64;
            let rows = 62 + at % 3;
            curve.record(rows, (47_000.0 + 800.0 * rows as f64) * noise);
            let cost = curve.cost().unwrap();
            assert!((cost.fixed_ns - 47_000.0).abs() < 3_000.0, "{at}: {cost:?}");
            assert!((cost.row_ns - 800.0).abs() < 350.0, "{at}: {cost:?}");
        }
    }

    #[test]
    fn waiting_pays_while_it_costs_less_than_a_run() {
        let cost = RunCost { fixed_ns: 100.0, row_ns: 1.0 };
        assert_eq!(worth_waiting_ns(cost, 30.0, 3), Some(60));
        assert_eq!(worth_waiting_ns(cost, 30.0, 4), None);
        assert_eq!(worth_waiting_ns(RunCost { fixed_ns: 0.0, ..cost }, 1.0, 1), None);
    }

    #[test]
    fn gaps_are_averaged() {
        let mut gaps = ArrivalGaps::default();
        gaps.record(1, 1_000);
        assert_eq!(gaps.mean_ns(), None);
        (1..400).for_each(|at| gaps.record(2, 1_000 + 100 * at));
        assert!((gaps.mean_ns().unwrap() - 50.0).abs() < 1e-6);
    }

    proptest! {
        #[test]
        fn no_cost_is_below_zero(runs in prop::collection::vec((1usize..64, 0.0f64..1e9), 0..200)) {
            let mut curve = CostCurve::default();
            runs.iter().for_each(|&(rows, ns)| curve.record(rows, ns));
            if let Some(cost) = curve.cost() {
                prop_assert!(cost.fixed_ns >= 0.0 && cost.row_ns >= 0.0 && cost.expected_ns(64).is_finite());
            }
        }
    }
}
