//! What is simulated, and its checks. Next: `run`.

use headgate_core::error::{Error, Result};
use serde::Deserialize;

/// The most requests of a simulation.
const MAX_REQUESTS: u64 = 10_000_000;
/// The most instances.
const MAX_INSTANCES: usize = 1_024;
/// The largest batch.
const MAX_BATCH: usize = 65_536;
/// The most kinds of requests, and of run times.
const MAX_CHOICES: usize = 10_000;
/// The longest simulated time of a single wait or run, in nanoseconds: a day.
const MAX_NS: u64 = 86_400_000_000_000;

/// A load on one version. The same question has the same answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchSimulation {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// Requests per second.
    pub rate: f64,
    /// How many requests are measured. A tenth as many come before them.
    pub requests: u64,
    /// How they come.
    pub arrivals: Arrivals,
    /// The numbers of rows of requests, each with its weight.
    pub rows: Vec<(usize, f64)>,
    /// The settings of the version.
    pub setting: SimulatedSetting,
    /// What a run costs.
    pub curve: CostLine,
    /// Times of runs, in nanoseconds, each with its weight, in the place of `curve`.
    #[serde(default)]
    pub run_ns: Option<Vec<(u64, f64)>>,
}

/// How requests come, at the mean rate of the simulation.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case", tag = "kind")]
pub enum Arrivals {
    /// Independent of each other.
    Poisson,
    /// At equal distances.
    Constant,
    /// With independent gaps whose deviation is `cv` times their mean.
    Gamma {
        /// Above 0.
        cv: f64,
    },
    /// Poisson at a rate that changes between two levels, at times that are exponential (MMPP).
    Mmpp {
        /// The rate in a burst over the mean rate; above 1.
        burst: f64,
        /// The share of time in bursts; below 1 / `burst`, or equal to it for silence between bursts.
        share: f64,
        /// The mean length of a burst, in nanoseconds.
        burst_ns: f64,
    },
}

/// The settings of a version that decide which requests run together.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimulatedSetting {
    /// Runs at a time.
    pub instances: usize,
    /// The most rows of a run; a request with more runs alone.
    pub max_batch: usize,
    /// The longest wait of a batch for more rows, in nanoseconds.
    pub max_delay_ns: u64,
    /// The most requests that wait; more are rejected.
    pub max_queue: usize,
    /// The sizes that batches are padded to, ascending.
    #[serde(default)]
    pub buckets: Vec<usize>,
    /// How long a request may take, in nanoseconds. What has not begun by then is rejected, and the queue sheds. `None` for no limit.
    #[serde(default)]
    pub timeout_ns: Option<u64>,
}

/// A run of n rows takes `base_ns + row_ns * n`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CostLine {
    /// Of any run, in nanoseconds.
    pub base_ns: f64,
    /// Of each row, in nanoseconds.
    pub row_ns: f64,
}

impl BatchSimulation {
    /// The question in a JSON text.
    ///
    /// # Errors
    /// `invalid_argument` for what is no question.
    pub fn parse(json: &str) -> Result<BatchSimulation> {
        serde_json::from_str(json).map_err(|error| Error::invalid(format!("simulation: {error}")))
    }

    /// Refuses values that cannot be.
    pub(super) fn check(&self) -> Result<()> {
        let setting = &self.setting;
        let is = |right: bool, wrong: &str| match right {
            true => Ok(()),
            false => Err(Error::invalid(format!("simulation: {wrong}"))),
        };
        is(self.rate >= 1e-3 && self.rate <= 1e9, "rate: from 0.001 to 1e9 requests per second")?;
        is((1..=MAX_REQUESTS).contains(&self.requests), "requests: from 1 to 10 000 000")?;
        is((1..=MAX_INSTANCES).contains(&setting.instances), "setting.instances: from 1 to 1 024")?;
        is((1..=MAX_BATCH).contains(&setting.max_batch), "setting.max_batch: from 1 to 65 536")?;
        is(setting.max_delay_ns <= MAX_NS, "setting.max_delay_ns: at most a day")?;
        is(setting.buckets.is_sorted_by(|a, b| a < b), "setting.buckets: in ascending order")?;
        let timeout_is_possible =
            setting.timeout_ns.is_none_or(|timeout_ns| (1..=MAX_NS).contains(&timeout_ns));
        is(timeout_is_possible, "setting.timeout_ns: from 1 ns to a day")?;
        let largest = self.rows.iter().map(|(rows, _)| *rows).max().unwrap_or(1).max(setting.max_batch);
        let CostLine { base_ns, row_ns } = self.curve;
        let longest = base_ns + row_ns * largest as f64;
        is(base_ns >= 0.0 && row_ns >= 0.0 && longest <= MAX_NS as f64, "curve: runs from 0 ns to a day")?;
        is(
            self.rows.iter().all(|(rows, _)| (1..=MAX_BATCH).contains(rows)),
            "rows: from 1 to 65 536 of them",
        )?;
        is(has_weights(self.rows.iter().map(|row| row.1)), "rows: weights of at least 0, their sum above 0")?;
        if let Some(times) = &self.run_ns {
            is(times.iter().all(|(ns, _)| *ns <= MAX_NS), "run_ns: at most a day")?;
            is(
                has_weights(times.iter().map(|time| time.1)),
                "run_ns: weights of at least 0, their sum above 0",
            )?;
        }
        self.arrivals.check()
    }
}

impl Arrivals {
    fn check(self) -> Result<()> {
        let wrong = match self {
            Arrivals::Gamma { cv } if !(0.01..=100.0).contains(&cv) => "arrivals.cv: from 0.01 to 100",
            Arrivals::Mmpp { burst, share, burst_ns }
                if !(burst > 1.0
                    && share > 0.0
                    && burst * share <= 1.0
                    && (1.0..=MAX_NS as f64).contains(&burst_ns)) =>
            {
                "arrivals: a burst above 1, a share of at most 1 / burst, a burst_ns from 1 ns to a day"
            }
            _ => return Ok(()),
        };
        Err(Error::invalid(format!("simulation: {wrong}")))
    }
}

fn has_weights(weights: impl ExactSizeIterator<Item = f64> + Clone) -> bool {
    weights.len() <= MAX_CHOICES
        && weights.clone().all(|weight| weight >= 0.0)
        && (1e-300..1e300).contains(&weights.sum::<f64>())
}
