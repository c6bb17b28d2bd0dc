//! Divergences between two count vectors on the same slots. All are 0 for equal shares.
//!
//! Next: `contingency`.

use super::counts::{Count, shares, total};

/// The unit of an information measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Natural logarithm.
    Nats,
    /// Logarithm to base 2.
    Bits,
}

/// Shares with Jeffreys' half count per slot, `(c + 1/2) / (n + B/2)`, which are not 0 for an empty slot.
fn smoothed<'a, C: Count>(c: &'a [u64], d: &'a [C]) -> impl Iterator<Item = (f64, f64)> + 'a {
    debug_assert_eq!(c.len(), d.len(), "counts on different slots");
    let half = c.len() as f64 * 0.5;
    let (n, m) = (total(c) + half, total(d) + half);
    c.iter().zip(d).map(move |(&c, &d)| ((c as f64 + 0.5) / n, (d.value() + 0.5) / m))
}

/// The population stability index with Jeffreys smoothing: `sum (q - p) ln(q / p)`, in nats. Every slot counts, even if it is empty on
/// both sides. Without drift it is about `(1/n + 1/m)` times a chi-square with B-1 degrees of freedom.
pub fn psi<C: Count>(c: &[u64], d: &[C]) -> f64 {
    smoothed(c, d).map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

/// The population stability index without smoothing. Infinite if a slot is empty on one side only.
pub fn psi_raw(c: &[u64], d: &[u64]) -> f64 {
    shares(c, d).filter(|(p, q)| p != q).map(|(p, q)| (q - p) * (q / p).ln()).sum()
}

/// Kullback-Leibler divergence of `d` from `c`: `sum q ln(q / p)` in nats. Infinite if a slot has values of `d` only.
pub fn kl(c: &[u64], d: &[u64]) -> f64 {
    shares(c, d).filter(|(_, q)| *q > 0.0).map(|(p, q)| q * (q / p).ln()).sum()
}

/// [`kl`] with Jeffreys smoothing.
pub fn kl_smoothed(c: &[u64], d: &[u64]) -> f64 {
    smoothed(c, d).map(|(p, q)| q * (q / p).ln()).sum()
}

/// Jensen-Shannon divergence (Lin 1991), at most ln 2 nats or 1 bit.
pub fn jensen_shannon_divergence(c: &[u64], d: &[u64], unit: Unit) -> f64 {
    let nats: f64 = shares(c, d).map(|(p, q)| 0.5 * (towards_middle(p, q) + towards_middle(q, p))).sum();
    let nats = nats.max(0.0);
    match unit {
        Unit::Nats => nats,
        Unit::Bits => nats / std::f64::consts::LN_2,
    }
}

/// `p ln(p / ((p + q) / 2)) - (p - q) / 2`. The second terms of both sides cancel in the sum, and keep the digits of nearly equal
/// shares.
fn towards_middle(p: f64, q: f64) -> f64 {
    let middle = 0.5 * (p + q);
    if p <= 0.0 {
        return middle;
    }
    let u = (p - middle) / middle;
    middle * ((1.0 + u) * u.ln_1p() - u)
}

/// Jensen-Shannon distance, the square root of the divergence in that unit. Values in nats are 0.8326 of those in bits.
pub fn jensen_shannon_distance(c: &[u64], d: &[u64], unit: Unit) -> f64 {
    jensen_shannon_divergence(c, d, unit).sqrt()
}

/// Hellinger distance `sqrt(1/2 sum (sqrt p - sqrt q)^2)`, 0 to 1.
pub fn hellinger(c: &[u64], d: &[u64]) -> f64 {
    let sum: f64 = shares(c, d).map(|(p, q)| (p.sqrt() - q.sqrt()).powi(2)).sum();
    (0.5 * sum).sqrt()
}

/// Total variation `1/2 sum |p - q|`, 0 to 1.
pub fn total_variation(c: &[u64], d: &[u64]) -> f64 {
    0.5 * shares(c, d).map(|(p, q)| (p - q).abs()).sum::<f64>()
}

/// The largest difference of shares, `max |p - q|`.
pub fn l_infinity(c: &[u64], d: &[u64]) -> f64 {
    shares(c, d).map(|(p, q)| (p - q).abs()).fold(0.0, f64::max)
}
