//! Seeded random numbers.

/// A generator of random numbers: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Uniform in [0, 1).
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(crate) fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// Exponential of mean 1.
    pub(crate) fn exponential(&mut self) -> f64 {
        -(1.0 - self.uniform()).ln()
    }

    /// Normal of mean 0 and variance 1, by the sum of twelve uniforms: its tails beyond 6 are missing.
    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }

    /// Poisson of a mean.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        let (mut count, mut sum) = (0, self.exponential());
        while sum < mean {
            count += 1;
            sum += self.exponential();
        }
        count
    }
}

/// A hash of a number.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Keys that come with different frequencies.
pub(crate) struct Keys {
    /// The sums of their frequencies.
    sums: Vec<f64>,
}

impl Keys {
    /// Keys whose frequency falls with a power of their rank.
    pub(crate) fn zipf(count: usize, power: f64) -> Keys {
        Keys::of((1..=count).map(|rank| (rank as f64).powf(-power)))
    }

    /// Keys of which the first has a part of all requests, and the others share the rest evenly.
    pub(crate) fn one_heavy(count: usize, part: f64) -> Keys {
        let others = (1.0 - part) / (count - 1) as f64;
        Keys::of((0..count).map(|key| if key == 0 { part } else { others }))
    }

    fn of(frequencies: impl Iterator<Item = f64>) -> Keys {
        let sums = frequencies.scan(0.0, |sum, frequency| {
            *sum += frequency;
            Some(*sum)
        });
        Keys { sums: sums.collect() }
    }

    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let all = self.sums[self.sums.len() - 1];
        let at = random.uniform() * all;
        self.sums.partition_point(|sum| *sum <= at) as u64
    }
}
