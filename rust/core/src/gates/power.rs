//! What so much data can show: the chance that a test has caught a challenger with a given ratio, and the requests that it takes.
//!
//! ln of the likelihood ratio against an alternative is a sum over events, and is taken as a Brownian motion with the same mean and
//! variance. It is caught when the sum first reaches ln of the threshold and of the wager's part, whose probability is that of the
//! inverse Gaussian distribution (Chhikara and Folks 1989). The alternative that is reached first counts.

use crate::stats::event_ratio::ALTERNATIVES;
use crate::stats::normal;

use super::timeline::Exposed;

/// The greatest ratio that is asked about.
const GREATEST: f64 = 1_000.0;

/// The probability that a challenger with `ratio` times the champion's rate `base` is caught at `threshold` by what it was exposed to.
pub fn caught(exposed: &[Exposed], base: f64, ratio: f64, threshold: f64) -> f64 {
    let ln_needed = ln_needed(threshold);
    let by = |alternative: f64| {
        let (mut mean, mut variance) = (0.0, 0.0);
        for part in exposed {
            let (m, v) = drift(part.exposure, base, ratio, alternative);
            mean += part.requests as f64 * m;
            variance += part.requests as f64 * v;
        }
        reached(ln_needed, mean, variance)
    };
    ALTERNATIVES.into_iter().map(by).fold(0.0, f64::max)
}

/// The requests of the challenger at `exposure` with which one of `ratio` times the rate `base` is caught with `probability`; `None` if
/// it takes more than 10^12.
pub fn requests_to_catch(
    exposure: f64,
    base: f64,
    ratio: f64,
    threshold: f64,
    probability: f64,
) -> Option<u64> {
    const MOST: u64 = 1_000_000_000_000;
    let is_enough =
        |requests: u64| caught(&[Exposed { requests, exposure }], base, ratio, threshold) >= probability;
    if !is_enough(MOST) {
        return None;
    }
    let (mut few, mut enough) = (0, MOST);
    while enough - few > 1 {
        let middle = u64::midpoint(few, enough);
        if is_enough(middle) { enough = middle } else { few = middle }
    }
    Some(enough)
}

/// The smallest ratio that is caught with `probability`; `None` if it is over 1000.
pub fn detectable(exposed: &[Exposed], base: f64, threshold: f64, probability: f64) -> Option<f64> {
    const HALVINGS: usize = 50;
    let is_caught = |ratio: f64| caught(exposed, base, ratio, threshold) >= probability;
    // A rate is at most 1.
    let greatest = GREATEST.min(1.0 / base);
    if greatest <= 1.0 || !is_caught(greatest) {
        return None;
    }
    let (mut low, mut high) = (0.0, greatest.ln());
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if is_caught(middle.exp()) { high = middle } else { low = middle }
    }
    Some(high.exp())
}

/// What an alternative has to win: the first block brings half of the wager into play, each alternative has its part of it.
fn ln_needed(threshold: f64) -> f64 {
    (threshold * 2.0 * ALTERNATIVES.len() as f64).ln()
}

/// Mean and variance of what a request of the challenger adds to ln of the likelihood ratio against an alternative.
fn drift(exposure: f64, base: f64, ratio: f64, alternative: f64) -> (f64, f64) {
    let champion = -(exposure * (alternative - 1.0)).ln_1p();
    let challenger = alternative.ln() + champion;
    let (of_champion, of_challenger) = (base * (1.0 - exposure) / exposure, base * ratio);
    let mean = of_challenger * challenger + of_champion * champion;
    (mean, of_challenger * challenger * challenger + of_champion * champion * champion)
}

/// The probability that a Brownian motion has reached `level` when its mean is `mean` and its variance `variance`.
fn reached(level: f64, mean: f64, variance: f64) -> f64 {
    if variance <= 0.0 || mean <= 0.0 {
        return 0.0;
    }
    let deviation = variance.sqrt();
    let beyond = (2.0 * mean * level / variance).exp() * normal::cdf((-mean - level) / deviation);
    let tail = if beyond.is_finite() { beyond } else { 0.0 };
    (normal::cdf((mean - level) / deviation) + tail).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulated medians at threshold 200 and a base rate of 0.2 %, by exposure: of 2, 5 and 10 times the rate.
    const MEDIANS: [(f64, [u64; 3]); 3] =
        [(0.05, [8_900, 1_010, 260]), (0.25, [11_800, 1_300, 440]), (0.5, [17_400, 1_970, 760])];

    #[test]
    fn medians_are_those_of_a_simulation_within_30_percent() {
        for (exposure, medians) in MEDIANS {
            for (ratio, median) in [2.0, 5.0, 10.0].into_iter().zip(medians) {
                let found = requests_to_catch(exposure, 0.002, ratio, 200.0, 0.5).unwrap();
                let part = found as f64 / median as f64;
                assert!((0.7..1.3).contains(&part), "{ratio} at {exposure}: {found} in place of {median}");
            }
        }
    }

    #[test]
    fn more_data_catches_smaller_ratios() {
        let with = |requests| detectable(&[Exposed { requests, exposure: 0.05 }], 0.002, 400.0, 0.8);
        assert_eq!(with(1), None);
        let (few, many) = (with(1_000).unwrap(), with(20_000).unwrap());
        assert!(many > 1.2 && many < few && few < 12.0, "{many} {few}");
        let at = |ratio| caught(&[Exposed { requests: 1_000, exposure: 0.05 }], 0.002, ratio, 400.0);
        assert!((at(few) - 0.8).abs() < 1e-6 && at(1.0) < 0.01 && at(0.5) == 0.0);
        assert_eq!(detectable(&[], 0.002, 400.0, 0.8), None);
    }
}
