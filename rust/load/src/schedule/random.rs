//! Random numbers by counter: word `i` of a seed is the same whatever was drawn before it, so that threads and hosts share a schedule.
//!
//! The words are those of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators").

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Word `index` of the sequence of a seed.
pub(crate) fn word(seed: u64, index: u64) -> u64 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(GOLDEN));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The upper 53 bits of a word as a share: 0 is possible, 1 is not.
pub(crate) fn share(word: u64) -> f64 {
    (word >> 11) as f64 * (-53f64).exp2()
}

/// What words are drawn for: each purpose has its own sequence of the same seed.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The gaps between due times.
    Arrival,
    /// Which request is sent.
    Mix,
    /// Which answers are compared.
    Check,
    /// Which requests ask for the server's phases.
    Timing,
}

impl Purpose {
    /// The seed of the sequence for this purpose. Arrivals have the seed itself.
    pub(crate) fn seed(self, seed: u64) -> u64 {
        match self {
            Purpose::Arrival => seed,
            Purpose::Mix => word(seed, u64::MAX),
            Purpose::Check => word(seed, u64::MAX - 1),
            Purpose::Timing => word(seed, u64::MAX - 2),
        }
    }
}

/// Whether entry `index` belongs to a sampled share of a sequence.
pub(crate) fn sampled(seed: u64, index: u64, wanted: f64) -> bool {
    wanted > 0.0 && share(word(seed, index)) < wanted
}

/// A gap of mean 1 of a Poisson process.
pub(crate) fn exponential(seed: u64, index: u64) -> f64 {
    -(-share(word(seed, index))).ln_1p()
}

/// A gap of mean 1 and coefficient of variation `cv` from a gamma distribution
/// (Marsaglia and Tsang 2000, "A simple method for generating gamma variables"; below shape 1 with their boost).
///
/// Each gap has a sequence of its own, because the method rejects a varying number of candidates.
pub(crate) fn gamma(seed: u64, index: u64, cv: f64) -> f64 {
    let shape = 1.0 / (cv * cv);
    let mut words = Words { seed: word(seed, index), next: 0 };
    let boost = if shape < 1.0 { words.open_share().powf(1.0 / shape) } else { 1.0 };
    let d = if shape < 1.0 { shape + 1.0 } else { shape } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = words.normal();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && words.open_share().ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v * boost / shape;
        }
    }
}

struct Words {
    seed: u64,
    next: u64,
}

impl Words {
    /// A share above 0 and at most 1, whose logarithm is finite.
    fn open_share(&mut self) -> f64 {
        self.next += 1;
        1.0 - share(word(self.seed, self.next - 1))
    }

    /// A number of the standard normal distribution (Box and Muller 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.open_share().ln()).sqrt();
        radius * (std::f64::consts::TAU * self.open_share()).cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_is_that_of_the_published_generator() {
        assert_eq!(word(42, 0), 0xbdd7_3226_2feb_6e95);
    }

    #[test]
    fn gamma_gaps_have_the_mean_and_the_variation_that_are_asked_for() {
        for cv in [0.3, 1.0, 2.0] {
            let gaps: Vec<f64> = (0..200_000).map(|index| gamma(7, index, cv)).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            assert!((mean - 1.0).abs() < 0.02, "cv {cv}: mean {mean}");
            assert!((variance.sqrt() / cv - 1.0).abs() < 0.03, "cv {cv}: {}", variance.sqrt());
        }
    }
}
