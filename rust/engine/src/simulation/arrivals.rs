//! When requests come, and what else is drawn.

use headgate_core::stats::normal;

use super::question::Arrivals;

/// Numbers that a seed and a stream determine: splitmix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    /// The numbers of a stream. Streams of one seed have nothing in common.
    pub(super) fn new(seed: u64, stream: u64) -> Random {
        let mut mixed = Random(seed ^ stream.wrapping_mul(0xD1B5_4A32_D192_ED03));
        Random(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number within (0, 1).
    fn uniform(&mut self) -> f64 {
        ((self.next() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }

    /// An exponential number of mean 1.
    fn exponential(&mut self) -> f64 {
        -self.uniform().ln()
    }

    /// A gamma number of that shape and of scale 1 (Marsaglia and Tsang 2000).
    fn gamma(&mut self, shape: f64) -> f64 {
        if shape < 1.0 {
            let boost = self.uniform().powf(1.0 / shape);
            return self.gamma(shape + 1.0) * boost;
        }
        let d = shape - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = normal::quantile(self.uniform());
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && self.uniform().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return d * v;
            }
        }
    }
}

/// Draws values by their weights.
pub(super) struct Choice<T> {
    /// Each value, and the weight of it and those before it.
    values: Vec<(T, f64)>,
    random: Random,
}

impl<T: Copy> Choice<T> {
    /// At least one weight must be above 0.
    pub(super) fn new(weighted: &[(T, f64)], random: Random) -> Choice<T> {
        let mut sum = 0.0;
        let values = weighted.iter().filter(|(_, weight)| *weight > 0.0).map(|&(value, weight)| {
            sum += weight;
            (value, sum)
        });
        Choice { values: values.collect(), random }
    }

    /// The next value.
    pub(super) fn draw(&mut self) -> T {
        let last = self.values.len() - 1;
        let place = match last {
            0 => 0,
            _ => {
                let at = self.random.uniform() * self.values[last].1;
                self.values.partition_point(|(_, sum)| *sum <= at).min(last)
            }
        };
        self.values[place].0
    }
}

/// The times at which requests come, in nanoseconds, one after another.
pub(super) struct ArrivalTimes {
    kind: Arrivals,
    mean_gap_ns: f64,
    random: Random,
    now_ns: f64,
    /// Whether there is a burst, and until when.
    burst: (bool, f64),
}

impl ArrivalTimes {
    /// Times of that kind, with `rate` of them in a second.
    pub(super) fn new(kind: Arrivals, rate: f64, random: Random) -> ArrivalTimes {
        // A burst that is over at the start: the first step draws how long it is quiet.
        ArrivalTimes { kind, mean_gap_ns: 1e9 / rate, random, now_ns: 0.0, burst: (true, 0.0) }
    }

    /// The next arrival at a rate that changes when bursts begin and end.
    fn step_through_bursts(&mut self, factor: f64, share: f64, burst_ns: f64) {
        let quiet = ((1.0 - factor * share) / (1.0 - share)).max(0.0);
        // How much of the mean gap is left, in units of it at the mean rate.
        let mut left = self.random.exponential();
        loop {
            let (in_burst, until_ns) = self.burst;
            let speed = if in_burst { factor } else { quiet } / self.mean_gap_ns;
            let passes = (until_ns - self.now_ns) * speed;
            if passes >= left {
                self.now_ns += left / speed;
                return;
            }
            left -= passes.max(0.0);
            self.now_ns = self.now_ns.max(until_ns);
            let mean_ns = if in_burst { burst_ns * (1.0 - share) / share } else { burst_ns };
            self.burst = (!in_burst, self.now_ns + mean_ns * self.random.exponential());
        }
    }
}

impl Iterator for ArrivalTimes {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        match self.kind {
            Arrivals::Poisson => self.now_ns += self.mean_gap_ns * self.random.exponential(),
            Arrivals::Constant => self.now_ns += self.mean_gap_ns,
            Arrivals::Gamma { cv } => {
                let shape = 1.0 / (cv * cv);
                self.now_ns += self.mean_gap_ns * self.random.gamma(shape) / shape;
            }
            Arrivals::Mmpp { burst, share, burst_ns } => self.step_through_bursts(burst, share, burst_ns),
        }
        Some(self.now_ns as u64)
    }
}
